"""One name for one constraint of a table: PostgreSQL takes no two alike, SQLite any."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from migration_job.plan import naming
from migration_job.plan.findings import Findings
from migration_job.plan.model import CheckPlan, ForeignKeyPlan, TablePlan
from migration_job.stores.sqlite.model import SourceTable


def named_in_source(table: SourceTable) -> set[str]:
    """The names, as PostgreSQL cuts them, that the source gives to CHECKs and foreign keys."""
    names = [*table.check_names, *(k.constraint for k in table.foreign_keys)]
    return {naming.cut(name) for name in names if name}


def with_distinct_constraints(
    table: TablePlan, named: Collection[str], findings: Findings
) -> TablePlan:
    """The table with no two constraints of one name. Those of keys stay, since they name an index
    as well; of the others those that the source names (``named``) come first, and where one of them
    cannot keep its name a finding says so."""
    if not table.checks and not table.foreign_keys:
        return table
    taken = {unique.name for unique in table.uniques}
    if table.primary_key:
        taken.add(table.primary_key_name or naming.cut(f"{table.target}_pkey"))
    given: dict[int, str] = {}
    parts: list[CheckPlan | ForeignKeyPlan] = [*table.checks, *table.foreign_keys]
    for number in sorted(range(len(parts)), key=lambda n: parts[n].name not in named):
        part = parts[number]
        whole = part.expression if isinstance(part, CheckPlan) else f"{part.parent} {part.columns}"
        name = naming.distinct(part.name, f"{table.target} {whole}", taken)
        taken.add(name)
        given[number] = name
        if name != part.name and part.name in named:
            report_renamed(findings, table.source, part.name, name)
    renamed = [replace(p, name=given[n]) for n, p in enumerate(parts)]
    return table.model_copy(
        update={
            "checks": tuple(p for p in renamed if isinstance(p, CheckPlan)),
            "foreign_keys": tuple(p for p in renamed if isinstance(p, ForeignKeyPlan)),
        }
    )


def report_renamed(findings: Findings, table: str | None, name: str, target: str) -> None:
    """Say that a constraint has another name on the target."""
    findings.add(
        "constraint-renamed",
        "warning",
        f"the constraint {name} is called {target}: PostgreSQL has another of its name",
        table=table,
        item=name,
    )
