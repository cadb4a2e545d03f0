"""Grafana's provisioning holds every panel once, with its queries, and is what Grafana reads."""

from __future__ import annotations

import json

import yaml

from infra import grafana
from migration_job.dashboard.panels import BACKUP, DATABASE, MIGRATION


def test_every_panel_and_query_is_provisioned() -> None:
    files = grafana.files("staging", "http://prometheus:9090", backup=True)
    for board in (DATABASE, MIGRATION, BACKUP):
        model = json.loads(files[f"dashboards/{board.name}.json"])
        assert [panel["title"] for panel in model["panels"]] == [p.title for p in board.panels]
        expressions = [t["expr"] for panel in model["panels"] for t in panel["targets"]]
        assert expressions == [q.expression for p in board.panels for q in p.queries]
        assert len({json.dumps(panel["gridPos"]) for panel in model["panels"]}) == len(board.panels)


def test_the_datasource_is_the_one_that_the_panels_name() -> None:
    files = grafana.files("staging", "http://prometheus:9090", backup=False)
    (source,) = yaml.safe_load(files["datasources/stage.yaml"])["datasources"]
    assert source["url"] == "http://prometheus:9090"
    panel = json.loads(files["dashboards/migration.json"])["panels"][0]
    assert panel["datasource"]["uid"] == source["uid"]


def test_backups_are_shown_only_where_there_are_some() -> None:
    assert "dashboards/backup.json" not in grafana.files("dev", "http://p:9090", backup=False)
