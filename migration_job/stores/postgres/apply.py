"""States onto the target: the touched keys are deleted and the rows that are there now inserted.

Which statements led to a state does not matter, so a batch that is applied twice, or in other
pieces, ends the same. Everything of a batch, with its ledger, its quarantine and its position, is
one transaction.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import psycopg

from migration_job.errors import BlockedError, OperationError
from migration_job.plan.model import ColumnPlan, Reason, TablePlan
from migration_job.plan.rules import CannotCarry
from migration_job.quoting import compose, postgres_name, postgres_relation
from migration_job.stores.postgres import records
from migration_job.stores.postgres.database import execute_raw, lost
from migration_job.values import SourceValue, display, fold, key_text, to_json, to_text

Key = tuple[SourceValue, ...]

_MODIFIER = re.compile(r"\([^)]*\)")


@dataclass(slots=True)
class TableChange:
    """What a batch holds for one table."""

    table: TablePlan
    keys: list[Key]
    """Every touched key; a row that is gone is only here."""
    key_texts: list[tuple[str, ...]] = field(default_factory=list)
    """The keys as the target has them, without those that it cannot have."""
    lines: bytes | None = None
    """Rows that are there now, as COPY's text, without ledger entries; None where there are none:
    the line of an empty text alone is empty."""
    rows: list[Key] = field(default_factory=list)
    """The other rows that are there now: the values of ``table.copied``, in that order."""
    quarantined: dict[str, Reason] = field(default_factory=dict)
    """``key_text`` of the rows that the plan keeps out, and the reason."""
    number: int = 0
    """The table's number in the source's log."""


def apply_states(
    connection: psycopg.Connection,
    changes: Iterable[TableChange],
    position: int,
    token: str | None = None,
) -> None:
    """Apply a batch and record ``position`` with the token of the log's row there, in one
    transaction.

    The session must act as a replica
    (:func:`migration_job.stores.postgres.capture.act_as_replica`). Raises
    BlockedError where a value cannot be carried and the plan does not quarantine it,
    psycopg.IntegrityError where rows of the batch stand in each other's or in others' way.
    """
    changes = list(changes)
    try:
        with connection.transaction():
            # All deletions first: a row of one table never stands in the way of another's, but
            # within a table a unique value may have moved from one key to another.
            noted = records.tables_noted(connection, [c.table.source or "" for c in changes])
            forget = [
                (c.table.source or "", key_text(key))
                for c in changes
                if c.table.source in noted
                for key in c.keys
            ]
            if forget:
                records.forget_all(connection, forget)
            for change in changes:
                _delete(connection, change)
            for change in changes:
                _insert(connection, change)
            records.set_applied(connection, position, token)
    except psycopg.errors.IntegrityError:
        raise
    except psycopg.Error as error:
        raise lost(error, "applying changes") from error


def base_type(column: ColumnPlan) -> str:
    """The column's type without length or precision: a cast to ``varchar(3)`` would cut the text,
    and one to ``numeric(4,1)`` round the number, where a comparison must do neither."""
    return _MODIFIER.sub("", column.type).strip()


def key_plans(table: TablePlan) -> list[ColumnPlan]:
    """The plans of the key's columns, in the key's order."""
    by_source = {fold(c.source): c for c in table.copied if c.source is not None}
    return [by_source[fold(name)] for name in table.key]


def forward_key(table: TablePlan, key: Key) -> tuple[str, ...] | None:
    """The key's values on the target; None where no row of the target can have it."""
    texts = []
    for column, value in zip(key_plans(table), key, strict=True):
        try:
            text = column.rule.forward(value)
        except CannotCarry:
            text = column.rule.returned(value)
        if text is None:
            return None
        texts.append(text)
    return tuple(texts)


def keys_join(table: TablePlan, alias: str = "t", *, arrays: Sequence[str] = ()) -> tuple[str, str]:
    """``FROM`` item and condition that join ``alias`` to keys given as one ``text[]`` for each key
    column: the literals ``arrays``, or else the parameters ``$1`` and on, for
    :func:`migration_job.stores.postgres.database.execute_raw`."""
    plans = key_plans(table)
    given = arrays or [f"${i}" for i in range(1, len(plans) + 1)]
    typed = ", ".join(
        f"{value}::text[]::{base_type(c)}[]" for value, c in zip(given, plans, strict=True)
    )
    names = ", ".join(f"k{i}" for i in range(len(plans)))
    condition = " AND ".join(
        f"{alias}.{postgres_name(c.target)} = k.k{i}" for i, c in enumerate(plans)
    )
    return f"unnest({typed}) AS k({names})", condition


