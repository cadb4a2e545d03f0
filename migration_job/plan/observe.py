"""What the values of a table are: counted inside SQLite, looked at singly only where need be.

The usual table is met three times: one SELECT of aggregates, one of the chosen rules' conditions,
and one that assembles its text in blocks to look for what SQLite's own functions cannot see (NUL
and undecodable bytes). Memory stays constant: a block is bounded in bytes, a value too large for
a block is read in pieces.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import apsw

from migration_job.plan.bad_text import TextReader
from migration_job.plan.examine import Examiner
from migration_job.plan.facts import EXAMPLES, ColumnFacts, Examination, Rows
from migration_job.plan.row_names import (
    Bounds,
    Span,
    identity_columns,
    show_key,
    shown_columns,
    within,
)
from migration_job.plan.rules import RuleBase
from migration_job.quoting import compose, joined, sqlite_expression, sqlite_name
from migration_job.stores.sqlite.catalogue import rowid_name
from migration_job.stores.sqlite.chosen_rows import rows_of, scan_of
from migration_job.stores.sqlite.model import Catalogue, SourceTable
from migration_job.stores.sqlite.reader import (
    Row,
    bindable,
    codec_of,
    column_sql,
    read_by_keys,
    read_rows,
    rowid_ranges,
)
from migration_job.values import SourceValue, display, same

SAMPLE_ROWS = 200
"""Rows looked at from either end of a table to guess the shapes of its columns; every guess is
then tried on every row."""

SAMPLED_AT_ONCE = 50

SAMPLED_VALUES, FEWEST_SAMPLED = 100_000, 10
"""With many columns fewer rows are looked at, so that all samples together stay some 10 MB, and
the thousand tables that have them do not take long."""

COLUMNS_AT_ONCE = 300
"""Well under SQLite's limit of 2,000 terms of a SELECT, at five terms a column."""

SHAPE_BYTES = 100_000

CELLS_AT_ONCE = 500_000
"""Values that are worth a part of their own, where parts of a table are looked at side by side."""


