"""What a file's schema may do: it is written by the application, or by whoever made the file."""

from __future__ import annotations

import apsw


def distrust(connection: apsw.Connection) -> None:
    """Have the schema call no function of a connection's that acts or tells outside the file, and
    have nobody write around SQLite's own rules: to shadow tables, or to the schema as text. For
    every connection to a file that somebody else has made; set before the schema is read."""
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
