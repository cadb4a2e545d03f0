"""The policy that is suggested: tried, and enough wherever a policy can be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apsw
import pytest
import yaml

from migration_job.plan import assignment
from migration_job.plan.generous import generously, types_taken
from migration_job.plan.model import Finding, Plan
from migration_job.plan.policy import Policy
from migration_job.plan.suggest import Suggestion, merge, override, suggest
from tests.unit.planning import column_of, database, findings_of, plan_of
from tests.unit.test_preflight import misfits


def suggested(
    path: Path, base: dict[str, Any] | None = None, *, generous: bool = False
) -> Suggestion:
    def planned(policy: Policy) -> Plan:
        return plan_of(path, yaml.safe_dump(policy.model_dump(mode="json", exclude_unset=True)))

    return suggest(planned, plan_of(path, yaml.safe_dump(base or {})), base, generous=generous)


def few_to_quarantine(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr("migration_job.plan.facts.MAX_SINGLED_OUT", most)


def test_it_resolves_everything_and_says_so(tmp_path: Path) -> None:
    path = misfits(tmp_path)
    suggestion = suggested(path, {"default": "block"})
    assert not suggestion.remaining
    assert not plan_of(path, suggestion.text).blocked
    assert "not-json" in suggestion.text
    assert suggestion.text.startswith(
        "## The suggested policy was tried, and the plan goes through with it."
    )


@pytest.mark.parametrize(
    "base", [None, {"tables": {"BIG": {"columns": {"T": {"action": "block"}}}}}]
)
def test_text_with_nul_in_more_rows_than_quarantine_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base: dict[str, Any] | None
) -> None:
    few_to_quarantine(monkeypatch, 2)
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE big(id INTEGER PRIMARY KEY, t TEXT)",
        "INSERT INTO big SELECT value, 'a' || char(0) || value FROM json_each('[1, 2, 3]')",
        "CREATE TABLE ref(id INTEGER PRIMARY KEY, big INTEGER REFERENCES big(id))",
        "INSERT INTO ref VALUES (1, 1)",
    )
    suggestion = suggested(path, base)
    assert not suggestion.remaining, suggestion.text
    plan = plan_of(path, suggestion.text)
    assert column_of(plan, "big", "t").type == "bytea"
    assert plan.table("big").quarantine == ()


def test_a_policy_that_sets_too_many_aside_is_overruled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few_to_quarantine(monkeypatch, 2)
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER)",
        "INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')",
    )
    base = {"tables": {"T": {"columns": {"N": {"action": "quarantine"}}}}}
    suggestion = suggested(path, base)
    assert not suggestion.remaining, suggestion.text
    assert suggestion.data == {"tables": {"T": {"columns": {"N": {"action": "widen"}}}}}


def test_what_no_policy_resolves_is_said(tmp_path: Path) -> None:
    columns = ", ".join(f"c{n} INT" for n in range(1_601))
    path = database(
        tmp_path / "a.db",
        f"CREATE TABLE x({columns})",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT)",
        "INSERT INTO t VALUES (1, 'a' || char(0))",
    )
    suggestion = suggested(path)
    assert [f.code for f in suggestion.remaining] == ["too-many-columns"]
    assert suggestion.verdict == (
        "The suggested policy was tried, and what remains that no policy resolves: "
        "x too-many-columns."
    )
    assert [f.code for f in plan_of(path, suggestion.text).blocked] == ["too-many-columns"]


def test_no_policy_at_all(tmp_path: Path) -> None:
    columns = ", ".join(f"c{n} INT" for n in range(1_601))
    suggestion = suggested(database(tmp_path / "a.db", f"CREATE TABLE x({columns})"))
    assert suggestion.verdict == "No policy resolves what stops this migration: x too-many-columns."


def test_nothing_to_resolve(tmp_path: Path) -> None:
    path = database(tmp_path / "a.db", "CREATE TABLE t(id INTEGER PRIMARY KEY)")
    suggestion = suggested(path)
    assert suggestion.text == "## Nothing stops this migration: no entry is needed.\n"


def test_merge_keeps_and_override_replaces() -> None:
    base = {"tables": {"t": {"action": "block", "acknowledge": ["a"]}}}
    further = {"tables": {"T": {"action": "widen", "acknowledge": ["b", "a"]}}}
    assert merge(base, {"tables": {"t": {"action": "widen"}}}) == base
    assert override(base, further) == {
        "tables": {"t": {"action": "widen", "acknowledge": ["a", "b"]}}
    }
    assert override({"map": {"a": 1}}, {"map": {"A": 2}}) == {"map": {"a": 1, "A": 2}}


HINTS = """
CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER, b BOOLEAN, d DATETIME, e DATETIME, u UUID,
    v, w, s DATETIME, r INTEGER NOT NULL);
