"""``make status STAGE=dev``: which side serves, as ``migration-job status`` says it.

It looks at the stage's own files on this machine, and so needs neither Pulumi nor Docker.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from infra.errors import StageError  # noqa: E402
from infra.places import paths  # noqa: E402
from infra.settings import read_file  # noqa: E402
from migration_job.errors import ExitStatus, JobError  # noqa: E402
from migration_job.live.status import status  # noqa: E402


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


def main() -> int:
    """Print the lines; the process's exit status."""
    stage = sys.argv[1]
    try:
        where = paths(read_file(ROOT / f"Pulumi.{stage}.yaml"), stage)
        for line in status(where.source, dsn=None, connection=where.connection, state=where.job):
            print(in_stages_words(line, stage))
    except (StageError, JobError) as error:
        print(f"error: {error}", file=sys.stderr)
        return int(ExitStatus.USAGE)
    return int(ExitStatus.DONE)


if __name__ == "__main__":
    sys.exit(main())
