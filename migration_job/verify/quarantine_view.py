"""The source as the target has it: without the rows that went to quarantine or are not carried.

The application's queries are asked of both sides; what was set aside, and is accounted for, must
not count as a difference in each of their answers.
"""

from __future__ import annotations

import re

import apsw

from migration_job.plan.model import Plan
from migration_job.quoting import compose, sqlite_table
from migration_job.verify.connections import carried

_CREATE_VIEW = re.compile(r"\s*CREATE\s+VIEW\s+(IF\s+NOT\s+EXISTS\s+)?", re.IGNORECASE)


def hide_quarantined(source: apsw.Connection, plan: Plan) -> int:
    """Let every query of this connection that names a table find only the rows that the
    target must hold, through the source's views as well. Returns the number of tables with others.

    A temporary view stands in for each: SQLite finds it before the table of the same name.
    """
    hidden = 0
    for table in plan.tables:
        keep = carried(table)
        if table.source is None or not keep:
            continue
        hiding, hidden_table = sqlite_table(table.source, "temp"), sqlite_table(table.source)
        source.execute(
            compose(
                "CREATE VIEW {hiding} AS SELECT * FROM {hidden_table} AS t WHERE {keep}",
                hiding=hiding,
                hidden_table=hidden_table,
                keep=keep,
            )
        )
        hidden += 1
    if hidden:
        _read_through(source)
    return hidden


def _read_through(source: apsw.Connection) -> None:
    """A view of the file's own sees the file's tables; one that is temporary sees the others."""
    views = source.execute("SELECT sql FROM main.sqlite_schema WHERE type = 'view'").fetchall()
    for (sql,) in views:
        temporary, made = _CREATE_VIEW.subn("CREATE TEMP VIEW ", str(sql), count=1)
        if made:
            source.execute(temporary)
