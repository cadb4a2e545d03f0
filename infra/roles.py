"""PostgreSQL's roles and databases, made as the container's superuser through its own socket.

| role | may |
|---|---|
| APP_owner | own the application's database and tables; cannot log in |
| APP_migration | log in, and then be the owner; for the migration job alone |
| APP, APP_second | read and write rows; for the application, which uses one of the two |
| APP_read | read rows |
| APP_monitor | read statistics (pg_monitor) |
| APP_backup | take base backups |
| pooler | look up passwords for PgBouncer, in a database of its own |

Passwords go in as SCRAM verifiers, so that neither a statement nor a log ever holds one.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from dataclasses import dataclass
from typing import Any

import docker
from docker.errors import DockerException, NotFound
from docker.models.containers import Container
from pulumi import Input, Output, ResourceOptions
from pulumi.dynamic import CreateResult, Resource, UpdateResult

from infra import credentials, engine, members
from infra.dynamic import StageProvider
from infra.errors import StageError
from infra.execution import STDERR, execute
from infra.names import Names
from migration_job.place import DEFAULT_SCHEMA
from migration_job.quoting import postgres_name, postgres_text

SUPERUSER_FILE = "/etc/postgresql/superuser-password"

CLUSTER = """
\\set ON_ERROR_STOP on
SELECT format('CREATE ROLE %I', name) FROM (VALUES {names}) AS wanted(name)
 WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \\gexec
ALTER ROLE {owner} NOLOGIN {createdb};
ALTER ROLE {migration} LOGIN CONNECTION LIMIT 16 PASSWORD {migration_secret};
ALTER ROLE {migration} SET role = {owner};
ALTER ROLE {application} LOGIN {application_password};
ALTER ROLE {application} SET idle_in_transaction_session_timeout = '10min';
ALTER ROLE {second} LOGIN {second_password};
ALTER ROLE {second} SET idle_in_transaction_session_timeout = '10min';
GRANT {application} TO {second};
ALTER ROLE {reader} LOGIN CONNECTION LIMIT 20 PASSWORD {reader_secret};
ALTER ROLE {reader} SET default_transaction_read_only = on;
ALTER ROLE {monitor} LOGIN CONNECTION LIMIT 5 PASSWORD {monitor_secret};
ALTER ROLE {pooler} LOGIN CONNECTION LIMIT 5 PASSWORD {pooler_secret};
ALTER ROLE {backup} LOGIN CONNECTION LIMIT 5 PASSWORD {backup_secret};
GRANT {owner} TO {migration};
GRANT pg_monitor TO {monitor};
GRANT pg_read_all_settings TO {backup};
GRANT EXECUTE ON FUNCTION {backup_functions} TO {backup};
-- To end the application's sessions when a rollback closes the target.
GRANT pg_signal_backend TO {owner};
{replication}
SELECT 'CREATE DATABASE {database} OWNER {owner} ENCODING ''UTF8'' TEMPLATE template0'
 WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = {database_text}) \\gexec
SELECT 'CREATE DATABASE {pooler}' WHERE NOT EXISTS
    (SELECT FROM pg_database WHERE datname = {pooler_text}) \\gexec
REVOKE ALL ON DATABASE {database}, {pooler}, postgres, template1 FROM PUBLIC;
-- Before 15 everybody may make tables in it: the roles that watch and back up must not fill a disk.
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
{connect}
GRANT TEMPORARY ON DATABASE {database} TO {application}, {second}, {migration};
GRANT CONNECT ON DATABASE {pooler} TO {pooler};
GRANT CONNECT ON DATABASE postgres TO {monitor}, {backup};
{beside}
"""

# CREATE DATABASE ... TEMPLATE takes a session on another database than the one that is copied.
COPIES = "GRANT CONNECT ON DATABASE postgres TO {migration};"
NO_COPIES = "REVOKE CONNECT ON DATABASE postgres FROM {migration};"
# Patroni makes the role; by it a member that has led looks where the others went on without it.
REWIND = """\
GRANT CONNECT ON DATABASE postgres TO {rewind};
"""

CONNECT = """\
GRANT CONNECT ON DATABASE {database} TO {application}, {second}, {reader}, {monitor}, {migration};\
"""

# A server that an upgrade has closed, or not opened yet, admits nobody: its own record has them.
# And its functions stay as they are: another definition would stop the move.
UNLESS_UPGRADED = """
\\connect {database}
SELECT to_regclass('_migration_upgrade.side') IS NULL AS apart \\gset
\\if :apart
"""
END_UNLESS = """
\\endif
"""
# Not `postgres`, which comes in through the socket alone.
UPGRADE = """
SELECT 'CREATE ROLE {upgrade}' WHERE NOT EXISTS
    (SELECT FROM pg_roles WHERE rolname = {upgrade_text}) \\gexec
