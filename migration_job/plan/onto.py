"""The plan for a schema that is there already: ``--schema existing``.

Types, constraints and defaults are the target's. What is decided is where each column's values go
and by which rule they get the target's type; what is tried is every value, against the type, NOT
NULL, the keys and the foreign keys that the target has. A value that does not fit is an error, or
its row goes to quarantine: nothing is widened.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import apsw
import yaml

from migration_job.errors import InputError
from migration_job.plan.choose import Choice
from migration_job.plan.collisions import find_collisions
from migration_job.plan.column_reports import Subject, count_rows
from migration_job.plan.decide import Decider, Decision, Wish, with_maps, wrap
from migration_job.plan.facts import Rows
from migration_job.plan.findings import Findings, Judgement, settle_column, settle_table
from migration_job.plan.hints import Fields
from migration_job.plan.matching import Counts, Matched, TableMatch, match
from migration_job.plan.model import (
    CheckPlan,
    ColumnPlan,
    Plan,
    SequencePlan,
    TablePlan,
    UniquePlan,
)
from migration_job.plan.planner.context import Planning
from migration_job.plan.planner.row_faults import find_row_faults, unique_keys
from migration_job.plan.planner.settled_maps import settle_maps
from migration_job.plan.planner.side_by_side import Reader, Readers, Seen, observe
from migration_job.plan.policy import Policy
from migration_job.plan.profile import Profile
from migration_job.plan.relations import Relations
from migration_job.plan.row_names import Span, identity_columns, show_key, shown_columns
from migration_job.plan.rules import CannotCarry, ConstantRule, IntegerRule, MapRule, Rule, inside
from migration_job.plan.target import TargetCheck, TargetColumn, TargetSchema, TargetTable
from migration_job.plan.toward import Unsupported, toward
from migration_job.plan.virtual import report_virtual, with_virtual
from migration_job.quoting import compose, joined, sqlite_name, sqlite_table
from migration_job.stores.sqlite.model import Catalogue, SourceColumn, SourceTable
from migration_job.stores.sqlite.reader import read_rows
from migration_job.values import fold

LOOSE = frozenset({"json", "jsonb", "json-bytes", "numeric-text", "padded-numeric", "array"})
"""Rules of types that have no equality, or one that takes two texts for the same."""

Trial = Callable[
    [Sequence[TargetColumn], str, Iterable[tuple[int, list[str | None]]]], Iterable[int]
]
"""From columns of the target's, a CHECK over them and numbered rows of their texts to the numbers
of the rows that the CHECK refuses."""


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
) -> Plan:
    """The plan that fills ``target``, every value tried; ``observed`` as with
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
    catalogue = _with_placed(source.catalogue, target, chosen)
    matched = match(catalogue, target, chosen, findings, _counts(source.connection))
    catalogue = catalogue.model_copy(update={"tables": matched.sources()})
    readers = Readers.over((source.connection, *source.others), catalogue)
    decider = OntoDecider(readers.first.observer, chosen, findings, "UTC")
    decider.place_in(matched, target)
    planning = Planning(
        connection=source.connection,
        catalogue=catalogue,
        profile=Profile(name="none"),
        policy=chosen,
        findings=findings,
        readers=readers,
        relations=Relations(catalogue, {}),
        decider=decider,
    )
    seen = observe(readers, catalogue)
    if observed is not None:
        observed()
    onto = _Onto(planning, seen, matched, trial)
    onto.decide(decider)
    return onto.plan()


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


class OntoFindings(Findings):
    """Findings of a plan that cannot widen: the target's types are what they are."""

    def action_for(self, table: str | None = None, column: str | None = None) -> str:
        action = super().action_for(table, column)
        return "block" if action == "widen" else action

    def add(  # noqa: PLR0913 - a finding's fields, named
        self,
        code: str,
        judgement: Judgement,
        message: str,
        *,
        table: str | None = None,
        column: str | None = None,
        item: str | None = None,
        rows: Rows | None = None,
        count: int | None = None,
        settle: str | None = None,
        suggest: str = "",
    ) -> None:
        """As with other plans, but that what settles a misfit is to set the rows aside, and that
        an index for searching is the application's to make anew, as its schema is."""
        if code == "virtual-table-not-carried":
            judgement = "warning"
        if settle and _gives_way(yaml.safe_load(settle)):
            settle = _set_aside(code, table, column)
        super().add(
            code,
            judgement,
            message,
            table=table,
            column=column,
            item=item,
            rows=rows,
            count=count,
            settle=settle,
            suggest=suggest,
        )


