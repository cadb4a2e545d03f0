"""The product's conscience: random databases are migrated and compared by a third way.

150 random databases by default, the same every time; 2,000 with ``PROPERTY_EXAMPLES=2000``, others
every time, or those of ``PROPERTY_SEED``. What the job may not do, ever:
end otherwise than done or blocked; lose, change or invent a value that is not accounted for; drop
a part of the schema without a finding; stop for a reason that is not in the source; stop for a
reason that the policy which ``inspect --suggest`` writes does not resolve.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from migration_job.embedded import EmbeddedPostgres
from tests.integration import independent_compare
from tests.integration.hostile import Database, Raw, Rows, databases
from tests.integration.running import BLOCKED, DONE, run

EXAMPLES = int(os.environ.get("PROPERTY_EXAMPLES", "150"))
LONG = "PROPERTY_EXAMPLES" in os.environ
SEED = int(os.environ.get("PROPERTY_SEED", random.SystemRandom().randrange(1 << 32)))

pytestmark = [pytest.mark.postgres, pytest.mark.slow]


@pytest.fixture(scope="module")
def target(postgres_server: EmbeddedPostgres) -> Iterator[str]:
    yield postgres_server.create_database("property")
    postgres_server.drop_database("property")


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory in memory where there is one: each example writes a small file or two."""
    memory = Path("/dev/shm")  # noqa: S108
    directory = Path(tempfile.mkdtemp(prefix="property-", dir=memory if memory.is_dir() else None))
    yield directory
    shutil.rmtree(directory)


def emptied(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "SET client_min_messages TO warning; DROP SCHEMA public CASCADE; CREATE SCHEMA public;"
            " DROP SCHEMA IF EXISTS migration CASCADE"
        )


def judge(database: Database, dsn: str, place: Path) -> None:
    """Migrate and compare; where it is blocked, once more with the policy that it suggests."""
    path, report = place / "source.db", place / "report"
    for old in place.iterdir():
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    emptied(dsn)
    database.write(path)
    before = path.read_bytes()
    migrate = ("migrate", path, "--target", dsn, "--report", report, "--profile", "none")
    ended = run(*migrate)
    assert ended.status in (DONE, BLOCKED), f"status {ended.status}\n{ended.said}"
    if ended.status == BLOCKED:
        justified(path, json.loads((report / "report.json").read_text()))
        assert independent_compare.read_target(dsn) == {}, "a blocked run wrote to the target"
        policy = place / "policy.yaml"
        suggested = run("inspect", path, "--profile", "none", "--suggest", policy)
        assert suggested.status in (DONE, BLOCKED), suggested.said
        ended = run(*migrate, "--policy", policy)
        assert ended.status == DONE, f"its own policy:\n{policy.read_text()}\n{ended.said}"
    said = json.loads((report / "report.json").read_text())
    source, found = independent_compare.read_source(path), independent_compare.read_target(dsn)
    _leave_out(source, said["findings"])
    records = independent_compare.read_records(dsn)
    assert independent_compare.compare(source, found, records) == []
    assert independent_compare.compare_schema(source, found, records, said["findings"], dsn) == []
    assert said["outcome"] == "verified"
    assert path.read_bytes() == before, "the source file was changed"


SMALL_STEPS = {
    "plan.observe.CELLS_AT_ONCE": 2,
    "plan.bad_text.BLOCK_ROWS": 2,
    "stores.postgres.load.FEWEST_SPLITTING": 1,
    "stores.postgres.load.PART_VALUES": 2,
    "stores.postgres.tablecopy.WHOLE_BYTES": -1,
    "stores.postgres.tablecopy.FIRST_ROWS": 2,
    "stores.postgres.tablecopy.MOST_ROWS": 2,
    "verify.digest_blocks.FIRST_ROWS": 1,
    "verify.digest_blocks.MOST_ROWS": 2,
}
"""With these a few rows go the way of a large table: in several parts, and in block after block."""


@contextmanager
def steps(*, small: bool) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL_STEPS.items() if small else ():
            patch.setattr(f"migration_job.{name}", value)
        yield


def _leave_out(
    source: Mapping[str, independent_compare.Table], findings: list[Mapping[str, Any]]
) -> None:
    """What a generated column refuses to compute is left out, as the report says."""
    for finding in findings:
        if finding["code"] == "generated-unreadable":
            table = source[finding["table"]]
            table.columns = [c for c in table.columns if c.name != finding["column"]]
            for row in table.rows:
                del row[finding["column"]]


