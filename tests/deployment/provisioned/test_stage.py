"""A running stage is what its settings say: `make check`."""

from __future__ import annotations

import http.client
import json
import re
import secrets
import warnings
from collections.abc import Callable
from datetime import UTC, datetime

import psycopg
import pytest

from infra import members, rendering, support, tuning
from infra.clustered import IN_COMMON, PATRONI_MEMORY
from infra.containers import CPU_PERIOD
from infra.execution import execute
from infra.monitoring import SYNC_METRICS_PORT
from migration_job.protocol.heartbeat import STALE_SECONDS
from migration_job.protocol.sync import Report
from tests.deployment.engine import output
from tests.deployment.provisioned.conftest import Provisioned, until

pytestmark = [pytest.mark.pulumi, pytest.mark.xdist_group("docker")]


# ------------------------------------------------------------------------- the containers


def test_exactly_the_containers_that_the_settings_ask_for_run(stage: Provisioned) -> None:
    found = {container.name for container in stage.services()}
    grafana, page = (f"{stage.names.prefix}-{one}" for one in ("grafana", "dashboard"))
    assert {page if name == grafana else name for name in found} == stage.expected()


def test_the_containers_are_healthy(stage: Provisioned) -> None:
    states = {c.name: c.attrs["State"]["Health"]["Status"] for c in stage.services()}
    assert {name: state for name, state in states.items() if state != "healthy"} == {}


def test_the_containers_are_denied_what_they_do_not_need(stage: Provisioned) -> None:
    for container in stage.services():
        host, name = container.attrs["HostConfig"], container.name
        assert host["ReadonlyRootfs"], name
        assert host["CapDrop"] == ["ALL"], name
        assert "no-new-privileges:true" in host["SecurityOpt"], name
        assert not host["Privileged"], name
        gate = stage.settings.gate if name == stage.names.gate else None
        # The example stands for an application that runs on the host itself.
        own = "host" if name == stage.names.example else stage.names.network
        assert host["NetworkMode"] == ((gate and gate.network) or own), name
        engine_socket = any("docker.sock" in str(mount) for mount in container.attrs["Mounts"])
        assert engine_socket == bool(gate and gate.container), name
        user = container.attrs["Config"]["User"].partition(":")[0]
        # The job, the gate and the example are the source's owner, who may be root: three rights.
        if user in {"", "0", "root"}:
            assert name in (stage.names.sync, stage.names.gate, stage.names.example), name
            assert set(host["CapAdd"] or ()) <= {"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER"}, (
                name
            )
        else:
            assert not host["CapAdd"], name


def test_the_containers_have_limits(stage: Provisioned) -> None:
    for container in stage.services():
        host, name = container.attrs["HostConfig"], container.name
        assert host["Memory"] > 0, name
        assert host["MemorySwap"] == host["Memory"], name
        assert host["PidsLimit"] > 0, name
        assert host["RestartPolicy"]["Name"] == "unless-stopped", name
        assert any(one["Name"] == "nofile" for one in host["Ulimits"]), name


def test_a_container_can_write_nowhere_but_where_it_should(stage: Provisioned) -> None:
    for container in stage.services():
        done = execute(container, ["touch", "/usr/written"])
        assert done.exit_code != 0, container.name


def test_images_are_named_by_digest(stage: Provisioned) -> None:
    for container in stage.services():
        assert "sha256:" in container.attrs["Config"]["Image"], container.name


def test_the_logs_are_rotated(stage: Provisioned) -> None:
    for container in stage.services():
        log = container.attrs["HostConfig"]["LogConfig"]
        assert log["Type"] == "json-file", container.name
        assert log["Config"]["max-size"] == str(stage.settings.log_size), container.name
        assert log["Config"]["max-file"] == str(stage.settings.log_files), container.name


def test_ports_are_published_on_the_bind_address_alone(stage: Provisioned) -> None:
    for container in stage.services():
        bindings = container.attrs["HostConfig"]["PortBindings"] or {}
        addresses = {binding["HostIp"] for found in bindings.values() for binding in found}
        assert addresses <= {stage.settings.bind_address}, container.name


# ---------------------------------------------------------------------------- PostgreSQL


