"""A running stage is what its settings say: `make check`."""

from __future__ import annotations

import http.client
import json
import re
import stat
from pathlib import Path

import psycopg
import pytest

from infra import rendering, tuning
from infra.names import Names
from tests.deployment.provisioned.conftest import Provisioned

pytestmark = [pytest.mark.pulumi, pytest.mark.xdist_group("docker")]


def services(names: Names) -> tuple[str, str]:
    return names.postgres, names.pooler


def test_the_containers_are_healthy(stage: Provisioned) -> None:
    for name in services(stage.names):
        assert stage.container(name).attrs["State"]["Health"]["Status"] == "healthy", name


def test_the_containers_have_limits_and_no_rights(stage: Provisioned) -> None:
    for name in services(stage.names):
        container = stage.container(name)
        host = container.attrs["HostConfig"]
        assert host["Memory"] > 0, name
        assert host["MemorySwap"] == host["Memory"], name
        assert host["ReadonlyRootfs"], name
        assert host["CapDrop"] == ["ALL"], name
        assert "no-new-privileges:true" in host["SecurityOpt"], name
        assert not host["Privileged"], name
        assert container.attrs["Config"]["User"] not in {"", "0", "root"}, name
        assert host["RestartPolicy"]["Name"] == "unless-stopped", name


def test_the_logs_are_rotated(stage: Provisioned) -> None:
    for name in services(stage.names):
        log = stage.container(name).attrs["HostConfig"]["LogConfig"]
        assert log["Config"]["max-size"] == str(stage.settings.log_size), name
        assert log["Config"]["max-file"] == str(stage.settings.log_files), name


def test_ports_are_published_on_the_bind_address_alone(stage: Provisioned) -> None:
    for name in services(stage.names):
        bindings = stage.container(name).attrs["HostConfig"]["PortBindings"]
        addresses = {binding["HostIp"] for found in bindings.values() for binding in found}
        assert addresses == {stage.settings.bind_address}, name


def test_postgres_is_limited_as_the_settings_say(stage: Provisioned) -> None:
    host = stage.container(stage.names.postgres).attrs["HostConfig"]
    assert host["Memory"] == stage.settings.postgres_memory
    assert host["CpuQuota"] == int(stage.settings.postgres_cpus * host["CpuPeriod"])
    assert host["ShmSize"] == tuning.shared_memory(rendering.host_of(stage.settings))
    version = stage.query("SHOW server_version_num")
    assert int(version) // 10000 == stage.settings.postgres_version


def test_postgresql_conf_is_in_effect(stage: Provisioned) -> None:
    assert stage.query("SELECT count(*) FROM pg_file_settings WHERE error IS NOT NULL") == "0"
    assert stage.query("SELECT count(*) FROM pg_settings WHERE pending_restart") == "0"
    rows = stage.query("SELECT lower(name), sourcefile FROM pg_settings")
    sources = dict(row.split("|", 1) for row in rows.splitlines())
    host = rendering.host_of(stage.settings)
    for value in tuning.compute(host, stage.settings.postgresql_settings):
        assert sources[value.name.lower()] == "/etc/postgresql/postgresql.conf", value.name


def test_every_way_in_asks_for_a_scram_password(stage: Provisioned) -> None:
    methods = stage.query("SELECT DISTINCT auth_method FROM pg_hba_file_rules").split()
    assert set(methods) == {"scram-sha-256", "reject"}
    others = stage.query(
        "SELECT rolname FROM pg_authid WHERE rolcanlogin AND rolpassword NOT LIKE 'SCRAM-SHA-256$%'"
    )
    assert others == ""


def test_the_configuration_is_readable_by_its_service_alone(stage: Provisioned) -> None:
    for name, path in (
        (stage.names.postgres, "/etc/postgresql/superuser-password"),
        (stage.names.pooler, "/etc/pgbouncer/userlist.txt"),
    ):
        file = stage.host(name).file(path)
        assert file.mode == 0o400, path
        assert file.user in {"postgres", "pgbouncer"}, path


def test_no_secret_shows_in_the_engine_or_a_log(stage: Provisioned) -> None:
    secret = stage.outputs["password"]
    for container in stage.client.containers.list(all=True):
        if container.name.startswith(f"{stage.names.prefix}-"):
            assert secret not in json.dumps(container.attrs), container.name
            assert secret.encode() not in container.logs(), container.name


