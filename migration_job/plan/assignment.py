"""The rule of each column, tried on every value: kept, widened, or the rows at fault set aside,
as the policy says."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from migration_job.plan import choose, column_reports, hints
from migration_job.plan.choose import Choice
from migration_job.plan.column_reports import Misfit, Subject, count_values
from migration_job.plan.defaults import truth_word
from migration_job.plan.facts import ColumnFacts, Examination, Rows
from migration_job.plan.findings import Findings
from migration_job.plan.hints import Fields
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
    JsonbBlobRule,
    JsonBlobRule,
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
    WidenedByteaRule,
    WidenedTextRule,
    again,
    inside,
    timestamp,
)
from migration_job.plan.rules.decimals import ShownNumericRule
from migration_job.plan.rules.lists import separated
from migration_job.plan.storage import classes_allowed, is_json
from migration_job.stores.sqlite.model import SourceTable
from migration_job.stores.sqlite.reader import Row
from migration_job.values import fold

NUMBER_CLASSES = {"integer", "real"}


WIDENED = "widened from "
"""How the reason of a type begins that some value has made wider."""

MOST_MISFITS = 1_000
"""Rows at fault whose values are looked at for a policy that might do for all of them."""

KEYS_TO_COME = 1_000_000_000
"""For so many new rows a key stays an integer: one that is nearer to the end of int4 becomes a
bigint, since INSERTs would fail there and on the source would not."""


@dataclass(frozen=True, slots=True)
class Assignment:
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
    told: str = ""
    """The code of the finding that tells of the type, where it is wider than what was asked for."""
    retyped: Rows | None = None
    """The few values, among many, for whose sake it is wider; None where they are not few, or where
    only an optional wish asked for the narrower type."""
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


MOST_HINTS = 100
"""Hints of a whole source: nobody reads thousands, and each is tried on all of its values."""

FIRST_TRIED = 3
"""Values from either end of a column that most of what does not fit it fails at."""

MOST_TRIED = 100_000
"""Values of a whole source that are tried in Python for hints alone: up to a second."""


class Assigner:
    """Assigns a rule to each column of one source."""

    def __init__(self, observer: Observer, policy: Policy, findings: Findings, zone: str) -> None:
        self._observer = observer
        self._policy = policy
        self._findings = findings
        self._zone = policy.zone or zone
        self._tried = 0
        self._hints = 0
        """Values that were tried for nothing but a hint."""

    # ----------------------------------------------------------------------------- proposals

    def propose(self, subject: Subject, wish: Wish | None) -> Choice:
        """What to try first: the policy's, the profile's, the declared type's."""
        return self._proposed(subject, self._own(subject), wish)

    def _proposed(self, subject: Subject, own: ColumnPolicy, wish: Wish | None) -> Choice:
        mapped = replace(subject, facts=with_maps(subject.facts, own, wish))
        rule = self._asked(mapped, own, wish)
        if rule is None:
            rule = _declared(mapped, own.zone or self._zone)
            word = _word_of_default(mapped, rule)
            if word is not None and not own.entries and not own.pattern:
                return Choice.of(MapRule(entries=(word,), inner=rule))
        if isinstance(rule, IntegerTextRule) and _makes_integers(own):
            rule = IntegerRule(low=rule.low, high=rule.high)  # the map makes numbers of the text
        if own.pattern and isinstance(rule, NumericRule) and "text" in mapped.facts.classes:
            rule = rule.model_copy(update={"texts": True})  # what the pattern writes is text
        return Choice.of(wrap(rule, own, wish))

    def _asked(self, subject: Subject, own: ColumnPolicy, wish: Wish | None) -> Rule | None:
        """The rule that the policy or the profile asks for; None where neither does."""
        column, facts, zone = subject.column, subject.facts, own.zone or self._zone
        if own.guid is not None:
            return UuidBytesRule(order=own.guid)
        if own.type is not None:
            return separated(
                choose.for_type(own.type, column, facts, zone, own.epoch), own.separator
            )
        if own.epoch is not None:
            return timestamp(facts, zone, own.epoch, reals=column.affinity == "real")
        if own.booleans and not own.map:
            return choose.for_type("boolean", column, facts, zone)
        return None if wish is None else choose.for_type(wish.type, column, facts, zone)

    def _own(self, subject: Subject) -> ColumnPolicy:
        return self._policy.column(*subject.place)

    # ------------------------------------------------------------------------------ assignment

    def assign(
        self,
        subject: Subject,
        choice: Choice,
        *,
        slow: int | None = None,
        wish: Wish | None = None,
    ) -> Assignment:
        """The choice tried; where it cannot carry every value, what the policy makes of that."""
        examination = self.examine(subject, choice.rule, slow)
        fine = self._fine_enough(subject, choice.rule, examination)
        if fine is not choice.rule:
            choice, examination = Choice.of(fine), self.examine(subject, fine)
        assignment = Assignment(
            choice.rule, choice.type, examination, _reason(subject, self._own(subject), wish)
        )
        own, action = self._own(subject), self._findings.action_for(*subject.place)
        if wish is not None and wish.optional and not own.explicit:
            action = "widen"
        lost = column_reports.lost_identity(subject)
        if lost and not own.explicit and action != "quarantine":
            column_reports.report_lost_identity(self._findings, subject, examination)
            return assignment
        if examination.cannot.count:
            assignment = self._judge_misfit(subject, assignment, action, wish)
        if not assignment.examination.bad.count:
            return assignment
        if own.action == "widen":
            return self._to_bytes(subject)
        return self._judge_bad_text(subject, assignment, action)

    def _judge_misfit(
        self, subject: Subject, assignment: Assignment, action: str, wish: Wish | None
    ) -> Assignment:
        """What becomes of a column with values that its rule cannot carry."""
        misfit = _misfit(self._observer, subject, assignment)
        if action == "quarantine":
            if column_reports.lost_identity(subject):
                misfit = replace(misfit, code="identifier-became-number")
            return self._set_aside(subject, assignment, misfit)
        if action == "widen":
            return self._widen(subject, assignment, misfit, wish)
        if action == "map":
            misfit = replace(
                misfit, text=f"{misfit.text}; the column's map does not meet these values"
            )
        # Where some text is bad besides, `widen` would mean bytes for the whole column.
        wider = self._wider(subject, assignment.rule)[-1].target_type
        resolution = {"type": wider} if assignment.examination.bad.count else {"action": "widen"}
        hint = None if wish is not None else self._hint(subject, assignment)
        column_reports.report_misfit(self._findings, subject, misfit, resolution, hint)
        return assignment

    def _hint(self, subject: Subject, narrow: Assignment) -> Fields | None:
        """The policy that would keep the column's type, or else set the few rows at fault aside;
        None where none works or the policy speaks of the column already."""
        if not self._unsaid(subject):
            return None
        cannot = narrow.examination.cannot
        found = self._keeping(subject, narrow)
        if found is None and is_few(subject, cannot) and column_reports.few_enough(cannot):
            return {"action": "quarantine"}
        return found

    def _keeping(self, subject: Subject, narrow: Assignment) -> Fields | None:
        """The policy that would keep the column's type for all its values."""
        cannot = narrow.examination.cannot
        misfits = self._observer.values_of(subject.table, subject.column.name, cannot, MOST_MISFITS)
        nullable = _nullable(subject)
        proposals = hints.for_misfits(subject, narrow.rule, misfits, nullable=nullable)
        return hints.first_that(lambda fields: self._works(subject, fields), proposals)

    def _mixed_hint(self, subject: Subject) -> Fields | None:
        """The policy that would make numbers of a column's several classes."""
        facts = subject.facts
        numbers = facts.integers + facts.reals
        if "blob" in facts.classes or numbers < facts.texts or not self._unsaid(subject):
            return None
        texts = list({value: None for value in facts.sample if isinstance(value, str)})
        proposals = hints.for_mixed(texts, nullable=_nullable(subject))
        return hints.first_that(lambda fields: self._works(subject, fields), proposals)

    def _unsaid(self, subject: Subject) -> bool:
        """Whether the policy leaves open what the column's values mean."""
        return self._own(subject).model_fields_set <= {"action", "acknowledge"}

    def _works(self, subject: Subject, fields: Fields, *, briefly: bool = False) -> bool:
        """Whether a column's policy of these fields alone carries every value; ``briefly``: and
        that can be told without trying more than ``MOST_TRIED`` values of the source in Python."""
        rule = self._proposed(subject, ColumnPolicy.model_validate(dict(fields)), None).rule
        sample = subject.facts.sample
        if not hints.carried(rule, [*sample[:FIRST_TRIED], *sample[FIRST_TRIED:][-FIRST_TRIED:]]):
            return False
        table, name = subject.table, subject.column.name
        slow = self._observer.trial(table, {name: rule}, {name: subject.facts})[name]
        if briefly:
            if self._tried + slow > MOST_TRIED:
                return False
            self._tried += slow
        examination = self.examine(subject, rule, slow)
        return not examination.cannot.count and not examination.bad.count

    def report_hint(self, subject: Subject, assignment: Assignment) -> None:
        """Tell of a truer type than the declared one, where every value has it and that does not
        take longer than the copy to find."""
        if assignment.reason.startswith(WIDENED) or not self._unsaid(subject):
            return
        if self._hints == MOST_HINTS:
            return
        for fields, why in hints.for_type(subject, assignment.rule):
            if self._works(subject, fields, briefly=True):
                column_reports.report_type_hint(self._findings, subject, why, fields)
                self._hints += 1
                return

    def _fine_enough(self, subject: Subject, rule: Rule, examination: Examination) -> Rule:
        """The rule with a precision that cuts no value off, where the sample had none so fine."""
        inner = inside(rule)
        if (
            not isinstance(inner, TimestampRule | TimeRule)
            or not examination.changed.count
            or self._own(subject).type is not None
        ):
            return rule
        digits = min(FINEST, self._observer.decimals(subject.table, subject.column.name))
        if digits <= inner.precision:
            return rule
        return again(rule, inner.model_copy(update={"precision": digits}))

    def examine(self, subject: Subject, rule: Rule, slow: int | None = None) -> Examination:
        """The rule tried on every value of the column, no policy asked."""
        table, name, facts = subject.table, subject.column.name, subject.facts
        if slow is None:
            slow = self._observer.trial(table, {name: rule}, {name: facts})[name]
        return self._observer.examine(table, name, rule, facts, slow)

    def forced(self, subject: Subject, choice: Choice) -> Assignment:
        """The choice as it is, examined, no policy asked: for a type that a relation dictates."""
        examination = self.examine(subject, choice.rule)
        return Assignment(choice.rule, choice.type, examination, "as its relation")

    def _widen(
        self, subject: Subject, narrow: Assignment, misfit: Misfit, wish: Wish | None
    ) -> Assignment:
        own = self._own(subject)
        for candidate in self._wider(subject, narrow.rule):
            choice = Choice.of(wrap(candidate, own, wish))
            examination = self.examine(subject, choice.rule)
            if not examination.cannot.count:
                break
        else:
            raise AssertionError(f"no rule carries {'.'.join(subject.place)}")
        reason = f"{WIDENED}{narrow.type}"
        assigned = Assignment(choice.rule, choice.type, examination, reason)
        if wish is None or not wish.optional:
            hint = None if wish is not None else self._hint(subject, narrow)
            column_reports.report_widened(self._findings, subject, misfit, choice.type, hint)
            other = kind_of(choice.type) != kind_of(narrow.type)
            retyped = misfit.rows if other and is_few(subject, misfit.rows) else None
            assigned = replace(assigned, told=misfit.code, retyped=retyped)
        return assigned

    def _wider(self, subject: Subject, rule: Rule) -> list[Rule]:
        inner, column, facts = inside(rule), subject.column, subject.facts
        found: list[Rule] = []
        declared = choose.meaning_of(column).rule
        if facts.classes == {"text"} and declared in (DateRule, TimeRule):
            found.append(timestamp(facts, self._zone))
        if isinstance(inner, JsonbRule):
            found.append(JsonRule(affinity=column.affinity))
        if isinstance(inner, JsonbBlobRule):
            found.append(JsonBlobRule(form=inner.form))
        if isinstance(inner, NumericRule) and facts.classes <= NUMBER_CLASSES:
            found.append(NumericRule(affinity=column.affinity))
        found.append(choose.lossless(column, facts))
        if isinstance(rule, MapRule):
            found.append(WidenedTextRule())
            found.append(WidenedByteaRule())
        return found

    def _to_bytes(self, subject: Subject) -> Assignment:
        rule = choose.for_type("bytea", subject.column, subject.facts, self._zone)
        choice = Choice.of(rule)
        examination = self.examine(subject, choice.rule)
        column_reports.report_as_bytes(self._findings, subject)
        told = column_reports.AS_BYTES
        return Assignment(choice.rule, choice.type, examination, "bytes, by the policy", told=told)

    def _set_aside(self, subject: Subject, assignment: Assignment, misfit: Misfit) -> Assignment:
        if not column_reports.report_set_aside(self._findings, subject, misfit):
            return assignment
        aside = dict.fromkeys(misfit.rows.ids, f"{misfit.code}: {misfit.why}")
        return replace(assignment, quarantined={**assignment.quarantined, **aside})

    def _judge_bad_text(self, subject: Subject, assignment: Assignment, action: str) -> Assignment:
        bad = assignment.examination.bad.ids
        misfits = [m for m in column_reports.bad_texts(subject) if m.rows.ids & bad]
        # More rows than quarantine takes are no few rows at fault: then the column is bytes.
        few = all(column_reports.few_enough(misfit.rows) for misfit in misfits)
        for misfit in misfits:
            if action == "quarantine":
                assignment = self._set_aside(subject, assignment, misfit)
            else:
                resolution = {"action": "quarantine" if few else "widen"}
                column_reports.report_misfit(self._findings, subject, misfit, resolution)
        return assignment

    def report_changes(
        self, subject: Subject, assignment: Assignment, aside: Collection[Row] = ()
    ) -> None:
        """Say which values a rule changes on their way, each of which the ledger will hold; those
        of the rows that are set ``aside`` it does not."""
        given = self._own(subject).epoch is not None
        column_reports.report_epoch(self._findings, subject, assignment.rule, given=given)
        column_reports.report_affinity(self._findings, subject)
        changed = assignment.examination.changed
        staying = self.staying(subject.table, subject.column.name, assignment, aside)
        changed = replace(changed, count=staying)
        if isinstance(assignment.rule, MapRule):
            column_reports.report_mapped(self._findings, subject, assignment.met or changed)
            return
        if changed.count and assignment.told:
            column_reports.report_in_ledger(self._findings, subject, assignment.told, changed)
        # Of declared types that a value breaks a finding tells already.
        told = assignment.rule.widened and assignment.reason.startswith(WIDENED)
        if changed.count and not told:
            cut = assignment.examination.cut.without(aside)
            changed = column_reports.report_cut(
                self._findings, subject, assignment.rule, changed, cut
            )
        if changed.count and not told:
            column_reports.report_changed(
                self._findings,
                subject,
                assignment.rule,
                changed,
                carried_as=assignment.type,
                hint=self._mixed_hint(subject) if assignment.rule.widened else None,
            )

    def staying(
        self, table: SourceTable, column: str, assignment: Assignment, aside: Collection[Row]
    ) -> int:
        """How many values the rule changes in rows that stay, where others are set ``aside``."""
        count = assignment.examination.changed.count
        if not count or not aside:
            return count
        return count - self._observer.changed_in(table, column, assignment.rule, aside)


