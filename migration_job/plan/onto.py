"""The plan for a schema that is there already: ``--schema existing``.

Types, constraints and defaults are the target's. What is chosen is where each column's values go
and by which rule they get the target's type; what is tried is every value, against the type, NOT
NULL, the keys and the foreign keys that the target has. A value that does not fit is an error, or
its row goes to quarantine: nothing is widened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import apsw

from migration_job.errors import InputError
from migration_job.plan.assignment import Assignment
from migration_job.plan.choose import Choice
from migration_job.plan.chosen import choose as choose_rows
from migration_job.plan.findings import policy_for_table
from migration_job.plan.matching import Counts, Matched, TableMatch, match
from migration_job.plan.model import (
    CheckPlan,
    ColumnPlan,
    Plan,
    SequencePlan,
    TablePlan,
    UniquePlan,
)
from migration_job.plan.onto_assignments import OntoAssigner, OntoFindings
from migration_job.plan.onto_refusals import Refusals, Trial, try_all
from migration_job.plan.pace import Told
from migration_job.plan.planner.context import Planning
from migration_job.plan.planner.map_directions import set_directions
from migration_job.plan.planner.row_faults import find_row_faults, unique_keys
from migration_job.plan.planner.side_by_side import Reader, Readers, Seen, observe
from migration_job.plan.planner.spellings import as_their_keys
from migration_job.plan.policy import Policy
from migration_job.plan.profile import Profile
from migration_job.plan.relations import Relation, Relations
from migration_job.plan.row_names import Span
from migration_job.plan.rules import ConstantRule, IntegerRule, MapRule, Rule, inside
from migration_job.plan.target import TargetColumn, TargetSchema, TargetTable
from migration_job.plan.toward import Unsupported
from migration_job.plan.virtual import report_virtual, with_virtual
from migration_job.quoting import compose, joined, sqlite_name, sqlite_table
from migration_job.stores.sqlite.model import Catalogue, SourceColumn, SourceTable
from migration_job.values import fold

LOOSE = frozenset(
    {"json", "jsonb", "json-bytes", "json-blob", "jsonb-blob", "numeric-text", "padded-numeric"}
    | {"array", "list"}
)
"""Rules of types that have no equality, or one that takes two texts for the same."""


@dataclass(frozen=True, slots=True)
class Source:
    """A consistent state of a source, through one connection or several."""

    connection: apsw.Connection
    catalogue: Catalogue
    others: Sequence[apsw.Connection] = ()


def plan_onto(
    source: Source,
    target: TargetSchema,
    *,
    policy: Policy | None = None,
    trial: Trial | None = None,
    observed: Callable[[], object] | None = None,
    told: Told | None = None,
) -> Plan:
    """The plan that fills ``target``, every value tried; ``observed`` and ``told`` as with
    :func:`migration_job.plan.planner.make_plan`. ``trial`` is the target's own word on its CHECKs;
    without it they are left to the load. Raises InputError where the policy names what is not
    there."""
    chosen = _without_keeping(policy or Policy())
    if chosen.types == "generous":
        raise InputError(
            "expected the types of the schema that is there, found `types: generous`",
            advice="leave it out with --schema existing: the target's own types are kept",
        )
    chosen.check(source.catalogue)
    findings = OntoFindings(chosen, "block")
    carried = choose_rows(source.connection, source.catalogue, chosen, findings)
    placed = _with_placed(carried, target, chosen)
    matched = match(placed, target, chosen, findings, _counts(source.connection))
    catalogue = placed.model_copy(update={"tables": matched.sources()})
    readers = Readers.over((source.connection, *source.others), catalogue, told)
    assigner = OntoAssigner(readers.first.observer, chosen, findings, "UTC")
    assigner.place_in(matched, target)
    planning = Planning(
        connection=source.connection,
        catalogue=catalogue,
        profile=Profile(name="none"),
        policy=chosen,
        findings=findings,
        readers=readers,
        relations=Relations(catalogue, {}),
        assigner=assigner,
    )
    seen = observe(readers, catalogue)
    assigner.learn(matched, seen)
    if observed is not None:
        observed()
    # What the application's queries join, whichever side says so.
    references = [*planning.relations.all, *Relations(placed, {}).all]
    onto = _Onto(planning, seen, matched, trial, references)
    _report_virtual(planning, carried, matched)
    onto.assign(assigner)
    return onto.plan()


def _report_virtual(planning: Planning, carried: Catalogue, matched: Matched) -> None:
    """Of each virtual table, by what fills it: tables that are not carried fill some, too."""
    ordinary = {table.name for table in carried.tables}
    filled = [one.source for one in matched.tables if one.source.name not in ordinary]
    whole = carried.model_copy(update={"tables": (*carried.tables, *filled)})
    for other in carried.others:
        if other.kind == "virtual":
            report_virtual(planning.connection, whole, other, planning.findings, matched.remade)


def _without_keeping(policy: Policy) -> Policy:
    """The policy without ``orphans: keep``: the target's foreign keys are validated."""
    tables = {
        name: part.model_copy(update={"orphans": None}) if part.orphans == "keep" else part
        for name, part in policy.tables.items()
    }
    whole = None if policy.orphans == "keep" else policy.orphans
    return policy.model_copy(update={"tables": tables, "orphans": whole})


