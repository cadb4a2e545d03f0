"""From Pulumi's configuration to the stage: everything is checked before anything is created."""

from __future__ import annotations

import pulumi
from pulumi.runtime import config

from infra import engine, gate, present, stage_paths, support
from infra.images import Builder
from infra.names import Names
from infra.protection import Protection
from infra.settings import PROJECT, Settings, read
from infra.stage import Found, Stage, profile_digest


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
    dry_run = pulumi.runtime.is_dry_run()
    example = wanted.source == stage_paths.EXAMPLE
    if local and not example and not wanted.settled:
        stage_paths.require_source(where.source)
    profile_digest(wanted.profile)
    if not wanted.external and (told := support.warning(wanted.postgres_version)):
        pulumi.log.warn(told)
    client = engine.connect(wanted.docker_host)
    if not wanted.settled:
        present.require_no_settled_stage(client, where, local=local)
    present.require_its_data(client, wanted, names, where)
    gate.require_application(client, wanted)
    for port, owner in _ports(wanted, names).items():
        engine.require_port(client, wanted.bind_address, port, owner, local=local)
    builder = Builder(
        client,
        wanted.image_source,
        pulumi.log.info,
        postgres=wanted.postgres_image,
        dry_run=dry_run,
    )
    images = builder.images(
        None if wanted.external else wanted.postgres_version,
        monitoring=wanted.monitoring,
        backup=wanted.backup,
        example=wanted.example_application,
        gate=wanted.gate is not None,
    )
    if wanted.settled:
        user = present.owner(client, where, local=local)
    elif local:
        user = stage_paths.prepare_here(where, example=example, dry_run=dry_run)
    else:
        user = stage_paths.prepare_there(
            client, images.job, where, example=example, dry_run=dry_run
        )
    socket = None
    if wanted.gate and wanted.gate.container:
        socket = gate.engine_socket(client, wanted.docker_host, images.gate, user, dry_run=dry_run)
    backups = present.has_backups(client, names)
    if backups and not (wanted.backup or wanted.delete_backups):
        pulumi.log.warn(
            f"the backups in the volume {names.backup}s are kept although `backup` is false; "
            "`deleteBackups: true` removes them"
        )
    made = Stage(wanted, names, images, where, user, Found(socket, backups))
    Protection(made, protected=wanted.protect_data)
    return made


def _ports(wanted: Settings, names: Names) -> dict[int, str]:
    """The host's ports that the stage publishes, and the container that holds each."""
    ports = {} if wanted.external else {wanted.postgres_port: names.postgres}
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
