"""The source while PostgreSQL serves: check its write fence and restore what DDL removed from the
closed file.

The triggers refuse writes, but no trigger stops ``DROP TABLE``, ``DROP TRIGGER`` or ``ALTER TABLE``
on a connection that did not notice the move. Whatever is missing is recreated from the text that
was recorded with the capture, the fence's triggers first; a recreated table is filled from
PostgreSQL. Since the file was open to writes meanwhile, the content is then compared in full, and
the way back goes on only when it is equal.
"""

from __future__ import annotations

import apsw

from migration_job.plural import counted, either
from migration_job.protocol.content import differing
from migration_job.protocol.evolve import causes
from migration_job.protocol.reverse_sync import (
    LOCK_SECONDS,
    letting_go,
    require_unmoved,
    snapshot_of,
)
from migration_job.protocol.run_context import Pair
from migration_job.protocol.whole import require_file, require_identity, since
from migration_job.quoting import sqlite_name
from migration_job.stores.postgres import records
from migration_job.stores.postgres.capture import numbered
from migration_job.stores.sqlite import fence, whole
from migration_job.stores.sqlite.whole import NotWhole, SchemaObject, WrittenAround
from migration_job.values import fold
from migration_job.verify import digest_lines
from migration_job.verify.facts import read_tables

SHOWN = 3


def mend(pair: Pair) -> list[str]:
    """Put back what is missing of the closed source; in words what was found and done, empty where
    nothing was. Raises NotWhole for another file, and for what cannot be put back."""
    state = pair.state()
    require_file(pair)
    require_identity(pair, state)
    seen = int(pair.source.pragma("data_version"))
    if pair.whole_at == seen:
        return []
    gaps = [*whole.application_changes(pair.source), *whole.own_gaps(pair.source)]
    if not gaps:
        pair.whole_at = seen
        return []
    told = [f"the closed source was changed: {whole.shown(gaps)}; {since(pair)}"]
    lost = _requeue(pair, _missing_tables(pair))
    with fence.writing(pair.source, limit=LOCK_SECONDS):
        failed = _restore(pair.source)
        fence.change_state(pair.source, doubt=told[0])
    pair.whole_at = None
    pair.reload()
    if failed:
        raise NotWhole(
            f"the closed source was changed, and not all can be put back: {'; '.join(failed)}",
            advice="PostgreSQL serves as before, and nothing is brought to the file meanwhile; put "
            f"that back by hand as {whole.OBJECTS} on the source has it",
        )
    return [*told, "it was put back as it was recorded", *lost]


def prove_back(pair: Pair, *, give_up: bool = False) -> list[str]:
    """Where the gate was found open, and the queue is worked off: compare both sides in full.

    Equal, the doubt is over. What SQLite has that PostgreSQL has not was written there meanwhile:
    raises WrittenAround, or with ``give_up`` has PostgreSQL's rows take its place and says so.
    """
    if pair.state().doubt is None:
        return []
    digest_lines.equip(pair.source)
    one_way = {fold(name) for name in pair.state().one_way}
    altered = causes(pair)
    found: dict[int, str] = {}
    with snapshot_of(pair):
        with letting_go(pair.sides.target):
            facts = read_tables(pair.sides)
        for number, plan in numbered(pair.plan):
            if plan.source is None or not plan.key or fold(plan.source) in one_way:
                continue
            if plan.target in altered:
                continue
            with letting_go(pair.sides.target):
                differences = differing(pair.sides, plan, facts)
                require_unmoved(pair.sides.target, plan)
            if differences:
                found[number] = f"{plan.source}: {'; '.join(differences[:SHOWN])}"
    if found and not give_up:
        raise WrittenAround(
            "the gate of the closed source was open for a while, and the file holds something else "
            f"than PostgreSQL: {'; '.join(list(found.values())[:SHOWN])}",
            advice="PostgreSQL serves as before. Enter there what SQLite took meanwhile, or "
            "`migration-job rollback --accept-loss` replaces it by PostgreSQL's rows",
        )
    for number in found:
        pair.target.execute("INSERT INTO migration.reverse_log (tab) VALUES (%s)", (number,))
    with fence.writing(pair.source, limit=LOCK_SECONDS):
        fence.change_state(pair.source, doubt=None)
    return [f"written to the closed file, given up: {text}" for text in found.values()]


def _missing_tables(pair: Pair) -> list[str]:
    here = {fold(name) for name, one in whole.present(pair.source).items() if one.kind == "table"}
    return [
        one.name
        for one in whole.recorded(pair.source)
        if one.kind == "table" and fold(one.name) not in here
    ]


def _requeue(pair: Pair, tables: list[str]) -> list[str]:
    """Have all rows of these tables brought back; what of them is on no side any more, in words."""
    names = {fold(name) for name in tables}
    aside = records.quarantined(pair.target)
    lost = []
    for number, plan in numbered(pair.plan):
        if plan.source is None or fold(plan.source) not in names:
            continue
        pair.target.execute("INSERT INTO migration.reverse_log (tab) VALUES (%s)", (number,))
        if rows := aside.get(plan.source, 0):
            lost.append(
                f"of {plan.source} {counted(rows, 'row')} in quarantine "
                f"{either(rows, 'was', 'were')} only in the dropped table; "
                f"migration.quarantine on the target has {either(rows, 'it', 'them')} as text"
            )
    return lost


def _restore(connection: apsw.Connection) -> list[str]:
    """Make again what is missing, in the caller's transaction; what could not be, in words."""
    failed = []
    for one in whole.recorded(connection):
        here = whole.present(connection).get(one.name)
        if not one.sql or (here is not None and here.sql == one.sql and here.table == one.table):
            continue
        try:
            with connection:
                if here is not None:
                    _drop(connection, here)
                connection.execute(one.sql)
        except (apsw.Error, NotWhole) as error:
            failed.append(f"{one.kind} {one.name} ({error})")
    return failed


def _drop(connection: apsw.Connection, here: SchemaObject) -> None:
    if here.kind == "table":
        raise NotWhole("it has other columns than it had")
    connection.execute(f"DROP {here.kind} main.{sqlite_name(here.name)}")
