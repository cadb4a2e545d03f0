"""``python -m infra.restore STAGE --at TIME``: the database as it was, beside the running one.

The running database is not touched: the backups are restored into a volume of their own and served
on ``restorePort``, for an operator to look at, to take rows from, or to compare.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from dataclasses import dataclass

import docker
from docker.errors import ContainerError, DockerException, NotFound
from docker.models.containers import Container
from docker.types import Mount

from infra import backup, engine, rendering
from infra.errors import StageError
from infra.images import ROOT
from infra.names import Names
from infra.settings import Settings, read_file
from infra.stage import POSTGRES_PORT, data_directory
from migration_job import last_resort

READY_SECONDS = 600
"""Replaying the log of a day may take minutes."""
LOG_LINES = 12
TIME = re.compile(r"\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}(\.\d{1,6})?[+-]\d{2}(:?\d{2})?")


@dataclass(frozen=True)
class Restored:
    """What was made, by the engine's names."""

    container: str
    volume: str


def names_of(names: Names) -> Restored:
    return Restored(f"{names.prefix}-restored", f"{names.prefix}-restored-data")


def require_time(text: str) -> str:
    """``YYYY-MM-DD HH:MM:SS[.f]`` with a zone; StageError otherwise. Without a zone the moment
    would be the server's guess."""
    if TIME.fullmatch(text) is None:
        raise StageError(
            f"expected a time such as 2026-03-01 14:05:00+00 (with its zone), found {text!a}",
            advice="write the zone: +00 for UTC",
        )
    return text


def remove(client: docker.DockerClient, names: Names) -> bool:
    """Remove what an earlier restore made; whether there was any."""
    restored = names_of(names)
    found = False
    try:
        client.containers.get(restored.container).remove(force=True, v=True)
        found = True
    except NotFound:
        pass
    try:
        client.volumes.get(restored.volume).remove()
        found = True
    except NotFound:
        pass
    return found


def restore(client: docker.DockerClient, settings: Settings, names: Names, at: str | None) -> None:
    """Restore to ``at`` (a moment with its zone; None for the newest state) and serve it.

    Raises StageError where the stage takes no backups, or pgBackRest or PostgreSQL cannot.
    """
    source = _backup_container(client, names)
    remove(client, names)
    local = engine.is_local(settings.docker_host)
    engine.require_port(client, settings.bind_address, settings.restore_port, "", local=local)
    # The last moments are in a segment that is not archived yet; `check` has it archived. Where
    # the running database is down, what is archived already has to do.
    source.exec_run(["pgbackrest", f"--stanza={backup.STANZA}", "check"])
    restored = names_of(names)
    client.volumes.create(restored.volume, labels={"sqlite-to-postgresql.stage": names.stack})
    mount, _ = data_directory(settings.postgres_version)
    _unpack(client, source, restored, mount, at)
    container = _serve(client, settings, names, source, mount)
    _await(container)


def _backup_container(client: docker.DockerClient, names: Names) -> Container:
    try:
        return client.containers.get(names.backup)
    except NotFound as error:
        raise StageError(
            f"expected the backups' container {names.backup}, found none",
            advice="set `backup: true` in the stage file and run `pulumi up`",
        ) from error


def _volumes(source: Container, *paths: str) -> list[Mount]:
    """The backup container's own volumes at those paths."""
    by_path = {mount["Destination"]: mount["Name"] for mount in source.attrs["Mounts"]}
    return [Mount(path, by_path[path], type="volume") for path in paths]


