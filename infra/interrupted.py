"""``pulumi stack export | python -m infra.interrupted STAGE``: after a run that was killed.

Pulumi then has marks of operations that were under way, and refuses or explains at length. Every
step of a stage may be cut off anywhere and run again, so the marks mean nothing more than that some
container or network may be there that the state does not know: it is removed, since it holds no
data, and the next run makes it. The state without the marks is printed for ``pulumi stack import``;
nothing where there are none.

``--lock BACKEND``: prints ``dead`` where the lock on the stage in that directory is of a process of
this machine that is no more.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
from docker.errors import DockerException, NotFound

from infra import engine
from infra.errors import StageError
from infra.images import ROOT
from infra.settings import PROJECT, read_file

SHOWN = 3


@dataclass(frozen=True)
class CutOff:
    """What was under way, and of it what may be there without the state's knowing it."""

    resources: list[str]
    containers: list[str]
    networks: list[str]


def cut_off(export: Mapping[str, Any]) -> CutOff:
    """The state's pending operations."""
    pending = (export.get("deployment") or {}).get("pending_operations") or []
    resources = [one["resource"] for one in pending]
    begun = [one["resource"] for one in pending if one.get("type") == "creating"]

    def named(kind: str) -> list[str]:
        found = [r.get("inputs") or {} for r in begun if str(r.get("type")).endswith(f":{kind}")]
        return [str(inputs["name"]) for inputs in found if inputs.get("name")]

    urns = [str(resource["urn"]).rpartition("::")[2] for resource in resources]
    return CutOff(urns, named("Container"), named("Network"))


def without_marks(export: Mapping[str, Any]) -> dict[str, Any]:
    """The state without pending operations."""
    deployment = dict(export.get("deployment") or {})
    deployment.pop("pending_operations", None)
    return {**export, "deployment": deployment}


def known(export: Mapping[str, Any]) -> set[str]:
    """The engine's ids that the state has."""
    resources = (export.get("deployment") or {}).get("resources") or ()
    return {str(resource["id"]) for resource in resources if resource.get("id")}


def clear(client: docker.DockerClient, found: CutOff, kept: set[str]) -> None:
    """Remove the containers and networks whose making was cut off, unless the state has them.
    Volumes stay: the next run takes one of that name as it is."""
    for name in found.containers:
        with contextlib.suppress(NotFound):
            container = client.containers.get(name)
            if container.id not in kept:
                container.remove(force=True)
    for name in found.networks:
        for network in client.networks.list(names=[name]):
            if network.name == name and network.id not in kept:
                network.remove()


def is_dead(backend: Path, stage: str) -> bool:
    """Whether every lock on the stage is of a process of this machine that has ended."""
    locks = list((backend / ".pulumi" / "locks").glob(f"organization/{PROJECT}/{stage}/*.json"))
    return bool(locks) and all(_ended(lock) for lock in locks)


def _ended(lock: Path) -> bool:
    try:
        said = json.loads(lock.read_text())
        here = str(said["hostname"]) == socket.gethostname()
        os.kill(int(said["pid"]), 0)
    except ProcessLookupError:
        return here
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return False


def main() -> None:
    """Say what was cut off, and print the state without it."""
    words = argparse.ArgumentParser(prog="python -m infra.interrupted", description=__doc__)
    words.add_argument("stage")
    words.add_argument("--lock", type=Path)
    chosen = words.parse_args()
    if chosen.lock is not None:
        print("dead" if is_dead(chosen.lock, chosen.stage) else "")
        return
    export = json.loads(sys.stdin.read() or "{}")
    found = cut_off(export)
    if not found.resources:
        return
    more = len(found.resources) - SHOWN
    told = ", ".join(found.resources[:SHOWN]) + (f" and {more} more" if more > 0 else "")
    sys.stderr.write(f"the run before was interrupted at {told}; continuing from there\n")
    try:
        settings = read_file(ROOT / f"Pulumi.{chosen.stage}.yaml")
        clear(engine.connect(settings.docker_host), found, known(export))
    except (StageError, DockerException) as error:
        sys.exit(f"error: what the interrupted run left could not be removed: {error}")
    json.dump(without_marks(export), sys.stdout)


if __name__ == "__main__":
    main()