"""


def widened(tmp_path: Path) -> Path:
    guids = [bytes.fromhex(f"00112233445506478899aabbccddee{n:02x}") for n in range(20)]
    path = database(tmp_path / "widened.db", HINTS)
    with apsw.Connection(str(path)) as connection:
        connection.executemany(
            "INSERT INTO t VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (
                    n,
                    n or "n/a",
                    "Y" if n % 2 else "N",
                    "2024-01-01 00:00:00" if n else "",
                    45_000 + n / 2,
                    guids[n],
                    n or "4.50",
                    n or "none",
                    "2024-01-01 00:00:00" if n else "tomorrow",
                    n or "",
                )
                for n in range(20)
            ],
        )
    return path


NARROW = {
    "n": ({"map": {"n/a": None}}, "integer"),
    "b": ({"booleans": {True: ["Y"], False: ["N"]}}, "boolean"),
    "d": ({"empty": None}, "timestamp(0) with time zone"),
    "e": ({"epoch": "excel"}, "timestamp with time zone"),
    "u": ({"guid": "dotnet"}, "uuid"),
    "v": ({"type": "numeric"}, "numeric"),
    "w": ({"type": "bigint", "map": {"none": None}}, "bigint"),
    "s": ({"action": "quarantine"}, "timestamp(0) with time zone"),
    "r": ({"action": "quarantine"}, "integer"),
}


def uncommented(text: str) -> str:
    """The policy with every line that is offered as a comment taken."""
    lines = text.splitlines()
    start = next(n for n, line in enumerate(lines) if line in ("tables:", "# tables:"))
    return "\n".join(line.removeprefix("# ") for line in lines[start:])


def test_what_was_widened_is_suggested_under_the_default_too(tmp_path: Path) -> None:
    path = widened(tmp_path)
    assert not plan_of(path).blocked
    suggestion = suggested(path)
    assert suggestion.data == {}
    assert suggestion.hints["tables"]["t"]["columns"] == {c: f for c, (f, _) in NARROW.items()}
    assert plan_of(path, suggestion.text) == plan_of(path), "comments alone"
    plan = plan_of(path, uncommented(suggestion.text))
    assert not plan.blocked
    assert {c: column_of(plan, "t", c).type for c in NARROW} == {
        c: kind for c, (_, kind) in NARROW.items()
    }


def test_hints_stand_beside_the_lines_that_resolve_errors(tmp_path: Path) -> None:
    path = widened(tmp_path)
    suggestion = suggested(path, {"default": "block"})
    assert not suggestion.remaining
    live = yaml.safe_load(suggestion.text)
    assert live["tables"]["t"]["columns"]["b"] == {"action": "widen"}
    assert yaml.safe_load(uncommented(suggestion.text))["tables"]["t"]["columns"]["b"] == {
        "action": "widen",
        "booleans": {True: ["Y"], False: ["N"]},
    }
    resolved = plan_of(path, "default: block\n" + uncommented(suggestion.text))
    assert column_of(resolved, "t", "b").type == "boolean"


def test_nothing_is_suggested_that_does_not_work(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER, b BOOLEAN)",
        "INSERT INTO t VALUES (1, 'a', 'Y'), (2, 'b', 'perhaps'), (3, 1, 'N'), (4, 2, 'N')",
    )
    suggestion = suggested(path)
    assert suggestion.hints == {}
    first, *_ = suggestion.text.splitlines()
    assert first == "## Nothing stops this migration: no entry is needed."
    assert not yaml.safe_load(suggestion.text), "comments alone"


def test_every_warning_has_a_line(tmp_path: Path) -> None:
    """Taken, the lines leave no warning that somebody could acknowledge."""
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER CHECK (n <> 0), b BOOLEAN)",
        "INSERT INTO t VALUES (1, 'a', 'Y'), (2, 'b', 'perhaps'), (3, 1, 'N'), (4, 2, 'N')",
    )
    codes = {f.code for f in plan_of(path).findings if f.severity == "warning"}
    assert {"text-in-integer", "text-in-boolean", "check-not-carried"} <= codes
    lines = suggested(path).text.split("# acknowledge:\n")[1].splitlines()
    policy = "acknowledge:\n" + "\n".join(line.removeprefix("# ") for line in lines)
    assert {f.severity for f in plan_of(path, policy).findings} == {"note"}
    assert not suggested(path, yaml.safe_load(policy)).warnings


def test_what_would_add_an_error_is_not_suggested(tmp_path: Path) -> None:
    """Each suggestion by itself may be right, and the plan with it be stopped: the table's are left
    out then, and the others stay."""
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER)",
        "INSERT INTO t VALUES (1, ''), (2, 7)",
        "CREATE TABLE o(id INTEGER PRIMARY KEY, n INTEGER)",
        "INSERT INTO o VALUES (1, ''), (2, 7)",
    )
    stopped = Finding(code="made-up", severity="error", table="t", message="as if it collided")

    def planned(policy: Policy) -> Plan:
        plan = plan_of(path, yaml.safe_dump(policy.model_dump(mode="json", exclude_unset=True)))
        if "n" not in policy.table("t").columns:
            return plan
        return plan.model_copy(update={"findings": (*plan.findings, stopped)})

    suggestion = suggest(planned, plan_of(path))
    assert suggestion.hints == {"tables": {"o": {"columns": {"n": {"empty": None}}}}}
    assert [f.table for f in suggestion.hinted] == ["o"]


def test_odd_names_keep_their_places_as_comments(tmp_path: Path) -> None:
    name = "x" * 140
    path = database(
        tmp_path / "a.db",
        f'CREATE TABLE "{name}"(id INTEGER PRIMARY KEY, "no: #" INTEGER, "\u2028y" TEXT)',
        f"INSERT INTO \"{name}\" VALUES (1, '', 'a' || char(0)), (2, 1, '')",
    )
    suggestion = suggested(path)
    assert not suggestion.remaining
    assert yaml.safe_load(suggestion.text) == suggestion.data
    both = merge(suggestion.data, suggestion.hints)
    assert any(
        line.startswith("# ") and "empty: null" in line for line in suggestion.text.split("\n")
    )
    assert both["tables"][name]["columns"]["no: #"] == {"empty": None}


def few_at_fault(tmp_path: Path) -> Path:
    """A column that one value retypes and that a CHECK computes with, one that takes a rule, and a
    warning that stays whatever is done."""
    return database(
        tmp_path / "few.db",
        "CREATE TABLE stock(id INTEGER PRIMARY KEY, quantity INTEGER CHECK (quantity >= 0))",
        "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 499) "
        "INSERT INTO stock SELECT i, i FROM n",
        "UPDATE stock SET quantity = 'many' WHERE id = 77",
        "CREATE TABLE item(id INTEGER PRIMARY KEY, b BOOLEAN)",
        "INSERT INTO item VALUES (1, 'Y'), (2, 'N')",
        "CREATE TABLE other(id INTEGER PRIMARY KEY, b BOOLEAN)",
        "INSERT INTO other VALUES (1, 'perhaps'), (2, 'N')",
    )


def offered(text: str) -> list[str]:
    """The blocks that are offered, as they are without the `# `."""
    found = []
    for block in text.split("\n\n"):
        lines = block.splitlines()
        if any(line.startswith("# ") for line in lines):
            found.append("\n".join(line.removeprefix("# ") for line in lines))
    return found


def test_each_block_is_a_policy_and_leaves_no_other_way_open(tmp_path: Path) -> None:
    path = few_at_fault(tmp_path)
    text = suggested(path).text
    labels = [line for line in text.splitlines() if line.startswith(("## Either", "## Or"))]
    assert len(labels) == 2
    either, acknowledged = offered(text)
    assert list(yaml.safe_load(either)) == ["tables"]
    assert list(yaml.safe_load(acknowledged)) == ["acknowledge"]
    entries = yaml.safe_load(acknowledged)["acknowledge"]
    assert set(entries) == {
        *("retyped-for-few:stock.quantity", "text-in-integer:stock.quantity"),
        *("check-not-carried:stock", "text-in-boolean:item.b", "text-in-boolean:other.b"),
    }
    stays = acknowledged.split("## Warnings that stay")[1]
    assert [line for line in stays.splitlines() if line.startswith("- ")] == [
        "- text-in-boolean:other.b"
    ]
    plan = plan_of(path, either)
    assert column_of(plan, "stock", "quantity").type == "integer"
    assert not findings_of(plan, "check-not-carried"), "setting the row aside carries the CHECK"
    assert {f.severity for f in plan_of(path, acknowledged).findings} == {"note"}


def test_whatever_lines_lose_their_mark_the_file_stays_yaml(tmp_path: Path) -> None:
    path = few_at_fault(tmp_path)
    for base in (None, {"default": "block"}, {"acknowledge": ["check-not-carried:stock"]}):
        suggestion = suggested(path, base)
        text = suggestion.text
        assert (yaml.safe_load(text) or {}) == suggestion.data
        everything = "\n".join(line.removeprefix("# ") for line in text.splitlines())
        assert not plan_of(path, everything).blocked
        assert len(yaml.safe_load(everything)["acknowledge"]) >= 1
        keys = [line for line in everything.splitlines() if line[:1].isalpha()]
        assert len(keys) == len(set(keys)), "no key twice"
        for line in text.splitlines():
            assert not line or line.startswith(("## ", "# ")) or line == "##" or base


TYPES = """
CREATE TABLE t(id INTEGER PRIMARY KEY, f TINYINT(1), g BIT, h TINYINT(1), k CHAR(32),
    body_md5 TEXT, l TEXT)
