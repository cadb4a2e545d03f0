"""What others do: pgloader, sqlite3 piped to psql, the strategy's script, PostgreSQL alone."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import apsw
import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from benchmarks.lab import CommandFailed, Timing, run_timed
from migration_job.plan.model import Plan
from migration_job.stores.postgres.load import (
    GROUP_TABLES,
    build_sql,
    create_sql,
    sequences_of,
    tune_session,
)

DEBIAN_PACKAGES = {"pgloader": "pgloader", "sqlite3": "sqlite3"}


def available(program: str) -> bool:
    """Whether a peer's program is here; on Debian, where we may, it is installed first."""
    if shutil.which(program) is None and shutil.which("apt-get") and os.geteuid() == 0:
        command = ["apt-get", "install", "-y", "--no-install-recommends", DEBIAN_PACKAGES[program]]
        subprocess.run(
            command,
            check=False,
            capture_output=True,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        )
    return shutil.which(program) is not None


def url(dsn: str) -> str:
    """The DSN as the URL that pgloader wants. The password is a random token, safe in a URL."""
    parts = conninfo_to_dict(dsn)
    return "postgresql://{user}:{password}@{host}:{port}/{dbname}".format(**parts)


def pgloader(program: str, source: Path, dsn: str) -> Timing:
    """pgloader's whole run: schema, rows, indexes, sequences, foreign keys. It verifies nothing.

    It ends with 0 or 1 when rows or constraints were refused; that is its way, not a failure of
    the measurement.
    """
    return run_timed([program, f"sqlite://{source}", url(dsn)], accept=(0, 1))


PACKAGED_PGLOADER = "pgloader"
"""The program that a package has: 3.6, which the goals are about."""

NEWER_PGLOADER = "PGLOADER4"
"""The variable that names the program of pgloader 4, which no package has."""


def pgloaders() -> dict[str, str]:
    """Each pgloader that is here: its version, and its program."""
    programs = [PACKAGED_PGLOADER] if available(PACKAGED_PGLOADER) else []
    programs += [p for p in [os.environ.get(NEWER_PGLOADER, "")] if p]
    return {_version(program): program for program in programs}


def absent() -> list[str]:
    """For the page: that pgloader 4 was not measured, and how it is; nothing where it was."""
    if os.environ.get(NEWER_PGLOADER):
        return []
    return [f"pgloader 4 is in no package; `{NEWER_PGLOADER}` names its program."]


def _version(program: str) -> str:
    said = run_timed([program, "--version"]).output
    found = re.search(r"\d+(\.\d+)+", said)
    return f"pgloader {found[0] if found else program}"


def pgloader_data_only(program: str, source: Path, dsn: str) -> Timing:
    """pgloader's run into tables that are there. Its foreign keys would refuse a child that comes
    before its parent, so that their triggers are switched off meanwhile: nothing proves them."""
    words = ["--with", "data only", "--with", "disable triggers"]
    return run_timed([program, *words, f"sqlite://{source}", url(dsn)], accept=(0, 1))


def sqlite_to_psql(psql: Path, source: Path, dsn: str, tables: Sequence[tuple[str, str]]) -> Timing:
    """``sqlite3 -csv`` piped to ``COPY``, one table after another, by one psql.

    ``tables`` holds each source table and the target's, with its columns, both as SQL.
    """
    lines = [
        f"\\copy {target} from program 'sqlite3 -csv {source} \"{query}\"' with (format csv)"
        for query, target in tables
    ]
    script = source.with_suffix(".copy.sql")
    script.write_text("\n".join(lines) + "\n")
    try:
        return run_timed([str(psql), "-qX", "-v", "ON_ERROR_STOP=1", "-f", str(script), dsn])
    finally:
        script.unlink()


def write_text_files(dsn: str, folder: Path, tables: Sequence[str]) -> dict[str, Path]:
    """The loaded tables as COPY text files that the server can read; the folder is the server's."""
    files = {}
    with psycopg.connect(dsn, autocommit=True) as connection:
        for number, table in enumerate(tables):
            files[table] = folder / f"bench-{number}.copy"
            connection.execute(
                sql.SQL("COPY {} TO {}").format(
                    sql.Identifier(table), sql.Literal(str(files[table]))
                )
            )
    return files


def server_side_copy(dsn: str, files: dict[str, Path]) -> float:
    """Seconds for COPY of ready files by the server itself, one table after another: what
    PostgreSQL needs when nobody has to assemble or send anything."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        start = time.perf_counter()
        for table, file in files.items():
            connection.execute(
                sql.SQL("COPY {} FROM {}").format(sql.Identifier(table), sql.Literal(str(file)))
            )
        return time.perf_counter() - start


def server_alone(dsn: str, plan: Plan, files: dict[str, Path], sessions: int) -> float:
    """Seconds for PostgreSQL alone to have these tables with keys, indexes and statistics: the
    statements that the job sends, as many tables to a transaction, but rows from ready files."""
    sequences = sequences_of(plan)
    tables = plan.tables
    groups = iter([tables[i : i + GROUP_TABLES] for i in range(0, len(tables), GROUP_TABLES)])

    def work() -> None:
        with psycopg.connect(dsn) as connection:
            tune_session(connection)
            for group in groups:
                connection.execute(create_sql(group).encode())
                for table in group:
                    copied = f"COPY {table.relation} FROM '{files[table.target]}'"
                    connection.execute(f"{copied} WITH (FREEZE)".encode())
                connection.execute(build_sql(group, sequences).encode())
                connection.commit()

    start = time.perf_counter()
    with ThreadPoolExecutor(sessions) as pool:
        for future in [pool.submit(work) for _ in range(sessions)]:
            future.result()
    return time.perf_counter() - start


def row_by_row(source: Path, dsn: str, table: str, columns: Sequence[str], rows: int) -> float:
    """Rows per second of the strategy's script: each row awaited as one INSERT with parameters, in
    a transaction of its own. The script is JavaScript; this is the same sequence of statements."""
    reader = apsw.Connection(os.fspath(source), flags=apsw.SQLITE_OPEN_READONLY)
    names = ", ".join(f'"{c}"' for c in columns)
    found = reader.execute(f'SELECT {names} FROM "{table}" LIMIT {rows}').fetchall()
    reader.close()
    if len(found) < rows:
        raise CommandFailed(f"expected {rows} rows in {table} for the sample, found {len(found)}")
    statement = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
        sql.Identifier(table),
        sql.SQL(", ").join(map(sql.Identifier, columns)),
        sql.SQL(", ").join([sql.Placeholder()] * len(columns)),
    )
    with psycopg.connect(dsn, autocommit=True) as connection:
        text = statement.as_string(connection)
        start = time.perf_counter()
        for row in found:
            # Values go as text, as node-postgres sends them, and the server finds their types.
            values = [None if v is None else v if isinstance(v, bytes) else str(v) for v in row]
            connection.execute(text.encode(), values)
        return rows / (time.perf_counter() - start)
