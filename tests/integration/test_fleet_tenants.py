"""``fleet`` with ``layout: tenant-column``: files in common tables, kept apart by a column."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from migration_job.fleet import crew, worker
from tests.integration.fleetkit import Kit, as_sqlite_has_it, damage, make_file
from tests.integration.running import BLOCKED, DIFFERS, DONE, USAGE
from tests.servers import MAJOR

pytestmark = pytest.mark.postgres

MANIFEST = "files: 'in/*.db'\nlayout: tenant-column\n"
TENANTS = ("a", "b", "c")


@pytest.fixture
def kit(tmp_path: Path, postgres: str, monkeypatch: pytest.MonkeyPatch) -> Kit:
    """Three files with the same ids, moved in this process."""
    monkeypatch.setattr(crew.Worker, "ask", lambda _worker, task: worker.answer(task))
    for number, tenant in enumerate(TENANTS):
        make_file(tmp_path / "in" / f"{tenant}.db", number)
    return Kit(tmp_path, postgres)


def rows_of(kit: Kit, tenant: str, schema: str = "public") -> dict[str, list[tuple[Any, ...]]]:
    """A tenant's rows in SQLite's values, read by queries of the test's own."""
    where = f"WHERE tenant = '{tenant}' ORDER BY id"
    return {
        "person": kit.ask(
            "SELECT id, name, active::int, "
            "to_char(made AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') "
            f"FROM {schema}.person {where}"
        ),
        "note": kit.ask(f"SELECT id, person, body, score, size FROM {schema}.note {where}"),
    }


def require_equal(kit: Kit, schema: str = "public", tenants: tuple[str, ...] = TENANTS) -> None:
    for tenant in tenants:
        expected = as_sqlite_has_it(kit.folder / "in" / f"{tenant}.db")
        assert rows_of(kit, tenant, schema) == expected, tenant


def keys(kit: Kit, kinds: str) -> list[str]:
    """The constraints of the common tables, as the server writes them."""
    return [
        str(text)
        for (text,) in kit.ask(
            "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = "
            f"'public'::regnamespace AND contype = ANY ('{{{kinds}}}') ORDER BY 1"
        )
    ]


def test_equal_ids_of_tenants_are_kept_apart(kit: Kit) -> None:
    ended = kit.run(kit.manifest(MANIFEST))
    assert ended.status == DONE, ended.said
    assert "3 files with 72 rows are on the target and verified" in ended.said
    require_equal(kit)
    assert kit.ask("SELECT count(*) FROM note") == [(36,)]
    assert keys(kit, "p,u") == [
        *("PRIMARY KEY (tenant, id)", "PRIMARY KEY (tenant, id)", "UNIQUE (tenant, name)")
    ]
    assert keys(kit, "f") == [
        "FOREIGN KEY (tenant, person) REFERENCES person(tenant, id) ON DELETE CASCADE DEFERRABLE"
    ]
    ((index,),) = kit.ask("SELECT indexdef FROM pg_indexes WHERE indexname = 'note_person'")
    assert index.endswith("(tenant, person)")
    # What they were verified in is gone, and the certificate says that their rows are among others.
    assert kit.ask("SELECT nspname FROM pg_namespace WHERE nspname ~ 'fleet_[abc]'") == []
    ((body,),) = kit.ask("SELECT body FROM _migration_fleet.file WHERE tenant = 'b'")
    assert '"tenant column":"2 tables equal under tenant = b"' in body


