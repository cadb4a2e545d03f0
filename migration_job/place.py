"""Where on the target a run works: the schema that the application's tables are in, and the schema
of the run's own records.

The schema goes with the connection string, as its ``search_path`` (:func:`in_schema`), so whatever
is given the one is given the other. A session of the job
(:func:`migration_job.stores.postgres.database.connect`) knows both schemas; that of the tables is
its ``current_schema()``.

The records of a run into ``public`` are in schema ``migration``, those of one into another schema
``x`` in ``migration_x``, so that several files can go into one database. The job's statements say
``migration`` for either; a session on another schema sends them with the name that holds there.
"""

from __future__ import annotations

import re
import shlex
from typing import Any, ClassVar, cast

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from migration_job.errors import InputError
from migration_job.quoting import POSTGRES_NAME_BYTES, postgres_name, postgres_relation

DEFAULT_SCHEMA = "public"
"""Where PostgreSQL makes tables of which nobody says where they belong."""

RECORDS = "migration"
"""The schema of the records of a run into the default schema; the beginning of every other's."""

KEPT = ("pg_", f"{RECORDS}_", f"_{RECORDS}_")
"""How the names begin that PostgreSQL or this job keeps for itself."""

RESERVED = ("information_schema", RECORDS)

OF_THE_ROLE = "$user"
"""A search_path has the role's name in its place, so no path can lead to a schema of this name."""


def require_schema_name(name: str) -> str:
    """The name of a schema that tables may be loaded into. Raises InputError for one that
    PostgreSQL or this job keeps for itself, or that leaves no room for the name of the records."""
    room = POSTGRES_NAME_BYTES - len(RECORDS) - 1
    kept = name.startswith(KEPT) or name in RESERVED
    if name == OF_THE_ROLE:
        raise InputError(
            f"expected a schema's name after --schema-name, found {name!r}, which PostgreSQL reads "
            "as the connected role's name in a search_path, even in quotation marks",
            advice="name the schema itself, or rename a schema that is really called so",
        )
    if kept or not name or "\x00" in name or len(name.encode()) > room:
        raise InputError(
            f"expected a schema's name of 1 to {room:,} bytes after --schema-name, found {name!r}"
            + (", which PostgreSQL or this job keeps for itself" if kept else ""),
            advice="give the name of the application's own schema, as it is spelled there",
        )
    return name


def in_schema(dsn: str, name: str | None) -> str:
    """The connection string for tables in that schema; None leaves it as it is. Raises InputError
    where it names another one already, or no string can name this one."""
    if name is None:
        return dsn
    require_schema_name(name)
    there, others = _search_path(dsn)
    if there is not None and there != name:
        raise InputError(
            f"expected one schema, found {name!r} after --schema-name and {there!r} as the "
            "connection string's search_path",
            advice="leave one of them out",
        )
    path = _escaped(f"search_path={postgres_name(name)}")
    return make_conninfo(dsn, options=" ".join([*map(_escaped, others), f"-c {path}"]))


def schema_of(dsn: str) -> str:
    """The schema that the connection string names, as a ``search_path`` of one name in its options;
    else the default one. Raises InputError for a path of several."""
    there, _ = _search_path(dsn)
    return DEFAULT_SCHEMA if there is None else require_schema_name(there)


def without_schema(dsn: str) -> str:
    """The connection string without its ``search_path``: a pooler in between refuses it."""
    there, others = _search_path(dsn)
    if there is None:
        return dsn
    parts = {**conninfo_to_dict(dsn), "options": " ".join(map(_escaped, others))}
    return make_conninfo("", **{name: part for name, part in parts.items() if part != ""})


def records_for(schema: str) -> str:
    """The schema of the records of a run into ``schema``."""
    return RECORDS if schema == DEFAULT_SCHEMA else f"{RECORDS}_{schema}"


def _search_path(dsn: str) -> tuple[str | None, list[str]]:
    """The path's only name, and the other options."""
    words = _words(str(conninfo_to_dict(dsn).get("options") or ""))
    found: str | None = None
    others: list[str] = []
    while words:
        word = words.pop(0)
        setting = words.pop(0) if word == "-c" and words else word.removeprefix("-c")
        name, equals, value = setting.removeprefix("--").partition("=")
        if equals and name.strip() == "search_path":
            found = _only_name(value)
        else:
            others += ["-c", setting] if word == "-c" else [word]
    return found, others


