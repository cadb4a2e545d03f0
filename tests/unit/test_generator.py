"""The made-up database has the shapes of the real one, and is the same for the same seed."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from migration_job.demo.radcase import make_radcase
from migration_job.errors import InputError

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path)
    connection.text_factory = bytes
    try:
        yield connection
    finally:
        connection.close()


def content(path: Path) -> list[str]:
    with opened(path) as connection:
        return [
            repr(row)
            for (name,) in connection.execute(
                "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name"
            ).fetchall()
            for row in connection.execute(f'SELECT * FROM "{name.decode()}"')
        ]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("generator") / "radcase.db"
    make_radcase(path)
    return path


def one(path: Path, query: str) -> object:
    with opened(path) as connection:
        (value,) = connection.execute(query).fetchone()
    return value


def test_has_the_tables_and_the_rows_of_a_real_one(made: Path) -> None:
    assert (
        one(
            made,
            "SELECT count(*) FROM sqlite_schema WHERE type='table' AND name NOT LIKE 'sqlite_%'",
        )
        == 51
    )
    with opened(made) as connection:
        tables = connection.execute(
            "SELECT name FROM sqlite_schema WHERE type='table' AND name NOT LIKE 'sqlite_%'"
        ).fetchall()
        counts = {
            name.decode(): connection.execute(f'SELECT count(*) FROM "{name.decode()}"').fetchone()[
                0
            ]
            for (name,) in tables
        }
    assert sum(counts.values()) == 60_000
    assert [name for name, count in counts.items() if count == 0] == []


def test_is_sound(made: Path) -> None:
    assert one(made, "PRAGMA integrity_check") == b"ok"
    with opened(made) as connection:
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    assert one(made, "PRAGMA journal_mode") == b"wal"


def test_same_seed_same_rows(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        make_radcase(tmp_path / name, rows=1_000, seed=seed)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert content(tmp_path / "a") != content(tmp_path / "c")


@pytest.mark.parametrize("rows", [1_000, 1_001, 7_777, 25_000])
def test_makes_exactly_as_many_rows_as_asked(tmp_path: Path, rows: int) -> None:
    assert make_radcase(tmp_path / "x.db", rows=rows).rows == rows


def test_schema_is_that_of_the_real_application(made: Path, radcase_db: Path) -> None:
    queries = ("table_xinfo", "foreign_key_list", "index_list")
    with opened(made) as ours, opened(radcase_db) as theirs:
        names = "SELECT name FROM sqlite_schema WHERE type='table' ORDER BY name"
        assert ours.execute(names).fetchall() == theirs.execute(names).fetchall()
        for (name,) in ours.execute(names).fetchall():
            for query in queries:
                statement = f'PRAGMA {query}("{name.decode()}")'
                found = ours.execute(statement).fetchall()
                assert sorted(map(repr, found)) == sorted(
                    map(repr, theirs.execute(statement).fetchall())
                ), (name, query)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT count(*) FROM users WHERE id = 'system'",
        "SELECT count(*) FROM collections WHERE created_by = 'system'",
        "SELECT count(*) FROM quiz_attempts WHERE user_id IS NULL",
        "SELECT count(*) FROM quiz_sessions WHERE user_id = 'guest'",
        "SELECT count(*) FROM badges WHERE id = 'first_steps'",
        "SELECT count(*) FROM collection_cases WHERE added_at LIKE '____-__-__T%Z'",
        "SELECT count(*) FROM collections WHERE created_at LIKE '%Z'",
        "SELECT count(*) FROM collections WHERE created_at NOT LIKE '%Z'",
        "SELECT count(*) FROM user_case_progress WHERE next_review LIKE '____-__-__'",
        "SELECT count(*) FROM differential_attempts WHERE typeof(time_spent_ms) = 'real'",
        "SELECT count(*) FROM images WHERE json_valid(annotations)",
        "SELECT count(*) FROM study_plan_progress WHERE attempted IN (0, 1)",
        "SELECT count(*) FROM cases WHERE differentials IS NULL",
        "SELECT count(*) FROM cases WHERE differentials IS NOT NULL",
        # Progress rows that were replaced: the rowid no longer follows the order of insertion.
        "SELECT count(*) FROM user_case_progress WHERE rowid > (SELECT count(*) "
        "FROM user_case_progress)",
        "SELECT seq > (SELECT max(id) FROM quiz_attempts) FROM sqlite_sequence "
        "WHERE name = 'quiz_attempts'",
    ],
)
def test_holds_the_shape(made: Path, query: str) -> None:
    assert one(made, query)


def test_ids_are_lower_case_uuids(made: Path) -> None:
    with opened(made) as connection:
        for table in ("cases", "images", "dicom_series", "users"):
            for (key,) in connection.execute(f"SELECT id FROM {table}").fetchall():
                assert UUID.fullmatch(key.decode()) or (table, key) == ("users", b"system")


@pytest.mark.parametrize(
    "query",
    [
        "SELECT count(*) FROM cases WHERE length(title) > 500",
        "SELECT count(*) FROM cases WHERE length(modality) > 50",
        "SELECT count(*) FROM users WHERE length(username) > 50",
        "SELECT count(*) = 2 FROM cases WHERE difficulty IN (0, 9)",
        "SELECT count(*) FROM cases WHERE typeof(difficulty) = 'real'",
        "SELECT count(*) FROM cases WHERE difficulty = 'hard'",
        "SELECT count(*) FROM cases WHERE instr(CAST(title AS BLOB), x'00')",
        "SELECT count(*) FROM cases WHERE instr(CAST(title AS BLOB), x'eda080')",
        "SELECT count(*) FROM images WHERE annotations <> '' AND NOT json_valid(annotations)",
        "SELECT count(*) FROM images WHERE instr(annotations, '\\u0000')",
        "SELECT count(*) FROM dicom_series WHERE length(series_description) > 255",
        "SELECT count(*) FROM dicom_series WHERE window_center IN (1234567890, 40.12345)",
        "SELECT max(n) > 1 FROM (SELECT count(*) AS n FROM dicom_series "
        "WHERE series_uid IS NOT NULL GROUP BY series_uid)",
        "SELECT count(*) FROM pragma_foreign_key_check",
    ],
)
def test_hostile_holds_what_the_api_lets_in(hostile: Path, made: Path, query: str) -> None:
    assert one(hostile, query)
    assert not one(made, query), "the plain database has it too"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("generator") / "hostile.db"
    make_radcase(path, rows=1_000, hostile=True)
    return path


def test_an_existing_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "mine.db"
    path.write_bytes(b"precious")
    with pytest.raises(InputError, match="found one"):
        make_radcase(path)
    assert path.read_bytes() == b"precious"


def test_too_few_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least 1,000 rows, found 5"):
        make_radcase(tmp_path / "x.db", rows=5)
    assert not (tmp_path / "x.db").exists()
