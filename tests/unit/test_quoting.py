"""Names and texts become parts of SQL in one place, and in no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import sql

from migration_job import quoting
from migration_job.errors import InputError
from migration_job.quoting import (
    Sql,
    as_written,
    compose,
    joined,
    postgres_name,
    postgres_relation,
    postgres_text,
    sqlite_expression,
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


@given(texts, texts)
def test_postgresql_is_given_what_its_driver_would_give(name: str, text: str) -> None:
    if name and len(name.encode()) <= 63:
        assert postgres_name(name) == sql.Identifier(name).as_string(None)
    assert postgres_text(text) == sql.Literal(text).as_string(None).strip()


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


# ---------------------------------------------------------------------------- texts of SQL


@pytest.mark.parametrize(
    "part",
    [
        "a",
        "$1, $2",
        "f(a, b[1])",
        "date '2020-01-01'",
        "E'it''s \\\\ \\' all' || 'x'",
        "'--' || \";\" || '/*'",
        "`x;y`",
        "a /* said */ + 1",
        "a - -1",
    ],
)
def test_a_part_that_stays_in_its_place_is_taken(part: str) -> None:
    assert compose("SELECT {part} FROM {{t}}", part=part) == f"SELECT {part} FROM {{t}}"


ESCAPING = [
    "1; DROP TABLE t",
    "1 -- the rest",
    "1 /* the rest",
    "'open",
    'a"',
    "(1",
    "1) FROM (SELECT 2",
    "$x$ body $x$",
    "$$",
    "`open",
    "a\x00",
    "\\'; --",
]


@pytest.mark.parametrize("part", ESCAPING)
def test_a_part_that_reaches_out_of_its_place_is_refused(part: str) -> None:
    with pytest.raises(InputError, match="closes what it opens as part of a statement"):
        compose("SELECT {part}", part=part)
    with pytest.raises(InputError, match="closes what it opens"):
        joined(", ", ["1", part])
    assert compose("SELECT {part}", part=as_written(part)) == f"SELECT {part}"


def test_a_part_that_is_missing_is_refused() -> None:
    with pytest.raises(InputError):
        compose("SELECT {part}", part=None)


@given(texts)
def test_what_was_quoted_may_be_a_part_and_what_was_not_changes_no_statement(name: str) -> None:
    """The name as it is gives one column, or is refused, or is an error of SQLite's."""
    assert compose("{part}", part=sqlite_name(name)) == sqlite_name(name)
    assert compose("{part}", part=postgres_text(name)) == postgres_text(name)
    try:
        statement = compose("SELECT ({part})", part=name)
    except InputError:
        return
    connection = apsw.Connection(":memory:")
    seen = []
    connection.exec_trace = lambda _cursor, text, _bindings: not seen.append(text)  # type: ignore
    try:
        connection.execute(statement)
    except (apsw.SQLError, apsw.BindingsError):
        pass
    finally:
        connection.close()
    assert len(seen) <= 1


@given(st.text(alphabet="ab '\"()[]-;$`/*\\e\x00", max_size=14))
def test_the_short_way_to_look_at_a_part_says_the_same(part: str) -> None:
    assert quoting._stays_in_its_place(part) == quoting._closes_what_it_opens(part)


def test_what_was_composed_is_a_part_with_all_that_it_holds() -> None:
    body = joined("\n", [compose("SELECT {n};", n=1), compose("SELECT {n};", n=2)])
    assert isinstance(body, Sql)
    assert compose("BEGIN {body} END", body=body) == "BEGIN SELECT 1;\nSELECT 2; END"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("[it's]", '"it\'s"'),
        ("a -- it's\n + 1", "a   + 1"),
        ("a /* ( */ + [b]", 'a   + "b"'),
        ("'[x] --' || `y`", "'[x] --' || `y`"),
    ],
)
def test_an_expression_of_sqlites_own_words(text: str, written: str) -> None:
    assert sqlite_expression(text) == written


def test_what_is_no_expression_is_refused() -> None:
    with pytest.raises(InputError):
        sqlite_expression("1); DROP TABLE t; --")


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


# ------------------------------------------------------------- nothing else puts SQL together

