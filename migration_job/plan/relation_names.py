"""Names of indexes, keys and views on the target, which share one name space with its tables."""

from __future__ import annotations

from collections.abc import Iterable

from migration_job.plan import naming
from migration_job.plan.distinct import report_renamed
from migration_job.plan.findings import Findings
from migration_job.plan.table_views import TableView
from migration_job.stores.sqlite.model import Catalogue, SourceTable


class RelationNames:
    """The relations' names that are taken, and those that the source gives to its keys."""

    def __init__(
        self, tables: Iterable[TableView], findings: Findings, catalogue: Catalogue
    ) -> None:
        self._findings = findings
        # Tables, indexes and constraints' indexes share one name space.
        self._relations = {t.target for t in tables}
        self._wanted = {
            *(i.name for t in catalogue.tables for i in t.indexes if i.origin == "c"),
            *(o.name for o in catalogue.others if o.kind == "view"),
        }
        """Names that the source gives to what comes later."""
        self._named = {
            (table.name, name): self._keep_name(table, name)
            for table in catalogue.tables
            for name in dict.fromkeys(
                (table.primary_key_name, *(i.constraint for i in table.indexes))
            )
            if name
        }
        """By table and source's name the target's names of keys."""

    def _keep_name(self, table: SourceTable, name: str) -> str:
        wanted = naming.cut(name) or "_"
        free = self.reserve(wanted, f"{table.name} {name}")
        if free != wanted:
            report_renamed(self._findings, table.name, name, free)
        return free

    def key_name(self, table: SourceTable) -> str | None:
        """The primary key's name on the target where the source names it."""
        return self.given(table, table.primary_key_name)

    def reserve(self, name: str, whole: str, *, own: bool = False) -> str:
        """A relation's name that is no other's, from now on taken; ``own``: the source's name of
        an index or a view, which nothing that has none there may take."""
        taken = self._relations if own else self._relations | self._wanted
        free = naming.relation_name(name, taken, whole=whole)
        self._relations.add(free)
        return free

    def given(self, table: SourceTable, name: str | None) -> str | None:
        """A key's name on the target where the source names it ``name``."""
        return self._named.get((table.name, name or ""))
