"""Two real servers of different major versions behind one PgBouncer, and an application on them."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import psycopg

from migration_job.commands.upgrade import UpgradeOptions
from migration_job.embedded import EmbeddedPgBouncer, EmbeddedPostgres
from migration_job.protocol.upgrade_ends import UpgradeEnds
from migration_job.stores.postgres import side
from tests.integration.livestage import Program, until

OLD, NEW = 14, 18
DATABASE, APPLICATION, PASSWORD = "shop", "app", "secret"
ROWS_WITHOUT_A_KEY = 200  # of each writer
SETTINGS = {"wal_level": "logical", "max_connections": "80"}

SCHEMA = """
CREATE TABLE notes (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, who integer, body text,
    at timestamptz NOT NULL DEFAULT clock_timestamp(), length integer GENERATED ALWAYS AS
    (length(body)) STORED);
CREATE TABLE counters (who integer, part text, n bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (who, part));
CREATE TABLE seen (who integer, what text);                      -- no key at all
CREATE TABLE "odd % name" ("a 'key'" text PRIMARY KEY, value numeric, doc jsonb);
CREATE TABLE flags (up boolean, code char(6), n bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (up, code));                    -- types whose cast to text is not their output
INSERT INTO flags VALUES (true, 'a b'), (false, 'c');
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE TABLE parts (day date, mood mood, n integer, PRIMARY KEY (day, n)) PARTITION BY RANGE (day);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM ('2020-01-01') TO ('2025-01-01');
CREATE TABLE parts_2 PARTITION OF parts DEFAULT;
INSERT INTO parts SELECT date '2024-12-20' + n, 'good', n FROM generate_series(1, 40) n;
ALTER TABLE parts ENABLE ROW LEVEL SECURITY;
CREATE POLICY everything ON parts USING (true);
CREATE SCHEMA "Other one";
CREATE TABLE "Other one".child (who integer, part text, at tstzrange, n integer UNIQUE DEFERRABLE,
    FOREIGN KEY (who, part) REFERENCES counters DEFERRABLE INITIALLY DEFERRED,
    EXCLUDE USING gist (at WITH &&));            -- no key, and no key that may name rows
INSERT INTO "Other one".child VALUES (1, 'a', '[2020-01-01,2021-01-01)', 1);
CREATE TABLE named (id integer NOT NULL, body text);
CREATE UNIQUE INDEX by_id ON named (id) INCLUDE (body);
ALTER TABLE named REPLICA IDENTITY USING INDEX by_id;
INSERT INTO named SELECT n, 'row ' || n FROM generate_series(1, 50) n;
CREATE EXTENSION citext SCHEMA "Other one";
CREATE EXTENSION pg_trgm;
CREATE TABLE people (name "Other one".citext PRIMARY KEY);
CREATE INDEX alike ON people USING gin ((name::text) gin_trgm_ops);
INSERT INTO people SELECT 'Name ' || n FROM generate_series(1, 20) n;
CREATE SEQUENCE tickets START 100 INCREMENT 5;
CREATE TABLE audit (id bigserial PRIMARY KEY, note bigint);
CREATE FUNCTION note_down() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO audit (note) VALUES (NEW.id); RETURN NULL; END $$;
CREATE TRIGGER everywhere AFTER INSERT ON notes FOR EACH ROW EXECUTE FUNCTION note_down();
ALTER TABLE notes ENABLE ALWAYS TRIGGER everywhere;
CREATE VIEW totals AS SELECT who, sum(n) AS n FROM counters GROUP BY who;
CREATE MATERIALIZED VIEW kept AS SELECT count(*) AS n FROM notes;
INSERT INTO counters SELECT who, part FROM generate_series(0, 15) who, unnest(ARRAY['a', 'b']) part;
INSERT INTO "odd % name" SELECT 'k%' || n, n / 7.0, jsonb_build_object('n', n)
    FROM generate_series(1, 500) n;