def _with_placed(catalogue: Catalogue, target: TargetSchema, policy: Policy) -> Catalogue:
    """The catalogue with each virtual table as an ordinary one that has rows of its own and whose
    place the target has."""
    ordinary = {table.name for table in catalogue.tables}
    places = {fold(table.name) for table in target.tables}
    tables = tuple(
        table
        for table in with_virtual(catalogue, policy).tables
        if table.name in ordinary or fold(policy.table(table.name).rename or table.name) in places
    )
    return catalogue.model_copy(update={"tables": tables})


def _counts(connection: apsw.Connection) -> Counts:
    def rows(table: SourceTable) -> int:
        return int(
            connection.execute(
                compose("SELECT count(*) FROM {table}", table=sqlite_table(table.name))
            ).get
        )

    def values(table: SourceTable, column: SourceColumn) -> int:
        return int(
            connection.execute(
                compose(
                    "SELECT count({column}) FROM {table}",
                    column=sqlite_name(column.name),
                    table=sqlite_table(table.name),
                )
            ).get
        )

    def versions(table: SourceTable, columns: Sequence[str]) -> tuple[str, ...]:
        names = joined(", ", map(sqlite_name, columns))
        found = connection.execute(
            compose("SELECT {names} FROM {table}", names=names, table=sqlite_table(table.name))
        )
        return tuple(sorted(" ".join(map(str, row)) for row in found))

    return Counts(rows, values, versions)


