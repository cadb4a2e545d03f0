"""What the engine has of a stage before anything is changed, and what that forbids.

A data volume is of one major version of PostgreSQL: a server of another does not start on it, or
starts empty beside it. A volume that is gone while PostgreSQL serves the application is an accident
that an empty server would hide. Both stop the program before it has made anything.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, DockerException, NotFound
from docker.models.containers import Container
from docker.types import Mount

from infra import engine, members, settled
from infra.errors import StageError
from infra.looking import LOOK, LOOK_FILES, has_volume, looking
from infra.names import Names
from infra.parts import drilled, older, passed, standing, upgraded
from infra.present_members import members_data, require_their_data
from infra.settings import Settings
from infra.stage_paths import UPGRADED, Paths

NEWEST = 30
"""Majors whose directories are looked for: one of a later time than this code's is seen as well."""


@dataclass(frozen=True)
class Data:
    """The data volume: ``major`` is PostgreSQL's, None where the volume holds no data of it."""

    volume: str
    major: int | None
    logical: bool = True
    """Whether its server was made with ``wal_level = logical``, or is yet to be made."""


def data(client: docker.DockerClient, names: Names) -> Data | None:
    """The stage's data volume; None where there is none. StageError where it cannot be read."""
    volume = f"{names.postgres}-data"
    try:
        client.volumes.get(volume)
        mounts = [Mount(LOOK, volume, type="volume", read_only=True)]
        if has_volume(client, files := f"{names.postgres}-config"):
            mounts.append(Mount(LOOK_FILES, files, type="volume", read_only=True))
        with looking(client, *mounts) as container:
            found = sorted(_majors(container))
            logical = not found or _is_logical(container)
    except NotFound:
        return None
    except DockerException as error:
        raise StageError(f"the engine could not read the volume {volume}: {error}") from error
    # The oldest: what an accident has begun beside it is not the stage's data.
    return Data(volume, found[0][1] if found else None, logical)


def has_backups(client: docker.DockerClient, names: Names) -> bool:
    """Whether the stage has a volume of backups, taken now or before. StageError where the engine
    cannot tell."""
    try:
        return has_volume(client, f"{names.backup}s")
    except DockerException as error:
        raise StageError(f"the engine could not list its volumes: {error}") from error


def _majors(container: Container) -> Iterator[tuple[float, int]]:
    """When each data directory in the volume was made, and its major version; before 18 there is
    one in `pgdata`, from then on one for each version."""
    for directory in ("pgdata", *(f"{major}/docker" for major in range(18, NEWEST))):
        try:
            stream, _ = container.get_archive(f"{LOOK}/{directory}/PG_VERSION")
        except NotFound:
            continue
        with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as tar:
            member = tar.getmembers()[0]
            content = tar.extractfile(member)
            if content is not None:
                yield float(member.mtime), int(content.read().split(b".")[0])


def _is_logical(container: Container) -> bool:
    """What the server's file says of its log; a server without its file is recreated."""
    try:
        stream, _ = container.get_archive(f"{LOOK_FILES}/postgresql.conf")
    except NotFound:
        return True
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as tar:
        content = tar.extractfile(tar.getmembers()[0])
        said = content.read() if content else b""
    return re.search(rb"^wal_level = '?logical'?", said, re.MULTILINE) is not None


def serving(client: docker.DockerClient, where: Paths, *, local: bool) -> Mapping[str, Any]:
    """The side that the connection has writes go to, as it names it; SQLite where there is no
    connection yet."""
    path = where.connection / "current" / "database.json"
    try:
        text = path.read_bytes() if local else _member_there(client, where, path)[1]
        side: Mapping[str, Any] = json.loads(text)["write"]
        return side
    except (FileNotFoundError, NotFound):
        return {"engine": "sqlite"}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StageError(
            f"expected a connection in {path}, found none to read: {error}",
            advice="run as the application's user or as root; `make status` says which side serves",
        ) from error
    except DockerException as error:
        raise StageError(f"the engine could not read {path}: {error}") from error


