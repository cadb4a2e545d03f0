"""``--schema existing``: columns in which nothing stands yet. What the plan makes of them decides
how the application's first values go to PostgreSQL and how those written there come back."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from tests.conftest import MakeSqlite
from tests.integration.running import DONE, run
from tests.integration.wholeway import Way

pytestmark = pytest.mark.postgres

SOURCE = """
CREATE TABLE item (
    id INTEGER PRIMARY KEY, made integer NOT NULL, gone integer, seen integer,
    counted integer DEFAULT (unixepoch()), token BLOB, spare BLOB, doc BLOB, big BLOB, more BLOB,
    said TEXT, later TEXT, flag TEXT, mark TEXT);
CREATE TABLE parcel (id INTEGER PRIMARY KEY, gone integer, later TEXT, spare BLOB);
INSERT INTO item (id, made, token, big, said, flag) VALUES
    (1, 1704067224024, x'00112233445566778899aabbccddeeff', CAST('1152921504606846977' AS BLOB),
     '2026-01-02T03:04:05.678Z', 't'),
    (2, 1704067224999, NULL, CAST('-5' AS BLOB), '2026-01-02T03:04:06.000Z', 'f');
UPDATE item SET counted = NULL;
INSERT INTO parcel VALUES (1, NULL, NULL, NULL);
"""

TARGET = """
CREATE TABLE item (
    id integer PRIMARY KEY, made timestamp(3) NOT NULL, gone timestamp(3), seen timestamptz(6),
    counted timestamptz, token uuid, spare uuid, doc jsonb, big bigint, more bigint,
    said timestamptz(3), later timestamptz(3), flag boolean, mark boolean);
CREATE TABLE parcel (id integer PRIMARY KEY, gone timestamp(3), later timestamptz(3), spare uuid);
"""

FIRST = """
UPDATE item SET gone = 1704067225001, seen = 1704067225001, counted = 1704067225,
    spare = x'ff112233445566778899aabbccddeeff', doc = CAST('{"a":1}' AS BLOB),
    more = CAST('7' AS BLOB), later = '2026-01-02T03:04:07.500Z', mark = 't' WHERE id = 1;
UPDATE parcel SET gone = 1704067225002, later = '2026-01-02T03:04:08.000Z',
    spare = x'fe112233445566778899aabbccddeeff';
"""

ON_POSTGRES = """
UPDATE item SET gone = made, seen = made, counted = '2024-01-01 00:00:26+00',
    spare = token, doc = '{"b": 2}', more = 8, later = said, mark = false WHERE id = 2;
INSERT INTO parcel VALUES (2, '2024-01-01 00:00:25.003', '2026-01-02 03:04:09+00',
    'fd112233-4455-6677-8899-aabbccddeeff');
