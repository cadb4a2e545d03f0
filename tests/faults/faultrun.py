"""One fault: the stage under load, something killed at a step, all run again, the rules checked.

The *victim* is killed ``before``, ``in`` or ``after`` a step of the protocol. Where it is the job,
or the sync at a step of its own, it kills itself; where it is another, the job stands still at the
step until the other is dead.
"""

from __future__ import annotations

import contextlib
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from example_app.journal import Written, compare
from example_app.load import Load, Result
from tests.faults import probing
from tests.integration import independent_compare
from tests.integration.livestage import RECOVERY_SECONDS, LiveStage, Program, until

WRITERS, READERS = 3, 2
RATE = 60.0
"""Writes per second: enough for several at each step, and few enough for two cores."""

STOPPED_SECONDS = 90.0
"""In which a job that stands still is ended, whatever the step."""

STRANGE = {
    "lost trigger": ("is missing",),
    "replaced file": ("another file", "put back to an older state"),
}
"""What may happen to the file, and in which words sync and the switch then tell it."""

FULL = "full state directory"
STATE_SIZE = "256k"

OTHER = {"sqlite": "postgresql", "postgresql": "sqlite"}


@dataclass(frozen=True)
class Fault:
    """What is killed, and when; ``direction`` is ``switch`` or ``rollback``."""

    direction: str
    victim: str
    when: str
    step: str
    round: int = 0
    journal: str = "wal"
    """The journal mode of the source."""

    def __str__(self) -> str:
        parts = (self.direction, self.victim, self.when, self.step, self.round, self.journal)
        return "-".join(str(part) for part in parts)

    @property
    def begins(self) -> str:
        """The state in which the run begins (:func:`prepare`)."""
        return ("verified" if self.direction == "switch" else "switched") + f"-{self.journal}"

    @property
    def to(self) -> str:
        """The side that serves in the end."""
        return "postgresql" if self.direction == "switch" else "sqlite"


