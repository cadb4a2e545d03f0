"""PostgreSQL on several servers: Patroni's members, etcd and haproxy as services.

Patroni is given the same postgresql.conf as a single server has. What the members have to have in
common (:data:`IN_COMMON`) is in etcd, where :mod:`infra.membership` keeps it as the settings say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi

from infra import backup, members, rendering, servers, tuning
from infra.closed import Closed
from infra.containers import MEBIBYTE, Health, Service
from infra.members import Member
from infra.parts import Parts
from infra.tuning import Value

USER = "997:997"
"""Of etcd's and haproxy's image."""
ETCD_PORT = 2379
HEALTH_PORT = 8406
PATRONI_MEMORY = 128 * MEBIBYTE
"""Beside PostgreSQL's own, in the container of a member."""
ETCD_MEMORY = 128 * MEBIBYTE
LEADER_MEMORY = 96 * MEBIBYTE

LOOP_SECONDS = 2
RETRY_SECONDS = 9
"""As long as `TTL_SECONDS` lets it be: a busy machine's etcd answers late."""
TTL_SECONDS = 20
"""How long a leader that is lost stays the leader; Patroni takes no shorter time."""
START_SECONDS = 30
"""How long a leader whose PostgreSQL died may take to have it again before another takes over."""

IN_COMMON = ("max_connections", "max_prepared_transactions", "max_worker_processes", "wal_level")
"""What a follower has to have like its leader: the servers' own rule, which Patroni sees to."""
MAY_BE_SET = (
    *("max_wal_senders", "max_replication_slots", "max_locks_per_transaction"),
    *("track_commit_timestamp", "wal_keep_size"),
)
"""More that Patroni takes from etcd alone; said there where the stage file says it."""


def in_common(parts: Parts) -> dict[str, Any]:
    """What etcd is to hold of how the members act together, as Patroni calls it."""
    host = rendering.host_of(parts.settings)
    values = tuning.compute(host, parts.settings.postgresql_settings)
    parameters = {
        value.name: value.value for value in values if value.name in (*IN_COMMON, *MAY_BE_SET)
    }
    return {
        "ttl": TTL_SECONDS,
        "loop_wait": LOOP_SECONDS,
        "retry_timeout": RETRY_SECONDS,
        "primary_start_timeout": START_SECONDS,
        # A commit is acknowledged when a follower has it, and only such a one takes over.
        "synchronous_mode": True,
        # Without etcd the leader goes on as long as it reaches all the others.
        "failsafe_mode": True,
        "postgresql": {
            "use_pg_rewind": True,
            "use_slots": True,
            "parameters": {**parameters, "hot_standby": "on", "wal_log_hints": "on"},
        },
    }


