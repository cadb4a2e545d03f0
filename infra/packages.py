"""Python packages for images, fetched on the host with whichever of uv and pip is there.

A private certificate authority or a proxy is often trusted on the host and not inside an image
build, so an image is given its packages ready-made.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from infra.errors import StageError

FETCH_SECONDS = 900

# The engine's architecture as Docker names it -> as wheels do. 2_28 is older than the images' libc.
PLATFORMS = {"amd64": "x86_64", "arm64": "aarch64"}
GLIBC = ("manylinux_2_28", "manylinux_2_17", "manylinux2014")


def install(requirements: Path, target: Path, *, python: str, architecture: str) -> None:
    """Install pinned, digest-checked requirements for that Python and machine into ``target``.

    ``python`` is a version such as ``3.13``; ``architecture`` is Docker's word (``amd64``).
    Nothing is compiled: only wheels are taken. Raises StageError with the installer's own words.
    """
    machine = PLATFORMS.get(architecture)
    if machine is None:
        allowed = ", ".join(sorted(PLATFORMS))
        raise StageError(f"expected an engine on one of {allowed}, found {architecture}")
    words = ""
    for command in _commands(requirements, target, python, machine):
        # S603: the program is uv or pip as found, the arguments are this module's own.
        done = subprocess.run(  # noqa: S603
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=FETCH_SECONDS,
            check=False,
        )
        if done.returncode == 0:
            return
        words = words or done.stderr.strip() or done.stdout.strip()
        shutil.rmtree(target, ignore_errors=True)
    raise StageError(
        f"expected to fetch Python packages for an image, found: {words or 'neither uv nor pip'}",
        advice="check the network or the proxy and certificate settings of pip (PIP_INDEX_URL, "
        "PIP_CERT), and run the command again",
    )


def _commands(requirements: Path, target: Path, python: str, machine: str) -> Iterator[list[str]]:
    common = ["install", "--quiet", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    common += ["--target", str(target), "--python-version", python, "-r", str(requirements)]
    for uv in (os.environ.get("UV"), shutil.which("uv")):
        if uv:
            yield [uv, "pip", *common, "--python-platform", f"{machine}-{GLIBC[0]}"]
    platforms = [word for libc in GLIBC for word in ("--platform", f"{libc}_{machine}")]
    yield [sys.executable, "-m", "pip", "--disable-pip-version-check", *common, *platforms]
