"""Grafana's provisioning: the panels of ``migration_job.dashboard.panels`` as its dashboards.

The panels are data that the job and the program both read; nothing else of the job is used here.
The dashboard's JSON model: https://grafana.com/docs/grafana/latest/dashboards/build-dashboards/view-dashboard-json-model/
"""

from __future__ import annotations

import json
from typing import Any

from migration_job.dashboard.panels import Board, Panel, boards

DATASOURCE = {"type": "prometheus", "uid": "stage"}
COLUMNS = 3
GRID_WIDTH = 24
PANEL_HEIGHT = 8


def files(stage: str, prometheus: str, *, backup: bool, members: bool = False) -> dict[str, str]:
    """Path below ``/etc/grafana/provisioning`` to content. ``prometheus`` is its ``http`` URL."""
    datasource = {
        "apiVersion": 1,
        "datasources": [
            {
                "name": "Stage",
                "uid": DATASOURCE["uid"],
                "type": DATASOURCE["type"],
                "url": prometheus,
                "access": "proxy",
                "isDefault": True,
                "editable": False,
            }
        ],
    }
    provider = {
        "apiVersion": 1,
        "providers": [
            {
                "name": "stage",
                "type": "file",
                "disableDeletion": True,
                "options": {"path": "/etc/grafana/provisioning/dashboards"},
            }
        ],
    }
    # JSON is YAML, and nothing of it needs quoting by hand.
    return {
        "datasources/stage.yaml": json.dumps(datasource, indent=2),
        "dashboards/stage.yaml": json.dumps(provider, indent=2),
        **{
            f"dashboards/{board.name}.json": json.dumps(dashboard(board, stage), indent=2)
            for board in boards(backup=backup, members=members)
        },
    }


def dashboard(board: Board, stage: str) -> dict[str, Any]:
    """One board as Grafana's dashboard model."""
    return {
        "uid": f"stage-{board.name}",
        "title": f"{board.title} - {stage}",
        "tags": ["sqlite-to-postgresql", stage],
        "timezone": "browser",
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "schemaVersion": 39,
        "editable": False,
        "panels": [_panel(panel, number) for number, panel in enumerate(board.panels)],
    }


def _panel(panel: Panel, number: int) -> dict[str, Any]:
    width = GRID_WIDTH // COLUMNS
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.help,
        "datasource": DATASOURCE,
        "gridPos": {
            "x": number % COLUMNS * width,
            "y": number // COLUMNS * PANEL_HEIGHT,
            "w": width,
            "h": PANEL_HEIGHT,
        },
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "expr": query.expression,
                "legendFormat": query.legend,
                "datasource": DATASOURCE,
            }
            for index, query in enumerate(panel.queries)
        ],
    }
