"""What preflight finds in the values, and that what it proposes resolves it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw
import pytest
import yaml

from migration_job.plan.bad_text import BLOCK_ROWS, LARGE_VALUE
from migration_job.plan.observe import Observer
from migration_job.plan.planner import make_plan
from migration_job.plan.policy import parse_policy
from migration_job.plan.rules import MapRule
from migration_job.plan.suggest import merge, override
from migration_job.stores.sqlite.catalogue import read_catalogue
from migration_job.stores.sqlite.database import reading
from migration_job.values import BrokenText
from tests.unit.planning import column_of, database, findings_of, plan_of


def bad_text(tmp_path: Path, encoding: str = "UTF-8") -> Path:
    broken = {"UTF-8": "ff41", "UTF-16le": "00d84100"}[encoding]
    return database(
        tmp_path / "a.db",
        f"PRAGMA encoding = '{encoding}'",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT, w TEXT)",
        ("INSERT INTO t VALUES (1, ?, 'é')", ("a\x00b",)),
        f"INSERT INTO t VALUES (2, CAST(x'{broken}' AS TEXT), 'x')",
        "INSERT INTO t VALUES (3, 'fine', 'y')",
    )


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le"])
def test_bad_text_stops_the_run(tmp_path: Path, encoding: str) -> None:
    plan = plan_of(bad_text(tmp_path, encoding))
    assert [(f.code, f.count) for f in plan.blocked] == [
        ("nul-in-text", 1),
        ("undecodable-text", 1),
    ]
    assert not column_of(plan, "t", "v").clean
    assert column_of(plan, "t", "w").clean


def test_bad_text_to_quarantine_or_to_bytes(tmp_path: Path) -> None:
    path = bad_text(tmp_path)
    aside = plan_of(path, "default: quarantine")
    assert aside.table("t").quarantine == ('t."id" IN (1)', 't."id" IN (2)')
    assert column_of(aside, "t", "v").type == "text"
    for policy in ("action: widen", "type: bytea"):
        kept = plan_of(path, f"tables: {{t: {{columns: {{v: {{{policy}}}}}}}}}")
        assert not kept.blocked
        column = column_of(kept, "t", "v")
        assert (column.type, kept.table("t").quarantine) == ("bytea", ())
        assert column.rule.forward(BrokenText(b"\xffA")) == "\\xff41"
        assert column.rule.changes("fine"), "its storage class changes, so the ledger has it"


def test_a_pattern_mends_bad_text(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db", "CREATE TABLE t(v TEXT)", ("INSERT INTO t VALUES (?)", ("a\x00b",))
    )
    policy = yaml.safe_dump(
        {
            "tables": {
                "t": {
                    "columns": {"v": {"pattern": [{"match": "(.*)\x00(.*)", "replace": r"\1\2"}]}}
                }
            }
        }
    )
    plan = plan_of(path, policy)
    assert not plan.blocked
    rule = column_of(plan, "t", "v").rule
    assert rule.forward("a\x00b") == "ab"
    assert rule.changes("a\x00b")


@pytest.mark.parametrize("without", ["", " WITHOUT ROWID"])
def test_the_one_bad_value_among_many_blocks(tmp_path: Path, without: str) -> None:
    path = tmp_path / "a.db"
    connection = apsw.Connection(str(path))
    connection.execute(f"CREATE TABLE t(id INTEGER NOT NULL PRIMARY KEY, a TEXT, b TEXT){without}")
    count = BLOCK_ROWS * 3
    with connection:
        connection.executemany(
            "INSERT INTO t VALUES (?, ?, ?)",
            ((i * 1_000_003 - 2**40, f"äöü {i}", "x" * (i % 50)) for i in range(count)),
        )
        # Each half is invalid by itself; side by side they would be an 'é'.
        connection.execute(
            "UPDATE t SET a = CAST(x'c3' AS TEXT), b = CAST(x'a9' AS TEXT) WHERE id = ?",
            ((count // 2) * 1_000_003 - 2**40,),
        )
    connection.close()
    plan = plan_of(path)
    assert [(f.column, f.code, f.count) for f in plan.blocked] == [
        ("a", "undecodable-text", 1),
        ("b", "undecodable-text", 1),
    ]
    assert f"id={(count // 2) * 1_000_003 - 2**40}" in plan.blocked[0].keys[0]


def test_large_text_is_looked_at_in_pieces(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)")
    long = "é" * LARGE_VALUE
    connection.execute("INSERT INTO t VALUES (1, ?), (2, ?)", (long, long + "\x00"))
    connection.execute("INSERT INTO t VALUES (3, CAST(? AS TEXT))", (long.encode()[:-1],))
    connection.execute("INSERT INTO t VALUES (-9223372036854775808, 'lowest')")
    connection.close()
    plan = plan_of(path)
    assert [(f.code, f.keys[0].split(":")[0]) for f in plan.blocked] == [
        ("nul-in-text", "id=2"),
        ("undecodable-text", "id=3"),
    ]


def test_identifiers_that_became_numbers(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE t(id UUID, name STRING)",
        "INSERT INTO t VALUES ('12345678901234567890123456789012', '007'), ('1e999', 'x')",
    )
    plan = plan_of(path)
    assert [f.code for f in plan.blocked] == ["identifier-became-number"]
    assert findings_of(plan, "numeric-affinity")[0].column == "name"
    resolved = plan_of(path, plan.blocked[0].resolution)
    assert not resolved.blocked
    # Both are reals, and a double holds each of them exactly.
    assert column_of(resolved, "t", "id").type == "double precision"


def misfits(tmp_path: Path) -> Path:
    return database(
        tmp_path / "a.db",
        "CREATE TABLE p(id TEXT PRIMARY KEY)",
        """CREATE TABLE t(id INTEGER PRIMARY KEY, a INTEGER NOT NULL, b VARCHAR(3), c DECIMAL(4,1),
            d DATETIME, e JSON, f BOOLEAN, g UUID, h BLOB, i TEXT REFERENCES p, j TEXT,
            CHECK (strftime('%Y', j) IS NOT 5))""",
        """INSERT INTO t VALUES (1, 1, 'a', 1.5, '2024-01-01 00:00:00', '{}', 1, NULL, x'', NULL,
            '')""",
        """INSERT INTO t VALUES (2, 'x', 'toolong', 1.25, 'soon', '{', 7, 'zz', 'text', 'gone',
            CAST(x'ff' AS TEXT))""",
    )


def test_every_misfit_is_an_error_under_block_and_resolved_by_its_own_lines(tmp_path: Path) -> None:
    path = misfits(tmp_path)
    blocked = plan_of(path, "default: block").blocked
    assert {f.code for f in blocked} == {
        "text-in-integer",
        "too-long",
        "does-not-fit",
        "not-a-time",
        "not-json",
        "not-a-boolean",
        "not-a-uuid",
        "text-in-blob",
        "orphans",
        "undecodable-text",
        "check-not-carried",
    }
    for finding in blocked:
        assert finding.resolution, finding.code
        policy = yaml.safe_dump(merge({"default": "block"}, yaml.safe_load(finding.resolution)))
        left = [(f.code, f.table, f.column) for f in plan_of(path, policy).blocked]
        assert (finding.code, finding.table, finding.column) not in left
        assert len(left) == len(blocked) - 1


def test_quarantine_takes_only_the_rows_at_fault(tmp_path: Path) -> None:
    plan = plan_of(misfits(tmp_path), "default: quarantine")
    assert plan.table("t").quarantine == ('t."id" IN (2)',)
    types = {c.source: c.type for c in plan.table("t").columns}
    assert types["a"] == "integer"
    assert types["d"] == "timestamp(0) with time zone"
    assert types["e"] == "json"


def test_quarantine_by_key_where_there_is_no_rowid(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE t(k TEXT, l, v INTEGER, PRIMARY KEY (k, l)) WITHOUT ROWID",
        ("INSERT INTO t VALUES (?, 1.5, 'x'), ('ok', x'00', 1)", ("it's\x00",)),
        "INSERT INTO t VALUES (CAST(x'ff' AS TEXT), 2, 1)",
    )
    plan = plan_of(path, "default: quarantine")
    predicate = " OR ".join(f"({p})" for p in plan.table("t").quarantine)
    assert len(plan.table("t").reasons) == len(plan.table("t").quarantine) == 2
    with apsw.Connection(str(path)) as connection:
        kept = connection.execute(f"SELECT v FROM t WHERE NOT ({predicate})").fetchall()
    assert kept == [(1,)]


def test_maps(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a INTEGER, b BOOLEAN, c DATETIME, d INT, e TEXT)",
        "INSERT INTO t VALUES (1, 'hard', 'yes', 100, '', 'x'), (2, 3, 'no', 200, 5, '')",
    )
    policy = """
    default: block
    tables:
      t:
        columns:
          a: {action: map, map: {hard: 4}}
          b: {action: map, booleans: {true: ["yes"], false: ["no"]}}
          c: {epoch: s}
          d: {action: map, empty: null}
          e: {action: map, pattern: [{match: "x(.*)", replace: 'y\\1'}], empty: "-"}
    """
    plan = plan_of(path, policy)
    assert not plan.blocked
    forward = {c.source: c.rule.forward for c in plan.table("t").columns}
    assert forward["a"]("hard") == "4"
    assert (forward["b"]("yes"), forward["b"]("no")) == ("t", "f")
    assert forward["c"](100) == "1970-01-01 00:01:40+00"
    assert forward["d"]("") is None
    assert (forward["e"]("x1"), forward["e"]("")) == ("y1", "-")
    types = {c.source: c.type for c in plan.table("t").columns}
    assert (types["b"], types["c"]) == ("boolean", "timestamp(0) with time zone")


def test_a_map_that_does_not_meet_every_value_stops(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db", "CREATE TABLE t(a INTEGER)", "INSERT INTO t VALUES ('hard'), ('soft')"
    )
    policy = "tables: {t: {columns: {a: {action: map, map: {hard: 4}}}}}"
    blocked = plan_of(path, policy).blocked
    assert [(f.code, f.count) for f in blocked] == [("text-in-integer", 1)]
    assert "map" in blocked[0].message


def test_a_mapped_key_stays_a_key_only_where_it_stays_distinct(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE t(id TEXT PRIMARY KEY)",
        "INSERT INTO t VALUES ('system'), ('other')",
    )

    def key(target: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        table = plan_of(
            path, f"tables: {{t: {{columns: {{id: {{map: {{system: {target}}}}}}}}}}}"
        ).table("t")
        rule = table.columns[0].rule
        assert isinstance(rule, MapRule)
        assert rule.bijective == bool(table.key)
        return table.key, table.primary_key

    assert key("fresh") == (("id",), ("id",))
    assert key("other") == ((), ())


def test_nulls_where_none_are_declared(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT)",
        "INSERT INTO t VALUES (1, NULL), (2, 'x')",
        "PRAGMA writable_schema = 1",
        "UPDATE sqlite_schema SET sql = replace(sql, 'a TEXT', 'a TEXT NOT NULL')",
    )
    plan = plan_of(path)
    assert not column_of(plan, "t", "a").not_null
    assert findings_of(plan, "null-in-not-null")[0].count == 1
    blocked = plan_of(path, "default: block").blocked
    assert [f.code for f in blocked] == ["null-in-not-null"]
    assert not plan_of(path, "default: block\n" + blocked[0].resolution).blocked
    aside = plan_of(path, "default: quarantine")
    assert column_of(aside, "t", "a").not_null
    assert aside.table("t").quarantine == ('t."id" IN (1)',)


def test_dependents_follow_through_cycles(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE a(id INTEGER PRIMARY KEY, v INTEGER, b INTEGER REFERENCES b)",
        "CREATE TABLE b(id INTEGER PRIMARY KEY, a INTEGER REFERENCES a)",
        "INSERT INTO a VALUES (1, 'bad', 1), (2, 1, 2), (3, 1, 1), (4, 1, NULL)",
        "INSERT INTO b VALUES (1, 1), (2, 3), (3, 4)",
    )
    plan = plan_of(path, "default: quarantine")
    assert plan.table("a").quarantine == ('t."id" IN (2, 3)', 't."id" IN (1)')
    assert plan.table("b").quarantine == ('t."id" IN (1, 2)',)


def test_quarantine_is_for_a_few_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("migration_job.plan.facts.MAX_SINGLED_OUT", 3)
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE p(id INTEGER PRIMARY KEY)",
        "CREATE TABLE c(p INTEGER REFERENCES p, v INTEGER)",
        "INSERT INTO c VALUES (1, 1), (2, 1), (3, 1), (4, 'a'), (5, 'b')",
    )
    assert not findings_of(plan_of(path, "orphans: keep\ndefault: quarantine"), "too-many-rows")
    blocked = plan_of(path, "default: quarantine").blocked
    assert [f.code for f in blocked] == ["too-many-rows"]
    policy = yaml.safe_dump(merge({"default": "quarantine"}, yaml.safe_load(blocked[0].resolution)))
    assert not plan_of(path, policy).blocked


def test_a_column_set_aside_is_widened_where_its_nulls_are_too_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The column's own `quarantine` would win over the table's `widen`."""
    monkeypatch.setattr("migration_job.plan.facts.MAX_SINGLED_OUT", 1)
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v INTEGER)",
        "INSERT INTO t VALUES (1, NULL), (2, NULL)",
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_schema SET sql = replace(sql, 'v INTEGER', 'v INTEGER NOT NULL')",
    )
    aside: dict[str, Any] = {"tables": {"t": {"columns": {"v": {"action": "quarantine"}}}}}
    blocked = plan_of(path, yaml.safe_dump(aside)).blocked
    assert [f.code for f in blocked] == ["too-many-rows"]
    policy = yaml.safe_dump(override(aside, yaml.safe_load(blocked[0].resolution)))
    assert not plan_of(path, policy).blocked


