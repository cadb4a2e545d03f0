"""By what order a database compares text: bytes, as SQLite's BINARY does, or a language's rules.

Under a language's rules ``id >= 'B' AND id < 'a'`` answers other rows than on SQLite, and so do
ORDER BY, min, max and pages by key. Columns with ``COLLATE "C"`` compare as SQLite does, whatever
the database's own collation is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import psycopg

from migration_job.quoting import compose

OPTION = "--accept-collation"

BYTES = '"C"'
"""The collation that compares byte by byte, as SQL has it."""

_BY_BYTES = re.compile(r"(C|POSIX)(\..*)?", re.IGNORECASE)
_OF_TEXT = re.compile(
    r"(text|varchar|character varying|char|character|bpchar|citext)\b", re.IGNORECASE
)
_PROVIDERS = {"c": "libc", "i": "ICU", "b": "builtin"}


@dataclass(frozen=True, slots=True)
class Collation:
    """A database's default."""

    name: str
    provider: str
    letters: str
    """``lc_ctype``: what upper and lower know."""
    by_bytes: bool

    def __str__(self) -> str:
        return f"{self.name} ({self.provider}), lc_ctype {self.letters}"


def look(connection: psycopg.Connection) -> Collation:
    """The database's own; changes nothing."""
    version = connection.info.server_version
    provider = "datlocprovider" if version >= 150000 else "'c'"
    locale = "NULL"
    if version >= 150000:
        locale = "datlocale" if version >= 170000 else "daticulocale"
    row = connection.execute(
        compose(
            "SELECT {provider}::text, datcollate::text, datctype::text, {locale}::text "
            "FROM pg_database WHERE datname = current_database()",
            provider=provider,
            locale=locale,
        ).encode()
    ).fetchall()[0]
    kind, order, letters, other = (str(value or "") for value in row)
    by_bytes = kind == "b" or (kind == "c" and _BY_BYTES.fullmatch(order) is not None)
    name = order if kind == "c" else other or order
    return Collation(name, _PROVIDERS.get(kind, kind), letters, by_bytes)


def clause(connection: psycopg.Connection, *, accepted: bool) -> str:
    """The collation that columns of text are to be given; '' where the database's own will do."""
    return "" if accepted or look(connection).by_bytes else BYTES


def of_text(type_sql: str) -> bool:
    """Whether a column of that type, or an array of it, has a collation that a plan means to be
    SQLite's."""
    return _OF_TEXT.match(type_sql.strip()) is not None