"""


def test_first_values_are_read_as_those_of_columns_like_them(postgres: str, tmp_path: Path) -> None:
    """A column without a value that others are declared like has their unit and their spelling: on
    the way there, while the source is followed, and on the way back."""
    way = Way.of(tmp_path, postgres, SOURCE)
    way.on_postgres(TARGET)
    looked = run("inspect", way.source, "--schema", "existing", "--target", postgres)
    assert looked.status == DONE, looked.said
    for words in (
        "numbers will be milliseconds since 1970 (epoch: ms), as item.made has them",
        "numbers will be seconds since 1970 (epoch: s), as its default computes them",
    ):
        assert words in looked.said
    assert "unit-unknown" not in looked.said
    moved = way.migrate("--schema", "existing")
    assert moved.status == DONE, moved.said
    way.on_sqlite(FIRST)
    switched = way.command("switch")
    assert switched.status == DONE, switched.said
    assert way.on_postgres(
        "SELECT gone::text, (seen AT TIME ZONE 'UTC')::text, extract(epoch FROM counted)::int, "
        "spare::text, doc::text, more, (later AT TIME ZONE 'UTC')::text, mark "
        "FROM item WHERE id = 1"
    ) == [
        (
            *("2024-01-01 00:00:25.001", "2024-01-01 00:00:25.001", 1704067225),
            *("ff112233-4455-6677-8899-aabbccddeeff", '{"a": 1}', 7),
            *("2026-01-02 03:04:07.5", True),
        )
    ]
    way.on_postgres(ON_POSTGRES)
    way.back()
    assert way.on_sqlite(
        "SELECT gone, seen, counted, spare, doc, more, later, mark FROM item WHERE id = 2"
    ) == [
        (
            *(1704067224999, 1704067224999, 1704067226, None, b'{"b":2}', b"8"),
            *("2026-01-02T03:04:06.000Z", "f"),
        )
    ]
    assert way.on_sqlite("SELECT * FROM parcel ORDER BY id") == [
        (1, 1704067225002, "2026-01-02T03:04:08.000Z", b"\xfe" + REST),
        (2, 1704067225003, "2026-01-02T03:04:09.000Z", b"\xfd" + REST),
    ]


REST = bytes.fromhex("112233445566778899aabbccddeeff")


def test_a_unit_that_nothing_says_is_asked_for(
    postgres: str, make_sqlite: MakeSqlite, tmp_path: Path
) -> None:
    """Numbers that are to come and could count anything: a warning, with the line that says it. So
    too where the columns like it disagree."""
    source = make_sqlite(
        "CREATE TABLE a (id INTEGER PRIMARY KEY, at integer, s integer, ms integer);"
        "INSERT INTO a VALUES (1, NULL, 1704067225, 1704067225000)"
    )
    with psycopg.connect(postgres) as target:
        target.execute("CREATE TABLE a (id integer, at timestamptz, s timestamptz, ms timestamptz)")
    words = ("inspect", source, "--schema", "existing", "--target", postgres)
    looked = run(*words)
    assert looked.status == DONE, looked.said
    assert "warning[unit-unknown] no value yet" in looked.said
    assert "a.at" in looked.said
    assert "epoch: s" in looked.said
    policy = tmp_path / "policy.yaml"
    policy.write_text("tables: {a: {columns: {at: {epoch: ms}}}}")
    assert "unit-unknown" not in run(*words, "--policy", policy).said


def test_times_without_a_zone_are_told_as_well(postgres: str, make_sqlite: MakeSqlite) -> None:
    """What numbers are read as is said whichever type they go to, with what speaks against it."""
    source = make_sqlite(
        "CREATE TABLE a (id INTEGER PRIMARY KEY, Z_PK integer, Z_ENT integer, at integer);"
        "INSERT INTO a VALUES (1, 1, 1, 504067225)"
    )
    with psycopg.connect(postgres) as target:
        target.execute("CREATE TABLE a (id integer, z_pk int, z_ent int, at timestamp)")
    looked = run("inspect", source, "--schema", "existing", "--target", postgres)
    assert "warning[epoch] numbers are read as seconds since 1970" in looked.said
    assert "1985-12-22" in looked.said
    assert "epoch: apple" in looked.said


def test_nothing_is_like_them_and_their_declared_types_say_how_they_are_written(
    postgres: str, tmp_path: Path
) -> None:
    """Django and SQLAlchemy look for 32 digits in a CHAR(32), .NET for text in a decimal's TEXT."""
    way = Way.of(
        tmp_path,
        postgres,
        """
        CREATE TABLE a (id INTEGER PRIMARY KEY, digits CHAR(32), hyphens VARCHAR(36),
            raw BINARY(16), more VARBINARY(16), price TEXT, total TEXT,
            cost DECIMAL(10,2), bytes BINARY(40));
        CREATE TABLE parent (id TEXT PRIMARY KEY, own CHAR(32) UNIQUE);
        CREATE TABLE child (id CHAR(32) PRIMARY KEY, parent CHAR(36) REFERENCES parent (id),
            own TEXT REFERENCES parent (own));
        INSERT INTO parent VALUES ('00112233445566778899AABBCCDDEEFF',
            'fd112233445566778899aabbccddeeff');
        """,
    )
    way.on_postgres(
        """
        CREATE TABLE a (id bigint PRIMARY KEY, digits uuid, hyphens uuid, raw uuid, more uuid,
            price numeric(18,2), total numeric, cost numeric(10,2), bytes bytea);
        CREATE TABLE parent (id uuid PRIMARY KEY, own uuid UNIQUE);
        CREATE TABLE child (id uuid PRIMARY KEY, parent uuid REFERENCES parent (id),
            own uuid REFERENCES parent (own));
        """
    )
    moved = way.migrate("--schema", "existing")
    assert moved.status == DONE, moved.said
    switched = way.command("switch")
    assert switched.status == DONE, switched.said
    way.on_postgres(
        """
        INSERT INTO a VALUES (1, 'fd112233-4455-6677-8899-aabbccddeeff',
            'fd112233-4455-6677-8899-aabbccddeeff', 'fd112233-4455-6677-8899-aabbccddeeff',
            'fd112233-4455-6677-8899-aabbccddeeff', 1.5, 2.50, 3.5, '\\x00ff');
        INSERT INTO child SELECT 'fd112233-4455-6677-8899-aabbccddeeff', id, own FROM parent;
        """
    )
    way.back()
    digits, raw = "fd" + REST.hex(), b"\xfd" + REST
    assert way.on_sqlite("SELECT * FROM a") == [
        (
            *(1, digits, "fd112233-4455-6677-8899-aabbccddeeff", raw, raw),
            *("1.50", "2.50", 3.5, b"\x00\xff"),
        )
    ]
    assert way.on_sqlite("SELECT c.* FROM child c JOIN parent p ON p.id = parent") == [
        (digits, "00112233445566778899AABBCCDDEEFF", digits)
    ]
    assert way.on_sqlite("PRAGMA foreign_key_check") == []
