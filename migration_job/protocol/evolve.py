"""DDL on PostgreSQL while it serves: carried to the source, or the table becomes one-way.

Each round of the way back compares a digest of the target's schema, in the snapshot that it reads,
with the recorded one. Where they differ, it finds the change in that snapshot and acts on it:

* a column was added: it is added on the source and to the plan
* a column has another type: the plan gets the rule that brings its values back
* a table was rewritten by ALTER TABLE or recreated: all its rows are read again
* triggers of the way back were switched off or dropped, if only for a moment: they are put back,
  and all rows are read again, since what was written meanwhile is in no log
* a unique key is gone that is not the one by which rows are known: it is told, as SQLite keeps it
* anything else (renamed, dropped, made, another key): the table is one-way from now on, recorded
  on the target with its cause. When the change is undone, its changes come back, all rows first

What no rule of the plan can promise is compared row by row, as all rows that come back are.

The source is changed first, in one transaction with its record of the schema; then the target's
records, also in one transaction. If cut off between them, the round repeats this and finds the
column on the source.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

import apsw
import psycopg

from migration_job.plan.added import free_name, is_constant, rule_after, rule_of
from migration_job.plan.model import ColumnPlan, Plan, TablePlan
from migration_job.protocol.run_context import Pair
from migration_job.protocol.whole import new_token, require_file
from migration_job.quoting import compose, sqlite_name, sqlite_table, sqlite_text
from migration_job.stores.postgres import capture as target_capture
from migration_job.stores.postgres import shape
from migration_job.stores.postgres.capture import key_columns, numbered
from migration_job.stores.postgres.database import lost
from migration_job.stores.postgres.pair_identity import confirm_token
from migration_job.stores.postgres.shape import ColumnShape, TableShape
from migration_job.stores.postgres.states import raw_rows
from migration_job.stores.sqlite import capture, fence, whole
from migration_job.stores.sqlite.model import Affinity, SourceTable
from migration_job.stores.sqlite.reader import bindable
from migration_job.values import SourceValue, fold

LOCK_SECONDS = 5.0
"""How long the source's lock is asked for."""


class InTheWay(Exception):
    """A table that the caller has locked would have to be altered: to be done without the lock."""


class _OneWay(Exception):
    """The table's changes cannot come back; the message says why."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one look at the target has found."""

    digest: str
    now: dict[str, TableShape]
    known: dict[str, TableShape]
    """As the way back last carried them."""
    before: dict[str, str]
    """Which tables did not come back until now, and why."""


@dataclass(frozen=True, slots=True)
class _Added:
    """A column for the source."""

    table: SourceTable
    column: ColumnPlan
    declared: str
    default: SourceValue
    """Of a constant default; None for no default."""


@dataclass(slots=True)
class _Verdict:
    """What is to be done, found out before anything is."""

    plans: dict[str, TablePlan] = field(default_factory=dict)
    """By the target's name: the tables whose plan changes."""
    added: list[_Added] = field(default_factory=list)
    again: set[str] = field(default_factory=set)
    """Tables of which every row is to be read again."""
    causes: dict[str, str] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)


def follow_schema(pair: Pair, held: Collection[str] = ()) -> bool:
    """Carry what has changed of the target's schema, as the snapshot of the verifier's session
    shows it, and add to ``pair.told`` what that was; returns whether anything had. Where nothing is
    on record (the switch was made by an earlier release), what is there is put on record. Raises
    OperationError where one of the sides is not to be had: nothing is half done then that the next
    call would not finish; InTheWay where one of the tables that the caller has ``held`` is to be
    given other triggers."""
    try:
        if pair.back.schema_seen is None:
            pair.back.schema_seen = shape.record_once(pair.target)
        reader = pair.sides.target
        with reader.transaction(force_rollback=True):
            digest = shape.read_digest(reader)
            if digest == pair.back.schema_seen:
                return False
            now = shape.read_shapes(reader)
            known, before = shape.read_served(reader), shape.read_causes(reader)
            verdict = _judge(pair, reader, _Seen(digest, now, known, before))
        _extend_source(pair, verdict)
        _record(pair, verdict, _Seen(digest, now, known, before), held)
    except psycopg.Error as error:
        raise lost(error, "carrying a change of the schema") from error
    pair.back.schema_seen, pair.back.one_way = digest, verdict.causes
    told = [f"warning: {_one_way(*c)}" for c in verdict.causes.items() if before.get(c[0]) != c[1]]
    told += [_over(name, name in now) for name in before if name not in verdict.causes]
    pair.told += [*verdict.told, *told]
    return True


