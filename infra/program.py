"""From Pulumi's configuration to the stage: everything is checked before anything is created."""

from __future__ import annotations

from dataclasses import replace

import docker
import pulumi
from pulumi.runtime import config

from infra import engine, fleet_files, gate, given, members, present, stage_paths, support
from infra.errors import StageError
from infra.images import Builder, Images
from infra.names import Names
from infra.parts import Found, Parts, older, serving, standing, upgraded
from infra.protection import Protection
from infra.settings import PROJECT, Settings, read
from infra.stage import Stage
from infra.stage_paths import Paths


def settings() -> Settings:
    """The stage's settings from Pulumi's configuration; StageError listing every fault."""
    prefix = f"{PROJECT}:"
    raw = {
        key.removeprefix(prefix): value
        for key, value in (config.get_config_env() | config.CONFIG.get()).items()
        if key.startswith(prefix)
    }
    return read(raw, f"Pulumi.{pulumi.get_stack()}.yaml")


def stage() -> Stage:
    """Check the settings, the source, the engine, the ports and the images; then declare."""
    wanted = settings()
    names = Names(wanted.application, pulumi.get_stack())
    where = stage_paths.paths(wanted, names.stack)
    local = engine.is_local(wanted.docker_host)
    if local:
        fleet_files.require_one_kind(where, fleet=bool(wanted.fleet))
    if wanted.fleet:
        _require_fleet(wanted, where, local=local)
    elif local and wanted.source != stage_paths.EXAMPLE and not wanted.settled:
        stage_paths.require_source(where.source)
    given.profile_digest(wanted.profile)
    major = serving(wanted, names)[0].postgres_version
    if not wanted.external and (told := support.warning(major)):
        pulumi.log.warn(told)
    client = engine.connect(wanted.docker_host)
    if not wanted.settled:
        present.require_no_settled_stage(client, where, local=local)
    logical = present.require_its_data(client, wanted, names, where)
    gate.require_application(client, wanted)
    for port, owner in _ports(wanted, names).items():
        engine.require_port(client, wanted.bind_address, port, owner, local=local)
    if wanted.upgrade_to and wanted.upgrade_step != "settle" and not logical:
        pulumi.log.warn(
            "PostgreSQL is restarted, once, for wal_level = logical: docs/how-to/maintenance.md "
            "says how its queries are held meanwhile"
        )
    # One that cannot follow another server yet is restarted for it, where it has to.
    logical = logical or wanted.upgrade_to is not None
    images = _images(client, wanted, logical=logical)
    user = _user(client, wanted, where, images.job)
    found = _found(client, wanted, names, images, user)
    found = replace(found, logical=logical)
    parts = Parts(wanted, names, images, where, user, found)
    made = Stage(parts)
    Protection(made, protected=wanted.protect_data)
    return made


def _require_fleet(wanted: Settings, where: Paths, *, local: bool) -> None:
    """StageError for a fleet that a stage cannot move."""
    if not local:
        raise StageError(
            f"expected the local engine for a fleet, found dockerHost: {wanted.docker_host}: the "
            "stage looks at the files whether they were written to",
            advice="run the stage on the machine that has the files, or `migration-job fleet` "
            "there by hand",
        )
    fleet_files.require(where.source)


def _images(client: docker.DockerClient, wanted: Settings, *, logical: bool) -> Images:
    """All that the stage needs, made where they are not there yet."""
    builder = Builder(
        client,
        wanted.image_source,
        pulumi.log.info,
        postgres=wanted.postgres_image,
        dry_run=pulumi.runtime.is_dry_run(),
        following=logical,
    )
    return builder.images(
        None if wanted.external else wanted.version_before,
        monitoring=wanted.monitoring,
        backup=wanted.backup,
        example=wanted.example_application,
        gate=wanted.gate is not None,
        upgrade_to=wanted.upgrade_to,
        members=wanted.postgres_members,
    )


def _user(client: docker.DockerClient, wanted: Settings, where: Paths, image: str) -> str:
    """The source's owner, ``uid:gid``; the stage's own directories are made for that user."""
    local = engine.is_local(wanted.docker_host)
    example = wanted.source == stage_paths.EXAMPLE
    dry_run = pulumi.runtime.is_dry_run()
    if wanted.settled:
        return present.owner(client, where, local=local)
    if wanted.fleet:
        return fleet_files.prepare(where, dry_run=dry_run)
    if local:
        return stage_paths.prepare_here(where, example=example, dry_run=dry_run)
    return stage_paths.prepare_there(client, image, where, example=example, dry_run=dry_run)


def _found(
    client: docker.DockerClient, wanted: Settings, names: Names, images: Images, user: str
) -> Found:
    """What the engine has already; says what is kept of it although nothing asks for it."""
    dry_run = pulumi.runtime.is_dry_run()
    socket = None
    if wanted.gate and wanted.gate.container:
        socket = gate.engine_socket(client, wanted.docker_host, images.gate, user, dry_run=dry_run)
    before = older(wanted, names)[1]
    backups = present.has_backups(client, before)
    if backups and not (wanted.backup or wanted.delete_backups):
        pulumi.log.warn(
            f"the backups in the volume {before.backup}s are kept although `backup` is false; "
            "`deleteBackups: true` removes them"
        )
    newer = bool(wanted.upgrade_to) and present.has_backups(client, upgraded(wanted, names)[1])
    return Found(socket, backups, newer)


def _ports(wanted: Settings, names: Names) -> dict[int, str]:
    """The host's ports that the stage publishes, and the container that holds each."""
    ports = {one.postgres_port: its.postgres for one, its in standing(wanted, names)}
    if members.of(wanted, names):
        ports[wanted.postgres_port] = names.leader
    if wanted.pooler:
        ports[wanted.pooler_port] = names.pooler
    if wanted.monitoring:
        ports |= {
            wanted.prometheus_port: f"{names.prefix}-prometheus",
            wanted.alertmanager_port: f"{names.prefix}-alertmanager",
            wanted.dashboard_port: f"{names.prefix}-dashboard",
        }
    if wanted.example_application:
        ports[wanted.example_port] = names.example
    if wanted.gate:
        ports[wanted.gate.port] = names.gate
    return ports
