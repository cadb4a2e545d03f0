"""What the target remembers of its pair: the source, the run, the tokens, what was verified."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

from migration_job.stores.postgres import records
from migration_job.stores.postgres.capture import TABLES
from migration_job.stores.postgres.database import (
    Statement,
    ask_if_there,
    commit_durably,
    commit_together,
    durably,
)

_ANNOUNCED = (
    "UPDATE migration.pair SET token = %s, next_token = %s WHERE %s OR %s IN (token, next_token)"
)


LAZILY: Statement = ("SET LOCAL synchronous_commit TO off", ())
"""First in a transaction whose commit need not be waited for."""


def verified_statement(position: int) -> Statement:
    """What records that everything up to ``position`` was compared and is the same. Lost in a
    crash, it means comparing once more."""
    return ("UPDATE migration.pair SET verified = $1, whole_at = clock_timestamp()", (position,))


@dataclass(frozen=True, slots=True)
class Identity:
    """By what the target knows the source again."""

    capture: str
    token: str
    """The source's state has this token, or"""
    next_token: str
    """this one, where a transaction of the job's was committed there and not noted here yet."""
    position: int
    """What was applied of the source's log, and"""
    log_token: str | None
    """the token of the log's row there."""
    verified: int
    """What was applied up to here was compared, too."""
    whole_at: str
    """ISO 8601, UTC: when a round last saw the capture whole."""


def set_pair(
    connection: psycopg.Connection,
    capture: str,
    position: int,
    *,
    token: str = "",
    log_token: str | None = None,
) -> None:
    """Bind the target to one capture of the source, and to a position in its log. ``token`` is that
    of the source's state (``capture`` where it has just been installed), ``log_token`` that of the
    log's row at the position."""
    with durably(connection):
        connection.execute(TABLES)
        connection.execute(
            "INSERT INTO migration.pair (capture, verified, token, next_token) "
            "VALUES (%s, %s, %s, %s) ON CONFLICT (one) DO UPDATE SET capture = excluded.capture, "
            "verified = excluded.verified, token = excluded.token, "
            "next_token = excluded.next_token, whole_at = clock_timestamp()",
            (capture, position, token or capture, token or capture),
        )
        connection.execute(
            "INSERT INTO migration.applied (position, token) VALUES (%s, %s) ON CONFLICT (one) "
            "DO UPDATE SET position = excluded.position, token = excluded.token, "
            "updated_at = clock_timestamp()",
            (position, log_token),
        )


def pair(connection: psycopg.Connection) -> str | None:
    """The capture of the source that the target follows; None where it follows none."""
    row = ask_if_there(connection, "migration.pair", "SELECT capture FROM migration.pair")
    return None if row is None else str(row[0])


def follow_nothing(connection: psycopg.Connection) -> None:
    """Have the target follow no capture any more; nothing where it follows none."""
    if pair(connection) is not None:
        with connection.transaction():
            connection.execute("DELETE FROM migration.pair")
            connection.execute("DELETE FROM migration.applied")


def read_verified(connection: psycopg.Connection) -> int | None:
    """The position up to which what was applied has been compared; None where nothing was."""
    row = connection.execute("SELECT verified FROM migration.pair").fetchone()
    return None if row is None else int(row[0])


def set_verified(connection: psycopg.Connection, position: int) -> None:
    """Record that; the commit is not waited for."""
    commit_together(connection, [LAZILY, verified_statement(position)])


_IDENTITY = (
    "SELECT p.capture, p.token, p.next_token, a.position, a.token, p.verified, "
    "to_char(p.whole_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') "
    "FROM migration.pair AS p, migration.applied AS a"
)


def read_identity(connection: psycopg.Connection) -> Identity | None:
    """What the target knows the source by; None where it follows none."""
    row = ask_if_there(connection, "migration.pair", _IDENTITY)
    if row is None:
        return None
    capture, token, next_token, position, log_token, verified, whole_at = row
    return Identity(
        capture=str(capture),
        token=str(token),
        next_token=str(next_token),
        position=int(position),
        log_token=log_token,
        verified=int(verified),
        whole_at=str(whole_at),
    )


def announce_token(
    connection: psycopg.Connection, present: str, next_token: str, *, again: bool = False
) -> bool:
    """Note, durably, which token the source's state is about to be given by a transaction there.
    False, with nothing noted, where the target does not hold the ``present`` one, unless ``again``:
    it was just brought up again."""
    announced = (_ANNOUNCED, (present, next_token, again, present))
    return commit_durably(connection, announced) == [1]


def confirm_token(connection: psycopg.Connection) -> None:
    """Note that it was: from now on the one before is that of an older copy."""
    connection.execute("UPDATE migration.pair SET token = next_token WHERE token <> next_token")


def announce_decision(
    connection: psycopg.Connection, present: str, next_token: str, certificate: tuple[str, str]
) -> bool:
    """Note the same of the decision to switch, together with the certificate (its digest and body)
    that it goes by: whoever holds the token then holds that too."""
    announced = (_ANNOUNCED, (present, next_token, False, present))
    statements = records.certificate_statements(*certificate, "verified", told=next_token)
    return commit_durably(connection, announced, *statements)[0] == 1
