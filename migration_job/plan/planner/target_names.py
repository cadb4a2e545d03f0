"""The names that tables and columns have on the target."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from migration_job.errors import InputError
from migration_job.plan import naming
from migration_job.plan.findings import Findings, some
from migration_job.plan.planner.context import Planning
from migration_job.plan.relations import Place
from migration_job.stores.sqlite.model import Catalogue, SourceTable

MAX_COLUMNS = 1600
"""PostgreSQL's limit of a table."""


@dataclass(frozen=True, slots=True)
class Names:
    """What tables and columns of the source are called on the target."""

    tables: Mapping[str, str]
    columns: Mapping[Place, str]
    relations: frozenset[str]
    """Names that a table, an index or a key of the target has or may get."""

    def free(self, table: SourceTable, name: str) -> str | None:
        """A name of one's own where PostgreSQL's choice is another relation's; else None."""
        if name not in self.relations:
            return None
        return naming.distinct(naming.cut(name), f"{table.name} {name}", self.relations)


def name_everything(planning: Planning) -> Names:
    """Name every table and column; a name that PostgreSQL cannot have here is a finding. Raises
    InputError for one of the policy's that it cannot have."""
    findings, policy = planning.findings, planning.policy
    columns: dict[Place, str] = {}
    others = _others(planning.catalogue)
    wanted = {t.name: policy.name_of(t.name) for t in planning.catalogue.tables}
    tables = _named(wanted, _Room(naming.relation_name, others, "tables."))
    for table in planning.catalogue.tables:
        _note(findings, wanted[table.name], tables[table.name], (table.name, None))
        own = {c.name: policy.name_of(table.name, c.name) for c in table.columns}
        room = _Room(naming.column_name, frozenset(), f"tables.{table.name}.columns.")
        for name, target in _named(own, room).items():
            _note(findings, own[name], target, (table.name, name))
            columns[table.name, name] = target
        if len(table.columns) > MAX_COLUMNS:
            findings.add(
                "too-many-columns",
                "error",
                f"{len(table.columns):,} columns; a PostgreSQL table has {MAX_COLUMNS:,} at "
                "most. Split the table on the source first: no policy resolves this",
                table=table.name,
                resolution="",
            )
    _note_capitals(findings, tables, columns)
    return Names(tables, columns, frozenset(tables.values()) | others)


@dataclass(frozen=True, slots=True)
class _Room:
    """Where names have to be distinct."""

    has: Callable[[str, Collection[str]], str]
    """The name that PostgreSQL can have for a wanted one, beside those that are taken."""
    held: Collection[str]
    """Names that something else has there, which a renamed one must not take from it."""
    place: str
    """Where the policy speaks of it, before the name."""


def _named(wanted: Mapping[str, str], room: _Room) -> dict[str, str]:
    """The target's name for each of the source's, beside which stands the wanted one. Names that
    stay as they are come first: no other takes them away. Raises InputError."""
    found: dict[str, str] = {}
    for name in sorted(wanted, key=lambda one: wanted[one] != one):
        taken = set(found.values())
        if wanted[name] != name:
            _require_free(name, wanted[name], {*taken, *room.held}, room)
        found[name] = room.has(wanted[name], taken)
    return {name: found[name] for name in wanted}


def _require_free(name: str, wanted: str, taken: Collection[str], room: _Room) -> None:
    if "\x00" in wanted or room.has(wanted, taken) != wanted:
        raise InputError(
            f"the policy's {room.place}{name}.rename: expected a name that is free on the target, "
            f"of 1 to {naming.MAX_BYTES:,} bytes and not one of PostgreSQL's own, found {wanted!r}",
            advice="give another name there, under `rename: snake_case` too",
        )


def _note_capitals(
    findings: Findings, tables: Mapping[str, str], columns: Mapping[Place, str]
) -> None:
    """Tell of names that SQL has to quote on PostgreSQL, and need not on the source."""
    found = [name for name in tables.values() if _has_capitals(name)]
    found += [f"{table}.{name}" for (table, _), name in columns.items() if _has_capitals(name)]
    if found:
        findings.add(
            "names-with-capitals",
            "note",
            f"{some(found)}: kept as they are, so that SQL has to quote them on PostgreSQL, which "
            "folds a name without quotes to lower case; an ORM that quotes names finds them",
            count=len(found),
        )


def _has_capitals(name: str) -> bool:
    return any("A" <= letter <= "Z" for letter in name)


def _others(catalogue: Catalogue) -> set[str]:
    """Names of relations beside the tables'."""
    return {
        *(o.name for o in catalogue.others),
        *(i.name for t in catalogue.tables for i in t.indexes),
        *(i.constraint for t in catalogue.tables for i in t.indexes if i.constraint),
        *(t.primary_key_name for t in catalogue.tables if t.primary_key_name),
    }


def _note(findings: Findings, name: str, target: str, place: tuple[str, str | None]) -> None:
    if target == name:
        return
    table, column = place
    what = "table" if column is None else "column"
    if target == naming.cut(name):
        findings.add(
            "name-cut",
            "warning",
            f"the {what}'s name has {len(name.encode()):,} bytes; PostgreSQL keeps the first "
            f"{naming.MAX_BYTES}, in queries as well, so that the long name still finds it",
            table=table,
            column=column,
        )
    else:
        findings.add(
            "renamed",
            "by-action",
            f"PostgreSQL cannot have a {what} called {name!r} here: called {target!r}",
            table=table,
            column=column,
        )
