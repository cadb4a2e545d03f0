"""What an operator is told of a column's values: those that do not fit, and those that change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from migration_job.plan import choose
from migration_job.plan.counted import FINEST_OF
from migration_job.plan.epochs import UNIT_WORDS, doubt, shown_time
from migration_job.plan.facts import MAX_SINGLED_OUT, ColumnFacts, Examination, Rows
from migration_job.plan.findings import Findings, policy_for_column
from migration_job.plan.rules import (
    JsonbBlobRule,
    JsonbRule,
    Rule,
    TextRule,
    TimeRule,
    TimestampRule,
    UuidRule,
    inside,
)
from migration_job.plan.rules.days import DayRule
from migration_job.plan.rules.local import LocalTimestampRule
from migration_job.plural import counted, either
from migration_job.stores.sqlite.model import SourceColumn, SourceTable

AS_BYTES = "text-as-bytes"
"""Code of the finding that a column of text has become one of bytes."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One column of the source, and what its values are."""

    table: SourceTable
    column: SourceColumn
    facts: ColumnFacts

    @property
    def place(self) -> tuple[str, str]:
        """The names of table and column."""
        return self.table.name, self.column.name


@dataclass(frozen=True, slots=True)
class Misfit:
    """Values that a rule cannot carry."""

    code: str
    text: str
    why: str
    """For each of the rows."""
    rows: Rows


def misfit_code(facts: ColumnFacts, rule: Rule) -> str:
    """The code of the finding for what the rule cannot carry."""
    inner = inside(rule)
    if isinstance(inner, TextRule) and facts.heaviest > (inner.max_length or facts.heaviest):
        return "too-long"
    for found in ("text", "blob", "real", "integer"):
        if found in facts.classes - inner.classes:
            return f"{found}-in-{inner.word or inner.kind}"
    return inner.misfit


def report_misfit(
    findings: Findings,
    subject: Subject,
    misfit: Misfit,
    resolution: Mapping[str, str],
    hint: Mapping[str, Any] | None = None,
) -> None:
    """Values that stop the run until the policy says what to do; ``resolution`` has the
    column's policy fields that would let it go on, ``hint`` those that would keep its type."""
    findings.add(
        misfit.code,
        "error",
        misfit.text,
        table=subject.table.name,
        column=subject.column.name,
        rows=misfit.rows,
        resolution=policy_for_column(*subject.place, **resolution),
        suggest=_hinted(subject, hint),
    )


def report_widened(
    findings: Findings,
    subject: Subject,
    misfit: Misfit,
    became: str,
    hint: Mapping[str, Any] | None = None,
) -> None:
    """Values for whose sake the column has a wider type; ``hint`` are the fields of a policy that
    would keep its own."""
    findings.add(
        misfit.code,
        "warning",
        f"{misfit.text}; widened to {became}",
        table=subject.table.name,
        column=subject.column.name,
        rows=misfit.rows,
        suggest=_hinted(subject, hint),
    )


def report_type_hint(
    findings: Findings, subject: Subject, why: str, hint: Mapping[str, Any]
) -> None:
    """A type that every value has, and that the declared type does not ask for."""
    findings.add(
        "type-suggested",
        "note",
        f"{why} A policy can say so (`{', '.join(f'{k}: {v}' for k, v in hint.items())}`)",
        table=subject.table.name,
        column=subject.column.name,
        count=subject.facts.values,
        suggest=_hinted(subject, hint),
    )


def _hinted(subject: Subject, hint: Mapping[str, Any] | None) -> str:
    return "" if hint is None else policy_for_column(*subject.place, **hint)


def few_enough(rows: Rows) -> bool:
    """Whether quarantine takes them: each is known by its key."""
    return rows.count <= len(rows.ids)


def report_set_aside(findings: Findings, subject: Subject, misfit: Misfit) -> bool:
    """Values whose rows go to quarantine. False where they are too many, which is an error."""
    rows, (table, column) = misfit.rows, subject.place
    few = few_enough(rows)
    if few:
        text = f"{misfit.text}; {count_rows(rows.count)} to quarantine by the policy"
        findings.add(misfit.code, "warning", text, table=table, column=column, rows=rows)
    else:
        findings.add(
            misfit.code,
            "error",
            f"{misfit.text}; {count_rows(rows.count)} would go to quarantine, more than "
            f"{MAX_SINGLED_OUT:,}: that is no longer a few rows at fault",
            table=table,
            column=column,
            rows=rows,
            resolution=policy_for_column(table, column, action="widen"),
        )
    return few


