"""``fleet``: many files under one plan, whatever one of them is."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import apsw
import psycopg
import pytest

from migration_job.fleet import crew, worker
from migration_job.fleet.tasks import Answer, Task
from tests.integration.fleetkit import (
    Kit,
    as_sqlite_has_it,
    as_the_target_has_it,
    damage,
    make_file,
)
from tests.integration.running import BLOCKED, DONE, FAILED, USAGE

pytestmark = pytest.mark.postgres

BY_SCHEMA = "files: 'in/*.db'\nlayout: schema-per-file\n"


@pytest.fixture
def kit(tmp_path: Path, postgres: str, monkeypatch: pytest.MonkeyPatch) -> Kit:
    """A fleet whose tasks are done in this process: starting others is tried by itself."""
    monkeypatch.setattr(crew.Worker, "ask", lambda _worker, task: worker.answer(task))
    return Kit(tmp_path, postgres)


@pytest.fixture
def made(kit: Kit) -> list[str]:
    """Five files that are alike."""
    names = [f"t{number}" for number in range(5)]
    for number, name in enumerate(names):
        make_file(kit.folder / "in" / f"{name}.db", number)
    return names


def test_files_go_into_schemas_in_worker_processes(tmp_path: Path, postgres: str) -> None:
    kit = Kit(tmp_path, postgres)
    for number in range(4):
        make_file(tmp_path / "in" / "a b" / f"{number}" / "app.db", number)
    manifest = kit.manifest(
        "files: in/**/app.db\n"
        "tenant: 'in/a b/(?P<tenant>[^/]+)/app\\.db'\n"
        "layout: schema-per-file\nname: 'Büro {tenant}'\n"
    )
    ended = kit.run(manifest, "--jobs", "2")
    assert ended.status == DONE, ended.said
    assert "4 files with 96 rows are on the target and verified" in ended.said
    for number in range(4):
        path = tmp_path / "in" / "a b" / f"{number}" / "app.db"
        assert as_the_target_has_it(kit, f"Büro {number}") == as_sqlite_has_it(path)
    told = kit.told()
    assert told["outcome"] == "verified"
    assert set(told["plans"]) == {"1"}
    page = (kit.report / "fleet.html").read_text(encoding="utf-8")
    for tenant, file in told["files"].items():
        own = kit.report / file["report"]
        assert (own / "report.html").is_file(), tenant
        assert f'href="{file["report"]}/report.html"' in page


def test_the_fleets_certificate_is_the_sum_of_the_files(kit: Kit, made: list[str]) -> None:
    manifest = kit.manifest(BY_SCHEMA)
    assert kit.run(manifest).status == DONE
    certificate = kit.told()["certificate"]
    for name in made:
        ((digest, body),) = kit.ask(f"SELECT digest, body FROM migration_{name}.certificate")
        assert certificate["files"][name] == digest
        content = json.loads(body)
        assert content.pop("digest") == digest
    assert certificate["rows"] == 5 * 24
    kept = kit.ask("SELECT digest, body FROM _migration_fleet.certificate")
    (digest, body) = kept[0]
    assert digest == certificate["digest"]
    whole = json.loads(body)
    assert whole.pop("digest") == digest
    text = json.dumps(whole, separators=(",", ":"), ensure_ascii=False)
    assert hashlib.sha256(text.encode()).hexdigest() == digest


def test_a_second_run_does_nothing_twice(kit: Kit, made: list[str]) -> None:
    manifest = kit.manifest(BY_SCHEMA)
    assert kit.run(manifest).status == DONE
    query = "SELECT run_id, updated_at FROM migration_{}.run"
    before = [kit.ask(query.format(name)) for name in made]
    first = kit.told()["certificate"]
    again = kit.run(manifest)
    assert again.status == DONE, again.said
    assert "5 of them as certified by the earlier run" in again.said
    assert [kit.ask(query.format(name)) for name in made] == before
    assert kit.told()["certificate"] == first


def test_a_file_that_was_written_to_is_moved_again_and_a_new_one_joins(
    kit: Kit, made: list[str]
) -> None:
    manifest = kit.manifest(BY_SCHEMA)
    assert kit.run(manifest).status == DONE
    changed = kit.folder / "in" / "t2.db"
    with closing(sqlite3.connect(changed)) as connection, connection:
        connection.execute("UPDATE note SET body = 'other' WHERE id = 3")
    make_file(kit.folder / "in" / "t9.db", 9)
    again = kit.run(manifest)
    assert again.status == DONE, again.said
    assert "4 of them as certified by the earlier run" in again.said
    for name in (*made, "t9"):
        path = kit.folder / "in" / f"{name}.db"
        assert as_the_target_has_it(kit, name) == as_sqlite_has_it(path)


@pytest.mark.parametrize("layout", ["schema-per-file", "tenant-column"])
def test_a_file_that_was_only_looked_into_is_not_moved_again(kit: Kit, layout: str) -> None:
    """In WAL mode that leaves a log without content."""
    make_file(kit.folder / "in" / "a.db", 1, more="PRAGMA journal_mode = WAL")
    manifest = kit.manifest(f"files: 'in/*.db'\nlayout: {layout}\n")
    assert kit.run(manifest).status == DONE
    as_sqlite_has_it(kit.folder / "in" / "a.db")
    log = kit.folder / "in" / "a.db-wal"
    log.touch()
    for _ in range(2):
        again = kit.run(manifest)
        assert again.status == DONE, again.said
        assert "1 of them as certified by the earlier run" in again.said
        log.unlink(missing_ok=True)


def test_a_file_that_is_open_is_not_moved_again(kit: Kit) -> None:
    """Its log has content; as root, SQLite changes the kernel's time of that whenever it opens
    it."""
    path = kit.folder / "in" / "a.db"
    make_file(path, 1, more="PRAGMA journal_mode = WAL")
    manifest = kit.manifest(BY_SCHEMA)
    with closing(apsw.Connection(os.fspath(path))) as application:
        application.execute("UPDATE note SET body = 'in the log' WHERE id = 3")
        assert kit.run(manifest).status == DONE
        for _ in range(2):
            again = kit.run(manifest)
            assert "1 of them as certified by the earlier run" in again.said
        application.execute("UPDATE note SET body = 'changed' WHERE id = 3")
        assert kit.run(manifest).status == DONE
        assert kit.ask("SELECT body FROM a.note WHERE id = 3") == [("changed",)]


def test_each_file_has_a_database_of_its_own(kit: Kit, made: list[str], postgres: str) -> None:
    marked = psycopg.conninfo.conninfo_to_dict(postgres)["dbname"]
    manifest = kit.manifest(
        f"files: 'in/*.db'\nlayout: database-per-file\nname: '{marked}_{{tenant}}'\n"
    )
    names = [f"{marked}_{name}" for name in made]
    try:
        ended = kit.run(manifest)
        assert ended.status == DONE, ended.said
        for name in made:
            there = as_the_target_has_it(kit, "public", f"{marked}_{name}")
            assert there == as_sqlite_has_it(kit.folder / "in" / f"{name}.db")
        again = kit.run(manifest)
        assert "5 of them as certified by the earlier run" in again.said
    finally:
        kit.do(*(f'DROP DATABASE IF EXISTS "{name}"' for name in names))


def test_every_file_of_a_schema_gets_the_same_types(kit: Kit) -> None:
    """Each alone has others: an empty file, integers beyond 32 bits, fractions of seconds."""
    make_file(kit.folder / "in" / "plain.db", 1)
    make_file(kit.folder / "in" / "empty.db", 2, rows=0)
    make_file(kit.folder / "in" / "large.db", 3, more="UPDATE note SET size = 5000000000")
    make_file(
        kit.folder / "in" / "fine.db",
        4,
        more="UPDATE person SET made = made || '.125' WHERE id > 3",
    )
    ended = kit.run(kit.manifest(BY_SCHEMA))
    assert ended.status == DONE, ended.said
    assert "plan 1: 4 files, the fleet's" in ended.said
    for name in ("plain", "empty", "large", "fine"):
        assert kit.types(name)["size"] == "bigint"
        assert kit.types(name, "person")["made"] == "timestamp(3) with time zone"
    policy = (kit.report / "plans" / "1.policy.yaml").read_text(encoding="utf-8")
    assert "type: bigint" in policy
    assert kit.told()["plans"]["1"]["files"] == 4


def test_views_name_the_schema_of_each_file_and_are_one_plan(kit: Kit) -> None:
    view = "CREATE VIEW quiet AS SELECT p.name, 'one.person' AS t FROM person p WHERE NOT p.active"
    for number, name in enumerate(("one", "two")):
        make_file(kit.folder / "in" / f"{name}.db", number, more=view)
    ended = kit.run(kit.manifest(BY_SCHEMA))
    assert ended.status == DONE, ended.said
    assert "plan 1: 2 files, the fleet's" in ended.said
    assert kit.ask("SELECT count(*) FROM two.quiet WHERE name LIKE '% of 1'") == [(6,)]


def test_a_file_that_came_later_takes_the_types_that_are_there(kit: Kit) -> None:
    make_file(kit.folder / "in" / "first.db", 1, more="UPDATE note SET size = 5000000000")
    manifest = kit.manifest(BY_SCHEMA)
    assert kit.run(manifest).status == DONE
    make_file(kit.folder / "in" / "later.db", 2)
    make_file(kit.folder / "in" / "never.db", 3, rows=0)
    make_file(kit.folder / "in" / "wide.db", 4, more="UPDATE note SET score = 'none' WHERE id = 2")
    ended = kit.run(manifest)
    assert ended.status == DONE, ended.said
    assert kit.types("later")["size"] == kit.types("never")["size"] == "bigint"
    plans = {tenant: file["plan"] for tenant, file in kit.told()["files"].items()}
    assert plans["first"] == plans["later"] == plans["never"] == 1
    assert plans["wide"] != 1
    assert kit.types("wide")["score"] == "text"


DRIFTED = "ALTER TABLE note ADD COLUMN colour TEXT; UPDATE note SET colour = 'red';"


def test_outliers_have_plans_of_their_own_and_are_listed(kit: Kit, made: list[str]) -> None:
    for number, name in enumerate(("d1", "d2")):
        make_file(kit.folder / "in" / f"{name}.db", number, more=DRIFTED)
    ended = kit.run(kit.manifest(BY_SCHEMA))
    assert ended.status == DONE, ended.said
    assert "plan 2: 2 files, of outliers: table note column colour more" in ended.said
    assert "colour" in kit.types("d1")
    assert "colour" not in kit.types("t1")
    assert kit.told()["plans"]["2"]["common"] is False


def test_outliers_are_stopped_where_the_manifest_says_so(kit: Kit, made: list[str]) -> None:
    make_file(kit.folder / "in" / "d1.db", 1, more=DRIFTED)
    make_file(kit.folder / "in" / "d2.db", 2, more="UPDATE note SET size = 'many' WHERE id = 2")
    manifest = kit.manifest(BY_SCHEMA + "outliers: stop\n")
    ended = kit.run(manifest)
    assert ended.status == BLOCKED, ended.said
    assert "2 of 7 files are not verified on the target, 5 are" in ended.said
    assert kit.states() == {**dict.fromkeys(made, "verified"), "d1": "stopped", "d2": "stopped"}
    assert kit.told()["certificate"] is None
    assert kit.ask("SELECT count(*) FROM pg_namespace WHERE nspname ~ 'd[12]$'") == [(0,)]
    ended = kit.run(kit.manifest(BY_SCHEMA + "outliers: own\n"))
    assert ended.status == DONE, ended.said
    assert kit.types("d2")["size"] == "text"


def test_a_damaged_file_stops_no_other(kit: Kit, made: list[str]) -> None:
    broken = kit.folder / "in" / "t2.db"
    whole = broken.read_bytes()
    damage(broken, 1)
    (kit.folder / "in" / "none.db").write_bytes(b"This is no database at all." * 300)
    ended = kit.run(kit.manifest("files: ['in/*.db', in/gone.db]\nlayout: schema-per-file\n"))
    assert ended.status == USAGE, ended.said
    assert "3 of 7 files are not verified on the target, 4 are" in ended.said
    states = kit.states()
    assert {t for t, s in states.items() if s == "failed"} == {"t2", "none", "gone"}
    assert {t for t, s in states.items() if s == "verified"} == {"t0", "t1", "t3", "t4"}
    (kit.folder / "in" / "none.db").unlink()
    broken.write_bytes(whole)
    ended = kit.run(kit.manifest(BY_SCHEMA))
    assert ended.status == DONE, ended.said
    assert as_the_target_has_it(kit, "t2") == as_sqlite_has_it(broken)
    assert kit.told()["files"]["none"]["listed"] is False


def test_a_policy_stops_one_file_and_resolves_it(kit: Kit, made: list[str]) -> None:
    make_file(kit.folder / "in" / "bad.db", 7, more="UPDATE note SET size = 'x' WHERE id = 1")
    (kit.folder / "policy.yaml").write_text("default: block\n", encoding="utf-8")
    manifest = kit.manifest(BY_SCHEMA + "policy: policy.yaml\n")
    ended = kit.run(manifest)
    assert ended.status == BLOCKED, ended.said
    assert kit.states()["bad"] == "stopped"
    (kit.folder / "policy.yaml").write_text(
        "default: block\ntables: {note: {columns: {size: {action: quarantine}}}}\n",
        encoding="utf-8",
    )
    ended = kit.run(manifest)
    assert ended.status == DONE, ended.said
    assert kit.told()["files"]["bad"]["quarantine_count"] == 1


def test_a_worker_that_dies_takes_one_file_with_it(
    tmp_path: Path, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit = Kit(tmp_path, postgres)
    for number in range(3):
        make_file(tmp_path / "in" / f"t{number}.db", number)
    ask = crew.Worker.ask
    killed: list[int] = []

    def asked(one: crew.Worker, task: Task) -> Answer:
        if task.tenant == "t1" and not killed:
            one._started()
            assert one._process is not None
            one._process.kill()
            killed.append(one._process.pid)
        return ask(one, task)

    monkeypatch.setattr(crew.Worker, "ask", asked)
    ended = kit.run(kit.manifest(BY_SCHEMA), "--jobs", "1")
    assert killed
    assert ended.status == FAILED, ended.said
    assert "signal 9" in ended.said
    assert kit.states() == {"t0": "verified", "t1": "failed", "t2": "verified"}
    assert kit.run(kit.manifest(BY_SCHEMA), "--jobs", "1").status == DONE


def test_what_it_was_begun_as_it_stays(kit: Kit, made: list[str]) -> None:
    assert kit.run(kit.manifest(BY_SCHEMA)).status == DONE
    other = kit.run(kit.manifest("files: 'in/*.db'\nlayout: database-per-file\n"))
    assert other.status == USAGE
    assert "expected layout: schema-per-file" in other.said
    renamed = kit.run(kit.manifest(BY_SCHEMA + "name: 'x_{tenant}'\n"))
    assert renamed.status == USAGE
    assert "as the place of tenant 't0'" in renamed.said
    named = kit.run(kit.manifest(BY_SCHEMA), "--schema-name", "one")
    assert named.status == USAGE
    assert "the manifest's `name`" in named.said


def test_a_certificate_that_was_changed_in_the_book_is_not_believed(
    kit: Kit, made: list[str]
) -> None:
    manifest = kit.manifest(BY_SCHEMA)
    assert kit.run(manifest).status == DONE
    kit.do(
        "UPDATE _migration_fleet.file SET body = replace(body, '\"rows\":12', '\"rows\":13') "
        "WHERE tenant = 't1'"
    )
    ended = kit.run(manifest)
    assert ended.status == 4, ended.said
    assert "the certificate of t1" in ended.said


def test_a_schema_that_is_gone_is_made_again(kit: Kit, made: list[str]) -> None:
    manifest = kit.manifest(BY_SCHEMA)
    assert kit.run(manifest).status == DONE
    kit.do("DROP SCHEMA t1 CASCADE", "DROP SCHEMA migration_t1 CASCADE")
    ended = kit.run(manifest)
    assert ended.status == DONE, ended.said
    path = kit.folder / "in" / "t1.db"
    assert as_the_target_has_it(kit, "t1") == as_sqlite_has_it(path)


def test_rows_in_the_log_behind_a_link_are_moved(kit: Kit) -> None:
    real = kit.folder / "real" / "app.db"
    make_file(real, 1)
    (kit.folder / "in").mkdir()
    (kit.folder / "in" / "a.db").symlink_to(real)
    manifest = kit.manifest(BY_SCHEMA)
    with closing(sqlite3.connect(real)) as connection:
        connection.execute("PRAGMA journal_mode = wal")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        assert kit.run(manifest).status == DONE
        with connection:
            connection.execute("UPDATE note SET body = 'in the log' WHERE id = 3")
        assert kit.run(manifest).status == DONE
        assert kit.ask("SELECT body FROM a.note WHERE id = 3") == [("in the log",)]


WITH_EXCEPTIONS = """
default: block
except: [old]
tables:
  note:
    columns: {size: {action: quarantine}}
    where: id <> 12