STATEMENT = re.compile(
    r"\bselect\b.*\bfrom\b|\bselect setval\b|\binsert into\b|\bupdate\b.*\bset\b|\bdelete from\b"
    r"|\b(create|alter|drop) (or replace |temp |temporary |unlogged |unique |virtual |\{\})*"
    r"(table|index|view|trigger|function|schema|sequence|role|database|policy|type|domain"
    r"|extension|statistics)\b"
    r"|\bcopy\b.*\b(from stdin|to stdout)\b|\block table\b|\btruncate\b|\bgrant\b.*\bto\b"
    r"|\brevoke\b.*\bfrom\b|\banalyze \{|\bcomment on\b|\bexplain (insert|select|delete|update)\b"
    r"|\bpragma \w|\bset (local|session)\b|\bunion all select\b",
    re.IGNORECASE | re.DOTALL,
)

NO_STATEMENTS = {
    "migration_job/stores/postgres/settings.py": "advice on what to execute",
    "migration_job/stores/postgres/suitability.py": "advice on what to execute",
    "migration_job/stores/postgres/target_fence.py:act_as_replica": "advice on what to execute",
    "migration_job/stores/postgres/existing.py:silence": "advice on what to execute",
    "migration_job/stores/postgres/existing.py:require_privileges": "a sentence",
    "migration_job/plan/matching.py:_obstacle": "advice on what to execute",
    "migration_job/protocol/catchup.py:_require_whole_rows": "a sentence",
    "migration_job/verify/checks.py": "an operator's own query, and a setting from a constant",
    "migration_job/verify/performance.py": "an operator's own query",
}


def _said(node: ast.expr) -> str:
    """The text of an expression that makes one, with {} for what is filled in."""
    if isinstance(node, ast.JoinedStr):
        return "".join(_said(part) for part in node.values)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.BinOp):
        return _said(node.left) + _said(node.right)
    return "{}"


def put_together(tree: ast.AST) -> Iterator[int]:
    """The lines on which a statement is made by an f-string, ``+``, ``%`` or ``format``."""
    inside: set[ast.AST] = set()
    for node in ast.walk(tree):
        if node in inside:
            continue
        made: ast.expr | None = None
        if isinstance(node, ast.JoinedStr):
            made = node if any(isinstance(p, ast.FormattedValue) for p in node.values) else None
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mod):
            made = node
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            made = node.func.value if node.func.attr in ("format", "format_map") else None
            if isinstance(made, ast.Call):  # sql.SQL("...").format(...), psycopg's own composition
                made = None
        if made is not None and STATEMENT.search(_said(made)):
            inside.update(ast.walk(node))
            yield made.lineno


def templates_that_are_no_literals(tree: ast.AST) -> Iterator[int]:
    """The lines on which :func:`compose` or :func:`joined` is given a template from elsewhere."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id not in ("compose", "joined"):
                continue
            first = node.args[0] if node.args else None
            if not (isinstance(first, ast.Constant) and isinstance(first.value, str)):
                yield node.lineno


@pytest.mark.parametrize(
    "code",
    [
        "x = f'SELECT {name} FROM t'",
        "x = 'DELETE FROM ' + name",
        "x = 'DROP TABLE %s' % name",
        "x = 'SELECT * FROM {}'.format(name)",
        "x = f'CREATE {unique}INDEX {name} ON t'",
        "x = f'PRAGMA main.table_info({name})'",
        "x = f'COPY {name} FROM STDIN'.encode()",
    ],
)
def test_a_statement_put_together_by_hand_is_found(code: str) -> None:
    assert list(put_together(ast.parse(code))) == [1]


def test_a_template_from_elsewhere_is_found() -> None:
    code = "compose(template, a=1)\njoined(by, [])\ncompose('SELECT {a}', a=1)"
    assert list(templates_that_are_no_literals(ast.parse(code))) == [1, 2]


def _functions(tree: ast.AST) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def _place(file: str, tree: ast.AST, line: int) -> str:
    around = [f for f in _functions(tree) if f.lineno <= line <= (f.end_lineno or line)]
    return f"{file}:{around[-1].name}" if around else file


def test_nothing_else_puts_sql_together() -> None:
    found = set()
    for file in _files():
        name, tree = str(file.relative_to(ROOT)), ast.parse(file.read_text())
        if name in NO_STATEMENTS or name == "migration_job/quoting.py":
            continue
        lines = [*put_together(tree), *templates_that_are_no_literals(tree)]
        found |= {f"{_place(name, tree, line)} ({line})" for line in lines}
    left_out = {f"{place} (" for place in NO_STATEMENTS if ":" in place}
    assert not {place for place in found if not place.startswith(tuple(left_out))}
