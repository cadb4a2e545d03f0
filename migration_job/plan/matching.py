"""Which table and column of a schema that is there already is whose of the source's.

By name: the very same, else the only one that differs in its case alone, else what the policy's
``rename`` says. What stands on one side only is a finding, except where nothing would be lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from migration_job.errors import InputError
from migration_job.plan.bookkeeping import is_bookkeeping, version_columns
from migration_job.plan.findings import Findings, policy_for_column, policy_for_table, some
from migration_job.plan.policy import Policy
from migration_job.plan.searching import holds_search, remade_by
from migration_job.plan.target import OutsideTable, TargetColumn, TargetSchema, TargetTable
from migration_job.plural import counted, either
from migration_job.stores.sqlite.model import (
    Catalogue,
    SourceColumn,
    SourceForeignKey,
    SourceTable,
)
from migration_job.values import fold


@dataclass(frozen=True, slots=True)
class Counts:
    """How much of the source there is, asked only where a place is missing."""

    rows: Callable[[SourceTable], int]
    values: Callable[[SourceTable, SourceColumn], int]
    """Other than NULL."""
    versions: Callable[[SourceTable, Sequence[str]], tuple[str, ...]]
    """Of a table in which migrations keep book, sorted."""


@dataclass(slots=True)
class TableMatch:
    """A table of the source's and its place."""

    source: SourceTable
    target: TargetTable
    columns: dict[str, TargetColumn] = field(default_factory=dict)
    """By the source's name."""

    def source_of(self, column: str) -> SourceColumn | None:
        """The source's column that fills one of the target's."""
        names = [name for name, there in self.columns.items() if there.name == column]
        return next((c for c in self.source.columns if c.name in names), None)


@dataclass(slots=True)
class Matched:
    """What belongs together, in the source's order, and what is the target's alone."""

    tables: list[TableMatch]
    alone: list[TargetTable]
    schema: str
    """Of the target."""
    outside: tuple[OutsideTable, ...] = ()
    remade: dict[str, str] = field(default_factory=dict)
    """By the source's name of a table that the application fills for its search, its command that
    does so."""

    def sources(self) -> tuple[SourceTable, ...]:
        """The source's tables as the target demands them: its NOT NULL and its foreign keys, and
        none of the source's own constraints, which hold there anyway."""
        by_target = {match.target.name: match for match in self.tables}
        return tuple(_demanded(match, by_target, self.schema) for match in self.tables)


def match(
    catalogue: Catalogue, target: TargetSchema, policy: Policy, findings: Findings, counts: Counts
) -> Matched:
    """Find each table's and column's place. Raises InputError where the policy's ``rename`` names
    what is not there."""
    found: list[TableMatch] = []
    kept: set[str] = set()
    remade: dict[str, str] = {}
    for table in catalogue.tables:
        there = _place_of(table, target, policy)
        how = remade_by(table.name, there)
        if how is not None and there is not None:
            kept.add(there.name)
            remade[table.name] = how
            _report_remade(table, there, how, findings, counts)
            continue
        if _is_targets_own(table, there, policy):
            if there is not None:
                kept.add(there.name)
                _report_kept(table, there, target, policy, findings, counts)
            continue
        if there is None:
            _without_place(table, findings, counts.rows(table))
            continue
        if _usable(table, there, findings):
            found.append(_columns(TableMatch(table, there), policy, findings, counts))
    _refuse_twice(found)
    taken = {one.target.name for one in found}
    alone = [t for t in target.tables if t.name not in taken and t.kind == "table"]
    for one in found:
        _report_rows(one, policy, findings)
    for own in alone:
        if own.name not in kept:
            _report_alone(own, policy, findings)
    return Matched(found, alone, target.name, target.outside, remade)


# ---------------------------------------------------------------------------------------- names


def _place_of(table: SourceTable, target: TargetSchema, policy: Policy) -> TargetTable | None:
    renamed = policy.table(table.name).rename
    if renamed is not None:
        there = target.table(renamed)
        if there is None:
            raise InputError(
                f"the policy's tables.{table.name}.rename: expected a table of schema "
                f"{target.name}, found {renamed!r}",
                advice="give the target's name as it is spelled there",
            )
        return there
    exact = target.table(table.name)
    if exact is None:
        exact = target.table(policy.name_of(table.name))
    if exact is not None:
        return exact
    alike = [t for t in target.tables if fold(t.name) == fold(table.name)]
    return alike[0] if len(alike) == 1 else None


