"""The containers that serve the application: PostgreSQL and PgBouncer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pulumi

from infra import backup, rendering, tuning
from infra.closed import Closed
from infra.containers import Health, Service
from infra.given import pem
from infra.members import SOCKETS, Member
from infra.names import Names
from infra.parts import Parts
from infra.settings import Settings

POSTGRES_USER = "999:999"
POOLER_USER = "998:998"
POSTGRES_PORT = 5432
POOLER_PORT = 6432


def data_directory(version: int) -> tuple[str, str]:
    """Where the data volume is mounted and PGDATA, as the official image of that version wants it:
    from 18 on it keeps all of /var/lib/postgresql in one volume."""
    if version >= 18:
        return "/var/lib/postgresql", f"/var/lib/postgresql/{version}/docker"
    return "/var/lib/postgresql/data", "/var/lib/postgresql/data/pgdata"


def backup_files(
    parts: Parts,
    closed: Closed,
    directory: str,
    several: Sequence[Member] = (),
    *,
    data: str = "",
) -> dict[str, pulumi.Input[str]]:
    """What pgBackRest reads in the container that has it in ``directory``: of ``several`` servers
    those that it sees there, the only one where there is no more; ``data`` is where a copy is
    restored to, '' for PostgreSQL's own data."""
    settings = parts.settings
    if not settings.backup:
        return {}
    data = data or data_directory(settings.postgres_version)[1]
    places = [backup.Server(data, backup.SOCKETS)]
    if several:
        places = [backup.Server(one.data, f"{SOCKETS}/{one.number}") for one in several]
    if len(several) == 1:  # in the member's own container
        places = [backup.Server(several[0].data, backup.SOCKETS)]
    conf = closed.password("backup_cipher").apply(
        lambda cipher: backup.configuration(
            settings, parts.names, parts.stage, places, directory=directory, cipher=cipher
        )
    )
    files: dict[str, pulumi.Input[str]] = {"pgbackrest.conf": conf}
    if settings.backup_s3 and settings.backup_s3.authority:
        files[backup.STORE_AUTHORITY] = pem(settings.backup_s3.authority)
    return files


def postgres(parts: Parts, closed: Closed, volumes: Mapping[str, pulumi.Input[str]]) -> Service:
    """PostgreSQL as a service; ``volumes`` holds its data, and what it shares with the backups'
    container, by path."""
    settings, names = parts.settings, parts.names
    _, data = data_directory(settings.postgres_version)
    config = rendering.POSTGRES_CONFIG
    archiving = backup.archiving() if settings.backup else ()
    sockets = {} if backup.SOCKETS in volumes else {backup.SOCKETS: "uid=999,gid=999,mode=2775"}
    return Service(
        name=names.postgres,
        host=names.postgres_host,
        image=parts.images.postgres,
        user=POSTGRES_USER,
        memory=settings.postgres_memory,
        cpus=settings.postgres_cpus,
        shared_memory=tuning.shared_memory(rendering.host_of(settings)),
        health=Health(["pg_isready", "-q", "-h", "127.0.0.1", "-U", "postgres", "-d", "postgres"]),
        config_directory=config,
        files={
            "postgresql.conf": rendering.postgresql_conf(
                settings, parts.stage, archiving, logical=parts.found.logical
            ),
            "pg_hba.conf": rendering.pg_hba_conf(settings, parts.stage),
            "superuser-password": closed.password("superuser"),
            **closed.tls_files(names.postgres_host),
            **backup_files(parts, closed, config),
        },
        command=["postgres", "-c", f"config_file={config}/postgresql.conf"],
        environment={
            "PGDATA": data,
            "POSTGRES_USER": "postgres",
            "POSTGRES_PASSWORD_FILE": f"{config}/superuser-password",
            # Order is bytes': SQLite's BINARY order, and text is indexed in half the time.
            "POSTGRES_INITDB_ARGS": "--encoding=UTF8 --locale=C.UTF-8 --lc-collate=C "
            "--data-checksums --auth-local=scram-sha-256 --auth-host=scram-sha-256",
        },
        ports={POSTGRES_PORT: settings.postgres_port},
        volumes=volumes,
        temporary={"/tmp": "mode=1777", **sockets},  # noqa: S108 - the container's own
        stop_seconds=60,
        open_files=8192,
    )


FOLLOWS_ADDRESSES = f"""
"$@" || exit 1
alias={rendering.ALIAS_DIRECTORY}/alias.ini
for host in $(sed -n "s/.*host='\\([^']*\\)'.*/\\1/p" "$alias" | sort -u); do
    now=$(timeout 2 getent ahostsv4 "$host" | head -n 1 | cut -d ' ' -f 1)
    [ -n "$now" ] || continue
    seen="/tmp/address-of-$host"
    [ ! -e "$seen" ] || [ "$(cat "$seen")" = "$now" ] || kill -QUIT 1
    echo "$now" >"$seen"
done
"""
"""PgBouncer's resolver (c-ares) keeps an address for as long as the engine says, ten minutes, and
neither `dns_max_ttl` nor a reload shortens that: a server that was made again at another address
would not be found until then. So PgBouncer ends, and the engine starts it again."""


def _pooler_health(settings: Settings, names: Names) -> list[str]:
    # A role of userlist.txt: another would be looked up in PostgreSQL.
    ready = ["pg_isready", "-q", "-h", "127.0.0.1", "-p", str(POOLER_PORT)]
    ready += ["-d", "pgbouncer", "-U", names.pooler_admin]
    # Somebody else's servers are named by somebody else, with a time of their own.
    return ready if settings.external else ["bash", "-c", FOLLOWS_ADDRESSES, "health", *ready]


def pooler(parts: Parts, closed: Closed, alias: pulumi.Input[str]) -> Service:
    """PgBouncer as a service; ``alias`` is the volume of the application's alias."""
    settings, names = parts.settings, parts.names
    files: dict[str, pulumi.Input[str]] = {
        "pgbouncer.ini": rendering.pgbouncer_ini(settings, names, parts.stage),
        "userlist.txt": closed.pooler_users(),
        **closed.tls_files("pgbouncer"),
    }
    if settings.external and settings.external.authority:
        files[rendering.SERVER_AUTHORITY] = pem(settings.external.authority)
    return Service(
        name=names.pooler,
        host=names.pooler_host,
        image=parts.images.pooler,
        user=POOLER_USER,
        memory=settings.pooler_memory,
        health=Health(_pooler_health(settings, names), start_seconds=20),
        config_directory=rendering.POOLER_CONFIG,
        files=files,
        ports={POOLER_PORT: settings.pooler_port},
        volumes={rendering.ALIAS_DIRECTORY: alias},
        temporary={"/tmp": "mode=1777"},  # noqa: S108 - the container's own
        pids=64,
        open_files=settings.pool_clients + settings.pool_max * 10 + 256,
    )
