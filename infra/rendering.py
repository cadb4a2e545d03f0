"""Configuration files from templates. Values are quoted by the file's own rules, or refused.

A template never prints a value plainly unless the settings have already narrowed it to digits or
an identifier: ``quoted`` writes a postgresql.conf string, ``pooler_quoted`` a userlist.txt one, and
``comment`` keeps a value on its line.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import jinja2

from infra import tuning
from infra.names import Names
from infra.settings import Settings

TEMPLATES = Path(__file__).resolve().parent.parent / "config_templates"

POSTGRES_CONFIG = "/etc/postgresql"
POOLER_CONFIG = "/etc/pgbouncer"
SERVER_AUTHORITY = "server-ca.crt"
ALIAS_DIRECTORY = "/var/lib/pgbouncer"
"""Where PgBouncer and the job both see the volume with the application's alias."""


def _quoted(value: str) -> str:
    _single_line(value)
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def _pooler_quoted(value: str) -> str:
    _single_line(value)
    return '"' + value.replace('"', '""') + '"'


def _comment(value: object) -> str:
    return _single_line(str(value))


def _single_line(value: str) -> str:
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise ValueError(f"a configuration value must not hold control characters: {value!a}")
    return value


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - no HTML; each file's own quoting is a filter
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "quoted": _quoted,
        "pooler_quoted": _pooler_quoted,
        "comment": _comment,
        "size": tuning.size,
    }
    return environment


def render(template: str, **values: object) -> str:
    """One template of ``config_templates`` with its values; every name must be given."""
    return _environment().get_template(template).render(**values)


def host_of(settings: Settings, *, logical: bool = True) -> tuning.Host:
    """What the settings give PostgreSQL to use; ``logical`` is the level of its log."""
    return tuning.Host(
        memory=settings.postgres_memory,
        cpus=settings.postgres_cpus,
        storage=settings.storage,
        disk=settings.disk,
        pool_max=settings.pool_max,
        max_connections=settings.max_connections,
        version=settings.postgres_version,
        logical=logical,
        tuning=settings.postgres_tuning,
    )


def postgresql_conf(
    settings: Settings, stage: str, more: Sequence[tuning.Value] = (), *, logical: bool = True
) -> str:
    """postgresql.conf for the container, every value with its reason; ``more`` is appended."""
    host = host_of(settings, logical=logical)
    values = [*tuning.compute(host, settings.postgresql_settings), *more]
    sections = [
        (section, list(group))
        for section, group in itertools.groupby(values, key=lambda value: value.section)
    ]
    return render(
        "postgresql.conf.j2",
        stage=stage,
        host=host,
        sections=sections,
        hba_file=f"{POSTGRES_CONFIG}/pg_hba.conf",
        tls=_tls(settings, POSTGRES_CONFIG),
    )


def pg_hba_conf(settings: Settings, stage: str, replication: str = "") -> str:
    """pg_hba.conf: SCRAM for the stage's network and the networks that the settings allow;
    ``replication`` is the role by whom other members follow this one, '' where there are none."""
    addresses = ["samenet", *settings.allowed_networks]
    kind = "host" if settings.tls == "off" else "hostssl"
    return render(
        "pg_hba.conf.j2", stage=stage, addresses=addresses, kind=kind, replication=replication
    )


UNLIMITED_SECONDS = 600
"""What stands for no limit where there has to be one."""


def connect_seconds(settings: Settings) -> int:
    """How long opening a server connection may take: of several servers, as long as a query may
    wait, since it waits at haproxy while none of them leads."""
    if settings.postgres_members == 1:
        return settings.pool_connect_seconds
    return max(settings.pool_connect_seconds, settings.pool_wait_seconds or UNLIMITED_SECONDS)


def pgbouncer_ini(settings: Settings, names: Names, stage: str) -> str:
    """pgbouncer.ini, without the application's alias: the job writes that at the switch."""
    return render(
        "pgbouncer.ini.j2",
        stage=stage,
        settings=settings,
        connect_seconds=connect_seconds(settings),
        server=names.leader_host if settings.postgres_members > 1 else names.postgres_host,
        alias=names.database,
        alias_file=f"{ALIAS_DIRECTORY}/alias.ini",
        users_file=f"{POOLER_CONFIG}/userlist.txt",
        auth_user=names.pooler_role,
        # Looking passwords up needs rights that nobody has on a PostgreSQL of somebody else's.
        auth_database="" if settings.external else names.pooler_database,
        admin_user=names.pooler_admin,
        stats_user=names.monitor_role,
        client_tls=_tls(settings, POOLER_CONFIG),
        server_tls=_server_tls(settings),
    )


def _server_tls(settings: Settings) -> dict[str, str] | None:
    """How PgBouncer speaks to PostgreSQL; None for plainly."""
    if settings.external:
        given = bool(settings.external.authority)
        authority = f"{POOLER_CONFIG}/{SERVER_AUTHORITY}" if given else ""
        return {"mode": settings.external.sslmode, "authority": authority}
    if settings.tls == "off":
        return None
    return {"mode": "verify-full", "authority": f"{POOLER_CONFIG}/ca.crt"}


def _tls(settings: Settings, directory: str) -> dict[str, str] | None:
    """Where a server finds its certificate, its key and the stage's authority; None without TLS."""
    if settings.tls == "off":
        return None
    return {
        "mode": "require",
        "certificate": f"{directory}/tls.crt",
        "key": f"{directory}/tls.key",
        "authority": f"{directory}/ca.crt",
    }


def userlist(users: Sequence[tuple[str, str]]) -> str:
    """userlist.txt: names with a password or a SCRAM verifier."""
    return render("userlist.txt.j2", users=users)
