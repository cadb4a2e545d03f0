"""CHECKs that the source alone has: PostgreSQL takes rows that break them, and they come home all
the same, since a row is never given up. So they are named before the switch, and the rollback says
which tables have such rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import apsw

from migration_job.plural import counted, counted_doing, either
from migration_job.protocol.run_context import Pair
from migration_job.quoting import compose, sqlite_expression, sqlite_name, sqlite_table
from migration_job.values import fold

LONGEST = 120
"""Characters of a CHECK that are shown."""


def announced(pair: Pair) -> Iterator[str]:
    """For people, before the switch: each CHECK that PostgreSQL does not have."""
    for name, check in _of_the_source(pair):
        yield (
            f"warning: {check} of table {name} is not on PostgreSQL: rows that break it would "
            "come back unchanged"
        )


def broken(pair: Pair) -> Iterator[str]:
    """For people, before SQLite opens: each CHECK that rows on the source break. Takes time with
    the tables' sizes, of those that have such a CHECK alone."""
    for plan in pair.plan.tables:
        for check in plan.source_checks:
            try:
                found = pair.source.execute(
                    compose(
                        "SELECT count(*) FROM {table} WHERE NOT ({check})",
                        table=sqlite_table(plan.source or ""),
                        check=sqlite_expression(check),
                    )
                ).get
            except apsw.SQLError:
                continue  # by what only the application has
            if found:
                them, are = either(found, "it", "them"), either(found, "it is", "they are")
                yield (
                    f"warning: {counted_doing(found, 'row', 'break')} {_shown(check)} of table "
                    f"{plan.source}, which PostgreSQL does not have: SQLite keeps {them}, and "
                    f"refuses to update {them} until {are} corrected"
                )


def without_parents(pair: Pair) -> Iterator[str]:
    """For people, before SQLite opens: each table with rows that refer to a row which did not come
    home, since its table, or some of its rows, stay on one side."""
    carried = {fold(p.source) for p in pair.plan.tables if p.source is not None and p.where is None}
    carried -= {fold(name) for name in pair.state().one_way}
    for plan in pair.plan.tables:
        if plan.source is None:
            continue
        keys = pair.catalogue.table(plan.source).foreign_keys
        parents = {fold(key.parent): key.parent for key in keys if fold(key.parent) not in carried}
        dangling = _dangling(pair, plan.source) if parents else Counter()
        for folded, parent in parents.items():
            if found := dangling[folded]:
                yield (
                    f"warning: {counted(found, 'row')} of table {plan.source} "
                    f"{'refers' if found == 1 else 'refer'} to a row of {parent} that SQLite does "
                    "not have"
                )


def _dangling(pair: Pair, table: str) -> Counter[str]:
    """How many rows refer to a row that is not there, by the folded name of its table."""
    query = compose("PRAGMA main.foreign_key_check({table})", table=sqlite_name(table))
    try:
        return Counter(fold(str(row[2])) for row in pair.source.execute(query))
    except apsw.SQLError:
        return Counter()  # a key that SQLite itself cannot follow


def _of_the_source(pair: Pair) -> Iterator[tuple[str, str]]:
    for plan in pair.plan.tables:
        for check in plan.source_checks:
            yield plan.source or "", _shown(check)


def _shown(check: str) -> str:
    text = " ".join(check.split())
    return f"CHECK ({text[:LONGEST]}{'...' if len(text) > LONGEST else ''})"
