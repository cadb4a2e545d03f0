"""What the target's system catalogues say of the run's schema, read at once for all tables: with
thousands of tables, a few queries for each would be most of a verification's time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import psycopg

from migration_job.verify.connections import Sides

TYPES_PER_QUERY = 1_000


@dataclass(frozen=True, slots=True)
class ColumnFact:
    """A column as it is."""

    not_null: bool
    identity: str
    generated: str
    type: tuple[int, int]
    """Type and modifier."""
    shown: str
    """The type as SQL."""
    default: str | None


@dataclass(frozen=True, slots=True)
class ConstraintFact:
    """A constraint as it is; the last six are a foreign key's."""

    kind: str
    name: str
    validated: bool
    columns: tuple[str, ...]
    usable: bool
    """Whether the index under it, if any, is valid and unique."""
    parent: str | None
    parent_columns: tuple[str, ...]
    on_update: str
    on_delete: str
    deferred: bool


@dataclass(frozen=True, slots=True)
class IndexFact:
    """An index as it is."""

    usable: bool
    unique: bool
    partial: bool
    terms: tuple[str, ...]
    method: str


@dataclass(slots=True)
class Facts:
    """Everything about the run's schema, by table name; a table that is not there has no entry."""

    kinds: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Kind and persistence of each relation."""
    columns: dict[str, dict[str, ColumnFact]] = field(default_factory=lambda: defaultdict(dict))
    constraints: dict[str, list[ConstraintFact]] = field(default_factory=lambda: defaultdict(list))
    indexes: dict[str, dict[str, IndexFact]] = field(default_factory=lambda: defaultdict(dict))
    pages: dict[str, int] = field(default_factory=dict)
    """Of each table's own rows."""
    sequences: dict[tuple[str, str], str] = field(default_factory=dict)
    """The sequence, as SQL names it, that a column of a table hands its values out from."""
    quarantined: dict[str, int] = field(default_factory=dict)
    """Rows in quarantine, by source table."""
    ledger: dict[str, int] = field(default_factory=dict)
    """Ledger entries, by source table."""
    types: dict[str, tuple[int, int]] = field(default_factory=dict)
    """What a type's spelling in the plan means to this server."""


COLUMNS = """
SELECT c.relname, a.attname, a.attnotnull, a.attidentity::text, a.attgenerated::text,
       a.atttypid::bigint, a.atttypmod, format_type(a.atttypid, a.atttypmod),
       CASE WHEN a.attgenerated = '' THEN pg_get_expr(d.adbin, d.adrelid) END
FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
LEFT JOIN pg_attrdef AS d ON d.adrelid = c.oid AND d.adnum = a.attnum
WHERE c.relnamespace = to_regnamespace(quote_ident(current_schema()))
  AND c.relkind = 'r' AND a.attnum > 0
  AND NOT a.attisdropped
"""

CONSTRAINTS = """
SELECT t.relname, c.contype::text, c.conname, c.convalidated,
       ARRAY(SELECT a.attname::text FROM unnest(c.conkey) WITH ORDINALITY AS k(n, i)
             JOIN pg_attribute AS a ON a.attrelid = c.conrelid AND a.attnum = k.n ORDER BY k.i),
       coalesce(x.indisvalid AND x.indisready AND x.indisunique, true), p.relname,
       ARRAY(SELECT a.attname::text FROM unnest(c.confkey) WITH ORDINALITY AS k(n, i)
             JOIN pg_attribute AS a ON a.attrelid = c.confrelid AND a.attnum = k.n ORDER BY k.i),
       c.confupdtype::text, c.confdeltype::text, c.condeferred
FROM pg_constraint AS c JOIN pg_class AS t ON t.oid = c.conrelid
LEFT JOIN pg_index AS x ON x.indexrelid = c.conindid AND c.contype IN ('p', 'u', 'x')
LEFT JOIN pg_class AS p ON p.oid = c.confrelid
WHERE t.relnamespace = to_regnamespace(quote_ident(current_schema()))
"""

