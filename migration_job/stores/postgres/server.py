"""Which server answers: its system identifier, and the timeline that it writes on.

Every promotion of a standby begins a timeline; a server that was recreated has another identifier.
Neither proves that nothing was lost (a failover may lose nothing), but both say what has happened.
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg


@dataclass(frozen=True, slots=True)
class Server:
    system: str
    timeline: int


def identify(connection: psycopg.Connection) -> Server | None:
    """The server behind an autocommit session; None where it does not tell (some managed ones)."""
    try:
        row = connection.execute(
            # The control file names a new timeline only from the first checkpoint on.
            "SELECT (SELECT system_identifier::text FROM pg_control_system()), "
            "substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)"
        ).fetchone()
    except psycopg.errors.OperationalError:
        raise
    except psycopg.Error:
        return None
    return None if row is None or row[0] is None else Server(str(row[0]), int(str(row[1]), 16))
