"""Both sides compared in full, by the verifier, while the application goes on writing.

It finds what no check of triggers and tables can (:mod:`migration_job.protocol.whole`): rows
written by a connection with its triggers switched off, or while a trigger was missing that has
been put back since.

Each table is compared in one state of the source: within that read transaction the target catches
up to it first. In WAL mode no client waits for it. Without a write-ahead log a reader blocks the
writers' commits: there the comparison reads a copy, and writers wait while the file is copied.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import apsw
import psycopg

from migration_job.errors import OperationError
from migration_job.plan.model import TablePlan
from migration_job.plural import counted
from migration_job.protocol.catchup import catch_up
from migration_job.protocol.log_readers import SourceLog
from migration_job.protocol.run_context import Pair
from migration_job.protocol.whole import cookie, note_doubt, require_file
from migration_job.stores.postgres.database import lost
from migration_job.stores.sqlite.snapshot import copy_state, open_immutable
from migration_job.stores.sqlite.whole import NotWhole, OpenFile, WrittenAround
from migration_job.verify import digest, digest_lines, typed
from migration_job.verify.connections import Sides, rows_expected
from migration_job.verify.facts import Facts, read_tables

SHOWN = 3


def prove_content(pair: Pair, folder: Path) -> int:
    """Compare every captured table in full; returns the schema cookie under which that was done.

    ``folder`` takes a copy of the source for as long as it is compared, where it is not in WAL
    mode. Takes time with the database's size. Raises NotWhole with the first differences, and
    whatever :func:`migration_job.protocol.catchup.catch_up` raises.
    """
    if pair.source.in_transaction:
        raise AssertionError("the comparison reads transactions of its own")
    before = cookie(pair)
    try:
        if pair.source.pragma("journal_mode") == "wal":
            _prove(pair)
        else:
            with _copied(pair, folder) as still:
                _prove(still)
    except NotWhole as error:
        note_doubt(pair, error.message)
        raise
    except psycopg.Error as error:
        raise lost(error, "comparing the content of both sides") from error
    require_file(pair)
    if cookie(pair) != before:
        raise OperationError(
            "the source's schema cookie moved while both sides were compared",
            advice="SQLite serves as before; run it again. Leave DDL and VACUUM until after the "
            "switch",
        )
    return before


def differing(sides: Sides, plan: TablePlan, facts: Facts) -> list[str]:
    """What differs in one table, in words; empty where the content is equal."""
    table = sides.table(plan)

    def places(keys: list[str]) -> list[str]:
        return typed.places_of_keys(sides, plan, keys)

    touched = facts.ledger.get(table.name, 0)
    if not touched:
        verdict = digest.compare(sides, plan, facts, places, lambda: False)
        if isinstance(verdict, digest.Agreed):
            return []
    compared = typed.compare_table(sides, plan)
    found = [d.message for d in compared.differences.shown]
    expected = rows_expected(sides, plan)
    if not found and not compared.source_rows == compared.target_rows == expected:
        found.append(f"expected {counted(expected, 'row')}, found {compared.target_rows}")
    return found


def _prove(pair: Pair) -> None:
    digest_lines.equip(pair.source)
    for _, plan in pair.captured.values():
        pair.source.execute("BEGIN")
        try:
            while catch_up(pair).behind:
                pass
            # Read again for each table: what is known of its pages changes with what is applied.
            facts = read_tables(pair.sides)
            found = differing(pair.sides, plan, facts)
        finally:
            pair.source.execute("COMMIT")
        if found:
            raise WrittenAround(
                f"{plan.source} is not the same on both sides, though all that was captured has "
                f"been carried over: {'; '.join(found[:SHOWN])}: something was written around the "
                "change capture since the content was last compared in full",
                advice="SQLite serves as before; find the program that writes with triggers "
                "switched off or has removed them, then run `migration-job release` and "
                "`migration-job migrate --live` for a new copy",
            )


def _set_cookie(copy: Path, value: int) -> None:
    connection = apsw.Connection(os.fspath(copy))
    try:
        # Not defensive, which forbids this very number; nothing of the schema is run.
        connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
        connection.pragma("schema_version", value)
    finally:
        connection.close()


@contextlib.contextmanager
def _copied(pair: Pair, folder: Path) -> Iterator[Pair]:
    """The pair with the source's present state in place of the source."""
    copy = copy_state(pair.source, folder)
    try:
        # A copy's schema cookie is another one; this one stands for the source.
        _set_cookie(copy, cookie(pair))
        connection = open_immutable(copy)
        try:
            yield dataclasses.replace(
                pair,
                path=copy,
                source=connection,
                sides=Sides(connection, pair.sides.target, pair.plan, pair.catalogue),
                file=OpenFile.of(copy, connection),
                log=SourceLog(),
                whole_at=None,
            )
        finally:
            connection.close()
    finally:
        copy.unlink(missing_ok=True)
