"""What docs/comparison.md says was measured of other tools, measured; and that the rest has its
source."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from benchmarks import peers
from benchmarks.losses import Lost, altered_in_words, definitions, lost_between, lost_in_words
from benchmarks.peers import url
from migration_job.embedded import EmbeddedPostgres
from tests.conftest import MakeSqlite
from tests.integration.running import BLOCKED, run

PAGE = Path(__file__).resolve().parents[2] / "docs" / "comparison.md"
OTHERS = slice(2, None)
"""The columns of other tools, behind a row's name and this project's."""

ONE_IN_THREE = (
    "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER NOT NULL);"
    "INSERT INTO t VALUES (1, 5), (2, 'many'), (3, 7)"
)


def rows_at(dsn: str) -> int:
    with psycopg.connect(dsn) as target:
        if target.execute("SELECT to_regclass('public.t')").fetchone() == (None,):
            return 0
        row = target.execute("SELECT count(*) FROM t").fetchone()
    assert row is not None
    return int(row[0])


def packaged() -> str:
    if not peers.available(peers.PACKAGED_PGLOADER):
        pytest.skip("pgloader is not installed (Debian: pgloader)")
    return peers.PACKAGED_PGLOADER


def newer() -> str:
    program = os.environ.get(peers.NEWER_PGLOADER, "")
    if not program:
        pytest.skip(f"{peers.NEWER_PGLOADER} names no program: pgloader 4 is in no package")
    return program


Program = Callable[[], str]

VERSIONS = [pytest.param(packaged, id="3.6"), pytest.param(newer, id="4")]


def loaded(program: str, source: Path, dsn: str, *words: str) -> int:
    """The exit status of a run whose files of refused rows lie beside the source."""
    command = [program, "--root-dir", str(source.parent), *words, f"sqlite://{source}", url(dsn)]
    return subprocess.run(command, cwd=source.parent, capture_output=True, check=False).returncode


def pgloader(source: Path, dsn: str, server: EmbeddedPostgres) -> int:
    del server
    return loaded(packaged(), source, dsn)


def pgloader_4(source: Path, dsn: str, server: EmbeddedPostgres) -> int:
    del server
    return loaded(newer(), source, dsn)


def dumped(source: Path, dsn: str, server: EmbeddedPostgres) -> int:
    with sqlite3.connect(source) as connection:
        script = "\n".join(connection.iterdump())
    command = [str(server.program("psql")), "-qX", dsn]
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
    assert "invalid input syntax for type integer" in done.stderr
    return done.returncode


@pytest.mark.postgres
@pytest.mark.parametrize("tool", [pgloader, pgloader_4, dumped])
def test_rows_are_lost_and_the_exit_status_is_zero(
    tool: Callable[[Path, str, EmbeddedPostgres], int],
    make_sqlite: MakeSqlite,
    postgres: str,
    postgres_server: EmbeddedPostgres,
) -> None:
    status = tool(make_sqlite(ONE_IN_THREE), postgres, postgres_server)
    assert rows_at(postgres) < 3
    assert status == 0


@dataclass(frozen=True)
class Beside:
    """A source, loaded by this project, and an empty database beside it for another tool."""

    source: Path
    ours: str
    theirs: str

    def lost(self) -> list[Lost]:
        return lost_between(self.ours, self.theirs)


@pytest.fixture
def beside(
    make_sqlite: MakeSqlite, postgres: str, postgres_server: EmbeddedPostgres, tmp_path: Path
) -> Iterator[Callable[[str], Beside]]:
    name = "beside_another_tool"

    def made(script: str) -> Beside:
        source = make_sqlite(script)
        done = run("migrate", source, "--target", postgres, "--report", tmp_path / "report")
        assert done.status == 0, done.said
        return Beside(source, postgres, postgres_server.create_database(name))

    yield made
    postgres_server.drop_database(name)


@pytest.mark.postgres
@pytest.mark.parametrize("program", VERSIONS)
def test_pgloader_shortens_numbers(program: Program, beside: Callable[[str], Beside]) -> None:
    """Its default for REAL, which has 8 bytes in SQLite, is PostgreSQL's real, which has 4."""
    two = beside(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, r REAL);"
        "INSERT INTO t VALUES (1, 0.5), (2, 0.123456789012345)"
    )
    assert loaded(program(), two.source, two.theirs) == 0
    assert two.lost() == [Lost("t", missing=0, changed=1)]


