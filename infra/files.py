"""The resource ``Files``: files in a Docker volume, with their owner and mode.

Docker's own uploads go to a container's file system, which is read-only here, and belong to root.
A volume works on a remote engine too, and what is in it shows in no `docker inspect`.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import docker
import pulumi
from docker.errors import DockerException, NotFound
from docker.models.containers import Container
from docker.types import Mount
from pulumi.dynamic import CreateResult, Resource, UpdateResult

from infra import engine
from infra.dynamic import StageProvider
from infra.errors import StageError

TARGET = "/files"
MODE = 0o400


def archive(files: Mapping[str, str], user: str, mode: int = MODE) -> bytes:
    """A tar archive of small files of ``user`` (``uid:gid``), who alone may read them unless
    ``mode`` says otherwise."""
    uid, _, gid = user.partition(":")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in sorted(files.items()):
            data = content.encode()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            member.mode = mode
            member.uid, member.gid = int(uid), int(gid or 0)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


class FilesProvider(StageProvider):
    """Writes the files whenever one of them, or where they go, has changed."""

    outputs = ("digest",)

    def create(self, props: Any) -> CreateResult:
        return CreateResult(str(props["volume"]), {**props, "digest": _write(props)})

    def update(self, _id: str, _olds: Any, news: Any) -> UpdateResult:
        return UpdateResult({**news, "digest": _write(news)})

    def there(self, props: Any) -> bool:
        client = engine.connect(props["docker_host"])
        with contextlib.suppress(DockerException):
            return _found(client, props) == {**props["files"], **props["secrets"]}
        return True


def _found(client: docker.DockerClient, props: Mapping[str, Any]) -> dict[str, str] | None:
    """The files that the volume holds; None where there is no such volume."""
    try:
        client.volumes.get(props["volume"])
    except NotFound:
        return None
    container = _holder(client, props)
    try:
        stream, _ = container.get_archive(TARGET)
        with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as tar:
            return {
                PurePosixPath(member.name).relative_to(PurePosixPath(TARGET).name).as_posix(): (
                    content.read().decode(errors="replace")
                )
                for member in tar
                if (content := tar.extractfile(member)) is not None
            }
    finally:
        container.remove(force=True)


def _holder(client: docker.DockerClient, props: Mapping[str, Any]) -> Container:
    """A container that has the volume and is never started."""
    return client.containers.create(
        props["image"],
        # An image without a command of its own is refused otherwise.
        ["true"],
        mounts=[Mount(TARGET, props["volume"], type="volume")],
    )


def _write(props: Mapping[str, Any]) -> str:
    content = archive({**props["files"], **props["secrets"]}, props["user"])
    client = engine.connect(props["docker_host"])
    try:
        container = _holder(client, props)
        try:
            container.put_archive(TARGET, content)
        finally:
            container.remove(force=True)
    except DockerException as error:
        raise StageError(
            f"the engine could not write into the volume {props['volume']}: {error}",
            advice="check the engine's free disk space and run `pulumi up` again",
        ) from error
    # Keyed by the volume's own name: equal files of two stages do not look equal.
    return hmac.digest(props["volume"].encode(), content, hashlib.sha256).hex()


@dataclass(frozen=True)
class Volume:
    """Where files go, and by what: a container of ``image``, for ``user`` to read."""

    name: pulumi.Input[str]
    image: pulumi.Input[str]
    user: str
    """``uid:gid``."""
    docker_host: str


class Files(Resource):
    """Files in a volume. ``digest`` changes with them and tells nothing of what they hold.

    What is given as a plain string stands in Pulumi's state as it is: a secret has to be an output.
    """

    digest: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        *,
        place: Volume,
        files: Mapping[str, pulumi.Input[str]] | pulumi.Output[dict[str, str]],
        opts: pulumi.ResourceOptions,
    ) -> None:
        given = {} if isinstance(files, pulumi.Output) else files
        # Apart, so that a policy can read the plain ones before anything is made: one value that is
        # not known yet makes all beside it unknown.
        plain = {path: text for path, text in given.items() if isinstance(text, str)}
        rest = {path: text for path, text in given.items() if path not in plain}
        super().__init__(
            FilesProvider(),
            name,
            {
                "volume": place.name,
                "image": place.image,
                "user": place.user,
                "files": plain,
                "secrets": files if isinstance(files, pulumi.Output) else rest,
                "docker_host": place.docker_host,
                "digest": None,
            },
            pulumi.ResourceOptions.merge(
                opts, pulumi.ResourceOptions(additional_secret_outputs=["secrets"])
            ),
        )
