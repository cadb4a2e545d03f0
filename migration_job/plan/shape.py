"""What a plan makes of the target's catalogue, without what is of one file alone.

Two files whose plans have one shape get the same tables: the same columns and types, constraints,
indexes and views. How a value becomes one of the type, how many rows there are and where a sequence
begins is each file's own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from migration_job.plan.model import OWN_SCHEMA, ColumnPlan, Plan, TablePlan
from migration_job.quoting import postgres_relation

Shape = Mapping[str, Any]
"""JSON: ``tables``, by their names on the target, and what stands beside them."""


def shape_of(plan: Plan) -> Shape:
    """The plan's shape."""
    # By way of its text, so that one that was read back is equal to it.
    shape: Shape = json.loads(shape_text(_shape(plan)))
    return shape


def _shape(plan: Plan) -> dict[str, Any]:
    return {
        "tables": {table.target: _table(table) for table in plan.tables},
        "views": {view.target: _anywhere(view.query, plan) for view in plan.views},
        "sequences": sorted([s.table, s.column] for s in plan.sequences),
        "extensions": list(plan.extensions),
        "after load": list(plan.after_load),
    }


def shape_text(shape: Shape) -> str:
    """The same shape, the same text."""
    return json.dumps(shape, sort_keys=True, ensure_ascii=False)


def shape_digest(text: str) -> str:
    """SHA-256 of a shape's text, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def differences(found: Shape, expected: Shape) -> list[str]:
    """What is not as expected, a sentence's part each; [] where the shapes are one."""
    told = list(_parts("table", found["tables"], expected["tables"], _of_tables))
    told += _parts("view", found["views"], expected["views"], _other)
    for name in ("sequences", "extensions", "after load"):
        if found[name] != expected[name]:
            told.append(f"other {name}")
    return told


def _anywhere(query: str, plan: Plan) -> str:
    """A view's query, which names tables in their schema, as it is whatever that is called."""
    for name in (*(t.target for t in plan.tables), *(v.target for v in plan.views)):
        query = query.replace(plan.relation(name), postgres_relation(name, OWN_SCHEMA))
    return query


def _table(table: TablePlan) -> dict[str, Any]:
    return {
        "columns": {c.target: _column(c) for c in table.columns},
        "order": [c.target for c in table.columns],
        "primary key": [list(table.primary_key), table.primary_key_name],
        "constraints": {
            **{u.name: list(u.columns) for u in table.uniques},
            **{c.name: c.expression for c in table.checks},
            **{k.name: {**asdict(k), "parent_schema": ""} for k in table.foreign_keys},
        },
        "indexes": {i.name: asdict(i) for i in table.indexes},
    }


def _column(column: ColumnPlan) -> dict[str, Any]:
    return {
        "type": column.type,
        "not null": column.not_null,
        "default": column.default,
        "generated": column.generated,
        "identity": column.identity,
    }


def _parts(
    kind: str, found: Mapping[str, Any], expected: Mapping[str, Any], tell: Any
) -> Iterator[str]:
    for name in sorted({*found, *expected}):
        if name not in expected:
            yield f"{kind} {name} more"
        elif name not in found:
            yield f"no {kind} {name}"
        elif found[name] != expected[name]:
            yield from tell(f"{kind} {name}", found[name], expected[name])


def _of_tables(name: str, found: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[str]:
    yield from _parts(f"{name} column", found["columns"], expected["columns"], _of_columns)
    for kind in ("constraint", "index"):
        several = "indexes" if kind == "index" else "constraints"
        yield from _parts(f"{name} {kind}", found[several], expected[several], _other)
    if found["primary key"] != expected["primary key"]:
        yield f"{name}: another primary key"
    same = set(found["columns"]) == set(expected["columns"])
    if same and found["order"] != expected["order"]:
        yield f"{name}: its columns in another order"


def _of_columns(name: str, found: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[str]:
    for what, there in found.items():
        if there != expected[what]:
            yield f"{name}: {what} {_word(there)} and not {_word(expected[what])}"


def _other(name: str, _found: object, _expected: object) -> Iterator[str]:
    yield f"another {name}"


def _word(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
