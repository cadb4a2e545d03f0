"""What PostgreSQL's and PgBouncer's containers have in common.

Without root and capabilities, on read-only file systems, with limits on memory, cores and
processes and with rotated logs. Configuration and secrets are files in a volume of the
container's own, which works on a remote engine too and shows in no `docker inspect`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi
import pulumi_docker as docker

from infra.files import Files, Volume
from infra.health import Healthy
from infra.settings import Settings

MEBIBYTE = 1024 * 1024
CPU_PERIOD = 100_000
"""Microseconds; a container may use ``cpus`` times as much processor time in each."""
LABEL = "sqlite-to-postgresql.stage"
DIGEST_LABEL = "sqlite-to-postgresql.files"


@dataclass(frozen=True)
class Health:
    """A health check: the command, and how often and how long it may take."""

    command: Sequence[str]
    interval_seconds: int = 5
    timeout_seconds: int = 5
    retries: int = 5
    start_seconds: int = 60


@dataclass(frozen=True)
class Service:
    """A long-running container of the stage."""

    name: str
    host: str
    image: pulumi.Input[str]
    user: str
    memory: int
    health: Health
    config_directory: str
    files: Mapping[str, pulumi.Input[str]] | pulumi.Output[dict[str, str]]
    """Below ``config_directory``, the service's own to read: name to content."""
    cpus: float = 0
    pids: int = 512
    command: Sequence[str] = ()
    entrypoint: Sequence[str] = ()
    """Instead of the image's own."""
    environment: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[int, int] = field(default_factory=dict)
    """Container port to host port, on the stage's bind address."""
    volumes: Mapping[str, pulumi.Input[str]] = field(default_factory=dict)
    """Path to named volume."""
    binds: Sequence[str] = ()
    """Directories of the host, mounted under their own paths."""
    read_only: Sequence[str] = ()
    """Directories of the host that are only read."""
    sockets: Mapping[str, str] = field(default_factory=dict)
    """Sockets of the host: path in the container to path there."""
    groups: Sequence[str] = ()
    """Numbers of further groups that ``user`` is in."""
    capabilities: Sequence[str] = ()
    """What the container keeps; nothing, where it is not root's."""
    temporary: Mapping[str, str] = field(default_factory=dict)
    """Path to tmpfs options."""
    host_network: bool = False
    """Whether it is on the host's network instead of the stage's."""
    network: str = ""
    """Somebody else's network that it is on instead of the stage's."""
    knows_host: bool = False
    """Whether it finds the host as ``host.docker.internal``, on every engine."""
    shared_memory: int = 64 * MEBIBYTE
    stop_seconds: int = 30
    open_files: int = 4096


