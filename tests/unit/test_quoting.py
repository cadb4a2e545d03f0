"""Names and texts become parts of SQL in one place, and in no other."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st

from migration_job.errors import InputError
from migration_job.quoting import (
    postgres_name,
    postgres_relation,
    postgres_text,
    sqlite_name,
    sqlite_table,
    sqlite_text,
)

texts = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))


@given(texts, texts)
def test_sqlite_reads_back_what_was_quoted(name: str, text: str) -> None:
    connection = apsw.Connection(":memory:")
    connection.execute(f"CREATE TABLE {sqlite_table(name)} ({sqlite_name(name)})")
    connection.execute(f"INSERT INTO {sqlite_name(name)} VALUES ({sqlite_text(text)})")
    assert connection.execute(f"SELECT {sqlite_name(name)} FROM {sqlite_table(name)}").get == text
    assert connection.execute("SELECT name FROM sqlite_schema").get == name
    connection.close()


def test_what_postgresql_is_given() -> None:
    assert postgres_name('a"b%s') == '"a""b%s"'
    assert postgres_relation("t", "a.b") == '"a.b"."t"'
    assert postgres_text("it's") == "'it''s'"
    # The same under any standard_conforming_strings.
    assert postgres_text("it's \\ all") == "E'it''s \\\\ all'"


@pytest.mark.parametrize("name", ["", "a\x00b", "x" * 64, "ä" * 32])
def test_what_cannot_be_a_name_of_postgresql_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="1 to 63 bytes"):
        postgres_name(name)


def test_a_name_of_63_bytes_is_kept() -> None:
    assert postgres_name("x" * 63) == '"' + "x" * 63 + '"'


@pytest.mark.parametrize("quote", [sqlite_name, sqlite_table, sqlite_text, postgres_text])
def test_nul_is_refused(quote: object) -> None:
    assert callable(quote)
    with pytest.raises(InputError, match="NUL"):
        quote("a\x00b")


# ------------------------------------------------------------------- nothing else quotes a name

ROOT = Path(__file__).resolve().parents[2]

OTHER_LANGUAGES = {
    "migration_job/quoting.py": "the one place",
    "migration_job/values.py": "a value as people are shown it",
    "migration_job/pooler.py": "PgBouncer's configuration, which is no SQL",
    "migration_job/embedded.py": "PgBouncer's list of users, which is no SQL",
    "infra/rendering.py": "configuration files, which are no SQL",
    "migration_job/stores/postgres/apply.py": "the elements of an array's text",
    "migration_job/plan/defaults.py": "the pattern of to_char",
}
"""Where quotes are doubled or escaped for something else than a name or a text of SQL."""


def _files() -> Iterator[Path]:
    for room in ("migration_job", "infra"):
        yield from (ROOT / room).rglob("*.py")


def _is(node: ast.expr, *texts: str) -> bool:
    return isinstance(node, ast.Constant) and node.value in texts


def hand_written(tree: ast.AST) -> Iterator[int]:
    """The lines on which a quote is doubled, or a name is put between quotes, by hand."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            doubling = node.func.attr in ("replace", "sub") and len(node.args) >= 2
            if doubling and _is(node.args[1], "''", '""', "\\'", '\\"'):
                yield node.lineno
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            if _is(node.left, "'", '"', "E'") and not isinstance(node.right, ast.Constant):
                yield node.lineno
        elif isinstance(node, ast.JoinedStr):
            parts = node.values
            for before, middle, after in zip(parts, parts[1:], parts[2:], strict=False):
                if (
                    isinstance(middle, ast.FormattedValue)
                    and isinstance(before, ast.Constant)
                    and isinstance(after, ast.Constant)
                    and str(before.value).endswith('"')
                    and not str(before.value).endswith(':"')  # JSON
                    and str(after.value).startswith('"')
                ):
                    yield node.lineno


@pytest.mark.parametrize(
    "code",
    [
        """x = "'" + text.replace("'", "''") + "'" """,
        """x = '"' + name + '"' """,
        """x = name.replace('"', '""')""",
        """x = f'SELECT "{name}" FROM t'""",
    ],
)
def test_quoting_by_hand_is_found(code: str) -> None:
    assert list(hand_written(ast.parse(code)))


def test_nothing_else_quotes_a_name() -> None:
    found = {
        f"{file.relative_to(ROOT)}:{line}"
        for file in _files()
        if str(file.relative_to(ROOT)) not in OTHER_LANGUAGES
        for line in hand_written(ast.parse(file.read_text()))
    }
    assert not found


def _names(part: ast.expr) -> list[str]:
    """What an interpolation names that is no constant of the program's."""
    if not isinstance(part, ast.FormattedValue):
        return []
    named = (node.id for node in ast.walk(part) if isinstance(node, ast.Name))
    return [name for name in named if not name.isupper() and name != "postgres_text"]


def test_no_body_stands_between_dollar_tags_with_names_in_it() -> None:
    """A name could hold the tag; a body with names is a literal."""
    found = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for file in _files()
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.JoinedStr)
        and any(
            isinstance(part, ast.Constant) and "$ BEGIN" in str(part.value) for part in node.values
        )
        and any(_names(part) for part in node.values)
    ]
    assert not found
