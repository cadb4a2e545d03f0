"""Tables and rows of the operator's choice, under names of the policy's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.running import BLOCKED, DONE, USAGE, Ended, run
from tests.integration.wholeway import Way

pytestmark = pytest.mark.postgres

SOURCE = """
CREATE TABLE Visit (visitID INTEGER PRIMARY KEY AUTOINCREMENT, patient INTEGER NOT NULL
    REFERENCES Patient(id), day DATE NOT NULL, note TEXT, fee NUMERIC(8,2),
    long TEXT GENERATED ALWAYS AS (note || '!') VIRTUAL, CHECK (length(note) < 100));
CREATE TABLE Patient (id INTEGER PRIMARY KEY, fullName TEXT NOT NULL);
CREATE UNIQUE INDEX by_day ON Visit (patient, day) WHERE note IS NOT NULL;
CREATE TABLE tmp_a (x);
CREATE TABLE tmp_b (x TEXT);
CREATE TABLE audit_log (id INTEGER PRIMARY KEY, what TEXT);
CREATE VIEW recent AS SELECT v.visitID, p.fullName FROM Visit v JOIN Patient p ON p.id = v.patient;
CREATE TRIGGER audited AFTER INSERT ON audit_log BEGIN SELECT 1; END;
INSERT INTO Patient VALUES (1, 'Ada'), (2, 'Bo'), (3, 'Cy');
INSERT INTO Visit (visitID, patient, day, note) VALUES (1, 1, '2019-12-31', 'old'),
    (2, 2, '2020-01-01', 'new'), (3, 3, '2021-05-06', NULL), (7, 1, '2018-01-01', 'older');
INSERT INTO tmp_a VALUES (1), ('two'), (x'03');
INSERT INTO tmp_b VALUES ('b');
INSERT INTO audit_log VALUES (1, 'w');
"""


@pytest.fixture
def way(postgres: str, tmp_path: Path) -> Way:
    return Way.of(tmp_path, postgres, SOURCE, journal="wal")


def offline(way: Way, *options: str | Path) -> Ended:
    report = way.folder / "report"
    return run("migrate", way.source, "--target", way.dsn, "--report", report, *options)


def policy(way: Way, text: str) -> Path:
    file = way.folder / "policy.yaml"
    file.write_text(text)
    return file


def report(way: Way) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((way.folder / "report/report.json").read_text())
    return told


def tables(way: Way) -> set[str]:
    found = way.on_postgres(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    )
    return {str(name) for (name,) in found}


def test_only_and_except_leave_tables_on_the_source(way: Way) -> None:
    ended = offline(way, "--except", "tmp_*", "--except", "AUDIT_log")
    assert ended.status == DONE, ended.said
    assert tables(way) == {"Visit", "Patient"}
    told = report(way)
    left = {f["table"]: f["message"] for f in told["findings"] if f["code"] == "table-left-out"}
    assert left == {
        "tmp_a": "left out by the policy: 3 rows stay on the source",
        "tmp_b": "left out by the policy: 1 row stays on the source",
        "audit_log": "left out by the policy: 1 row stays on the source",
    }
    assert "with exceptions: 3 tables left out" in ended.said
    assert told["certificate"]["checks"]["partial"] == (
        "tmp_a: 3 rows left out; tmp_b: 1 row left out; audit_log: 1 row left out"
    )
    assert not [f for f in told["findings"] if f["code"].startswith("trigger")]
    ended = run("verify", way.source, "--target", way.dsn, "--report", way.folder / "again")
    assert ended.status == DONE, ended.said
    again = json.loads((way.folder / "again/verify.json").read_text())
    assert "audit_log" in again["certificate"]["checks"]["partial"]


def test_a_reference_to_a_table_that_stays_is_told(way: Way) -> None:
    ended = offline(way, "--only", "visit")
    assert ended.status == DONE, ended.said
    assert tables(way) == {"Visit"}
    codes = {f["code"] for f in report(way)["findings"]}
    assert {"foreign-key-not-carried", "view-not-carried", "table-left-out"} <= codes


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--only", "Visits"), "expected a table of the source after only, found 'Visits'"),
        (("--except", "x*"), "expected a table of the source after except, found 'x*'"),
        (("--except", "*", "--only", "Visit"), "leave none"),
    ],
)
def test_a_pattern_that_chooses_nothing_is_refused(
    way: Way, options: tuple[str, ...], said: str
) -> None:
    ended = offline(way, *options)
    assert ended.status == USAGE, ended.said
    assert said in ended.said
    assert tables(way) == set()


WHERE = """
tables:
  Visit:
    where: day >= '2020-01-01'
