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
from migration_job.quoting import compose, postgres_name, postgres_text
from migration_job.stores.postgres import records
from migration_job.stores.postgres.copytext import copy_sql, fields_of
from migration_job.stores.postgres.database import Statement, ask_together, commit_together, lost
from migration_job.values import SourceValue, display, fold, key_text, to_json, to_text

Key = tuple[SourceValue, ...]

FEW_ROWS, FEW_VALUES, FEW_BYTES = 200, 4_000, 256 << 10
"""Up to so many keys of a batch, values of a table and bytes of its text it is cheaper to send all
at once than to ask first, or to begin a COPY."""

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
    (:func:`migration_job.stores.postgres.target_fence.act_as_replica`). Raises
    BlockedError where a value cannot be carried and the plan does not quarantine it, or where
    the target cannot compute what hangs on it,
    psycopg.IntegrityError where rows of the batch stand in each other's or in others' way.
    """
    batch = [_prepare(change) for change in changes]
    large = [part for part in batch if not part.small]
    forget = [
        (part.change.table.source or "", key_text(key))
        for part in batch
        for key in part.change.keys
    ]
    first = _small_changes(batch)
    notes = [*_notes(batch), records.applied_statement(position, token)]
    try:
        if not large and len(forget) <= FEW_ROWS:
            commit_together(connection, [*records.forget_statements(forget), *first, *notes])
            return
        with connection.transaction():
            noted = records.tables_noted(connection, [p.change.table.source or "" for p in batch])
            forget = [row for row in forget if row[0] in noted]
            ask_together(connection, [*records.forget_statements(forget), *first])
            for part in large:
                _copy(connection, part)
            ask_together(connection, notes)
    except psycopg.errors.IntegrityError:
        raise
    except psycopg.errors.NumericValueOutOfRange as error:
        raise _explain_computed(error, [part.change for part in batch]) from error
    except psycopg.Error as error:
        raise lost(error, "applying changes") from error


def _small_changes(batch: Sequence[_Part]) -> list[Statement]:
    """What need not wait for a COPY. Within a table a unique value may have moved from one key to
    another: deletions first."""
    first = [s for part in batch for s in _deletion(part.change)]
    return first + [s for part in batch if part.small for s in _insertion(part)]


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


@dataclass(slots=True)
class _Part:
    """A table's change with what its rows become on the target."""

    change: TableChange
    lines: list[list[str | None]] = field(default_factory=list)
    """The rows that are there now, apart from ``change.lines``."""
    ledger: list[records.LedgerEntry] = field(default_factory=list)
    quarantine: list[records.QuarantineEntry] = field(default_factory=list)

    @property
    def small(self) -> bool:
        """Whether its rows are few enough to be sent with other statements."""
        width = len(self.change.table.copied)
        given = self.change.lines or b""
        rows = given.count(b"\n") + 1 + len(self.lines)
        if rows * width > FEW_VALUES or len(given) > FEW_BYTES:
            return False
        return sum(len(text or "") for line in self.lines for text in line) <= FEW_BYTES


def _prepare(change: TableChange) -> _Part:
    part = _Part(change)
    table = change.table
    positions = key_places(table)
    for row in change.rows:
        key = key_text([row[i] for i in positions])
        reason = change.quarantined.get(key)
        if reason is not None:
            part.quarantine.append(_quarantined(table, key, row, reason))
            continue
        part.lines.append(_forward(table, key, row, part.ledger))
    return part


def _deletion(change: TableChange) -> list[Statement]:
    if not change.key_texts:
        return []
    item, condition = keys_join(change.table)
    query = compose(
        "DELETE FROM {table} AS t USING {item} WHERE {condition}",
        table=change.table.relation,
        item=item,
        condition=condition,
    )
    arrays = [text_array(column) for column in zip(*change.key_texts, strict=True)]
    forgotten = [(_forgetting(change.table), arrays)] if change.table.merge else []
    return [(query, arrays), *forgotten]


def _forgetting(table: TablePlan) -> str:
    """What forgets that rows of these keys are the target's own (:mod:`.merged`): they are the
    source's from now on."""
    item, _ = keys_join(table)
    name = postgres_text(table.target)
    same = " AND ".join(
        # The CASE: another table's key is not of this type.
        f"CASE WHEN m.tab = {name} THEN m.key[{i + 1}]::{base_type(column)} END = k.k{i}"
        for i, column in enumerate(key_plans(table))
    )
    return compose(
        "DELETE FROM migration.merged AS m USING {item} WHERE {same}", item=item, same=same
    )


def _insertion(part: _Part) -> list[Statement]:
    """The rows as parameters, which PostgreSQL reads as COPY does: each as its column's own
    input, also where the column's number is always generated. A COPY would be two more waits for
    a server that is far."""
    table = part.change.table
    lines = list(part.lines)
    if part.change.lines is not None:
        lines += map(fields_of, part.change.lines.decode().split("\n"))
    if not lines:
        return []
    width = len(table.copied)
    rows = (
        ", ".join(f"${number}" for number in range(first, first + width))
        for first in range(1, width * len(lines) + 1, width)
    )
    query = compose(
        "INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE VALUES {rows}",
        table=table.relation,
        columns=", ".join(postgres_name(c.target) for c in table.copied),
        rows=", ".join(f"({row})" for row in rows),
    )
    return [(query, [text for line in lines for text in line])]


def _copy(connection: psycopg.Connection, part: _Part) -> None:
    table, lines = part.change.table, part.change.lines
    names = tuple(c.target for c in table.copied)
    statement = copy_sql(table.relation, names, freeze=False)
    with connection.cursor() as cursor, cursor.copy(statement.encode()) as copy:
        if lines is not None:
            copy.write(lines + b"\n")
        for line in part.lines:
            copy.write_row(line)


def _notes(batch: Sequence[_Part]) -> list[Statement]:
    """The ledger and the quarantine of a batch."""
    return [
        *records.ledger_statements([entry for part in batch for entry in part.ledger]),
        *records.quarantine_statements([entry for part in batch for entry in part.quarantine]),
    ]


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
                "run `migration-job migrate --live` again, which plans from the current values",
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


_AGAIN = (
    "the application is served by SQLite as before; correct the rows there, or run "
    "`migration-job migrate --live` again, which plans from the current values"
)


def _explain_computed(error: psycopg.Error, changes: Sequence[TableChange]) -> BlockedError:
    """What to raise where PostgreSQL cannot compute an index, a CHECK or a generated column."""
    tables = ", ".join(change.table.source or "" for change in changes)
    return BlockedError(
        "the target cannot compute an index, a CHECK or a generated column of a row that the "
        f"source now holds in {tables}: {error.diag.message_primary}",
        advice=_AGAIN,
    )


def explain_conflict(error: psycopg.Error) -> OperationError:
    """What to raise for rows that the target's constraints refuse although nothing of the batch is
    missing."""
    constraint = error.diag.constraint_name or "a constraint"
    table = error.diag.table_name or "a table"
    return OperationError(
        f"the target's {constraint} on table {table} refuses what the source now holds: "
        f"{error.diag.message_primary}",
        advice=_AGAIN,
    )
