"""Rows that the target's own keys and CHECKs would refuse."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from migration_job.plan.collisions import find_collisions
from migration_job.plan.column_reports import count_rows
from migration_job.plan.decide import Decision
from migration_job.plan.facts import Rows
from migration_job.plan.findings import settle_table
from migration_job.plan.matching import Matched, TableMatch
from migration_job.plan.planner.context import Planning
from migration_job.plan.planner.row_faults import unique_keys
from migration_job.plan.planner.side_by_side import Seen
from migration_job.plan.row_names import identity_columns, show_key, shown_columns
from migration_job.plan.rules import CannotCarry, MapRule
from migration_job.plan.target import TargetCheck, TargetColumn
from migration_job.stores.sqlite.model import SourceTable
from migration_job.stores.sqlite.reader import read_rows
from migration_job.values import fold

Trial = Callable[
    [Sequence[TargetColumn], str, Iterable[tuple[int, list[str | None]]]], Iterable[int]
]
"""From columns of the target's, a CHECK over them and numbered rows of their texts to the numbers
of the rows that the CHECK refuses."""


class Refusals:
    """Tries the decided columns of each table against the target's keys and CHECKs."""

    def __init__(
        self,
        planning: Planning,
        seen: Seen,
        matched: Matched,
        decisions: Mapping[tuple[str, str], Decision],
        trial: Trial | None,
    ) -> None:
        self._planning = planning
        self._seen = seen
        self._matched = matched
        self._decisions = decisions
        self._trial = trial
        self._connection = planning.connection
        self._catalogue = planning.catalogue
        self._findings = planning.findings
        self._quarantine = planning.quarantine

    def try_keys(self) -> None:
        """Look for rows that the target's keys would refuse."""
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

    def try_checks(self) -> None:
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
