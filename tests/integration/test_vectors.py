"""Embeddings in blobs and in lists, to pgvector's type and back."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from migration_job.embedded import EmbeddedPostgres
from tests.integration.running import BLOCKED, DONE
from tests.integration.wholeway import Way

pytestmark = pytest.mark.postgres


def blob(*numbers: float) -> bytes:
    """As NumPy's ``float32`` and sqlite-vec write them."""
    return struct.pack(f"<{len(numbers)}f", *numbers)


def hexed(*numbers: float) -> str:
    """That as a literal of SQL."""
    return f"x'{blob(*numbers).hex()}'"


SCRIPT = f"""
CREATE TABLE items(id INTEGER PRIMARY KEY, name TEXT, near BLOB, listed TEXT);
INSERT INTO items VALUES (1, 'a', {hexed(1, -2.5, 1e-7)}, '[1.0, 0.5]'),
    (2, 'b', {hexed(0.1, -0.0, 16777217)}, '[0.1, -3.0, 7.25]'), (3, 'c', NULL, NULL);
"""
POLICY = "tables: {items: {columns: {near: {type: vector(3)}, listed: {type: vector}}}}"


@pytest.fixture
def database(vector_server: EmbeddedPostgres) -> Iterator[str]:
    """A fresh database of a server with pgvector."""
    yield vector_server.create_database("vectors")
    vector_server.drop_database("vectors")


def _policy(folder: Path, text: str = POLICY) -> Path:
    file = folder / "policy.yaml"
    file.write_text(text)
    return file


def test_there_and_back(tmp_path: Path, database: str) -> None:
    way = Way.of(tmp_path, database, SCRIPT)
    ended = way.migrate("--policy", _policy(tmp_path))
    assert ended.status == DONE, ended.said
    way.on_sqlite(
        f"INSERT INTO items VALUES (4, 'd', {hexed(3, 2, 1)}, '[9.0]'); "
        f"UPDATE items SET near = {hexed(5, 5, 5)} WHERE id = 3"
    )
    assert way.command("switch").status == DONE
    assert way.on_postgres("SELECT id, near::text, listed::text FROM items ORDER BY id") == [
        (1, "[1,-2.5,1e-07]", "[1,0.5]"),
        (2, "[0.1,-0,1.6777216e+07]", "[0.1,-3,7.25]"),
        (3, "[5,5,5]", None),
        (4, "[3,2,1]", "[9]"),
    ]
    assert way.on_postgres(
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute "
        "WHERE attrelid = 'items'::regclass AND attname IN ('near', 'listed') ORDER BY attnum"
    ) == [("vector(3)",), ("vector",)]
    assert way.on_postgres("SELECT id FROM items ORDER BY near <-> '[5,5,5]' LIMIT 1") == [(3,)]
    way.on_postgres(
        "INSERT INTO items VALUES (5, 'e', '[0.25,1e20,-7]', '[1,0.1]'); "
        "UPDATE items SET near = '[1,1,1]', listed = '[2.5]' WHERE id = 1"
    )
    way.back()
    assert way.on_sqlite("SELECT id, near, listed FROM items ORDER BY id") == [
        (1, blob(1, 1, 1), "[2.5]"),
        (2, blob(0.1, -0.0, 16777217), "[0.1, -3.0, 7.25]"),
        (3, blob(5, 5, 5), None),
        (4, blob(3, 2, 1), "[9.0]"),
        (5, blob(0.25, 1e20, -7), "[1.0, 0.1]"),
    ]


def test_what_is_no_vector_is_told_before(tmp_path: Path, database: str) -> None:
    way = Way.of(
        tmp_path,
        database,
        f"{SCRIPT} INSERT INTO items VALUES (7, 'short', {hexed(1, 2)}, '[1.0, 2.0]'), "
        f"(8, 'odd', x'0102', 'no'), (9, 'inf', {hexed(1, 2, float('inf'))}, '[]')",
    )
    policy = f"{{default: block, {POLICY}}}"
    ended = way.migrate("--policy", _policy(tmp_path, policy))
    assert ended.status == BLOCKED, ended.said
    assert "3 values are not vector(3); 2 values are not vector" in ended.said
    assert way.on_postgres("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]


def test_rounded_numbers_come_back_by_the_ledger(tmp_path: Path, database: str) -> None:
    script = """
        CREATE TABLE items(id INTEGER PRIMARY KEY, listed TEXT);
        INSERT INTO items VALUES (1, '[0.12345678901234, 1]'), (2, '[0.5,2.0]')"""
    way = Way.of(tmp_path, database, script)
    policy = "tables: {items: {columns: {listed: {type: vector(2)}}}}"
    ended = way.migrate("--policy", _policy(tmp_path, policy))
    assert ended.status == DONE, ended.said
    assert way.command("switch").status == DONE
    assert way.on_postgres("SELECT listed::text FROM items ORDER BY id") == [
        ("[0.12345679,1]",),
        ("[0.5,2]",),
    ]
    way.back()
    assert way.on_sqlite("SELECT listed FROM items ORDER BY id") == [
        ("[0.12345678901234, 1]",),
        ("[0.5,2.0]",),
    ]


def test_a_schema_of_the_applications_own(tmp_path: Path, database: str) -> None:
    way = Way.of(tmp_path, database, SCRIPT)
    way.on_postgres(
        "CREATE SCHEMA extensions; CREATE EXTENSION vector SCHEMA extensions; "
        "CREATE TABLE items(id bigint PRIMARY KEY, name text, near extensions.vector(3), "
        "listed extensions.vector)"
    )
    ended = way.migrate("--schema", "existing")
    assert ended.status == DONE, ended.said
    assert way.command("switch").status == DONE
    assert way.on_postgres("SELECT near::text, listed::text FROM items WHERE id = 1") == [
        ("[1,-2.5,1e-07]", "[1,0.5]")
    ]
    way.back()
    assert way.on_sqlite("SELECT near, listed FROM items WHERE id = 1") == [
        (blob(1, -2.5, 1e-7), "[1.0, 0.5]")
    ]


def test_without_the_extension_it_is_one_sentence(tmp_path: Path, postgres: str) -> None:
    way = Way.of(tmp_path, postgres, SCRIPT)
    ended = way.migrate("--policy", _policy(tmp_path))
    assert ended.status not in (DONE, None)
    assert "extension vector" in ended.err
    assert "Traceback" not in ended.said
    assert json.dumps(SCRIPT) not in ended.said
