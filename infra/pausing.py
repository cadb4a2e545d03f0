"""The application's queries wait at PgBouncer in a settled stage, where no job can hold them.

PgBouncer takes PAUSE and RESUME as signals too (SIGUSR1, SIGUSR2), for which nobody needs the
console's password. They are sent inside its container: after a signal by the engine it would no
longer be restarted by itself.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import docker
from docker.models.containers import Container

from infra.errors import StageError
from infra.execution import STDERR, STDOUT, execute
from infra.names import Names
from infra.roles import literal, psql

LONGEST_SECONDS = 300
"""After which PgBouncer goes on by itself, whatever has become of this program."""
SEEN_SECONDS = 10
WAIT_SECONDS = 10
"""For which transactions that are under way may take to end, as in `migration-job hold`."""
POLL_SECONDS = 0.1

BEGIN = 'touch "$0" && date +%s && kill -USR1 1'
"""Says when, by the engine's clock."""
FORGET = 'rm -f "$0"'
END = f"{FORGET}; kill -USR2 1"
AT_LONGEST = f'sleep {LONGEST_SECONDS}; [ ! -e "$0" ] || {{ {END}; }}'

QUIET = """
\\set ON_ERROR_STOP on
DO $$ BEGIN
    FOR look IN 1..{looks} LOOP
        PERFORM pg_stat_clear_snapshot();
        IF NOT EXISTS (SELECT FROM pg_stat_activity
                       WHERE usename IN ({roles}) AND state <> 'idle') THEN
            RETURN;
        END IF;
        PERFORM pg_sleep(0.1);
    END LOOP;
    RAISE EXCEPTION 'a transaction of the application is still open';
END $$;
"""


@contextmanager
def paused(client: docker.DockerClient, names: Names, leader: Container) -> Iterator[None]:
    """With the application's queries waiting at PgBouncer, and none of its transactions under way
    on ``leader``. StageError, with the queries going on, where that is not to be had in time."""
    pooler = client.containers.get(names.pooler)
    mark = f"/tmp/held-{secrets.token_hex(4)}"  # noqa: S108 - the container's own
    _begin_the_end(pooler, mark)
    since = int(_run(pooler, BEGIN, mark))
    end = END
    try:
        if "already" in _heard(pooler, since):
            end = FORGET
            raise StageError(
                "expected PgBouncer to serve the application's queries, found them held already",
                advice="nothing was changed; wait until the other command has ended",
            )
        _await_quiet(names, leader)
        yield
    finally:
        _run(pooler, end, mark)


def _begin_the_end(pooler: Container, mark: str) -> None:
    """Have the queries go on after the longest time, unless this program has seen to it by then."""
    api = cast(Any, pooler.client).api
    made = api.exec_create(pooler.id, ["bash", "-c", AT_LONGEST, mark])
    api.exec_start(made, detach=True)


def _run(pooler: Container, script: str, mark: str) -> str:
    done = execute(pooler, ["bash", "-c", script, mark])
    if done.exit_code:
        said = (done.on(STDERR) or done.output).decode(errors="replace").strip()
        raise StageError(
            f"PgBouncer could not be signalled in {pooler.name}: {said[-500:]}",
            advice="check that the container runs (`make status`); nobody is held for longer than "
            f"{LONGEST_SECONDS} s",
        )
    return done.on(STDOUT).decode()


def _heard(pooler: Container, since: int) -> str:
    """What PgBouncer says to the signal: from then on no transaction begins."""
    deadline = time.monotonic() + SEEN_SECONDS
    while time.monotonic() < deadline:
        lines = pooler.logs(since=since).decode(errors="replace").splitlines()
        for line in reversed(lines):
            if "SIGUSR1" in line:
                return line
        time.sleep(POLL_SECONDS)
    raise StageError(
        f"expected PgBouncer to pause within {SEEN_SECONDS} s, found nothing of it in the log of "
        f"{pooler.name}",
        advice="nothing was changed and the queries go on; look at that log",
    )


def _await_quiet(names: Names, leader: Container) -> None:
    roles = ", ".join(literal(role) for role in (names.application_role, names.second_role))
    status, said = psql(leader, QUIET.format(roles=roles, looks=WAIT_SECONDS * 10))
    if status:
        raise StageError(
            f"expected the application's transactions to end within {WAIT_SECONDS} s, found: "
            f"{said[-300:]}",
            advice="nothing was changed and the queries go on; run it again when no long "
            "transaction is open",
        )