# ------------------------------------------------------- when it may stop without being asked to

Source = Mapping[str, independent_compare.Table]


def justified(path: Path, report: Mapping[str, Any]) -> None:
    """Each error finding has to be of a kind that may stop a run without a policy, and true."""
    source = independent_compare.read_source(path)
    errors = [f for f in report["findings"] if f["severity"] == "error"]
    assert errors, "blocked without an error"
    for finding in errors:
        reason = REASONS.get(finding["code"])
        assert reason is not None, f"stopped without a policy for {finding}"
        assert reason(source, finding), f"not true of the source: {finding}"


def _cells(source: Source, finding: Mapping[str, Any]) -> list[independent_compare.Cell]:
    table = source[finding["table"]]
    return [row[finding["column"]] for row in table.rows]


def _has_nul(source: Source, finding: Mapping[str, Any]) -> bool:
    cells = _cells(source, finding)
    return any(c.storage == "text" and b"\x00" in (c.content or b"") for c in cells)  # type: ignore[operator]


def _has_broken(source: Source, finding: Mapping[str, Any]) -> bool:
    return any(c.storage == "text" and c.text is None for c in _cells(source, finding))


def _is_no_identifier(source: Source, finding: Mapping[str, Any]) -> bool:
    table = source[finding["table"]]
    declared = next(c.declared for c in table.columns if c.name == finding["column"])
    numbers = [c for c in _cells(source, finding) if c.storage in ("integer", "real")]
    # An Infinity among the values is what becomes of digits with an e between them.
    infinite = any(c.content in (float("inf"), float("-inf")) for c in numbers)
    named = declared.upper() in ("UUID", "GUID", "UNIQUEIDENTIFIER")
    return bool(numbers) and (named or infinite)


def _refuses_its_own_value(source: Source, finding: Mapping[str, Any]) -> bool:
    """A STRICT table's virtual column that computes another class than it is declared to hold."""
    table = source[finding["table"]]
    column = next(c for c in table.columns if c.name == finding["column"])
    held = {"INT": "integer", "INTEGER": "integer", "REAL": "real", "TEXT": "text", "BLOB": "blob"}
    wanted = held.get(column.declared.upper())
    return column.hidden == 2 and any(c.storage != wanted for c in _cells(source, finding))


REASONS: dict[str, Callable[[Source, Mapping[str, Any]], bool]] = {
    "nul-in-text": _has_nul,
    "undecodable-text": _has_broken,
    "identifier-became-number": _is_no_identifier,
    "generated-unreadable": _refuses_its_own_value,
}
"""What may stop a run without a policy: what PostgreSQL cannot hold as what it is, and
what is not any more what it was declared to be."""


# ---------------------------------------------------------------------------------- the property


def _settings(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
        # The default run tries the same databases every time; a longer one tries others.
        derandomize=not LONG,
        phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    )


