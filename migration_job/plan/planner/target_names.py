"""The names that tables and columns have on the target."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from migration_job.errors import InputError
from migration_job.plan import naming
from migration_job.plan.findings import Findings, some
from migration_job.plan.planner.context import Planning
from migration_job.plan.policy import Policy
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
    """Name every table and column; a name that PostgreSQL cannot have here is a finding."""
    findings = planning.findings
    tables: dict[str, str] = {}
    columns: dict[Place, str] = {}
    for table in planning.catalogue.tables:
        wanted = _wished(planning.policy, set(tables.values()), table.name)
        target = naming.relation_name(wanted, set(tables.values()))
        _note(findings, wanted, target, (table.name, None))
        tables[table.name] = target
        taken: set[str] = set()
        for column in table.columns:
            wanted = _wished(planning.policy, taken, table.name, column.name)
            own = naming.column_name(wanted, taken)
            _note(findings, wanted, own, (table.name, column.name))
            taken.add(own)
            columns[table.name, column.name] = own
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
    return Names(tables, columns, frozenset(tables.values()) | _others(planning.catalogue))


def _wished(policy: Policy, taken: Collection[str], table: str, column: str | None = None) -> str:
    """What the policy calls a table or column, else the source. Raises InputError for a name of the
    policy's that PostgreSQL cannot have there."""
    name = table if column is None else column
    own = policy.table(table).rename if column is None else policy.column(table, column).rename
    if own is None:
        return naming.snake_case(name) if policy.rename == "snake_case" else name
    has = naming.relation_name if column is None else naming.column_name
    if "\x00" in own or has(own, taken) != own:
        place = f"tables.{table}" + (f".columns.{column}" if column is not None else "")
        raise InputError(
            f"the policy's {place}.rename: expected a name that is free on the target, of 1 to "
            f"{naming.MAX_BYTES:,} bytes and not one of PostgreSQL's own, found {own!r}",
            advice="give another name",
        )
    return own


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
