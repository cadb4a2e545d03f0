"""Where a stage's files are, on this machine or on a remote engine's host.

The paths are the same for the host, its containers and the application. On this machine the program
looks and makes directories itself; on a remote engine's host a container of the job does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, ContainerError, DockerException
from docker.types import Mount

from infra.errors import StageError
from infra.execution import STDERR, STDOUT, execute
from infra.images import ROOT
from infra.names import Names
from infra.settings import Settings
from migration_job.connection import SqliteSide, read_connection, write_connection

SYSTEM_DIRECTORIES = ("/", "/bin", "/boot", "/dev", "/etc", "/lib", "/proc", "/run", "/sbin")
SYSTEM_TREES = ("/usr", "/sys", "/proc", "/dev", "/opt/migration", "/run/job")

MAGIC = b"SQLite format 3\0"
UPGRADED = "upgraded.json"
"""In the job's directory, where an upgrade has moved the application to another server."""
EXAMPLE = "example"
"""What ``source`` says for a database that the program makes."""


@dataclass(frozen=True)
class Paths:
    """A stage's source and its own directories, absolute."""

    source: Path
    """Of a fleet its manifest."""
    state: Path

    @property
    def connection(self) -> Path:
        return self.state / "connection"

    @property
    def report(self) -> Path:
        return self.state / "report"

    @property
    def job(self) -> Path:
        return self.state / "job"


def paths(settings: Settings, stack: str) -> Paths:
    """The stage's paths. StageError for a source that containers cannot be given."""
    state = (ROOT / (settings.state_directory or f".state/{stack}")).resolve()
    example = settings.source == EXAMPLE
    named = settings.fleet or settings.source
    source = state / "example" / "radcase.db" if example else ROOT / named
    source = Path(os.path.normpath(source))
    for directory in (source.parent, state):
        text = str(directory)
        if text in SYSTEM_DIRECTORIES or any(
            text == tree or text.startswith(f"{tree}/") for tree in SYSTEM_TREES
        ):
            raise StageError(
                f"expected the source and the state in directories of their own, found {text}",
                advice="the directory is mounted in containers under the same path; move the file "
                "to one such as /srv/radcase",
            )
    return Paths(source, state)


def _no_source(source: Path, found: str) -> StageError:
    return StageError(
        f"expected the SQLite file {source}, found {found}",
        advice="set `source` in the stage file to the application's database",
    )


# ---------------------------------------------------------------------------- this machine


def require_source(source: Path) -> None:
    """StageError where the source is not a readable SQLite file on this machine."""
    try:
        with source.open("rb") as file:
            head = file.read(len(MAGIC))
    except OSError as error:
        raise _no_source(source, f"none to read: {error.strerror}") from error
    if head != MAGIC:
        raise _no_source(source, "no SQLite database in it")


def prepare_here(paths: Paths, *, example: bool, dry_run: bool) -> str:
    """Make the stage's directories (unless ``dry_run``); returns ``uid:gid`` of the source's owner,
    whom the job's containers run as."""
    if not example:
        require_source(paths.source)
    elif not dry_run:
        _make_example(paths.source)
    if not paths.source.exists():  # a preview, before the example is made
        return f"{os.geteuid()}:{os.getegid()}"
    status = paths.source.stat()
    if not dry_run:
        make_directories(paths, status.st_uid, status.st_gid)
    return f"{status.st_uid}:{status.st_gid}"


def make_directories(paths: Paths, uid: int, gid: int, *, names_source: bool = True) -> None:
    """The stage's directories, the job's own, and in them a connection that names SQLite until
    something else is written there, where it ``names_source``. Repeatable."""
    if os.geteuid() not in (0, uid):
        raise StageError(
            f"expected to run as root or as the owner of {paths.source} (user {uid}), found user "
            f"{os.geteuid()}",
            advice="run pulumi as that user: the stage's files are to be the application's own",
        )
    for directory in (paths.state, paths.connection, paths.report, paths.job):
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    paths.job.chmod(0o700)
    if names_source and read_connection(paths.connection) is None:
        here = SqliteSide(path=str(paths.source))
        write_connection(paths.connection, here, here, owner=(uid, gid))
    if os.geteuid() == 0:
        for path in (paths.state, paths.report, paths.job, *paths.connection.rglob("*")):
            os.chown(path, uid, gid, follow_symlinks=False)
        os.chown(paths.connection, uid, gid)