def require_no_settled_stage(client: docker.DockerClient, where: Paths, *, local: bool) -> None:
    """StageError where the way back was given up: no other word than ``settled`` is left then."""
    path = where.job / "settled"
    try:
        if local:
            path.stat()
        else:
            _member_there(client, where, path)
    except (FileNotFoundError, NotFound):
        return
    except (OSError, DockerException) as error:
        raise StageError(f"expected to be able to check for {path}, found: {error}") from error
    settled.refuse_to_unsettle()


def owner(client: docker.DockerClient, where: Paths, *, local: bool) -> str:
    """``uid:gid`` of whom the connection belongs to: the application's, with or without a source.
    StageError where there is no connection: such a stage was never switched."""
    path = where.connection / "current" / "database.json"
    try:
        if local:
            status = path.stat()
            return f"{status.st_uid}:{status.st_gid}"
        member = _member_there(client, where, path)[0]
    except (OSError, NotFound) as error:
        raise StageError(
            f"expected a connection that names PostgreSQL in {path}, found none to read",
            advice="`cutover: settled` comes after `cutover: switch`; nothing was changed",
        ) from error
    except DockerException as error:
        raise StageError(f"the engine could not read {path}: {error}") from error
    return f"{member.uid}:{member.gid}"


def _member_there(
    client: docker.DockerClient, where: Paths, path: Path
) -> tuple[tarfile.TarInfo, bytes]:
    """A file of the stage's on a remote engine's host. NotFound where there is none."""
    mount = Mount(str(where.state), str(where.state), type="bind", read_only=True)
    try:
        with looking(client, mount) as container:
            stream, _ = container.get_archive(str(path))
    except APIError as error:
        if "bind source path does not exist" in str(error.explanation):
            raise NotFound(str(error.explanation)) from error
        raise
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as tar:
        member = tar.getmembers()[0]
        content = tar.extractfile(member)
        return member, content.read() if content else b""


def require_its_data(
    client: docker.DockerClient, settings: Settings, names: Names, where: Paths
) -> bool:
    """Whether the older PostgreSQL has, or gets, a log for logical replication. StageError where a
    PostgreSQL of the stage's would not come up on the data that it had: the volume is of another
    major version, or is gone while the application is served from it; and where the settings do
    not name the one that serves."""
    if settings.external:
        return True
    local = engine.is_local(settings.docker_host)
    host = moved_to(client, where, local=local) or names.postgres_host
    _require_who_has_it(client, settings, names, host)
    if settings.upgrades_settled:
        require_settled(client, names, settings.version_before, passed(settings, names))
    serves = serving(client, where, local=local)["engine"] == "postgresql"
    if not settings.upgrade_to:
        _require_members_data(client, settings, names, serves=serves)
    if members.of(settings, names):
        return True
    return _require_each(client, settings, names, serves=serves, host=host)


def _require_members_data(
    client: docker.DockerClient, settings: Settings, names: Names, *, serves: bool
) -> None:
    own = members_data(client, names)
    # A look into the first server's volume takes a while, and has a reason where there are members.
    first = data(client, names) if settings.postgres_members > 1 else None
    alone = first is not None and first.major is not None
    require_their_data(settings, names, own, alone=alone, serves=serves)


def _require_each(
    client: docker.DockerClient, settings: Settings, names: Names, *, serves: bool, host: str
) -> bool:
    """The same of each server that stands by itself; the one at ``host`` has the data."""
    logical, before = True, older(settings, names)[1]
    for its, own in standing(settings, names):
        found = data(client, own)
        major = found.major if found else None
        if found and major not in (None, its.postgres_version):
            _refuse_another_version(found, own, its)
        if major is None:
            is_serving = serves and own.postgres_host == host
            left = own == before and own.postgres_host != host
            _refuse_a_loss(found, (its, own), serving=is_serving, left=left)
        if found and own == before:
            logical = found.logical
    return logical