def _column_of(column: SourceColumn, match: TableMatch, policy: Policy) -> TargetColumn | None:
    renamed = policy.column(match.source.name, column.name).rename
    if renamed is not None:
        there = match.target.column(renamed)
        if there is None:
            raise InputError(
                f"the policy's tables.{match.source.name}.columns.{column.name}.rename: expected a "
                f"column of the target's {match.target.name}, found {renamed!r}",
                advice="give the target's name as it is spelled there",
            )
        return there
    exact = match.target.column(column.name)
    if exact is None:
        exact = match.target.column(policy.name_of(match.source.name, column.name))
    if exact is not None:
        return exact
    alike = [c for c in match.target.columns if fold(c.name) == fold(column.name)]
    return alike[0] if len(alike) == 1 else None


def _refuse_twice(found: Sequence[TableMatch]) -> None:
    """Raises InputError where two tables or columns have one place."""
    places: dict[str, str] = {}
    for one in found:
        other = places.setdefault(one.target.name, one.source.name)
        if other != one.source.name:
            raise _one_place(f"the tables {other} and {one.source.name}", one.target.name)
        columns: dict[str, str] = {}
        for name, there in one.columns.items():
            first = columns.setdefault(there.name, name)
            if first != name:
                raise _one_place(
                    f"{one.source.name}'s columns {first} and {name}",
                    f"{one.target.name}.{there.name}",
                )


def _one_place(what: str, place: str) -> InputError:
    return InputError(
        f"expected a place for each, found {place} for both of {what}",
        advice="say which is whose by the policy's `rename`, or leave one out by `skip`",
    )


# -------------------------------------------------------------------------------------- tables


def _is_targets_own(table: SourceTable, there: TargetTable | None, policy: Policy) -> bool:
    rows = policy.table(table.name).rows
    if rows != "replace":
        return rows == "keep"
    if not is_bookkeeping(table.name, policy.bookkeeping):
        return False
    # An application may have a table `migrations` of its own.
    wanted = version_columns(table.name) or ()
    return {fold(c) for c in wanted} <= {fold(c.name) for c in table.columns} or there is None


def _report_remade(
    table: SourceTable, there: TargetTable, how: str, findings: Findings, counts: Counts
) -> None:
    rows = counts.rows(table)
    findings.add(
        "search-table",
        "warning",
        f"an index for the application's search, which each engine holds in its own way: "
        f"{counted(rows, 'row')} of the source's {either(rows, 'is', 'are')} not carried over, and "
        f"{counted(there.rows, 'row')} of the target's own {either(there.rows, 'stays', 'stay')}. "
        f"`{how}` fills it: run it on PostgreSQL after the switch, and on SQLite after a rollback",
        table=table.name,
        count=rows,
    )


def _report_kept(
    table: SourceTable,
    there: TargetTable,
    target: TargetSchema,
    policy: Policy,
    findings: Findings,
    counts: Counts,
) -> None:
    if not is_bookkeeping(table.name, policy.bookkeeping):
        findings.add(
            "target-rows-kept",
            "warning",
            f"{counted(there.rows, 'row')} of the target's own "
            f"{either(there.rows, 'stays', 'stay')}, by the policy; "
            f"{counted(counts.rows(table), 'row')} of the source's "
            f"{either(counts.rows(table), 'is', 'are')} not carried over",
            table=table.name,
            count=counts.rows(table),
        )
        return
    findings.add(
        "bookkeeping-kept",
        "note",
        f"migrations record their versions in {there.name}: the target's own "
        f"{counted(there.rows, 'row')} {either(there.rows, 'stays', 'stay')}",
        table=table.name,
    )
    columns = version_columns(table.name)
    own = dict(target.versions).get(there.name)
    if not columns or own is None:
        return
    source = counts.versions(table, columns)
    if source and not own:
        _differ(table, findings, source[-1], "none")
    elif source and set(source) != set(own):
        here = sorted(set(source) - set(own))
        beyond = sorted(set(own) - set(source))
        if len(source) > 1 and not set(source) & set(own):
            findings.add(
                "bookkeeping-not-comparable",
                "warning",
                f"the two sides' migrations have no name in common ({some(source, 3)}; on the "
                f"target {some(own, 3)}), so that nothing says whether they are the same version",
                table=table.name,
            )
            return
        _differ(table, findings, some(here, 3) or "nothing more", some(beyond, 3) or "nothing more")


def _differ(table: SourceTable, findings: Findings, here: str, there: str) -> None:
    findings.add(
        "bookkeeping-differs",
        "error",
        f"the source is of another version than the target: on the source alone {here}, on the "
        f"target alone {there}. Bring both to one version with the application's own migrations; "
        "if both are the newest, and it calls one version otherwise on each engine, acknowledge it",
        table=table.name,
    )


