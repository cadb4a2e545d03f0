"""What is proved of changed rows before they count: typed equality, and references that hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from migration_job.errors import VerificationError
from migration_job.plan.model import ColumnPlan, ForeignKeyPlan, TablePlan
from migration_job.plural import counted
from migration_job.protocol.reading import proof_columns, proof_rows
from migration_job.protocol.run_context import Pair
from migration_job.quoting import (
    compose,
    postgres_name,
    postgres_relation,
    postgres_text,
)
from migration_job.stores.postgres import merged, records
from migration_job.stores.postgres.apply import (
    Key,
    TableChange,
    forward_key,
    keys_join,
    row_key,
    text_array,
)
from migration_job.stores.postgres.database import Statement, ask_together, commit_together
from migration_job.stores.sqlite.chosen_rows import rows_of
from migration_job.values import fold, from_json, key_text
from migration_job.verify.connections import Accepted
from migration_job.verify.typed_keys import compare_few, compare_keys
from migration_job.verify.typed_rows import Back

SHOWN = 5

TYPED_KEYS = 2_000
"""Up to this many rows are compared by the verifier, which shares no code with what copies; a fence
never has more. A larger backlog is compared as text, which takes less time."""


def prove_changes(pair: Pair, changes: Sequence[TableChange]) -> None:
    """Compare the rows of a batch on both sides, in the source's present transaction. Raises
    VerificationError with the first differences."""
    small = sum(len(change.keys) for change in changes) <= TYPED_KEYS
    typed: list[tuple[TablePlan, Sequence[Key]]] = []
    for change in changes:
        if not small and _compare_lines(pair, change):
            # The ordinary rows are the same text on both sides; the rest is compared by value.
            typed.append((change.table, [row_key(change.table, row) for row in change.rows]))
        else:
            typed.append((change.table, change.keys))
    if small or sum(len(keys) for _, keys in typed) <= TYPED_KEYS:
        found = compare_few(pair.sides, typed)
    else:
        found = [compare_keys(pair.sides, plan, keys) for plan, keys in typed]
    for differences in found:
        _refuse(differences.table, [d.message for d in differences.shown], differences.count)


def _compare_lines(pair: Pair, change: TableChange) -> bool:
    """Whether the target holds just the ordinary rows of the batch and as many others; also False
    where the table has no lines to compare. Read again on both sides, not taken from what was
    sent."""
    expected = proof_rows(pair, change.number)
    if expected is None:
        return False
    plan = change.table
    alike, raw = proof_columns(plan)
    columns = ", ".join(f"t.{postgres_name(c.target)}" for c in [*alike, *raw])
    found: list[tuple[object, ...]] = []
    if change.key_texts:
        # COPY takes no parameters.
        arrays = [postgres_text(text_array(c)) for c in zip(*change.key_texts, strict=True)]
        item, condition = keys_join(plan, arrays=arrays)
        name = plan.relation
        query = compose(
            "SELECT {columns} FROM {name} AS t, {item} WHERE {condition}",
            columns=columns,
            name=name,
            item=item,
            condition=condition,
        )
        with (
            pair.target.cursor() as cursor,
            cursor.copy(compose("COPY ({query}) TO STDOUT", query=query).encode()) as copy,
        ):
            for line in copy:
                found.append(_parsed(bytes(line).rstrip(b"\n"), raw))
    kept = {key_text(row_key(plan, row)) for row in change.rows} - change.quarantined.keys()
    rest = Counter(found)
    rest.subtract(Counter(dict.fromkeys(expected, 1)))
    return min(rest.values(), default=0) >= 0 and rest.total() == len(kept)


def _parsed(line: bytes, raw: Sequence[ColumnPlan]) -> tuple[object, ...]:
    if not raw:
        return (line,)
    parts = line.split(b"\t")
    head, tail = parts[: -len(raw)], parts[-len(raw) :]
    values = [
        column.rule.inverse(None if text == rb"\N" else text.decode())
        for column, text in zip(raw, tail, strict=True)
    ]
    return (b"\t".join(head), *values)


def differing_keys(
    pair: Pair,
    batch: Sequence[tuple[TablePlan, Sequence[Key]]],
    forgotten: Sequence[tuple[str, str, str]] = (),
    added: Sequence[records.LedgerEntry] = (),
) -> list[tuple[str, str, str]]:
    """Which of these rows differ between the sides: source table, ``key_text`` and a message each.
    For the way back, where a difference is noted and does not stop what follows. ``forgotten``:
    source table, ``key_text`` and column of values with a ledger entry that the target has changed.
    ``added``: entries that the ledger is to get.
    """
    found: list[tuple[str, str, str]] = []
    for plan, keys in batch:
        back = Back(
            frozenset((key, column) for table, key, column in forgotten if table == plan.source),
            {
                (e.key, e.column): Accepted(e.before, e.after, e.rule)
                for e in added
                if e.table == plan.source
            },
            _computed(pair, plan),
        )
        for difference in compare_keys(pair.sides, plan, keys, back).shown:
            values = [from_json(value) for value in difference.key or []]
            found.append((plan.source or "", key_text(values), difference.message))
    return found


def _computed(pair: Pair, plan: TablePlan) -> frozenset[str]:
    """Columns that the source generates, and that are plain ones on the target."""
    generated = {c.name for c in pair.catalogue.table(plan.source or "").columns if c.generated}
    plain = {c.source for c in plan.columns if c.source is not None and c.generated is None}
    return frozenset(generated & plain)


def _refuse(table: str, differences: Sequence[str], count: int) -> None:
    if count:
        raise VerificationError(
            f"{count} changed values of {table} differ between source and target: "
            f"{'; '.join(differences[:SHOWN])}",
            advice="the side that serves continues to serve; run `migration-job verify` for the "
            "whole picture",
        )


def prove_counts(pair: Pair) -> None:
    """Count the rows of every table on both sides, in the source's present transaction, up to which
    the target must have been brought. Finds what was written around the capture (by a program that
    has switched triggers off). Takes time with the database's size. Raises VerificationError."""
    tables = list(pair.captured.values())
    counts = [
        (compose("SELECT count(*) FROM {table}", table=plan.relation), ()) for _, plan in tables
    ]
    aside = records.quarantined(pair.target)
    own = merged.counts(pair.target, pair.plan)
    for (table, plan), ((there,),) in zip(tables, ask_together(pair.target, counts), strict=True):
        here = int(
            pair.source.execute(compose("SELECT count(*) FROM {table}", table=rows_of(table))).get
        )
        expected = here - aside.get(table.name, 0) + own.get(plan.target, 0)
        if int(there) != expected:
            raise VerificationError(
                f"expected {counted(expected, 'row')} of {table.name} on the target, found "
                f"{there}: rows were written around the change capture",
                advice="SQLite serves as before; find the program that writes with triggers "
                "switched off, then run `migration-job migrate --live` again",
            )


