"""The rule of each column, tried on every value: kept, widened, or the rows at fault set aside,
as the policy says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from migration_job.plan import choose
from migration_job.plan.choose import Choice
from migration_job.plan.defaults import truth_word
from migration_job.plan.epochs import UNIT_WORDS, doubt, shown_time
from migration_job.plan.facts import MAX_SINGLED_OUT, ColumnFacts, Examination, Rows
from migration_job.plan.findings import Findings, settle_column
from migration_job.plan.observe import Observer
from migration_job.plan.patterns import both_ways
from migration_job.plan.policy import ColumnPolicy, Policy
from migration_job.plan.rules import (
    FINEST,
    BooleanRule,
    DateRule,
    Entry,
    IntegerRule,
    IntegerTextRule,
    JsonbRule,
    JsonRule,
    MapRule,
    NumericRule,
    Pattern,
    Rule,
    TextRule,
    TimeRule,
    TimestampRule,
    UuidBytesRule,
    UuidRule,
    WidenedByteaRule,
    WidenedTextRule,
    again,
    inside,
    timestamp,
)
from migration_job.plan.storage import classes_allowed
from migration_job.stores.sqlite.model import SourceColumn, SourceTable
from migration_job.stores.sqlite.reader import Row
from migration_job.values import fold

NUMBER_CLASSES = {"integer", "real"}


KEYS_TO_COME = 1_000_000_000
"""For so many new rows a key stays an integer: one that is nearer to the end of int4 becomes a
bigint, since INSERTs would fail there and on the source would not."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of one column: from what its values are to its type, by the rule."""

    rule: Rule
    type: str
    """The target type: the rule's own where the table is created."""
    examination: Examination
    reason: str
    quarantined: Mapping[Row, str] = field(default_factory=dict)
    """The rows that go to quarantine for this column's sake, each with the reason."""
    met: Rows | None = None
    """A map's: the values that it meets."""
    told_apart: bool = False
    """A map's: every value, mapped or not, comes back as it was."""

    @property
    def exact(self) -> bool:
        """Whether every value that is carried comes back as it was."""
        return not self.examination.changed.count

    @property
    def clean(self) -> bool:
        return self.examination.clean


@dataclass(frozen=True, slots=True)
class Wish:
    """What a profile wishes of a column."""

    type: str
    entries: tuple[Entry, ...] = ()
    patterns: tuple[Pattern, ...] = ()
    optional: bool = False
    """Where the values do not allow it, the column's own type is as good: no finding."""


