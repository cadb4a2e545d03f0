"""Ways of taking rows from SQLite to PostgreSQL and of reading them back, tried one by one.

Two of RadCase's tables, without keys or indexes, into the same server. Each way is a function from
an open bench to nothing; what it costs is measured around it. docs/decisions says what followed.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import multiprocessing
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import apsw
import psycopg

from benchmarks.lab import Lab, processor_seconds
from benchmarks.results import Row, Sample, Section
from migration_job.embedded import EmbeddedPostgres

BLOCK_ROWS = 5_000
PAGES = 128
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)

TABLES: dict[str, tuple[tuple[str, str], ...]] = {
    "quiz_attempts": (
        ("id", "integer"),
        ("case_id", "text"),
        ("correct", "integer"),
        ("time_spent_ms", "integer"),
        ("attempted_at", "timestamptz"),
        ("user_id", "text"),
        ("session_id", "text"),
        ("answer_index", "integer"),
        ("correct_index", "integer"),
        ("xp_earned", "integer"),
    ),
    "xp_transactions": (
        ("id", "integer"),
        ("user_id", "text"),
        ("amount", "integer"),
        ("reason", "text"),
        ("session_id", "text"),
        ("case_id", "text"),
        ("created_at", "timestamptz"),
    ),
}


@dataclass(frozen=True, slots=True)
class Bench:
    source: Path
    server: int
    dsn: str

    def reader(self) -> apsw.Connection:
        return apsw.Connection(os.fspath(self.source), flags=apsw.SQLITE_OPEN_READONLY)

    def writer(self) -> psycopg.Connection:
        connection = psycopg.connect(self.dsn, autocommit=True)
        connection.execute("SET TimeZone TO 'UTC'")
        return connection

    def create(self, *, unlogged: bool = False) -> None:
        with self.writer() as target:
            for table in TABLES:
                target.execute(f"DROP TABLE IF EXISTS {table}".encode())
                target.execute(table_sql(table, unlogged=unlogged).encode())


def table_sql(table: str, *, unlogged: bool = False) -> str:
    columns = ", ".join(f"{name} {kind}" for name, kind in TABLES[table])
    return f"CREATE {'UNLOGGED ' if unlogged else ''}TABLE {table} ({columns})"


# ------------------------------------------------------------------ text, assembled in SQLite


def escaped(column: str) -> str:
    return (
        f"replace(replace(replace(replace({column}, '\\', '\\\\'), char(9), '\\t'), "
        "char(10), '\\n'), char(13), '\\r')"
    )


def fields(table: str, *, escape: bool) -> list[str]:
    return [
        f"ifnull({escaped(name) if escape and kind == 'text' else name}, '\\N')"
        for name, kind in TABLES[table]
    ]


def ranges(reader: apsw.Connection, table: str) -> Iterator[tuple[int, int]]:
    found = reader.execute(f"SELECT min(rowid), max(rowid) FROM {table}").fetchall()[0]
    low, high = (int(str(value)) for value in found)
    for start in range(low, high + 1, BLOCK_ROWS):
        yield start, start + BLOCK_ROWS - 1


def blocks(reader: apsw.Connection, table: str, line: str) -> Iterator[bytes]:
    query = (
        f"SELECT CAST(group_concat({line}, char(10)) || char(10) AS BLOB) FROM {table} "
        "WHERE rowid BETWEEN ? AND ?"
    )
    for bounds in ranges(reader, table):
        (data,) = reader.execute(query, bounds).fetchall()[0]
        if isinstance(data, bytes):
            yield bytes(data)


def by_pipes(bench: Bench, table: str) -> None:
    send(bench, table, " || char(9) || ".join(fields(table, escape=True)))


def by_concat(bench: Bench, table: str) -> None:
    send(bench, table, f"concat_ws(char(9), {', '.join(fields(table, escape=True))})")


def by_concat_raw(bench: Bench, table: str) -> None:
    send(bench, table, f"concat_ws(char(9), {', '.join(fields(table, escape=False))})")


def send(bench: Bench, table: str, line: str, *, freeze: bool = False) -> None:
    reader = bench.reader()
    with bench.writer() as target, target.transaction():
        if freeze:
            target.execute(f"DROP TABLE {table}".encode())
            target.execute(table_sql(table).encode())
        options = " WITH (FREEZE)" if freeze else ""
        with target.cursor().copy(f"COPY {table} FROM STDIN{options}".encode()) as copy:
            for data in blocks(reader, table, line):
                copy.write(data)
    reader.close()


def frozen(bench: Bench, table: str) -> None:
    line = f"concat_ws(char(9), {', '.join(fields(table, escape=True))})"
    send(bench, table, line, freeze=True)


def one_row_a_step(bench: Bench, table: str) -> None:
    reader = bench.reader()
    line = f"concat_ws(char(9), {', '.join(fields(table, escape=True))}) || char(10)"
    with bench.writer() as target, target.cursor().copy(f"COPY {table} FROM STDIN".encode()) as c:
        lines: list[str] = []
        for (text,) in reader.execute(f"SELECT {line} FROM {table}"):
            lines.append(text)
            if len(lines) == BLOCK_ROWS:
                c.write("".join(lines))
                lines.clear()
        c.write("".join(lines))
    reader.close()


# ------------------------------------------------------------------------------ rows in Python


def by_write_row(bench: Bench, table: str) -> None:
    reader = bench.reader()
    with bench.writer() as target, target.cursor().copy(f"COPY {table} FROM STDIN".encode()) as c:
        for row in reader.execute(f"SELECT * FROM {table}"):
            c.write_row(row)
    reader.close()


SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)


def by_struct(bench: Bench, table: str) -> None:
    """Binary COPY, each row packed in Python."""
    kinds = [kind for _, kind in TABLES[table]]
    head = struct.pack(">h", len(kinds))
    reader = bench.reader()
    statement = f"COPY {table} FROM STDIN WITH (FORMAT binary)".encode()
    with bench.writer() as target, target.cursor().copy(statement) as copy:
        copy.write(SIGNATURE)
        parts: list[bytes] = []
        for row in reader.execute(f"SELECT * FROM {table}"):
            parts.append(head)
            parts.extend(map(packed, kinds, row))
            if len(parts) > BLOCK_ROWS * 8:
                copy.write(b"".join(parts))
                parts.clear()
        copy.write(b"".join(parts) + b"\xff\xff")
    reader.close()


def packed(kind: str, value: int | str | None) -> bytes:
    if value is None:
        return b"\xff\xff\xff\xff"
    if kind == "integer":
        return struct.pack(">ii", 4, value)
    if kind == "timestamptz":
        moment = datetime.fromisoformat(f"{value}+00:00") - EPOCH
        return struct.pack(">iq", 8, (moment.days * 86_400 + moment.seconds) * 1_000_000)
    data = str(value).encode()
    return struct.pack(">i", len(data)) + data


def by_unhex(bench: Bench, table: str) -> None:
    """Binary COPY, assembled in SQLite: each field's length and number by way of hex digits."""
    parts = [f"unhex('{len(TABLES[table]):04x}')"]
    for name, kind in TABLES[table]:
        if kind == "integer":
            value = f"unhex(format('00000004%08x', {name} & 4294967295))"
        elif kind == "timestamptz":
            micros = f"(unixepoch({name}) - 946684800) * 1000000"
            value = f"unhex(format('00000008%016x', {micros}))"
        else:
            value = f"unhex(format('%08x', octet_length({name}))) || {name}"
        parts.append(f"CASE WHEN {name} IS NULL THEN x'ffffffff' ELSE {value} END")
    query = (
        f"SELECT CAST(group_concat({' || '.join(parts)}, '') AS BLOB) FROM {table} "
        "WHERE rowid BETWEEN ? AND ?"
    )
    reader = bench.reader()
    statement = f"COPY {table} FROM STDIN WITH (FORMAT binary)".encode()
    with bench.writer() as target, target.cursor().copy(statement) as copy:
        copy.write(SIGNATURE)
        for bounds in ranges(reader, table):
            (data,) = reader.execute(query, bounds).fetchall()[0]
            copy.write(data if isinstance(data, bytes) else b"")
        copy.write(b"\xff\xff")
    reader.close()


