"""Everything but rows, carried from one server to a newer one: roles, schema, settings, rights.

The schema and the roles are carried by PostgreSQL's own ``pg_dump`` and ``pg_dumpall`` of the newer
version, which know what has changed in between; what belongs to the database itself (owner,
rights, settings) is carried here, since its name may differ.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from migration_job.binaries import installed_programs
from migration_job.errors import InputError, OperationError
from migration_job.quoting import compose, postgres_name
from migration_job.stores.postgres.side import EVERYBODY, SCHEMA

LOADED = "UPDATE _migration_upgrade.side SET loaded = true;"

_ROLE = re.compile(r'(CREATE|ALTER) ROLE ("(?:[^"]|"")+"|[^\s;"]+)')


def programs(major: int, given: Path | None) -> Path:
    """The directory of ``pg_dump``, ``pg_dumpall`` and ``psql`` of that version. Raises
    InputError."""
    if given is not None:
        places: list[Path | None] = [given]
    else:
        on_path = shutil.which("pg_dump")
        places = [installed_programs(major), Path(on_path).parent if on_path else None]
    for place in places:
        if place is not None and _version(place / "pg_dump") == major:
            return place
    raise InputError(
        f"expected pg_dump, pg_dumpall and psql of PostgreSQL {major}, found "
        + (f"none in {given}" if given else "none on this machine"),
        advice=f"install the client programs of PostgreSQL {major} (Debian: "
        f"postgresql-client-{major}) and name their directory by --programs",
    )


def _version(program: Path) -> int | None:
    try:
        told = subprocess.run(  # noqa: S603
            [program, "--version"], capture_output=True, text=True, check=False, timeout=30
        ).stdout
    except OSError:
        return None
    found = re.search(r"(\d+)", told)
    return int(found[1]) if found else None


class Carrier:
    """Carries from one server to the other with the programs in ``directory``."""

    def __init__(self, directory: Path, old: str, new: str) -> None:
        self._directory = directory
        self._old = old
        self._new = new

    def roles(self, new: psycopg.Connection) -> None:
        """Each role with its password, options, settings and memberships; one that is there
        already gets those, but for the role that this job logs in as."""
        text = self._run("pg_dumpall", self._old, "--roles-only")
        there = {
            postgres_name(str(row[0]))
            for row in new.execute("SELECT rolname::text FROM pg_roles").fetchall()
        }
        script = "\n".join(_wanted(text.splitlines(), there, postgres_name(new.info.user)))
        self._run("psql", self._new, *_PSQL, given=script)

    def schema(self) -> None:
        """The schema, all or nothing, with the note on record that it is there."""
        text = self._run(
            "pg_dump",
            self._old,
            *("--schema-only", "--no-publications", "--no-subscriptions", "--no-tablespaces"),
            f"--exclude-schema={SCHEMA}",
        )
        self._run("psql", self._new, *_PSQL, given=f"{text}\n{LOADED}\n")

    def _run(self, program: str, dsn: str, *options: str, given: str = "") -> str:
        """One of the programs; the password is in no argument. Raises OperationError with the
        first line that it complained about."""
        parts = {name: str(value) for name, value in conninfo_to_dict(dsn).items()}
        environment = {**os.environ, "PGCLIENTENCODING": "UTF8"}
        if "password" in parts:
            environment["PGPASSWORD"] = parts.pop("password")
        done = subprocess.run(  # noqa: S603
            [self._directory / program, f"--dbname={make_conninfo(**parts)}", *options],
            input=given,
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        if done.returncode != 0:
            said = next((t for t in done.stderr.splitlines() if "rror" in t), done.stderr.strip())
            raise OperationError(
                f"{program} failed: {said}",
                advice="nothing was carried by it, the application is served as before; correct "
                "the cause, then run the command again",
            )
        return done.stdout


_PSQL = ("--no-psqlrc", "--quiet", "--single-transaction", "--set=ON_ERROR_STOP=1")


def _wanted(lines: list[str], there: set[str], own: str) -> list[str]:
    found = []
    for line in lines:
        match = _ROLE.match(line)
        if match is not None:
            role = match[2] if match[2].startswith('"') else postgres_name(match[2])
            if role == own or (match[1] == "CREATE" and role in there):
                continue
        found.append(line)
    return found


def database(old: psycopg.Connection, new: psycopg.Connection) -> None:
    """The database's owner, rights (but CONNECT, which the fence keeps) and settings."""
    name = postgres_name(new.info.dbname)
    owner = old.execute(
        "SELECT pg_get_userbyid(datdba)::text FROM pg_database WHERE datname = current_database()"
    ).fetchone()
    granted = old.execute(
        "SELECT CASE a.grantee WHEN 0 THEN %s ELSE r.rolname::text END, a.privilege_type::text "
        "FROM pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) AS a "
        "LEFT JOIN pg_roles r ON r.oid = a.grantee "
        "WHERE d.datname = current_database() AND a.privilege_type <> 'CONNECT'",
        (EVERYBODY,),
    ).fetchall()
    with new.transaction():
        if owner is not None:
            to = postgres_name(str(owner[0]))
            new.execute(compose("ALTER DATABASE {name} OWNER TO {to}", name=name, to=to).encode())
        new.execute(
            compose("REVOKE CREATE, TEMPORARY ON DATABASE {name} FROM PUBLIC", name=name).encode()
        )
        for grantee, privilege in granted:
            to = EVERYBODY if grantee == EVERYBODY else postgres_name(str(grantee))
            word = "CREATE" if privilege == "CREATE" else "TEMPORARY"
            new.execute(
                compose(
                    "GRANT {word} ON DATABASE {name} TO {to}", word=word, name=name, to=to
                ).encode()
            )
        for role, setting, value in _settings(old):
            _set(new, name, role, setting, value)


