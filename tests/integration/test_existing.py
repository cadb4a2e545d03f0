"""``--schema existing``: into the tables that the application has made on the target."""

from __future__ import annotations

import json
import shlex
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
import yaml

from migration_job.embedded import EmbeddedPostgres
from migration_job.stores.postgres import load, records
from tests.conftest import MakeSqlite
from tests.integration.running import BLOCKED, DIFFERS, DONE, FAILED, USAGE, Ended, dumped, run
from tests.integration.wholeway import Way

pytestmark = pytest.mark.postgres

SOURCE = """
CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY);
INSERT INTO alembic_version VALUES ('a1');
CREATE TABLE Customer (
    id INTEGER PRIMARY KEY AUTOINCREMENT, email TEXT NOT NULL, active BOOLEAN NOT NULL,
    code CHAR(4), mood TEXT, ip TEXT, lasts BIGINT, born DATETIME, token BLOB, factor REAL,
    price DECIMAL(10, 2), prefs TEXT, uid CHAR(32), nick TEXT);
INSERT INTO Customer VALUES
    (1, 'a@x.org', 1, 'AB', 'happy', '10.0.0.7', 93784000005, '2026-01-02 03:04:05.5',
     x'00112233445566778899aabbccddeeff', 0.1, 12.5, '{"a": 1}',
     'db929b5dd0ba4431b89a03a04f46b558', 'Ann'),
    (2, 'b@x.org', 0, NULL, 'sad', '2001:db8::1', -1, '2026-01-02 03:04:05', NULL, 1.5, 3,
     NULL, NULL, NULL),
    (7, 'c@x.org', 1, 'WXYZ', NULL, NULL, NULL, NULL, NULL, NULL, NULL, '[]', NULL, 'ann');
CREATE TABLE orders (
    number INTEGER PRIMARY KEY, customer_id INTEGER REFERENCES Customer(id), qty INTEGER,
    total INTEGER GENERATED ALWAYS AS (qty * 2) STORED);
INSERT INTO orders (number, customer_id, qty) VALUES (1, 1, 5), (40, 7, 6), (41, NULL, 7);
CREATE TABLE lists (id INTEGER PRIMARY KEY, words TEXT, counts TEXT, doc BLOB, lasts DATETIME,
    worth TEXT);
INSERT INTO lists VALUES
    (1, '["a b", null, "q,r", ""]', '[1, -2]', CAST('{"b": 1}' AS BLOB),
     '1970-01-02 00:00:01.500000', '12.5'),
    (2, '[]', NULL, NULL, '1969-12-31 23:00:00.000000', '-3.0');
CREATE TABLE journal (what TEXT);
INSERT INTO journal VALUES ('made by the source''s trigger');
"""

TARGET = """
CREATE EXTENSION IF NOT EXISTS citext;
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE DOMAIN email AS text CHECK (VALUE LIKE '%@%');
CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);
INSERT INTO alembic_version VALUES ('a1');
CREATE SEQUENCE loose_numbers;
CREATE TABLE customer (
    id serial PRIMARY KEY, email email NOT NULL UNIQUE, active boolean NOT NULL DEFAULT true,
    code char(4), mood mood, ip inet, lasts interval, born timestamp, token uuid, factor real,
    price numeric(10, 2) CHECK (price >= 0), prefs jsonb, uid uuid, nick citext,
    made timestamptz NOT NULL DEFAULT now());
CREATE TABLE orders (
    number integer PRIMARY KEY DEFAULT nextval('loose_numbers'),
    customer_id integer CONSTRAINT of_customer REFERENCES customer ON DELETE CASCADE
        DEFERRABLE INITIALLY DEFERRED,
    qty smallint CONSTRAINT positive CHECK (qty > 0),
    total integer GENERATED ALWAYS AS (qty * 2) STORED);
CREATE INDEX by_qty ON orders (qty) WHERE qty > 1;
CREATE TABLE lists (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, words text[],
    counts integer[], doc jsonb, lasts interval, worth numeric(8, 2));
CREATE TABLE journal (what text);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN INSERT INTO journal VALUES (NEW.number); RETURN NEW; END $$;
CREATE TRIGGER noting AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION note();
COMMENT ON TABLE orders IS 'the application''s own';
CREATE TABLE of_target_alone (customer_id integer REFERENCES customer);
INSERT INTO customer (id, email, active, factor) VALUES (1, 'root@x.org', true, 0.25);
INSERT INTO of_target_alone VALUES (1);
SELECT setval('loose_numbers', 17);
"""

POLICY = "tables: {Customer: {columns: {lasts: {epoch: us}}}}"


@pytest.fixture
def application(postgres: str) -> str:
    """A database in which an application has made its schema, with a few rows."""
    with psycopg.connect(postgres) as target:
        target.execute(TARGET)
    return postgres