def _without_place(table: SourceTable, findings: Findings, rows: int) -> None:
    if rows:
        findings.add(
            "no-target-table",
            "error",
            f"{counted(rows, 'row')}, and the target has no table of that name. Have the "
            "application make it, or name its place by the policy's `rename`",
            table=table.name,
            count=rows,
            resolution=policy_for_table(table.name, skip=True),
        )
    else:
        findings.add(
            "no-target-table", "note", "no rows, and no table on the target", table=table.name
        )


def _usable(table: SourceTable, there: TargetTable, findings: Findings) -> bool:
    """Whether rows can be loaded into it; a finding where they cannot."""
    why = _obstacle(there)
    if why:
        findings.add(
            "target-not-a-table",
            "error",
            f"{why}, or leave the table out",
            table=table.name,
            resolution=policy_for_table(table.name, rows="keep"),
        )
    return not why


def _obstacle(there: TargetTable) -> str:
    """Why no rows can be loaded into it, and what to do; nothing where they can."""
    name = there.name
    if there.kind != "table" or there.heirs:
        what = f"a {there.kind}" if there.kind != "table" else "a partition, or inherits,"
        return f"{name} is {what} on the target: only ordinary tables are loaded. Make it one"
    if there.always:
        return (
            f"{name} has the trigger {some(there.always)}, which acts in every session, also "
            f"while rows are loaded: have it act for the application alone (ALTER TABLE {name} "
            "ENABLE TRIGGER)"
        )
    if there.rules:
        return (
            f"{name} has the rule {some(there.rules)}, which acts in every session, also while "
            f"rows are applied: have it act for the application alone (ALTER TABLE {name} ENABLE "
            "RULE)"
        )
    if there.forced_rls:
        return (
            f"{name} has row-level security forced on its owner too: take it off for the move "
            f"(ALTER TABLE {name} NO FORCE ROW LEVEL SECURITY)"
        )
    if there.unlogged:
        return (
            f"{name} is an unlogged table, which PostgreSQL empties after a crash: have it logged "
            f"(ALTER TABLE {name} SET LOGGED)"
        )
    return ""


def _report_rows(one: TableMatch, policy: Policy, findings: Findings) -> None:
    if policy.table(one.source.name).rows == "merge":
        findings.add(
            "target-rows-merged",
            "note",
            f"the target has {counted(one.target.rows, 'row')} here already: those whose key the "
            "source has not stay, by the policy, and go to SQLite once PostgreSQL serves; the "
            "source's replace the others, which are kept in the run's records (table replaced)",
            table=one.source.name,
            count=one.target.rows,
        )
    elif one.target.rows:
        findings.add(
            "target-rows-replaced",
            "note",
            f"the target has {counted(one.target.rows, 'row')} here already: the source's replace "
            f"{either(one.target.rows, 'it, and it is', 'them, and they are')} kept in the run's "
            "records (table replaced)",
            table=one.source.name,
            count=one.target.rows,
        )


def _report_alone(own: TargetTable, policy: Policy, findings: Findings) -> None:
    if own.rows and not is_bookkeeping(own.name, policy.bookkeeping):
        findings.add(
            "target-table-alone",
            "note",
            f"table {own.name} is on the target alone; its "
            f"{counted(own.rows, 'row')} {either(own.rows, 'stays as it is', 'stay as they are')}",
            count=own.rows,
        )


# -------------------------------------------------------------------------------------- columns


def _columns(one: TableMatch, policy: Policy, findings: Findings, counts: Counts) -> TableMatch:
    searched: dict[str, int] = {}
    for column in one.source.columns:
        if policy.column(one.source.name, column.name).skip:
            _column_skipped(one, column, findings, counts)
            _report_demanded(one, column, findings)
            continue
        there = _column_of(column, one, policy)
        if there is not None and holds_search(there):
            searched[there.name] = counts.values(one.source, column)
            _report_demanded(one, column, findings)
        elif there is not None:
            one.columns[column.name] = there
        elif not column.generated:
            _column_without_place(one, column, findings, counts)
            _report_demanded(one, column, findings)
    filled = {there.name for there in one.columns.values()}
    for there in one.target.columns:
        if there.name not in filled:
            _report_column_alone(one, there, findings, counts, searched.get(there.name, 0))
    return one


def _column_skipped(
    one: TableMatch, column: SourceColumn, findings: Findings, counts: Counts
) -> None:
    values = counts.values(one.source, column)
    findings.add(
        "column-skipped",
        "warning",
        f"left out by the policy: {counted(values, 'value')} "
        f"{either(values, 'stays', 'stay')} on the source",
        table=one.source.name,
        column=column.name,
        count=values,
    )


