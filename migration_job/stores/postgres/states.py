"""Rows of the target as PostgreSQL prints them, by key: what the way back and the proof read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import psycopg

from migration_job.plan.model import TablePlan
from migration_job.quoting import compose, postgres_name
from migration_job.stores.postgres.apply import keys_join, text_array
from migration_job.stores.postgres.database import execute_raw

TextRow = tuple[str | None, ...]

KEYS_PER_QUERY = 5_000


def raw_rows(
    connection: psycopg.Connection, query: str, parameters: Sequence[object] = ()
) -> list[TextRow]:
    """The query's rows as the types' output functions print them; None for NULL. (A cast to text is
    not the same: boolean prints ``t`` and casts to ``true``.) Parameters are ``$1`` and on."""
    cursor = execute_raw(connection, query, parameters)
    result = cursor.pgresult
    if result is None:
        return []
    columns = range(result.nfields)
    return [
        tuple(_text(result.get_value(row, column)) for column in columns)
        for row in range(result.ntuples)
    ]


def rows_by_keys(
    connection: psycopg.Connection,
    table: TablePlan,
    columns: Sequence[str],
    keys: Sequence[tuple[str, ...]],
) -> Iterable[TextRow]:
    """The present rows of the given keys (the key columns' texts), their ``columns`` in order."""
    item, condition = keys_join(table)
    terms = ", ".join(f"t.{postgres_name(c)}" for c in columns)
    query = compose(
        "SELECT {terms} FROM {table} AS t, {item} WHERE {condition}",
        terms=terms,
        table=table.relation,
        item=item,
        condition=condition,
    )
    for start in range(0, len(keys), KEYS_PER_QUERY):
        piece = keys[start : start + KEYS_PER_QUERY]
        yield from raw_rows(connection, query, [text_array(c) for c in zip(*piece, strict=True)])


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()
