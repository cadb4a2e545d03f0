"""The application's own proof: a command that is run against a copy of the loaded database."""

from __future__ import annotations

import os
import secrets
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote, urlencode

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from migration_job.errors import InputError, OperationError, VerificationError
from migration_job.place import records_for, schema_of
from migration_job.stores.postgres import database

LIMIT_SECONDS = 3_600.0
"""How long the command may take."""

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

MAINTENANCE = ("postgres", "template1")
"""Databases from which another one is copied, the first that takes the connection."""


def prove(dsn: str, command: str, *, limit: float = LIMIT_SECONDS) -> str:
    """Run ``command`` (no shell) with a copy of the database in its environment (``PGHOST`` and so
    on, and ``DATABASE_URL``); nothing that it writes is kept. Nobody else may be connected to the
    database. Returns its last line. Raises VerificationError where it ends with another status
    than 0, OperationError where there is no copy to be had."""
    words = shlex.split(command)
    if not words:
        raise InputError(
            "expected a command after --proof, found nothing",
            advice="e.g. --proof 'python manage.py migrate --check'",
        )
    with _copy(dsn) as copied:
        try:
            ended = subprocess.run(  # noqa: S603 - what the operator gave, and no shell
                words,
                env={**os.environ, **environment(copied)},
                capture_output=True,
                text=True,
                errors="replace",
                timeout=limit,
                check=False,
            )
        except (OSError, ValueError) as error:
            raise InputError(
                f"the proof cannot be run: {words[0]}: {error}",
                advice="give --proof a program of this machine with its arguments",
            ) from error
        except subprocess.TimeoutExpired:
            raise VerificationError(
                f"the application's proof did not end within {limit:g} s: {command}",
                advice="the application is served as before; find out what it waits for",
            ) from None
    said = (ended.stdout + ended.stderr).strip()
    password = conninfo_to_dict(dsn).get("password")
    if password:
        said = said.replace(str(password), "***")
    if ended.returncode:
        raise VerificationError(
            f"the application's proof ended with status {ended.returncode}: {command}: "
            f"{said[-LAST_WORDS:]}",
            advice="the application is served as before; correct what it complains of and run the "
            "command again",
        )
    return said.splitlines()[-1][:LAST_WORDS] if said else ""


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
def _copy(dsn: str) -> Iterator[str]:
    """A copy of the database under another name, for as long as it is used; without this job's
    schema, whose fence would refuse the application's writes."""
    name = str(conninfo_to_dict(dsn).get("dbname", ""))
    copied = f"{name[:40]}_proof_{secrets.token_hex(4)}"
    beside = _beside(dsn)
    try:
        try:
            beside.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                    sql.Identifier(copied), sql.Identifier(name)
                )
            )
        except psycopg.Error as error:
            raise OperationError(
                f"no copy of database {name} is to be had for the proof: "
                f"{error.diag.message_primary or type(error).__name__}",
                advice="the role has to be the database's owner and may make databases (ALTER ROLE "
                "... CREATEDB), and nobody else may be connected to it meanwhile",
            ) from error
        try:
            there = make_conninfo(dsn, dbname=copied)
            with psycopg.connect(there, autocommit=True) as connection:
                connection.execute(
                    sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(
                        sql.Identifier(records_for(schema_of(dsn)))
                    )
                )
            yield there
        finally:
            beside.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(copied))
            )
    finally:
        beside.close()


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
