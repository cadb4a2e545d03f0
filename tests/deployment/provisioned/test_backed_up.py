"""A running stage is backed up: its log is archived, and there is a backup to restore."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from infra import drill
from infra.backup import STANZA
from infra.execution import execute
from infra.monitoring import BACKUP_METRICS_PORT
from tests.deployment.engine import output
from tests.deployment.provisioned.conftest import Provisioned, until

pytestmark = [
    pytest.mark.pulumi,
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("docker"),
]


@pytest.fixture(autouse=True)
def _backed_up(stage: Provisioned) -> None:
    if not stage.settings.backup:
        pytest.skip("the stage file has backup: false")


def _stanza(stage: Provisioned) -> dict[str, Any]:
    words = ["pgbackrest", f"--stanza={STANZA}", "info", "--output=json"]
    done = execute(stage.container(stage.names.backup), words)
    found = json.loads(output(done)) if done.exit_code == 0 else []
    return dict(found[0]) if found else {}


def test_there_is_a_full_backup(stage: Provisioned) -> None:
    until(
        lambda: any(one["type"] == "full" for one in _stanza(stage).get("backup", ())),
        "a full backup",
    )
    stanza = _stanza(stage)
    assert stanza["status"]["code"] == 0, stanza["status"]
    assert stanza["cipher"] == "aes-256-cbc"
    assert not any(one["error"] for one in stanza["backup"])


def test_the_log_is_archived(stage: Provisioned) -> None:
    """`check` has a segment of just now archived, and ends when it has come."""
    test_there_is_a_full_backup(stage)
    words = ["pgbackrest", f"--stanza={STANZA}", "check"]
    done = execute(stage.container(stage.names.backup), words)
    assert done.exit_code == 0, output(done)
    assert stage.query("SELECT archived_count > 0 FROM pg_stat_archiver") == "t"
    assert stage.query("SHOW archive_mode") == "on"


def test_the_backups_tell_their_metrics(stage: Provisioned) -> None:
    container = stage.container(stage.names.backup)
    program = (
        "import urllib.request as u; "
        f"print(u.urlopen('http://127.0.0.1:{BACKUP_METRICS_PORT}/metrics').read().decode())"
    )
    until(
        lambda: b"backup_last_success 1" in execute(container, ["python3", "-c", program]).output,
        "a successful backup in the metrics",
    )


def test_the_backups_logs_are_structured(stage: Provisioned) -> None:
    for name in {stage.names.backup, stage.names.drill} & stage.expected():
        for line in stage.container(name).logs(tail=200).decode().splitlines():
            assert json.loads(line).keys() >= {"time", "message"}, (name, line)


def test_the_backups_can_be_restored(stage: Provisioned) -> None:
    """The last restore drill passed; the first one may be under way."""
    container = stage.needs(stage.names.drill)
    until(
        lambda: drill.record(container)["last"] is not None,
        "the first restore drill to come to its end",
    )
    said = drill.record(container)
    assert said["last"]["failure"] == "", drill.told(said, time.time())
