"""Which tables and rows are carried, and which stay on the source: ``only``, ``except``, ``skip``
and ``where`` of the policy.

What stays is told with its rows, in the findings and in the certificate, and a switch waits until
the policy acknowledges it: an application that is served by PostgreSQL does not have it any more.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from typing import Any

import apsw

from migration_job.errors import InputError
from migration_job.plan.findings import Findings, some
from migration_job.plan.model import Finding, Plan
from migration_job.plan.policy import Policy
from migration_job.plural import counted
from migration_job.quoting import compose, sqlite_expression, sqlite_name, sqlite_table
from migration_job.stores.sqlite.chosen_rows import with_rows
from migration_job.stores.sqlite.model import Catalogue, SourceTable
from migration_job.stores.sqlite.reader import Row, batches, bindable, read_rows
from migration_job.values import fold

TABLE_LEFT_OUT = "table-left-out"
"""Code of the finding for a table that ``only`` or ``except`` leaves out."""

TABLE_SKIPPED = "table-skipped"
"""The same of a table that the policy names with ``skip``."""

ROWS_LEFT_OUT = "rows-left-out"
"""The same of rows that a table's ``where`` leaves out."""

_OF_NOW = re.compile(r"'now'|\bcurrent_(?:date|time|timestamp)\b|'localtime'", re.IGNORECASE)
"""What answers otherwise later or elsewhere, and may stand where a row of NULLs does not ask it."""

ASKED_ROWS = 2_000
"""Rows that are asked a predicate as an index would."""

OF_VIRTUAL = "left out by the policy: the rows of this virtual table stay on the source"
"""Of a virtual table, whose rows are not counted: not every SQLite can read them."""

LEFT_OUT = (TABLE_LEFT_OUT, TABLE_SKIPPED, ROWS_LEFT_OUT)


def choose(
    connection: apsw.Connection, catalogue: Catalogue, policy: Policy, findings: Findings
) -> Catalogue:
    """The catalogue with what is carried, each table or share of rows that stays a finding. Raises
    InputError for a pattern that no table meets, and a ``where`` that SQLite does not take."""
    _require_patterns(catalogue, policy)
    gone: set[str] = set()
    for table in catalogue.tables:
        code = _left_by(table.name, policy)
        if code is not None:
            gone.add(fold(table.name))
            _report_table(connection, table, code, findings)
    kept = tuple(t for t in catalogue.tables if fold(t.name) not in gone)
    for other in catalogue.others:
        code = _left_by(other.name, policy) if other.kind == "virtual" else None
        if code is not None and fold(other.name) not in gone:
            gone.add(fold(other.name))
            _report_virtual(other.name, code, findings)
    chosen = catalogue.with_tables(kept).model_copy(
        update={
            "others": tuple(
                other
                for other in catalogue.others
                if other.kind == "view" or not {fold(other.name), fold(other.table)} & gone
            )
        }
    )
    return with_rows(chosen, _chosen_rows(connection, catalogue, policy, findings, gone))


def _chosen_rows(
    connection: apsw.Connection,
    catalogue: Catalogue,
    policy: Policy,
    findings: Findings,
    gone: set[str],
) -> dict[str, str]:
    """The predicates by table, tried and told, but of tables that are left out."""
    rows = {t.name: where for t in catalogue.tables if (where := policy.table(t.name).where)}
    for name, where in rows.items():
        table = catalogue.table(name)
        _require_replacing(table, policy)
        count = _asked(connection, table, where, catalogue.encoding)
        if fold(name) not in gone:
            _report_rows(table, where, count, findings)
    return {name: where for name, where in rows.items() if fold(name) not in gone}


def narrowed(catalogue: Catalogue, plan: Plan) -> Catalogue:
    """The catalogue with the rows that the plan carries."""
    return with_rows(
        catalogue,
        {catalogue.table(str(t.source)).name: t.where for t in plan.tables if t.where is not None},
    )


def absent(catalogue: Catalogue, plan: Plan) -> list[str]:
    """The source's tables of the plan that the catalogue does not have."""
    there = {fold(table.name) for table in (*catalogue.virtual, *catalogue.tables)}
    return [t.source for t in plan.tables if t.source is not None and fold(t.source) not in there]


def left_out(plan: Plan) -> str:
    """What stays on the source, for a certificate; '' where nothing does."""
    found = [f for f in plan.findings if f.code in LEFT_OUT]
    return "; ".join(
        f"{f.table}: {_how_many(f)} left out"
        + (", the others carried" if f.code == ROWS_LEFT_OUT else "")
        for f in found
    )


def _how_many(finding: Finding) -> str:
    virtual = finding.message == OF_VIRTUAL
    return "a virtual table" if virtual else counted(finding.count, "row")


def is_known_dead(finding: Finding, policy: Policy | None) -> bool:
    """Whether the plan's policy or this one says that nobody will miss what the finding names."""
    if finding.severity == "note":
        return True
    return policy is not None and policy.accepts(finding.code, finding.table, None, None)


def said_of_left(findings: list[Finding]) -> str:
    """What stays, for the refusal of a switch."""
    return some([f"{f.table} ({_how_many(f)})" for f in findings])


