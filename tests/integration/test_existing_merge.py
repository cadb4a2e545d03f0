"""``rows: merge``: rows of the application's tables that the target alone has stay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from migration_job.plan.model import Plan
from migration_job.protocol import reverse_sync, watch
from migration_job.stores.postgres import merged
from migration_job.stores.sqlite import apply
from tests.conftest import MakeSqlite
from tests.integration.running import BLOCKED, DIFFERS, DONE, FAILED, USAGE, Ended, run
from tests.integration.wholeway import Way

pytestmark = pytest.mark.postgres

SOURCE = """
CREATE TABLE kind (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL);
INSERT INTO kind VALUES (1, 'book'), (2, 'map');
CREATE TABLE pair (a TEXT NOT NULL, day DATE NOT NULL, on_ BOOLEAN NOT NULL, n INTEGER,
    PRIMARY KEY (a, day, on_));
INSERT INTO pair VALUES ('x', '2026-01-02', 1, 5);
"""

TARGET = """
CREATE TABLE kind (id serial PRIMARY KEY, name varchar(20) NOT NULL UNIQUE, made timestamptz
    DEFAULT now(), doc json, loud text GENERATED ALWAYS AS (upper(name)) STORED);
INSERT INTO kind (id, name, made, doc) VALUES
    (2, 'chart', '2020-01-01', '{"a":  1}'), (3, 'film', '2020-01-01', '{"b":1}'), (9, 'disc',
    NULL, NULL);
