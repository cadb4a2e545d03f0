"""How many bytes a row takes of PostgreSQL's page; the pitfalls' tests try it on a server."""

from __future__ import annotations

import pytest

from migration_job.plan.rowsize import row_bytes
from migration_job.plan.rules import (
    BooleanRule,
    ByteaRule,
    IntegerRule,
    NumericRule,
    Rule,
    TextRule,
)
from migration_job.values import SourceValue

BIG = IntegerRule()
INT = IntegerRule(low=-(2**31), high=2**31 - 1)


@pytest.mark.parametrize(
    ("rule", "value", "count", "size"),
    [
        (BIG, 5, 1500, 24 + 12000),
        (INT, 5, 1500, 24 + 6000),
        (BooleanRule(), 1, 1000, 24 + 1000),
        (TextRule(), "", 8, 24 + 8),
        (TextRule(), "x" * 15, 2, 24 + 32),
        (TextRule(), "x" * 5000, 4, 24 + 72),
        (TextRule(), None, 800, 128),
        (ByteaRule(), b"1234567", 2, 24 + 16),
        (NumericRule(affinity="numeric"), 5, 2, 24 + 16),
    ],
)
def test_rows_of_one_kind(rule: Rule, value: SourceValue, count: int, size: int) -> None:
    assert row_bytes((value,) * count, [rule] * count) == size


def test_gaps_before_what_is_aligned() -> None:
    assert row_bytes((1, 5, 1, 5), [BooleanRule(), BIG, BooleanRule(), BIG]) == 24 + 32
    assert row_bytes((5, 5, 1, 1), [BIG, BIG, BooleanRule(), BooleanRule()]) == 24 + 24
