"""An application that does anything at all to its file, with rounds of ``sync`` between, then the
switch: either all that SQLite holds is on PostgreSQL, or the switch refuses with a sentence and
SQLite serves.

``CAPTURE_EXAMPLES`` says how many, ``CAPTURE_SEED`` which are first; each prints its seed and what
it did.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import psycopg
import pytest

from migration_job.errors import JobError
from migration_job.protocol.settings import Endpoints
from migration_job.protocol.switch import switch
from migration_job.protocol.sync import Sync
from tests.integration.livekit import Migration, uid
from tests.integration.test_whole import MODES, started, told_to

pytestmark = pytest.mark.postgres

FIRST = int(os.environ.get("CAPTURE_SEED", "1"))
EXAMPLES = int(os.environ.get("CAPTURE_EXAMPLES", "12"))
STEPS = 12
SIDECARS = ("-wal", "-shm", "-journal")

ROWS = {
    "users": ("SELECT id, email, score FROM users", "SELECT id::text, email, score FROM users"),
    "notes": ("SELECT id, user_id, body FROM notes", "SELECT id, user_id::text, body FROM notes"),
    "progress": (
        "SELECT user_id, note_id, state FROM progress",
        "SELECT user_id::text, note_id, state FROM progress",
    ),
}


class Restless:
    """The application, and whoever else is at its file."""

    def __init__(self, migration: Migration, folder: Path, dice: random.Random) -> None:
        self.migration, self.folder, self.dice = migration, folder, dice
        self.backup = folder / "backup.db"
        self.done: list[str] = []

    def act(self) -> None:
        """One thing of the many."""
        ordinary: list[Callable[[], None]] = [self.write] * 5 + [self.vacuum, self.attach]
        strange = [
            *(self.drop_trigger, self.drop_and_make, self.edit_schema, self.rebuild),
            *(self.rename, self.without_triggers, self.keep_backup, self.restore),
        ]
        what = self.dice.choice(ordinary if self.dice.random() < 0.9 else strange)
        self.done.append(what.__name__)
        with contextlib.suppress(apsw.Error):
            what()

    @contextlib.contextmanager
    def writer(self) -> Iterator[apsw.Connection]:
        connection = self.migration.writer()
        try:
            yield connection
        finally:
            connection.close()

    def statements(self, db: apsw.Connection, prefix: str = "") -> None:
        dice = self.dice
        for _ in range(dice.randrange(1, 5)):
            user, note = uid(dice.randrange(9)), dice.randrange(1, 9)
            db.execute(
                *dice.choice(
                    [
                        (
                            f"INSERT OR REPLACE INTO {prefix}users VALUES (?, ?, ?)",
                            (user, f"{dice.randrange(6)}", dice.random()),
                        ),
                        (f"UPDATE {prefix}users SET score = score + 1 WHERE id > ?", (user,)),
                        (f"DELETE FROM {prefix}users WHERE id = ?", (user,)),
                        (f"INSERT INTO {prefix}notes (body) VALUES (?)", (str(note),)),
                        (f"UPDATE {prefix}notes SET body = body || 'x' WHERE id = ?", (note,)),
                        (
                            f"INSERT OR REPLACE INTO {prefix}progress VALUES (?, ?, 'seen')",
                            (user, note),
                        ),
                        (f"DELETE FROM {prefix}progress WHERE note_id < ?", (note,)),
                    ]
                )
            )

    def write(self) -> None:
        with self.writer() as db:
            self.statements(db)

    def vacuum(self) -> None:
        with self.writer() as db:
            db.execute(self.dice.choice(["VACUUM", "ANALYZE", "REINDEX"]))

    def attach(self) -> None:
        with contextlib.closing(apsw.Connection(":memory:")) as db:
            db.execute("ATTACH ? AS other", (str(self.migration.source),))
            self.statements(db, "other.")

    def trigger(self, db: apsw.Connection) -> tuple[str, str]:
        rows = db.execute(
            "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' ORDER BY name"
        )
        name, sql = self.dice.choice(rows.fetchall())
        return str(name), str(sql)

    def drop_trigger(self) -> None:
        with self.writer() as db:
            db.execute(f'DROP TRIGGER "{self.trigger(db)[0]}"')
            self.statements(db)

    def drop_and_make(self) -> None:
        with self.writer() as db:
            name, sql = self.trigger(db)
            db.execute(f'DROP TRIGGER "{name}"')
            self.statements(db)
            db.execute(sql)

    def edit_schema(self) -> None:
        with self.writer() as db:
            name, _ = self.trigger(db)
            row = db.execute("SELECT * FROM sqlite_schema WHERE name = ?", (name,)).fetchall()[0]
            db.execute("PRAGMA writable_schema = ON")
            db.execute("DELETE FROM sqlite_schema WHERE name = ?", (name,))
        with self.writer() as db:
            self.statements(db)
            if self.dice.random() < 0.7:
                db.execute("PRAGMA writable_schema = ON")
                db.execute("INSERT INTO sqlite_schema VALUES (?, ?, ?, ?, ?)", row)

    def rebuild(self) -> None:
        with self.writer() as db:
            db.execute("PRAGMA foreign_keys = OFF; BEGIN")
            text = str(db.execute("SELECT sql FROM sqlite_schema WHERE name = 'progress'").get)
            db.execute(text.replace("progress", "made_new", 1))
            db.execute("INSERT INTO made_new SELECT * FROM progress; DROP TABLE progress")
            db.execute("ALTER TABLE made_new RENAME TO progress; COMMIT")
            self.statements(db)

    def rename(self) -> None:
        with self.writer() as db:
            db.execute("ALTER TABLE notes RENAME TO away; ALTER TABLE away RENAME TO notes")
            self.statements(db)

    def without_triggers(self) -> None:
        with self.writer() as db:
            db.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
            self.statements(db)

    def keep_backup(self) -> None:
        with self.writer() as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            subprocess.run(["cp", str(self.migration.source), str(self.backup)], check=True)

    def restore(self) -> None:
        if not self.backup.exists():
            return
        source = self.migration.source
        if self.dice.random() < 0.5:
            for suffix in SIDECARS:
                source.with_name(source.name + suffix).unlink(missing_ok=True)
        copy = self.folder / "restored.db"
        subprocess.run(["cp", str(self.backup), str(copy)], check=True)
        copy.replace(source)
        for suffix in SIDECARS:
            source.with_name(source.name + suffix).unlink(missing_ok=True)
        self.write()


@pytest.mark.parametrize("seed", range(FIRST, FIRST + EXAMPLES))
def test_whatever_the_application_does(tmp_path: Path, postgres: str, seed: int) -> None:
    dice = random.Random(seed)
    migration = started(tmp_path, postgres, dice.choice(MODES))
    ends: Endpoints = told_to(migration, tmp_path)
    application = Restless(migration, tmp_path, dice)
    sync = Sync(ends)
    try:
        for _ in range(STEPS):
            application.act()
            if dice.random() < 0.6:
                application.done.append("SYNC")
                with contextlib.suppress(JobError):
                    sync.run(once=True)
    finally:
        sync._close()
        print(f"seed {seed}: {' '.join(application.done)}")
    try:
        switch(ends, compare=True)
    except JobError as error:
        print(f"refused: {error.message}")
        with psycopg.connect(postgres) as target:
            assert target.execute("SELECT closed FROM migration.fence").fetchall() == [(True,)]
        with application.writer() as db:
            db.execute("INSERT OR REPLACE INTO users VALUES (?, 'still served', 1)", (uid(77),))
        return
    print("switched")
    with application.writer() as db, psycopg.connect(postgres) as target:
        for name, (here, there) in ROWS.items():
            held = sorted(db.execute(here).fetchall(), key=repr)
            assert sorted(target.execute(there.encode()).fetchall(), key=repr) == held, name
        with pytest.raises(apsw.ConstraintError, match="moved to PostgreSQL"):
            db.execute("INSERT OR REPLACE INTO users VALUES (?, 'never', 1)", (uid(78),))
