"""What is known of a table's values: counted, with examples."""

from __future__ import annotations

from collections.abc import Collection, Set
from dataclasses import dataclass, field, replace
from itertools import islice

from migration_job.stores.sqlite.reader import Row
from migration_job.values import SourceValue

EXAMPLES = 5
"""Keys and values shown with a finding."""

MAX_SINGLED_OUT = 100_000
"""Rows of one table that are kept by key (for quarantine); more are only counted."""


@dataclass(slots=True)
class Rows:
    """Rows singled out: all counted, the first few kept to show, many kept by identity.

    Every column of every table has several of these, and nearly all stay empty: so an empty one
    shares what it holds with all others.
    """

    count: int = 0
    keys: tuple[str, ...] = ()
    why: tuple[str, ...] = ()
    ids: Set[Row] = frozenset()

    def without(self, aside: Collection[Row]) -> Rows:
        """The same, with those of these rows that are kept by identity not counted."""
        return replace(self, count=self.count - len(self.ids & frozenset(aside)))

    def add(self, identity: Row, key: str, why: str = "") -> None:
        if identity in self.ids:
            return
        self.count += 1
        self.show(key, why)
        if len(self.ids) < MAX_SINGLED_OUT:
            self._own_ids().add(identity)

    def show(self, key: str, why: str) -> None:
        """Have a row shown while there is room; it is counted elsewhere."""
        if len(self.keys) < EXAMPLES:
            self.keys += (key,)
            self.why += (why,)

    def extend(self, more: Rows) -> None:
        """Add what was singled out among other rows of the table."""
        room = EXAMPLES - len(self.keys)
        self.keys += more.keys[:room]
        self.why += more.why[:room]
        self.count += more.count
        room = MAX_SINGLED_OUT - len(self.ids)
        if more.ids and room > 0:
            self._own_ids().update(islice(more.ids, room))

    def _own_ids(self) -> set[Row]:
        if not isinstance(self.ids, set):
            self.ids = set(self.ids)
        return self.ids


@dataclass(slots=True)
class ColumnFacts:
    """The values of one column, counted."""

    rows: int = 0
    integers: int = 0
    reals: int = 0
    texts: int = 0
    blobs: int = 0
    low: int | None = None
    high: int | None = None
    """Of the integers."""
    heaviest: int = 0
    """Bytes of the largest text or blob."""
    infinities: int = 0
    sample: list[SourceValue] = field(default_factory=list)
    nul: Rows = field(default_factory=Rows)
    """Text with a NUL character."""
    broken: Rows = field(default_factory=Rows)
    """Text with undecodable bytes."""
    unreadable: str = ""
    """Why no value can be read (a generated column that needs a function SQLite does not have)."""

    @property
    def values(self) -> int:
        return self.integers + self.reals + self.texts + self.blobs

    @property
    def nulls(self) -> int:
        return self.rows - self.values

    @property
    def classes(self) -> set[str]:
        """The storage classes met, without null."""
        counts = {
            "integer": self.integers,
            "real": self.reals,
            "text": self.texts,
            "blob": self.blobs,
        }
        return {name for name, count in counts.items() if count}

    def extend(self, more: ColumnFacts) -> None:
        """Add what is true of other rows of the table; the sample is of the whole table."""
        for name in ("rows", "integers", "reals", "texts", "blobs", "infinities"):
            setattr(self, name, getattr(self, name) + getattr(more, name))
        self.low = min((v for v in (self.low, more.low) if v is not None), default=None)
        self.high = max((v for v in (self.high, more.high) if v is not None), default=None)
        self.heaviest = max(self.heaviest, more.heaviest)
        self.nul.extend(more.nul)
        self.broken.extend(more.broken)


@dataclass(slots=True)
class Examination:
    """A rule tried on every value of a column."""

    slow: int = 0
    """Values that do not meet the fast condition."""
    cannot: Rows = field(default_factory=Rows)
    """Values that the rule has no target value for, bad text apart."""
    bad: Rows = field(default_factory=Rows)
    """Text with a NUL character or undecodable bytes that the rule cannot carry."""
    changed: Rows = field(default_factory=Rows)
    cut: Rows = field(default_factory=Rows)
    """Those of ``changed`` of which the target holds less than they say."""

    @property
    def clean(self) -> bool:
        return not self.slow and not self.cannot.count and not self.bad.count