def _gives_way(settled: Any) -> bool:
    """Whether lines of policy change a column's type or leave out a key, at any depth: neither can
    be done to a target that is there. Names of tables and columns say nothing."""
    if not isinstance(settled, dict):
        return False
    chosen = {(name, value) for name, value in settled.items() if isinstance(value, str)}
    if chosen & {("action", "widen"), ("orphans", "keep")} or any(n == "type" for n, _ in chosen):
        return True
    return any(_gives_way(value) for value in settled.values())


def _set_aside(code: str, table: str | None, column: str | None) -> str:
    if code == "orphans":
        return settle_table(str(table), orphans="quarantine")
    if column is not None:
        return settle_column(str(table), column, action="quarantine")
    return settle_table(str(table), action="quarantine")


class OntoDecider(Decider):
    """Decides for each column the rule that leads to the target's type."""

    def place_in(self, matched: Matched, target: TargetSchema) -> None:
        """Where every column goes."""
        self._targets = {
            (m.source.name, name): there
            for m in matched.tables
            for name, there in m.columns.items()
        }
        self._django = target.table("django_migrations") is not None

    def propose(self, subject: Subject, wish: Wish | None) -> Choice:
        own = self._policy.column(*subject.place)
        if own.type is not None:
            raise InputError(
                f"the policy's tables.{subject.table.name}.columns.{subject.column.name}.type: the "
                "type is the target's with --schema existing",
                advice="take the line out; change the type on the target if it has to be another",
            )
        there = self._targets[subject.place]
        rule = toward(
            there,
            subject.column,
            with_maps(subject.facts, own, wish),
            zone=own.zone or self._zone,
            epoch=own.epoch or self._convention(there),
            guid=own.guid,
        )
        return Choice(wrap(rule, own, wish), there.type)

    def _convention(self, there: TargetColumn) -> Any:
        """What an integer means where the framework that made both schemas always means the same by
        it."""
        return "us" if self._django and there.base.startswith("interval") else None

    def _hint(self, *of: Any) -> Fields | None:
        del of
        return None  # the type is the target's

    def _fine_enough(self, subject: Subject, rule: Rule, examination: Any) -> Rule:
        del subject, examination
        return rule  # the precision is the target's


