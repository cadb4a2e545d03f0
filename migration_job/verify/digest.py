"""The digest: every row of every table, read once from each side and compared as bytes.

Each side's own SQL spells a row as one line of text in which equal lines mean equal values, and
lines are gathered into blocks by the databases themselves. A freshly loaded table lies in the
order in which it was read from the source, so the two streams are equal byte for byte. Where the
order differs (several sessions wrote the table, or rows were updated since) the same spans of the
key are compared, if that is the source's rowid. Otherwise, and where rules changed values, the
lines are compared as a bag, by sums of 128-bit hashes, and the rows that the ledger names are taken
out of the sums and left to the typed comparison.

Lines are unambiguous without escaping: separators and NULL are spelled with one control
character, and both sides count it. A block with more of them than separators and NULLs account
for holds the character in its data, and the table is left to the typed comparison as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from migration_job.plan.model import TablePlan
from migration_job.plural import counted
from migration_job.stores.sqlite.chosen_rows import rows_of
from migration_job.stores.sqlite.database import chain
from migration_job.stores.sqlite.model import SourceTable
from migration_job.stores.sqlite.reader import column_sql
from migration_job.stores.sqlite.rowkey import key_columns
from migration_job.values import key_values
from migration_job.verify.connections import (
    Sides,
    compared_columns,
    ledger_keys,
    not_quarantined,
    rows_expected,
)
from migration_job.verify.digest_blocks import (
    UNCOMPRESSED,
    Block,
    Source,
    Target,
    Unclear,
    is_one_block,
)
from migration_job.verify.digest_lines import LINE, line_of
from migration_job.verify.facts import Facts

WIDEST = 64 << 10
"""Tables with a row larger than this are left to the typed comparison, which holds one at a
time: a block of them could be of any size."""

MOST_LEDGER_ROWS = 50_000
"""With more rows than this touched by rules, the typed comparison of the whole table is cheaper
than fetching them one by one."""

LEDGER_BATCH = 1_000

MODULUS = 1 << 128


@dataclass(frozen=True, slots=True)
class Agreed:
    """The digests agree: every row that the ledger does not name is equal on both sides."""

    rows: int
    digest: str
    ordered: bool


@dataclass(frozen=True, slots=True)
class Doubt:
    """They do not, or cannot say; the typed comparison must."""

    reason: str


# -------------------------------------------------------------------------------- comparison

Places = Callable[[list[str]], list[str]]
"""From the ledger's key texts to the physical places (``ctid``) of their rows on the target."""


def compare(
    sides: Sides, plan: TablePlan, facts: Facts, places: Places, spare: Callable[[], bool]
) -> Agreed | Doubt:
    """Compare all rows of a table; the session on the source has been prepared by
    :func:`migration_job.stores.sqlite.database.equip`. ``places`` finds the rows that the ledger's
    keys became, which are left out of the digests. ``spare`` says whether a core is idle: then
    both sides work at once. Raises sides.Stopped when cancelled."""
    table = sides.table(plan)
    line = line_of(plan, table, facts.columns[plan.target])
    if line is None:
        return Doubt("a column that SQL alone cannot compare")
    rows, size, widest = _measure(sides, plan, table)
    if widest > WIDEST:
        return Doubt("rows too large for blocks")
    touched = facts.ledger.get(table.name, 0)
    if touched > MOST_LEDGER_ROWS or (touched and not plan.key):
        return Doubt(f"{counted(touched, 'value')} changed by rules")
    source = Source(sides, plan, table, line)
    target = Target(sides, plan, line, facts.pages.get(plan.target, 0), spare)
    try:
        if not touched:
            agreed = _in_order(source, target, size)
            if agreed is None and plan.rowid_key is not None:
                agreed = _in_key_order(source, target, plan.rowid_key, spare)
            if agreed is not None and rows in (None, agreed.rows):
                return agreed
        if rows is None:
            rows = rows_expected(sides, plan)
        key = key_columns(plan.key, table)
        named = _Named(sides, table, key, places)
        return _as_bags(source, target, rows, size, named)
    except Unclear as reason:
        return Doubt(str(reason))


def _measure(sides: Sides, plan: TablePlan, table: SourceTable) -> tuple[int | None, int, int]:
    """Rows that the target must hold (None: its one block says so), a guess at their bytes (0: as
    on the target's pages), and a size that no row exceeds."""
    if is_one_block(plan):
        return None, 0, 0
    sizes = [
        f"ifnull(octet_length({column_sql(table, str(c.source))}), 0)"
        for c in compared_columns(plan)
        if not c.type.startswith(("int", "smallint", "bigint", "boolean", "double", "time", "date"))
    ]
    keep = not_quarantined(plan)
    source = f"FROM {rows_of(table)} AS t" + (f" WHERE {keep}" if keep else "")

    def ask(*terms: str) -> tuple[int, ...]:
        found = sides.source.execute(f"SELECT {', '.join(terms)} {source}").fetchone()
        return tuple(int(value or 0) for value in found or ())

    if plan.widest is not None and plan.widest <= UNCOMPRESSED:
        (rows,) = ask("count(*)")
        return rows, 0, plan.widest
    rows, *longest = ask("count(*)", *(f"max({size})" for size in sizes))
    if sum(longest) <= UNCOMPRESSED:
        return rows, 0, sum(longest)
    weight = chain("+", sizes)
    size, widest = ask(f"total({weight})", f"max({weight})")
    return rows, size + rows * 10 * len(plan.columns), widest


