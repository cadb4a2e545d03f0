"""Whether a tenant's rows in tables of all tenants are those of the tables that were compared with
its file: a count and two sums over the rows' texts, by statements of the verifier's own."""

from __future__ import annotations

import psycopg

from migration_job.plan.model import Plan, TablePlan
from migration_job.plural import counted
from migration_job.quoting import Sql, as_written, compose, joined, postgres_name, postgres_relation

Content = dict[str, tuple[int, str, str]]
"""By table: rows, and two numbers that are equal for equal rows, whatever their order."""


def alone(connection: psycopg.Connection, plan: Plan, schema: str) -> Content:
    """The content of a file's own tables in their schema; ``plan`` names tables and columns."""
    return {
        table.target: _content(connection, table, postgres_relation(table.target, schema), "true")
        for table in plan.tables
    }


def among_others(connection: psycopg.Connection, plan: Plan, schema: str, whose: str) -> Content:
    """The content of the rows in tables of all tenants for which the condition ``whose`` holds, by
    the columns of ``plan``, which has no tenant."""
    return {
        table.target: _content(connection, table, postgres_relation(table.target, schema), whose)
        for table in plan.tables
    }


def unlike(found: Content, expected: Content) -> list[str]:
    """The tables that differ, in words."""
    return [
        f"{name} ({counted(found.get(name, (0,))[0], 'row')}, not the {there[0]:,} there)"
        if found.get(name, (0,))[0] != there[0]
        else f"{name} (of {counted(there[0], 'row')}, other values)"
        for name, there in expected.items()
        if found.get(name) != there
    ]


def _content(
    connection: psycopg.Connection, table: TablePlan, relation: str, whose: str
) -> tuple[int, str, str]:
    columns = joined(", ", (compose("t.{c}", c=postgres_name(c.target)) for c in table.columns))
    row = connection.execute(
        compose(
            "SELECT count(*), coalesce(sum({first}), 0)::text, coalesce(sum({second}), 0)::text "
            "FROM (SELECT md5(ROW({columns})::text) AS h FROM ONLY {relation} AS t "
            "WHERE {whose}) AS rows",
            first=_half(1),
            second=_half(17),
            columns=columns,
            relation=relation,
            whose=as_written(whose),
        ).encode()
    ).fetchone()
    if row is None:
        raise AssertionError("an aggregate has a row")
    return int(row[0]), str(row[1]), str(row[2])


def _half(start: int) -> Sql:
    return compose("('x' || substr(h, {start}, 16))::bit(64)::bigint::numeric", start=start)