"""


def of_other_types(tmp_path: Path) -> Path:
    uuid = "0123456789abcdef0123456789abcde"
    return database(
        tmp_path / "a.db",
        TYPES,
        *(
            (
                "INSERT INTO t VALUES (?, ?, ?, ?, ?, ?, ?)",
                (n, n % 2, n % 2, n, *[f"{uuid}{n}"] * 3),
            )
            for n in range(3)
        ),
        "UPDATE t SET l = 'other' WHERE id = 2",
    )


def test_truer_types_are_suggested(tmp_path: Path) -> None:
    path = of_other_types(tmp_path)
    plan = plan_of(path)
    found = {f.column: yaml.safe_load(f.suggest) for f in findings_of(plan, "type-suggested")}
    assert {c: f["tables"]["t"]["columns"][c]["type"] for c, f in found.items()} == {
        "f": "boolean",
        "g": "boolean",
        "k": "uuid",
    }
    assert column_of(plan, "t", "k").type == "varchar(32)"
    assert suggested(path).data == {}


@pytest.mark.parametrize(
    "declared",
    [
        *("INTEGER DEFAULT false", "NUMERIC DEFAULT TRUE", "NUMERIC DEFAULT (false)"),
        *("INTEGER CHECK (c IN (0, 1))", "INT CHECK (c IN (1,0) OR c IS NULL)"),
        *("CHECK (c = 0 OR c = 1)", "INTEGER CHECK (c IS NULL OR c IN (0,1)) CHECK (c < 5)"),
    ],
)
def test_what_says_truth_values(declared: str, tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        f"CREATE TABLE t(id INTEGER PRIMARY KEY, c {declared})",
        "INSERT INTO t VALUES (1, 0), (2, 1), (3, NULL)",
    )
    (found,) = findings_of(plan_of(path), "type-suggested")
    assert "type: boolean" in found.suggest
    plan = plan_of(path, "types: generous")
    assert column_of(plan, "t", "c").type == "boolean"
    assert not findings_of(plan, "check-not-carried") + findings_of(plan, "default-not-carried")


@pytest.mark.parametrize(
    "declared",
    ["INTEGER DEFAULT 0", "INTEGER CHECK (c IN (0, 1, 2))", "INT CHECK (c NOT IN (0,1))"],
)
def test_what_says_no_truth_values(declared: str, tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        f"CREATE TABLE t(id INTEGER PRIMARY KEY, c {declared})",
        "INSERT INTO t VALUES (1, NULL)" if "NOT" in declared else "INSERT INTO t VALUES (1, 0)",
    )
    assert not findings_of(plan_of(path), "type-suggested")


def test_no_more_values_are_tried_for_hints_than_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Truth values and UUIDs are told of a column of any size: SQLite says so in one reading."""
    monkeypatch.setattr(assignment, "MOST_TRIED", 5)
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a DATETIME, b DATETIME, c BIT, "
        "e CHAR(32), f CHAR(32))",
        "CREATE TABLE u(id INTEGER PRIMARY KEY, d DATETIME)",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 4) "
        "INSERT INTO t SELECT i, '1970-01-01 00:00:01', '1970-01-01 00:00:01', 1, "
        "lower(hex(randomblob(16))), hex(randomblob(16)) FROM n",
        "INSERT INTO u VALUES (1, '1970-01-01 00:00:01')",
    )
    found = findings_of(plan_of(path), "type-suggested")
    assert [f.column for f in found] == ["a", "c", "e", "f", "d"]


