"""Which rows go to quarantine: those at fault, and all that depend on them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from typing import Literal, TypeVar

import apsw

from migration_job.plan.facts import Rows
from migration_job.plan.model import Reason
from migration_job.plan.relations import Place, Relation, Relations
from migration_job.plan.row_names import identity_columns, show_key, shown_columns
from migration_job.plan.rules import Entry, MapRule, Rule
from migration_job.quoting import compose, sqlite_name, sqlite_text
from migration_job.stores.sqlite.chosen_rows import rows_of
from migration_job.stores.sqlite.database import POSITIONAL, chain
from migration_job.stores.sqlite.model import Catalogue, SourceTable
from migration_job.stores.sqlite.reader import (
    Row,
    codec_of,
    column_sql,
    read_by_keys,
    read_rows,
)
from migration_job.values import BrokenText, SourceValue

_Item = TypeVar("_Item")

Spelling = Literal["same", "text", "decimal"]
"""How two numbers that are equal on the source are compared on the target: as there, as texts (or
the bytes of these), or as decimals (a real's are its shortest digits, an integer's all of them)."""

DEPENDENT = "depends on a row in quarantine"

KEYS_AT_ONCE = 200


class Quarantine:
    """The rows set aside, by the identity that tells them apart on the source."""

    def __init__(self, connection: apsw.Connection, catalogue: Catalogue) -> None:
        self._connection = connection
        self._catalogue = catalogue
        self._rows: dict[str, dict[Row, Reason]] = {}

    def add(self, table: str, rows: Set[Row], reason: Reason) -> set[Row]:
        """Set rows aside; those that were not yet are returned."""
        own = self._rows.setdefault(table, {})
        new = {row for row in rows if row not in own}
        for row in new:
            own[row] = reason
        return new

    def rows_where(self, table: SourceTable, where: str) -> Rows:
        """The rows that meet a SQLite predicate over the table aliased ``t``."""
        identity, shown = identity_columns(table), shown_columns(table)
        found = Rows()
        for row in read_rows(
            self._connection,
            table,
            [*identity, *shown],
            encoding=self._catalogue.encoding,
            where=where,
            ordered=False,
        ):
            found.add(row[: len(identity)], show_key(shown, row[len(identity) :]))
        return found

    def duplicates(self, table: SourceTable, columns: Sequence[str]) -> Rows:
        """All but the first of the rows that agree in the columns, none of which is NULL."""
        names = [f"t.{sqlite_name(c)} COLLATE BINARY" for c in columns]
        present = " AND ".join(f"t.{sqlite_name(c)} IS NOT NULL" for c in columns)
        identity = [column_sql(table, c) for c in identity_columns(table)]
        ranked = compose(
            "SELECT {identity}, row_number() OVER "
            "(PARTITION BY {names} ORDER BY {identity}) AS place_ "
            "FROM {table} AS t WHERE {present}",
            identity=", ".join(identity),
            names=", ".join(names),
            table=rows_of(table),
            present=present,
        )
        listed = ", ".join(f"c{i}" for i in range(len(identity)))
        return self.rows_where(
            table,
            compose(
                "({identity}) IN "
                "(WITH ranked({listed}, place_) AS ({ranked}) "
                "SELECT {listed} FROM ranked WHERE place_ > 1)",
                identity=", ".join(identity),
                listed=listed,
                ranked=ranked,
            ),
        )

    def orphans(
        self, relation: Relation, rules: Mapping[Place, Rule], spellings: Sequence[Spelling]
    ) -> Rows:
        """The child's rows whose reference meets no parent. Compared as the target will: after
        the maps of either side, by bytes, whatever the parent's collation, and by how it will
        spell each of the pairs. Rows with a NULL in the reference refer to none."""
        table = self._catalogue.table(relation.child)
        encoding = self._catalogue.encoding
        pairs = []
        for (child, parent), spelling in zip(relation.pairs, spellings, strict=True):
            left, right = f"t.{sqlite_name(child[1])}", f"p.{sqlite_name(parent[1])}"
            # The same map on both sides keeps equals equal, and the plain columns use an index.
            entries = _entries(rules[child])
            if entries != _entries(rules[parent]) or any(e.target is None for e in entries):
                left = mapped_sql(rules[child], left, encoding)
                right = mapped_sql(rules[parent], right, encoding)
            if spelling == "decimal":
                pairs.append((_decimal(left), _decimal(right)))
            elif spelling == "text":
                pairs.append((_digits(left), _digits(right)))
            pairs.append((left, right))
        present = " AND ".join(f"{child} IS NOT NULL" for child, _ in pairs)
        same = " AND ".join(f"{parent} = {child} COLLATE BINARY" for child, parent in pairs)
        where = compose(
            "{present} AND NOT EXISTS (SELECT 1 FROM {parent} AS p WHERE {same})",
            present=present,
            parent=rows_of(self._catalogue.table(relation.parent)),
            same=same,
        )
        return self.rows_where(table, where)

    def close_over(self, relations: Relations) -> None:
        """Add every row that refers, directly or not, to a row that was set aside."""
        waiting = {table: set(rows) for table, rows in self._rows.items() if rows}
        while waiting:
            table, rows = waiting.popitem()
            for relation in relations.all:
                if relation.parent != table:
                    continue
                why = Reason(text=f"{DEPENDENT}, by its {relation.text}")
                new = self.add(relation.child, self._dependents(relation, rows), why)
                if new:
                    waiting.setdefault(relation.child, set()).update(new)

    def _dependents(self, relation: Relation, parents: set[Row]) -> set[Row]:
        parent = self._catalogue.table(relation.parent)
        child = self._catalogue.table(relation.child)
        encoding = self._catalogue.encoding
        keys = read_by_keys(
            self._connection,
            parent,
            relation.parent_columns,
            encoding=encoding,
            key=identity_columns(parent),
            keys=parents,
        )
        identity = identity_columns(child)
        found: set[Row] = set()
        for part in _chunks([k for k in keys if None not in k], KEYS_AT_ONCE):
            conditions = [
                " AND ".join(
                    f"t.{sqlite_name(c)} = {sql_literal(v, encoding)} COLLATE BINARY"
                    for c, v in zip(relation.columns, key, strict=True)
                )
                for key in part
            ]
            found.update(
                read_rows(
                    self._connection,
                    child,
                    identity,
                    encoding=encoding,
                    where=" OR ".join(f"({c})" for c in conditions),
                    ordered=False,
                )
            )
        return found

    def count(self, table: str) -> int:
        return len(self._rows.get(table, {}))

    def of(self, table: str) -> Collection[Row]:
        """The identities of the table's rows that were set aside."""
        return self._rows.get(table, {}).keys()

    def further(self, table: str, rows: Set[Row], relations: Relations) -> tuple[int, int]:
        """How many rows would be set aside besides, were these too: of the table itself, and of
        others that depend on them. Nothing is set aside."""
        tried = Quarantine(self._connection, self._catalogue)
        tried._rows = {name: dict(own) for name, own in self._rows.items()}
        own = len(tried.add(table, rows, Reason(text="")))
        before = sum(map(len, tried._rows.values()))
        tried.close_over(relations)
        return own, sum(map(len, tried._rows.values())) - before

    def summary(self) -> Iterator[tuple[str, Counter[str]]]:
        """Per table, how many rows were set aside for themselves and as dependents."""
        for table, rows in self._rows.items():
            yield (
                table,
                Counter(
                    "dependent" if why.text.startswith(DEPENDENT) else "own"
                    for why in rows.values()
                ),
            )

    def kept(self, table: SourceTable) -> str:
        """A SQLite predicate over ``t`` for the rows that are not set aside; '' where none is."""
        predicates = self.predicates(table)
        return f"({chain('OR', [f'({p})' for p in predicates])}) IS NOT TRUE" if predicates else ""

    def predicates(self, table: SourceTable) -> tuple[str, ...]:
        """SQLite predicates over ``t``, which together meet exactly the rows set aside; each row
        meets one of them."""
        return tuple(predicate for predicate, _ in self._parts(table))

    def reasons(self, table: SourceTable) -> tuple[Reason, ...]:
        """Why the rows of each predicate were set aside."""
        return tuple(reason for _, reason in self._parts(table))

    def _parts(self, table: SourceTable) -> Iterator[tuple[str, Reason]]:
        grouped: dict[Reason, list[Row]] = {}
        for row, reason in self._rows.get(table.name, {}).items():
            grouped.setdefault(reason, []).append(row)
        for reason in sorted(grouped, key=lambda r: (r.column or "", r.text)):
            for predicate in self._one_of(table, grouped[reason]):
                yield predicate, reason

    def _one_of(self, table: SourceTable, rows: list[Row]) -> list[str]:
        encoding = self._catalogue.encoding
        references = [column_sql(table, c) for c in identity_columns(table)]
        ordered = sorted(rows, key=repr)
        if len(references) == 1 and all(isinstance(row[0], int) for row in ordered):
            numbers = ", ".join(str(n) for n in sorted(int(str(row[0])) for row in ordered))
            return [f"{references[0]} IN ({numbers})"]
        one = [
            " AND ".join(
                f"{r} COLLATE BINARY IS {sql_literal(v, encoding)}"
                for r, v in zip(references, row, strict=True)
            )
            for row in ordered
        ]
        # SQLite's expressions may be 1,000 deep: a long chain of OR is cut into several.
        return [" OR ".join(f"({c})" for c in part) for part in _chunks(one, 500)]