def test_a_session_sees_and_writes_its_own_tenants_rows(kit: Kit) -> None:
    assert kit.run(kit.manifest(MANIFEST)).status == DONE
    role = f"app_{psycopg.conninfo.conninfo_to_dict(kit.dsn)['dbname']}"
    kit.do(
        f"CREATE ROLE {role}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role}",
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {role}",
    )
    try:
        with psycopg.connect(kit.dsn, autocommit=True) as session:
            session.execute(f"SET ROLE {role}")
            assert session.execute("SELECT count(*) FROM person").fetchall() == [(0,)]
            session.execute("SET app.tenant = 'b'")
            assert session.execute("SELECT DISTINCT tenant FROM person").fetchall() == [("b",)]
            made = session.execute(
                "INSERT INTO person (name, active) VALUES ('new', true) RETURNING tenant, id"
            ).fetchall()
            assert made == [("b", 13)]
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute("INSERT INTO person (tenant, name, active) VALUES ('a', 'x', true)")
            assert session.execute("DELETE FROM person WHERE tenant = 'a'").rowcount == 0
    finally:
        kit.do(f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def test_a_second_run_takes_what_is_new_and_leaves_the_rest(kit: Kit) -> None:
    manifest = kit.manifest(MANIFEST)
    assert kit.run(manifest).status == DONE
    before = kit.ask("SELECT tenant, id, xmin::text FROM note ORDER BY 1, 2")
    make_file(kit.folder / "in" / "d.db", 4, rows=20)
    ended = kit.run(manifest)
    assert ended.status == DONE, ended.said
    assert "3 of them as certified by the earlier run" in ended.said
    require_equal(kit, tenants=(*TENANTS, "d"))
    where = "WHERE tenant <> 'd' ORDER BY 1, 2"
    assert kit.ask(f"SELECT tenant, id, xmin::text FROM note {where}") == before
    made = kit.ask("INSERT INTO note (tenant, person, body) VALUES ('a', 1, 'x') RETURNING id")
    assert made == [(21,)]


def test_a_file_that_was_written_to_takes_its_rows_place(kit: Kit) -> None:
    manifest = kit.manifest(MANIFEST)
    assert kit.run(manifest).status == DONE
    with closing(sqlite3.connect(kit.folder / "in" / "b.db")) as connection, connection:
        connection.execute("DELETE FROM note WHERE id > 6")
        connection.execute("UPDATE person SET name = 'other' WHERE id = 2")
    ended = kit.run(manifest)
    assert ended.status == DONE, ended.said
    require_equal(kit)


def test_rows_that_somebody_works_with_are_not_replaced(kit: Kit) -> None:
    manifest = kit.manifest(MANIFEST)
    assert kit.run(manifest).status == DONE
    kit.do("UPDATE person SET name = 'of the application' WHERE tenant = 'b' AND id = 1")
    there = rows_of(kit, "b")
    with closing(sqlite3.connect(kit.folder / "in" / "b.db")) as connection, connection:
        connection.execute("DELETE FROM note WHERE id > 6")
    ended = kit.run(manifest)
    assert ended.status == USAGE, ended.said
    assert "as this fleet left them, found person (of 12 rows, other values)" in ended.said
    assert rows_of(kit, "b") == there
    kit.do("DELETE FROM note WHERE tenant = 'b'", "DELETE FROM person WHERE tenant = 'b'")
    assert kit.run(manifest).status == DONE
    require_equal(kit)


def test_rows_of_the_tenant_that_no_run_has_put_there_stop_it(kit: Kit) -> None:
    manifest = kit.manifest(MANIFEST)
    assert kit.run(manifest).status == DONE
    kit.do("INSERT INTO person (tenant, id, name, active) VALUES ('d', 1, 'x', true)")
    make_file(kit.folder / "in" / "d.db", 4)
    ended = kit.run(manifest)
    assert ended.status == USAGE, ended.said
    assert "found person (1 row, not the 0 there)" in ended.said
    assert kit.ask("SELECT name FROM person WHERE tenant = 'd'") == [("x",)]


def test_rows_that_change_on_their_way_are_found(kit: Kit) -> None:
    manifest = kit.manifest(MANIFEST)
    assert kit.run(manifest).status == DONE
    kit.do(
        "CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN NEW.size := NEW.size + (NEW.id = 7)::int; RETURN NEW; END $$",
        "CREATE TRIGGER change BEFORE INSERT ON note FOR EACH ROW EXECUTE FUNCTION change()",
    )
    make_file(kit.folder / "in" / "d.db", 4)
    ended = kit.run(manifest)
    assert ended.status == DIFFERS, ended.said
    assert "found in the common tables: note (of 12 rows, other values)" in ended.said
    assert kit.ask("SELECT count(*) FROM person WHERE tenant = 'd'") == [(0,)]
    require_equal(kit)


def test_outliers_and_damaged_files_stop_no_other(kit: Kit) -> None:
    make_file(kit.folder / "in" / "drift.db", 5, more="ALTER TABLE note ADD COLUMN colour TEXT")
    damage(kit.folder / "in" / "c.db", 1)
    ended = kit.run(kit.manifest(MANIFEST))
    assert ended.status != DONE
    states = {"a": "verified", "b": "verified", "c": "failed", "drift": "stopped"}
    assert kit.states() == states
    require_equal(kit, tenants=("a", "b"))
    assert kit.ask("SELECT DISTINCT tenant FROM person ORDER BY 1") == [("a",), ("b",)]


def test_the_column_is_what_the_manifest_says(kit: Kit) -> None:
    for number, tenant in enumerate(TENANTS, start=7):
        (kit.folder / "in" / f"{tenant}.db").rename(kit.folder / "in" / f"{number}.db")
    text = MANIFEST + "column: {name: Kunde, type: bigint, in_schema: Büro}\n"
    ended = kit.run(kit.manifest(text))
    assert ended.status == DONE, ended.said
    assert kit.ask('SELECT "Kunde", count(*) FROM "Büro".note GROUP BY 1 ORDER BY 1') == [
        *((7, 12), (8, 12), (9, 12))
    ]
    other = kit.run(kit.manifest(MANIFEST + "column: {name: tenant, type: bigint}\n"))
    assert other.status == USAGE
    assert "expected the column that the fleet was begun with" in other.said


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("ALTER TABLE note ADD COLUMN Tenant TEXT", "a column tenant in table note already"),
        ("PRAGMA foreign_keys=OFF; UPDATE note SET person = 99", "rows whose parent is missing"),
        (
            "CREATE TABLE p (x INTEGER PRIMARY KEY, note INTEGER REFERENCES note (id) "
            "ON UPDATE SET NULL)",
            "with ON UPDATE SET NULL",
        ),
    ],
)
def test_what_the_layout_cannot_have_is_refused_by_name(kit: Kit, more: str, said: str) -> None:
    for tenant in TENANTS:
        (kit.folder / "in" / f"{tenant}.db").unlink()
        make_file(kit.folder / "in" / f"{tenant}.db", 1, more=more)
    ended = kit.run(kit.manifest(MANIFEST))
    assert ended.status == BLOCKED, ended.said
    assert said in ended.said
    assert kit.ask("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == [
        (0,)
    ]


