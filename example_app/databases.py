"""The application's two backends, and what their errors mean to it.

Values are bound as text throughout, and PostgreSQL reads each as its column's type: the application
need not know whether a flag has become a boolean or an id a uuid.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import psycopg

from example_app.following import Side

BUSY_SECONDS = 5.0
"""How long a write waits for another on SQLite: the application's own choice, as in RadCase."""

CONNECT_SECONDS = 2
"""The strategy's ``connectionTimeoutMillis``."""

JOURNAL_MODE = "EXAMPLE_JOURNAL_MODE"
"""The variable that says in which journal mode this application keeps its file."""

MOVED = "moved to "
"""How the message of a write begins that was refused because its data now lives elsewhere."""

SCHEMA = Path(__file__).with_name("schema.sql")

Row = tuple[Any, ...]
Statement = Mapping[str, str]
"""SQL by engine; parameters are ``?``."""


class TryAgain(Exception):
    """The request was not done, or nobody knows: ask again, at the side that is named by then."""


class Session(Protocol):
    """One connection to one side."""

    def write(self, request: str, kind: str, statement: Statement, values: Sequence[str]) -> bool:
        """Run ``statement`` and remember ``request``, in one transaction. False where the request
        has been done before. Raises TryAgain."""

    def read(self, statement: Statement, values: Sequence[str]) -> list[Row]:
        """The rows, in one transaction of their own. Raises TryAgain."""

    def close(self) -> None: ...


def connect(side: Side) -> Session:
    """A new connection. Raises TryAgain where the database does not answer."""
    if side.engine == "sqlite":
        return SqliteSession(Path(side.get("path")))
    return PostgresSession(side)


class SqliteSession:
    """Like better-sqlite3 in RadCase: one write at a time in this process, and commits that reach
    the disk at the next checkpoint (its build's default in WAL mode)."""

    _one_writer = threading.Lock()

    def __init__(self, path: Path) -> None:
        try:
            self._connection = sqlite3.connect(
                path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA foreign_keys = ON")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            if (mode := _journal_mode()) != "WAL":  # unlike WAL, it is each connection's own
                self._connection.execute(f"PRAGMA journal_mode = {mode}")
        except sqlite3.OperationalError as error:
            raise TryAgain(str(error)) from error

    def write(self, request: str, kind: str, statement: Statement, values: Sequence[str]) -> bool:
        if not self._one_writer.acquire(timeout=BUSY_SECONDS):
            raise TryAgain("another write takes long")
        try:
            return self._write(request, kind, statement, values)
        finally:
            self._one_writer.release()

    def _write(self, request: str, kind: str, statement: Statement, values: Sequence[str]) -> bool:
        with self._transaction("BEGIN IMMEDIATE") as execute:
            new = execute(
                "INSERT INTO app_requests (id, kind) VALUES (?, ?) ON CONFLICT DO NOTHING",
                (request, kind),
            ).rowcount
            if new:
                execute(statement["sqlite"], values)
        return bool(new)

    def read(self, statement: Statement, values: Sequence[str]) -> list[Row]:
        with self._transaction("BEGIN") as execute:
            rows: list[Row] = execute(statement["sqlite"], values).fetchall()
        return rows

    def close(self) -> None:
        self._connection.close()

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[Any]:
        try:
            self._connection.execute(begin)
            try:
                yield self._connection.execute
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
        except sqlite3.OperationalError as error:  # busy, locked, an input or output error
            raise TryAgain(str(error)) from error
        except sqlite3.IntegrityError as error:  # what a trigger raises is one of these
            if str(error).startswith(MOVED):
                raise TryAgain(str(error)) from error
            raise


def _secret(side: Side) -> dict[str, Any]:
    """The password, or what takes its place; nothing where PostgreSQL asks for none."""
    said = dict(side.settings)
    return {name: said[name] for name in ("password", "passfile", "service") if name in said}


class PostgresSession:
    def __init__(self, side: Side) -> None:
        try:
            self._connection = psycopg.connect(
                host=side.get("host"),
                port=side.get("port"),
                dbname=side.get("database"),
                user=side.get("user"),
                **_secret(side),
                # Which of several hosts is meant, where there are any.
                target_session_attrs=dict(side.settings).get("target_session_attrs") or "any",
                connect_timeout=CONNECT_SECONDS,
                # Under transaction pooling the next transaction may run in another session, which
                # would not know a statement that was prepared in this one.
                prepare_threshold=None,
            )
        except psycopg.OperationalError as error:
            raise TryAgain(str(error)) from error

    def write(self, request: str, kind: str, statement: Statement, values: Sequence[str]) -> bool:
        with self._transaction() as cursor:
            new = cursor.execute(
                "INSERT INTO app_requests (id, kind) VALUES (%s, %s) ON CONFLICT DO NOTHING",
                (request, kind),
            ).rowcount
            if new:
                cursor.execute(_percent(statement["postgresql"]), values)
        return bool(new)

    def read(self, statement: Statement, values: Sequence[str]) -> list[Row]:
        with self._transaction() as cursor:
            return cursor.execute(_percent(statement["postgresql"]), values).fetchall()

    def close(self) -> None:
        self._connection.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[psycopg.Cursor[Row]]:
        try:
            with self._connection.transaction(), self._connection.cursor() as cursor:
                yield cursor
        except psycopg.OperationalError as error:
            # The connection is lost, the server shuts down or refuses: also when the fate of a
            # COMMIT is not known.
            raise TryAgain(str(error)) from error
        except psycopg.Error as error:
            if (error.diag.message_primary or "").startswith(MOVED):
                raise TryAgain(str(error)) from error
            raise


def _percent(sql: str) -> str:
    return sql.replace("%", "%%").replace("?", "%s")


def prepare_sqlite(path: Path) -> None:
    """Make the application's tables where they are missing."""
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        connection.execute(f"PRAGMA journal_mode = {_journal_mode()}")
        wanted = SCHEMA.read_text(encoding="utf-8")
        names = {r[0] for r in connection.execute("SELECT name FROM sqlite_master")}
        if not {"users", "cases", "app_requests"} <= names:
            connection.executescript(f"BEGIN IMMEDIATE; {wanted} COMMIT;")
    finally:
        connection.close()


REQUESTS = """CREATE TABLE IF NOT EXISTS app_requests (
  id TEXT PRIMARY KEY,
  kind TEXT NOT NULL,
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP
)"""


def prepare_requests(path: Path) -> None:
    """Make the table of requests alone, in anybody's file."""
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        connection.execute(REQUESTS)
    finally:
        connection.close()


def _journal_mode() -> str:
    """WAL, as RadCase has it, or what ``EXAMPLE_JOURNAL_MODE`` says."""
    mode = os.environ.get(JOURNAL_MODE, "WAL").upper()
    if mode not in ("WAL", "DELETE", "TRUNCATE", "PERSIST", "MEMORY"):
        raise SystemExit(f"expected a journal mode of SQLite in {JOURNAL_MODE}, found {mode!r}")
    return mode