INDEXES = """
SELECT t.relname, c.relname, i.indisvalid AND i.indisready, i.indisunique, i.indpred IS NOT NULL,
       ARRAY(SELECT pg_get_indexdef(i.indexrelid, n, false)
             FROM generate_series(1, i.indnkeyatts) AS n ORDER BY n), m.amname
FROM pg_index AS i JOIN pg_class AS t ON t.oid = i.indrelid
JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_am AS m ON m.oid = c.relam
WHERE t.relnamespace = to_regnamespace(quote_ident(current_schema()))
"""

RELATIONS = """
SELECT relname, relkind::text, relpersistence::text,
       CASE WHEN relkind = 'r'
            THEN pg_relation_size(oid) / current_setting('block_size')::integer END
FROM pg_class WHERE relnamespace = to_regnamespace(quote_ident(current_schema()))
"""

SEQUENCES = """
SELECT t.relname, a.attname, s.oid::regclass::text
FROM pg_depend AS d JOIN pg_class AS s ON s.oid = d.objid AND s.relkind = 'S'
JOIN pg_class AS t ON t.oid = d.refobjid
JOIN pg_attribute AS a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass
  AND d.deptype IN ('a', 'i')
  AND t.relnamespace = to_regnamespace(quote_ident(current_schema()))
ORDER BY d.deptype
"""
"""As ``pg_get_serial_sequence`` finds them; an identity's own comes last, so that it counts."""


def read_tables(sides: Sides) -> Facts:
    """What the comparison of rows needs: relations, columns and the ledger's counts."""
    facts = Facts()
    for name, kind, persistence, pages in sides.rows(RELATIONS):
        facts.kinds[name] = (kind, persistence)
        facts.pages[name] = int(pages or 0)
    for row in sides.rows(COLUMNS):
        facts.columns[row[0]][row[1]] = ColumnFact(
            row[2], row[3], row[4], (int(row[5]), int(row[6])), row[7], row[8]
        )
    for name, count in sides.rows("SELECT tab, count(*) FROM migration.ledger GROUP BY tab"):
        facts.ledger[name] = int(count)
    return facts


def read_relations(sides: Sides, facts: Facts, types: Iterable[str]) -> None:
    """Everything else that the relations' checks need; ``types`` are the plan's spellings."""
    for name, column, sequence in sides.rows(SEQUENCES):
        facts.sequences[name, column] = sequence
    for row in sides.rows(CONSTRAINTS):
        kind, name, validated, columns, usable, parent, parent_columns, *rest = row[1:]
        facts.constraints[row[0]].append(
            ConstraintFact(
                kind, name, validated, tuple(columns), usable, parent, tuple(parent_columns), *rest
            )
        )
    for row in sides.rows(INDEXES):
        facts.indexes[row[0]][row[1]] = IndexFact(row[2], row[3], row[4], tuple(row[5]), row[6])
    for name, count in sides.rows("SELECT tab, count(*) FROM migration.quarantine GROUP BY tab"):
        facts.quarantined[name] = int(count)
    facts.types = _meanings(sides, sorted(set(types)))


def _meanings(sides: Sides, types: list[str]) -> dict[str, tuple[int, int]]:
    """PostgreSQL itself says what a type's spelling means."""
    found: dict[str, tuple[int, int]] = {}
    for some in (types[i : i + TYPES_PER_QUERY] for i in range(0, len(types), TYPES_PER_QUERY)):
        with sides.target.cursor() as cursor:
            # No row: a domain may allow no NULL.
            cursor.execute(f"SELECT {', '.join(f'NULL::{t}' for t in some)} LIMIT 0".encode())
            result: Any = cursor.pgresult
            if result is None:
                raise psycopg.ProgrammingError("the query gives no columns")
            for number, name in enumerate(some):
                found[name] = (result.ftype(number), result.fmod(number))
    return found