def _unpack(
    client: docker.DockerClient, source: Container, restored: Restored, mount: str, at: str | None
) -> None:
    moment = ["--type=time", f"--target={at}", "--target-action=promote"] if at else []
    image = source.attrs["Image"]
    data = Mount(mount, restored.volume, type="volume")
    own = ["chown", backup.USER, mount]
    try:
        # A new volume takes the image's owner only where the image has files there.
        client.containers.run(image, own, entrypoint=[], user="0:0", mounts=[data], remove=True)
        client.containers.run(
            image,
            [f"--stanza={backup.STANZA}", "--log-level-stderr=error", *moment, "restore"],
            entrypoint=["pgbackrest"],
            user=backup.USER,
            mounts=[data, *_volumes(source, backup.REPOSITORY, backup.CONFIG)],
            tmpfs={"/tmp": "mode=1777"},  # noqa: S108 - the container's own
            network=_network(source),
            remove=True,
        )
    except ContainerError as error:
        words = error.stderr or ""
        said = words if isinstance(words, str) else words.decode(errors="replace")
        raise StageError(
            "pgBackRest could not restore:\n" + "\n".join(said.strip().splitlines()[-LOG_LINES:]),
            advice="a moment before the first backup's end cannot be restored; "
            f"`docker exec {source.name} pgbackrest info` lists the backups",
        ) from error


def _network(source: Container) -> str:
    return str(next(iter(source.attrs["NetworkSettings"]["Networks"])))


def _serve(
    client: docker.DockerClient, settings: Settings, names: Names, source: Container, mount: str
) -> Container:
    restored = names_of(names)
    config = Mount(rendering.POSTGRES_CONFIG, f"{names.postgres}-config", type="volume")
    _, data = data_directory(settings.postgres_version)
    memory = settings.postgres_memory
    return client.containers.run(
        source.attrs["Image"],
        [
            "postgres",
            *("-c", f"config_file={rendering.POSTGRES_CONFIG}/postgresql.conf"),
            # It must not write into the archive of the database that it is a copy of.
            *("-c", "archive_mode=off"),
        ],
        name=restored.container,
        user=backup.USER,
        environment={"PGDATA": data},
        mounts=[
            Mount(mount, restored.volume, type="volume"),
            config,
            *_volumes(source, backup.REPOSITORY, backup.CONFIG),
        ],
        tmpfs={
            "/tmp": "mode=1777",  # noqa: S108 - the container's own
            backup.SOCKETS: "uid=999,gid=999,mode=2775",
        },
        ports={f"{POSTGRES_PORT}/tcp": (settings.bind_address, settings.restore_port)},
        network=_network(source),
        mem_limit=memory,
        memswap_limit=memory,
        shm_size=memory // 4,
        read_only=True,
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        labels={"sqlite-to-postgresql.stage": names.stack},
        detach=True,
    )


def _await(container: Container) -> None:
    """Until it has replayed the log and takes writes; StageError with its log where it does not."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        container.reload()
        if container.status != "running":
            break
        said = container.logs(tail=200).decode(errors="replace")
        if "database system is ready to accept connections" in said:
            return
        time.sleep(0.5)
    said = container.logs(tail=LOG_LINES).decode(errors="replace")
    raise StageError(
        f"the restored database did not come up; its last words:\n{said}",
        advice="choose another moment; the running database was not touched",
    )


def main() -> None:
    words = argparse.ArgumentParser(prog="python -m infra.restore", description=__doc__)
    words.add_argument("stage")
    words.add_argument("--at", help="the moment, with its zone; the newest state without it")
    words.add_argument("--remove", action="store_true", help="remove what a restore made")
    chosen = words.parse_args()
    try:
        settings = read_file(ROOT / f"Pulumi.{chosen.stage}.yaml")
        names = Names(settings.application, chosen.stage)
        at = require_time(chosen.at) if chosen.at else None
        client = engine.connect(settings.docker_host)
        if chosen.remove:
            there = remove(client, names)
            sys.stdout.write("removed the restored database\n" if there else "there was none\n")
            return
        restore(client, settings, names, at)
    except (StageError, DockerException) as error:
        sys.exit(f"error: {error}")
    where = f"{settings.bind_address}:{settings.restore_port}/{names.database}"
    sys.stdout.write(
        f"the database as of {at or 'its newest archived state'} is at {where}, beside the "
        f"running one\nwith the passwords of that time; look at it, take what you need, then\n"
        f"  make restore STAGE={chosen.stage} REMOVE=1\n"
    )


if __name__ == "__main__":
    last_resort.main(main)
