"""Unique constraints and indexes as the target can have them."""

from __future__ import annotations

from collections.abc import Iterator

from migration_job.plan import expression_parts
from migration_job.plan.expression_parts import Untranslatable
from migration_job.plan.findings import Findings
from migration_job.plan.index_widths import (
    MAX_INDEX_BYTES,
    MAX_INDEX_COLUMNS,
    IndexWidths,
    too_many,
)
from migration_job.plan.model import IndexPlan, UniquePlan
from migration_job.plan.overflows import Overflows
from migration_job.plan.reach import Risk
from migration_job.plan.relation_names import RelationNames
from migration_job.plan.relations import Relations
from migration_job.plan.table_views import TableView, not_carried
from migration_job.quoting import postgres_name
from migration_job.stores.sqlite.model import SourceIndex, SourceIndexColumn

MAX_INDEX_SQL = 2_500
"""Bytes of an index's expressions and condition. pg_index has no room out of line: what it keeps
of them, about three times as much once it is compressed, has to fit on a page of 8 KiB."""


ON_SQLITE_ALONE = "; PostgreSQL takes rows that it refuses, and the way back stops at such a row"


class IndexPlans:
    """Plans the unique constraints and indexes of tables, and reports what changes."""

    def __init__(
        self,
        findings: Findings,
        names: RelationNames,
        widths: IndexWidths,
        references: Relations,
        overflows: Overflows,
        *,
        django: bool,
    ) -> None:
        self._findings = findings
        self._names = names
        self._widths = widths
        self._references = references
        self._overflows = overflows
        self._django = django

    def of_table(
        self, view: TableView, collided: set[tuple[str, ...]]
    ) -> tuple[tuple[UniquePlan, ...], tuple[IndexPlan, ...]]:
        """The table's own, without the unique keys over the ``collided`` columns."""
        uniques: list[UniquePlan] = []
        indexes: list[IndexPlan] = []
        for index in view.source.indexes:
            if index.unique and tuple(t.column for t in index.columns) in collided:
                continue
            if index.origin == "pk":
                indexes.extend(self._folded_key(view, index))
                continue
            plain = self._plain_unique(view, index)
            if plain is not None:
                uniques.append(plain)
            else:
                uniques.extend(self._referenced(view, index))
                indexes.extend(self._index(view, index))
        return tuple(uniques), tuple(indexes)

    def _plain_unique(self, view: TableView, index: SourceIndex) -> UniquePlan | None:
        """A UNIQUE constraint where the target can have the same one. Django, which makes an index
        of it on SQLite alone, drops it as a constraint on PostgreSQL."""
        djangos = self._django and index.unique and index.name.endswith("_uniq")
        if (index.origin != "u" and not djangos) or index.where is not None:
            return None
        columns: list[str] = []
        for term in index.columns:
            column = view.columns.get(term.column or "")
            if column is None or _collation(term) != "BINARY":
                return None
            columns.append(column.target)
        if too_many(index) or self._widths.too_wide(view, index):
            return None
        name = self._names.given(view.source, index.constraint)
        if name is None:
            wanted = f"{view.target}_{'_'.join(columns)}_key"
            name = self._names.reserve(index.name if djangos else wanted, index.name, own=djangos)
        # A column may be named twice, under two collations for one.
        return UniquePlan(name=name, columns=tuple(dict.fromkeys(columns)))

    def _referenced(self, view: TableView, index: SourceIndex) -> Iterator[UniquePlan]:
        """What a foreign key can refer to, beside the index under another collation."""
        columns = [view.columns[t.column] for t in index.columns if t.column in view.columns]
        names = {c.source.name for c in columns}
        if (
            not index.unique
            or index.where is not None
            or len(columns) < len(index.columns)
            or not self._references.refers_to(view.source.name, list(names))
            or any(_is_binary_unique(i) and _names(i) == names for i in view.source.indexes)
            or too_many(index)
            or self._widths.too_wide(view, index)
        ):
            return
        targets = tuple(dict.fromkeys(c.target for c in columns))
        name = self._names.reserve(f"{view.target}_{'_'.join(targets)}_key", index.name)
        yield UniquePlan(name=name, columns=targets)

    def _folded_key(self, view: TableView, index: SourceIndex) -> Iterator[IndexPlan]:
        """A primary key under another collation allows fewer keys than PostgreSQL's does; one of
        values that are too long is an index over their digests."""
        folded = any(_collation(t) != "BINARY" for t in index.columns)
        if folded or too_many(index) or self._widths.too_wide(view, index):
            yield from self._index(view, index)

    def _index(self, view: TableView, index: SourceIndex) -> Iterator[IndexPlan]:
        try:
            terms, where = self._index_terms(view, index)
        except Untranslatable as reason:
            what = "unique index" if index.unique else "index"
            text = f"{what} {index.name}: {reason}" + (ON_SQLITE_ALONE if index.unique else "")
            not_carried(self._findings, "index-not-carried", view, text, item=index.name)
            return
        method = "btree"
        if self._widths.too_wide(view, index):
            changed = self._narrowed(view, index, terms)
            if changed is None:
                return
            terms, method = changed
        yield IndexPlan(
            name=self._index_name(view, index),
            unique=index.unique,
            terms=tuple(terms),
            where=where,
            method=method,
        )

    def _index_terms(self, view: TableView, index: SourceIndex) -> tuple[list[str], str | None]:
        """What an index is over, and its condition. Raises Untranslatable."""
        if too_many(index):
            raise Untranslatable(
                f"it has {len(index.columns)} columns, and PostgreSQL's have "
                f"{MAX_INDEX_COLUMNS} at most"
            )
        risks: list[Risk] = []
        computed = any(term.column is None for term in index.columns)
        if index.unique and computed:
            # Rows are looked for that would collide where an index is over columns alone.
            _require_exact(view, index)
        scope = view.scope_of_exact if index.unique else view.scope
        terms = [
            self._term(view, term, scope, risks, unique=index.unique) for term in index.columns
        ]
        where = index.where and _condition(index.where, scope, risks)
        told = [t for t, c in zip(terms, index.columns, strict=True) if c.column is None]
        if sum(len(part.encode()) for part in (where or "", *told)) > MAX_INDEX_SQL:
            raise Untranslatable("its expressions are longer than PostgreSQL keeps for one")
        self._overflows.look(view, risks, f"index {index.name}")
        return terms, where

    def _index_name(self, view: TableView, index: SourceIndex) -> str:
        """The index's name on the target, from now on taken."""
        if index.origin == "c":
            return self._names.reserve(index.name, f"{view.target} {index.name}", own=True)
        given = index.constraint if index.origin == "u" else view.source.primary_key_name
        target = self._names.given(view.source, given)
        if target is not None:
            return target
        name = f"{view.target}_{'_'.join(t.column or 'expr' for t in index.columns)}_key"
        return self._names.reserve(name, f"{view.target} {name}")

    def _term(
        self,
        view: TableView,
        term: SourceIndexColumn,
        scope: expression_parts.Scope,
        risks: list[Risk],
        *,
        unique: bool,
    ) -> str:
        if term.column is None:
            if term.expression is None or term.expression == "rowid":
                raise Untranslatable("it is over the rowid")
            from migration_job.plan import expressions

            part = expressions.value(term.expression, scope, risks, unicode_case=not unique)
            text, kind = f"({part.sql})", part.kind
        else:
            column = view.columns.get(term.column)
            if column is None:
                raise Untranslatable(f"the column {term.column} is not carried")
            text, kind = postgres_name(column.target), expression_parts.kind_of(column.type)
        if kind == "json" and view.columns.get(term.column or "") is not None:
            raise Untranslatable("json has no order")
        if kind == "text":
            text = _collated(text, term, unique=unique)
        return text + (" DESC" if term.descending else "")

    def _narrowed(
        self, view: TableView, index: SourceIndex, terms: list[str]
    ) -> tuple[list[str], str] | None:
        """An index over values that are too long for a B-tree's page."""
        wide = [
            self._widths.width(view, term) > MAX_INDEX_BYTES // len(index.columns)
            for term in index.columns
        ]
        if index.unique:
            digests = [
                _digest(t.removesuffix(" DESC"), self._holds_bytes(view, term)) if w else t
                for t, w, term in zip(terms, wide, index.columns, strict=True)
            ]
            self._findings.add(
                "index-over-digest",
                "by-action",
                f"unique index {index.name}: values too long for an index; "
                "it is over their MD5 digests",
                table=view.source.name,
                item=index.name,
            )
            return digests, "btree"
        if len(terms) == 1:
            self._findings.add(
                "index-by-hash",
                "by-action",
                f"index {index.name}: values too long for a B-tree; "
                "it is a hash index, which serves equality alone",
                table=view.source.name,
                item=index.name,
            )
            return [terms[0].removesuffix(" DESC")], "hash"
        not_carried(
            self._findings,
            "index-not-carried",
            view,
            f"index {index.name}: values too long for an index",
            item=index.name,
        )
        return None

    @staticmethod
    def _holds_bytes(view: TableView, term: SourceIndexColumn) -> bool:
        column = view.columns.get(term.column or "")
        return column is not None and column.type == "bytea"


