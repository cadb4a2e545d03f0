"""Rows with large values: compared one by one, so that memory stays flat."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from typing import cast

from migration_job.plan.model import ColumnPlan, TablePlan
from migration_job.quoting import compose, postgres_name
from migration_job.stores.sqlite.catalogue import rowid_name
from migration_job.stores.sqlite.chosen_rows import rows_of
from migration_job.stores.sqlite.database import chain
from migration_job.stores.sqlite.model import SourceTable
from migration_job.stores.sqlite.reader import ROWID, Row, column_sql, read_by_keys, read_rows
from migration_job.values import SourceValue, key_text
from migration_job.verify import meaning_target
from migration_job.verify.connections import compared_columns, target_name
from migration_job.verify.typed_rows import Comparison, compare_batch

HUGE = 4 << 20
"""Rows larger than this (bytes of text and blobs) are compared one by one, and their large values
by length and SHA-256, so that memory stays flat."""

BLOBS = frozenset({"bytea", "widened-bytea"})
TEXTS = frozenset({"text", "widened-text", "json"})
"""Rules whose large values are compared by the hash of their bytes."""

WHOLE = frozenset({"jsonb", "json-blob", "jsonb-blob", "text-bytea", "numeric-text", "map"})
"""Rules whose values may be as large, and are compared whole."""

UNBOUNDED = BLOBS | TEXTS | WHOLE | meaning_target.UNBOUNDED


def weight_of(plan: TablePlan, table: SourceTable) -> str:
    """The bytes of a row's text and blobs, as SQLite's expression; '' where all are small."""
    terms = [
        f"ifnull(octet_length({column_sql(table, str(c.source))}), 0)"
        for c in plan.copied
        if c.rule.kind in UNBOUNDED
    ]
    return f"({chain('+', terms)})" if terms else ""


def compare_large(of: Comparison, where: str) -> Iterator[list[str]]:
    """Compare the rows that ``where`` names, one by one; yields the places met for each."""
    source, encoding = of.sides.source, of.sides.plan.encoding
    key = of.key
    keys = list(read_rows(source, of.table, key, encoding=encoding, where=where))
    for row in keys:
        of.sides.go_on()
        large = _large_columns(of, row)
        small = of.plan.model_copy(
            update={"columns": tuple(c for c in of.plan.columns if c.source not in large)}
        )
        names = [*key, *(str(c.source) for c in compared_columns(small))]
        rows = list(read_by_keys(source, of.table, names, encoding=encoding, key=key, keys=[row]))
        met = compare_batch(replace(of, plan=small), rows)
        for column in of.plan.copied:
            if column.source in large and met:
                _compare_large_value(of, row, column, met[0])
        yield met


def _large_columns(of: Comparison, row: Row) -> set[str]:
    """The columns of a row whose values are compared by their hash."""
    sides, plan, table = of.sides, of.plan, of.table
    if rowid_name(table) is None or sides.plan.encoding != "UTF-8":
        return set()
    candidates = [
        c
        for c in plan.copied
        if c.source not in plan.key and c.clean and c.rule.kind in BLOBS | TEXTS
    ]
    if not candidates:
        return set()
    rowid = _rowid_of(of, row)
    tests = ", ".join(
        f"octet_length({r}) > {HUGE // 4} AND typeof({r}) = "
        f"'{'blob' if c.rule.kind in BLOBS else 'text'}'"
        for c in candidates
        for r in [column_sql(table, str(c.source))]
    )
    found = sides.source.execute(
        compose(
            "SELECT {tests} FROM {table} AS t WHERE {rowid_name} = ?",
            tests=tests,
            table=rows_of(table),
            rowid_name=rowid_name(table),
        ),
        (rowid,),
    ).fetchone()
    if found is None:
        return set()
    return {str(c.source) for c, large in zip(candidates, found, strict=True) if large}


def _rowid_of(of: Comparison, row: Row) -> SourceValue:
    encoding = of.sides.plan.encoding
    return next(
        read_by_keys(of.sides.source, of.table, [ROWID], encoding=encoding, key=of.key, keys=[row])
    )[0]


def _compare_large_value(of: Comparison, row: Row, column: ColumnPlan, ctid: str) -> None:
    sides, table = of.sides, of.table
    rowid = cast(int, _rowid_of(of, row))
    digest, size = hashlib.sha256(), 0
    with sides.source.blob_open("main", table.name, str(column.source), rowid, False) as blob:
        while piece := blob.read(1 << 20):
            digest.update(piece)
            size += len(piece)
    name = postgres_name(column.target)
    content = name if column.rule.kind in BLOBS else f"convert_to({name}::text, 'UTF8')"
    (there,) = sides.rows_of(
        compose(
            "SELECT encode(sha256({content}), 'hex'), octet_length({content}) "
            "FROM ONLY {target_name} WHERE ctid = $1::tid",
            content=content,
            target_name=target_name(of.plan),
        ),
        (ctid,),
    )
    if (digest.hexdigest(), size) != tuple(there):
        text = key_text(row)
        of.differences.add(
            "value",
            f"{table.name}, row {text}, column {column.source}: {size:,} bytes with SHA-256 "
            f"{digest.hexdigest()}, target {there[1]:,} bytes with {there[0]}: differs",
            key=text,
            column=column.source,
            source=f"{size:,} bytes, SHA-256 {digest.hexdigest()}",
            target=f"{there[1]:,} bytes, SHA-256 {there[0]}",
        )