def _duration(seconds: int) -> str:
    """As the engine writes it back (``1m0s``): another spelling would be a change each time."""
    minutes, rest = divmod(seconds, 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


@dataclass(frozen=True)
class Surroundings:
    """What the containers of a stage have in common."""

    settings: Settings
    stage: str
    network: docker.Network


class ServiceContainer:
    """The Docker resources of one service: its configuration volume, its container, its health."""

    def __init__(
        self, service: Service, around: Surroundings, opts: pulumi.ResourceOptions
    ) -> None:
        settings = around.settings
        config = docker.Volume(
            f"{service.host}-config",
            name=f"{service.name}-config",
            labels=[docker.VolumeLabelArgs(label=LABEL, value=around.stage)],
            opts=opts,
        )
        files = Files(
            f"{service.host}-files",
            place=Volume(config.name, service.image, service.user, settings.docker_host),
            files=service.files,
            opts=pulumi.ResourceOptions(parent=opts.parent),
        )
        self.container = docker.Container(
            service.host,
            **_program(service),
            **_attached(service, around),
            **_limits(service),
            **_logs(settings),
            mounts=_mounts(service, config),
            tmpfs=dict(service.temporary),
            healthcheck=_health(service.health),
            wait=False,  # `Healthy` waits, and shows the log where waiting is in vain
            restart="unless-stopped",
            stop_timeout=service.stop_seconds,
            destroy_grace_seconds=service.stop_seconds,
            # The digest makes another container of it when the files have changed.
            labels=[
                docker.ContainerLabelArgs(label=LABEL, value=around.stage),
                docker.ContainerLabelArgs(label=DIGEST_LABEL, value=files.digest),
            ],
            opts=pulumi.ResourceOptions.merge(
                opts, pulumi.ResourceOptions(delete_before_replace=True)
            ),
        )
        self.healthy = Healthy(
            f"{service.host}-healthy",
            container=self.container.id,
            pids=service.pids,
            docker_host=settings.docker_host,
            opts=pulumi.ResourceOptions(parent=opts.parent),
        )


def _program(service: Service) -> dict[str, Any]:
    """What runs, as whom, and with what rights."""
    return {
        "name": service.name,
        "image": service.image,
        "entrypoints": list(service.entrypoint) or None,
        "command": list(service.command) or None,
        "user": service.user,
        "group_adds": list(service.groups) or None,
        "envs": [f"{name}={value}" for name, value in sorted(service.environment.items())],
        "read_only": True,
        "capabilities": docker.ContainerCapabilitiesArgs(
            adds=[f"CAP_{name}" for name in sorted(service.capabilities)], drops=["ALL"]
        ),
        "security_opts": ["no-new-privileges:true"],
    }


def _attached(service: Service, around: Surroundings) -> dict[str, Any]:
    """Its network, its names on it, and its ports."""
    attached: pulumi.Input[str] = service.network or around.network.name
    networks = [
        docker.ContainerNetworksAdvancedArgs(
            name=attached,
            # Several stages may share somebody else's network: no short name there.
            aliases=[service.name if service.network else service.host],
        )
    ]
    known = [docker.ContainerHostArgs(host="host.docker.internal", ip="host-gateway")]
    return {
        "hostname": None if service.host_network else service.host,
        "ports": [
            docker.ContainerPortArgs(
                internal=inside, external=outside, ip=around.settings.bind_address
            )
            for inside, outside in sorted(service.ports.items())
        ],
        "hosts": known if service.knows_host else None,
        "networks_advanced": None if service.host_network else networks,
        # Given, since the provider reads it back and would see a change where it is not.
        "network_mode": "host" if service.host_network else attached,
    }


def _mounts(service: Service, config: docker.Volume) -> list[docker.ContainerMountArgs]:
    volumes = {service.config_directory: config.name, **service.volumes}
    named = [
        docker.ContainerMountArgs(type="volume", source=volume, target=path)
        for path, volume in sorted(volumes.items())
    ]
    binds = [
        docker.ContainerMountArgs(type="bind", source=path, target=path)
        for path in sorted(service.binds)
    ]
    read = [
        docker.ContainerMountArgs(type="bind", source=path, target=path, read_only=True)
        for path in sorted(service.read_only)
    ]
    sockets = [
        docker.ContainerMountArgs(type="bind", source=path, target=inside)
        for inside, path in sorted(service.sockets.items())
    ]
    return [*named, *binds, *read, *sockets]


def _health(health: Health) -> docker.ContainerHealthcheckArgs:
    return docker.ContainerHealthcheckArgs(
        tests=["CMD", *health.command],
        interval=_duration(health.interval_seconds),
        timeout=_duration(health.timeout_seconds),
        retries=health.retries,
        start_period=_duration(health.start_seconds),
    )


def _limits(service: Service) -> dict[str, Any]:
    """Of memory, processor time and open files."""
    return {
        "memory": service.memory // MEBIBYTE,
        "memory_swap": service.memory // MEBIBYTE,
        "shm_size": service.shared_memory // MEBIBYTE,
        # Not `cpus`: the provider reads that back as 1.0 at times, and as 1 at others.
        "cpu_period": CPU_PERIOD if service.cpus else None,
        "cpu_quota": int(service.cpus * CPU_PERIOD) if service.cpus else None,
        "ulimits": [
            docker.ContainerUlimitArgs(
                name="nofile", soft=service.open_files, hard=service.open_files
            )
        ],
    }


def _logs(settings: Settings) -> dict[str, Any]:
    return {
        "log_driver": "json-file",
        "log_opts": {"max-size": str(settings.log_size), "max-file": str(settings.log_files)},
    }
