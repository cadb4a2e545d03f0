"""Whether two PostgreSQL servers hold the same rows: by digests, and row by row where they differ.

Both sides have the same tables with the same types, so the canonical text of a row is PostgreSQL's
own, under settings that are the same in both sessions. One side may be written to meanwhile and
the other follow it: then rows differ that are about to be equal. So a comparison says which rows
differ, and the caller looks at those again when they stand still.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import psycopg

from migration_job.quoting import Sql, compose, joined, postgres_name, postgres_relation

Found = TypeVar("Found")

Key = tuple[str | None, ...]
"""A row's key: the text of each key column, in the table's own order of columns."""

WHOLE: Key = ()
"""Stands for every row of a table: it was truncated, or has no key to name its rows by."""

BATCH = 5_000
"""Keys that one statement looks up."""

TABLES = """
SELECT n.nspname::text, c.relname::text, c.relreplident::text,
    coalesce(array_agg(a.attname::text ORDER BY a.attnum)
        FILTER (WHERE a.attname IS NOT NULL), '{}'),
    coalesce(array_agg(format_type(a.atttypid, -1) ORDER BY a.attnum)
        FILTER (WHERE a.attname IS NOT NULL), '{}'),
    c.reltuples::bigint
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisvalid AND CASE c.relreplident
    WHEN 'd' THEN i.indisprimary AND i.indimmediate
    WHEN 'i' THEN i.indisreplident ELSE false END
LEFT JOIN pg_attribute a ON a.attrelid = c.oid
    AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])
WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname !~ '^pg_'
    AND n.nspname NOT IN ('information_schema', '_migration_upgrade')
    AND NOT (n.nspname ~ '^migration(_|$)' AND c.relname IN ('served', 'schema_seen')
        AND 2 = (SELECT count(*) FROM pg_class o WHERE o.relnamespace = n.oid
            AND o.relname IN ('reverse_log', 'schema_seen')))
    AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.objid = c.oid
        AND e.classid = 'pg_class'::regclass AND e.deptype = 'e')
GROUP BY 1, 2, 3, c.reltuples ORDER BY 1, 2
"""
"""Ordinary tables and the columns that logical replication names their rows by. What schema
``migration`` knows of one server's own catalogue (object numbers) is no content."""


@dataclass(frozen=True, slots=True)
class ServerTable:
    """One table of both servers."""

    schema: str
    name: str
    identity: str
    """``pg_class.relreplident``: d (the primary key), i (an index), f (all columns), n (none)."""
    key: tuple[str, ...]
    types: tuple[str, ...]
    """The type of each column of the key, without its precision."""
    estimate: int
    """About how many rows it has; -1 where nobody has counted."""

    @property
    def relation(self) -> str:
        """Its name in SQL."""
        return postgres_relation(self.name, self.schema)

    @property
    def label(self) -> str:
        """Its name for people."""
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class Content:
    """A table's rows in three numbers: equal for equal rows, whatever their order."""

    rows: int
    first: str
    second: str


Differences = dict[ServerTable, set[Key]]
"""Rows that are not (yet) equal; ``WHOLE`` among them for a table as a whole."""


def read_tables(connection: psycopg.Connection) -> list[ServerTable]:
    """Every table whose rows are to be equal, in the order of their names."""
    return [
        ServerTable(str(schema), str(name), str(identity), tuple(key), tuple(types), int(estimate))
        for schema, name, identity, key, types, estimate in connection.execute(TABLES).fetchall()
    ]


def compare(
    table: ServerTable, one: psycopg.Connection, other: psycopg.Connection
) -> tuple[Content, set[Key]]:
    """The content of the table on the first server, and the keys of the rows that differ."""
    found, opposite = _both(one, other, lambda server: digest(server, table))
    if found == opposite:
        return found, set()
    if not table.key:
        return found, {WHOLE}
    buckets, against = _both(one, other, lambda server: _buckets(server, table))
    numbers = sorted(n for n in buckets.keys() | against.keys() if buckets.get(n) != against.get(n))
    rows, others = _both(one, other, lambda server: _rows_of(server, table, numbers))
    return found, {k for k in rows.keys() | others.keys() if rows.get(k) != others.get(k)}


