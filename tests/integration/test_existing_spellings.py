"""``--schema existing``: how libraries spell values on SQLite for types that it does not have."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from tests.conftest import MakeSqlite
from tests.integration.running import BLOCKED, DONE, run
from tests.integration.wholeway import Way

pytestmark = pytest.mark.postgres

SOURCE = """
CREATE TABLE spelled (
    id INTEGER PRIMARY KEY, go_day DATE, js_day TEXT, ms_day INTEGER, lasts INTERVAL,
    parts TEXT, big BLOB, wide BLOB);
INSERT INTO spelled VALUES
    (1, '1951-01-02 00:00:00+00:00', '2024-02-29T00:00:00.000Z', 1704067200000,
     1.0000115740856481, '[0.25, 1.0, -3.0]', CAST('1152921504606846977' AS BLOB),
     CAST('123456789012345678901234567890' AS BLOB)),
    (2, '1952-01-02 00:00:00+00:00', '2024-03-01T00:00:00.000Z', -86400000,
     -0.08333333333333337, '[2.0]', CAST('-5' AS BLOB), CAST('0' AS BLOB)),
    (3, '1953-01-02', NULL, NULL, 2, '[]', NULL, NULL);
"""

TARGET = """
CREATE TABLE spelled (
    id integer PRIMARY KEY, go_day date, js_day date, ms_day date,
    lasts interval day to second, parts double precision[], big bigint, wide numeric);
