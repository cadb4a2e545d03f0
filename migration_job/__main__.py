"""``python -m migration_job`` is the same program as ``migration-job``."""

from migration_job.cli import main

if __name__ == "__main__":
    main()
