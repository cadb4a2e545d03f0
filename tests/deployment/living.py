"""A stage that is taken on by the commands of the documentation, `make` and a word, while the
example application beside it writes and reads, as an operator's own would."""

from __future__ import annotations

import random
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from example_app.journal import (
    Compared,
    Written,
    compare_postgres,
    compare_requests,
    compare_sqlite,
)
from example_app.load import Load
from example_app.store import DEADLINE_SECONDS
from tests.deployment.engine import client_or_skip
from tests.deployment.radcase import until
from tests.deployment.workshop import (
    ROOT,
    Workshop,
    dsn,
    environment,
    named,
    require_pulumi,
)

MORE = 100
"""Requests that each state has to serve before the next command comes."""

RATE = 40


def major(workshop: Workshop) -> int:
    """Of the PostgreSQL that the application is on."""
    with psycopg.connect(dsn(named(workshop)), prepare_threshold=None) as session:
        row = session.execute("SHOW server_version_num").fetchone() or (0,)
    return int(row[0]) // 10000


@dataclass
class Life:
    """A stage, and the load on the application beside it."""

    workshop: Workshop
    url: str
    journal: Path
    seed: int
    load: Load
    patience: float = DEADLINE_SECONDS
    """Seconds for which the application tries a request again."""
    began: float = field(default_factory=time.monotonic)
    acknowledged: int = 0
    """Writes of loads that have ended; nothing of theirs failed."""
    requests: int = 0
    longest: float = 0.0

    def told(self, what: str) -> None:
        """One line of the test's own account of it."""
        print(f"{time.monotonic() - self.began:6.0f} s  {what}", flush=True)

    def make(self, *words: str, fails: str = "", **more: str) -> str:
        """What `make` prints with the stage's name; it has to succeed, or to fail with a word."""
        done = subprocess.run(
            ["make", "--no-print-directory", words[0], f"STAGE={self.workshop.stage}", *words[1:]],
            cwd=self.workshop.directory,
            env={**environment(self.workshop), **more},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        said = done.stdout + done.stderr
        assert bool(done.returncode) == bool(fails), said[-6000:]
        assert fails in said, said[-6000:]
        assert "Traceback" not in said, said[-6000:]
        self.told(f"make {' '.join(words)}{', refused' if fails else ''}")
        return said

    def set(self, name: str, value: str | int) -> None:
        """Change the stage file, as the documentation says it is changed."""
        self.make("config", f"ARGS=set {name} {value}")

    def serves_on(self, where: str | int) -> None:
        """The application is on SQLite, or on PostgreSQL of that version, and answers."""
        side = named(self.workshop)
        found = major(self.workshop) if side["engine"] == "postgresql" else side["engine"]
        assert found == where
        before = self.load.so_far()[0]
        until(lambda: self.load.so_far()[0] >= before + MORE, f"requests on {where}")

    def upgrade(self, word: str, serves: int) -> None:
        """One step of an upgrade, after which that version serves."""
        self.make("upgrade", word)
        self.serves_on(serves)

    def rotate(self, serves: int) -> None:
        """Other passwords: the application is on its other login."""
        before = named(self.workshop)["user"]
        self.make("rotate")
        assert named(self.workshop)["user"] != before
        self.serves_on(serves)

    def rest(self) -> None:
        """The load ends; nothing has failed until here."""
        result = self.load.stop()
        self.told(result.line())
        assert result.failures == []
        assert result.writes > MORE // 2
        self.acknowledged += result.writes
        self.requests += result.requests
        self.longest = max(self.longest, result.longest)

    def go_on(self) -> None:
        """Another load, into the same journal."""
        self.seed += 1
        self.load = load_on(self.url, self.journal, self.seed, self.patience)
        self.load.start()

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Another load that begins while nothing serves it, and has to be served at the end."""
        self.seed += 1
        self.load = load_on(self.url, self.journal, self.seed, self.patience)
        begun = threading.Thread(target=self.load.start, name="load", daemon=True)
        begun.start()
        yield
        begun.join()

    def on_postgres(self) -> Compared:
        """Every acknowledged write, looked for on the PostgreSQL that serves."""
        return compare_postgres(self.journal, dsn(named(self.workshop)))

    def on_sqlite(self) -> Compared:
        """The same in the SQLite file."""
        return compare_sqlite(self.journal, Path(str(self.workshop.settings["source"])))

    def came_home(self) -> bool:
        """Whether SQLite has each request that was acknowledged until now, while more come."""
        file = Path(str(self.workshop.settings["source"]))
        return compare_sqlite(self.journal, file, compare_requests).problems == []

    def on_postgres_beside(self, port: int) -> Compared:
        """The same in the database that was restored beside the stage."""
        side = {**named(self.workshop), "port": port}
        return compare_postgres(self.journal, dsn(side))

    def archived(self, before: Written, file: Path) -> Compared:
        """What was acknowledged ``before`` the way back was given up, in the archived file."""
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as archive:
            return compare_requests(before, lambda sql: archive.execute(sql).fetchall())

    def nothing_is_lost(self, found: Compared) -> None:
        """All that was acknowledged is there, once; said with its figures."""
        self.told(found.line())
        assert found.problems == []
        assert found.acknowledged == self.acknowledged > 0
        self.told(
            f"{self.acknowledged:,} writes acknowledged, none lost; none of {self.requests:,} "
            f"requests failed; longest wait {self.longest * 1000:,.0f} ms"
        )


@contextmanager
def workshop_of(directory: Path, settings: Mapping[str, object]) -> Iterator[Workshop]:
    """A copy of the project that has what `make` needs as well, with a stage that is not up yet."""
    require_pulumi()
    source = directory / "data" / "app.db"
    source.parent.mkdir()
    made = Workshop(
        directory,
        client_or_skip(),
        source=str(source),
        profile="none",
        strategy="blue-green",
    )
    made.set(**settings)
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, made.directory)
    (made.directory / "tests").symlink_to(ROOT / "tests")
    (made.directory / "tools" / "setup").write_text("#!/bin/sh\n")
    try:
        yield made
    finally:
        made.clear()


def load_on(url: str, journal: Path, seed: int, patience: float = DEADLINE_SECONDS) -> Load:
    """Eight writers and eight readers, who wait for longer than the application does."""
    load = Load(url, journal, rate=RATE, seed=seed)
    load.timeout += patience - DEADLINE_SECONDS
    return load


@contextmanager
def application_of(workshop: Workshop, patience: float = DEADLINE_SECONDS) -> Iterator[str]:
    """The example application on the stage's SQLite file, as its connection says; its address."""
    command = [sys.executable, "-m", "example_app", "--port", "0"]
    command += ["--sqlite", str(workshop.settings["source"])]
    command += ["--connection", str(workshop.connection), "--deadline", f"{patience:g}"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as application:
        assert application.stdout is not None
        try:
            yield f"http://{application.stdout.readline().split()[-1]}"
        finally:
            application.terminate()


@contextmanager
def life_of(
    workshop: Workshop, directory: Path, patience: float = DEADLINE_SECONDS
) -> Iterator[Life]:
    """The application on the stage's SQLite file, and eight writers and eight readers on it."""
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}", flush=True)
    made: Life | None = None
    try:
        with application_of(workshop, patience) as url:
            load = load_on(url, directory / "journal", seed, patience)
            load.start()
            made = Life(workshop, url, directory / "journal", seed, load, patience)
            yield made
    finally:
        # After the application: what still waits has its answer then.
        if made:
            made.load.stop()
