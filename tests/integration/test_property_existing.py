"""Random schemas of an application's own: loaded, they hold the source's values and are otherwise
what they were; undone, they are that to the last row."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from migration_job.embedded import EmbeddedPostgres
from migration_job.stores.postgres import load
from tests.integration.running import DONE, FAILED, run
from tests.integration.test_existing import definitions

pytestmark = [pytest.mark.postgres, pytest.mark.slow, pytest.mark.timeout(3_600)]

EXAMPLES = int(os.environ.get("PROPERTY_EXISTING_EXAMPLES", "6"))
SEED = int(os.environ.get("PROPERTY_EXISTING_SEED", random.SystemRandom().randrange(10**9)))
"""Of the first example; each further one has the next, and is the first with that."""

Value = Any
Pair = tuple[Value, str | None]
"""What the source holds, and the text that PostgreSQL has to show for it."""


@dataclass(frozen=True)
class Kind:
    """A column of both sides: how each declares it, and values with what becomes of them."""

    source: str
    target: str
    make: Callable[[random.Random], Pair]
    shown: str = "{}::text"
    comparable: bool = True
    """Whether a key or an index may be over it."""


def _text(rng: random.Random, most: int = 12) -> str:
    return "".join(rng.choice("abcÄ ß,\"'\\{}\n\t€😀") for _ in range(rng.randint(0, most)))


def _same(make: Callable[[random.Random], str]) -> Callable[[random.Random], Pair]:
    def made(rng: random.Random) -> Pair:
        text = make(rng)
        return text, text

    return made


def _integer(low: int, high: int) -> Callable[[random.Random], Pair]:
    def made(rng: random.Random) -> Pair:
        number = rng.choice([low, high, 0, rng.randint(low, high)])
        return number, str(number)

    return made


def _interval(rng: random.Random) -> Pair:
    micros = rng.choice([0, -1, 86_400_000_000, rng.randint(-(10**15), 10**15)])
    return micros, str(Decimal(micros) / 1_000_000)


def _day(rng: random.Random) -> str:
    return f"{rng.randint(1, 9999):04d}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"


def _moment(rng: random.Random) -> str:
    clock = f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}:{rng.randint(0, 59):02d}"
    return f"{_day(rng)} {clock}.{rng.randint(1, 999_999):06d}".rstrip("0")


def _hex(rng: random.Random, digits: int = 32) -> str:
    return f"{rng.getrandbits(4 * digits):0{digits}x}"


def _hyphened(bare: str) -> str:
    return "-".join((bare[:8], bare[8:12], bare[12:16], bare[16:20], bare[20:]))


def _of_hex(rng: random.Random) -> Pair:
    bare = _hex(rng)
    return bare, _hyphened(bare)


def _of_bytes(rng: random.Random) -> Pair:
    bare = _hex(rng)
    return bytes.fromhex(bare), _hyphened(bare)


def _decimal(rng: random.Random) -> Pair:
    cents = rng.randint(-(10**9), 10**9)
    sign, size = "-" if cents < 0 else "", abs(cents)
    return cents / 100, f"{sign}{size // 100}.{size % 100:02d}"


def _decimal_text(rng: random.Random) -> Pair:
    text = str(_decimal(rng)[1])
    return text, text


def _boolean(rng: random.Random) -> Pair:
    truth = rng.random() < 0.5
    return int(truth), "true" if truth else "false"


def _bytea(rng: random.Random) -> Pair:
    raw = rng.randbytes(rng.randint(0, 30))
    return raw, "\\x" + raw.hex()


def _list(rng: random.Random) -> Pair:
    parts = [_text(rng, 5) for _ in range(rng.randint(0, 4))]
    return json.dumps(parts, ensure_ascii=False), json.dumps(parts, ensure_ascii=False)


def _document(rng: random.Random) -> Pair:
    text = json.dumps({"a": _text(rng, 4), "b": [rng.randint(-9, 9)]}, ensure_ascii=False)
    return text, text


def _address(rng: random.Random) -> Pair:
    text = ".".join(str(rng.randint(0, 255)) for _ in range(4))
    return text, text


def _character(rng: random.Random) -> Pair:
    text = _text(rng, 6).rstrip(" ")
    return text, text


KINDS = (
    Kind("INTEGER", "bigint", _integer(-(2**63), 2**63 - 1)),
    Kind("INTEGER", "integer", _integer(-(2**31), 2**31 - 1)),
    Kind("SMALLINT", "smallint", _integer(-(2**15), 2**15 - 1)),
    Kind("TEXT", "text", _same(_text)),
    Kind("VARCHAR(40)", "character varying(12)", _same(_text)),
    Kind("CHAR(6)", "character(6)", _character),
    Kind("TEXT", "citext", _same(_text), comparable=False),
    Kind("TEXT", '"Feeling"', _same(lambda rng: rng.choice(["sad", "so so", "Happy"]))),
    Kind("TEXT", "short", _same(lambda rng: _text(rng, 5)), comparable=False),
    Kind("BOOLEAN", "boolean", _boolean),
    Kind("DECIMAL(12,2)", "numeric(12,2)", _decimal),
    Kind("TEXT", "numeric(12,2)", _decimal_text),
    Kind("REAL", "double precision", lambda rng: (0.5, "0.5")),
    Kind("REAL", "real", lambda rng: (0.25, "0.25")),
    Kind("BIGINT", "interval", _interval, "extract(epoch FROM {})::numeric(30,6)::text"),
    Kind("DATETIME", "timestamp without time zone", _same(_moment)),
    Kind("DATETIME", "timestamp with time zone", lambda r: (m := _moment(r), m + "+00")),
    Kind("DATE", "date", _same(_day)),
    Kind("CHAR(32)", "uuid", _of_hex),
    Kind("BLOB", "uuid", _of_bytes),
    Kind("BLOB", "bytea", _bytea),
    Kind("TEXT", "inet", _address, "host({})", comparable=False),
    Kind("TEXT", "jsonb", _document, comparable=False),
    Kind("TEXT", "json", _document, comparable=False),
    Kind("TEXT", "text[]", _list, "array_to_json({})::jsonb::text", comparable=False),
)

TYPES = """
CREATE EXTENSION IF NOT EXISTS citext;
CREATE TYPE "Feeling" AS ENUM ('sad', 'so so', 'Happy');
CREATE DOMAIN short AS text CHECK (length(VALUE) <= 5);
CREATE SEQUENCE "Loose";
CREATE TABLE trace (what text);
CREATE FUNCTION leave() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO trace VALUES (TG_TABLE_NAME); RETURN NEW; END $$;
"""


@dataclass
class Column:
    name: str
    there: str
    kind: Kind
    required: bool


@dataclass
class Table:
    name: str
    there: str
    columns: list[Column]
    rows: list[list[Pair]]
    parent: Table | None = None
    identity: str = ""


@dataclass
class Application:
    """Both schemas of one application, and the rows of the source."""

    tables: list[Table]
    policy: str
    before: list[str]
    """Statements that put rows into the target first."""


def build(rng: random.Random) -> Application:
    """A random application."""
    tables: list[Table] = []
    for number in range(rng.randint(1, 4)):
        name = rng.choice(["t", "Order", "select", "Ünï", 'q"uote', "with space"]) + str(number)
        columns = [
            Column(
                name := rng.choice(["c", "User", "group", "ä", "per%cent"]) + str(i),
                rng.choice([name, name, name.upper() if name.isascii() else name]),
                rng.choice(KINDS),
                rng.random() < 0.4,
            )
            for i in range(rng.randint(1, 7))
        ]
        table_name = rng.choice(["t", "Order", "select", "Ünï", 'q"uote', "with space"])
        table_name += str(number)
        there = table_name.lower() if rng.random() < 0.3 and table_name.isascii() else table_name
        rows = [
            [
                column.kind.make(rng) if column.required or rng.random() < 0.8 else (None, None)
                for column in columns
            ]
            for _ in range(rng.choice([0, 1, 5, 40]))
        ]
        table = Table(table_name, there, columns, rows)
        table.parent = rng.choice(tables) if tables and rng.random() < 0.5 else None
        table.identity = rng.choice(
            ["serial", "bigint GENERATED ALWAYS AS IDENTITY",
             "integer DEFAULT nextval('\"Loose\"')", "bigint GENERATED BY DEFAULT AS IDENTITY",
             "integer"]
        )  # fmt: skip
        tables.append(table)
    return Application(tables, _policy(tables), list(_rows_there(rng, tables)))


def _policy(tables: list[Table]) -> str:
    found: dict[str, Any] = {}
    for table in tables:
        columns = {c.name: {"epoch": "us"} for c in table.columns if c.kind.target == "interval"}
        if columns:
            found[table.name] = {"columns": columns}
    return json.dumps({"tables": found})


def quoted(name: str) -> str:
    return sql.Identifier(name).as_string(None)


def _rows_there(rng: random.Random, tables: list[Table]) -> Iterator[str]:
    for table in tables:
        for key in range(1, rng.choice([1, 1, 4])):
            names, values = ["key"], [str(key)]
            for column in table.columns:
                if column.required:
                    text = column.kind.make(rng)[1] or ""
                    literal = "'1 s'" if column.kind.target == "interval" else _literal(text)
                    if column.kind.target == "text[]":
                        literal = "'{}'"
                    names.append(quoted(column.there))
                    values.append(literal)
            yield (
                f"INSERT INTO {quoted(table.there)} ({', '.join(names)}) OVERRIDING SYSTEM VALUE "
                f"VALUES ({', '.join(values)})"
            )


def _literal(text: str) -> str:
    return sql.Literal(text).as_string(None)


def make_source(application: Application, path: Path) -> None:
    connection = sqlite3.connect(path)
    for table in application.tables:
        parts = ["key INTEGER PRIMARY KEY", "parent INTEGER"]
        parts += [f"{quoted(c.name)} {c.kind.source}" for c in table.columns]
        connection.execute(f"CREATE TABLE {quoted(table.name)} ({', '.join(parts)})")
        for key, row in enumerate(table.rows, start=3):
            # A reference to a row that is there, where there is one.
            parent = 3 if table.parent is not None and table.parent.rows else None
            marks = ", ".join("?" * (2 + len(row)))
            values = [key, parent, *(value for value, _ in row)]
            connection.execute(f"INSERT INTO {quoted(table.name)} VALUES ({marks})", values)
    connection.commit()
    connection.close()


def make_target(application: Application, rng: random.Random, dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as target:
        target.execute(TYPES)
        for table in application.tables:
            for statement in _definition(table, rng):
                target.execute(statement.encode())
        for statement in application.before:
            target.execute(statement.encode())


def _definition(table: Table, rng: random.Random) -> Iterator[str]:
    name = quoted(table.there)
    parts = [f"key {table.identity} PRIMARY KEY"]
    reference = f" REFERENCES {quoted(table.parent.there)}" if table.parent is not None else ""
    deferred = " DEFERRABLE INITIALLY DEFERRED" if reference and rng.random() < 0.5 else ""
    parts.append(f"parent bigint{reference}{deferred}")
    for column in table.columns:
        required = " NOT NULL" if column.required else ""
        parts.append(f"{quoted(column.there)} {column.kind.target}{required}")
    rng.shuffle(parts)
    parts += rng.sample(
        ["made timestamptz NOT NULL DEFAULT now()", "note text", "CHECK (key <> -5)",
         "twice bigint GENERATED ALWAYS AS (parent * 2) STORED",
         "CONSTRAINT \"Odd name\" CHECK (parent IS NULL OR parent > 0)"], 2
    )  # fmt: skip
    yield f"CREATE TABLE {name} ({', '.join(parts)})"
    for column in table.columns:
        if column.kind.comparable and rng.random() < 0.3:
            where = " WHERE key > 4" if rng.random() < 0.5 else ""
            yield f"CREATE INDEX ON {name} ({quoted(column.there)}){where}"
    if rng.random() < 0.5:
        yield f"CREATE TRIGGER leaving AFTER INSERT ON {name} FOR EACH ROW EXECUTE FUNCTION leave()"
    yield f"COMMENT ON TABLE {name} IS 'the application''s'"


def check(application: Application, dsn: str) -> None:
    """Each value is what its kind says, and the next key is beyond the highest."""
    with psycopg.connect(dsn) as target:
        target.execute("SET TimeZone = 'UTC'")
        for table in application.tables:
            shown = [c.kind.shown.format(quoted(c.there)) for c in table.columns]
            found = target.execute(
                f"SELECT {', '.join(shown)} FROM {quoted(table.there)} ORDER BY key".encode()
            ).fetchall()
            wanted = [[text for _, text in row] for row in table.rows]
            assert len(found) == len(wanted), table.name
            for row, expected in zip(found, wanted, strict=True):
                for column, here, there in zip(table.columns, expected, row, strict=True):
                    assert _alike(column.kind, here, there), (table.name, column, here, there)
            if table.identity == "integer" or any(c.required for c in table.columns):
                continue
            made = target.execute(
                f"INSERT INTO {quoted(table.there)} DEFAULT VALUES RETURNING key".encode()
            ).fetchone()
            assert made is not None
            assert made[0] > (2 + len(table.rows) if table.rows else 0)


def _alike(kind: Kind, here: str | None, there: str | None) -> bool:
    if here is None or there is None:
        return here is there
    if kind.target in ("json", "jsonb", "text[]"):
        return bool(json.loads(here) == json.loads(there))
    if kind.target == "interval":
        return Decimal(here) == Decimal(there)
    return here == there


@pytest.mark.parametrize("number", range(EXAMPLES))
def test_a_random_application(
    postgres_server: EmbeddedPostgres,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    seed = SEED + number
    print(f"PROPERTY_EXISTING_SEED={seed}")
    rng = random.Random(seed)
    application = build(rng)
    name = f"existing_{number}_{seed}"
    dsn = postgres_server.create_database(name)
    # Half of the applications are loaded as if each of their tables were a large one.
    small = load.SMALL_ROWS if rng.random() < 0.5 else 0
    monkeypatch.setattr(load, "SMALL_ROWS", small)
    try:
        make_source(application, tmp_path / "s.db")
        make_target(application, rng, dsn)
        (tmp_path / "policy.yaml").write_text(application.policy)
        _there_and_undone(application, dsn, tmp_path, postgres_server)
    finally:
        postgres_server.drop_database(name)


def _there_and_undone(
    application: Application, dsn: str, folder: Path, server: EmbeddedPostgres
) -> None:
    def dump() -> str:
        made = subprocess.run(
            [server.program("pg_dump"), "--exclude-schema=migration", dsn],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        return "\n".join(line for line in made.stdout.splitlines() if "restrict" not in line)

    def migrate() -> Any:
        return run(
            "migrate", folder / "s.db", "--target", dsn, "--schema", "existing",
            "--report", folder / "r", "--policy", folder / "policy.yaml",
        )  # fmt: skip

    before = dump()
    with pytest.MonkeyPatch.context() as patched:

        def broken(*_: object, **__: object) -> None:
            raise psycopg.OperationalError("cut off")

        patched.setattr("migration_job.verify.content.read_relations", broken)
        ended = migrate()
    assert ended.status == FAILED, ended.said
    assert dump() == before
    ended = migrate()
    assert ended.status == DONE, ended.said
    assert definitions(dump()) == definitions(before)
    check(application, dsn)
