"""The demo of a live fleet: made-up tenants under load, some switched, some of these back.

The commands are the operator's own, each a process. What the applications got an acknowledgement
for is compared at the end with the database that serves the tenant; the job is not asked.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import apsw
import psycopg

from migration_job import shell_words
from migration_job.connection import SqliteSide, read_connection
from migration_job.demo.commands import beside, run_command, session_of
from migration_job.demo.live import Shown
from migration_job.demo.screen import Screen
from migration_job.demo.stage import APPLICATION, DemoStage, write_secret
from migration_job.errors import ExitStatus, OperationError
from migration_job.plural import counted
from migration_job.quoting import compose, postgres_name
from migration_job.stores.sqlite.distrust import distrust

WRITERS = 8
WRITES_PER_SECOND = 60.0
OTHERS = 10
"""Tenants that are written to beside those that are switched."""

SHARE = 20
"""One tenant in so many is switched, and one in five of these goes back."""

WAIT_SECONDS = 300.0
PATIENCE_SECONDS = 15.0
"""How long an application tries before a write counts as failed."""

TENANT = "tenant-{:04}"
PLACE = "t_{}"

SCHEMA = """
PRAGMA journal_mode = WAL;
CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, since DATE);
CREATE TABLE invoice (
    id INTEGER PRIMARY KEY, customer INTEGER NOT NULL REFERENCES customer (id),
    amount DECIMAL(10, 2) NOT NULL, paid BOOLEAN NOT NULL, made DATETIME);
CREATE INDEX invoice_customer ON invoice (customer);
CREATE TABLE visit (token TEXT PRIMARY KEY, seconds REAL NOT NULL);
"""

MANIFEST = """files: 'tenants/*.db'
layout: schema-per-file
name: '{name}'
live: {{search_path: {by}}}
"""


@dataclass(slots=True)
class Journal:
    """What the applications met."""

    acknowledged: dict[str, set[str]] = field(default_factory=dict)
    """Tenant to the tokens of its writes."""
    writes: dict[str, int] = field(default_factory=lambda: {"sqlite": 0, "postgresql": 0})
    failures: list[str] = field(default_factory=list)
    longest: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)


def _opened(path: Path) -> apsw.Connection:
    """As the tenant's application opens its file."""
    connection = apsw.Connection(os.fspath(path))
    distrust(connection)
    connection.set_busy_timeout(5_000)
    return connection


class TenantsShow:
    """A fleet of so many tenants, there and back."""

    def __init__(self, stage: DemoStage, tenants: int, *, seed: int, dwell: float) -> None:
        self._stage = stage
        self._names = [TENANT.format(number) for number in range(tenants)]
        self._random = Random(seed)  # noqa: S311 - made-up data
        self._dwell = dwell
        self._folder = stage.directory
        self._journal = Journal()
        self._screen = Screen()
        switched = min(max(2, tenants // SHARE), tenants - 1)
        self._switched = sorted(self._random.sample(self._names, switched))
        self._back = self._switched[: max(1, switched // 5)]
        others = [name for name in self._names if name not in self._switched]
        self._active = self._switched + others[:OTHERS]

    def run(self) -> Shown:
        """All of it. Raises OperationError where a command does not come to its end."""
        self._make()
        done = threading.Event()
        writers = [
            threading.Thread(target=self._write_on, args=(done, number))
            for number in range(WRITERS)
        ]
        with ExitStack() as stack:
            for writer in writers:
                writer.start()
                stack.callback(writer.join)
            stack.callback(done.set)
            stack.enter_context(self._screen.watching(self._standing))
            status = self._go(stack)
        return self._tell(status)

    def _go(self, stack: ExitStack) -> ExitStatus:
        status = self._job("fleet", application=False)
        if status is not ExitStatus.DONE:
            return status
        self._grant()
        stack.enter_context(self._following())
        self._wait_followed()
        time.sleep(self._dwell)
        for command, tenants in (("switch", self._switched), ("rollback", self._back)):
            named = [word for tenant in tenants for word in ("--tenant", tenant)]
            status = self._job(f"fleet-{command}", *named)
            if status is not ExitStatus.DONE:
                return status
            time.sleep(self._dwell)
        return self._job("fleet-status", "--in-state", "switched", application=False)

    # --------------------------------------------------------------------------- what is there

    def _make(self) -> None:
        folder = self._folder / "tenants"
        folder.mkdir()
        for name in self._names:
            connection = _opened(folder / f"{name}.db")
            connection.execute(SCHEMA).fetchall()
            with connection:
                connection.executemany(
                    "INSERT INTO customer VALUES (?, ?, ?)",
                    [(n, f"customer {n} of {name}", f"2024-01-{n:02}") for n in range(1, 29)],
                )
                connection.executemany(
                    "INSERT INTO invoice VALUES (?, ?, ?, ?, ?)",
                    [
                        (n, self._random.randrange(1, 29), n * 1.25, n % 2, "2025-02-03 04:05:06")
                        for n in range(1, 101)
                    ],
                )
            connection.close()
        by = "role" if self._stage.bouncer is None else "alias"
        text = MANIFEST.format(name=PLACE.format("{tenant}"), by=by)
        (self._folder / "manifest.yaml").write_text(text, encoding="utf-8")
        side = self._stage.application_side
        told = {"host": side.host, "port": side.port, "user": side.user, "password": side.password}
        pooled = self._stage.bouncer is not None
        told["database"] = "{place}" if pooled else self._stage.database
        write_secret(self._folder / "secrets" / "connect-to.json", json.dumps(told))
        self._screen.say(
            f"made {counted(len(self._names), 'tenant')} with a file each; {WRITERS} writers use "
            f"{len(self._active)} of them"
        )

    def _grant(self) -> None:
        """What an operator grants each tenant's role."""
        with psycopg.connect(self._stage.server.dsn_for(self._stage.database)) as session:
            for name in self._names:
                schema, role = postgres_name(PLACE.format(name)), postgres_name(APPLICATION)
                session.execute(
                    compose(
                        "GRANT USAGE ON SCHEMA {schema} TO {role}; "
                        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} "
                        "TO {role}; GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {role}",
                        schema=schema,
                        role=role,
                    ).encode()
                )

    # ------------------------------------------------------------------------------ the load

    def _write_on(self, done: threading.Event, number: int) -> None:
        random = Random(number)  # noqa: S311 - made-up load
        written = 0
        while not done.wait(random.uniform(0, 2 * WRITERS / WRITES_PER_SECOND)):
            tenant = random.choice(self._active)
            token = f"{number}-{written}"
            written += 1
            began = time.monotonic()
            problem, engine = self._write(tenant, token, began)
            with self._journal.lock:
                self._journal.longest = max(self._journal.longest, time.monotonic() - began)
                if problem:
                    self._journal.failures.append(f"{tenant}: {problem}")
                else:
                    self._journal.acknowledged.setdefault(tenant, set()).add(token)
                    self._journal.writes[engine] += 1

    def _write(self, tenant: str, token: str, began: float) -> tuple[str, str]:
        """One write as the tenant's application does it, which looks up its connection each time
        and tries again; what went wrong in the end, and where it was written."""
        problem = ""
        while time.monotonic() - began < PATIENCE_SECONDS:
            try:
                return "", self._write_once(tenant, token)
            except psycopg.errors.UniqueViolation:
                return "", "postgresql"  # it was written, and the answer was lost
            except (apsw.Error, psycopg.Error, OperationError) as error:
                # The closed file's refusal is a constraint's too: only the key's is an answer.
                if getattr(error, "extendedresult", 0) == apsw.SQLITE_CONSTRAINT_PRIMARYKEY:
                    return "", "sqlite"
                problem = f"{type(error).__name__}: {error}".splitlines()[0]
                time.sleep(0.05)
        return problem, ""

    def _engine(self, tenant: str) -> str:
        there = read_connection(self._folder / "connections" / tenant)
        return "sqlite" if there is None else there.write.engine

    def _write_once(self, tenant: str, token: str) -> str:
        there = read_connection(self._folder / "connections" / tenant)
        if there is None or isinstance(there.write, SqliteSide):
            connection = _opened(self._path(tenant))
            try:
                connection.execute("INSERT INTO visit VALUES (?, ?)", (token, 0.5))
            finally:
                connection.close()
            return "sqlite"
        with session_of(there.write) as session:
            if self._stage.bouncer is None:
                schema = postgres_name(PLACE.format(tenant))
                session.execute(compose("SET search_path TO {schema}", schema=schema).encode())
            session.execute("INSERT INTO visit VALUES (%s, %s)", (token, 0.5))
        return "postgresql"

    def _path(self, tenant: str) -> Path:
        return self._folder / "tenants" / f"{tenant}.db"

    # -------------------------------------------------------------------------- the commands

    def _arguments(self, command: str, *, application: bool = True) -> list[str]:
        stage = self._stage
        words = [command, str(self._folder / "manifest.yaml")]
        words += ["--target-file", str(stage.target_file), "--report", str(stage.report)]
        if application:
            words += ["--connect-to", str(self._folder / "secrets" / "connect-to.json")]
            if stage.bouncer is not None:
                words += ["--console-file", str(stage.console_file)]
                words += ["--alias-file", str(stage.bouncer.alias_path)]
        return words

    def _job(self, command: str, *more: str, application: bool = True) -> ExitStatus:
        """One command, its lines shown as they come."""
        arguments = [*self._arguments(command, application=application), *more]
        self._show(arguments, more)
        return run_command(arguments, self._screen)

    def _show(self, arguments: list[str], given: tuple[str, ...] = (), end: str = "") -> None:
        more = "".join(f" {shell_words.word(word)}" for word in given[:4])
        more += " ..." if len(given) > 4 else ""
        self._screen.say(f"$ migration-job {arguments[0]} manifest.yaml ...{more}{end}")
        with (self._folder / "commands.txt").open("a") as log:
            log.write(f"migration-job {shell_words.words(arguments)}\n")

    @contextmanager
    def _following(self) -> Iterator[None]:
        arguments = self._arguments("fleet-sync")
        self._show(arguments, end=" &")
        with beside(arguments, self._folder / "sync.log"):
            yield

    def _wait_followed(self) -> None:
        """Until each tenant's connection is written, which is the first visit's doing."""
        deadline = time.monotonic() + WAIT_SECONDS
        left = set(self._names)
        while left:
            left = {
                name
                for name in left
                if not (self._folder / "connections" / name / "database.json").exists()
            }
            if time.monotonic() > deadline:
                raise OperationError(
                    f"`fleet-sync` did not visit {counted(len(left), 'tenant')} within "
                    f"{WAIT_SECONDS:g} s",
                    advice=f"what it said is in {self._folder / 'sync.log'}",
                )
            time.sleep(0.1)

    # ------------------------------------------------------------------------------- the end

    def _standing(self) -> str:
        with self._journal.lock:
            writes, failed = dict(self._journal.writes), len(self._journal.failures)
            longest = self._journal.longest
        return (
            f"writes: {writes['sqlite']:,} on SQLite, {writes['postgresql']:,} on PostgreSQL; "
            f"{failed:,} failed; longest wait {longest * 1000:,.0f} ms"
        )

    def _missing(self) -> list[str]:
        """Acknowledged writes that the side that serves does not have."""
        problems = []
        with psycopg.connect(self._stage.server.dsn_for(self._stage.database)) as session:
            for tenant, tokens in sorted(self._journal.acknowledged.items()):
                if self._engine(tenant) == "sqlite":
                    source = _opened(self._path(tenant))
                    found = {str(row[0]) for row in source.execute("SELECT token FROM visit")}
                    source.close()
                else:
                    schema = postgres_name(PLACE.format(tenant))
                    query = compose("SELECT token FROM {schema}.visit", schema=schema)
                    found = {str(row[0]) for row in session.execute(query.encode())}
                if lost := tokens - found:
                    problems.append(f"{tenant}: {counted(len(lost), 'write')} of {len(tokens):,}")
        return problems

    def _tell(self, status: ExitStatus) -> Shown:
        missing, journal = self._missing(), self._journal
        serving = sum(self._engine(name) == "postgresql" for name in self._names)
        say = self._screen.say
        say(
            f"\nPostgreSQL serves {counted(serving, 'tenant')}, SQLite "
            f"{len(self._names) - serving:,}; {len(self._switched) - serving:,} came back"
        )
        for failure in journal.failures[:3]:
            say(f"  failed: {failure}")
        for problem in missing[:3]:
            say(f"  lost: {problem}")
        acknowledged = sum(map(len, journal.acknowledged.values()))
        last = (
            f"{len(journal.failures):,} of "
            f"{counted(acknowledged + len(journal.failures), 'write')} failed; longest wait "
            f"{journal.longest * 1000:,.0f} ms; {acknowledged:,} acknowledged, "
            + ("all present" if not missing else f"missing in {counted(len(missing), 'tenant')}")
        )
        if status is ExitStatus.DONE and (missing or journal.failures):
            status = ExitStatus.VERIFICATION_FAILED
        return Shown(status, last)
