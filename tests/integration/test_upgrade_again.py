"""One upgrade after another: 14 to 16, settled, its old server gone, and on to 18 and back.

PgBouncer looks passwords up in a database of the very first server's, as a stage's does, and each
command of the migration is still given that server's address.
"""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from migration_job.embedded import EmbeddedPostgres, find_pgbouncer, pgbouncer_version
from migration_job.errors import ExitStatus, InputError, JobError
from migration_job.pooler import Alias
from migration_job.protocol.moved import (
    FILE,
    forget_all_moved,
    forget_moved,
    read_moves,
    relocated_alias,
    relocated_dsn,
    write_moved,
)
from migration_job.stores.postgres.replication import Address
from tests.integration import upgrading
from tests.integration.livestage import until
from tests.integration.upgrading import (
    APPLICATION,
    DATABASE,
    PASSWORD,
    SETTINGS,
    Load,
    Lookup,
    Pair,
)

pytestmark = pytest.mark.postgres

MIDDLE = 16
LOOKUP = ("--auth-database", "lookup")


def asked() -> dict[str, str]:
    """PgBouncer's settings; older ones know no other database to look passwords up in."""
    named = pgbouncer_version(find_pgbouncer()) >= (1, 19)
    return {"query_wait_timeout": "20", **({"auth_dbname": "lookup"} if named else {})}


@contextlib.contextmanager
def three() -> Iterator[list[EmbeddedPostgres]]:
    """Of each version one, with the same superuser's password, and a database for passwords."""
    with contextlib.ExitStack() as stack:
        servers: list[EmbeddedPostgres] = []
        for major in (upgrading.OLD, MIDDLE, upgrading.NEW):
            server = stack.enter_context(
                EmbeddedPostgres(major=major, fast=True, settings=SETTINGS)
            )
            with psycopg.connect(server.dsn, autocommit=True) as admin:
                first = (servers or [server])[0]
                admin.execute(f"ALTER ROLE postgres PASSWORD '{first.password}'".encode())
                server.password = first.password
            server.create_database("lookup")
            servers.append(server)
        yield servers


def test_two_upgrades_with_the_first_server_gone(tmp_path: Path) -> None:
    seed = int(os.environ.get("UPGRADE_SEED") or random.SystemRandom().randrange(10**6))
    print(f"seed {seed}")
    try:
        with three() as servers, Lookup(servers[0], settings=asked()) as bouncer:
            old = servers[0]
            old.create_role(APPLICATION, PASSWORD)
            old.create_database(DATABASE)
            with psycopg.connect(old.dsn_for(DATABASE), autocommit=True) as session:
                session.execute(upgrading.SCHEMA.encode())
            at = f"host='127.0.0.1' port={old.port} dbname='{DATABASE}' pool_size=20"
            first = Pair(old, servers[1], bouncer, tmp_path)
            first.lead(f"{DATABASE} = {at}\n")
            _upgrades(first, replace(first, old=servers[1], new=servers[2]), seed)
    except JobError as error:
        pytest.skip(f"no embedded servers of three versions: {error.message}")