def _settings(connection: psycopg.Connection) -> list[tuple[str | None, str, str]]:
    rows = connection.execute(
        "SELECT r.rolname::text, unnest(s.setconfig) FROM pg_db_role_setting s "
        "LEFT JOIN pg_roles r ON r.oid = s.setrole WHERE s.setdatabase = "
        "(SELECT oid FROM pg_database WHERE datname = current_database())"
    ).fetchall()
    return [(role, *str(text).partition("=")[::2]) for role, text in rows]


def _set(
    connection: psycopg.Connection, database: str, role: str | None, setting: str, value: str
) -> None:
    """By way of the session's own setting: only so is a list (``search_path``) told from a text."""
    with connection.transaction():
        before = connection.execute("SELECT current_setting(%s, true)", (setting,)).fetchone()
        connection.execute("SELECT set_config(%s, %s, false)", (setting, value))
        whose = (
            compose("ALTER DATABASE {database}", database=database)
            if role is None
            else compose(
                "ALTER ROLE {role} IN DATABASE {database}",
                role=postgres_name(role),
                database=database,
            )
        )
        connection.execute(
            compose(
                "{whose} SET {setting} FROM CURRENT", whose=whose, setting=_dotted(setting)
            ).encode()
        )
        if before is not None and before[0] is not None:
            connection.execute("SELECT set_config(%s, %s, false)", (setting, before[0]))


def _dotted(setting: str) -> str:
    return ".".join(postgres_name(part) for part in setting.split("."))


def differing_settings(
    old: psycopg.Connection, new: psycopg.Connection
) -> Mapping[str, tuple[str, str | None]]:
    """Settings of the server that somebody has set on the old one and that are others on the new:
    they are files of the server's and are not carried."""
    query = (
        "SELECT name::text, setting FROM pg_settings WHERE source IN ('configuration file', "
        "'command line') AND context <> 'internal' AND NOT name ~ "
        "'^(port|listen_addresses|data_directory|hba_file|config_file|ident_file|"
        "external_pid_file|unix_socket.*|cluster_name|log_.*|ssl_.*|wal_level|"
        "archive_.*|restore_command)$'"
    )
    mine = {str(n): str(v) for n, v in old.execute(query).fetchall()}
    theirs = {
        str(n): str(v)
        for n, v in new.execute("SELECT name::text, setting FROM pg_settings").fetchall()
    }
    return {n: (v, theirs.get(n)) for n, v in mine.items() if theirs.get(n) != v}
