"""``python -m infra.restore STAGE --at TIME``: the database as it was, beside the running one.

The running database is not touched: the backups are restored into a volume of their own and served
on ``restorePort``, for an operator to look at, to take rows from, or to compare.

``--in-place``: the data volume was lost, and is made again from the backups, for ``pulumi up`` to
start the stage on. Where the way back is open, the restored database refuses writes until the sync
has compared it with SQLite and brought up what it lacks: both then hold the same, in a known state.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import docker
from docker.errors import ContainerError, DockerException, NotFound
from docker.models.containers import Container
from docker.types import Mount

from infra import backup, engine, members, present, rendering
from infra.errors import StageError
from infra.execution import execute
from infra.images import ROOT, Builder
from infra.members import Member
from infra.names import Names
from infra.parts import serving
from infra.present_members import members_data
from infra.roles import identifier, psql
from infra.servers import POSTGRES_PORT, data_directory
from infra.settings import Settings, read_file
from migration_job import last_resort
from migration_job.place import records_for

READY_SECONDS = 600
"""Replaying the log of a day may take minutes."""
LOG_LINES = 12
STOP_SECONDS = 60

CLOSE = """
\\set ON_ERROR_STOP on
\\connect {database}
DO $$ BEGIN
    IF to_regclass('{records}.fence') IS NOT NULL THEN
        UPDATE {records}.fence SET closed = true, changed_at = clock_timestamp();
    END IF;
END $$;
"""
"""Nobody else is connected: the restored server is on no port that anybody knows."""

WAY_BACK_TABLES = (
    *("reverse_log", "fence", "fence_lock", "fence_token", "back_difference"),
    *("served", "schema_seen", "one_way"),
)
"""What ``migration-job settle`` removes from the database, beside its triggers."""

SETTLE = """
\\set ON_ERROR_STOP on
\\connect {database}
DO $$ DECLARE own regprocedure; BEGIN
    IF to_regclass('{records}.fence') IS NULL THEN
        RETURN;
    END IF;
    FOR own IN
        SELECT oid FROM pg_proc
        WHERE pronamespace = '{records}'::regnamespace AND proname ~ '^(guard|log_[0-9]+)$'
    LOOP
        EXECUTE format('DROP FUNCTION %s CASCADE', own);
    END LOOP;
    DROP TABLE IF EXISTS {tables};
    UPDATE {records}.run SET phase = 'settled', updated_at = clock_timestamp();
END $$;
"""
"""Of a moment at which the way back was still open. Nobody follows it any more, so that nobody
would open the fence or empty the log."""

TIME = re.compile(r"\d{4}-\d{2}-\d{2} \d{2}:\d{2}:\d{2}(\.\d{1,6})?[+-]\d{2}(:?\d{2})?")


@dataclass(frozen=True)
class Restored:
    """What was made, by the engine's names."""

    container: str
    volume: str


@dataclass(frozen=True)
class Place:
    """Where the server whose backups are restored has its data, and its configuration."""

    mount: str
    data: str
    config: str
    """The volume; of several servers, the first one's."""


def names_of(names: Names) -> Restored:
    return Restored(f"{names.prefix}-restored", f"{names.prefix}-restored-data")


def _place(settings: Settings, names: Names) -> Place:
    for one in members.of(settings, names):
        return Place(one.mount, one.data, f"{one.container}-config")
    mount, data = data_directory(settings.postgres_version)
    return Place(mount, data, f"{names.postgres}-config")


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


@dataclass(frozen=True)
class Kept:
    """What is left of a stage's backups on the engine: enough to read them."""

    image: str
    network: str
    repository: str
    """The volume of the backups, and that of ``pgbackrest.conf``."""
    config: str