def _is_binary_unique(index: SourceIndex) -> bool:
    """Whether it keeps rows apart byte by byte, all of them."""
    binary = all(_collation(t) == "BINARY" for t in index.columns)
    return index.unique and index.where is None and binary


def _names(index: SourceIndex) -> set[str | None]:
    return {t.column for t in index.columns}


def _digest(term: str, of_bytes: bool) -> str:
    """The MD5 of a text or of bytes; an index takes no cast whose result a setting decides."""
    return f"md5({term})" if of_bytes else f"md5(({term})::text)"


def _collated(text: str, term: SourceIndexColumn, *, unique: bool) -> str:
    """What an index is over where SQLite compares under a collation. Raises Untranslatable."""
    match _collation(term):
        case "BINARY":
            return text
        case "NOCASE":
            # NOCASE folds ASCII letters alone, as lower() does under "C". Where nothing depends on
            # it the index is over what queries will say.
            return f'lower({text} COLLATE "C")' if unique else f"lower({text})"
        case "RTRIM":
            return f"rtrim({text}, ' ')"
    raise Untranslatable(f"the collation {term.collation} is the application's own")


def _collation(term: SourceIndexColumn) -> str:
    return term.collation.upper()


def _require_exact(view: TableView, index: SourceIndex) -> None:
    """Raises Untranslatable where a column of the index has values that a rule changes."""
    for term in index.columns:
        column = view.columns.get(term.column or "")
        if column is not None and not column.exact:
            raise Untranslatable(f"a rule changes some values of {term.column}")


def _condition(sql: str, scope: expression_parts.Scope, risks: list[Risk]) -> str:
    # Here: the parser behind it takes longer to import than a small file to plan.
    from migration_job.plan import expressions

    return expressions.condition(sql, scope, risks)