def test_random_databases_arrive_unchanged(
    target: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tried = itertools.count(1)
    start = time.monotonic()

    def told(text: str) -> None:
        with capsys.disabled():
            print(text, flush=True)

    @_settings(EXAMPLES)
    @given(databases(), st.booleans())
    def holds(database: Database, small: bool) -> None:
        with steps(small=small):
            judge(database, target, place)
        if LONG and not (number := next(tried)) % 100:
            told(f"{number} databases, {time.monotonic() - start:.0f} s")

    if LONG:
        told(f"\n{EXAMPLES} databases, seed {SEED}")
        seed(SEED)(holds)()
    else:
        holds()


def rows(table: str, columns: tuple[str, ...], *values: tuple[Any, ...]) -> Rows:
    return Rows(table, columns, values)


# Every counter-example that was ever found, shrunk.
FOUND: dict[str, Database] = {
    "a zero with its sign turned, and JSON beside the numbers of its column": Database(
        (
            'CREATE TABLE "z"("r" REAL, "n" ANY AS (-"r") STORED, "m" ANY AS ("r" * -1)) STRICT',
            'CREATE TABLE "j"("j" JSON)',
        ),
        (rows("z", ("r",), (0.0,), (1.5,)), rows("j", ("j",), ("[[]]",), (2.5,), (7,))),
    ),
    "integers and reals that SQLite computes and PostgreSQL refuses": Database(
        (
            'CREATE TABLE "a"("c" INT, "s" INT, "r" REAL, CHECK ("c" + 1 > 0), '
            'CHECK ("c" <= 9223372036854775808 AND "r" < 9e999), '
            'CHECK ("c" <> 9223372036854775808), CHECK ("r" * 10 > 0)) STRICT',
            'CREATE TABLE "g"("c" INT, "s" INT, "r" REAL, "v" ANY AS ("c" * 2), '
            '"w" ANY AS ("c" + 1 > 3) STORED, "x" INT AS (CAST("r" AS INTEGER)) STORED, '
            '"y" INT AS (abs("s")) STORED, "z" INT AS (-"s" - 1)) STRICT',
        ),
        (
            rows("a", ("c", "s", "r"), (2**63 - 1, -(2**31), 1.7e308), (1, 2, 0.5)),
            rows("g", ("c", "s", "r"), (2**63 - 1, -(2**31), 1.7e308), (1, 2, 0.5)),
        ),
        (
            'CREATE INDEX "a1" ON "a"("s", "c" + 1)',
            'CREATE INDEX "a2" ON "a"("s") WHERE -1 - "c" < -4',
            'CREATE INDEX "a3" ON "a"("r" * 2)',
            'CREATE INDEX "a4" ON "a"(CAST("r" AS INTEGER))',
            'CREATE INDEX "a5" ON "a"(abs("s"))',
            'CREATE VIEW "v" AS SELECT "c" * 2 AS "d" FROM "a"',
        ),
    ),
    "times of day to a tenth, and to a millionth where need be": Database(
        ('CREATE TABLE "b"("k" INTEGER PRIMARY KEY, "t" TIME, "d" DATETIME)',),
        (
            rows(
                *("b", ("t", "d")),
                ("23:59:59.5", "2024-01-01 10:00:00.250"),
                ("23:35:51.062223", "2024-01-01 10:00:00.250125"),
            ),
        ),
    ),
    "the class of a number that became text for its reference": Database(
        (
            'CREATE TABLE "k"("k" TEXT PRIMARY KEY)',
            'CREATE TABLE "p"("a" INTEGER REFERENCES "k"("k"), "g" TEXT AS (typeof("a")))',
        ),
        (rows("k", ("k",), ("1",), ("x",)), rows("p", ("a",), (1,))),
    ),
    "the class of a text that became a number for its reference": Database(
        (
            'CREATE TABLE "k"("k" INTEGER PRIMARY KEY)',
            'CREATE TABLE "p"("a" TEXT REFERENCES "k"("k"), "g" TEXT AS (typeof("a")) STORED)',
        ),
        (rows("k", ("k",), (1,)), rows("p", ("a",), ("1",))),
    ),
    "a table without a name that hands out its keys": Database(
        ('CREATE TABLE ""("a" INTEGER PRIMARY KEY)',), (rows("", ("a",), (7,)),)
    ),
    "a view that depends on the order of UTF-16": Database(
        ('CREATE TABLE "a"("a" INTEGER PRIMARY KEY, "b" TEXT)',),
        (rows("a", ("b",), ("Ā",)),),
        ('CREATE VIEW "c" AS SELECT "a" FROM "a" WHERE "b" > 0',),
        encoding="UTF-16le",
    ),
    "an empty blob in a column without a type": Database(
        ('CREATE TABLE t("user")',), (rows("t", ("user",), (b"",)),)
    ),
    "percent in a name": Database(
        ('CREATE TABLE "id"("ba%b. " NUMERIC(38,10) PRIMARY KEY)',),
        (rows("id", ("ba%b. ",), (8.379242687593539e300,)),),
    ),
    "percent before a letter of two bytes": Database(
        ('CREATE TABLE "\\__b%é"("A" INTEGER DEFAULT 0 UNIQUE, "id" DATETIME DEFAULT (abs(-5)))',),
        (rows("\\__b%é", ("id",), ("0114-07-08T04:12:20.099880Z",)),),
    ),
    "braces in a name": Database(
        (
            """CREATE TABLE "b"("1 b'b\\" UNSIGNED BIG INT PRIMARY KEY, "{brace}" DATE """
            """GENERATED ALWAYS AS ("1 b'b\\" || 'x') STORED)""",
        ),
        (rows("b", ("1 b'b\\",), (None,)),),
    ),
    "two names that only Unicode takes for one": Database(
        ('CREATE TABLE "é"("1" INTEGER PRIMARY KEY) STRICT', 'CREATE TABLE "É"("id" JSON)')
    ),
    "a view of epoch seconds": Database(
        ('CREATE TABLE "end"("id" DATETIME DEFAULT 0)',),
        (rows("end", ("id",), (946684800,), (946684800,)),),
        ('CREATE VIEW "a" AS SELECT "id" FROM "end"',),
    ),
    "an expression index that another release computes otherwise": Database(
        ('CREATE TABLE "a1%"("a.b" DECIMAL(2,4))',),
        (rows("a1%", ("a.b",), (3.049495786282961e-211,)),),
        ('CREATE INDEX "i" ON "a1%"(lower("a.b"))',),
    ),
    "a column called rowid beside NUL": Database(
        ('CREATE TABLE "$1"("rowid" BLOB PRIMARY KEY)',),
        (rows("$1", ("rowid",), ("\x00",), (17642,)),),
    ),
    "a mark beyond int4 in an empty table": Database(
        ('CREATE TABLE "t"("x" INTEGER PRIMARY KEY AUTOINCREMENT, "n" INT CHECK ("n" = 1))',),
        (rows("t", ("x", "n"), (12927526382555764, 131)),),
    ),
    "a key without a rowid whose values are widened": Database(
        ('CREATE TABLE "name"("xmin" INTEGER PRIMARY KEY) WITHOUT ROWID',),
        (rows("name", ("xmin",), ("true",), (2,)),),
        encoding="UTF-16be",
    ),
    "a column without a name": Database(('CREATE TABLE "per%cent"("" INT) STRICT',)),
    "text that became a number in a UUID column": Database(
        ('CREATE TABLE "1st"("1st" UUID)',), (rows("1st", ("1st",), (-1,)),)
    ),
    "a generated column of another class than declared": Database(
        (
            'CREATE TABLE "É"("tab" INTEGER PRIMARY KEY AUTOINCREMENT, '
            '"c" DATE GENERATED ALWAYS AS (abs("tab")) STORED)',
        )
    ),
    "a generated real": Database(
        ('CREATE TABLE "a"("x" DOUBLE PRIMARY KEY, "%" GUID GENERATED ALWAYS AS ("x" + 1) STORED)',)
    ),
    "a generated document": Database(
        ('CREATE TABLE "b"("É" INTEGER PRIMARY KEY, "id" JSON GENERATED ALWAYS AS ("É") STORED)',)
    ),
    "a sum beyond int64": Database(
        (
            'CREATE TABLE "1"("name" INTEGER PRIMARY KEY, '
            '"a" DOUBLE PRECISION GENERATED ALWAYS AS ("name" + 1) VIRTUAL)',
        ),
        (rows("1", ("name",), (9223372036854775807,)),),
    ),
    "a view of a table that was renamed": Database(
        ('CREATE TABLE ""("public" my type(1,2))',),
        (rows("", ("public",), (1.0,), (9007199254740993,)),),
        ('CREATE VIEW "v" AS SELECT "public" FROM "" WHERE "public" IN (1, 2)',),
    ),
    "a default of bytes in UTF-16": Database(
        ('CREATE TABLE "a"("b" DATETIME, "c" CHAR(36) DEFAULT (x\'61\' || \'b\'))',),
        encoding="UTF-16le",
    ),
    "a default that the type has no room for": Database(
        ("CREATE TABLE \"u\"(\"x\" DECIMAL(5) DEFAULT (strftime('%s','now')))",),
        (rows("u", ("x",), (207,)),),
    ),
    "a default of a key that the rowid is": Database(
        ('CREATE TABLE "É"("%" INTEGER DEFAULT -1 PRIMARY KEY)',)
    ),
    "a number for a default where the column became bytes": Database(
        ('CREATE TABLE "É"("name" NOT NULL DEFAULT -1 UNIQUE)',),
        (rows("É", ("name",), (34,), (b"\x00",)),),
        encoding="UTF-16le",
    ),
    "a reference whose declared type is not its parent's": Database(
        (
            'CREATE TABLE "c"("id" INTEGER PRIMARY KEY AUTOINCREMENT)',
            'CREATE TABLE "d"("t" INTEGER PRIMARY KEY, "x" DECIMAL(10,2) REFERENCES "c"("id"))',
        ),
        (rows("c", ("id",), (None,)),),
    ),
    "names of constraints that are one once they are cut": Database(
        (f'CREATE TABLE "{"é" * 32}"("a" INT UNIQUE CHECK (length("a") < 100)) STRICT',)
    ),
    "a reference and a unique column of one cut name": Database(
        (
            'CREATE TABLE "B"("k" TIME PRIMARY KEY)',
            f'CREATE TABLE "c"("{"n" * 64}" BLOB PRIMARY KEY, "{"n" * 62}é" JSONB NOT NULL '
            f'UNIQUE REFERENCES "B"("k"))',
        ),
        (rows("c", ("n" * 64, "n" * 62 + "é"), (b"", "25:00")),),
    ),
    "a view over a document that became a number": Database(
        (
            'CREATE TABLE "b"("é" INTEGER PRIMARY KEY)',
            'CREATE TABLE "A"("j" JSON NOT NULL, "c" CHAR(36) REFERENCES "b"("é"))',
        ),
        (rows("b", ("é",), (1,), (0,)), rows("A", ("j", "c"), (1700000000, 1), (1e22, 0))),
        ('CREATE VIEW "a" AS SELECT "j", "c" FROM "A"',),
    ),
    "a reference that only SQLite's affinity makes": Database(
        (
            'CREATE TABLE "a"("a" ANY NOT NULL UNIQUE PRIMARY KEY)',
            'CREATE TABLE "b"("b" TEXT NOT NULL REFERENCES "a"("a")) STRICT',
        ),
        (rows("a", ("a",), (0,), ("",)), rows("b", ("b",), ("0.0",))),
    ),
    "a real for a generated column of numeric": Database(
        (
            'CREATE TABLE "a" ("a", "n" NUMERIC GENERATED ALWAYS AS ("a") VIRTUAL, '
            '"i" INTEGER GENERATED ALWAYS AS ("a" * 10.0) STORED)',
        ),
        (rows("a", ("a",), (0.30000000000000004,), (0.25,)),),
    ),
    "a real within a generated text": Database(
        ('CREATE TABLE "a" ("a", "t" GENERATED ALWAYS AS ("a" || \'x\') VIRTUAL)',),
        (rows("a", ("a",), (0.30000000000000004,)),),
    ),
    "columns named by a dot and by nothing, and generated from them": Database(
        (
            'CREATE TABLE "a" ("." TIME NOT NULL DEFAULT 0 CHECK ("." >= 0), '
            '"b" GENERATED ALWAYS AS (".") VIRTUAL, "" GENERATED ALWAYS AS ("b") VIRTUAL)',
            'CREATE TABLE "n" ("b", "n.b", CHECK ("n"."b" <> "n.b"))',
        ),
        (
            rows("a", (".",), ("10:00:00",)),
            rows("n", ("b", "n.b"), ("plain", "dotted")),
        ),
        ('CREATE VIEW "v" AS SELECT "n"."b" AS "p", "n.b" AS "d" FROM "n"',),
    ),
    "a generated column of a generated column that is carried as values": Database(
        (
            'CREATE TABLE "t" ("a", "x" GENERATED ALWAYS AS (printf(\'%s!\', "a")), '
            '"y" TEXT GENERATED ALWAYS AS ("x" || \'?\'))',
        ),
        (rows("t", ("a",), ("v",)),),
    ),
    "a generated column that refuses what it computes": Database(
        (
            'CREATE TABLE "a" ("a" INT NOT NULL UNIQUE CHECK ("a" >= 0), '
            '"b" INT GENERATED ALWAYS AS ("a" || \'x\') VIRTUAL) STRICT',
        ),
        (rows("a", ("a",), (0,)),),
    ),
    "a reference whose numbers become different texts": Database(
        (
            'CREATE TABLE "a" ("a" BOOLEAN NOT NULL UNIQUE PRIMARY KEY)',
            'CREATE TABLE "b" ("b" REAL NOT NULL UNIQUE, FOREIGN KEY ("b") REFERENCES "a" ("a"))',
        ),
        (rows("a", ("a",), (0,), ("true",)), rows("b", ("b",), (0,), ("true",))),
    ),
    "a reference whose numbers become the bytes of different texts": Database(
        (
            'CREATE TABLE "a" ("a" REAL PRIMARY KEY)',
            'CREATE TABLE "b" ("b" INTEGER REFERENCES "a" ("a"))',
            'CREATE TABLE "c" ("c" INTEGER PRIMARY KEY)',
            'CREATE TABLE "d" ("d" REAL REFERENCES "a" ("a"))',
            'CREATE TABLE "e" ("e" INT UNIQUE)',
            'CREATE TABLE "f" ("f" REAL REFERENCES "e" ("e"))',
            'CREATE TABLE "g" ("g" VARCHAR(3) UNIQUE)',
            'CREATE TABLE "h" ("h" REAL REFERENCES "g" ("g"))',
        ),
        (
            rows("a", ("a",), (0.0,), (b"",), ("x",), (0.1,), (0.1 + 2**-56,), (1e16,)),
            rows("b", ("b",), (0,), (b"",), ("x",), (0.1,), (10**16,)),
            rows("d", ("d",), (0,), (b"",), ("x",), (0.1,), (10**16,)),
            rows("e", ("e",), (0,), (b"",)),
            rows("f", ("f",), (0,), (b"",)),
            rows("g", ("g",), ("10",), (b"",)),
            rows("h", ("h",), ("10",), (b"",)),
        ),
    ),
    "a reference to one of two reals that fifteen digits do not tell apart": Database(
        (
            'CREATE TABLE "a" ("a" REAL PRIMARY KEY)',
            'CREATE TABLE "b" ("b" REAL REFERENCES "a" ("a"))',
            'CREATE TABLE "c" ("c" NUMERIC REFERENCES "a" ("a"))',
        ),
        (
            rows("a", ("a",), (0.1,), (b"\xff",), (5.0,)),
            rows("b", ("b",), (0.1 + 2**-56,), (0.1,), (5,)),
            rows("c", ("c",), (0.1 + 2**-56,), (0.1,), (5,)),
        ),
    ),
    "a time of day for a column of times": Database(
        (
            'CREATE TABLE "c"("a" TIME, "c" DATETIME GENERATED ALWAYS AS ("a"), '
            '"d" DATETIME, "e" DATETIME AS (coalesce("a", "d")))',
        )
    ),
    "rows to be checked one by one in UTF-16": Database(
        (
            'CREATE TABLE "id" ("b" COLLATE NOCASE UNIQUE PRIMARY KEY)',
            'CREATE TABLE "a" ("a" REAL NOT NULL, '
            "\"b\" INT GENERATED ALWAYS AS (CASE WHEN \"a\" THEN 'y' ELSE 'n' END) VIRTUAL) STRICT",
        ),
        (rows("id", ("b",), (0,), ("",)), rows("a", ("a",), (1,), (-1,))),
        encoding="UTF-16be",
    ),
    "the time for a default of a short text": Database(
        ('CREATE TABLE "a" ("b" VARCHAR(5) NOT NULL DEFAULT CURRENT_TIMESTAMP UNIQUE)',)
    ),
    "a number beside text in a column of numeric affinity": Database(
        ('CREATE TABLE "c" ("a" JSON NOT NULL UNIQUE, "t" TEXT, "n")',),
        (rows("c", ("a", "t", "n"), ('"\\u0000"', "1", 1), ('" "', '"', 2)),),
        (
            'CREATE VIEW "v" AS SELECT "a" FROM "c" WHERE "a" > 0',
            'CREATE VIEW "w" AS SELECT "a" FROM "c" WHERE "a" > "t"',
            'CREATE VIEW "x" AS SELECT "a" FROM "c" WHERE "n" = \'1\'',
            'CREATE VIEW "y" AS SELECT "a" FROM "c" WHERE "a" > \'0\'',
        ),
    ),
    "a column twice in a unique index that is referred to": Database(
        (
            'CREATE TABLE "a" ("a" INTEGER PRIMARY KEY, "t" TEXT, UNIQUE ("t", "t"))',
            'CREATE TABLE "b" ("a" INT NOT NULL UNIQUE REFERENCES "a" ("a"))',
        ),
        (rows("a", ("a", "t"), (1, "x")), rows("b", ("a",), (1,))),
        ('CREATE UNIQUE INDEX "b" ON "a" ("a", "a" COLLATE NOCASE)',),
    ),
    "a whole real for a generated column that makes an integer of it": Database(
        (
            'CREATE TABLE "a" ("a" COLLATE NOCASE, "b" ANY GENERATED ALWAYS AS ("a") VIRTUAL, '
            '"c" ANY GENERATED ALWAYS AS (coalesce("a", 2.0)) STORED)',
        ),
        (rows("a", ("a",), (0,), (None,), (0.5,), (1.0,)),),
    ),
    "the largest integer in a column of documents": Database(
        ('CREATE TABLE "a" ("b" JSON DEFAULT 9223372036854775807, "c" JSON)',),
        (rows("a", ("c",), (9223372036854775807,), (-(2**63),), (2.0**63,), (0.5,)),),
    ),
    "the largest integer for a default of documents": Database(
        ('CREATE TABLE "a" ("b" JSON NOT NULL DEFAULT 9223372036854775807)',),
    ),
    "times before the year 1": Database(
        ('CREATE TABLE "a" ("b" DATETIME, "c" DATE)',),
        (
            rows(
                "a",
                ("b", "c"),
                ("-2024-01-01 00:00:00", "-2024-01-01"),
            ),
        ),
    ),
    "a reference from an integer to a real beyond 2^53": Database(
        (
            'CREATE TABLE "a" ("a" REAL NOT NULL PRIMARY KEY)',
            'CREATE TABLE "c" ("a" INT NOT NULL, FOREIGN KEY ("a") REFERENCES "a" ("a")) STRICT',
        ),
        (
            rows("a", ("a",), (0.0,), (-5.961766033605661e16,), (0.5,), (2.0**60,)),
            rows("c", ("a",), (-5.961766033605661e16,), (0,), (2**60,)),
        ),
    ),
    "an integer and a whole real beyond 64 bits at a fixed scale": Database(
        ('CREATE TABLE "a" ("a" NUMERIC(38,10) NOT NULL UNIQUE)',),
        (rows("a", ("a",), (0,), (1e22,)),),
    ),
    "an identity that has come to its end": Database(
        (
            'CREATE TABLE "c" ("a" INTEGER PRIMARY KEY AUTOINCREMENT, "b" INT NOT NULL UNIQUE, '
            'FOREIGN KEY ("b") REFERENCES "c") STRICT',
        ),
        (rows("c", ("a", "b"), (9_223_372_036_854_775_807, 1), (None, 2)),),
    ),
    "a view of text that does not decode": Database(
        ('CREATE TABLE "select" ("a" BOOLEAN UNIQUE, "b" TIME NOT NULL DEFAULT 0)',),
        (
            rows(
                "select",
                ("a", "b"),
                (b"", "10:00:00"),
                (Raw(b"\xff"), "10:00:00"),
                ("é", "10:00:00"),
                (None, "10:00:00"),
            ),
        ),
        ('CREATE VIEW "b" AS SELECT "a" FROM "select"',),
    ),
    "times of two shapes and a generated column of them": Database(
        ('CREATE TABLE "b" ("b" DATETIME UNIQUE, "c" DATETIME GENERATED ALWAYS AS ("b") VIRTUAL)',),
        (rows("b", ("b",), ("2024-03-01 10:00:00",), ("2024-03-01 10:00:00.5",)),),
    ),
    "identifiers of two spellings and a generated column of them": Database(
        ('CREATE TABLE "t" ("b" UUID, "c" UUID GENERATED ALWAYS AS ("b") STORED)',),
        (
            rows(
                "t",
                ("b",),
                ("0f8fad5b-d9cb-469f-a165-70867728950e",),
                ("0F8FAD5B-D9CB-469F-A165-70867728950E",),
            ),
        ),
    ),
    "times of two shapes within an expression": Database(
        ('CREATE TABLE "b" ("b" DATETIME, "c" DATETIME GENERATED ALWAYS AS (coalesce("b", "b")))',),
        (rows("b", ("b",), ("2024-03-01 10:00:00",), ("2024-03-01 10:00:00.5",)),),
    ),
    "a quarantined row with a generated value": Database(
        (
            'CREATE TABLE "back\\slash"("id" INTEGER, "b" my type(1,2) NOT NULL, '
            '"g" VARBINARY(8) GENERATED ALWAYS AS (CAST("b" AS TEXT)) STORED)',
        ),
        (rows("back\\slash", ("id", "b"), (133, "\x00")),),
    ),
}


@pytest.mark.parametrize("small", [False, True], ids=["", "in small steps"])
@pytest.mark.parametrize("name", FOUND)
def test_a_counter_example_once_found(name: str, small: bool, target: str, place: Path) -> None:
    with steps(small=small):
        judge(FOUND[name], target, place)
