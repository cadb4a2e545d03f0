"""The verifier's own test: 200 seeded corruptions of a target, each of which it must report, with
its place."""

from __future__ import annotations

import json
import random
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from migration_job.certification import Comparison
from migration_job.migration import Migration
from migration_job.progress import Reporter
from migration_job.report.model import Difference
from migration_job.run_request import Options
from migration_job.stores.postgres import records
from migration_job.stores.sqlite import backup
from migration_job.stores.sqlite.catalogue import read_catalogue
from migration_job.stores.sqlite.snapshot import Snapshot

pytestmark = [pytest.mark.postgres, pytest.mark.slow]

SEED = 20_261_122
MUTATIONS = 200
ROWS = 300


@dataclass(frozen=True)
class Place:
    """Where a corruption must be reported; None matches anything."""

    table: str
    key: list[object] | None = None
    column: str | None = None

    def is_in(self, found: list[Difference]) -> bool:
        return any(
            d.table == self.table
            and (self.key is None or d.key == self.key)
            and (self.column is None or d.column == self.column)
            for d in found
        )


@dataclass(frozen=True)
class Prepared:
    """A verified target to be cloned, and what it was made from."""

    admin: str
    dsn: str
    name: str
    snapshot: Snapshot


def _source(path: Path, rng: random.Random) -> None:
    connection = sqlite3.connect(path)
    connection.executescript(
        """
        CREATE TABLE person(id TEXT PRIMARY KEY, name TEXT NOT NULL, note TEXT, born DATE,
            seen DATETIME(6) DEFAULT CURRENT_TIMESTAMP, height REAL, active BOOLEAN DEFAULT 1,
            rank INTEGER DEFAULT 2 CHECK (rank > 0), photo BLOB, settings JSON, email TEXT UNIQUE);
        CREATE INDEX person_name ON person(name);
        CREATE UNIQUE INDEX person_rank ON person(name, email) WHERE rank > 1;
        CREATE TABLE visit(id INTEGER PRIMARY KEY AUTOINCREMENT, person TEXT NOT NULL
            REFERENCES person(id) ON DELETE CASCADE, at DATETIME, price DECIMAL(10,2), score REAL,
            mixed INTEGER);
        CREATE TABLE loose(a INTEGER, b TEXT, c REAL);
        CREATE TABLE pair(left INTEGER, right INTEGER, word TEXT, PRIMARY KEY (left, right))
            WITHOUT ROWID;
        CREATE VIEW grown AS SELECT id, name FROM person WHERE rank > 3;
        """
    )

    def moment() -> str:
        return (
            f"20{rng.randint(10, 26)}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d} "
            f"{rng.randint(0, 22):02d}:{rng.randint(0, 59):02d}:{rng.randint(0, 59):02d}"
        )

    people = [str(uuid.UUID(int=rng.getrandbits(128), version=4)) for _ in range(ROWS)]
    for number, person in enumerate(people):
        connection.execute(
            "INSERT INTO person VALUES (?,?,?,?,?,?,?,?,?,?,?)",
            (
                person,
                f"Name {number} Ünï\t{rng.random()}",
                rng.choice([None, "", "a\\b", "line\nfeed", "\\N", f"note {number}"]),
                moment()[:10],
                moment(),
                rng.uniform(-1e6, 1e6),
                rng.randint(0, 1),
                rng.randint(1, 5),
                rng.randbytes(rng.randint(1, 40)),
                json.dumps({"n": number, "list": [1, 2.5, None]}),
                f"p{number}@example.org",
            ),
        )
    for number in range(ROWS):
        connection.execute(
            "INSERT INTO visit(person, at, price, score, mixed) VALUES (?,?,?,?,?)",
            (
                rng.choice(people),
                # A few of another shape, which the ledger then holds.
                moment() if number % 50 else moment().replace(" ", "T") + "Z",
                round(rng.uniform(0, 1e4), 2),
                rng.gauss(0, 1),
                number if number % 40 else f"word {number}",
            ),
        )
    connection.executemany(
        "INSERT INTO loose VALUES (?,?,?)",
        [(n % 20, f"loose {n % 30}", n / 7) for n in range(ROWS)],
    )
    connection.executemany(
        "INSERT INTO pair VALUES (?,?,?)", [(n // 20, n % 20, f"w{n}") for n in range(ROWS)]
    )
    connection.commit()
    connection.close()


@pytest.fixture(scope="module")
def prepared(
    postgres_server: object, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prepared]:
    folder = tmp_path_factory.mktemp("mutations")
    _source(folder / "source.db", random.Random(SEED))
    server = postgres_server
    name = "verifier_mutations"
    dsn = server.create_database(name)  # type: ignore[attr-defined]
    report = folder / "report"
    Migration(
        Options(source=folder / "source.db", dsn=dsn, report=report), Reporter(quiet=True)
    ).run()
    backup.restore(report / "backup", folder / "snapshot.db", replace=False)
    snapshot = Snapshot(folder / "source.db", folder / "snapshot.db", 0)
    yield Prepared(make_conninfo(dsn, dbname="postgres"), dsn, name, snapshot)
    server.drop_database(name)  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------ corruptions

Session = psycopg.Connection[tuple[object, ...]]
Mutation = Callable[[Session, random.Random], Place]


def _key(session: Session, table: str, keys: list[str], rng: random.Random) -> list[object]:
    names = ", ".join(f'"{k}"' for k in keys)
    rows = session.execute(f"SELECT {names} FROM {table} ORDER BY {names}").fetchall()
    return [str(v) if isinstance(v, uuid.UUID) else v for v in rng.choice(rows)]


def _set(table: str, keys: list[str], column: str, change: str, only: str = "true") -> Mutation:
    """A mutation that changes one value; ``change`` is an expression over the column."""

    def mutate(session: Session, rng: random.Random) -> Place:
        where = " AND ".join(f'"{k}"::text = %s' for k in keys)
        for _ in range(200):
            key = _key(session, table, keys, rng)
            changed = session.execute(
                f'UPDATE {table} SET "{column}" = {change} WHERE {where} AND {only} '
                f'AND ({change})::text IS DISTINCT FROM "{column}"::text',
                [str(k) for k in key],
            ).rowcount
            if changed:
                return Place(table, key, column)
        raise AssertionError(f"no row of {table}.{column} to change")

    return mutate


def _sql(statement: str, place: Place) -> Mutation:
    def mutate(session: Session, rng: random.Random) -> Place:
        session.execute(statement.encode())
        return place

    return mutate


def _lose(table: str, keys: list[str]) -> Mutation:
    def mutate(session: Session, rng: random.Random) -> Place:
        key = _key(session, table, keys, rng)
        where = " AND ".join(f'"{k}"::text = %s' for k in keys)
        session.execute(f"DELETE FROM {table} WHERE {where}", [str(k) for k in key])
        return Place(table, key)

    return mutate


def _double(table: str, keys: list[str], constraint: str) -> Mutation:
    def mutate(session: Session, rng: random.Random) -> Place:
        key = _key(session, table, keys, rng)
        where = " AND ".join(f'"{k}"::text = %s' for k in keys)
        session.execute(f"ALTER TABLE {table} DROP CONSTRAINT {constraint} CASCADE".encode())
        for index in session.execute(
            "SELECT indexname FROM pg_indexes WHERE tablename = %s AND indexdef LIKE '%%UNIQUE%%'",
            [table],
        ).fetchall():
            session.execute(
                f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {index[0]} CASCADE".encode()
            )
            session.execute(f"DROP INDEX IF EXISTS {index[0]}".encode())
        session.execute(
            f"INSERT INTO {table} SELECT * FROM {table} WHERE {where}", [str(k) for k in key]
        )
        return Place(table, key)

    return mutate


def _swap_rows(table: str, keys: list[str], column: str) -> Mutation:
    """Two rows exchange one column's values: every sum over the column stays the same."""

    def mutate(session: Session, rng: random.Random) -> Place:
        where = " AND ".join(f'"{k}"::text = %s' for k in keys)
        for _ in range(200):
            one, two = (_key(session, table, keys, rng) for _ in range(2))
            values = [
                session.execute(
                    f'SELECT "{column}"::text FROM {table} WHERE {where}', [str(k) for k in key]
                ).fetchone()
                for key in (one, two)
            ]
            if values[0] == values[1]:
                continue
            kind = session.execute(f'SELECT pg_typeof("{column}") FROM {table} LIMIT 1').fetchone()
            assert kind is not None
            for key, value in ((one, values[1]), (two, values[0])):
                assert value is not None
                session.execute(
                    f'UPDATE {table} SET "{column}" = %s::{kind[0]} WHERE {where}',
                    [value[0], *map(str, key)],
                )
            return Place(table, two, column)
        raise AssertionError(f"no two rows of {table}.{column} differ")

    return mutate


def _flip_bit(table: str, keys: list[str], column: str) -> Mutation:
    """One bit of one character of a text."""

    def mutate(session: Session, rng: random.Random) -> Place:
        where = " AND ".join(f'"{k}"::text = %s' for k in keys)
        while True:
            key = _key(session, table, keys, rng)
            row = session.execute(
                f'SELECT "{column}" FROM {table} WHERE {where}', [str(k) for k in key]
            ).fetchone()
            text = row[0] if row is not None else None
            if not isinstance(text, str) or not text:
                continue
            at = rng.randrange(len(text))
            other = chr(ord(text[at]) ^ 1)
            if other == "\x00":
                continue
            session.execute(
                f'UPDATE {table} SET "{column}" = %s WHERE {where}',
                [text[:at] + other + text[at + 1 :], *map(str, key)],
            )
            return Place(table, key, column)

    return mutate


P, V, Q = ["id"], ["id"], ["left", "right"]

MUTATIONS_BY_NAME: dict[str, Mutation] = {
    "a bit of a text": _flip_bit("person", P, "name"),
    "a bit of a text beside": _flip_bit("pair", Q, "word"),
    "a bit of an address": _set("person", P, "email", "replace(email, '@', 'A')"),
    "NULL became empty": _set("person", P, "note", "''", "note IS NULL"),
    "empty became NULL": _set("person", P, "note", "NULL", "note = ''"),
    "the text backslash N became NULL": _set("person", P, "note", "NULL", "note = '\\N'"),
    "a trailing blank": _set("person", P, "name", "name || ' '"),
    "another case": _set("person", P, "name", "upper(name)"),
    "a tab became a blank": _set("person", P, "name", "replace(name, chr(9), ' ')"),
    "a shifted hour": _set("person", P, "seen", "seen + interval '1 hour'"),
    "a shifted hour in a visit": _set(
        "visit", V, "at", "at + interval '1 hour'", "mod(id - 1, 50) <> 0"
    ),
    "a shifted hour under the ledger": _set(
        "visit", V, "at", "at + interval '1 hour'", "mod(id - 1, 50) = 0"
    ),
    "a microsecond": _set("person", P, "seen", "seen + interval '1 microsecond'"),
    "a shifted day": _set("person", P, "born", "born + 1"),
    "a rounded real": _set("person", P, "height", "round(height::numeric, 3)::double precision"),
    "a real off by its last bit": _set("visit", V, "score", "score * (1 + 2.3e-16)"),
    "a real through float4": _set("visit", V, "score", "score::real::double precision"),
    "a rounded number": _set("visit", V, "price", "round(price, 0)", "price <> round(price, 0)"),
    "a cent": _set("visit", V, "price", "price + 0.01"),
    "a boolean": _set("person", P, "active", "NOT active"),
    "an integer": _set("person", P, "rank", "mod(rank, 5) + 1"),
    "a byte": _set("person", P, "photo", "set_byte(photo, 0, get_byte(photo, 0) # 1)"),
    "a byte more": _set("person", P, "photo", "photo || '\\x00'"),
    "JSON respelled": _set("person", P, "settings", "(settings::text || ' ')::json"),
    "JSON changed": _set("person", P, "settings", "replace(settings::text, '2.5', '2.50')::json"),
    "a value under the ledger": _set("visit", V, "mixed", "mixed || 'x'"),
    "a moved reference": _set(
        "visit", V, "person", "(SELECT id FROM person AS p WHERE p.id <> visit.person LIMIT 1)"
    ),
    "two columns swapped": _set("person", P, "note", "name"),
    "two rows' values swapped": _swap_rows("person", P, "height"),
    "two rows' texts swapped": _swap_rows("pair", Q, "word"),
    "two rows' times swapped": _swap_rows("person", P, "seen"),
    "a lost row": _lose("person", P),
    "a lost visit": _lose("visit", V),
    "a lost pair": _lose("pair", Q),
    "a doubled row": _double("person", P, "person_pkey"),
    "a doubled visit": _double("visit", V, "visit_pkey"),
    "a row of nobody's": _sql(
        "INSERT INTO pair VALUES (999, 999, 'w')", Place("pair", ["999", "999"])
    ),
    "a keyless row lost": _sql(
        "DELETE FROM loose WHERE ctid = (SELECT min(ctid) FROM loose)", Place("loose")
    ),
    "a keyless row doubled": _sql("INSERT INTO loose SELECT * FROM loose LIMIT 1", Place("loose")),
    "a keyless value": _sql(
        "UPDATE loose SET b = b || '.' WHERE ctid = (SELECT max(ctid) FROM loose)",
        Place("loose", None, "b"),
    ),
    "a keyless real": _sql(
        "UPDATE loose SET c = c + 1e-9 WHERE ctid = (SELECT max(ctid) FROM loose)",
        Place("loose", None, "c"),
    ),
    "everything lost": _sql("TRUNCATE visit", Place("visit")),
    "the table lost": _sql("DROP TABLE loose", Place("loose")),
    "a column lost": _sql("ALTER TABLE pair DROP COLUMN word", Place("pair", None, "word")),
    "another type": _sql(
        "DROP VIEW grown; ALTER TABLE person ALTER COLUMN rank TYPE bigint",
        Place("person", None, "rank"),
    ),
    "a narrower type": _sql(
        "ALTER TABLE visit ALTER COLUMN score TYPE real", Place("visit", None, "score")
    ),
    "NOT NULL dropped": _sql(
        "ALTER TABLE person ALTER COLUMN name DROP NOT NULL", Place("person", None, "name")
    ),
    "the default dropped": _sql(
        "ALTER TABLE person ALTER COLUMN rank DROP DEFAULT", Place("person", None, "rank")
    ),
    "another default": _sql(
        "ALTER TABLE person ALTER COLUMN rank SET DEFAULT 3", Place("person", None, "rank")
    ),
    "a default that is an hour late": _sql(
        "ALTER TABLE person ALTER COLUMN seen SET DEFAULT CURRENT_TIMESTAMP + interval '1 hour'",
        Place("person", None, "seen"),
    ),
    "the identity dropped": _sql(
        "ALTER TABLE visit ALTER COLUMN id DROP IDENTITY", Place("visit", None, "id")
    ),
    "the sequence set back": _sql(
        "SELECT setval(pg_get_serial_sequence('visit', 'id'), 5)", Place("visit", None, "id")
    ),
    "the sequence one behind": _sql(
        f"SELECT setval(pg_get_serial_sequence('visit', 'id'), {ROWS}, false)",
        Place("visit", None, "id"),
    ),
    "the primary key dropped": _sql("ALTER TABLE pair DROP CONSTRAINT pair_pkey", Place("pair")),
    "an index dropped": _sql("DROP INDEX person_name", Place("person")),
    "an index on another column": _sql(
        "DROP INDEX person_name; CREATE INDEX person_name ON person(note)", Place("person")
    ),
    "an index no longer unique": _sql(
        "DROP INDEX person_rank; CREATE INDEX person_rank ON person(name, email) WHERE rank > 1",
        Place("person"),
    ),
    "an index no longer partial": _sql(
        "DROP INDEX person_rank; CREATE UNIQUE INDEX person_rank ON person(name, email)",
        Place("person"),
    ),
    "the view lost": _sql("DROP VIEW grown", Place("grown")),
    "the view changed": _sql(
        "CREATE OR REPLACE VIEW grown AS SELECT id, name FROM person WHERE rank > 4",
        Place("grown"),
    ),
    "the ledger shortened": _sql(
        "DELETE FROM migration.ledger WHERE tab = 'visit' AND key = '[1]'", Place("visit", [1])
    ),
    "the ledger changed": _sql(
        "UPDATE migration.ledger SET before = '\"other\"' WHERE tab = 'visit' AND key = '[1]' "
        "AND col = 'at'",
        Place("visit", [1], "at"),
    ),
    "the ledger forged": _sql(
        "INSERT INTO migration.ledger VALUES ('visit', '[77777]', 'score', '1', '2', 'forged')",
        Place("visit", [77777]),
    ),
    "a quarantine forged": _sql(
        "INSERT INTO migration.quarantine VALUES ('person', '[\"x\"]', 'forged', '{}')",
        Place("person"),
    ),
}


def _drop_constraint(kind: str, table: str) -> Mutation:
    def mutate(session: Session, rng: random.Random) -> Place:
        names = session.execute(
            "SELECT conname FROM pg_constraint WHERE contype = %s AND conrelid = %s::regclass",
            [kind, table],
        ).fetchall()
        session.execute(f'ALTER TABLE {table} DROP CONSTRAINT "{names[0][0]}"'.encode())
        return Place(table)

    return mutate


def _unvalidated(session: Session, rng: random.Random) -> Place:
    row = session.execute(
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE contype = 'f' AND conrelid = 'visit'::regclass"
    ).fetchone()
    assert row is not None
    session.execute(f'ALTER TABLE visit DROP CONSTRAINT "{row[0]}"'.encode())
    session.execute(f'ALTER TABLE visit ADD CONSTRAINT "{row[0]}" {row[1]} NOT VALID'.encode())
    return Place("visit")


def _other_action(session: Session, rng: random.Random) -> Place:
    row = session.execute(
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE contype = 'f' AND conrelid = 'visit'::regclass"
    ).fetchone()
    assert row is not None
    session.execute(f'ALTER TABLE visit DROP CONSTRAINT "{row[0]}"'.encode())
    changed = str(row[1]).replace("ON DELETE CASCADE", "ON DELETE SET NULL")
    session.execute(f'ALTER TABLE visit ADD CONSTRAINT "{row[0]}" {changed}'.encode())
    return Place("visit")


MUTATIONS_BY_NAME |= {
    "the foreign key dropped": _drop_constraint("f", "visit"),
    "the CHECK dropped": _drop_constraint("c", "person"),
    "the unique constraint dropped": _drop_constraint("u", "person"),
    "the foreign key not validated": _unvalidated,
    "the foreign key's action changed": _other_action,
}


def _cases() -> Iterator[tuple[int, str]]:
    """Each corruption at least twice, then at random, from one seed."""
    names = sorted(MUTATIONS_BY_NAME)
    rng = random.Random(SEED)
    drawn = names + names
    while len(drawn) < MUTATIONS:
        drawn.append(rng.choice(names))
    return iter(enumerate(drawn[:MUTATIONS]))


def _differences(prepared: Prepared, dsn: str) -> list[Difference]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        run = records.read_run(connection)
    assert run is not None
    source = prepared.snapshot.connect()
    catalogue = read_catalogue(source)
    source.close()
    comparison = Comparison(run.plan, catalogue, prepared.snapshot, dsn, jobs=2)
    return comparison.run(Reporter(quiet=True)).differences


def test_the_uncorrupted_target_has_no_difference(prepared: Prepared) -> None:
    assert _differences(prepared, prepared.dsn) == []


@pytest.mark.parametrize(("number", "name"), list(_cases()))
def test_a_corruption_is_reported_with_its_place(
    prepared: Prepared, number: int, name: str
) -> None:
    rng = random.Random(SEED + number)
    clone = f"mutation_{number}"
    with psycopg.connect(prepared.admin, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {clone} TEMPLATE {prepared.name}".encode())
    dsn = make_conninfo(prepared.dsn, dbname=clone)
    try:
        with psycopg.connect(dsn, autocommit=True) as session:
            # The corruption happens as bit rot would: no trigger or foreign key sees it.
            session.execute("SET session_replication_role TO replica")
            place = MUTATIONS_BY_NAME[name](session, rng)
        found = _differences(prepared, dsn)
        assert place.is_in(found), (
            f"seed {SEED + number}, {name}: expected {place}, found "
            f"{[d.message for d in found[:5]]}"
        )
    finally:
        with psycopg.connect(prepared.admin, autocommit=True) as admin:
            admin.execute(f"DROP DATABASE {clone} WITH (FORCE)".encode())
