"""What the target's constraints say of the rows, before anything is loaded.

Keys of plain values are tried here; what only PostgreSQL can judge (CHECKs, exclusion constraints,
indexes with expressions, conditions or an equality of their own, references to rows that the source
does not have) is tried by the target itself, on the rows in a temporary table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from migration_job.plan.assignment import Assignment
from migration_job.plan.collisions import find_collisions
from migration_job.plan.column_reports import count_rows
from migration_job.plan.facts import Rows
from migration_job.plan.findings import policy_for_table
from migration_job.plan.matching import Matched, TableMatch
from migration_job.plan.model import OWN_SCHEMA, ForeignKeyPlan
from migration_job.plan.planner.context import Planning
from migration_job.plan.planner.row_faults import unique_keys
from migration_job.plan.planner.side_by_side import Seen
from migration_job.plan.row_names import identity_columns, show_key, shown_columns
from migration_job.plan.rules import CannotCarry, MapRule
from migration_job.plan.target import (
    TargetCheck,
    TargetColumn,
    TargetDemand,
    TargetKey,
    TargetTable,
)
from migration_job.stores.sqlite.model import SourceColumn, SourceTable
from migration_job.stores.sqlite.reader import read_rows
from migration_job.values import fold


@dataclass(frozen=True, slots=True)
class Numbered:
    """Rows of a source's table as the texts that the target's columns would get."""

    table: TargetTable
    columns: Sequence[TargetColumn]
    """Those that the rows have."""
    rows: Iterable[tuple[int, list[str | None]]]


class Trial(Protocol):
    """What tries numbered rows on the target; each gives the numbers of the rows refused."""

    def check(self, rows: Numbered, expression: str) -> Sequence[int]:
        """By a CHECK over the columns."""

    def demand(self, rows: Numbered, demand: TargetDemand) -> Sequence[int]:
        """By an index, which takes the first of the rows that exclude each other."""

    def reference(self, rows: Numbered, key: ForeignKeyPlan) -> Sequence[int]:
        """By a foreign key to a table whose rows are there already."""


@dataclass(frozen=True, slots=True)
class Refusals:
    """Tries the rows of a plan; what is refused is a finding, or goes to quarantine."""

    planning: Planning
    seen: Seen
    matched: Matched
    assignments: Mapping[tuple[str, str], Assignment]

    # -------------------------------------------------------------------------------- by the target

    def by(self, trial: Trial) -> None:
        """Everything that only the target can judge."""
        filled = {one.target.name for one in self.matched.tables}
        for one in self.matched.tables:
            table = self.planning.catalogue.table(one.source.name)
            if not max((f.rows for f in self.seen.facts[table.name].values()), default=0):
                continue
            for demand in one.target.demands:
                self._demand(one, demand, trial)
            for check in one.target.checks:
                self._check(one, check, trial)
            for key in one.target.foreign_keys:
                there = key.parent_schema == OWN_SCHEMA and key.parent in filled
                if key.validated and not there:
                    self._reference(one, key, trial)

    def _check(self, one: TableMatch, check: TargetCheck, trial: Trial) -> None:
        """Look for rows that the check refuses. One over columns that the source does not fill is
        met by whatever fills them."""
        if check.columns and self._all_filled(one, check.columns):
            self._ask(
                one,
                check.columns,
                lambda rows: trial.check(rows, check.expression),
                ("check-violated", f"the target's CHECK {check.name}"),
            )

    def _demand(self, one: TableMatch, demand: TargetDemand, trial: Trial) -> None:
        """Look for rows that exclude each other. A column that the source does not fill has its
        default; one that a sequence fills tells all rows apart."""
        needed = list(demand.columns)
        for name in demand.columns:
            there = one.target.column(name)
            if there is None or self._all_filled(one, [name]):
                continue
            if there.sequences or there.identity:
                return
            if there.generated is not None:
                needed = [column.name for column in one.target.columns]
        self._ask(
            one,
            [name for name in needed if self._all_filled(one, [name])],
            lambda rows: trial.demand(rows, demand),
            (
                "unique-violated" if demand.what == "unique index" else "exclusion-violated",
                f"the target's {demand.what} {demand.name}, with which another row collides,",
            ),
        )

    def _reference(self, one: TableMatch, key: ForeignKeyPlan, trial: Trial) -> None:
        if self._all_filled(one, key.columns):
            self._ask(
                one,
                key.columns,
                lambda rows: trial.reference(rows, key),
                (
                    "reference-violated",
                    f"the target's foreign key {key.name} to {key.parent_place}",
                ),
            )

    def _filled(
        self, one: TableMatch, names: Sequence[str]
    ) -> list[tuple[Assignment, SourceColumn, TargetColumn]]:
        found = []
        for name in names:
            source, there = one.source_of(name), one.target.column(name)
            if source is None or there is None:
                continue
            assignment = self.assignments.get((one.source.name, source.name))
            if assignment is not None:
                found.append((assignment, source, there))
        return found

    def _all_filled(self, one: TableMatch, names: Sequence[str]) -> bool:
        return len(self._filled(one, names)) == len(names)

    def _ask(
        self,
        one: TableMatch,
        names: Sequence[str],
        ask: Callable[[Numbered], Sequence[int]],
        finding: tuple[str, str],
    ) -> None:
        table = self.planning.catalogue.table(one.source.name)
        known = self._filled(one, names)
        encoding = self.planning.catalogue.encoding

        def texts() -> Iterator[tuple[int, list[str | None]]]:
            sources = [source.name for _, source, _ in known]
            rows = read_rows(self.planning.connection, table, sources, encoding=encoding)
            for number, row in enumerate(rows):
                try:
                    line = [d.rule.forward(v) for (d, _, _), v in zip(known, row, strict=True)]
                except CannotCarry:
                    continue
                yield number, line

        wrong = set(ask(Numbered(one.target, [there for _, _, there in known], texts())))
        if wrong:
            self._judge(table, self._named(table, wrong), *finding)

    def _named(self, table: SourceTable, wrong: set[int]) -> Rows:
        rows, identity, shown = Rows(), identity_columns(table), shown_columns(table)
        encoding = self.planning.catalogue.encoding
        for number, row in enumerate(
            read_rows(self.planning.connection, table, [*identity, *shown], encoding=encoding)
        ):
            if number in wrong:
                rows.add(row[: len(identity)], show_key(shown, row[len(identity) :]))
        return rows

    # -------------------------------------------------------------------------------------- here

    def keys(self, *, left_to_target: bool) -> None:
        """The target's keys, those that the target tries itself left out where it does."""
        for one in self.matched.tables:
            table = self.planning.catalogue.table(one.source.name)
            theirs = {demand.name for demand in one.target.demands} if left_to_target else set()
            for key in one.target.keys:
                sources = [one.source_of(c) for c in key.columns]
                names = tuple(c.name for c in sources if c is not None)
                if len(names) == len(sources) and key.name not in theirs:
                    self._key(table, names, key)

    def _key(self, table: SourceTable, columns: tuple[str, ...], key: TargetKey) -> None:
        """Look for rows that the target's key would refuse."""
        found = [self.assignments.get((table.name, c)) for c in columns]
        known = [d for d in found if d]
        if len(known) < len(columns):
            return
        rules = [d.rule for d in known]
        exact = all(d.exact or d.told_apart for d in known)
        declared = {frozenset(map(fold, own)) for own in unique_keys(table)}
        if exact and frozenset(map(fold, columns)) in declared:
            return
        if exact and not any(isinstance(rule, MapRule) for rule in rules):
            rows = self.planning.quarantine.duplicates(table, columns)
        else:
            encoding = self.planning.catalogue.encoding
            rows = find_collisions(
                self.planning.connection, table, columns, rules, encoding=encoding
            )
        if rows.count:
            what = f"the target's {key.name} ({', '.join(columns)}), whose values another row has,"
            self._judge(table, rows, "unique-violated", what)

    def _judge(self, table: SourceTable, rows: Rows, code: str, what: str) -> None:
        text = f"{count_rows(rows.count)} that {what} refuses"
        aside = self.planning.findings.action_for(table.name) == "quarantine"
        if aside:
            self.planning.set_aside(table.name, rows, f"refused by {what}")
            text += "; to quarantine by the policy"
        self.planning.findings.add(
            code,
            "warning" if aside else "error",
            text,
            table=table.name,
            rows=rows,
            resolution=policy_for_table(table.name, action="quarantine"),
        )


def try_all(refusals: Refusals, trial: Trial | None) -> None:
    """Try every constraint of the target's; without ``trial``, what only the target can judge is
    left to the load."""
    refusals.keys(left_to_target=trial is not None)
    if trial is not None:
        refusals.by(trial)