class FaultRun:
    """One run on a stage that was put back to the state before the decision."""

    def __init__(self, stage: LiveStage, fault: Fault, seed: int) -> None:
        self.stage = stage
        self.fault = fault
        self.chance = random.Random(f"{seed}/{fault}")
        self.journal = stage.live / "journal"
        self.application, self.url = stage.start_application()
        self.load = Load(self.url, self.journal, users=(WRITERS, READERS), rate=RATE, seed=seed)
        self.prober = probing.Prober(stage.source, stage.application_dsn)
        self.sync: Program | None = None
        self._state = stage.live / "state"
        self._mounted = False

    def go(self) -> Result:
        """All of it; the load's result. Raises AssertionError where a rule is broken."""
        own = self.fault.victim == "sync" and self.fault.step.startswith("sync.")
        if self.fault.victim == "memory":
            # What the target was when the run began is what is left of it at the fault.
            self.stage.remember_target()
        if self.fault.victim == FULL:
            self._mount_state()
        self.load.start()
        self.prober.start()
        try:
            self._start_sync(f"{self.fault.when}:{self.fault.step}" if own else "")
            if own:
                self._sync_kills_itself()
            elif self.fault.victim == "stopped holder":
                self._job_stands_still()
            elif self.fault.victim in STRANGE:
                self._strange()
            elif self.fault.victim == FULL:
                self._full_state()
            elif self.fault.victim == "job":
                self._job_kills_itself()
            else:
                self._another_is_killed()
            self._run_again()
        finally:
            self.prober.stop()
            result = self.load.stop()
        self._check(result)
        return result

    def clean_up(self) -> None:
        """Whatever happened: nothing of this run goes on."""
        for program in (self.sync, self.application):
            if program is not None:
                program.send(signal.SIGCONT)
                program.kill()
        if self._mounted:
            subprocess.run(["umount", "--lazy", str(self._state)], check=True)

    # --------------------------------------------------------------------------- the fault

    def _start_sync(self, fault: str = "") -> None:
        self.sync = self.stage.start_job("sync", fault=fault)

    def _sync_kills_itself(self) -> None:
        assert self.sync is not None
        assert self.sync.wait() == -signal.SIGKILL, self.sync.output
        time.sleep(self.chance.uniform(0, 0.2))
        self._start_sync()

    def _job_kills_itself(self) -> None:
        fault = f"{self.fault.when}:{self.fault.step}"
        status = self._start_direction(fault).wait()
        # A fault in the last step may come when the job has just ended.
        assert status in (-signal.SIGKILL, 0), f"the job ended with {status}"
        if self.chance.random() < 0.7:
            # Nobody at the keyboard: the sync alone finishes it or undoes it.
            until(self._recovered, "sync to finish or undo it", RECOVERY_SECONDS)

    def _job_stands_still(self) -> None:
        """It is never sent on: what it holds is free because it is ended, and sync takes over."""
        job = self._start_direction(f"{self.fault.when}:{self.fault.step}:stop")
        assert job.wait(STOPPED_SECONDS) in (-signal.SIGKILL, 0), job.output
        until(self._recovered, "sync to finish or undo it", RECOVERY_SECONDS)

    def _strange(self) -> None:
        """Something happens to the file while sync follows: the switch has to refuse, saying what,
        with SQLite serving; then all is put right, and it goes on."""
        undo = getattr(self, "_" + self.fault.victim.replace(" ", "_"))()
        assert self.sync is not None
        sync, words = self.sync, STRANGE[self.fault.victim]
        until(lambda: any(w in sync.output for w in words), f"sync to say one of {words}")
        job = self._start_direction()
        assert job.wait() != 0
        assert any(w in job.output for w in words), job.output
        assert "Traceback" not in job.output + sync.output
        undo()

    def _lost_trigger(self) -> Callable[[], None]:
        """Between two transactions of everybody's, so that nothing is missed meanwhile."""
        connection = sqlite3.connect(self.stage.source, isolation_level=None, timeout=10)
        name, sql = connection.execute(
            "SELECT name, sql FROM sqlite_schema WHERE name LIKE '%_delete' ORDER BY 1"
        ).fetchone()
        connection.execute(f'DROP TRIGGER "{name}"')

        def undo() -> None:
            connection.execute(sql)
            connection.close()

        return undo

    def _replaced_file(self) -> Callable[[], None]:
        """A backup is put in the file's place, by rename, under an application that has it open and
        writes nothing meanwhile: what it would write, the operator who takes the backup away again
        would lose."""
        source = self.stage.source
        backup = source.with_name("backup.db")
        with (
            contextlib.closing(sqlite3.connect(source, timeout=10)) as connection,
            contextlib.closing(sqlite3.connect(backup)) as copy,
        ):
            connection.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
            ((last,),) = copy.execute("SELECT max(seq) FROM _migration_log").fetchall()
        until(lambda: self._followed() > last, "sync to follow what came after the backup")
        self.prober.stop()
        self.application.send(signal.SIGSTOP)
        family = [source.with_name(source.name + end) for end in ("", "-wal", "-shm")]
        kept = [(file, file.with_name("kept." + file.name)) for file in family if file.exists()]
        for file, aside in kept:
            file.rename(aside)
        backup.rename(source)

        def undo() -> None:
            for file in family:
                file.unlink(missing_ok=True)
            for file, aside in reversed(kept):
                aside.rename(file)
            self.application.send(signal.SIGCONT)

        return undo

    def _followed(self) -> int:
        return int(self.stage.query_target("SELECT position FROM migration.applied")[0][0])

    def _mount_state(self) -> None:
        """A small disk for the state directory alone, so that the databases do not fill up."""
        kept = {file.name: file.read_bytes() for file in self._state.iterdir() if file.is_file()}
        command = ["mount", "-t", "tmpfs", "-o", f"size={STATE_SIZE}", "tmpfs", str(self._state)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"a disk that fills up cannot be mounted here: {done.stderr.strip()}")
        self._mounted = True
        for name, content in kept.items():
            (self._state / name).write_bytes(content)

    def _full_state(self) -> None:
        """The sync says so and follows; a command does it all, or says why not and leaves the
        application where it was. Then there is space again."""
        assert self.sync is not None
        sync, ballast = self.sync, self._state / "ballast"
        with ballast.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
            while True:
                stream.write(b"x" * 512)
        until(lambda: "No space left" in sync.output, "sync to say that there is no space")
        before = self._followed() if self.fault.direction == "switch" else 0
        if self.fault.direction == "switch":
            until(lambda: self._followed() > before, "sync to go on following")
        job = self._start_direction()
        status = job.wait()
        assert status == 0 or "No space left" in job.output, job.output
        assert "Traceback" not in job.output + sync.output, job.output + sync.output
        until(self._recovered, "one side to serve", RECOVERY_SECONDS)
        ballast.unlink()

    def _another_is_killed(self) -> None:
        job = self._start_direction(f"{self.fault.when}:{self.fault.step}:stop")
        until(lambda: job.stands_still() or job.ended is not None, f"the step {self.fault.step}")
        assert job.stands_still() or self.fault.when == "in", f"it ended:\n{job.output}"
        restart = self._kill_victim()
        if self.chance.random() < 0.5:
            job.send(signal.SIGCONT)
            time.sleep(self.chance.uniform(0, 0.3))
            restart()
        else:
            restart()
        # It stands still again wherever it comes to the step once more.
        until(lambda: _goes_on(job), "the job to end")

    def _kill_victim(self) -> Callable[[], None]:
        """Kill it; what starts it again."""
        match self.fault.victim:
            case "memory":
                self.stage.forget_target()
                return self.stage.postgres.start
            case "sync":
                assert self.sync is not None
                self.sync.kill()
                return self._start_sync
            case "postgres":
                self.stage.postgres.kill()
                return self.stage.postgres.start
            case _:
                self.stage.bouncer.kill()
                return self.stage.bouncer.start

    def _start_direction(self, fault: str = "") -> Program:
        return self.stage.start_job(self.fault.direction, fault=fault)

    def _run_again(self) -> None:
        """As an operator would, until it is done; nothing is being killed any more."""
        job = self._start_direction()
        if job.wait() != 0:
            # The one excuse: a server that was started a moment ago.
            job = self._start_direction()
            status = job.wait()
            assert status == 0, f"{self.fault.direction} ended with {status}:\n{job.output}"
        until(self._recovered, "everything to agree", RECOVERY_SECONDS)

    def _recovered(self) -> bool:
        """Whether the side that the connection names takes a write, and the other does not."""
        named = self.stage.named()["write"]["engine"]
        return self._takes(named) and not self._takes(OTHER[named])

    def _takes(self, side: str) -> bool:
        request = f"probe-{self.chance.getrandbits(64):x}"
        try:
            if side == "sqlite":
                probing.write_sqlite(self.stage.source, request)
            else:
                with psycopg.connect(
                    self.stage.application_dsn(), autocommit=True, connect_timeout=2
                ) as session:
                    probing.write_postgres(session, request)
        except (sqlite3.Error, psycopg.Error):
            return False
        return True

    # --------------------------------------------------------------------------- the rules

    def _check(self, result: Result) -> None:
        new, old = self.fault.to, OTHER[self.fault.to]
        assert result.failures == [], result.failures[:3]
        # 1: never both.
        assert self.prober.both_open(new) == []
        named = self.stage.named()
        assert (named["write"]["engine"], named["read"]["engine"]) == (new, new)
        # Without a write-ahead log a reader, the sync for one, may be in its way for an instant.
        until(lambda: self._takes(new), f"{new} to take a write", RECOVERY_SECONDS)
        assert not self._takes(old)
        # 2: everything acknowledged is there, once.
        query = self.stage.query_target if new == "postgresql" else self.stage.query_source
        found = compare(Written.read(self.journal), query)
        assert found.acknowledged > 0
        assert found.problems == []
        there = [str(row[0]) for row in query("SELECT id FROM app_requests")]
        for probe in self.prober.accepted:
            assert there.count(probe.request) == 1, f"{probe.request} taken by {probe.side}"
        # 3: the certificate covers everything up to the fence.
        if new == "postgresql":
            self._check_certificate()
        # 4: the other side can still be brought up to date, by the same sync.
        assert self.sync is not None
        assert self.sync.ended is None, self.sync.output
        assert self.sync.end() == 0, self.sync.output
        self.application.end()
        self.stage.run_job("sync", "--once")
        # 5: nothing was changed silently.
        source = independent_compare.read_source(self.stage.source)
        own = {name: table for name, table in source.items() if not name.startswith("_migration")}
        target = independent_compare.read_target(self.stage.superuser_dsn())
        records = independent_compare.read_records(self.stage.superuser_dsn())
        assert independent_compare.compare(own, target, records) == []

    def _check_certificate(self) -> None:
        held = self.stage.query_source("SELECT certificate FROM _migration_state")
        given = self.stage.query_target("SELECT digest FROM migration.certificate")
        assert held[0][0] is not None
        assert held[0][0] in {str(row[0]) for row in given}