def in_place(client: docker.DockerClient, settings: Settings, names: Names, at: str | None) -> None:
    """Make the lost data volume again, as of ``at`` or the newest archived moment. StageError
    where it is not lost, or the backups cannot be read; the volume is then as it was, or gone."""
    _require_loss(client, settings, names)
    kept = _kept(client, settings, names)
    several = members.of(settings, names)
    volume = several[0].volume if several else f"{names.postgres}-data"
    restored = Restored(names_of(names).container, volume)
    remove(client, names)
    if several:
        _begin_anew(client, several)
    mount = _place(settings, names).mount
    client.volumes.create(restored.volume, labels={"sqlite-to-postgresql.stage": names.stack})
    try:
        _unpack(client, kept, restored, mount, at)
        container = _serve(client, settings, names, kept, restored)
        try:
            _await(container)
            _close(container, names, settings)
            container.stop(timeout=STOP_SECONDS)
        finally:
            container.remove(force=True, v=True)
    except (StageError, DockerException):
        # Half of a database is worse than none: the next `up` would start on it.
        client.volumes.get(restored.volume).remove(force=True)
        raise


def _require_loss(client: docker.DockerClient, settings: Settings, names: Names) -> None:
    if several := members.of(settings, names):
        majors = members_data(client, names).majors
        kept = {one.volume: majors[one.host] for one in several if one.host in majors}
    else:
        found = present.data(client, names)
        kept = {found.volume: found.major} if found and found.major else {}
    for volume, major in kept.items():
        more = "; one that is left copies the others (`make up`)" if several else ""
        raise StageError(
            f"expected the volume {volume} to be lost, found PostgreSQL {major}'s data in it",
            advice="nothing was changed; restore beside it (without INPLACE). If it is damaged, "
            "keep a copy, remove the containers that use it and the volume, and run this again"
            f"{more}",
        )


def _begin_anew(client: docker.DockerClient, several: Sequence[Member]) -> None:
    """Forget what etcd knows of the members whose data is lost: who had the last commits, which
    nobody has any more, so that nobody could lead. The first of them begins with what is restored,
    and the others copy it."""
    for one in several:
        for container in (one.container, one.etcd):
            with suppress(NotFound):
                client.containers.get(container).remove(force=True, v=True)
        with suppress(NotFound):
            client.volumes.get(one.agreement).remove()
    # A stage with members' data and nothing of etcd's is refused: an accident looks like it.
    first = several[0]
    client.volumes.create(first.agreement, labels={"sqlite-to-postgresql.stage": first.names.stack})


def _close(container: Container, names: Names, settings: Settings) -> None:
    """Have it refuse writes until the sync has seen that it lacks nothing of what SQLite has. In a
    settled stage it has no way back instead, whatever moment it is of."""
    records = identifier(records_for(settings.schema_name))
    settled = settings.cutover == "settled"
    script = (SETTLE if settled else CLOSE).format(
        database=identifier(names.database),
        records=records,
        tables=", ".join(f"{records}.{name}" for name in WAY_BACK_TABLES),
    )
    status, said = psql(container, script)
    if status:
        what = "rid of the way back" if settled else "closed to writes"
        raise StageError(
            f"the restored database could not be made {what}: {said}",
            advice="nothing was kept of it; run the command again",
        )


def _kept(client: docker.DockerClient, settings: Settings, names: Names) -> Kept:
    """By the names that a stage gives: its containers may have gone with the volume."""
    config, repository = f"{names.backup}-config", f"{names.backup}s"
    for volume in (config, repository, _place(settings, names).config):
        try:
            client.volumes.get(volume)
        except NotFound as error:
            raise StageError(
                f"expected the volume {volume} to read the backups with, found none",
                advice="the backups need both, their files and their key; docs/how-to/"
                "back-up-and-restore.md says what to keep elsewhere",
            ) from error
    builder = Builder(client, settings.image_source, _say, postgres=settings.postgres_image)
    image = builder.images(settings.postgres_version, backup=True)
    try:
        network = client.networks.get(names.network).name or "bridge"
    except NotFound:
        network = "bridge"
    return Kept(image.postgres, network, repository, config)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


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
    execute(source, ["pgbackrest", f"--stanza={backup.STANZA}", "check"])
    restored = names_of(names)
    client.volumes.create(restored.volume, labels={"sqlite-to-postgresql.stage": names.stack})
    kept = _of(source)
    _unpack(client, kept, restored, _place(settings, names).mount, at)
    published = {f"{POSTGRES_PORT}/tcp": (settings.bind_address, settings.restore_port)}
    _await(_serve(client, settings, names, kept, restored, published))


