"""A small live fleet: its applications on SQLite and, behind PgBouncer, on PostgreSQL."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import psycopg

from migration_job.embedded import EmbeddedPgBouncer
from migration_job.quoting import postgres_name
from tests.integration.fleetkit import Kit, as_the_target_has_it, make_file
from tests.integration.running import DONE, Ended, run

MANIFEST = (
    "files: 'in/*.db'\nlayout: schema-per-file\nname: 'c_{tenant}'\nlive: {search_path: alias}\n"
)

WAIT_SECONDS = 60.0


def until(condition: Callable[[], object], seconds: float = WAIT_SECONDS, what: str = "") -> float:
    """Wait for it; how long that took, in seconds."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)
    return time.monotonic() - began


@dataclass(frozen=True)
class LiveKit(Kit):
    """A fleet whose files stay in use; ``bouncer`` None: without PgBouncer."""

    bouncer: EmbeddedPgBouncer | None = None
    text: str = MANIFEST
    database: str = "{place}"
    """What the applications connect to."""

    @classmethod
    def moved(cls, folder: Path, dsn: str, names: Sequence[str]) -> LiveKit:
        """One without PgBouncer, of these tenants, each of them verified."""
        text = "files: 'in/*.db'\nlayout: schema-per-file\nname: 'c_{tenant}'\nlive: true\n"
        made = cls(folder, dsn, database="d", text=text)
        made.make(*names)
        ended = made.run(made.manifest_path)
        assert ended.status == DONE, ended.said
        return made

    @property
    def manifest_path(self) -> Path:
        return self.folder / "manifest.yaml"

    def make(self, *names: str, journal: str = "WAL") -> None:
        """Files of tenants, the manifest, and what the applications connect to."""
        for number, name in enumerate(names):
            path = self.folder / "in" / f"{name}.db"
            make_file(path, number, more=f"PRAGMA journal_mode = {journal}")
        self.manifest(self.text)
        told: dict[str, Any] = {"host": "127.0.0.1", "database": self.database}
        told |= {"user": "app", "password": "secret"}
        if self.bouncer is not None:
            told["port"] = self.bouncer.port
        (self.folder / "to.json").write_text(json.dumps(told), encoding="utf-8")

    def path(self, name: str) -> Path:
        return self.folder / "in" / f"{name}.db"

    def connection(self, name: str) -> Path:
        return self.folder / "connections" / name

    def words(self, manifest: Path, *more: str) -> list[str]:
        """The arguments of `fleet`."""
        target = self._secret("target", self.dsn)
        return ["fleet", str(manifest), *target, "--report", str(self.report), *more]

    def _secret(self, name: str, text: str) -> list[str]:
        """The option that reads it from a file."""
        path = self.folder / name
        # Not again: a process that is being started may read it at this moment.
        if not path.exists():
            path.write_text(text, encoding="utf-8")
            path.chmod(0o600)
        assert path.read_text(encoding="utf-8") == text
        return [f"--{name}-file", str(path)]

    def arguments(self, command: str, *more: str) -> list[str]:
        """The words of a live command."""
        words = [command, *self.words(self.manifest_path)[1:]]
        words += ["--connect-to", str(self.folder / "to.json")]
        if self.bouncer is not None:
            words += self._secret("console", self.bouncer.admin_dsn)
            words += ["--alias-file", str(self.bouncer.alias_path)]
        return [*words, *more]

    def live(self, command: str, *more: str) -> Ended:
        """A live command, in this process."""
        return run(*self.arguments(command, *more))

    def process(self, *words: str) -> subprocess.Popen[bytes]:
        """The same as a process."""
        log = (self.folder / "log.txt").open("ab")
        with log:
            return subprocess.Popen(
                [sys.executable, "-m", "migration_job", *words], stdout=log, stderr=log
            )

    @contextlib.contextmanager
    def followed(self) -> Iterator[subprocess.Popen[bytes]]:
        """`fleet-sync` runs."""
        process = self.process(*self.arguments("fleet-sync"))
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(WAIT_SECONDS) == 0, self.log()

    def log(self) -> str:
        return (self.folder / "log.txt").read_text(encoding="utf-8", errors="replace")

    def status(self, *more: str) -> dict[str, Any]:
        """What `fleet-status --json` says."""
        ended = run("fleet-status", *self.words(self.manifest_path)[1:], "--json", *more)
        assert ended.status == 0, ended.said
        told: dict[str, Any] = json.loads(ended.out)
        return told

    def beat(self) -> dict[str, Any]:
        """The heartbeat of `fleet-sync`."""
        text = (self.report / "fleet-sync.json").read_text(encoding="utf-8")
        told: dict[str, Any] = json.loads(text)
        return told

    def write(self, name: str, script: str) -> None:
        """As the application does on SQLite; with apsw, which shares its locks with the job's."""
        connection = apsw.Connection(os.fspath(self.path(name)))
        try:
            connection.set_busy_timeout(10_000)
            connection.execute(script)
        finally:
            connection.close()

    def on_sqlite(self, name: str) -> dict[str, list[tuple[Any, ...]]]:
        """Each table's rows, as the target would give them."""
        connection = apsw.Connection(os.fspath(self.path(name)), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            connection.set_busy_timeout(10_000)
            return {
                "person": list(
                    connection.execute("SELECT id, name, active, made FROM person ORDER BY id")
                ),
                "note": list(
                    connection.execute("SELECT id, person, body, score, size FROM note ORDER BY id")
                ),
            }
        finally:
            connection.close()

    def on_postgres(self, name: str) -> dict[str, list[tuple[Any, ...]]]:
        return as_the_target_has_it(self, f"c_{name}")

    def grant(self, *names: str, role: str = "app") -> None:
        """Let the application's role work in its tenants' schemas."""
        for name in names:
            schema = postgres_name(f"c_{name}")
            self.do(
                f"GRANT USAGE ON SCHEMA {schema} TO {role}",
                f"GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {role}",
                f"GRANT ALL ON ALL SEQUENCES IN SCHEMA {schema} TO {role}",
            )

    def application(self, name: str) -> psycopg.Connection:
        """A session of the tenant's application, through PgBouncer."""
        assert self.bouncer is not None
        return psycopg.connect(
            self.bouncer.dsn(f"c_{name}", user="app", password="secret"),
            autocommit=True,
            prepare_threshold=None,
        )