def prove_all_references(pair: Pair) -> None:
    """Look for rows of the target that refer to nothing, where the plan says that they may not:
    catch-up suppresses the foreign keys. Takes time with the database's size; nobody waits for it.
    Raises VerificationError."""
    _refuse_all(
        pair,
        [
            _Reference(table, key, (_orphans(table, key, ""), ()))
            for table in (*pair.plan.tables, *pair.plan.outside)
            for key in table.foreign_keys
            if key.validated
        ],
    )


def prove_references(
    pair: Pair, touched: dict[int, list[Key]], more: Sequence[Statement] = ()
) -> None:
    """The same for the rows of these keys: those that refer, and those that are referred to and are
    gone or have changed. Raises VerificationError. ``more`` are statements that the target is sent
    along, whatever comes out."""
    changed = {
        plan.target: (plan, arrays)
        for number, keys in touched.items()
        for plan in [pair.captured[number][1]]
        if (arrays := _arrays(plan, keys)) is not None
    }
    found: list[_Reference] = []
    for table in (*pair.plan.tables, *pair.plan.outside):
        for key in table.foreign_keys:
            if key.validated:
                found += _touched_references(table, key, changed)
    _refuse_all(pair, found, more)


@dataclass(frozen=True, slots=True)
class _Reference:
    """A foreign key, and what finds values of it without a parent."""

    table: TablePlan
    key: ForeignKeyPlan
    query: Statement


def _refuse_all(
    pair: Pair, references: Sequence[_Reference], more: Sequence[Statement] = ()
) -> None:
    statements = [*more, *(reference.query for reference in references)]
    if not statements:
        return
    together = commit_together if more else ask_together
    found = together(pair.target, statements)[len(more) :]
    for reference, rows in zip(references, found, strict=True):
        _refuse_orphans(reference.table, reference.key, rows)