def _backup_container(client: docker.DockerClient, names: Names) -> Container:
    try:
        return client.containers.get(names.backup)
    except NotFound as error:
        raise StageError(
            f"expected the backups' container {names.backup}, found none",
            advice="set `backup: true` in the stage file and run `pulumi up`",
        ) from error


def _of(source: Container) -> Kept:
    """What the backups' container itself has."""
    by_path = {mount["Destination"]: mount["Name"] for mount in source.attrs["Mounts"]}
    network = str(next(iter(source.attrs["NetworkSettings"]["Networks"])))
    image = str(source.attrs["Image"])
    return Kept(image, network, by_path[backup.REPOSITORY], by_path[backup.CONFIG])


def _volumes(kept: Kept) -> list[Mount]:
    return [
        Mount(backup.REPOSITORY, kept.repository, type="volume"),
        Mount(backup.CONFIG, kept.config, type="volume"),
    ]


def _unpack(
    client: docker.DockerClient, kept: Kept, restored: Restored, mount: str, at: str | None
) -> None:
    moment = ["--type=time", f"--target={at}", "--target-action=promote"] if at else []
    image = kept.image
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
            mounts=[data, *_volumes(kept)],
            tmpfs={"/tmp": "mode=1777"},  # noqa: S108 - the container's own
            network=kept.network,
            remove=True,
        )
    except ContainerError as error:
        words = error.stderr or ""
        said = words if isinstance(words, str) else words.decode(errors="replace")
        raise StageError(
            "pgBackRest could not restore:\n" + "\n".join(said.strip().splitlines()[-LOG_LINES:]),
            advice="a moment before the first backup's end cannot be restored; "
            "`pgbackrest info` in the backups' container lists them",
        ) from error


def _serve(
    client: docker.DockerClient,
    settings: Settings,
    names: Names,
    kept: Kept,
    restored: Restored,
    published: dict[str, tuple[str, int]] | None = None,
) -> Container:
    place = _place(settings, names)
    config = Mount(rendering.POSTGRES_CONFIG, place.config, type="volume")
    memory = settings.postgres_memory
    return client.containers.run(
        kept.image,
        [
            "postgres",
            *("-c", f"config_file={rendering.POSTGRES_CONFIG}/postgresql.conf"),
            # It must not write into the archive of the database that it is a copy of.
            *("-c", "archive_mode=off"),
        ],
        name=restored.container,
        user=backup.USER,
        environment={"PGDATA": place.data},
        mounts=[
            Mount(place.mount, restored.volume, type="volume"),
            config,
            *_volumes(kept),
        ],
        tmpfs={
            "/tmp": "mode=1777",  # noqa: S108 - the container's own
            backup.SOCKETS: "uid=999,gid=999,mode=2775",
        },
        ports=published or {},
        network=kept.network,
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
        f"the restored database did not come up; its last output:\n{said}",
        advice="choose another moment; the running database was not touched",
    )


def main() -> None:
    words = argparse.ArgumentParser(prog="python -m infra.restore", description=__doc__)
    words.add_argument("stage")
    words.add_argument("--at", help="the moment, with its zone; the newest state without it")
    words.add_argument("--in-place", action="store_true", help="make the lost data volume again")
    words.add_argument("--remove", action="store_true", help="remove what a restore made")
    chosen = words.parse_args()
    try:
        settings = read_file(ROOT / f"Pulumi.{chosen.stage}.yaml")
        settings, names = serving(settings, Names(settings.application, chosen.stage))
        at = require_time(chosen.at) if chosen.at else None
        client = engine.connect(settings.docker_host)
        if chosen.remove:
            there = remove(client, names)
            sys.stdout.write("removed the restored database\n" if there else "there was none\n")
            return
        if chosen.in_place:
            in_place(client, settings, names, at)
            _say(f"the data is back as of {at or 'its newest archived moment'}; starting the stage")
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
