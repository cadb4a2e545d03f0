"""The server that the application was switched to, on record, and what has become of it since."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import psycopg

from migration_job.durable import write_durably
from migration_job.stores.postgres.server import Server, identify

FILE = "server.json"
"""In the state directory: system identifier and timeline of the target at the switch."""


def note(connection: psycopg.Connection, folder: Path) -> None:
    """Put on record which server is switched to, where it tells."""
    server = identify(connection)
    if server is not None:
        write_durably(folder / FILE, json.dumps(asdict(server)).encode(), mode=0o600)


def change(connection: psycopg.Connection, folder: Path) -> str:
    """What has become of the server since, for people; '' where that is not known."""
    now = identify(connection)
    try:
        then = Server(**json.loads((folder / FILE).read_bytes()))
    except (OSError, ValueError, TypeError):
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