def one_way_tables(pair: Pair) -> dict[str, str]:
    """Tables whose changes do not come back since their schema was changed, and why, in words."""
    return {name: _one_way(name, why) for name, why in causes(pair).items()}


def causes(pair: Pair) -> dict[str, str]:
    """The same, the bare causes. Only the holder of the lock changes them."""
    if pair.back.one_way is None:
        pair.back.one_way = shape.read_causes(pair.target)
    return pair.back.one_way


def _one_way(name: str, cause: str) -> str:
    return f"changes to table {name} do not come back: {cause}"


def _over(name: str, there: bool) -> str:
    if there:
        return f"table {name} comes back again"
    return f"table {name} is gone from PostgreSQL: it keeps nothing from going back"


# ------------------------------------------------------------------------- what has changed


def _judge(pair: Pair, reader: psycopg.Connection, seen: _Seen) -> _Verdict:
    verdict, known, now = _Verdict(), seen.known, seen.now
    for table in pair.plan.tables:
        if table.source is None:
            continue
        try:
            old = known.get(table.target)
            found = _find(table, old, now)
            if old is not None:
                _compare(pair, reader, table, (old, found), verdict)
        except _OneWay as cause:
            verdict.causes[table.target] = str(cause)
    verdict.causes |= _of_others(pair, seen)
    _look_at_triggers(pair, reader, seen, verdict)
    return verdict


def _of_others(pair: Pair, seen: _Seen) -> dict[str, str]:
    """Why the changes of tables do not come back that are none of the plan's."""
    found: dict[str, str] = {}
    known, now = seen.known, seen.now
    planned = {table.target for table in pair.plan.tables}
    were = {old.oid: name for name, old in known.items()}
    for name in now.keys() - known.keys() - planned:
        was = were.get(now[name].oid)
        if name in seen.before:
            found[name] = seen.before[name]
        elif was is None:
            found[name] = "it was created on PostgreSQL, and SQLite has no such table"
        elif was in now:  # else it is told as the table of the plan that was renamed
            found[name] = (
                f"it was {was} until another table took its name, and SQLite has no such table"
            )
    return found


def _look_at_triggers(
    pair: Pair, reader: psycopg.Connection, seen: _Seen, verdict: _Verdict
) -> None:
    """Have all rows of the tables read again whose writes may have met no trigger."""
    lacking = {one.rpartition(".")[0] for one in target_capture.missing(reader, pair.plan)}
    for table in pair.plan.tables:
        name = table.target
        old, found = seen.known.get(name), seen.now.get(name)
        if table.source is None or name in verdict.causes or old is None or found is None:
            continue
        if old.oid != found.oid:
            continue  # one that was made anew, which is read again for that
        if name in lacking:
            verdict.told.append(
                f"table {name}: triggers of the way back were switched off or dropped on "
                "PostgreSQL; they are put back, and all rows of the table are read again"
            )
        if name in lacking or old.triggers not in (None, found.triggers):
            verdict.again.add(name)


def _find(table: TablePlan, old: TableShape | None, now: dict[str, TableShape]) -> TableShape:
    found = now.get(table.target)
    if found is not None:
        if found.partitioned:
            raise _OneWay("it is partitioned")
        return found
    renamed = [name for name, one in now.items() if old is not None and one.oid == old.oid]
    raise _OneWay(f"it was renamed to {renamed[0]}" if renamed else "it was dropped")


def _compare(
    pair: Pair,
    reader: psycopg.Connection,
    table: TablePlan,
    shapes: tuple[TableShape, TableShape],
    verdict: _Verdict,
) -> None:
    old, found = shapes
    source = pair.catalogue.table(table.source or "")
    columns = [_kept(source, table, column, shapes, pair.plan) for column in table.columns]
    lost_keys = [keys for keys in old.uniques if keys not in found.uniques]
    identity = tuple(sorted(key_columns(table)))
    if identity in lost_keys:
        raise _OneWay(f"its key ({', '.join(identity)}) is gone or another")
    names = {c.target for c in table.columns} | {c.name for c in old.columns}
    # What PostgreSQL computes of the other columns is nothing of its own.
    fresh = [c for c in found.columns if c.name not in names and not c.generated]
    added = [_addition(pair, reader, table, source, c) for c in fresh]
    rewritten = found.file != old.file and _altered(old, found)
    if found.oid != old.oid or rewritten or any(c.filled for c in fresh):
        verdict.again.add(table.target)
    columns += [one.column for one in added]
    verdict.added += added
    verdict.told += [
        f"{table.target} is no longer unique by ({', '.join(keys)}): SQLite still demands it, and "
        "the way back stops at a row that breaks it"
        for keys in lost_keys
    ]
    _tell(table, columns, verdict)


