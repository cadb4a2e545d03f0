"""The live rehearsal on somebody's own file: a copy of it, made-up writes, the switch and the way
back, by the operator's own commands.

The file itself is read once, for the copy. Its application is not started: ``example_app.replay``
stands in for it, with writes that :mod:`.made_up` makes from the schema.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections import deque
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import psycopg

from example_app.journal import compare_requests
from migration_job.demo.live import Show, Shown, Traffic, Wish
from migration_job.demo.made_up import Change, changes, touches
from migration_job.demo.rehearsal import fingerprint, say, say_untouched
from migration_job.demo.stage import DemoStage
from migration_job.errors import ExitStatus, OperationError
from migration_job.plural import counted
from migration_job.stores.postgres import records
from migration_job.stores.sqlite import snapshot
from migration_job.stores.sqlite.catalogue import read_catalogue
from migration_job.stores.sqlite.fence import open_source
from migration_job.values import fold

ROOM = 4
"""Times the file's size that a rehearsal may need: the copy, its snapshot, PostgreSQL, its log."""

REQUESTS = "app_requests"
END_SECONDS = 60.0
SHOWN_REFUSALS = 5


def room_for(source: Path, home: Path) -> bool:
    """Whether the disk of ``home`` has room for a rehearsal on a copy."""
    return shutil.disk_usage(home).free > ROOM * source.stat().st_size


def rehearse_live(source: Path, stage: DemoStage, *, profile: str, wish: Wish) -> Shown:
    """Copy ``source``, migrate the copy while made-up writes go on, switch, and go back where there
    is a pooler; the copy is removed. Raises InputError where the file cannot be copied."""
    before = fingerprint(source)
    folder = stage.directory / "copy"
    try:
        taken = snapshot.take(source, folder)
        say(
            f"copied {source}, {taken.bytes / 2**20:,.1f} MiB; all that follows is done to the copy"
        )
        shown = _Rehearsal(taken.path, source, stage, profile, wish).run()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    say_untouched(before, fingerprint(source))
    return shown


class _Rehearsal(Show):
    def __init__(
        self, copy: Path, original: Path, stage: DemoStage, profile: str, wish: Wish
    ) -> None:
        super().__init__(copy, stage, profile, wish)
        self._changes = stage.directory / "changes.json"
        self._how = compare_requests
        self._replay: _Replay | None = None
        with closing(open_source(copy)) as connection:
            # The copy is as the file at rest; its application may keep a log.
            if _keeps_log(original):
                connection.pragma("journal_mode", "wal")
            self._catalogue = read_catalogue(connection)
            self._tell_changes(touches(connection, self._catalogue))

    def _begin(self, stack: ExitStack) -> Traffic:
        if any(fold(table.name) == REQUESTS for table in self._catalogue.tables):
            raise OperationError(
                f"expected no table {REQUESTS!r} in the source, found one: the rehearsal keeps its "
                "own writes under that name",
                advice="rehearse with --still, which moves the data alone",
            )
        self._replay = _Replay(self._source, self._stage.connection, self._journal, self._changes)
        stack.callback(self._replay.stop)
        self._screen.say(
            "4 writers and 4 readers use the copy in the place of its application; what they write "
            f"is made up from its schema, and a table {REQUESTS} keeps count"
        )
        return self._replay

    def _migrate(self) -> ExitStatus:
        status = super()._migrate()
        if status is ExitStatus.DONE:
            with psycopg.connect(self._stage.target) as target:
                run = records.read_run(target)
            if run is not None:
                self._tell_changes(changes(self._catalogue, run.plan))
        return status

    def _tell_changes(self, wanted: list[Change]) -> None:
        partial = self._changes.with_suffix(".partial")
        partial.write_text(json.dumps([change.to_json() for change in wanted]), "utf-8")
        partial.replace(self._changes)

    def _tell(self, status: ExitStatus, result: Any, compared: Any) -> Shown:
        shown = super()._tell(status, result, compared)
        refused = {} if self._replay is None else self._replay.refused
        for what, why in list(refused.items())[:SHOWN_REFUSALS]:
            self._screen.say(f"  left out, since the schema itself refuses it: {what}: {why}")
        if len(refused) > SHOWN_REFUSALS:
            more = counted(len(refused) - SHOWN_REFUSALS, "more kind")
            self._screen.say(f"  and {more} of made-up writes")
        return shown


def _keeps_log(source: Path) -> bool:
    with source.open("rb") as stream:
        return stream.read(20)[18:20] == b"\x02\x02"


class _Replay:
    """``example_app.replay`` as a process, and what it says."""

    def __init__(self, file: Path, connection: Path, journal: Path, changes: Path) -> None:
        command = [sys.executable, "-m", "example_app.replay", "--sqlite", str(file)]
        command += ["--connection", str(connection), "--journal", str(journal)]
        self._log = changes.with_name("application.log")
        with self._log.open("wb") as errors:
            self._process = subprocess.Popen(  # noqa: S603 - this project's own program
                [*command, "--changes", str(changes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                process_group=0,  # Ctrl-C is for the demo, which then ends this one in order
            )
        self._said: deque[dict[str, Any]] = deque(maxlen=1)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self._process.stdout or ():
            self._said.append(json.loads(line))

    def _last(self) -> dict[str, Any]:
        return self._said[-1] if self._said else {}

    def so_far(self) -> tuple[int, int, float]:
        said = self._last()
        return said.get("answered", 0), said.get("failed", 0), said.get("longest", 0.0)

    def stop(self) -> _Replay:
        """End it, once. Raises OperationError where it ended badly by itself."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
        try:
            status = self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        self._reader.join()
        if self._process.stdout is not None:
            self._process.stdout.close()
        if status:
            raise OperationError(f"the made-up application ended with {status}; see {self._log}")
        return self

    # What it met, by its last line.

    @property
    def failures(self) -> list[str]:
        found: list[str] = self._last().get("failures", [])
        return found

    @property
    def requests(self) -> int:
        answered, failed, _ = self.so_far()
        return answered + failed

    @property
    def longest(self) -> float:
        return self.so_far()[2]

    def sides(self) -> dict[str, int]:
        found: dict[str, int] = self._last().get("sides", {})
        return found

    @property
    def refused(self) -> dict[str, str]:
        """Changes that the schema refuses, and its words."""
        found: dict[str, str] = self._last().get("refused", {})
        return found
