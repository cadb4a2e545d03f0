"""A running stage is watched: everything is scraped, every panel has data, alerts have rules."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import quote

import pytest

from infra import members
from migration_job.dashboard.panels import Query, boards
from migration_job.dashboard.server import Prometheus
from tests.deployment.provisioned.conftest import Provisioned, until

pytestmark = [
    pytest.mark.pulumi,
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("docker"),
]


@pytest.fixture(autouse=True)
def _watched(stage: Provisioned) -> None:
    if not stage.settings.monitoring:
        pytest.skip("the stage file has monitoring: false")


def test_everything_is_scraped(stage: Provisioned) -> None:
    wanted = {"prometheus", "postgres", "pgbouncer"}
    wanted |= {"migration"} if stage.names.sync in stage.expected() else set()
    wanted |= {"backup"} if stage.settings.backup else set()
    wanted |= {"drill"} if stage.settings.backup_drill_hours else set()
    wanted |= {"members", "etcd"} if members.of(stage.settings, stage.names) else set()
    health: dict[str, str] = {}

    def up() -> bool:
        targets = stage.api(stage.settings.prometheus_port, "/api/v1/targets")["activeTargets"]
        health.clear()
        health.update({one["labels"]["job"]: one["health"] for one in targets})
        return {job for job, state in health.items() if state == "up"} >= wanted

    until(up, f"all of {sorted(wanted)} to be scraped, found {health}")


def test_the_alert_rules_are_loaded_and_sound(stage: Provisioned) -> None:
    groups = stage.api(stage.settings.prometheus_port, "/api/v1/rules")["groups"]
    rules = {rule["name"]: rule for group in groups for rule in group["rules"]}
    wanted = {"PostgresDown", "PoolSaturated", "ConnectionsNearLimit", "WindowAboutToEnd"}
    wanted |= {"BackupFailed", "BackupLate"} if stage.settings.backup else set()
    wanted |= {"DrillFailed", "DrillLate"} if stage.settings.backup_drill_hours else set()
    if members.of(stage.settings, stage.names):
        wanted |= {"NobodyLeads", "MemberMissing", "NoSynchronousStandby", "EtcdMemberMissing"}
    assert rules.keys() >= wanted
    assert {name: rule["lastError"] for name, rule in rules.items() if rule.get("lastError")} == {}


def test_nothing_critical_is_wrong(stage: Provisioned) -> None:
    def firing() -> list[str]:
        alerts = stage.api(stage.settings.prometheus_port, "/api/v1/alerts")["alerts"]
        return [
            one["labels"]["alertname"]
            for one in alerts
            if one["state"] == "firing" and one["labels"]["severity"] == "critical"
        ]

    # A stage that has just come up has no backup yet, and one that was watched before it was up
    # has reason to complain for a moment.
    until(lambda: firing() == [], "no critical alert")


def test_alertmanager_answers_and_prometheus_knows_it(stage: Provisioned) -> None:
    status = json.loads(stage.page(stage.settings.alertmanager_port, "/api/v2/status"))
    assert "operator" in status["config"]["original"]
    known = stage.api(stage.settings.prometheus_port, "/api/v1/alertmanagers")
    assert len(known["activeAlertmanagers"]) == 1


def _answers(stage: Provisioned, expression: str) -> list[Any]:
    address = f"http://{stage.settings.bind_address}:{stage.settings.prometheus_port}"
    try:
        return Prometheus(address).range(Query(expression), now=time.time())
    except OSError:
        return []


def test_every_panel_shows_data(stage: Provisioned) -> None:
    stage.reachable(stage.settings.prometheus_port)
    several = bool(members.of(stage.settings, stage.names))
    shown = boards(backup=stage.settings.backup, members=several)
    missing = [
        query.expression for board in shown for panel in board.panels for query in panel.queries
    ]

    def answered() -> bool:
        missing[:] = [one for one in missing if not _answers(stage, one)]
        return not missing

    until(answered, f"data for every panel, found none for {missing}")


def test_prometheus_knows_the_phase(stage: Provisioned) -> None:
    phase = "switched" if stage.switched else "caught up"
    stage.needs(stage.names.sync)
    words = quote(f'migration_phase{{phase="{phase}"}} == 1')
    path = f"/api/v1/query?query={words}"
    until(
        lambda: bool(stage.api(stage.settings.prometheus_port, path)["result"]),
        f"the phase {phase!r} in Prometheus",
    )


def test_the_panels_are_served(stage: Provisioned) -> None:
    there = {container.name for container in stage.services()}
    if f"{stage.names.prefix}-grafana" in there:
        found = json.loads(stage.page(stage.settings.dashboard_port, "/api/search?type=dash-db"))
        assert {"stage-database", "stage-migration"} <= {one["uid"] for one in found}
        return
    assert b"<html" in stage.page(stage.settings.dashboard_port, "/")
