"""No connection to a file trusts that file's schema."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import apsw

from migration_job.stores.sqlite.distrust import distrust

JOB = Path(__file__).resolve().parents[2] / "migration_job"
EXEMPT = {
    "protocol/content.py: _set_cookie",  # sets the one number that defensive mode forbids
    "demo/radcase.py: make_radcase",  # makes the file
}


def opening() -> Iterator[tuple[str, ast.FunctionDef]]:
    """Each function that opens a file with SQLite."""
    for path in sorted(JOB.rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef) and any(map(_opens, ast.walk(function))):
                yield f"{path.relative_to(JOB)}: {function.name}", function


def _opens(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call) or not node.args:
        return False
    in_memory = isinstance(node.args[0], ast.Constant) and node.args[0].value == ":memory:"
    return ast.unparse(node.func) in ("apsw.Connection", "PatientConnection") and not in_memory


def _called(function: ast.FunctionDef) -> set[str]:
    return {ast.unparse(n.func) for n in ast.walk(function) if isinstance(n, ast.Call)}


def test_every_function_that_opens_a_file_distrusts_its_schema() -> None:
    found = dict(opening())
    assert len(found) > len(EXEMPT) + 5, "the search finds them"
    trusting = {name for name, function in found.items() if "distrust" not in _called(function)}
    assert trusting == EXEMPT


def test_a_schema_that_is_not_trusted_calls_nothing_that_acts() -> None:
    connection = apsw.Connection(":memory:")
    distrust(connection)
    assert connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, -1) == 1
    assert connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, -1) == 0
