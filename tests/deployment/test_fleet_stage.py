"""A stage that moves the files of a manifest."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from infra.settled import ACCEPT_LOSS
from tests.deployment.engine import client_or_skip
from tests.deployment.workshop import Result, Workshop, check, dsn, named, require_pulumi, run
from tests.integration.fleetkit import as_sqlite_has_it, damage, make_file

pytestmark = [
    pytest.mark.pulumi,
    pytest.mark.docker,
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("docker"),
]

TENANTS = tuple(f"t{number:02}" for number in range(20))
MANIFEST = "files: 'customers/*/app.db'\ntenant: 'customers/(?P<tenant>[^/]+)/app\\.db'\n"
SCHEMAS = f"{MANIFEST}layout: schema-per-file\nname: 'c_{{tenant}}'\n"
COLUMN = f"{MANIFEST}layout: tenant-column\n"


@contextmanager
def staged(directory: Path, text: str, tenants: tuple[str, ...]) -> Iterator[Workshop]:
    """A stage that is not up yet, of files of its own; cleared away at the end."""
    require_pulumi()
    client = client_or_skip()
    for number, tenant in enumerate(tenants):
        make_file(file(directory, tenant), number, rows=10 + number)
    manifest = directory / "data" / "fleet.yaml"
    manifest.write_text(text)
    made = Workshop(directory, client, fleet=str(manifest))
    try:
        yield made
    finally:
        made.clear()


def file(directory: Path, tenant: str) -> Path:
    return directory / "data" / "customers" / tenant / "app.db"


def digests(directory: Path) -> dict[str, str]:
    """Of every file beside the manifest."""
    found = sorted((directory / "data").rglob("*.db*"))
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def up(stage: Workshop, **settings: object) -> Result:
    stage.set(**settings)
    done = stage.up()
    assert not done.failed, done.output
    return done


def report(stage: Workshop) -> Any:
    folder = Path(str(stage.settings["stateDirectory"])) / "report"
    return json.loads((folder / "fleet.json").read_text())


def application(stage: Workshop) -> psycopg.Connection:
    """As the connection says it: through PgBouncer."""
    side = named(stage)
    assert side["port"] == stage.settings["poolerPort"]
    return psycopg.connect(dsn(side), autocommit=True, prepare_threshold=None)


def ask(connection: psycopg.Connection, query: str) -> list[tuple[Any, ...]]:
    return connection.execute(query.encode()).fetchall()


def require_rows(stage: Workshop, directory: Path, tenants: tuple[str, ...]) -> None:
    """Each tenant's schema, through PgBouncer, has the rows of its file."""
    with application(stage) as connection:
        for tenant in tenants:
            there = {
                "person": ask(
                    connection,
                    "SELECT id, name, active::int, to_char(made AT TIME ZONE 'UTC', "
                    f"'YYYY-MM-DD HH24:MI:SS') FROM c_{tenant}.person ORDER BY id",
                ),
                "note": ask(
                    connection,
                    f"SELECT id, person, body, score, size FROM c_{tenant}.note ORDER BY id",
                ),
            }
            assert there == as_sqlite_has_it(file(directory, tenant)), tenant


def nobody_is_admitted(stage: Workshop) -> None:
    assert not (stage.connection / "database.json").exists()
    outputs = stage.stack.outputs()
    said = {name: outputs[name].value for name in ("host", "database", "user", "password")}
    side = {**said, "port": stage.settings["poolerPort"]}
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(dsn(side))


def status(stage: Workshop) -> str:
    done = run(stage, "-m", "tools.status", stage.stage)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_twenty_files_go_into_schemas_and_are_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with staged(tmp_path, SCHEMAS, TENANTS) as stage:
        stage.set()
        assert "20 files of" in status(stage)
        a_damaged_file_is_named_once(stage, tmp_path)
        before = digests(tmp_path)
        done = up(stage)
        assert (done.outputs["phase"], done.outputs["files"]) == ("switched", 20)
        assert done.outputs["rows"] == 2 * sum(range(10, 30))
        require_rows(stage, tmp_path, TENANTS)
        said = status(stage)
        assert "PgBouncer admits the applications" in said
        assert "20 files of" in said
        assert ": 20 verified" in said

        again = up(stage)
        assert set(again.changes) == {"same"}, again.output
        assert digests(tmp_path) == before

        what_is_new_or_changed_is_moved(stage, tmp_path)
        holding_lets_nobody_in(stage)
        before = digests(tmp_path)
        what_was_written_is_not_lost_in_silence(stage)
        assert digests(tmp_path) == before
        a_file_is_not_moved_over_what_was_written(stage, tmp_path)
        before = digests(tmp_path)
        monkeypatch.setenv(ACCEPT_LOSS, "yes")
        down(stage)
        assert digests(tmp_path) == before


