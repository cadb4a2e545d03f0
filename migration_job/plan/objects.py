"""What hangs on a table beyond its values: defaults, generated columns, CHECKs, unique constraints,
indexes; and views, triggers and virtual tables. Carried over where it means the same on the target,
reported where not."""

from __future__ import annotations

from dataclasses import dataclass

import apsw

from migration_job.plan.column_parts import ColumnParts
from migration_job.plan.findings import Findings
from migration_job.plan.index_plans import IndexPlans
from migration_job.plan.index_widths import IndexWidths, too_many
from migration_job.plan.model import CheckPlan, IndexPlan, UniquePlan, ViewPlan
from migration_job.plan.observe import Observer
from migration_job.plan.overflows import Overflows
from migration_job.plan.quarantine import Quarantine
from migration_job.plan.relation_names import RelationNames
from migration_job.plan.relations import Relations
from migration_job.plan.table_views import TableView
from migration_job.plan.virtual import report_virtual
from migration_job.stores.sqlite.model import Catalogue, SourceTable
from migration_job.values import fold


@dataclass(frozen=True, slots=True)
class Parts:
    """What a table's plan gets besides its columns and keys."""

    defaults: dict[str, str]
    generated: dict[str, str]
    checks: tuple[CheckPlan, ...]
    uniques: tuple[UniquePlan, ...]
    indexes: tuple[IndexPlan, ...]
    source_checks: tuple[str, ...]
    """Those that the source alone has."""


class Objects:
    """Plans the objects of one catalogue."""

    def __init__(
        self,
        tables: list[TableView],
        findings: Findings,
        catalogue: Catalogue,
        observer: Observer,
        quarantine: Quarantine,
        references: Relations,
    ) -> None:
        self._tables = {t.source.name: t for t in tables}
        self._findings = findings
        self._catalogue = catalogue
        self.names = RelationNames(tables, findings, catalogue)
        self._widths = IndexWidths(observer, quarantine, catalogue.encoding)
        self._observer = observer
        overflows = Overflows(findings, observer)
        self._columns = ColumnParts(findings, overflows)
        django = any(fold(t.name) == "django_migrations" for t in catalogue.tables)
        self._indexes = IndexPlans(
            findings, self.names, self._widths, references, overflows, django=django
        )

    def impossible_keys(self) -> set[tuple[str, tuple[str, ...]]]:
        """Tables and columns whose values, or whose number, no index of PostgreSQL's takes as they
        are: no primary key, and nothing that a foreign key could refer to."""
        return {
            (view.source.name, tuple(t.column for t in index.columns if t.column is not None))
            for view in self._tables.values()
            for index in view.source.indexes
            if index.unique and (too_many(index) or self._widths.too_wide(view, index))
        }

    def of_table(
        self, table: SourceTable, collided: set[tuple[str, ...]], broken: set[str]
    ) -> Parts:
        """The parts of a table, without the unique keys over the ``collided`` columns and without
        the ``broken`` CHECKs (``table.number``); what cannot be had is noted."""
        view = self._tables[table.name]
        uniques, indexes = self._indexes.of_table(view, collided)
        self._columns.report_collations(view)
        carried = dict(self._columns.checks(view, broken))
        return Parts(
            defaults=dict(self._columns.defaults(view)),
            generated=dict(self._columns.generated(view)),
            checks=tuple(carried.values()),
            uniques=uniques,
            indexes=indexes,
            source_checks=tuple(
                check for n, check in enumerate(view.source.checks, 1) if n not in carried
            ),
        )

    def widths(self, table: SourceTable) -> dict[str, int]:
        """For each column on the target, by its folded name, the bytes that its largest
        value takes of an index's entry."""
        view = self._tables[table.name]
        return {fold(c.target): self._widths.width_of(view, c) for c in view.columns.values()}

    def views(self, schema: str) -> tuple[ViewPlan, ...]:
        """The views that have a translation, of tables in ``schema``; those that depend on a view
        that has none do not."""
        if not any(other.kind == "view" for other in self._catalogue.others):
            return ()
        # Here: the parser behind it takes longer to import than a small file to plan.
        from migration_job.plan.view_plans import ViewPlanning, plan_views

        planning = ViewPlanning(self._catalogue, self._tables, self._findings, self._observer)
        return plan_views(planning, self.names, schema)

    def report_others(self, connection: apsw.Connection) -> None:
        """Say what has no counterpart: triggers, virtual tables."""
        for other in self._catalogue.others:
            if other.kind == "trigger":
                self._findings.add(
                    "trigger-not-carried",
                    "by-action",
                    f"trigger {other.name}: what it does must be done by the application or by "
                    "a trigger written for PostgreSQL",
                    table=other.table,
                    item=other.name,
                )
            elif other.kind == "virtual":
                report_virtual(connection, self._catalogue, other, self._findings)