@pytest.fixture
def dump(postgres_server: EmbeddedPostgres) -> Callable[[str], str]:
    """pg_dump's own idea of a database: ``dump(dsn)``, rows included."""

    def of(dsn: str) -> str:
        return dumped(postgres_server, dsn)

    return of


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """What an interval's numbers count."""
    path = tmp_path / "policy.yaml"
    path.write_text(POLICY)
    return path


def migrate(source: Path, dsn: str, report: Path, *more: str | Path) -> Ended:
    return run(
        "migrate", source, "--target", dsn, "--schema", "existing", "--report", report, *more
    )


def definitions(dump: str) -> str:
    """A dump without its rows and the positions of sequences."""
    kept, copying = [], False
    for line in dump.splitlines():
        copying = copying or line.startswith("COPY ")
        if not copying and not line.startswith("SELECT pg_catalog.setval"):
            kept.append(line)
        copying = copying and line != "\\."
    return "\n".join(kept)


def test_fills_the_application_s_own_tables(
    make_sqlite: MakeSqlite,
    application: str,
    policy: Path,
    tmp_path: Path,
    dump: Callable[[str], str],
) -> None:
    before = definitions(dump(application))
    ended = migrate(make_sqlite(SOURCE), application, tmp_path / "r", "--policy", policy)
    assert ended.status == DONE, ended.said
    assert definitions(dump(application)) == before
    with psycopg.connect(application) as target:
        target.execute("SET IntervalStyle = postgres")
        rows = target.execute(
            "SELECT id, email::text, active, code::text, mood::text, host(ip), lasts::text, "
            "born::text, token::text, factor, price::text, prefs::text, uid::text, nick::text, "
            "made IS NOT NULL FROM customer ORDER BY id"
        ).fetchall()
        assert [tuple(row) for row in rows] == [
            (1, "a@x.org", True, "AB", "happy", "10.0.0.7", "1 day 02:03:04.000005",
             "2026-01-02 03:04:05.5", "00112233-4455-6677-8899-aabbccddeeff",
             pytest.approx(0.1), "12.50", '{"a": 1}', "db929b5d-d0ba-4431-b89a-03a04f46b558",
             "Ann", True),
            (2, "b@x.org", False, None, "sad", "2001:db8::1", "-00:00:00.000001",
             "2026-01-02 03:04:05", None, 1.5, "3.00", None, None, None, True),
            (7, "c@x.org", True, "WXYZ", None, None, None, None, None, None, None, "[]", None,
             "ann", True),
        ]  # fmt: skip
        rows = target.execute(
            "SELECT words::text, counts::text, doc::text, lasts::text, worth::text FROM lists "
            "ORDER BY id"
        ).fetchall()
        assert [tuple(row) for row in rows] == [
            ('{"a b",NULL,"q,r",""}', "{1,-2}", '{"b": 1}', "1 day 00:00:01.5", "12.50"),
            ("{}", None, None, "-01:00:00", "-3.00"),
        ]
        # Its trigger has not acted, and the table that it fills is the source's.
        assert target.execute("SELECT what FROM journal").fetchall() == [
            ("made by the source's trigger",)
        ]
        kept = target.execute("SELECT tab, target_row, same FROM migration.replaced").fetchall()
        assert [(r[0], "root@x.org" in r[1], r[2]) for r in kept] == [("customer", True, False)]
        # Every sequence is beyond the highest key, whoever owns it.
        made = target.execute(
            "INSERT INTO customer (email) VALUES ('d@x.org') RETURNING id"
        ).fetchone()
        assert made == (8,)
        made = target.execute("INSERT INTO lists DEFAULT VALUES RETURNING id").fetchone()
        assert made == (3,)
        made = target.execute("INSERT INTO orders (qty) VALUES (1) RETURNING number").fetchone()
        assert made == (42,)
    certificate = json.loads((tmp_path / "r/report.json").read_text())["certificate"]
    assert certificate["relations"]["definitions"] > 40


def test_a_second_run_starts_from_what_was_there(
    make_sqlite: MakeSqlite,
    application: str,
    policy: Path,
    tmp_path: Path,
    dump: Callable[[str], str],
) -> None:
    source = make_sqlite(SOURCE)
    assert migrate(source, application, tmp_path / "r", "--policy", policy).status == DONE
    once = dump(application)
    assert migrate(source, application, tmp_path / "r", "--policy", policy).status == DONE
    assert dump(application) == once
    make_sqlite("UPDATE Customer SET nick = 'other' WHERE id = 1")
    ended = migrate(source, application, tmp_path / "r", "--policy", policy)
    assert ended.status == DONE, ended.said
    assert "starting clean" in ended.said
    with psycopg.connect(application) as target:
        kept = target.execute("SELECT target_row FROM migration.replaced").fetchall()
        assert len(kept) == 1
        assert "root@x.org" in kept[0][0]