def _refuse_a_loss(
    found: Data | None, of: tuple[Settings, Names], *, serving: bool, left: bool
) -> None:
    """StageError where PostgreSQL's data is gone that the application is served from, or that an
    upgrade has ``left`` and can come back to."""
    settings, names = of
    if serving:
        _refuse_an_empty_server(found, settings, names)
    if left:
        raise StageError(
            f"expected the volume {names.postgres}-data of the server that an upgrade has left, "
            "found none, or no data of PostgreSQL's in it",
            advice="nothing was made in its place; put the volume back from a copy. Where the way "
            "back to that server was given up, set `upgradeStep: settle` again",
        )


def moved_to(client: docker.DockerClient, where: Paths, *, local: bool) -> str:
    """The host that an upgrade has moved the application to, '' where it was not moved."""
    path = where.job / UPGRADED
    try:
        text = path.read_bytes() if local else _member_there(client, where, path)[1]
        note = json.loads(text)
        return str((note if "given" in note else note["moves"][-1])["given"][1][0])
    except (FileNotFoundError, NotFound):
        return ""
    except (OSError, ValueError, LookupError, DockerException) as error:
        raise StageError(f"expected to read the note of an upgrade in {path}: {error}") from error


def _require_who_has_it(
    client: docker.DockerClient, settings: Settings, names: Names, host: str
) -> None:
    """StageError where the settings do not say that the server at ``host`` has the data."""
    newer = upgraded(settings, names)[1].postgres_host if settings.upgrade_to else ""
    before = older(settings, names)[1].postgres_host
    if host == newer or (host == before and settings.upgrade_step != "settle"):
        return
    if host == before:
        raise StageError(
            f"expected PostgreSQL {settings.upgrade_to} to have the application's data before the "
            "older server is given up, found that it was not moved there",
            advice=f"nothing was changed; `make upgrade STAGE={names.stack} "
            f"TO={settings.upgrade_to}` moves it. {_made_again(settings.upgrade_to)}",
        )
    if host == names.postgres_host:
        raise StageError(
            f"expected PostgreSQL {settings.version_before} to have the application's data, as "
            f"upgradesSettled: {list(settings.upgrades_settled)} says, found that it was not moved "
            "there",
            advice=f"nothing was changed; {_made_again(settings.upgrade_to)}",
        )
    _refuse_other_server(client, settings, names, host)


def _made_again(version: int | None) -> str:
    return (
        f"A stage that is made again gets that version by `postgresVersion: {version}` without "
        "`upgradeTo`, `upgradeStep` and `upgradesSettled`"
    )


def _refuse_other_server(
    client: docker.DockerClient, settings: Settings, names: Names, host: str
) -> None:
    """StageError: the server that has the data is none of the settings'."""
    found = f"upgradeTo: {settings.upgrade_to}" if settings.upgrade_to else "no upgradeTo"
    major = int(host.rpartition("-")[2])
    lower = [one for one in settings.upgrades_settled if one < major]
    was = settings.model_copy(update={"upgrades_settled": tuple(lower), "upgrade_to": major})
    if data(client, older(was, names)[1]) is None:
        further = settings.upgrade_to if (settings.upgrade_to or 0) > major else None
        again = f"; then `make upgrade STAGE={names.stack} TO={further}`" if further else ""
        advice = (
            f"set `upgradeTo: {major}` and `upgradeStep: settle` again{again}. The server before "
            "it is gone: there is no way back to it"
        )
    else:
        advice = (
            f"set `upgradeTo: {major}` again. `make upgrade STAGE={names.stack} BACK=1` goes back "
            f"to PostgreSQL {was.version_before}, while the way back is open"
        )
    if settings.upgrades_settled:
        advice += f". upgradesSettled is {lower} then"
    raise StageError(
        f"expected upgradeTo: {major}, since that server has the application's data, found {found}",
        advice=f"nothing was changed; {advice}",
    )