class _Onto:
    """The steps of a plan for a schema that is there."""

    def __init__(
        self, planning: Planning, seen: Seen, matched: Matched, trial: Trial | None
    ) -> None:
        self._planning = planning
        self._seen = seen
        self._matched = matched
        self._trial = trial
        self._matches = {m.source.name: m for m in matched.tables}
        self._connection = planning.connection
        self._catalogue = planning.catalogue
        self._findings = planning.findings
        self._quarantine = planning.quarantine
        self._decisions: Mapping[tuple[str, str], Decision] = {}

    # ------------------------------------------------------------------------------------ types

    def decide(self, decider: OntoDecider) -> None:
        """The rule to the target's type for each column that has a place, tried on every value."""
        seen, tables = self._seen, self._catalogue.tables

        def begin(_: Reader, table: SourceTable) -> tuple[Sequence[Span], dict[str, Choice]]:
            return seen.spans[table.name], self._propose(decider, table)

        def trial(
            reader: Reader, table: SourceTable, span: Span, choices: dict[str, Choice]
        ) -> dict[str, int]:
            rules = {name: choice.rule for name, choice in choices.items()}
            return reader.observer.trial(table, rules, seen.facts[table.name], span)

        decisions: dict[tuple[str, str], Decision] = {}
        tried = self._planning.readers.by_part(tables, begin, trial)
        for table, (_, choices, found) in zip(tables, tried, strict=True):
            slow: Counter[str] = Counter()
            for counts in found:
                slow.update(counts)
            for name, choice in choices.items():
                decisions[table.name, name] = decider.decide(
                    self._planning.subject(seen, (table.name, name)), choice, slow=slow[name]
                )
        self._decisions = settle_maps(self._planning, seen, decisions)

    def _propose(self, decider: OntoDecider, table: SourceTable) -> dict[str, Choice]:
        choices: dict[str, Choice] = {}
        for name, there in self._matches[table.name].columns.items():
            subject = self._planning.subject(self._seen, (table.name, name))
            computed = there.generated is not None and subject.column.generated
            if subject.facts.unreadable or computed:
                continue
            try:
                choices[name] = decider.propose(subject, None)
            except Unsupported as error:
                self._findings.add(
                    error.code,
                    "error",
                    error.message,
                    table=table.name,
                    column=name,
                    count=subject.facts.values,
                    settle=error.settle(table.name, name),
                )
        return choices

    def plan(self) -> Plan:
        """The plan, once every column is decided."""
        self._try_keys()
        self._try_checks()
        find_row_faults(self._planning, self._seen, self._decisions, frozenset())
        for place, decision in self._decisions.items():
            subject = self._planning.subject(self._seen, place)
            if not subject.column.generated:
                aside = self._planning.quarantine.of(subject.table.name)
                self._planning.decider.report_changes(subject, decision, aside)
                self._report_interval(subject.table, subject.column, decision.rule)
        return self._build()

    def _report_interval(self, table: SourceTable, column: SourceColumn, rule: Rule) -> None:
        shape = getattr(inside(rule), "since", None)
        if inside(rule).kind == "interval" and shape is not None:
            self._findings.add(
                "interval-since-1970",
                "warning",
                f"moments ({shape}) in a column of intervals are read as the time since 1970, as "
                "SQLAlchemy writes intervals",
                table=table.name,
                column=column.name,
                count=self._seen.of((table.name, column.name)).texts,
            )

    # ------------------------------------------------------------------------------ constraints

    def _try_checks(self) -> None:
        """Nothing of the source's own: the target's, there."""
        if self._trial is None:
            return
        for one in self._matched.tables:
            table = self._catalogue.table(one.source.name)
            if max((f.rows for f in self._seen.facts[table.name].values()), default=0):
                for check in one.target.checks:
                    self._try_check(table, one, check, self._trial)

    def _try_check(
        self, table: SourceTable, one: TableMatch, check: TargetCheck, trial: Trial
    ) -> None:
        """Look for rows that the check refuses. One over columns that the source does not fill is
        met by whatever fills them."""
        filled = [(one.source_of(name), one.target.column(name)) for name in check.columns]
        pairs = [
            (self._decisions.get((table.name, source.name)), source, there)
            for source, there in filled
            if source is not None and there is not None
        ]
        known = [(d, source, there) for d, source, there in pairs if d is not None]
        if not check.columns or len(known) < len(check.columns):
            return

        def texts() -> Iterator[tuple[int, list[str | None]]]:
            names = [source.name for _, source, _ in known]
            encoding = self._catalogue.encoding
            for number, row in enumerate(
                read_rows(self._connection, table, names, encoding=encoding)
            ):
                try:
                    line = [d.rule.forward(v) for (d, _, _), v in zip(known, row, strict=True)]
                except CannotCarry:
                    continue
                yield number, line

        wrong = set(trial([there for _, _, there in known], check.expression, texts()))
        if not wrong:
            return
        rows, identity, shown = Rows(), identity_columns(table), shown_columns(table)
        names = [*identity, *shown]
        for number, row in enumerate(
            read_rows(self._connection, table, names, encoding=self._catalogue.encoding)
        ):
            if number in wrong:
                rows.add(row[: len(identity)], show_key(shown, row[len(identity) :]))
        self._judge(table, rows, "check-violated", f"the target's CHECK {check.name}")

    def _judge(self, table: SourceTable, rows: Rows, code: str, what: str) -> None:
        text = f"{count_rows(rows.count)} that {what} refuses"
        aside = self._findings.action_for(table.name) == "quarantine"
        if aside:
            self._planning.set_aside(table.name, rows, f"refused by {what}")
            text += "; to quarantine by the policy"
        self._findings.add(
            code,
            "warning" if aside else "error",
            text,
            table=table.name,
            rows=rows,
            settle=settle_table(table.name, action="quarantine"),
        )

    def _try_keys(self) -> None:
        for one in self._matched.tables:
            table = self._catalogue.table(one.source.name)
            for key in one.target.keys:
                sources = [one.source_of(c) for c in key.columns]
                names = tuple(c.name for c in sources if c is not None)
                if len(names) == len(sources):
                    self._try_key(table, names, key.name)

    def _try_key(self, table: SourceTable, columns: tuple[str, ...], name: str) -> None:
        """Look for rows that the target's key would refuse."""
        known = [d for d in (self._decisions.get((table.name, c)) for c in columns) if d]
        if len(known) < len(columns):
            return
        rules = [d.rule for d in known]
        exact = all(d.exact or d.told_apart for d in known)
        declared = {frozenset(map(fold, own)) for own in unique_keys(table)}
        if exact and frozenset(map(fold, columns)) in declared:
            return
        if exact and not any(isinstance(rule, MapRule) for rule in rules):
            rows = self._quarantine.duplicates(table, columns)
        else:
            rows = find_collisions(
                self._connection, table, columns, rules, encoding=self._catalogue.encoding
            )
        if not rows.count:
            return
        self._judge(
            table,
            rows,
            "unique-violated",
            f"the target's {name} ({', '.join(columns)}), whose values another row has,",
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
            decision = self._decisions.get((table.name, name))
            column = next(c for c in table.columns if c.name == name)
            if decision is None or column.generated or self._seen.of((table.name, name)).nulls:
                return False
            loose = inside(decision.rule).kind in LOOSE
            kept = decision.told_apart if isinstance(decision.rule, MapRule) else decision.exact
            if loose or not kept:
                return False
        return True

    def _filled(self, table: SourceTable, column: str) -> bool:
        return (table.name, column) in self._decisions

    def _build(self) -> Plan:
        for other in self._catalogue.others:
            if other.kind == "virtual":
                report_virtual(self._connection, self._catalogue, other, self._findings)
        tables = [
            self._existing(self._catalogue.table(one.source.name), one)
            for one in self._matched.tables
        ]
        tables += [_alone(table) for table in self._matched.alone]
        return Plan(
            profile="none",
            encoding=self._catalogue.encoding,
            tables=tuple(tables),
            sequences=tuple(self._existing_sequences()),
            findings=self._findings.all,
            existing=True,
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
        return _alone(one.target).model_copy(
            update={
                "source": table.name,
                "columns": tuple(self._existing_columns(table, one)),
                "key": self._row_key(table),
                "rows": max((f.rows for f in facts.values()), default=0),
                "widest": sum(f.heaviest for f in facts.values()),
                "quarantine": self._quarantine.predicates(table),
                "reasons": self._quarantine.reasons(table),
                "without_rowid": table.without_rowid,
            }
        )

    def _existing_columns(self, table: SourceTable, one: TableMatch) -> Iterator[ColumnPlan]:
        for there in one.target.columns:
            source = one.source_of(there.name)
            decision = None
            if source is not None:
                decision = self._decisions.get((table.name, source.name))
            if source is None or decision is None:
                yield _column_alone(there)
                continue
            rule = decision.rule.under(source.affinity)
            nulls = bool(self._seen.of((table.name, source.name)).nulls)
            yield _column_alone(there).model_copy(
                update={
                    "source": source.name,
                    "rule": rule,
                    "identity": bool(there.sequences)
                    and source.name == table.rowid_alias
                    and isinstance(rule, IntegerRule),
                    "clean": decision.clean,
                    "nulls": nulls or _maps_to_null(rule),
                    "reason": "the target's type",
                }
            )

    def _existing_sequences(self) -> Iterator[SequencePlan]:
        for one in self._matched.tables:
            table = self._catalogue.table(one.source.name)
            for name, there in one.columns.items():
                decision = self._decisions.get((table.name, name))
                if decision is None or inside(decision.rule).kind != "integer":
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


def _alone(table: TargetTable) -> TablePlan:
    """A table as it is on the target, with nothing of the source's."""
    return TablePlan(
        source=None,
        target=table.name,
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
