"""The digest's own SQL for a pattern says what the pattern says, or leaves it to it."""

from __future__ import annotations

import random

import apsw
import pytest

from migration_job.plan.rules import Pattern
from migration_job.verify.digest_lines import pattern_text
from migration_job.verify.digest_patterns import pattern_sql

PATTERNS = [
    ("ID-(.*)", r"\1"),
    ("(.+)%", r"\1"),
    (r"(\d\d)/(\d\d)/(\d{4})", r"\3-\2-\1"),
    (r"(\d{2})\.(.*)\.([0-9]{2})", r"x\2'\3\1"),
    (r"a(.*)b", r"<\1>"),
    (r"(\d)(.+)", r"\2\1"),
    ("plain", "other"),
    ("plain", ""),
]
OTHERS = [("(a|b)", r"\1"), (".*", "x"), (r"(\w+)", r"\1"), ("(.*)-(.*)", r"\2"), ("a+", "b"),
          ("(.*)", r"\2"), ("(.*)", r"\g<1>"), (r"(\d\d{3})", r"\1")]  # fmt: skip


@pytest.mark.parametrize(("match", "replace"), PATTERNS)
def test_it_says_the_same(match: str, replace: str) -> None:
    rng = random.Random(match)
    own = pattern_sql(Pattern(match=match, replace=replace), "c")
    assert own is not None
    connection = apsw.Connection(":memory:")
    query = f"WITH t(c) AS (VALUES (?)) SELECT CASE {own} ELSE 'left' END FROM t"
    met = 0
    texts = ["ID-7", "ID-", "5%", "%", "01/02/2024", "٠١/02/2024", "12.x.34", "12..34", "ab", "axb",
             "a\nb", "7x", "plain", "", "a", "ID-\x00x"]  # fmt: skip
    letters = "ID-%/.0123456789abx\n'"
    texts += ["".join(rng.choices(letters, k=rng.randrange(12))) for _ in range(2_000)]
    for text in (*texts, *(f"ID-{t}" for t in texts), *(f"a{t}b" for t in texts)):
        said = connection.execute(query, (text,)).get
        if said != "left":
            met += 1
            assert said == pattern_text(f'[["{_quoted(match)}", "{_quoted(replace)}"]]', text)
    assert met
    for other in (None, 7, b"ID-7", 1.5):
        assert connection.execute(query, (other,)).get == "left"


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\")


@pytest.mark.parametrize(("match", "replace"), OTHERS)
def test_others_are_left_to_the_pattern(match: str, replace: str) -> None:
    assert pattern_sql(Pattern(match=match, replace=replace), "c") is None
