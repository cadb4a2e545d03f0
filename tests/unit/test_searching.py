"""Which tables an application fills for its search, and by which command."""

from __future__ import annotations

import pytest

from migration_job.plan.searching import holds_search, remade_by
from migration_job.plan.target import TargetColumn, TargetTable


def column(base: str, generated: str | None = None) -> TargetColumn:
    return TargetColumn(name="title", type=base, base=base, generated=generated)


def table(name: str, *columns: TargetColumn) -> TargetTable:
    return TargetTable(name=name, kind="table", columns=columns)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("wagtailsearch_indexentry", "manage.py update_index"),
        ("WagtailSearch_IndexEntry", "manage.py update_index"),
        ("modelsearch_indexentry", "manage.py rebuild_modelsearch_index"),
        ("watson_searchentry", "manage.py buildwatson"),
        ("articles", None),
    ],
)
def test_a_known_table_names_its_command(name: str, how: str | None) -> None:
    assert remade_by(name, table(name, column("tsvector"))) == how


def test_one_that_the_target_holds_as_texts_is_carried() -> None:
    name = "wagtailsearch_indexentry"
    assert remade_by(name, table(name, column("text"))) is None
    assert remade_by(name, None) is None


def test_what_postgresql_computes_is_filled_by_the_load() -> None:
    assert holds_search(column("tsvector"))
    assert not holds_search(column("tsvector", "to_tsvector('english', body)"))
    assert not holds_search(column("text"))