@pytest.mark.parametrize("where", ["load", "verify", "certificate"])
def test_a_failed_run_leaves_no_trace(  # noqa: PLR0913 - fixtures
    make_sqlite: MakeSqlite,
    application: str,
    policy: Path,
    tmp_path: Path,
    dump: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
    where: str,
) -> None:
    before = dump(application)

    def broken(*_: object, **__: object) -> None:
        raise psycopg.OperationalError("cut off")

    if where == "load":
        monkeypatch.setattr(load._Loader, "_set_sequence", broken)
        monkeypatch.setattr(records, "mark_all", broken)
    elif where == "verify":
        monkeypatch.setattr("migration_job.verify.content.read_relations", broken)
    else:
        monkeypatch.setattr(records, "store_certificate", broken)
    ended = migrate(make_sqlite(SOURCE), application, tmp_path / "r", "--policy", policy)
    assert ended.status == FAILED, ended.said
    assert "as it was before the run" in ended.said
    assert "continues where it stopped" not in ended.said
    assert dump(application) == before
    with psycopg.connect(application) as target:
        there = target.execute("SELECT to_regnamespace('migration')").fetchone()
    assert there == (None,)


def test_a_run_that_was_cut_off_goes_on(
    make_sqlite: MakeSqlite,
    application: str,
    policy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = make_sqlite(SOURCE)
    with monkeypatch.context() as patched:

        def killed(*_: object) -> None:
            raise OSError("killed")

        patched.setattr("migration_job.migration.existing.undo", lambda *_: None)
        patched.setattr("migration_job.migration.Migration._certify", killed)
        assert migrate(source, application, tmp_path / "r", "--policy", policy).status != DONE
    ended = migrate(source, application, tmp_path / "r", "--policy", policy)
    assert ended.status == DONE, ended.said
    assert "continuing run" in ended.said


def test_a_run_that_was_cut_off_and_cannot_go_on_is_taken_back(
    make_sqlite: MakeSqlite,
    postgres: str,
    tmp_path: Path,
    dump: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with psycopg.connect(postgres) as target:
        target.execute("CREATE TABLE t (id bigint PRIMARY KEY, a text NOT NULL)")
        target.execute("INSERT INTO t VALUES (9, 'own')")
    before = dump(postgres)
    source = make_sqlite(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, a); INSERT INTO t VALUES (1, 'x')"
    )
    with monkeypatch.context() as patched:

        def killed(*_: object) -> None:
            raise OSError("killed")

        patched.setattr("migration_job.migration.existing.undo", lambda *_: None)
        patched.setattr("migration_job.migration.Migration._certify", killed)
        assert migrate(source, postgres, tmp_path / "r").status != DONE
    assert dump(postgres) != before
    with sqlite3.connect(source) as connection:
        connection.execute("INSERT INTO t VALUES (2, NULL)")
    connection.close()
    ended = migrate(source, postgres, tmp_path / "r")
    assert ended.status == BLOCKED, ended.said
    assert "is removed" in ended.said
    assert dump(postgres) == before


@pytest.mark.parametrize("schema", ["existing", "planned"])
def test_what_was_written_after_the_certificate_is_not_removed(
    make_sqlite: MakeSqlite, postgres: str, tmp_path: Path, schema: str
) -> None:
    if schema == "existing":
        with psycopg.connect(postgres) as target:
            target.execute("CREATE TABLE t (id bigint PRIMARY KEY)")
    source = make_sqlite("CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1)")

    def again() -> Ended:
        return run(
            *("migrate", source, "--target", postgres, "--schema", schema),
            *("--report", tmp_path / "r"),
        )

    assert again().status == DONE
    assert again().status == DONE
    with psycopg.connect(postgres) as target:
        target.execute("INSERT INTO t VALUES (100)")
    for _ in range(2):
        ended = again()
        assert ended.status == USAGE, ended.said
        assert "found rows of t that were written since" in ended.said
        with sqlite3.connect(source) as connection:
            connection.execute("INSERT INTO t SELECT max(id) + 1 FROM t")
        connection.close()
    with psycopg.connect(postgres) as target:
        assert target.execute("SELECT id FROM t ORDER BY id").fetchall() == [(1,), (100,)]


def test_what_the_target_demands_is_tried_first(
    make_sqlite: MakeSqlite, application: str, policy: Path, tmp_path: Path
) -> None:
    source = make_sqlite(
        SOURCE
        + """
        INSERT INTO Customer (id, email, active) VALUES (8, 'a@x.org', 1), (9, 'nobody', 1),
            (10, 'x@x.org', 'maybe');
        UPDATE Customer SET mood = 'angry', code = 'ABCDE' WHERE id = 2;
        UPDATE Customer SET price = -1, ip = 'nowhere' WHERE id = 7;
        INSERT INTO orders (number, customer_id, qty) VALUES (50, 99, 1), (51, 1, 0),
            (52, 1, 40000);
        """
    )
    arguments = ("inspect", source, "--schema", "existing", "--target", application)
    ended = run(*arguments, "--policy", policy)
    assert ended.status == BLOCKED
    for code in ("unique-violated", "check-violated", "not-a-label", "too-long", "not-an-address",
                 "orphans", "out-of-range", "email_check", "customer_price_check", "id=9",
                 "number=51"):  # fmt: skip
        assert code in ended.said, code
    suggested = tmp_path / "suggested.yaml"
    run(*arguments, "--policy", policy, "--suggest", suggested)
    ended = migrate(source, application, tmp_path / "r", "--policy", suggested)
    assert ended.status == DONE, ended.said
    with psycopg.connect(application) as target:
        assert target.execute("SELECT count(*) FROM customer").fetchone() == (1,)
        assert target.execute("SELECT count(*) FROM migration.quarantine").fetchone() == (9,)


def test_one_sided_things_are_findings(
    make_sqlite: MakeSqlite, application: str, policy: Path, tmp_path: Path
) -> None:
    source = make_sqlite(
        SOURCE
        + """
        CREATE TABLE gone (x TEXT); INSERT INTO gone VALUES ('y'); CREATE TABLE empty (x TEXT);
        ALTER TABLE orders ADD COLUMN note TEXT; UPDATE orders SET note = 'n' WHERE number = 1;
        ALTER TABLE orders ADD COLUMN unused TEXT;
        """
    )
    with psycopg.connect(application) as target:
        target.execute("ALTER TABLE journal ADD COLUMN who text NOT NULL")
    arguments = ("inspect", source, "--schema", "existing", "--target", application)
    ended = run(*arguments, "--policy", policy)
    assert ended.status == BLOCKED
    for text in ("no-target-table", "no-target-column", "target-column-unfilled", "orders.note"):
        assert text in ended.said, text
    assert "orders.unused" not in ended.said
    policy.write_text(
        "tables: {gone: {skip: true}, orders: {columns: {note: {skip: true}}}, "
        "Customer: {columns: {lasts: {epoch: us}}}, "
        "journal: {columns: {what: {rename: who}}}}"
    )
    ended = migrate(source, application, tmp_path / "r", "--policy", policy)
    assert ended.status == DONE, ended.said
    with psycopg.connect(application) as target:
        assert target.execute("SELECT what, who FROM journal").fetchone() == (
            None,
            "made by the source's trigger",
        )


def test_numbers_for_an_interval_need_their_unit(make_sqlite: MakeSqlite, application: str) -> None:
    ended = run("inspect", make_sqlite(SOURCE), "--schema", "existing", "--target", application)
    assert ended.status == BLOCKED
    assert "unit-unknown" in ended.said
    assert "epoch: us" in ended.said


def test_another_version_of_the_application_stops(
    make_sqlite: MakeSqlite, application: str, policy: Path
) -> None:
    source = make_sqlite(SOURCE + "UPDATE alembic_version SET version_num = 'b2';")
    ended = run("inspect", source, "--schema", "existing", "--target", application,
                "--policy", policy)  # fmt: skip
    assert ended.status == BLOCKED
    assert "on the source alone b2, on the target alone a1" in ended.said
    assert "- bookkeeping-differs:alembic_version" in ended.said


def test_versions_that_each_engine_calls_otherwise_can_be_accepted(
    make_sqlite: MakeSqlite, application: str, policy: Path, tmp_path: Path
) -> None:
    source = make_sqlite(SOURCE + "UPDATE alembic_version SET version_num = 'b2';")
    policy.write_text(f"{{acknowledge: [bookkeeping-differs:alembic_version], {POLICY}}}")
    ended = migrate(source, application, tmp_path / "r", "--policy", policy)
    assert ended.status == DONE, ended.said
    with psycopg.connect(application) as target:
        assert target.execute("SELECT version_num FROM alembic_version").fetchall() == [("a1",)]


def test_a_full_target_is_told_of_the_option(
    make_sqlite: MakeSqlite, application: str, tmp_path: Path
) -> None:
    ended = run("migrate", make_sqlite(SOURCE), "--target", application, "--report", tmp_path / "r")
    assert ended.status == USAGE
    assert "--schema existing loads into them" in ended.said


def test_an_empty_target_is_told_what_is_missing(
    make_sqlite: MakeSqlite, postgres: str, tmp_path: Path
) -> None:
    ended = migrate(make_sqlite(SOURCE), postgres, tmp_path / "r")
    assert ended.status == USAGE
    assert "have the application make them first" in ended.said


def test_a_role_that_may_not_silence_triggers_is_refused(
    make_sqlite: MakeSqlite, application: str, policy: Path, tmp_path: Path
) -> None:
    with psycopg.connect(application) as target:
        target.execute("DROP ROLE IF EXISTS just_an_owner")
        target.execute("CREATE ROLE just_an_owner LOGIN PASSWORD 'x'")
    dsn = psycopg.conninfo.make_conninfo(application, user="just_an_owner", password="x")
    try:
        source = make_sqlite(SOURCE)
        ended = migrate(source, dsn, tmp_path / "r")
        assert ended.status == USAGE
        assert "GRANT SET ON PARAMETER session_replication_role" in ended.said
        look = ("inspect", source, "--target", dsn, "--schema", "existing", "--policy", policy)
        unread = run(*look)
        assert unread.status == USAGE
        assert "expected a role that may read the target's tables" in unread.err
        assert "Nothing was changed" in unread.err
        # Who may read is told the same as by `migrate`, below a plan with nothing else at fault.
        with psycopg.connect(application) as target:
            target.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO just_an_owner")
        looked = run(*look)
        assert looked.status == USAGE
        assert looked.err == ended.err
        assert "goes through" in looked.out
    finally:
        with psycopg.connect(application) as target:
            target.execute("DROP OWNED BY just_an_owner")
            target.execute("DROP ROLE just_an_owner")


def test_a_trigger_that_always_acts_is_refused(
    make_sqlite: MakeSqlite, application: str, policy: Path
) -> None:
    with psycopg.connect(application) as target:
        target.execute("ALTER TABLE orders ENABLE ALWAYS TRIGGER noting")
    ended = run("inspect", make_sqlite(SOURCE), "--schema", "existing", "--target", application,
                "--policy", policy)  # fmt: skip
    assert ended.status == BLOCKED
    assert "noting, which acts in every session" in ended.said


@pytest.mark.parametrize("way", ["in", "out"])
def test_keys_between_schemas_are_proven(
    make_sqlite: MakeSqlite, postgres: str, tmp_path: Path, dump: Callable[[str], str], way: str
) -> None:
    """PostgreSQL looks at no foreign key while rows are loaded, wherever its other end is."""
    with psycopg.connect(postgres) as target:
        target.execute(
            "CREATE SCHEMA auth; CREATE TABLE auth.t (id bigint PRIMARY KEY); "
            "INSERT INTO auth.t VALUES (9)"
        )
        target.execute("CREATE TABLE t (id bigint PRIMARY KEY); INSERT INTO t VALUES (9)")
        child, parent = ("auth.t", "public.t") if way == "in" else ("public.t", "auth.t")
        target.execute(
            f"ALTER TABLE {child} ADD CONSTRAINT of FOREIGN KEY (id) REFERENCES {parent}"
        )
    before = dump(postgres)
    source = make_sqlite("CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1)")
    ended = migrate(source, postgres, tmp_path / "r")
    if way == "in":
        assert ended.status == DIFFERS, ended.said
        assert "auth.t: foreign key of: (id) = ('9') has no row in t" in ended.said
    else:
        assert ended.status == BLOCKED, ended.said
        assert "1 row that the target's foreign key of to auth.t refuses" in ended.said
    assert dump(postgres) == before


DEMANDING = """
CREATE EXTENSION IF NOT EXISTS citext;
CREATE TABLE t (
    id bigint PRIMARY KEY, a text, b text, c text, d citext, e numeric, f text, number serial,
    gone timestamptz, low text GENERATED ALWAYS AS (lower(f)) STORED,
    CONSTRAINT nowhere EXCLUDE USING btree (lower(a) WITH =) WHERE (id < 10) DEFERRABLE);
CREATE UNIQUE INDEX partly ON t (b) WHERE gone IS NULL;
CREATE UNIQUE INDEX "by lower" ON t (lower(c) COLLATE "C" DESC, (number IS NULL));
CREATE UNIQUE INDEX by_type ON t (d);
CREATE UNIQUE INDEX worth ON t (e);
CREATE UNIQUE INDEX computed ON t (low);
CREATE UNIQUE INDEX never ON t (a, number)
"""
CLASHING = """
CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT, b TEXT, c TEXT, d TEXT, e TEXT, f TEXT);
INSERT INTO t VALUES (1, 'x', 'x', 'x', 'x', '1.0', 'x'), (2, 'X', 'X', 'y', 'y', '2', 'y'),
    (3, 'y', 'x', 'z', 'z', '3', 'z'), (4, 'z', 'z', 'u', 'X', '4', 'u'),
    (5, 'u', 'u', 'v', 'v', '1.00', 'v'), (6, 'v', 'v', 'w', 'w', '6', 'X'),
    (11, 'U', 'w', NULL, NULL, NULL, NULL), (12, NULL, NULL, NULL, NULL, NULL, NULL)
"""


def test_what_only_the_target_can_judge_is_asked_of_it_first(
    make_sqlite: MakeSqlite, postgres: str, tmp_path: Path, dump: Callable[[str], str]
) -> None:
    """Exclusion constraints, and unique indexes with an expression, a condition, an equality of
    their own or a computed column: the load had failed on each."""
    with psycopg.connect(postgres) as target:
        target.execute(DEMANDING.encode())
    before = dump(postgres)
    ended = migrate(make_sqlite(CLASHING), postgres, tmp_path / "r")
    assert ended.status == BLOCKED, ended.said
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    told = {f["message"]: f["keys"] for f in report["findings"]}
    for name, key in (
        ("exclusion constraint nowhere", 2),
        ("unique index partly", 3),
        ("unique index by_type", 4),
        ("unique index worth", 5),
        ("unique index computed", 6),
    ):
        said = f"1 row that the target's {name}, with which another row collides, refuses"
        assert str(key) in str(told.get(said)), (said, told)
    assert "never" not in str(told)
    assert dump(postgres) == before
    (tmp_path / "policy.yaml").write_text("tables: {t: {action: quarantine}}")
    ended = migrate(
        tmp_path / "source.db", postgres, tmp_path / "r", "--policy", tmp_path / "policy.yaml"
    )
    assert ended.status == DONE, ended.said
    with psycopg.connect(postgres) as target:
        kept = target.execute("SELECT array_agg(id ORDER BY id) FROM t").fetchone()
    assert kept == ([1, 11, 12],)


def test_the_switch_proves_keys_between_schemas(tmp_path: Path, postgres: str) -> None:
    way = Way.of(
        tmp_path, postgres, "CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1), (2)"
    )
    way.on_postgres(
        "CREATE TABLE t (id bigint PRIMARY KEY); CREATE SCHEMA auth; "
        "CREATE TABLE auth.x (t bigint REFERENCES t) PARTITION BY LIST (t); "
        "CREATE TABLE auth.x1 PARTITION OF auth.x DEFAULT; "
        "INSERT INTO t VALUES (2); INSERT INTO auth.x VALUES (2)"
    )
    assert way.migrate("--schema", "existing").status == DONE
    way.on_sqlite("DELETE FROM t WHERE id = 2")
    ended = way.command("switch")
    assert ended.status == DIFFERS
    assert "rows of auth.x refer to rows of t that do not exist (t = 2)" in ended.said
    way.on_sqlite("INSERT INTO t VALUES (2)")
    ended = way.command("switch")
    assert ended.status == DONE, ended.said


@pytest.mark.parametrize(
    ("made", "says"),
    [
        ("CREATE UNLOGGED TABLE t (id bigint PRIMARY KEY)", "t is an unlogged table"),
        (
            "CREATE TABLE t (id bigint PRIMARY KEY); CREATE TABLE heard (id bigint); "
            "CREATE RULE r AS ON INSERT TO t DO ALSO INSERT INTO heard VALUES (NEW.id); "
            "ALTER TABLE t ENABLE ALWAYS RULE r",
            "t has the rule r, which acts in every session",
        ),
    ],
    ids=["unlogged", "rule"],
)
def test_what_no_row_should_go_into_is_refused_first(
    make_sqlite: MakeSqlite, postgres: str, made: str, says: str
) -> None:
    with psycopg.connect(postgres) as target:
        target.execute(made.encode())
    source = make_sqlite("CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1)")
    ended = run("inspect", source, "--schema", "existing", "--target", postgres)
    assert ended.status == BLOCKED, ended.said
    assert says in ended.said


def test_an_unlogged_table_of_the_target_alone_is_its_own(
    make_sqlite: MakeSqlite, postgres: str, tmp_path: Path
) -> None:
    with psycopg.connect(postgres) as target:
        target.execute(
            "CREATE TABLE t (id bigint PRIMARY KEY); CREATE UNLOGGED TABLE cache (a int)"
        )
    source = make_sqlite("CREATE TABLE t (id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1)")
    ended = migrate(source, postgres, tmp_path / "r")
    assert ended.status == DONE, ended.said


def test_decimals_and_durations_in_text_keep_their_value(
    make_sqlite: MakeSqlite, postgres: str, tmp_path: Path
) -> None:
    """Longer than the arithmetic of decimals is by itself, and as .NET writes what is negative."""
    long = "123456789012345678901234567890123456.50"
    with psycopg.connect(postgres) as target:
        target.execute(
            "CREATE TABLE t (id bigint PRIMARY KEY, worth numeric(50, 2), lasts interval)"
        )
    source = make_sqlite(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, worth TEXT, lasts TEXT);"
        f"INSERT INTO t VALUES (1, '{long}', '-5.02:00:00.5000000'), (2, '-0.10', '1.02:00:00'),"
        "(3, '-0.00', '-5 days, 2:00:00')"
    )
    ended = migrate(source, postgres, tmp_path / "r")
    assert ended.status == DONE, ended.said
    with psycopg.connect(postgres) as target:
        found = target.execute(
            "SELECT worth::text, extract(epoch FROM lasts)::float FROM t ORDER BY id"
        ).fetchall()
    assert found == [(long, -439_200.5), ("-0.10", 93_600), ("0.00", -424_800)]


