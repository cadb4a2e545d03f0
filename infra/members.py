"""The members of a stage whose PostgreSQL runs on several servers: what they are called, and what
Patroni says of them.

One leads and takes the writes, one follows synchronously, the rest follow. Patroni decides which by
what etcd holds; nothing here remembers it, since it changes while nobody looks.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import docker
from docker.errors import DockerException, NotFound
from docker.models.containers import Container

from infra.errors import StageError
from infra.execution import STDERR, STDOUT, execute
from infra.names import Names
from infra.rendering import POSTGRES_CONFIG
from infra.setting_types import SEVERAL
from infra.settings import Settings

PATRONI = f"{POSTGRES_CONFIG}/patroni.yml"
DATA = "/var/lib/members"
"""Below it a directory for each member, under the same path wherever it is mounted: pgBackRest
compares the path with the server's own."""
SOCKETS = "/var/run/members"
"""Where the backups' container has the directory of each member's socket."""

API_PORT = 8008
"""Patroni's, by which it is asked."""
ETCD_METRICS_PORT = 2381

LEADS, FOLLOWS_SYNCHRONOUSLY = "Leader", "Sync Standby"
"""Roles, as Patroni calls them."""
SERVING_STATES = ("running", "streaming")


@dataclass(frozen=True)
class Member:
    """One of the servers, with the etcd beside it."""

    names: Names
    number: int
    """From 1 on."""

    @property
    def host(self) -> str:
        return f"postgres-{self.number}"

    @property
    def container(self) -> str:
        return f"{self.names.prefix}-{self.host}"

    @property
    def volume(self) -> str:
        return f"{self.container}-data"

    @property
    def mount(self) -> str:
        """Where the volume is, and below it the data directory."""
        return f"{DATA}/{self.number}"

    @property
    def data(self) -> str:
        return f"{self.mount}/data"

    @property
    def sockets(self) -> str:
        """The volume of the socket that the backups' container shares."""
        return f"{self.container}-sockets"

    @property
    def etcd_host(self) -> str:
        return f"etcd-{self.number}"

    @property
    def etcd(self) -> str:
        return f"{self.names.prefix}-{self.etcd_host}"

    @property
    def agreement(self) -> str:
        """The volume of the etcd."""
        return f"{self.etcd}-data"


def of(settings: Settings, names: Names) -> list[Member]:
    """The stage's members; none where PostgreSQL is one server, or somebody else's."""
    if settings.external or settings.postgres_members != SEVERAL:
        return []
    return all_of(names)


def all_of(names: Names) -> list[Member]:
    """As a stage with members has them."""
    return [Member(names, number) for number in range(1, SEVERAL + 1)]


def databases(settings: Settings, names: Names) -> list[str]:
    """The containers in which PostgreSQL runs, whichever leads."""
    return [member.container for member in of(settings, names)] or [names.postgres]


@dataclass(frozen=True)
class Standing:
    """How one member stands, by Patroni's word."""

    host: str
    role: str
    state: str
    lag_megabytes: int | None = None
    """Behind the leader; None where that cannot be told."""
    restarts: bool = False
    """Whether a setting waits for its restart."""

    @property
    def leads(self) -> bool:
        return self.role == LEADS

    @property
    def serves(self) -> bool:
        return self.state in SERVING_STATES

    def __str__(self) -> str:
        if self.leads:
            return f"{self.host} leads" if self.serves else f"{self.host} leads ({self.state})"
        how = "follows synchronously" if self.role == FOLLOWS_SYNCHRONOUSLY else "follows"
        if not self.serves:
            return f"{self.host} does not follow ({self.state})"
        lag = f", {self.lag_megabytes} MB behind" if self.lag_megabytes else ""
        return f"{self.host} {how}{lag}"


def standing(client: docker.DockerClient, members: Sequence[Member]) -> list[Standing]:
    """How the members stand, as etcd has it. StageError where none of their containers can tell."""
    said = patronictl(client, members, ["list", "--format", "json"])
    try:
        rows: list[dict[str, Any]] = json.loads(said)
    except ValueError as error:
        raise StageError(f"expected Patroni's list of members, found {said[:200]!a}") from error
    return sorted((_read(row) for row in rows), key=lambda one: one.host)


def _read(row: dict[str, Any]) -> Standing:
    lag = row.get("Lag in MB")
    return Standing(
        host=str(row["Member"]),
        role=str(row["Role"]),
        state=str(row["State"]),
        lag_megabytes=lag if isinstance(lag, int) else None,
        restarts=bool(row.get("Pending restart")),
    )


def missing(found: Sequence[Standing], members: Sequence[Member]) -> list[str]:
    """What the members lack of being whole, in words: all serve, one leads, one follows it
    synchronously."""
    by_host = {one.host: one for one in found}
    lacks = [
        f"{member.host} is {by_host[member.host].state if member.host in by_host else 'not there'}"
        for member in members
        if member.host not in by_host or not by_host[member.host].serves
    ]
    if not any(one.leads and one.serves for one in found):
        lacks.append("nobody leads")
    if not any(one.role == FOLLOWS_SYNCHRONOUSLY and one.serves for one in found):
        lacks.append("nobody follows synchronously")
    return lacks


def patronictl(
    client: docker.DockerClient,
    members: Sequence[Member],
    words: Sequence[str],
    given: str = "",
) -> str:
    """What Patroni's own command says in the first member's container that answers; ``given`` is
    its standard input. StageError with its last words where it fails in each."""
    said = "none of the members' containers runs"
    for member in members:
        try:
            container = client.containers.get(member.container)
            if container.status != "running":
                continue
            done = execute(
                container,
                [
                    *("bash", "-c", 'printf %s "$GIVEN" | patronictl -c "$0" "$@"'),
                    *(PATRONI, *words),
                ],
                {"GIVEN": given},
            )
        except NotFound:
            continue
        except DockerException as error:
            raise StageError(f"the engine could not reach {member.container}: {error}") from error
        if done.exit_code == 0:
            return done.on(STDOUT).decode(errors="replace")
        said = (done.on(STDERR) or done.output).decode(errors="replace").strip()[-500:]
    raise StageError(
        f"expected Patroni to answer to `{' '.join(words[:2])}`, found: {said}",
        advice="look at the members' and etcd's logs; `make up` makes again what is missing",
    )


def leading(client: docker.DockerClient, members: Sequence[Member]) -> Container:
    """The container of the member that takes writes. StageError where there is none now."""
    leader = next((one for one in standing(client, members) if one.leads), None)
    if leader is None:
        raise StageError(
            "expected one of the members to lead, found none",
            advice="wait for Patroni to choose one (half a minute), then run the same again; "
            "`make status` shows the members",
        )
    (member,) = [one for one in members if one.host == leader.host]
    return client.containers.get(member.container)


def serving(client: docker.DockerClient, settings: Settings, names: Names) -> Container:
    """The container of the PostgreSQL that takes writes, of one server or of several."""
    members = of(settings, names)
    return leading(client, members) if members else client.containers.get(names.postgres)
