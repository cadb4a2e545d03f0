"""ON CONFLICT clauses of constraints: PostgreSQL has none, so each is said before the run, with
what happens there instead."""

from __future__ import annotations

from collections.abc import Mapping

from migration_job.plan.findings import Findings
from migration_job.stores.sqlite.model import ConflictClause, SourceTable

_STATES: Mapping[str, str] = {"not null": "23502", "check": "23514"}
"""SQLSTATEs of the kinds that are not unique (23505)."""

_SOURCE = {
    ("unique", "REPLACE"): "deletes the rows that are in the way",
    ("not null", "REPLACE"): "puts the column's default in the place of NULL",
    ("unique", "IGNORE"): "leaves the new row out without an error",
    ("not null", "IGNORE"): "leaves the row out without an error",
    ("unique", "FAIL"): "keeps what the statement wrote before it",
    ("not null", "FAIL"): "keeps what the statement wrote before it",
}

_ADVICE = {
    ("unique", "REPLACE"): "the application has to say INSERT ... ON CONFLICT (...) DO UPDATE",
    ("not null", "REPLACE"): "the application has to leave the column out or to say DEFAULT",
    ("unique", "IGNORE"): "the application has to say INSERT ... ON CONFLICT DO NOTHING",
    ("not null", "IGNORE"): "the application has to leave such rows out itself",
}


def report_conflicts(table: SourceTable, findings: Findings) -> None:
    """A finding for each clause of the table's constraints."""
    for clause in table.conflicts:
        state = _STATES.get(clause.kind, "23505")
        words = f"{clause.constraint} ON CONFLICT {clause.action}"
        kind = "not null" if clause.kind == "not null" else "unique"
        effect = _SOURCE.get((kind, clause.action))
        if clause.kind == "check" or effect is None:
            findings.add("on-conflict", "note", _alike(words, clause, state), table=table.name)
            continue
        advice = _ADVICE.get((kind, clause.action))
        findings.add(
            "on-conflict",
            "warning",
            f"{words}: SQLite {effect}; PostgreSQL refuses the whole statement (SQLSTATE {state})"
            + (f", and {advice}" if advice else ""),
            table=table.name,
        )


def _alike(words: str, clause: ConflictClause, state: str) -> str:
    if clause.kind == "check":
        return f"{words}: SQLite takes no notice of it; both refuse the row (SQLSTATE {state})"
    return f"{words}: PostgreSQL refuses the statement (SQLSTATE {state}) and the transaction ends"
