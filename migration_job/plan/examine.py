"""A rule tried on the values that SQLite's expression does not vouch for."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import apsw

from migration_job.plan.facts import EXAMPLES, ColumnFacts, Examination
from migration_job.plan.row_names import identity_columns, show_key, shown_columns
from migration_job.plan.rules import CannotCarry, RuleBase, inside
from migration_job.stores.sqlite.model import SourceTable
from migration_job.stores.sqlite.reader import Row, column_sql, read_by_keys, read_rows
from migration_job.values import BrokenText, SourceValue, display


class Examiner:
    """Tries rules on one consistent state of a source through one connection."""

    def __init__(self, connection: apsw.Connection, encoding: str) -> None:
        self._connection = connection
        self._encoding = encoding

    def examine(
        self, table: SourceTable, name: str, rule: RuleBase, facts: ColumnFacts, slow: int
    ) -> Examination:
        """The rule tried on every value that its fast condition does not vouch for."""
        result = Examination(slow=slow)
        if not inside(rule).bytea:
            for bad in (facts.nul, facts.broken):
                if bad.ids:
                    self._try(table, rule, self._by_id(table, name, bad.ids), result)
        if slow:
            c = column_sql(table, name)
            condition = rule.fast_condition(c)
            where = f"{c} IS NOT NULL" if condition is None else f"NOT {condition}"
            self._try(table, rule, self._where(table, name, where), result)
        return result

    def changed_in(
        self, table: SourceTable, name: str, rule: RuleBase, rows: Collection[Row]
    ) -> int:
        """How many of the column's values in these rows the rule changes."""
        result = Examination()
        self._try(table, rule, self._by_id(table, name, rows), result)
        return result.changed.count

    def _columns(self, table: SourceTable, name: str) -> list[str]:
        return [*identity_columns(table), *shown_columns(table), name]

    def _where(self, table: SourceTable, name: str, where: str) -> Iterator[Row]:
        return read_rows(
            self._connection,
            table,
            self._columns(table, name),
            encoding=self._encoding,
            where=where,
        )

    def _by_id(self, table: SourceTable, name: str, rows: Collection[Row]) -> Iterator[Row]:
        return read_by_keys(
            self._connection,
            table,
            self._columns(table, name),
            encoding=self._encoding,
            key=identity_columns(table),
            keys=sorted(rows, key=repr),
        )

    def _try(
        self,
        table: SourceTable,
        rule: RuleBase,
        rows: Iterator[Row],
        result: Examination,
    ) -> None:
        width, shown = len(identity_columns(table)), shown_columns(table)
        for row in rows:
            value = row[-1]
            found, why = result.changed, ""
            try:
                if not rule.changes(value):
                    continue
            except CannotCarry as reason:
                found, why = result.bad if _is_bad_text(value) else result.cannot, str(reason)
            cut = found is result.changed and rule.cuts(value)
            for rows_of in (found, result.cut) if cut else (found,):
                if rows_of.count < EXAMPLES:
                    key = show_key(shown, row[width:-1])
                    rows_of.add(row[:width], key, why or display(value))
                else:
                    rows_of.add(row[:width], "")


def _is_bad_text(value: SourceValue) -> bool:
    return isinstance(value, BrokenText) or (isinstance(value, str) and "\x00" in value)
