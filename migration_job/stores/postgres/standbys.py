"""Whether a failover of the target can lose what it has acknowledged.

A server whose standbys follow asynchronously acknowledges a commit that none of them has. When it
is lost, a standby without that commit serves, and what the application was told is kept is gone.
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg

from migration_job.errors import InputError

OPTION = "--accept-asynchronous"

ADVICE = (
    "name a standby in synchronous_standby_names, and leave synchronous_commit at on or above; or, "
    "where a failover may lose the last commits that were acknowledged to the application, accept "
    f"that with {OPTION} (in a stage, external.acceptAsynchronous: true)"
)

# Rows are shown to everyone; their columns, to a member of pg_read_all_stats alone. A base backup
# is no standby, nor is a receiver of the log (it replays nothing), nor a logical subscriber.
_ATTACHED = """
SELECT application_name, sync_state FROM pg_stat_replication r
WHERE (state IS NULL OR (state <> 'backup' AND (state <> 'streaming' OR replay_lsn IS NOT NULL)))
AND NOT EXISTS (
    SELECT FROM pg_replication_slots s WHERE s.slot_type = 'logical' AND s.active_pid = r.pid)
ORDER BY application_name
"""


class FollowedAsynchronously(InputError):
    """A failover could lose acknowledged commits, and nobody has accepted that."""


@dataclass(frozen=True, slots=True)
class Standbys:
    """How a server's commits reach its standbys."""

    attached: tuple[str, ...]
    """The names of the standbys that follow now."""
    waited_for: bool
    """Whether commits reach one of them before they are acknowledged."""
    found: str
    """The same for people."""

    @property
    def asynchronous(self) -> bool:
        """Whether one may be promoted that lacks an acknowledged commit."""
        return bool(self.attached) and not self.waited_for


def look(connection: psycopg.Connection) -> Standbys:
    """How it is now; changes nothing."""
    rows = connection.execute(_ATTACHED).fetchall()
    names, commit = connection.execute(
        "SELECT current_setting('synchronous_standby_names'), "
        "(SELECT reset_val FROM pg_settings WHERE name = 'synchronous_commit')"
    ).fetchall()[0]
    attached = tuple(str(name or "unnamed") for name, _ in rows)
    if not attached:
        return Standbys((), False, "no standby")
    states = {state for _, state in rows}
    # A role that is not shown the states has the setting's word for it.
    one = bool(states & {"sync", "quorum"}) or states == {None}
    waited_for = bool(names) and one and commit not in ("off", "local")
    who = f"{len(attached)} standby{'s' if len(attached) > 1 else ''} ({', '.join(attached)})"
    if waited_for:
        return Standbys(attached, True, f"{who}; commits wait for {names}")
    why = "synchronous_standby_names is empty"
    if names and not one:
        why = f"none of them is one of synchronous_standby_names = {names}"
    elif names:
        why = f"synchronous_commit is {commit}"
    return Standbys(attached, False, f"{who} follow asynchronously: {why}")


def require_synchronous(connection: psycopg.Connection, *, accepted: bool) -> str:
    """Raises FollowedAsynchronously where a failover could lose acknowledged commits, unless that
    is ``accepted``; then gives what was accepted, '' where there is nothing to accept."""
    found = look(connection)
    if not found.asynchronous:
        return ""
    if not accepted:
        raise FollowedAsynchronously(
            "expected a target whose commits reach a standby before they are acknowledged, found "
            f"{found.found}",
            advice=f"{ADVICE}. The application is served as before",
        )
    return (
        f"{found.found}; accepted: a failover of the target may lose the last commits that were "
        "acknowledged to the application"
    )
