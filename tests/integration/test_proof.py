"""The application's proof: on a copy that the job makes, by the job itself or by somebody else."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from migration_job.application_proof import AWAITED
from migration_job.embedded import EmbeddedPostgres
from tests.conftest import MakeSqlite
from tests.integration.running import DIFFERS, DONE, FAILED, USAGE, Ended, run
from tests.integration.wholeway import Way

pytestmark = pytest.mark.postgres

SOURCE = "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'a'), (2, 'b')"
COPIES = "SELECT datname FROM pg_database WHERE starts_with(datname, %s)"
LIMIT = 60.0


def copies(dsn: str) -> list[str]:
    """The copies of this database that there are."""
    name = str(conninfo_to_dict(dsn)["dbname"])
    with psycopg.connect(make_conninfo(dsn, dbname="postgres")) as beside:
        return [name for (name,) in beside.execute(COPIES, (f"{name[:40]}_proof_",)).fetchall()]


RECORDS = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'migration%'"


def announced(copy: str) -> bool:
    """Whether the job has removed its records from the copy, after which it names it."""
    with psycopg.connect(copy) as there:
        return there.execute(RECORDS).fetchone() == (0,)


@contextmanager
def somebody(dsn: str, answer: Path, act: Callable[[str], object]) -> Iterator[list[str]]:
    """Whoever runs the proof: as soon as a copy is announced, ``act`` on it and answer with what
    that returns. Gives the copies' names."""
    found: list[str] = []
    ended = threading.Event()

    def work() -> None:
        until = time.monotonic() + LIMIT
        while not ended.wait(0.05) and time.monotonic() < until:
            if (names := copies(dsn)) and announced(make_conninfo(dsn, dbname=names[0])):
                found.extend(names)
                answer.write_text(json.dumps(tried(make_conninfo(dsn, dbname=names[0]))))
                return

    def tried(copy: str) -> object:
        try:
            return act(copy)
        except psycopg.Error as error:
            return {"error": str(error)}

    answer.parent.mkdir(exist_ok=True)
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()


def migrate(source: Path, dsn: str, folder: Path, *options: str | Path) -> Ended:
    return run("migrate", source, "--target", dsn, "--report", folder, *options)


def writes(dsn: str) -> dict[str, object]:
    """An application that works on the copy: without the job's records, and with all rows."""
    with psycopg.connect(dsn) as copy:
        copy.execute("INSERT INTO t VALUES (3, 'of the proof')")
        (rows,) = copy.execute("SELECT count(*) FROM t").fetchone() or (0,)
        (ours,) = copy.execute("SELECT to_regclass('migration.run')").fetchone() or ("",)
    said = f"begun\n{rows} rows, records {ours}\n"
    return {"command": "shop:4.2 check", "status": 0, "said": said}


@pytest.mark.parametrize("live", [False, True], ids=["offline", "live"])
def test_somebody_else_proves_a_copy_that_is_then_gone(
    make_sqlite: MakeSqlite, postgres: str, tmp_path: Path, live: bool
) -> None:
    source, answer = make_sqlite(SOURCE), tmp_path / "told" / "proof.json"
    more = ("--live", "--state", tmp_path / "state") if live else ()
    with somebody(postgres, answer, writes) as found:
        ended = migrate(source, postgres, tmp_path / "r", "--proof-answer", answer, *more)
    assert ended.status == DONE, ended.said
    (name,) = found
    assert f"{AWAITED}{name}" in ended.said.splitlines()
    certificate = json.loads((tmp_path / "r/report.json").read_text())["certificate"]
    assert certificate["checks"]["proof"] == "shop:4.2 check: 3 rows, records None"
    with psycopg.connect(postgres) as target:
        assert target.execute("SELECT count(*) FROM t").fetchone() == (2,)
    assert copies(postgres) == []


def test_an_answer_that_it_failed_stops_like_any_check(
    make_sqlite: MakeSqlite, postgres: str, tmp_path: Path
) -> None:
    password = str(conninfo_to_dict(postgres)["password"])
    answer = tmp_path / "told" / "proof.json"
    failed = {"command": "shop:4.2 check", "status": 3, "said": f"no such column, {password}\n"}
    with somebody(postgres, answer, lambda _: failed):
        ended = migrate(make_sqlite(SOURCE), postgres, tmp_path / "r", "--proof-answer", answer)
    assert ended.status == DIFFERS, ended.said
    assert "proof ended with status 3: shop:4.2 check: no such column, ***" in ended.said
    assert password not in ended.said
    assert copies(postgres) == []
    with psycopg.connect(postgres) as target:
        assert target.execute("SELECT phase FROM migration.run").fetchone() == ("copied",)


@pytest.mark.parametrize(
    ("told", "status", "says"),
    [
        ({"error": "no image shop:4.2"}, FAILED, "could not be run: no image shop:4.2"),
        ({"status": 0}, USAGE, "expected JSON with command, status and said"),
    ],
)
def test_an_answer_that_is_none_stops_too(
    make_sqlite: MakeSqlite,
    postgres: str,
    tmp_path: Path,
    told: dict[str, object],
    status: int,
    says: str,
) -> None:
    answer = tmp_path / "told" / "proof.json"
    with somebody(postgres, answer, lambda _: told):
        ended = migrate(make_sqlite(SOURCE), postgres, tmp_path / "r", "--proof-answer", answer)
    assert ended.status == status, ended.said
    assert says in ended.said
    assert copies(postgres) == []


