"""Restores a stage's newest backup into a throw-away server, on time, and compares what it holds.

Runs in a container of PostgreSQL's image that has the repository and PostgreSQL's socket, and not
its data. What the restored server has to hold is read from the running one while the application
writes: a temporary logical slot gives a snapshot and the place in the log where it was taken. The
restored server stops at that very place, so that both hold the same rows, to the last commit.
Standard library only: the image holds PostgreSQL and pgBackRest and no Python packages.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from beside_postgres import STANZA, backups, gauges, say, serve

HOME = Path("/var/lib/drill")
DATA, LOG = HOME / "data", HOME / "server.log"
RECORD, REQUEST = HOME / "record.json", HOME / "request"
LIVE = "/var/run/postgresql"
OWN = "/tmp/drill"  # noqa: S108 - the container's own
CONFIG = "/etc/pgbackrest"
RETRY_SECONDS = 3600
"""A drill reads the whole database: after a failure it waits this long."""
POLL_SECONDS = 1.0
BACKUP_POLL_SECONDS = 10
SNAPSHOT_SECONDS = 900
"""The slot waits for every transaction that was open before it."""
ARCHIVED_SECONDS = 600
SPARE = 1.25
"""The copy, and the log that is replayed into it, in terms of the database's size."""
CHUNK_BLOCKS = 16384
"""A statement reads this much of a table: whoever wants to alter it waits for no more."""

SAME_TEXT = (
    "-c datestyle=ISO,YMD -c intervalstyle=postgres -c timezone=UTC -c extra_float_digits=3 "
    "-c bytea_output=hex -c lc_monetary=C -c search_path=pg_catalog -c row_security=off "
    "-c statement_timeout=0 -c idle_in_transaction_session_timeout=0 -c jit=off "
    f"-c lock_timeout={SNAPSHOT_SECONDS}s"
)
"""The text of a row is the same on both servers, whatever is set for the role or the database."""

SLOT = """\
BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ;
CREATE_REPLICATION_SLOT "drill_{token}" TEMPORARY LOGICAL pgoutput USE_SNAPSHOT;
"""
OWN_SNAPSHOT = "BEGIN READ ONLY ISOLATION LEVEL REPEATABLE READ;\n"
# A savepoint that is rolled back releases the table's lock; the snapshot stays.
ROWS = """\
SELECT 'SAVEPOINT one', format(
    'SELECT json_build_array(%L, pg_relation_filenode(%s), count(*), '
    'coalesce(sum(hashtextextended(ROW(r.*)::text, 0)::numeric), 0)::text) '
    'FROM ONLY %I.%I AS r WHERE ctid >= ''(%s,0)'' AND ctid < ''(%s,0)''',
    format('%I.%I', n.nspname, c.relname), c.oid, n.nspname, c.relname,
    chunk * {blocks}, (chunk + 1) * {blocks}), 'ROLLBACK TO one', 'RELEASE one'
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 CROSS JOIN LATERAL generate_series(0, pg_relation_size(c.oid)
       / current_setting('block_size')::bigint / {blocks}) AS chunk
 WHERE c.relkind IN ('r', 'm') AND c.relpersistence = 'p' AND c.relispopulated
   AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_'
 ORDER BY n.nspname, c.relname, chunk \\gexec
COMMIT;
"""


class DrillError(Exception):
    """Why a drill has failed, for the record."""


@dataclass
class Table:
    """A table's rows: its file, how many, and the sum of their digests."""

    file: int
    rows: int = 0
    digest: int = 0


@dataclass
class Result:
    """How one drill went. Times are Unix seconds."""

    started: float = 0
    seconds: float = 0
    failure: str = ""
    backup: str = ""
    """pgBackRest's label of the backup that was restored."""
    moment: float = 0
    """Everything that was committed before is in what was restored."""
    tables: int = 0
    rows: int = 0
    compared: bool = False
    """Whether the rows were compared; an older stage's log has no place for a snapshot."""
    rewritten: list[str] = field(default_factory=list)
    """Tables that were emptied or rewritten meanwhile: their rows could not be compared."""


@dataclass
class Record:
    """What a drill leaves for the metrics, for `make drill` and for the next start."""

    last_success: float = 0
    doing: str = ""
    answered: str = ""
    """The request that the last drill was asked for by."""
    last: Result | None = None

    @classmethod
    def read(cls) -> Record:
        try:
            said = json.loads(RECORD.read_text())
            last = said.pop("last")
            return cls(**said, last=Result(**last) if last else None)
        except (OSError, ValueError, TypeError, KeyError):
            return cls()

    def write(self) -> None:
        aside = RECORD.with_suffix(".new")
        aside.write_text(json.dumps(asdict(self)))
        aside.replace(RECORD)

    def page(self) -> str:
        lines: list[tuple[str, str, float]] = []
        if self.last_success:
            help_text = "start of the last drill that succeeded"
            lines.append(("drill_last_success_timestamp_seconds", help_text, self.last_success))
        if self.last:
            lines += [
                ("drill_last_success", "1 if the last drill succeeded", int(not self.last.failure)),
                ("drill_duration_seconds", "how long the last drill took", self.last.seconds),
                ("drill_tables", "tables that the last drill read", self.last.tables),
                ("drill_rows", "rows that the last drill read", self.last.rows),
            ]
        return gauges(lines)


