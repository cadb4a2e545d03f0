"""Every alert fires on what it is for and stays silent otherwise, as promtool itself judges it."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from infra import rendering
from tests.browser import lacking

RULES = {
    "stage": "test",
    "connections_ratio": 0.85,
    "disk_bytes": 1_000_000,
    "disk_ratio": 0.8,
    "lag_seconds": 60,
    "window_warning_seconds": 7200,
    "follows": True,
    "backup": True,
    "backup_late_seconds": 108_000,
    "drill": True,
    "drill_late_seconds": 93_600,
    "members": 3,
    "member_lag_bytes": 1000,
}

UP = {"pg_up": "1x60", "pgbouncer_up": "1x60", "migration_heartbeat_timestamp_seconds": "0+60x60"}
BACKED_UP = {
    "backup_last_success_timestamp_seconds": "0+60x60",
    "drill_last_success_timestamp_seconds": "0+60x60",
}
SWITCHED = {'migration_phase{phase="switched"}': "1x60"}
LIVE = {'migration_phase{phase="switched"}': "0x60"}
MEMBERS = {
    'patroni_primary{instance="1"}': "1x60",
    'patroni_primary{instance="2"}': "0x60",
    'patroni_postgres_running{instance="1"}': "1x60",
    'patroni_postgres_running{instance="2"}': "1x60",
    'patroni_postgres_running{instance="3"}': "1x60",
    'patroni_sync_standby{instance="2"}': "1x60",
    'up{job="etcd",instance="1"}': "1x60",
    'up{job="etcd",instance="2"}': "1x60",
    'up{job="etcd",instance="3"}': "1x60",
}
LAGGING = {
    'patroni_xlog_location{instance="1"}': "9000x60",
    'patroni_replica{instance="3"}': "1x60",
}
HEALTHY = UP | BACKED_UP | MEMBERS


@dataclass(frozen=True)
class Case:
    """Series (values a minute apart) under which the alert fires at 30 minutes, and is silent."""

    alert: str
    fires: dict[str, str]
    silent: dict[str, str]


CASES = [
    Case("PostgresDown", {"pg_up": "0x60"}, {"pg_up": "1x60"}),
    Case(
        "ConnectionsNearLimit",
        {"pg_stat_database_numbackends": "90x60", "pg_settings_max_connections": "100x60"},
        {"pg_stat_database_numbackends": "80x60", "pg_settings_max_connections": "100x60"},
    ),
    Case(
        "DatabaseFillsItsDisk",
        {"pg_database_size_bytes": "900000x60"},
        {"pg_database_size_bytes": "700000x60"},
    ),
    Case("PoolerDown", {"pgbouncer_up": "0x60"}, {"pgbouncer_up": "1x60"}),
    Case(
        "PoolSaturated",
        {'pgbouncer_pools_client_waiting_connections{database="radcase"}': "3x60"},
        {'pgbouncer_pools_client_waiting_connections{database="radcase"}': "0x60"},
    ),
    Case(
        "SyncStopped",
        {"migration_heartbeat_timestamp_seconds": "0x60"},
        {"migration_heartbeat_timestamp_seconds": "0+60x60"},
    ),
    Case("SourceNotWhole", {"migration_source_whole": "0x60"}, {"migration_source_whole": "1x60"}),
    Case(
        "HoldIsOver",
        {"migration_hold_left_seconds": "-60x60"},
        {"migration_hold_left_seconds": "60x60"},
    ),
    Case(
        "TrafficHeld",
        {"migration_traffic_held": "1x60", "migration_hold_left_seconds": "0x60"},
        {"migration_traffic_held": "1x60", "migration_hold_left_seconds": "600x60"},
    ),
    Case(
        "MigrationLag",
        {'migration_lag_seconds{direction="forward"}': "90x60"},
        {'migration_lag_seconds{direction="forward"}': "3x60"},
    ),
    Case(
        "WayBackLag",
        {'migration_lag_seconds{direction="reverse"}': "90x60"},
        {'migration_lag_seconds{direction="reverse"}': "3x60"},
    ),
    Case(
        "WayBackStopped",
        {"migration_way_back_running": "0x60"} | SWITCHED,
        {"migration_way_back_running": "0x60"} | LIVE,
    ),
    Case(
        "RowsDoNotComeBack",
        {"migration_back_differences": "1x60"},
        {"migration_back_differences": "0x60"},
    ),
    Case(
        "SchemaDoesNotComeBack",
        {"migration_one_way_tables": "1x60"},
        {"migration_one_way_tables": "0x60"},
    ),
    Case("DifferencesFound", {"migration_differences": "2x60"}, {"migration_differences": "0x60"}),
    Case(
        "WindowAboutToEnd",
        {"migration_window_left_seconds": "3600x60"} | SWITCHED,
        {"migration_window_left_seconds": "90000x60"} | SWITCHED,
    ),
    Case(
        "NobodyLeads",
        {'patroni_primary{instance="1"}': "0x60"},
        {'patroni_primary{instance="1"}': "1x60"},
    ),
    Case(
        "MemberMissing",
        {'patroni_postgres_running{instance="3"}': "0x60"},
        {'patroni_postgres_running{instance="3"}': "1x60"},
    ),
    Case(
        "NoSynchronousStandby",
        {'patroni_sync_standby{instance="2"}': "0x60"},
        {'patroni_sync_standby{instance="2"}': "1x60"},
    ),
    Case(
        "MemberLags",
        LAGGING | {'patroni_xlog_replayed_location{instance="3",name="postgres-3"}': "7000x60"},
        LAGGING | {'patroni_xlog_replayed_location{instance="3",name="postgres-3"}': "8500x60"},
    ),
    Case(
        "EtcdMemberMissing",
        {'up{job="etcd",instance="2"}': "0x60"},
        {'up{job="etcd",instance="2"}': "1x60"},
    ),
    Case("BackupFailed", {"backup_last_success": "0x60"}, {"backup_last_success": "1x60"}),
    Case(
        "BackupLate",
        {"backup_last_success_timestamp_seconds": "-200000x60"},
        {"backup_last_success_timestamp_seconds": "0+60x60"},
    ),
    Case("DrillFailed", {"drill_last_success": "0x60"}, {"drill_last_success": "1x60"}),
    Case(
        "DrillLate",
        {"drill_last_success_timestamp_seconds": "-200000x60"},
        {"drill_last_success_timestamp_seconds": "0+60x60"},
    ),
    Case(
        "ArchivingFails",
        {"pg_stat_archiver_failed_count": "0+1x60"},
        {"pg_stat_archiver_failed_count": "5x60"},
    ),
]


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        lacking("promtool is not installed (Debian: apt-get install prometheus)")
    return found


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "alerts.yml"
    path.write_text(rendering.render("alerts.yml.j2", **RULES))
    return path


def test_every_alert_has_a_case(rules: Path) -> None:
    groups = yaml.safe_load(rules.read_text())["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"]}
    assert alerts == {case.alert for case in CASES}


def test_every_alert_says_what_to_do(rules: Path) -> None:
    for group in yaml.safe_load(rules.read_text())["groups"]:
        for rule in group["rules"]:
            assert rule["annotations"]["summary"], rule["alert"]
            assert rule["annotations"]["action"], rule["alert"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.alert)
@pytest.mark.parametrize("fires", [True, False], ids=["fires", "silent"])
def test_alert(case: Case, fires: bool, rules: Path, promtool: str, tmp_path: Path) -> None:
    series = HEALTHY | (case.fires if fires else case.silent)
    checked = tmp_path / "test.yml"
    checked.write_text(
        yaml.safe_dump(
            {
                "rule_files": [str(rules)],
                "tests": [
                    {
                        "interval": "1m",
                        "input_series": [
                            {"series": name, "values": values} for name, values in series.items()
                        ],
                        "promql_expr_test": [
                            {
                                "expr": (
                                    f'count(ALERTS{{alertname="{case.alert}",alertstate="firing"}})'
                                ),
                                "eval_time": "30m",
                                "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
                            }
                        ],
                    }
                ],
            }
        )
    )
    done = subprocess.run(
        [promtool, "test", "rules", str(checked)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
