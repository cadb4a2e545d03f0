"""A number agrees with its noun wherever the job says one: `1 row`, never `1 rows`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import migration_job
from migration_job.plural import counted, counted_doing, either

PACKAGE = Path(migration_job.__file__).parent
NOUNS = "rows|values|columns|tables|numbers|changes|keys|files|queries|tenants|documents"
FIXED = re.compile(rf"\{{([^{{}}]*):,\}} ({NOUNS})\b")
"""A number in an f-string with a noun that stays one of several."""

NEVER_ONE = {
    "QUEUE_COUNTED",  # a constant
    "MIN_ROWS",
    "len(table.columns)",  # more than a table of PostgreSQL's can have
    "len(self.queries)",  # the budget's file has several
    "found",  # said where it is not one
    "there.differences",
}


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 rows stay"), (1, "1 row stays"), (2_000, "2,000 rows stay")]
)
def test_a_number_agrees_with_its_noun_and_verb(number: int, said: str) -> None:
    assert counted_doing(number, "row", "stay") == said
    assert f"{counted(number, 'row')} {either(number, 'stays', 'stay')}" == said


def test_no_message_has_a_noun_that_cannot_be_one() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}: {match[0]}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for match in FIXED.finditer(path.read_text(encoding="utf-8"))
        if match[1] not in NEVER_ONE
    ]
    assert found == []
