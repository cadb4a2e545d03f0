"""The policy pack by the real Pulumi CLI: what it refuses is refused before anything is there."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from tests.deployment.engine import client_or_skip
from tests.deployment.workshop import ROOT, Workshop, require_pulumi

pytestmark = [
    pytest.mark.pulumi,
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("docker"),
]

PACK = ROOT / "policy"
OPENED = (
    # What no setting can do, a change of the program can.
    ("infra/containers.py", '"memory": service.memory // MEBIBYTE,', '"memory": None,'),
    ("infra/containers.py", "healthcheck=_health(", "healthcheck=None and _health("),
    ("infra/servers.py", "image=parts.images.pooler,", 'image="pooler:latest",'),
    ("config_templates/pg_hba.conf.j2", "}} scram-sha-256", "}} md5"),
    ("config_templates/pgbouncer.ini.j2", "auth_type = scram-sha-256", "auth_type = md5"),
)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A stage called production, in a backend of the test's own; it is only previewed."""
    require_pulumi()
    client = client_or_skip()
    directory = tmp_path_factory.mktemp("policy")
    source = directory / "data" / "radcase.db"
    source.parent.mkdir()
    with closing(sqlite3.connect(source)) as made:
        made.execute("CREATE TABLE cases (id INTEGER PRIMARY KEY)")
    return Workshop(
        directory,
        client,
        stage="production",
        source=str(source),
        profile="radcase",
        cutover="hold",
        tls="private",
        protectData=True,
    )


def test_a_closed_production_passes(workshop: Workshop) -> None:
    done = workshop.preview(policy_pack=PACK)
    assert not done.failed, done.output
    assert "found no `postgresImage`" in done.output, "warned, and not refused"


def test_an_open_production_is_refused_with_every_reason(workshop: Workshop) -> None:
    workshop.set(
        bindAddress="0.0.0.0",  # noqa: S104
        connectionHost="db.example.org",
        tls="off",
        protectData=False,
    )
    for name, closed, opened in OPENED:
        file = workshop.directory / name
        text = file.read_text()
        assert closed in text, (name, closed)
        file.write_text(text.replace(closed, opened))
    done = workshop.preview(policy_pack=PACK)
    assert done.failed
    for reason in (
        "on one address, found all of them",
        "to have a memory limit, found none",
        "to have a health check, found none",
        "image by digest, found pooler:latest",
        "expected scram-sha-256 in",
        "expected auth_type = scram-sha-256",
        "expected hostssl in",
        "expected client_tls_sslmode to demand TLS",
        "expected ssl = on in",
        "of production to be protected, found it is not",
    ):
        assert reason in done.output, reason
    assert workshop.left() == []
