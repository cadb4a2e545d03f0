"""What hangs on a table beyond its values: defaults, generated columns, CHECKs, unique constraints,
indexes; and views, triggers and virtual tables. Carried over where it means the same on the target,
reported where not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import apsw

from migration_job.plan import expression_parts, expressions, naming
from migration_job.plan.defaults import is_local, translate_default
from migration_job.plan.distinct import report_renamed
from migration_job.plan.expression_parts import Known, Untranslatable
from migration_job.plan.facts import ColumnFacts
from migration_job.plan.findings import Findings
from migration_job.plan.model import CheckPlan, IndexPlan, UniquePlan, ViewPlan
from migration_job.plan.observe import Observer
from migration_job.plan.quarantine import Quarantine
from migration_job.plan.relations import Relations
from migration_job.plan.rules import Rule
from migration_job.plan.storage import names_class
from migration_job.plan.views import DEEPEST, ViewTable, names_read, translate_view
from migration_job.plan.virtual import report_virtual
from migration_job.quoting import postgres_name, postgres_relation
from migration_job.stores.sqlite.model import (
    ROWID_NAMES,
    Affinity,
    Catalogue,
    SourceColumn,
    SourceIndex,
    SourceIndexColumn,
    SourceTable,
)
from migration_job.stores.sqlite.reader import column_sql
from migration_job.values import fold

MAX_INDEX_BYTES = 2_680
"""A B-tree's entry is refused beyond 2,704 bytes, header included; compression may save it, but
not surely."""

TERM_BYTES = 16
"""What any value takes of an entry at most, beside the bytes of text: its length and its
alignment, or all of a number or a time."""

NUMERIC_BYTES = 200
"""All digits of the largest double as a numeric."""

MAX_INDEX_SQL = 2_500
"""Bytes of an index's expressions and condition. pg_index has no room out of line: what it keeps
of them, about three times as much once it is compressed, has to fit on a page of 8 KiB."""

MAX_INDEX_COLUMNS = 32
"""PostgreSQL's limit of an index, so of a key and a reference."""


@dataclass(frozen=True, slots=True)
class ColumnView:
    """A column as decided."""

    source: SourceColumn
    target: str
    type: str
    rule: Rule
    facts: ColumnFacts
    exact: bool