class Observer:
    """Reads one consistent state of a source through one connection."""

    def __init__(self, connection: apsw.Connection, catalogue: Catalogue) -> None:
        self._connection = connection
        self._encoding = catalogue.encoding
        self._texts = TextReader(connection, catalogue.encoding)
        self._examiner = Examiner(connection, catalogue.encoding)
        self._tables = {t.name: t for t in catalogue.tables}
        columns = sum(len(t.columns) for t in catalogue.tables)
        self._sample_rows = max(FEWEST_SAMPLED, min(SAMPLE_ROWS, SAMPLED_VALUES // max(columns, 1)))

    # ------------------------------------------------------------------------------- facts

    def spans(self, table: SourceTable, bounds: Bounds, most: int) -> list[Span]:
        """Up to ``most`` parts of a large table, which together are the whole of it; ``bounds`` is
        what :meth:`sample` gives."""
        plain = self._encoding == "UTF-8" and not any(c.generated for c in table.columns)
        if most < 2 or bounds is None or not plain:
            return [None]
        low, high = bounds
        parts = min(most, (high - low) * len(table.columns) // CELLS_AT_ONCE)
        if parts < 2:
            return [None]
        return [*rowid_ranges(bounds, parts)]

    def facts(
        self, table: SourceTable, sample: Mapping[str, ColumnFacts], span: Span = None
    ) -> dict[str, ColumnFacts]:
        """Every column's facts, generated columns included, without the look at the text;
        ``sample`` is what :meth:`sample` gives."""
        found = {
            name: ColumnFacts(sample=facts.sample, unreadable=facts.unreadable)
            for name, facts in sample.items()
        }
        readable = [n for n, f in found.items() if not f.unreadable]
        for start in range(0, len(readable), COLUMNS_AT_ONCE):
            self._count(table, readable[start : start + COLUMNS_AT_ONCE], found, span)
        if not readable:
            found[table.columns[0].name].rows = int(self._one(table, ["count(*)"], span)[0])
        rows = max(f.rows for f in found.values())
        for facts in found.values():
            facts.rows = rows
        return found

    def _count(
        self,
        table: SourceTable,
        readable: Sequence[str],
        found: Mapping[str, ColumnFacts],
        span: Span,
    ) -> None:
        """Columns mostly hold one class, so one condition asks for all of them at once; only where
        it fails is each asked for."""
        expected = {name: _likely_class(found[name].sample) for name in readable}
        references = {name: column_sql(table, name) for name in readable}
        usual = {
            name: f"(typeof({c}) = '{expected[name]}' OR {c} IS NULL)"
            for name, c in references.items()
        }
        terms = ["count(*)", f"count(*) FILTER (WHERE {' AND '.join(usual.values())})"]
        for name, c in references.items():
            # Not count(c), which would read every value: this looks at its header alone.
            terms += [f"count(*) FILTER (WHERE {c} IS NULL)", *_extremes(expected[name], c)]
        row = self._one(table, terms, span)
        rows, as_usual = int(row[0]), int(row[1])
        mixed = set() if as_usual == rows else self._mixed(table, usual, rows, span)
        position = 2
        for name in readable:
            width = len(_extremes(expected[name], ""))
            nulls, *extremes = row[position : position + 1 + width]
            position += 1 + width
            found[name].rows = rows
            if name in mixed:
                self._detailed(table, name, found[name], span)
            else:
                _note(found[name], expected[name], rows - int(nulls), extremes)

    def _mixed(
        self, table: SourceTable, usual: Mapping[str, str], rows: int, span: Span
    ) -> set[str]:
        """The columns with a value that does not meet its condition."""
        terms = [f"count(*) FILTER (WHERE {term})" for term in usual.values()]
        counts = self._one(table, terms, span)
        return {n for n, count in zip(usual, counts, strict=True) if int(count) < rows}

    def sample(self, table: SourceTable) -> tuple[dict[str, ColumnFacts], Bounds]:
        """Values of each column from either end of the table, nothing counted yet, and which
        columns cannot be read; and the table's bounds."""
        found = {c.name: ColumnFacts() for c in table.columns}
        names = list(found)
        for column in table.columns:
            if column.generated:
                try:
                    self._one(table, [f"count({column_sql(table, column.name)})"])
                except apsw.Error as error:
                    found[column.name].unreadable = str(error)
                    names.remove(column.name)
        bounds: Bounds = None
        for start in range(0, len(names), COLUMNS_AT_ONCE):
            bounds = self._sample_of(table, names[start : start + COLUMNS_AT_ONCE], found)
        return found, bounds

    def _sample_of(
        self, table: SourceTable, names: Sequence[str], found: Mapping[str, ColumnFacts]
    ) -> Bounds:
        codec = codec_of(self._encoding)
        references = [column_sql(table, name) for name in names]
        rowid = rowid_name(table)
        terms = [f"typeof({c})" for c in references]
        terms += [_head(c) for c in references]
        terms += [] if rowid is None else [f"t.{rowid}"]
        cursor = self._connection.execute(
            compose(
                "SELECT {terms} FROM {table} AS t {some}",
                terms=", ".join(terms),
                table=rows_of(table),
                some=self._from_the_ends(table, rowid),
            )
        )
        first = last = None
        while rows := list(islice(cursor, SAMPLED_AT_ONCE)):
            for number, name in enumerate(names):
                found[name].sample += _of_column(rows, number, number + len(names), codec)
            first, last = first or rows[0], rows[-1]
        if rowid is None or first is None or last is None:
            return None
        return int(first[-1]), int(last[-1])

    def _from_the_ends(self, table: SourceTable, rowid: str | None) -> str:
        """What has a query of a table give some rows from both ends, in their order."""
        if rowid is None:
            return f"LIMIT {self._sample_rows}"
        some = " UNION ALL ".join(
            compose(
                "SELECT r FROM (SELECT {rowid} AS r FROM {table} "
                "ORDER BY {rowid} {order} LIMIT {sample_rows})",
                rowid=rowid,
                table=rows_of(table),
                order=order,
                sample_rows=self._sample_rows,
            )
            for order in ("ASC", "DESC")
        )
        return f"WHERE t.{rowid} IN ({some}) ORDER BY t.{rowid}"

    def _detailed(self, table: SourceTable, name: str, facts: ColumnFacts, span: Span) -> None:
        c = column_sql(table, name)
        kinds = ("integer", "real", "text", "blob")
        row = self._one(
            table,
            [f"sum(typeof({c}) = '{kind}')" for kind in kinds]
            + [
                f"min(CASE typeof({c}) WHEN 'integer' THEN {c} END)",
                f"max(CASE typeof({c}) WHEN 'integer' THEN {c} END)",
                f"max(CASE WHEN typeof({c}) IN ('text', 'blob') THEN octet_length({c}) END)",
                f"sum(typeof({c}) = 'real' AND {c} IN (9e999, -9e999))",
            ],
            span,
        )
        counts = [int(v or 0) for v in row[:4]]
        facts.integers, facts.reals, facts.texts, facts.blobs = counts
        facts.low, facts.high = row[4], row[5]
        facts.heaviest, facts.infinities = int(row[6] or 0), int(row[7] or 0)

    def _one(self, table: SourceTable, terms: Sequence[str], span: Span = None) -> tuple[Any, ...]:
        sql = compose(
            "SELECT {terms} FROM {table}{where}",
            terms=joined(", ", terms),
            table=scan_of(table),
            where="" if span is None else f" WHERE {within(table, span)}",
        )
        return tuple(self._connection.execute(sql).fetchall()[0])

    def look_at_text(
        self, table: SourceTable, facts: Mapping[str, ColumnFacts], span: Span = None
    ) -> None:
        """Find every text with a NUL character or undecodable bytes, and note it in ``facts``."""
        self._texts.look(table, facts, span)

    def examine(
        self, table: SourceTable, name: str, rule: RuleBase, facts: ColumnFacts, slow: int
    ) -> Examination:
        """The rule tried on every value that its fast condition does not vouch for; ``slow`` is how
        many there are."""
        return self._examiner.examine(table, name, rule, facts, slow)

    # ------------------------------------------------------------------------------- rules

    def trial(
        self,
        table: SourceTable,
        rules: Mapping[str, RuleBase],
        facts: Mapping[str, ColumnFacts],
        span: Span = None,
    ) -> dict[str, int]:
        """For each column the number of values that do not meet its rule's fast condition;
        ``facts`` are of the whole table."""
        counts = dict.fromkeys(rules, 0)
        names = [n for n, rule in rules.items() if not rule.implied_by(facts[n])]
        for start in range(0, len(names), COLUMNS_AT_ONCE):
            part = names[start : start + COLUMNS_AT_ONCE]
            terms = [_slow_count(column_sql(table, n), rules[n]) for n in part]
            for name, count in zip(part, self._one(table, terms, span), strict=True):
                counts[name] = int(count or 0)
        return counts

    def longest(self, table: SourceTable, name: str) -> int:
        """Characters of the column's longest text."""
        c = column_sql(table, name)
        row = self._one(table, [f"max(CASE typeof({c}) WHEN 'text' THEN length({c}) END)"])
        return int(row[0] or 0)

    def decimals(self, table: SourceTable, name: str) -> int:
        """The most digits that follow the first point of any of the column's texts."""
        c = column_sql(table, name)
        after = f"substr({c}, instr({c}, '.') + 1)"
        digits = f"length({after}) - length(ltrim({after}, '0123456789'))"
        term = f"max(CASE WHEN typeof({c}) = 'text' AND instr({c}, '.') THEN {digits} END)"
        return int(self._one(table, [term])[0] or 0)

    def holds_somewhere(self, table: SourceTable, condition: str) -> bool:
        """Whether a SQLite condition holds in a row of the table, or cannot be tried on all."""
        sql = compose(
            "SELECT 1 FROM {table} WHERE {condition} LIMIT 1",
            table=scan_of(table, sqlite_name(table.name)),
            condition=sqlite_expression(condition),
        )
        return self.gives_a_row(sql)

    def gives_a_row(self, query: str) -> bool:
        """Whether a SQLite query gives a row, or is one that SQLite cannot compute (of the lowest
        integer there is no ``abs()``)."""
        try:
            return self._connection.execute(query).fetchone() is not None
        except apsw.SQLError:
            return True

    def heaviest(self, table: SourceTable, expression: str, where: str = "") -> int:
        """Bytes of the largest value of a SQLite expression over the table's rows, or over those
        that meet a predicate. Raises apsw.Error."""
        size = f"octet_length({expression})"
        term = f"max({size}) FILTER (WHERE {where})" if where else f"max({size})"
        return int(self._one(table, [term])[0] or 0)

    def count_of(self, table: SourceTable, name: str, values: Sequence[SourceValue]) -> int:
        """How many of the column's values are one of these."""
        c = column_sql(table, name)
        listed = [v for v in values if v is not None]
        sql = compose(
            "SELECT count(*) FROM {table} AS t WHERE {c} COLLATE BINARY IN ({marks})",
            table=rows_of(table),
            c=c,
            marks=", ".join("?" * len(listed)),
        )
        bound = tuple(bindable(v) for v in listed)
        return int(self._connection.execute(sql, bound).fetchall()[0][0])  # type: ignore[arg-type]

    def some_of(self, table: SourceTable, name: str, values: Sequence[SourceValue]) -> Rows:
        """The rows in which the column has one of these values: counted, the first few by key."""
        listed = [v for v in values if v is not None]
        found = Rows(count=self.count_of(table, name, listed) if listed else 0)
        if not found.count:
            return found
        width, shown = len(identity_columns(table)), shown_columns(table)
        places = ", ".join("?" * len(listed))
        rows = read_rows(
            self._connection,
            table,
            [*identity_columns(table), *shown_columns(table), name],
            encoding=self._encoding,
            where=f"{column_sql(table, name)} COLLATE BINARY IN ({places})",
            parameters=tuple(listed),
        )
        for row in islice(rows, EXAMPLES):
            found.show(show_key(shown, row[width:-1]), display(row[-1]))
        return found

    def changed_in(
        self, table: SourceTable, name: str, rule: RuleBase, rows: Collection[Row]
    ) -> int:
        """How many of the column's values in these rows the rule changes on their way."""
        return self._examiner.changed_in(table, name, rule, rows)

    def values_of(self, table: SourceTable, name: str, rows: Rows, most: int) -> list[SourceValue]:
        """The different values of the column in up to ``most`` of the rows singled out."""
        found: list[SourceValue] = []
        for (value,) in read_by_keys(
            self._connection,
            table,
            [name],
            encoding=self._encoding,
            key=identity_columns(table),
            keys=list(islice(rows.ids, most)),
        ):
            if not any(same(value, other) for other in found):
                found.append(value)
        return found


def _slow_count(column: str, rule: RuleBase) -> str:
    condition = rule.fast_condition(column)
    missed = f"typeof({column}) <> 'null'" if condition is None else f"NOT {condition}"
    return f"count(*) FILTER (WHERE {missed})"


def _head(c: str) -> str:
    """A value, text as its bytes. octet_length() reads a value's size without its content;
    whatever is larger than any shape is not read at all."""
    return (
        f"CASE WHEN octet_length({c}) > {SHAPE_BYTES} THEN x'' "
        f"WHEN typeof({c}) = 'text' THEN CAST({c} AS BLOB) ELSE {c} END"
    )


def _of_column(
    rows: Sequence[tuple[Any, ...]], kind: int, value: int, codec: str
) -> Iterator[SourceValue]:
    """The values of a column that are not NULL; its storage classes and its values, text as bytes,
    are at these places of the rows."""
    for row in rows:
        match row[kind]:
            case "null":
                continue
            case "text":
                yield row[value].decode(codec, errors="replace")
            case _:
                yield row[value]


def _likely_class(sample: Sequence[SourceValue]) -> str:
    kinds: dict[type, str] = {int: "integer", float: "real", str: "text", bytes: "blob"}
    counts: dict[str, int] = {}
    for value in sample:
        kind = kinds[type(value)]
        counts[kind] = counts.get(kind, 0) + 1
    return max(counts, key=lambda k: counts[k]) if counts else "text"


def _extremes(kind: str, c: str) -> list[str]:
    """The further aggregates of a column whose values are all of one class."""
    match kind:
        case "integer":
            # Another class may turn up after all, and text may not decode.
            return [
                f"CASE typeof({f}({c} COLLATE BINARY)) WHEN 'integer' "
                f"THEN {f}({c} COLLATE BINARY) END"
                for f in ("min", "max")
            ]
        case "real":
            return [f"sum({c} IN (9e999, -9e999))"]
        case "text":
            return [f"max(octet_length({c}))"]
        case _:
            return [f"max(octet_length({c}))"]


def _note(facts: ColumnFacts, kind: str, count: int, extremes: Sequence[object]) -> None:
    numbers = [v if isinstance(v, int) else 0 for v in extremes]
    match kind:
        case "integer":
            facts.integers = count
            if count:
                facts.low, facts.high = numbers
        case "real":
            facts.reals, facts.infinities = count, numbers[0]
        case "text":
            facts.texts, facts.heaviest = count, numbers[0]
        case _:
            facts.blobs, facts.heaviest = count, numbers[0]