INSERT INTO seen SELECT n % 7, repeat('x', n % 50) FROM generate_series(1, 300) n;
GRANT ALL ON ALL TABLES IN SCHEMA public TO app;
GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO app;
ALTER DATABASE shop SET search_path = "$user", public;
ALTER ROLE app SET work_mem = '7MB';
"""


class Lookup(EmbeddedPgBouncer):
    """PgBouncer with an entry for a database of the old server's, as a stage's has one to look
    passwords up in."""

    def config(self) -> str:
        entry = f"lookup = host=127.0.0.1 port={self.postgres.port} dbname=lookup pool_size=2"
        return super().config().replace("[databases]", f"[databases]\n{entry}")


@dataclass
class Pair:
    """Both servers; the application is on the old one through the alias ``shop``."""

    old: EmbeddedPostgres
    new: EmbeddedPostgres
    bouncer: EmbeddedPgBouncer
    directory: Path
    database: str = DATABASE
    state: Path | None = None
    runs: int = 0

    def server(self, name: str) -> EmbeddedPostgres:
        return {"from": self.old, "to": self.new}[name]

    def empty_new(self) -> None:
        """An empty database on the new server."""
        self.new.drop_database(self.database)
        self.new.create_database(self.database)

    def lead(self, line: str) -> None:
        """The alias file, written by hand and read."""
        self.bouncer.alias_path.write_text(line)
        self.bouncer.restart()

    def options(self) -> list[str]:
        return [
            *("--from-target", self.old.dsn_for(self.database)),
            *("--to-target", self.new.dsn_for(self.database)),
            *("--pooler", self.bouncer.admin_dsn, "--alias-file", str(self.bouncer.alias_path)),
            *("--state", str(self.state or self.directory / "state")),
            *("--report", str(self.directory / "report")),
            *("--pause-seconds", "30", "--drain-seconds", "30"),  # on a loaded machine
        ]

    def start(self, *options: str, fault: str = "") -> Program:
        """``migration-job upgrade``, in a process of its own."""
        self.runs += 1
        log = self.directory / f"upgrade{self.runs}.log"
        return Program(
            "migration_job",
            ["upgrade", *self.options(), *options],
            log,
            {"MIGRATION_FAULT": fault},
        )

    def run(self, *options: str) -> str:
        program = self.start(*options)
        status = program.wait(120)
        assert status == 0, f"upgrade {options} ended with {status}:\n{program.output}"
        return program.output

    def ends(self) -> UpgradeEnds:
        """The same for a call in this process."""
        given = UpgradeOptions(
            report=self.directory / "report",
            state=self.state or self.directory / "state",
            alias_file=self.bouncer.alias_path,
            from_target=self.old.dsn_for(self.database),
            to_target=self.new.dsn_for(self.database),
            pooler=self.bouncer.admin_dsn,
            drain_seconds=30.0,
        )
        return replace(given.ends(), guard=())

    def serving(self) -> str:
        """``from`` or ``to``, by the records of both servers."""
        epochs = [0]
        for server in (self.old, self.new):
            with psycopg.connect(server.dsn_for(self.database), autocommit=True) as session:
                found = side.read(session)
                epochs += [found.epoch] if found is not None else []
        return "to" if max(epochs) % 2 else "from"

    def dsn(self) -> str:
        """The application's."""
        return self.bouncer.dsn(DATABASE, user=APPLICATION, password=PASSWORD)


@contextlib.contextmanager
def pair(directory: Path) -> Iterator[Pair]:
    old = EmbeddedPostgres(major=OLD, fast=True, settings=SETTINGS)
    new = EmbeddedPostgres(major=NEW, fast=True, settings=SETTINGS)
    with old, new:
        with psycopg.connect(new.dsn, autocommit=True) as admin:
            # PgBouncer looks passwords up with one superuser's.
            admin.execute(f"ALTER ROLE postgres PASSWORD '{old.password}'".encode())
        new.password = old.password
        old.create_role(APPLICATION, PASSWORD)
        old.create_database(DATABASE)
        with psycopg.connect(old.dsn_for(DATABASE), autocommit=True) as session:
            session.execute(SCHEMA.encode())
        with EmbeddedPgBouncer(old) as bouncer:
            found = Pair(old, new, bouncer, directory)
            found.empty_new()
            found.lead(f"shop = host='127.0.0.1' port={old.port} dbname='shop' pool_size=20\n")
            yield found


