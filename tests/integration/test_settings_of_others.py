"""Settings that others have made for the server, the database or a role: the whole way under each,
or refused before anything is written."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from migration_job.embedded import EmbeddedPostgres
from migration_job.errors import InputError
from migration_job.protocol.rollback import rollback
from migration_job.protocol.settings import Endpoints, endpoints
from migration_job.protocol.switch import switch
from migration_job.protocol.sync import Sync
from migration_job.stores.postgres.database import connect
from migration_job.stores.postgres.settings import unfit
from migration_job.stores.postgres.suitability import examine
from tests.integration.livekit import begin, fresh_source, uid
from tests.integration.running import run
from tests.servers import MAJOR

pytestmark = pytest.mark.postgres

APPLICATION = "app"

UNLIMITED = "-c idle_session_timeout=0 -c statement_timeout=0 -c lock_timeout=0"
"""For a test's own session, which a busy machine keeps waiting, whatever the database's are."""

HARMLESS = {
    "DateStyle": "SQL, DMY",
    "TimeZone": "Pacific/Chatham",
    "IntervalStyle": "sql_standard",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "standard_conforming_strings": "off",
    "escape_string_warning": "on",
    "backslash_quote": "off",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "quote_all_identifiers": "on",
    "xmloption": "document",
    "search_path": "pg_catalog",
    "client_min_messages": "debug5",
    "client_encoding": "LATIN1",
    "statement_timeout": "20",
    "lock_timeout": "1",
    "idle_in_transaction_session_timeout": "20",
    "idle_session_timeout": "20",
    "row_security": "off",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "gin_fuzzy_search_limit": "1",
    "check_function_bodies": "off",
    "enable_seqscan": "off",
    "enable_indexscan": "off",
    "enable_hashjoin": "off",
    "plan_cache_mode": "force_generic_plan",
    "cursor_tuple_fraction": "0",
    "synchronous_commit": "off",
    "work_mem": "64kB",
    "lc_monetary": "C",
    "default_text_search_config": "pg_catalog.simple",
    "force_parallel_mode": "on",
    "session_replication_role": "local",
    "plpgsql.variable_conflict": "use_variable",
}
"""What the job overrides for itself, or does not depend on. All of them at once, for the database
and for the job's role."""

SEQUENCE = "SELECT what, n FROM events ORDER BY n"


@dataclass
class Target:
    superuser: str
    database: str
    directory: Path

    def alter(self, statement: str) -> None:
        with psycopg.connect(self.superuser, autocommit=True, options=UNLIMITED) as server:
            server.execute("SET default_transaction_read_only = off")
            server.execute(
                sql.SQL(statement).format(
                    database=sql.Identifier(self.database), role=sql.Identifier(APPLICATION)
                )
            )

    def ends(self, source: Path) -> Endpoints:
        told = self.directory / "application.json"
        parts = conninfo_to_dict(self.superuser)
        told.write_text(
            json.dumps(
                {
                    "host": parts["host"],
                    "port": int(str(parts["port"])),
                    "database": self.database,
                    "user": APPLICATION,
                    "password": "secret",
                }
            )
        )
        return endpoints(
            source,
            self.superuser,
            connection=self.directory / "connection",
            connect_to=told,
            console=None,
            alias_file=None,
        )


@pytest.fixture
def target(postgres: str, postgres_server: EmbeddedPostgres, tmp_path: Path) -> Iterator[Target]:
    with contextlib.suppress(psycopg.errors.DuplicateObject):
        postgres_server.create_role(APPLICATION, "secret")
    database = str(conninfo_to_dict(postgres)["dbname"])
    made = Target(postgres, database, tmp_path)
    yield made
    made.alter("ALTER ROLE {role} RESET ALL")
    made.alter("ALTER ROLE {role} IN DATABASE {database} RESET ALL")
    made.alter("ALTER ROLE ALL RESET ALL")


