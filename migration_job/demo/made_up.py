"""Writes that are made up from a schema, for a file whose application nobody starts here.

Before there is a plan, rows are written again as they are: every table is touched, and no value is
new. Once there is one, a column that takes any of its values takes another row's, and rows of
tables that number themselves are added once more. No value is made that the column has not had.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import apsw

from migration_job.plan.model import OWN_SCHEMA, Plan, TablePlan
from migration_job.quoting import compose, joined, postgres_relation, sqlite_name, sqlite_table
from migration_job.quoting import postgres_name as pg
from migration_job.stores.sqlite.model import Catalogue, SourceTable
from migration_job.values import fold

FIRST_ROWS = 200
"""The made-up writes choose among a table's first rows: to find one is as quick in any table."""


@dataclass(frozen=True, slots=True)
class Change:
    """One kind of change, as ``example_app.replay`` reads it."""

    what: str
    sqlite: str
    postgresql: str
    rows: int

    def to_json(self) -> dict[str, object]:
        """An object of the file of changes."""
        return asdict(self)


def touches(connection: apsw.Connection, catalogue: Catalogue) -> list[Change]:
    """Rows written again as they are, of each table; before there is a plan, and so for SQLite
    alone."""
    return [
        Change(f"touch {table.name}", _touch(table, column), "", rows)
        for table in catalogue.tables
        if _may_be_named(table)
        and (column := _touched(table)) is not None
        and (rows := _rows(connection, table))
    ]


def _rows(connection: apsw.Connection, table: SourceTable) -> int:
    query = compose(
        "SELECT count(*) FROM (SELECT 1 FROM {place} LIMIT {most})",
        place=sqlite_table(table.name),
        most=FIRST_ROWS,
    )
    return int(connection.execute(query).get)


def changes(catalogue: Catalogue, plan: Plan) -> list[Change]:
    """What both sides take, once it is known what the columns are on PostgreSQL. Tables that the
    catalogue has not are left alone."""
    planned = {made.source: made for made in plan.tables}
    return [
        change
        for table in catalogue.tables
        if table.name in planned and planned[table.name].rows and _may_be_named(table)
        for change in _changes(table, planned[table.name])
    ]


def _changes(table: SourceTable, plan: TablePlan) -> Iterator[Change]:
    target = pg(plan.target)
    if plan.schema_name != OWN_SCHEMA:
        target = postgres_relation(plan.target, plan.schema_name)
    names = {c.source: c.target for c in plan.columns if c.source is not None}
    rows = min(plan.rows, FIRST_ROWS)
    column = _touched(table)
    if column in names:
        there = _touch_there(target, names[column])
        yield Change(f"touch {table.name}", _touch(table, column), there, rows)
    if plan.quarantine:
        return  # its rows are judged one by one: a made-up one would be as well
    for name in _free(table, plan):
        here, there = _copy_value(table, name), _copy_value_there(target, names[name])
        yield Change(f"change {table.name}.{name}", here, there, rows)
    if (added := _added(table, plan)) is not None:
        here, there = _add(table, added), _add_there(target, [names[name] for name in added])
        yield Change(f"add a row to {table.name}", here, there, rows)


def _may_be_named(table: SourceTable) -> bool:
    """A question mark is a parameter to the application, whatever quotes it stands in."""
    return "?" not in table.name + "".join(column.name for column in table.columns)


def _touched(table: SourceTable) -> str | None:
    return next((c.name for c in table.columns if not c.generated), None)


def _bound(table: SourceTable) -> set[str]:
    """Folded names of columns whose values mean something to another row or table."""
    found = {fold(name) for name in table.primary_key}
    for index in table.indexes:
        if index.unique:
            found |= {fold(c.column) for c in index.columns if c.column is not None}
    for key in table.foreign_keys:
        found |= {fold(name) for name in key.columns}
    return found


def _bound_there(plan: TablePlan) -> set[str]:
    """The same by PostgreSQL's names: a profile may ask more there than the source does."""
    held = [u.columns for u in plan.uniques] + [k.columns for k in plan.foreign_keys]
    found = {*plan.primary_key, *(name for columns in held for name in columns)}
    said = [check.expression for check in plan.checks]
    names = {column.target for column in plan.columns}
    # A rule of one column's holds for each of its values, in whatever row.
    several = [text for text in said if len(_named_in(names, [text])) > 1]
    unique = [term for index in plan.indexes if index.unique for term in index.terms]
    return found | _named_in(names, [*several, *unique])


