"""What a stage's settings make of the job's inputs (:mod:`infra.inputs`), as the program names
them: some are only known when other resources are made."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pulumi

from infra import fleet_files, given, members, rendering
from infra.closed import Closed
from infra.inputs import PLANNED
from infra.job import Place
from infra.parts import Parts, older, upgraded
from infra.servers import POOLER_PORT, POSTGRES_PORT
from infra.setting_types import External
from infra.settings import Settings
from migration_job.place import DEFAULT_SCHEMA


def job_inputs(parts: Parts, closed: Closed) -> dict[str, Any]:
    """What every command of the job is given: :class:`infra.inputs.JobInputs`."""
    settings, names = parts.settings, parts.names
    pool = {
        "max": settings.pool_max,
        "min": settings.pool_min,
        "idle_timeout": settings.pool_idle_seconds * 1000,
        "connection_timeout": settings.pool_connect_seconds * 1000,
    }
    external = settings.external
    target = _given_target(parts, closed, external) if external else _own_target(parts, closed)
    console = {"host": names.pooler_host, "port": POOLER_PORT, "user": names.pooler_admin}
    schema = settings.target_schema
    return {
        "place": asdict(_place(parts)),
        "container": names.job,
        "source": str(parts.where.source),
        "strategy": settings.strategy,
        "report_directory": str(parts.where.report),
        "state_directory": str(parts.where.job),
        "connection_directory": str(parts.where.connection),
        # Said where it is so: nobody else's stage changes.
        **({"schema": schema} if schema != PLANNED else {}),
        "console": console if settings.pooler else {},
        "console_password": closed.password("pooler_admin"),
        **target,
        "connection": {**target["connection"], "pool": pool},
    }


def migration(parts: Parts) -> dict[str, Any]:
    """What the copy is given more."""
    profile, proof = parts.settings.profile, parts.settings.proof
    return {
        "job_digest": parts.images.job_digest,
        "profile": given.profile_digest(profile),
        "profile_path": str(given.profile_file(profile) or profile),
        "policy": given.policy(parts.settings),
        "target_version": str(parts.settings.postgres_version),
        **({"proof": pulumi.Output.secret(proof.model_dump(mode="json"))} if proof else {}),
    }


def opened(parts: Parts) -> dict[str, Any]:
    """What lets a fleet's applications in: :class:`infra.inputs.OpenedInputs`."""
    names = parts.names
    return {
        "application": names.application_role,
        "second": names.second_role,
        "reader": names.reader_role,
    }


def fleet(parts: Parts) -> dict[str, Any]:
    """What a fleet's copy is given more."""
    manifest = fleet_files.require(parts.where.source)
    return {
        **opened(parts),
        "job_digest": parts.images.job_digest,
        "manifest": fleet_files.digest(manifest),
        "jobs": fleet_files.jobs(manifest, parts.settings.job_memory),
    }


def cutover(parts: Parts) -> dict[str, Any]:
    """What the switch and the way back are given more."""
    settings = parts.settings
    return {
        "mode": settings.cutover,
        "fence_seconds": settings.fence_seconds,
        "one_way": list(settings.one_way_tables),
        "policy": given.policy(settings),
        "settle_after_hours": settings.settle_after_hours,
    }


def upgrade(parts: Parts, closed: Closed, inputs: dict[str, Any]) -> dict[str, Any]:
    """:class:`infra.upgrading.UpgradeInputs`, of the stage's ``inputs``."""
    settings = parts.settings
    (_, first), (_, newer) = older(settings, parts.names), upgraded(settings, parts.names)
    return {
        **inputs,
        "step": settings.upgrade_step,
        "cutover": settings.cutover,
        "upgrader": parts.images.upgrader,
        "superuser": first.upgrade_role,
        "superuser_password": closed.password("superuser"),
        "hosts": [first.postgres_host, newer.postgres_host],
        "containers": [first.postgres, newer.postgres],
        "lookup": first.pooler_database,
    }


def _place(parts: Parts) -> Place:
    settings, names = parts.settings, parts.names
    own = given.profile_file(settings.profile)
    alias = {f"{names.pooler}-alias": rendering.ALIAS_DIRECTORY}
    return Place(
        docker_host=settings.docker_host,
        image=parts.images.job,
        network=names.network,
        user=parts.user,
        memory=settings.job_memory,
        log_size=settings.log_size,
        log_files=settings.log_files,
        binds=parts.binds,
        read_only=(str(own.parent),) if own else (),
        volumes=alias if settings.pooler else {},
        stage=parts.stage,
    )


def _in_schema(settings: Settings) -> dict[str, Any]:
    """Said where it is another schema: nobody else's stage changes."""
    name = settings.schema_name
    return {} if name == DEFAULT_SCHEMA else {"schema_name": name}


def _own_target(parts: Parts, closed: Closed) -> dict[str, Any]:
    """How the job and the application reach the stage's own PostgreSQL."""
    settings, names = parts.settings, parts.names
    several = members.of(settings, names)
    return {
        "target": {
            # The job asks the members itself which of them takes writes.
            "host": ",".join(one.host for one in several) or names.postgres_host,
            "port": POSTGRES_PORT,
            "database": names.database,
            "user": names.migration_role,
            **_in_schema(settings),
        },
        "password": closed.password("migration"),
        "application_password": closed.credentials.application(),
        "authority": closed.authority or "",
        "pooler_authority": closed.pooler_authority or "",
        "connection": {
            **_pooler_address(parts),
            "user": names.serving_role(settings.credentials_version),
            "server": {
                "host": names.leader_host if several else names.postgres_host,
                "port": POSTGRES_PORT,
            },
        },
    }


def _given_target(parts: Parts, closed: Closed, external: External) -> dict[str, Any]:
    """How they reach a PostgreSQL of somebody else's, by PgBouncer or directly."""
    authority = given.pem(external.authority) if external.authority else ""
    by_pooler = parts.settings.pooler
    target = {**_server(external), "user": external.user, "sslmode": external.sslmode}
    target |= _in_schema(parts.settings)
    if external.accept_asynchronous:  # said where it is so: nobody else's stage changes
        target["accept_asynchronous"] = True
    if external.accept_collation:
        target["accept_collation"] = True
    return {
        "target": target,
        "password": pulumi.Output.secret(external.password),
        "application_password": pulumi.Output.secret(external.application_password),
        "authority": authority,
        "pooler_authority": (closed.pooler_authority or "") if by_pooler else authority,
        "connection": _given_connection(parts, external),
    }


def _server(external: External) -> dict[str, Any]:
    return {"host": external.host, "port": external.port, "database": external.database}


def _given_connection(parts: Parts, external: External) -> dict[str, Any]:
    user, server = {"user": external.application_user}, _server(external)
    if parts.settings.pooler:
        leader = {"host": external.pooler_host, "port": external.pooler_port}
        behind = {**server, **leader} if external.pooler_host else server
        return {**user, **_pooler_address(parts), "server": behind}
    tls = {"tls": {"mode": "require"}} if external.sslmode == "require" else {}
    return {**user, **server, **tls}


def _pooler_address(parts: Parts) -> dict[str, Any]:
    settings = parts.settings
    return {
        "host": settings.connection_host or settings.bind_address,
        "port": settings.pooler_port,
        "database": parts.names.database,
    }
