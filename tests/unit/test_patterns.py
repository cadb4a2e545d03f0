"""Patterns that go both ways: back again, and SQLite's expression against Python's."""

from __future__ import annotations

import random
import re

import apsw
import pytest

from migration_job.plan.patterns import both_ways, sql_of
from migration_job.plan.rules import MapRule, Pattern, TextRule, UuidRule

BOTH = (
    (r"(.{3})-(\d{2})", r"\2/\1"),
    (r"^([0-9a-f]{8})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{4})([0-9a-f]{12})$", r"\1-\2-\3-\4-\5"),
    (r"(...)", r"x-\1"),
    (r"id:(.*)", r"\1"),
    (r"(\d+) pcs\.", r"\1"),
    (r"\+49(\d)(\d+)", r"0\1-\2"),
    (r"([A-Z]{2})(.+)([0-9])", r"\3*\g<2>?\1"),
    (r"a(b)c", r"\1\\"),
    (r"(\w+)x", r"[\1"),
    (r"([a-c])(é+)", r"\2\1"),
)

ONE_WAY = (
    *((r"(\d+)", "x"), (r"(\d+) *", r"\1"), (r".*", r"\g<0>"), (r"(a)(b)", r"\1")),
    *(("a", "b"), (r"(a)", r"\1\1"), (r"(?i)(a)", r"\1"), (r"(a)|b", r"\1"), (r"(a)?", r"\1")),
    *((r"((a)b)", r"\1"), (r"(a)\1", r"\1"), (r"(?:a)(b)", r"\1"), (r"(a)", r"\1\n")),
    *((r"(?P<n>a)", r"\g<n>"), ("(", "")),
)


@pytest.mark.parametrize(("match", "replace"), ONE_WAY)
def test_what_leaves_something_out_goes_one_way(match: str, replace: str) -> None:
    assert both_ways(match, replace) is None


@pytest.mark.parametrize(("match", "replace"), BOTH)
def test_sqlite_and_python_agree(match: str, replace: str) -> None:
    """Random texts near the pattern: what the condition takes, Python makes the same of, and it
    comes back; every text that Python meets comes back."""
    both = both_ways(match, replace)
    assert both is not None
    sql = sql_of(both, "c")
    assert sql is not None
    met, made = sql
    memory = apsw.Connection(":memory:")
    chance = random.Random(match)
    some = ["abc-12", "id:", "id:a\nb", "7 pcs.", "+4912", "XY*1", "abc", "_x", "aé", "\u0663 pcs."]
    texts = set(some) | {"0123456789abcdef0123456789abcdef", "", "c", "a.b", "ABé?9", "cééé"}
    for text in list(texts):
        for _ in range(60):
            letters = list(text)
            for _ in range(chance.randint(1, 2)):
                place = chance.randint(0, len(letters))
                letters[place : place + chance.randint(0, 1)] = chance.choice(
                    ["", "a", "Z", "5", "-", "é", "*", "\n", "_", ":", "."]
                )
            texts.add("".join(letters))
    counted = 0
    for text in sorted(texts):
        found = re.fullmatch(match, text, re.DOTALL)
        taken, result = memory.execute(
            f"SELECT {met}, {made} FROM (SELECT ? AS c)", (text,)
        ).fetchall()[0]
        if taken:
            counted += 1
            assert found is not None, text
            assert result == found.expand(replace), text
        if found is not None:
            assert both.back(found.expand(replace)) == text
    assert counted


def test_a_map_of_a_pattern_there_and_back() -> None:
    pattern = Pattern(match=r"([0-9a-f]{8})(.{4})(.{4})(.{4})(.{12})", replace=r"\1-\2-\3-\4-\5")
    rule = MapRule(bijective=True, patterns=(pattern,), inner=UuidRule(affinity="text"))
    text = "c7a1f0de1b2c4d3e8f90a1b2c3d4e5f6"
    there = "c7a1f0de-1b2c-4d3e-8f90-a1b2c3d4e5f6"
    assert rule.forward(text) == there
    assert rule.inverse(there) == text
    assert not rule.changes(text)
    assert rule.inverse(None) is None
    assert rule.changes(there.upper())


def test_a_value_that_only_looks_mapped_needs_a_ledger_row() -> None:
    rule = MapRule(
        bijective=True, patterns=(Pattern(match=r"(\d+)", replace=r"x\1"),), inner=TextRule()
    )
    assert not rule.changes("7")
    assert not rule.changes("y")
    assert rule.changes("x7")
