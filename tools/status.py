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


def main() -> int:
    """Print the lines; the process's exit status."""
    stage = sys.argv[1]
    try:
        where = paths(read_file(ROOT / f"Pulumi.{stage}.yaml"), stage)
        for line in status(where.source, dsn=None, connection=where.connection, state=where.job):
            print(line)
    except (StageError, JobError) as error:
        print(f"error: {error}", file=sys.stderr)
        return int(ExitStatus.USAGE)
    return int(ExitStatus.DONE)


if __name__ == "__main__":
    sys.exit(main())