def _report_demanded(one: TableMatch, column: SourceColumn, findings: Findings) -> None:
    """Of a column that the target does not have: what rows that it makes get on the way back."""
    if column.demanded is not None:
        words = {"text": "an empty text", "blob": "an empty blob"}
        value = words.get(column.affinity, "0")
        findings.add(
            "source-column-unfilled",
            "warning",
            f"NOT NULL without a default on SQLite, and not carried over: rows that are inserted "
            f"on PostgreSQL come back with {value} there",
            table=one.source.name,
            column=column.name,
        )


def _column_without_place(
    one: TableMatch, column: SourceColumn, findings: Findings, counts: Counts
) -> None:
    values = counts.values(one.source, column)
    if values:
        findings.add(
            "no-target-column",
            "error",
            f"{counted(values, 'value')}, and the target's {one.target.name} has no column of that "
            "name. Have the application make it, or name its place by the policy's `rename`",
            table=one.source.name,
            column=column.name,
            count=values,
            resolution=policy_for_column(one.source.name, column.name, skip=True),
        )


def _report_column_alone(
    one: TableMatch, there: TargetColumn, findings: Findings, counts: Counts, values: int
) -> None:
    """``values`` are the source's of the same name, where both hold what is searched for."""
    place = f"the target's column {there.name}"
    search = holds_search(there)
    if not there.filled and counts.rows(one.source):
        has = "has no column for it"
        if search:
            has = "has nothing for it, as only the application makes a tsvector"
        findings.add(
            "target-column-unfilled",
            "error",
            f"{place} is NOT NULL without a default, and the source {has}. {_unfilled(search)}",
            table=one.source.name,
            item=f"{one.source.name}.{there.name}",
            resolution=policy_for_table(one.source.name, rows="keep") if search else "",
        )
    elif search:
        by = f"the trigger{'s' * (len(one.target.triggers) > 1)} {some(one.target.triggers)}"
        how = by if one.target.triggers else "the application"
        stays = f"; {counted(values, 'value')} of the source's {_are(values)} not carried over"
        findings.add(
            "search-column",
            "warning",
            f"{place} holds what is searched for and is filled by {how}, which does not act while "
            f"rows are loaded{stays * bool(values)}. After the switch have it filled by an update "
            "of every row, or by the application's own command that rebuilds its search",
            table=one.source.name,
            item=f"{one.source.name}.{there.name}",
            count=values,
        )


def _unfilled(search: bool) -> str:
    if search:
        return (
            "Give it a default or allow NULL on the target; or keep the target's own rows, where "
            "the whole table is an index that the application makes anew on each side"
        )
    return (
        "Give it a default or allow NULL on the target, or name its source by the policy's "
        "`rename`: no other line resolves this"
    )


def _are(count: int) -> str:
    return either(count, "is", "are")


# ------------------------------------------------------------------------ what the target demands


def _column_demanded(one: TableMatch, column: SourceColumn) -> SourceColumn:
    required = column.name in one.columns and one.columns[column.name].not_null
    # Of a NULL in a key that the target does not require there is nothing to say.
    place = column.primary_key if required else 0
    return replace(column, not_null=required, primary_key=place)


def _demanded(one: TableMatch, by_target: Mapping[str, TableMatch], schema: str) -> SourceTable:
    columns = tuple(_column_demanded(one, column) for column in one.source.columns)
    keys = tuple(_foreign_keys(one, by_target, schema))
    return one.source.model_copy(
        update={
            "columns": columns,
            "foreign_keys": keys,
            "checks": (),
            "check_names": (),
            "conflicts": (),
        }
    )


def _foreign_keys(
    one: TableMatch, by_target: Mapping[str, TableMatch], schema: str
) -> list[SourceForeignKey]:
    """Those of the target whose both ends the source has."""
    found = []
    for key in one.target.foreign_keys:
        parent = by_target.get(key.parent)
        here = key.parent_schema == schema
        if parent is None or not here or not key.validated:
            continue
        columns = [one.source_of(c) for c in key.columns]
        parents = [parent.source_of(c) for c in key.parent_columns]
        if None in columns or None in parents:
            continue
        found.append(
            SourceForeignKey(
                columns=tuple(c.name for c in columns if c is not None),
                parent=parent.source.name,
                parent_columns=tuple(c.name for c in parents if c is not None),
                on_update=key.on_update,
                on_delete=key.on_delete,
                deferred=key.initially_deferred,
                constraint=key.name,
            )
        )
    return found
