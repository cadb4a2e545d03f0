"""Times as libraries write them: Go's String(), nine digits, text and numbers in one column."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.running import BLOCKED, DONE
from tests.integration.wholeway import Way

pytestmark = pytest.mark.postgres

GO = """
CREATE TABLE t (id INTEGER PRIMARY KEY, at TIMESTAMP, seen DATETIME);
INSERT INTO t VALUES
  (1, '2023-06-21 17:02:06.347726 +0545 +0545 m=+0.014533293', '2026-02-05 14:16:48 +0000 UTC'),
  (2, '2026-09-11 20:39:10.511227327 +0530 +0530 m=+73.186830353', '2026-02-05 14:16:49 +0000 UTC'),
  (3, '2026-09-11 20:39:10 +0000 UTC', '0001-01-01 00:00:00 +0000 UTC'),
  (4, '2026-09-11 20:39:10 +0200 CEST', '2026-02-05 14:16:48.123456789 +0100 CET');
"""
KNEX = """
CREATE TABLE k (id INTEGER PRIMARY KEY, at DATETIME DEFAULT CURRENT_TIMESTAMP);
INSERT INTO k VALUES (1, 1704164645123), (2, '2024-01-02 03:04:05'), (3, 1704164645000);
"""


def test_go_strings(tmp_path: Path, postgres: str) -> None:
    way = Way.of(tmp_path, postgres, GO)
    before = way.on_sqlite("SELECT * FROM t ORDER BY id")
    assert way.migrate().status == DONE
    way.on_sqlite(
        "INSERT INTO t VALUES (5, '2026-10-01 20:39:10 +0000 UTC m=-1.5', "
        "'2026-10-01 20:39:10 +0000 UTC')"
    )
    assert way.command("switch").status == DONE
    assert way.on_postgres(
        "SET TimeZone TO 'UTC'; SELECT at::text, seen::text FROM t ORDER BY id"
    ) == [
        ("2023-06-21 11:17:06.347726+00", "2026-02-05 14:16:48+00"),
        ("2026-09-11 15:09:10.511227+00", "2026-02-05 14:16:49+00"),
        ("2026-09-11 20:39:10+00", "0001-01-01 00:00:00+00"),
        ("2026-09-11 18:39:10+00", "2026-02-05 13:16:48.123456+00"),
        ("2026-10-01 20:39:10+00", "2026-10-01 20:39:10+00"),
    ]
    way.on_postgres(
        "UPDATE t SET seen = '2026-11-01 10:00:00+00' WHERE id IN (2, 4); "
        "INSERT INTO t(id, seen) VALUES (6, '2026-11-01 10:00:00.25+00')"
    )
    way.back()
    after = way.on_sqlite("SELECT * FROM t ORDER BY id")
    assert [row[:2] for row in after[:4]] == [row[:2] for row in before]
    assert after[4][1] == "2026-10-01 20:39:10 +0000 UTC m=-1.5"
    assert [row[2] for row in after] == [
        before[0][2],
        "2026-11-01 10:00:00 +0000 UTC",
        before[2][2],
        "2026-11-01 10:00:00 +0000 UTC",
        "2026-10-01 20:39:10 +0000 UTC",
        "2026-11-01 10:00:00.250000 +0000 UTC",
    ]
    way.on_sqlite("UPDATE t SET seen = seen")
    assert way.command("sync", "--once").status == DONE


STOCK = """
CREATE TABLE stock (id INTEGER PRIMARY KEY, quantity INTEGER CHECK (quantity <> 0));
INSERT INTO stock VALUES (1, 'many'), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6), (7, 7), (8, 8),
  (9, 9), (10, 10);
