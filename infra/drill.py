"""The restore drill: a container that restores the newest backup, and compares what it holds.

``python -m infra.drill STAGE`` has it done at once, and tells how it went.
"""

from __future__ import annotations

import argparse
import json
import secrets
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import docker
import pulumi
from docker.errors import DockerException, NotFound
from docker.models.containers import Container

from infra import backup, engine, rendering, servers
from infra.closed import Closed
from infra.containers import MEBIBYTE, Health, Service
from infra.errors import StageError
from infra.execution import STDERR, STDOUT, execute
from infra.images import ROOT
from infra.monitoring import DRILL_METRICS_PORT
from infra.names import Names
from infra.parts import Parts, drilled
from infra.settings import Settings, read_file
from migration_job import last_resort
from migration_job.plural import counted

PROGRAM = "/usr/local/lib/backup/drill.py"
HOME = "/var/lib/drill"
MEMORY = 512 * MEBIBYTE
POLL_SECONDS = 0.5

HBA = "local all postgres peer\n"
"""Of the restored server: its only client is the program beside it."""

_ASK = f'printf %s "$0" >{HOME}/request.new && mv {HOME}/request.new {HOME}/request'


def service(
    parts: Parts,
    closed: Closed,
    volumes: Mapping[str, pulumi.Input[str]],
    home: pulumi.Input[str],
) -> Service:
    """The drill's container. ``volumes`` are PostgreSQL's by path, of which it has the sockets and
    the repository; ``home`` is its own, for the copy and for the record."""
    settings, names = parts.settings, parts.names
    superuser = closed.password("superuser").apply(lambda password: f"*:*:*:*:{password}\n")
    return Service(
        name=names.drill,
        host=names.drill_host,
        image=parts.images.postgres,
        user=backup.USER,
        memory=MEMORY,
        cpus=settings.postgres_cpus,
        pids=128,
        health=Health(
            ["bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{DRILL_METRICS_PORT}"], start_seconds=30
        ),
        config_directory=backup.CONFIG,
        files={
            **servers.backup_files(parts, closed, backup.CONFIG, data=f"{HOME}/data"),
            "server.conf": rendering.postgresql_conf(
                settings, parts.stage, logical=parts.found.logical
            ),
            "server_hba.conf": HBA,
            "pgpass": superuser,
        },
        entrypoint=["python3", PROGRAM],
        command=[
            f"--hours={settings.backup_drill_hours}",
            f"--database={names.database}",
            f"--port={DRILL_METRICS_PORT}",
        ],
        environment={"PGPASSFILE": f"{backup.CONFIG}/pgpass"},
        volumes={path: volumes[path] for path in (backup.REPOSITORY, backup.SOCKETS)}
        | {HOME: home},
        temporary={"/tmp": "mode=1777"},  # noqa: S108 - the container's own
        stop_seconds=60,
    )


# ------------------------------------------------------------------------- what it has done


def container(client: docker.DockerClient, settings: Settings, names: Names) -> Container:
    """The drill's, of the PostgreSQL that serves; StageError where the stage has none."""
    if not settings.backup_drill_hours:
        raise StageError(
            "expected backupDrillHours in the stage file, found none",
            advice=f"set `backup: true` and `backupDrillHours: 24` in Pulumi.{names.stack}.yaml, "
            f"then `make up STAGE={names.stack}`",
        )
    name = drilled(settings, names).drill
    try:
        return client.containers.get(name)
    except NotFound as error:
        raise StageError(
            f"expected the container {name}, found none",
            advice=f"run `make up STAGE={names.stack}`, which makes it",
        ) from error


def record(found: Container) -> dict[str, Any]:
    """What the drill's program has written of itself. StageError where it cannot be read."""
    try:
        done = execute(found, ["cat", f"{HOME}/record.json"])
        said = json.loads(done.on(STDOUT)) if done.exit_code == 0 else None
    except DockerException as error:
        raise StageError(f"the drill's container {found.name} does not answer: {error}") from error
    if not isinstance(said, dict):
        raise StageError(
            f"expected the drill's record in {found.name}, found: "
            f"{done.on(STDERR).decode(errors='replace').strip()}",
            advice=f"look at its log: docker logs {found.name}",
        )
    return said


def told(said: Mapping[str, Any], now: float) -> str:
    """The record in one line."""
    last, doing = said["last"], said["doing"]
    under_way = f"; now {doing}" if doing else ""
    if last is None:
        return f"{doing}, for the first time" if doing else "none yet: the first backup is awaited"
    if last["failure"]:
        passed = f"passed {_ago(said['last_success'], now)}" if said["last_success"] else "never"
        return f"FAILED {_ago(last['started'], now)}: {last['failure']} (last {passed}){under_way}"
    return f"passed {_ago(last['started'], now)}: {_passed(last)}{under_way}"


def _passed(last: Mapping[str, Any]) -> str:
    moment = datetime.fromtimestamp(last["moment"], UTC).strftime("%Y-%m-%d %H:%M:%S+00")
    read = f"{counted(last['tables'], 'table')}, {counted(last['rows'], 'row')}"
    if not last["compared"]:
        return f"{read}, read and not compared (wal_level = replica), of {moment} or later"
    rewritten = (
        f"; rewritten meanwhile: {', '.join(last['rewritten'])}" if last["rewritten"] else ""
    )
    return f"{read}, as PostgreSQL had them at {moment}, from {last['backup']}{rewritten}"


def _ago(moment: float, now: float) -> str:
    minutes = int((now - moment) // 60)
    if minutes < 120:
        return f"{counted(minutes, 'minute')} ago"
    return f"{counted(minutes // 60, 'hour')} ago"


def now(found: Container) -> str:
    """Have a drill done, saying each step; the line of its result. StageError where it failed."""
    request = secrets.token_hex(8)
    asked = execute(found, ["bash", "-c", _ASK, request])
    if asked.exit_code:
        raise StageError(f"the drill could not be asked for: {asked.output.decode().strip()}")
    step = ""
    while (said := record(found))["answered"] != request:
        if said["doing"] != step:
            step = said["doing"]
            if step:
                sys.stdout.write(f"{step}\n")
                sys.stdout.flush()
        time.sleep(POLL_SECONDS)
    line = told(said, time.time())
    if said["last"]["failure"]:
        raise StageError(
            f"the restore drill failed: {said['last']['failure']}",
            advice="take it that the backups cannot be restored until one passes; "
            "docs/how-to/drill.md says what each failure means",
        )
    return line


def main() -> None:
    words = argparse.ArgumentParser(prog="python -m infra.drill", description=__doc__)
    words.add_argument("stage")
    stage = words.parse_args().stage
    try:
        settings = read_file(ROOT / f"Pulumi.{stage}.yaml")
        client = engine.connect(settings.docker_host)
        line = now(container(client, settings, Names(settings.application, stage)))
    except (StageError, DockerException) as error:
        sys.exit(f"error: {error}")
    sys.stdout.write(f"the drill {line}\n")


if __name__ == "__main__":
    last_resort.main(main)