def _tell(table: TablePlan, columns: list[ColumnPlan], verdict: _Verdict) -> None:
    """Note what becomes of the table's columns, new ones last."""
    for one, new in zip(table.columns, columns, strict=False):
        if one != new:
            verdict.told.append(f"column {table.target}.{one.target} is {new.type} now")
            verdict.again.add(table.target)
    for new in columns[len(table.columns) :]:
        verdict.told.append(f"column {table.target}.{new.target} was added on SQLite")
    if tuple(columns) != table.columns:
        verdict.plans[table.target] = table.model_copy(update={"columns": tuple(columns)})


def _altered(old: TableShape, found: TableShape) -> bool:
    return {(c.number, c.changed) for c in old.columns} != {
        (c.number, c.changed) for c in found.columns
    }


def _kept(
    source: SourceTable,
    table: TablePlan,
    column: ColumnPlan,
    shapes: tuple[TableShape, TableShape],
    plan: Plan,
) -> ColumnPlan:
    """The plan of a column that was there before."""
    old, found = (one.column(column.target) for one in shapes)
    if found is None:
        raise _OneWay(f"its column {column.target} was {_where_it_went(old, shapes)}")
    if old is None or column not in table.copied:
        return column
    of = {fold(c.name): c for c in source.columns}
    own = of.get(fold(column.source or ""))
    if old.not_null and not found.not_null and own is not None and own.not_null:
        raise _OneWay(f"its column {column.target} takes NULL, which SQLite refuses")
    if (found.generated, found.always) != (old.generated, old.always):
        raise _OneWay(f"its column {column.target} is generated otherwise than it was")
    if old.type == found.type:
        return column
    retyped = _retyped(column, found, "integer" if own is None else own.affinity, source, plan)
    is_key = column.target in key_columns(table)
    if retyped is None or (is_key and retyped.rule.kind != column.rule.kind):
        raise _OneWay(f"its column {column.target} is {found.type} now, was {old.type}")
    return retyped


def _where_it_went(old: ColumnShape | None, shapes: tuple[TableShape, TableShape]) -> str:
    """What became of a column that has its name no more."""
    numbers = {c.number: c.name for c in shapes[1].columns}
    renamed = numbers.get(old.number) if old is not None else None
    same = shapes[0].oid == shapes[1].oid
    return f"renamed to {renamed}" if same and renamed is not None else "dropped"


def _retyped(
    column: ColumnPlan, found: ColumnShape, affinity: Affinity, source: SourceTable, plan: Plan
) -> ColumnPlan | None:
    """The plan of a column that has another type now; None where no rule leads there and back."""
    fresh = rule_of(found.type, plan)
    if fresh is None:
        return None
    rule = rule_after(column.rule, fresh[0], affinity, strict=source.strict)
    if rule is None:
        return None
    return replace(column, rule=rule, type=fresh[1], clean=False)


def _addition(
    pair: Pair,
    reader: psycopg.Connection,
    table: TablePlan,
    source: SourceTable,
    column: ColumnShape,
) -> _Added:
    where = f"its new column {column.name}"
    found = rule_of(column.type, pair.plan)
    if found is None or column.always:
        kind = "always generated" if column.always else column.type
        raise _OneWay(f"{where} is {kind}, which SQLite cannot hold as it is")
    rule, type_sql, declared = found
    if source.strict and declared in ("NUMERIC", "BOOLEAN"):
        if declared == "NUMERIC":
            raise _OneWay(f"{where} is numeric, for which a STRICT table has no type")
        declared = "INTEGER"
    there = {fold(c.name): c for c in source.columns}.get(fold(column.name))
    others = (c.target for c in table.columns)
    if not free_name(column.name, others) or (there is not None and there.declared != declared):
        raise _OneWay(f"{where} has a name that another column has on SQLite")
    expression = shape.read_default(reader, table.target, column.name)
    default: SourceValue = None
    if expression is not None and is_constant(expression):
        rows = raw_rows(reader, f"SELECT ({expression})::{column.type}")
        default = rule.inverse(rows[0][0])
    planned = ColumnPlan(
        source=column.name,
        target=column.name,
        type=type_sql,
        rule=rule,
        not_null=column.not_null,
        default=expression,
        clean=False,
        reason="added on PostgreSQL while it served",
    )
    return _Added(source, planned, declared, default)


# ------------------------------------------------------------------------------ the source