def test_what_would_carry_every_value_is_shown_and_does(
    make_sqlite: MakeSqlite, postgres: str, tmp_path: Path
) -> None:
    """As Rails keeps times of day; no row need go to quarantine for them."""
    with psycopg.connect(postgres) as target:
        target.execute('CREATE TABLE t (id bigint PRIMARY KEY, wakes time, "done" boolean)')
    source = make_sqlite(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, wakes time, done TEXT);"
        "INSERT INTO t VALUES (1, '2000-01-01 07:30:00.000000', 'Y'), "
        "(2, '2000-01-01 23:59:59.500000', ''),"
        "(3, NULL, 'N')"
    )
    named = ["--schema", "existing", "--target", postgres]
    seen = run("inspect", source, *named, "--json")
    assert seen.status == BLOCKED
    columns: dict[str, object] = {}
    for finding in json.loads(seen.out)["findings"]:
        if finding["severity"] == "error":
            lines = finding["suggest"] or finding["settle"]
            columns |= yaml.safe_load(lines)["tables"]["t"]["columns"]
    policy = tmp_path / "policy.yaml"
    policy.write_text(yaml.safe_dump({"tables": {"t": {"columns": columns}}}))
    ended = migrate(source, postgres, tmp_path / "r", "--policy", policy)
    assert ended.status == DONE, ended.said
    with psycopg.connect(postgres) as target:
        assert target.execute("SELECT wakes::text, done FROM t ORDER BY id").fetchall() == [
            ("07:30:00", True),
            ("23:59:59.5", None),
            (None, False),
        ]
        # Words and the empty text have a row in the ledger; times of day go both ways.
        left = target.execute("SELECT DISTINCT col FROM migration.ledger").fetchall()
        assert left == [("done",)]


