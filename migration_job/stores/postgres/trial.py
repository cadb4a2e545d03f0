"""The target's own word on its constraints, before anything is loaded: rows are tried in temporary
tables, which nobody else sees and which are gone when the trial is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import LiteralString

import psycopg
from psycopg import sql

from migration_job.errors import OperationError
from migration_job.place import schema_of_session
from migration_job.plan.model import ForeignKeyPlan
from migration_job.plan.onto_refusals import Numbered, Trial
from migration_job.plan.target import TargetColumn, TargetDemand, TargetTable

ROWS = sql.SQL("pg_temp.migration_trial")
HELD = sql.SQL("pg_temp.migration_trial_held")
LIKE: LiteralString = "CREATE TEMPORARY TABLE migration_trial_held (LIKE {} INCLUDING ALL)"
UNIQUE: LiteralString = "CREATE UNIQUE INDEX held ON {} {}"
EXCLUDING: LiteralString = "ALTER TABLE {} ADD CONSTRAINT held {}"


def trial_on(connection: psycopg.Connection) -> Trial:
    """What tries rows on this connection."""
    return _OnTarget(connection, schema_of_session(connection))


@dataclass(frozen=True, slots=True)
class _OnTarget:
    connection: psycopg.Connection
    schema: str

    def check(self, rows: Numbered, expression: str) -> list[int]:
        with self._filled(rows, f"CHECK {expression}") as number:
            # PostgreSQL's own print of the CHECK.
            return self._numbers(
                sql.SQL("SELECT {} FROM {} WHERE ({}) IS FALSE").format(
                    number, ROWS, sql.SQL(expression)
                )
            )

    def demand(self, rows: Numbered, demand: TargetDemand) -> list[int]:
        given = {column.name for column in rows.columns}
        needed = [rows.table.column(name) for name in demand.columns]
        unfilled = [c for c in needed if c is not None and c.name not in given]
        columns = [sql.Identifier(column.name) for column in rows.columns]
        with self._filled(rows, f"{demand.what} {demand.name}", unfilled) as number:
            own = sql.SQL(", ").join([number, *columns])
            self.connection.execute(sql.SQL(LIKE).format(ROWS))
            kind = UNIQUE if demand.what == "unique index" else EXCLUDING
            definition = sql.SQL(demand.definition)  # PostgreSQL's own print
            self.connection.execute(sql.SQL(kind).format(HELD, definition))
            return self._numbers(
                sql.SQL(
                    "WITH held AS (INSERT INTO {held} ({own}) SELECT {own} FROM {rows} "
                    "ORDER BY {number} ON CONFLICT DO NOTHING RETURNING {number}) "
                    "SELECT {number} FROM {rows} EXCEPT SELECT {number} FROM held"
                ).format(held=HELD, own=own, rows=ROWS, number=number)
            )

    def reference(self, rows: Numbered, key: ForeignKeyPlan) -> list[int]:
        pairs = list(zip(key.columns, key.parent_columns, strict=True))
        same = [
            sql.SQL("p.{} = c.{}").format(sql.Identifier(parent), sql.Identifier(child))
            for child, parent in pairs
        ]
        there = [sql.SQL("c.{} IS NOT NULL").format(sql.Identifier(child)) for child, _ in pairs]
        both = sql.SQL(" AND ")
        with self._filled(rows, f"foreign key {key.name}") as number:
            return self._numbers(
                sql.SQL(
                    "SELECT c.{} FROM {} AS c WHERE {} AND NOT EXISTS "
                    "(SELECT FROM {} AS p WHERE {})"
                ).format(
                    number,
                    ROWS,
                    both.join(there),
                    sql.Identifier(key.parent_schema, key.parent),
                    both.join(same),
                )
            )

    # ------------------------------------------------------------------------------ within

    def _numbers(self, query: sql.Composed) -> list[int]:
        return [int(row[0]) for row in self.connection.execute(query).fetchall()]

    @contextmanager
    def _filled(
        self, rows: Numbered, what: str, unfilled: Sequence[TargetColumn] = ()
    ) -> Iterator[sql.Identifier]:
        """The rows in a temporary table for as long as the block runs; its column of their numbers.
        ``unfilled`` are columns that have their defaults, or are computed."""
        numbered = "number_of_row"
        while any(column.name == numbered for column in rows.table.columns):
            numbered += "_"
        number = sql.Identifier(numbered)
        columns = [number, *(sql.Identifier(column.name) for column in rows.columns)]
        try:
            with self.connection.transaction(force_rollback=True):
                self.connection.execute(self._table(rows.table, rows.columns, number))
                for column in unfilled:
                    self._add(column)
                into = sql.SQL("COPY {} ({}) FROM STDIN").format(ROWS, sql.SQL(", ").join(columns))
                with self.connection.cursor().copy(into) as copy:
                    for row, texts in rows.rows:
                        copy.write_row((row, *texts))
                yield number
        except psycopg.Error as error:
            raise OperationError(
                f"the target could not try its {what}: "
                f"{error.diag.message_primary or type(error).__name__}",
                advice="nothing was changed. The role has to be allowed temporary tables (GRANT "
                "TEMPORARY ON DATABASE) and what the constraint calls",
            ) from error

    def _table(
        self, table: TargetTable, columns: Sequence[TargetColumn], number: sql.Identifier
    ) -> sql.Composed:
        """With the columns' own collations; of base types, since a domain would end the COPY."""
        parts = [sql.SQL("0::bigint AS {}").format(number)]
        parts += [
            sql.SQL("{name}::{base} AS {name}").format(
                name=sql.Identifier(column.name),
                base=sql.SQL(column.base),  # PostgreSQL's own print of it
            )
            for column in columns
        ]
        return sql.SQL(
            "CREATE TEMPORARY TABLE migration_trial AS SELECT {} FROM {} WITH NO DATA"
        ).format(sql.SQL(", ").join(parts), sql.Identifier(self.schema, table.name))

    def _add(self, column: TargetColumn) -> None:
        kind: sql.Composable = sql.SQL("")
        if column.generated is not None:
            kind = sql.SQL("GENERATED ALWAYS AS ({}) STORED").format(sql.SQL(column.generated))
        elif column.default is not None:
            kind = sql.SQL("DEFAULT {}").format(sql.SQL(column.default))
        self.connection.execute(
            sql.SQL("ALTER TABLE {} ADD COLUMN {} {} {}").format(
                ROWS, sql.Identifier(column.name), sql.SQL(column.base), kind
            )
        )
