"""Runs one command of the migration job in a container, to its end.

The container is the source's owner's, without capabilities, on a read-only file system, with the
directories that it needs mounted at the paths that they have on the host, so that a path in a
report is the same to everybody. Secrets reach it as files in a volume of its own that goes with it.
"""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import PurePosixPath
from secrets import token_hex
from typing import Any

import docker
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.models.containers import Container
from docker.types import LogConfig, Mount

from infra.errors import StageError
from infra.files import archive
from infra.images import Builder

SECRETS = "/run/job"
POLICY_NAME = "policy.yaml"
POLICY_FILE = f"{SECRETS}/{POLICY_NAME}"
"""The policy's file there."""
ERROR = "error: "
"""How the job's last sentence begins."""
LAST_WORDS = 12
"""Lines of a failed job that the error repeats."""
PIDS = 256

ROOT_CAPABILITIES = ("CHOWN", "DAC_OVERRIDE", "FOWNER")
"""For a source that belongs to root: its files are to be given to their readers."""

STEP_CAPABILITIES = (*ROOT_CAPABILITIES, "SETGID", "SETUID")
"""For an image of the operator's: an entrypoint that begins as root goes over to another user."""


@dataclass(frozen=True)
class Place:
    """Where a stage's job runs: everything that its containers have in common. Plain data, since
    it is kept in Pulumi's state."""

    docker_host: str
    image: str
    network: str
    user: str
    """``uid:gid``."""
    memory: int
    log_size: int
    log_files: int
    binds: tuple[str, ...]
    """Directories of the host, mounted under their own paths."""
    read_only: tuple[str, ...] = ()
    """Directories of the host that are only read."""
    volumes: Mapping[str, str] = field(default_factory=dict)
    """Named volumes and where they are mounted."""
    stage: str = ""


@dataclass(frozen=True)
class Ended:
    """How a command of the job ended."""

    status: int
    lines: tuple[str, ...]
    """Its last lines, oldest first; from the one that begins the error on, where there is one."""

    @property
    def words(self) -> str:
        return "\n".join(line for line in self.lines if line.strip())


@dataclass(frozen=True)
class Call:
    """A container for one command: its name, its secrets, and another program than the job."""

    name: str
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Files below :data:`SECRETS`: name to content."""
    entrypoint: tuple[str, ...] = ()
    """A program of the image that is given the arguments; () for ``migration-job``."""


def run(
    client: docker.DockerClient,
    place: Place,
    call: Call,
    arguments: Sequence[str],
    say: Callable[[str], None],
) -> Ended:
    """Run ``migration-job ARGUMENTS`` in a container of its own and pass on its lines. Those of its
    error are returned alone.

    A container of that name that an interrupted update left behind is ended first: every command
    of the job may be cut off anywhere and run again. Raises StageError where the engine refuses.
    """

    def create() -> Container:
        return _create(client, place, call, arguments, say)

    try:
        files = archive(call.secrets, place.user)
        return _to_its_end(client, call.name, create, files, say, holding=True)
    except APIError as error:
        raise StageError(
            f"the engine could not run the migration job: {error.explanation or error}",
            advice="correct the cause and run the same command again, it continues where it "
            "stopped",
        ) from error


@dataclass(frozen=True)
class Step:
    """What the operator has the stage run: a command of an image of his own."""

    image: str
    command: tuple[str, ...]
    """() for the image's own."""
    environment: Mapping[str, str] = field(repr=False)
    files: Mapping[str, str] = field(default_factory=dict)
    """Below :data:`SECRETS`, for everybody in the container to read."""
    hidden: tuple[str, ...] = field(default=(), repr=False)
    """What no line of it is to show."""


def run_step(
    client: docker.DockerClient, place: Place, name: str, step: Step, say: Callable[[str], None]
) -> Ended:
    """Run the step in a container called ``name`` on the stage's network and pass on its lines.

    It has none of the host's directories and none of the job's secrets, runs as the image's own
    user, and its file system goes with it. Raises StageError where the engine refuses.
    """

    def create() -> Container:
        options = _step_options(place, name, step)
        words = list(step.command) or None
        try:
            return client.containers.create(step.image, words, **options)
        except ImageNotFound:
            _pull(client, step.image, say)
            return client.containers.create(step.image, words, **options)

    def told(line: str) -> None:
        say(_without(line, step.hidden))

    files = archive(step.files, "0:0", mode=0o444)
    try:
        ended = _to_its_end(client, name, create, files, told)
    except APIError as error:
        explained = _without(str(error.explanation or error), step.hidden)
        raise StageError(
            f"the engine could not run the image {step.image}: {explained}",
            advice="correct the image or the command and run `pulumi up` again",
        ) from error
    return Ended(ended.status, tuple(_without(line, step.hidden) for line in ended.lines))


def hand(client: docker.DockerClient, place: Place, name: str, files: Mapping[str, str]) -> None:
    """Put files below :data:`SECRETS` of a command of the job that runs; APIError where it does
    not run any more."""
    client.containers.get(name).put_archive(SECRETS, archive(files, place.user))


def _without(line: str, hidden: Sequence[str]) -> str:
    for secret in hidden:
        line = line.replace(secret, "***")
    return line


def _pull(client: docker.DockerClient, image: str, say: Callable[[str], None]) -> None:
    say(f"the engine has no image {image}: pulling it")
    try:
        client.images.pull(image)
    except (APIError, ImageNotFound) as error:
        raise StageError(
            f"expected the image {image} on the engine or in its registry, found none: "
            f"{error.explanation or error}",
            advice="build or pull it there (`docker images` lists what the engine has), and run "
            "`pulumi up` again",
        ) from error