@pytest.mark.parametrize(
    ("declared", "type_", "values", "holds"),
    [
        ("TEXT", "timestamptz(0)", ("2024-12-31 23:59:59.999",), ("2024-12-31 23:59:59+00",)),
        ("TEXT", "timestamp(1)", ("2024-12-31 23:59:59.999",), ("2024-12-31 23:59:59.9",)),
        ("INTEGER", "timestamptz(0)", (1_704_067_199_999,), ("2023-12-31 23:59:59+00",)),
        ("TEXT", "interval(0)", ("00:00:01.7", "-00:00:01.7"), ("00:00:01", "-00:00:01")),
        ("TEXT", "numeric(10,2)[]", ("[-0.0, 12]", "[1.5]"), ("{0.00,12.00}", "{1.50}")),
        ("TEXT", "varchar(3)[]", ('["abc"]',), ("{abc}",)),
    ],
)
def test_what_a_type_s_modifier_says_is_met(  # noqa: PLR0913 - a case's parts
    make_sqlite: MakeSqlite,
    postgres: str,
    tmp_path: Path,
    declared: str,
    type_: str,
    values: tuple[str | int, ...],
    holds: tuple[str, ...],
) -> None:
    """PostgreSQL would round; the rule cuts or pads, and the ledger has what the source said."""
    with psycopg.connect(postgres) as target:
        target.execute(f"CREATE TABLE t (id bigint PRIMARY KEY, v {type_})".encode())
    rows = ", ".join(f"({i}, {value!r})" for i, value in enumerate(values))
    source = make_sqlite(
        f"CREATE TABLE t (id INTEGER PRIMARY KEY, v {declared}); INSERT INTO t VALUES {rows}"
    )
    ended = migrate(source, postgres, tmp_path / "r")
    assert ended.status == DONE, ended.said
    with psycopg.connect(postgres) as target:
        target.execute("SET TimeZone = UTC")
        found = target.execute("SELECT v::text FROM t ORDER BY id").fetchall()
    assert tuple(row[0] for row in found) == holds


