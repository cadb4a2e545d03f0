"""From Pulumi's configuration to the stage: everything is checked before anything is created."""

from __future__ import annotations

import pulumi
from pulumi.runtime import config

from infra import engine
from infra.images import Builder
from infra.names import Names
from infra.protection import Protection
from infra.settings import PROJECT, Settings, read
from infra.stage import (
    Stage,
    make_directories,
    make_example,
    owner,
    paths,
    profile_digest,
    require_source,
)


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
    """Check the settings, the engine, the ports, the source and the images; then declare."""
    wanted = settings()
    names = Names(wanted.application, pulumi.get_stack())
    where = paths(wanted, names.stack)
    local = engine.is_local(wanted.docker_host)
    dry_run = pulumi.runtime.is_dry_run()
    example = wanted.source == "example"
    if local and not example:
        require_source(where)
    profile_digest(wanted.profile)
    client = engine.connect(wanted.docker_host)
    engine.require_port(client, wanted.bind_address, wanted.postgres_port, names.postgres)
    engine.require_port(client, wanted.bind_address, wanted.pooler_port, names.pooler)
    if wanted.monitoring:
        for port, service in (
            (wanted.prometheus_port, "prometheus"),
            (wanted.alertmanager_port, "alertmanager"),
            (wanted.dashboard_port, "dashboard"),
        ):
            engine.require_port(client, wanted.bind_address, port, f"{names.prefix}-{service}")
    if wanted.example_application:
        engine.require_port(client, wanted.bind_address, wanted.example_port, names.example)
    builder = Builder(client, wanted.image_source, pulumi.log.info, dry_run=dry_run)
    images = builder.images(
        wanted.postgres_version,
        monitoring=wanted.monitoring,
        backup=wanted.backup,
        example=wanted.example_application,
    )
    if local and example and not dry_run:
        make_example(where)
    user = owner(where, local)
    if local and not dry_run:
        make_directories(where, user)
    made = Stage(wanted, names, images, where, user)
    Protection(made, protected=wanted.protect_data)
    return made