ALTER ROLE {upgrade} SUPERUSER LOGIN PASSWORD {superuser_secret};
"""

# From 15 on, the right to suppress triggers and foreign-key actions while changes are applied can
# be granted; before, only a superuser has it, so one lends it through a function.
REPLICATION = "GRANT SET ON PARAMETER session_replication_role TO {owner};"
LENT_REPLICATION = """
\\connect {database}
BEGIN;
CREATE SCHEMA IF NOT EXISTS privileges;
CREATE OR REPLACE FUNCTION privileges.act_as_replica() RETURNS void
    LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$ SELECT set_config('session_replication_role', 'replica', false) $$;
REVOKE ALL ON FUNCTION privileges.act_as_replica() FROM PUBLIC;
GRANT USAGE ON SCHEMA privileges TO {owner};
GRANT EXECUTE ON FUNCTION privileges.act_as_replica() TO {owner};
COMMIT;
"""
REPLICATION_SINCE = 15

# What pgBackRest calls (https://pgbackrest.org/user-guide.html); 15 renamed two of them.
BACKUP_FUNCTIONS = "pg_create_restore_point(text), pg_switch_wal(), "
EXCLUSIVE_BACKUP = "pg_start_backup(text, boolean, boolean), pg_stop_backup(boolean, boolean)"
RENAMED_BACKUP = "pg_backup_start(text, boolean), pg_backup_stop(boolean)"
RENAMED_BACKUP_SINCE = 15

ANOTHER_SCHEMA = """
\\connect {database}
CREATE SCHEMA IF NOT EXISTS {schema};
ALTER ROLE {application} IN DATABASE {database} SET search_path = {schema};
ALTER ROLE {second} IN DATABASE {database} SET search_path = {schema};
ALTER ROLE {reader} IN DATABASE {database} SET search_path = {schema};
"""
APPLICATION = """
\\connect {database}
ALTER SCHEMA {schema} OWNER TO {owner};
REVOKE ALL ON SCHEMA {schema} FROM PUBLIC;
GRANT USAGE ON SCHEMA {schema} TO {application}, {reader};
ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA {schema}
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {application};
ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA {schema}
    GRANT USAGE, SELECT ON SEQUENCES TO {application};
ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA {schema}
    GRANT SELECT ON TABLES TO {reader};
"""

# https://www.pgbouncer.org/config.html#auth_query: a function, since only a superuser may read
# pg_shadow. Its search_path is pinned, so that no object of a caller's is ever run in its name.
POOLER = """
\\connect {pooler}
BEGIN;
CREATE SCHEMA IF NOT EXISTS pooler;
CREATE OR REPLACE FUNCTION pooler.lookup(wanted text, OUT name text, OUT password text)
    RETURNS record LANGUAGE sql SECURITY DEFINER STABLE
    SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT rolname::text, rolpassword FROM pg_catalog.pg_authid
         WHERE rolname = wanted AND rolcanlogin AND NOT rolsuper AND NOT rolreplication
           AND (rolvaliduntil IS NULL OR rolvaliduntil > now())
    $$;
REVOKE ALL ON FUNCTION pooler.lookup(text) FROM PUBLIC;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA pooler TO {pooler};
GRANT EXECUTE ON FUNCTION pooler.lookup(text) TO {pooler};
COMMIT;
"""


FIRST, NEWER, LEFT_ALONE = "first", "newer", "alone"
"""A server's part in an upgrade: both take part, the older one first, and the newer is alone once
that is settled."""

PSQL_SCRIPT_FAILED = 3
"""psql's exit status where it reached the server and a statement failed."""

MISSING = """
\\set ON_ERROR_STOP on
DO $$ BEGIN
    IF EXISTS (SELECT FROM (VALUES {roles}) AS wanted(name, secret)
                WHERE NOT EXISTS (SELECT FROM pg_authid WHERE rolname = name
                                     AND (secret IS NULL OR rolpassword = secret)))
    OR EXISTS (SELECT FROM (VALUES {databases}) AS wanted(name)
                WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = name))
    THEN RAISE EXCEPTION 'a role or a database is missing'; END IF;
END $$;
"""


