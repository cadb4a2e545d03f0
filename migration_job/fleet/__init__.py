"""Many files of one kind into one server: what `migrate` does for one, under one plan and with one
report.

Each file goes through :class:`migration_job.migration.Migration`, with a certificate of its own.
This package decides what all of them have in common, and keeps book of them.
"""