def mapped_sql(rule: Rule, reference: str, encoding: str) -> str:
    """A SQLite expression of what a map's entries make of a column's value."""
    if not isinstance(rule, MapRule) or not rule.entries:
        return reference
    cases = " ".join(
        f"WHEN {reference} COLLATE BINARY IS {sql_literal(e.source, encoding)} "
        f"THEN {sql_literal(e.target, encoding)}"
        for e in rule.entries
    )
    return f"CASE {cases} ELSE {reference} END"


def _entries(rule: Rule) -> tuple[Entry, ...]:
    return rule.entries if isinstance(rule, MapRule) else ()


def sql_literal(value: SourceValue, encoding: str) -> str:
    """Any value as a SQLite literal of the same storage class and bytes."""
    match value:
        case None:
            return "NULL"
        case bytes():
            return f"x'{value.hex()}'"
        case BrokenText():
            return f"CAST(x'{value.raw.hex()}' AS TEXT)"
        case str():
            if "\x00" in value:
                return f"CAST(x'{value.encode(codec_of(encoding)).hex()}' AS TEXT)"
            return sqlite_text(value)
        case float():
            if math.isinf(value):
                return "9e999" if value > 0 else "-9e999"
            return repr(value)
        case int():
            # The lowest integer has no literal of its own: its digits without the sign overflow.
            return str(value) if value != -(2**63) else "(-9223372036854775807 - 1)"


def _decimal(value: str) -> str:
    """A SQLite expression by which numbers are equal if PostgreSQL's numeric finds them so: beyond
    2^53, where a real's shortest digits may be another integer's, by those digits."""
    return (
        f"CASE WHEN {value} BETWEEN -{1 << 53} AND {1 << 53} THEN {value} "
        f"WHEN typeof({value}) = 'real' THEN replace({POSITIONAL}({value}), '.0', '') "
        f"ELSE CAST({value} AS TEXT) END"
    )


def _digits(value: str) -> str:
    """A SQLite expression by which numbers are equal if they are one number of one storage class;
    what is no number stays what it is."""
    return (
        f"CASE typeof({value}) WHEN 'integer' THEN CAST({value} AS TEXT) "
        f"WHEN 'real' THEN {POSITIONAL}({value}) ELSE {value} END"
    )


def _chunks(items: list[_Item], size: int) -> Iterator[list[_Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