def require_settled(
    client: docker.DockerClient, names: Names, version: int, gone: Sequence[Names]
) -> None:
    """StageError where one of the servers that the upgrade to that version was to have ``gone`` is
    still there: it was not settled to its end."""
    for own in gone:
        try:
            client.containers.get(own.postgres)
        except NotFound:
            continue
        except DockerException as error:
            raise StageError(f"the engine could not look for {own.postgres}: {error}") from error
        raise StageError(
            f"expected the upgrade to PostgreSQL {version} to be settled, found the container "
            f"{own.postgres} of the server before it",
            advice=f"nothing was changed; settle it to its end first: `upgradeTo: {version}` and "
            f"`upgradeStep: settle`, upgradesSettled without {version}, and `make up "
            f"STAGE={names.stack}`",
        )


def _refuse_another_version(found: Data, names: Names, settings: Settings) -> None:
    major, wanted = found.major or 0, settings.postgres_version
    setting = "upgradeTo" if names.beside else "postgresVersion"
    newer = f"`make upgrade STAGE={names.stack} TO={wanted}` makes one beside it and moves the "
    way = f"{newer}application, " if wanted > major and not names.beside else ""
    raise StageError(
        f"expected {setting}: {major}, as the data in the volume {found.volume} is, "
        f"found {setting}: {wanted}",
        advice=f"nothing was changed; set `{setting}: {major}` again. A server of "
        f"another major version cannot read these files. {way}docs/how-to/upgrade.md says how",
    )


def _refuse_an_empty_server(found: Data | None, settings: Settings, names: Names) -> None:
    lost = "none" if found is None else "no data of PostgreSQL's in it"
    back = (
        f"`make restore STAGE={names.stack} INPLACE=1` brings it back from the backups"
        if settings.backup
        else "put the volume back from a copy that you have"
    )
    raise StageError(
        f"expected the volume {names.postgres}-data, from which PostgreSQL serves the application, "
        f"found {lost}",
        advice=f"nothing was made in its place. {back}; `MIGRATION_ACCEPT_LOSS=yes make down "
        f"STAGE={names.stack}` goes back to SQLite without what PostgreSQL alone had",
    )


# ------------------------------------------------------------------------- its containers


WATCHING = ("postgres-exporter", "pgbouncer-exporter", "prometheus", "alertmanager", "dashboard")
GRAFANA = "grafana"
"""What shows the panels instead of the dashboard where its image can be pulled."""


def expected(settings: Settings, names: Names) -> set[str]:
    """The containers that the settings ask for, by the engine's names; the panels' is either of
    two, and named as the light page's."""
    several = members.of(settings, names)
    wanted = {
        **{own.postgres: not several for _, own in standing(settings, names)},
        **{name: True for one in several for name in (one.container, one.etcd)},
        names.leader: bool(several),
        **{own.backup: settings.backup for _, own in standing(settings, names)},
        drilled(settings, names).drill: settings.backup_drill_hours > 0,
        names.pooler: settings.pooler,
        names.sync: settings.follows,
        names.example: settings.example_application,
        names.gate: settings.gate is not None,
    }
    wanted |= dict.fromkeys((f"{names.prefix}-{one}" for one in WATCHING), settings.monitoring)
    return {name for name, there in wanted.items() if there}


def drift(client: docker.DockerClient, settings: Settings, names: Names) -> list[str]:
    """What does not run that is to run, in words; one call of the engine."""
    there = {
        str(name).lstrip("/"): str(container["State"])
        for container in client.api.containers(all=True)
        for name in container["Names"] or ()
    }
    page, grafana = (f"{names.prefix}-{one}" for one in (WATCHING[-1], GRAFANA))
    if grafana in there:
        there[page] = there[grafana]
    return [
        f"{name} is {there.get(name, 'gone')}"
        for name in sorted(expected(settings, names))
        if there.get(name) != "running"
    ]
