"""``fleet-check`` says whether what a fleet moved is as it was verified."""

from __future__ import annotations

from pathlib import Path

import pytest

from migration_job.fleet import crew, worker
from tests.integration.fleetkit import Kit, make_file
from tests.integration.running import DIFFERS, DONE, USAGE, Ended, run

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
