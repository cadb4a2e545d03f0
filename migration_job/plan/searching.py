"""The tables that an application fills for its own search, differently on each engine.

SQLite's holds texts, which triggers copy to a full-text index; PostgreSQL's holds ``tsvector``,
made by the application with weights and a language of its own. Neither can be made from the other,
and each side's rows repeat what other tables hold: they are made anew, by the application.
"""

from __future__ import annotations

from collections.abc import Mapping

from migration_job.plan.target import TargetColumn, TargetTable
from migration_job.values import fold

KNOWN: Mapping[str, str] = {
    "wagtailsearch_indexentry": "manage.py update_index",
    "modelsearch_indexentry": "manage.py rebuild_modelsearch_index",
    "postgres_search_indexentry": "manage.py update_index",
    "watson_searchentry": "manage.py buildwatson",
}
"""Each with the application's command that makes its rows."""


def holds_search(there: TargetColumn) -> bool:
    """Whether the column holds what is searched for, and PostgreSQL does not compute it."""
    return there.base == "tsvector" and there.generated is None


def remade_by(name: str, there: TargetTable | None) -> str | None:
    """The command that makes the rows of a table of that name, where the target's is made for
    search; None for any other table."""
    if there is None or not any(map(holds_search, there.columns)):
        return None
    return next((how for known, how in KNOWN.items() if fold(known) == fold(name)), None)
