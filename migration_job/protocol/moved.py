"""Where PostgreSQL is since an upgrade: a note in the state directory, read by each live command.

A stage's commands are given the connection string of the server that it was made with. After an
upgrade the application is served by another; the note says which, so that ``sync`` and all others
follow without being told. Upgrades one after another each add a move. It decides nothing: each
server says itself whether it was left (:data:`migration_job.stores.postgres.side.LOOK`), and one
that was left is not acted on.
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

Move = dict[str, Any]
"""One entry of the note: from where to where, as the commands and as PgBouncer name it."""


def write_moved(
    state: Path, dsns: tuple[str, str], seen: tuple[Address, Address], beside: str | None = None
) -> None:
    """Note that what named the first server is to mean the second: by its connection string, and
    by its address as PgBouncer sees it; with what PgBouncer finds ``beside`` the alias
    (:attr:`migration_job.pooler.Alias.beside`). No password is written. What an earlier upgrade
    has noted stays: a command that names the very first server is led on from one to the next."""
    move: Move = {
        "given": [_address(dsn) for dsn in dsns],
        "seen": [_seen(address) for address in seen],
        **({"beside": beside} if beside else {}),
    }
    _write(state, [*_until(read_moves(state), dsns[0], seen[0]), move])


def forget_moved(state: Path, dsn: str, seen: Address) -> None:
    """That server serves again; what led to it stays."""
    found = read_moves(state)
    kept = _until(found, dsn, seen)
    if len(kept) < len(found):
        _write(state, kept)


def forget_all_moved(state: Path) -> None:
    """No server of any upgrade is there any more."""
    _write(state, [])


def relocated_dsn(state: Path, dsn: str) -> str:
    """The connection string, led to the server that serves since the last upgrade."""
    for move in read_moves(state):
        if _address(dsn) == move["given"][0]:
            host, port, database = move["given"][1]
            parts = {k: v for k, v in conninfo_to_dict(dsn).items() if k != "hostaddr"}
            dsn = make_conninfo(**{**parts, "host": host, "port": port, "dbname": database})
    return dsn


def relocated_alias(state: Path, alias: Alias) -> Alias:
    """The same for PgBouncer's alias."""
    for move in read_moves(state):
        if [alias.host, str(alias.port), alias.database] == move["seen"][0]:
            host, port, database = move["seen"][1]
            alias = replace(
                alias, host=host, port=int(port), database=database, beside=move.get("beside")
            )
    return alias


def beside_at(state: Path, seen: Address) -> str | None:
    """What stands beside the alias while it leads to that server, where an earlier upgrade has
    brought the application there: pgbouncer.ini names the server before."""
    led = [move for move in read_moves(state) if move["seen"][1] == _seen(seen)]
    return led[-1].get("beside") if led else None


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


def read_moves(state: Path) -> list[Move]:
    """The moves, the oldest first. Raises InputError for a note that cannot be read."""
    try:
        note = json.loads((state / FILE).read_text(encoding="utf-8"))
        # A note of one move alone was that move itself.
        moves: list[Move] = [note] if "given" in note else note["moves"]
    except (FileNotFoundError, NotADirectoryError):
        return []  # what has no directory has no note; the lock says what is there instead
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InputError(
            f"expected the note on an upgrade in {state / FILE}, found {type(error).__name__}",
            advice="put it back from a copy. After the first upgrade of all you may remove it and "
            "run `migration-job upgrade` again: it writes the note again",
        ) from error
    return moves


def _until(moves: list[Move], dsn: str, seen: Address) -> list[Move]:
    """Without the last ones that lead away from that server."""
    kept = list(moves)
    while kept and (kept[-1]["given"][0] == _address(dsn) or kept[-1]["seen"][0] == _seen(seen)):
        kept.pop()
    return kept


def _write(state: Path, moves: list[Move]) -> None:
    path = state / FILE
    if moves:
        write_durably(path, json.dumps({"moves": moves}).encode(), mode=0o600)
    elif path.exists():
        path.unlink()
        sync_directory(state)


def _seen(address: Address) -> list[str]:
    return [address.host, str(address.port), address.database]


def _address(dsn: str) -> list[str]:
    parts = located(dsn)
    host = parts.get("host") or parts.get("hostaddr") or ""
    return [str(host), str(parts.get("port") or "5432"), str(parts.get("dbname") or "")]
