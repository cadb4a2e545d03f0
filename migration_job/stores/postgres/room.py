"""Room for the load of a large table that is the application's own.

Rows that arrive in a full set of indexes cost half as much again as rows that are indexed
afterwards, and rows that are not frozen have to be touched once more by whoever reads them first.
So within the load's own transaction the table is truncated once more, and its indexes that belong
to no constraint are dropped and made again from their own definitions. A run that is cut off in
it leaves the target as it was: nobody has seen the table without them.
"""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg import sql

from migration_job.plan.model import TablePlan

# What pg_get_indexdef does not say (a comment, a tablespace, statistics of an expression, to be
# clustered by it) would be lost; from 17 on an index is built with another search_path than rows
# are written with, which a function of the application's may not stand.
_INDEXES = """
SELECT c.oid, c.relname, pg_get_indexdef(c.oid)
  FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
 WHERE i.indrelid = %(table)s::text::regclass
   AND NOT (i.indisunique OR i.indisprimary OR i.indisexclusion OR i.indisreplident
            OR i.indisclustered)
   AND i.indisvalid AND i.indisready AND c.reltablespace = 0
   AND pg_has_role(t.relowner, 'USAGE')
   AND has_schema_privilege(c.relnamespace, 'CREATE')
   AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = c.oid)
   AND NOT EXISTS (SELECT FROM pg_description d
                    WHERE d.objoid = c.oid AND d.classoid = 'pg_class'::regclass)
   AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid
                    AND (coalesce(a.attstattarget, -1) <> -1 OR a.attoptions IS NOT NULL))
   AND NOT EXISTS (SELECT FROM pg_depend d
                    WHERE d.refobjid = c.oid AND d.refclassid = 'pg_class'::regclass)
   AND NOT EXISTS (SELECT FROM pg_depend d
                    WHERE d.objid = c.oid AND d.classid = 'pg_class'::regclass
                      AND (d.deptype NOT IN ('n', 'a') OR d.refclassid = 'pg_proc'::regclass))
 ORDER BY c.oid
"""

_MAY_TRUNCATE = """
SELECT pg_has_role(relowner, 'USAGE')
   AND NOT EXISTS (SELECT FROM pg_constraint
                    WHERE contype = 'f' AND confrelid = t.oid AND conrelid <> confrelid)
  FROM pg_class t WHERE t.oid = %(table)s::text::regclass
"""
"""PostgreSQL truncates no table that others refer to, be they empty. An owner sees all the rows
that there are: policies may hide some from another role."""


@dataclass(frozen=True, slots=True)
class Room:
    """What was made for the load of one table, in its transaction."""

    frozen: bool = False
    """Whether its rows may be written frozen."""
    indexes: tuple[str, ...] = ()
    """Statements that make the dropped indexes again."""


def make(connection: psycopg.Connection, table: TablePlan) -> Room:
    """Lock the empty table, which no other session reads, and take its indexes away. In an open
    transaction; psycopg.Error where the server refuses. A table with rows is left as it is."""
    name = sql.Identifier(table.schema_name, table.target)
    connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(name))
    full = connection.execute(sql.SQL("SELECT EXISTS (SELECT FROM {})").format(name)).fetchone()
    if full is None or full[0]:
        return Room()
    known = {"table": table.relation}
    found = connection.execute(_INDEXES, known).fetchall()
    for _, index, _ in found:
        connection.execute(
            sql.SQL("DROP INDEX {}").format(sql.Identifier(table.schema_name, index))
        )
    may = connection.execute(_MAY_TRUNCATE, known).fetchone()
    frozen = may is not None and bool(may[0])
    if frozen:
        connection.execute(sql.SQL("TRUNCATE ONLY {} CONTINUE IDENTITY").format(name))
    return Room(frozen, tuple(str(definition) for _, _, definition in found))


def give_back(connection: psycopg.Connection, room: Room) -> None:
    """Make the indexes again, in the transaction that dropped them."""
    if room.indexes:
        connection.execute("SET LOCAL default_tablespace TO ''")
    for definition in room.indexes:
        connection.execute(definition.encode())