def _upgrades(first: Pair, second: Pair, seed: int) -> None:
    load = Load(first.dsn(), seed)
    given = first.old.dsn_for(DATABASE)
    lookup = first.bouncer.dsn("lookup", user="postgres", password=first.old.password)

    def leads(server: EmbeddedPostgres) -> None:
        """What is given the very first server's address is led there; and so are PgBouncer's
        alias and its entry for passwords."""
        with psycopg.connect(lookup, autocommit=True, prepare_threshold=None) as session:
            assert session.execute("SELECT inet_server_port()").fetchone() == (server.port,)
        state = first.directory / "state"
        assert conninfo_to_dict(relocated_dsn(state, given))["port"] == str(server.port)
        alias = Alias(DATABASE, "127.0.0.1", first.old.port, DATABASE, pool_size=20)
        assert relocated_alias(state, alias).line() == first.bouncer.alias_path.read_text()
        assert load.failed == []
        before = len(load.notes)
        until(lambda: len(load.notes) > before + 3 or bool(load.failed), "more writes")

    def restarted(server: EmbeddedPostgres) -> None:
        """PgBouncer has to look the password up again: what it knew it has forgotten."""
        first.bouncer.restart()
        with psycopg.connect(first.dsn(), autocommit=True, prepare_threshold=None) as session:
            found = session.info.server_version // 10000
            (port,) = session.execute("SELECT inet_server_port()").fetchone() or (0,)
        assert (found, port) == (server.major, server.port)

    with load.running(3, 2):
        first.empty_new()
        first.run(*LOOKUP)
        leads(first.new)
        second.empty_new()
        program = second.start(*LOOKUP)
        assert program.wait(60) == ExitStatus.USAGE, program.output
        assert "settle that one first" in program.output
        first.run(*LOOKUP, "--settle")
        first.old.stop(immediate=True)
        leads(first.new)
        for words, server in (
            ((), second.new),
            (("--back",), second.old),
            ((), second.new),
            (("--back",), second.old),
        ):
            second.run(*LOOKUP, *words)
            leads(server)
    assert load.failed == []
    restarted(second.old)
    assert load.lost(second.old.dsn_for(DATABASE)) == []
    second.run(*LOOKUP)
    second.run(*LOOKUP, "--settle")
    second.old.stop(immediate=True)
    restarted(second.new)
    assert load.lost(second.new.dsn_for(DATABASE)) == []


# ------------------------------------------------------------------------------- the note

A, B, C = (Address(f"host-{name}", 5432, "shop") for name in "abc")


def dsn(address: Address) -> str:
    return f"postgresql://app@{address.host}:{address.port}/{address.database}"


def moved(state: Path, one: Address, other: Address, beside: str | None = "lookup") -> None:
    write_moved(state, (dsn(one), dsn(other)), (one, other), beside)


def where(state: Path, address: Address) -> tuple[str, str | None]:
    """The host that a command given this address is led to, and what stands beside the alias."""
    found = relocated_alias(state, Alias("shop", address.host, address.port, address.database))
    assert conninfo_to_dict(relocated_dsn(state, dsn(address)))["host"] == found.host
    return found.host, found.beside


def test_the_note_of_one_upgrade_after_another(tmp_path: Path) -> None:
    assert where(tmp_path, A) == ("host-a", None)
    moved(tmp_path, A, B)
    moved(tmp_path, A, B)  # as each `recover` does
    assert [where(tmp_path, one)[0] for one in (A, B)] == ["host-b", "host-b"]
    forget_moved(tmp_path, dsn(B), B)  # the second upgrade, not moved yet
    moved(tmp_path, B, C)
    assert [where(tmp_path, one) for one in (A, B, C)] == [
        ("host-c", "lookup"),
        ("host-c", "lookup"),
        ("host-c", None),
    ]
    forget_moved(tmp_path, dsn(B), B)
    assert where(tmp_path, A) == ("host-b", "lookup")
    assert where(tmp_path, B) == ("host-b", None)
    forget_moved(tmp_path, dsn(A), A)
    assert not (tmp_path / FILE).exists()


def test_a_server_at_the_address_of_one_that_is_gone(tmp_path: Path) -> None:
    moved(tmp_path, A, B)
    moved(tmp_path, B, A)
    moved(tmp_path, A, C)
    assert where(tmp_path, A)[0] == where(tmp_path, B)[0] == "host-c"
    forget_moved(tmp_path, dsn(A), A)
    assert where(tmp_path, A)[0] == where(tmp_path, B)[0] == "host-a"
    forget_all_moved(tmp_path)
    assert not (tmp_path / FILE).exists()


def test_a_note_of_one_move_alone_and_none_that_can_be_read(tmp_path: Path) -> None:
    moved(tmp_path, A, B)
    (move,) = read_moves(tmp_path)
    (tmp_path / FILE).write_text(str(move).replace("'", '"'))
    assert where(tmp_path, A) == ("host-b", "lookup")
    (tmp_path / FILE).write_text("{}")
    with pytest.raises(InputError, match="put it back from a copy"):
        relocated_dsn(tmp_path, dsn(A))