@pytest.mark.parametrize("demand", ["NOT NULL", "CHECK (VALUE IS NOT NULL)"])
def test_a_domain_that_allows_no_null(
    make_sqlite: MakeSqlite, postgres: str, tmp_path: Path, demand: str
) -> None:
    with psycopg.connect(postgres) as target:
        target.execute(
            f"CREATE DOMAIN given AS text {demand}; "
            "CREATE TABLE t (id bigint PRIMARY KEY, a given)".encode()
        )
    source = make_sqlite("CREATE TABLE t (id INTEGER PRIMARY KEY, a TEXT)")
    assert migrate(source, postgres, tmp_path / "r").status == DONE
    make_sqlite("INSERT INTO t VALUES (1, 'x')")
    ended = migrate(source, postgres, tmp_path / "r")
    assert ended.status == DONE, ended.said
    with psycopg.connect(postgres) as target:
        assert target.execute("SELECT id, a FROM t").fetchall() == [(1, "x")]
    make_sqlite("INSERT INTO t VALUES (2, NULL)")
    assert migrate(source, postgres, tmp_path / "r").status == BLOCKED


@pytest.mark.parametrize(
    ("type_", "value"),
    [
        ("numeric(10,2)[]", "[1.555]"),
        ("varchar(3)[]", '["abcd"]'),
        ("smallint[]", "[70000]"),
        ("integer[]", f"[{'9' * 5_000}]"),
        ("text[]", r'["\ud800"]'),
    ],
    ids=["scale", "length", "smallint", "digits", "surrogate"],
)
def test_what_an_array_cannot_hold_is_found_first(
    make_sqlite: MakeSqlite, postgres: str, type_: str, value: str
) -> None:
    with psycopg.connect(postgres) as target:
        target.execute(f"CREATE TABLE t (id bigint PRIMARY KEY, v {type_})".encode())
    source = make_sqlite(
        f"CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, '{value}')"
    )
    ended = run("inspect", source, "--schema", "existing", "--target", postgres)
    assert ended.status == BLOCKED, ended.said
    assert "not-a-list" in ended.said


