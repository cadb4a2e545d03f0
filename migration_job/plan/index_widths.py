"""How wide the entries of an index become, and whether PostgreSQL takes them."""

from __future__ import annotations

import apsw

from migration_job.plan.observe import Observer
from migration_job.plan.quarantine import Quarantine
from migration_job.plan.table_views import ColumnView, TableView
from migration_job.stores.sqlite.model import SourceIndex, SourceIndexColumn
from migration_job.stores.sqlite.reader import column_sql

MAX_INDEX_BYTES = 2_680
"""A B-tree's entry is refused beyond 2,704 bytes, header included; compression may save it, but
not surely."""

TERM_BYTES = 16
"""What any value takes of an entry at most, beside the bytes of text: its length and its
alignment, or all of a number or a time."""

NUMERIC_BYTES = 200
"""All digits of the largest double as a numeric."""

MAX_INDEX_COLUMNS = 32
"""PostgreSQL's limit of an index, so of a key and a reference."""


class IndexWidths:
    """The sizes of the values that are carried, each looked up once."""

    def __init__(self, observer: Observer, quarantine: Quarantine, encoding: str) -> None:
        self._observer = observer
        self._quarantine = quarantine
        self._encoding = encoding
        self._widths: dict[tuple[str, str], int] = {}

    def too_wide(self, view: TableView, index: SourceIndex) -> bool:
        """Whether an entry of the index would not fit a page of a B-tree."""
        return sum(self.width(view, term) for term in index.columns) > MAX_INDEX_BYTES

    def width(self, view: TableView, term: SourceIndexColumn) -> int:
        """Bytes that the largest value takes of the index's entry."""
        if term.column is None and term.expression is not None:
            try:
                return self._in_utf8(self._heaviest(view, term.expression))
            except apsw.Error:
                return TERM_BYTES
        column = view.columns.get(term.column or "")
        return TERM_BYTES if column is None else self.width_of(view, column)

    def width_of(self, view: TableView, column: ColumnView) -> int:
        """Bytes that the largest value of a column takes of an index's entry."""
        if column.type.startswith("numeric"):
            return NUMERIC_BYTES
        whole = self._in_utf8(column.facts.heaviest)
        if whole * MAX_INDEX_COLUMNS <= MAX_INDEX_BYTES:
            return whole  # too little to matter, with or without rows in quarantine
        return self._in_utf8(self._heaviest(view, column_sql(view.source, column.source.name)))

    def _heaviest(self, view: TableView, expression: str) -> int:
        """Bytes of the largest value among the rows that are carried."""
        place = (view.source.name, expression)
        if place not in self._widths:
            kept = self._quarantine.kept(view.source)
            self._widths[place] = self._observer.heaviest(view.source, expression, kept)
        return self._widths[place]

    def _in_utf8(self, size: int) -> int:
        """Two bytes of UTF-16 are three of UTF-8 at most."""
        wider = size if self._encoding == "UTF-8" else size * 3 // 2
        return TERM_BYTES + wider


def too_many(index: SourceIndex) -> bool:
    """Whether the index has more columns than PostgreSQL's have."""
    return len(index.columns) > MAX_INDEX_COLUMNS
