"""What a peer lost: rows that did not arrive, and rows that arrived with other values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import psycopg

SHOWN = 6
"""Tables of which the page says what a peer lost."""

TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"

COLUMNS = """
SELECT attname, format_type(atttypid, atttypmod)
FROM pg_attribute WHERE attrelid = to_regclass('public.' || quote_ident(%s))
AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""

TAKEN = """
CREATE FUNCTION pg_temp.taken(value text, wanted text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE found text;
BEGIN
    EXECUTE format('SELECT ($1::%s)::text', wanted) INTO found USING value;
    RETURN found;
EXCEPTION WHEN data_exception THEN
    RETURN 'not a value of ' || wanted || ': ' || value;
END $$
"""
"""A value as the text of another type; where it is none of those, a text that no value has."""

DEFINITIONS = """
SELECT conrelid::regclass || ': ' || pg_get_constraintdef(oid) FROM pg_constraint
WHERE connamespace = 'public'::regnamespace
UNION ALL SELECT indexrelid::regclass || ': ' || pg_get_indexdef(indexrelid) FROM pg_index
WHERE indrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'public'::regnamespace)
"""


@dataclass(frozen=True, slots=True)
class Lost:
    """Of one table: rows that did not arrive, and rows that arrived with other values."""

    table: str
    missing: int
    changed: int


def lost_between(ours: str, theirs: str) -> list[Lost]:
    """What the second database lacks of the first one's tables, compared row by row as text. Tables
    that are equal are left out.

    The two may have other types: each value is compared as one of the first one's type, so that 1
    is 1 as `bigint` and as `integer`. A column that the second one has not is NULL there.
    """
    with psycopg.connect(ours) as first, psycopg.connect(theirs, autocommit=True) as second:
        second.execute(TAKEN.encode())
        found: list[Lost] = []
        for (table,) in first.execute(TABLES.encode()).fetchall():
            expected = _rows(first, _query(table, _columns(first, table), {}))
            there = _arrived(second, table, _columns(first, table))
            missing = max(expected.total() - there.total(), 0)
            gone = (expected - there).total()
            if gone:
                found.append(Lost(table, missing, gone - missing))
    return found


def _arrived(target: psycopg.Connection, table: str, wanted: dict[str, str]) -> Counter[str]:
    """The table's rows as ``wanted`` has their types; none where the table is not there."""
    there = _columns(target, table)
    if not there:
        return Counter()
    other = {name: there.get(name, "") for name, kind in wanted.items() if there.get(name) != kind}
    try:
        return _rows(target, _query(table, wanted, other))
    except psycopg.DataError:
        # One value of another type stops the whole query: now each is tried by itself, slowly.
        return _rows(target, _query(table, wanted, other, each=True))


def _columns(target: psycopg.Connection, table: str) -> dict[str, str]:
    return dict(target.execute(COLUMNS.encode(), (table,)).fetchall())


def _rows(target: psycopg.Connection, query: str) -> Counter[str]:
    return Counter(str(row[0]) for row in target.execute(query.encode()))


def _query(table: str, wanted: dict[str, str], other: dict[str, str], *, each: bool = False) -> str:
    """The rows' sums. ``other`` holds the columns of another type than wanted, with that type, or
    with nothing where there is no such column."""

    def field(name: str, kind: str) -> str:
        quoted = '"' + name.replace('"', '""') + '"'
        if name not in other:
            return f"{quoted}::text"
        if not other[name]:
            return "NULL::text"
        if each:
            return f"pg_temp.taken({quoted}::text, '{kind.replace(chr(39), chr(39) * 2)}')"
        return f"{quoted}::text::{kind}::text"

    fields = ", ".join(field(name, kind) for name, kind in wanted.items())
    quoted = table.replace('"', '""')
    return f'SELECT md5(ROW({fields})::text) FROM public."{quoted}"'


def lost_in_words(lost: Sequence[Lost]) -> str:
    """What was lost, for the page."""
    if not lost:
        return "every row of every table is the same"
    missing, changed = (sum(getattr(each, n) for each in lost) for n in ("missing", "changed"))
    most = sorted(lost, key=lambda each: -(each.missing + each.changed))[:SHOWN]
    shown = ", ".join(
        f"{each.table} ({each.missing:,} missing, {each.changed:,} changed)" for each in most
    )
    more = f" and {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
    return (
        f"{missing:,} rows did not arrive and {changed:,} arrived with other values, in "
        f"{shown}{more}"
    )


def definitions(dsn: str) -> Counter[str]:
    """The constraints and indexes of the tables, each by its definition."""
    with psycopg.connect(dsn) as target:
        return _rows(target, DEFINITIONS)


def altered_in_words(before: Counter[str], after: Counter[str]) -> str:
    """What became of the application's own constraints and indexes, for the page; nothing where
    they are as they were."""
    gone, added = (before - after).total(), (after - before).total()
    if not gone and not added:
        return ""
    return (
        f"; of the tables' constraints and indexes {gone:,} are gone or altered, and {added:,} "
        "are there that were not"
    )
