"""The rows that the log names, read in bulk: SQLite itself assembles the text of ordinary rows.

A row is ordinary where each of its values meets its rule's own condition (no ledger entry, nothing
to quarantine), which is tried again for every row, since it is new. All others are read value by
value.
"""

from __future__ import annotations

from typing import Any

from migration_job.errors import BlockedError
from migration_job.plan.model import ColumnPlan, TablePlan
from migration_job.plan.rules import inside
from migration_job.protocol.log_readers import LogStatements
from migration_job.protocol.run_context import Pair
from migration_job.quoting import compose, sqlite_name
from migration_job.stores.postgres.apply import Key, TableChange, forward_key, key_places, key_plans
from migration_job.stores.postgres.copytext import condition_sql, field_sql
from migration_job.stores.sqlite.capture import LOG
from migration_job.stores.sqlite.chosen_rows import rows_of
from migration_job.stores.sqlite.database import chain
from migration_job.stores.sqlite.logged_keys import key_of, key_terms
from migration_job.stores.sqlite.model import SourceTable
from migration_job.stores.sqlite.reader import codec_of, column_sql, read_by_keys
from migration_job.values import fold, key_text

TOUCHED = "temp._migration_touched"


def gather(pair: Pair, position: int, upto: int) -> list[TableChange]:
    """What the log holds after ``position`` up to ``upto``, as states, in the source's present
    transaction."""
    width = max((len(plan.key) for _, plan in pair.captured.values()), default=1)
    names = [f"k{i}" for i in range(width)]
    if pair.log.touched_width != width:
        pair.source.execute(compose("DROP TABLE IF EXISTS {touched}", touched=TOUCHED))
        pair.source.execute(
            compose(
                "CREATE TABLE {touched} (tab INTEGER, {names})",
                touched=TOUCHED,
                names=", ".join(names),
            )
        )
        pair.log.touched_width = width
    pair.source.execute(compose("DELETE FROM {touched}", touched=TOUCHED))
    # By class as well as by value: 1, 1.0 and '1' may be three rows.
    classes = ", ".join(f"typeof({name})" for name in names)
    pair.source.execute(
        compose(
            "INSERT INTO {touched} SELECT tab, {names} FROM {log} "
            "WHERE seq > ? AND seq <= ? GROUP BY tab, {names}, {classes}",
            touched=TOUCHED,
            names=", ".join(names),
            log=sqlite_name(LOG),
            classes=classes,
        ),
        (position, upto),
    )
    numbers = [
        int(r[0])
        for r in pair.source.execute(compose("SELECT DISTINCT tab FROM {touched}", touched=TOUCHED))
    ]
    return [_table(pair, number) for number in numbers if number in pair.captured]


def proof_rows(pair: Pair, number: int) -> list[tuple[Any, ...]] | None:
    """The ordinary rows of the last :func:`gather` once more, for the proof; None where the table
    goes row by row."""
    table, plan = pair.captured[number]
    sql = _compose(pair, table, plan)
    if sql.proof is None:
        return None
    return list(pair.source.execute(sql.proof, (number,)))


def proof_columns(plan: TablePlan) -> tuple[list[ColumnPlan], list[ColumnPlan]]:
    """The columns whose text is the same on both sides, and the others."""
    alike = [c for c in plan.copied if inside(c.rule).canonical]
    return alike, [c for c in plan.copied if not inside(c.rule).canonical]


def _table(pair: Pair, number: int) -> TableChange:
    table, plan = pair.captured[number]
    sql = _compose(pair, table, plan)
    _refuse_nameless(pair, number, plan, sql)
    try:
        return _bulk(pair, number, table, plan, sql)
    except UnicodeDecodeError:
        # Somewhere in these rows is text that is none: all of them row by row.
        keys = _raw_keys(pair, number, plan)
        return _by_row(pair, table, TableChange(plan, keys, number=number), keys)


def _refuse_nameless(pair: Pair, number: int, plan: TablePlan, sql: LogStatements) -> None:
    """Raises BlockedError for a row whose key is NULL now: the key told rows apart when the plan
    was made, and SQLite takes any number of NULLs in it."""
    if sql.nameless is None:
        return
    found = pair.source.execute(sql.nameless, (number,)).fetchone()
    if found is None:
        return
    columns = [c for c, is_null in zip(plan.key, found, strict=True) if is_null]
    raise BlockedError(
        f"the source has a new value that the plan cannot carry: a row of {plan.source} has NULL "
        f"in {', '.join(columns)}, its key, and PostgreSQL's keys take none",
        advice="the application is served by SQLite as before; give the row a key there, or run "
        "`migration-job migrate --live` again, which plans from the current values",
    )


def _bulk(
    pair: Pair, number: int, table: SourceTable, plan: TablePlan, sql: LogStatements
) -> TableChange:
    width = len(plan.key)
    change = TableChange(plan, [], number=number)
    for row in pair.source.execute(sql.keys, (number,)):
        key = row[:width]
        change.keys.append(key)
        texts = row[width:] if row[width] is not None else forward_key(plan, key)
        if texts is not None and any("\x00" in text for text in texts):
            texts = None  # no row of the target has it; SQL does not see it there
        if texts is not None:
            change.key_texts.append(texts)
    if sql.lines is None:
        return _by_row(pair, table, change, change.keys)
    lines = [row[0] for row in pair.source.execute(sql.lines, (number,))]
    # A row that two keys have found (1 and 1.0) is one row all the same.
    if lines:
        change.lines = b"\n".join(dict.fromkeys(lines))
        change.lines.decode()
    others = list(pair.source.execute(sql.others, (number,)))
    return _by_row(pair, table, change, others) if others else change


