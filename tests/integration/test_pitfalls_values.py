"""Pitfalls 1 to 23: values. Each case is a small hostile database, the end that it has to come to,
what the tool says, and what the target holds by an independent comparison."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.running import BLOCKED, Case, check

pytestmark = pytest.mark.postgres

cases = pytest.mark.parametrize


def column(declared: str, *values: object, extra: str = "") -> str:
    """A table ``t`` with a key ``id`` from 1 on and a column ``v`` that holds SQL literals."""
    rows = "".join(f"INSERT INTO t(id, v) VALUES ({i}, {v});" for i, v in enumerate(values, 1))
    return f"CREATE TABLE t(id INTEGER PRIMARY KEY, v {declared} {extra}); {rows}"


def on_v(text: str) -> str:
    """A policy for column ``v`` of table ``t``: a YAML flow mapping."""
    return f"tables: {{t: {{columns: {{v: {text}}}}}}}\n"


V = "SELECT v FROM t ORDER BY id"
WITHOUT_2 = "SELECT id FROM t ORDER BY id"


@cases(
    "case",
    [
        Case(
            "widened",
            column("INTEGER", 1, "'abc'", 2.5, "NULL"),
            types={"t.v": "text"},
            holds={V: [("1",), ("abc",), ("2.5",), (None,)]},
            ledger=2,
            says=("text",),
        ),
        Case(
            "row at fault set aside",
            column("INTEGER", 1, "'abc'", 3),
            policy=on_v("{action: quarantine}"),
            types={"t.v": "integer"},
            holds={"SELECT id, v FROM t ORDER BY id": [(1, 1), (3, 3)]},
            ledger=0,
            quarantine=1,
        ),
        Case(
            "one in a thousand",
            "CREATE TABLE t(id INTEGER PRIMARY KEY, v INT); WITH RECURSIVE n(i) AS (SELECT 1 UNION "
            "ALL SELECT i + 1 FROM n WHERE i < 1000) INSERT INTO t SELECT i, iif(i = 777, 'x', i) "
            "FROM n;",
            policy="default: quarantine\n",
            types={"t.v": "integer"},
            holds={"SELECT count(*), sum(v) FROM t": [(999, 500500 - 777)]},
            quarantine=1,
        ),
        Case("blocked", column("INTEGER", 1, "'abc'"), BLOCKED, policy="default: block\n"),
        Case(
            "mapped",
            column("INTEGER", 1, "'abc'", 3),
            policy=on_v("{action: map, map: {abc: 7}}"),
            types={"t.v": "integer"},
            holds={V: [(1,), (7,), (3,)]},
            ledger=1,
        ),
        Case(
            "floats among integers stay numbers",
            column("INTEGER", 1, 2.5, "9007199254740993"),
            types={"t.v": "numeric"},
            holds={f"SELECT v::text FROM ({V}) x": [("1",), ("2.5",), ("9007199254740993",)]},
        ),
        Case(
            "blob in an integer column",
            column("INTEGER", 1, "x'00ff'"),
            types={"t.v": "bytea"},
            holds={V: [(b"1",), (b"\x00\xff",)]},
            ledger=1,
        ),
    ],
    ids=str,
)
def test_pitfall_01_text_or_float_in_an_integer_column(
    case: Case, tmp_path: Path, postgres: str
) -> None:
    check(case, tmp_path, postgres)


@cases(
    "case",
    [
        Case(
            "to NULL by rule",
            column("INTEGER", 1, "''", "NULL"),
            policy=on_v("{empty: null}"),
            types={"t.v": "integer"},
            holds={V: [(1,), (None,), (None,)]},
            ledger=1,
        ),
        Case(
            "to zero by rule",
            column("BIGINT", 5000000000, "''"),
            policy=on_v('{action: map, map: {"": 0}}'),
            types={"t.v": "bigint"},
            holds={V: [(5000000000,), (0,)]},
            ledger=1,
        ),
        Case(
            "kept without a rule",
            column("INTEGER", 1, "''"),
            types={"t.v": "text"},
            holds={V: [("1",), ("",)]},
            ledger=1,
        ),
        Case(
            "in a real column",
            column("REAL", 1.5, "''"),
            policy=on_v("{empty: null}"),
            types={"t.v": "double precision"},
            holds={V: [(1.5,), (None,)]},
            ledger=1,
        ),
        Case("never by accident", column("INTEGER", "''"), BLOCKED, policy="default: block\n"),
    ],
    ids=str,
)
def test_pitfall_02_empty_text_in_an_integer_column(
    case: Case, tmp_path: Path, postgres: str
) -> None:
    check(case, tmp_path, postgres)


@cases(
    "case",
    [
        Case("int4", column("INTEGER", 2**31 - 1, -(2**31)), types={"t.v": "integer"}, ledger=0),
        Case("beyond", column("INTEGER", 2**31), types={"t.v": "bigint"}, ledger=0),
        Case("below", column("INTEGER", -(2**31) - 1), types={"t.v": "bigint"}, ledger=0),
        Case("declared small", column("TINYINT", 70000, 3000000000), types={"t.v": "bigint"}),
        Case(
            "the key itself",
            "CREATE TABLE t(id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1), (5000000000);"
            "CREATE TABLE c(t INTEGER REFERENCES t(id)); INSERT INTO c VALUES (1);",
            types={"t.id": "bigint"},
        ),
    ],
    ids=str,
)
def test_pitfall_03_integers_beyond_int4(case: Case, tmp_path: Path, postgres: str) -> None:
    check(case, tmp_path, postgres)


@cases(
    "case",
    [
        Case(
            "beyond int64 SQLite itself made a real of it",
            column("BIGINT", "18446744073709551615", "7"),
            holds={"SELECT v > 18446744073709551000 FROM t WHERE id = 1": [(True,)]},
        ),
        Case(
            "a wished type that is too small",
            column("INTEGER", 3000000000),
            BLOCKED,
            policy=on_v("{type: integer, action: block}"),
        ),
        Case(
            "a wished type that is too small, set aside",
            column("INTEGER", 1, 3000000000),
            policy=on_v("{type: integer, action: quarantine}"),
            types={"t.v": "integer"},
            quarantine=1,
        ),
        Case(
            "a wished scale that would round",
            column("REAL", 0.125),
            BLOCKED,
            policy=on_v('{type: "numeric(4,2)", action: block}'),
        ),
    ],
    ids=str,
)
def test_pitfall_04_never_clamped(case: Case, tmp_path: Path, postgres: str) -> None:
    check(case, tmp_path, postgres)


@cases(
    "case",
    [
        Case("narrow by itself", column("INTEGER", 1, 2), types={"t.v": "integer"}),
        Case("as wide as declared", column("BIGINT", 1, 2), types={"t.v": "bigint"}),
        Case(
            "a wider one on wish",
            column("INTEGER", 1, 2),
            policy=on_v("{type: bigint}"),
            types={"t.v": "bigint"},
        ),
        Case(
            "a narrower one on wish",
            column("INTEGER", 1, 2),
            policy=on_v("{type: smallint}"),
            types={"t.v": "smallint"},
        ),
    ],
    ids=str,
)
def test_pitfall_05_a_wished_integer_type(case: Case, tmp_path: Path, postgres: str) -> None:
    check(case, tmp_path, postgres)


@cases(
    "case",
    [
        Case(
            "int64",
            column("INTEGER", 2**63 - 1, "-9223372036854775807 - 1", 0),
            types={"t.v": "bigint"},
            holds={V: [(2**63 - 1,), (-(2**63),), (0,)]},
            ledger=0,
        ),
        Case(
            "the calendar's ends",
            column("DATETIME", "'0001-01-01 00:00:00'", "'9999-12-31 23:59:59'"),
            types={"t.v": "timestamp(0) with time zone"},
            ledger=0,
        ),
        Case(
            "beyond the calendar",
            column("DATETIME", "'2024-01-01 00:00:00'", "'0000-00-00 00:00:00'", "'10000-01-01'"),
            types={"t.v": "text"},
            holds={V: [("2024-01-01 00:00:00",), ("0000-00-00 00:00:00",), ("10000-01-01",)]},
            ledger=0,
        ),
        Case(
            "the largest int64 as a time",
            column("TIMESTAMP", 9223372036854775807),
            types={"t.v": "bigint"},
            ledger=0,
        ),
        Case(
            "dates before Christ and words",
            column("DATE", "'-4712-01-01'", "'infinity'", "'2024-01-01'"),
            types={"t.v": "text"},
            ledger=0,
        ),
    ],
    ids=str,
)
def test_pitfall_06_the_largest_and_the_absurd(case: Case, tmp_path: Path, postgres: str) -> None:
    check(case, tmp_path, postgres)


REALS = (
    *("0.1", "0.1 + 0.2", "1e308 * 1.7", "4.9e-324", "9e999", "-9e999", "1.0 / 3", "16777217.0"),
    *("123456789.123456789", "1e22", "1e23", "-0.0", "100.0", "5e-5", "9007199254740993.0"),
)


@cases(
    "case",
    [
        Case("real", column("REAL", *REALS), types={"t.v": "double precision"}, ledger=0),
        Case("float", column("FLOAT", *REALS), types={"t.v": "double precision"}, ledger=0),
        Case("no type", column("", *REALS), types={"t.v": "double precision"}, ledger=0),
        Case(
            "integers in a real column",
            column("DOUBLE", 1, 2, 9007199254740993),
            types={"t.v": "double precision"},
            ledger=0,
        ),
    ],
    ids=str,
)
def test_pitfall_07_every_digit_of_a_real(case: Case, tmp_path: Path, postgres: str) -> None:
    check(case, tmp_path, postgres)


@cases(
    "case",
    [
        Case(
            "fits",
            column("DECIMAL(10,2)", 40.12, 7, -99999999.99),
            types={"t.v": "numeric(10,2)"},
            ledger=0,
        ),
        Case(
            "too many decimals",
            column("DECIMAL(10,2)", 40.12345, 1),
            types={"t.v": "numeric"},
            holds={f"SELECT v::text FROM ({V}) x": [("40.12345",), ("1",)]},
            ledger=0,
        ),
        Case(
            "too many digits",
            column("NUMERIC(5,2)", 1234567890),
            types={"t.v": "numeric"},
            ledger=0,
        ),
        Case(
            "blocked",
            column("DECIMAL(10,2)", 40.12345),
            BLOCKED,
            policy="default: block\n",
            says=("DECIMAL|numeric",),
        ),
        Case(
            "set aside",
            column("DECIMAL(10,2)", 40.12345, 1.5),
            policy="default: quarantine\n",
            types={"t.v": "numeric(10,2)"},
            quarantine=1,
        ),
        Case(
            "a real next to its 15 digits",
            column("NUMERIC(10,2)", "0.1 + 0.2", 0.3),
            types={"t.v": "numeric(10,2)"},
            holds={f"SELECT v::text FROM ({V}) x": [("0.30",), ("0.30",)]},
            ledger=1,
        ),
    ],
    ids=str,
)
def test_pitfall_08_decimals_beyond_the_scale(case: Case, tmp_path: Path, postgres: str) -> None:
    check(case, tmp_path, postgres)


@cases(
    "case",
    [
        *(
            Case(
                f"default {default}",
                column("BOOLEAN", 1, 0, "NULL", extra=f"DEFAULT {default}"),
                types={"t.v": "boolean"},
                holds={
                    V: [(True,), (False,), (None,)],
                    "INSERT INTO t(id) VALUES (50) RETURNING v": [(truth,)],
                },
                ledger=0,
            )
            for default, truth in (("1", True), ("0", False), ("TRUE", True), ("FALSE", False))
        ),
        Case(
            "2 is no boolean",
            column("BOOLEAN", 1, 0, 2, extra="DEFAULT 1"),
            types={"t.v": "integer"},
            holds={
                V: [(1,), (0,), (2,)],
                "INSERT INTO t(id) VALUES (50) RETURNING v": [(1,)],
            },
            ledger=0,
        ),
        Case("an integer column stays one", column("INTEGER", 1, 0), types={"t.v": "integer"}),
        Case(
            "set aside",
            column("BOOLEAN", 1, 2),
            policy="default: quarantine\n",
            types={"t.v": "boolean"},
            quarantine=1,
        ),
    ],
    ids=str,
)
def test_pitfall_09_booleans_and_their_defaults(case: Case, tmp_path: Path, postgres: str) -> None:
    check(case, tmp_path, postgres)


@cases(
    "case",
    [
        Case(
            "mapped",
            column("BOOLEAN", 1, "'true'", "'f'", 0),
            policy=on_v('{booleans: {true: ["true"], false: ["f"]}}'),
            types={"t.v": "boolean"},
            holds={V: [(True,), (True,), (False,), (False,)]},
            ledger=2,
        ),
        Case(
            "set aside",
            column("INTEGER", 1, "'true'"),
            policy="default: quarantine\n",
            types={"t.v": "integer"},
            quarantine=1,
        ),
        Case(
            "kept as text",
            column("BOOL", 1, "'true'", "'TRUE'"),
            types={"t.v": "text"},
            holds={V: [("1",), ("true",), ("TRUE",)]},
            ledger=1,
        ),
        Case("blocked", column("INT", "'true'"), BLOCKED, policy="default: block\n"),
    ],
    ids=str,
)
def test_pitfall_10_the_text_true(case: Case, tmp_path: Path, postgres: str) -> None:
    check(case, tmp_path, postgres)


@cases(
    "case",
    [
        *(
            Case(
                unit,
                column("DATETIME", 1700000000 * per, 1700000001 * per + (per > 1) * 123),
                types={"t.v": f"timestamp{precision} with time zone"},
                holds={"SELECT extract(epoch FROM v)::bigint FROM t WHERE id = 1": [(1700000000,)]},
                ledger=0,
                says=(unit,),
            )
            for unit, per, precision in (("s", 1, "(0)"), ("ms", 1000, "(3)"), ("us", 10**6, ""))
        ),
        Case(
            "units that do not agree stay numbers",
            column("DATETIME", 1700000000, 1700000000000),
            types={"t.v": "bigint"},
            ledger=0,
        ),
        Case(
            "numbers that are no times",
            column("TIMESTAMP", 1, 2, 3),
            types={"t.v": "integer"},
            ledger=0,
        ),
        Case(
            "the unit by policy",
            column("INTEGER", 100, 200),
            policy=on_v("{type: timestamp with time zone, epoch: s}"),
            types={"t.v": "timestamp with time zone"},
            holds={"SELECT extract(epoch FROM v)::int FROM t ORDER BY id": [(100,), (200,)]},
            ledger=0,
        ),
    ],
    ids=str,
)
def test_pitfall_11_epochs(case: Case, tmp_path: Path, postgres: str) -> None:
    check(case, tmp_path, postgres)


EPOCH_V = "SELECT extract(epoch FROM v)::numeric(20,3)::text FROM t ORDER BY id"


@cases(
    "case",
    [
        Case(
            "the commonest is the column's",
            column(
                "DATETIME",
                "'2024-03-01 10:00:00'",
                "'2024-03-01 10:00:01'",
                "'2024-03-01T10:00:02Z'",
                "'2024-03-01T10:00:03+02:00'",
                "'2024-03-01 10:00:04.500'",
            ),
            types={"t.v": "timestamp(3) with time zone"},
            holds={
                EPOCH_V: [
                    ("1709287200.000",),
                    ("1709287201.000",),
                    ("1709287202.000",),
                    ("1709280003.000",),
                    ("1709287204.500",),
                ]
            },
            ledger=2,
        ),
        Case(
            "ISO with milliseconds",
            column("DATETIME", "'2024-03-01T10:00:00.120Z'", "'2024-03-01T10:00:00.000Z'"),
            types={"t.v": "timestamp(3) with time zone"},
            ledger=0,
        ),
        Case(
            "an order of day and month that nobody can know",
            column("DATETIME", "'2024-03-01 10:00:00'", "'01/02/2024'"),
            types={"t.v": "text"},
            ledger=0,
        ),
        Case(
            "dates among times",
            column("DATETIME", "'2024-03-01 10:00:00'", "'2024-03-02 10:00:00'", "'2024-03-01'"),
            types={"t.v": "timestamp(0) with time zone"},
            ledger=1,
        ),
    ],
    ids=str,
)
def test_pitfall_12_several_shapes_of_date(case: Case, tmp_path: Path, postgres: str) -> None:
    check(case, tmp_path, postgres)


SUMMER = "'2024-07-01 12:00:00'"


@cases(
    "case",
    [
        Case(
            "UTC whatever the session's zone is",
            column("DATETIME", SUMMER),
            holds={EPOCH_V: [("1719835200.000",)]},
            target_setup="""DO $$ BEGIN EXECUTE format(
                'ALTER DATABASE %I SET timezone TO ''America/New_York''', current_database());
                END $$""",
            ledger=0,
        ),
        Case(
            "a declared zone, with its summer time",
            column("DATETIME", SUMMER, "'2024-01-01 12:00:00'"),
            policy="zone: Europe/Berlin\n",
            zone="Europe/Berlin",
            holds={EPOCH_V: [("1719828000.000",), ("1704106800.000",)]},
            ledger=None,
        ),
        Case(
            "US date style on the server",
            column("DATETIME", "'2024-03-04 05:06:07'"),
            holds={EPOCH_V: [("1709528767.000",)]},
            target_setup="""DO $$ BEGIN EXECUTE format(
                'ALTER DATABASE %I SET datestyle TO ''SQL, DMY''', current_database());
                END $$""",
            ledger=0,
        ),
    ],
    ids=str,
)
def test_pitfall_13_naive_times(case: Case, tmp_path: Path, postgres: str) -> None:
    check(case, tmp_path, postgres)


@cases(
    "case",
    [
        Case(
            "set aside",
            column(
                "DATETIME",
                "'2024-03-01 10:00:00'",
                "'2024-03-01 10:00:01'",
                "2459310.5",
                "''",
                "'2024-02-30 00:00:00'",
                "'now'",
                "'2024-03-01 25:00:00'",
            ),
            policy="default: quarantine\n",
            types={"t.v": "timestamp(0) with time zone"},
            holds={WITHOUT_2: [(1,), (2,)]},
            quarantine=5,
        ),
        Case(
            "kept as text",
            column("DATETIME", "'2024-02-30'", "''", "'now'", "2459310.5"),
            types={"t.v": "text"},
            ledger=1,
        ),
        Case(
            "a date that is none",
            column("DATE", "'2024-02-29'", "'2023-02-29'"),
            policy="default: quarantine\n",
            types={"t.v": "date"},
            quarantine=1,
        ),
        Case(
            "blocked",
            column("DATE", "'2024-02-30'", "'2024-02-28'"),
            BLOCKED,
            policy="default: block\n",
        ),
    ],
    ids=str,
)
def test_pitfall_14_what_is_no_date(case: Case, tmp_path: Path, postgres: str) -> None:
    check(case, tmp_path, postgres)


@cases(
    "case",
    [
        Case("stops", column("TEXT", "'a'", "'b' || char(0) || 'c'"), BLOCKED, says=("(?i)nul",)),
        Case("at the end", column("TEXT", "'b' || char(0)"), BLOCKED, says=("(?i)nul",)),
        Case("alone", column("VARCHAR(5)", "char(0)"), BLOCKED, says=("(?i)nul",)),
        Case(
            "in an integer column",
            column("INTEGER", 1, "'1' || char(0)"),
            BLOCKED,
            says=("(?i)nul",),
        ),
        Case(
            "set aside",
            column("TEXT", "'a'", "'b' || char(0) || 'c'"),
            policy=on_v("{action: quarantine}"),
            types={"t.v": "text"},
            holds={V: [("a",)]},
            quarantine=1,
        ),
        Case(
            "kept as bytes on wish",
            column("TEXT", "'a'", "'b' || char(0) || 'c'"),
            policy=on_v("{action: widen}"),
            types={"t.v": "bytea"},
            holds={V: [(b"a",), (b"b\x00c",)]},
            ledger=None,
        ),
        Case(
            "in a key",
            "CREATE TABLE t(k TEXT PRIMARY KEY); INSERT INTO t VALUES ('a' || char(0)), ('b');",
            BLOCKED,
            says=("(?i)nul",),
        ),
    ],
    ids=str,
)
def test_pitfall_15_nul_in_text(case: Case, tmp_path: Path, postgres: str) -> None:
    check(case, tmp_path, postgres)


@cases(
    "case",
    [
        Case(
            "json keeps what jsonb refuses",
            column("JSON", """'{"a":"\\u0000"}'""", """'"\\ud800"'"""),
            types={"t.v": "json"},
            ledger=0,
        ),
        Case(
            "jsonb on wish finds it before the load",
            column("JSON", """'{"a":"\\u0000"}'"""),
            BLOCKED,
            policy=on_v("{type: jsonb, action: block}"),
        ),
        Case(
            "a lone surrogate",
            column("TEXT", """'"\\ud800x"'""", "'{}'"),
            policy=on_v("{type: jsonb, action: quarantine}"),
            types={"t.v": "jsonb"},
            quarantine=1,
        ),
        Case(
            "a pair of surrogates is a character",
            column("TEXT", """'"\\ud83d\\ude00"'"""),
            policy=on_v("{type: jsonb}"),
            types={"t.v": "jsonb"},
            holds={"SELECT v #>> '{}' FROM t": [("😀",)]},
        ),
    ],
    ids=str,
)
def test_pitfall_16_escapes_in_json(case: Case, tmp_path: Path, postgres: str) -> None:
    check(case, tmp_path, postgres)


def _surrogate_in_utf16(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)")
    connection.execute("INSERT INTO t VALUES (1, 'fine'), (2, CAST(x'00D86100' AS TEXT))")


@cases(
    "case",
    [
        Case(
            "stops",
            column("TEXT", "'a'", "CAST(x'62ff' AS TEXT)"),
            BLOCKED,
            says=("(?i)utf|decod",),
        ),
        *(
            Case(
                name,
                column("TEXT", "'a'", f"CAST(x'{raw}' AS TEXT)", "'c'"),
                policy="default: quarantine\n",
                types={"t.v": "text"},
                holds={"SELECT id, v FROM t ORDER BY id": [(1, "a"), (3, "c")]},
                quarantine=1,
            )
            for name, raw in (
                ("a stray byte", "62ff"),
                ("a lone surrogate", "eda080"),
                ("overlong", "c080"),
                ("beyond Unicode", "f4908080"),
                ("cut off", "e282"),
            )
        ),
        Case(
            "UTF-16",
            _surrogate_in_utf16,
            policy="default: quarantine\n",
            encoding="UTF-16le",
            holds={"SELECT id, v FROM t": [(1, "fine")]},
            quarantine=1,
        ),
        Case(
            "in a table's key",
            "CREATE TABLE t(k TEXT PRIMARY KEY, n INT); INSERT INTO t VALUES ('a', 1);"
            "INSERT INTO t VALUES (CAST(x'ff' AS TEXT), 2);",
            policy="default: quarantine\n",
            holds={"SELECT k, n FROM t": [("a", 1)]},
            quarantine=1,
        ),
    ],
    ids=str,
)
def test_pitfall_17_invalid_utf8(case: Case, tmp_path: Path, postgres: str) -> None:
    check(case, tmp_path, postgres)


@cases(
    "case",
    [
        Case(
            "a blob that spells text stays a blob",
            column("BLOB", "x'616263'", "x''"),
            types={"t.v": "bytea"},
            holds={V: [(b"abc",), (b"",)]},
            ledger=0,
        ),
        Case(
            "text in a blob column",
            column("BLOB", "x'00'", "'abc'"),
            types={"t.v": "bytea"},
            holds={V: [(b"\x00",), (b"abc",)]},
            ledger=1,
        ),
        Case(
            "a blob in a text column",
            column("TEXT", "'abc'", "x'ff00'"),
            types={"t.v": "bytea"},
            holds={V: [(b"abc",), (b"\xff\x00",)]},
            ledger=1,
        ),
        Case(
            "text alone in a blob column",
            column("BLOB", "'abc'", "'\\x41'"),
            types={"t.v": "text"},
            holds={V: [("abc",), ("\\x41",)]},
            ledger=0,
        ),
        Case(
            "set aside",
            column("TEXT", "'abc'", "x'ff00'"),
            policy="default: quarantine\n",
            types={"t.v": "text"},
            quarantine=1,
        ),
        Case("blocked", column("TEXT", "'abc'", "x'ff00'"), BLOCKED, policy="default: block\n"),
    ],
    ids=str,
)
def test_pitfall_18_blobs_and_text(case: Case, tmp_path: Path, postgres: str) -> None:
    check(case, tmp_path, postgres)


@cases(
    "case",
    [
        Case(
            "a float where a UUID was",
            column("UUID", "'12345678901234567890123456789012'"),
            BLOCKED,
            says=("(?i)uuid",),
        ),
        Case(
            "Infinity where a UUID was",
            column(
                "UUID",
                "'0d5a7b64111142228333000000000000'",
                "'1234567890e234567890123456789012'",
            ),
            BLOCKED,
            says=("(?i)uuid",),
        ),
        Case(
            "hyphens have saved them",
            column("UUID", "'0d5a7b64-1111-4222-8333-000000000000'"),
            types={"t.v": "uuid"},
            ledger=0,
        ),
        Case(
            "in upper case",
            column("UUID", "'0D5A7B64-1111-4222-8333-00000000000A'"),
            types={"t.v": "uuid"},
            ledger=0,
        ),
    ],
    ids=str,
)
def test_pitfall_19_uuids_that_became_numbers(case: Case, tmp_path: Path, postgres: str) -> None:
    check(case, tmp_path, postgres)


@cases(
    "case",
    [
        Case(
            "fits by characters, not bytes",
            column("VARCHAR(5)", "'ééééé'", "'😀😀😀😀😀'"),
            types={"t.v": "character varying(5)"},
            ledger=0,
        ),
        Case(
            "widened",
            column("VARCHAR(5)", "'abcdefgh'"),
            types={"t.v": "text"},
            holds={V: [("abcdefgh",)]},
            says=("8",),
            ledger=0,
        ),
        Case(
            "blocked",
            column("VARCHAR(5)", "'abcdefgh'"),
            BLOCKED,
            policy="default: block\n",
            says=("8",),
        ),
        Case(
            "set aside",
            column("CHAR(3)", "'abc'", "'abcd'"),
            policy="default: quarantine\n",
            quarantine=1,
        ),
        Case(
            "trailing blanks are kept",
            column("CHAR(5)", "'a  '", "'a'", "'     '"),
            holds={"SELECT octet_length(v::text) FROM t ORDER BY id": [(3,), (1,), (5,)]},
            ledger=0,
        ),
    ],
    ids=str,
)
def test_pitfall_20_longer_than_declared(case: Case, tmp_path: Path, postgres: str) -> None:
    check(case, tmp_path, postgres)


@cases(
    "case",
    [
        Case(
            "text",
            column("TEXT", "''", "NULL", "'NULL'", "' '"),
            holds={V: [("",), (None,), ("NULL",), (" ",)]},
            ledger=0,
        ),
        Case("blob", column("BLOB", "x''", "NULL"), holds={V: [(b"",), (None,)]}, ledger=0),
        Case(
            "varchar",
            column("VARCHAR(4)", "''", "NULL", "'NULL'"),
            holds={V: [("",), (None,), ("NULL",)]},
            ledger=0,
        ),
    ],
    ids=str,
)
def test_pitfall_21_empty_text_and_null(case: Case, tmp_path: Path, postgres: str) -> None:
    check(case, tmp_path, postgres)


SPECIAL = [
    *(
        "\t",
        "\n",
        "\r",
        "\r\n",
        "\\",
        "\\\\",
        "\\N",
        "\\.",
        "\\n",
        "\\t",
        "\\x41",
        "\\101",
        "\b\f\v",
    ),
    *("'", '"', "''", '"";', "$$", "%s %(a)s", "a\\", "\\\na", "\x1b", "\x7f", "\u2028", "\ufeffa"),
    *("a\tb\nc\\d\re", "\\N\n\\.\n", "{", "}", "NULL", "null", ","),
]


def _special(declared: str) -> Case:
    def fill(connection: sqlite3.Connection) -> None:
        connection.execute(f"CREATE TABLE t(id INTEGER PRIMARY KEY, v {declared}, w {declared})")
        connection.executemany("INSERT INTO t(v, w) VALUES (?, ?)", [(s, s + s) for s in SPECIAL])

    return Case(
        f"in {declared or 'no type'}",
        fill,
        types={"t.v": "text"} if declared != "VARCHAR(60)" else {},
        holds={"SELECT v, w FROM t ORDER BY id": [(s, s + s) for s in SPECIAL]},
        ledger=0,
    )


@cases("case", [_special("TEXT"), _special(""), _special("VARCHAR(60)")], ids=str)
def test_pitfall_22_what_copy_gives_a_meaning(case: Case, tmp_path: Path, postgres: str) -> None:
    check(case, tmp_path, postgres)


DOCUMENTS = [
    "null", '{"b":1,"a":2}', '{"a":1,"a":2}', "1.0", "1e400", ' [ 1 , 2 ] ', '"x"', "true",
    '{"n":12345678901234567890.10}', "-0", '{"é":"\\u00e9"}',
]  # fmt: skip


def _documents(declared: str, documents: list[str]) -> Callable[[sqlite3.Connection], None]:
    def fill(connection: sqlite3.Connection) -> None:
        connection.execute(f"CREATE TABLE t(id INTEGER PRIMARY KEY, v {declared})")
        connection.executemany("INSERT INTO t(v) VALUES (?)", [(d,) for d in [*documents, None]])

    return fill


@cases(
    "case",
    [
        Case(
            "json keeps the text and tells null from NULL",
            _documents("TEXT", DOCUMENTS),
            policy=on_v("{type: json}"),
            types={"t.v": "json"},
            holds={
                "SELECT v::text FROM t ORDER BY id": [(d,) for d in [*DOCUMENTS, None]],
                "SELECT count(*), count(v) FROM t": [(12, 11)],
            },
            ledger=0,
        ),
        Case(
            "declared JSON has the numeric affinity",
            # SQLite itself has made the integers 1 and 0 of `1.0` and `-0`.
            _documents("JSON", [d for d in DOCUMENTS if d != "1e400"]),
            types={"t.v": "json"},
        ),
        Case(
            "and has made Infinity of 1e400, which is no JSON",
            _documents("JSON", ["{}", "1e400"]),
            types={"t.v": "text"},
        ),
        Case(
            "text in the text affinity",
            column("TEXT", """'{"b":1,"a":2}'""", "'null'", "NULL"),
            policy=on_v("{type: json}"),
            types={"t.v": "json"},
            holds={"SELECT v::text FROM t ORDER BY id": [('{"b":1,"a":2}',), ("null",), (None,)]},
            ledger=0,
        ),
        Case(
            "jsonb on wish, with a ledger",
            column("TEXT", """'{"b":1,"a":2}'""", """'{"a":1,"a":2}'""", "'1.0'", "'null'", "NULL"),
            policy=on_v("{type: jsonb, action: map}"),
            types={"t.v": "jsonb"},
            holds={
                "SELECT v::text FROM t ORDER BY id": [
                    ('{"a": 2, "b": 1}',),
                    ('{"a": 2}',),
                    ("1.0",),
                    ("null",),
                    (None,),
                ]
            },
        ),
        Case(
            "no JSON stays text",
            column("JSON", "'{a:1}'", "'{}'"),
            types={"t.v": "text"},
            ledger=0,
        ),
        Case(
            "a number that jsonb cannot hold",
            column("TEXT", "'1e400000'"),
            BLOCKED,
            policy=on_v("{type: jsonb, action: block}"),
        ),
    ],
    ids=str,
)
def test_pitfall_23_json(case: Case, tmp_path: Path, postgres: str) -> None:
    check(case, tmp_path, postgres)
