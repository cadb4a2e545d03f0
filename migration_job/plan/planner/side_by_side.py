"""Looking at the source through several connections at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import apsw

from migration_job.plan.facts import ColumnFacts
from migration_job.plan.observe import Observer
from migration_job.plan.pace import Pace, Told
from migration_job.plan.quarantine import Quarantine
from migration_job.plan.relations import Place
from migration_job.plan.row_names import Span
from migration_job.signals import undisturbed
from migration_job.stores.sqlite.model import Catalogue, SourceTable

PARTS_PER_READER = 3
"""A large table is looked at in so many parts for each connection, since some take longer."""

_Item = TypeVar("_Item")
_Found = TypeVar("_Found")

TableFacts = dict[str, ColumnFacts]
"""A table's columns with what is known of them."""


@dataclass(frozen=True, slots=True)
class Reader:
    """What looks at the source through one connection."""

    observer: Observer
    quarantine: Quarantine


@dataclass(frozen=True, slots=True)
class Readers:
    """One reader for each connection to the same state."""

    all: tuple[Reader, ...]
    pace: Pace

    @classmethod
    def over(
        cls,
        connections: Sequence[apsw.Connection],
        catalogue: Catalogue,
        told: Told | None = None,
    ) -> Readers:
        """``told`` hears how far they are."""
        pace = Pace(told)
        pace.begin(connections[0], catalogue)
        readers = (Reader(Observer(c, catalogue), Quarantine(c, catalogue)) for c in connections)
        return cls(tuple(readers), pace)

    @property
    def first(self) -> Reader:
        return self.all[0]

    @property
    def parts(self) -> int:
        """Into how many parts a large table is worth dividing."""
        return len(self.all) * PARTS_PER_READER if len(self.all) > 1 else 1

    def by_part(
        self,
        tables: Sequence[SourceTable],
        begin: Callable[[Reader, SourceTable], tuple[Sequence[Span], _Item]],
        work: Callable[[Reader, SourceTable, Span, _Item], _Found],
    ) -> list[tuple[Sequence[Span], _Item, list[_Found]]]:
        """``begin`` on every table, and ``work`` on each of the parts that it names; for each table
        the parts, what ``begin`` gave beside them, and what ``work`` found in each."""

        def first(reader: Reader, table: SourceTable) -> tuple[Sequence[Span], _Item, list[_Found]]:
            spans, item = begin(reader, table)
            # A table in one part at once, while SQLite still has its pages.
            done = [work(reader, table, spans[0], item)] if len(spans) == 1 else []
            return spans, item, done

        begun = self.at_once(first, tables)
        parts = [
            (table, span, item)
            for table, (spans, item, done) in zip(tables, begun, strict=True)
            if not done
            for span in spans
        ]
        found = iter(self.at_once(lambda reader, part: work(reader, *part), parts))
        return [
            (spans, item, done or list(islice(found, len(spans)))) for spans, item, done in begun
        ]

    def at_once(
        self, work: Callable[[Reader, _Item], _Found], items: Sequence[_Item]
    ) -> list[_Found]:
        """``work`` on every item, in a thread for each connection; the results in the items'
        order. The first error ends it and is raised."""
        found: dict[int, _Found] = {}
        numbers = iter(range(len(items)))
        failed = threading.Event()

        def some(reader: Reader) -> None:
            try:
                for number in numbers:
                    if failed.is_set():
                        return
                    found[number] = work(reader, items[number])
            except BaseException:
                failed.set()
                raise

        # One future for each thread, not for each item, whose end would wake this thread.
        with ThreadPoolExecutor(len(self.all)) as pool:
            with undisturbed():
                futures = [pool.submit(some, reader) for reader in self.all]
            for future in futures:
                future.result()
        return [found[number] for number in range(len(items))]


@dataclass(frozen=True, slots=True)
class Seen:
    """What the values of every table are."""

    facts: Mapping[str, Mapping[str, ColumnFacts]]
    """By table and column."""
    spans: Mapping[str, Sequence[Span]]
    """What of each table is looked at in one go: the whole, or each of some parts."""

    def of(self, place: Place) -> ColumnFacts:
        """The facts of one column."""
        return self.facts[place[0]][place[1]]


def observe(readers: Readers, catalogue: Catalogue) -> Seen:
    """Look at every value of every table."""

    def begin(reader: Reader, table: SourceTable) -> tuple[Sequence[Span], tuple[TableFacts, int]]:
        sample, bounds = reader.observer.sample(table)
        parts = reader.observer.spans(table, bounds, readers.parts)
        return parts, (sample, len(parts))

    def look(
        reader: Reader, table: SourceTable, span: Span, begun: tuple[TableFacts, int]
    ) -> TableFacts:
        sample, parts = begun
        facts = reader.observer.facts(table, sample, span)
        reader.observer.look_at_text(table, facts, span)
        readers.pace.counted(table, max(f.rows for f in facts.values()), parts)
        return facts

    facts: dict[str, TableFacts] = {}
    spans: dict[str, Sequence[Span]] = {}
    looked = readers.by_part(catalogue.tables, begin, look)
    for table, (own_spans, _, found) in zip(catalogue.tables, looked, strict=True):
        spans[table.name] = own_spans
        facts[table.name] = _whole(table, found)
    return Seen(facts, spans)


def _whole(table: SourceTable, parts: Sequence[TableFacts]) -> TableFacts:
    """The facts of a table that was looked at in parts."""
    whole, *others = parts
    for part in others:
        for column, own in whole.items():
            own.extend(part[column])
    alias = table.rowid_alias
    if alias is not None and table.sequence is not None:
        whole[alias].high = max(whole[alias].high or 0, table.sequence)
    return whole