def a_damaged_file_is_named_once(stage: Workshop, directory: Path) -> None:
    damaged = file(directory, "t07")
    whole = damaged.read_bytes()
    damage(damaged, 1)
    done = stage.up()
    assert done.failed
    assert "Traceback" not in done.output, done.output
    assert done.printed.count("1 of 20 files is not verified") == 1, done.printed
    assert done.printed.count("t07: ") == 1, done.printed
    states = {tenant: one["state"] for tenant, one in report(stage)["files"].items()}
    assert states.pop("t07") == "failed"
    assert set(states.values()) == {"verified"}
    assert not (stage.connection / "database.json").exists()
    assert "t07: " in status(stage)
    damaged.write_bytes(whole)


def what_is_new_or_changed_is_moved(stage: Workshop, directory: Path) -> None:
    make_file(file(directory, "t20"), 20)
    with closing(sqlite3.connect(file(directory, "t03"))) as opened, opened:
        opened.execute("UPDATE person SET name = 'changed' WHERE id = 1")
    said = status(stage)
    assert "written to since the last run" in said
    assert "t03" in said
    done = up(stage)
    assert "as certified by the earlier run" in done.output
    assert done.outputs["files"] == 21
    require_rows(stage, directory, (*TENANTS, "t20"))


def holding_lets_nobody_in(stage: Workshop) -> None:
    assert up(stage, cutover="hold").outputs["phase"] == "verified"
    nobody_is_admitted(stage)
    assert "serves      SQLite" in status(stage)
    assert up(stage, cutover="switch").outputs["phase"] == "switched"


def what_was_written_is_not_lost_in_silence(stage: Workshop) -> None:
    with application(stage) as connection:
        connection.execute("INSERT INTO c_t05.person (id, name, active) VALUES (99, 'new', true)")
    left = stage.left()
    refused = stage.destroy()
    assert refused.failed
    assert "t05: rows of person that were written since" in refused.output
    assert "Traceback" not in refused.output, refused.output
    assert stage.left() == left
    with application(stage) as connection:
        assert ask(connection, "SELECT name FROM c_t05.person WHERE id = 99") == [("new",)]


def a_file_is_not_moved_over_what_was_written(stage: Workshop, directory: Path) -> None:
    with closing(sqlite3.connect(file(directory, "t05"))) as opened, opened:
        opened.execute("UPDATE person SET name = 'changed' WHERE id = 1")
    done = stage.up()
    assert done.failed
    assert "1 of 21 files is not verified" in done.output
    with application(stage) as connection:
        assert ask(connection, "SELECT name FROM c_t05.person WHERE id = 99") == [("new",)]


def down(stage: Workshop) -> None:
    gone = stage.destroy()
    assert not gone.failed, gone.output
    assert stage.left() == []
    assert not (stage.connection / "database.json").exists()


def test_files_share_tables_and_come_down(tmp_path: Path) -> None:
    tenants = TENANTS[:3]
    with staged(tmp_path, COLUMN, tenants) as stage:
        before = digests(tmp_path)
        assert up(stage).outputs["files"] == 3
        with application(stage) as connection:
            assert ask(connection, "SELECT count(*) FROM person") == [(0,)]
            for number, tenant in enumerate(tenants):
                with connection.transaction():
                    connection.execute(f"SET LOCAL app.tenant = '{tenant}'".encode())
                    assert ask(connection, "SELECT count(*) FROM person") == [(10 + number,)]
        assert set(up(stage).changes) == {"same"}
        check(stage)
        assert up(stage, cutover="hold").outputs["phase"] == "verified"
        nobody_is_admitted(stage)
        check(stage)
        assert up(stage, cutover="switch").outputs["phase"] == "switched"
        down(stage)
        assert digests(tmp_path) == before