def _step_options(place: Place, name: str, step: Step) -> dict[str, Any]:
    return {
        **_common_options(place, name),
        "cap_add": list(STEP_CAPABILITIES),
        "environment": dict(step.environment),
        "mounts": [Mount(SECRETS, None, type="volume")],
    }


def _to_its_end(
    client: docker.DockerClient,
    name: str,
    create: Callable[[], Container],
    files: bytes,
    say: Callable[[str], None],
    *,
    holding: bool = False,
) -> Ended:
    """Create the container, put the files into it, start it, pass on its lines and wait for its
    end; it is gone then. With ``holding`` the lines of its error are not passed on, where it fails:
    they are in what is returned. Raises APIError."""
    _remove(client, name)
    container = create()
    try:
        container.put_archive(SECRETS, files)
        container.start()
        last: deque[str] = deque(maxlen=LAST_WORDS)
        later: list[str] = []
        for line in _printed(container):
            last.append(line)
            if holding and (later or line.startswith(ERROR)):
                later.append(line)
            else:
                say(line)
        status = int(container.wait()["StatusCode"])
        error = _error(container, later) if status else []
    finally:
        with contextlib.suppress(DockerException):
            container.remove(force=True, v=True)
    held = Counter(error)
    for line in later:
        held[line] -= 1
        if held[line] < 0:
            say(line)
    return Ended(status, tuple(error[-LAST_WORDS:] or last))


def _error(container: Container, later: list[str]) -> list[str]:
    """The error's lines, out of the ``later`` ones that came from its first line on: what was
    printed before it on the other stream may come after it."""
    alone = list(_lines([container.logs(stdout=False)])) if later else []
    starts = (place for place, line in enumerate(alone) if line.startswith(ERROR))
    first = next(starts, None)
    return later if first is None else alone[first:]


def _create(
    client: docker.DockerClient,
    place: Place,
    call: Call,
    arguments: Sequence[str],
    say: Callable[[str], None],
) -> Container:
    """The container; the present code's image where the one that the state names was removed."""
    options = _options(place, call.name)
    if call.entrypoint:
        options["entrypoint"] = list(call.entrypoint)
    try:
        return client.containers.create(place.image, list(arguments), **options)
    except ImageNotFound:
        say("the job's image is gone from the engine")
        image = Builder(client, "auto", say).job()
        return client.containers.create(image, list(arguments), **options)


def _options(place: Place, name: str) -> dict[str, Any]:
    root = place.user.partition(":")[0] == "0"
    return {
        **_common_options(place, name),
        "user": place.user,
        "read_only": True,
        "cap_add": list(ROOT_CAPABILITIES) if root else [],
        "tmpfs": {"/tmp": "mode=1777"},  # noqa: S108 - the container's own
        "mounts": [
            *(Mount(path, path, type="bind") for path in place.binds),
            *(Mount(path, path, type="bind", read_only=True) for path in place.read_only),
            *(Mount(path, volume, type="volume") for volume, path in place.volumes.items()),
            Mount(SECRETS, None, type="volume"),
        ],
    }


def _common_options(place: Place, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "detach": True,
        "network": place.network,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "pids_limit": PIDS,
        "mem_limit": place.memory,
        "memswap_limit": place.memory,
        "init": True,
        "log_config": LogConfig(
            type="json-file",
            config={"max-size": str(place.log_size), "max-file": str(place.log_files)},
        ),
        "labels": {"sqlite-to-postgresql.stage": place.stage},
    }


def _printed(container: Container) -> Iterator[str]:
    """Each line of a container, as it comes, to its end."""
    count = 0
    for line in _lines(container.logs(stream=True, follow=True)):
        count += 1
        yield line
    container.wait()
    # A busy engine may end the stream that follows a container before its last lines.
    yield from islice(_lines([container.logs()]), count, None)


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """The engine's log, which comes in pieces, as whole lines of plain text."""
    pending = b""
    for chunk in chunks:
        pending += chunk
        *whole, pending = pending.split(b"\n")
        for line in whole:
            yield _plain(line)
    if pending:
        yield _plain(pending)


def _plain(line: bytes) -> str:
    text = line.decode(errors="replace").rstrip("\r")
    return "".join(character if character.isprintable() else " " for character in text)


def _remove(client: docker.DockerClient, name: str) -> None:
    try:
        client.containers.get(name).remove(force=True, v=True)
    except NotFound:
        return


def read_json(
    client: docker.DockerClient, place: Place, name: str, path: PurePosixPath
) -> dict[str, Any]:
    """A JSON object from a mounted directory of the host, wherever the engine is."""
    found: dict[str, Any] = json.loads(read_text(client, place, name, path) or "{}")
    return found


def read_text(client: docker.DockerClient, place: Place, name: str, path: PurePosixPath) -> str:
    """A file from what the job's containers have mounted. NotFound where there is none.

    ``name`` is the beginning of the container's: several may look at a time, as Pulumi does when it
    refreshes.
    """
    unique = f"{name}-{token_hex(4)}"
    container = client.containers.create(place.image, **_options(place, unique))
    try:
        stream, _ = container.get_archive(str(path))
        with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as tar:
            content = tar.extractfile(tar.getmembers()[0])
            return content.read().decode(errors="replace") if content else ""
    finally:
        container.remove(force=True, v=True)