def test_the_pool_is_as_the_settings_say(stage: Provisioned) -> None:
    text = stage.host(stage.names.pooler).file("/etc/pgbouncer/pgbouncer.ini").content_string
    values = dict(re.findall(r"^(\w+) = (.*)$", text, re.MULTILINE))
    assert values["pool_mode"] == "transaction"
    assert int(values["default_pool_size"]) == stage.settings.pool_max
    assert int(values["min_pool_size"]) == stage.settings.pool_min
    assert int(values["server_idle_timeout"]) == stage.settings.pool_idle_seconds
    assert int(values["server_connect_timeout"]) == stage.settings.pool_connect_seconds


def test_the_application_is_admitted_after_the_switch_and_not_before(stage: Provisioned) -> None:
    if stage.switched:
        with psycopg.connect(stage.dsn) as connection:
            assert connection.execute("SELECT current_user").fetchone() == (stage.outputs["user"],)
    else:
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(stage.dsn)


def test_prepared_statements_work_through_the_pool(stage: Provisioned) -> None:
    if not stage.switched:
        pytest.skip(f"nobody is admitted in the phase {stage.outputs['phase']}")
    with psycopg.connect(stage.dsn, autocommit=True, prepare_threshold=0) as connection:
        answers = [
            connection.execute("SELECT %s::int * 2", (number,)).fetchone() for number in range(50)
        ]
    assert answers == [(number * 2,) for number in range(50)]


def test_the_application_may_change_rows_and_nothing_else(stage: Provisioned) -> None:
    if not stage.switched:
        pytest.skip(f"nobody is admitted in the phase {stage.outputs['phase']}")
    with psycopg.connect(stage.dsn, autocommit=True) as connection:
        for attempt in (
            "CREATE TABLE public.stolen (a int)",
            "CREATE SCHEMA stolen",
            "SELECT * FROM pg_authid",
            f"SET ROLE {stage.names.owner_role}",
            "ALTER SYSTEM SET log_statement = 'all'",
            "COPY (SELECT 1) TO PROGRAM 'cat'",
            "SET session_replication_role = replica",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(attempt)


def test_the_data_is_all_there(stage: Provisioned) -> None:
    tables = stage.query(
        "SELECT format('SELECT count(*) FROM %I.%I', schemaname, tablename) FROM pg_tables "
        "WHERE schemaname = 'public'",
        stage.names.database,
    )
    counts = [int(stage.query(line, stage.names.database)) for line in tables.splitlines()]
    assert len(counts) >= int(stage.outputs["tables"])
    if not stage.switched:
        assert sum(counts) == int(stage.outputs["rows"])


def test_the_connection_says_where_the_application_is_served(stage: Provisioned) -> None:
    directory = Path(stage.outputs["connection"])
    if not (directory / "database.json").exists():
        assert not stage.switched
        return
    said = json.loads((directory / "database.json").read_text())
    assert said["write"]["engine"] == ("postgresql" if stage.switched else "sqlite")
    for name in ("database.env", "database.json"):
        assert stat.S_IMODE((directory / name).stat().st_mode) == 0o600, name


def test_the_gate_is_closed_and_passes_requests_on(stage: Provisioned) -> None:
    gate = stage.settings.gate
    if gate is None:
        pytest.skip("the stage has no gate")
    container = stage.container(stage.names.gate)
    host = container.attrs["HostConfig"]
    assert container.attrs["State"]["Health"]["Status"] == "healthy"
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert not host["CapAdd"]
    assert host["Memory"] > 0
    (bindings,) = host["PortBindings"].values()
    assert [b["HostIp"] for b in bindings] == [stage.settings.bind_address]
    sockets = [m for m in container.attrs["Mounts"] if m["Source"].endswith("docker.sock")]
    assert bool(sockets) == bool(gate.container)
    client = http.client.HTTPConnection(stage.settings.bind_address, gate.port, timeout=60)
    client.request("HEAD", "/")
    assert client.getresponse().status != 502
    client.close()


def test_the_report_is_there(stage: Provisioned) -> None:
    assert Path(stage.outputs["report"]).is_file()
    assert re.fullmatch(r"[0-9a-f]{64}", stage.outputs["certificate"])