@dataclass(frozen=True)
class TableView:
    source: SourceTable
    target: str
    columns: dict[str, ColumnView]
    encoding: str = "UTF-8"

    @cached_property
    def scope(self) -> expression_parts.Scope:
        """The columns as an expression may name them."""
        found: dict[str, Known] = {}
        for name, column in self.columns.items():
            known = Known(
                sql=postgres_name(column.target),
                kind=expression_parts.kind_of(column.type),
                rule=column.rule,
                exact=column.exact,
                collation=column.source.collation.upper(),
                affinity=column.source.affinity,
                same_order=self.encoding == "UTF-8",
            )
            for key in _spellings(self, name):
                found[key] = known
        alias = self.source.rowid_alias
        if alias is not None and alias in self.columns:
            for name in ROWID_NAMES:
                found.setdefault(name, found[fold(alias)])
        return found


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
        self._observer = observer
        self._quarantine = quarantine
        self._references = references
        self._widths: dict[tuple[str, str], int] = {}
        self._tables = {t.source.name: t for t in tables}
        self._findings = findings
        self._catalogue = catalogue
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
        self._django = any(fold(t.name) == "django_migrations" for t in catalogue.tables)

    def _keep_name(self, table: SourceTable, name: str) -> str:
        wanted = naming.cut(name) or "_"
        free = self.reserve(wanted, f"{table.name} {name}")
        if free != wanted:
            report_renamed(self._findings, table.name, name, free)
        return free

    def key_name(self, table: SourceTable) -> str | None:
        """The primary key's name on the target where the source names it."""
        return self._named.get((table.name, table.primary_key_name or ""))

    def impossible_keys(self) -> set[tuple[str, tuple[str, ...]]]:
        """Tables and columns whose values, or whose number, no index of PostgreSQL's takes as they
        are: no primary key, and nothing that a foreign key could refer to."""
        return {
            (view.source.name, tuple(t.column for t in index.columns if t.column is not None))
            for view in self._tables.values()
            for index in view.source.indexes
            if index.unique and (_too_many(index) or self._too_wide(view, index))
        }

    def of_table(
        self, table: SourceTable, collided: set[tuple[str, ...]], broken: set[str]
    ) -> Parts:
        """The parts of a table, without the unique keys over the ``collided`` columns and without
        the ``broken`` CHECKs (``table.number``); what cannot be had is noted."""
        view = self._tables[table.name]
        uniques: list[UniquePlan] = []
        indexes: list[IndexPlan] = []
        for index in table.indexes:
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
        self._report_collations(view)
        carried = dict(self._checks(view, broken))
        return Parts(
            defaults=dict(self._defaults(view)),
            generated=dict(self._generated(view)),
            checks=tuple(carried.values()),
            uniques=tuple(uniques),
            indexes=tuple(indexes),
            source_checks=tuple(
                check for n, check in enumerate(view.source.checks, 1) if n not in carried
            ),
        )

    # ------------------------------------------------------------------------------ columns

    def _report_collations(self, view: TableView) -> None:
        for name, column in view.columns.items():
            collation = column.source.collation.upper()
            if collation != "BINARY" and expression_parts.kind_of(column.type) == "text":
                how = {"NOCASE": "lower(...)", "RTRIM": "rtrim(...)"}.get(
                    collation, "the same rule"
                )
                self._findings.add(
                    "collation",
                    "warning",
                    f"compares under {collation} on the source and byte by byte on the target; "
                    f"unique constraints are kept as they were, queries have to say {how}",
                    table=view.source.name,
                    column=name,
                )

    def _defaults(self, view: TableView) -> Iterator[tuple[str, str]]:
        for name, column in view.columns.items():
            if column.source.generated:
                continue
            try:
                default = translate_default(column.source, column.rule)
            except Untranslatable as reason:
                self._not_carried("default-not-carried", view, str(reason), column=name)
                continue
            if default is None:
                continue
            if is_local(column.source.default):
                self._findings.add(
                    "default-in-local-time",
                    "warning",
                    f"the default {column.source.default} takes the time zone of the "
                    "application's host on the source, and the session's TimeZone on the target",
                    table=view.source.name,
                    column=name,
                )
            yield name, default

    def _generated(self, view: TableView) -> Iterator[tuple[str, str]]:
        if not any(column.source.generated for column in view.columns.values()):
            return
        within = dict(view.scope)
        for name, column in view.columns.items():
            if column.source.generated:
                why = f"it refers to the generated column {name}, which is not one there"
            elif not column.exact:
                why = f"it is computed from {name}, some values of which a rule changes"
            else:
                continue
            for key in _spellings(view, name):
                within[key] = replace(view.scope[key], hidden=why)
        for name, column in view.columns.items():
            expression = column.source.expression
            if not column.source.generated or expression is None:
                continue
            try:
                if column.rule.kind.startswith("widened"):
                    raise Untranslatable("its values are of several storage classes")
                part = expressions.value(expression, within)
                if part.kind == "integer" and self._observer.overflows(view.source, name):
                    raise Untranslatable("its values are beyond what PostgreSQL's bigint computes")
                sql = f"({_stored(part, column)})::{column.type}"
                yield name, sql
                # PostgreSQL's generated columns may not refer to one another: the expression
                # stands in for the column.
                for key in _spellings(view, name):
                    within[key] = replace(view.scope[key], sql=f"({sql})")
            except Untranslatable as reason:
                self._findings.add(
                    "generated-as-plain",
                    "by-action",
                    f"the generated column's values are carried{_computed(column)}, its "
                    f"expression is not ({expression}): {reason}",
                    table=view.source.name,
                    column=name,
                )

    def _checks(self, view: TableView, broken: set[str]) -> Iterator[tuple[int, CheckPlan]]:
        """Those that are carried, by their numbers."""
        for number, check in enumerate(view.source.checks, 1):
            if f"{view.source.name}.{number}" in broken:
                continue
            try:
                self._refuse_impossible(view, check)
                expression = expressions.condition(check, view.scope)
            except Untranslatable as reason:
                self._not_carried(
                    "check-not-carried", view, f"CHECK ({_short(check)}): {reason}", number=number
                )
                continue
            # Constraints of one table have names of their own.
            wanted = f"{view.target}_check_{number}"
            name = wanted if naming.cut(wanted) == wanted else f"check_{number}"
            given = view.source.check_names[number - 1] if view.source.check_names else None
            yield (
                number,
                CheckPlan(name=naming.cut(given) if given else name, expression=expression),
            )

    @staticmethod
    def _refuse_impossible(view: TableView, check: str) -> None:
        """Raises Untranslatable where ``typeof`` asks for another class than the one that the
        target's column was given, no value having told: every row would be refused."""
        for column in view.columns.values():
            word = expression_parts.CLASS_WORDS.get(expression_parts.kind_of(column.type))
            if column.facts.values or word is None:
                continue
            if not names_class(check, column.source.name, word):
                raise Untranslatable(
                    f"no value tells the type of {column.source.name}, which is {column.type} here"
                )

    # ------------------------------------------------------------------------------ indexes

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
        if _too_many(index) or self._too_wide(view, index):
            return None
        name = self._named.get((view.source.name, index.constraint or ""))
        if name is None:
            wanted = f"{view.target}_{'_'.join(columns)}_key"
            name = self.reserve(index.name if djangos else wanted, index.name, own=djangos)
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
            or any(_is_plain(i) and _names(i) == names for i in view.source.indexes)
            or _too_many(index)
            or self._too_wide(view, index)
        ):
            return
        targets = tuple(dict.fromkeys(c.target for c in columns))
        name = self.reserve(f"{view.target}_{'_'.join(targets)}_key", index.name)
        yield UniquePlan(name=name, columns=targets)

    def reserve(self, name: str, whole: str, *, own: bool = False) -> str:
        """A relation's name that is no other's, from now on taken; ``own``: the source's name of
        an index or a view, which nothing that has none there may take."""
        taken = self._relations if own else self._relations | self._wanted
        free = naming.relation_name(name, taken, whole=whole)
        self._relations.add(free)
        return free

    def _folded_key(self, view: TableView, index: SourceIndex) -> Iterator[IndexPlan]:
        """A primary key under another collation allows fewer keys than PostgreSQL's does; one of
        values that are too long is an index over their digests."""
        folded = any(_collation(t) != "BINARY" for t in index.columns)
        if folded or _too_many(index) or self._too_wide(view, index):
            yield from self._index(view, index)

    def _index(self, view: TableView, index: SourceIndex) -> Iterator[IndexPlan]:
        try:
            terms, where = self._index_terms(view, index)
        except Untranslatable as reason:
            what = "unique index" if index.unique else "index"
            self._not_carried(
                "index-not-carried",
                view,
                f"{what} {index.name}: {reason}",
                item=index.name,
            )
            return
        method = "btree"
        if self._too_wide(view, index):
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
        if _too_many(index):
            raise Untranslatable(
                f"it has {len(index.columns)} columns, and PostgreSQL's have "
                f"{MAX_INDEX_COLUMNS} at most"
            )
        terms = [self._term(view, term, unique=index.unique) for term in index.columns]
        where = None if index.where is None else expressions.condition(index.where, view.scope)
        told = [t for t, c in zip(terms, index.columns, strict=True) if c.column is None]
        if sum(len(part.encode()) for part in (where or "", *told)) > MAX_INDEX_SQL:
            raise Untranslatable("its expressions are longer than PostgreSQL keeps for one")
        return terms, where

    def _index_name(self, view: TableView, index: SourceIndex) -> str:
        """The index's name on the target, from now on taken."""
        if index.origin == "c":
            return self.reserve(index.name, f"{view.target} {index.name}", own=True)
        given = index.constraint if index.origin == "u" else view.source.primary_key_name
        target = self._named.get((view.source.name, given or ""))
        if target is not None:
            return target
        name = f"{view.target}_{'_'.join(t.column or 'expr' for t in index.columns)}_key"
        return self.reserve(name, f"{view.target} {name}")

    def _term(self, view: TableView, term: SourceIndexColumn, *, unique: bool) -> str:
        if term.column is None:
            if term.expression is None or term.expression == "rowid":
                raise Untranslatable("it is over the rowid")
            part = expressions.value(term.expression, view.scope, plain_case=not unique)
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

    def _too_wide(self, view: TableView, index: SourceIndex) -> bool:
        return sum(self._width(view, term) for term in index.columns) > MAX_INDEX_BYTES

    def _width(self, view: TableView, term: SourceIndexColumn) -> int:
        """Bytes that the largest value takes of the index's entry."""
        if term.column is None and term.expression is not None:
            try:
                return self._in_utf8(self._heaviest(view, term.expression))
            except apsw.Error:
                return TERM_BYTES
        column = view.columns.get(term.column or "")
        return TERM_BYTES if column is None else self._width_of(view, column)

    def _width_of(self, view: TableView, column: ColumnView) -> int:
        if column.type.startswith("numeric"):
            return NUMERIC_BYTES
        whole = self._in_utf8(column.facts.heaviest)
        if whole * MAX_INDEX_COLUMNS <= MAX_INDEX_BYTES:
            return whole  # too little to matter, with or without rows in quarantine
        return self._in_utf8(self._heaviest(view, column_sql(view.source, column.source.name)))

    def _heaviest(self, view: TableView, expression: str) -> int:
        """Bytes of the largest value among the rows that are carried."""
        place = (view.source.name, expression)
        if place not in self._widths:
            kept = self._quarantine.kept(view.source)
            self._widths[place] = self._observer.heaviest(view.source, expression, kept)
        return self._widths[place]

    def widths(self, table: SourceTable) -> dict[str, int]:
        """For each column on the target, by its folded name, the bytes that its largest
        value takes of an index's entry."""
        view = self._tables[table.name]
        return {fold(c.target): self._width_of(view, c) for c in view.columns.values()}

    def _in_utf8(self, size: int) -> int:
        """Two bytes of UTF-16 are three of UTF-8 at most."""
        wider = size if self._catalogue.encoding == "UTF-8" else size * 3 // 2
        return TERM_BYTES + wider

    def _narrowed(
        self, view: TableView, index: SourceIndex, terms: list[str]
    ) -> tuple[list[str], str] | None:
        """An index over values that are too long for a B-tree's page."""
        wide = [
            self._width(view, term) > MAX_INDEX_BYTES // len(index.columns)
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
        self._not_carried(
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

    # -------------------------------------------------------------------------- other things

    def views(self) -> tuple[ViewPlan, ...]:
        """The views that have a translation; those that depend on a view that has none do not."""
        waiting = [o for o in self._catalogue.others if o.kind == "view"]
        if not waiting:
            return ()
        known: dict[str, ViewTable] = {
            fold(name): ViewTable(_qualified(t.target), t.scope, tuple(t.columns))
            for name, t in self._tables.items()
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
                except Untranslatable as reason:
                    reasons[view.name] = str(reason)
                    continue
                depth = 1 + max((depths.get(n, 0) for n in names_read(view.sql)), default=0)
                if depth > DEEPEST:
                    reasons[view.name] = f"more than {DEEPEST} views stand on one another"
                    continue
                depths[fold(view.name)] = depth
                target = self.reserve(view.name, view.name, own=True)
                planned.append(ViewPlan(source=view.name, target=target, query=translated.query))
                known[fold(view.name)] = ViewTable(
                    _qualified(target), translated.scope, translated.columns
                )
                waiting.remove(view)
                progress = True
        for view in waiting:
            self._findings.add(
                "view-not-carried",
                "by-action",
                f"view {view.name}: {reasons[view.name]}",
                table=view.name,
                item=view.name,
            )
        return tuple(planned)

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

    def _not_carried(
        self,
        code: str,
        view: TableView,
        message: str,
        *,
        column: str | None = None,
        number: int | None = None,
        item: str | None = None,
    ) -> None:
        if number is not None:
            item = f"{view.source.name}.{number}"
        self._findings.add(
            code, "by-action", message, table=view.source.name, column=column, item=item
        )


def _spellings(view: TableView, column: str) -> tuple[str, str]:
    return expression_parts.spelled(column), expression_parts.spelled(column, view.source.name)


def _computed(column: ColumnView) -> str:
    """SQLite's versions do not agree on every value, the digits of a real as text for one."""
    if column.source.generated != "virtual":
        return ""
    return f" as SQLite {apsw.sqlite_lib_version()} computes them"


def _stored(part: expression_parts.Typed, column: ColumnView) -> str:
    """The part as the generated column's type: truth values are numbers unless it is boolean."""
    wanted, affinity = expression_parts.kind_of(column.type), column.source.affinity
    if part.kind == "boolean" and wanted in expression_parts.NUMBERS:
        return expression_parts.number(part).sql
    # PostgreSQL rounds a real to 15 digits for numeric, and either to a whole number for integer.
    rounded = (part.kind, wanted) in {
        ("real", "numeric"),
        ("real", "integer"),
        ("numeric", "integer"),
    }
    if part.kind == wanted == "numeric" and (
        part.known is None or _makes_integers(part.known.affinity) != _makes_integers(affinity)
    ):
        raise Untranslatable("SQLite makes integers of the reals 1.0 and 2.0 in one of the columns")
    both_numbers = {part.kind, wanted} <= expression_parts.NUMBERS and not rounded
    gives = part.known.rule.target_type if part.kind == "time" and part.known is not None else None
    if gives not in (None, column.type):
        raise Untranslatable(f"it gives a {gives} for a column of {column.type}")
    if part.kind not in ("null", wanted) and not both_numbers:
        raise Untranslatable(f"it gives a {part.kind} for a column of {column.type}")
    return part.sql


def _makes_integers(affinity: Affinity) -> bool:
    """Whether a column of this affinity holds no whole real
    (https://sqlite.org/datatype3.html, section 3)."""
    return affinity in ("integer", "numeric")


def _is_plain(index: SourceIndex) -> bool:
    """Whether it keeps rows apart byte by byte, all of them."""
    binary = all(_collation(t) == "BINARY" for t in index.columns)
    return index.unique and index.where is None and binary


def _names(index: SourceIndex) -> set[str | None]:
    return {t.column for t in index.columns}


def _too_many(index: SourceIndex) -> bool:
    return len(index.columns) > MAX_INDEX_COLUMNS


def _digest(term: str, of_bytes: bool) -> str:
    """The MD5 of a text or of bytes; an index takes no cast whose result a setting decides."""
    return f"md5({term})" if of_bytes else f"md5(({term})::text)"


def _qualified(name: str) -> str:
    """A relation as a query has to name it: PostgreSQL looks for pg_class among its own first."""
    return postgres_relation(name)


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


def _short(sql: str) -> str:
    text = " ".join(sql.split())
    return text if len(text) <= 60 else text[:59] + "…"
