"""Where PostgreSQL is since an upgrade: a note in the state directory, read by each live command.

A stage's commands are given the connection string of the server that it was made with. After an
upgrade the application is served by another; the note says which, so that ``sync`` and all others
follow without being told. It decides nothing: each server says itself whether it was left
(:data:`migration_job.stores.postgres.side.LOOK`), and one that was left is not acted on.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from migration_job.durable import sync_directory, write_durably
from migration_job.errors import InputError
from migration_job.pooler import Alias
from migration_job.stores.postgres import side
from migration_job.stores.postgres.database import located
from migration_job.stores.postgres.replication import Address

FILE = "upgraded.json"


def write_moved(
    state: Path, dsns: tuple[str, str], seen: tuple[Address, Address], beside: str | None = None
) -> None:
    """Note that what named the first server is to mean the second: by its connection string, and
    by its address as PgBouncer sees it; with what PgBouncer finds ``beside`` the alias
    (:attr:`migration_job.pooler.Alias.beside`). No password is written."""
    note = {
        "given": [_address(dsn) for dsn in dsns],
        "seen": [[a.host, str(a.port), a.database] for a in seen],
        **({"beside": beside} if beside else {}),
    }
    write_durably(state / FILE, json.dumps(note).encode(), mode=0o600)


def forget_moved(state: Path) -> None:
    """The first server serves again."""
    if (state / FILE).exists():
        (state / FILE).unlink()
        sync_directory(state)


def relocated_dsn(state: Path, dsn: str) -> str:
    """The connection string, led to the server that serves since an upgrade."""
    note = _read(state)
    if note is None or _address(dsn) != note["given"][0]:
        return dsn
    host, port, database = note["given"][1]
    parts = {k: v for k, v in conninfo_to_dict(dsn).items() if k != "hostaddr"}
    return make_conninfo(**{**parts, "host": host, "port": port, "dbname": database})


def relocated_alias(state: Path, alias: Alias) -> Alias:
    """The same for PgBouncer's alias."""
    note = _read(state)
    if note is None or [alias.host, str(alias.port), alias.database] != note["seen"][0]:
        return alias
    host, port, database = note["seen"][1]
    return replace(alias, host=host, port=int(port), database=database, beside=note.get("beside"))


@contextlib.contextmanager
def require_not_left() -> Iterator[None]:
    """Raises InputError where the block finds a server that the application was moved away from by
    an upgrade, or that is not open to it yet: no other command may act on it."""
    try:
        yield
    except psycopg.DatabaseError as error:
        if error.sqlstate != side.LEFT:
            raise
        raise InputError(
            "expected the server that serves, found one that an upgrade has left or not yet opened",
            advice="give the other server's connection string; `migration-job upgrade --status` "
            "says which side serves",
        ) from None


def _read(state: Path) -> dict[str, Any] | None:
    try:
        note: dict[str, Any] = json.loads((state / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(
            f"expected the note on an upgrade in {state / FILE}, found {type(error).__name__}",
            advice="run the last `migration-job upgrade` again: it writes the note again",
        ) from error
    return note


def _address(dsn: str) -> list[str]:
    parts = located(dsn)
    host = parts.get("host") or parts.get("hostaddr") or ""
    return [str(host), str(parts.get("port") or "5432"), str(parts.get("dbname") or "")]
