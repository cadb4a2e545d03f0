"""Rows that the target cannot have: set aside where the policy says so, or what is given up for
them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import apsw

from migration_job.plan.collisions import find_collisions
from migration_job.plan.column_reports import count_rows
from migration_job.plan.facts import ColumnFacts, Rows
from migration_job.plan.findings import policy_for_column, policy_for_table
from migration_job.plan.model import Reason
from migration_job.plan.planner.column_assignments import Assignments
from migration_job.plan.planner.context import Planning
from migration_job.plan.planner.orphans import find_orphans
from migration_job.plan.planner.side_by_side import Seen
from migration_job.plan.planner.target_names import MAX_COLUMNS
from migration_job.plan.profile import unique_name
from migration_job.plan.relations import Relation
from migration_job.plan.rowsize import (
    MAX_ROW_BYTES,
    MAX_TEXT_BYTES,
    find_too_large,
    find_too_long,
)
from migration_job.plural import either
from migration_job.quoting import sqlite_name
from migration_job.stores.sqlite.model import SourceColumn, SourceTable
from migration_job.stores.sqlite.reader import Row
from migration_job.values import fold

Key = tuple[str, tuple[str, ...]]
"""A table, and the columns of one of its keys."""


@dataclass(frozen=True, slots=True)
class RowFaults:
    """What the target cannot have for the rows that stay."""

    collided: frozenset[Key]
    """Keys that two rows would share there."""
    broken: Mapping[str, frozenset[str]]
    """By table the names of the CHECKs and unique constraints that rows are against."""
    orphaned: frozenset[Relation]
    """Foreign keys that some row has no parent for."""


def find_row_faults(
    planning: Planning, seen: Seen, assignments: Assignments, dropped: frozenset[Relation]
) -> RowFaults:
    """Find the rows at fault, each kind a finding, and close quarantine over all that depend on
    rows in it."""
    _set_aside_values(planning, assignments)
    _find_nulls(planning, seen)
    for table in planning.catalogue.tables:
        # One of more is an error already, and has more columns than one query may ask for.
        if len(table.columns) <= MAX_COLUMNS:
            _find_too_long(planning, seen, table)
            _find_too_large(planning, assignments, table)
    collided = frozenset(_find_collisions(planning, assignments))
    broken: dict[str, set[str]] = {}
    for name, constraint in (*_broken_checks(planning), *_broken_wishes(planning)):
        broken.setdefault(name, set()).add(constraint)
    orphaned = find_orphans(planning, seen, assignments, dropped)
    planning.quarantine.close_over(planning.relations)
    _report_dependent(planning)
    return RowFaults(collided, {t: frozenset(c) for t, c in broken.items()}, orphaned)


# ------------------------------------------------------------------------------- values and NULLs


def _set_aside_values(planning: Planning, assignments: Assignments) -> None:
    for (table, column), assignment in assignments.items():
        grouped: dict[str, set[Row]] = {}
        for row, why in assignment.quarantined.items():
            grouped.setdefault(why, set()).add(row)
        for why, rows in grouped.items():
            planning.quarantine.add(table, rows, Reason(column=column, text=why))


def _find_nulls(planning: Planning, seen: Seen) -> None:
    for table in planning.catalogue.tables:
        for column in table.columns:
            facts = seen.of((table.name, column.name))
            if planning.required(table, column) and facts.nulls:
                _null_in_required(planning, table, column, facts)
            elif column.primary_key and facts.nulls:
                _null_in_key(planning, table, column, facts)


def is_null(column: str) -> str:
    """A predicate over ``t`` that SQLite does not answer from a NOT NULL declaration, which old
    rows may break."""
    return f"typeof(t.{sqlite_name(column)}) = 'null'"


def _null_in_required(
    planning: Planning, table: SourceTable, column: SourceColumn, facts: ColumnFacts
) -> None:
    rows = planning.quarantine.rows_where(table, is_null(column.name))
    action = planning.findings.action_for(table.name, column.name)
    text = f"NULL in a NOT NULL column ({count_rows(facts.nulls)})"
    if action == "quarantine":
        planning.set_aside(table.name, rows, "NULL in a NOT NULL column", column.name)
        text += "; to quarantine by the policy"
    elif action != "block":
        text += "; the target's column allows NULL"
    planning.findings.add(
        "null-in-not-null",
        "error" if action == "block" else "warning",
        text,
        table=table.name,
        column=column.name,
        rows=rows,
        resolution=policy_for_column(table.name, column.name, action="widen"),
    )


def _null_in_key(
    planning: Planning, table: SourceTable, column: SourceColumn, facts: ColumnFacts
) -> None:
    rows = planning.quarantine.rows_where(table, is_null(column.name))
    text = f"NULL in the primary key ({count_rows(facts.nulls)})"
    if planning.sets_aside(table.name, column.name):
        planning.set_aside(table.name, rows, "NULL in the primary key", column.name)
        text += "; to quarantine by the policy"
    else:
        text += ": the target gets a UNIQUE constraint instead of a PRIMARY KEY"
    planning.findings.add(
        "null-in-primary-key",
        "by-action",
        text,
        table=table.name,
        column=column.name,
        rows=rows,
    )


# ------------------------------------------------------------------------------------------ sizes


def _find_too_large(planning: Planning, assignments: Assignments, table: SourceTable) -> None:
    rules = {
        c.name: assignments[table.name, c.name].rule
        for c in table.columns
        if (table.name, c.name) in assignments
    }
    rows = find_too_large(planning.connection, planning.catalogue, table, rules)
    if not rows.count:
        return
    text = (
        f"{count_rows(rows.count)} of more than {MAX_ROW_BYTES:,} bytes, long values not "
        "counted: a row of PostgreSQL's has to fit on a page of 8 KiB"
    )
    aside = planning.sets_aside(table.name)
    if aside:
        planning.set_aside(table.name, rows, "too large for a page")
        text += "; to quarantine by the policy"
    else:
        text += ". Split the table on the source to keep them in it"
    planning.findings.add(
        "row-too-large",
        "warning" if aside else "error",
        text,
        table=table.name,
        rows=rows,
        resolution=policy_for_table(table.name, action="quarantine"),
    )


def _find_too_long(planning: Planning, seen: Seen, table: SourceTable) -> None:
    facts = seen.facts[table.name]
    rows = find_too_long(planning.connection, planning.catalogue, table, facts)
    if rows.count:
        planning.findings.add(
            "row-too-long",
            "error",
            f"{count_rows(rows.count)} of more than {MAX_TEXT_BYTES:,} bytes as text, of which "
            "a blob's bytes count twice: neither SQLite nor PostgreSQL handles more at once. "
            "Split the values on the source, or keep them in files: no policy resolves this",
            table=table.name,
            rows=rows,
            resolution="",
        )


# ------------------------------------------------------------------------------------- constraints


def _find_collisions(planning: Planning, assignments: Assignments) -> Iterator[Key]:
    """The keys that the target cannot have, since rules make two of their values one."""
    for table in planning.catalogue.tables:
        for columns in unique_keys(table):
            own = [assignments.get((table.name, c)) for c in columns]
            known = [d for d in own if d is not None]
            doubtful = any(d.rule.without_case or (not d.exact and not d.told_apart) for d in known)
            if len(known) < len(own) or not doubtful:
                continue
            rows = find_collisions(
                planning.connection,
                table,
                columns,
                [d.rule for d in known],
                encoding=planning.catalogue.encoding,
            )
            if rows.count and not _judge_collision(planning, table, columns, rows):
                yield table.name, columns


def _judge_collision(
    planning: Planning, table: SourceTable, columns: tuple[str, ...], rows: Rows
) -> bool:
    """Whether the rows go to quarantine, so that the target can have the key."""
    text = (
        f"{count_rows(rows.count)} with a key ({', '.join(columns)}) that another "
        "row has on the target, though not on the source"
    )
    aside = planning.sets_aside(table.name)
    if aside:
        why = f"the key ({', '.join(columns)}) is another row's on the target"
        planning.set_aside(table.name, rows, why)
        text += "; to quarantine by the policy"
    else:
        text += "; the target has no such key: the way back stops at a row that the source refuses"
    planning.findings.add(
        "key-collides",
        "by-action",
        text,
        table=table.name,
        item=f"{table.name}.{columns[0]}",
        rows=rows,
    )
    return aside


def unique_keys(table: SourceTable) -> list[tuple[str, ...]]:
    """The column lists of the primary key and of every unique index over plain columns."""
    found = [table.primary_key] if table.primary_key else []
    for index in table.indexes:
        columns = tuple(t.column for t in index.columns if t.column is not None)
        if index.unique and len(columns) == len(index.columns) and columns not in found:
            found.append(columns)
    return found


def _broken_checks(planning: Planning) -> Iterator[tuple[str, str]]:
    """Rows may break their own CHECKs: written before it, or with checks ignored. The tables and
    the CHECKs that the target has to do without."""
    for table in planning.catalogue.tables:
        for number, check in enumerate(table.checks, 1):
            try:
                rows = planning.quarantine.rows_where(table, f"NOT ({check})")
            except apsw.Error:
                # It calls what only the application has; it is not carried over either.
                continue
            place = f"{table.name}.{number}"
            what = f"CHECK ({' '.join(check.split())})"
            if _judge_constraint(planning, "check-violated", what, (table, place), rows):
                yield table.name, place


def _broken_wishes(planning: Planning) -> Iterator[tuple[str, str]]:
    """The same of the constraints that the profile wishes for."""
    if not planning.profile.tables:
        return
    # Here: the parser behind it takes longer to import than a small file to plan.
    from migration_job.plan.profile_sql import columns_in, in_sqlite

    for table in planning.catalogue.tables:
        wished = planning.profile.tables.get(fold(table.name))
        if wished is None:
            continue
        present = {fold(c.name) for c in table.columns}
        for name, check in wished.checks:
            if {fold(c) for c in columns_in(check)} <= present:
                rows = planning.quarantine.rows_where(table, f"NOT ({in_sqlite(check)})")
                what = f"CHECK ({check})"
                if _judge_constraint(planning, "check-violated", what, (table, name), rows):
                    yield table.name, name
        for columns in wished.uniques:
            if {fold(c) for c in columns} <= present:
                rows = planning.quarantine.duplicates(table, columns)
                name, what = unique_name(wished.name, columns), f"UNIQUE ({', '.join(columns)})"
                if _judge_constraint(planning, "unique-violated", what, (table, name), rows):
                    yield table.name, name


def _judge_constraint(
    planning: Planning, code: str, what: str, place: tuple[SourceTable, str], rows: Rows
) -> bool:
    """Whether the target has to do without the constraint of that name."""
    if not rows.count:
        return False
    table, name = place
    text = f"{count_rows(rows.count)} against {what}"
    aside = planning.sets_aside(table.name)
    if aside:
        planning.set_aside(table.name, rows, f"against {what}")
        text += "; to quarantine by the policy"
    else:
        text += "; without it the rows can be carried"
    planning.findings.add(code, "by-action", text, table=table.name, item=name, rows=rows)
    return not aside


def _report_dependent(planning: Planning) -> None:
    for table, reasons in planning.quarantine.summary():
        dependent = reasons.get("dependent", 0)
        if dependent:
            planning.findings.add(
                "quarantined-with-parent",
                "warning",
                f"{count_rows(dependent)} to quarantine with what "
                f"{either(dependent, 'it refers', 'they refer')} to",
                table=table,
                count=dependent,
            )