@dataclass
class Load:
    """Writers and readers through the pooler; what was acknowledged, and what failed."""

    dsn: str
    seed: int
    failed: list[str] = field(default_factory=list)
    notes: list[int] = field(default_factory=list)
    counted: dict[tuple[int, str], int] = field(default_factory=dict)
    seen: dict[int, list[str]] = field(default_factory=dict)
    tickets: list[int] = field(default_factory=list)
    reads: int = 0
    longest: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def running(self, writers: int, readers: int) -> Iterator[None]:
        threads = [threading.Thread(target=self._write, args=(n,)) for n in range(writers)]
        threads += [threading.Thread(target=self._read) for _ in range(readers)]
        for thread in threads:
            thread.start()
        try:
            until(lambda: len(self.notes) > writers or bool(self.failed), "the first writes")
            yield
            before = len(self.notes)
            until(lambda: len(self.notes) > before + writers or bool(self.failed), "more writes")
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(60)

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(
            self.dsn, autocommit=True, prepare_threshold=None, connect_timeout=60
        )

    def _write(self, who: int) -> None:
        rng = random.Random(self.seed + who)
        try:
            with self._connect() as connection:
                while not self._stop.is_set():
                    began = time.monotonic()
                    self._one_write(connection, who, rng)
                    self.longest = max(self.longest, time.monotonic() - began)
                    self._stop.wait(rng.uniform(0.01, 0.05))
        except (psycopg.Error, OSError) as error:
            self.failed.append(f"writer {who}: {error}")

    def _one_write(self, connection: psycopg.Connection, who: int, rng: random.Random) -> None:
        part = rng.choice("ab")
        word = f"{who}/{rng.getrandbits(60)}"
        with connection.transaction():
            row = connection.execute(
                "INSERT INTO notes (who, body) VALUES (%s, %s) RETURNING id, nextval('tickets')",
                (who, word),
            ).fetchone()
            connection.execute(
                "UPDATE counters SET n = n + 1 WHERE who = %s AND part = %s", (who, part)
            )
            if who == 0:
                connection.execute("UPDATE flags SET n = n + 1")
                connection.execute("UPDATE parts SET day = day + 1, mood = 'bad' WHERE n = 5")
                connection.execute(
                    "UPDATE named SET id = id + 100, body = %s WHERE id %% 7 = 0", (word,)
                )
            connection.execute("INSERT INTO seen VALUES (%s, %s)", (who, word))
            gone = self._to_delete(who, word, rng)
            if gone:
                connection.execute("DELETE FROM seen WHERE what = %s", (gone,))
        assert row is not None
        with self._lock:
            self.notes.append(int(row[0]))
            self.tickets.append(int(row[1]))
            self.counted[who, part] = self.counted.get((who, part), 0) + 1
            kept = self.seen.setdefault(who, [])
            kept.append(word)
            if gone:
                kept.remove(gone)

    def _to_delete(self, who: int, word: str, rng: random.Random) -> str:
        """Which of this writer's rows in the table without a key goes, or none.

        The table stays small however long this goes on: the receiving server looks for each deleted
        row of such a table from its first row on (docs/how-to/upgrade-servers.md says so).
        """
        kept = self.seen.get(who, [])
        if len(kept) >= ROWS_WITHOUT_A_KEY:
            return kept[0]
        return word if rng.random() < 0.3 else ""

    def _read(self) -> None:
        try:
            with self._connect() as connection:
                while not self._stop.is_set():
                    # As much to read however long it goes on, or the readers alone would keep a
                    # machine busy once the table has grown.
                    connection.execute("SELECT * FROM notes ORDER BY id DESC LIMIT 50").fetchall()
                    self.reads += 1
                    self._stop.wait(0.02)
        except (psycopg.Error, OSError) as error:
            self.failed.append(f"reader: {error}")

    def lost(self, dsn: str) -> list[str]:
        """What was acknowledged and is not there, or is there twice."""
        complaints = []
        with psycopg.connect(dsn) as session:
            there = [int(row[0]) for row in session.execute("SELECT id FROM notes").fetchall()]
            missing = set(self.notes) - set(there)
            complaints += [f"{len(missing)} notes are lost"] if missing else []
            if len(set(self.notes)) != len(self.notes) or len(set(self.tickets)) != len(
                self.tickets
            ):
                complaints.append("a sequence gave a number twice")
            rows = session.execute("SELECT who, part, n FROM counters WHERE n > 0").fetchall()
            found = {(int(w), str(p)): int(n) for w, p, n in rows}
            complaints += [] if found == self.counted else [f"{found} is not {self.counted}"]
            kept = session.execute("SELECT what FROM seen WHERE what LIKE '%/%'").fetchall()
            words = [str(row[0]) for row in kept]
            expected = sorted(chain.from_iterable(self.seen.values()))
            complaints += [] if sorted(words) == expected else ["`seen` differs"]
            row = session.execute(
                "SELECT count(*), count(DISTINCT note) FROM audit WHERE note = ANY(%s)",
                (self.notes,),
            ).fetchone()
            if row != (len(self.notes), len(self.notes)):
                complaints.append(f"a trigger fired for {row} of {len(self.notes)} notes")
        return complaints
