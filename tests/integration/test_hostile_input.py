"""Whatever a file, a policy or a stage file holds, the commands end with a sentence of their own:
never with a traceback, and never by the last line of defence.

``MIGRATION_JOB_FUZZ=3000`` tries that many of each; ``MIGRATION_JOB_FUZZ_SEED`` repeats a run.
"""

from __future__ import annotations

import os
import random
import sqlite3
import time
from pathlib import Path

import pytest

from infra.errors import StageError
from infra.settings import read_file
from tests.integration.running import BLOCKED, DONE, FAILED, USAGE, run

MANY = int(os.environ.get("MIGRATION_JOB_FUZZ", "40"))
SEED = int(os.environ.get("MIGRATION_JOB_FUZZ_SEED", "0")) or time.time_ns() % 1_000_000_000
ROOT = Path(__file__).resolve().parents[2]

SOURCE = """
CREATE TABLE p(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, at DATETIME, n NUMERIC(8,2));
CREATE TABLE c(id INTEGER PRIMARY KEY AUTOINCREMENT, p INTEGER REFERENCES p(id) ON DELETE CASCADE,
    word TEXT COLLATE NOCASE DEFAULT 'x', flag BOOLEAN CHECK (flag IN (0, 1)), b BLOB);
CREATE TABLE w(a TEXT, b INT, PRIMARY KEY (a, b)) WITHOUT ROWID;
CREATE INDEX c_word ON c(lower(word)) WHERE flag = 1;
CREATE VIEW v AS SELECT p.name, count(*) AS n FROM p JOIN c ON c.p = p.id GROUP BY p.name;
CREATE TRIGGER g AFTER INSERT ON c BEGIN UPDATE p SET n = n + 1 WHERE id = new.p; END;
INSERT INTO p SELECT value, 'name ' || value, '2024-01-01 00:00:00', value * 1.25
    FROM generate_series(1, 120);
INSERT INTO c(p, word, flag, b) SELECT id, name, id % 2, randomblob(20) FROM p;
INSERT INTO w SELECT name, id FROM p;
"""
POLICY = """\
default: widen
zone: UTC
orphans: quarantine
acknowledge: [triggers, "view:v"]
tables:
  p:
    columns:
      at: {type: timestamptz, zone: Europe/Berlin}
      n: {type: "numeric(8,2)"}
  c:
    orphans: block
    columns:
      word: {map: {'a': 'b', 1: null}, empty: null}
      flag: {type: boolean, action: quarantine, booleans: {true: [1, 'x'], false: [0]}}
      b: {pattern: [{match: 'a(.*)', replace: 'b'}], epoch: ms}
"""
WORDS = [
    *("null", "~", "[]", "{}", "1", "-1", "1e999", ".nan", "true", "2024-01-01", "0x1F", "''"),
    *("!!binary aGk=", "!!python/object:os.system x", "&a [*a]", "*b", "<<: *c", "? [1, 2]\n: 3"),
    *("\x00", "\x1b[2J", "\ud800", "\u202e", "%", "{{x}}", "[" * 2000, "{a: " * 500, "9" * 5000),
    *("12:30:45", "!!set {a, b}", "!!timestamp 99", "!!int x", "!!float y", "!!omap [a: 1]"),
]


@pytest.fixture
def chance() -> random.Random:
    print(f"MIGRATION_JOB_FUZZ_SEED={SEED}")
    return random.Random(SEED)


def made(path: Path) -> bytes:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA page_size = 1024")
    script = SOURCE.replace(
        "FROM generate_series(1, 120)",
        "FROM (WITH RECURSIVE s(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM s "
        "WHERE value < 120) SELECT value FROM s)",
    )
    connection.executescript(script)
    connection.close()
    return path.read_bytes()


