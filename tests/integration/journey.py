"""One database through every command, live, there and back, with both sides compared each time.

Each command has to end well or with a sentence. What it leaves on the target is looked up in the
server's catalogue: nothing may be there that nobody asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw
import psycopg
from psycopg import sql

from tests.integration import independent_compare
from tests.integration.hostile import Database
from tests.integration.running import DONE, Ended, run

OWN = "_migration_"
ROWID = re.compile(r"_migration_rowid(_[0-9a-f]{8})?")


CHANGES = {"text": "{} || 'y'", "integer": "{} + 1", "bigint": "{} + 1"}
"""By type, what the application does to a value on PostgreSQL."""


class Unexpected(AssertionError):
    """A command ended as none may; the message holds what it printed."""


class Refused(Exception):
    """A command ended with a sentence; ``said`` is it."""

    def __init__(self, command: str, said: str) -> None:
        super().__init__(f"{command}: {said}")
        self.command, self.said = command, said


class Journey:
    """A source in ``directory``, an empty target, and the commands on them."""

    def __init__(self, directory: Path, dsn: str, database: Database) -> None:
        self.directory, self.dsn = directory, dsn
        self.source = directory / "app.db"
        database.write(self.source)
        told = {**psycopg.conninfo.conninfo_to_dict(dsn), "database": "x"}
        parts = ("host", "port", "user", "database")
        kept: dict[str, str] = {k: str(told[k]) for k in parts if k in told}
        kept |= {"host": "127.0.0.1", "password": "secret"}
        (directory / "application.json").write_text(json.dumps(kept))
        self.schemas = self._schemas()

    # ------------------------------------------------------------------------ the commands

    def command(self, name: str, *options: str | Path) -> Ended:
        """A command with what an operator gives it. Raises Refused for a sentence, Unexpected for
        any other end."""
        at = self.directory
        given: list[str | Path] = [name]
        if name != "restore-backup":
            given.append(self.source)
        if name in ("migrate", "verify", "switch", "rollback", "sync", "settle"):
            given += ["--target", self.dsn, "--report", at / "report"]
        if name in ("switch", "rollback", "sync", "settle"):
            given += ["--connection", at / "connection", "--connect-to", at / "application.json"]
        if name == "status":
            given += ["--target", self.dsn, "--connection", at / "connection"]
        if name in ("switch", "rollback", "sync", "settle", "status", "release"):
            given += ["--state", at / "state"]
        try:
            ended = run(*given, *options)
        except Exception as error:
            raise Unexpected(f"{name} ended with a traceback: {error!r}") from error
        if "Traceback" in ended.said or "please report" in ended.said:
            raise Unexpected(f"{name}: {ended.said}")
        forged = {c for c in ended.said if not c.isprintable()} - {"\n"}
        if forged:
            raise Unexpected(f"{name} prints {forged}: {ended.said!r}")
        if ended.status != DONE:
            sentence = ended.err.strip()
            if not sentence.startswith("error: "):
                raise Unexpected(f"{name} ended with {ended.status}: {ended.said}")
            raise Refused(name, sentence)
        return ended

    # --------------------------------------------------------------------------- both sides

    def write_source(self, statements: Sequence[str]) -> None:
        """What the application does while SQLite serves; what the schema refuses is left out."""
        connection = apsw.Connection(str(self.source))
        connection.execute("PRAGMA foreign_keys = ON")
        for statement in statements:
            try:
                connection.execute(statement)
            except apsw.ConstraintError:
                continue
        connection.close()

    def write_target(self) -> int:
        """What the application does while PostgreSQL serves: every table's rows are touched, one
        is removed, and put back under the same key or another; how many statements succeeded."""
        done = 0
        with psycopg.connect(self.dsn, autocommit=True) as app:
            for name, table in independent_compare.read_target(self.dsn).items():
                relation = sql.Identifier("public", name)
                columns = [c for c in table.types if c not in table.generated]
                touched = [c for c in columns if c not in table.primary_key]
                name = (touched or columns)[0]
                column, change = sql.Identifier(name), CHANGES.get(table.types[name], "{}")
                for statement in (
                    sql.SQL("UPDATE {} SET {} = ").format(relation, column)
                    + sql.SQL(change).format(column),
                    sql.SQL("DELETE FROM {0} WHERE ctid IN (SELECT ctid FROM {0} LIMIT 1)").format(
                        relation
                    ),
                    sql.SQL("INSERT INTO {} DEFAULT VALUES").format(relation),
                ):
                    try:
                        app.execute(statement)
                        done += 1
                    except psycopg.errors.IntegrityError:
                        continue
        return done

    def same(self) -> None:
        """The rows are the same on both sides."""
        records = independent_compare.read_records(self.dsn)
        source = {
            name: table
            for name, table in independent_compare.read_source(self.source).items()
            if not name.startswith(OWN) or name in records.tables
        }
        target = independent_compare.read_target(self.dsn)
        for table in source.values():
            # A table without a key has its rowid in a column of the target's: compared too.
            added = set(records.columns[table.name]) - {c.name for c in table.columns}
            for column in added:
                assert ROWID.fullmatch(records.columns[table.name][column])
                for row, rowid in zip(table.rows, table.rowids, strict=True):
                    row[column] = independent_compare.Cell("integer", rowid)
        found = independent_compare.compare(source, target, records)
        if found:
            raise Unexpected("the sides differ: " + "; ".join(found))

    def nothing_else(self) -> None:
        """No object is on the target that the plan, or this program's own schema, does not have."""
        with psycopg.connect(self.dsn, autocommit=True) as session:
            row = session.execute(
                "SELECT plan FROM migration.run"
                if "migration" in self._schemas()
                else "SELECT NULL"
            ).fetchone()
            plan: dict[str, Any] = json.loads(row[0]) if row and row[0] else {"tables": []}
            wanted = {t["target"] for t in plan["tables"]}
            wanted |= {v["target"] for v in plan.get("views", ())}
            there = {
                r[0]
                for r in session.execute(
                    "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace "
                    "AND relkind IN ('r', 'p', 'v', 'm', 'f')"
                )
            }
            functions = [
                r[0]
                for r in session.execute(
                    "SELECT proname FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace "
                    "WHERE nspname NOT IN ('pg_catalog', 'information_schema') AND NOT EXISTS "
                    "(SELECT FROM pg_depend WHERE objid = p.oid AND deptype = 'e')"
                )
            ]
            triggers = {
                r[0]
                for r in session.execute("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal")
            }
        extra = there - wanted
        extra |= {f for f in functions if not re.fullmatch(r"guard|log_\d+", f)}
        extra |= {t for t in triggers if not t.startswith("migration_job_")}
        extra |= self._schemas() - self.schemas - {"migration"}
        if extra:
            raise Unexpected(f"on the target, and nobody asked for it: {sorted(extra)}")

    def _schemas(self) -> set[str]:
        with psycopg.connect(self.dsn, autocommit=True) as session:
            return {
                r[0]
                for r in session.execute(
                    "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp'"
                )
            }


