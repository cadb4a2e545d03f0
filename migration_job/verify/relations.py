"""What holds between rows and around them: types, keys, references, defaults, sequences, views.

Everything is read from the target's system catalogues and from the data itself, and held against
the plan and the source.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import apsw

from migration_job.plan.model import ColumnPlan, ForeignKeyPlan, IndexPlan, Plan, TablePlan
from migration_job.plural import counted
from migration_job.quoting import (
    compose,
    postgres_name,
    postgres_relation,
    sqlite_expression,
)
from migration_job.stores.sqlite.chosen_rows import rows_of
from migration_job.stores.sqlite.model import SourceColumn
from migration_job.stores.sqlite.reader import read_rows
from migration_job.stores.sqlite.rowkey import key_columns
from migration_job.values import display, key_text, to_json
from migration_job.verify.connections import Differences, Sides, not_quarantined
from migration_job.verify.facts import Facts, IndexFact
from migration_job.verify.meaning import Inexact, of_source, of_target

CLOCK_TOLERANCE = timedelta(minutes=5)
"""How far two clocks may be apart when both sides are asked for the present time."""

CLOCK = re.compile(r"\bnow\b|\bcurrent_(time|date|timestamp)\b", re.IGNORECASE)
"""What makes a default depend on it."""

QUARANTINE_BATCH = 200

ACTIONS = {
    "a": "NO ACTION",
    "r": "RESTRICT",
    "c": "CASCADE",
    "n": "SET NULL",
    "d": "SET DEFAULT",
}


@dataclass(slots=True)
class Relations:
    """What was checked of each kind, and what was wrong."""

    checked: Counter[str] = field(default_factory=Counter)
    differences: list[Differences] = field(default_factory=list)


def check_table(sides: Sides, plan: TablePlan, facts: Facts) -> Relations:
    """Everything about one table but its rows' content."""
    found = Relations()
    differences = Differences(plan.target if plan.source is None else plan.source)
    found.differences.append(differences)
    kind = facts.kinds.get(plan.target)
    unlogged = plan.source is None and not plan.ours and kind == ("r", "u")
    if kind != ("r", "p") and not unlogged:
        what = "nothing" if kind is None else f"a relation of kind {kind}"
        differences.add("table", f"expected a permanent table {plan.target}, found {what}")
        return found
    found.checked["tables"] += 1
    if not plan.ours:
        _existing(sides, plan, facts, found, differences)
        return found
    _columns(plan, facts, found, differences)
    _constraints(plan, facts, found, differences)
    for index in plan.indexes:
        found.checked["indexes"] += 1
        _index(facts.indexes[plan.target].get(index.name), index, differences)
    found.checked["foreign keys"] += len(plan.foreign_keys)
    sound = [key for key in plan.foreign_keys if _foreign_key(plan, key, facts, differences)]
    _orphans(sides, plan, sound, differences)
    if plan.source is not None:
        _defaults(sides, plan, facts, found, differences)
        _quarantine(sides, plan, facts, found, differences)
    return found


def check_outside(sides: Sides, plan: TablePlan) -> Relations:
    """The rows of a table of another schema have what they refer to in the tables that were
    loaded: PostgreSQL did not look."""
    found = Relations()
    differences = Differences(f"{plan.schema_name}.{plan.target}")
    found.differences.append(differences)
    validated = [key for key in plan.foreign_keys if key.validated]
    found.checked["foreign keys"] += len(validated)
    _orphans(sides, plan, validated, differences)
    return found


def _existing(
    sides: Sides, plan: TablePlan, facts: Facts, found: Relations, differences: Differences
) -> None:
    """Of a table that is the application's own: its types are those of the plan, and the rows meet
    its foreign keys, which were silent while they were loaded. That its definitions are what they
    were is proven of the whole schema at once."""
    there = facts.columns[plan.target]
    for column in plan.columns:
        found.checked["columns"] += 1
        fact = there.get(column.target)
        if fact is None:
            differences.add(
                "column", f"column {column.target} is missing on the target", column=column.target
            )
        elif fact.shown != column.type:
            differences.add(
                "type",
                f"expected type {column.type}, found {fact.shown}",
                column=column.target,
                source=column.type,
                target=fact.shown,
            )
    validated = [key for key in plan.foreign_keys if key.validated]
    found.checked["foreign keys"] += len(validated)
    _orphans(sides, plan, validated, differences)
    if plan.source is not None:
        _quarantine(sides, plan, facts, found, differences)