def kind_of(type_sql: str) -> str:
    """What an application gets of a type: without its limit, a ``varchar(50)`` is text to it."""
    name = type_sql.partition("(")[0].strip()
    return "text" if name in ("varchar", "character varying") else name


def _reason(subject: Subject, own: ColumnPolicy, wish: Wish | None) -> str:
    if own.type is not None:
        return "the policy's type"
    if wish is not None:
        return "the profile's type"
    declared = subject.column.declared or "no declared type"
    classes = sorted(subject.facts.classes)
    return f"{declared}, {' and '.join(classes) if classes else 'no values'}"


def _nullable(subject: Subject) -> bool:
    return not subject.column.not_null and not subject.column.primary_key


def is_few(subject: Subject, rows: Rows) -> bool:
    """Whether these are a handful of values among many: at most the share ``hints.MOST_ASIDE`` of
    all that the column has."""
    return rows.count <= hints.MOST_ASIDE * subject.facts.values


def wrap(rule: Rule, own: ColumnPolicy, wish: Wish | None) -> Rule:
    """The rule behind the maps of policy and profile."""
    entries = own.entries + (wish.entries if wish is not None else ())
    patterns = own.pattern + (wish.patterns if wish is not None else ())
    if not entries and not patterns:
        return rule
    ways = [both_ways(p.match, p.replace) for p in patterns]
    # First as if it went both ways, which SQLite tries by itself; ``map_directions`` corrects it.
    both = not entries and None not in ways if patterns else True
    return MapRule(bijective=both, entries=entries, patterns=patterns, inner=rule)


