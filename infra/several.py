"""Declares PostgreSQL on several servers: volumes, etcd, the members, haproxy, and their sum."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pulumi
import pulumi_docker as docker

from infra import backup, clustered, members
from infra.closed import Closed
from infra.containers import ServiceContainer
from infra.membership import Beginning, Membership
from infra.parts import Parts


@dataclass(frozen=True)
class Making:
    """How a stage declares its parts."""

    volume: Callable[..., docker.Volume]
    container: Callable[..., ServiceContainer]
    own: Callable[..., pulumi.ResourceOptions]


@dataclass(frozen=True)
class Several:
    """What was declared."""

    healthy: list[pulumi.Resource]
    """What has to be there before anything asks PostgreSQL."""
    ids: pulumi.Output[str]
    """The members' containers, one text that changes with any of them."""
    seen: Mapping[str, pulumi.Input[str]]
    """The volumes that the backups' container sees, by path: data and sockets of each."""


def declare(
    parts: Parts, closed: Closed, making: Making, repository: Mapping[str, pulumi.Input[str]]
) -> Several:
    """The servers and what they agree by; ``repository`` is the volume of the backups by its path,
    none where none are taken."""
    found = members.of(parts.settings, parts.names)
    agreed: list[pulumi.Resource] = []
    for one in found:
        volume = making.volume(f"{one.etcd_host}-data", one.agreement)
        # Together: one alone has nobody to agree with, and is healthy when two do.
        made = making.container(clustered.etcd(parts, closed, one, volume.name))
        agreed.append(made.healthy)
    seen: dict[str, pulumi.Input[str]] = {}
    containers: list[ServiceContainer] = []
    begun: list[pulumi.Resource] = []
    before = agreed
    for one in found:
        protect = parts.settings.protect_data
        data = making.volume(f"data-{one.number}", one.volume, protect=protect)
        mounted: dict[str, pulumi.Input[str]] = {one.mount: data.name}
        seen[one.mount] = data.name
        if repository:
            sockets = making.volume(f"sockets-{one.number}", one.sockets)
            mounted |= {backup.SOCKETS: sockets.name, **repository}
            seen[f"{members.SOCKETS}/{one.number}"] = sockets.name
        # One after the other: a change of all of them leaves two that serve.
        made = making.container(clustered.member(parts, closed, one, mounted), *before)
        if not containers:
            # Beside the wait for its health, which it comes to by this.
            host = parts.settings.docker_host
            opts = making.own(made.container)
            begun.append(Beginning("beginning", parts.stage, host, one.container, opts))
        containers.append(made)
        before = [made.healthy]
    healthy: list[pulumi.Resource] = [made.healthy for made in containers]
    authority = closed.members_authority or ""
    leader = making.container(clustered.leader(parts, authority), *agreed)
    ids = [made.container.id for made in containers]
    whole = Membership(
        "membership",
        parts.names,
        parts.settings.docker_host,
        clustered.in_common(parts),
        ids,
        making.own(*healthy, leader.healthy, *begun),
    )
    return Several([*healthy, leader.healthy, whole], pulumi.Output.all(*ids).apply(",".join), seen)