def test_search_tables_are_the_application_s_to_make_anew(
    make_sqlite: MakeSqlite, application: str, policy: Path, tmp_path: Path
) -> None:
    source = make_sqlite(
        SOURCE
        + """
        CREATE VIRTUAL TABLE found USING fts5(what, content = 'journal');
        INSERT INTO found(found) VALUES ('rebuild');
        CREATE VIRTUAL TABLE notes USING fts5(body); INSERT INTO notes VALUES ('only here');
        """
    )
    with psycopg.connect(application) as target:
        target.execute("CREATE TABLE notes (body text)")
    ended = migrate(source, application, tmp_path / "r", "--policy", policy)
    assert ended.status == DONE, ended.said
    with psycopg.connect(application) as target:
        assert target.execute("SELECT body FROM notes").fetchall() == [("only here",)]


def _proof(tmp_path: Path, body: str) -> str:
    """A command for ``--proof``: an application that finds its database in its environment."""
    program = tmp_path / "proof.py"
    program.write_text(f"import os, psycopg\n{body}")
    return shlex.join([sys.executable, str(program)])


WRITES = """
with psycopg.connect(os.environ["DATABASE_URL"]) as c:
    made = c.execute("INSERT INTO customer (email) VALUES ('p@x.org') RETURNING id").fetchone()
    print("tried", c.execute("SELECT count(*) FROM customer").fetchone()[0], made[0])
"""