# ------------------------------------------------------------------------- columns and types


def _columns(plan: TablePlan, facts: Facts, found: Relations, differences: Differences) -> None:
    there = facts.columns[plan.target]
    for column in plan.columns:
        found.checked["columns"] += 1
        fact = there.get(column.target)
        if fact is None:
            differences.add(
                "column", f"column {column.target} is missing on the target", column=column.target
            )
            continue
        in_key = column.target in plan.primary_key or column.identity
        if (column.not_null or in_key) and not fact.not_null:
            differences.add("column", "NOT NULL is missing", column=column.target)
        if fact.not_null and not column.not_null and not in_key:
            differences.add("column", "NOT NULL was not planned", column=column.target)
        if column.identity != (fact.identity == "d"):
            differences.add("column", "identity is not as planned", column=column.target)
        if (column.generated is not None) != (fact.generated == "s"):
            differences.add("column", "generation is not as planned", column=column.target)
        if fact.type != facts.types[column.type]:
            differences.add(
                "type",
                f"expected type {column.type}, found {fact.shown}",
                column=column.target,
                source=column.type,
                target=fact.shown,
            )


# ------------------------------------------------------------------------------- constraints


def _constraints(plan: TablePlan, facts: Facts, found: Relations, differences: Differences) -> None:
    primary = next((c for c in facts.constraints[plan.target] if c.kind == "p"), None)
    if plan.primary_key:
        found.checked["primary keys"] += 1
    actual = primary.columns if primary is not None else ()
    if actual != plan.primary_key:
        differences.add(
            "constraint",
            f"expected the primary key ({', '.join(plan.primary_key)}), found "
            f"({', '.join(actual)})",
        )
    elif primary is not None and not primary.usable:
        differences.add("constraint", "the primary key's index is not valid")
    _other_constraints(plan, facts, found, differences)


def _other_constraints(
    plan: TablePlan, facts: Facts, found: Relations, differences: Differences
) -> None:
    there = {(c.kind, c.name): c for c in facts.constraints[plan.target]}
    for unique in plan.uniques:
        found.checked["unique constraints"] += 1
        fact = there.get(("u", unique.name))
        if fact is None or fact.columns != unique.columns or not fact.usable:
            differences.add(
                "constraint",
                f"unique constraint {unique.name} on ({', '.join(unique.columns)}) is missing "
                "or not valid",
            )
    for check in plan.checks:
        found.checked["checks"] += 1
        fact = there.get(("c", check.name))
        if fact is None or not fact.validated:
            differences.add("constraint", f"CHECK {check.name} is missing or not validated")


def _index(fact: IndexFact | None, index: IndexPlan, differences: Differences) -> None:
    if fact is None:
        differences.add("index", f"index {index.name} is missing")
        return
    wrong = []
    if not fact.usable:
        wrong.append("it is not valid")
    if fact.unique != index.unique:
        wrong.append("it is unique" if fact.unique else "it is not unique")
    if fact.partial != (index.where is not None):
        wrong.append("its predicate is not as planned")
    if fact.method != index.method:
        wrong.append(f"its method is {fact.method}, not {index.method}")
    if len(fact.terms) != len(index.terms):
        wrong.append(f"it has {len(fact.terms)} columns, not {len(index.terms)}")
    else:
        for planned, actual in zip(index.terms, fact.terms, strict=True):
            name = _plain_name(planned)
            if name is not None and _plain_name(actual, bare=True) != name:
                wrong.append(f"it is on {actual}, not on {name}")
    for reason in wrong:
        differences.add("index", f"index {index.name}: {reason}")


def _plain_name(term: str, *, bare: bool = False) -> str | None:
    """The column that an index term names; None for expressions and terms with options."""
    if term.startswith('"') and term.endswith('"') and term.count('"') % 2 == 0:
        inner = term[1:-1]
        return inner.replace('""', '"') if '"' not in inner.replace('""', "") else None
    return term if bare else None


# -------------------------------------------------------------------------------- references