def test_settings_that_do_not_matter_change_nothing_on_the_whole_way(target: Target) -> None:
    migration = begin(fresh_source(target.directory), target.superuser)
    with psycopg.connect(target.superuser, autocommit=True) as server:
        known = {row[0].lower() for row in server.execute("SELECT name FROM pg_settings")}
    for name, value in HARMLESS.items():
        if name.lower() in known or "." in name:
            target.alter(f"ALTER DATABASE {{database}} SET {name} = '{value}'")
    writer = migration.writer()
    writer.execute("INSERT INTO users (id, email, score) VALUES (?, 'é', 0.1)", (uid(1),))
    writer.execute("INSERT INTO events VALUES ('a', 1)")
    ends = target.ends(migration.source)
    switch(ends)
    with psycopg.connect(target.superuser, autocommit=True, options=UNLIMITED) as app:
        app.execute("INSERT INTO public.events (what, n) VALUES ('b', 2)")
        app.execute("UPDATE public.users SET score = score + 0.2")
        app.execute(
            "INSERT INTO public.progress (user_id, note_id, state) VALUES (%s, 1, 'x')", (uid(1),)
        )
    Sync(ends).run(once=True)
    rollback(ends)
    assert writer.execute(SEQUENCE).fetchall() == [("a", 1), ("b", 2)]
    assert writer.execute("SELECT score FROM users").fetchall() == [(0.1 + 0.2,)]
    assert writer.execute("SELECT * FROM progress").fetchall() == [(uid(1), 1, "x")]
    writer.execute("INSERT INTO events VALUES ('c', 3)")
    switch(ends)


REFUSED = [
    "ALTER DATABASE {database} SET session_replication_role = 'replica'",
    "ALTER ROLE {role} SET session_replication_role = 'replica'",
    "ALTER ROLE {role} IN DATABASE {database} SET session_replication_role = 'replica'",
    "ALTER ROLE ALL SET session_replication_role = 'replica'",
    "ALTER DATABASE {database} SET default_transaction_read_only = 'on'",
    "ALTER ROLE ALL SET default_transaction_read_only = 'yes'",
]


@pytest.mark.parametrize("statement", REFUSED)
def test_what_switches_triggers_or_writes_off_is_refused_with_what_mends_it(
    target: Target, statement: str
) -> None:
    migration = begin(fresh_source(target.directory), target.superuser)
    ends = target.ends(migration.source)
    target.alter(statement)
    name = statement.split(" SET ")[1].split(" = ")[0]
    try:
        with connect(target.superuser) as session:
            check = {c.name: c for c in examine(session, source_bytes=1, connections=1, live=True)}[
                "settings"
            ]
            assert check.verdict == "refused"
            mend = unfit(session)[0][1]
        assert name in check.found
        assert name in mend
        with pytest.raises(InputError, match=name):
            switch(ends)
        migration.writer().execute("INSERT INTO events VALUES ('still', 1)")
        source = fresh_source_elsewhere(target.directory)
        ended = run(
            *("migrate", source, "--target", target.superuser, "--live"),
            *("--report", target.directory / "report", "--state", target.directory / "state"),
        )
        assert ended.status == 2, ended.said
        assert name in ended.said.replace("\n", "")
        assert not ended.said.count("Traceback")
    finally:
        with psycopg.connect(target.superuser, autocommit=True) as server:
            server.execute("SET default_transaction_read_only = off")
            server.execute(mend)
    switch(ends)


def fresh_source_elsewhere(directory: Path) -> Path:
    folder = directory / "second"
    folder.mkdir()
    return fresh_source(folder)


def test_a_role_that_only_reads_may_be_held_to_it(target: Target) -> None:
    target.alter("ALTER ROLE {role} SET default_transaction_read_only = on")
    with connect(target.superuser) as session:
        assert unfit(session) == []
        assert unfit(session, application="another") == []
        assert len(unfit(session, application=APPLICATION)) == 1


def test_the_servers_own_configuration_counts(tmp_path: Path) -> None:
    settings = {"session_replication_role": "replica"}
    with EmbeddedPostgres(major=MAJOR, fast=True, settings=settings) as server:
        dsn = server.create_database("configured")
        with connect(dsn) as session:
            session.execute("SET session_replication_role = origin")
            assert "server's configuration" in unfit(session)[0][0]
        source = fresh_source(tmp_path)
        ended = run(
            *(
                "migrate",
                source,
                "--target",
                dsn,
                "--live",
                "--report",
                tmp_path / "report",
                "--state",
                tmp_path / "state",
            )
        )
        assert ended.status == 2, ended.said
        assert "session_replication_role" in ended.said
