"""The policy file: what it accepts, and how it says what it does not."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from migration_job.errors import ExitStatus, InputError
from migration_job.plan import assignment
from migration_job.plan.policy import (
    ColumnPolicy,
    Policy,
    TablePolicy,
    load_policy,
    parse_policy,
)
from migration_job.plan.rules import Entry
from tests.unit.planning import database, plan_of


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("default: map", 1, "expected one of 'widen', 'quarantine' or 'block', found 'map'"),
        ("tables:\n  t:\n    columns:\n      c: {action: ignore}", 4, "found 'ignore'"),
        ("tables:\n  t:\n    columnz: {}", 3, "tables.t.columnz: there is no such field"),
        ("zone: Mars/Olympus", 1, "expected a time zone such as 'UTC'"),
        ("a: 1\nb: [", 2, "no valid YAML"),
        ("- 1", 1, "expected a mapping, found list"),
        ("tables:\n  t: {}\n  t: {}", 3, "given twice"),
        ("tables:\n  t:\n    columns:\n      c:\n        map: {x: [1]}", 5, "found [1]"),
        ("tables:\n  t:\n    columns:\n      c: {epoch: minutes}", 4, "'s', 'ms', 'us'"),
    ],
)
def test_mistakes_are_named_with_their_line(text: str, line: int, words: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_policy(text, name="policy.yaml")
    assert f"policy.yaml line {line}" in caught.value.message
    assert words in caught.value.message
    assert caught.value.status == ExitStatus.USAGE


def test_names_that_the_source_does_not_have(tmp_path: Path) -> None:
    path = database(tmp_path / "a.db", "CREATE TABLE cases(title)")
    with pytest.raises(InputError, match="did you mean cases"):
        plan_of(path, "tables: {case: {}}")
    with pytest.raises(InputError, match="did you mean title"):
        plan_of(path, "tables: {CASES: {columns: {titel: {}}}}")


def test_a_type_that_is_not_known_is_refused(tmp_path: Path) -> None:
    path = database(tmp_path / "a.db", "CREATE TABLE t(a REAL)")
    for type_ in ("xml", "money", "bytea[]"):
        with pytest.raises(InputError, match="expected one of the types"):
            plan_of(path, f"tables: {{t: {{columns: {{a: {{type: '{type_}'}}}}}}}}")


def test_values_keep_their_types() -> None:
    policy = parse_policy(
        "tables: {T: {columns: {C: {map: {1: 2, 2.5: a, ~: 0, '1': x}, empty: null,"
        " booleans: {true: ['yes', 1], false: []}}}}}"
    )
    assert policy.column("t", "c").entries == (
        Entry(source=1, target=2),
        Entry(source=2.5, target="a"),
        Entry(source=None, target=0),
        Entry(source="1", target="x"),
        Entry(source="yes", target=1),
        Entry(source=1, target=1),
        Entry(source="", target=None),
    )


def test_an_empty_file_is_an_empty_policy(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("# nothing\n")
    assert load_policy(file).default is None
    with pytest.raises(InputError, match="cannot be read"):
        load_policy(tmp_path / "none.yaml")


def test_acknowledgement_by_code_by_object_and_by_place() -> None:
    policy = parse_policy(
        "acknowledge: [trigger-not-carried, 'view-not-carried:V1']\n"
        "tables: {t: {acknowledge: [check-not-carried], columns: {c: {acknowledge: [renamed]}}}}"
    )
    assert policy.accepts("trigger-not-carried", "any", None, "tr")
    assert policy.accepts("view-not-carried", "v1", None, "v1")
    assert not policy.accepts("view-not-carried", "v2", None, "v2")
    assert policy.accepts("check-not-carried", "T", None, "t.1")
    assert policy.accepts("renamed", "t", "c", None)
    assert not policy.accepts("renamed", "t", "d", None)


def codes_in_the_source() -> set[str]:
    """Every finding's code that the plan's modules write down."""
    found: set[str] = set()
    for file in Path(assignment.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", "") or getattr(node.func, "id", "")
                found |= {
                    a.value
                    for a in node.args[:3]
                    if name in ("add", "_not_carried", "_judge_constraint", "Misfit")
                    and isinstance(a, ast.Constant)
                    and isinstance(a.value, str)
                    and re.fullmatch(r"[a-z]+(-[a-z]+)*", a.value)
                }
    return found - {"error", "warning", "note", "by-action"}


def test_every_finding_is_in_the_reference() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "policy.md").read_text()
    codes = codes_in_the_source()
    assert len(codes) > 25
    assert {c for c in codes if f"`{c}`" not in page} == set()


def test_the_policy_of_the_reference_is_one() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "policy.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    policy = parse_policy(example)
    assert policy.column("cases", "seen_at").epoch == "ms"
    for part in (Policy, TablePolicy, ColumnPolicy):
        words = {field.alias or name for name, field in part.model_fields.items()}
        assert {word for word in words if f"`{word}`" not in page} <= {
            "tables",
            "columns",
        }