def by_arrow(bench: Bench, table: str) -> None:
    """ADBC: SQLite's driver reads Arrow batches, PostgreSQL's ingests them by binary COPY. Times
    must be cast to be taken, so they arrive as text here, which is less work than the others'."""
    postgresql = importlib.import_module("adbc_driver_postgresql.dbapi")
    sqlite = importlib.import_module("adbc_driver_sqlite.dbapi")

    names = ", ".join(name for name, _ in TABLES[table])
    with (
        sqlite.connect(os.fspath(bench.source)) as source,
        postgresql.connect(bench.dsn) as target,
        source.cursor() as reader,
        target.cursor() as writer,
    ):
        reader.execute(f"SELECT {names} FROM {table}")
        writer.adbc_ingest(f"{table}_arrow", reader.fetch_record_batch(), mode="replace")
        target.commit()


# ----------------------------------------------------------------------------------- together


def each(way: Callable[[Bench, str], None]) -> Callable[[Bench], None]:
    """One table after another."""

    def run(bench: Bench) -> None:
        for table in TABLES:
            way(bench, table)

    return run


def in_threads(way: Callable[[Bench, str], None]) -> Callable[[Bench], None]:
    def run(bench: Bench) -> None:
        threads = [threading.Thread(target=way, args=(bench, table)) for table in TABLES]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return run


def in_processes(way: Callable[[Bench, str], None]) -> Callable[[Bench], None]:
    def run(bench: Bench) -> None:
        context = multiprocessing.get_context("spawn")
        workers = [context.Process(target=way, args=(bench, table)) for table in TABLES]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
            if worker.exitcode != 0:
                raise RuntimeError(f"a loading process ended with {worker.exitcode}")

    return run


def unlogged(bench: Bench) -> None:
    bench.create(unlogged=True)
    each(by_concat)(bench)
    with bench.writer() as target:
        for table in TABLES:
            target.execute(f"ALTER TABLE {table} SET LOGGED".encode())