class _Onto:
    """The steps of a plan for a schema that is there."""

    def __init__(
        self,
        planning: Planning,
        seen: Seen,
        matched: Matched,
        trial: Trial | None,
        references: Sequence[Relation],
    ) -> None:
        self._planning = planning
        self._seen = seen
        self._matched = matched
        self._trial = trial
        self._references = references
        self._matches = {m.source.name: m for m in matched.tables}
        self._connection = planning.connection
        self._catalogue = planning.catalogue
        self._findings = planning.findings
        self._quarantine = planning.quarantine
        self._assignments: Mapping[tuple[str, str], Assignment] = {}

    # ------------------------------------------------------------------------------------ types

    def assign(self, assigner: OntoAssigner) -> None:
        """The rule to the target's type for each column that has a place, tried on every value."""
        seen, tables = self._seen, self._catalogue.tables

        def begin(_: Reader, table: SourceTable) -> tuple[Sequence[Span], dict[str, Choice]]:
            return seen.spans[table.name], self._propose(assigner, table)

        def trial(
            reader: Reader, table: SourceTable, span: Span, choices: dict[str, Choice]
        ) -> dict[str, int]:
            rules = {name: choice.rule for name, choice in choices.items()}
            found = reader.observer.trial(table, rules, seen.facts[table.name], span)
            self._planning.readers.pace.tried(table, len(seen.spans[table.name]))
            return found

        assignments: dict[tuple[str, str], Assignment] = {}
        tried = self._planning.readers.by_part(tables, begin, trial)
        for table, (_, choices, found) in zip(tables, tried, strict=True):
            slow: Counter[str] = Counter()
            for counts in found:
                slow.update(counts)
            for name, choice in choices.items():
                assignments[table.name, name] = assigner.assign(
                    self._planning.subject(seen, (table.name, name)), choice, slow=slow[name]
                )
        as_their_keys(self._planning, seen, assignments, self._references)
        self._assignments = set_directions(self._planning, seen, assignments)

    def _propose(self, assigner: OntoAssigner, table: SourceTable) -> dict[str, Choice]:
        choices: dict[str, Choice] = {}
        for name, there in self._matches[table.name].columns.items():
            subject = self._planning.subject(self._seen, (table.name, name))
            computed = there.generated is not None and subject.column.generated
            if subject.facts.unreadable or computed:
                continue
            try:
                choices[name] = assigner.propose(subject, None)
            except Unsupported as error:
                self._findings.add(
                    error.code,
                    "error",
                    error.message,
                    table=table.name,
                    column=name,
                    count=subject.facts.values,
                    resolution=error.resolution(table.name, name),
                )
        return choices

    def plan(self) -> Plan:
        """The plan, once every column has a rule."""
        try_all(Refusals(self._planning, self._seen, self._matched, self._assignments), self._trial)
        find_row_faults(self._planning, self._seen, self._assignments, frozenset())
        for place, assignment in self._assignments.items():
            subject = self._planning.subject(self._seen, place)
            if not subject.column.generated:
                aside = self._planning.quarantine.of(subject.table.name)
                self._planning.assigner.report_changes(subject, assignment, aside)
                self._report_interval(subject.table, subject.column, assignment.rule)
        return self._build()

    def _report_interval(self, table: SourceTable, column: SourceColumn, rule: Rule) -> None:
        shape = getattr(inside(rule), "since", None)
        texts = self._seen.of((table.name, column.name)).texts
        if inside(rule).kind == "interval" and shape is not None and texts:
            self._findings.add(
                "interval-since-1970",
                "warning",
                f"moments ({shape}) in a column of intervals are read as the time since 1970, as "
                "SQLAlchemy writes intervals",
                table=table.name,
                column=column.name,
                count=texts,
            )

    # --------------------------------------------------------------------------------- the plan

    def _row_key(self, table: SourceTable) -> tuple[str, ...]:
        """The source's own key where it tells rows apart on both sides; else the whole row, where
        no two are alike (a table that only joins two others): no column is added to a table that is
        the application's own."""
        keys = [names for names in unique_keys(table) if self._identify(table, names)]
        if keys:
            return keys[0]
        columns = tuple(c for c in self._matches[table.name].columns if self._filled(table, c))
        if not columns or not self._identify(table, columns):
            return ()
        return () if self._quarantine.duplicates(table, columns).count else columns

    def _identify(self, table: SourceTable, names: tuple[str, ...]) -> bool:
        """Whether the columns' values are there in every row and come back as they were."""
        for name in names:
            assignment = self._assignments.get((table.name, name))
            column = next(c for c in table.columns if c.name == name)
            if assignment is None or column.generated or self._seen.of((table.name, name)).nulls:
                return False
            loose = inside(assignment.rule).kind in LOOSE
            kept = (
                assignment.told_apart if isinstance(assignment.rule, MapRule) else assignment.exact
            )
            if loose or not kept:
                return False
        return True

    def _filled(self, table: SourceTable, column: str) -> bool:
        return (table.name, column) in self._assignments

    def _build(self) -> Plan:
        tables = [
            self._existing(self._catalogue.table(one.source.name), one)
            for one in self._matched.tables
        ]
        tables += [_alone(table, self._matched.schema) for table in self._matched.alone]
        return Plan(
            profile="none",
            encoding=self._catalogue.encoding,
            tables=tuple(tables),
            sequences=tuple(self._existing_sequences()),
            findings=self._findings.all,
            existing=True,
            schema_name=self._matched.schema,
            outside=tuple(self._outside()),
        )

    def _outside(self) -> Iterator[TablePlan]:
        """Tables of other schemas that refer to those that are filled."""
        filled = {one.target.name for one in self._matched.tables}
        for table in self._matched.outside:
            keys = tuple(key for key in table.foreign_keys if key.parent in filled)
            if keys:
                yield TablePlan(
                    source=None,
                    target=table.name,
                    schema_name=table.schema_name,
                    columns=(),
                    foreign_keys=keys,
                    owner="existing",
                )

    def _existing(self, table: SourceTable, one: TableMatch) -> TablePlan:
        facts = self._seen.facts[table.name]
        return _alone(one.target, self._matched.schema).model_copy(
            update={
                "source": table.name,
                "columns": tuple(self._existing_columns(table, one)),
                "key": self._row_key(table),
                "rows": max((f.rows for f in facts.values()), default=0),
                "widest": sum(f.heaviest for f in facts.values()),
                "quarantine": self._quarantine.predicates(table),
                "reasons": self._quarantine.reasons(table),
                "where": table.where,
                "without_rowid": table.without_rowid,
                "merge": self._merges(table),
            }
        )

    def _merges(self, table: SourceTable) -> bool:
        """Whether rows of the target's own stay. A row in quarantine may have the key of one of
        them, which would then take its place on the way back."""
        if self._planning.policy.table(table.name).rows != "merge":
            return False
        key, aside = self._row_key(table), self._quarantine.predicates(table)
        if not key or aside:
            why = "rows go to quarantine" if key else "no key identifies its rows on both sides"
            self._findings.add(
                "rows-not-mergeable",
                "error",
                f"{why}, so that nothing says which rows the target alone has: have them replaced, "
                "or keep the target's own",
                table=table.name,
                resolution=policy_for_table(table.name, rows="replace"),
            )
        return bool(key) and not aside

    def _existing_columns(self, table: SourceTable, one: TableMatch) -> Iterator[ColumnPlan]:
        for there in one.target.columns:
            source = one.source_of(there.name)
            assignment = None
            if source is not None:
                assignment = self._assignments.get((table.name, source.name))
            if source is None or assignment is None:
                yield _column_alone(there)
                continue
            rule = assignment.rule.under(source.affinity)
            nulls = bool(self._seen.of((table.name, source.name)).nulls)
            yield replace(
                _column_alone(there),
                source=source.name,
                rule=rule,
                identity=bool(there.sequences)
                and source.name == table.rowid_alias
                and isinstance(rule, IntegerRule),
                clean=assignment.clean,
                nulls=nulls or _maps_to_null(rule),
                reason="the target's type",
            )

    def _existing_sequences(self) -> Iterator[SequencePlan]:
        for one in self._matched.tables:
            table = self._catalogue.table(one.source.name)
            for name, there in one.columns.items():
                assignment = self._assignments.get((table.name, name))
                if assignment is None or inside(assignment.rule).kind != "integer":
                    continue
                marks = [0, self._seen.of((table.name, name)).high or 0]
                if name == table.rowid_alias:
                    marks.append(table.sequence or 0)
                for sequence in there.sequences:
                    yield SequencePlan(
                        table=one.target.name,
                        column=there.name,
                        last_value=max(marks),
                        sequence=sequence,
                    )


def _alone(table: TargetTable, schema: str) -> TablePlan:
    """A table as it is on the target, with nothing of the source's."""
    return TablePlan(
        source=None,
        target=table.name,
        schema_name=schema,
        columns=tuple(map(_column_alone, table.columns)),
        primary_key=table.primary_key,
        uniques=tuple(
            UniquePlan(name=k.name, columns=k.columns) for k in table.keys if not k.primary
        ),
        checks=tuple(
            CheckPlan(name=c.name, expression=c.expression) for c in table.checks if not c.of_domain
        ),
        foreign_keys=table.foreign_keys,
        owner="existing",
    )


def _column_alone(there: TargetColumn) -> ColumnPlan:
    return ColumnPlan(
        source=None,
        target=there.name,
        type=there.type,
        rule=ConstantRule(),
        not_null=there.not_null,
        default=there.default,
        generated=there.generated,
        reason="on the target alone",
    )


def _maps_to_null(rule: Rule) -> bool:
    return isinstance(rule, MapRule) and any(e.target is None for e in rule.entries)
