"""What the way back costs the application on PostgreSQL: this project's triggers and queue, beside
a logical replication slot that is read by SQL, as ``upgrade`` reads one.

``python -m benchmarks --only back`` puts the figures on the page.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import apsw
import psycopg

from benchmarks.lab import Lab, run_timed
from benchmarks.pooler import transactions_per_second
from benchmarks.project import ENVIRONMENT, without_pooler
from benchmarks.results import Row, Sample, Section
from migration_job.embedded import EmbeddedPostgres
from migration_job.protocol.settings import Endpoints
from migration_job.protocol.settle import settle
from migration_job.protocol.switch import switch

ACCOUNTS = 100_000
CLIENTS = 8
SECONDS = 10
WARM_SECONDS = 3
READ_EVERY = 0.2
"""Seconds between two looks into the slot; about what ``sync`` waits between its rounds."""

SCHEMA = """
CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER NOT NULL, filler TEXT NOT NULL);
CREATE TABLE history (id INTEGER PRIMARY KEY, account INTEGER NOT NULL REFERENCES account (id),
                      delta INTEGER NOT NULL, said TEXT NOT NULL);
"""
FILL = """
WITH RECURSIVE n(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM n WHERE n < ?)
INSERT INTO account SELECT n, 0, printf('%.80c', 'x') FROM n
"""
SCRIPT = f"""
\\set account random(1, {ACCOUNTS})
\\set delta random(-5000, 5000)
BEGIN;
UPDATE account SET balance = balance + :delta WHERE id = :account;
INSERT INTO history (account, delta, said) VALUES (:account, :delta, 'an entry of the application');
END;
"""

SLOT = "bench_back"


@dataclass(frozen=True, slots=True)
class _Bench:
    """One database that was switched to, and how it is written to."""

    folder: Path
    source: Path
    dsn: str
    pgbench: str
    ends: Endpoints

    def rate(self, beside: Callable[[], AbstractContextManager[object]]) -> float:
        """Transactions per second while ``beside`` runs, after the caches are warm."""
        with psycopg.connect(self.dsn, autocommit=True) as session:
            session.execute("VACUUM (ANALYZE)")
            session.execute("CHECKPOINT")
        with beside():
            self._run(WARM_SECONDS)
            return self._run(SECONDS)

    def _run(self, seconds: int) -> float:
        script = self.folder / "script.sql"
        script.write_text(SCRIPT)
        options = ["-f", os.fspath(script)]
        return transactions_per_second(
            self.pgbench, self.dsn, options, clients=CLIENTS, seconds=seconds
        )

    @contextmanager
    def sync(self) -> Iterator[None]:
        """The way back as it is: ``sync`` brings every row home meanwhile."""
        command = [sys.executable, "-m", "migration_job", "sync", os.fspath(self.source)]
        command += ["--target", self.dsn, "--report", os.fspath(self.folder / "report")]
        command += ["--state", os.fspath(self.ends.state)]
        command += ["--connection", os.fspath(self.folder / "connection")]
        command += ["--connect-to", os.fspath(self.folder / "application.json")]
        with subprocess.Popen(
            command,
            env={**os.environ, **ENVIRONMENT},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                yield
            finally:
                process.terminate()

    @contextmanager
    def slot(self) -> Iterator[None]:
        """A slot of the job's own, read by SQL and thrown away: what reading alone costs."""
        ended = threading.Event()
        with psycopg.connect(self.dsn, autocommit=True) as session:
            session.execute(f"CREATE PUBLICATION {SLOT} FOR ALL TABLES")
            session.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (SLOT,))
            reader = threading.Thread(target=self._read, args=(ended,), daemon=True)
            reader.start()
            try:
                yield
            finally:
                ended.set()
                reader.join()
                session.execute("SELECT pg_drop_replication_slot(%s)", (SLOT,))
                session.execute(f"DROP PUBLICATION {SLOT}")

    def _read(self, ended: threading.Event) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as session:
            while not ended.wait(READ_EVERY):
                session.execute(
                    "SELECT data FROM pg_logical_slot_get_binary_changes(%s, NULL, NULL, "
                    "'proto_version', '1', 'publication_names', %s)",
                    (SLOT, SLOT),
                    binary=True,
                ).fetchall()


def measure(lab: Lab) -> Section:
    """Transactions per second with each way to log what changes, in turns, and with none."""
    ways: dict[str, list[float]] = {"none": [], "triggers": [], "sync": [], "slot": []}
    with EmbeddedPostgres(settings={"wal_level": "logical"}) as server:
        for _ in range(lab.runs):
            with _switched(lab, server) as bench:
                ways["triggers"].append(bench.rate(nullcontext))
                ways["sync"].append(bench.rate(bench.sync))
                settle(bench.ends, bench.folder / "report", window=timedelta(0), force=True)
                ways["none"].append(bench.rate(nullcontext))
                ways["slot"].append(bench.rate(bench.slot))
    without = Sample(label="nothing logged", values=tuple(ways["none"]), unit="tx/s")
    rows = [
        Row(
            what=what,
            against="the same without a way back",
            value=sample.median / without.median,
            samples=(sample, without),
        )
        for what, sample in (
            ("triggers and queue alone", _sample("logged", ways["triggers"])),
            ("the same, and `sync` brings each row home", _sample("brought home", ways["sync"])),
            ("a logical slot, read by SQL and thrown away", _sample("read", ways["slot"])),
        )
    ]
    return Section(
        key="back",
        title="What the way back costs on PostgreSQL",
        rows=tuple(rows),
        text=f"pgbench, {CLIENTS} clients, an update by key and an insert in each transaction, "
        f"{ACCOUNTS:,} rows, {SECONDS} s after {WARM_SECONDS} s of warming, `wal_level = logical` "
        "for all of them, on the same cores as whoever reads the changes. The slot's row has no "
        "application of the changes to SQLite in it, the row of `sync` has.",
    )


def _sample(label: str, values: list[float]) -> Sample:
    return Sample(label=label, values=tuple(values), unit="tx/s")


@contextmanager
def _switched(lab: Lab, server: EmbeddedPostgres) -> Iterator[_Bench]:
    with tempfile.TemporaryDirectory(dir=lab.folder, prefix="back-") as name:
        folder = Path(name)
        source = folder / "source.db"
        with closing(apsw.Connection(os.fspath(source))) as connection:
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
            connection.execute(SCHEMA)
            connection.execute(FILL, (ACCOUNTS,))
        server.drop_database("back")
        dsn = server.create_database("back")
        command = [sys.executable, "-m", "migration_job", "migrate", os.fspath(source)]
        command += ["--target", dsn, "--report", os.fspath(folder / "report"), "--live"]
        command += ["--state", os.fspath(folder / "connection" / ".state")]
        run_timed(command, env=ENVIRONMENT)
        ends = without_pooler(source, dsn, folder)
        switch(ends, budget=10.0, compare=False)
        yield _Bench(folder, source, dsn, os.fspath(server.program("pgbench")), ends)