CIRCLE = """
CREATE TABLE boss (
    id INTEGER PRIMARY KEY, person INTEGER REFERENCES person (id) ON DELETE SET NULL);
INSERT INTO boss SELECT id, id FROM person WHERE id < 4;
ALTER TABLE person ADD COLUMN boss INTEGER REFERENCES boss (id);
UPDATE person SET boss = 1;
CREATE VIEW active AS SELECT name FROM person WHERE active;
"""


def test_circles_views_and_set_null_hold_from_postgresql_15_on(kit: Kit) -> None:
    """On 14 the two that it cannot have are named."""
    for number, tenant in enumerate(TENANTS):
        (kit.folder / "in" / f"{tenant}.db").unlink()
        make_file(kit.folder / "in" / f"{tenant}.db", number, more=CIRCLE)
    ended = kit.run(kit.manifest(MANIFEST))
    if MAJOR < 15:
        assert ended.status == BLOCKED, ended.said
        assert "view active on PostgreSQL before 15" in ended.said
        assert "with ON DELETE SET NULL on PostgreSQL before 15" in ended.said
        return
    assert ended.status == DONE, ended.said
    require_equal(kit)
    kit.do("DELETE FROM note", "UPDATE person SET boss = NULL", "DELETE FROM person WHERE id = 2")
    assert kit.ask("SELECT DISTINCT tenant, person FROM boss WHERE id = 2 ORDER BY 1") == [
        *(("a", None), ("b", None), ("c", None))
    ]
    ((options,),) = kit.ask("SELECT reloptions FROM pg_class WHERE relname = 'active'")
    assert options == ["security_invoker=true"]


def test_what_is_in_the_way_is_named_and_kept(kit: Kit) -> None:
    kit.do("CREATE TABLE person (mine text)")
    ended = kit.run(kit.manifest(MANIFEST))
    assert ended.status == USAGE, ended.said
    assert 'relation "person" already exists' in ended.said
    assert kit.ask("SELECT count(*) FROM person") == [(0,)]


def test_tables_that_are_gone_are_told(kit: Kit) -> None:
    assert kit.run(kit.manifest(MANIFEST)).status == DONE
    kit.do("DROP TABLE note")
    ended = kit.run(kit.manifest(MANIFEST))
    assert ended.status == USAGE, ended.said
    assert "expected the tables that all files share, found no note" in ended.said


SET_ASIDE = """
default: block
tables:
  note:
    columns:
      size: {action: quarantine}
      body: {action: map, map: {old: new}}
"""