def with_maps(facts: ColumnFacts, own: ColumnPolicy, wish: Wish | None) -> ColumnFacts:
    """The facts with a sample of what the maps make of the values, whose shapes count."""
    rule = wrap(TextRule(), own, wish)
    if not isinstance(rule, MapRule):
        return facts
    return replace(facts, sample=[rule.mapped(value)[1] for value in facts.sample])


def _declared(subject: Subject, zone: str) -> Rule:
    """The rule that the declared type asks for, or the CHECKs of a column without one."""
    table, column, facts = subject.table, subject.column, subject.facts
    # A generated key needs room for the next ones.
    spare = KEYS_TO_COME if column.name == table.rowid_alias else 0
    key = column.name in _key_columns(table)
    rule = choose.wished(column, facts, zone, spare=spare, key=key)
    if isinstance(rule, TextRule) and is_json(table.checks, column.name):
        json = JsonRule(affinity=column.affinity)
        return json if hints.carried(json, facts.sample) else rule
    declared = choose.meaning_of(column).rule is NumericRule
    if declared and type(rule) is NumericRule and not key and not _told_apart(table, column.name):
        decimal = ShownNumericRule(**rule.model_dump(exclude={"kind", "bijective"}))
        return decimal if ShownNumericRule.fits(facts.sample) else rule
    if not facts.values and choose.says_nothing(column):
        rule = choose.of_classes(column, classes_allowed(table.checks, column.name)) or rule
    return rule