def statements(  # noqa: PLR0913 - what the script depends on, named
    names: Names,
    verifiers: dict[str, str],
    version: int,
    schema: str = DEFAULT_SCHEMA,
    upgrade: str = "",
    *,
    copies: bool = False,
    members: bool = False,
) -> str:
    """The psql script that makes roles and databases what they are to be, however often it runs;
    the application's tables are in ``schema``. ``upgrade``, ``copies`` and ``members`` are
    :attr:`Server.upgrade`, :attr:`Server.copies` and :attr:`Server.members`."""
    values = _values(names, verifiers, version)
    values["createdb"] = "CREATEDB" if copies else "NOCREATEDB"
    values["beside"] = (COPIES if copies else NO_COPIES).format(**values)
    values["connect"] = "" if upgrade else CONNECT.format(**values)
    lent = () if version >= REPLICATION_SINCE else (LENT_REPLICATION,)
    inside = [(APPLICATION, DEFAULT_SCHEMA)]
    if schema != DEFAULT_SCHEMA:
        inside += [(ANOTHER_SCHEMA, schema), (APPLICATION, schema)]
    inside += [(part, schema) for part in lent]
    if upgrade:
        # The newer server gets all that is in the application's database from the first one.
        guarded = [(UNLESS_UPGRADED, schema), (CONNECT, schema), *inside, (END_UNLESS, schema)]
        inside = guarded if upgrade == FIRST else []
    made = [(UPGRADE, schema)] if upgrade in (FIRST, NEWER) else []
    made += [(REWIND, schema)] if members else []
    parts = [(CLUSTER, schema), *made, *inside, (POOLER, schema)]
    return "".join(part.format(**values, schema=identifier(name)) for part, name in parts)


def _values(names: Names, verifiers: dict[str, str], version: int) -> dict[str, str]:
    """What the script's parts are filled with."""
    roles = {
        "owner": names.owner_role,
        "migration": names.migration_role,
        "application": names.application_role,
        "second": names.second_role,
        "reader": names.reader_role,
        "monitor": names.monitor_role,
        "pooler": names.pooler_role,
        "backup": names.backup_role,
    }
    values = {key: identifier(name) for key, name in roles.items()}
    values |= {f"{key}_secret": literal(verifiers[key]) for key in roles if key in verifiers}
    for login in ("application", "second"):
        # The one that does not serve keeps the password that it has, or has none.
        secret = values.get(f"{login}_secret")
        values[f"{login}_password"] = f"PASSWORD {secret}" if secret else ""
    values["names"] = ", ".join(f"({literal(name)})" for name in roles.values())
    values["database"] = identifier(names.database)
    values["database_text"] = literal(names.database)
    values["upgrade"] = identifier(names.upgrade_role)
    values["upgrade_text"] = literal(names.upgrade_role)
    values["superuser_secret"] = literal(verifiers.get("superuser", ""))
    values["rewind"] = identifier(names.rewind_role)
    values["pooler_text"] = literal(names.pooler_database)
    values["backup_functions"] = BACKUP_FUNCTIONS + (
        EXCLUSIVE_BACKUP if version < RENAMED_BACKUP_SINCE else RENAMED_BACKUP
    )
    values["replication"] = REPLICATION.format(**values) if version >= REPLICATION_SINCE else ""
    return values


def identifier(name: str) -> str:
    """An identifier as the settings admit it: lower case, digits and _; it needs no quoting."""
    if re.fullmatch(r"[a-z][a-z0-9_]{0,62}", name) is None:
        raise ValueError(f"not a plain identifier: {name!a}")
    return postgres_name(name)


def literal(text: str) -> str:
    """A string literal of printable ASCII."""
    if not text.isascii() or not text.isprintable():
        raise ValueError("expected printable ASCII")
    return postgres_text(text)


class RolesProvider(StageProvider):
    """Runs the script in PostgreSQL's container whenever something that it says has changed."""

    outputs = ("cluster",)

    def create(self, props: Any) -> CreateResult:
        made = {**props, "cluster": _apply(props)}
        return CreateResult(f"{props['container']}/roles", made)

    def update(self, _id: str, _olds: Any, news: Any) -> UpdateResult:
        return UpdateResult({**news, "cluster": _apply(news)})

    def there(self, props: Any) -> bool:
        names = Names(props["application"], props["stack"])
        client = engine.connect(props["docker_host"])
        with contextlib.suppress(DockerException, StageError):
            container = _container(client, props, names)
            status, _ = psql(container, missing(names, props["verifiers"]))
            return status != PSQL_SCRIPT_FAILED
        return True


def _container(client: docker.DockerClient, props: Any, names: Names) -> Container:
    """The one in which PostgreSQL takes writes."""
    if props.get("members"):
        return members.leading(client, members.all_of(names))
    return client.containers.get(props["container"])


