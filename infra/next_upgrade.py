"""``python -m infra.next_upgrade STAGE --to 18``: what `make upgrade` changes in the stage file.

One change a line, for the shell that makes them: ``set PATH VALUE`` or ``rm PATH``. Nothing is
printed, and the exit status is 2, where the stage cannot take that step: the file stays as it is.
"""

from __future__ import annotations

import argparse
import sys

import docker

from infra import engine, present, stage_paths
from infra.errors import StageError
from infra.images import ROOT
from infra.names import Names
from infra.parts import given_up, upgraded
from infra.settings import Settings, read_file
from migration_job import last_resort

SETTLED = "upgradesSettled"


def to(settings: Settings, version: int) -> list[str]:
    """To that version: the same upgrade forwards, another one, or one after a settled one."""
    if settings.upgrade_step != "settle":
        return [f"set upgradeTo {version}", "set upgradeStep move"]
    last = settings.upgrade_to or 0
    if version <= last:
        raise StageError(
            f"expected a version above {last}, to which the stage was brought for good, found "
            f"{version}",
            advice="nothing was changed; docs/how-to/upgrade.md says what an upgrade can do",
        )
    return [
        f"set {SETTLED}[{len(settings.upgrades_settled)}] {last}",
        f"set upgradeTo {version}",
        "set upgradeStep move",
    ]


def step(settings: Settings, wanted: str) -> list[str]:
    """``back`` or ``settle`` of the upgrade that was begun."""
    if settings.upgrade_to is None:
        raise StageError(
            "expected an upgrade that was begun, found no upgradeTo in the stage file",
            advice="nothing was changed; `make upgrade STAGE=... TO=18` begins one",
        )
    return [f"set upgradeStep {wanted}"]


def removal(settings: Settings) -> list[str]:
    """The upgrade given up, and the newer server removed: as it was before."""
    step(settings, "back")
    if settings.upgrade_step == "settle":
        raise StageError(
            "expected an upgrade that can be given up, found it settled",
            advice="nothing was changed: the older server is gone",
        )
    if not settings.upgrades_settled:
        return ["rm upgradeTo", "rm upgradeStep"]
    last = len(settings.upgrades_settled) - 1
    return [
        f"rm {SETTLED}[{last}]" if last else f"rm {SETTLED}",
        f"set upgradeTo {settings.upgrades_settled[-1]}",
        "set upgradeStep settle",
    ]


def _look(client: docker.DockerClient, settings: Settings, names: Names, chosen: str) -> None:
    """StageError where the engine shows that this step cannot be taken now."""
    if chosen == "to" and settings.upgrade_step == "settle":
        last = settings.upgrade_to or 0
        present.require_settled(client, names, last, given_up(settings, names))
    if chosen == "remove":
        where = stage_paths.paths(settings, names.stack)
        local = engine.is_local(settings.docker_host)
        newer = upgraded(settings, names)[1]
        if present.moved_to(client, where, local=local) == newer.postgres_host:
            raise StageError(
                f"expected the older server to have the data before {newer.postgres} is removed, "
                "found that the newer one has it",
                advice=f"nothing was changed; `make upgrade STAGE={names.stack} BACK=1` first",
            )


def main() -> None:
    """Print the changes."""
    words = argparse.ArgumentParser(prog="python -m infra.next_upgrade", description=__doc__)
    words.add_argument("stage")
    which = words.add_mutually_exclusive_group(required=True)
    which.add_argument("--to", type=int)
    for name in ("back", "settle", "remove"):
        which.add_argument(f"--{name}", action="store_true")
    chosen = words.parse_args()
    try:
        settings = read_file(ROOT / f"Pulumi.{chosen.stage}.yaml")
        if chosen.to is not None:
            changes, name = to(settings, chosen.to), "to"
        elif chosen.remove:
            changes, name = removal(settings), "remove"
        else:
            name = "back" if chosen.back else "settle"
            changes = step(settings, name)
        names = Names(settings.application, chosen.stage)
        _look(engine.connect(settings.docker_host), settings, names, name)
    except StageError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    sys.stdout.write("".join(f"{change}\n" for change in changes))


if __name__ == "__main__":
    last_resort.main(main)
