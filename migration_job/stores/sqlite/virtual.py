"""Virtual tables: what module each is of, and where its rows come from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import apsw

from migration_job.quoting import compose, sqlite_name, sqlite_table
from migration_job.stores.sqlite.model import Catalogue, SourceObject
from migration_job.stores.sqlite.sqltext import (
    TriggerText,
    closing,
    parse_trigger,
    split_commas,
    text_of,
    tokenize,
)
from migration_job.values import fold

COMPUTED = frozenset(
    {"dbstat", "fts3tokenize", "fts4aux", "fts5vocab", "generate_series", "sqlite_dbpage"}
)
"""Modules whose tables show what stands elsewhere in the file, or is computed."""

SEARCH_INDEX = (
    "malformed inverted index for FTS",
    "unable to validate the inverted index for FTS",
    "invalid fts5 file format",
    "fts5: ",
    "In RTree ",
    "undersize RTree blobs in ",
)
"""How ``integrity_check`` begins what it says of a virtual table's own index."""

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
        return words_of(self.name, self.module)


def words_of(name: str, module: str) -> str:
    """A virtual table, for people."""
    if _FULL_TEXT.fullmatch(module):
        return f"the full-text index {name}"
    if module in _R_TREE:
        return f"the R-tree {name}"
    return f"the virtual table {name} ({module})"


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


def arguments_of(sql: str) -> str:
    """What stands between the parentheses of a CREATE VIRTUAL TABLE; '' where there are none."""
    tokens = tokenize(sql)
    opening = next((i for i, t in enumerate(tokens) if t.is_symbol("(")), None)
    if opening is None:
        return ""
    return text_of(sql, tokens[opening + 1 : closing(tokens, opening)])


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


def rebuild(connection: apsw.Connection, name: str) -> None:
    """Have a full-text index made again from its content, in the caller's transaction. Raises
    apsw.Error."""
    tell(connection, name, "rebuild")


def tell(connection: apsw.Connection, name: str, command: str) -> None:
    """Give a full-text index one of its commands. Raises apsw.Error."""
    connection.execute(
        compose(
            "INSERT INTO {table} ({column}) VALUES (?)",
            table=sqlite_table(name),
            column=sqlite_name(name),
        ),
        (command,),
    )