"""


def require_the_switch_to_wait(way: Way) -> str:
    """One text among ten numbers has made a column text: the option that has the switch go on."""
    ended = way.command("switch")
    assert ended.status == BLOCKED, ended.said
    assert "1 column got another type for the sake of a few values: stock.quantity" in ended.said
    assert not way.closed()
    (way.folder / "known.yaml").write_text("acknowledge: ['retyped-for-few:stock.quantity']")
    return f"--policy={way.folder / 'known.yaml'}"


def test_text_and_numbers_in_one_column(tmp_path: Path, postgres: str) -> None:
    way = Way.of(tmp_path, postgres, KNEX + STOCK)
    ended = way.migrate()
    assert ended.status == DONE, ended.said
    way.on_sqlite(
        "INSERT INTO k(id) VALUES (4); UPDATE k SET at = '2024-02-03 04:05:06' WHERE id=4"
    )
    assert way.command("switch", require_the_switch_to_wait(way)).status == DONE
    rows = way.on_postgres("SELECT extract(epoch FROM at)::text FROM k ORDER BY id")
    assert [row[0].rstrip("0").rstrip(".") for row in rows] == [
        *("1704164645.123", "1704164645", "1704164645", "1706933106"),
    ]
    way.on_postgres(
        "UPDATE k SET at = at + interval '1 second' WHERE id = 4; "
        "INSERT INTO k VALUES (5, '2024-01-02 03:04:05.5+00')"
    )
    way.back()
    assert way.on_sqlite("SELECT at FROM k ORDER BY id") == [
        (1704164645123,),
        ("2024-01-02 03:04:05",),
        (1704164645000,),
        (1706933107000,),
        (1704164645500,),
    ]


EPOCHS = """
CREATE TABLE e (id INTEGER PRIMARY KEY, apple REAL, filetime INTEGER, ticks INTEGER, excel REAL);
INSERT INTO e VALUES (1, 694224000.25, 133170048002500000, 638081280002500000, 44927.5),
  (2, 0.0, 133170048002500007, 638081280002500003, 45000.75);
"""
EPOCH_POLICY = """
tables: {e: {columns: {apple: {epoch: apple}, filetime: {epoch: filetime},
  ticks: {epoch: ticks}, excel: {epoch: excel}}}}
