"""Identities on both sides go on from the higher of the two marks: no number is given out twice."""

from __future__ import annotations

from collections.abc import Iterator

from migration_job.protocol.run_context import Pair
from migration_job.quoting import (
    compose,
    postgres_text,
    sqlite_name,
    sqlite_table,
)
from migration_job.stores.postgres.database import Statement, ask_together
from migration_job.stores.sqlite.apply import set_sequence


def raise_target_sequences(pair: Pair) -> None:
    """Raise the target's sequences to the source's marks (``sqlite_sequence`` and the largest
    number present), never lower them."""
    ask_together(pair.target, raising(pair))


def raising(pair: Pair) -> list[Statement]:
    """What does :func:`raise_target_sequences`, for the source's marks of now."""
    statements: list[Statement] = []
    for table, column, name in _identities(pair):
        mark = _source_mark(pair, table, column)
        if mark < 1:
            continue
        last = compose(
            "(SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {name})", name=name
        )
        query = compose(
            "SELECT setval({name}, greatest({mark}, {last}))",
            name=postgres_text(name),
            mark=mark,
            last=last,
        )
        statements.append((query, ()))
    return statements


def raise_source_sequences(pair: Pair) -> None:
    """Raise the marks of the source's AUTOINCREMENT tables to the target's sequences, inside the
    caller's transaction of the source."""
    for table, column, name in _identities(pair):
        own = pair.catalogue.table(table)
        if not own.autoincrement or column != own.rowid_alias:
            continue
        row = pair.target.execute(
            compose(
                "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM {name}", name=name
            ).encode()
        ).fetchone()
        if row is not None and int(row[0]) > 0:
            set_sequence(pair.source, table, int(row[0]))


def _identities(pair: Pair) -> list[tuple[str, str, str]]:
    """Source table, source column and the target's sequence of each identity; asked for once."""
    if pair.identities is None:
        pair.identities = _read_identities(pair)
    return pair.identities


def _read_identities(pair: Pair) -> list[tuple[str, str, str]]:
    if pair.plan.existing:
        return list(_named(pair))
    planned = [
        (plan.source, column.source, plan.target, column.target)
        for plan in pair.plan.tables
        for column in plan.columns
        if column.identity and plan.source is not None and column.source is not None
    ]
    if not planned:
        return []
    terms = ", ".join(_sequence(pair.plan.relation(target), name) for _, _, target, name in planned)
    row = pair.target.execute(f"SELECT {terms}".encode()).fetchone() or ()
    return [
        (source, column, str(sequence))
        for (source, column, _, _), sequence in zip(planned, row, strict=True)
        if sequence is not None
    ]


def _named(pair: Pair) -> Iterator[tuple[str, str, str]]:
    """The same in a schema that is the application's own, where the plan names each sequence; those
    that it has dropped since are left out."""
    for sequence in pair.plan.sequences:
        plan = next(t for t in pair.plan.tables if t.target == sequence.table)
        column = next((c for c in plan.columns if c.target == sequence.column), None)
        there = pair.target.execute(
            "SELECT to_regclass(%s) IS NOT NULL", (sequence.sequence,)
        ).fetchone()
        known = column is not None and column.source is not None and plan.source is not None
        if known and there is not None and there[0]:
            yield str(plan.source), str(column and column.source), str(sequence.sequence)


def _sequence(table: str, column: str) -> str:
    """The name of the column's sequence; NULL where either was renamed or dropped meanwhile."""
    relation = postgres_text(table)
    name = postgres_text(column)
    return compose(
        "CASE WHEN EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass({relation}) "
        "AND attname = {name} AND NOT attisdropped) "
        "THEN pg_get_serial_sequence({relation}, {name}) END",
        relation=relation,
        name=name,
    )


def _source_mark(pair: Pair, table: str, column: str) -> int:
    marks = [
        pair.source.execute(
            compose(
                "SELECT max({column}) FROM {table}",
                column=sqlite_name(column),
                table=sqlite_table(table),
            )
        ).get
    ]
    own = pair.catalogue.table(table)
    if own.autoincrement and column == own.rowid_alias:
        marks.append(
            pair.source.execute("SELECT max(seq) FROM sqlite_sequence WHERE name = ?", (table,)).get
        )
    return max((int(m) for m in marks if isinstance(m, int)), default=0)