SELECT setval('kind_id_seq', 3);
CREATE TABLE pair (a text, day date, on_ boolean, n integer, PRIMARY KEY (a, day, on_));
INSERT INTO pair VALUES ('x', '2026-01-02', true, 1), ('x', '2026-01-02', false, 2);
"""

MERGE = "{tables: {kind: {rows: merge}, pair: {rows: merge}}}"
KINDS = "SELECT id, name FROM kind ORDER BY id"
PAIRS = "SELECT a, day, on_, n FROM pair ORDER BY on_"
ALL = "SELECT id, name, made, doc::text, loud FROM kind ORDER BY id"


@pytest.fixture
def way(postgres: str, tmp_path: Path) -> Way:
    made = Way.of(tmp_path, postgres, SOURCE)
    made.on_postgres(TARGET)
    (tmp_path / "policy.yaml").write_text(MERGE)
    return made


def offline(way: Way) -> Ended:
    return run(
        *("migrate", way.source, "--target", way.dsn, "--schema", "existing"),
        *("--report", way.folder / "report", "--policy", way.folder / "policy.yaml"),
    )


def test_rows_that_the_target_alone_has_stay(way: Way) -> None:
    before = way.on_postgres(ALL)
    ended = offline(way)
    assert ended.status == DONE, ended.said
    assert "2 rows of kind, 1 row of pair, which the target alone has, stay there" in ended.said
    assert (
        "kind: of the 3 rows that the target had 1 is not the source's; it is kept in" in ended.said
    )
    assert way.on_postgres(KINDS) == [(1, "book"), (2, "map"), (3, "film"), (9, "disc")]
    assert way.on_postgres(ALL)[2:] == before[1:]
    report = json.loads((way.folder / "report/report.json").read_text())
    assert report["certificate"]["tables"]["kind"]["rows"] == 2
    assert report["certificate"]["relations"]["rows of the target's own"] == 3
    tables = report["tables"]
    assert [(t["target_rows"], t["own_rows"]) for t in (tables["kind"], tables["pair"])] == [
        (2, 2),
        (1, 1),
    ]
    # Whatever they are compared by, and again: the same run goes on, another starts from before.
    for deep in ((), ("--deep",)):
        ended = run(
            *("verify", way.source, "--target", way.dsn, "--report", way.folder / "verified"),
            *deep,
        )
        assert ended.status == DONE, ended.said
    assert offline(way).status == DONE
    way.on_sqlite("INSERT INTO kind VALUES (9, 'globe')")
    ended = offline(way)
    assert ended.status == DONE, ended.said
    assert way.on_postgres(KINDS) == [(1, "book"), (2, "map"), (3, "film"), (9, "globe")]
    # Offline too they go to SQLite, and the next key is beyond those of both.
    ended = way.command("switch")
    assert ended.status == DONE, ended.said
    made = way.on_postgres("INSERT INTO kind (name) VALUES ('new') RETURNING id")
    assert made == [(10,)]
    way.back()
    assert way.on_sqlite(KINDS) == [
        *((1, "book"), (2, "map"), (3, "film"), (9, "globe"), (10, "new"))
    ]


def test_verification_sees_what_becomes_of_them(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    before = way.on_postgres(ALL)

    def but_one(connection: psycopg.Connection, plan: Plan, done: set[tuple[str, str]]) -> None:
        put_back(connection, plan, done)
        connection.execute("UPDATE kind SET doc = '{\"b\": 1}' WHERE id = 3")

    put_back = merged.put_back
    monkeypatch.setattr(merged, "put_back", but_one)
    ended = offline(way)
    assert "1 of the 2 rows of kind that the target alone has is not what it was" in ended.said
    assert way.on_postgres(ALL) == before


def test_a_row_that_cannot_stay_undoes_the_run(way: Way) -> None:
    way.on_sqlite("UPDATE kind SET name = 'film' WHERE id = 1")
    before = way.on_postgres(ALL)
    ended = offline(way)
    assert ended.status == FAILED, ended.said
    assert "a row that the target has of its own in kind cannot stay beside" in ended.said
    assert "Key (name)=(film) already exists" in ended.said
    assert way.on_postgres(ALL) == before
    assert way.on_postgres("SELECT to_regnamespace('migration')") == [(None,)]


def test_a_table_without_a_key_is_refused(
    make_sqlite: MakeSqlite, postgres: str, tmp_path: Path
) -> None:
    source = make_sqlite("CREATE TABLE t (a TEXT); INSERT INTO t VALUES ('x'), ('x')")
    with psycopg.connect(postgres) as target:
        target.execute("CREATE TABLE t (a text); INSERT INTO t VALUES ('y')")
    (tmp_path / "policy.yaml").write_text("{tables: {t: {rows: merge}}}")
    ended = offline(Way(tmp_path, postgres, source))
    assert ended.status == BLOCKED, ended.said
    assert "no key identifies its rows on both sides" in ended.said


def test_they_go_to_sqlite_once_postgresql_serves(way: Way) -> None:
    options = ("--schema", "existing", "--policy", way.folder / "policy.yaml")
    ended = way.migrate(*options)
    assert ended.status == DONE, ended.said
    # By the key of one of them: the source's from now on, also where the row goes again.
    way.on_sqlite("INSERT INTO kind VALUES (9, 'globe')")
    way.on_sqlite("INSERT INTO kind VALUES (4, 'coin')")
    ended = way.command("switch")
    assert ended.status == DONE, ended.said
    assert (
        "1 row of kind, 1 row of pair, which the target alone has, go to SQLite once" in ended.said
    )
    assert way.on_postgres(KINDS) == [
        *((1, "book"), (2, "map"), (3, "film"), (4, "coin"), (9, "globe"))
    ]
    assert way.on_postgres("SELECT count(*) FROM migration.merged") == [(0,)]
    way.on_postgres("INSERT INTO kind (name) VALUES ('new')")
    way.back()
    assert way.on_sqlite(KINDS) == [
        *((1, "book"), (2, "map"), (3, "film"), (4, "coin"), (9, "globe"), (10, "new"))
    ]
    assert way.on_sqlite(PAIRS) == [*(("x", "2026-01-02", 0, 2), ("x", "2026-01-02", 1, 5))]
    # Both sides are the same, and the way goes on.
    ended = way.command("switch")
    assert ended.status == DONE, ended.said
    way.back()


def test_one_row_stays_and_goes(way: Way) -> None:
    way.on_postgres("DELETE FROM kind WHERE id = 9; DELETE FROM pair WHERE NOT on_")
    (way.folder / "policy.yaml").write_text(MERGE)
    ended = way.migrate("--schema", "existing", "--policy", way.folder / "policy.yaml")
    assert "1 row of kind, which the target alone has, stays there" in ended.said, ended.said
    ended = way.command("switch")
    assert "1 row of kind, which the target alone has, goes to SQLite once" in ended.said


def test_writers_are_held_under_the_watchdog(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the rows are tried, a command that stands still is ended as at the fence."""
    ended = way.migrate("--schema", "existing", "--policy", way.folder / "policy.yaml")
    assert ended.status == DONE, ended.said
    told: list[float] = [0]
    at_work: list[float] = []

    def expect(seconds: float) -> None:
        told.append(seconds)

    def apply_back(*arguments: Any) -> Any:
        at_work.append(told[-1])
        return reverse_sync_apply(*arguments)

    reverse_sync_apply = apply.apply_back
    monkeypatch.setattr(watch, "expect", expect)
    monkeypatch.setattr(reverse_sync, "apply_back", apply_back)
    ended = way.command("switch", "--fence-seconds=5")
    assert ended.status == DONE, ended.said
    assert at_work == [5 + watch.GRACE_SECONDS] * 2  # a table each


