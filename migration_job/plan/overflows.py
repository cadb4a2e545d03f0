"""Expressions that PostgreSQL could not compute: tried on the source's rows, before the load."""

from __future__ import annotations

from collections.abc import Sequence

from migration_job.plan.expression_parts import Untranslatable
from migration_job.plan.findings import Findings
from migration_job.plan.observe import Observer
from migration_job.plan.reach import Risk
from migration_job.plan.table_views import TableView


class Overflows:
    """Refuses what a row of now makes impossible, and says what a later row may."""

    def __init__(self, findings: Findings, observer: Observer) -> None:
        self._findings = findings
        self._observer = observer

    def look(
        self, view: TableView, risks: Sequence[Risk], what: str, *, column: str | None = None
    ) -> None:
        """For an expression of the table's, ``what`` with its name. Raises Untranslatable where a
        row's arithmetic goes beyond 64 bits, or beyond a double."""
        now = [risk for risk in risks if risk.possible_now]
        for risk in now:
            if self._observer.holds_somewhere(view.source, risk.overflow):
                raise beyond(risk)
        later = [risk for risk in risks if risk.worth_a_word]
        if later:
            self._findings.add(
                "integer-overflow-later",
                "note",
                f"{what} computes {_short(later[0].text)} in 64 bits: PostgreSQL refuses a row "
                "(bigint out of range) whose result does not fit, of which SQLite makes a real",
                table=view.source.name,
                column=column,
            )


def beyond(risk: Risk) -> Untranslatable:
    """Why an expression with that operation is not carried."""
    if risk.why:
        return Untranslatable(risk.why)
    bounds = "64 bits" if risk.reach is not None else "a double's range"
    return Untranslatable(
        f"{_short(risk.text)} goes beyond {bounds}, and what SQLite computes then, PostgreSQL "
        "refuses with an error"
    )


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"
