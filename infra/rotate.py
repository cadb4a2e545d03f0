"""``python -m infra.rotate STAGE``: end the application's login that no longer serves.

The second half of a rotation. After ``pulumi up`` with a higher ``credentialsVersion`` the
application has moved to its other login; the one before, valid until now, is refused from here on.
"""

from __future__ import annotations

import argparse
import json
import sys

from docker.errors import DockerException

from infra import engine, members
from infra.errors import StageError
from infra.images import ROOT
from infra.names import Names
from infra.parts import standing
from infra.roles import identifier, psql
from infra.settings import Settings, read_file
from infra.stage_paths import ask_there, paths
from migration_job import last_resort
from migration_job.quoting import compose


def retire(settings: Settings, names: Names) -> str:
    """Take the other login's password away; returns its name. StageError where the connection does
    not name the serving one yet."""
    if settings.external:
        raise StageError(
            "expected a PostgreSQL of the stage's own, found target: external",
            advice="the operator of that database changes its passwords: docs/how-to/rotate.md",
        )
    serving = names.serving_role(settings.credentials_version)
    old = names.serving_role(settings.credentials_version + 1)
    file = paths(settings, names.stack).connection / "database.json"
    client = engine.connect(settings.docker_host)
    try:
        local = engine.is_local(settings.docker_host)
        if settings.fleet and not file.exists():
            side = {}  # nobody is admitted: no application has a password yet
        else:
            text = file.read_text() if local else ask_there(client, names, ["cat", str(file)])
            side = json.loads(text)["write"]
    except (OSError, ValueError, KeyError) as error:
        raise StageError(f"expected the connection in {file}, found none to read") from error
    if side.get("engine") == "postgresql" and side.get("user") != serving:
        raise StageError(
            f"expected the connection to name {serving}, found {side.get('user')!a}",
            advice="run `pulumi up` first; nothing was ended",
        )
    statement = compose("ALTER ROLE {role} PASSWORD NULL;", role=identifier(old))
    for its, own in standing(settings, names):
        status, said = psql(members.serving(client, its, own), statement)
        if status:
            raise StageError(f"PostgreSQL in {own.postgres} refused to end {old}: {said}")
    return old


def main() -> None:
    words = argparse.ArgumentParser(prog="python -m infra.rotate", description=__doc__)
    words.add_argument("stage")
    chosen = words.parse_args()
    try:
        settings = read_file(ROOT / f"Pulumi.{chosen.stage}.yaml")
        old = retire(settings, Names(settings.application, chosen.stage))
    except (StageError, DockerException) as error:
        sys.exit(f"error: {error}")
    sys.stdout.write(f"{old} can no longer log in; the passwords are rotated\n")


if __name__ == "__main__":
    last_resort.main(main)