def test_no_more_hints_are_given_than_that(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assignment, "MOST_HINTS", 2)
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a BIT, b BIT, c BIT)",
        "INSERT INTO t VALUES (1, 1, 0, 1)",
    )
    found = findings_of(plan_of(path), "type-suggested")
    assert [f.column for f in found] == ["a", "b"]


def test_documents_in_blobs(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a BLOB, b BLOB, c BLOB UNIQUE, d BLOB, e BLOB)",
        "INSERT INTO t VALUES (1, CAST('{\"k\": 1}' AS BLOB), jsonb('[1]'), CAST('[]' AS BLOB), "
        "x'00ff', CAST('3000' AS BLOB))",
    )
    suggested = findings_of(plan_of(path), "type-suggested")
    assert [(f.column, "type: json" in f.suggest) for f in suggested] == [("a", True), ("b", True)]
    plan = plan_of(path, "types: generous")
    assert [column_of(plan, "t", c).type for c in "abcd"] == ["json", "json", "bytea", "bytea"]


def test_times_of_day_with_a_date_keep_their_type(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, a TIME, b TIME)",
        "INSERT INTO t VALUES (1, '2000-01-01 07:30:00', '2000-01-01 07:30:00'), "
        "(2, '2000-01-01 23:59:59', '2024-05-05 07:30:00')",
    )
    hints = suggested(path).hints["tables"]["t"]["columns"]
    assert list(hints) == ["a"]
    plan = plan_of(path, yaml.safe_dump({"tables": {"t": {"columns": hints}}}))
    rule = column_of(plan, "t", "a").rule
    assert column_of(plan, "t", "a").type == "time(0)"
    assert rule.inverse("06:15:00") == "2000-01-01 06:15:00"
    assert not rule.changes("2000-01-01 07:30:00")


