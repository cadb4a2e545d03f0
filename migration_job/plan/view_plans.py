"""Which views of the source the target gets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from migration_job.plan.expression_parts import Untranslatable
from migration_job.plan.findings import Findings
from migration_job.plan.model import ViewPlan
from migration_job.plan.observe import Observer
from migration_job.plan.overflows import beyond
from migration_job.plan.relation_names import RelationNames
from migration_job.plan.table_views import TableView
from migration_job.plan.views import (
    DEEPEST,
    TranslatedView,
    ViewTable,
    names_read,
    translate_view,
)
from migration_job.quoting import postgres_relation
from migration_job.stores.sqlite.model import Catalogue
from migration_job.values import fold


@dataclass(frozen=True, slots=True)
class ViewPlanning:
    """What the views are planned from."""

    catalogue: Catalogue
    tables: Mapping[str, TableView]
    findings: Findings
    observer: Observer


def plan_views(planning: ViewPlanning, names: RelationNames, schema: str) -> tuple[ViewPlan, ...]:
    """The views that have a translation, of tables in ``schema``; those that depend on a view that
    has none do not."""
    waiting = [o for o in planning.catalogue.others if o.kind == "view"]
    known: dict[str, ViewTable] = {
        fold(name): ViewTable(postgres_relation(t.target, schema), t.scope, tuple(t.columns))
        for name, t in planning.tables.items()
    }
    planned: list[ViewPlan] = []
    reasons: dict[str, str] = {}
    depths: dict[str, int] = {}
    progress = True
    while waiting and progress:
        progress = False
        for view in list(waiting):
            try:
                translated = translate_view(view.sql, known)
                _refuse_overflow(translated, planning.observer)
            except Untranslatable as reason:
                reasons[view.name] = str(reason)
                continue
            depth = 1 + max((depths.get(n, 0) for n in names_read(view.sql)), default=0)
            if depth > DEEPEST:
                reasons[view.name] = f"more than {DEEPEST} views depend on one another"
                continue
            depths[fold(view.name)] = depth
            target = names.reserve(view.name, view.name, own=True)
            planned.append(ViewPlan(source=view.name, target=target, query=translated.query))
            known[fold(view.name)] = ViewTable(
                postgres_relation(target, schema), translated.scope, translated.columns
            )
            waiting.remove(view)
            progress = True
    for view in waiting:
        planning.findings.add(
            "view-not-carried",
            "by-action",
            f"view {view.name}: {reasons[view.name]}",
            table=view.name,
            item=view.name,
        )
    return tuple(planned)


def _refuse_overflow(translated: TranslatedView, observer: Observer) -> None:
    """Raises Untranslatable where a row of now makes PostgreSQL end the view's query."""
    for trial in translated.trials:
        if trial.query is None or observer.gives_a_row(trial.query):
            raise beyond(trial.risk)