def _word_of_default(subject: Subject, rule: Rule) -> Entry | None:
    """What a default such as ``'false'`` is in a column of 0 and 1: to SQLite it is a text."""
    word = truth_word(subject.column.default) if isinstance(rule, BooleanRule) else None
    return None if word is None else Entry(source=word[0], target=int(word[1]))


def _makes_integers(own: ColumnPolicy) -> bool:
    """Whether all that the policy's map makes of values are integers."""
    targets = [e.target for e in own.entries if e.target is not None]
    return bool(targets) and all(isinstance(t, int) for t in targets)


def _told_apart(table: SourceTable, column: str) -> bool:
    """Whether a unique index has the column, or an expression that may be of it."""
    terms = [term for index in table.indexes if index.unique for term in index.columns]
    return any(term.column is None or fold(term.column) == fold(column) for term in terms)


def _key_columns(table: SourceTable) -> set[str]:
    """The columns of the primary key and of the references: their size is their keys'."""
    referring = {fold(c) for key in table.foreign_keys for c in key.columns}
    return {c.name for c in table.columns if c.primary_key or fold(c.name) in referring}


def _misfit(observer: Observer, subject: Subject, assignment: Assignment) -> Misfit:
    inner = inside(assignment.rule)
    count = assignment.examination.cannot.count
    text = f"{count_values(count)} {'is' if count == 1 else 'are'} not {assignment.type}"
    if isinstance(inner, TextRule) and inner.max_length is not None:
        longest = observer.longest(subject.table, subject.column.name)
        text += f" (the longest has {longest:,} characters)"
    return Misfit(
        column_reports.misfit_code(subject.facts, assignment.rule),
        text,
        f"the value is not {assignment.type}",
        assignment.examination.cannot,
    )
