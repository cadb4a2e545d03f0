"""The plan itself, of what the steps before it found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from migration_job.errors import InputError
from migration_job.plan import naming
from migration_job.plan.distinct import named_in_source, with_distinct_constraints
from migration_job.plan.model import (
    ColumnPlan,
    ForeignKeyPlan,
    Plan,
    SequencePlan,
    TablePlan,
    UniquePlan,
)
from migration_job.plan.objects import Objects, Parts
from migration_job.plan.planner.column_assignments import Assignments
from migration_job.plan.planner.context import Planning, column_named
from migration_job.plan.planner.retyped import report_retyped
from migration_job.plan.planner.row_faults import Key, RowFaults
from migration_job.plan.planner.side_by_side import Seen
from migration_job.plan.planner.target_names import Names
from migration_job.plan.profile import summary
from migration_job.plan.relations import Relation
from migration_job.plan.rules import DecimalTextRule, IntegerRule, MapRule, Rule, inside
from migration_job.plan.rules.other import LabelRule
from migration_job.plan.table_views import ColumnView, TableView
from migration_job.plan.wayback import refusals
from migration_job.stores.sqlite.model import SourceColumn, SourceTable


@dataclass(frozen=True, slots=True)
class Facts:
    """What the steps before the assembly found."""

    names: Names
    seen: Seen
    assignments: Assignments
    dropped: frozenset[Relation]
    faults: RowFaults


@dataclass(frozen=True, slots=True)
class _Assembly:
    """What the parts of a plan are put together from."""

    planning: Planning
    facts: Facts
    objects: Objects
    no_keys: frozenset[Key]
    """Keys that the target cannot have."""


def assemble(planning: Planning, facts: Facts) -> Plan:
    """The plan with all its tables, objects and findings."""
    objects = Objects(
        _views(planning, facts),
        planning.findings,
        planning.catalogue,
        planning.observer,
        planning.quarantine,
        planning.relations,
    )
    no_keys = frozenset(objects.impossible_keys()) | facts.faults.collided
    assembly = _Assembly(planning, facts, objects, no_keys)
    tables = [_table(assembly, table) for table in planning.catalogue.tables]
    tables = [
        with_distinct_constraints(plan, named_in_source(table), planning.findings)
        for table, plan in zip(planning.catalogue.tables, tables, strict=True)
    ]
    tables += planning.profile.tables_alone(planning.catalogue)
    views = objects.views(planning.schema_name)
    objects.report_others(planning.connection)
    report_retyped(planning, facts.seen, facts.assignments, tables)
    scripts = _enabled(planning)
    plan = Plan(
        profile=planning.profile.name,
        encoding=planning.catalogue.encoding,
        tables=tuple(tables),
        sequences=tuple(_sequences(planning, facts, tables)),
        views=views,
        extensions=planning.profile.extensions,
        after_load=(*planning.profile.after_load, *scripts),
        findings=planning.findings.all,
    ).inside(planning.schema_name)
    _refuse_enums(plan)
    more = plan.needed_extensions.difference(plan.extensions)
    return plan.model_copy(update={"extensions": (*plan.extensions, *sorted(more))})


def _refuse_enums(plan: Plan) -> None:
    """Raises InputError for an enum that the policy describes in two ways, or whose name is a
    table's or another relation's, which would have a type of that name."""
    names = plan.relation_names()
    labels = plan.enums
    for table in plan.tables:
        for column in table.columns:
            rule = inside(column.rule)
            if not isinstance(rule, LabelRule) or not rule.made:
                continue
            other = labels[rule.type] != rule.labels
            if other or rule.type in names:
                found = "two lists of labels" if other else "a relation of that name"
                raise InputError(
                    f"expected one list of labels and no relation for the enum {rule.type}, "
                    f"found {found}",
                    advice="give the enums of the policy names of their own",
                )


def _enabled(planning: Planning) -> tuple[str, ...]:
    """The SQL of the features that the policy enables; each is a note of what it does."""
    names = planning.policy.enable
    scripts = planning.profile.enabled(names)
    for name, script in zip(names, scripts, strict=True):
        planning.findings.add("feature-enabled", "note", f"{name}: {summary(script)}", item=name)
    return scripts


def _views(planning: Planning, facts: Facts) -> list[TableView]:
    found: list[TableView] = []
    for table in planning.catalogue.tables:
        columns: dict[str, ColumnView] = {}
        for column in table.columns:
            place = (table.name, column.name)
            assignment = facts.assignments.get(place)
            if assignment is not None:
                columns[column.name] = ColumnView(
                    source=column,
                    target=facts.names.columns[place],
                    type=assignment.type,
                    rule=assignment.rule,
                    facts=facts.seen.of(place),
                    exact=assignment.exact,
                )
        target = facts.names.tables[table.name]
        found.append(TableView(table, target, columns, planning.catalogue.encoding))
    return found


# -------------------------------------------------------------------------------------- one table


def _table(assembly: _Assembly, table: SourceTable) -> TablePlan:
    planning, objects, names = assembly.planning, assembly.objects, assembly.facts.names
    broken = set(assembly.facts.faults.broken.get(table.name, ()))
    collided = {c for t, c in assembly.facts.faults.collided if t == table.name}
    parts = objects.of_table(table, collided, broken)
    target = names.tables[table.name]
    columns = tuple(_column_plans(assembly, table, parts))
    primary, uniques = _keys(assembly, table, columns)
    key_name = (
        objects.names.key_name(table) or names.free(table, f"{target}_pkey") if primary else None
    )
    values = assembly.facts.seen.facts[table.name].values()
    plan = TablePlan(
        source=table.name,
        target=target,
        columns=columns,
        primary_key=primary,
        primary_key_name=key_name,
        uniques=(*uniques, *parts.uniques),
        checks=(*parts.checks, *refusals(table, target, columns)),
        source_checks=parts.source_checks,
        foreign_keys=tuple(_foreign_keys(assembly, table)),
        indexes=parts.indexes,
        key=_row_key(assembly.facts, table),
        rows=max((f.rows for f in values), default=0),
        widest=sum(f.heaviest for f in values),
        quarantine=planning.quarantine.predicates(table),
        reasons=planning.quarantine.reasons(table),
        where=table.where,
        without_rowid=table.without_rowid,
    )
    return planning.profile.merge(plan, table, broken, planning.findings, objects.widths)


def _column_plans(assembly: _Assembly, table: SourceTable, parts: Parts) -> Iterator[ColumnPlan]:
    facts = assembly.facts
    for column in table.columns:
        place = (table.name, column.name)
        assignment = facts.assignments.get(place)
        if assignment is None:
            continue
        rule = assembly.planning.rules.one(assignment.rule.under(column.affinity))
        identity = (
            column.name == table.rowid_alias
            and isinstance(rule, IntegerRule)
            and not assembly.planning.relations.from_parent(*place)
        )
        own, computed = facts.names.columns[place], column.name in parts.generated
        sequence = f"{facts.names.tables[table.name]}_{own}_seq"
        yield ColumnPlan(
            source=column.name,
            target=own,
            type=assignment.type,
            rule=rule,
            not_null=_not_null(assembly, table, column, rule, computed=computed),
            default=None if identity else parts.defaults.get(column.name),
            generated=parts.generated.get(column.name),
            identity=identity,
            sequence=facts.names.free(table, sequence) if identity else None,
            clean=assignment.clean,
            nulls=bool(facts.seen.of(place).nulls) or _maps_to_null(rule),
            reason=assignment.reason,
        )


def _not_null(
    assembly: _Assembly, table: SourceTable, column: SourceColumn, rule: Rule, *, computed: bool
) -> bool:
    """Whether the target refuses NULL in the column; ``computed``: the target makes its values
    itself, and has to refuse a NULL among them where the source does."""
    planning = assembly.planning
    if not planning.required(table, column) and not (computed and column.not_null):
        return False
    nulls = assembly.facts.seen.of((table.name, column.name)).nulls
    kept = nulls and not planning.sets_aside(table.name, column.name)
    return not kept and not _maps_to_null(rule)


def _maps_to_null(rule: Rule) -> bool:
    return isinstance(rule, MapRule) and any(e.target is None for e in rule.entries)


# ------------------------------------------------------------------------------------------- keys


def _keys(
    assembly: _Assembly, table: SourceTable, columns: Sequence[ColumnPlan]
) -> tuple[tuple[str, ...], tuple[UniquePlan, ...]]:
    """The columns of the primary key, or the unique constraint in its place."""
    targets = {c.source: c.target for c in columns if c.source is not None}
    if not table.primary_key or any(c not in targets for c in table.primary_key):
        return (), ()
    if (table.name, table.primary_key) in assembly.no_keys:
        return (), ()
    key = tuple(targets[c] for c in table.primary_key)
    facts = assembly.facts.seen.facts[table.name]
    nulls = [c for c in table.primary_key if facts[c].nulls]
    if all(assembly.planning.sets_aside(table.name, column_named(table, c).name) for c in nulls):
        return key, ()
    name = assembly.objects.names.key_name(table) or assembly.objects.names.reserve(
        f"{assembly.facts.names.tables[table.name]}_key", f"{table.name} key"
    )
    return (), (UniquePlan(name=name, columns=key),)


def _row_key(facts: Facts, table: SourceTable) -> tuple[str, ...]:
    """The columns that tell the table's rows apart on both sides."""
    candidates: list[tuple[str, ...]] = []
    if table.primary_key:
        candidates.append(table.primary_key)
    for index in table.indexes:
        names = tuple(c.column for c in index.columns if c.column is not None)
        whole = index.unique and index.where is None and len(names) == len(index.columns)
        if whole and all(column_named(table, n).not_null for n in names):
            candidates.append(names)
    for names in candidates:
        if all(_identifies(facts, table, n) for n in names):
            return names
    return ()