"""


def test_rows_by_where_are_all_that_is_carried(way: Way) -> None:
    ended = offline(way, "--policy", policy(way, WHERE), "--except", "tmp_*", "--deep")
    assert ended.status == DONE, ended.said
    assert way.on_postgres('SELECT "visitID" FROM "Visit" ORDER BY 1') == [(2,), (3,)]
    told = report(way)
    assert told["certificate"]["tables"]["Visit"]["rows"] == 2
    assert "Visit: 2 rows left out, the others carried" in told["certificate"]["checks"]["partial"]
    assert "2 rows left out" in ended.said
    # A key that the source has given out is not given out again.
    (row,) = way.on_postgres(
        """INSERT INTO "Visit" (patient, day) VALUES (1, '2022-01-01') RETURNING "visitID" """
    )
    assert row[0] == 8
    way.on_postgres('DELETE FROM "Visit" WHERE "visitID" = 8')
    ended = run("verify", way.source, "--target", way.dsn, "--report", way.folder / "again")
    assert ended.status == DONE, ended.said
    way.on_postgres("""INSERT INTO "Visit" ("visitID", patient, day) VALUES (1, 1, '2019-12-31')""")
    ended = run("verify", way.source, "--target", way.dsn, "--report", way.folder / "again")
    assert ended.status == 4, ended.said


def test_a_child_whose_parent_stays_is_an_orphan(way: Way) -> None:
    file = policy(way, "{tables: {Patient: {where: id < 3}}}")
    ended = offline(way, "--policy", file)
    assert ended.status == DONE, ended.said
    (orphans,) = [f for f in report(way)["findings"] if f["code"] == "orphans"]
    assert (orphans["table"], orphans["count"]) == ("Visit", 1)


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("dayy > 1", "no such column"),
        ("day > date('now')", "non-deterministic"),
        ("random() > 0", "non-deterministic"),
        ("patient IN (SELECT id FROM Patient)", "subqueries"),
        ("day > ", "syntax error"),
        ('day > "2020"', "no such column"),
        ("1) OR (1; DROP TABLE Visit", "expected"),
        ("day > ?", "parameters"),
        ("Visit.day > '2020'", "no such column"),
        ("note IS NOT NULL AND length(note) > unixepoch() - 1e10", "non-deterministic"),
        ("note IS NOT NULL AND day < date('n' || 'ow')", "non-deterministic"),
        ("datetime(day, 'utc') > '2000'", "non-deterministic"),
        ("note ->> 'k' = 1", "malformed JSON"),
    ],
)
def test_a_where_that_is_no_question_to_the_row_is_refused(way: Way, where: str, said: str) -> None:
    file = policy(way, json.dumps({"tables": {"Visit": {"where": where}}}))
    ended = offline(way, "--policy", file)
    assert ended.status == USAGE, ended.said
    assert "where: expected a SQLite predicate" in ended.said
    assert said in ended.said
    assert way.on_sqlite("SELECT count(*) FROM Visit") == [(4,)]


RENAMED = """
rename: snake_case
tables:
  Patient:
    rename: person
    columns:
      fullName: {rename: called}