_Changed = dict[str, tuple[TablePlan, list[list[str]]]]
"""By target: the table, and the changed rows' keys as an array for each column of the key."""


def _schema(changed: _Changed) -> str:
    """Where all of them are."""
    return next((plan.schema_name for plan, _ in changed.values()), "")


def _touched_references(
    table: TablePlan, key: ForeignKeyPlan, changed: _Changed
) -> Iterator[_Reference]:
    if table.target in changed and table.schema_name == _schema(changed):
        plan, arrays = changed[table.target]
        item, condition = keys_join(plan, "c")
        query = _orphans(table, key, f" AND {condition}", f", {item}")
        yield _Reference(table, key, (query, arrays))
    if key.parent not in changed or key.parent_schema != _schema(changed):
        return
    parent, arrays = changed[key.parent]
    if _refers_to_key(key, parent):
        yield _Reference(table, key, (_orphans_of(table, key, parent), arrays))
    else:
        # The reference is to other columns than the row's key, whose old values are gone.
        yield _Reference(table, key, (_orphans(table, key, ""), ()))


def _orphans(table: TablePlan, key: ForeignKeyPlan, more: str, source: str = "") -> str:
    """A query for the first few values of ``key`` in ``table`` (aliased ``c``) without a parent."""
    columns = [f"c.{postgres_name(c)}" for c in key.columns]
    pairs = zip(key.columns, key.parent_columns, strict=True)
    same = " AND ".join(f"p.{postgres_name(b)} = c.{postgres_name(a)}" for a, b in pairs)
    there = " AND ".join(f"{c} IS NOT NULL" for c in columns)
    child = table.relation
    parent = postgres_relation(key.parent, key.parent_schema)
    return compose(
        "SELECT {columns} FROM {child} AS c{source} "
        "WHERE {there} AND NOT EXISTS (SELECT 1 FROM {parent} AS p WHERE {same}){more} "
        "LIMIT {shown}",
        columns=", ".join(f"{c}::text" for c in columns),
        child=child,
        source=source,
        there=there,
        parent=parent,
        same=same,
        more=more,
        shown=SHOWN,
    )


def _orphans_of(table: TablePlan, key: ForeignKeyPlan, parent: TablePlan) -> str:
    """The same for the parent's keys that have no row any more. Only those can leave references to
    nothing, and they are looked for first, by an index: whoever refers to a key may have to be
    looked for in a whole table, which is not begun where none is gone."""
    item, same_key = keys_join(parent)
    columns = _key_targets(parent)
    names = {column: f"k.k{i}" for i, column in enumerate(columns)}
    pairs = zip(key.columns, key.parent_columns, strict=True)
    condition = " AND ".join(f"c.{postgres_name(a)} = {names[b]}" for a, b in pairs)
    gone = compose(
        "WITH gone AS MATERIALIZED (SELECT k.* FROM {item} WHERE NOT EXISTS "
        "(SELECT 1 FROM {table} AS t WHERE {same_key})) ",
        item=item,
        table=parent.relation,
        same_key=same_key,
    )
    some = compose(" AND (SELECT count(*) FROM gone) > 0 AND {condition}", condition=condition)
    return gone + _orphans(table, key, some, ", gone AS k")


def _arrays(plan: TablePlan, keys: Iterable[Key]) -> list[list[str]] | None:
    texts = [k for k in (forward_key(plan, key) for key in keys) if k is not None]
    return [list(column) for column in zip(*texts, strict=True)] if texts else None


def _key_targets(plan: TablePlan) -> list[str]:
    targets = {fold(c.source or ""): c.target for c in plan.copied}
    return [targets[fold(name)] for name in plan.key]


def _refers_to_key(key: ForeignKeyPlan, parent: TablePlan) -> bool:
    return set(key.parent_columns) == set(_key_targets(parent))


def _refuse_orphans(
    table: TablePlan, key: ForeignKeyPlan, orphans: Sequence[tuple[object, ...]]
) -> None:
    if orphans:
        own = table.schema_name == key.parent_schema
        shown = ", ".join("/".join(str(v) for v in row) for row in orphans)
        raise VerificationError(
            f"rows of {table.place} refer to rows of {key.parent_place} that do not exist "
            f"({', '.join(key.columns)} = {shown}), and the target's {key.name} forbids it",
            advice="SQLite serves as before; correct the rows "
            f"{'there (PRAGMA foreign_key_check)' if own else 'on one side or the other'}, "
            "then run the command again",
        )
