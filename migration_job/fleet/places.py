"""Where the parts of one tenant's live run are: what its commands are given."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote as url_quote

from psycopg.conninfo import make_conninfo

from migration_job.connection import Connection, SqliteSide, render_env
from migration_job.errors import InputError
from migration_job.fleet.manifest import Layout, Live, Manifest
from migration_job.place import in_schema
from migration_job.pooler import Pooler
from migration_job.protocol.settings import ConnectTo, Endpoints, Reached, put_together

FILES = "files"
"""The directory of the files' own reports, in the fleet's."""


def folder_name(tenant: str) -> str:
    """A tenant's directory in the report's: escaped where a path would read it otherwise."""
    name = url_quote(tenant, safe=" ")
    return f"%2E{name[1:]}" if name.startswith(".") else name


def dsn_of(server: str, layout: Layout, place: str) -> str:
    """The connection string of a file's own place; ``server`` is that of the book."""
    if layout == "database-per-file":
        return make_conninfo(server, dbname=place)
    return in_schema(server, place)


def connection_of(live: Live, folder: Path, tenant: str) -> Path:
    """The directory that the tenant's application reads; ``folder`` is the manifest's."""
    return folder / live.connection.replace("{tenant}", folder_name(tenant))


def connections_of(live: Live, folder: Path) -> str:
    """The same directory of all tenants, for the book: ``{tenant}`` stands for each one's."""
    where = os.path.normpath(Path(os.path.realpath(folder)) / live.connection)
    return where.encode("utf-8", "backslashreplace").decode()


def state_of(live: Live, folder: Path, tenant: str) -> Path:
    """The directory of the tenant's locks and records."""
    return connection_of(live, folder, tenant) / ".state"


def untold(path: Path) -> str:
    """Why an application cannot be told that its database is there; '' where it can."""
    side = SqliteSide(path=str(path))
    try:
        render_env(Connection(write=side, read=side))
    except InputError:
        return (
            "expected a path that every reader of a .env file takes as it is, found a quote or a "
            f"line break in {str(path)!r}\n"
            "rename the file or its directory, or make a link with another name"
        )
    return ""


@dataclass(frozen=True, slots=True)
class Places:
    """By which the parts of each tenant are found."""

    manifest: Manifest
    folder: Path
    """The manifest's."""
    server: str
    """The connection string of the book's database."""
    report: Path
    reached: Reached
    """``{tenant}`` and ``{place}`` in it stand for the tenant's."""
    owner: tuple[int, int] | None = None

    @property
    def live(self) -> Live:
        """What the manifest says of live tenants, or what holds where it says nothing."""
        return self.manifest.live or Live()

    @property
    def connections(self) -> str:
        """Where the directories are that the applications read, for the book."""
        return connections_of(self.live, self.folder)

    def report_of(self, tenant: str) -> Path:
        """The directory of a tenant's own reports."""
        return self.report / FILES / folder_name(tenant)

    def endpoints(self, tenant: str, path: Path, place: str) -> Endpoints:
        """All that the tenant's commands act on. Raises InputError."""
        layout = self.manifest.layout
        told = _filled(self.reached.told, tenant, place)
        dsn = dsn_of(self.server, layout, place)
        reached = replace(self.reached, told=told)
        ends = put_together(path, dsn, connection_of(self.live, self.folder, tenant), reached)
        pooler = ends.given_pooler
        if pooler is not None:
            by_alias = layout == "schema-per-file" and self.live.search_path == "alias"
            alias = replace(pooler.given, shared=True, schema=place if by_alias else None)
            pooler = Pooler(str(self.reached.console), _alias_file(self.reached), alias)
        return replace(ends, given_pooler=pooler, owner=self.owner)

    def require_own_aliases(self) -> None:
        """Raises InputError where the tenants would share an alias, or a database's name that has
        to be each one's own."""
        named = "{tenant}" in self.reached.told.database or "{place}" in self.reached.told.database
        own_database = self.manifest.layout == "database-per-file"
        if not named and (self.reached.console is not None or own_database):
            raise InputError(
                'expected "database" of --connect-to to hold {tenant} or {place}, found '
                f"{self.reached.told.database!r} for all tenants",
                advice="each tenant has a name of its own there: PgBouncer's alias, or its "
                'database; for example "database": "{place}"',
            )


def _alias_file(reached: Reached) -> Path:
    if reached.alias_file is None:
        raise AssertionError("a pooler has an alias file")
    return reached.alias_file


def _filled(told: ConnectTo, tenant: str, place: str) -> ConnectTo:
    """What is said of all tenants, for one."""

    def fill(text: str) -> str:
        return text.replace("{tenant}", tenant).replace("{place}", place)

    changed: dict[str, object] = {"database": fill(told.database), "user": fill(told.user)}
    for name in ("password", "passfile", "service"):
        said = getattr(told, name)
        changed[name] = None if said is None else fill(said)
    if told.password_file is not None:
        changed["password_file"] = Path(
            str(told.password_file)
            .replace("{tenant}", folder_name(tenant))
            .replace("{place}", folder_name(place))
        )
    return told.model_copy(update=changed)
