"""The application's own proof: a command that is run on a copy of the loaded database, by this job
or by somebody else, who is told the copy's name and leaves an answer."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from migration_job.application_proof import ANSWER_SECONDS, AWAITED, LIMIT_SECONDS, Proof
from migration_job.errors import InputError, OperationError, VerificationError
from migration_job.place import records_for, schema_of
from migration_job.stores.postgres import database

POLL_SECONDS = 0.1

LAST_WORDS = 2_000
"""Characters of the command's output that are told."""

PLACES = {
    "host": "PGHOST",
    "port": "PGPORT",
    "dbname": "PGDATABASE",
    "user": "PGUSER",
    "password": "PGPASSWORD",
}
VARIABLES = {
    **PLACES,
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
    "options": "PGOPTIONS",
}
"""Parts of a connection string, and the variables by which libpq takes them."""

OTHERS_OF_THE_JOB = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
 WHERE datname = %s AND usename = session_user AND application_name LIKE %s
   AND pid <> pg_backend_pid()
"""
PURPOSES = "migration-job%"
"""How the names of this job's sessions begin."""

MAINTENANCE = ("postgres", "template1")
"""Databases from which another one is copied, the first that takes the connection."""


@dataclass(frozen=True, slots=True)
class _Ended:
    command: str
    status: int
    said: str


def require(target: psycopg.Connection, dsn: str) -> None:
    """Raises InputError where this role could not make a copy of the database: before hours are
    spent on a load that nothing could prove."""
    row = target.execute(
        "SELECT r.rolname, r.rolsuper OR r.rolcreatedb, r.rolsuper OR "
        "pg_has_role(d.datdba, 'USAGE'), d.datname FROM pg_roles r, pg_database d "
        "WHERE r.rolname = current_user AND d.datname = current_database()"
    ).fetchone()
    if row is None:
        raise AssertionError("a session has a role and a database")
    role, makes, owns, name = row
    missing = [] if makes else ["may make databases (ALTER ROLE ... CREATEDB)"]
    missing += [] if owns else ["owns the database (ALTER DATABASE ... OWNER TO ...)"]
    if missing:
        raise InputError(
            f"expected a role that {' and '.join(missing)}, as the application's proof is run on a "
            f"copy of {name}, found {role}",
            advice="nothing was changed; give it that, or run without the proof",
        )
    _beside(dsn).close()


def prove(dsn: str, proof: Proof, run_id: str, say: Callable[[str], None]) -> str:
    """Have a copy of the database proven by the application; nothing that it writes there is kept.
    A command finds the copy in its environment (``PGHOST`` and so on, and ``DATABASE_URL``);
    somebody else is told its name by ``say``. Nobody else may be connected to the database.
    Returns what was run and its last line. Raises VerificationError where it ends with another
    status than 0, OperationError where there is no copy to be had."""
    with _copy(dsn, run_id) as (copied, name):
        ended = _run(proof.command, copied) if proof.answer is None else _heard(proof, name, say)
    said = ended.said.strip()
    password = conninfo_to_dict(dsn).get("password")
    if password:
        said = said.replace(str(password), "***")
    if ended.status:
        raise VerificationError(
            f"the application's proof ended with status {ended.status}: {ended.command}: "
            f"{said[-LAST_WORDS:]}",
            advice="the application is served as before; correct what it complains of and run the "
            "command again",
        )
    last = said.splitlines()[-1][:LAST_WORDS] if said else ""
    return f"{ended.command}: {last}" if last else ended.command


def _run(command: str, copied: str) -> _Ended:
    words = shlex.split(command)
    try:
        ended = subprocess.run(  # noqa: S603 - what the operator gave, and no shell
            words,
            env={**os.environ, **environment(copied)},
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LIMIT_SECONDS,
            check=False,
        )
    except (OSError, ValueError) as error:
        raise InputError(
            f"the proof cannot be run: {words[0]}: {error}",
            advice="give --proof a program of this machine with its arguments",
        ) from error
    except subprocess.TimeoutExpired:
        raise _without_end(command, LIMIT_SECONDS) from None
    return _Ended(command, ended.returncode, ended.stdout + ended.stderr)


def _without_end(what: str, limit: float) -> VerificationError:
    return VerificationError(
        f"the application's proof did not end within {limit:g} s: {what}",
        advice="the application is served as before; find out what it waits for",
    )


