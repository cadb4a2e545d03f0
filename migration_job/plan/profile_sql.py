"""A profile's SQL, read: the tables, columns, constraints and indexes that it wishes for.

Apart from :mod:`~migration_job.plan.profile`, which imports it where there is SQL to read: the
parser takes longer to import than a look at a small file takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from migration_job.errors import InputError
from migration_job.plan.model import IndexPlan
from migration_job.quoting import postgres_name
from migration_job.stores.sqlite.model import SourceForeignKey
from migration_job.values import fold

TYPES = {
    "timestamptz": "timestamp with time zone",
    "timestamp": "timestamp without time zone",
    "double": "double precision",
    "float8": "double precision",
    "int": "integer",
    "int4": "integer",
    "int8": "bigint",
    "bool": "boolean",
    "decimal": "numeric",
}


@dataclass(frozen=True, slots=True)
class WishedColumn:
    name: str
    type: str
    not_null: bool
    default: str | None


@dataclass(frozen=True, slots=True)
class WishedTable:
    name: str
    columns: tuple[WishedColumn, ...]
    primary_key: tuple[str, ...]
    uniques: tuple[tuple[str, ...], ...]
    checks: tuple[tuple[str, str], ...]
    """Name and PostgreSQL's expression."""
    foreign_keys: tuple[SourceForeignKey, ...]
    indexes: tuple[IndexPlan, ...]


@dataclass(frozen=True, slots=True)
class Wished:
    """What a profile's SQL says."""

    tables: dict[str, WishedTable]
    """By lower-cased name."""
    extensions: tuple[str, ...]
    after_load: tuple[str, ...]
    """Statements that are neither tables nor indexes nor extensions."""


def read_sql(text: str, path: Path, known: Mapping[str, WishedTable]) -> Wished:
    """What the file says, beside the tables that are known already; an index may be for one of
    them. Raises InputError for what cannot be parsed."""
    try:
        statements = sqlglot.parse(text, read="postgres")
    except SqlglotError as error:
        first = str(error).splitlines()[0]
        raise InputError(f"the profile's SQL cannot be parsed: {path}: {first}") from error
    tables: dict[str, WishedTable] = dict(known)
    indexes: dict[str, list[IndexPlan]] = {}
    extensions: list[str] = []
    after_load: list[str] = []
    for statement in statements:
        if statement is None:
            continue
        if isinstance(statement, exp.Create) and statement.kind == "TABLE":
            table = _table(statement)
            tables[fold(table.name)] = table
        elif isinstance(statement, exp.Create) and statement.kind == "INDEX":
            owner, index = _index(statement)
            indexes.setdefault(fold(owner), []).append(index)
        elif extension := _extension(statement):
            extensions.append(extension)
        else:
            after_load.append(_pg(statement))
    for name, found in indexes.items():
        table = tables.get(name, WishedTable(name, (), (), (), (), (), ()))
        tables[name] = replace(table, indexes=(*table.indexes, *found))
    return Wished(tables, tuple(extensions), tuple(after_load))


def columns_in(expression: str) -> list[str]:
    """The columns that a term of an index, a condition or a CHECK names, as it spells them."""
    tree = sqlglot.parse_one(expression, read="postgres")
    return [column.name for column in tree.find_all(exp.Column)]


def in_sqlite(check: str) -> str:
    """A profile's CHECK as SQLite reads it, to try it on the source."""
    return sqlglot.parse_one(check, read="postgres").sql(dialect="sqlite")


def _extension(statement: exp.Expr) -> str | None:
    words = _pg(statement).replace('"', "").split()
    upper = [w.upper() for w in words]
    if upper[:2] != ["CREATE", "EXTENSION"]:
        return None
    rest = words[2:]
    if [w.upper() for w in rest[:3]] == ["IF", "NOT", "EXISTS"]:
        rest = rest[3:]
    return rest[0].rstrip(";")


def _pg(node: exp.Expr) -> str:
    return node.sql(dialect="postgres", normalize_functions=False, comments=False)


def _type(node: exp.Expr) -> str:
    text = _pg(node).lower()
    name, bracket, rest = text.partition("(")
    name = TYPES.get(name.strip(), name.strip())
    return name + (bracket + rest.replace(" ", "") if bracket else "")


def _table(statement: exp.Create) -> WishedTable:
    schema = statement.this
    name = schema.this.name
    columns: list[WishedColumn] = []
    primary: tuple[str, ...] = ()
    uniques: list[tuple[str, ...]] = []
    checks: list[tuple[str, str]] = []
    keys: list[SourceForeignKey] = []
    for item in schema.expressions:
        if not isinstance(item, exp.ColumnDef):
            raise InputError(
                f"the profile's table {name}: constraints belong to their columns; "
                f"found {_pg(item)[:60]}"
            )
        not_null, default = False, None
        for constraint in item.args.get("constraints") or []:
            kind = constraint.kind
            match kind:
                case exp.NotNullColumnConstraint():
                    not_null = not kind.args.get("allow_null")
                case exp.PrimaryKeyColumnConstraint():
                    primary, not_null = (item.name,), True
                case exp.UniqueColumnConstraint():
                    uniques.append((item.name,))
                case exp.DefaultColumnConstraint():
                    default = _pg(kind.this)
                case exp.CheckColumnConstraint():
                    checks.append((f"{name}_{item.name}_check", _pg(kind.this)))
                case exp.Reference():
                    keys.append(_reference(item.name, kind))
                case _:
                    raise InputError(
                        f"the profile's column {name}.{item.name}: {_pg(constraint)} is not known"
                    )
        kind_sql = item.args.get("kind")
        if kind_sql is None:
            raise InputError(f"the profile's column {name}.{item.name} has no type")
        columns.append(WishedColumn(item.name, _type(kind_sql), not_null, default))
    return WishedTable(
        name, tuple(columns), primary, tuple(uniques), tuple(checks), tuple(keys), ()
    )


def _reference(column: str, node: exp.Reference) -> SourceForeignKey:
    target = node.this
    parent = target.this.name if isinstance(target, exp.Schema) else target.name
    named = [c.name for c in target.expressions] if isinstance(target, exp.Schema) else []
    actions = {"ON UPDATE": "NO ACTION", "ON DELETE": "NO ACTION"}
    for option in node.args.get("options") or []:
        text = str(option).upper()
        for event in actions:
            if text.startswith(event):
                actions[event] = text[len(event) :].strip()
    return SourceForeignKey(
        columns=(column,),
        parent=parent,
        parent_columns=tuple(named),
        on_update=actions["ON UPDATE"],
        on_delete=actions["ON DELETE"],
        deferred=False,
    )


def _index(statement: exp.Create) -> tuple[str, IndexPlan]:
    index = statement.this
    table = index.args["table"].name
    parameters = index.args.get("params")
    columns = list(parameters.args.get("columns") or []) if parameters is not None else []
    using = parameters.args.get("using") if parameters is not None else None
    where = parameters.args.get("where") if parameters is not None else None
    return table, IndexPlan(
        name=index.name,
        unique=bool(statement.args.get("unique")),
        terms=tuple(_index_term(c) for c in columns),
        where=_pg(where.this) if where is not None else None,
        method=using.name.lower() if using is not None else "btree",
    )


def _index_term(node: exp.Expr) -> str:
    inner = node.this if isinstance(node, exp.Ordered) else node
    descending = isinstance(node, exp.Ordered) and node.args.get("desc")
    if isinstance(inner, exp.Column | exp.Identifier):
        text = postgres_name(inner.name)
    else:
        text = _pg(inner)
        if not text.startswith("("):
            text = f"({text})"
    return text + (" DESC" if descending else "")