def _identifies(facts: Facts, table: SourceTable, name: str) -> bool:
    assignment = facts.assignments.get((table.name, name))
    generated = column_named(table, name).generated
    if assignment is None or generated or facts.seen.of((table.name, name)).nulls:
        return False
    if isinstance(assignment.rule, MapRule):
        return assignment.told_apart
    # 1.0 and 1.00 are one number, and two texts.
    loose = isinstance(assignment.rule, DecimalTextRule) and assignment.rule.precision is None
    loose = loose or assignment.rule.without_case
    return assignment.exact and not loose and assignment.type not in ("json", "jsonb")


def _foreign_keys(assembly: _Assembly, table: SourceTable) -> Iterator[ForeignKeyPlan]:
    facts, names = assembly.facts, assembly.facts.names
    taken: set[str] = set()
    for relation in assembly.planning.relations.of(table.name):
        if relation in facts.dropped or not _parent_has_key(assembly, relation):
            continue
        columns = tuple(names.columns[table.name, c] for c in relation.columns)
        name = naming.distinct(
            naming.cut(f"{names.tables[table.name]}_{'_'.join(columns)}_fkey"),
            f"{table.name} {relation.text}",
            taken,
        )
        taken.add(name)
        key = relation.key
        yield ForeignKeyPlan(
            name=naming.cut(key.constraint) if key.constraint else name,
            columns=columns,
            parent=names.tables[relation.parent],
            parent_columns=tuple(
                names.columns[relation.parent, c] for c in relation.parent_columns
            ),
            on_update=key.on_update,
            on_delete=key.on_delete,
            initially_deferred=key.deferred,
            validated=relation not in facts.faults.orphaned,
        )


def _parent_has_key(assembly: _Assembly, relation: Relation) -> bool:
    """Whether the target's parent has the key that the relation refers to; a finding where not."""
    wanted = (relation.parent, set(relation.parent_columns))
    if wanted not in [(table, set(columns)) for table, columns in assembly.no_keys]:
        return True
    assembly.planning.findings.add(
        "foreign-key-not-carried",
        "by-action",
        f"{relation.text}: {relation.parent} has no such key on the target",
        table=relation.child,
        item=f"{relation.child}.{relation.key.columns[0]}",
    )
    return False


def _sequences(
    planning: Planning, facts: Facts, tables: Sequence[TablePlan]
) -> Iterator[SequencePlan]:
    for plan in tables:
        if plan.source is None:
            continue
        table = planning.catalogue.table(plan.source)
        for column in plan.columns:
            if column.identity and column.source is not None:
                high = facts.seen.of((table.name, column.source)).high or 0
                yield SequencePlan(
                    table=plan.target,
                    column=column.target,
                    last_value=max(0, high, table.sequence or 0),
                )