"""


def test_numbers_from_other_beginnings(tmp_path: Path, postgres: str) -> None:
    way = Way.of(tmp_path, postgres, EPOCHS)
    policy = tmp_path / "policy.yaml"
    policy.write_text(EPOCH_POLICY)
    before = way.on_sqlite("SELECT * FROM e ORDER BY id")
    ended = way.migrate("--policy", policy)
    assert ended.status == DONE, ended.said
    assert way.command("switch").status == DONE
    assert way.on_postgres(
        "SET TimeZone TO 'UTC'; SELECT apple::text, filetime::text, ticks::text, excel::text "
        "FROM e ORDER BY id"
    ) == [
        ("2023-01-01 00:00:00.25+00",) * 3 + ("2023-01-01 12:00:00+00",),
        (
            *("2001-01-01 00:00:00+00", "2023-01-01 00:00:00.25+00"),
            *("2023-01-01 00:00:00.25+00", "2023-03-15 18:00:00+00"),
        ),
    ]
    way.on_postgres(
        "INSERT INTO e SELECT 3, t, t, t, t FROM (SELECT '2024-02-29 06:00:00.5+00'::timestamptz) "
        "AS s (t); UPDATE e SET apple = apple + interval '1 day' WHERE id = 2"
    )
    way.back()
    after = way.on_sqlite("SELECT * FROM e ORDER BY id")
    assert after[0] == before[0]
    assert after[1] == (2, 86400.0, *before[1][2:])
    assert after[2][:4] == (3, 730879200.5, 133536600005000000, 638447832005000000)
    assert abs(after[2][4] - 45351.25000578704) < 1e-9
    way.on_sqlite("UPDATE e SET id = id")
    assert way.command("sync", "--once").status == DONE


UNITS = {
    "s": (1700000000, 1700000000.25, -86399.5),
    "ms": (1700000000123, 1700000000123.5, -1),
    "us": (1700000000123456, 0),
    "ns": (1700000000123456000, 1700000000123456789),
    "julian": (2460000.5, 2460001, 2461042.627835648),
    "apple": (694224000, 694224000.25),
    "filetime": (133170048002500000, 133170048002500007),
    "ticks": (638081280002500000, 638081280002500003),
    "excel": (44927, 44927.5, 45000.123456, 45000.0000116),
}
"""Numbers of each unit; among them some that a type may have no room for."""
MOMENTS = (
    *("2024-02-29 06:00:00+00", "2024-02-29 06:00:01+00", "2024-02-29 06:00:00.123456+00"),
    *("1969-12-31 23:59:59.999+00", "1850-01-01 00:00:00.5+00", "2026-01-02 03:04:05.000001+00"),
    *("9999-12-31 23:59:59+00", "infinity"),
)


@dataclass(frozen=True)
class Counted:
    """A column of numbers that count time: of which unit, to which type, in which affinity."""

    unit: str
    precision: str
    declared: str

    @property
    def name(self) -> str:
        return f"{self.unit}_{self.precision or 'any'}_{self.declared}".lower()

    def policy(self) -> dict[str, str]:
        if self.precision == "none":
            return {"epoch": self.unit}
        return {"epoch": self.unit, "type": f"timestamptz{self.precision}"}


COUNTED = [
    Counted(unit, precision, declared)
    for unit in UNITS
    for precision in ("none", "", "(0)", "(3)", "(6)")
    for declared in ("DATETIME", "REAL", "BIGINT")
    if declared != "REAL" or unit not in ("ns", "filetime", "ticks")
]


def test_every_unit_to_every_precision(tmp_path: Path, postgres: str) -> None:
    names = ", ".join(f'"{c.name}"' for c in COUNTED)
    columns = ", ".join(f'"{c.name}" {c.declared}' for c in COUNTED)
    script = f"CREATE TABLE e(id INTEGER PRIMARY KEY, {columns});"
    for row in range(4):
        values = ", ".join(repr(UNITS[c.unit][row % len(UNITS[c.unit])]) for c in COUNTED)
        script += f"INSERT INTO e({names}) VALUES ({values});"
    way = Way.of(tmp_path, postgres, script)
    before = way.on_sqlite("SELECT * FROM e ORDER BY id")
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        json.dumps({"tables": {"e": {"columns": {c.name: c.policy() for c in COUNTED}}}})
    )
    ended = way.migrate("--policy", policy)
    assert ended.status == DONE, ended.said
    ended = way.command("switch")
    assert ended.status == DONE, ended.said
    types = dict(
        way.on_postgres(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
            "WHERE attrelid = 'e'::regclass AND attnum > 1"
        )
    )
    for each in COUNTED:
        wanted = each.precision.replace("(6)", "") if each.precision != "(0)" else "(0)"
        if each.unit == "julian" and each.precision != "(0)":
            wanted = "(3)"  # a real of days tells no finer
        if each.precision != "none":
            assert types[each.name] == f"timestamp{wanted} with time zone", each
    shown = ", ".join(f'"{c.name}"::text' for c in COUNTED)
    for moment in MOMENTS:
        way.on_postgres(
            f"INSERT INTO e({names}) VALUES ({', '.join(repr(moment) for _ in COUNTED)})"
        )
    way.on_postgres("INSERT INTO e DEFAULT VALUES")
    there = way.on_postgres(f"SET TimeZone TO 'UTC'; SELECT {shown} FROM e ORDER BY id")
    way.back()
    after = way.on_sqlite("SELECT * FROM e ORDER BY id")
    assert after[:4] == before
    for here, texts in zip(after[4:-2], there[4:-2], strict=True):
        for each, number, text in zip(COUNTED, here[1:], texts, strict=True):
            # Text stands where the unit's number has no room: nanoseconds after 2262 in 64 bits,
            # microseconds in a real of days far from its beginning.
            room = each.unit not in ("ns", "excel") and text < "9999"
            assert isinstance(number, int | float) or (number == text and not room), each
    way.on_sqlite("UPDATE e SET id = id")
    assert way.command("sync", "--once").status == DONE
    assert way.on_postgres(f"SET TimeZone TO 'UTC'; SELECT {shown} FROM e ORDER BY id") == there
