"""Lists of hosts: in connection strings, connection files and a stage's settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from psycopg.conninfo import conninfo_to_dict

from infra.errors import StageError
from infra.inputs import Reach
from infra.settings import read
from migration_job.connection import read_connection, write_connection
from migration_job.errors import InputError
from migration_job.hosts import plain_port, require_matching
from migration_job.protocol.settings import Endpoints, endpoints
from migration_job.stores.postgres.database import NAMED_BY, describe, read_dsn
from tests.unit.test_application_schema import PLACE

CLUSTER = "host=a,b,c port=5432 dbname=app user=mover target_session_attrs=read-write"
CONSOLE = "host=pooler port=6432 dbname=pgbouncer user=admin"


def ends(directory: Path, target: str = CLUSTER, *, pooler: bool = False, **told: Any) -> Endpoints:
    file = directory / "application.json"
    wanted = {"host": "pooler", "database": "app", "user": "app", "password": "s"} | told
    file.write_text(json.dumps(wanted))
    return endpoints(
        directory / "app.db",
        target,
        connection=directory / "connection",
        connect_to=file,
        console=CONSOLE if pooler else None,
        alias_file=directory / "alias.ini" if pooler else None,
    )


CERTIFICATE = {"certificate": "/etc/app.crt", "key": "/etc/app.key"}


@pytest.mark.parametrize(
    ("told", "lines"),
    [
        ({"passfile": "/etc/app/pgpass"}, {"DB_PASSFILE=/etc/app/pgpass"}),
        ({"service": "app"}, {"DB_SERVICE=app"}),
        ({"authentication": "peer", "host": "/run/postgresql"}, {"DB_HOST=/run/postgresql"}),
        ({"tls": CERTIFICATE}, {"DB_SSLCERT=/etc/app.crt", "DB_SSLKEY=/etc/app.key"}),
    ],
)
def test_an_application_without_a_password(
    tmp_path: Path, told: dict[str, Any], lines: set[str]
) -> None:
    side = ends(tmp_path, **{"password": None, **told}).postgres
    connection = tmp_path / "connection"
    write_connection(connection, side, side)
    said = json.loads((connection / "database.json").read_text())["write"]
    for name in told.keys() & {"passfile", "service"}:
        assert said[name] == told[name]
    if "tls" in told:
        assert said["tls"].items() >= CERTIFICATE.items()
    found = set((connection / "database.env").read_text().splitlines())
    assert lines <= found
    assert "password" not in said
    assert not [line for line in found if "PASSWORD" in line]
    read = read_connection(connection)
    assert read is not None
    assert read.write == side


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ({"password": None}, "found none"),
        ({"passfile": "/p"}, "found password and passfile"),
        ({"password": None, "tls": {"certificate": "/c"}}, "certificate and key together"),
    ],
)
def test_the_way_in_is_one(tmp_path: Path, told: dict[str, Any], found: str) -> None:
    with pytest.raises(InputError, match=found):
        ends(tmp_path, **told)


def test_libpq_s_variables_name_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMED_BY:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="found neither"):
        read_dsn(None, None)
    monkeypatch.setenv("PGHOST", "db.example.org")
    monkeypatch.setenv("PGPORT", "5433")
    monkeypatch.setenv("PGDATABASE", "app")
    monkeypatch.setenv("PGUSER", "mover")
    assert read_dsn(None, None) == ""
    assert describe("") == "mover@db.example.org:5433/app"
    assert describe("host=other user=me") == "me@other:5433/app"
    found = ends(tmp_path, "", pooler=True)
    assert found.pooler is not None
    assert "host='db.example.org' port=5433 dbname='app'" in found.pooler.alias.line()


@pytest.mark.parametrize("target", [CLUSTER, CLUSTER.replace("5432", "1,2,3")])
def test_a_pooler_before_a_list_wants_one_address(tmp_path: Path, target: str) -> None:
    with pytest.raises(InputError, match="one address by which PgBouncer") as refusal:
        ends(tmp_path, target, pooler=True)
    assert '"server"' in str(refusal.value.advice)
    with pytest.raises(InputError, match=r"server\.host: .*one address"):
        ends(tmp_path, target, pooler=True, server={"host": "a,b"})
    found = ends(tmp_path, target, pooler=True, server={"host": "haproxy", "port": 5000})
    assert found.pooler is not None
    assert found.pooler.alias.line() == (
        "app = host='haproxy' port=5000 dbname='app' pool_size=20\n"
    )


def test_the_application_is_told_of_all_and_which_is_meant(tmp_path: Path) -> None:
    side = ends(tmp_path, host="a,b,c", port="5432,5433,5434").postgres
    write_connection(tmp_path / "connection", side, side)
    told = json.loads((tmp_path / "connection" / "database.json").read_text())["write"]
    assert (told["host"], told["port"]) == ("a,b,c", "5432,5433,5434")
    assert told["target_session_attrs"] == "read-write"
    lines = (tmp_path / "connection" / "database.env").read_text().splitlines()
    assert {"DB_HOST=a,b,c", "DB_PORT=5432,5433,5434"} <= set(lines)
    assert "DB_TARGET_SESSION_ATTRS=read-write" in lines
    again = read_connection(tmp_path / "connection")
    assert again is not None
    assert again.write == side


def test_one_host_is_told_as_ever(tmp_path: Path) -> None:
    side = ends(tmp_path, port="5433").postgres
    write_connection(tmp_path / "connection", side, side)
    text = (tmp_path / "connection" / "database.json").read_text()
    assert json.loads(text)["write"]["port"] == 5433
    assert "target_session_attrs" not in text
    env = (tmp_path / "connection" / "database.env").read_text()
    assert "TARGET_SESSION_ATTRS" not in env


@pytest.mark.parametrize(
    ("host", "port", "words"),
    [
        ("a,b", "1,2,3", "one for each host of 2, found 3"),
        ("a,,b", 5432, "between any two commas"),
        ("a", "0", "from 1 to 65535"),
        ("a", "1,2", "one for each host of 1"),
    ],
)
def test_lists_that_do_not_go_together(
    tmp_path: Path, host: str, port: int | str, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        require_matching(host, port)
    with pytest.raises(InputError, match=words):
        ends(tmp_path, host=host, port=port)


def test_a_single_port_is_a_number() -> None:
    assert plain_port("5432") == 5432
    assert plain_port("1,2") == "1,2"


EXTERNAL: dict[str, Any] = {
    "host": "a,b,c",
    "database": "app",
    "user": "mover",
    "password": "p",
    "applicationUser": "app",
    "applicationPassword": "p",
}


def external(**more: Any) -> Any:
    raw = {"source": "a", "target": "external", "external": {**EXTERNAL, **more}}
    return read(raw, "x").external


def test_a_stage_names_the_members_and_where_the_leader_is() -> None:
    with pytest.raises(StageError, match=r"external\.poolerHost"):
        external()
    with pytest.raises(StageError, match="one for each host of 3"):
        external(poolerHost="haproxy", port="1,2")
    with pytest.raises(StageError, match="poolerHost"):
        external(poolerHost="a,b")
    found = external(poolerHost="haproxy", poolerPort=5000, port="1,2,3")
    assert (found.pooler_host, found.pooler_port) == ("haproxy", 5000)
    raw = {"source": "a", "target": "external", "pooler": "false", "external": EXTERNAL}
    assert read(raw, "x").external is not None


@pytest.mark.parametrize(
    ("host", "port", "hosts", "ports"),
    [
        ("a,b,c", 5432.0, "a,b,c", "5432,5432,5432"),
        ("a,b", "1,2", "a,b", "1,2"),
        ("a", 5432.0, "a", "5432"),
        ("::1", 5432, "::1", "5432"),
    ],
)
def test_the_job_s_own_connection_string(
    host: str, port: float | str, hosts: str, ports: str
) -> None:
    target = {"host": host, "port": port, "database": "d", "user": "u", "sslmode": "require"}
    reach = {"place": PLACE, "container": "job", "target": target, "password": "p@ss"}
    parts = conninfo_to_dict(Reach.of(reach).dsn)
    assert (parts["host"], parts["port"], parts["password"]) == (hosts, ports, "p@ss")
    assert parts["sslmode"] == "require"
    assert parts.get("target_session_attrs") == ("read-write" if "," in host else None)
