"""What the engine has of a PostgreSQL on several servers before anything is changed, and what that
forbids. One member's data may be lost: it is copied again. All of it may not, and a stage stays
with the number of servers that it was made with.
"""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass

import docker
from docker.errors import DockerException, NotFound
from docker.models.containers import Container
from docker.types import Mount

from infra import members
from infra.errors import StageError
from infra.looking import LOOK, has_volume, looking
from infra.names import Names
from infra.setting_types import SEVERAL
from infra.settings import Settings


@dataclass(frozen=True)
class MembersData:
    """What is there of the members."""

    majors: dict[str, int]
    """Members with data, to the major version of PostgreSQL that it is of."""
    agreement: bool
    """Whether one of etcd's volumes is there."""


def members_data(client: docker.DockerClient, names: Names) -> MembersData:
    """Looks into the members' volumes. StageError where the engine cannot."""
    found = members.all_of(names)
    try:
        volumes = [one for one in found if has_volume(client, one.volume)]
        agreement = any(has_volume(client, one.agreement) for one in found)
        if not volumes:
            return MembersData({}, agreement)
        mounts = [
            Mount(f"{LOOK}/{one.number}", one.volume, type="volume", read_only=True)
            for one in volumes
        ]
        with looking(client, *mounts) as container:
            majors = {one.host: _major(container, one.number) for one in volumes}
    except DockerException as error:
        raise StageError(f"the engine could not look into the members' data: {error}") from error
    return MembersData({host: major for host, major in majors.items() if major}, agreement)


def _major(container: Container, number: int) -> int:
    try:
        stream, _ = container.get_archive(f"{LOOK}/{number}/data/PG_VERSION")
    except NotFound:
        return 0
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as tar:
        content = tar.extractfile(tar.getmembers()[0])
        return int(content.read().split(b".")[0]) if content else 0


def require_their_data(
    settings: Settings, names: Names, found: MembersData, *, alone: bool, serves: bool
) -> None:
    """StageError where the members would not come up on the data that is there: ``alone`` says
    that a single server of the stage has some, ``serves`` that the application is served by
    PostgreSQL."""
    number = settings.postgres_members
    if (alone and number > 1) or (found.majors and number == 1):
        made = 1 if alone else SEVERAL
        raise StageError(
            f"expected postgresMembers: {made}, as the stage was made with, found {number}",
            advice=f"nothing was changed; set `postgresMembers: {made}` again. `make down "
            f"STAGE={names.stack}` goes back to SQLite, while the way back is open, and `make up` "
            f"with `postgresMembers: {number}` then moves the application there",
        )
    if number > 1:
        _refuse_another_version(settings, found)
        _refuse_a_loss(settings, names, found, serves=serves)


def _refuse_another_version(settings: Settings, found: MembersData) -> None:
    wrong = set(found.majors.values()) - {settings.postgres_version}
    if wrong:
        raise StageError(
            f"expected postgresVersion: {min(wrong)}, as the members' data is, found "
            f"postgresVersion: {settings.postgres_version}",
            advice=f"nothing was changed; set `postgresVersion: {min(wrong)}` again. Several "
            "servers are not brought to another version in place: docs/how-to/stand-by.md says "
            "what can be done",
        )


def _refuse_a_loss(settings: Settings, names: Names, found: MembersData, *, serves: bool) -> None:
    if serves and not found.majors:
        raise StageError(
            "expected one of the members to have the data, from which PostgreSQL serves the "
            "application, found none",
            advice="nothing was made in its place. "
            f"{_backups(settings, names)}`MIGRATION_ACCEPT_LOSS=yes make down STAGE={names.stack}` "
            "goes back to SQLite without what PostgreSQL alone had",
        )
    lost = ", ".join(one.host for one in members.all_of(names) if one.host not in found.majors)
    if found.majors and lost and not found.agreement:
        raise StageError(
            f"expected etcd's data, or the data of all members, found neither: {lost} has none",
            advice="nothing was changed: a member without data could begin an empty PostgreSQL. "
            "Put one of etcd's volumes back, or the member's, from a copy",
        )


def _backups(settings: Settings, names: Names) -> str:
    if not settings.backup:
        return "Put one of the volumes back from a copy; "
    return f"`make restore STAGE={names.stack} INPLACE=1` brings it back from the backups; "
