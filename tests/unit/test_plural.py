"""A number agrees with its noun and its verb wherever the job says one: `1 row is`."""

from __future__ import annotations

import ast
import io
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from rich.progress import Task, TaskID

import migration_job
from migration_job.plural import counted, counted_doing, either, named
from migration_job.progress import Reporter, _Counted

PACKAGE = Path(migration_job.__file__).parent
CHECKOUT = PACKAGE.parent
SPOKEN = ("migration_job", "infra", "example_app")
NOUNS = (
    "rows|values|columns|tables|numbers|changes|keys|files|queries|tenants|documents|requests|"
    "writes|problems|findings|differences"
)
NUMBER, COUNTED, OTHER = "\N{NUMERO SIGN}", "\N{SECTION SIGN}", "\N{CURRENCY SIGN}"
COUNTING = {"counted", "count_rows", "count_values"}
FIXED = re.compile(rf"{NUMBER} (?:{OTHER}|(?:{NOUNS})\b)")
"""A number with a noun that stays one of several, or with one out of a variable."""
SEVERAL = re.compile(
    rf"[{COUNTED}{NUMBER}](?: (?:in|of|with) [{COUNTED}{NUMBER}])* (?:not )?"
    r"(?:are|were|have|do|break|differ|need|stay|hold|refer)\b"
    rf"|{COUNTED}.*\b(?:they|them)\b"
)
"""Something counted, and a verb or a pronoun that stays that of several."""

NEVER_ONE = (
    *("QUEUE_COUNTED", "MIN_ROWS"),  # constants
    "len(table.columns)",  # more than a table of PostgreSQL's can have
    "len(self.queries)",  # the budget's file has several
    "there.differences",  # said where it is not one
    "found.count - len(found.shown)",
    *("self.requests", "self.writes"),  # of a load of thousands
    "self.acknowledged",
    *("named(", "count:,} {state"),  # the noun agrees; a state is no noun
    "set aside, with all that refer to them",  # of more than are followed one by one
    "_verb(rows)",  # the noun is among the values
    "keep them in files",  # the values
    "with a file each; ",  # of the demo's tenants
)
"""What a message has that is not said of one."""


def told(tree: ast.AST) -> Iterator[tuple[ast.JoinedStr, str]]:
    """Each f-string, what it counts and what else it shows as a sign each; not what is said of
    several alone."""
    chosen = {id(part) for node in ast.walk(tree) for part in _of_several(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) and id(node) not in chosen:
            yield node, "".join(map(_sign, node.values))


@cache
def all_told() -> list[tuple[Path, ast.JoinedStr, str]]:
    """All f-strings of the product."""
    return [
        (path.relative_to(CHECKOUT), node, said)
        for folder in SPOKEN
        for path in sorted((CHECKOUT / folder).rglob("*.py"))
        for node, said in told(ast.parse(path.read_text(encoding="utf-8")))
    ]


def _of_several(node: ast.AST) -> list[ast.expr]:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "either":
        return node.args[2:]
    return [node.orelse] if isinstance(node, ast.IfExp) else []


def _sign(part: ast.expr) -> str:
    if isinstance(part, ast.Constant):
        return str(part.value)
    assert isinstance(part, ast.FormattedValue)
    call = part.value
    if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in COUNTING:
        return COUNTED
    form = "" if part.format_spec is None else ast.unparse(part.format_spec)
    return NUMBER if form[2:-1] == "," else OTHER


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 rows stay"), (1, "1 row stays"), (2_000, "2,000 rows stay")]
)
def test_a_number_agrees_with_its_noun_and_verb(number: int, said: str) -> None:
    assert counted_doing(number, "row", "stay") == said
    assert f"{counted(number, 'row')} {either(number, 'stays', 'stay')}" == said


@pytest.mark.parametrize(
    ("number", "thing", "said"),
    [(1, "query", "query"), (2, "query", "queries"), (2, "key", "keys"), (2, "MiB", "MiB")],
)
def test_a_noun_alone(number: int, thing: str, said: str) -> None:
    assert named(number, thing) == said


@pytest.mark.parametrize("sign", [FIXED, SEVERAL])
def test_no_message_has_words_that_cannot_be_of_one(sign: re.Pattern[str]) -> None:
    found = [
        f"{path}:{node.lineno}: {said}"
        for path, node, said in all_told()
        if sign.search(said) and not any(word in ast.unparse(node) for word in NEVER_ONE)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("message", "sign"),
    [
        ("f'{done:,} rows'", FIXED),
        ("f'{done:,} {unit}'", FIXED),
        ("f'{counted(n, 1)} in {counted(m, 2)} are there'", SEVERAL),
        ("f'{n:,} of {counted(m, 2)} are not'", SEVERAL),
        ("f'{counted(n, 1)} {verb} it: SQLite keeps them'", SEVERAL),
    ],
)
def test_such_words_are_found(message: str, sign: re.Pattern[str]) -> None:
    _, said = next(told(ast.parse(message)))
    assert sign.search(said)


def test_a_phase_of_one_counts_one() -> None:
    stream = io.StringIO()
    with Reporter(stream).phase("copy", total=1):
        pass
    reporter = Reporter(stream)
    with reporter.phase("plan", total=1):
        reporter.advance(1)
    assert stream.getvalue().endswith(" s, 1 row\n")
    task = Task(TaskID(1), "copy", 1, 1, _get_time=lambda: 0.0)
    task.fields = {"about": "", "unit": "row"}
    assert _Counted().render(task).plain.startswith("1 of 1 row, left")