def still_different(
    table: ServerTable, keys: set[Key], one: psycopg.Connection, other: psycopg.Connection
) -> set[Key]:
    """Those of the keys whose rows are not the same on both servers at this moment."""
    if not keys:
        return set()
    if WHOLE in keys:
        return compare(table, one, other)[1]
    different: set[Key] = set()
    wanted = sorted(keys, key=repr)
    for start in range(0, len(wanted), BATCH):
        part = wanted[start : start + BATCH]
        rows, others = (_named(server, table, part) for server in (one, other))
        different |= {k for n, k in enumerate(part) if rows.get(n) != others.get(n)}
    return different


def digest(connection: psycopg.Connection, table: ServerTable) -> Content:
    """The table's content, in one pass over its rows."""
    row = connection.execute(
        compose(
            "SELECT count(*), coalesce(sum({first}), 0)::text, coalesce(sum({second}), 0)::text "
            "FROM (SELECT md5(t::text) AS h FROM ONLY {relation} AS t) AS rows",
            first=_half(1),
            second=_half(17),
            relation=table.relation,
        ).encode()
    ).fetchone()
    if row is None:
        raise AssertionError("an aggregate has a row")
    return Content(int(row[0]), str(row[1]), str(row[2]))


def _half(start: int) -> Sql:
    return compose("('x' || substr(h, {start}, 16))::bit(64)::bigint::numeric", start=start)


def _key_text(table: ServerTable) -> Sql:
    # As replication tells it, by the type's output: a cast writes boolean and char(n) otherwise.
    texts = joined(", ", (compose("format('%s', t.{c})", c=postgres_name(c)) for c in table.key))
    return compose("ARRAY[{texts}]", texts=texts)


def _bucket(table: ServerTable) -> Sql:
    return compose("('x' || substr(md5({key}::text), 1, 3))::bit(12)::int", key=_key_text(table))


def _buckets(connection: psycopg.Connection, table: ServerTable) -> dict[int, tuple[int, str]]:
    rows = connection.execute(
        compose(
            "SELECT b, count(*), sum({first})::text || ' ' || sum({second})::text FROM "
            "(SELECT {bucket} AS b, md5(t::text) AS h FROM ONLY {relation} AS t) AS rows "
            "GROUP BY b",
            first=_half(1),
            second=_half(17),
            bucket=_bucket(table),
            relation=table.relation,
        ).encode()
    ).fetchall()
    return {int(b): (int(count), str(sums)) for b, count, sums in rows}


def _rows_of(
    connection: psycopg.Connection, table: ServerTable, buckets: Sequence[int]
) -> dict[Key, str]:
    rows = psycopg.RawCursor(connection).execute(
        compose(
            "SELECT {key}, md5(t::text) FROM ONLY {relation} AS t WHERE {bucket} = ANY ($1)",
            key=_key_text(table),
            relation=table.relation,
            bucket=_bucket(table),
        ).encode(),
        (list(buckets),),
    )
    return {tuple(key): str(text) for key, text in rows.fetchall()}


def _named(
    connection: psycopg.Connection, table: ServerTable, keys: Sequence[Key]
) -> Mapping[int, str]:
    """The rows of these keys, by the key's place in the list."""
    count = range(len(table.key))
    arrays = joined(", ", (compose("${n}::text[]", n=n + 1) for n in count))
    names = joined(", ", (compose("k{n}", n=n) for n in count))
    terms = joined(
        " AND ",
        (
            compose("t.{c} = u.k{n}::{type}", c=postgres_name(c), n=n, type=kind)
            for n, (c, kind) in enumerate(zip(table.key, table.types, strict=True))
        ),
    )
    rows = psycopg.RawCursor(connection).execute(
        compose(
            "SELECT u.place, md5(t::text) FROM unnest({arrays}) WITH ORDINALITY "
            "AS u ({names}, place) JOIN ONLY {relation} AS t ON {terms}",
            arrays=arrays,
            names=names,
            relation=table.relation,
            terms=terms,
        ).encode(),
        [[key[n] for key in keys] for n in count],
    )
    return {int(place) - 1: str(text) for place, text in rows.fetchall()}


def _both(
    one: psycopg.Connection, other: psycopg.Connection, ask: Callable[[psycopg.Connection], Found]
) -> tuple[Found, Found]:
    """The same question to both servers at once."""
    with ThreadPoolExecutor(1) as beside:
        answer = beside.submit(ask, other)
        return ask(one), answer.result()