def mutated_file(content: bytes, chance: random.Random) -> bytes:
    """Bytes changed, pages swapped, the end cut off, or text of the schema changed."""
    data, page = bytearray(content), 1024
    way = chance.randrange(5)
    if way == 0:
        for _ in range(chance.choice((1, 3, 30))):
            data[chance.randrange(len(data))] = chance.randrange(256)
    elif way == 1:
        for _ in range(chance.choice((1, 2, 5))):
            data[chance.randrange(2 * page)] = chance.randrange(256)
    elif way == 2:
        a, b = (chance.randrange(1, len(data) // page) * page for _ in range(2))
        data[a : a + page], data[b : b + page] = data[b : b + page], data[a : a + page]
    elif way == 3:
        del data[chance.randrange(len(data)) :]
    else:
        words = [b"TEXT", b"INTEGER", b"CREATE", b"p(id", b"NOCASE", b"name", b"SELECT", b"DEFAULT"]
        word = chance.choice(words)
        at = data.find(word)
        fill = bytes(chance.choice(b"()'\"%;, x0\x00\xff") for _ in word)
        data[at : at + len(word)] = fill
    return bytes(data)


def mutated_text(text: str, chance: random.Random) -> bytes:
    for _ in range(chance.choice((1, 1, 2, 5))):
        at = chance.randrange(len(text) + 1)
        way = chance.randrange(5)
        if way == 0:
            text = text[:at] + chance.choice(WORDS) + text[at:]
        elif way == 1:
            text = text[:at] + text[at + chance.randrange(1, 12) :]
        elif way == 2:
            lines = text.splitlines() or [""]
            line = chance.randrange(len(lines))
            head, colon, _ = lines[line].partition(": ")
            lines[line] = head + colon + chance.choice(WORDS)
            text = "\n".join(lines)
        elif way == 3:
            lines = text.splitlines() or [""]
            chance.shuffle(lines)
            text = "\n".join(lines)
        else:
            text = text[:at] + chance.choice("\0\t\r\"':{\xff\u2028") + text[at:]
    data = bytearray(text.encode("utf-8", "surrogatepass"))
    if data and chance.random() < 0.1:
        data[chance.randrange(len(data))] = chance.randrange(128, 256)
    return bytes(data)


def must_end_well(said: str, status: int, number: int) -> None:
    where = f"seed {SEED}, number {number}"
    assert "Traceback" not in said, where
    assert "unforeseen" not in said, f"{where}\n{said}"
    assert "please report" not in said, f"{where}\n{said}"
    assert status in (DONE, FAILED, USAGE, BLOCKED), where
    assert status in (DONE, BLOCKED) or "error: " in said, f"{where}\n{said}"


def test_any_sqlite_file(tmp_path: Path, chance: random.Random) -> None:
    content = made(tmp_path / "intact.db")
    for number in range(MANY):
        file = tmp_path / "mutated.db"
        file.write_bytes(mutated_file(content, chance))
        ended = run("inspect", file)
        must_end_well(ended.said, ended.status, number)


def test_any_policy(tmp_path: Path, chance: random.Random) -> None:
    made(tmp_path / "intact.db")
    policy = tmp_path / "policy.yaml"
    for number in range(MANY):
        policy.write_bytes(mutated_text(POLICY, chance))
        ended = run("inspect", tmp_path / "intact.db", "--policy", policy)
        must_end_well(ended.said, ended.status, number)


@pytest.mark.parametrize("stage", ["dev", "production"])
def test_any_stage_file(tmp_path: Path, chance: random.Random, stage: str) -> None:
    text = (ROOT / f"Pulumi.{stage}.yaml").read_text()
    file = tmp_path / "Pulumi.fuzz.yaml"
    for number in range(MANY * 3):
        file.write_bytes(mutated_text(text, chance))
        said = refused(file)
        if said is not None:
            assert "Pulumi.fuzz.yaml" in said, (SEED, number)
            assert all(c == "\n" or c.isprintable() for c in said), (SEED, number)


def refused(file: Path) -> str | None:
    """The sentence with which a stage file is refused; None where it is taken."""
    try:
        read_file(file)
    except StageError as error:
        return str(error)
    return None
