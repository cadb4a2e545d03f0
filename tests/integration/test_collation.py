"""A target that sorts by a language's rules: text compares there as on SQLite all the same."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from migration_job.embedded import EmbeddedPostgres
from migration_job.errors import JobError
from migration_job.migration import Migration
from migration_job.progress import Reporter
from migration_job.run_request import Options
from migration_job.stores.postgres import collation
from migration_job.stores.postgres.database import connect
from migration_job.stores.postgres.suitability import Accepted, examine

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(180)]

KEYS = ["B", "a", "_x", "b", "A", "é", "Z", "z-1", "Z2", "10", "9"]
RANGE = "SELECT id FROM words WHERE id >= 'A' AND id < 'a' ORDER BY id"
LEAST = "SELECT min(id), max(id) FROM words"


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL that knows en_US.UTF-8, which is made here."""
    # The server's user has to read it.
    folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="locales-"))
    folder.chmod(0o755)
    with pytest.MonkeyPatch.context() as environment:
        try:
            for name, source in (("en_US.UTF-8", "en_US"), ("C.UTF-8", "C")):
                command = ["localedef", "-i", source, "-f", "UTF-8", str(folder / name)]
                subprocess.run(command, capture_output=True, check=False)
            if not (folder / "en_US.UTF-8" / "LC_COLLATE").exists():
                pytest.skip("localedef makes no en_US.UTF-8 on this machine")
            environment.setenv("LOCPATH", str(folder))
            made = EmbeddedPostgres(fast=True)
            made.start()
        except (JobError, FileNotFoundError) as error:
            pytest.skip(f"no PostgreSQL with a language's order: {error}")
        yield made
        made.close()
    shutil.rmtree(folder)


@pytest.fixture
def linguistic(server: EmbeddedPostgres) -> Iterator[str]:
    with psycopg.connect(server.dsn, autocommit=True) as session:
        session.execute(
            "CREATE DATABASE words TEMPLATE template0 LC_COLLATE 'en_US.UTF-8' "
            "LC_CTYPE 'en_US.UTF-8'"
        )
    yield server.dsn_for("words")
    server.drop_database("words")


def source(directory: Path) -> Path:
    path = directory / "words.db"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE words (id TEXT PRIMARY KEY, name VARCHAR(20), n INTEGER)")
    db.execute(
        "CREATE TABLE uses (word TEXT REFERENCES words(id), at TEXT, PRIMARY KEY (word, at))"
    )
    db.executemany("INSERT INTO words VALUES (?, ?, 1)", ((key, key) for key in KEYS))
    db.executemany("INSERT INTO uses VALUES (?, 'x')", ((key,) for key in KEYS))
    db.commit()
    db.close()
    return path


def migrate(directory: Path, dsn: str, *, own_collation: bool = False) -> Path:
    file = source(directory)
    wanted = Options(
        source=file, dsn=dsn, report=directory / "report", own_collation=own_collation, deep=True
    )
    Migration(wanted, Reporter(), None).run()
    return file


def both(file: Path, dsn: str, query: str) -> tuple[list[Any], list[Any]]:
    db = sqlite3.connect(file)
    with psycopg.connect(dsn) as session:
        found = db.execute(query).fetchall(), session.execute(query.encode()).fetchall()
    db.close()
    return found[0], found[1]


def verdict(dsn: str, *, accepted: bool = False) -> tuple[str, str]:
    with connect(dsn) as session:
        checks = examine(
            session,
            source_bytes=1,
            connections=1,
            live=False,
            accepted=Accepted(collation=accepted),
        )
    found = next(check for check in checks if check.name == "collation")
    return found.verdict, found.found


@pytest.mark.parametrize("query", [RANGE, LEAST])
def test_text_compares_as_on_sqlite(tmp_path: Path, linguistic: str, query: str) -> None:
    assert verdict(linguistic)[0] == "ok"
    assert "en_US.UTF-8 (libc)" in verdict(linguistic)[1]
    assert 'COLLATE "C"' in verdict(linguistic)[1]
    file = migrate(tmp_path, linguistic)
    here, there = both(file, linguistic, query)
    assert here == there


def test_the_database_s_own_order_is_taken_where_that_is_accepted(
    tmp_path: Path, linguistic: str
) -> None:
    assert verdict(linguistic, accepted=True)[0] == "warning"
    file = migrate(tmp_path, linguistic, own_collation=True)
    here, there = both(file, linguistic, RANGE)
    assert here != there
    # Nothing else differs: equal text is the same text.
    assert len(both(file, linguistic, "SELECT id FROM words")[1]) == len(KEYS)


def test_a_database_that_compares_bytes_is_left_as_it_is(tmp_path: Path, postgres: str) -> None:
    assert verdict(postgres)[0] == "ok"
    assert "byte by byte" in verdict(postgres)[1]
    file = migrate(tmp_path, postgres)
    here, there = both(file, postgres, RANGE)
    assert here == there
    with psycopg.connect(postgres) as session:
        named = session.execute(
            "SELECT count(*) FROM information_schema.columns WHERE table_name = 'words' "
            "AND collation_name IS NOT NULL"
        ).fetchone()
    assert named == (0,)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        *(
            (kind, True)
            for kind in ("text", "TEXT[]", "varchar(20)", "character varying", "char(3)")
        ),
        # By bytes it folds the letters of ASCII alone, as NOCASE does.
        ("citext", True),
        *((kind, False) for kind in ("bytea", "uuid", "jsonb", "tsvector")),
    ],
)
def test_which_types_have_a_collation(kind: str, text: bool) -> None:
    assert collation.of_text(kind) is text