def _make_example(source: Path) -> None:
    """A database like RadCase's own in the place of the source, unless one is there."""
    if source.exists():
        return
    source.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    aside = source.with_name(f".{source.name}.new")
    aside.unlink(missing_ok=True)
    # S603: this project's own program, and a path of its own.
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "migration_job.demo.radcase", str(aside)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise StageError(
            f"the example database could not be made: {done.stderr.strip()[-500:]}",
            advice="set `source` in the stage file to a database of your own",
        )
    aside.replace(source)


# -------------------------------------------------------------------- a remote engine's host

_LOOK = """
import json, os, sys
path = sys.argv[1]
try:
    with open(path, "rb") as file:
        head = file.read(16).hex()
    status = os.stat(path)
except OSError as error:
    print(json.dumps({"problem": error.strerror}))
else:
    print(json.dumps({"head": head, "uid": status.st_uid, "gid": status.st_gid}))
"""

_MAKE = """
import os, sys
from pathlib import Path
from migration_job.connection import SqliteSide, read_connection, write_connection
state, source, uid, gid = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
connection, report, job = (state / name for name in ("connection", "report", "job"))
for directory in (connection, report, job):
    directory.mkdir(mode=0o755, exist_ok=True)
job.chmod(0o700)
if read_connection(connection) is None:
    here = SqliteSide(path=source)
    write_connection(connection, here, here, owner=(uid, gid))
for path in (state, report, job, connection, *connection.rglob("*")):
    os.chown(path, uid, gid, follow_symlinks=False)
"""


def prepare_there(
    client: docker.DockerClient, image: str, paths: Paths, *, example: bool, dry_run: bool
) -> str:
    """As :func:`prepare_here`, on the engine's host, by containers of the job's image."""
    if dry_run:
        return "0:0"
    if example:
        raise StageError(
            "expected a `source` on the engine's host, found `example`",
            advice="an example is made on this machine alone; name a file there",
        )
    try:
        found = _look(client, image, paths.source)
        if "problem" in found:
            raise _no_source(paths.source, f"none to read there: {found['problem']}")
        if bytes.fromhex(found["head"]) != MAGIC:
            raise _no_source(paths.source, "no SQLite database in it")
        uid, gid = found["uid"], found["gid"]
        client.containers.run(
            image,
            ["-c", _MAKE, str(paths.state), str(paths.source), str(uid), str(gid)],
            entrypoint=["python3"],
            user="0:0",
            network_mode="none",
            remove=True,
            # Not `mounts`: the engine makes a directory that is missing for these.
            volumes={str(paths.state): {"bind": str(paths.state), "mode": "rw"}},
        )
    except ContainerError as error:
        raise StageError(
            f"the stage's directories could not be made in {paths.state} on the engine's host: "
            f"{str(error).splitlines()[-1]}"
        ) from error
    except DockerException as error:
        raise StageError(f"the engine could not check its host's files: {error}") from error
    return f"{uid}:{gid}"


def ask_there(client: docker.DockerClient, names: Names, command: list[str]) -> str:
    """What a command says in the sync's container, which has the stage's directories under their
    own paths. StageError with its words where it fails, or where there is no such container."""
    try:
        done = execute(client.containers.get(names.sync), command)
    except DockerException as error:
        raise StageError(
            f"expected the container {names.sync} on the engine to check with, found: {error}",
            advice="run `pulumi up`; a stage with `strategy: offline` has it from the switch on",
        ) from error
    if done.exit_code:
        words = (done.on(STDERR) or done.output).decode(errors="replace").strip()
        raise StageError(f"{' '.join(command)} failed there: {words[-500:]}")
    return done.on(STDOUT).decode(errors="replace")


def _look(client: docker.DockerClient, image: str, source: Path) -> dict[str, Any]:
    directory = str(source.parent)
    try:
        said = client.containers.run(
            image,
            ["-c", _LOOK, str(source)],
            entrypoint=["python3"],
            user="0:0",
            network_mode="none",
            remove=True,
            mounts=[Mount(directory, directory, type="bind", read_only=True)],
        )
    except APIError as error:
        raise _no_source(source, f"no directory for it there: {error.explanation}") from error
    found: dict[str, Any] = json.loads(said)
    return found
