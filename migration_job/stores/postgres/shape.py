"""The shape of the application's tables on the target, and what of them does not come back.

``migration.served`` has, for each table of the run's schema, the shape under which the way back
last carried it; ``migration.schema_seen`` a digest of the whole, so that a round asks one question;
``migration.one_way`` the tables whose changes do not come back any more, and why.
"""

from __future__ import annotations

from collections.abc import Mapping

import psycopg

from migration_job.place import has_record, schema_of_session
from migration_job.quoting import compose, postgres_relation
from migration_job.stores.postgres.database import ask_together
from migration_job.stores.sqlite.model import Data

TABLES = """
CREATE TABLE IF NOT EXISTS migration.served (tab text PRIMARY KEY, shape text NOT NULL);
CREATE TABLE IF NOT EXISTS migration.schema_seen (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    digest text NOT NULL
);
CREATE TABLE IF NOT EXISTS migration.one_way (
    tab text PRIMARY KEY,
    cause text NOT NULL,
    since timestamp with time zone NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE migration.served IS 'tables of the application, as the way back last carried them';
COMMENT ON TABLE migration.one_way IS 'tables whose changes do not come back to SQLite, and why'
"""

NAMES = ("served", "schema_seen", "one_way")

PREFIX = "migration_job_"
"""How the names of the way back's triggers begin."""

Triggers = tuple[tuple[str, str, str], ...]
"""Of each trigger of the way back its name, in which sessions it fires, and the transaction that
last changed it in the catalogue: switched off and on again it is another one."""


class ColumnShape(Data):
    number: int
    name: str
    type: str
    """As ``format_type`` names it."""
    not_null: bool
    generated: bool
    """PostgreSQL computes it of the row's other columns."""
    always: bool
    """An identity that takes no value of others."""
    filled: bool
    """Rows from before it was added have a default's value."""
    changed: str
    """The transaction that last changed the column in the catalogue."""


class TableShape(Data):
    oid: int
    file: int
    """Another one after each rewrite, TRUNCATE included."""
    partitioned: bool
    columns: tuple[ColumnShape, ...]
    uniques: tuple[tuple[str, ...], ...]
    """Columns of each unique key of all rows, sorted."""
    triggers: Triggers | None = None
    """None where they are not on record: those of the next look are taken for untouched."""

    def column(self, name: str) -> ColumnShape | None:
        """The column of that name."""
        return next((c for c in self.columns if c.name == name), None)


_OURS = (
    "c.relnamespace = to_regnamespace(quote_ident(current_schema())) "
    "AND c.relkind IN ('r', 'p') "
    "AND NOT c.relispartition AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.objid = c.oid "
    "AND e.classid = 'pg_class'::regclass AND e.deptype = 'e')"
)
_COLUMNS = compose(
    "SELECT c.relname, c.oid, c.relfilenode, a.attnum, a.attname, a.atttypid, a.atttypmod, "
    "a.attnotnull, a.attgenerated <> '' AS generated, a.attidentity = 'a' AS always, "
    "a.atthasmissing, a.xmin::text AS changed, c.relkind FROM pg_class c LEFT JOIN pg_attribute a "
    "ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped WHERE {ours}",
    ours=_OURS,
)
_UNIQUES = compose(
    "SELECT i.indrelid, i.indkey::text AS keys, i.indnkeyatts FROM pg_index i "
    "JOIN pg_class c ON c.oid = i.indrelid WHERE {ours} AND i.indisunique AND i.indisvalid "
    "AND i.indpred IS NULL AND i.indexprs IS NULL",
    ours=_OURS,
)
_TRIGGERS = compose(
    "SELECT t.tgrelid, t.tgname::text, t.tgenabled::text AS enabled, t.xmin::text AS changed "
    "FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE {ours} "
    "AND NOT t.tgisinternal AND starts_with(t.tgname, '{prefix}')",
    ours=_OURS,
    prefix=PREFIX,
)
# Not the file: VACUUM FULL and TRUNCATE change it alone, ALTER TABLE a column's row as well.
DIGEST = compose(
    "SELECT md5(coalesce(string_agg(line, ' ' ORDER BY line), '')) FROM ("
    "SELECT ROW(relname, oid, relkind, attnum, attname, atttypid, atttypmod, attnotnull, "
    "generated, always, changed)::text AS line FROM ({columns}) AS x UNION ALL "
    "SELECT y::text FROM ({uniques}) AS y UNION ALL "
    "SELECT z::text FROM ({triggers}) AS z) AS lines",
    columns=_COLUMNS,
    uniques=_UNIQUES,
    triggers=_TRIGGERS,
)


def read_digest(connection: psycopg.Connection) -> str:
    """A digest of what :func:`read_shapes` reads, by the present snapshot: another one after any
    change but that of a table's file alone."""
    row = connection.execute(DIGEST.encode()).fetchone()
    return "" if row is None else str(row[0])


