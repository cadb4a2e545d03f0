"""``python -m infra.restore_sqlite STAGE FILE``: the SQLite file from before the migration.

The backup is in the stage's report directory; the job proves its checksum before it writes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from shlex import quote

from infra import engine
from infra.errors import StageError
from infra.images import ROOT
from infra.names import Names
from infra.settings import read_file
from infra.stage_paths import paths
from migration_job import last_resort


def main() -> None:
    words = argparse.ArgumentParser(prog="python -m infra.restore_sqlite", description=__doc__)
    words.add_argument("stage")
    words.add_argument("file", help="where the database is to be")
    chosen = words.parse_args()
    if not chosen.file:
        sys.exit("error: expected a file to write\nfor example: make restore-sqlite TO=before.db")
    try:
        settings = read_file(ROOT / f"Pulumi.{chosen.stage}.yaml")
        folder = paths(settings, chosen.stage).report / "backup"
        if not engine.is_local(settings.docker_host):
            sync = Names(settings.application, chosen.stage).sync
            raise StageError(
                f"expected an engine of this machine's, found {settings.docker_host}: the backup "
                "is on its host",
                advice=f"restore it there, into a directory of the stage: docker exec {sync} "
                f"python3 -m migration_job restore-backup {quote(str(folder))} FILE",
            )
    except StageError as error:
        sys.exit(f"error: {error}")
    # The job is called by its command line, as everywhere in this program.
    command = [sys.executable, "-m", "migration_job", "restore-backup", str(folder), chosen.file]
    sys.exit(subprocess.run(command, check=False).returncode)  # noqa: S603 - this project's own


if __name__ == "__main__":
    last_resort.main(main)