def test_postgres_is_limited_as_the_settings_say(stage: Provisioned) -> None:
    host = stage.postgres().attrs["HostConfig"]
    beside = PATRONI_MEMORY if members.of(stage.settings, stage.names) else 0
    assert host["Memory"] == stage.settings.postgres_memory + beside
    assert host["CpuPeriod"] == CPU_PERIOD
    assert host["CpuQuota"] == int(stage.settings.postgres_cpus * CPU_PERIOD)
    assert host["ShmSize"] == tuning.shared_memory(rendering.host_of(stage.settings))
    version = stage.query("SHOW server_version_num")
    assert int(version) // 10000 == stage.settings.postgres_version


def test_postgresql_conf_is_in_effect(stage: Provisioned) -> None:
    assert stage.query("SELECT count(*) FROM pg_file_settings WHERE error IS NOT NULL") == "0"
    assert stage.query("SELECT count(*) FROM pg_settings WHERE pending_restart") == "0"
    rows = stage.query("SELECT lower(name), sourcefile FROM pg_settings")
    sources = dict(row.split("|", 1) for row in rows.splitlines())
    host = rendering.host_of(stage.settings)
    several = members.of(stage.settings, stage.names)
    for value in tuning.compute(host, stage.settings.postgresql_settings):
        # What members have to have in common Patroni gives them as options, by the same value.
        if several and value.name in IN_COMMON:
            assert stage.query(f"SHOW {value.name}") == value.value, value.name
        else:
            assert sources[value.name.lower()] == "/etc/postgresql/postgresql.conf", value.name


def test_a_slow_query_is_logged(stage: Provisioned) -> None:
    threshold = stage.query(
        "SELECT setting FROM pg_settings WHERE name = 'log_min_duration_statement'"
    )
    if not 0 <= int(threshold) <= 2000:
        pytest.skip(f"the stage file sets log_min_duration_statement to {threshold} ms")
    mark = f"slow_{secrets.token_hex(4)}"
    seconds = int(threshold) / 1000 + 0.05
    stage.query(f"SELECT pg_sleep({seconds}) AS {mark}")
    log = stage.postgres()
    until(lambda: mark.encode() in log.logs(tail=200), "the slow query in the log")
    line = next(one for one in log.logs(tail=200).decode().splitlines() if mark in one)
    assert re.match(r"\d{4}-\d\d-\d\d [\d:.]+ UTC \[\d+\] postgres@postgres/psql LOG: ", line), line
    assert "duration: " in line


def test_the_data_is_all_there(stage: Provisioned) -> None:
    if stage.settings.external:
        with stage.application() as connection:
            counts = _counts(
                lambda sql: [str(row[0]) for row in connection.execute(sql.encode())],
                stage.schemas,
            )
    else:
        counts = _counts(
            lambda sql: stage.query(sql, stage.names.database).splitlines(), stage.schemas
        )
    assert len(counts) >= int(stage.outputs.get("tables", 1))
    if not stage.switched:
        assert sum(counts) == int(stage.outputs["rows"])


def _counts(ask: Callable[[str], list[str]], schemas: str) -> list[int]:
    """The rows of each of the applications' tables."""
    tables = ask(
        "SELECT format('(SELECT count(*) FROM %I.%I)', schemaname, tablename) FROM pg_tables "
        f"WHERE schemaname IN ({schemas})"
    )
    return [int(line) for line in ask("SELECT unnest(ARRAY[" + ", ".join(tables) + "])")]


# ------------------------------------------------------------------------------- the pool


def test_the_pool_is_as_the_settings_say(stage: Provisioned) -> None:
    stage.needs(stage.names.pooler)
    text = stage.host(stage.names.pooler).file("/etc/pgbouncer/pgbouncer.ini").content_string
    values = dict(re.findall(r"^(\w+) = (.*)$", text, re.MULTILINE))
    assert values["pool_mode"] == "transaction"
    assert int(values["default_pool_size"]) == stage.settings.pool_max
    assert int(values["min_pool_size"]) == stage.settings.pool_min
    assert int(values["server_idle_timeout"]) == stage.settings.pool_idle_seconds
    assert int(values["server_connect_timeout"]) == rendering.connect_seconds(stage.settings)