"""


def test_exceptions_of_files_stand_beside_verified(kit: Kit, made: list[str]) -> None:
    for number, name in enumerate(made):
        (kit.folder / "in" / f"{name}.db").unlink()
        more = "CREATE TABLE old (x); INSERT INTO old VALUES (1);"
        if name == "t1":
            more += "UPDATE note SET size = 'x' WHERE id = 1;"
        make_file(kit.folder / "in" / f"{name}.db", number, more=more)
    (kit.folder / "policy.yaml").write_text(WITH_EXCEPTIONS, encoding="utf-8")
    manifest = kit.manifest(BY_SCHEMA + "policy: policy.yaml\n")
    left = ["1 table left out", "1 row left out"]
    for run in range(2):
        ended = kit.run(manifest)
        assert ended.status == DONE, ended.said
        told = kit.told()
        for said in (ended.said, told["message"]):
            assert "with exceptions in 5 files (t0: 1 table left out, 1 row left out; t1: " in said
            assert "1 row set aside" in said
            assert ("as certified by the earlier run" in said) == bool(run)
        assert told["files"]["t0"]["exceptions"] == left
        assert told["files"]["t1"]["exceptions"] == [*left, "1 row set aside"]
        certificate = told["certificate"]
        assert certificate["exceptions"]["t1"] == [*left, "1 row set aside"]
        assert "old: 1 row left out" in certificate["partial"]["t0"]
        page = (kit.report / "fleet.html").read_text(encoding="utf-8")
        assert "<strong>verified, with exceptions</strong>" in page


@pytest.mark.parametrize("gone", ["DROP TABLE t1.note", "DROP SCHEMA t1 CASCADE"])
def test_tables_of_a_verified_file_that_are_gone_are_told(
    kit: Kit, made: list[str], gone: str
) -> None:
    manifest = kit.manifest(BY_SCHEMA)
    assert kit.run(manifest).status == DONE
    kit.do(gone)
    for _ in range(2):
        ended = kit.run(manifest)
        assert ended.status == USAGE, ended.said
        assert "1 of 5 files is not verified on the target" in ended.said
        assert "note" in ended.said
        assert kit.states() == {**dict.fromkeys(made, "verified"), "t1": "failed"}
        assert kit.told()["certificate"] is None
    kit.do("DROP SCHEMA IF EXISTS t1 CASCADE", "DROP SCHEMA migration_t1 CASCADE")
    assert kit.run(manifest).status == DONE
    path = kit.folder / "in" / "t1.db"
    assert as_the_target_has_it(kit, "t1") == as_sqlite_has_it(path)


def test_names_that_are_not_utf_8_and_fifos_stop_no_other(kit: Kit, made: list[str]) -> None:
    os.mkfifo(kit.folder / "in" / "pipe.db")
    make_file(Path(os.fsdecode(os.fsencode(kit.folder) + b"/in/caf\xe9.db")), 1)
    ended = kit.run(kit.manifest(BY_SCHEMA))
    assert ended.status == USAGE, ended.said
    assert "2 of 7 files are not verified on the target, 5 are" in ended.said
    assert "found a FIFO" in ended.said
    assert "expected a path in UTF-8" in ended.said
    states = {**dict.fromkeys(made, "verified"), "pipe": "failed", "caf\\udce9": "failed"}
    assert kit.states() == states


def test_another_policy_for_verified_files_is_told(kit: Kit, made: list[str]) -> None:
    (kit.folder / "policy.yaml").write_text("default: block\n", encoding="utf-8")
    manifest = kit.manifest(BY_SCHEMA + "policy: policy.yaml\n")
    assert kit.run(manifest).status == DONE
    other = "default: block\ntables: {note: {where: id <> 12}}\n"
    (kit.folder / "policy.yaml").write_text(other, encoding="utf-8")
    for _ in range(2):
        ended = kit.run(manifest)
        assert ended.status == USAGE, ended.said
        assert "others, which plan t0, t1, t2" in ended.said
        assert kit.told()["certificate"] is None
    for name in made:
        os.utime(kit.folder / "in" / f"{name}.db")
    ended = kit.run(manifest)
    assert ended.status == DONE, ended.said
    assert kit.ask("SELECT count(*) FROM t1.note") == [(11,)]
    assert "as certified by the earlier run" in kit.run(manifest).said
