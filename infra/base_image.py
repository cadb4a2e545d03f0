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

from infra.errors import StageError

SUITE = "trixie"
MIRROR = "http://deb.debian.org/debian"
MIRROR_VARIABLE = "DEBIAN_MIRROR"
REPOSITORY = "sqlite-to-postgresql/base"
TAG = f"{REPOSITORY}:{SUITE}"
BUILD_SECONDS = 1800

# What a container never reads; it halves the image.
UNUSED = ("usr/share/doc", "usr/share/man", "usr/share/info", "var/cache/apt", "var/lib/apt/lists")


def make(client: docker.DockerClient, say: Callable[[str], None]) -> None:
    """Make :data:`TAG` on the engine. Needs root and debootstrap here, and a Debian mirror.

    The mirror is ``$DEBIAN_MIRROR``, else deb.debian.org. Raises StageError saying which is absent.
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
    mirror = os.environ.get(MIRROR_VARIABLE, MIRROR)
    say(f"building the base image (Debian {SUITE}) from {mirror}")
    with tempfile.TemporaryDirectory(prefix="debootstrap-") as scratch:
        root = Path(scratch) / "root"
        _debootstrap(program, root, mirror)
        archive = Path(scratch) / "root.tar"
        with tarfile.open(archive, "w") as tar:
            tar.add(root, arcname=".", filter=_keep)
        client.api.import_image_from_file(str(archive), repository=REPOSITORY, tag=SUITE)


def _debootstrap(program: str, root: Path, mirror: str) -> None:
    # S603: the program is debootstrap as found; the mirror is the operator's own environment.
    done = subprocess.run(  # noqa: S603
        [program, "--variant=minbase", SUITE, str(root), mirror],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    if done.returncode:
        words = (done.stderr.strip() or done.stdout.strip()).splitlines()[-3:]
        raise StageError(
            f"debootstrap could not make Debian {SUITE} from {mirror}: {' / '.join(words)}",
            advice=f"check that the mirror answers, or name another with {MIRROR_VARIABLE}",
        )


def _keep(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    name = member.name.removeprefix("./")
    if any(name.startswith(f"{unused}/") for unused in UNUSED):
        return None
    return member