def _named_in(names: set[str], texts: Sequence[str]) -> set[str]:
    """The names that stand in one of the texts, or may."""
    return {name for name in names if any(name in text for text in texts)}


def _free(table: SourceTable, plan: TablePlan) -> list[str]:
    """The columns that take any of their values in any row, as far as both schemas say."""
    bound, bound_there = _bound(table) | {fold(name) for name in plan.key}, _bound_there(plan)
    made = {c.source: c for c in plan.columns}
    return [
        c.name
        for c in table.columns
        if not c.generated
        and fold(c.name) not in bound
        and c.name in made
        and made[c.name].clean
        and made[c.name].target not in bound_there
    ]


def _added(table: SourceTable, plan: TablePlan) -> list[str] | None:
    """The columns of a further row of a table that numbers its own; None where a row has more than
    its number to itself."""
    alias = table.rowid_alias
    made = {c.source: c for c in plan.columns}
    if alias is None or _tells_rows_apart(table, plan):
        return None
    rest = [c.name for c in table.columns if c.name != alias and not c.generated]
    whole = {name for name, column in made.items() if column.clean}
    numbered = alias in made and made[alias].identity
    return rest if rest and numbered and whole.issuperset(rest) else None


def _tells_rows_apart(table: SourceTable, plan: TablePlan) -> bool:
    """By more than the number."""
    unique = [index.unique for index in plan.indexes] + [index.unique for index in table.indexes]
    return bool(plan.uniques) or any(unique)


# ------------------------------------------------------------------------------------- statements


def _row(table: SourceTable) -> tuple[str, str]:
    """What finds a row on SQLite: the expression, and the query of one row's."""
    place = sqlite_table(table.name)
    key = [table.rowid_name] if not table.without_rowid and table.rowid_name else table.primary_key
    names = joined(", ", map(sqlite_name, (name for name in key if name)))
    query = compose(
        "SELECT {names} FROM {place} LIMIT 1 OFFSET CAST(? AS INTEGER)", names=names, place=place
    )
    return compose("({names})", names=names), query


def _touch(table: SourceTable, column: str) -> str:
    names, query = _row(table)
    return compose(
        "UPDATE {place} SET {column} = {column} WHERE {names} IN ({query})",
        place=sqlite_table(table.name),
        column=sqlite_name(column),
        names=names,
        query=query,
    )


def _copy_value(table: SourceTable, column: str) -> str:
    names, query = _row(table)
    return compose(
        "UPDATE {place} SET {column} = coalesce((SELECT {column} FROM {place} LIMIT 1 "
        "OFFSET CAST(? AS INTEGER)), {column}) WHERE {names} IN ({query})",
        place=sqlite_table(table.name),
        column=sqlite_name(column),
        names=names,
        query=query,
    )


def _add(table: SourceTable, columns: list[str]) -> str:
    return compose(
        "INSERT INTO {place} ({columns}) SELECT {columns} FROM {place} "
        "LIMIT 1 OFFSET CAST(? AS INTEGER)",
        place=sqlite_table(table.name),
        columns=joined(", ", map(sqlite_name, columns)),
    )


def _touch_there(target: str, column: str) -> str:
    return compose(
        "UPDATE {target} SET {column} = {column} WHERE ctid = "
        "(SELECT ctid FROM {target} LIMIT 1 OFFSET CAST(? AS bigint))",
        target=target,
        column=pg(column),
    )


def _copy_value_there(target: str, column: str) -> str:
    return compose(
        "UPDATE {target} SET {column} = coalesce((SELECT {column} FROM {target} LIMIT 1 "
        "OFFSET CAST(? AS bigint)), {column}) WHERE ctid = "
        "(SELECT ctid FROM {target} LIMIT 1 OFFSET CAST(? AS bigint))",
        target=target,
        column=pg(column),
    )


def _add_there(target: str, columns: list[str]) -> str:
    return compose(
        "INSERT INTO {target} ({columns}) SELECT {columns} FROM {target} "
        "LIMIT 1 OFFSET CAST(? AS bigint)",
        target=target,
        columns=joined(", ", map(pg, columns)),
    )
