"""The live demo: the example application serves a load all the while, and is switched under it.

The commands are the operator's own (``migrate --live``, ``sync``, ``switch``, ``rollback``), each
a process. What the application acknowledged is in the load's journal, which is compared with the
database that serves at the end; neither the application nor the job is asked.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import psycopg

from example_app.journal import Compared, Query, Written, compare, compare_sqlite
from example_app.load import Load
from migration_job import shell_words
from migration_job.connection import SqliteSide, write_connection
from migration_job.demo.commands import beside, end, run_command
from migration_job.demo.rehearsal import summarise
from migration_job.demo.screen import Screen
from migration_job.demo.stage import DemoStage, write_secret
from migration_job.errors import ExitStatus, OperationError
from migration_job.plural import counted

WRITES_PER_SECOND = 100.0
DWELL_SECONDS = 2.0
"""How long the application is shown at rest on either side."""

FENCE_SECONDS = "4"
"""How long writers may be held at the switch. Some tens of milliseconds are the rule; on a busy
laptop everything takes longer, and the application waits up to 5 s for SQLite's lock."""

CATCH_UP_SECONDS = 60.0

NEWS_SECONDS = 2.0
"""A figure that is older is told with its age."""


@dataclass(frozen=True, slots=True)
class Shown:
    """How it ended: ``DONE`` only where no request failed and every acknowledged write is present
    exactly once. ``last_line`` is what the load met."""

    status: ExitStatus
    last_line: str


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be seen."""

    back: bool = False
    """Return to SQLite after the switch."""
    dwell: float = DWELL_SECONDS
    """Seconds of the application at rest on either side."""
    metrics: int | None = None
    """A port on which ``sync`` shows its figures to a Prometheus."""
    policy: Path | None = None
    """What to do with values that do not fit."""


def show(source: Path, stage: DemoStage, *, profile: str, wish: Wish | None = None) -> Shown:
    """Migrate and switch under load."""
    return Show(source, stage, profile, wish or Wish()).run()


class Met(Protocol):
    """What the application met."""

    @property
    def failures(self) -> list[str]: ...

    @property
    def requests(self) -> int: ...

    @property
    def longest(self) -> float: ...

    def sides(self) -> dict[str, int]: ...


class Traffic(Protocol):
    """What uses the application, or is it."""

    def so_far(self) -> tuple[int, int, float]: ...

    def stop(self) -> Met: ...


class Show:
    """The way there, and back where it is wished, of ``source`` under the example's own load."""

    def __init__(self, source: Path, stage: DemoStage, profile: str, wish: Wish) -> None:
        self._source = source
        self._stage = stage
        self._profile = profile
        self._back = wish.back
        self._wish = wish
        self._screen = Screen()
        self._state = stage.directory / "state"
        self._journal = stage.directory / "journal"
        self._connect_to = stage.directory / "secrets" / "connect-to.json"
        self._traffic: Traffic | None = None
        self._how: Callable[[Written, Query], Compared] = compare

    def run(self) -> Shown:
        began = time.monotonic()
        side = SqliteSide(path=str(self._source.absolute()))
        write_connection(self._stage.connection, side, side)
        self._write_connect_to()
        with ExitStack() as stack:
            traffic = self._traffic = self._begin(stack)
            stack.enter_context(self._screen.watching(self._standing))
            moved = self._migrate()
            status = self._switch(stack) if moved is ExitStatus.DONE else moved
            result = traffic.stop()
        compared = self._compare()
        summarise(self._source, self._stage, moved, time.monotonic() - began)
        return self._tell(status, result, compared)

    def _begin(self, stack: ExitStack) -> Traffic:
        """Start the application and what uses it; both end with ``stack``."""
        port = stack.enter_context(self._application())
        load = Load(f"http://127.0.0.1:{port}", self._journal, rate=WRITES_PER_SECOND)
        load.start()
        stack.callback(load.stop)
        self._screen.say(
            f"the example application serves on port {port}; 8 writers and 8 readers use it, "
            "half of them with a new connection for each request; it adds a table, app_requests"
        )
        return load

    def _migrate(self) -> ExitStatus:
        time.sleep(self._wish.dwell)
        more = ["--profile", self._profile, "--live"]
        more += ["--policy", str(self._wish.policy)] if self._wish.policy is not None else []
        return self._job("migrate", *more, live=False)

    def _switch(self, stack: ExitStack) -> ExitStatus:
        """Follow, switch and, where wished, go back; the exit status of what failed, else DONE."""
        stack.enter_context(self._sync())
        self._wait_for("forward")
        time.sleep(self._wish.dwell)
        status = self._job("switch", "--fence-seconds", FENCE_SECONDS)
        time.sleep(self._wish.dwell)
        if self._back and status is ExitStatus.DONE:
            self._wait_for("back")
            status = self._job("rollback")
            time.sleep(self._wish.dwell)
        return status

    # ---------------------------------------------------------------------------- processes

    @contextmanager
    def _application(self) -> Iterator[int]:
        """The example application; its port."""
        command = [sys.executable, "-m", "example_app", "--sqlite", str(self._source)]
        command += ["--connection", str(self._stage.connection), "--port", "0"]
        log = self._stage.directory / "application.log"
        with log.open("wb") as errors:
            process = subprocess.Popen(  # noqa: S603
                command, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line.startswith("listening on "):
                raise OperationError(f"the example application did not start; see {log}")
            yield int(line.rsplit(":", 1)[1])
        finally:
            end(process)

    @contextmanager
    def _sync(self) -> Iterator[None]:
        """``migration-job sync`` beside everything else, as a stage's own container runs it."""
        arguments = self._arguments("sync")
        if self._wish.metrics is not None:
            arguments += ["--metrics-port", str(self._wish.metrics)]
        self._show_command(arguments, end=" &")
        with beside(arguments, self._stage.directory / "sync.log"):
            yield

    def _job(self, command: str, *more: str, live: bool = True) -> ExitStatus:
        """One command of the job's, its lines shown as they come."""
        arguments = self._arguments(command, live=live) + list(more)
        self._show_command(arguments, *more)
        return run_command(arguments, self._screen)

    def _show_command(self, arguments: list[str], *given: str, end: str = "") -> None:
        """The command's name and what was ``given`` to it on the screen, all of it in a file, to be
        run again by hand."""
        shown = shell_words.words(arguments[:2])
        more = "".join(f" {shell_words.word(word)}" for word in given)
        self._screen.say(f"$ migration-job {shown} ...{more}{end}")
        with (self._stage.directory / "commands.txt").open("a") as log:
            log.write(f"migration-job {shell_words.words(arguments)}\n")

    def _arguments(self, command: str, *, live: bool = True) -> list[str]:
        stage = self._stage
        arguments = [command, str(self._source), "--target-file", str(stage.target_file)]
        arguments += ["--report", str(stage.report), "--state", str(self._state)]
        if live:
            arguments += ["--connection", str(stage.connection)]
            arguments += ["--connect-to", str(self._connect_to)]
            if stage.bouncer is not None:
                arguments += ["--console-file", str(stage.console_file)]
                arguments += ["--alias-file", str(stage.bouncer.alias_path)]
        return arguments

    def _write_connect_to(self) -> None:
        side = self._stage.application_side
        write_secret(
            self._connect_to,
            json.dumps(
                {
                    "host": side.host,
                    "port": side.port,
                    "database": side.database,
                    "user": side.user,
                    "password": side.password,
                }
            ),
        )

    # ------------------------------------------------------------------------------- looking

    def _standing(self) -> str:
        """One line: what the application met so far, and how far the other side is behind."""
        answered, failed, longest = self._traffic.so_far() if self._traffic else (0, 0, 0.0)
        words = [
            counted(answered + failed, "request"),
            f"{failed:,} failed",
            f"longest wait {longest * 1000:,.0f} ms",
        ]
        told = self._sync_says()
        if told is not None:
            words.append(lag_in_words(told, datetime.now(UTC)))
        return "; ".join(words)

    def _sync_says(self) -> dict[str, Any] | None:
        try:
            told = json.loads((self._state / "sync.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return told if isinstance(told, dict) else None

    def _wait_for(self, direction: str) -> None:
        """Until ``sync`` has caught up that way. Raises OperationError after a minute."""
        deadline = time.monotonic() + CATCH_UP_SECONDS
        while True:
            told = self._sync_says()
            if told is not None and told["direction"] == direction and not told["problem"]:
                return
            if time.monotonic() > deadline:
                why = "" if told is None or not told["problem"] else f": {told['problem']}"
                raise OperationError(
                    f"`migration-job sync` did not catch up within {CATCH_UP_SECONDS:.0f} s{why}",
                    advice=f"what it said in full is in {self._stage.directory / 'sync.log'}",
                )
            time.sleep(0.05)

    def _serving_side(self) -> str:
        told = json.loads((self._stage.connection / "database.json").read_text())
        return str(told["write"]["engine"])

    def _compare(self) -> Compared:
        """The journal against the database that serves now."""
        if self._serving_side() == "sqlite":
            return compare_sqlite(self._journal, self._source, self._how)
        with psycopg.connect(self._stage.server.dsn_for(self._stage.database)) as session:
            session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            return self._how(
                Written.read(self._journal), lambda query: session.execute(query).fetchall()
            )

    def _tell(self, status: ExitStatus, result: Met, compared: Compared) -> Shown:
        say = self._screen.say
        names = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
        taken = ", ".join(f"{n:,} by {names[e]}" for e, n in sorted(result.sides().items()))
        say(f"\n{names[self._serving_side()]} serves; writes were taken {taken}")
        for failure in result.failures[:3]:
            say(f"  failed: {failure}")
        for problem in compared.problems[:3]:
            say(f"  wrong: {problem}")
        presence = (
            f"{counted(len(compared.problems), 'problem')}" if compared.problems else "all present"
        )
        last = (
            f"{len(result.failures):,} of {counted(result.requests, 'request')} failed; longest "
            f"wait {result.longest * 1000:,.0f} ms; {counted(compared.acknowledged, 'write')} "
            f"during the migration, {presence}"
        )
        if status is ExitStatus.DONE and (result.failures or compared.problems):
            status = ExitStatus.VERIFICATION_FAILED
        return Shown(status, last)


def lag_in_words(told: Mapping[str, Any], now: datetime) -> str:
    """What ``sync`` has last said, and how old that is where it is no news: while a command moves
    the application, it measures nothing."""
    way = {"forward": "to PostgreSQL", "back": "back to SQLite"}.get(str(told["direction"]))
    if way is None:
        return "sync waits"
    behind = counted(int(told["behind"]), "change")
    said = f"{way}: {behind}, {float(told['lag_seconds']):,.1f} s behind"
    try:
        age = (now - datetime.fromisoformat(str(told["measured_at"]))).total_seconds()
    except (KeyError, ValueError):
        return f"{way}: nothing measured yet"
    return said if age < NEWS_SECONDS else f"{said} {age:,.0f} s ago"