def report_as_bytes(findings: Findings, subject: Subject) -> None:
    """Bad text for whose sake the column has become bytes."""
    facts = subject.facts
    findings.add(
        AS_BYTES,
        "warning",
        "kept as bytes by the policy",
        table=subject.table.name,
        column=subject.column.name,
        rows=facts.nul if facts.nul.count else facts.broken,
    )


def bad_texts(subject: Subject) -> Iterator[Misfit]:
    """What PostgreSQL cannot hold as text."""
    nul = "text with a NUL character, which PostgreSQL cannot hold"
    broken = "text whose bytes are not valid in its encoding"
    yield Misfit("nul-in-text", nul, nul, subject.facts.nul)
    yield Misfit("undecodable-text", broken, broken, subject.facts.broken)


def lost_identity(subject: Subject) -> bool:
    """Whether identifiers have become numbers under the column's affinity."""
    column, facts = subject.column, subject.facts
    if column.affinity != "numeric" or not facts.integers + facts.reals:
        return False
    if choose.meaning_of(column).rule is UuidRule:
        return True
    return choose.is_any(column) and facts.infinities > 0


def report_lost_identity(findings: Findings, subject: Subject, examination: Examination) -> None:
    """Identifiers that SQLite has made numbers of."""
    facts = subject.facts
    numbers = facts.integers + facts.reals
    findings.add(
        "identifier-became-number",
        "error",
        f"declared {subject.column.declared}, which SQLite gives numeric affinity: "
        f"{counted(numbers, 'value')} {either(numbers, 'has', 'have')} become "
        f"{either(numbers, 'a number', 'numbers')}"
        + (f", {facts.infinities:,} of them Infinity" if facts.infinities else "")
        + "; their original values cannot be determined",
        table=subject.table.name,
        column=subject.column.name,
        rows=examination.cannot,
        count=facts.integers + facts.reals,
        resolution=policy_for_column(*subject.place, action="widen"),
    )


# ---------------------------------------------------------------------------- values that change


def report_epoch(findings: Findings, subject: Subject, rule: Rule, *, given: bool) -> None:
    """Say what numbers are taken for, with the times that it gives, and what speaks against it
    unless the policy has ``given`` the unit."""
    inner, facts = inside(rule), subject.facts
    if not isinstance(inner, TimestampRule | LocalTimestampRule | DayRule) or inner.epoch is None:
        return
    if not facts.integers + facts.reals:
        return
    said = f"numbers are read as {UNIT_WORDS[inner.epoch]} (epoch: {inner.epoch})"
    extremes = [end for end in (facts.low, facts.high) if end is not None]
    times = list(dict.fromkeys(shown_time(inner, end) for end in extremes))
    if times:
        numbers = " to ".join(str(end) for end in dict.fromkeys(extremes))
        said += f": {numbers} is {' to '.join(times)}"
    if inner.epoch in FINEST_OF:
        said += f"; they distinguish times to {FINEST_OF[inner.epoch]} decimals of a second"
    against = "" if given else doubt(subject.table, facts, inner)
    findings.add(
        "epoch",
        "warning" if against else "note",
        said + against,
        table=subject.table.name,
        column=subject.column.name,
        count=facts.integers + facts.reals,
    )


def report_unit_to_come(findings: Findings, subject: Subject, rule: Rule, why: str) -> None:
    """Say what the numbers of a column without a value will be taken for, and ``why``; or that
    nothing says it."""
    inner = inside(rule)
    unit = getattr(inner, "epoch", None) or getattr(inner, "unit", None)
    table, column = subject.place
    if unit is not None:
        words = UNIT_WORDS[unit]
        if inner.kind == "interval":
            words = words.removesuffix(" since 1970").removeprefix("Julian ")
        said = f"no value yet: numbers will be {words} (epoch: {unit}), as {why}"
        findings.add("epoch", "note", said, table=table, column=column)
        return
    findings.add(
        "unit-unknown",
        "warning",
        f"no value yet, and nothing says what the numbers of a column declared "
        f"{subject.column.declared} will count: the first one that the source gets during a live "
        "move stops the switch, and what PostgreSQL gets comes back as text, which the "
        "application may not read. `epoch` in the policy says it",
        table=table,
        column=column,
        suggest=policy_for_column(table, column, epoch="s"),
    )


