"""The head of a report's page: what came of the run, in a few words and in figures. It claims no
more than the run has seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from migration_job.plural import counted, either, named
from migration_job.report.forms import duration, number, words

Json = Mapping[str, Any]


def verdict(
    report: Json,
    tables: Sequence[Json],
    findings: Sequence[Json],
    ledger_total: int,
    quarantine_total: int,
) -> dict[str, Any]:
    """The outcome in one word and a few sentences."""
    outcome = str(report.get("outcome") or "unfinished")
    phase = str(report.get("phase") or "")
    compares = verifies(report)
    sentences: list[str] = []
    exceptions = [str(clause) for clause in report.get("exceptions") or ()]
    if outcome == "verified":
        sentences += [f"With exceptions: {', '.join(exceptions)}."] if exceptions else []
        sentences += _verified_sentences(tables, ledger_total, quarantine_total, compares=compares)
        sentences += [f"The migration's phase: {words(phase)}."] if compares else []
    else:
        if outcome == "blocked":
            sentences.append(_blocked_sentence(_count_of("error", findings)))
        message = str(report.get("message") or "")
        sentences += [line for line in message.splitlines() if line.strip()]
        sentences.append(_stopped(report))
    shown, tone = _title(outcome, "" if compares else phase, bool(exceptions))
    return {
        "title": shown,
        "tone": tone,
        "sentences": sentences,
    }


def _title(outcome: str, phase: str, excepted: bool) -> tuple[str, str]:
    """The verdict in a few words, and how it looks."""
    title = words(phase if phase in ("switched", "settled") else outcome).capitalize()
    if outcome == "verified" and excepted:
        return f"{title}, with exceptions", "warn"
    return title, {"verified": "good", "blocked": "warn"}.get(outcome, "bad")


def command_of(report: Json) -> str:
    """Whose report it is."""
    return "verify" if report.get("command") == "verify" else "migrate"


def verifies(report: Json) -> bool:
    """Whether it is of a `verify`, which copies nothing."""
    return command_of(report) == "verify"


def _stopped(report: Json) -> str:
    """Where a run that did not come to its end stopped."""
    where, ended = str(report.get("stopped_in") or ""), list(mapping(report, "seconds"))
    reached = ended[-1] if ended else str(report.get("phase") or "")
    if where:
        return f"This run stopped in the phase: {words(where)}."
    if reached:
        return f"This run stopped after the phase: {words(reached)}."
    if mapping(report, "tables"):
        return "This run stopped before anything was copied."
    return "This run stopped before anything was read."


def _verified_sentences(
    tables: Sequence[Json], ledger: int, quarantine: int, *, compares: bool
) -> list[str]:
    rows = sum(t["target_rows"] or 0 for t in tables)
    equal = "nothing differs but what the ledger holds." if ledger else "every value is the same."
    where = either(rows, "was", "were")
    where += " compared" if compares else " copied to PostgreSQL and compared"
    compared = (
        f"{counted(rows, 'row')}{' of PostgreSQL' if compares else ''} in "
        f"{counted(len(tables), 'table')} {where} with the source"
        f"{f': {equal}' if rows else ': there was no value to compare.'}"
    )
    if not ledger and not quarantine:
        return [compared, "No value was changed and no row was set aside."]
    changed = (
        f"{counted(ledger, 'value')} changed by a rule "
        f"{either(ledger, 'is', 'are')} in the ledger; "
        f"{counted(quarantine, 'row')} "
        f"{either(quarantine, 'is', 'are')} in the quarantine."
    )
    return [compared, changed]


def _blocked_sentence(errors: int) -> str:
    return (
        f"Preflight found {counted(errors, 'thing')} that the policy does not allow. "
        "Nothing was written to the target; the application is still on SQLite."
    )


def _count_of(severity: str, findings: Sequence[Json]) -> int:
    return sum(1 for f in findings if f["severity"] == severity)


def none_changed(report: Json, tables: Sequence[Json]) -> str:
    """What an empty ledger says, of a run that has compared every value."""
    done = "compared" if verifies(report) else "copied"
    if not any(table["target_rows"] for table in tables):
        return f"No value was {done}."
    return f"Every value that was {done} is the source's value, bit for bit."


def figures(content: Json) -> list[dict[str, Any]]:
    """The cards. What a run that stopped has not read or compared has none."""
    tables: Sequence[Json] = content["tables"]
    rows = sum(t["source_rows"] or 0 for t in tables)
    unequal = sum(t["differences"] or 0 for t in tables)
    errors = _count_of("error", content["findings"])
    warnings = _count_of("warning", content["findings"])
    ledger, aside = content["ledger_total"], content["quarantine_total"]
    verified = bool(content["compared"])
    read = verified or bool(tables)
    cards = [
        (read, _figure(rows, f"{named(rows, 'row')} in the source")),
        (read, _figure(len(tables), named(len(tables), "table"))),
        # Where nothing was compared, nothing is known to be equal.
        (
            verified or unequal,
            _figure(unequal, named(unequal, "difference"), "bad" if unequal else "good"),
        ),
        (verified or ledger, _figure(ledger, "in the ledger")),
        (verified or aside, _figure(aside, "in quarantine", "warn" if aside else "")),
        (errors, _figure(errors, named(errors, "error"), "bad")),
        (warnings, _figure(warnings, named(warnings, "warning"), "warn")),
    ]
    known = [card for there, card in cards if there]
    if content["phases"]:
        known.append({"value": duration(content["total_seconds"]), "label": "in all", "tone": ""})
    return known


def _figure(value: int, label: str, tone: str = "") -> dict[str, Any]:
    return {"value": number(value), "label": label, "tone": tone}


def mapping(report: Json, name: str) -> Json:
    """That part of the report; empty where it has none."""
    found = report.get(name)
    return found if isinstance(found, Mapping) else {}
