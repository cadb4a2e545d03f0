"""Where on the target a run works: its schema in the connection string, and its records' schema."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from migration_job import place
from migration_job.errors import InputError
from migration_job.quoting import postgres_name, postgres_text

ROOT = Path(place.__file__).parent
DSN = "postgresql://user:secret@host:5433/db?options=-c%20jit%3Doff&sslmode=require"

NAMES = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), min_size=1)


@given(NAMES)
def test_a_connection_string_says_the_schema(name: str) -> None:
    try:
        place.require_schema_name(name)
    except InputError:
        return
    named = place.in_schema(DSN, name)
    assert place.schema_of(named) == name
    assert place.schema_of(place.in_schema(named, name)) == name
    assert conninfo_to_dict(place.without_schema(named)) == conninfo_to_dict(DSN)


@pytest.mark.parametrize(
    ("options", "schema", "others"),
    [
        ("-csearch_path=Sales", "sales", ""),
        ("--search_path=sales -c jit=off", "sales", "-c jit=off"),
        (r"-c jit=off -c search_path=\"My\ own\"", "My own", "-c jit=off"),
        ('-c search_path="Sales"', "Sales", ""),
        ("-c jit=off", "public", "-c jit=off"),
    ],
)
def test_a_search_path_of_one_name_is_the_schema(options: str, schema: str, others: str) -> None:
    dsn = make_conninfo("dbname=d", options=options)
    assert place.schema_of(dsn) == schema
    assert conninfo_to_dict(place.without_schema(dsn)).get("options", "") == others


def test_two_schemas_are_refused() -> None:
    with pytest.raises(InputError, match="expected one schema"):
        place.schema_of(make_conninfo("dbname=d", options="-c search_path=a,b"))
    with pytest.raises(InputError, match="expected one schema"):
        place.in_schema(make_conninfo("dbname=d", options="-c search_path=a"), "b")


@pytest.mark.parametrize("name", ["", "pg_x", "migration", "migration_a", "x" * 54, "a\0"])
def test_names_that_are_kept_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="--schema-name"):
        place.require_schema_name(name)


@given(NAMES)
def test_only_the_job_s_own_names_are_placed(text: str) -> None:
    value = postgres_text(f"migration.run{text}migration.fence")
    name = postgres_name(("migration." + text)[:20])
    statement = f'SELECT {value}, {name} FROM migration.run, migration."run", x.migration.run'
    expected = f'SELECT {value}, {name} FROM "m".run, "m"."run", x.migration.run'
    assert place.placed(statement, "m") == expected
    assert place.placed(statement, place.RECORDS) == statement


def test_schemas_and_bodies_are_placed() -> None:
    statement = (
        "CREATE SCHEMA migration; DO $b$ BEGIN PERFORM migration.f(); END $b$; -- migration.x"
    )
    expected = 'CREATE SCHEMA "m"; DO $b$ BEGIN PERFORM "m".f(); END $b$; -- migration.x'
    assert place.placed(statement, "m") == expected


def test_no_statement_of_the_job_says_public_by_itself() -> None:
    """One place says what the default is; the rehearsal sets up a database of its own."""
    allowed = {"place.py", "plan/model.py", "commands/option_groups.py"}
    texts = list(_texts())
    found = {path for path, text in texts if re.search(r"\bpublic\b", text)}
    assert {path for path in found if not path.startswith("demo/")} == allowed
    for path in sorted(allowed):
        said = [text for name, text in texts if name == path and "public" in text]
        assert len(said) == 1, said
        assert said[0] == "public" or "if not 'public'" in said[0]


def _texts() -> Iterator[tuple[str, str]]:
    """Every text of the program but docstrings, by its file."""
    for path in sorted(ROOT.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            plain = isinstance(node, ast.Constant) and isinstance(node.value, str)
            if plain and id(node) not in told:
                yield str(path.relative_to(ROOT)), str(getattr(node, "value", ""))


def test_the_roles_name_is_no_schema() -> None:
    """PostgreSQL reads it so even in quotation marks."""
    there = make_conninfo("dbname=d", options='-c search_path="$user"')
    for dsn, name in ((DSN, "$user"), (there, None)):
        with pytest.raises(InputError, match="the connected role's name"):
            place.schema_of(place.in_schema(dsn, name))


def test_a_per_cent_sign_of_the_records_schema_is_no_parameter() -> None:
    records = "migration_100%s"
    statement = "SELECT 1 FROM migration.run WHERE id = %s"
    assert place.placed(statement, records) == ('SELECT 1 FROM "migration_100%s".run WHERE id = %s')
    assert place.placed(statement, records, formatted=True) == (
        'SELECT 1 FROM "migration_100%%s".run WHERE id = %s'
    )
