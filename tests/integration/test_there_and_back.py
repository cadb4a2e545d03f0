"""What PostgreSQL may hold comes home, is refused when it is written, or was announced."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.roundtrip import Trip, travel

pytestmark = pytest.mark.postgres

HOUR = "2026-01-02 03:04:05"

TIMES = (
    Trip(
        "now() in a column of seconds",
        "CREATE TABLE p(id INTEGER PRIMARY KEY, at DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP);"
        "INSERT INTO p VALUES (1, '2024-01-01 10:00:00')",
        target="INSERT INTO p(id, at) VALUES (2, now());\nINSERT INTO p(id) VALUES (3);\n"
        "UPDATE p SET at = clock_timestamp() WHERE id = 1;\n"
        f"INSERT INTO p VALUES (4, '{HOUR}.5Z'), (5, 'infinity'), (6, '-infinity'), "
        "(7, '0044-03-15 12:00:00+00 BC'), (8, '12024-01-01 00:00:00+00')",
        types={"p.at": "timestamp(0) with time zone"},
        home={
            "SELECT count(*) FROM p WHERE at = datetime(at)": [(4,)],
            "SELECT at FROM p WHERE id > 3 ORDER BY id": [
                ("2026-01-02 03:04:06",),
                ("infinity",),
                ("-infinity",),
                ("0044-03-15 12:00:00+00 BC",),
                ("12024-01-01 00:00:00+00",),
            ],
        },
    ),
    Trip(
        "times of several shapes",
        "CREATE TABLE p(id INTEGER PRIMARY KEY, day DATETIME, minute DATETIME, milli DATETIME, "
        "micro DATETIME, few DATETIME, s DATETIME, ms DATETIME, none DATETIME);"
        "INSERT INTO p VALUES (1, '2024-01-01', '2024-01-01T10:00', '2024-01-01T10:00:00.123Z', "
        "'2024-01-01 10:00:00.123456+02:00', '2024-01-01 10:00:00', 1700000000, 1700000000123, "
        "NULL), (2, NULL, NULL, NULL, NULL, '2024-01-01 10:00:00.25', 1700000001, NULL, NULL)",
        live="UPDATE p SET day = '2025-01-01 11:12:13.5', s = 1700000002.5 WHERE id = 2",
        target=f"UPDATE p SET day = '{HOUR}.123456Z', minute = '{HOUR}.123456Z', "
        f"milli = '{HOUR}.123456Z', micro = '{HOUR}.123456Z', few = '{HOUR}.123456Z', "
        f"s = '{HOUR}.123456Z', ms = '{HOUR}.123456Z', none = '{HOUR}.123456Z' WHERE id = 1;\n"
        "INSERT INTO p VALUES (3, '2026-01-02', '2026-01-02 03:04Z', now(), now(), now(), now(), "
        "now(), now())",
        types={
            "p.day": "timestamp(0) with time zone",
            "p.milli": "timestamp(3) with time zone",
            "p.micro": "timestamp with time zone",
            "p.few": "timestamp(2) with time zone",
        },
        home={
            "SELECT * FROM p WHERE id = 1": [
                (
                    *(1, "2026-01-02 03:04:05", "2026-01-02T03:04:05", "2026-01-02T03:04:05.123Z"),
                    *("2026-01-02 05:04:05.123456+02:00", "2026-01-02 03:04:05.12", 1767323045),
                    *(1767323045123, "2026-01-02 03:04:05.123456"),
                )
            ],
            "SELECT day, minute FROM p WHERE id = 3": [("2026-01-02", "2026-01-02T03:04")],
            "SELECT day, s FROM p WHERE id = 2": [("2025-01-01 11:12:13.5", 1700000002.5)],
        },
    ),
    Trip(
        "dates and times of day",
        "CREATE TABLE p(id INTEGER PRIMARY KEY, d DATE, t TIME, m TIME, f TIME);"
        "INSERT INTO p VALUES (1, '2024-01-01', '10:00:00', '10:00', '10:00:00.125')",
        target="INSERT INTO p VALUES (2, now(), now()::time, now()::time, now()::time), "
        "(3, 'infinity', '24:00:00', '24:00', '24:00'), "
        "(4, '0044-03-15 BC', '10:11:12.6', '10:11:12.6', '10:11:12.6'), "
        "(5, '12024-01-01', '00:00', '00:00', '00:00')",
        types={"p.t": "time(0) without time zone", "p.f": "time(3) without time zone"},
        home={
            "SELECT * FROM p WHERE id > 2": [
                (3, "infinity", "24:00:00", "24:00:00", "24:00:00"),
                (4, "0044-03-15 BC", "10:11:13", "10:11:13", "10:11:12.600"),
                (5, "12024-01-01", "00:00:00", "00:00", "00:00:00.000"),
            ],
        },
    ),
)

NUMBERS = (
    Trip(
        "numbers",
        "CREATE TABLE p(id INTEGER PRIMARY KEY, r REAL, d DECIMAL(10,2), w DECIMAL(20,4), "
        "n NUMERIC, x);"
        "INSERT INTO p VALUES (1, 1.5, 1.25, 1.5, 1.5, 1), (2, 0.1, 2, 3, 4, 1.5)",
        target="INSERT INTO p VALUES (3, 'NaN', 'NaN', 'NaN', 'NaN', 'NaN'), "
        "(4, 'Infinity', 1.005, 1.00005, 'Infinity', 'Infinity'), (5, '-0', -0.001, 0, 0, 0), "
        "(6, 1.0/3, 10.00, 10.0000, 10.00, 12345678901234567890.12345678901234567890), "
        "(7, 1e300, 99999999.99, 1234567890123456, 9007199254740993, 1e40);\n"
        "UPDATE p SET n = 0.30000000000000004, x = 10.00 WHERE id = 1",
        refused=(
            "INSERT INTO p(id, n) VALUES (9, 0.12345678901234567890)",
            "INSERT INTO p(id, n) VALUES (9, 12345678901234567891)",
            "INSERT INTO p(id, w) VALUES (9, 1234567890123456.1234)",
            "INSERT INTO p(id, d) VALUES (9, 123456789)",
        ),
        types={"p.n": "numeric", "p.x": "numeric", "p.w": "numeric(20,4)"},
        home={
            "SELECT * FROM p WHERE id > 2": [
                (3, "NaN", "NaN", "NaN", "NaN", "NaN"),
                (4, float("inf"), 1.01, 1.0001, float("inf"), float("inf")),
                (5, 0.0, 0, 0, 0, 0),
                (6, 1.0 / 3, 10, 10, 10, "12345678901234567890.12345678901234567890"),
                (7, 1e300, 99999999.99, 1234567890123456, 9007199254740993, "1" + "0" * 40),
            ],
            "SELECT n, x, typeof(x) FROM p WHERE id = 1": [(0.30000000000000004, 10.0, "real")],
        },
    ),
    Trip(
        "a STRICT table's reals",
        "CREATE TABLE p(id INTEGER PRIMARY KEY, r REAL) STRICT; INSERT INTO p VALUES (1, 1.5)",
        target="INSERT INTO p VALUES (2, 'Infinity')",
        refused=("INSERT INTO p VALUES (3, 'NaN')",),
        home={"SELECT * FROM p": [(1, 1.5), (2, float("inf"))]},
    ),
)

UUID = "00000000-0000-0000-0000-000000000000"

TEXTS = (
    Trip(
        "identifiers and documents",
        "CREATE TABLE p(id INTEGER PRIMARY KEY, u UUID, h UUID, j JSON, b JSON);"
        "INSERT INTO p VALUES (1, 'C7A1F0DE-1B2C-4D3E-8F90-A1B2C3D4E5F6', "
        "'c7a1f0de1b2c4d3e8f90a1b2c3d4e5f6', '{\"a\": 1}', '{\"a\":1}')",
        policy="tables: {p: {columns: {b: {type: jsonb}}}}",
        target=f"INSERT INTO p VALUES (2, '{UUID}', '{UUID}', '5', '5'), "
        "(3, 'c7a1f0de-1b2c-4d3e-8f90-a1b2c3d4e5f7', 'c7a1f0de-1b2c-4d3e-8f90-a1b2c3d4e5f7', "
        "' 5 ', '{\"bb\": [1.50, null], \"a\": \"é\"}'), (4, NULL, NULL, '1e2', '1.50'), "
        "(5, NULL, NULL, '\"5\"', 'true')",
        refused=("INSERT INTO p(id, j) VALUES (9, '12345678901234567891')",),
        home={
            "SELECT u, h, j, b FROM p WHERE id > 1": [
                (UUID, UUID, 5, 5),
                (
                    *("C7A1F0DE-1B2C-4D3E-8F90-A1B2C3D4E5F7", "c7a1f0de1b2c4d3e8f90a1b2c3d4e5f7"),
                    *(5, '{"a":"é","bb":[1.50,null]}'),
                ),
                (None, None, 100, 1.5),
                (None, None, '"5"', "true"),
            ]
        },
    ),
    Trip(
        "text and bytes",
        "CREATE TABLE p(id INTEGER PRIMARY KEY, t TEXT, s STRING, w INTEGER, b BLOB, x, nul TEXT);"
        "INSERT INTO p VALUES (1, 'a', 'b', 'c', x'00', x'01', 'a' || char(0)), "
        "(2, 'a', 'b', 7, x'00', 'y', 'b')",
        policy="tables: {p: {columns: {nul: {type: bytea}}}}",
        target="INSERT INTO p VALUES (3, '', '007', '1.0', '', '', ''), "
        "(4, E'\\\\x\\t\\n', ' 5 ', '5', '\\xff00', '\\xff00', 'abc'), "
        "(5, repeat('long', 50000), 'x', '1e20', '\\x00', 'z', '\\xff00');\n"
        "UPDATE p SET x = 'new', nul = 'new', w = '8' WHERE id = 2",
        home={
            "SELECT id, t, s, w, b, x, nul FROM p WHERE id IN (2, 3, 4)": [
                (2, "a", "b", 8, b"\0", b"new", "new"),
                (3, "", 7, 1, b"", b"", ""),
                (4, "\\x\t\n", 5, 5, b"\xff\0", b"\xff\0", "abc"),
            ],
            "SELECT length(t), s, w, typeof(nul), hex(nul) FROM p WHERE id = 5": [
                (200000, "x", 1e20, "text", "FF00")
            ],
        },
    ),
    Trip(
        "a text for an integer",
        "CREATE TABLE k(k TEXT PRIMARY KEY); INSERT INTO k VALUES ('1'), ('a');"
        "CREATE TABLE p(id INTEGER PRIMARY KEY, k INTEGER REFERENCES k(k));"
        "INSERT INTO p VALUES (1, 1)",
        target="INSERT INTO p VALUES (2, 'a'), (3, NULL)",
        types={"p.k": "text"},
        home={"SELECT * FROM p": [(1, 1), (2, "a"), (3, None)]},
    ),
)


LEDGER = (
    Trip(
        "values of the ledger",
        "CREATE TABLE p(id INTEGER PRIMARY KEY, at DATETIME, n INTEGER);"
        "INSERT INTO p VALUES (1, '2024-01-01 10:00:00', 1), (2, '2024-01-01T11:00:00Z', 'two'), "
        "(3, '2024-01-01 12:00:00', 'three'), (4, '2024-01-01T13:00:00Z', 4)",
        target="UPDATE p SET at = '2025-01-01 10:00:00Z' WHERE id IN (1, 2);\n"
        "UPDATE p SET n = 'new' WHERE id = 3;\nUPDATE p SET n = '5' WHERE id IN (2, 4)",
        ledger=4,
        home={
            "SELECT * FROM p": [
                (1, "2025-01-01 10:00:00", 1),
                (2, "2025-01-01 10:00:00", 5),
                (3, "2024-01-01 12:00:00", "new"),
                (4, "2024-01-01T13:00:00Z", 5),
            ]
        },
    ),
    Trip(
        "a generated column that the target does not compute",
        "CREATE TABLE p(id INTEGER PRIMARY KEY, a INTEGER, "
        "shown TEXT AS (printf('%05d', a)) STORED, v TEXT AS (printf('%03d', a)));"
        "INSERT INTO p(id, a) VALUES (1, 1), (2, 2)",
        target="INSERT INTO p(id, a) VALUES (3, 3);\nUPDATE p SET a = 4 WHERE id = 1",
        home={
            "SELECT id, shown, v FROM p": [
                (1, "00004", "004"),
                (2, "00002", "002"),
                (3, "00003", "003"),
            ]
        },
    ),
)


MAPS = (
    Trip(
        "numbers for words",
        "CREATE TABLE m(id INTEGER PRIMARY KEY, word TEXT); INSERT INTO m VALUES (1, 'small')",
        policy="tables: {m: {columns: {word: {map: {small: 1}, type: integer}}}}",
        types={"m.word": "integer"},
        announced="nothing of word on SQLite stands for 7 on PostgreSQL",
    ),
    Trip(
        "words for truth values",
        "CREATE TABLE f(id INTEGER PRIMARY KEY, active CHAR(1) NOT NULL, seen TEXT, b BOOLEAN);"
        "INSERT INTO f VALUES (1, 'Y', 'yes', 't'), (2, 'N', 'no', 1), (3, 'Y', NULL, 0)",
        policy='tables: {f: {columns: {active: {booleans: {true: ["Y"], false: ["N"]}}, '
        'seen: {booleans: {true: ["yes"], false: ["no"]}}, '
        'b: {booleans: {true: ["t", 1], false: ["f", 0]}}}}}',
        live="INSERT INTO f VALUES (4, 'N', 'yes', 'f'), (5, 'Y', 'no', 1)",
        target="INSERT INTO f VALUES (6, true, false, true), (7, false, NULL, NULL);\n"
        "UPDATE f SET active = NOT active, b = NOT b WHERE id IN (1, 2)",
        ledger=2,
        home={
            "SELECT active, seen, b FROM f ORDER BY id": [
                *(("N", "yes", "f"), ("Y", "no", "f"), ("Y", None, 0)),
                *(("N", "yes", "f"), ("Y", "no", 1), ("Y", "no", "t"), ("N", None, None)),
            ]
        },
    ),
    Trip(
        "values for values",
        "CREATE TABLE m(id INTEGER PRIMARY KEY, hard INTEGER, word TEXT, note TEXT, k TEXT UNIQUE);"
        "INSERT INTO m VALUES (1, 'hard', 'small', '', 'a'), (2, 3, 'large', 'x', 'b'), "
        "(3, NULL, 'tab', NULL, 'c')",
        policy="tables: {m: {columns: {hard: {map: {hard: 4}}, "
        'word: {map: {small: S, large: L, tab: "T\\tT"}}, note: {empty: null}}}}',
        target="INSERT INTO m VALUES (4, 4, 'S', '', 'd'), (5, 5, E'T\\tT', NULL, 'e')",
        home={
            "SELECT hard, word, note FROM m ORDER BY id": [
                *(("hard", "small", ""), (3, "large", "x"), (None, "tab", None)),
                *((4, "small", ""), (5, "tab", None)),
            ]
        },
    ),
    Trip(
        "patterns that go both ways",
        "CREATE TABLE m(id INTEGER PRIMARY KEY, u TEXT UNIQUE, n TEXT, p TEXT, part TEXT);"
        "INSERT INTO m VALUES (1, 'c7a1f0de1b2c4d3e8f90a1b2c3d4e5f6', '7 pcs', '+49 5', 'ab-1'), "
        "(2, '00000000000000000000000000000000', '12 pcs', '+49 67', 'tab'), "
        "(3, NULL, NULL, NULL, 'a\tb-2');"
        "CREATE VIEW shown AS SELECT id, p, part FROM m",
        policy="tables: {m: {columns: {"
        "u: {type: uuid, pattern: [{match: '([0-9a-f]{8})(.{4})(.{4})(.{4})(.{12})', "
        "replace: '\\1-\\2-\\3-\\4-\\5'}]}, "
        "n: {type: integer, pattern: [{match: '(\\d+) pcs', replace: '\\1'}]}, "
        "p: {pattern: [{match: '\\+49 (.*)', replace: '0\\1'}]}, "
        "part: {pattern: [{match: '(.*)-([0-9])', replace: '\\2/\\1'}]}}}}",
        types={"m.u": "uuid", "m.n": "integer"},
        live="INSERT INTO m VALUES "
        "(4, 'aaaaaaaa1b2c4d3e8f90a1b2c3d4e5f6', '8 pcs', '+49 8', 'c-3')",
        target="INSERT INTO m VALUES (5, 'bbbbbbbb-1b2c-4d3e-8f90-a1b2c3d4e5f6', 9, '09', '4/d'), "
        "(6, NULL, NULL, 'none', E'5/\\t');\nUPDATE m SET n = 70, p = '077' WHERE id = 1",
        ledger=0,
        home={
            "SELECT u, n, p, part FROM m WHERE id IN (1, 4, 5, 6) ORDER BY id": [
                ("c7a1f0de1b2c4d3e8f90a1b2c3d4e5f6", "70 pcs", "+49 77", "ab-1"),
                ("aaaaaaaa1b2c4d3e8f90a1b2c3d4e5f6", "8 pcs", "+49 8", "c-3"),
                ("bbbbbbbb1b2c4d3e8f90a1b2c3d4e5f6", "9 pcs", "+49 9", "d-4"),
                (None, None, "none", "\t-5"),
            ]
        },
    ),
    Trip(
        "a map without a word for false",
        "CREATE TABLE f(id INTEGER PRIMARY KEY, active CHAR(1)); INSERT INTO f VALUES (1, 'Y')",
        policy='tables: {f: {columns: {active: {booleans: {true: ["Y"]}}}}}',
        announced="nothing of active on SQLite stands for false on PostgreSQL",
    ),
)


@pytest.mark.parametrize("trip", [*TIMES, *NUMBERS, *TEXTS, *LEDGER, *MAPS], ids=str)
def test_it_comes_home(trip: Trip, tmp_path: Path, postgres: str) -> None:
    travel(trip, tmp_path, postgres)