class _Stream:
    """A side's blocks as one text, of which as much is kept as the other side has not reached."""

    def __init__(self, blocks: Iterator[Block]) -> None:
        self._blocks = blocks
        self.rows = self.nulls = 0
        self.text, self.start = b"", 0
        """What is not compared yet: the text from this place on."""

    @property
    def left(self) -> int:
        return len(self.text) - self.start

    def more(self) -> bool:
        """Take the next block, once all that was taken is compared; False where there is none."""
        block = next(self._blocks, None)
        if block is None:
            return False
        # A joint stands between any two blocks.
        self.text, self.start = LINE.encode() + block.data, 0
        self.rows += block.rows
        self.nulls += block.nulls
        return True

    def goes_on_like(self, other: _Stream) -> bool:
        """Whether all that is left of ``other``, and no more than is left here, is what comes next
        here; both move on behind it."""
        piece = other.text if other.start == 0 else other.text[other.start :]
        # In place: slices of both sides would be as many copies.
        same = self.text.startswith(piece, self.start)
        self.start += len(piece)
        other.start += len(piece)
        return same


def _in_order(source: Source, target: Target, size: int) -> Agreed | None:
    """Compare the two streams byte by byte; None at the first byte that differs.

    The marks of the source alone are counted: equal texts have equally many, and as many rows and
    NULLs on both sides take up as many of them, so that none is left to the target's data. A NULL
    that the source has not would leave a field out of its line: each side's blocks are refused
    where there is one.
    """
    digest = hashlib.sha256()
    here, there = _Stream(source.blocks()), _Stream(target.blocks(size, count_marks=False))
    while True:
        if not here.left and here.more():
            digest.update(here.text)
        if not there.left:
            there.more()
        if not here.left or not there.left:
            break
        shorter, longer = (here, there) if here.left <= there.left else (there, here)
        if not longer.goes_on_like(shorter):
            return None
    if here.left or there.left or (here.rows, here.nulls) != (there.rows, there.nulls):
        return None
    return Agreed(here.rows, digest.hexdigest(), ordered=True)


def _in_key_order(
    source: Source, target: Target, key: str, spare: Callable[[], bool]
) -> Agreed | None:
    """Compare the same spans of keys on both sides, for rows that lie on the target in another
    order, because several sessions wrote them or some were changed since; None at the first span
    that differs. The digest is that of :func:`_in_order`."""
    digest = hashlib.sha256()
    rows = 0
    with ThreadPoolExecutor(1) as pool:
        for span in source.spans():
            ahead = pool.submit(target.between, key, span) if spare() else None
            here = source.block(span)
            there = target.between(key, span) if ahead is None else ahead.result()
            if here is None or there is None:
                if here is not there:
                    return None
                continue
            if (here.data, here.rows, here.nulls) != (there.data, there.rows, there.nulls):
                return None
            digest.update(LINE.encode())
            digest.update(here.data)
            rows += here.rows
    return Agreed(rows, digest.hexdigest(), ordered=True)


def _hash_sum(lines: list[bytes]) -> int:
    total = 0
    for line in lines:
        total += int.from_bytes(hashlib.blake2b(line, digest_size=16).digest(), "big")
    return total


def _stream_sum(blocks: Iterator[Block]) -> tuple[int, int]:
    total = rows = 0
    joint = LINE.encode()
    for block in blocks:
        total += _hash_sum(block.data.split(joint))
        rows += block.rows
    return total, rows


@dataclass(frozen=True, slots=True)
class _Named:
    """The rows of one table that the ledger names."""

    sides: Sides
    table: SourceTable
    key: tuple[str, ...]
    places: Places

    def sums(self, source: Source, target: Target) -> Iterator[tuple[int, int]]:
        """The sums of their lines' hashes on both sides, batch by batch."""
        for keys in ledger_keys(self.sides, self.table.name, LEDGER_BATCH):
            self.sides.go_on()
            values = [key_values(text) for text in keys]
            here = _hash_sum(source.of_keys(self.table, self.key, values))
            yield here, _hash_sum(target.at(self.places(keys)))


def _as_bags(source: Source, target: Target, rows: int, size: int, named: _Named) -> Agreed | Doubt:
    """Compare the lines' sums, without the rows that the ledger names."""
    here, rows_here = _stream_sum(source.blocks())
    there, rows_there = _stream_sum(target.blocks(size))
    if not rows_here == rows == rows_there:
        return Doubt(f"{counted(rows, 'row')} expected, {rows_there:,} found")
    digest = f"{there % MODULUS:032x}"
    for named_here, named_there in named.sums(source, target):
        here -= named_here
        there -= named_there
    if here % MODULUS != there % MODULUS:
        return Doubt("digests that differ")
    return Agreed(rows, digest, ordered=False)