def _foreign_key(
    plan: TablePlan, key: ForeignKeyPlan, facts: Facts, differences: Differences
) -> bool:
    """Whether the key is as planned, and one that all rows have to meet."""
    fact = next(
        (c for c in facts.constraints[plan.target] if (c.kind, c.name) == ("f", key.name)), None
    )
    if fact is None:
        differences.add("constraint", f"foreign key {key.name} is missing")
        return False
    wrong = []
    if (fact.columns, fact.parent, fact.parent_columns) != (
        key.columns,
        key.parent,
        key.parent_columns,
    ):
        wrong.append(
            f"it goes from ({', '.join(fact.columns)}) to {fact.parent} "
            f"({', '.join(fact.parent_columns)})"
        )
    actions = ACTIONS[fact.on_update], ACTIONS[fact.on_delete]
    if actions != (key.on_update, key.on_delete):
        wrong.append(f"its actions are {' and '.join(actions)}")
    if fact.deferred != key.initially_deferred:
        wrong.append("it is deferred" if fact.deferred else "it is not deferred")
    if fact.validated != key.validated:
        wrong.append("it is validated" if fact.validated else "it is not validated")
    for reason in wrong:
        differences.add("constraint", f"foreign key {key.name}: {reason}")
    return key.validated and not wrong


def _orphans(
    sides: Sides, plan: TablePlan, keys: Sequence[ForeignKeyPlan], differences: Differences
) -> None:
    answers = sides.together([(_orphans_query(plan, key, sides.plan), ()) for key in keys])
    for key, rows in zip(keys, answers, strict=True):
        for row in rows:
            values = ", ".join(display(v) for v in row)
            differences.add(
                "orphan",
                f"foreign key {key.name}: ({', '.join(key.columns)}) = ({values}) has no row in "
                f"{key.parent_place}",
            )


def _orphans_query(plan: TablePlan, key: ForeignKeyPlan, whole: Plan) -> str:
    pairs = list(zip(key.columns, key.parent_columns, strict=True))
    return compose(
        "SELECT {shown} FROM {child} AS c WHERE {set_all} AND NOT EXISTS "
        "(SELECT 1 FROM {parent} AS p WHERE {equal}) LIMIT 100",
        shown=", ".join(f"c.{postgres_name(a)}::text" for a, _ in pairs),
        child=_alone(plan.target, plan.schema_name, whole),
        set_all=" AND ".join(f"c.{postgres_name(a)} IS NOT NULL" for a, _ in pairs),
        parent=_alone(key.parent, key.parent_schema, whole),
        equal=" AND ".join(f"p.{postgres_name(b)} = c.{postgres_name(a)}" for a, b in pairs),
    )


def _alone(name: str, schema: str, plan: Plan) -> str:
    """A table without its heirs; one of another schema with them, as it may be partitioned."""
    there = postgres_relation(name, schema)
    return f"ONLY {there}" if schema == plan.schema_name else there


# ---------------------------------------------------------------------------------- defaults


def _defaults(
    sides: Sides, plan: TablePlan, facts: Facts, found: Relations, differences: Differences
) -> None:
    there = {
        name: fact.default
        for name, fact in facts.columns[plan.target].items()
        if fact.default is not None
    }
    source = {c.name: c for c in sides.table(plan).columns}
    doing: list[_Default] = []
    for column in plan.columns:
        if column.default is None or column.identity:
            if column.target in there:
                differences.add(
                    "default",
                    f"a default was not planned: {there[column.target]}",
                    column=column.target,
                )
            continue
        found.checked["defaults"] += 1
        if column.target not in there:
            differences.add(
                "default", f"the default {column.default} is missing", column=column.target
            )
            continue
        origin = source.get(column.source or "")
        if origin is not None and origin.default is not None:
            doing.append(_Default(column, origin, there[column.target]))
    _compare_defaults(sides, doing, differences)


@dataclass(frozen=True, slots=True)
class _Default:
    """A column's default on both sides."""

    column: ColumnPlan
    origin: SourceColumn
    there: str

    @property
    def here(self) -> str:
        """The source's expression."""
        return self.origin.default or "NULL"

    def query(self) -> str:
        """What asks for the target's value."""
        return compose("SELECT (({there})::{type})::text", there=self.there, type=self.column.type)


def _compare_defaults(sides: Sides, doing: list[_Default], differences: Differences) -> None:
    """Evaluate them all: the target's between two of the source's, as a second may end between."""
    firsts: list[tuple[_Default, str | None]] = []
    for default in doing:
        if "localtime" in default.here.lower():
            continue  # by the zone of this program's host here, by the session's TimeZone there
        # Left out where the source's cannot be stored in this column as the plan has it.
        with contextlib.suppress(apsw.Error, Inexact):
            firsts.append((default, _evaluate(sides, default)))
    answers = sides.together([(default.query(), ()) for default, _ in firsts])
    for (default, first), ((text,),) in zip(firsts, answers, strict=True):
        with contextlib.suppress(apsw.Error, Inexact):
            second = _evaluate(sides, default)
            if not _same_default(default, (first, second), text):
                differences.add(
                    "default",
                    f"the default does not do the same: {default.here} gives {display(first)} on "
                    f"the source, {default.there} gives {display(text)} on the target",
                    column=default.column.target,
                    source=default.here,
                    target=default.there,
                )