def test_the_application_is_admitted_after_the_switch_and_not_before(stage: Provisioned) -> None:
    if stage.switched:
        with stage.application() as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        return
    stage.needs(stage.names.pooler)
    stage.reachable(stage.settings.pooler_port)
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(
            stage.dsn(host=stage.outputs["host"], port=stage.settings.pooler_port), autocommit=True
        )


def test_prepared_statements_work_through_the_pool(stage: Provisioned) -> None:
    with stage.application() as connection:
        connection.prepare_threshold = 0
        answers = [
            connection.execute("SELECT %s::int * 2", (number,)).fetchone() for number in range(50)
        ]
    assert answers == [(number * 2,) for number in range(50)]


def test_postgresql_is_of_a_version_that_is_mended(stage: Provisioned) -> None:
    """A warning, since the stage serves as well as the day before."""
    if stage.settings.external is None and (
        told := support.warning(stage.settings.postgres_version)
    ):
        warnings.warn(told, stacklevel=1)


# ------------------------------------------------------------------------- the migration


def test_the_connection_says_where_the_application_is_served(stage: Provisioned) -> None:
    directory = stage.outputs["connection"]
    if stage.settings.fleet and not stage.switched:
        assert not stage.file(f"{directory}/database.json").exists
        return
    said = json.loads(stage.file(f"{directory}/database.json").content_string)
    assert said["write"]["engine"] == ("postgresql" if stage.switched else "sqlite")
    moved = stage.switched or stage.settings.cutover == "reads"
    assert said["read"]["engine"] == ("postgresql" if moved else "sqlite")
    for name in ("database.env", "database.json"):
        # The link's own mode says nothing: what it leads to is what can be read.
        assert stage.file(f"{directory}/current/{name}").mode == 0o600, name


def test_the_gate_passes_requests_on(stage: Provisioned) -> None:
    gate = stage.settings.gate
    if gate is None:
        pytest.skip("the stage file has no gate")
    stage.reachable(gate.port)
    client = http.client.HTTPConnection(stage.settings.bind_address, gate.port, timeout=60)
    client.request("HEAD", "/")
    assert client.getresponse().status != 502
    client.close()


def test_the_report_is_there(stage: Provisioned) -> None:
    assert stage.file(stage.outputs["report"]).is_file
    assert re.fullmatch(r"[0-9a-f]{64}", stage.outputs["certificate"])


def test_the_sync_follows(stage: Provisioned) -> None:
    container = stage.needs(stage.names.sync)
    (state,) = (
        word
        for flag, word in zip(container.attrs["Args"], container.attrs["Args"][1:], strict=False)
        if flag == "--state"
    )

    def report() -> Report:
        return Report(**json.loads(stage.file(f"{state}/sync.json").content_string))

    wanted = "back" if stage.switched else "forward"
    until(lambda: report().direction == wanted and not report().problem, f"the sync to go {wanted}")
    said = report()
    age = datetime.now(UTC) - datetime.fromisoformat(said.at)
    assert age.total_seconds() < STALE_SECONDS
    assert said.phase == ("switched" if stage.switched else "caught up")


def test_the_sync_tells_its_metrics(stage: Provisioned) -> None:
    container = stage.needs(stage.names.sync)
    program = (
        "import urllib.request as u; "
        f"print(u.urlopen('http://127.0.0.1:{SYNC_METRICS_PORT}/metrics').read().decode())"
    )
    done = execute(container, ["python3", "-c", program])
    said = output(done)
    assert done.exit_code == 0, said
    phase = "switched" if stage.switched else "caught up"
    assert f'migration_phase{{phase="{phase}"}} 1.0' in said
    for name in ("rows_copied", "lag_seconds", "lag_changes", "differences", "fence_seconds"):
        assert f"migration_{name}" in said, name


def test_the_jobs_logs_are_structured(stage: Provisioned) -> None:
    for name in {stage.names.sync, stage.names.gate} & stage.expected():
        for line in stage.container(name).logs(tail=200).decode().splitlines():
            assert json.loads(line).keys() >= {"time", "level", "message"}, (name, line)
