"""A Debian base image made with debootstrap, for engines that reach no container registry."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import docker

from infra import debian
from infra.errors import StageError

REPOSITORY = "sqlite-to-postgresql/base"
UNDATED = f"{REPOSITORY}:{debian.SUITE}"
"""Made of what a mirror served at the time."""
DATED = f"{UNDATED}-{debian.DAY}"
TAGS = (DATED, UNDATED)
"""What a base may be called that is there already, the better one first."""
BUILD_SECONDS = 1800

# What a container never reads; it halves the image.
UNUSED = ("usr/share/doc", "usr/share/man", "usr/share/info", "var/cache/apt", "var/lib/apt/lists")


def make(client: docker.DockerClient, say: Callable[[str], None]) -> str:
    """Make the base on the engine, from where :func:`infra.debian.archive` says; its tag, one of
    :data:`TAGS`. Needs root and debootstrap here. Raises StageError saying what is absent.
    """
    program = shutil.which("debootstrap")
    if program is None or os.geteuid() != 0:
        raise StageError(
            "expected a container registry that answers, or root and debootstrap to build the "
            f"base image here; found {'no debootstrap' if program is None else 'no root'}",
            advice="make docker.io reachable for the engine, or on Debian run "
            "`apt-get install debootstrap` and `make images` as root, or load the images that "
            "`docker save` wrote elsewhere",
        )
    source = debian.archive(say)
    tag = DATED if source.day else UNDATED
    say(f"building the base image (Debian {debian.SUITE}) from {source.url}")
    with tempfile.TemporaryDirectory(prefix="debootstrap-") as scratch:
        root = Path(scratch) / "root"
        _debootstrap(program, root, source.url)
        archive = Path(scratch) / "root.tar"
        with tarfile.open(archive, "w") as tar:
            tar.add(root, arcname=".", filter=_keep)
        name = tag.partition(":")[2]
        client.api.import_image_from_file(str(archive), repository=REPOSITORY, tag=name)
    return tag


def _debootstrap(program: str, root: Path, mirror: str) -> None:
    # S603: the program is debootstrap as found; the mirror is the operator's own environment.
    done = subprocess.run(  # noqa: S603
        [program, "--variant=minbase", debian.SUITE, str(root), mirror],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    if done.returncode:
        words = (done.stderr.strip() or done.stdout.strip()).splitlines()[-3:]
        raise StageError(
            f"debootstrap could not make Debian {debian.SUITE} from {mirror}: {' / '.join(words)}",
            advice=f"check that the mirror answers, or name another with {debian.MIRROR_VARIABLE}",
        )


def _keep(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    name = member.name.removeprefix("./")
    if any(name.startswith(f"{unused}/") for unused in UNUSED):
        return None
    return member
