"""The bench: the data, one PostgreSQL for everybody, and a stopwatch."""

from __future__ import annotations

import os
import platform
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import apsw
import psycopg

from migration_job.demo.radcase import make_radcase
from migration_job.embedded import EmbeddedPostgres

MIB = 1 << 20

PEAK_SECONDS = 0.05
"""Between looks at a command's peak memory, which never goes down."""


@dataclass(frozen=True, slots=True)
class Timing:
    """A finished command: seconds by the clock, seconds of processor time, and the largest
    resident set of its own, in MiB."""

    seconds: float
    cpu: float
    peak: float
    output: str


class CommandFailed(Exception):
    """A peer, or this project, ended with an unexpected status; holds the end of its output."""


def run_timed(
    command: list[str], *, accept: tuple[int, ...] = (0,), env: Mapping[str, str] | None = None
) -> Timing:
    """Run a command to its end. Raises CommandFailed for another status than ``accept``'s."""
    with tempfile.TemporaryFile() as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
        )
        with _peak_of(process.pid) as peak:
            _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        text = output.read().decode(errors="replace")
    if process.returncode not in accept:
        tail = "\n".join(text.splitlines()[-20:])
        raise CommandFailed(f"{Path(command[0]).name} ended with {process.returncode}:\n{tail}")
    scale = 1024 if platform.system() == "Linux" else 1
    largest = max(peak, default=usage.ru_maxrss * scale) / MIB
    return Timing(seconds, usage.ru_utime + usage.ru_stime, largest, text)


def _peak_of(pid: int) -> AbstractContextManager[list[int]]:
    """The largest resident set of a process, in bytes, as its own pages make it: what the system
    reports at its end counts the pages of whoever started it as well. Empty without /proc."""
    file = Path(f"/proc/{pid}/status")
    return sampled(PEAK_SECONDS, lambda: kib_of(file, "VmHWM:"))


def kib_of(file: Path, field: str) -> int | None:
    """The bytes that a line of the kernel's says in KiB; None where it does not."""
    with suppress(OSError):
        for line in file.read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    return None


@contextmanager
def sampled(apart: float, look: Callable[[], int | None]) -> Iterator[list[int]]:
    """What ``look`` finds, so many seconds apart, while the block runs."""
    found: list[int] = []
    ended = threading.Event()

    def again() -> None:
        while not ended.wait(apart):
            value = look()
            if value is not None:
                found.append(value)

    watch = threading.Thread(target=again, daemon=True)
    watch.start()
    try:
        yield found
    finally:
        ended.set()
        watch.join()


@dataclass(slots=True)
class Lab:
    """What every measurement works with."""

    folder: Path
    """Where the generated SQLite files are kept between runs."""
    rows: int
    seed: int
    runs: int
    say: Callable[[str], None]
    server_settings: Mapping[str, str] = field(default_factory=dict)
    """Empty: PostgreSQL 14 as it is after initdb, durable, the same for everybody. What a loader
    sets for its own session is its own merit."""
    _server: EmbeddedPostgres | None = field(default=None)
    _given: tuple[str, str] | None = field(default=None)
    """DSN and name of the last database that :meth:`database` gave."""

    @property
    def server(self) -> EmbeddedPostgres:
        """The PostgreSQL that everybody loads, started at the first use."""
        if self._server is None:
            self._server = EmbeddedPostgres(settings=self.server_settings)
            self._server.start()
        return self._server

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    def database(self, name: str = "bench") -> str:
        """An empty database in a server with nothing left to write, and its DSN."""
        self.server.drop_database(name)
        self.settle()
        self._given = self.server.create_database(name), name
        return self._given[0]

    def settle(self) -> None:
        """Have what earlier work left behind done, so that nobody pays for another: rows vacuumed
        and analyzed, which autovacuum would begin with at any moment, and everything written."""
        with psycopg.connect(self.server.dsn, autocommit=True) as connection:
            if self._given is not None:
                dsn, name = self._given
                there = "SELECT 1 FROM pg_database WHERE datname = %s"
                if connection.execute(there, (name,)).fetchone() is not None:
                    with psycopg.connect(dsn, autocommit=True) as last:
                        last.execute("VACUUM (ANALYZE)")
            connection.execute("CHECKPOINT")

    def radcase(self, rows: int | None = None) -> Path:
        """The RadCase-like file of ``rows`` rows, made where it is not there yet."""
        rows = rows or self.rows
        path = self.folder / f"radcase-{rows}-{self.seed}.db"
        return self.made(path, lambda partial: _radcase(partial, rows, self.seed))

    def made(self, path: Path, make: Callable[[Path], None]) -> Path:
        """A generated file: kept, and made under another name first, so that half is none."""
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            self.say(f"making {path.name}")
            partial = path.with_suffix(".partial")
            for old in (partial, partial.with_name(partial.name + "-wal")):
                old.unlink(missing_ok=True)
            make(partial)
            partial.replace(path)
        return path


def _radcase(path: Path, rows: int, seed: int) -> None:
    make_radcase(path, rows=rows, seed=seed)
    checkpoint(path)


def checkpoint(path: Path) -> None:
    """Have everything in the file itself, with no log beside it."""
    connection = apsw.Connection(os.fspath(path))
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()


def tables_of(path: Path) -> dict[str, int]:
    """The file's ordinary tables and their rows."""
    connection = apsw.Connection(os.fspath(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        names = [
            str(name)
            for (name,) in connection.execute(
                "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
            )
        ]
        return {n: _count(connection, n) for n in names}
    finally:
        connection.close()


def _count(connection: apsw.Connection, table: str) -> int:
    ((count,),) = connection.execute(f'SELECT count(*) FROM "{table}"').fetchall()
    return int(str(count))


def rows_arrived(dsn: str) -> int:
    """The rows in the public schema of a target."""
    with psycopg.connect(dsn) as connection:
        names = connection.execute(
            "SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = 'public'"
        ).fetchall()
        total = 0
        for (name,) in names:
            row = connection.execute(f"SELECT count(*) FROM {name}".encode()).fetchone()
            total += row[0] if row else 0
        return total


def processor_seconds(server: int) -> float:
    """Processor time used so far by this process, its ended children, and the server (its first
    process's id) with its sessions, ended or not. 0 where there is no /proc."""
    ours = os.times()
    total = ours.user + ours.system + ours.children_user + ours.children_system
    proc = Path("/proc")
    if not (proc / "self" / "stat").exists():
        return 0.0
    tick = os.sysconf("SC_CLK_TCK")
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue  # it ended meanwhile, and is in its parent's sum
        if int(entry.name) == server:
            total += sum(map(int, fields[11:15])) / tick
        elif int(fields[1]) == server:
            total += sum(map(int, fields[11:13])) / tick
    return total


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    model = platform.processor() or platform.machine()
    memory = 0
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // (1 << 30)
    return {
        "processor": f"{model}, {os.cpu_count()} cores",
        "memory": f"{memory} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "SQLite": apsw.sqlite_lib_version(),
    }