def _same_default(default: _Default, here: tuple[str | None, str | None], text: str | None) -> bool:
    """Whether the target's value is as good as the source's, before and after it."""
    column, (first, second) = default.column, here
    try:
        actual = of_target(column, text)
    except ValueError:
        actual = None
    if actual in here:
        return True
    if CLOCK.search(default.here) and _moments_agree(first, actual):
        return True
    if _is_time(column) and first is not None and actual is not None:
        apart = abs(_micros(first) - _micros(actual)) if column.type != "date" else 0
        return apart <= CLOCK_TOLERANCE // timedelta(microseconds=1)
    return first != second  # random on the source: any value is as good


def _moments_agree(first: str | None, actual: str | None) -> bool:
    """Whether both are spelled moments that two clocks may give for one now."""
    if first is None or actual is None or len(first) != len(actual):
        return False
    try:
        apart = datetime.fromisoformat(first) - datetime.fromisoformat(actual)
    except (ValueError, TypeError):
        return False
    return abs(apart) <= CLOCK_TOLERANCE


def _is_time(column: ColumnPlan) -> bool:
    return column.type.startswith(("timestamp", "date"))


def _micros(meaning: str) -> int:
    return int(meaning) if meaning.lstrip("-").isdigit() else 0


def _evaluate(sides: Sides, default: _Default) -> str | None:
    """What the default stores in a column of the source's affinity, as its meaning."""
    source = sides.source
    source.execute("PRAGMA temp_store = MEMORY")
    source.execute(
        compose(
            "CREATE TEMP TABLE _default (c {affinity} DEFAULT ({default}))",
            affinity=default.origin.affinity,
            default=sqlite_expression(default.here),
        )
    )
    try:
        source.execute("INSERT INTO temp._default DEFAULT VALUES")
        row = source.execute("SELECT c FROM temp._default").fetchone()
    finally:
        source.execute("DROP TABLE temp._default")
    return of_source(default.column, None if row is None else row[0])


# --------------------------------------------------------------------------------- quarantine


def _quarantine(
    sides: Sides, plan: TablePlan, facts: Facts, found: Relations, differences: Differences
) -> None:
    """The rows that the plan keeps out are in quarantine, whole, and no others are."""
    table = sides.table(plan)
    held = facts.quarantined.get(table.name, 0)
    expected = 0
    if plan.quarantine:
        row = sides.source.execute(
            compose(
                "SELECT count(*) FROM {table} AS t WHERE NOT ({not_quarantined})",
                table=rows_of(table),
                not_quarantined=not_quarantined(plan),
            )
        ).fetchone()
        expected = int(row[0]) if row is not None else 0
    if held != expected:
        differences.add(
            "quarantine", f"expected {counted(expected, 'row')} in quarantine, found {held:,}"
        )
    if not expected:
        return
    found.checked["quarantined rows"] += expected
    key = key_columns(plan.key, table)
    names = [c.name for c in table.columns]
    rows = read_rows(
        sides.source,
        table,
        [*key, *names],
        encoding=sides.plan.encoding,
        where=f"NOT ({not_quarantined(plan)})",
    )
    batch: dict[str, Any] = {}

    def compare_stored() -> None:
        stored = dict(
            sides.rows(
                "SELECT key, source_row FROM migration.quarantine WHERE tab = %s "
                "AND key = ANY(%s::text[])",
                (table.name, list(batch)),
            )
        )
        for text, whole in batch.items():
            if text not in stored or json.loads(stored[text]) != whole:
                differences.add(
                    "quarantine", f"row {text} is not in quarantine as it was", key=text
                )

    for row in rows:
        values = row[len(key) :]
        batch[key_text(row[: len(key)])] = {
            n: to_json(v) for n, v in zip(names, values, strict=True)
        }
        if len(batch) >= QUARANTINE_BATCH:
            compare_stored()
            batch.clear()
    if batch:
        compare_stored()
