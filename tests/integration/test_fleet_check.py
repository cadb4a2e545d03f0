"""``fleet-check`` says whether what a fleet moved is as it was verified."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import psycopg
import pytest

from migration_job.fleet import crew, worker
from migration_job.fleet.checking import Schemas, schemas
from tests.integration.fleetkit import Kit, make_file
from tests.integration.running import DIFFERS, DONE, FAILED, USAGE, Ended, run

pytestmark = pytest.mark.postgres

OWN = "files: 'in/*.db'\nlayout: schema-per-file\nname: 'c_{tenant}'\n"
COMMON = "files: 'in/*.db'\nlayout: tenant-column\n"


@pytest.fixture
def kit(tmp_path: Path, postgres: str, monkeypatch: pytest.MonkeyPatch) -> Kit:
    """Three files, moved in this process."""
    monkeypatch.setattr(crew.Worker, "ask", lambda _worker, task: worker.answer(task))
    for number, tenant in enumerate("abc"):
        make_file(tmp_path / "in" / f"{tenant}.db", number)
    return Kit(tmp_path, postgres)


def check(kit: Kit, manifest: Path) -> Ended:
    return run("fleet-check", str(manifest), "--target", kit.dsn)


def test_a_database_without_a_fleet_is_refused(kit: Kit) -> None:
    ended = check(kit, kit.manifest(OWN))
    assert ended.status == USAGE
    assert "found none" in ended.said


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("INSERT INTO c_b.person (id, name, active) VALUES (99, 'x', true)", "rows of person"),
        ("DELETE FROM c_b.note WHERE id = 3", "1 row of note fewer"),
        ("UPDATE c_b.note SET body = body", "rows of note that were written since"),
        ("CREATE TABLE c_b.more (id integer)", "table more, new since"),
        ("DROP SCHEMA migration_c_b CASCADE", "no records of a run in c_b"),
    ],
)
def test_what_somebody_did_to_a_schema_is_told(kit: Kit, statement: str, words: str) -> None:
    manifest = kit.manifest(OWN)
    assert kit.run(manifest).status == DONE
    assert check(kit, manifest).status == DONE
    kit.do("GRANT USAGE ON SCHEMA c_b TO PUBLIC")
    assert check(kit, manifest).status == DONE, "a right is no row"
    kit.do(statement)
    ended = check(kit, manifest)
    assert ended.status == DIFFERS, ended.said
    assert "another state of 1 tenant: b: " in ended.said
    assert words in ended.said


def test_what_somebody_did_to_common_tables_is_told(kit: Kit) -> None:
    manifest = kit.manifest(COMMON)
    assert kit.run(manifest).status == DONE
    assert check(kit, manifest).status == DONE
    kit.do("UPDATE person SET name = 'x' WHERE tenant = 'a' AND id = 1")
    ended = check(kit, manifest)
    assert ended.status == DIFFERS
    assert "a: person (of 12 rows, other values)" in ended.said


def test_rows_of_a_tenant_without_a_file_are_told(kit: Kit) -> None:
    manifest = kit.manifest(COMMON)
    assert kit.run(manifest).status == DONE
    kit.do("INSERT INTO person (tenant, id, name, active) VALUES ('z', 1, 'x', true)")
    ended = check(kit, manifest)
    assert ended.status == DIFFERS
    assert "rows of tenants that are no file's: person" in ended.said
    forced = "SELECT bool_and(relforcerowsecurity) FROM pg_class WHERE relname = 'person'"
    assert kit.ask(forced) == [(True,)]


def test_nobody_may_work_in_a_schema_whose_move_has_begun_and_not_ended(kit: Kit) -> None:
    """Whatever is written there meanwhile, the next run replaces."""
    manifest = kit.manifest(OWN)
    assert kit.run(manifest).status == DONE
    assert schemas(kit.dsn) == Schemas(("c_a", "c_b", "c_c"), ())
    for phase in ("prepared", "copied"):
        kit.do(f"UPDATE migration_c_b.run SET phase = '{phase}'")
        assert schemas(kit.dsn) == Schemas(("c_a", "c_c"), ("c_b",)), phase
    kit.do("DROP SCHEMA migration_c_b CASCADE")
    assert schemas(kit.dsn) == Schemas(("c_a", "c_c"), ("c_b",))
    kit.do("DROP SCHEMA c_b CASCADE")
    assert schemas(kit.dsn) == Schemas(("c_a", "c_c"), ())


def test_a_file_that_fails_before_it_is_moved_again_leaves_its_schema_whole(kit: Kit) -> None:
    manifest = kit.manifest(OWN)
    assert kit.run(manifest).status == DONE
    (kit.folder / "in" / "b.db").write_bytes(b"no database")
    kit.do("INSERT INTO c_c.person (id, name, active) VALUES (99, 'x', true)")
    with sqlite3.connect(kit.folder / "in" / "c.db") as source:
        source.execute("UPDATE person SET name = name || 'y'")
    assert kit.run(manifest).status != DONE
    assert schemas(kit.dsn) == Schemas(("c_a", "c_b", "c_c"), ())


def test_what_was_written_on_both_sides_is_resolved_as_the_page_says(kit: Kit) -> None:
    """docs/how-to/fleet-stage.md: the file's rows are kept by dropping the schemas."""
    manifest = kit.manifest(OWN)
    assert kit.run(manifest).status == DONE
    kit.do("INSERT INTO c_c.person (id, name, active) VALUES (99, 'x', true)")
    with sqlite3.connect(kit.folder / "in" / "c.db") as source:
        source.execute("UPDATE person SET name = name || 'y'")
    assert kit.run(manifest).status != DONE
    assert kit.ask("SELECT count(*) FROM c_c.person WHERE id = 99") == [(1,)]
    kit.do("DROP SCHEMA c_c, migration_c_c CASCADE")
    assert kit.run(manifest).status == DONE
    assert kit.ask("SELECT count(*) FROM c_c.person WHERE id = 99") == [(0,)]
    assert kit.ask("SELECT bool_and(name LIKE '%y') FROM c_c.person") == [(True,)]


def test_common_tables_are_whole_and_nobody_is_kept_waiting_for_them(kit: Kit) -> None:
    manifest = kit.manifest(COMMON)
    assert kit.run(manifest).status == DONE
    assert schemas(kit.dsn) == Schemas(("public",), ())
    with psycopg.connect(kit.dsn) as reader:
        reader.execute("SELECT FROM person").fetchall()
        began = time.monotonic()
        ended = check(kit, manifest)
        assert time.monotonic() - began < 10
    assert ended.status == FAILED, ended.said
    assert "lock" in ended.said
    assert check(kit, manifest).status == DONE