def _raw_keys(pair: Pair, number: int, plan: TablePlan) -> list[Key]:
    codec = codec_of(pair.catalogue.encoding)
    width = len(plan.key)
    query = compose(
        "SELECT {terms} FROM {touched} WHERE tab = ?", terms=key_terms(width), touched=TOUCHED
    )
    return [key_of(row, width, codec) for row in pair.source.execute(query, (number,))]


def _by_row(pair: Pair, table: SourceTable, change: TableChange, keys: list[Key]) -> TableChange:
    plan = change.table
    if not change.key_texts:
        texts = (forward_key(plan, key) for key in change.keys)
        change.key_texts = [t for t in texts if t is not None]
    columns = [c.source or "" for c in plan.copied]
    encoding = pair.catalogue.encoding
    place = key_places(plan)
    rows = read_by_keys(pair.source, table, columns, encoding=encoding, key=plan.key, keys=keys)
    change.rows = list({key_text([row[i] for i in place]): row for row in rows}.values())
    for condition, reason in plan.set_aside:
        for key in read_by_keys(
            pair.source,
            table,
            plan.key,
            encoding=encoding,
            key=plan.key,
            keys=keys,
            condition=condition,
        ):
            change.quarantined.setdefault(key_text(key), reason)
    return change


def _compose(pair: Pair, table: SourceTable, plan: TablePlan) -> LogStatements:
    found = pair.log.statements.get(table.name)
    if found is None:
        found = pair.log.statements[table.name] = _statements(pair, table, plan)
    return found


def _statements(pair: Pair, table: SourceTable, plan: TablePlan) -> LogStatements:
    columns = plan.copied
    references = [column_sql(table, str(c.source)) for c in columns]
    fields = [field_sql(c.rule, r) for c, r in zip(columns, references, strict=True)]
    conditions = [condition_sql(c.rule, r) for c, r in zip(columns, references, strict=True)]
    ordinary = chain("AND", [*conditions, *(f"({q}) IS NOT TRUE" for q in plan.quarantine)])
    raw = [f"k.k{i}" for i in range(len(plan.key))]
    join = f"FROM {TOUCHED} AS k CROSS JOIN {rows_of(table)} AS t WHERE k.tab = ? AND "
    join += _same_key(table, plan, raw)
    whole = [f for f in fields if f is not None]
    utf8 = pair.catalogue.encoding == "UTF-8"
    bulk = utf8 and len(whole) == len(fields)
    alike, raws = proof_columns(plan)
    by_name = dict(
        zip((c.target for c in columns), zip(fields, references, strict=True), strict=True)
    )
    proof_terms = [_blob([str(by_name[c.target][0]) for c in alike])] if alike else ["x''"]
    proof_terms += [by_name[c.target][1] for c in raws]
    return LogStatements(
        keys=compose(
            "SELECT {terms} FROM {touched} AS k WHERE k.tab = ?",
            terms=", ".join([*raw, *_key_texts(plan, raw)]),
            touched=TOUCHED,
        ),
        lines=f"SELECT {_blob(whole)} {join} AND ({ordinary})" if bulk else None,
        others=f"SELECT {', '.join(raw)} {join} AND NOT ({ordinary})",
        proof=f"SELECT {', '.join(proof_terms)} {join} AND ({ordinary})" if bulk else None,
        nameless=_nameless(table, plan, raw),
    )


def _nameless(table: SourceTable, plan: TablePlan, raw: list[str]) -> str | None:
    columns = {fold(c.name): c for c in table.columns}
    optional = [
        value
        for name, value in zip(plan.key, raw, strict=True)
        if (column := columns.get(fold(name))) is not None
        and not column.not_null
        and fold(name) != fold(table.rowid_alias or "")
    ]
    if not optional or table.without_rowid:
        return None
    same = " AND ".join(
        f"{column_sql(table, name)} IS {value}" for name, value in zip(plan.key, raw, strict=True)
    )
    return compose(
        "SELECT {raw} FROM {touched} AS k "
        "WHERE k.tab = ? AND ({optional}) "
        "AND EXISTS (SELECT 1 FROM {table} AS t WHERE {same}) LIMIT 1",
        raw=", ".join(f"{value} IS NULL" for value in raw),
        touched=TOUCHED,
        optional=" OR ".join(f"{value} IS NULL" for value in optional),
        table=rows_of(table),
        same=same,
    )


def _blob(fields: list[str]) -> str:
    return f"CAST({chain('|| char(9) ||', [f'({f})' for f in fields])} AS BLOB)"


def _key_texts(plan: TablePlan, raw: list[str]) -> list[str]:
    """The key's texts, or NULL for a key that SQL cannot convert."""
    rules = [c.rule for c in key_plans(plan)]
    texts = [rule.fast_sql(r) for rule, r in zip(rules, raw, strict=True)]
    if any(text is None for text in texts):
        return ["NULL"] * len(raw)
    there = " AND ".join(
        f"{r} IS NOT NULL AND {condition_sql(rule, r)}" for rule, r in zip(rules, raw, strict=True)
    )
    return [f"CASE WHEN {there} THEN CAST({text} AS TEXT) END" for text in texts]


def _same_key(table: SourceTable, plan: TablePlan, raw: list[str]) -> str:
    collations = {fold(c.name): c.collation.upper() for c in table.columns}
    terms = []
    for name, value in zip(plan.key, raw, strict=True):
        reference = column_sql(table, name)
        # The column's own collation finds the row by its index, BINARY makes sure.
        terms.append(f"{reference} = {value}")
        if collations.get(fold(name), "BINARY") != "BINARY":
            terms.append(f"+{reference} COLLATE BINARY = {value}")
    return " AND ".join(terms)