BYTES = (
    "CREATE TABLE t (id INTEGER PRIMARY KEY, b BLOB); INSERT INTO t VALUES (1, x'00ff'), (2, NULL)"
)


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("program", "lost"),
    [
        pytest.param(packaged, [], id="3.6"),
        pytest.param(newer, [Lost("t", missing=0, changed=1)], id="4"),
    ],
)
def test_pgloader_4_stores_no_blob(
    program: Program, lost: list[Lost], beside: Callable[[str], Beside]
) -> None:
    two = beside(BYTES)
    assert loaded(program(), two.source, two.theirs) == 0
    assert two.lost() == lost
    if lost:
        with psycopg.connect(two.theirs) as target:
            there = target.execute("SELECT b::text FROM t WHERE b IS NOT NULL").fetchone()
        # The name of an object of its runtime instead of the bytes, as text or as its bytes.
        assert there is not None
        assert re.match(r"\[B@|" + re.escape(r"\x5b4240"), there[0])


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("program", "added"), [pytest.param(packaged, 0, id="3.6"), pytest.param(newer, 2, id="4")]
)
def test_pgloader_4_adds_to_the_tables_that_it_is_to_fill(
    program: Program, added: int, beside: Callable[[str], Beside]
) -> None:
    two = beside(
        "CREATE TABLE p (id INTEGER PRIMARY KEY, n INTEGER);"
        "CREATE INDEX p_n ON p (n);"
        "CREATE TABLE c (id INTEGER PRIMARY KEY, p INTEGER REFERENCES p (id));"
        "INSERT INTO p VALUES (1, 5); INSERT INTO c VALUES (1, 1)"
    )
    with psycopg.connect(two.theirs) as target:
        target.execute(
            "CREATE TABLE p (id integer PRIMARY KEY, n integer);"
            "CREATE INDEX p_n ON p (n);"
            "CREATE TABLE c (id integer PRIMARY KEY, p integer REFERENCES p (id))"
        )
    before = definitions(two.theirs)
    words = ("--with", "data only", "--with", "disable triggers")
    assert loaded(program(), two.source, two.theirs, *words) == 0
    assert two.lost() == []
    after = definitions(two.theirs)
    assert before - after == Counter()
    assert (after - before).total() >= added
    assert bool(altered_in_words(before, after)) == bool(added)


@pytest.mark.postgres
def test_what_is_lost_is_counted_whatever_types_the_other_has(
    beside: Callable[[str], Beside],
) -> None:
    two = beside(
        "CREATE TABLE gone (id INTEGER PRIMARY KEY); INSERT INTO gone VALUES (1), (2);"
        "CREATE TABLE same (id INTEGER PRIMARY KEY, at TIMESTAMP, n INTEGER);"
        "INSERT INTO same VALUES (1, '2026-01-02 03:04:05', 7);"
        "CREATE TABLE other (id INTEGER PRIMARY KEY, n INTEGER, b BLOB);"
        "INSERT INTO other VALUES (1, 1, x'01'), (2, 2, NULL), (3, 3, x'03'), (4, NULL, NULL)"
    )
    with psycopg.connect(two.theirs) as target:
        target.execute(
            "CREATE TABLE same (n text, id bigint, at text);"
            "INSERT INTO same VALUES ('7', 1, '2026-01-02 03:04:05+00');"
            "CREATE TABLE other (id bigint, n text);"
            "INSERT INTO other VALUES (1, '1'), (2, '2'), (4, 'no number')"
        )
    # Of other: 1 without its bytes, 2 as it was, 3 missing, 4 with a value of another type.
    assert two.lost() == [Lost("gone", 2, 0), Lost("other", 1, 2)]
    assert lost_in_words(two.lost()) == (
        "3 rows did not arrive and 2 arrived with other values, in other (1 missing, 2 changed), "
        "gone (2 missing, 0 changed)"
    )


@pytest.mark.postgres
def test_this_project_loses_none_or_says_so(
    make_sqlite: MakeSqlite, postgres: str, tmp_path: Path
) -> None:
    source = make_sqlite(ONE_IN_THREE)
    done = run("migrate", str(source), "--target", postgres, "--report", str(tmp_path / "kept"))
    assert (done.status, rows_at(postgres)) == (0, 3)
    policy = tmp_path / "policy.yaml"
    policy.write_text("default: block\n")
    more = ["--policy", str(policy), "--report", str(tmp_path / "blocked")]
    assert run("inspect", str(source), *more[:2]).status == BLOCKED


def test_each_statement_about_another_tool_has_its_source() -> None:
    text = PAGE.read_text(encoding="utf-8")
    named = dict(re.findall(r"^\[([\w-]+)\]: (\S+)$", text, re.MULTILINE))
    assert all(address.startswith("https://") for address in named.values())
    table = [line for line in text.splitlines() if line.startswith("| ")]
    without = []
    for line in table[1:]:
        for cell in [c.strip() for c in line.strip("|").split("|")][OTHERS]:
            used = re.findall(r"\]\[([\w-]+)\]", cell)
            assert set(used) <= set(named)
            tested = "](../tests/integration/test_comparison.py)" in cell
            if not used and not tested and cell not in ("-", "not measured", "the application"):
                without.append(cell)
    assert len(table) > 8
    assert without == []
    assert set(re.findall(r"\]\[([\w-]+)\]", text)) == set(named)