def there_and_back(journey: Journey, changes: Sequence[str]) -> None:
    """Every command in the order of a migration, live; ``changes`` is what the application writes
    on SQLite, each time. Raises Refused where one ends with a sentence."""
    at = journey.directory
    journey.command("inspect", "--profile", "none")
    journey.command("migrate", "--live", "--state", at / "state", "--profile", "none")
    journey.nothing_else()
    journey.same()
    journey.command("verify")
    journey.write_source(changes)
    journey.command("sync", "--once")
    journey.same()
    journey.command("status")
    journey.write_source(changes)
    journey.command("switch", "--fence-seconds", "30")
    journey.same()
    journey.nothing_else()
    journey.command("verify")
    journey.write_target()
    journey.command("sync", "--once")
    journey.same()
    journey.command("status")
    journey.write_target()
    journey.command("rollback")
    journey.same()
    journey.nothing_else()
    journey.write_source(changes)
    journey.command("sync", "--once")
    journey.same()
    journey.command("switch", "--fence-seconds", "30")
    journey.write_target()
    journey.command("settle", "--force")
    journey.nothing_else()
    journey.command("restore-backup", at / "report" / "archive", at / "restored.db")


def plain_and_back(journey: Journey, changes: Sequence[str]) -> None:
    """The same without --live: nothing is captured before the switch, and the way back takes out
    what the switch has put in."""
    journey.command("inspect", "--profile", "none")
    journey.command("migrate", "--profile", "none")
    journey.same()
    journey.command("verify")
    journey.command("switch")
    journey.nothing_else()
    journey.write_target()
    journey.command("sync", "--once")
    journey.same()
    journey.command("rollback", "--release")
    journey.same()
    journey.nothing_else()
    journey.write_source(changes)
    journey.command("migrate", "--live", "--state", journey.directory / "state")
    journey.same()
    journey.command("release")
    assert not any(name.startswith(OWN) for name in independent_compare.read_source(journey.source))
