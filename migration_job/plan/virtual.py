"""Virtual tables: none is carried over as such, so that it must be said whether their rows stand
anywhere else. What only repeats a table's rows can be made again; what does not is carried as an
ordinary table, or would be lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import apsw

from migration_job.plan.facts import Rows
from migration_job.plan.findings import Findings
from migration_job.plan.model import Finding
from migration_job.plan.policy import Policy
from migration_job.plural import counted
from migration_job.quoting import compose, sqlite_name, sqlite_table
from migration_job.stores.sqlite.model import Catalogue, SourceObject
from migration_job.stores.sqlite.search_indexes import Misfit
from migration_job.stores.sqlite.virtual import (
    COMPUTED,
    Derived,
    content_of,
    derived,
    filled_by,
    module_of,
    words_of,
)
from migration_job.values import display

LEFT_BEHIND = "virtual-table-rows-left-behind"

MISFIT = "search-index-misfit"
"""The code of the finding that is told whatever else is: the application itself may fail on it."""

SHOWN = 5
"""Rows that are quoted of a table that would be left behind."""


def with_virtual(catalogue: Catalogue, policy: Policy) -> Catalogue:
    """The catalogue with each virtual table as an ordinary one whose rows stand nowhere else, but
    those that the policy leaves behind by name."""
    carried = tuple(
        table
        for table in catalogue.virtual
        if not policy.accepts(LEFT_BEHIND, table.name, None, table.name)
    )
    return catalogue.model_copy(update={"tables": (*catalogue.tables, *carried)})


def report_virtual(
    connection: apsw.Connection,
    catalogue: Catalogue,
    other: SourceObject,
    findings: Findings,
    remade: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """``remade`` has the application's command by the name of a table that it fills for its search.
    A warning for a virtual table that repeats what other tables hold, or that is carried as an
    ordinary one; an error, which only acknowledging it by name resolves, for one whose rows stand
    nowhere else and cannot be read."""
    name, module = other.name, module_of(other.sql)
    if any(table.name == name for table in catalogue.tables):
        rows = _rows(connection, name)
        findings.add(
            "virtual-table-as-plain",
            "warning",
            f"virtual table {name} ({module}) has {_alone(rows)}: they are carried as an ordinary "
            "table, which PostgreSQL searches as any other, and which --live cannot follow",
            table=name,
            item=name,
            rows=rows,
        )
        return
    shadows = sum(o.kind == "shadow" and o.table == name for o in catalogue.others)
    rows = _rows(connection, name)
    code, judgement = "virtual-table-not-carried", "by-action"
    source = filled_by(catalogue, name)
    again = ""
    if has_content_elsewhere(other.sql):
        kept = "an index over another table's rows"
    elif source is not None:
        kept = f"which a trigger of {source} fills from its rows"
        if source in remade:
            again = f": `{remade[source]}` makes those anew"
    elif module in COMPUTED:
        kept = "which is computed"
    else:
        kept = _alone(rows)
        if rows is None or rows.count:
            code, judgement = LEFT_BEHIND, "error"
    findings.add(
        code,
        judgement,  # type: ignore[arg-type]
        f"virtual table {name} ({module}), {kept}, and its {shadows} shadow tables are "
        "not carried over"
        + again
        + (
            ": copy its rows into an ordinary table on the source to keep them, or accept that "
            "they stay in the SQLite file alone"
            if judgement == "error"
            else ""
        ),
        table=name,
        item=name,
        rows=rows,
    )


def of_misfits(
    found: Sequence[Misfit], catalogue: Catalogue, policy: Policy | None
) -> tuple[Finding, ...]:
    """A warning for each search index of the source that does not fit its rows."""
    told = Findings(policy or Policy(), "widen")
    indexes = {each.name: each for each in derived(catalogue)}
    for misfit in found:
        each = indexes.get(misfit.name)
        told.add(
            MISFIT,
            "warning",
            f"{words_of(misfit.name, misfit.module)} does not fit its rows already: searches may "
            "find what is gone and miss what is there, and a write through it may fail "
            f"({misfit.says}). {_cure(misfit, each)}",
            table=misfit.name,
            item=misfit.name,
        )
    return told.all


def _cure(misfit: Misfit, each: Derived | None) -> str:
    """What makes such an index fit again."""
    name = misfit.name
    if misfit.module.startswith("fts") and (each is None or each.content != ""):
        rebuild = compose("INSERT INTO {name}({name}) VALUES ('rebuild')", name=sqlite_name(name))
        back = "" if each is None else "; the way back does that where it meets it"
        return f"`{rebuild}` on the source recreates it{back}"
    later = "" if each is None else ": the way back cannot write to it, and would name what is lost"
    return f"Nothing in the file recreates it: have the application do that first{later}"


def has_content_elsewhere(sql: str) -> bool:
    """Whether a full-text table says that its content stands elsewhere, or nowhere."""
    return content_of(sql) is not None


def _alone(rows: Rows | None) -> str:
    if rows is None:
        return "rows that this SQLite cannot read and that exist nowhere else"
    if rows.count == 1:
        return "1 row that exists nowhere else"
    return f"{counted(rows.count, 'row')} that exist nowhere else"


def _rows(connection: apsw.Connection, name: str) -> Rows | None:
    """How many rows it has, and the first of them; None where this SQLite cannot read it."""
    table = sqlite_table(name)
    found = Rows()
    try:
        (count,) = connection.execute(
            compose("SELECT count(*) FROM {table}", table=table)
        ).fetchall()[0]
        for row in connection.execute(
            compose("SELECT rowid, * FROM {table} LIMIT {shown}", table=table, shown=SHOWN)
        ):
            shown = ", ".join(display(value, 40) for value in row[1:])
            found.add(row[:1], f"rowid={row[0]}", shown)
    except (apsw.Error, UnicodeDecodeError):
        return None
    found.count = int(count)  # type: ignore[arg-type]
    return found
