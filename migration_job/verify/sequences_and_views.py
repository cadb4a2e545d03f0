"""The next values of identity columns, and the rows of views, on both sides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence

import apsw

from migration_job.plan.model import SequencePlan, ViewPlan
from migration_job.plural import counted
from migration_job.quoting import compose, sqlite_name
from migration_job.stores.sqlite.chosen_rows import rows_of
from migration_job.stores.sqlite.reader import column_sql, rowid_bounds
from migration_job.verify.checks import Check, run_checks
from migration_job.verify.connections import Differences, Sides, not_quarantined
from migration_job.verify.facts import Facts
from migration_job.verify.relations import Relations

VIEW_ROWS = 20_000
"""Views with more rows than this are compared by their number only: they are compared in memory,
and the tables under them are compared anyway."""


def check_sequences(
    sides: Sides, sequences: Sequence[tuple[SequencePlan, str]], facts: Facts, *, follows: bool
) -> Relations:
    """The next value that each identity column hands out is beyond every key; with each, the name
    of its table on the source. A target that ``follows`` hands out none yet: the switch raises
    what a round of ``sync`` leaves as it was."""
    found = Relations(Counter({"sequences": len(sequences)}))
    there: list[tuple[SequencePlan, str, Differences]] = []
    for sequence, source_table in sequences:
        differences = Differences(source_table)
        found.differences.append(differences)
        if sequence.column not in facts.columns[sequence.table]:
            continue  # that it is missing is said of the table
        name = sequence.sequence or facts.sequences.get((sequence.table, sequence.column))
        if name is not None:
            there.append((sequence, name, differences))
        else:
            differences.add("sequence", "the column hands out no values", column=sequence.column)
    for (sequence, _, differences), row in zip(there, _states(sides, there), strict=True):
        last, called, highest = row
        following = last + (1 if called else 0)
        needed = max(sequence.last_value, 0 if follows else highest or 0) + 1
        if following < needed:
            differences.add(
                "sequence",
                f"the next value is {following}, expected at least {needed}",
                column=sequence.column,
                source=str(needed),
                target=str(following),
            )
    return found


def _states(
    sides: Sides, sequences: Sequence[tuple[SequencePlan, str, Differences]]
) -> list[tuple[int, bool, int | None]]:
    """Each sequence's last value, whether it was handed out, and the highest key there is. That is
    the source's: where the target has another, the comparison of the rows says so."""
    names = [name for _, name, _ in sequences]
    rows = sides.rows(
        "SELECT pg_sequence_last_value(name::regclass) "
        "FROM unnest(%s::text[]) WITH ORDINALITY AS s (name, number) ORDER BY number",
        (names,),
    )
    found: list[tuple[int, bool, int | None]] = []
    for (sequence, name, differences), (last,) in zip(sequences, rows, strict=True):
        # NULL: no value was handed out yet.
        value, called = (last, True) if last is not None else _untouched(sides, name)
        found.append((value, called, _highest(sides, sequence, differences.table)))
    return found


def _highest(sides: Sides, sequence: SequencePlan, source: str) -> int | None:
    """The highest number that the source has in a column which a sequence fills on the target."""
    table = sides.catalogue.table(source)
    if sequence.sequence is None:
        # An identity column was the rowid's alias there.
        bounds = rowid_bounds(sides.source, table)
        return None if bounds is None else bounds[1]
    plan = sides.plan.table(source)
    column = next(c.source for c in plan.columns if c.target == sequence.column)
    reference = column_sql(table, str(column))
    keep = not_quarantined(plan)
    found = sides.source.execute(
        compose(
            "SELECT max({value}) FROM {table} AS t WHERE typeof({value}) = 'integer' AND {keep}",
            value=reference,
            table=rows_of(table),
            keep=keep or "1",
        )
    ).fetchone()
    return None if found is None or found[0] is None else int(found[0])


def _untouched(sides: Sides, sequence: str) -> tuple[int, bool]:
    last, called = sides.one(
        compose("SELECT last_value, is_called FROM {sequence}", sequence=sequence)
    )
    return int(last), bool(called)


def check_view(
    sides: Sides,
    view: ViewPlan,
    mapped: Container[tuple[object, object]],
    *,
    whole: bool,
) -> Relations:
    """The view gives the same rows on both sides; ``whole`` says that every row is on the target,
    none in quarantine."""
    found = Relations()
    differences = Differences(view.source)
    found.differences.append(differences)
    kind = sides.rows(
        "SELECT relkind::text FROM pg_class "
        "WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) "
        "AND relname = %s",
        (view.target,),
    )
    if kind != [("v",)]:
        differences.add("view", f"view {view.target} is missing")
        return found
    found.checked["views"] += 1
    if not whole:
        return found
    here, there = (
        compose("SELECT * FROM {view}", view=sqlite_name(view.source)),
        compose("SELECT * FROM {view}", view=sides.plan.relation(view.target)),
    )
    try:
        row = sides.source.execute(compose("SELECT count(*) FROM ({here})", here=here)).fetchone()
    except apsw.Error:
        return found  # broken on the source already: it gives no rows to compare
    rows = int(row[0]) if row is not None else 0
    if rows > VIEW_ROWS:
        count = int(sides.one(compose("SELECT count(*) FROM ({there}) AS v", there=there))[0])
        if count != rows:
            differences.add("view", f"expected {counted(rows, 'row')}, found {count:,}")
        return found
    check = Check(name=view.source, sqlite=here, postgresql=there, ordered=False)
    (result,) = run_checks([check], sides.source, sides.target, mapped=mapped, spelled=True)
    for message in result.differences:
        differences.add("view", message)
    differences.count += result.unshown
    found.checked["view rows"] += rows
    return found
