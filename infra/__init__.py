"""The Pulumi program's components. They know Docker, never rows: rows are the migration job's."""
