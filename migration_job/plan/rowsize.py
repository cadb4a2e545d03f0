"""Rows of many columns that no page of PostgreSQL's takes: a row has to fit into one, its long
values moved out of line (https://www.postgresql.org/docs/14/storage-toast.html)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import apsw

from migration_job.plan.facts import ColumnFacts, Rows
from migration_job.plan.row_names import identity_columns, show_key, shown_columns
from migration_job.plan.rules import TARGETS, CannotCarry, Rule, base_of
from migration_job.stores.sqlite.database import chain
from migration_job.stores.sqlite.model import Catalogue, SourceTable
from migration_job.stores.sqlite.reader import Row, column_sql, read_rows

MAX_ROW_BYTES = 8160
"""Of a row with its header, on a page of 8 KiB."""

MAX_TEXT_BYTES = 900_000_000
"""Of a row as it is copied: SQLite makes no longer text than 1,000,000,000 bytes, PostgreSQL reads
no longer line than 1 GiB. What is left is for escapes, separators and the other columns."""

HEADER = 23
POINTER = 18
"""What is left in the row of a value that is stored out of line."""

STAYS = 20
"""Bytes of content up to which a value is not moved."""

MOST = 24
"""No value takes more of a row whose long values have been moved out."""


def find_too_large(
    connection: apsw.Connection,
    catalogue: Catalogue,
    table: SourceTable,
    rules: Mapping[str, Rule],
) -> Rows:
    """The rows of a table that are too large for a page, each with its size. Tables of few
    columns have none, and are not read."""
    found = Rows()
    room = MAX_ROW_BYTES - HEADER - 8 - len(rules) // 8
    most = _most(list(rules.values()))
    if sum(most) <= room:
        return found
    bound = chain(
        "+",
        [
            f"(typeof({column_sql(table, c)}) <> 'null') * {bytes_}"
            for c, bytes_ in zip(rules, most, strict=True)
        ],
    )
    identity, shown = identity_columns(table), shown_columns(table)
    for row in read_rows(
        connection,
        table,
        [*identity, *shown, *rules],
        encoding=catalogue.encoding,
        where=f"({bound}) > {room}",
    ):
        start = len(identity) + len(shown)
        size = row_bytes(row[start:], list(rules.values()))
        if size > MAX_ROW_BYTES:
            key = show_key(shown, row[len(identity) : start])
            found.add(row[: len(identity)], key, f"{size:,} bytes")
    return found


def find_too_long(
    connection: apsw.Connection,
    catalogue: Catalogue,
    table: SourceTable,
    facts: Mapping[str, ColumnFacts],
) -> Rows:
    """The rows whose text, as it is copied, is longer than SQLite and PostgreSQL take, each with
    its size. Tables whose largest values together stay below that have none, and are not read."""
    found = Rows()
    held = [name for name, own in facts.items() if own.heaviest and not own.unreadable]
    if sum(2 * facts[name].heaviest for name in held) <= MAX_TEXT_BYTES:
        return found
    references = [column_sql(table, name) for name in held]
    length = chain(
        "+",
        [f"ifnull(octet_length({c}), 0) * (1 + (typeof({c}) = 'blob'))" for c in references],
    )
    shown = shown_columns(table)
    # What is too long is looked for without its values: they would not fit into memory either.
    identity = identity_columns(table)
    for row in read_rows(
        connection,
        table,
        [*identity, *shown],
        encoding=catalogue.encoding,
        where=f"({length}) > {MAX_TEXT_BYTES}",
    ):
        found.add(row[: len(identity)], show_key(shown, row[len(identity) :]))
    return found


def _most(rules: Sequence[Rule]) -> list[int]:
    """What a value of each column takes of a row at most, the gap before it included."""
    found: list[int] = []
    coarsest = 8
    for rule in rules:
        width, alignment = _size(rule) or (MOST, 1)
        # Behind nothing but values of its own alignment, or of a multiple, there is no gap.
        found.append(width + (alignment - 1 if coarsest < alignment else 0))
        coarsest = min(coarsest, alignment)
    return found


def row_bytes(values: Row, rules: Sequence[Rule]) -> int:
    """The bytes of a row on its page, when every long value is out of line."""
    nulls = any(value is None for value in values)
    size = _aligned(HEADER + ((len(values) + 7) // 8 if nulls else 0), 8)
    for width, alignment in _places(values, rules):
        size = _aligned(size, alignment) + width
    return _aligned(size, 8)


def _places(values: Row, rules: Sequence[Rule]) -> Iterator[tuple[int, int]]:
    for value, rule in zip(values, rules, strict=True):
        try:
            text = rule.forward(value)
        except CannotCarry:
            continue  # of a row that goes to quarantine, or that stops the run anyway
        if text is None:
            continue
        content = _content(text, rule.target_type)
        yield _size(rule) or (content + 1 if content <= STAYS else POINTER, 1)


def _size(rule: Rule) -> tuple[int, int] | None:
    """Bytes and alignment of a type of one size; None of text, bytes and digits, and of types that
    only an application's own schema has."""
    known = TARGETS.get(base_of(rule.target_type))
    return None if known is None else known.size


def _content(text: str, type_sql: str) -> int:
    if type_sql == "bytea":
        return len(text) // 2 - 1
    if type_sql.startswith("numeric"):
        return 2 + 2 * (len(text) // 4 + 1)
    return len(text.encode())


def _aligned(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment
