"""One cell of the matrix: a migration under load, one event at one phase, and what was lost."""

from __future__ import annotations

import json
import signal
import sqlite3
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from migration_job.connection import SqliteSide, write_connection
from tests.cluster.patroni import BY_HAPROXY, Member, PatroniCluster, until
from tests.integration.application import Application, Moved
from tests.integration.livekit import SCHEMA
from tests.integration.livestage import Program

PHASES = (
    "copy",
    "catch-up",
    "inside the fence",
    "just after the decision",
    "way back",
    "rollback",
)
EVENTS = ("switchover", "kill -9 of the leader")
MODES = ("synchronous", "asynchronous, accepted")

ROWS = 3_000
WRITERS = 2
PAUSE_SECONDS = 0.03
TRIES = 8
"""How often a command is run again while the cluster finds its leader."""

LOST_SECONDS = 0.6
"""How long the leader goes on by itself before it is killed, where that is to lose something."""

TABLES = {
    "notes": (1, "SELECT id, user_id, body FROM notes"),
    "progress": (2, "SELECT user_id, note_id, state FROM progress"),
}
"""What the application writes to: columns of the key, and the rows."""


@dataclass(frozen=True)
class Cell:
    """What is tried."""

    phase: str
    event: str
    mode: str
    way: str = BY_HAPROXY

    @property
    def synchronous(self) -> bool:
        return self.mode == MODES[0]

    @property
    def loses(self) -> bool:
        """Whether the event is made to lose what the leader alone has."""
        return not self.synchronous and self.event == EVENTS[1]

    def __str__(self) -> str:
        way = "" if self.way == BY_HAPROXY else f", by {self.way}"
        return f"{self.phase}, {self.event}, {self.mode}{way}"


@dataclass
class Outcome:
    """What came of it."""

    cell: Cell
    acknowledged: int = 0
    missing: int = 0
    """Acknowledged writes that the side that serves in the end does not have."""
    twice: int = 0
    told: str = "nothing, and nothing is missing"
    """What the job said of what is lost."""
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)
    """What breaks a promise; empty where none is broken."""


class Writer(threading.Thread):
    """One client of the application: one write after another, each until it is acknowledged."""

    def __init__(self, connection: Path, number: int) -> None:
        super().__init__(daemon=True)
        self.request = f"00000000-0000-0000-0000-{number:012d}"
        self.acknowledged: list[tuple[int, float]] = []
        """The write's number, and when it was acknowledged (Unix time)."""
        self.failure = ""
        self._application = Application(connection)
        self._stop_now = threading.Event()
        self.start()

    def run(self) -> None:
        number = 0
        while not self._stop_now.is_set():
            number += 1
            while not self._stop_now.is_set():
                try:
                    self._application.write(self.request, number, fresh=number % 10 == 0)
                except (Moved, sqlite3.OperationalError):
                    self._application.kept = None
                    self._stop_now.wait(0.1)
                except Exception as error:
                    self.failure = repr(error)
                    return
                else:
                    self.acknowledged.append((number, time.time()))
                    break
            self._stop_now.wait(PAUSE_SECONDS)

    def end(self) -> None:
        """Stop, also while a write waits for an answer."""
        self._stop_now.set()
        self.join(60)


class Run:
    """The stage of one cell, on a cluster of many."""

    def __init__(self, cluster: PatroniCluster, cell: Cell, directory: Path, number: int) -> None:
        self.cluster, self.cell, self.directory = cluster, cell, directory
        self.database = f"app_{number}"
        self.dsn = cluster.dsn_for(self.database)
        self.source = directory / "app.db"
        self.connection = directory / "connection"
        self.state = directory / "state"
        self.outcome = Outcome(cell)
        self._prepare_target()
        self._prepare_source()
        self.writers: list[Writer] = []
        self.sync: Program | None = None
        self.struck: Member | None = None

    def _prepare_target(self) -> None:
        with psycopg.connect(self.cluster.dsn_for("postgres"), autocommit=True) as session:
            session.execute(f"CREATE DATABASE {self.database} TEMPLATE template0".encode())
            if not session.execute("SELECT FROM pg_roles WHERE rolname = 'app'").fetchall():
                session.execute("CREATE ROLE app LOGIN PASSWORD 'secret'")
        with psycopg.connect(self.dsn, autocommit=True) as session:
            for things in ("TABLES", "SEQUENCES"):
                rights = f"IN SCHEMA public GRANT ALL ON {things} TO app"
                session.execute(f"ALTER DEFAULT PRIVILEGES {rights}".encode())

    def _prepare_source(self) -> None:
        db = sqlite3.connect(self.source)
        db.executescript(SCHEMA)
        db.executemany("INSERT INTO events VALUES (?, ?)", ((f"event {n}", n) for n in range(ROWS)))
        db.commit()
        db.close()
        side = SqliteSide(path=str(self.source))
        write_connection(self.connection, side, side)
        port, behind = self.cluster.reached(self.cell.way)
        told = {"host": "127.0.0.1", "port": port, "database": self.database}
        told |= {"user": "app", "password": "secret", **behind}
        (self.directory / "application.json").write_text(json.dumps(told))

    # --------------------------------------------------------------------------- the job

    def start(self, command: str, *options: str, fault: str = "") -> Program:
        """``migration-job COMMAND``."""
        words = [command, str(self.source), "--target", self.dsn]
        words += ["--report", str(self.directory / "report"), "--state", str(self.state)]
        if command != "migrate":
            words += ["--connection", str(self.connection)]
            words += ["--connect-to", str(self.directory / "application.json")]
            if self.cell.way != BY_HAPROXY:
                pooler = self.cluster.poolers[self.cell.way]
                words += ["--pooler", pooler.console, "--alias-file", str(pooler.alias_file)]
        if command == "switch" and not self.cell.synchronous:
            words.append("--accept-asynchronous")
        log = self.directory / f"{command}.log"
        return Program("migration_job", [*words, *options], log, {"MIGRATION_FAULT": fault})

    def done(self, command: str, *options: str) -> str:
        """The command, again and again, to a good end; what it said at last."""
        for _ in range(TRIES):
            program = self.start(command, *options)
            if program.wait(180) == 0:
                return program.output
            self._require_sentence(command, program.output)
            if self.cell.loses and "has forgotten" in program.output:
                return program.output
            until(lambda: self.cluster.leader is not None, "a leader")
        raise TimeoutError(f"{command} did not come to a good end: {program.output}")

    def _require_sentence(self, command: str, output: str) -> None:
        if "Traceback" in output or "unforeseen" in output:
            self.outcome.faults.append(f"{command} ended with a traceback: {output[-2000:]}")

    def broken(self, command: str, fault: str) -> None:
        """The command, held at a step while the event happens, then let go on to whatever end."""
        program = self.start(command, fault=fault)
        until(lambda: program.stands_still() or program.ended is not None, f"{command} at {fault}")
        if program.ended is not None:
            raise AssertionError(f"{command} ended before {fault}: {program.output}")
        self.strike()
        program.send(signal.SIGCONT)
        if program.wait(180) != 0:
            self._require_sentence(command, program.output)

    # ------------------------------------------------------------------------- the event

    def strike(self) -> None:
        """The event. Where it is to lose something, the leader goes on by itself for a moment."""
        if self.cell.loses:
            self.cluster.cut_replication()
            time.sleep(LOST_SECONDS)  # the load itself: what is written now is what may be lost
        if self.cell.event == EVENTS[0]:
            self.struck = self.cluster.switch_over()
        else:
            self.struck = self.cluster.kill_leader()

    def led(self) -> None:
        """Wait until another leads."""
        if self.struck is not None:
            self.cluster.another_than(self.struck)

    # ------------------------------------------------------------------------ the phases

    def go(self) -> Outcome:
        """The whole cell."""
        began = time.monotonic()
        self.writers = [Writer(self.connection, n + 1) for n in range(WRITERS)]
        try:
            self._to_the_phase()
            self.led()
            self._to_the_end()
        finally:
            for writer in self.writers:
                writer.end()
            if self.sync is not None:
                self.sync.kill()
        self.outcome.seconds = time.monotonic() - began
        self.outcome.faults += [writer.failure for writer in self.writers if writer.failure]
        return self.outcome

    def _to_the_phase(self) -> None:
        phase = self.cell.phase
        if phase == "copy":
            self._during_copy()
            return
        self.done("migrate", "--live")
        self.sync = self.start("sync")
        if phase == "catch-up":
            self._more()
            self.strike()
        elif phase == "inside the fence":
            self.broken("switch", "after:switch.fence:stop")
        elif phase == "just after the decision":
            self.broken("switch", "after:switch.decide:stop")
        else:
            self.done("switch")
            self._more()
            if phase == "way back":
                self.strike()
            else:
                self.broken("rollback", "after:rollback.fence:stop")

    def _during_copy(self) -> None:
        program = self.start("migrate", "--live")

        def begun() -> bool:
            if program.ended is not None:
                return True
            with psycopg.connect(self.dsn, autocommit=True) as session:
                return session.execute("SELECT to_regclass('public.events')").fetchall() != [
                    (None,)
                ]

        until(begun, "the copy")
        self.strike()
        if program.wait(180) != 0:
            self._require_sentence("migrate", program.output)

    def _more(self) -> None:
        """Wait for some more acknowledged writes of each client."""
        for writer in self.writers:
            wanted = len(writer.acknowledged) + 10
            until(partial(_has_written, writer, wanted), "more writes")

    # --------------------------------------------------------------------------- the end

    def _to_the_end(self) -> None:
        """Everything run again until one side serves and the other is current."""
        phase = self.cell.phase
        if phase == "copy":
            self.done("migrate", "--live")
            self.sync = self.start("sync")
        elif phase in ("inside the fence", "just after the decision"):
            self.done("switch")
        elif phase == "rollback":
            self.done("rollback")
        stopped = self._recovered()
        if not stopped:
            self._more()
        for writer in self.writers:
            writer.end()
        if stopped:
            self._chosen()
        else:
            self._recovered(0)
        self._count(listed=stopped)

    def _recovered(self, behind: int = 500) -> bool:
        """Wait until sync follows; True where it stopped since rows are on one side."""
        now = time.time()

        def looked() -> dict[str, Any]:
            file = self.state / "sync.json"
            if file.stat().st_mtime <= now + 0.5:
                return {}
            told: dict[str, Any] = json.loads(file.read_text())
            return told

        def over() -> bool:
            told = looked()
            if not told:
                return False
            return "has forgotten" in told["problem"] or (
                not told["problem"] and told["behind"] <= behind
            )

        until(over, f"sync to follow, see {self.directory / 'sync.log'}", 120)
        return "has forgotten" in str(looked().get("problem", ""))

    def _chosen(self) -> None:
        """PostgreSQL lacks what SQLite has: the list is compared, and SQLite's rows are chosen."""
        file = self.state / "forgotten.json"
        now = time.time()
        until(lambda: file.stat().st_mtime > now, "the list, again")
        listed = {
            (row["table"], json.dumps(row["key"]), row["only"])
            for row in json.loads(file.read_text())["rows"]
        }
        actual = self._differences()
        if listed != actual:
            self.outcome.faults.append(
                f"the list is not exact: {len(listed - actual)} too many, "
                f"{len(actual - listed)} lacking; {sorted(listed ^ actual)[:3]}"
            )
        self.outcome.told = f"stopped, {len(listed)} rows named"
        if self.sync is not None:
            self.sync.kill()
            self.sync = None
        self.done("rollback", "--accept-loss")

    def _differences(self) -> set[tuple[str, str, str]]:
        found: set[tuple[str, str, str]] = set()
        for table, (width, query) in TABLES.items():
            sides = []
            for rows in (self._source(query), self._target(query)):
                sides.append({tuple(map(_plain, r[:width])): tuple(map(_plain, r)) for r in rows})
            ours, theirs = sides
            for key in ours.keys() | theirs.keys():
                if ours.get(key) == theirs.get(key):
                    continue
                only = "differs"
                if key not in theirs:
                    only = "sqlite"
                elif key not in ours:
                    only = "postgresql"
                found.add((table, json.dumps(list(key)), only))
        return found

    def _source(self, query: str) -> list[tuple[Any, ...]]:
        db = sqlite3.connect(f"{self.source.as_uri()}?mode=ro", uri=True, timeout=20)
        try:
            return db.execute(query).fetchall()
        finally:
            db.close()

    def _target(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.dsn, autocommit=True) as session:
            return session.execute(query.encode()).fetchall()

    def _count(self, *, listed: bool) -> None:
        """What was acknowledged against what the side that serves has."""
        side = json.loads((self.connection / "database.json").read_text())["write"]["engine"]
        look = self._source if side == "sqlite" else self._target
        bodies = [str(row[0]) for row in look("SELECT body FROM notes")]
        self.outcome.twice = len(bodies) - len(set(bodies))
        there = set(bodies)
        missing: list[float] = []
        for writer in self.writers:
            self.outcome.acknowledged += len(writer.acknowledged)
            missing += [at for n, at in writer.acknowledged if f"{writer.request}/{n}" not in there]
        self.outcome.missing = len(missing)
        if self.outcome.twice:
            self.outcome.faults.append(f"{self.outcome.twice} writes are there twice")
        if missing:
            self._require_told(missing, listed=listed)

    def _require_told(self, missing: list[float], *, listed: bool) -> None:
        """Nothing may be missing but what the job has said is lost."""
        if not self.cell.loses:
            self.outcome.faults.append(f"{len(missing)} acknowledged writes are missing")
            return
        log = (self.directory / "sync.log").read_text()
        since = _told_since(self.state, log)
        if since is None:
            self.outcome.faults.append(f"{len(missing)} writes are missing, and nothing was said")
            return
        unsaid = [at for at in missing if at < since]
        if unsaid:
            self.outcome.faults.append(f"{len(unsaid)} are missing that were not said to be")
        if not listed:
            self.outcome.told = "brought up again; lost: what came after the moment that is named"


def _told_since(state: Path, log: str) -> float | None:
    """From which moment on, by the job's own word, what PostgreSQL took is lost."""
    file = state / "forgotten.json"
    moment = ""
    if file.exists():
        moment = str(json.loads(file.read_text())["current_to"] or "")
    for line in log.splitlines():
        if "took after " in line:
            moment = line.partition("took after ")[2].split()[0]
    return datetime.fromisoformat(moment).timestamp() if moment else None


def _has_written(writer: Writer, count: int) -> bool:
    return len(writer.acknowledged) >= count


def _plain(value: object) -> object:
    return value if value is None or isinstance(value, int | float) else str(value)


def run_cell(cluster: PatroniCluster, cell: Cell, directory: Path, number: int) -> Outcome:
    """Try one cell on a whole cluster."""
    cluster.set_synchronous(cell.synchronous)
    directory.mkdir(parents=True)
    return Run(cluster, cell, directory, number).go()
