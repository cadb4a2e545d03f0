"""A fleet's book on the target: schema ``_migration_fleet``, one row a file.

What it says of a file is committed before the file is touched and after it is certified, so a run
that was cut off anywhere leaves a book from which the next goes on. A file's own records (schema
``migration_NAME``) are the run's as ever; the book never says ``verified`` before they do.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, LiteralString

import psycopg

from migration_job.errors import InputError
from migration_job.quoting import compose, joined, postgres_name, postgres_relation
from migration_job.stores.postgres.database import (
    ask_if_there,
    commit_durably,
    durably,
    execute_raw,
)

SCHEMA = "_migration_fleet"

State = Literal["planned", "moving", "verified", "failed", "stopped"]
"""``stopped``: by the policy or the manifest; ``failed``: by what the file is, or by an error."""

TABLES = """
CREATE SCHEMA _migration_fleet;
CREATE TABLE _migration_fleet.fleet (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    fleet_id uuid NOT NULL,
    layout text NOT NULL,
    connection text,
    job_version text NOT NULL,
    started_at timestamp with time zone NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE _migration_fleet.plan (
    number integer PRIMARY KEY,
    source_schema text NOT NULL,
    shape text NOT NULL,
    policy text NOT NULL,
    wishes text NOT NULL,
    common boolean NOT NULL,
    reason text NOT NULL
);
CREATE TABLE _migration_fleet.file (
    tenant text PRIMARY KEY,
    path text NOT NULL,
    place text NOT NULL UNIQUE,
    bytes bigint NOT NULL,
    mark text NOT NULL DEFAULT '',
    said text NOT NULL DEFAULT '',
    state text NOT NULL,
    plan integer REFERENCES _migration_fleet.plan,
    certificate text,
    body text,
    content text,
    exceptions text NOT NULL DEFAULT '[]',
    message text NOT NULL DEFAULT '',
    status integer NOT NULL DEFAULT 0,
    updated_at timestamp with time zone NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE _migration_fleet.shared (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    tenant_column text NOT NULL,
    plan text NOT NULL
);
CREATE TABLE _migration_fleet.ledger (
    tenant text NOT NULL REFERENCES _migration_fleet.file,
    tab text NOT NULL,
    key text NOT NULL,
    col text NOT NULL,
    before text NOT NULL,
    after text,
    rule text NOT NULL
);
CREATE TABLE _migration_fleet.quarantine (
    tenant text NOT NULL REFERENCES _migration_fleet.file,
    tab text NOT NULL,
    key text NOT NULL,
    reason text NOT NULL,
    source_row text NOT NULL,
    col text
);
CREATE INDEX ledger_tenant ON _migration_fleet.ledger (tenant);
CREATE INDEX quarantine_tenant ON _migration_fleet.quarantine (tenant);
CREATE TABLE _migration_fleet.certificate (
    digest text PRIMARY KEY,
    body text NOT NULL,
    issued_at timestamp with time zone NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON SCHEMA _migration_fleet IS 'which SQLite files were moved here, and how far they are';
COMMENT ON COLUMN _migration_fleet.fleet.connection IS
    'the directories that the applications of live files read';
COMMENT ON COLUMN _migration_fleet.file.mark IS 'by which a file is told to be as it was';
COMMENT ON TABLE _migration_fleet.ledger IS
    'with layout tenant-column: migration.ledger of each file';
COMMENT ON TABLE _migration_fleet.quarantine IS
    'with layout tenant-column: migration.quarantine of each file, rows that are kept whole';
"""


@dataclass(frozen=True, slots=True)
class PlanRow:
    """A plan that several files have in common, or that one has by itself."""

    number: int
    source_schema: str
    """Digest of the schema of its files."""
    shape: str
    policy: str
    """YAML: the manifest's policy with the types that its files have in common."""
    wishes: str
    """Those types, as JSON: table, column, type."""
    common: bool
    """Whether it is the plan of the fleet; else of outliers."""
    reason: str
    """In what it is not the common one; '' for that."""


@dataclass(frozen=True, slots=True)
class FileRow:
    """What the book says of a file."""

    tenant: str
    path: str
    place: str
    bytes: int
    mark: str
    state: State
    plan: int | None
    certificate: str | None
    message: str
    status: int
    exceptions: tuple[str, ...] = ()
    """What its verified rows are not as in the source, as clauses."""
    said: str = ""
    """Digest of the policy, the profile and the types that it was planned under."""


@dataclass(frozen=True, slots=True)
class Certified:
    """What the book is to keep of a file that is verified."""

    certificate: str
    """Its digest."""
    body: str
    """JSON."""
    message: str
    exceptions: Sequence[str]


KEPT: Mapping[str, Sequence[str]] = {
    "ledger": ("tab", "key", "col", "before", "after", "rule"),
    "quarantine": ("tab", "key", "reason", "source_row", "col"),
}
"""A run's own records that outlive its schema with the layout tenant-column, and their columns."""


class FleetLedger:
    """The book of the fleet in the session's database. Its calls may come from several threads."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection
        self._one = threading.Lock()
        """A transaction is one thread's."""

    def open(self, layout: str, job_version: str) -> str:
        """Make the book where there is none; the fleet's id. Raises InputError where it is of
        another layout, or the schema is somebody else's."""
        query = "SELECT fleet_id::text, layout FROM _migration_fleet.fleet"
        there = ask_if_there(self._connection, "_migration_fleet.fleet", query)
        if there is None:
            return self._make(layout, job_version)
        if there[1] != layout:
            raise InputError(
                f"expected layout: {there[1]}, as this database's fleet was begun, found "
                f"layout: {layout}",
                advice="give the manifest the layout that it had, or give another database",
            )
        return str(there[0])

    def layout(self) -> str:
        """The layout of the book's fleet."""
        query = "SELECT layout FROM _migration_fleet.fleet"
        return str(self._connection.execute(query).fetchall()[0][0])

    def _make(self, layout: str, job_version: str) -> str:
        fleet_id = str(uuid.uuid4())
        try:
            with durably(self._connection):
                self._connection.execute(TABLES)
                self._connection.execute(
                    "INSERT INTO _migration_fleet.fleet (fleet_id, layout, job_version) "
                    "VALUES (%s, %s, %s)",
                    (fleet_id, layout, job_version),
                )
        except psycopg.errors.DuplicateSchema as error:
            raise InputError(
                f"expected no schema {SCHEMA} but a fleet's, found one that holds none",
                advice="give another database, or drop that schema if it is nobody's",
            ) from error
        except psycopg.errors.InsufficientPrivilege as error:
            raise InputError(
                "expected a role that may create schemas in the target, found that it may not",
                advice="GRANT CREATE ON DATABASE ... to the role",
            ) from error
        return fleet_id

    def keep_connections(self, connections: str) -> None:
        """Note which directories the applications of live files read, where that is not known yet.
        Raises InputError where they are others."""
        self._connection.execute(
            "UPDATE _migration_fleet.fleet SET connection = %s WHERE connection IS NULL",
            (connections,),
        )
        self.require_connections(connections)

    def require_connections(self, connections: str) -> None:
        """Raises InputError where the fleet's live files were given other directories: a command
        with locks elsewhere would act beside one that is at work, and no application would read
        what it writes."""
        row = self._connection.execute("SELECT connection FROM _migration_fleet.fleet").fetchone()
        if row is not None and row[0] not in (None, connections):
            raise InputError(
                f"expected the connections' directories at {row[0]}, as this fleet was begun, "
                f"found {connections}",
                advice="give the manifest the `live.connection` that it had, and keep it in the "
                "directory where it was: the applications read those directories",
            )

    def require(self, layout: str) -> None:
        """Raises InputError where there is no book, or it is of another layout."""
        query = "SELECT layout FROM _migration_fleet.fleet"
        there = ask_if_there(self._connection, "_migration_fleet.fleet", query)
        if there is None or there[0] != layout:
            found = "none" if there is None else f"one with layout: {there[0]}"
            raise InputError(
                f"expected the book of a fleet with layout: {layout} in this database, found "
                f"{found}",
                advice="`migration-job fleet` comes first; give its manifest and its --target",
            )

    def followed(self) -> list[tuple[str, str, str]]:
        """Tenant, path and place of the files that were once verified, by tenant: what became of
        them since is in their own records."""
        rows = self._connection.execute(
            "SELECT tenant, path, place FROM _migration_fleet.file "
            "WHERE certificate IS NOT NULL ORDER BY tenant"
        )
        return [(str(row[0]), str(row[1]), str(row[2])) for row in rows]

    def plans(self) -> list[PlanRow]:
        """The plans that files are verified under, by number."""
        rows = self._connection.execute(
            "SELECT DISTINCT plan FROM _migration_fleet.file "
            "WHERE state = 'verified' AND plan IS NOT NULL"
        )
        used = {row[0] for row in rows}
        return [plan for plan in self.all_plans() if plan.number in used]

    def all_plans(self) -> list[PlanRow]:
        """Every plan, by number."""
        rows = self._connection.execute(
            "SELECT number, source_schema, shape, policy, wishes, common, reason "
            "FROM _migration_fleet.plan ORDER BY number"
        )
        return [PlanRow(*row) for row in rows]

    def files(self) -> dict[str, FileRow]:
        """Every file, by tenant."""
        rows = self._connection.execute(
            "SELECT tenant, path, place, bytes, mark, state, plan, certificate, message, status, "
            "said, exceptions FROM _migration_fleet.file ORDER BY tenant"
        )
        return {
            row[0]: replace(FileRow(*row[:-2]), said=row[-2], exceptions=tuple(json.loads(row[-1])))
            for row in rows.fetchall()
        }

    def plan(self, plans: Sequence[PlanRow], files: Sequence[FileRow]) -> None:
        """Put plans and files into the book, in one transaction; of a file that is there already
        everything but its certificate is replaced. Raises InputError where two files would go to
        one place."""
        try:
            with durably(self._connection), self._connection.cursor() as cursor:
                cursor.execute(
                    "UPDATE _migration_fleet.file SET plan = NULL WHERE state <> 'verified'"
                )
                cursor.execute(
                    "DELETE FROM _migration_fleet.plan AS p WHERE NOT EXISTS "
                    "(SELECT FROM _migration_fleet.file WHERE plan = p.number)"
                )
                cursor.executemany(
                    "INSERT INTO _migration_fleet.plan "
                    "(number, source_schema, shape, policy, wishes, common, reason) "
                    "VALUES (%s, %s, %s, %s, %s, %s, %s) "
                    "ON CONFLICT (number) DO UPDATE SET policy = excluded.policy, "
                    "wishes = excluded.wishes",
                    [
                        (
                            *(p.number, p.source_schema, p.shape, p.policy, p.wishes),
                            *(p.common, p.reason),
                        )
                        for p in plans
                    ],
                )
                cursor.executemany(
                    "INSERT INTO _migration_fleet.file "
                    "(tenant, path, place, bytes, mark, state, plan, message, status, said) "
                    "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) "
                    "ON CONFLICT (tenant) DO UPDATE SET bytes = excluded.bytes, "
                    "mark = excluded.mark, state = excluded.state, plan = excluded.plan, "
                    "message = excluded.message, status = excluded.status, "
                    "said = excluded.said, updated_at = clock_timestamp()",
                    [
                        (
                            *(f.tenant, f.path, f.place, f.bytes, f.mark, f.state, f.plan),
                            *(f.message, f.status, f.said),
                        )
                        for f in files
                    ],
                )
        except psycopg.errors.UniqueViolation as error:
            raise InputError(
                "expected a place of its own for each file, found one that another file of this "
                "fleet has had",
                advice="keep the manifest's `name` and `tenant` as they were",
            ) from error

    def said(self, digest: str, tenants: Sequence[str]) -> None:
        """Say that a policy, profile and types make the same plans of verified files."""
        self._connection.execute(
            "UPDATE _migration_fleet.file SET said = %s WHERE tenant = ANY (%s)",
            (digest, list(tenants)),
        )

    def shared(self) -> tuple[str, str] | None:
        """The tenant's column and the plan, without it, of the tables that all files share, as
        JSON; None where none are made."""
        row = self._connection.execute(
            "SELECT tenant_column, plan FROM _migration_fleet.shared"
        ).fetchone()
        return None if row is None else (str(row[0]), str(row[1]))

    def share(self, tenant_column: str, plan: str) -> None:
        """Say that they are made; call it in their transaction."""
        self._connection.execute(
            "INSERT INTO _migration_fleet.shared (tenant_column, plan) VALUES (%s, %s) "
            "ON CONFLICT (one) DO UPDATE SET plan = excluded.plan",
            (tenant_column, plan),
        )

    def content(self, tenant: str) -> str | None:
        """What the tables that all files share have of the tenant, as JSON; None: nothing."""
        row = self._connection.execute(
            "SELECT content FROM _migration_fleet.file WHERE tenant = %s", (tenant,)
        ).fetchone()
        return None if row is None else row[0]

    def joined(self, tenant: str, content: str, certified: Certified) -> None:
        """Say that the tenant's rows are there; call it in their transaction."""
        self._connection.execute(
            "UPDATE _migration_fleet.file SET content = %s WHERE tenant = %s", (content, tenant)
        )
        self._connection.execute(*_verified(tenant, certified))

    def keep(self, tenant: str, records: str) -> dict[str, int]:
        """Keep the ledger and the quarantine of the tenant's file, which are in schema ``records``,
        in the place of what was kept of it; call it in the transaction of its rows. The number of
        rows of each."""
        kept = {}
        for name, columns in KEPT.items():
            self._connection.execute(
                compose("DELETE FROM {book} WHERE tenant = %s", book=_in_book(name)).encode(),
                (tenant,),
            )
            kept[name] = execute_raw(
                self._connection,
                compose(
                    "INSERT INTO {book} (tenant, {columns}) SELECT $1::text, {columns} FROM {own}",
                    book=_in_book(name),
                    columns=joined(", ", map(postgres_name, columns)),
                    own=postgres_relation(name, records),
                ),
                (tenant,),
            ).rowcount
        return kept

    def moving(self, tenant: str, mark: str) -> None:
        """Say that the file is about to be moved, as it is by its mark."""
        with self._one:
            self._connection.execute(
                "UPDATE _migration_fleet.file SET state = 'moving', mark = %s, message = '', "
                "status = 0, updated_at = clock_timestamp() WHERE tenant = %s",
                (mark, tenant),
            )

    def verified(self, tenant: str, certified: Certified) -> None:
        """Say that its own records have a certificate for it, durably."""
        with self._one:
            commit_durably(self._connection, _verified(tenant, certified))

    def ended(self, tenant: str, state: State, message: str, status: int) -> None:
        """Say that it is not verified, and why."""
        with self._one:
            self._connection.execute(
                "UPDATE _migration_fleet.file SET state = %s, message = %s, status = %s, "
                "updated_at = clock_timestamp() WHERE tenant = %s",
                (state, message, status, tenant),
            )

    def bodies(self) -> dict[str, str]:
        """The certificates of the verified files, as JSON, by tenant."""
        rows = self._connection.execute(
            "SELECT tenant, body FROM _migration_fleet.file WHERE state = 'verified'"
        )
        return {str(tenant): str(body) for tenant, body in rows}

    def certify(self, digest: str, body: str) -> None:
        """Keep the fleet's certificate, durably."""
        commit_durably(
            self._connection,
            (
                "INSERT INTO _migration_fleet.certificate (digest, body) VALUES (%s, %s) "
                "ON CONFLICT (digest) DO UPDATE SET issued_at = clock_timestamp()",
                (digest, body),
            ),
        )


def _verified(tenant: str, certified: Certified) -> tuple[LiteralString, tuple[object, ...]]:
    """The statement that says so, and its parameters."""
    return (
        "UPDATE _migration_fleet.file SET state = 'verified', certificate = %s, body = %s, "
        "message = %s, exceptions = %s, status = 0, updated_at = clock_timestamp() "
        "WHERE tenant = %s",
        (
            *(certified.certificate, certified.body, certified.message),
            *(json.dumps(list(certified.exceptions)), tenant),
        ),
    )


def _in_book(name: str) -> str:
    return postgres_relation(name, SCHEMA)