def test_the_application_proves_itself_on_a_copy(
    make_sqlite: MakeSqlite, application: str, policy: Path, tmp_path: Path
) -> None:
    ended = migrate(
        *(make_sqlite(SOURCE), application, tmp_path / "r", "--policy", policy),
        *("--proof", _proof(tmp_path, WRITES), "--live", "--state", tmp_path / "state"),
    )
    assert ended.status == DONE, ended.said
    certificate = json.loads((tmp_path / "r/report.json").read_text())["certificate"]
    assert certificate["checks"]["proof"].endswith("tried 4 8")
    with psycopg.connect(application) as target:
        assert target.execute("SELECT count(*) FROM customer").fetchone() == (3,)
        left = target.execute("SELECT count(*) FROM pg_database WHERE datname LIKE '%proof%'")
        assert left.fetchone() == (0,)


@pytest.mark.parametrize("live", [False, True], ids=["offline", "live"])
def test_a_proof_that_fails_stops_and_leaves_no_trace(
    make_sqlite: MakeSqlite,
    application: str,
    policy: Path,
    tmp_path: Path,
    dump: Callable[[str], str],
    live: bool,
) -> None:
    """With capture the tables have this job's fence by then, which the undoing has to pass."""
    before = dump(application)
    source, more = make_sqlite(SOURCE), ("--live", "--state", tmp_path / "state") if live else ()
    ended = migrate(
        *(source, application, tmp_path / "r", "--policy", policy, *more),
        *("--proof", _proof(tmp_path, "raise SystemExit('it does not run')")),
    )
    assert ended.status == DIFFERS, ended.said
    assert "status 1" in ended.said
    assert "it does not run" in ended.said
    assert dump(application) == before
    again = migrate(source, application, tmp_path / "r", "--policy", policy, *more)
    assert again.status == DONE, again.said