def _heard(proof: Proof, name: str, say: Callable[[str], None]) -> _Ended:
    """What somebody else has found, as soon as the answer is whole."""
    path = proof.answer
    if path is None:
        raise AssertionError("asked for with an answer's place alone")
    say(f"{AWAITED}{name}")
    until = time.monotonic() + ANSWER_SECONDS
    while (answer := _answer(path)) is None:
        if time.monotonic() > until:
            raise _without_end(f"no answer in {path}", ANSWER_SECONDS)
        time.sleep(POLL_SECONDS)
    if error := answer.get("error"):
        raise OperationError(
            f"the application's proof could not be run: {error}",
            advice="the application is served as before; correct the cause and run it again",
        )
    try:
        return _Ended(str(answer["command"]), int(answer["status"]), str(answer["said"]))
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"expected JSON with command, status and said in {path}, found {sorted(answer)}",
            advice="docs/how-to/application-schema.md says what is to stand there",
        ) from None


def _answer(path: Path) -> dict[str, Any] | None:
    """None until there is all of it: it may be read while it is written."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def environment(dsn: str) -> dict[str, str]:
    """The variables by which libpq, and most applications, find a database."""
    parts = {name: str(value) for name, value in conninfo_to_dict(dsn).items() if value is not None}
    found = {variable: parts[name] for name, variable in VARIABLES.items() if name in parts}
    return {**found, "DATABASE_URL": _url(parts)}


def _url(parts: dict[str, str]) -> str:
    """As libpq reads it: several servers with commas between, a socket's directory encoded, and
    how to connect behind the question mark."""
    user = quote(parts.get("user", ""), safe="")
    password = f":{quote(parts['password'], safe='')}" if "password" in parts else ""
    hosts = parts.get("host", "localhost").split(",")
    ports = parts["port"].split(",") if "port" in parts else [""]
    ports *= len(hosts) if len(ports) == 1 else 1
    where = ",".join(map(_server, hosts, ports))
    how = {name: parts[name] for name in VARIABLES if name not in PLACES and name in parts}
    query = f"?{urlencode(how, quote_via=quote)}" if how else ""
    return f"postgresql://{user}{password}@{where}/{quote(parts.get('dbname', ''), safe='')}{query}"


def _server(host: str, port: str) -> str:
    name = f"[{host}]" if ":" in host else quote(host, safe="")
    return f"{name}:{port}" if port else name


@contextmanager
def _copy(dsn: str, run_id: str) -> Iterator[tuple[str, str]]:
    """A copy of the database under another name, for as long as it is used: how to connect to it,
    and its name. Without this job's schema, whose fence would refuse the application's writes.
    The name is the run's, so that a copy which a killed run has left is found, and removed."""
    name = str(conninfo_to_dict(dsn).get("dbname", ""))
    copied = f"{name[:40]}_proof_{run_id[:8]}"
    removal = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(copied))
    beside = _beside(dsn)
    try:
        try:
            beside.execute(removal)
            # `sync` lets the job act but stays connected; it connects again by itself.
            beside.execute(OTHERS_OF_THE_JOB, (name, PURPOSES))
            beside.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                    sql.Identifier(copied), sql.Identifier(name)
                )
            )
        except psycopg.Error as error:
            raise OperationError(
                f"no copy of database {name} can be made for the proof: "
                f"{error.diag.message_primary or type(error).__name__}{_present(beside, name)}",
                advice="the role has to be the database's owner and may make databases (ALTER ROLE "
                "... CREATEDB), and no other session may be connected to it meanwhile",
            ) from error
        try:
            there = make_conninfo(dsn, dbname=copied)
            with psycopg.connect(there, autocommit=True) as connection:
                connection.execute(
                    sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(
                        sql.Identifier(records_for(schema_of(dsn)))
                    )
                )
            yield there, copied
        finally:
            beside.execute(removal)
    finally:
        beside.close()


def _present(beside: psycopg.Connection, name: str) -> str:
    """Who is connected to the database, for a message; '' where that is nobody, or unknown."""
    try:
        rows = beside.execute(
            "SELECT DISTINCT usename, application_name FROM pg_stat_activity WHERE datname = %s "
            "AND backend_type = 'client backend' ORDER BY 1, 2",
            (name,),
        ).fetchall()
    except psycopg.Error:
        return ""
    told = [f"{role} ({program})" if program else str(role) for role, program in rows]
    return f"; connected are {', '.join(told)}" if told else ""


def _beside(dsn: str) -> psycopg.Connection:
    for name in MAINTENANCE[:-1]:
        try:
            return database.connect(
                make_conninfo(dsn, dbname=name), purpose="migration-job migrate"
            )
        except (InputError, OperationError):
            continue
    return database.connect(
        make_conninfo(dsn, dbname=MAINTENANCE[-1]), purpose="migration-job migrate"
    )