def report_affinity(findings: Findings, subject: Subject) -> None:
    """A declared type that SQLite does not know, under which text has become numbers."""
    column, count = subject.column, subject.facts.integers + subject.facts.reals
    if column.affinity == "numeric" and choose.is_any(column) and count:
        findings.add(
            "numeric-affinity",
            "warning",
            f"declared {column.declared}, which SQLite gives numeric affinity: text that "
            "looks like a number was stored as that number (007 as 7)",
            table=subject.table.name,
            column=column.name,
            count=count,
        )


def report_mapped(findings: Findings, subject: Subject, met: Rows) -> None:
    """Values that the policy's map meets."""
    if met.count:
        table, column = subject.place
        text = f"{count_values(met.count)} mapped"
        findings.add("mapped", "note", text, table=table, column=column, rows=met)


def report_in_ledger(findings: Findings, subject: Subject, code: str, changed: Rows) -> None:
    """Have the finding that tells of a column's new type say how many values the ledger gets."""
    findings.say_more(code, *subject.place, f", {count_values(changed.count)} in the ledger")


_CUT_TO = {0: "seconds", 3: "milliseconds", 6: "microseconds"}
"""By the decimals of a second that a type keeps."""


def report_cut(findings: Findings, subject: Subject, rule: Rule, changed: Rows, cut: Rows) -> Rows:
    """Times that are finer than the column's type; gives what else of ``changed`` there is."""
    if not isinstance(rule, TimestampRule | TimeRule) or not cut.count:
        return changed
    table, column = subject.place
    to = _CUT_TO.get(rule.precision, f"{rule.precision} decimals of a second")
    text = (
        f"{count_values(cut.count)} finer than {rule.target_type}: cut to {to} on the target, the "
        "original in the ledger; different ones can become equal"
    )
    findings.add("cut-times", "warning", text, table=table, column=column, rows=cut)
    kept = [(k, w) for k, w in zip(changed.keys, changed.why, strict=True) if k not in cut.keys]
    return Rows(
        max(changed.count - cut.count, 0),
        tuple(key for key, _ in kept),
        tuple(why for _, why in kept),
        changed.ids - cut.ids,
    )


def report_changed(
    findings: Findings,
    subject: Subject,
    rule: Rule,
    changed: Rows,
    *,
    carried_as: str,
    hint: Mapping[str, Any] | None = None,
) -> None:
    """Values that do not come back by themselves, of the rows that stay."""
    table, column = subject.place
    many = count_values(changed.count)
    if isinstance(rule, TimestampRule | TimeRule):
        text = (
            f"{many} not in the column's shape {rule.shape}: "
            "the same moment on the target, the spelling in the ledger"
        )
        findings.add("several-shapes", "warning", text, table=table, column=column, rows=changed)
    elif isinstance(rule, JsonbRule | JsonbBlobRule):
        text = f"{many} normalised by jsonb, the original in the ledger"
        findings.add("json-normalised", "note", text, table=table, column=column, rows=changed)
    elif rule.widened:
        text = (
            f"{' and '.join(sorted(subject.facts.classes))} in one column: carried as "
            f"{carried_as}, {many} in the ledger"
        )
        findings.add(
            "mixed-classes",
            "warning",
            text,
            table=table,
            column=column,
            rows=changed,
            suggest=_hinted(subject, hint),
        )
    elif rule.kind != "text-bytea":
        text = f"{many} changed on the way, the original in the ledger"
        findings.add("changed", "warning", text, table=table, column=column, rows=changed)


def count_values(count: int) -> str:
    """A number of values in words."""
    return f"{count:,} value" + ("" if count == 1 else "s")


def count_rows(count: int) -> str:
    """A number of rows in words."""
    return f"{count:,} row" + ("" if count == 1 else "s")
