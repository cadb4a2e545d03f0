"""``make status STAGE=dev``: which side serves, as ``migration-job status`` says it.

It looks at the stage's own files on this machine, and so needs neither Pulumi nor Docker. Those of
a remote engine's stage are looked at by its sync's container, which asks PostgreSQL as well.
"""

from __future__ import annotations

import sys
from pathlib import Path

from infra import engine, live
from infra.errors import StageError
from infra.names import Names
from infra.settings import Settings, read_file
from infra.stage_paths import Paths, ask_there, paths
from migration_job import last_resort
from migration_job.errors import ExitStatus, JobError
from migration_job.protocol.status import status

ROOT = Path(__file__).resolve().parent.parent


def in_stages_words(line: str, stage: str) -> str:
    """What is to be done next, as it is done to a stage: by its file and `make`."""
    if not line.startswith("next "):
        return line
    up = f"`make up STAGE={stage}`"
    for command, words in (
        ("`migration-job switch`, or `rollback --release` to give it up", "`migration-job switch`"),
        ("run `migration-job switch` again", f"run {up} again"),
        ("`migration-job switch`", f"`cutover: switch` in Pulumi.{stage}.yaml, then {up}"),
        ("`migration-job rollback` goes back", f"`cutover: hold` and {up} goes back"),
        ("`rollback --accept-loss`", f"`MIGRATION_ACCEPT_LOSS=yes make down STAGE={stage}`"),
        ("start `migration-job sync`", f"{up} (it starts the sync again)"),
        ("`migration-job migrate`", up),
        ("ask again with --target-file, to see how far the target is", up),
    ):
        line = line.replace(command, words)
    return line


def there(settings: Settings, names: Names, where: Paths) -> list[str]:
    """The lines of a stage on a remote engine."""
    command = ["python3", "-m", "migration_job", "--log-format", "text", "status"]
    command += [str(where.source), "--target-file", live.TARGET_FILE]
    command += ["--connection", str(where.connection), "--state", str(where.job)]
    return ask_there(engine.connect(settings.docker_host), names, command).splitlines()


def main() -> int:
    """Print the lines; the process's exit status."""
    stage = sys.argv[1]
    try:
        settings = read_file(ROOT / f"Pulumi.{stage}.yaml")
        where = paths(settings, stage)
        lines = (
            status(where.source, dsn=None, connection=where.connection, state=where.job)
            if engine.is_local(settings.docker_host)
            else there(settings, Names(settings.application, stage), where)
        )
        for line in lines:
            print(in_stages_words(line, stage))
    except (StageError, JobError) as error:
        print(f"error: {error}", file=sys.stderr)
        return int(ExitStatus.USAGE)
    return int(ExitStatus.DONE)


if __name__ == "__main__":
    last_resort.main(main)
