"""A stage in earnest: closed by TLS, watched, backed up, and restored to a moment."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import docker
import psycopg
import pytest
from docker.models.containers import Container

from infra.execution import execute
from migration_job.demo.radcase import make_radcase
from tests.deployment.engine import client_or_skip, name_of, output
from tests.deployment.ports import free_port
from tests.deployment.workshop import Result, Workshop, check, require_pulumi, run

pytestmark = [
    pytest.mark.pulumi,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("docker"),
]

LIMIT_SECONDS = 240


class Hook(ThreadingHTTPServer):
    """Where Alertmanager is told to send alerts: the engine's host, as containers reach it."""

    def __init__(self, client: docker.DockerClient) -> None:
        bridge = client.networks.get("bridge").attrs["IPAM"]["Config"][0]
        host = str(bridge.get("Gateway") or bridge["Subnet"].rsplit(".", 1)[0] + ".1")
        self.received: list[dict[str, Any]] = []
        super().__init__((host, 0), _Received)
        self.address = f"http://{host}:{self.server_port}/secretWord"


class _Received(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        self.server.received.append(
            json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        )
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def hook() -> Iterator[Hook]:
    with Hook(client_or_skip()) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def workshop(hook: Hook, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    require_pulumi()
    client = client_or_skip()
    directory = tmp_path_factory.mktemp("earnest")
    source = directory / "data" / "radcase.db"
    source.parent.mkdir()
    make_radcase(source, rows=3000, seed=11)
    ports = ("prometheusPort", "alertmanagerPort", "dashboardPort", "restorePort")
    made = Workshop(
        directory,
        client,
        source=str(source),
        profile="radcase",
        tls="private",
        monitoring=True,
        backup=True,
        backupDrillHours=24,
    )
    made.set(**{port: free_port() for port in ports})
    made.set_secret("alertWebhook", hook.address)
    yield made
    restored = f"{made.names.prefix}-restored"
    for container in client.containers.list(all=True, filters={"name": restored}):
        container.remove(force=True, v=True)
    made.clear()


@pytest.fixture(scope="module")
def up(workshop: Workshop) -> Result:
    done = workshop.up()
    assert not done.failed, done.output
    return done


def address(up: Result, workshop: Workshop, **more: str) -> str:
    out = up.outputs
    words: dict[str, Any] = {
        "host": out["host"],
        "port": int(out["port"]),
        "dbname": out["database"],
        "user": out["user"],
        "password": out["password"],
        "sslmode": "verify-full",
        "sslrootcert": str(workshop.connection / "ca.crt"),
    }
    return psycopg.conninfo.make_conninfo(**{**words, **more})


def containers(workshop: Workshop) -> list[Container]:
    prefix = f"{workshop.names.prefix}-"
    return [c for c in workshop.client.containers.list() if name_of(c).startswith(prefix)]


# ---------------------------------------------------------------------------------- closed


def test_the_application_speaks_tls_and_nothing_else(workshop: Workshop, up: Result) -> None:
    with psycopg.connect(address(up, workshop)) as connection:
        assert connection.execute("SELECT count(*) > 0 FROM cases").fetchone() == (True,)
    with pytest.raises(psycopg.OperationalError, match="SSL required"):
        psycopg.connect(address(up, workshop, sslmode="disable"))
    straight = str(up.outputs["postgresPort"]).partition(".")[0]
    with pytest.raises(psycopg.OperationalError, match="no encryption"):
        psycopg.connect(address(up, workshop, port=straight, sslmode="disable"))


REFUSED = r"(?i)permission|must be|denied|schema \"privileges\" does not exist"
"""From PostgreSQL 15 on nothing is lent to the job that a role could reach for."""


def test_the_applications_role_has_dml_and_no_more(workshop: Workshop, up: Result) -> None:
    refused = (
        "CREATE TABLE mine (i int)",
        "ALTER TABLE cases ADD COLUMN mine int",
        "DROP TABLE cases",
        "TRUNCATE cases",
        "SELECT * FROM migration.ledger",
        "UPDATE migration.fence SET closed = false",
        "CREATE ROLE mine",
        "SET ROLE postgres",
        "SELECT pg_read_file('/etc/passwd')",
        "COPY cases TO PROGRAM 'true'",
        "SELECT rolpassword FROM pg_authid",
        "SET session_replication_role = replica",
        "SELECT privileges.act_as_replica()",
        "CREATE EXTENSION dblink",
    )
    with psycopg.connect(address(up, workshop), autocommit=True) as connection:
        for statement in refused:
            with pytest.raises(psycopg.Error, match=REFUSED):
                connection.execute(statement.encode())


def test_containers_are_bounded_and_hold_nothing_open(workshop: Workshop, up: Result) -> None:
    found = containers(workshop)
    assert len(found) >= 10
    for container in found:
        host = container.attrs["HostConfig"]
        name = container.name
        assert host["ReadonlyRootfs"], name
        assert host["CapDrop"] == ["ALL"], name
        assert "no-new-privileges:true" in host["SecurityOpt"], name
        assert host["Memory"] > 0, name
        assert host["PidsLimit"] > 0, name
        assert host["LogConfig"]["Config"]["max-size"], name
        assert not host["Privileged"], name
        for bindings in (host["PortBindings"] or {}).values():
            assert {binding["HostIp"] for binding in bindings} == {"127.0.0.1"}, name
    secret = str(up.outputs["password"])
    assert not any(secret in str(container.attrs) for container in found)
    assert not any(secret.encode() in container.logs() for container in found)
    assert secret not in workshop.export()


def test_passwords_rotate_under_the_application(workshop: Workshop, up: Result) -> None:
    before = address(up, workshop)
    with psycopg.connect(before, autocommit=True) as held:
        workshop.set(credentialsVersion=2)
        rotated = workshop.up()
        assert not rotated.failed, rotated.output
        # Whoever has not read the connection again is still served, old session and new.
        assert held.execute("SELECT 1").fetchone() == (1,)
        psycopg.connect(before).close()
    after = address(rotated, workshop)
    assert rotated.outputs["user"] != up.outputs["user"]
    text = (workshop.connection / "database.env").read_text()
    assert f"DB_PASSWORD={rotated.outputs['password']}" in text
    with psycopg.connect(after) as connection:
        assert connection.execute("SELECT count(*) > 0 FROM cases").fetchone() == (True,)
    assert _module(workshop, "infra.rotate").returncode == 0
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(before)
    psycopg.connect(after).close()


# ---------------------------------------------------------------------- watched, and all of it


def test_check_passes_with_all_of_it_on(workshop: Workshop, up: Result) -> None:
    """Every target is scraped, every panel has data, there is a backup, nothing is open."""
    said = check(workshop)
    skipped = [line for line in said.splitlines() if line.startswith("SKIPPED")]
    # Stages with them: test_gate_on_docker.py, test_members.py.
    without = ("has no gate", "has postgresMembers: 1")
    assert [line for line in skipped if not any(words in line for words in without)] == []


def test_an_alert_reaches_the_operator(workshop: Workshop, up: Result, hook: Hook) -> None:
    address = f"http://127.0.0.1:{workshop.settings['alertmanagerPort']}/api/v2/alerts"
    alert = [{"labels": {"alertname": "Tried", "severity": "warning"}}]
    request = urllib.request.Request(
        address, json.dumps(alert).encode(), {"Content-Type": "application/json"}
    )
    urllib.request.urlopen(request, timeout=10).close()  # noqa: S310

    def told() -> set[str]:
        return {
            one["labels"]["alertname"] for message in hook.received for one in message["alerts"]
        }

    deadline = time.monotonic() + LIMIT_SECONDS
    while "Tried" not in told():
        assert time.monotonic() < deadline, hook.received
        time.sleep(0.1)
    assert "secretWord" not in workshop.export()


# ------------------------------------------------------------------------------- backed up


def _sql(container: Container, statement: str) -> str:
    ended = execute(
        container,
        [
            "bash",
            "-c",
            'export PGPASSWORD="$(</etc/postgresql/superuser-password)"; '
            'psql -h /var/run/postgresql -U postgres -d radcase -Atc "$SQL"',
        ],
        environment={"SQL": statement},
    )
    said = output(ended).strip()
    assert ended.exit_code == 0, said
    return said


def test_a_dropped_table_comes_back_as_of_the_second_before(workshop: Workshop, up: Result) -> None:
    database = workshop.client.containers.get(workshop.names.postgres)
    backups = workshop.client.containers.get(workshop.names.backup)
    deadline = time.monotonic() + LIMIT_SECONDS
    listed = ["pgbackrest", "--stanza=main", "info", "--output=json"]
    while b'"type":"full"' not in execute(backups, listed).output:
        assert time.monotonic() < deadline, backups.logs().decode()
        time.sleep(0.5)
    _sql(
        database, "CREATE TABLE drill AS SELECT i, md5(i::text) AS t FROM generate_series(1,5000) i"
    )
    wanted = _sql(database, "SELECT md5(string_agg(t, '' ORDER BY i)) FROM drill")
    moment = _sql(database, "SELECT to_char(clock_timestamp(), 'YYYY-MM-DD HH24:MI:SS.USOF')")
    _sql(database, "DROP TABLE drill")
    done = _restore(workshop, "--at", moment)
    assert done.returncode == 0, done.stdout + done.stderr
    restored = workshop.client.containers.get(f"{workshop.names.prefix}-restored")
    assert _sql(restored, "SELECT md5(string_agg(t, '' ORDER BY i)) FROM drill") == wanted
    assert _sql(database, "SELECT to_regclass('drill') IS NULL") == "t", (
        "the running one is as it was"
    )
    assert _restore(workshop, "--remove").stdout.startswith("removed")


def test_a_restore_drill_passes_at_once(workshop: Workshop, up: Result) -> None:
    done = _module(workshop, "infra.drill")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "restoring the backup" in done.stdout
    assert "as PostgreSQL had them at" in done.stdout
    status = _module(workshop, "tools.status").stdout
    assert re.search(r"^drill       passed \d+ minutes? ago: \d+ tables, ", status, re.MULTILINE), (
        status
    )


def _restore(workshop: Workshop, *words: str) -> subprocess.CompletedProcess[str]:
    return _module(workshop, "infra.restore", *words)


def _module(workshop: Workshop, name: str, *words: str) -> subprocess.CompletedProcess[str]:
    return run(workshop, "-m", name, workshop.stage, *words)


def test_the_sqlite_file_from_before_comes_back(
    workshop: Workshop, up: Result, tmp_path: Path
) -> None:
    done = _module(workshop, "infra.restore_sqlite", str(tmp_path / "old.db"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "old.db").read_bytes()[:15] == b"SQLite format 3"


# ------------------------------------------------------------------------------ and the end


def test_a_second_up_changes_nothing(workshop: Workshop, up: Result) -> None:
    again = workshop.up()
    assert not again.failed, again.output
    assert set(again.changes) == {"same"}, again.changes


def test_down_goes_back_and_leaves_nothing(workshop: Workshop, up: Result) -> None:
    done = workshop.destroy()
    assert not done.failed, done.output
    assert "DB_ENGINE=sqlite" in (workshop.connection / "database.env").read_text()
    assert workshop.left() == []