class Decider:
    """Decides the columns of one source."""

    def __init__(self, observer: Observer, policy: Policy, findings: Findings, zone: str) -> None:
        self._observer = observer
        self._policy = policy
        self._findings = findings
        self._zone = policy.zone or zone

    # ----------------------------------------------------------------------------- proposals

    def propose(
        self, table: SourceTable, column: SourceColumn, facts: ColumnFacts, wish: Wish | None
    ) -> Choice:
        """What to try first: the policy's, the profile's, the declared type's."""
        return Choice.of(self._proposed(table, column, facts, wish))

    def _proposed(
        self, table: SourceTable, column: SourceColumn, facts: ColumnFacts, wish: Wish | None
    ) -> Rule:
        own = self._policy.column(table.name, column.name)
        zone = own.zone or self._zone
        facts = self._mapped(facts, own, wish)
        if own.guid is not None:
            rule: Rule = UuidBytesRule(order=own.guid)
        elif own.type is not None:
            rule = choose.for_type(own.type, column, facts, zone, own.epoch)
        elif own.epoch is not None:
            rule = timestamp(facts, zone, own.epoch)
        elif own.booleans and not own.map:
            rule = choose.for_type("boolean", column, facts, zone)
        elif wish is not None:
            rule = choose.for_type(wish.type, column, facts, zone)
        else:
            # A generated key needs room for the next ones.
            spare = KEYS_TO_COME if column.name == table.rowid_alias else 0
            key = column.name in _key_columns(table)
            rule = choose.wished(column, facts, zone, spare=spare, key=key)
            if not facts.values and choose.says_nothing(column):
                allowed = classes_allowed(table.checks, column.name)
                rule = choose.of_classes(column, allowed) or rule
            word = truth_word(column.default) if isinstance(rule, BooleanRule) else None
            if word is not None and not own.entries and not own.pattern:
                # To SQLite the default is a text, in a column of 0 and 1.
                entry = Entry(source=word[0], target=int(word[1]))
                return MapRule(entries=(entry,), inner=rule)
        targets = [e.target for e in own.entries if e.target is not None]
        if (
            isinstance(rule, IntegerTextRule)
            and targets
            and all(isinstance(t, int) for t in targets)
        ):
            rule = IntegerRule(low=rule.low, high=rule.high)  # the map makes numbers of the text
        if own.pattern and isinstance(rule, NumericRule) and "text" in facts.classes:
            rule = rule.model_copy(update={"texts": True})  # what the pattern writes is text
        return self.wrap(rule, own, wish)

    def _mapped(self, facts: ColumnFacts, own: ColumnPolicy, wish: Wish | None) -> ColumnFacts:
        """The facts with a sample of what the maps make of the values, whose shapes count."""
        rule = self.wrap(TextRule(), own, wish)
        if not isinstance(rule, MapRule):
            return facts
        return replace(facts, sample=[rule.mapped(value)[1] for value in facts.sample])

    @staticmethod
    def wrap(rule: Rule, own: ColumnPolicy, wish: Wish | None) -> Rule:
        """The rule behind the maps of policy and profile."""
        entries = own.entries + (wish.entries if wish is not None else ())
        patterns = own.pattern + (wish.patterns if wish is not None else ())
        if not entries and not patterns:
            return rule
        ways = [both_ways(p.match, p.replace) for p in patterns]
        # First as if it went both ways, which SQLite tries by itself; the planner settles it.
        both = not entries and None not in ways if patterns else True
        return MapRule(bijective=both, entries=entries, patterns=patterns, inner=rule)

    # ------------------------------------------------------------------------------ decision

    def decide(
        self,
        table: SourceTable,
        column: SourceColumn,
        facts: ColumnFacts,
        choice: Choice,
        *,
        slow: int | None = None,
        wish: Wish | None = None,
    ) -> Decision:
        """The choice tried; where it cannot carry every value, what the policy makes of that."""
        examination = self.examine(table, column.name, facts, choice.rule, slow)
        fine = self._fine_enough(table, column, choice.rule, examination)
        if fine is not choice.rule:
            choice = Choice.of(fine)
            examination = self.examine(table, column.name, facts, fine)
        reason = self._reason(table, column, facts, wish)
        decision = Decision(choice.rule, choice.type, examination, reason)
        own = self._policy.column(table.name, column.name)
        action = self._findings.action_for(table.name, column.name)
        if wish is not None and wish.optional and not own.explicit:
            action = "widen"
        lost = self._lost_identity(column, facts)
        if lost and not own.explicit and action != "quarantine":
            self._report_lost_identity(table, column, facts, examination)
            return decision
        if examination.cannot.count:
            if action == "quarantine":
                decision = self._quarantine(table, column, decision, lost=lost, facts=facts)
            elif action == "widen":
                decision = self._widen(table, column, facts, decision, wish)
            else:
                self._report_misfit(table, column, facts, decision, action)
        if decision.examination.bad.count:
            if own.action == "widen":
                return self._to_bytes(table, column, facts)
            decision = self._judge_bad_text(table, column, facts, decision, action)
        return decision

    def _fine_enough(
        self, table: SourceTable, column: SourceColumn, rule: Rule, examination: Examination
    ) -> Rule:
        """The rule with a precision that cuts no value off, where the sample had none so fine."""
        inner = inside(rule)
        if (
            not isinstance(inner, TimestampRule | TimeRule)
            or not examination.changed.count
            or self._policy.column(table.name, column.name).type is not None
        ):
            return rule
        digits = min(FINEST, self._observer.decimals(table, column.name))
        if digits <= inner.precision:
            return rule
        return again(rule, inner.model_copy(update={"precision": digits}))

    def examine(
        self,
        table: SourceTable,
        name: str,
        facts: ColumnFacts,
        rule: Rule,
        slow: int | None = None,
    ) -> Examination:
        """The rule tried on every value of the column, no policy asked."""
        if slow is None:
            slow = self._observer.trial(table, {name: rule}, {name: facts})[name]
        return self._observer.examine(table, name, rule, facts, slow)

    def forced(
        self, table: SourceTable, column: SourceColumn, facts: ColumnFacts, choice: Choice
    ) -> Decision:
        """The choice as it is, examined, no policy asked: for a type that a relation dictates."""
        examination = self.examine(table, column.name, facts, choice.rule)
        return Decision(choice.rule, choice.type, examination, "as its relation")

    def _widen(
        self,
        table: SourceTable,
        column: SourceColumn,
        facts: ColumnFacts,
        narrow: Decision,
        wish: Wish | None,
    ) -> Decision:
        own = self._policy.column(table.name, column.name)
        for candidate in self._wider(column, facts, narrow.rule):
            wrapped = self.wrap(candidate, own, wish)
            examination = self.examine(table, column.name, facts, wrapped)
            if not examination.cannot.count:
                break
        else:
            raise AssertionError(f"no rule carries {table.name}.{column.name}")
        if wish is None or not wish.optional:
            self._findings.add(
                self._misfit_code(facts, narrow.rule),
                "warning",
                f"{self._misfit_text(table, column, narrow)}; widened to {wrapped.target_type}"
                + self._ledger_words(examination),
                table=table.name,
                column=column.name,
                rows=narrow.examination.cannot,
            )
        chosen = Choice.of(wrapped)
        return Decision(chosen.rule, chosen.type, examination, f"widened from {narrow.type}")

    def _wider(self, column: SourceColumn, facts: ColumnFacts, rule: Rule) -> list[Rule]:
        inner = inside(rule)
        found: list[Rule] = []
        declared = choose.meaning_of(column).rule
        if facts.classes == {"text"} and declared in (DateRule, TimeRule):
            found.append(timestamp(facts, self._zone))
        if isinstance(inner, JsonbRule):
            found.append(JsonRule(affinity=column.affinity))
        if isinstance(inner, NumericRule) and facts.classes <= NUMBER_CLASSES:
            found.append(NumericRule(affinity=column.affinity))
        found.append(choose.lossless(column, facts))
        if isinstance(rule, MapRule):
            found.append(WidenedTextRule())
            found.append(WidenedByteaRule())
        return found

    def _to_bytes(self, table: SourceTable, column: SourceColumn, facts: ColumnFacts) -> Decision:
        choice = Choice.of(choose.for_type("bytea", column, facts, self._zone))
        examination = self.examine(table, column.name, facts, choice.rule)
        self._findings.add(
            "text-as-bytes",
            "warning",
            f"kept as bytes by the policy{self._ledger_words(examination)}",
            table=table.name,
            column=column.name,
            rows=facts.nul if facts.nul.count else facts.broken,
        )
        return Decision(choice.rule, choice.type, examination, "bytes, by the policy")

    def _quarantine(
        self,
        table: SourceTable,
        column: SourceColumn,
        decision: Decision,
        *,
        lost: bool,
        facts: ColumnFacts,
    ) -> Decision:
        rows = decision.examination.cannot
        code = "identifier-became-number" if lost else self._misfit_code(facts, decision.rule)
        text = self._misfit_text(table, column, decision)
        why = f"the value is not {decision.type}"
        return self._set_aside(table, column, decision, rows, code, text, why)

    def _set_aside(  # noqa: PLR0913 - a finding and its place
        self,
        table: SourceTable,
        column: SourceColumn,
        decision: Decision,
        rows: Rows,
        code: str,
        text: str,
        why: str,
    ) -> Decision:
        if rows.count > len(rows.ids):
            self._findings.add(
                code,
                "error",
                f"{text}; {rows.count:,} rows would go to quarantine, more than "
                f"{MAX_SINGLED_OUT:,}: that is no longer a few rows at fault",
                table=table.name,
                column=column.name,
                rows=rows,
                settle=settle_column(table.name, column.name, action="widen"),
            )
            return decision
        self._findings.add(
            code,
            "warning",
            f"{text}; {count_rows(rows.count)} to quarantine by the policy",
            table=table.name,
            column=column.name,
            rows=rows,
        )
        aside = dict.fromkeys(rows.ids, f"{code}: {why}")
        return replace(decision, quarantined={**decision.quarantined, **aside})

    # ------------------------------------------------------------------------------- reports

    def _judge_bad_text(
        self,
        table: SourceTable,
        column: SourceColumn,
        facts: ColumnFacts,
        decision: Decision,
        action: str,
    ) -> Decision:
        for code, rows, what in (
            ("nul-in-text", facts.nul, "text with a NUL character, which PostgreSQL cannot hold"),
            ("undecodable-text", facts.broken, "text whose bytes are not valid in its encoding"),
        ):
            if not rows.ids & decision.examination.bad.ids:
                continue
            if action == "quarantine":
                decision = self._set_aside(table, column, decision, rows, code, what, what)
            else:
                self._findings.add(
                    code,
                    "error",
                    what,
                    table=table.name,
                    column=column.name,
                    rows=rows,
                    settle=settle_column(table.name, column.name, action="quarantine"),
                )
        return decision

    def _lost_identity(self, column: SourceColumn, facts: ColumnFacts) -> bool:
        """Whether identifiers have become numbers under the column's affinity."""
        if column.affinity != "numeric" or not facts.integers + facts.reals:
            return False
        if choose.meaning_of(column).rule is UuidRule:
            return True
        return choose.is_any(column) and facts.infinities > 0

    def _report_lost_identity(
        self,
        table: SourceTable,
        column: SourceColumn,
        facts: ColumnFacts,
        examination: Examination,
    ) -> None:
        self._findings.add(
            "identifier-became-number",
            "error",
            f"declared {column.declared}, which SQLite gives numeric affinity: "
            f"{facts.integers + facts.reals:,} values have become numbers"
            + (f", {facts.infinities:,} of them Infinity" if facts.infinities else "")
            + "; what they were cannot be told any more",
            table=table.name,
            column=column.name,
            rows=examination.cannot,
            count=facts.integers + facts.reals,
            settle=settle_column(table.name, column.name, action="widen"),
        )

    def _report_misfit(
        self,
        table: SourceTable,
        column: SourceColumn,
        facts: ColumnFacts,
        decision: Decision,
        action: str,
    ) -> None:
        text = self._misfit_text(table, column, decision)
        if action == "map":
            text += "; the column's map does not meet these values"
        # Where some text is bad besides, `widen` would mean bytes for the whole column.
        settle = (
            settle_column(
                table.name, column.name, type=self._wider_type(column, facts, decision.rule)
            )
            if decision.examination.bad.count
            else settle_column(table.name, column.name, action="widen")
        )
        self._findings.add(
            self._misfit_code(facts, decision.rule),
            "error",
            text,
            table=table.name,
            column=column.name,
            rows=decision.examination.cannot,
            settle=settle,
        )

    def _wider_type(self, column: SourceColumn, facts: ColumnFacts, rule: Rule) -> str:
        return self._wider(column, facts, rule)[-1].target_type

    def report_changes(
        self, table: SourceTable, column: SourceColumn, facts: ColumnFacts, decision: Decision
    ) -> None:
        """Say which values a rule changes on their way, each of which the ledger will hold."""
        changed = decision.examination.changed
        rule = decision.rule
        inner = inside(rule)
        place = {"table": table.name, "column": column.name, "rows": changed}
        if isinstance(inner, TimestampRule) and inner.epoch is not None:
            self._report_epoch(table, column, facts, inner)
        if column.affinity == "numeric" and choose.is_any(column) and facts.integers + facts.reals:
            self._findings.add(
                "numeric-affinity",
                "warning",
                f"declared {column.declared}, which SQLite gives numeric affinity: text that "
                "looks like a number was stored as that number (007 as 7)",
                table=table.name,
                column=column.name,
                count=facts.integers + facts.reals,
            )
        if isinstance(rule, MapRule):
            met = decision.met or changed
            if met.count:
                place["rows"] = met
                self._findings.add("mapped", "note", f"{_values(met.count)} mapped", **place)  # type: ignore[arg-type]
            return
        if not changed.count:
            return
        if isinstance(inner, TimestampRule | TimeRule):
            shape = inner.shape
            self._findings.add(
                "several-shapes",
                "warning",
                f"{_values(changed.count)} not in the column's shape {shape}: "
                "the same moment on the target, the spelling in the ledger",
                **place,  # type: ignore[arg-type]
            )
        elif isinstance(inner, JsonbRule):
            self._findings.add(
                "json-normalised",
                "note",
                f"{_values(changed.count)} spelled anew by jsonb, the original in the ledger",
                **place,  # type: ignore[arg-type]
            )
        elif inner.widened:
            # Declared types that a value breaks have been reported; here none says what is right.
            if not decision.reason.startswith("widened"):
                self._findings.add(
                    "mixed-classes",
                    "warning",
                    f"{' and '.join(sorted(facts.classes))} in one column: carried as "
                    f"{decision.type}, {_values(changed.count)} in the ledger",
                    **place,  # type: ignore[arg-type]
                )
        elif inner.kind != "text-bytea":
            self._findings.add(
                "changed",
                "warning",
                f"{_values(changed.count)} changed on the way, the original in the ledger",
                **place,  # type: ignore[arg-type]
            )

    def _report_epoch(
        self, table: SourceTable, column: SourceColumn, facts: ColumnFacts, rule: TimestampRule
    ) -> None:
        """Say what the numbers are taken for, with the times that it gives, and what speaks
        against it where the policy has not said it."""
        if not facts.integers + facts.reals or rule.epoch is None:
            return
        said = f"numbers are read as {UNIT_WORDS[rule.epoch]} (epoch: {rule.epoch})"
        ends = [end for end in (facts.low, facts.high) if end is not None]
        times = list(dict.fromkeys(shown_time(rule, end) for end in ends))
        if times:
            numbers = " to ".join(str(end) for end in dict.fromkeys(ends))
            said += f": {numbers} is {' to '.join(times)}"
        given = self._policy.column(table.name, column.name).epoch is not None
        against = "" if given else doubt(table, facts, rule)
        self._findings.add(
            "epoch",
            "warning" if against else "note",
            said + against,
            table=table.name,
            column=column.name,
            count=facts.integers + facts.reals,
        )

    # --------------------------------------------------------------------------------- words

    @staticmethod
    def _ledger_words(examination: Examination) -> str:
        count = examination.changed.count
        return f", {_values(count)} in the ledger" if count else ""

    @staticmethod
    def _misfit_code(facts: ColumnFacts, rule: Rule) -> str:
        inner = inside(rule)
        if isinstance(inner, TextRule) and facts.heaviest > (inner.max_length or facts.heaviest):
            return "too-long"
        for found in ("text", "blob", "real", "integer"):
            if found in facts.classes - inner.classes:
                return f"{found}-in-{inner.word or inner.kind}"
        return inner.misfit

    def _misfit_text(self, table: SourceTable, column: SourceColumn, decision: Decision) -> str:
        count = decision.examination.cannot.count
        inner = inside(decision.rule)
        text = f"{_values(count)} {'is' if count == 1 else 'are'} not {decision.type}"
        if isinstance(inner, TextRule) and inner.max_length is not None:
            longest = self._observer.longest(table, column.name)
            text += f" (the longest has {longest:,} characters)"
        return text

    def _reason(
        self, table: SourceTable, column: SourceColumn, facts: ColumnFacts, wish: Wish | None
    ) -> str:
        if self._policy.column(table.name, column.name).type is not None:
            return "the policy's type"
        if wish is not None:
            return "the profile's type"
        declared = column.declared or "no declared type"
        classes = sorted(facts.classes)
        return f"{declared}, {' and '.join(classes) if classes else 'no values'}"


def _key_columns(table: SourceTable) -> set[str]:
    """The columns of the primary key and of the references: their size is their keys'."""
    referring = {fold(c) for key in table.foreign_keys for c in key.columns}
    return {c.name for c in table.columns if c.primary_key or fold(c.name) in referring}


def _values(count: int) -> str:
    return f"{count:,} value" + ("" if count == 1 else "s")


def count_rows(count: int) -> str:
    """A number of rows in words."""
    return f"{count:,} row" + ("" if count == 1 else "s")
