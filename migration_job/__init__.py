"""The migration job: takes a SQLite file to PostgreSQL and back.

Knows rows, never Docker or Pulumi: it needs a SQLite file and a DSN.
"""

__version__ = "0.1.0"
