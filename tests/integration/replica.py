"""A primary and a streaming standby, to be cut off, killed and promoted."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import psycopg
from psycopg.conninfo import make_conninfo

from migration_job.embedded import EmbeddedPostgres
from tests.servers import MAJOR

FAST = {"fsync": "off", "full_page_writes": "off", "max_connections": "50", "wal_level": "replica"}
WAIT_SECONDS = 30.0


class Replicated:
    """Two servers; ``dsn_for`` names both, and whichever takes writes is meant."""

    def __init__(self) -> None:
        self.primary = EmbeddedPostgres(major=MAJOR, settings=FAST)

    def __enter__(self) -> Self:
        self.primary.start()
        self._settings()
        self.standby = self._copy()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.standby.close()
        self.primary.close()

    def _settings(self) -> None:
        with psycopg.connect(self.primary.dsn, autocommit=True) as session:
            session.execute("ALTER SYSTEM SET wal_keep_size = '200MB'")
            session.execute("SELECT pg_reload_conf()")

    def _copy(self) -> EmbeddedPostgres:
        standby = EmbeddedPostgres(major=MAJOR, settings=FAST)
        standby.password = self.primary.password
        data = standby.directory / "data"
        # Made as the server's user, as the cluster itself is.
        upstream = make_conninfo(
            host="127.0.0.1",
            port=self.primary.port,
            user=self.primary.superuser,
            password=self.primary.password,
            application_name="standby",
        )
        command = [str(self.primary.program("pg_basebackup")), "-D", str(data), "-R"]
        command += ["-X", "stream", "-c", "fast", "-d", upstream]
        status = standby._spawn(command).wait()
        assert status == 0, standby.log_tail()
        # pg_basebackup writes every option that its own libpq knows; the server's may be an older
        # one, which refuses those it does not know. The last line counts.
        with (data / "postgresql.auto.conf").open("a") as configuration:
            configuration.write(f"primary_conninfo = '{upstream}'\n")
        standby.start()
        return standby

    # ------------------------------------------------------------------------------ using

    def dsn_for(self, database: str, server: EmbeddedPostgres | None = None) -> str:
        """The superuser's connection string: to one server, or to whichever takes writes."""
        servers = [server] if server is not None else [self.primary, self.standby]
        return make_conninfo(
            host=",".join("127.0.0.1" for _ in servers),
            port=",".join(str(s.port) for s in servers),
            user=self.primary.superuser,
            password=self.primary.password,
            dbname=database,
            target_session_attrs="any" if server is not None else "read-write",
        )

    def caught_up(self) -> None:
        """Wait until the standby has replayed all that the primary has written."""
        with psycopg.connect(self.primary.dsn, autocommit=True) as session:
            position = _one(session, "SELECT pg_current_wal_flush_lsn()")
        with psycopg.connect(self.standby.dsn, autocommit=True) as session:
            _until(
                lambda: bool(
                    _one(session, f"SELECT pg_last_wal_replay_lsn() >= '{position}'::pg_lsn")
                ),
                "the standby to catch up",
            )

    def cut_off(self) -> None:
        """The standby receives nothing from now on."""
        self.caught_up()
        self.point_standby_at("")
        with psycopg.connect(self.primary.dsn, autocommit=True) as session:
            _until(
                lambda: not _one(session, "SELECT count(*) FROM pg_stat_replication"),
                "the standby to be gone",
            )

    def synchronous(self) -> None:
        """Commits wait for the standby from now on."""
        with psycopg.connect(self.primary.dsn, autocommit=True) as session:
            session.execute("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
            session.execute("SELECT pg_reload_conf()")
            _until(
                lambda: bool(
                    _one(
                        session,
                        "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'",
                    )
                ),
                "a synchronous standby",
            )

    def fail_over(self) -> None:
        """The primary is lost for good, and the standby serves."""
        self.primary.kill()
        with psycopg.connect(self.standby.dsn, autocommit=True) as session:
            session.execute("SELECT pg_promote(true, 30)")
            _until(lambda: not _one(session, "SELECT pg_is_in_recovery()"), "the promotion")

    def point_standby_at(self, upstream: str) -> None:
        """Where it receives from; '' for nowhere."""
        with psycopg.connect(self.standby.dsn, autocommit=True) as session:
            session.execute(f"ALTER SYSTEM SET primary_conninfo = '{upstream}'".encode())
            session.execute("SELECT pg_reload_conf()")


def _one(session: psycopg.Connection, query: str) -> object:
    row = session.execute(query.encode()).fetchone()
    return None if row is None else row[0]


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {WAIT_SECONDS} s for {what}")
        time.sleep(0.02)
