"""There and back as an operator does it: migrate live, follow, switch, write on PostgreSQL, and go
back, each by its command line."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from tests.integration.running import DONE, Ended, Script, build, run


@dataclass(frozen=True)
class Trip:
    """A database, what is written to it and to its target, and how it has to end."""

    id: str
    source: Script
    live: str = ""
    """What the application writes while SQLite serves and is followed."""
    target: str = ""
    """What it writes once PostgreSQL serves, statement by statement (``;`` at a line's end)."""
    refused: tuple[str, ...] = ()
    """Statements that PostgreSQL has to refuse (its own integrity or range errors)."""
    home: Mapping[str, Sequence[tuple[Any, ...]]] = field(default_factory=dict)
    """Query on SQLite after the rollback -> rows."""
    there: Mapping[str, Sequence[tuple[Any, ...]]] = field(default_factory=dict)
    """Query on PostgreSQL before the rollback -> rows."""
    types: Mapping[str, str] = field(default_factory=dict)
    """``table.column`` -> type on the target."""
    announced: str = ""
    """What the switch has to say instead of switching: a part of its words."""
    policy: str = ""
    ledger: int | None = None
    """Rows of the ledger after ``migrate``."""

    def __str__(self) -> str:
        return self.id


class Journey:
    """One :class:`Trip` under way in a directory, its commands one by one."""

    def __init__(self, trip: Trip, directory: Path, dsn: str) -> None:
        self.trip = trip
        self.path = directory / "app.db"
        self.dsn = dsn
        self._directory = directory
        build(self.path, trip.source)
        (directory / "policy.yaml").write_text(trip.policy or "default: widen\n")
        told = {"host": "127.0.0.1", "port": 5432, "database": "x", "user": "x", "password": "x"}
        (directory / "application.json").write_text(json.dumps(told))

    def job(self, command: str, *more: str) -> Ended:
        """``migration-job COMMAND`` on the pair."""
        options: list[str | Path] = ["--target", self.dsn, "--report", self._directory / "report"]
        options += ["--state", self._directory / "state"]
        if command == "migrate":
            options += ["--live", "--policy", self._directory / "policy.yaml"]
        else:
            options += ["--connection", self._directory / "connection"]
            options += ["--connect-to", self._directory / "application.json"]
        return run(command, self.path, *options, *more)

    def must(self, command: str, *more: str) -> Ended:
        """The same; it has to succeed."""
        ended = self.job(command, *more)
        assert ended.status == DONE, f"{command} ended with {ended.status}: {ended.said}"
        return ended

    def write_source(self, script: str) -> None:
        """As the application on SQLite."""
        with sqlite3.connect(self.path, timeout=10) as connection:
            connection.executescript(script)
        connection.close()

    def write_target(self, *statements: str) -> None:
        """As the application on PostgreSQL, each statement a transaction."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def source_rows(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of SQLite."""
        connection = sqlite3.connect(f"{self.path.as_uri()}?mode=ro", uri=True)
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()

    def target_rows(self, query: str) -> list[tuple[Any, ...]]:
        """Rows of PostgreSQL."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute("SET TimeZone TO 'UTC'")
            return connection.execute(query.encode()).fetchall()


def travel(trip: Trip, directory: Path, dsn: str) -> Journey:
    """The whole way; returns the journey at its end, SQLite serving (unless the switch announced
    that there would be no way back, and so did not happen). ``dsn`` names an empty database."""
    journey = Journey(trip, directory, dsn)
    journey.must("migrate")
    for place, wanted in trip.types.items():
        assert _type(journey, place) == wanted, place
    if trip.ledger is not None:
        assert journey.target_rows("SELECT count(*) FROM migration.ledger") == [(trip.ledger,)]
    if trip.live:
        journey.write_source(trip.live)
        journey.must("sync", "--once")
    if trip.announced:
        ended = journey.job("switch")
        assert ended.status != DONE, "the switch said nothing of a way back that there is not"
        assert trip.announced in " ".join(ended.said.split()), ended.said
        return journey
    journey.must("switch")
    journey.write_target(*statements(trip.target))
    for statement in trip.refused:
        _refuses(journey, statement)
    for query, rows in trip.there.items():
        assert journey.target_rows(query) == list(rows), query
    journey.must("rollback")
    for query, rows in trip.home.items():
        assert journey.source_rows(query) == list(rows), query
    _follows_again(journey)
    return journey


def statements(script: str) -> list[str]:
    """The statements of a script, one from each line's end to the next."""
    return [part.strip() for part in (script + "\n").split(";\n") if part.strip()]


def _refuses(journey: Journey, statement: str) -> None:
    try:
        journey.write_target(statement)
    except (psycopg.IntegrityError, psycopg.DataError):
        return
    raise AssertionError(f"PostgreSQL took it: {statement}")


def _follows_again(journey: Journey) -> None:
    """Whatever came home can go there again: the target follows every row of the source."""
    for (name,) in journey.source_rows(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE '\\_migration%' "
        "ESCAPE '\\' AND name NOT LIKE 'sqlite%'"
    ):
        columns = journey.source_rows(f"SELECT name FROM pragma_table_info('{name}')")
        first = columns[0][0]
        journey.write_source(f'UPDATE "{name}" SET "{first}" = "{first}"')
    journey.must("sync", "--once")


def _type(journey: Journey, place: str) -> str:
    table, _, column = place.rpartition(".")
    rows = journey.target_rows(
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute "
        f"WHERE attrelid = 'public.\"{table}\"'::regclass AND attname = '{column}'"
    )
    return str(rows[0][0])
