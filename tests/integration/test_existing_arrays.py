"""``--schema existing``: arrays whose elements have a rule of their own, there and back."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.running import BLOCKED, DONE, run
from tests.integration.wholeway import Way

pytestmark = pytest.mark.postgres

MADE = """
CREATE TYPE mood AS ENUM ('sad', 'so so', 'it''s "ok"');
CREATE DOMAIN small_day AS date CHECK (VALUE > '1900-01-01');
CREATE DOMAIN days AS date[];
"""

ADDRESS = "0f8fad5b-d9cb-469f-a165-70867728950e"

JSON_LISTS = [
    ("date[]", '["2024-01-02", null, "0001-01-01"]', "{2024-01-02,NULL,0001-01-01}"),
    ("small_day[]", '["2024-01-02"]', "{2024-01-02}"),
    ("days", '["2024-01-02"]', "{2024-01-02}"),
    ("time without time zone[]", '["03:04:05", "23:59:59"]', "{03:04:05,23:59:59}"),
    (
        "timestamp without time zone[]",
        '["2024-01-02T03:04:05.123000"]',
        '{"2024-01-02 03:04:05.123"}',
    ),
    ("timestamp with time zone[]", '["2024-01-02T03:04:05Z"]', '{"2024-01-02 03:04:05+00"}'),
    ("interval[]", '["1 day 02:03:04"]', '{"1 day 02:03:04"}'),
    ("real[]", "[0.5, 1, -3.25]", "{0.5,1,-3.25}"),
    ("numeric(10,2)[]", '["1.50", "-2.00"]', "{1.50,-2.00}"),
    ("numeric(10,2)[]", "[1.25, -0.75]", "{1.25,-0.75}"),
    ("double precision[]", "[0.5, 3]", "{0.5,3}"),
    ("boolean[]", "[1, 0, null]", "{t,f,NULL}"),
    ("boolean[]", "[true, false]", "{t,f}"),
    ("uuid[]", f'["{ADDRESS.replace("-", "")}"]', f"{{{ADDRESS}}}"),
    ("text[]", "[1, 22]", "{1,22}"),
    (
        "jsonb[]",
        '[{"a": [1, 2], "b": "x,]\\""}, "s", 7, null, [1]]',
        '{"{\\"a\\": [1, 2], \\"b\\": \\"x,]\\\\\\"\\"}","\\"s\\"",7,NULL,[1]}',
    ),
    ("json[]", '[{"b":1,"a":2}]', '{"{\\"b\\":1,\\"a\\":2}"}'),
    ("inet[]", '["10.0.0.1", "10.0.0.0/8"]', "{10.0.0.1,10.0.0.0/8}"),
    ("cidr[]", '["10.0.0.0/8"]', "{10.0.0.0/8}"),
    ("mood[]", '["sad", "it\'s \\"ok\\"", "so so"]', '{sad,"it\'s \\"ok\\"","so so"}'),
    ("character(3)[]", '["ab", "abc"]', '{"ab ",abc}'),
    ("smallint[]", "[1, 2]", "{1,2}"),
]


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def test_each_element_goes_by_its_type_s_rule(postgres: str, tmp_path: Path) -> None:
    """The lists, an empty one, and what the application then writes on PostgreSQL."""
    columns = [f"c{n}" for n in range(len(JSON_LISTS))]
    values = ", ".join(quoted(text) for _, text, _ in JSON_LISTS)
    empty = ", ".join("'[]'" for _ in columns)
    way = Way.of(
        tmp_path,
        postgres,
        f"CREATE TABLE a (id INTEGER PRIMARY KEY, {', '.join(f'{c} TEXT' for c in columns)});"
        f"INSERT INTO a VALUES (1, {values}), (2, {empty}); INSERT INTO a (id) VALUES (3);",
    )
    types = ", ".join(f"{c} {t}" for c, (t, _, _) in zip(columns, JSON_LISTS, strict=True))
    way.on_postgres(f"{MADE} CREATE TABLE a (id integer PRIMARY KEY, {types})")
    before = way.on_sqlite("SELECT * FROM a")
    moved = way.migrate("--schema", "existing")
    assert moved.status == DONE, moved.said
    way.on_sqlite(f"INSERT INTO a VALUES (4, {values})")
    switched = way.command("switch")
    assert switched.status == DONE, switched.said
    shown = ", ".join(f"{c}::text" for c in columns)
    expected = tuple(text for _, _, text in JSON_LISTS)
    found = way.on_postgres(f"SET TimeZone = UTC; SELECT {shown} FROM a WHERE id IN (1, 4)")
    assert found == [expected, expected]
    way.on_postgres("INSERT INTO a SELECT 5, " + ", ".join(columns) + " FROM a WHERE id = 1")
    way.back()
    (one,) = way.on_sqlite("SELECT * FROM a WHERE id = 1")
    assert way.on_sqlite("SELECT * FROM a WHERE id <= 3") == before
    assert way.on_sqlite("SELECT * FROM a WHERE id > 3") == [(n, *one[1:]) for n in (4, 5)]


def test_lists_that_are_no_json(postgres: str, tmp_path: Path) -> None:
    """With the policy's separator, and as PostgreSQL writes arrays; numbers whose unit is said."""
    way = Way.of(
        tmp_path,
        postgres,
        "CREATE TABLE a (id INTEGER PRIMARY KEY, days TEXT, moods TEXT, parts TEXT, times TEXT,"
        " own TEXT, go TEXT);"
        "INSERT INTO a VALUES (1, '2024-01-02,2024-01-03', 'sad|so so', '0.5,-3', '[0, 86400]',"
        ' \'{sad,"so so"}\', \'{"2024-01-02","2024-01-03"}\'),'
        " (2, '', '', '', '[]', '{}', '{}')",
    )
    way.on_postgres(
        f"{MADE} CREATE TABLE a (id integer PRIMARY KEY, days date[], moods mood[], parts real[],"
        " times timestamp[], own mood[], go date[])"
    )
    (tmp_path / "policy.yaml").write_text(
        "tables: {a: {columns: {days: {separator: ','}, moods: {separator: '|'}, "
        "parts: {separator: ','}, times: {epoch: s}}}}"
    )
    before = way.on_sqlite("SELECT * FROM a")
    moved = way.migrate("--schema", "existing", "--policy", tmp_path / "policy.yaml")
    assert moved.status == DONE, moved.said
    switched = way.command("switch")
    assert switched.status == DONE, switched.said
    assert way.on_postgres(
        "SELECT days::text, moods::text, parts::text, times::text, own::text, go::text "
        "FROM a ORDER BY id"
    ) == [
        (
            *("{2024-01-02,2024-01-03}", '{sad,"so so"}', "{0.5,-3}"),
            '{"1970-01-01 00:00:00","1970-01-02 00:00:00"}',
            *('{sad,"so so"}', "{2024-01-02,2024-01-03}"),
        ),
        ("{}",) * 6,
    ]
    way.on_postgres("UPDATE a SET days = '{2025-01-01}', moods = '{sad}' WHERE id = 2")
    way.back()
    one, two = way.on_sqlite("SELECT * FROM a")
    assert one == before[0]
    assert two == (2, "2025-01-01", "sad", *before[1][3:])


@pytest.mark.parametrize(
    ("type_", "value", "says"),
    [
        ("date[]", '["2024-01-02", "2024-02-30"]', "2024-02-30"),
        ("date[]", '[["2024-01-02"], ["2024-01-03"]]', '["2024-01-02"]'),
        ("mood[]", '["sad", "glad"]', "glad"),
        ("real[]", "[1e300]", "beyond real"),
        ("inet[]", '["nowhere"]', "nowhere"),
        ("jsonb[]", '"a"', "a list in JSON"),
        ("timestamptz[]", "[17]", "unit-unknown"),
        ("bytea[]", '["x"]', "type-not-supported"),
        ("int4range[]", '["x"]', "type-not-supported"),
    ],
)
def test_what_an_element_cannot_be_is_found_first(
    postgres: str, tmp_path: Path, type_: str, value: str, says: str
) -> None:
    way = Way.of(
        tmp_path,
        postgres,
        f"CREATE TABLE a (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO a VALUES (1, '{value}')",
    )
    way.on_postgres(f"{MADE} CREATE TABLE a (id integer PRIMARY KEY, v {type_})")
    ended = run("inspect", way.source, "--schema", "existing", "--target", postgres)
    assert ended.status == BLOCKED, ended.said
    assert says in ended.said