def _left_by(name: str, policy: Policy) -> str | None:
    """The code of the finding of a table that is left out; None for one that is carried."""
    if policy.table(name).skip:
        return TABLE_SKIPPED
    if policy.only and not _meets(name, policy.only):
        return TABLE_LEFT_OUT
    return TABLE_LEFT_OUT if _meets(name, policy.except_) else None


def _meets(name: str, patterns: tuple[str, ...]) -> bool:
    # Of fnmatch's special characters * and ? alone: a table may be called x[1].
    plain = [fold(pattern).replace("[", "[[]") for pattern in patterns]
    return any(fnmatch.fnmatchcase(fold(name), pattern) for pattern in plain)


def _require_patterns(catalogue: Catalogue, policy: Policy) -> None:
    virtual = [o.name for o in catalogue.others if o.kind == "virtual"]
    names = list(dict.fromkeys([*(t.name for t in catalogue.tables), *virtual]))
    for word, patterns in (("only", policy.only), ("except", policy.except_)):
        for pattern in patterns:
            if not any(_meets(name, (pattern,)) for name in names):
                raise InputError(
                    f"expected a table of the source after {word}, found {pattern!r}, which none "
                    "is called",
                    advice=f"the source has {some(names)}; * stands for any letters, ? for one",
                )
    if policy.only and not any(_left_by(name, policy) is None for name in names):
        raise InputError(
            "expected a table that is carried, found that `only`, `except` and `skip` leave none",
            advice=f"the source has {some(names)}",
        )


def _require_replacing(table: SourceTable, policy: Policy) -> None:
    """With other rows of the target's own beside them, nobody could tell a row that has ceased to
    meet the predicate from one that is the target's."""
    if policy.table(table.name).rows != "replace":
        raise InputError(
            f"the policy's tables.{table.name}: expected `where` without `rows: "
            f"{policy.table(table.name).rows}`, found both",
            advice="leave one of them out",
        )


def _asked(connection: apsw.Connection, table: SourceTable, where: str, encoding: str) -> int:
    """How many rows do not meet the predicate. What SQLite takes for a partial index is a question
    to the row alone, and has one answer. Some of what it does not take it notices only when a row
    asks: so rows of the table do. Raises InputError for any other."""
    memory = apsw.Connection(":memory:")
    memory.config(apsw.SQLITE_DBCONFIG_DQS_DDL, 0)
    names = [column.name for column in table.columns]
    columns = [sqlite_name(name) for name in names]
    number = sqlite_name("_" * (1 + max(map(len, names))))
    memory.execute(
        compose(
            "CREATE TABLE t ({number} INTEGER PRIMARY KEY, {columns}){kind}",
            number=number,
            columns=", ".join(columns),
            kind=" WITHOUT ROWID" if table.without_rowid else "",
        )
    )
    try:
        written = sqlite_expression(where)
        memory.execute(
            compose("CREATE INDEX chosen_ ON t ({c}) WHERE ({w})", c=columns[0], w=written)
        )
        if found := _OF_NOW.search(where):
            raise InputError(f"non-deterministic use of {found[0]}")
        insert = compose("INSERT INTO t VALUES ({marks})", marks=", ".join("?" * (len(names) + 1)))
        memory.execute(insert, (0, *(None for _ in names)))
        for count, row in enumerate(_first_rows(connection, table, encoding), 1):
            memory.execute(insert, (count, *(bindable(value) for value in row)))
        # And every row on the file itself: it has to have an answer for each.
        return _count(connection, table, f"({written}) IS NOT TRUE")
    except (apsw.Error, InputError) as error:
        raise InputError(
            f"the policy's tables.{table.name}.where: expected a SQLite predicate of the row's own "
            f"columns, found {where!r}: {error}",
            advice="write it as in a partial index: the columns' bare names, no subquery, no time "
            "of day, no random values, text in single quotes; it must have an answer for every row",
        ) from error


def _first_rows(connection: apsw.Connection, table: SourceTable, encoding: str) -> Iterator[Row]:
    """Some rows, as many as are asked and take no more than a batch's memory."""
    names = [column.name for column in table.columns]
    rows = read_rows(connection, table, names, encoding=encoding, ordered=False)
    return iter(next(batches(rows, max_rows=ASKED_ROWS), []))


def _report_table(
    connection: apsw.Connection, table: SourceTable, code: str, findings: Findings
) -> None:
    count = _count(connection, table, "1")
    findings.add(
        code,
        "warning",
        f"left out by the policy: {counted(count, 'row')} {_stay(count)} on the source",
        table=table.name,
        count=count,
    )


def _report_virtual(name: str, code: str, findings: Findings) -> None:
    findings.add(
        code,
        "warning",
        OF_VIRTUAL,
        table=name,
        item=name,
    )


def _report_rows(table: SourceTable, where: str, count: int, findings: Findings) -> None:
    findings.add(
        ROWS_LEFT_OUT,
        "warning",
        f"the policy carries rows {where}: {counted(count, 'other row')} {_stay(count)} on the "
        "source",
        table=table.name,
        count=count,
    )


def _stay(count: int) -> str:
    return "stays" if count == 1 else "stay"


def _count(connection: apsw.Connection, table: SourceTable, where: str) -> int:
    found: list[tuple[Any, ...]] = connection.execute(
        compose(
            "SELECT count(*) FROM {table} AS t WHERE {where}",
            table=sqlite_table(table.name),
            where=where,
        )
    ).fetchall()
    return int(found[0][0])