def following(parts: Parts) -> list[Value]:
    """What postgresql.conf says more where other servers follow."""
    kept = max(parts.settings.disk // 4 // tuning.MB, 1024) * tuning.MB
    return [
        Value(
            "max_slot_wal_keep_size",
            tuning.size(kept),
            "a quarter of the disk: what is kept for a member that is away; one that is away for "
            "longer is copied again",
            "Members",
        ),
        Value(
            "wal_receiver_timeout",
            "10s",
            "a leader that has gone without a word is noticed",
            "Members",
        ),
        Value(
            "wal_sender_timeout",
            "10s",
            "a follower that has gone without a word is noticed",
            "Members",
        ),
    ]


def _patroni(parts: Parts, member: Member, passwords: Mapping[str, str]) -> str:
    names, config = parts.names, rendering.POSTGRES_CONFIG
    return rendering.render(
        "patroni.yml.j2",
        stage=parts.stage,
        scope=names.prefix,
        host=member.host,
        api_port=members.API_PORT,
        directory=config,
        certificate=f"{config}/members/tls.crt",
        key=f"{config}/members/tls.key",
        authority=f"{config}/members/ca.crt",
        etcd=[f"{one.etcd_host}:{ETCD_PORT}" for one in members.all_of(names)],
        common=in_common(parts),
        data_directory=member.data,
        programs=f"/usr/lib/postgresql/{parts.settings.postgres_version}/bin",
        passwords=passwords,
        replication_role=names.replication_role,
        rewind_role=names.rewind_role,
        server_authority="" if parts.settings.tls == "off" else f"{config}/ca.crt",
    )


def _http(port: int, path: str) -> Health:
    """The images hold no HTTP client; bash asks by itself."""
    ask = f"exec 3<>/dev/tcp/127.0.0.1/{port}; printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' >&3; "
    heard = "read -r said <&3; [[ $said == *' 200 '* ]]"
    return Health(["bash", "-c", ask + heard], start_seconds=120)


def member(
    parts: Parts, closed: Closed, one: Member, volumes: Mapping[str, pulumi.Input[str]]
) -> Service:
    """One of the servers; ``volumes`` holds its data, and what it shares with the backups'
    container, by path."""
    settings, config = parts.settings, rendering.POSTGRES_CONFIG
    told: pulumi.Output[str] = closed.credentials.passwords.apply(
        lambda known: _patroni(parts, one, known)
    )
    archiving = backup.archiving() if settings.backup else ()
    sockets = {} if backup.SOCKETS in volumes else {backup.SOCKETS: "uid=999,gid=999,mode=2775"}
    known = {f"members/{name}": text for name, text in closed.member_files(one.host).items()}
    return Service(
        name=one.container,
        host=one.host,
        image=parts.images.member,
        user=servers.POSTGRES_USER,
        memory=settings.postgres_memory + PATRONI_MEMORY,
        cpus=settings.postgres_cpus,
        shared_memory=tuning.shared_memory(rendering.host_of(settings)),
        health=Health(
            ["pg_isready", "-q", "-h", backup.SOCKETS, "-U", "postgres", "-d", "postgres"],
            start_seconds=600,
        ),
        config_directory=config,
        files={
            "postgresql.conf": rendering.postgresql_conf(
                settings, parts.stage, [*archiving, *following(parts)]
            ),
            "pg_hba.conf": rendering.pg_hba_conf(
                settings, parts.stage, parts.names.replication_role
            ),
            "patroni.yml": pulumi.Output.secret(told),
            "superuser-password": closed.password("superuser"),
            **known,
            **closed.tls_files(one.host),
            **servers.backup_files(parts, closed, config, [one]),
        },
        command=["patroni", members.PATRONI],
        environment={"PGDATA": one.data, "PATRONI_LOG_LEVEL": "INFO", "HOME": "/tmp"},  # noqa: S108
        volumes=volumes,
        temporary={"/tmp": "mode=1777", **sockets},  # noqa: S108 - the container's own
        stop_seconds=60,
        open_files=8192,
    )


def etcd(parts: Parts, closed: Closed, one: Member, volume: pulumi.Input[str]) -> Service:
    """One of the three by which the members agree who leads."""
    hosts = [other.etcd_host for other in members.all_of(parts.names)]
    return Service(
        name=one.etcd,
        host=one.etcd_host,
        image=parts.images.coordination,
        user=USER,
        memory=ETCD_MEMORY,
        health=_http(members.ETCD_METRICS_PORT, "/health"),
        config_directory="/etc/etcd",
        files={**closed.member_files(one.etcd_host)},
        entrypoint=["stage-etcd"],
        command=[one.etcd_host, *hosts],
        volumes={"/var/lib/etcd": volume},
        temporary={"/tmp": "mode=1777"},  # noqa: S108 - the container's own
        pids=128,
    )


def leader(parts: Parts, authority: pulumi.Input[str]) -> Service:
    """haproxy, which leads to the member that takes writes; ``authority`` is the members' own."""
    settings, names = parts.settings, parts.names
    connections = tuning.connections(rendering.host_of(settings)) + 50
    return Service(
        name=names.leader,
        host=names.leader_host,
        image=parts.images.coordination,
        user=USER,
        memory=LEADER_MEMORY,
        health=_http(HEALTH_PORT, "/health"),
        config_directory="/etc/haproxy",
        files={
            "haproxy.cfg": rendering.render(
                "haproxy.cfg.j2",
                stage=parts.stage,
                connections=connections,
                authority="/etc/haproxy/ca.crt",
                api_port=members.API_PORT,
                health_port=HEALTH_PORT,
                wait_seconds=rendering.connect_seconds(settings),
                hosts=[one.host for one in members.all_of(names)],
            ),
            "ca.crt": authority,
        },
        entrypoint=["haproxy"],
        command=["-db", "-f", "/etc/haproxy/haproxy.cfg"],
        ports={servers.POSTGRES_PORT: settings.postgres_port},
        temporary={"/tmp": "mode=1777"},  # noqa: S108 - the container's own
        pids=64,
        open_files=2 * connections + 200,
    )
