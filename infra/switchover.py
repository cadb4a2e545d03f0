"""``python -m infra.switchover STAGE``: another member of PostgreSQL takes over, in order.

The job holds the application's queries at PgBouncer meanwhile, so that none fails; it lets them go
where the switchover fails, too. In a settled stage this program does so itself.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import docker
from docker.errors import DockerException, NotFound

from infra import engine, members, pausing
from infra.clustered import HEALTH_PORT
from infra.errors import StageError
from infra.execution import STDERR, STDOUT, execute
from infra.images import ROOT
from infra.members import Member, Standing
from infra.names import Names
from infra.settings import Settings, read_file
from infra.settled import MODE as SETTLED
from migration_job import last_resort

HOLD_MINUTES = 5
"""At most; the sync ends the hold then, whatever has become of this program."""
LED_SECONDS = 60
POLL_SECONDS = 0.1

Say = Callable[[str], None]


def switch_over(
    client: docker.DockerClient, settings: Settings, names: Names, to: str | None, say: Say
) -> str:
    """Have the member ``to`` lead, or the one that follows synchronously; returns its host's name.
    StageError where the members are not whole, or it is not that one."""
    found = members.of(settings, names)
    if not found:
        raise StageError(
            "expected a stage with postgresMembers: 3, found one PostgreSQL, which nobody follows",
            advice="a stage gets its members when it is made: docs/how-to/stand-by.md",
        )
    before = members.standing(client, found)
    candidate = _candidate(before, found, to)
    leader = next(one.host for one in before if one.leads)
    alone = settings.cutover == SETTLED and settings.pooler
    with _paused(client, names, found, say) if alone else _held(client, names, say):
        words = ["--leader", leader, "--candidate", candidate, "--force"]
        members.patronictl(client, found, ["switchover", names.prefix, *words])
        _await_led(client, names, candidate)
    return candidate


def _candidate(before: Sequence[Standing], found: Sequence[Member], to: str | None) -> str:
    if lacks := members.missing(before, found):
        raise StageError(
            f"expected all members of PostgreSQL to follow, found: {'; '.join(lacks)}",
            advice="nothing was changed; `make up` makes again what is missing",
        )
    (follower,) = [one.host for one in before if one.role == members.FOLLOWS_SYNCHRONOUSLY]
    if to not in (None, follower):
        raise StageError(
            f"expected {follower}, which follows synchronously, to take over, found {to!a}",
            advice="nothing was changed; only it has every acknowledged commit. Run it without TO",
        )
    return follower


@contextmanager
def _held(client: docker.DockerClient, names: Names, say: Say) -> Iterator[None]:
    """With the application's queries held by the job, where its sync is there to do it."""
    command = _hold_command(client, names)
    if command is None:
        say("no sync runs that could hold the application's queries: those under way will fail")
        yield
        return
    began = time.monotonic()
    reason = ["--reason", "switchover of PostgreSQL", "--minutes", str(HOLD_MINUTES)]
    _run(client, names, ["hold", *command, *reason, "--by", "make switchover"])
    try:
        yield
    finally:
        _run(client, names, ["resume", *command])
    say(f"the application's queries were held for {time.monotonic() - began:.1f} s")


@contextmanager
def _paused(
    client: docker.DockerClient, names: Names, found: Sequence[Member], say: Say
) -> Iterator[None]:
    """The same in a settled stage, where the job has no part any more."""
    began = time.monotonic()
    with pausing.paused(client, names, members.leading(client, found)):
        yield
    say(f"the application's queries were held for {time.monotonic() - began:.1f} s")


def _hold_command(client: docker.DockerClient, names: Names) -> list[str] | None:
    """The options by which the sync is run, which are those of a hold."""
    try:
        sync = client.containers.get(names.sync)
    except NotFound:
        return None
    if sync.status != "running":
        return None
    _, *words = sync.attrs["Config"]["Cmd"]
    port = words.index("--metrics-port")
    return [*words[:port], *words[port + 2 :]]


def _run(client: docker.DockerClient, names: Names, words: list[str]) -> None:
    done = execute(client.containers.get(names.sync), ["python3", "-m", "migration_job", *words])
    if done.exit_code:
        said = (done.on(STDERR) or done.output).decode(errors="replace").strip()
        raise StageError(
            f"`migration-job {words[0]}` ended with status {done.exit_code}: {said[-500:]}",
            advice="`make status` says who holds the application's queries, and until when",
        )


def led(client: docker.DockerClient, names: Names) -> list[str]:
    """The members to which haproxy leads now: one, or none while there is no leader."""
    ask = "printf 'GET /stats;csv HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3"
    command = ["bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{HEALTH_PORT}; {ask}"]
    done = execute(client.containers.get(names.leader), command)
    rows = [row.split(",") for row in done.on(STDOUT).decode(errors="replace").splitlines()]
    return [
        row[1]
        for row in rows
        if row[0] == "leader"
        and len(row) > STATUS
        and row[1] not in ("FRONTEND", "BACKEND")
        and row[STATUS].startswith("UP")
    ]


STATUS = 17
"""The column of haproxy's statistics in which a server's status is."""


def _await_led(client: docker.DockerClient, names: Names, candidate: str) -> None:
    deadline = time.monotonic() + LED_SECONDS
    while led(client, names) != [candidate]:
        if time.monotonic() > deadline:
            raise StageError(
                f"expected haproxy to lead to {candidate} within {LED_SECONDS} s, found "
                f"{', '.join(led(client, names)) or 'nobody'}",
                advice="`make status` shows the members; look at the logs of the members",
            )
        time.sleep(POLL_SECONDS)


def main() -> None:
    words = argparse.ArgumentParser(prog="python -m infra.switchover", description=__doc__)
    words.add_argument("stage")
    words.add_argument("--to", help="the member that is to lead")
    chosen = words.parse_args()
    try:
        settings = read_file(ROOT / f"Pulumi.{chosen.stage}.yaml")
        names = Names(settings.application, chosen.stage)
        client = engine.connect(settings.docker_host)
        leads = switch_over(client, settings, names, chosen.to, _say)
    except (StageError, DockerException) as error:
        sys.exit(f"error: {error}")
    _say(f"{leads} leads; the others follow it")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    last_resort.main(main)
