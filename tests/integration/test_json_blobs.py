"""JSON that the application keeps in blobs: SQLite's own JSONB, or text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.running import DONE
from tests.integration.wholeway import Way

pytestmark = pytest.mark.postgres

SCRIPT = """
CREATE TABLE p (id INTEGER PRIMARY KEY, m JSONB, extra BLOB, texts BLOB);
INSERT INTO p VALUES (1, jsonb('["Horns@#F","x\\n"]'), jsonb('[1]'), CAST('{"a": 1}' AS BLOB)),
  (2, jsonb('{"a":1,"b":[1.50,null,true]}'), jsonb('"text"'), CAST(' [] ' AS BLOB)),
  (3, jsonb('7'), NULL, NULL), (4, '{"plain": "text"}', jsonb('7'), '{}');
"""
POLICY = "tables: {p: {columns: {extra: {type: json}, texts: {type: json}}}}"


def test_there_and_back(tmp_path: Path, postgres: str) -> None:
    way = Way.of(tmp_path, postgres, SCRIPT)
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    before = way.on_sqlite("SELECT * FROM p ORDER BY id")
    ended = way.migrate("--policy", policy)
    assert ended.status == DONE, ended.said
    way.on_sqlite("INSERT INTO p VALUES (5, jsonb('{\"k\":\"v\"}'), jsonb('{}'), '[5]')")
    ended = way.command("switch")
    assert ended.status == DONE, ended.said
    assert way.on_postgres("SELECT m::text, extra::text, texts::text FROM p ORDER BY id") == [
        ('["Horns@#F","x\\n"]', "[1]", '{"a": 1}'),
        ('{"a":1,"b":[1.50,null,true]}', '"text"', " [] "),
        ("7", None, None),
        ('{"plain": "text"}', "7", "{}"),
        ('{"k":"v"}', "{}", "[5]"),
    ]
    way.on_postgres(
        """INSERT INTO p VALUES (6, '{"b" : [1, 2.50]}', '[ ]', '{"x" : 1}'); """
        """UPDATE p SET m = '{"new": 1}' WHERE id = 1"""
    )
    way.back()
    after = way.on_sqlite("SELECT * FROM p ORDER BY id")
    assert after[1:4] == before[1:4]
    assert way.on_sqlite("SELECT json(m), json(extra), texts FROM p WHERE id = 6") == [
        ('{"b":[1,2.50]}', "[]", b'{"x" : 1}')
    ]
    assert way.on_sqlite("SELECT typeof(m), m ->> 'new' FROM p WHERE id = 1") == [("blob", 1)]
    assert json.loads(after[4][3]) == [5]
    way.on_sqlite("UPDATE p SET m = m")
    assert way.command("sync", "--once").status == DONE


BY_VALUE = "tables: {p: {columns: {m: {type: jsonb}, extra: {type: jsonb}, texts: {type: jsonb}}}}"


def test_by_value_there_and_back(tmp_path: Path, postgres: str) -> None:
    way = Way.of(tmp_path, postgres, SCRIPT)
    way.on_sqlite("""INSERT INTO p(id, m) VALUES (7, jsonb('{"bb": 1, "a": 2}'))""")
    policy = tmp_path / "policy.yaml"
    policy.write_text(BY_VALUE)
    before = way.on_sqlite("SELECT * FROM p ORDER BY id")
    ended = way.migrate("--policy", policy)
    assert ended.status == DONE, ended.said
    way.on_sqlite("INSERT INTO p VALUES (5, jsonb('{\"k\":\"v\"}'), jsonb('{}'), '[5]')")
    ended = way.command("switch")
    assert ended.status == DONE, ended.said
    assert way.on_postgres(
        "SELECT m, extra, texts, pg_typeof(m)::text FROM p WHERE id > 1 ORDER BY id"
    ) == [
        ({"a": 1, "b": [1.5, None, True]}, "text", [], "jsonb"),
        (7, None, None, "jsonb"),
        ({"plain": "text"}, 7, {}, "jsonb"),
        ({"k": "v"}, {}, [5], "jsonb"),
        ({"a": 2, "bb": 1}, None, None, "jsonb"),
    ]
    way.on_postgres(
        """INSERT INTO p VALUES (6, '{"b" : [1, 2.50]}', '[ ]', '{"x" : 1}'); """
        """UPDATE p SET m = m || '{"new": 1}' WHERE id = 2"""
    )
    way.back()
    after = way.on_sqlite("SELECT * FROM p ORDER BY id")
    assert [row for row in after if row[0] in (1, 3, 4, 7)] == [
        row for row in before if row[0] in (1, 3, 4, 7)
    ]
    assert way.on_sqlite("SELECT json(m), json(extra), texts FROM p WHERE id = 6") == [
        ('{"b":[1,2.50]}', "[]", b'{"x": 1}')
    ]
    assert way.on_sqlite("SELECT typeof(m), m ->> 'new', m -> 'b' FROM p WHERE id = 2") == [
        ("blob", 1, "[1.50,null,true]")
    ]
    way.on_sqlite("UPDATE p SET m = m")
    assert way.command("sync", "--once").status == DONE
