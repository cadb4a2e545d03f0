"""Virtual tables: what module each is of, and where its rows come from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from migration_job.stores.sqlite.model import Catalogue, SourceObject
from migration_job.stores.sqlite.sqltext import TriggerText, parse_trigger, split_commas, tokenize
from migration_job.values import fold

COMPUTED = frozenset(
    {"dbstat", "fts3tokenize", "fts4aux", "fts5vocab", "generate_series", "sqlite_dbpage"}
)
"""Modules whose tables show what stands elsewhere in the file, or is computed."""

_FULL_TEXT = re.compile(r"fts[345]")
_R_TREE = ("rtree", "rtree_i32", "geopoly")


@dataclass(frozen=True, slots=True)
class Derived:
    """A virtual table whose rows repeat what other tables hold."""

    name: str
    module: str
    content: str | None
    """Of a full-text index over another table or view: its name; '' where its content stands
    nowhere, None where it is its own and triggers feed it."""
    bases: frozenset[str]
    """The folded names of the tables that it follows; none where they are not known."""

    @property
    def fed(self) -> bool:
        """Whether the application's triggers keep it, row by row, and nothing can recreate it."""
        return not self.content and bool(self.bases)

    @property
    def words(self) -> str:
        """For people."""
        if _FULL_TEXT.fullmatch(self.module):
            return f"the full-text index {self.name}"
        if self.module in _R_TREE:
            return f"the R-tree {self.name}"
        return f"the virtual table {self.name} ({self.module})"


def module_of(sql: str) -> str:
    """The module's name in lower case; '?' where the text tells none."""
    tokens = tokenize(sql)
    using = next((i for i, t in enumerate(tokens[:-1]) if t.is_word("USING")), None)
    return "?" if using is None else tokens[using + 1].name.lower()


def content_of(sql: str) -> str | None:
    """What a full-text table says of where its content stands: the name of a table or view, ''
    for nowhere; None where it is its own, and for other modules."""
    tokens = tokenize(sql)
    if not _FULL_TEXT.match(module_of(sql)):
        return None  # an argument of another module's may be called so, and mean anything
    opening = next((i for i, t in enumerate(tokens) if t.is_symbol("(")), len(tokens))
    for part in split_commas(tokens[opening + 1 : -1]):
        if len(part) > 1 and part[0].is_word("CONTENT") and part[1].is_symbol("="):
            return part[2].name if len(part) > 2 else ""
    return None


def feeders(catalogue: Catalogue, name: str) -> Iterator[tuple[str, TriggerText]]:
    """The triggers of tables that write to a virtual table, each with its table's name."""
    tables = {fold(table.name) for table in catalogue.tables}
    for other in catalogue.others:
        if other.kind != "trigger" or fold(other.table) not in tables:
            continue
        text = parse_trigger(other.sql)
        if text is not None and any(table == fold(name) for table, _ in text.statements):
            yield other.table, text


def filled_by(catalogue: Catalogue, name: str) -> str | None:
    """The table whose trigger inserts into a virtual table as its own rows are inserted; None
    where there is none."""
    return next((t for t, text in feeders(catalogue, name) if text.event == "INSERT"), None)


def derived(catalogue: Catalogue) -> Iterator[Derived]:
    """Each virtual table whose rows repeat other tables': full-text indexes over another table or
    view, those without content, and what the application's own triggers fill."""
    for other in catalogue.others:
        if other.kind == "virtual" and (found := derived_from(catalogue, other)) is not None:
            yield found


def derived_from(catalogue: Catalogue, other: SourceObject) -> Derived | None:
    """The virtual table as a derived one; None where it may have rows of its own."""
    content = content_of(other.sql)
    module = module_of(other.sql)
    if content:
        tables = {fold(table.name) for table in catalogue.tables}
        return Derived(other.name, module, content, frozenset({fold(content)} & tables))
    if content is None and filled_by(catalogue, other.name) is None:
        return None
    bases = frozenset(fold(table) for table, _ in feeders(catalogue, other.name))
    return Derived(other.name, module, content, bases)