def test_what_cannot_be_is_refused_before_anything_is_loaded(
    make_sqlite: MakeSqlite, postgres: str, tmp_path: Path
) -> None:
    source, old = make_sqlite(SOURCE), tmp_path / "old.json"
    old.write_text("{}")
    for options, says in (
        (("--proof", "x", "--proof-answer", tmp_path / "new.json"), "expected one of --proof and"),
        (("--proof-answer", old), f"expected no {old}"),
        (("--proof", " "), "expected a command after --proof"),
    ):
        ended = migrate(source, postgres, tmp_path / "r", *options)
        assert (ended.status, says in ended.said) == (USAGE, True), ended.said

    with psycopg.connect(postgres, autocommit=True) as target:
        target.execute("DROP ROLE IF EXISTS proof_mover")
        target.execute("CREATE ROLE proof_mover LOGIN PASSWORD 'secret of the mover'")
        target.execute("GRANT ALL ON SCHEMA public TO proof_mover")
        name = conninfo_to_dict(postgres)["dbname"]
        target.execute(f'GRANT CREATE ON DATABASE "{name}" TO proof_mover'.encode())
        mover = make_conninfo(postgres, user="proof_mover", password="secret of the mover")
        try:
            ended = migrate(source, mover, tmp_path / "r", "--proof", "true")
            assert ended.status == USAGE, ended.said
            assert "may make databases (ALTER ROLE ... CREATEDB) and owns" in ended.said
            found = target.execute("SELECT to_regnamespace('migration')").fetchone()
            assert found == (None,)
        finally:
            target.execute("DROP OWNED BY proof_mover")
            target.execute("DROP ROLE proof_mover")


def test_who_is_in_the_way_is_named(make_sqlite: MakeSqlite, postgres: str, tmp_path: Path) -> None:
    with psycopg.connect(postgres, application_name="somebody's report"):
        ended = migrate(make_sqlite(SOURCE), postgres, tmp_path / "r", "--proof", "true")
    assert ended.status == FAILED, ended.said
    assert "connected are" in ended.said
    assert "somebody's report" in ended.said


def test_a_session_of_the_job_s_own_gives_way(
    make_sqlite: MakeSqlite, postgres: str, tmp_path: Path
) -> None:
    """`sync` stays connected while it lets another command act."""
    with psycopg.connect(postgres, application_name="migration-job sync"):
        ended = migrate(make_sqlite(SOURCE), postgres, tmp_path / "r", "--proof", "true")
    assert ended.status == DONE, ended.said


def test_what_a_killed_run_left_is_removed(
    make_sqlite: MakeSqlite, postgres: str, postgres_server: EmbeddedPostgres, tmp_path: Path
) -> None:
    source = make_sqlite(SOURCE)
    words = ["migrate", source, "--target", postgres, "--report", tmp_path / "r"]
    answer = tmp_path / "never.json"
    process = subprocess.Popen(
        [sys.executable, "-m", "migration_job", *map(str, words), "--proof-answer", str(answer)],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        stream = process.stderr
        assert stream is not None
        assert any(line.startswith(AWAITED) for line in stream)
    finally:
        process.kill()
        process.communicate()
    (left,) = copies(postgres)
    ended = migrate(source, postgres, tmp_path / "r", "--proof", "true")
    assert ended.status == DONE, ended.said
    assert left.endswith(json.loads((tmp_path / "r/run.json").read_text())["run_id"][:8])
    assert copies(postgres) == []


def test_in_another_schema_the_proof_finds_the_tables(
    make_sqlite: MakeSqlite, postgres: str, tmp_path: Path
) -> None:
    program = "import os, psycopg; c = psycopg.connect(); print(*c.execute('TABLE t').fetchall())"
    (tmp_path / "proof.py").write_text(program)
    proof = f"{sys.executable} {tmp_path / 'proof.py'}"
    with psycopg.connect(postgres) as target:
        target.execute("CREATE SCHEMA sales")
    ended = migrate(
        *(make_sqlite(SOURCE), postgres, tmp_path / "r"),
        *("--schema-name", "sales", "--proof", proof),
    )
    assert ended.status == DONE, ended.said
    certificate = json.loads((tmp_path / "r/report.json").read_text())["certificate"]
    assert certificate["checks"]["proof"].endswith("(1, 'a') (2, 'b')")


def test_a_run_that_sync_follows_is_proven_again(postgres: str, tmp_path: Path) -> None:
    """With another proof a stage runs it once more, while `sync` follows the source."""
    way = Way.of(tmp_path, postgres, SOURCE, "wal")
    ended = way.migrate("--proof", "false")
    assert ended.status == DIFFERS, ended.said
    ended = way.migrate("--proof", "true")
    assert ended.status == DONE, ended.said
    assert way.command("switch").status == DONE
    with psycopg.connect(postgres) as target:
        target.execute("INSERT INTO t VALUES (9, 'written there')")
    assert way.command("rollback").status == DONE
    assert (9, "written there") in way.on_sqlite("SELECT * FROM t")