@pytest.mark.parametrize("without", ["", " WITHOUT ROWID"])
def test_a_table_that_is_looked_at_in_parts_is_no_other_table(
    without: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large tables are looked at by several connections, each at a range of rowids."""
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, i, r REAL, s TEXT, d DATETIME, n INT, b BLOB, "
        f"g AS (id * 2)){without}",
        "CREATE TABLE u(id INTEGER PRIMARY KEY AUTOINCREMENT, i INTEGER, r REAL, s TEXT, m)",
        "WITH RECURSIVE c(x) AS (SELECT -9 UNION ALL SELECT x + 1 FROM c WHERE x < 300) "
        "INSERT INTO t(id, i, r, s, d, n, b) SELECT x, iif(x % 50, x, 'text ' || x), x / 7.0, "
        "iif(x % 60, 'ab', 'a' || char(0)), iif(x % 40, '2025-01-02 03:04:05', 'soon'), "
        "iif(x % 70, NULL, x * 10000000000), zeroblob(x + 9) FROM c",
        "INSERT INTO u(id, i, r, s, m) SELECT (id + 10) * 11, id, r, s, iif(id = 250, 1.5, id) "
        "FROM t",
        f"INSERT INTO u(s) VALUES (CAST(x'61ff' AS TEXT)), (hex(zeroblob({LARGE_VALUE})))",
        f"INSERT INTO u(s) VALUES (hex(zeroblob({LARGE_VALUE})) || char(0))",
    )
    policy = parse_policy("default: quarantine")
    with reading(path) as one, reading(path) as other:
        catalogue = read_catalogue(one)
        whole = make_plan(one, catalogue, policy=policy)
        monkeypatch.setattr("migration_job.plan.observe.CELLS_AT_ONCE", 10)
        table, observer = catalogue.table("u"), Observer(one, catalogue)
        _, bounds = observer.sample(table)
        assert len(observer.spans(table, bounds, 6)) == 6
        parts = make_plan(one, catalogue, policy=policy, others=[other])
    assert parts.model_dump() == whole.model_dump()
    assert {"nul-in-text", "undecodable-text"} <= {f.code for f in whole.findings}
