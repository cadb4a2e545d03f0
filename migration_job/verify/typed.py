"""The typed comparison: each value against the raw source value of the same key.

It names table, key, column and both values of whatever differs. A difference is accepted only
where the ledger holds exactly it: this key and column, this value before, this value after.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from migration_job.plan.model import TablePlan
from migration_job.quoting import compose, postgres_name
from migration_job.stores.sqlite.model import SourceTable
from migration_job.stores.sqlite.reader import batches, read_by_keys, read_rows
from migration_job.stores.sqlite.rowkey import key_columns
from migration_job.values import display, key_text, key_values
from migration_job.verify.connections import (
    Differences,
    Sides,
    columns_of_key,
    compared_columns,
    ledger_for,
    not_quarantined,
    rows_of_source,
)
from migration_job.verify.meaning import as_parameter
from migration_job.verify.typed_bags import as_bag
from migration_job.verify.typed_keys import compare_keys
from migration_job.verify.typed_large import HUGE, compare_large, weight_of
from migration_job.verify.typed_rows import (
    BATCH,
    UNKNOWN,
    Comparison,
    by_position,
    compare_batch,
    expected_of,
    fetch_query,
    rows_of_target,
)

ITEMS_PER_PAGE = 512
"""More row pointers than fit a page of any supported size."""


@dataclass(slots=True)
class Compared:
    """What a comparison found."""

    source_rows: int
    target_rows: int
    digest: str
    """SHA-256 over the meanings of the source's rows, in its order."""
    differences: Differences


def compare_table(sides: Sides, plan: TablePlan) -> Compared:
    """Compare every row of a table. Raises sides.Stopped when cancelled."""
    table = sides.table(plan)
    differences = Differences(table.name)
    if plan.key:
        source_rows, digest, seen = _by_key(sides, plan, table, differences)
        target_rows = _count(sides, plan)
        if target_rows > seen.count:
            _name_extra_rows(sides, plan, seen, differences)
    else:
        source_rows, target_rows, digest = as_bag(sides, plan, table, differences)
    return Compared(source_rows, target_rows, digest, differences)


def _count(sides: Sides, plan: TablePlan) -> int:
    return int(sides.one(compose("SELECT count(*) FROM {rows}", rows=rows_of_source(plan)))[0])


# -------------------------------------------------------------------------------- rows by key


class _Seen:
    """Which rows of the target were met, as a bitmap over their physical places."""

    def __init__(self) -> None:
        self._bits = bytearray()
        self.count = 0

    def add(self, ctid: str) -> None:
        place = self._place(ctid)
        byte, bit = divmod(place, 8)
        if byte >= len(self._bits):
            self._bits.extend(bytes(byte + 1 - len(self._bits) + (64 << 10)))
        if not self._bits[byte] >> bit & 1:
            self._bits[byte] |= 1 << bit
            self.count += 1

    def __contains__(self, ctid: str) -> bool:
        byte, bit = divmod(self._place(ctid), 8)
        return byte < len(self._bits) and bool(self._bits[byte] >> bit & 1)

    @staticmethod
    def _place(ctid: str) -> int:
        page, _, item = ctid.strip("()").partition(",")
        return int(page) * ITEMS_PER_PAGE + int(item)


def _by_key(
    sides: Sides, plan: TablePlan, table: SourceTable, differences: Differences
) -> tuple[int, str, _Seen]:
    columns = [*key_columns(plan.key, table), *(str(c.source) for c in compared_columns(plan))]
    seen, digest = _Seen(), hashlib.sha256()
    comparison = Comparison(sides, plan, table, differences, digest)
    count = 0
    weight = weight_of(plan, table)
    keep = not_quarantined(plan)
    large = f"{weight} > {HUGE}" if weight else ""
    ordinary = " AND ".join(part for part in (keep, f"NOT ({large})" if large else "") if part)
    rows = read_rows(sides.source, table, columns, encoding=sides.plan.encoding, where=ordinary)
    sides.read.begin()
    for batch in batches(rows, max_rows=BATCH):
        sides.go_on()
        sides.read.more(len(batch))
        count += len(batch)
        met = compare_batch(comparison, batch)
        for ctid in met:
            seen.add(ctid)
    if large:
        where = " AND ".join(part for part in (keep, large) if part)
        for ctids in compare_large(comparison, where):
            count += 1
            for ctid in ctids:
                seen.add(ctid)
    return count, digest.hexdigest(), seen


def _name_extra_rows(sides: Sides, plan: TablePlan, seen: _Seen, differences: Differences) -> None:
    """Find the target's rows that answered to no key of the source."""
    keys = columns_of_key(plan)
    outputs = ", ".join(["ctid::text", *(f"{postgres_name(c.target)}::text" for c in keys)])
    for row in rows_of_target(sides, plan, outputs):
        if row[0] not in seen:
            shown = ", ".join(display(v) for v in row[1:])
            differences.add(
                "extra-row",
                f"a row of {plan.target} with key {shown} is on the target and not in the source",
                key=key_text(row[1:]),
            )


# ------------------------------------------------------------------- tables without a key


def compare_ledger_rows(sides: Sides, plan: TablePlan, keys: list[str]) -> Differences:
    """Compare the rows that these ledger keys name; a key that names no row of the source is a
    difference too."""
    table = sides.table(plan)
    values = [key_values(text) for text in keys]
    differences = compare_keys(sides, plan, values)
    rows = read_by_keys(
        sides.source, table, plan.key, encoding=sides.plan.encoding, key=plan.key, keys=values
    )
    present = {key_text(row) for row in rows}
    for text in keys:
        if text not in present:
            differences.add(
                "ledger",
                f"the ledger of {table.name} names row {text}, which the source does not have",
                key=text,
            )
    return differences


def places_of_keys(sides: Sides, plan: TablePlan, keys: list[str]) -> list[str]:
    """Where on the target the rows of these source keys lie, as ``ctid`` texts."""
    table = sides.table(plan)
    key_plans = columns_of_key(plan)
    ledger = ledger_for(sides, table.name, keys)
    wanted: list[list[Any]] = []
    silent = Differences(table.name)
    for text in keys:
        meanings = expected_of(text, key_plans, key_values(text), ledger, silent)
        if UNKNOWN not in meanings:
            pairs = zip(key_plans, meanings, strict=True)
            wanted.append([as_parameter(c, m) for c, m in pairs])
    if not wanted:
        return []
    (rows,) = sides.by_index([fetch_query(plan, (), wanted)])
    found = by_position(rows)
    return [ctid for rows in found.values() for ctid, _ in rows]
