"""The target's own word on its CHECKs, before anything is loaded: rows are tried in a temporary
table, which nobody else sees and which is gone when the trial is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import psycopg
from psycopg import sql

from migration_job.errors import OperationError
from migration_job.plan.onto_refusals import Trial
from migration_job.plan.target import TargetColumn


def trial_on(connection: psycopg.Connection) -> Trial:
    """What tries rows on this connection; see :data:`migration_job.plan.onto.Trial`."""

    def refused(
        columns: Sequence[TargetColumn],
        check: str,
        rows: Iterable[tuple[int, list[str | None]]],
    ) -> list[int]:
        numbered = "number_of_row"
        while any(column.name == numbered for column in columns):
            numbered += "_"
        number = sql.Identifier(numbered)
        try:
            with connection.transaction(force_rollback=True):
                connection.execute(_table(columns, numbered))
                with connection.cursor().copy("COPY pg_temp.migration_trial FROM STDIN") as copy:
                    for row, texts in rows:
                        copy.write_row((row, *texts))
                found = connection.execute(
                    # The base type is tried, not a domain, which would end the COPY.
                    sql.SQL("SELECT {} FROM pg_temp.migration_trial WHERE ({}) IS FALSE").format(
                        number,
                        sql.SQL(check),  # PostgreSQL's own print of it
                    )
                ).fetchall()
        except psycopg.Error as error:
            raise OperationError(
                f"the target could not try its CHECK {check}: "
                f"{error.diag.message_primary or type(error).__name__}",
                advice="nothing was changed. The role has to be allowed temporary tables (GRANT "
                "TEMPORARY ON DATABASE) and what the CHECK calls",
            ) from error
        return [int(row[0]) for row in found]

    return refused


def _table(columns: Sequence[TargetColumn], numbered: str) -> sql.Composed:
    parts = [sql.SQL("{} bigint").format(sql.Identifier(numbered))]
    parts += [
        sql.SQL("{} {}").format(
            sql.Identifier(column.name),
            sql.SQL(column.base),  # PostgreSQL's own print of it
        )
        for column in columns
    ]
    return sql.SQL("CREATE TEMPORARY TABLE migration_trial ({})").format(sql.SQL(", ").join(parts))
