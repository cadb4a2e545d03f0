"""How a name or a text becomes part of an SQL text, for both engines. Nothing else quotes one.

A name never reaches SQL but through one of these functions, which say by their own names for which
engine they quote: the two agree on the quotes and differ in what can be a name at all. PostgreSQL's
side is ``psycopg.sql``'s. Two more rules keep a name from being read as something else:

- A statement that holds names and takes parameters has them as ``$1`` (``psycopg.RawCursor``,
  :func:`migration_job.stores.postgres.database.execute_raw`): where they are ``%s``, the per cent
  sign of a name would be one too.
- The body of a function that holds names is a literal (:func:`postgres_text`), not text between
  dollar tags, which a name could hold as well.
"""

from __future__ import annotations

from psycopg import sql

from migration_job.errors import InputError

POSTGRES_NAME_BYTES = 63
"""NAMEDATALEN - 1: PostgreSQL cuts longer names silently, so they are refused here."""


def sqlite_name(name: str) -> str:
    """The name as an identifier of SQLite's, of any length. Raises InputError for a NUL, at which
    SQLite would end the statement."""
    if "\x00" in name:
        raise InputError(f"expected a name without a NUL character, found {name!r}")
    return '"' + name.replace('"', '""') + '"'


def sqlite_table(name: str, schema: str = "main") -> str:
    """A table, view or index of the file itself: a temporary one of that name does not hide it."""
    return f"{sqlite_name(schema)}.{sqlite_name(name)}"


def sqlite_text(text: str) -> str:
    """The text as a literal of SQLite's. Raises InputError for a NUL."""
    if "\x00" in text:
        raise InputError(f"expected a text without a NUL character, found {text!r}")
    return "'" + text.replace("'", "''") + "'"


def postgres_name(name: str) -> str:
    """The name as an identifier of PostgreSQL's. Raises InputError for what cannot be one: an empty
    name, a NUL, more than :data:`POSTGRES_NAME_BYTES` bytes."""
    if not name or "\x00" in name or len(name.encode()) > POSTGRES_NAME_BYTES:
        raise InputError(
            f"expected a name of 1 to {POSTGRES_NAME_BYTES} bytes without a NUL character for "
            f"PostgreSQL, found {name!r}"
        )
    return sql.Identifier(name).as_string(None)


def postgres_relation(name: str, schema: str = "public") -> str:
    """A table, view, index or sequence in its schema. Raises InputError as :func:`postgres_name`
    does."""
    return f"{postgres_name(schema)}.{postgres_name(name)}"


def postgres_text(text: str) -> str:
    """The text as a literal of PostgreSQL's, the same under any ``standard_conforming_strings``.
    Raises InputError for a NUL, which PostgreSQL cannot hold."""
    if "\x00" in text:
        raise InputError(f"expected a text without a NUL character, found {text!r}")
    return sql.Literal(text).as_string(None).strip()