def missing(names: Names, verifiers: dict[str, str]) -> str:
    """A psql script that fails where a role or a database is not there, or has another password."""
    roles = {
        names.migration_role: "migration",
        names.application_role: "application",
        names.second_role: "second",
        names.reader_role: "reader",
        names.monitor_role: "monitor",
        names.pooler_role: "pooler",
        names.backup_role: "backup",
    }
    wanted = [f"({literal(names.owner_role)}, NULL)"]
    wanted += [
        f"({literal(role)}, {literal(verifiers[key]) if key in verifiers else 'NULL'})"
        for role, key in roles.items()
    ]
    databases = f"({literal(names.database)}), ({literal(names.pooler_database)})"
    return MISSING.format(roles=", ".join(wanted), databases=databases)


def _apply(props: Any) -> str:
    """Run the script; returns the cluster's own number, which only a new data directory changes."""
    names = Names(props["application"], props["stack"])
    schema, upgrade = props.get("schema_name") or DEFAULT_SCHEMA, props.get("upgrade") or ""
    script = statements(
        names,
        props["verifiers"],
        int(props["version"]),
        schema,
        upgrade,
        copies=bool(props.get("copies")),
        members=bool(props.get("members")),
    )
    client = engine.connect(props["docker_host"])
    try:
        container = _container(client, props, names)
        status, output = psql(container, script)
        if not status:
            return _cluster(container)
    except NotFound as error:
        raise StageError(
            f"expected PostgreSQL's container {props['container']}, found none",
            advice="run `pulumi up` again, which makes it again on its data volume",
        ) from error
    except DockerException as error:
        raise StageError(f"the engine could not reach PostgreSQL: {error}") from error
    raise StageError(
        "PostgreSQL refused a role or a database: " + " / ".join(output.splitlines()[-3:]),
        advice="correct the cause and run `pulumi up` again; every step may be repeated",
    )


def _cluster(container: Container) -> str:
    """``system_identifier``: as pg_controldata prints it of the data directory."""
    command = ["bash", "-c", 'pg_controldata -D "$PGDATA"']
    said = execute(container, command, {"LC_ALL": "C"}).output
    found = re.search(rb"Database system identifier:\s+(\d+)", said)
    if found is None:
        raise StageError(f"expected PostgreSQL's data directory in {container.name}, found none")
    return found[1].decode()


def psql(container: Container, script: str) -> tuple[int, str]:
    """Run a psql script as the superuser; its exit status and what it said on standard error."""
    ended = execute(
        container,
        [
            "bash",
            "-c",
            f'export PGPASSWORD="$(<{SUPERUSER_FILE})"; printf %s "$SCRIPT" | '
            "psql --no-psqlrc --quiet --tuples-only --no-align --output=/dev/null "
            "-h /var/run/postgresql -U postgres -d postgres -f -",
        ],
        {"SCRIPT": script},
    )
    return ended.exit_code, ended.on(STDERR).decode(errors="replace").strip()


def digest(names: Names, server: Server) -> str:
    """What changes when the script does: a stage made by an older one is brought up to date."""
    none = dict.fromkeys(credentials.EVERY, "")
    script = statements(
        names,
        none,
        server.version,
        server.schema,
        server.upgrade,
        copies=server.copies,
        members=server.members,
    )
    return hashlib.sha256(script.encode()).hexdigest()


@dataclass(frozen=True)
class Server:
    """The stage's own PostgreSQL."""

    container: str
    """Its container's name."""
    id: Input[str]
    docker_host: str
    version: int
    schema: str = DEFAULT_SCHEMA
    """Where the application's tables are."""
    upgrade: str = ""
    """Its part in an upgrade: :data:`FIRST`, :data:`NEWER`, :data:`LEFT_ALONE` or ''."""
    copies: bool = False
    """Whether the job may copy the application's database, for the application's proof."""
    members: bool = False
    """Whether it is several servers: the one that leads at the time is meant."""


class Roles(Resource):
    """The stage's roles and databases, made what they are to be. ``cluster`` tells the data
    directory that they are in from any other."""

    cluster: Output[str]

    def __init__(
        self,
        name: str,
        server: Server,
        names: Names,
        verifiers: Input[dict[str, str]],
        opts: ResourceOptions,
    ) -> None:
        super().__init__(
            RolesProvider(),
            name,
            {
                "container": server.container,
                # Another container may be on another volume: the roles are made sure of again.
                "server": server.id,
                "docker_host": server.docker_host,
                "application": names.application,
                "stack": names.stack,
                "verifiers": verifiers,
                "version": str(server.version),
                "script": digest(names, server),
                **({"upgrade": server.upgrade} if server.upgrade else {}),
                **({"copies": True} if server.copies else {}),
                **({"members": True} if server.members else {}),
                **({} if server.schema == DEFAULT_SCHEMA else {"schema_name": server.schema}),
                "cluster": None,
            },
            ResourceOptions.merge(opts, ResourceOptions(additional_secret_outputs=["verifiers"])),
        )