"""

POLICY = "tables: {spelled: {columns: {ms_day: {epoch: ms}, lasts: {epoch: julian}}}}"


def test_what_libraries_write_goes_there_and_comes_back(postgres: str, tmp_path: Path) -> None:
    """Days as the midnights that begin them, durations in days, integers in digits, and lists whose
    reals keep their decimals; what PostgreSQL gets comes back in the same spelling."""
    way = Way.of(tmp_path, postgres, SOURCE)
    way.on_postgres(TARGET)
    before = way.on_sqlite("SELECT * FROM spelled")
    (tmp_path / "policy.yaml").write_text(POLICY)
    moved = way.migrate("--schema", "existing", "--policy", tmp_path / "policy.yaml")
    assert moved.status == DONE, moved.said
    way.on_sqlite("UPDATE spelled SET go_day = '1960-05-06 00:00:00+00:00' WHERE id = 2")
    switched = way.command("switch")
    assert switched.status == DONE, switched.said
    assert way.on_postgres(
        "SELECT go_day::text, js_day::text, ms_day::text, lasts::text, parts::text, big, "
        "wide::text FROM spelled ORDER BY id"
    ) == [
        (
            *("1951-01-02", "2024-02-29", "2024-01-01", "1 day 00:00:01.000001"),
            *("{0.25,1,-3}", 1152921504606846977, "123456789012345678901234567890"),
        ),
        ("1960-05-06", "2024-03-01", "1969-12-31", "-02:00:00", "{2}", -5, "0"),
        ("1953-01-02", None, None, "2 days", "{}", None, None),
    ]
    way.on_postgres(
        "INSERT INTO spelled VALUES (4, '2001-02-03', '2001-02-03', '2001-02-03', "
        "'3 days 00:00:00.5', '{4}', 7, 8)"
    )
    way.back()
    after = way.on_sqlite("SELECT * FROM spelled ORDER BY id")
    assert after[0] == before[0]
    assert after[1] == (2, "1960-05-06 00:00:00+00:00", *before[1][2:])
    assert after[2] == before[2]
    assert after[3] == (
        *(4, "2001-02-03 00:00:00+00:00", "2001-02-03T00:00:00.000Z", 981158400000),
        *(3 + 0.5 / 86400, "[4.0]", b"7", b"8"),
    )


def test_a_time_of_day_beside_a_date_is_no_day(postgres: str, make_sqlite: MakeSqlite) -> None:
    """A date cannot hold it: found before anything is loaded, as are digits that are too many."""
    source = make_sqlite(
        "CREATE TABLE a (id INTEGER PRIMARY KEY, day TEXT, big BLOB);"
        "INSERT INTO a VALUES (1, '2024-01-02 00:00:00', CAST('9223372036854775808' AS BLOB)),"
        "(2, '2024-01-02 03:00:00', CAST('007' AS BLOB))"
    )
    with psycopg.connect(postgres) as target:
        target.execute("CREATE TABLE a (id integer, day date, big bigint)")
    looked = run("inspect", source, "--schema", "existing", "--target", postgres)
    assert looked.status == BLOCKED, looked.said
    assert "error[not-a-date] 1 " in looked.said
    assert "a time of day beside the date" in looked.said
    assert "error[not-a-number] 2 " in looked.said


@pytest.mark.parametrize(
    ("values", "unit"),
    [("1.0000115740856481", "julian"), ("90.5", "s"), ("93784000005", "us")],
)
def test_the_suggested_unit_of_durations_is_one_that_they_can_have(
    postgres: str, make_sqlite: MakeSqlite, values: str, unit: str
) -> None:
    """Days would become microseconds, and the run would succeed."""
    source = make_sqlite(
        f"CREATE TABLE a (id INTEGER PRIMARY KEY, lasts NUMERIC);INSERT INTO a VALUES (1, {values})"
    )
    with psycopg.connect(postgres) as target:
        target.execute("CREATE TABLE a (id integer, lasts interval)")
    looked = run("inspect", source, "--schema", "existing", "--target", postgres)
    assert looked.status == BLOCKED, looked.said
    assert f"epoch: {unit}\n" in looked.said


def test_lists_with_a_separator(postgres: str, tmp_path: Path) -> None:
    """As MikroORM writes arrays: the line of policy is suggested, and works both ways."""
    way = Way.of(
        tmp_path,
        postgres,
        "CREATE TABLE a (id INTEGER PRIMARY KEY, words TEXT, counts TEXT, flags TEXT);"
        "INSERT INTO a VALUES (1, 'a b,\"q\",c', '1,-2', 'true'), (2, '', '', ''),"
        "(3, 'one', '7', 'false,true'), (4, NULL, NULL, NULL)",
    )
    way.on_postgres(
        "CREATE TABLE a (id integer PRIMARY KEY, words text[], counts integer[], flags boolean[])"
    )
    before = way.on_sqlite("SELECT * FROM a")
    looked = run(
        *("inspect", way.source, "--schema", "existing", "--target", postgres),
        *("--suggest", tmp_path / "suggested.yaml"),
    )
    assert "error[not-a-list]" in looked.said
    assert looked.said.count("separator: ','") == 3
    moved = way.migrate("--schema", "existing", "--policy", tmp_path / "suggested.yaml")
    assert moved.status == DONE, moved.said
    way.on_sqlite("UPDATE a SET words = 'x,y' WHERE id = 4")
    switched = way.command("switch")
    assert switched.status == DONE, switched.said
    assert way.on_postgres("SELECT words, counts, flags FROM a ORDER BY id") == [
        (["a b", '"q"', "c"], [1, -2], [True]),
        ([], [], []),
        (["one"], [7], [False, True]),
        (["x", "y"], None, None),
    ]
    way.on_postgres("UPDATE a SET words = '{z,\"w v\"}', counts = '{3,4}' WHERE id = 2")
    way.back()
    after = way.on_sqlite("SELECT * FROM a ORDER BY id")
    assert after == [before[0], (2, "z,w v", "3,4", ""), before[2], (4, "x,y", None, None)]


def test_lists_as_postgresql_writes_them(postgres: str, tmp_path: Path) -> None:
    """As Go's pq.StringArray and pq.Int64Array do on SQLite, too: no line of policy is needed."""
    way = Way.of(
        tmp_path,
        postgres,
        "CREATE TABLE a (id INTEGER PRIMARY KEY, words TEXT, counts TEXT);"
        """INSERT INTO a VALUES (1, '{"a b","q\\"\\\\",NULL,"NULL"}', '{1,-2}');"""
        "INSERT INTO a VALUES (2, '{}', '{}');",
    )
    way.on_postgres("CREATE TABLE a (id integer PRIMARY KEY, words text[], counts integer[])")
    before = way.on_sqlite("SELECT * FROM a")
    moved = way.migrate("--schema", "existing")
    assert moved.status == DONE, moved.said
    switched = way.command("switch")
    assert switched.status == DONE, switched.said
    assert way.on_postgres("SELECT words, counts FROM a ORDER BY id") == [
        (["a b", 'q"\\', None, "NULL"], [1, -2]),
        ([], []),
    ]
    way.on_postgres("INSERT INTO a VALUES (3, '{x,y z}', '{3}')")
    way.back()
    assert way.on_sqlite("SELECT * FROM a") == [*before, (3, '{"x","y z"}', "{3}")]


def test_the_suggested_unit_of_times_is_one_that_they_can_have(
    postgres: str, make_sqlite: MakeSqlite
) -> None:
    """Julian days would become seconds of January 1970, and the run would succeed."""
    source = make_sqlite(
        "CREATE TABLE a (id INTEGER PRIMARY KEY, at REAL); INSERT INTO a VALUES (1, 2460310.75)"
    )
    with psycopg.connect(postgres) as target:
        target.execute("CREATE TABLE a (id integer, at timestamptz)")
    looked = run("inspect", source, "--schema", "existing", "--target", postgres)
    assert "1 number for a time, 2460310.75 to 2460310.75, and nothing says" in looked.said
    assert "epoch: julian\n" in looked.said