FROZEN = "`concat_ws`, created in the same transaction, FREEZE"
ARROW = "Arrow through ADBC"

LOADS: dict[str, Callable[[Bench], None]] = {
    "rows through `copy.write_row`": each(by_write_row),
    "the same, two processes": in_processes(by_write_row),
    "text: one line a step from SQLite": each(one_row_a_step),
    "text in SQLite, `||`": each(by_pipes),
    "text in SQLite, `concat_ws`": each(by_concat),
    "the same, two threads": in_threads(by_concat),
    "the same without escapes (a bound, not a way: it would be wrong)": each(by_concat_raw),
    "binary, packed in Python": each(by_struct),
    "binary, assembled in SQLite": each(by_unhex),
    "`concat_ws`, UNLOGGED, then SET LOGGED": unlogged,
    FROZEN: each(frozen),
}


# -------------------------------------------------------------------------------- reading back


def rows_of_copy(bench: Bench) -> None:
    """COPY TO STDOUT, one message a row, hashed as it comes."""
    with bench.writer() as target:
        for table in TABLES:
            digest = hashlib.sha256()
            with target.cursor().copy(f"COPY {table} TO STDOUT".encode()) as copy:
                for data in copy:
                    digest.update(data)


def by_pages(expression: str) -> Callable[[Bench], None]:
    """One aggregate for each range of pages, in physical order."""

    def run(bench: Bench) -> None:
        with bench.writer() as target:
            for table, columns in TABLES.items():
                row = ", ".join(f"coalesce({name}::text, '\\N')" for name, _ in columns)
                text = expression.format(row=f"concat_ws(E'\\t', {row})")
                found = target.execute(
                    f"SELECT pg_relation_size('{table}') / 8192".encode()
                ).fetchone()
                for page in range(0, found[0] if found else 0, PAGES):
                    bounds = f"ctid >= '({page},0)' AND ctid < '({page + PAGES},0)'"
                    target.execute(f"SELECT {text} FROM {table} WHERE {bounds}".encode())

    return run


def hashed_rows(bench: Bench) -> None:
    """A sum of the rows' hashes, in no order, on the server."""
    with bench.writer() as target:
        for table in TABLES:
            target.execute(f"SELECT sum(hashtextextended({table}::text, 0)) FROM {table}".encode())


READS: dict[str, Callable[[Bench], None]] = {
    "COPY TO STDOUT, row by row": rows_of_copy,
    "text of 128 pages at a time, hashed by the client": by_pages("string_agg({row}, E'\\n')"),
    "SHA-256 of 128 pages at a time on the server": by_pages(
        "sha256(convert_to(string_agg({row}, E'\\n'), 'UTF8'))"
    ),
    "sum of the rows' 64-bit hashes on the server": hashed_rows,
}


# ------------------------------------------------------------------------------------ measuring


def measure(lab: Lab) -> Section:
    """Every way, ``lab.runs`` times, in turns."""
    source = lab.radcase()
    bench = Bench(source, lab.server.pid, lab.database("ways"))
    loads = dict(LOADS)
    if importlib.util.find_spec("adbc_driver_postgresql"):
        loads[ARROW] = each(by_arrow)
    found: dict[str, list[tuple[float, float]]] = {}
    for _ in range(lab.runs):
        for title, way in loads.items():
            bench.create()
            lab.settle()
            found.setdefault(title, []).append(clocked(way, bench))
        bench.create()
        each(by_concat)(bench)
        for title, way in READS.items():
            found.setdefault(f"reading back: {title}", []).append(clocked(way, bench))
    with EmbeddedPostgres(
        settings={**lab.server_settings, "wal_level": "minimal", "max_wal_senders": "0"}
    ) as server:
        minimal = Bench(source, server.pid, server.create_database("ways"))
        for _ in range(lab.runs):
            minimal.create()
            found.setdefault(f"{FROZEN}, wal_level = minimal", []).append(
                clocked(LOADS[FROZEN], minimal)
            )
    rows = [
        Row(
            what=title,
            against="",
            value=median(seconds for seconds, _ in values),
            samples=(
                Sample(label="by the clock", values=tuple(s for s, _ in values)),
                Sample(label="processor", values=tuple(c for _, c in values)),
            ),
        )
        for title, values in found.items()
    ]
    text = (
        "Tables quiz_attempts and xp_transactions of the default file, without keys or indexes; "
        f"one thread unless stated; median of {lab.runs}. Processor time is the client's and the "
        "server's together: with all cores busy, it is what counts."
    )
    if ARROW not in loads:
        text += (
            " ADBC was not installed here (adbc-driver-sqlite, adbc-driver-postgresql, pyarrow)."
        )
    return Section(key="ways", title="Ways tried", rows=tuple(rows), text=text)


def clocked(way: Callable[[Bench], None], bench: Bench) -> tuple[float, float]:
    """Seconds by the clock and of processor time."""
    cpu = processor_seconds(bench.server)
    start = time.perf_counter()
    way(bench)
    return time.perf_counter() - start, processor_seconds(bench.server) - cpu