def _extend_source(pair: Pair, verdict: _Verdict) -> None:
    """Add the columns on the source; a table that refuses one is one-way. Idempotent."""
    for one in verdict.added:
        name = one.column.source or ""
        if any(fold(c.name) == fold(name) for c in one.table.columns):
            continue  # an earlier attempt was cut off after it
        token = new_token(pair)
        try:
            with fence.writing(pair.source, limit=LOCK_SECONDS):
                pair.source.execute(_add_column(one))
                whole.record_again(pair.source, one.table.name)
                fence.change_state(
                    pair.source,
                    token=token,
                    schema_digest=capture.schema_digest(pair.source),
                    schema_version=int(pair.source.pragma("schema_version")),
                )
                require_file(pair)
        except (apsw.SQLError, apsw.ConstraintError) as error:
            table = next(t for t in pair.plan.tables if t.source == one.table.name)
            verdict.causes[table.target] = f"SQLite does not take its new column {name} ({error})"
        confirm_token(pair.target)
    if verdict.added:
        pair.whole_at = None


def _add_column(one: _Added) -> str:
    default, terms = one.default, [sqlite_name(one.column.source or ""), one.declared]
    if default is not None:
        if one.column.not_null:
            terms.append("NOT NULL")
        terms.append(f"DEFAULT {_literal(default)}")
    return compose(
        "ALTER TABLE {table} ADD COLUMN {terms}",
        table=sqlite_table(one.table.name),
        terms=" ".join(terms),
    )


def _literal(value: SourceValue) -> str:
    plain = bindable(value)
    if isinstance(plain, bytes):
        return f"X'{plain.hex()}'"
    return sqlite_text(plain) if isinstance(plain, str) else f"({plain!r})"


# ------------------------------------------------------------------------------ the target


def _record(pair: Pair, verdict: _Verdict, seen: _Seen, held: Collection[str]) -> None:
    """Put all of it on record, have what is needed read again, and the triggers fit."""
    tables = tuple(
        verdict.plans.get(t.target, t) if t.target not in verdict.causes else t
        for t in pair.plan.tables
    )
    plan = pair.plan.model_copy(update={"tables": tables})
    plan = Plan.model_validate(plan.model_dump())  # without what was worked out of the old one
    fitted = _refit(pair, plan, verdict, seen, held)
    # Before the rows are queued: whatever was written until now is in the snapshot that reads them.
    triggers = shape.read_triggers(pair.target) if fitted else {}
    whole_again = verdict.again | verdict.causes.keys() | seen.before.keys() | fitted
    shapes = {
        name: one.model_copy(update={"triggers": triggers.get(one.oid, ())})
        if name in fitted
        else one
        for name, one in seen.now.items()
        if name not in verdict.causes
        and seen.known.get(name) != one
        and not _is_renamed(name, one, pair, seen)
    }
    target = pair.target
    with target.transaction():
        shape.keep(target, seen.digest, shapes)
        shape.set_causes(target, verdict.causes)
        if plan.tables != pair.plan.tables:
            target.execute(
                "UPDATE migration.run SET plan = %s, plan_digest = %s, "
                "updated_at = clock_timestamp()",
                (plan.model_dump_json(), plan.digest()),
            )
            target_capture.mark_installed(target, plan)
        for number, table in numbered(plan):
            if table.source is not None and table.target in whole_again:
                target.execute("INSERT INTO migration.reverse_log (tab) VALUES (%s)", (number,))
    if verdict.added or plan.tables != pair.plan.tables:
        pair.replan(plan)


def _is_renamed(name: str, one: TableShape, pair: Pair, seen: _Seen) -> bool:
    """Whether it is a table of the plan's under another name: that is no table of its own."""
    planned = {t.target for t in pair.plan.tables}
    if name in planned:
        return False
    gone = planned - seen.now.keys()
    return any(seen.known[other].oid == one.oid for other in gone if other in seen.known)


def _refit(
    pair: Pair, plan: Plan, verdict: _Verdict, seen: _Seen, held: Collection[str]
) -> set[str]:
    """The triggers log keys of columns that may be gone or renamed: without them, only that there
    was a change. A table that was recreated, or lost its triggers, gets them; returns which."""
    done: set[str] = set()
    lacking = {one.rpartition(".")[0] for one in target_capture.missing(pair.target, plan)}
    fitted = {name for name in lacking | seen.before.keys() if name not in verdict.causes}
    if not fitted.isdisjoint(held):
        raise InTheWay
    for number, table in numbered(plan):
        if table.target not in seen.now:
            continue
        if table.target in verdict.causes and table.source is not None:
            keys = {c.name for c in seen.now[table.target].columns}
            if not keys.issuperset(key_columns(table)):
                target_capture.log_without_keys(pair.target, number, table)
        elif table.target in fitted:
            target_capture.install_table(pair.target, number, table)
            done.add(table.target)
    return done