HARD = """
CREATE TABLE price (id INTEGER PRIMARY KEY, at NUMERIC, name TEXT NOT NULL, code TEXT UNIQUE);
INSERT INTO price VALUES (1, 1.5, 'a', 'x');
"""

HARD_TARGET = """
CREATE TABLE price (id integer PRIMARY KEY, at numeric, name text, code text);
INSERT INTO price VALUES (2, 2.5, 'b', 'y'), (3, {at}, {name}, {code}), (4, 4, 'd', 'z');
"""


@pytest.mark.parametrize("live", [True, False], ids=["live", "offline"])
@pytest.mark.parametrize(
    ("at", "name", "code", "why"),
    [
        ("0.12345678901234567890", "'c'", "'v'", "row [3], column at"),
        ("3", "NULL", "'v'", "NOT NULL constraint failed: price.name"),
        ("3", "'c'", "'x'", "UNIQUE constraint failed: price.code"),
    ],
)
def test_a_row_that_sqlite_could_not_hold_is_told_before_the_switch(  # noqa: PLR0913 - a value each
    *, live: bool, at: str, name: str, code: str, why: str, postgres: str, tmp_path: Path
) -> None:
    way = Way.of(tmp_path, postgres, HARD)
    way.on_postgres(HARD_TARGET.format(at=at, name=name, code=code))
    (tmp_path / "policy.yaml").write_text("{tables: {price: {rows: merge}}}")
    options = ("--schema", "existing", "--policy", tmp_path / "policy.yaml")
    ended = way.migrate(*options) if live else offline(way)
    assert ended.status == DONE, ended.said
    before = way.on_sqlite("SELECT * FROM price")
    ended = way.command("switch")
    assert ended.status == USAGE, ended.said
    said = " ".join(ended.said.split())
    assert "rows that the target alone has in price could not come back" in said
    assert why in said
    assert "--one-way price" in said
    assert way.on_sqlite("SELECT * FROM price") == before
    way.on_sqlite("INSERT INTO price VALUES (7, 7, 'g', 'q')" if live else "SELECT 1")
    ended = way.command("switch", "--one-way=price")
    assert ended.status == DONE, ended.said
    assert "go to SQLite" not in ended.said
    ended = way.command("rollback")
    assert ended.status == DIFFERS, ended.said
    assert "1 thing on the target does not come back as it is: changes to table price" in ended.said


def test_of_many_such_rows_a_few_are_shown(postgres: str, tmp_path: Path) -> None:
    way = Way.of(tmp_path, postgres, HARD)
    way.on_postgres(HARD_TARGET.format(at="3", name="'c'", code="'v'"))
    way.on_postgres("INSERT INTO price SELECT n, n, NULL, n FROM generate_series(10, 500) AS n")
    (tmp_path / "policy.yaml").write_text("{tables: {price: {rows: merge}}}")
    ended = way.migrate("--schema", "existing", "--policy", tmp_path / "policy.yaml")
    assert ended.status == DONE, ended.said
    ended = way.command("switch")
    assert ended.status == USAGE, ended.said
    said = " ".join(ended.said.split())
    assert said.count("NOT NULL constraint failed: price.name") == 3
    assert "row [12]" in said
    assert "; and more" in said