def _words(options: str) -> list[str]:
    """As the server splits them: at white space, a backslash takes the next character as it is."""
    lexer = shlex.shlex(options, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.quotes, lexer.commenters = True, "", ""
    return list(lexer)


def _escaped(word: str) -> str:
    return re.sub(r"([\\\s])", r"\\\1", word)


_ONE_NAME = re.compile(r'\s*(?:"((?:[^"]|"")+)"|([^\s",]+))\s*')


def _only_name(path: str) -> str:
    """The name as PostgreSQL reads it: folded, where it has no quotation marks."""
    found = _ONE_NAME.fullmatch(path)
    if found is None:
        raise InputError(
            f"expected one schema as the connection string's search_path, found {path!r}",
            advice="name the schema of the application's tables alone; this job finds extensions "
            "by itself",
        )
    return found[1].replace('""', '"') if found[1] else found[2].lower()


# ------------------------------------------------------------------------ statements, in place

_PIECE = re.compile(
    rf"""
      (?<![A-Za-z0-9_$])[eE]'(?:[^'\\]|\\.|'')*'
    | '(?:[^']|'')*'
    | "(?:[^"]|"")*"
    | --[^\n]*
    | (?P<own>(?<![\w$.]){RECORDS}(?=\.) | (?<=\bSCHEMA\ ){RECORDS}(?![\w$.]))
    """,
    re.VERBOSE | re.DOTALL,
)
"""What is in quotation marks is a name or a value, and stays. The body of a function between dollar
tags holds none of them (:mod:`migration_job.quoting`) and is read as the rest is."""


def placed(statement: str, records: str, *, formatted: bool = False) -> str:
    """One of the job's statements as it is for a run whose records are in schema ``records``.
    ``formatted``: it is sent with parameters that it names ``%s``, so a name's ``%`` is doubled."""
    if records == RECORDS or RECORDS not in statement:
        return statement
    own = postgres_name(records)
    if formatted:
        own = own.replace("%", "%%")
    return _PIECE.sub(lambda piece: own if piece["own"] else piece[0], statement)


def records_of(connection: psycopg.Connection[Any]) -> str:
    """The schema of the records of the run whose session this is."""
    return str(getattr(connection, "records", RECORDS))


def schema_of_session(connection: psycopg.Connection[Any]) -> str:
    """The schema of the application's tables in a session of the job's."""
    return str(getattr(connection, "schema", DEFAULT_SCHEMA))


def record(connection: psycopg.Connection[Any], name: str) -> str:
    """One of the run's records as SQL names it, quoted and qualified; for where a text has it."""
    return postgres_relation(name, records_of(connection))


def has_record(connection: psycopg.Connection[Any], name: str) -> bool:
    """Whether the run's records have a table of that name."""
    row = connection.execute(
        "SELECT to_regclass(%s) IS NOT NULL", (record(connection, name),)
    ).fetchone()
    return row is not None and bool(row[0])


def placed_for(
    connection: psycopg.Connection[Any], statement: Any, *, formatted: bool = False
) -> Any:
    """The same for whatever psycopg takes as a statement, in a session of a run."""
    records = records_of(connection)
    if records == RECORDS:
        return statement
    if isinstance(statement, sql.Composable):
        statement = statement.as_string(connection)
    if isinstance(statement, bytes):
        return placed(statement.decode(), records, formatted=formatted).encode()
    if isinstance(statement, str):
        return placed(statement, records, formatted=formatted).encode()
    return statement


class Placed:
    """A cursor whose statements are in place."""

    formats: ClassVar[bool] = True
    """Whether parameters stand in a statement as ``%s``; psycopg looks for them where it is given
    any, be it an empty list."""

    def execute(self, query: Any, params: Any = None, **named: Any) -> Any:
        """As psycopg's."""
        inner = cast("Any", super())
        return inner.execute(self._placed(query, params), params, **named)

    def executemany(self, query: Any, params_seq: Any, **named: Any) -> Any:
        """As psycopg's."""
        inner = cast("Any", super())
        return inner.executemany(self._placed(query, params_seq), params_seq, **named)

    def copy(self, statement: Any, params: Any = None, **named: Any) -> Any:
        """As psycopg's."""
        inner = cast("Any", super())
        return inner.copy(self._placed(statement, params), params, **named)

    def _placed(self, statement: Any, params: Any) -> Any:
        connection = cast("psycopg.Cursor[Any]", self).connection
        formatted = self.formats and params is not None
        return placed_for(connection, statement, formatted=formatted)


class PlacedCursor(Placed, psycopg.Cursor[Any]):
    """psycopg's cursor."""


class PlacedServerCursor(Placed, psycopg.ServerCursor[Any]):
    """psycopg's cursor on the server."""


class RawCursor(Placed, psycopg.RawCursor[Any]):
    """psycopg's cursor with parameters as ``$1``."""

    formats: ClassVar[bool] = False