# --------------------------------------------------------------------------------- programs


def run(*words: str, failure: str, script: str | None = None) -> str:
    """What a program printed; DrillError with its last words where it fails."""
    ended = subprocess.run(  # noqa: S603
        ["/usr/bin/env", *words], input=script, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        raise DrillError(f"{failure}: {(ended.stderr or ended.stdout).strip()[-600:]}")
    return ended.stdout


def psql(host: str, database: str, script: str, *, failure: str, more: str = "") -> list[str]:
    """The lines that a psql script prints."""
    return run(
        f"PGOPTIONS={SAME_TEXT}",
        *("psql", "--no-psqlrc", "-qAt", "-v", "ON_ERROR_STOP=1", "-h", host),
        *("-d", f"dbname='{database}' user=postgres {more}", "-f", "-"),
        failure=failure,
        script=script,
    ).splitlines()


def newest_backup() -> dict[str, Any]:
    """What pgBackRest says of the newest backup; nothing where there is none."""
    found = backups()
    return dict(found[-1]) if found else {}


# ------------------------------------------------------------------------------------ a drill


@dataclass(frozen=True)
class Wanted:
    """What the restored server has to hold: the place in the log, and the rows at it."""

    place: str
    tables: dict[str, Table]
    """Empty where the rows at that place cannot be told."""
    segment: str
    """The log's file without which the restored server would not come so far."""


def tables(lines: list[str]) -> dict[str, Table]:
    """The tables by name, from a line for each part of one."""
    found: dict[str, Table] = {}
    for line in lines:
        name, file, rows, digest = json.loads(line)
        table = found.setdefault(name, Table(int(file)))
        table.rows += int(rows)
        table.digest += int(digest)
        if table.file != int(file):
            table.file = 0  # rewritten between two parts of it
    return found


def read_live(database: str) -> Wanted:
    """A place in the running server's log and its rows at that place; the log is archived past
    it."""
    script = ROWS.format(blocks=CHUNK_BLOCKS)
    failure = "the running database could not be read"
    (level,) = psql(LIVE, database, "SHOW wal_level;", failure=failure)
    if level == "logical":
        begin = SLOT.format(token=f"{time.time_ns():x}")
        slot, *lines = psql(
            LIVE, database, begin + script, failure=failure, more="replication=database"
        )
        place, held = slot.split("|")[1], tables(lines)
    else:
        (place,) = psql(LIVE, database, "SELECT pg_current_wal_insert_lsn();", failure=failure)
        held = {}
    # A record behind that place, for the restored server to stop before.
    marked = "SELECT pg_walfile_name(pg_create_restore_point('drill'));\nSELECT pg_switch_wal();"
    segment, _ = psql(LIVE, database, marked, failure=failure)
    return Wanted(place, held, segment)


def require_room(backup: dict[str, Any]) -> None:
    """DrillError where the copy might fill the disk that PostgreSQL may be on, too."""
    needed = int(int(backup["info"]["size"]) * SPARE)
    free = shutil.disk_usage(HOME).free
    if free < needed:
        raise DrillError(f"expected {needed >> 20} MiB free for the copy, found {free >> 20} MiB")


def restore(wanted: Wanted) -> None:
    """The newest backup in :data:`DATA`, to be followed by the log up to the place."""
    DATA.mkdir(mode=0o700)
    exclusive = ["--target-exclusive"] if wanted.tables else []
    run(
        *("pgbackrest", f"--stanza={STANZA}", "--log-level-console=off"),
        *("--log-level-stderr=error", "--type=lsn", f"--target={wanted.place}", *exclusive),
        *("--target-action=promote", "restore"),
        failure="pgBackRest could not restore",
    )
    deadline = time.monotonic() + ARCHIVED_SECONDS
    probe = ["/usr/bin/pgbackrest", f"--stanza={STANZA}", "archive-get", wanted.segment]
    while subprocess.run(  # noqa: S603
        [*probe, str(HOME / "segment")], capture_output=True, check=False
    ).returncode:
        if time.monotonic() > deadline:
            raise DrillError(
                f"the log's {wanted.segment} was not in the repository after {ARCHIVED_SECONDS} s"
            )
        time.sleep(POLL_SECONDS)
    (HOME / "segment").unlink(missing_ok=True)


@contextmanager
def server() -> Iterator[None]:
    """The restored server, for this process alone; at its end it is stopped cleanly."""
    Path(OWN).mkdir(mode=0o700, exist_ok=True)
    settings = {
        "config_file": f"{CONFIG}/server.conf",
        "hba_file": f"{CONFIG}/server_hba.conf",
        "listen_addresses": "",
        "unix_socket_directories": OWN,
        # It must not write into the archive of the database that it is a copy of.
        "archive_mode": "off",
        "hot_standby": "off",
        "ssl": "off",
        "fsync": "off",
        "shared_buffers": "64MB",
        "work_mem": "4MB",
        "maintenance_work_mem": "64MB",
        "max_parallel_workers_per_gather": "0",
        "autovacuum": "off",
    }
    words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    with LOG.open("w") as log:
        process = subprocess.Popen(  # noqa: S603
            ["/usr/bin/env", "postgres", "-D", str(DATA), *words], stdout=log, stderr=log
        )
    try:
        while subprocess.run(  # noqa: S603
            ["/usr/bin/env", "pg_isready", "-q", "-h", OWN], check=False
        ).returncode:
            if process.poll() is not None:
                said = LOG.read_text(errors="replace").strip()[-600:]
                raise DrillError(f"the restored server did not come up: {said}")
            time.sleep(POLL_SECONDS / 4)
        yield
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def compare(wanted: Wanted, found: dict[str, Table]) -> list[str]:
    """The tables whose rows cannot be compared; DrillError naming those that differ."""
    rewritten, wrong = [], []
    for name in sorted(wanted.tables.keys() | found.keys()):
        one, other = wanted.tables.get(name), found.get(name)
        if one is None or other is None:
            wrong.append(f"{name} is {'not in the backup' if one else 'in the backup alone'}")
        elif one.file != other.file:
            rewritten.append(name)
        elif one != other:
            wrong.append(f"{name} (rows: {other.rows} for {one.rows})")
    if wrong:
        raise DrillError("the restored rows differ: " + ", ".join(wrong)[:600])
    return rewritten


def look(database: str, wanted: Wanted, result: Result) -> None:
    """All that can be asked of the restored server."""
    script = OWN_SNAPSHOT + ROWS.format(blocks=CHUNK_BLOCKS)
    found = tables(psql(OWN, database, script, failure="a table could not be read"))
    result.tables, result.rows = len(found), sum(one.rows for one in found.values())
    if wanted.tables:
        result.rewritten = compare(wanted, found)
        result.compared = True
    else:
        reached = f"SELECT pg_last_wal_replay_lsn() >= '{wanted.place}';"
        if psql(OWN, database, reached, failure="the log's end could not be told") != ["t"]:
            raise DrillError(f"the restored server did not come to {wanted.place} in the log")
    run(
        *("pg_amcheck", "-h", OWN, "-U", "postgres", "--all", "--install-missing"),
        *("--heapallindexed", "--parent-check"),
        failure="pg_amcheck found damage",
    )


def drill(database: str, record: Record) -> Result:
    """One drill, from the running server's rows to the checksums of the stopped copy."""
    result = Result(started=time.time(), moment=time.time())

    def at(what: str) -> None:
        record.doing = what
        record.write()
        say(what)

    try:
        clear()
        backup = newest_backup()
        if not backup:
            raise DrillError("expected a backup in the repository, found none")
        result.backup = str(backup["label"])
        require_room(backup)
        at("reading what the running database holds")
        wanted = read_live(database)
        at(f"restoring the backup {result.backup}")
        restore(wanted)
        at("replaying the log")
        with server():
            at("comparing its rows and checking its indexes")
            look(database, wanted, result)
        at("checking its pages' checksums")
        run("pg_checksums", "--check", "-D", str(DATA), failure="pg_checksums found damage")
    except DrillError as error:
        result.failure = str(error)
    finally:
        clear()
    result.seconds = time.time() - result.started
    return result


def clear() -> None:
    """Nothing of a copy is left."""
    shutil.rmtree(DATA, ignore_errors=True)
    (HOME / "segment").unlink(missing_ok=True)


# --------------------------------------------------------------------------------- on time


def due(record: Record, now: float, hours: float) -> bool:
    """Whether a drill is due; after one that failed another is tried sooner."""
    last = record.last
    if last is None:
        return True
    after = RETRY_SECONDS if last.failure else hours * 3600
    return now - last.started >= min(after, hours * 3600)


def requested() -> str:
    """The request that `make drill` has left, '' where there is none."""
    try:
        return REQUEST.read_text().strip()
    except OSError:
        return ""


def turn(database: str, record: Record, request: str) -> None:
    """A drill, and what it leaves in the record."""
    result = drill(database, record)
    record.last, record.doing = result, ""
    record.answered = request or record.answered
    if not result.failure:
        record.last_success = result.started
    record.write()
    read = f"{result.tables} tables, {result.rows} rows"
    say(f"the drill failed: {result.failure}" if result.failure else f"the drill passed: {read}")


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--hours", type=float, required=True)
    words.add_argument("--database", required=True)
    words.add_argument("--port", type=int, required=True)
    chosen = words.parse_args()
    # The container's first process: without a handler it would not end until it is killed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    clear()
    record = Record.read()
    record.doing = ""
    record.write()
    serve(chosen.port, lambda: Record.read().page())
    looked = 0.0
    while True:
        request = requested()
        if request and request != record.answered:
            turn(chosen.database, record, request)
        elif due(record, time.time(), chosen.hours) and time.time() - looked > BACKUP_POLL_SECONDS:
            looked = time.time()
            if newest_backup():
                turn(chosen.database, record, "")
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    main()
