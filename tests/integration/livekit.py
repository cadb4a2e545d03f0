"""A small live migration for the tests: a source with capture, its target, and an application."""

from __future__ import annotations

import secrets
import sqlite3
import uuid
from dataclasses import dataclass
from pathlib import Path

import apsw
import psycopg

from migration_job.plan.model import (
    ColumnPlan,
    ForeignKeyPlan,
    IndexPlan,
    Plan,
    SequencePlan,
    TablePlan,
    UniquePlan,
)
from migration_job.plan.rules import IntegerRule, RealRule, TextRule, UuidRule
from migration_job.protocol.run_context import open_target
from migration_job.stores.postgres import capture as target_capture
from migration_job.stores.postgres import pair_identity, records, schema
from migration_job.stores.sqlite import capture
from migration_job.stores.sqlite.catalogue import read_catalogue

SCHEMA = """
PRAGMA journal_mode = WAL;
CREATE TABLE users (id TEXT PRIMARY KEY, email TEXT UNIQUE, score REAL);
CREATE TABLE notes (id INTEGER PRIMARY KEY AUTOINCREMENT, user_id TEXT
    REFERENCES users(id) ON DELETE CASCADE, body TEXT);
CREATE TABLE progress (user_id TEXT, note_id INTEGER, state TEXT, PRIMARY KEY (user_id, note_id));
CREATE TABLE events (what TEXT, n INTEGER);
"""


def column(source: str, kind: str, rule: object, **more: object) -> ColumnPlan:
    return ColumnPlan(source=source, target=source.lower(), type=kind, rule=rule, **more)  # type: ignore[arg-type]


PLAN = Plan(
    profile="none",
    encoding="UTF-8",
    tables=(
        TablePlan(
            source="users",
            target="users",
            columns=(
                column("id", "uuid", UuidRule(), not_null=True),
                column("email", "text", TextRule()),
                column("score", "double precision", RealRule()),
            ),
            primary_key=("id",),
            uniques=(UniquePlan(name="users_email", columns=("email",)),),
            key=("id",),
        ),
        TablePlan(
            source="notes",
            target="notes",
            columns=(
                column("id", "bigint", IntegerRule(), not_null=True, identity=True),
                column("user_id", "uuid", UuidRule()),
                column("body", "text", TextRule()),
            ),
            primary_key=("id",),
            foreign_keys=(
                ForeignKeyPlan(
                    name="notes_user",
                    columns=("user_id",),
                    parent="users",
                    parent_columns=("id",),
                    on_update="NO ACTION",
                    on_delete="CASCADE",
                ),
            ),
            indexes=(IndexPlan(name="notes_by_user", unique=False, terms=('"user_id"',)),),
            key=("id",),
        ),
        TablePlan(
            source="progress",
            target="progress",
            columns=(
                column("user_id", "uuid", UuidRule(), not_null=True),
                column("note_id", "bigint", IntegerRule(), not_null=True),
                column("state", "varchar(20)", TextRule(max_length=20)),
            ),
            primary_key=("user_id", "note_id"),
            key=("user_id", "note_id"),
        ),
        TablePlan(
            source="events",
            target="events",
            columns=(
                column("what", "text", TextRule()),
                column("n", "bigint", IntegerRule()),
                ColumnPlan(
                    source="rowid",
                    target="_migration_rowid",
                    type="bigint",
                    rule=IntegerRule(),
                    not_null=True,
                    identity=True,
                ),
            ),
            uniques=(UniquePlan(name="events_rowid", columns=("_migration_rowid",)),),
            key=("rowid",),
        ),
    ),
    sequences=(
        SequencePlan(table="notes", column="id", last_value=0),
        SequencePlan(table="events", column="_migration_rowid", last_value=0),
    ),
)


@dataclass
class Migration:
    """A source with capture installed and the target that is to follow it."""

    source: Path
    dsn: str

    def writer(self) -> apsw.Connection:
        """The application's connection to SQLite, with apsw's library: another one in this process
        would drop the job's locks on the file."""
        connection = apsw.Connection(str(self.source))
        connection.set_busy_timeout(5_000)
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection


def fresh_source(directory: Path) -> Path:
    path = directory / "app.db"
    connection = sqlite3.connect(path)
    connection.executescript(SCHEMA)
    connection.close()
    return path


def begin(source: Path, dsn: str, plan: Plan = PLAN) -> Migration:
    """What `migrate --live` leaves, for a source that was empty when capture began."""
    run_id = str(uuid.uuid4())
    token = secrets.token_hex(8)
    with psycopg.connect(dsn, autocommit=True) as target:
        records.begin(
            target,
            run_id=run_id,
            source_path=str(source),
            snapshot_sha256="0" * 64,
            plan=plan,
            job_version="test",
        )
        for table in plan.tables:
            target.execute(schema.table_sql(table).encode())
        for table in plan.tables:
            for step in [*schema.key_steps(table), *schema.index_steps(table)]:
                target.execute(step.sql.encode())
        for table in plan.tables:
            for key in table.foreign_keys:
                target.execute(schema.foreign_key_sql(table, key).encode())
                target.execute(schema.validate_sql(table, key).encode())
        target_capture.install(target, plan)
        pair_identity.set_pair(target, token, 1)
        records.store_certificate(target, "first", "{}", "verified")
    connection = apsw.Connection(str(source))
    with connection:
        tables = capture.captured_tables(read_catalogue(connection), plan.keys)
        capture.install(connection, tables, run=run_id, capture=token)
    connection.close()
    return Migration(source, dsn)


def uid(number: int) -> str:
    """A canonical UUID for a small number."""
    return str(uuid.UUID(int=number))


__all__ = ["PLAN", "Migration", "begin", "fresh_source", "open_target", "uid"]