def test_rows_that_are_set_aside_and_the_ledger_are_kept(kit: Kit) -> None:
    def change(tenant: str, statement: str) -> None:
        with closing(sqlite3.connect(kit.folder / "in" / f"{tenant}.db")) as file, file:
            file.execute(statement)

    change("a", "UPDATE note SET size = 'many' WHERE id = 2")
    change("b", "UPDATE note SET size = 'few' WHERE id = 3")
    change(
        "b", "UPDATE note SET body = CASE id WHEN 4 THEN 'old' ELSE 'new' END WHERE id IN (4, 5)"
    )
    (kit.folder / "policy.yaml").write_text(SET_ASIDE, encoding="utf-8")
    manifest = kit.manifest(MANIFEST + "policy: policy.yaml\n")
    aside = "SELECT tenant, tab, key, source_row FROM _migration_fleet.quarantine ORDER BY 1"
    changed = "SELECT tenant, tab, key, col, before, after FROM _migration_fleet.ledger"
    ended = kit.run(manifest)
    assert ended.status == DONE, ended.said
    assert "with exceptions in 2 files (a: 1 row set aside; b: 1 row set aside)" in ended.said
    assert kit.told()["files"]["a"]["message"].endswith("with exceptions: 1 row set aside")
    found = kit.ask(aside)
    assert [row[:3] for row in found] == [("a", "note", "[2]"), ("b", "note", "[3]")]
    assert '"many"' in found[0][3]
    assert kit.ask(changed) == [("b", "note", "[4]", "body", '"old"', "new")]
    assert kit.ask("SELECT count(*) FROM note WHERE tenant = 'a'") == [(11,)]
    change("a", "UPDATE note SET size = 7 WHERE id = 2")
    change("b", "UPDATE note SET size = 'less' WHERE id = 3")
    ended = kit.run(manifest)
    assert ended.status == DONE, ended.said
    ((tenant, _, key, row),) = kit.ask(aside)
    assert (tenant, key) == ("b", "[3]")
    assert '"less"' in row
    assert len(kit.ask(changed)) == 1


@pytest.mark.parametrize(
    ("done", "said"),
    [
        ("DROP POLICY own_tenant ON note", "note has no policy own_tenant"),
        ("ALTER TABLE note DISABLE ROW LEVEL SECURITY", "note has it disabled"),
        ("ALTER TABLE note NO FORCE ROW LEVEL SECURITY", "note does not force it"),
        ("ALTER POLICY own_tenant ON note USING (true)", "note has no policy own_tenant"),
    ],
)
def test_tables_that_are_open_to_every_tenant_are_told(kit: Kit, done: str, said: str) -> None:
    manifest = kit.manifest(MANIFEST)
    assert kit.run(manifest).status == DONE
    kit.do(done)
    ended = kit.run(manifest)
    assert ended.status == USAGE, ended.said
    assert said in ended.said
    assert kit.told()["certificate"] is None
    using = "(tenant = nullif(current_setting('app.tenant', true), ''))"
    kit.do(
        "ALTER TABLE note ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
        "DROP POLICY IF EXISTS own_tenant ON note",
        f"CREATE POLICY own_tenant ON note USING {using}",
    )
    assert kit.run(manifest).status == DONE


def test_a_child_that_stands_before_its_parent_is_removed_first(kit: Kit) -> None:
    """ON DELETE RESTRICT is not deferred."""
    more = """
        CREATE TABLE aa (id INTEGER PRIMARY KEY, zz INTEGER REFERENCES zz (id) ON DELETE RESTRICT);
        CREATE TABLE zz (id INTEGER PRIMARY KEY, mm INTEGER REFERENCES mm (id) ON DELETE RESTRICT);
        CREATE TABLE mm (id INTEGER PRIMARY KEY, mm INTEGER REFERENCES mm (id) ON DELETE RESTRICT);
        INSERT INTO mm VALUES (1, NULL), (2, 1);
        INSERT INTO zz VALUES (1, 2);
        INSERT INTO aa VALUES (1, 1);
    """
    for number, tenant in enumerate(TENANTS):
        (kit.folder / "in" / f"{tenant}.db").unlink()
        make_file(kit.folder / "in" / f"{tenant}.db", number, more=more)
    manifest = kit.manifest(MANIFEST)
    assert kit.run(manifest).status == DONE
    with closing(sqlite3.connect(kit.folder / "in" / "b.db")) as file, file:
        file.execute("INSERT INTO aa VALUES (2, 1)")
    ended = kit.run(manifest)
    assert ended.status == DONE, ended.said
    assert kit.ask("SELECT tenant, id FROM aa WHERE tenant = 'b' ORDER BY 2") == [
        ("b", 1),
        ("b", 2),
    ]


def test_an_outlier_is_not_advised_what_the_layout_refuses(kit: Kit) -> None:
    make_file(kit.folder / "in" / "drift.db", 5, more="ALTER TABLE note ADD COLUMN colour TEXT")
    ended = kit.run(kit.manifest(MANIFEST))
    assert ended.status == BLOCKED, ended.said
    message = kit.told()["files"]["drift"]["message"]
    assert "resolve the difference" in message
    assert "outliers: own" not in message
