"""The resource ``Membership``: several servers that are one PostgreSQL, whole.

It keeps in etcd what the members have in common, restarts those whose settings wait for it, one
after the other, and waits until all follow. What was removed and made again follows by itself; a
member that lost its data is copied from the leader.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from typing import Any

import docker
import pulumi
from docker.errors import DockerException
from docker.models.containers import Container
from pulumi.dynamic import CreateResult, Resource, UpdateResult

from infra import engine, members
from infra.dynamic import StageProvider, say
from infra.errors import StageError
from infra.execution import STDOUT, execute
from infra.members import Member
from infra.names import Names

WHOLE_SECONDS = 300
"""Enough for a copy of a few gigabytes; a larger one goes on after the update has said so."""
POLL_SECONDS = 1.0


class MembershipProvider(StageProvider):
    """Sees to the members at creation, and again when a container or a setting has changed."""

    def create(self, props: Any) -> CreateResult:
        _see_to(props)
        return CreateResult(f"{props['stack']}/members", props)

    def update(self, _id: str, _olds: Any, news: Any) -> UpdateResult:
        _see_to(news)
        return UpdateResult(news)


def _see_to(props: Any) -> None:
    client = engine.connect(props["docker_host"])
    found = members.all_of(Names(props["application"], props["stack"]))
    _await_leader(client, found)
    members.patronictl(
        client, found, ["edit-config", "--force", "--quiet", "--apply", "-"], props["common"]
    )
    restart_waiting(client, found, props["scope"])
    await_whole(client, found)


def _await_leader(client: docker.DockerClient, found: Sequence[Member]) -> None:
    deadline = time.monotonic() + WHOLE_SECONDS
    while True:
        try:
            members.leading(client, found)
        except StageError:
            if time.monotonic() > deadline:
                raise
        else:
            return
        time.sleep(POLL_SECONDS)


def restart_waiting(client: docker.DockerClient, found: Sequence[Member], scope: str) -> None:
    """Restart the members whose settings wait for it, those that follow first."""
    waiting = [one for one in members.standing(client, found) if one.restarts]
    for one in sorted(waiting, key=lambda one: one.leads):
        say(f"restarting PostgreSQL in {one.host} for its settings")
        members.patronictl(client, found, ["restart", "--force", "--pending", scope, one.host])


def await_whole(
    client: docker.DockerClient, found: Sequence[Member], seconds: float = WHOLE_SECONDS
) -> None:
    """Return when all members follow; StageError, naming those that do not, after a while."""
    deadline, told = time.monotonic() + seconds, ""
    while lacks := members.missing(members.standing(client, found), found):
        words = "; ".join(lacks)
        if time.monotonic() > deadline:
            raise StageError(
                f"expected all members of PostgreSQL to follow, found: {words}",
                advice="the application is served meanwhile where one leads. A large copy goes on "
                "by itself: `make status` shows it; then run `make up` again",
            )
        if words != told:
            say(f"waiting for the members: {words}")
            told = words
        time.sleep(POLL_SECONDS)


LOOK = """
import sys
from patroni.config import Config
from patroni.dcs import get_dcs
dcs = get_dcs(Config(sys.argv[1]))
cluster = dcs.get_cluster()
if cluster.initialize:
    print("begun")
elif cluster.initialize is not None and all(
    one.data.get("state") == "stopped" for one in cluster.members
):
    print("stuck")
    if sys.argv[2:]:
        dcs.cancel_initialization()
"""
"""Patroni marks in etcd that a member begins, and nobody else begins while the mark is there: also
when that member was killed, or heard no answer, and does not begin itself."""


class BeginningProvider(StageProvider):
    """Sees to it that the first PostgreSQL is begun, and that a beginning that died is taken up."""

    def create(self, props: Any) -> CreateResult:
        _await_beginning(props)
        return CreateResult(f"{props['stack']}/beginning", props)

    def there(self, props: Any) -> bool:
        client = engine.connect(props["docker_host"])
        with contextlib.suppress(DockerException, StageError):
            return _look(client.containers.get(props["container"])) != "stuck"
        return True


def _look(container: Container, *more: str) -> str:
    """``begun``, ``stuck``, or '' where neither can be told."""
    done = execute(container, ["python3", "-c", LOOK, members.PATRONI, *more])
    return done.on(STDOUT).decode(errors="replace").strip() if done.exit_code == 0 else ""


def _await_beginning(props: Any) -> None:
    """Until PostgreSQL is begun. A mark that nobody works at, seen twice, is taken away."""
    client = engine.connect(props["docker_host"])
    deadline, before = time.monotonic() + WHOLE_SECONDS, ""
    while True:
        try:
            container = client.containers.get(props["container"])
            found = _look(container)
            if found == "begun":
                return
            if found == before == "stuck":
                say("a member began PostgreSQL and did not go on: it begins again")
                _look(container, "again")
        except DockerException as error:
            raise StageError(f"the engine could not reach the first member: {error}") from error
        if time.monotonic() > deadline:
            raise StageError(
                f"expected the first member of PostgreSQL to begin within {WHOLE_SECONDS} s, found "
                "that it did not",
                advice=f"look at its log (`docker logs {props['container']}`) and at etcd's, then "
                "run `make up` again",
            )
        before = found
        time.sleep(STUCK_SECONDS if found == "stuck" else POLL_SECONDS)


STUCK_SECONDS = 10


class Beginning(Resource):
    """The first PostgreSQL of several servers, begun by its first member."""

    def __init__(
        self,
        name: str,
        stack: str,
        docker_host: str,
        container: str,
        opts: pulumi.ResourceOptions,
    ) -> None:
        props = {"stack": stack, "docker_host": docker_host, "container": container}
        super().__init__(BeginningProvider(), name, props, opts)


class Membership(Resource):
    """The members of one PostgreSQL."""

    def __init__(
        self,
        name: str,
        names: Names,
        docker_host: str,
        common: dict[str, Any],
        containers: Sequence[pulumi.Input[str]],
        opts: pulumi.ResourceOptions,
    ) -> None:
        """``common`` is what etcd is to hold of them; ``containers`` are the members' ids."""
        super().__init__(
            MembershipProvider(),
            name,
            {
                "application": names.application,
                "stack": names.stack,
                "scope": names.prefix,
                "docker_host": docker_host,
                "common": json.dumps(common, sort_keys=True),
                "containers": list(containers),
            },
            opts,
        )