"""


def test_names_of_the_policys_are_those_of_the_target_and_come_home(way: Way) -> None:
    file = policy(way, RENAMED)
    ended = way.migrate("--policy", file)
    assert ended.status == DONE, ended.said
    assert tables(way) >= {"visit", "person", "tmp_a", "tmp_b", "audit_log"}
    assert way.on_postgres(
        "SELECT called, note, long FROM visit JOIN person ON person.id = patient WHERE visit_id = 2"
    ) == [("Bo", "new", "new!")]
    assert way.on_postgres('SELECT "visitID", "fullName" FROM recent ORDER BY 1')[0] == (1, "Ada")
    assert not [
        f for f in report(way)["findings"] if f["code"] in ("renamed", "names-with-capitals")
    ]
    ended = way.command("switch")
    assert ended.status == DONE, ended.said
    way.on_postgres("INSERT INTO person VALUES (9, 'Di')")
    way.on_postgres("INSERT INTO visit (patient, day, note) VALUES (9, '2026-01-01', 'n')")
    way.on_postgres("UPDATE visit SET note = 'changed' WHERE visit_id = 1")
    way.back()
    assert way.on_sqlite(
        "SELECT fullName, note FROM Visit JOIN Patient ON id = patient "
        "WHERE patient = 9 OR visitID = 1 ORDER BY 1"
    ) == [
        ("Ada", "changed"),
        ("Di", "n"),
    ]


def test_a_choice_of_rows_does_not_go_with_rows_of_the_targets_own(way: Way) -> None:
    way.on_postgres(TARGET)
    wish = {"where": "day > '2020'", "rows": "merge"}
    file = policy(way, json.dumps({"rename": "snake_case", "tables": {"Visit": wish}}))
    ended = offline(way, "--schema", "existing", "--policy", file)
    assert ended.status == USAGE, ended.said
    assert "expected `where` without `rows: merge`" in ended.said


def test_a_virtual_table_that_is_left_out_is_told(way: Way) -> None:
    way.on_sqlite("CREATE VIRTUAL TABLE words USING fts5(b); INSERT INTO words VALUES ('one')")
    ended = offline(way, "--except", "words")
    assert ended.status == DONE, ended.said
    told = report(way)
    assert "words" in {f["table"] for f in told["findings"] if f["code"] == "table-left-out"}
    assert "words" in told["certificate"]["checks"]["partial"]


def test_a_bracket_of_a_pattern_is_a_bracket(way: Way) -> None:
    way.on_sqlite('CREATE TABLE "x[1]" (a); CREATE TABLE x1 (a)')
    ended = offline(way, "--except", "x[1]")
    assert ended.status == DONE, ended.said
    assert "x1" in tables(way)
    assert "x[1]" not in tables(way)


@pytest.mark.parametrize(
    "wish",
    [
        {"rename": "snake_case"},
        {"tables": {"twin": {"columns": {"userId": {"rename": "user_id"}}}}},
        {"tables": {"Patient": {"rename": "twin"}}},
        {"tables": {"Patient": {"rename": "recent"}}},
        {"tables": {"Patient": {"rename": "by_day"}}},
    ],
)
def test_a_new_name_takes_none_that_something_else_has(way: Way, wish: dict[str, Any]) -> None:
    way.on_sqlite("CREATE TABLE twin (userId INTEGER, user_id INTEGER)")
    ended = offline(way, "--policy", policy(way, json.dumps(wish)))
    assert ended.status == USAGE, ended.said
    assert "expected a name that is free on the target" in ended.said


def test_a_child_that_comes_home_without_its_parent_is_told(way: Way) -> None:
    ended = way.migrate("--except", "Patient")
    assert ended.status == DONE, ended.said
    dead = way.folder / "dead.yaml"
    dead.write_text("acknowledge: [table-left-out]")
    ended = way.command("switch", "--policy", dead)
    assert ended.status == DONE, ended.said
    way.on_postgres("""INSERT INTO "Visit" (patient, day) VALUES (99, '2026-01-01')""")
    ended = way.back()
    assert "1 row of table Visit refers to a row of Patient that SQLite does not have" in ended.said


@pytest.mark.parametrize("name", ["", "visit", "x" * 64])
def test_a_name_that_the_target_cannot_have_is_refused(way: Way, name: str) -> None:
    tables = {"Visit": {"rename": "visit"}, "Patient": {"rename": name}}
    ended = offline(way, "--policy", policy(way, json.dumps({"tables": tables})))
    assert ended.status == USAGE, ended.said
    assert "rename: expected a name that is free" in ended.said


def test_live_follows_the_chosen_and_the_switch_waits_for_a_word(way: Way) -> None:
    file = policy(way, WHERE)
    ended = way.migrate("--policy", file, "--except", "tmp_*")
    assert ended.status == DONE, ended.said
    way.on_sqlite("""
        INSERT INTO tmp_a VALUES (9); INSERT INTO Visit (patient, day) VALUES (1, '2024-01-01');
        INSERT INTO Visit (patient, day) VALUES (2, '2001-01-01');
        UPDATE Visit SET day = '2001-01-01' WHERE visitID = 2;
        UPDATE Visit SET day = '2025-01-01' WHERE visitID = 1;
        INSERT INTO audit_log VALUES (2, 'x');
    """)
    ended = way.command("sync", "--once")
    assert ended.status == DONE, ended.said
    rows = 'SELECT "visitID" FROM "Visit" ORDER BY 1'
    assert way.on_postgres(rows) == [(1,), (3,), (8,)]
    ended = way.command("switch")
    assert ended.status == BLOCKED, ended.said
    assert "the application would not have what stays on SQLite: tmp_a (3 rows)" in ended.said
    assert not way.closed()
    dead = way.folder / "dead.yaml"
    dead.write_text("acknowledge: [table-left-out, 'rows-left-out:Visit']")
    ended = way.command("switch", "--policy", dead)
    assert ended.status == USAGE, ended.said
    assert "a new row may have the key of one that has stayed on SQLite" in ended.said
    ended = way.command("switch", "--policy", dead, "--one-way", "Visit")
    assert ended.status == DONE, ended.said
    way.on_postgres("INSERT INTO audit_log VALUES (5, 'there')")
    way.back()
    assert way.on_sqlite("SELECT id FROM audit_log ORDER BY id") == [(1,), (2,), (5,)]
    assert way.on_sqlite("SELECT count(*) FROM Visit") == [(6,)]


SHAPES = {
    "without_rowid": "CREATE TABLE t (a TEXT, n INTEGER, v, PRIMARY KEY (a, n)) WITHOUT ROWID",
    "rowid_alone": "CREATE TABLE t (a TEXT, n INTEGER, v)",
    "a column called rowid": "CREATE TABLE t (rowid TEXT, a TEXT, n INTEGER, v)",
    "alias": 'CREATE TABLE t (a TEXT, n INTEGER, "v" , "the id" INTEGER PRIMARY KEY)',
    "nocase": "CREATE TABLE t (a TEXT COLLATE NOCASE PRIMARY KEY, n INTEGER, v)",
}


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_table_is_read_by_its_chosen_rows(
    way: Way, shape: str, encoding: str
) -> None:
    way.source.unlink()
    way = Way.of(
        way.folder,
        way.dsn,
        f"PRAGMA encoding = '{encoding}'; {SHAPES[shape]};"
        "WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 3000) "
        "INSERT INTO t (a, n, v) SELECT 'ä' || i, i % 7, CASE i % 4 WHEN 0 THEN i WHEN 1 THEN "
        "i / 2.5 WHEN 2 THEN hex(i) ELSE NULL END FROM s;"
        "INSERT INTO t (a, n, v) VALUES ('large', 1, zeroblob(3000000)), ('small', 9, x'00');",
        journal="wal",
    )
    file = policy(way, json.dumps({"tables": {"t": {"where": "n IN (1, 5) AND [a] <> 'ä5'"}}}))
    (wanted,) = way.on_sqlite("SELECT count(*) FROM t WHERE n IN (1, 5) AND a <> 'ä5'")
    ended = way.migrate("--policy", file, "--deep")
    assert ended.status == DONE, ended.said
    assert way.on_postgres("SELECT count(*) FROM t") == [wanted]
    way.on_sqlite(
        "UPDATE t SET n = 1 WHERE a IN ('ä2', 'ä9'); UPDATE t SET n = 2 WHERE a = 'ä1';"
        "DELETE FROM t WHERE a IN ('ä8', 'ä3'); INSERT INTO t (a, n) VALUES ('x', 5), ('y', 6)"
    )
    ended = way.command("sync", "--once")
    assert ended.status == DONE, ended.said
    here = way.on_sqlite("SELECT a FROM t WHERE n IN (1, 5) AND a <> 'ä5' ORDER BY a")
    assert way.on_postgres('SELECT a FROM t ORDER BY a COLLATE "C"') == here
    ended = run(
        *("verify", way.source, "--target", way.dsn, "--report", way.folder / "again", "--deep")
    )
    assert ended.status == DONE, ended.said


def test_a_large_table_is_copied_and_compared_in_parts(way: Way) -> None:
    way.on_sqlite(
        "CREATE TABLE large (id INTEGER PRIMARY KEY, v TEXT);"
        "WITH RECURSIVE s(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM s WHERE i < 400000) "
        "INSERT INTO large SELECT i, 'value ' || i FROM s"
    )
    file = policy(way, json.dumps({"tables": {"large": {"where": "id % 3 = 0"}}}))
    ended = offline(way, "--policy", file, "--only", "large", "--jobs", "4")
    assert ended.status == DONE, ended.said
    assert way.on_postgres("SELECT count(*), max(id) FROM large") == [(133_333, 399_999)]


TARGET = """
CREATE TABLE visit (visit_id serial PRIMARY KEY, patient integer NOT NULL, day date NOT NULL,
    note varchar(40), fee numeric(8, 2), long text);
CREATE TABLE patient (id integer PRIMARY KEY, full_name text NOT NULL);
"""


def test_the_application_s_own_schema_gets_the_chosen_too(way: Way) -> None:
    way.on_postgres(TARGET)
    wish = "rename: snake_case\nexcept: ['tmp_*', audit_log]\n" + WHERE.strip()
    ended = offline(way, "--schema", "existing", "--policy", policy(way, wish))
    assert ended.status == DONE, ended.said
    assert way.on_postgres(
        "SELECT visit_id, full_name FROM visit JOIN patient ON id = patient ORDER BY 1"
    ) == [(2, "Bo"), (3, "Cy")]
    assert "3 tables left out, 2 rows left out" in ended.said


def test_inspect_shows_the_chosen_and_suggests_them_along(way: Way) -> None:
    ended = run("inspect", way.source, "--only", "Visit", "--only", "tmp_a", "--json")
    assert ended.status == DONE, ended.said
    assert {t["source"] for t in json.loads(ended.out)["tables"]} == {"Visit", "tmp_a"}
    ended = run("inspect", way.source, "--except", "tmp_*", "--suggest")
    assert "except:\n- tmp_*" in ended.out