def _goes_on(job: Program) -> bool:
    """Whether it has ended; sent on where it stands still."""
    if job.ended is None and job.stands_still():
        job.send(signal.SIGCONT)
    return job.ended is not None


def prepare(stage: LiveStage, journal: str) -> None:
    """The two states in which runs begin, ``verified`` and ``switched``, on a source in that
    journal mode."""
    stage.journal = journal
    stage.begin()
    application, url = stage.start_application()
    _fill(url, stage.live / "journal", seed=1)
    stage.run_job("migrate", "--live")
    stage.run_job("sync", "--once")
    application.end()
    _forget(stage.live / "journal")
    stage.keep(f"verified-{journal}")
    stage.run_job("switch")
    application, url = stage.start_application()
    _fill(url, stage.live / "journal", seed=2)
    application.end()
    _forget(stage.live / "journal")
    stage.run_job("sync", "--once")
    stage.keep(f"switched-{journal}")


def _fill(url: str, journal: Path, *, seed: int) -> None:
    load = Load(url, journal, users=(4, 0), seed=seed)
    load.start()
    until(lambda: load.so_far()[0] > 200, "some rows")
    assert load.stop().failures == []


def _forget(journal: Path) -> None:
    for file in journal.glob("*.jsonl"):
        file.unlink()