def read_shapes(connection: psycopg.Connection) -> dict[str, TableShape]:
    """Each table of the application's schema, without partitions and what belongs to extensions."""
    rows = connection.execute(
        compose(
            "SELECT relname, oid, relfilenode, relkind, attnum, attname, "
            "format_type(atttypid, atttypmod), attnotnull, generated, always, "
            "atthasmissing, changed FROM ({columns}) AS x ORDER BY relname, attnum",
            columns=_COLUMNS,
        ).encode()
    ).fetchall()
    tables: dict[str, tuple[int, int, bool, list[ColumnShape]]] = {}
    for name, oid, file, kind, *column in rows:
        found = tables.setdefault(str(name), (int(oid), int(file), kind in (b"p", "p"), []))
        if column[0] is not None:
            fields = zip(ColumnShape.model_fields, column, strict=True)
            found[3].append(ColumnShape.model_validate(dict(fields)))
    uniques: dict[int, set[tuple[str, ...]]] = {}
    names = {(oid, c.number): c.name for oid, *_, columns in tables.values() for c in columns}
    for relation, keys, count in connection.execute(_UNIQUES.encode()).fetchall():
        columns = [names.get((int(relation), int(k)), "") for k in str(keys).split()[: int(count)]]
        uniques.setdefault(int(relation), set()).add(tuple(sorted(columns)))
    triggers = read_triggers(connection)
    return {
        name: TableShape(
            oid=oid,
            file=file,
            partitioned=partitioned,
            columns=tuple(columns),
            uniques=tuple(sorted(uniques.get(oid, ()))),
            triggers=triggers.get(oid, ()),
        )
        for name, (oid, file, partitioned, columns) in tables.items()
    }


def read_triggers(connection: psycopg.Connection) -> dict[int, Triggers]:
    """The way back's triggers by their table's object number."""
    found: dict[int, list[tuple[str, str, str]]] = {}
    for relation, name, enabled, changed in connection.execute(_TRIGGERS.encode()).fetchall():
        found.setdefault(int(relation), []).append((str(name), str(enabled), str(changed)))
    return {relation: tuple(sorted(each)) for relation, each in found.items()}


def read_default(connection: psycopg.Connection, table: str, column: str) -> str | None:
    """The column's default expression, as PostgreSQL prints it."""
    row = connection.execute(
        "SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d JOIN pg_attribute a "
        "ON a.attrelid = d.adrelid AND a.attnum = d.adnum "
        "WHERE d.adrelid = to_regclass(%s) AND a.attname = %s",
        (postgres_relation(table, schema_of_session(connection)), column),
    ).fetchone()
    return None if row is None or row[0] is None else str(row[0])


# ------------------------------------------------------------------------------ what is known


def there(connection: psycopg.Connection) -> bool:
    """Whether the target has these records: a run of an earlier release has none."""
    return has_record(connection, "one_way")


def record_once(connection: psycopg.Connection) -> str:
    """Record the schema as it is, where no record is yet; returns the digest on record."""
    with connection.transaction():
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        connection.execute(TABLES)
        found = connection.execute("SELECT digest FROM migration.schema_seen").fetchone()
        if found is not None:
            return str(found[0])
        digest = read_digest(connection)
        keep(connection, digest, read_shapes(connection))
    return digest


def read_served(connection: psycopg.Connection) -> dict[str, TableShape]:
    """The shape of each table, as the way back last carried it."""
    rows = connection.execute("SELECT tab, shape FROM migration.served").fetchall()
    return {str(name): TableShape.model_validate_json(shape) for name, shape in rows}


def record_triggers(connection: psycopg.Connection) -> None:
    """Take the triggers for untouched as they are, of each table on record. Only while the target
    takes no writes and lacks none."""
    now = read_triggers(connection)
    with connection.transaction():
        for name, one in read_served(connection).items():
            fitted = one.model_copy(update={"triggers": now.get(one.oid, ())})
            if fitted != one:
                connection.execute(
                    "UPDATE migration.served SET shape = %s WHERE tab = %s",
                    (fitted.model_dump_json(), name),
                )


def keep(connection: psycopg.Connection, digest: str, shapes: Mapping[str, TableShape]) -> None:
    """Record these shapes, and that the schema of this digest was looked at."""
    ask_together(
        connection,
        [
            (
                "INSERT INTO migration.served SELECT * FROM unnest($1::text[], $2::text[]) "
                "ON CONFLICT (tab) DO UPDATE SET shape = excluded.shape",
                (list(shapes), [shape.model_dump_json() for shape in shapes.values()]),
            ),
            (
                "INSERT INTO migration.schema_seen (digest) VALUES ($1) ON CONFLICT (one) "
                "DO UPDATE SET digest = excluded.digest",
                (digest,),
            ),
        ],
    )


def set_causes(connection: psycopg.Connection, causes: Mapping[str, str]) -> None:
    """Record which tables do not come back: these, and no others."""
    connection.execute("DELETE FROM migration.one_way WHERE tab <> ALL(%s)", (list(causes),))
    for name, cause in causes.items():
        connection.execute(
            "INSERT INTO migration.one_way (tab, cause) VALUES (%s, %s) ON CONFLICT (tab) "
            "DO UPDATE SET cause = excluded.cause",
            (name, cause),
        )


def read_causes(connection: psycopg.Connection) -> dict[str, str]:
    """Why the changes of which tables do not come back, by the target's name."""
    if not there(connection):
        return {}
    rows = connection.execute("SELECT tab, cause FROM migration.one_way ORDER BY tab").fetchall()
    return {str(name): str(cause) for name, cause in rows}