def text_array(values: Iterable[str]) -> str:
    """PostgreSQL's literal of a ``text[]``, without NULLs."""
    values = list(values)
    if not values:
        return "{}"
    joined = '","'.join(values)
    if "\\" in joined or joined.count('"') != 2 * (len(values) - 1):
        escaped = (v.replace("\\", "\\\\").replace('"', '\\"') for v in values)
        joined = '","'.join(escaped)
    return f'{{"{joined}"}}'


def _delete(connection: psycopg.Connection, change: TableChange) -> None:
    if not change.key_texts:
        return
    item, condition = keys_join(change.table)
    execute_raw(
        connection,
        compose(
            "DELETE FROM {table} AS t USING {item} WHERE {condition}",
            table=postgres_relation(change.table.target),
            item=item,
            condition=condition,
        ),
        [text_array(column) for column in zip(*change.key_texts, strict=True)],
    )


def _insert(connection: psycopg.Connection, change: TableChange) -> None:
    table = change.table
    ledger: list[records.LedgerEntry] = []
    quarantine: list[records.QuarantineEntry] = []
    positions = key_places(table)
    lines: list[list[str | None]] = []
    for row in change.rows:
        key = key_text([row[i] for i in positions])
        reason = change.quarantined.get(key)
        if reason is not None:
            quarantine.append(_quarantined(table, key, row, reason))
            continue
        lines.append(_forward(table, key, row, ledger))
    if lines or change.lines is not None:
        columns = ", ".join(postgres_name(c.target) for c in table.copied)
        with (
            connection.cursor() as cursor,
            cursor.copy(
                compose(
                    "COPY {table} ({columns}) FROM STDIN",
                    table=postgres_relation(table.target),
                    columns=columns,
                ).encode()
            ) as copy,
        ):
            if change.lines is not None:
                copy.write(change.lines + b"\n")
            for line in lines:
                copy.write_row(line)
    if ledger:
        records.add_ledger(connection, iter(ledger))
    if quarantine:
        records.add_quarantine(connection, iter(quarantine))


def key_places(table: TablePlan) -> list[int]:
    """Where the key's values stand in a row of ``table.copied``."""
    names = [fold(c.source or "") for c in table.copied]
    return [names.index(fold(name)) for name in table.key]


def row_key(table: TablePlan, row: Sequence[SourceValue]) -> Key:
    """The key of a row of ``table.copied``."""
    return tuple(row[i] for i in key_places(table))


def _forward(
    table: TablePlan, key: str, row: Sequence[SourceValue], ledger: list[records.LedgerEntry]
) -> list[str | None]:
    line: list[str | None] = []
    for column, value in zip(table.copied, row, strict=True):
        text: str | None
        try:
            text = column.rule.forward(value)
            changed = column.rule.changes(value)
        except CannotCarry as reason:
            text, changed = column.rule.returned(value), False
            if text is not None:
                line.append(text)
                continue
            raise BlockedError(
                f"the source has a new value that the plan cannot carry: {table.source}."
                f"{column.source} of row {display(key)}: {reason}",
                advice="the application is served by SQLite as before; correct the value there, or "
                "run `migration-job migrate --live` again, which plans from the values of now",
            ) from None
        if changed:
            source = column.source or ""
            ledger.append(
                records.LedgerEntry(
                    table.source or "", key, source, to_text(value), text, column.rule.kind
                )
            )
        line.append(text)
    return line


def _quarantined(
    table: TablePlan, key: str, row: Sequence[SourceValue], reason: Reason
) -> records.QuarantineEntry:
    values = {c.source or "": to_json(v) for c, v in zip(table.copied, row, strict=True)}
    return records.QuarantineEntry(
        table.source or "",
        key,
        reason.text,
        json.dumps(values, ensure_ascii=False),
        reason.column,
    )


def explain_conflict(error: psycopg.Error) -> OperationError:
    """What to raise for rows that the target's constraints refuse although nothing of the batch is
    missing."""
    constraint = error.diag.constraint_name or "a constraint"
    table = error.diag.table_name or "a table"
    return OperationError(
        f"the target's {constraint} on table {table} refuses what the source now holds: "
        f"{error.diag.message_primary}",
        advice="the application is served by SQLite as before; correct the rows there, or run "
        "`migration-job migrate --live` again, which plans from the values of now",
    )
