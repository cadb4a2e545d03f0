"""UUIDs that the application keeps in blobs of 16 bytes, in either order of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.running import DONE
from tests.integration.wholeway import Way

pytestmark = pytest.mark.postgres

SCRIPT = """
CREATE TABLE users (id BLOB NOT NULL PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE tokens (id GUID NOT NULL PRIMARY KEY,
    owner UNIQUEIDENTIFIER NOT NULL REFERENCES users(id), plain BLOB);
INSERT INTO users VALUES (x'8FB2303498C29442AB74D146C13DB605', 'Ann');
INSERT INTO tokens VALUES (x'00112233445566778899AABBCCDDEEFF',
    x'8FB2303498C29442AB74D146C13DB605', x'00112233445566778899AABBCCDDEEFF');
"""
POLICY = """
tables:
  users: {columns: {id: {guid: dotnet}}}
  tokens: {columns: {id: {guid: dotnet}, owner: {guid: dotnet}, plain: {type: uuid}}}
"""
ANN = "3430b28f-c298-4294-ab74-d146c13db605"


def test_there_and_back(tmp_path: Path, postgres: str) -> None:
    way = Way.of(tmp_path, postgres, SCRIPT)
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY)
    assert way.migrate("--policy", policy).status == DONE
    way.on_sqlite("INSERT INTO users VALUES (x'A096DD8AC161D143A5647DAB42CDBFB9', 'Ben')")
    assert way.command("switch").status == DONE
    assert way.on_postgres("SELECT id::text, name FROM users ORDER BY name") == [
        (ANN, "Ann"),
        ("8add96a0-61c1-43d1-a564-7dab42cdbfb9", "Ben"),
    ]
    assert way.on_postgres("SELECT id::text, owner::text, plain::text FROM tokens") == [
        ("33221100-5544-7766-8899-aabbccddeeff", ANN, "00112233-4455-6677-8899-aabbccddeeff")
    ]
    way.on_postgres(
        "INSERT INTO users VALUES ('00010203-0405-0607-0809-0a0b0c0d0e0f', 'Cy'); "
        "INSERT INTO tokens VALUES ('10111213-1415-1617-1819-1a1b1c1d1e1f', "
        "'00010203-0405-0607-0809-0a0b0c0d0e0f', '00010203-0405-0607-0809-0a0b0c0d0e0f')"
    )
    way.back()
    assert way.on_sqlite("SELECT hex(id) FROM users WHERE name = 'Cy'") == [
        ("03020100050407060809 0A0B0C0D0E0F".replace(" ", ""),)
    ]
    assert way.on_sqlite(
        "SELECT name, hex(t.id), hex(plain) FROM tokens AS t JOIN users AS u ON u.id = t.owner "
        "ORDER BY name"
    ) == [
        ("Ann", "00112233445566778899AABBCCDDEEFF", "00112233445566778899AABBCCDDEEFF"),
        (
            "Cy",
            "13121110151417161819 1A1B1C1D1E1F".replace(" ", ""),
            bytes(range(16)).hex().upper(),
        ),
    ]


def test_generous_types_go_there_and_back(tmp_path: Path, postgres: str) -> None:
    digits = "0123456789abcdef0123456789abcdef"
    script = f"""
        CREATE TABLE p(id CHAR(32) PRIMARY KEY, done TINYINT(1));
        CREATE TABLE c(id INTEGER PRIMARY KEY, p CHAR(32) REFERENCES p(id));
        INSERT INTO p VALUES ('{digits}', 1); INSERT INTO c VALUES (1, '{digits}')"""
    way = Way.of(tmp_path, postgres, script)
    ended = way.migrate("--types", "generous")
    assert ended.status == DONE, ended.said
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    taken = "p.id to uuid, p.done to boolean, c.p to uuid"
    assert report["certificate"]["checks"] == {"types: generous": taken}
    decided = [f for f in report["findings"] if f["code"] == "type-taken"]
    assert [(f["table"], f["column"]) for f in decided] == [("p", "id"), ("p", "done"), ("c", "p")]
    ended = way.command("switch")
    assert ended.status == DONE, ended.said
    way.on_postgres("INSERT INTO p VALUES (gen_random_uuid(), false); UPDATE p SET done = NOT done")
    way.back()
    assert way.on_sqlite("SELECT length(id), done FROM p ORDER BY done") == [(32, 0), (32, 1)]
    assert way.on_sqlite("SELECT p FROM c") == [(digits,)]
