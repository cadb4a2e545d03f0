"""Rows of given keys on both sides: what a round has brought is compared before it counts.

What is asked of the target for several tables is asked at once: their notes, then their rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from migration_job.plan.model import TablePlan
from migration_job.quoting import compose
from migration_job.stores.sqlite.reader import Row, batches, read_by_keys
from migration_job.values import key_text
from migration_job.verify.connections import (
    Differences,
    Query,
    Sides,
    columns_of_key,
    compared_columns,
    ledger_of,
    ledger_query,
    target_name,
)
from migration_job.verify.meaning import Inexact, as_parameter, of_source
from migration_job.verify.typed_rows import (
    BATCH,
    Back,
    Comparison,
    ask,
    join_on_key,
)


def compare_keys(
    sides: Sides, plan: TablePlan, keys: Iterable[Row], back: Back | None = None
) -> Differences:
    """Compare the present rows of these source keys on both sides; a key that is on neither side
    is equal. The plan must have a key for the table."""
    comparison = _comparison(sides, plan, back or Back())
    for some in batches(keys, max_rows=BATCH):
        _compare(sides, [(comparison, some)])
    return comparison.differences


def compare_few(
    sides: Sides, wanted: Iterable[tuple[TablePlan, Sequence[Row]]]
) -> list[Differences]:
    """The same for a few keys of several tables, in two round trips."""
    some = [(_comparison(sides, plan, Back()), keys) for plan, keys in wanted if keys]
    _compare(sides, some)
    return [comparison.differences for comparison, _ in some]


def _comparison(sides: Sides, plan: TablePlan, back: Back) -> Comparison:
    table = sides.table(plan)
    return Comparison(sides, plan, table, Differences(table.name), back=back)


@dataclass(frozen=True, slots=True)
class _Question:
    """What the target is asked, and what is made of its answer."""

    query: Query
    take: Callable[[list[tuple[Any, ...]]], object]


def _compare(sides: Sides, some: Sequence[tuple[Comparison, Sequence[Row]]]) -> None:
    there = [_present(of, keys) for of, keys in some]
    asking = zip(some, there, strict=True)
    notes = sides.together([q for (of, _), present in asking for q in _notes(of, present)])
    questions: list[_Question] = []
    for number, ((of, keys), present) in enumerate(zip(some, there, strict=True)):
        aside = {str(row[0]) for row in notes[2 * number]}
        batch = [row for text, row in present.items() if text not in aside]
        if batch:
            asked = ask(of, batch, ledger_of(notes[2 * number + 1], list(present)))
            questions.append(_Question(asked.query, asked.take))
        gone = [k for k in keys if key_text(k) not in present or key_text(k) in aside]
        questions += _absence(of, gone)
    if questions:
        answers = sides.by_index([question.query for question in questions])
        for question, rows in zip(questions, answers, strict=True):
            question.take(rows)


def _present(of: Comparison, keys: Sequence[Row]) -> dict[str, Row]:
    """The source's rows by their ``key_text``: the key, then the columns."""
    columns = [c.source for c in compared_columns(of.plan) if c.source not in of.back.computed]
    rows = read_by_keys(
        of.sides.source,
        of.table,
        [*of.key, *map(str, columns)],
        encoding=of.sides.plan.encoding,
        key=of.key,
        keys=keys,
    )
    return {key_text(row[: len(of.key)]): row for row in rows}


def _notes(of: Comparison, present: dict[str, Row]) -> Iterator[Query]:
    """What asks for the quarantine and the ledger of these rows."""
    texts = list(present)
    quarantine = "SELECT key FROM migration.quarantine WHERE tab = $1 AND key = ANY($2::text[])"
    yield quarantine, (of.table.name, texts)
    yield ledger_query(of.table.name, texts)


def _absence(of: Comparison, keys: list[Row]) -> Iterator[_Question]:
    """Keys that are not in the source must not be on the target."""
    plans = columns_of_key(of.plan)
    askable: list[tuple[Row, list[Any]]] = []
    for key in keys:
        try:
            meanings = [of_source(c, v) for c, v in zip(plans, key, strict=True)]
        except Inexact:
            continue  # the target cannot hold it under this key
        askable.append((key, [as_parameter(c, m) for c, m in zip(plans, meanings, strict=True)]))
    if not askable:
        return
    source, equal = join_on_key(of.plan)
    query = compose(
        "SELECT DISTINCT k.n FROM {source} JOIN ONLY {target_name} AS t ON {equal}",
        source=source,
        target_name=target_name(of.plan),
        equal=equal,
    )

    def take(rows: list[tuple[Any, ...]]) -> None:
        for (n,) in rows:
            text = key_text(askable[int(n) - 1][0])
            of.differences.add(
                "extra-row",
                f"row {text} of {of.differences.table} is on the target and not in the source",
                key=text,
            )

    yield _Question((query, [list(p) for p in zip(*(p for _, p in askable), strict=True)]), take)