def test_generous_types_are_taken(tmp_path: Path) -> None:
    path = of_other_types(tmp_path)
    suggestion = suggested(path, generous=True)
    plan = plan_of(path, suggestion.text)
    assert [column_of(plan, "t", c).type for c in "fghkl"] == [
        "boolean",
        "boolean",
        "integer",
        "uuid",
        "text",
    ]
    assert not findings_of(plan, "type-suggested")


def test_durations_from_1970_are_no_moments_without_a_finding(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE f(id INTEGER PRIMARY KEY, r DATETIME DEFAULT '1970-01-01 00:00:00.000000', "
        "at DATETIME)",
        "INSERT INTO f VALUES (1, '1970-01-01 00:00:01.250000', '1970-01-01 00:00:00'), "
        "(2, '1970-01-02 00:00:00.000000', '2024-01-01 00:00:00')",
    )
    (found,) = findings_of(plan_of(path), "type-suggested")
    assert (found.column, "durations" in found.message) == ("r", True)
    plan = plan_of(path, "types: generous")
    assert column_of(plan, "f", "r").type == "interval"
    assert column_of(plan, "f", "at").type == "timestamp(0) with time zone"


def test_a_generous_plan_takes_them_and_says_so(tmp_path: Path) -> None:
    plan = plan_of(of_other_types(tmp_path), "types: generous")
    taken = {f.column: f for f in findings_of(plan, "type-taken")}
    assert {c: column_of(plan, "t", str(c)).type for c in taken} == {
        "f": "boolean", "g": "boolean", "k": "uuid"
    }  # fmt: skip
    assert not findings_of(plan, "type-suggested")
    assert types_taken(plan) == "t.f to boolean, t.g to boolean, t.k to uuid"
    assert all(f.severity == "note" and not f.suggest for f in taken.values())


def test_a_generous_plan_leaves_what_the_policy_says(tmp_path: Path) -> None:
    policy = "types: generous\ntables: {t: {columns: {f: {type: smallint}}}}"
    plan = plan_of(of_other_types(tmp_path), policy)
    assert column_of(plan, "t", "f").type == "smallint"
    assert [f.column for f in findings_of(plan, "type-taken")] == ["g", "k"]


def test_a_generous_plan_takes_nothing_that_would_stop_it(tmp_path: Path) -> None:
    plan = plan_of(of_other_types(tmp_path))
    stopped = Finding(code="made-up", severity="error", table="t", message="as if it collided")

    def planned(policy: Policy) -> Plan:
        more = (stopped,) if policy.tables else ()
        return plan.model_copy(update={"findings": (*plan.findings, *more)})

    assert generously(planned, Policy()).findings == plan.findings


@pytest.mark.parametrize(
    ("check", "becomes"),
    [
        ("json_valid(x)", "json"),
        ("(JSON_VALID([x]) OR x IS NULL)", "json"),
        ("x IS NULL OR json_valid(x)", "json"),
        ("json_valid(x) AND json_type(x) = 'array'", "json"),
        ("json_valid(y)", "text"),
        ("json_valid(x) OR x = 'none'", "text"),
        ("NOT json_valid(x)", "text"),
        ("json_valid(x, 6)", "text"),
    ],
)
def test_a_check_of_json_makes_the_column_json(tmp_path: Path, check: str, becomes: str) -> None:
    path = database(
        tmp_path / "a.db",
        f"CREATE TABLE t(id INTEGER PRIMARY KEY, x TEXT, y TEXT, CHECK ({check}))",
        "PRAGMA ignore_check_constraints = ON",
        "INSERT INTO t VALUES (1, '[1]', '[]'), (2, NULL, NULL)",
    )
    assert column_of(plan_of(path), "t", "x").type == becomes


def test_a_check_of_json_that_values_break_makes_no_error(tmp_path: Path) -> None:
    path = database(
        tmp_path / "a.db",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, x TEXT CHECK (json_valid(x)))",
        "PRAGMA ignore_check_constraints = ON",
        "INSERT INTO t VALUES (1, '[1]'), (2, 'broken')",
    )
    plan = plan_of(path)
    assert column_of(plan, "t", "x").type == "text"
    assert not plan.blocked
