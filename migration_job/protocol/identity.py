"""The server that the application was switched to, on record, and what has become of it since."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psycopg

from migration_job.durable import write_durably
from migration_job.stores.postgres.server import Server, identify

FILE = "server.json"
"""In the state directory: system identifier and timeline of the target at the switch."""


ASYNCHRONOUS = "asynchronous"


def note(connection: psycopg.Connection, folder: Path, *, asynchronous: bool | None = None) -> None:
    """Put on record which server is switched to, where it tells, and whether its standbys follow
    asynchronously; None leaves that as it was."""
    server = identify(connection)
    if server is None:
        return
    if asynchronous is None:
        asynchronous = bool(_record(folder).get(ASYNCHRONOUS))
    told = {**asdict(server), ASYNCHRONOUS: asynchronous}
    write_durably(folder / FILE, json.dumps(told).encode(), mode=0o600)


def may_have_lost(connection: psycopg.Connection, folder: Path) -> str:
    """In words, where a standby was promoted that had followed asynchronously: it may lack the last
    commits that were acknowledged, and where nothing relies on those nothing else tells. Once for
    each promotion; '' else."""
    then = _record(folder)
    if not then.get(ASYNCHRONOUS):
        return ""
    now = identify(connection)
    if now is None or (now.system, now.timeline) == (then.get("system"), then.get("timeline")):
        return ""
    note(connection, folder)
    return f"a standby that followed asynchronously serves now (timeline {now.timeline})"


def _record(folder: Path) -> dict[str, Any]:
    try:
        told = json.loads((folder / FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def change(connection: psycopg.Connection, folder: Path) -> str:
    """What has become of the server since, for people; '' where that is not known."""
    now = identify(connection)
    try:
        then = Server(**{k: v for k, v in _record(folder).items() if k != ASYNCHRONOUS})
    except TypeError:
        return ""
    if now is None:
        return ""
    at_switch = f"system {then.system} on timeline {then.timeline} at the switch"
    if now.system != then.system:
        return f"{at_switch}, now another server: system {now.system} on timeline {now.timeline}"
    if now.timeline != then.timeline:
        since = "a standby was promoted, or a backup restored"
        return f"{at_switch}, now on timeline {now.timeline}: {since}"
    return f"{at_switch} and now: no standby was promoted"
