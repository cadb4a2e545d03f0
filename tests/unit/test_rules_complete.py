"""Every part of the job that has to know of every rule does: a new rule that one of them lacks
fails here by the rule's and the part's name."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import get_args

import pytest
import sqlglot
from sqlglot import exp

from migration_job.plan import added, choose, expression_parts, profile_sql, relations
from migration_job.plan.defaults import translate_default
from migration_job.plan.expression_parts import Untranslatable
from migration_job.plan.facts import ColumnFacts
from migration_job.plan.model import ColumnPlan, Plan
from migration_job.plan.rowsize import row_bytes
from migration_job.plan.rules import (
    OWNERS,
    RULES,
    TARGETS,
    CannotCarry,
    ConstantRule,
    Kind,
    MapRule,
    Request,
    RuleBase,
    StorageClass,
    TargetType,
    base_of,
)
from migration_job.stores.postgres.copytext import field_sql
from migration_job.stores.sqlite.model import SourceColumn
from migration_job.values import SourceValue
from migration_job.verify import digest_lines, meaning, typed_large
from tests.helpers import missing

ROOT = Path(__file__).resolve().parents[2]
EACH = missing([])
"""Each rule but maps and the columns without a source, as it is without options."""

each_rule = pytest.mark.parametrize("rule", EACH, ids=lambda rule: rule.kind)
each_class = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
each_type = pytest.mark.parametrize("target", TARGETS.values(), ids=lambda target: target.name)

LONG: dict[StorageClass, SourceValue] = {
    "text": "x" * 500, "blob": b"x" * 500, "integer": 7, "real": 1.5
}  # fmt: skip
VALUES: list[SourceValue] = [
    *LONG.values(), 0, 1, -5, "a\\b", "tab\t", "1", "{}", "[]", f'{{"a": "\\n{"x" * 500}"}}',
    b"", b"\\",
]  # fmt: skip


def carried(rule: RuleBase) -> list[tuple[SourceValue, str]]:
    """Values that the rule carries, with their texts; those that a new row may have among them."""
    target = TARGETS[base_of(rule.target_type)]
    found = []
    for value in (*map(rule.inverse, target.natural), *VALUES):
        try:
            text = rule.forward(value)
        except CannotCarry:
            continue
        if text is not None:
            found.append((value, text))
    return found


def sized(form: str) -> str:
    """A type as a policy may ask for it, with numbers for its letters."""
    return form.replace("(n)", "(3)").replace("(p,s)", "(8,2)")


def column(declared: str, default: str | None = None) -> SourceColumn:
    return SourceColumn(
        name="c", declared=declared, affinity="text", not_null=False, default=default,
        primary_key=0, generated="",
    )  # fmt: skip


# --------------------------------------------------------------------------------------- the rule


@each_rule
def test_it_says_what_it_carries(rule: RuleBase) -> None:
    assert rule.doc.endswith(".")
    assert carried(rule), "give its type a value in `natural`"


@each_type
def test_what_a_new_row_may_have_comes_back(target: TargetType) -> None:
    rule = OWNERS[target.name].asked(Request(ColumnFacts(), "text", target.name))
    assert target.natural
    for text in target.natural:
        assert rule.forward(rule.inverse(text)) == text


# --------------------------------------------------------------------------------------- the plan


@each_type
def test_choose_grants_each_type_by_all_its_names(target: TargetType) -> None:
    for form in (*(target.forms or (target.name,)), *target.words):
        rule = choose.for_type(sized(form), column("TEXT"), ColumnFacts(), "UTC")
        assert base_of(rule.target_type) == target.name


@each_class
def test_choose_knows_what_declared_types_ask_for(rule: type[RuleBase]) -> None:
    for word in rule.declared | rule.declared_first:
        assert type(choose.wished(column(word), ColumnFacts(), "UTC")) is rule


@each_type
def test_expressions_know_how_to_meet_each_type(target: TargetType) -> None:
    assert target.kind in get_args(Kind)
    assert expression_parts.kind_of(target.name) == target.kind


@each_rule
def test_decide_has_documented_findings(rule: RuleBase) -> None:
    page = (ROOT / "docs" / "policy.md").read_text(encoding="utf-8")
    assert f"`{rule.misfit}`" in page
    assert re.fullmatch("[a-z]+(-[a-z]+)*", rule.word or rule.kind)


@each_rule
def test_relations_have_an_answer_for_each_pair(rule: RuleBase) -> None:
    for other in EACH:
        for left, right in ((rule, other), (other, rule)):
            ends = dict(relations.common(left, right, {"text"}))
            if ends:
                agreed = ends.get("child", left), ends.get("parent", right)
                assert agreed[0].target_type == agreed[1].target_type


@each_rule
def test_defaults_are_translated_or_refused(rule: RuleBase) -> None:
    for default in ("'x'", "7", "CURRENT_TIMESTAMP", "(lower(hex(randomblob(16))))"):
        with contextlib.suppress(Untranslatable):
            assert translate_default(column("TEXT", default), rule)


@each_type
def test_a_profile_may_wish_for_each_type(target: TargetType) -> None:
    for form in target.forms or (target.name,):
        made = sqlglot.parse_one(f"CREATE TABLE t(c {sized(form)})", read="postgres")
        kind = made.find(exp.DataType)
        assert kind is not None
        assert choose.split_type(profile_sql._type(kind))[0] == target.name


@each_type
def test_a_column_of_each_type_may_be_added_on_the_target(target: TargetType) -> None:
    found = added.rule_of(target.name, Plan(profile="none", encoding="UTF-8", tables=()))
    assert found is not None
    rule, type_sql, declared = found
    assert isinstance(rule, OWNERS[target.name])
    assert (base_of(type_sql), declared) == (target.name, target.declared)


@each_rule
def test_rows_have_a_size_with_it(rule: RuleBase) -> None:
    for value, _ in carried(rule):
        assert row_bytes((value,), [rule]) > 0


# ------------------------------------------------------------------------------------- the copier


@each_rule
def test_the_copier_may_believe_it(rule: RuleBase) -> None:
    assert (rule.fast_sql("c") is None) == (rule.fast_condition("c") is None)
    assert (field_sql(rule, "c") is None) == (rule.fast_sql("c") is None)
    for value, text in carried(rule):
        assert not rule.no_escapes or not set(text) & set("\\\t\n\r")
        assert rule.bytea == text.startswith("\\x")
        assert rule.unbounded or len(text) < 100, "a value as long as that asks for `unbounded`"
        if rule.streamed == "text" and isinstance(value, str):
            assert text == value
        if rule.streamed == "blob" and isinstance(value, bytes):
            assert text == "\\x" + value.hex()


# ----------------------------------------------------------------------------------- the verifier


@each_class
def test_the_typed_comparison_reads_it(rule: type[RuleBase]) -> None:
    if rule is not MapRule:
        kind = rule.model_fields["kind"].default
        assert kind in meaning._SOURCE
        assert kind in meaning._TARGET


@each_class
def test_the_typed_comparison_weighs_and_streams_it(rule: type[RuleBase]) -> None:
    kind = rule.model_fields["kind"].default
    assert (kind in typed_large.UNBOUNDED) == rule.unbounded
    if rule.streamed is not None:
        pieces = typed_large.BLOBS if rule.streamed == "blob" else typed_large.TEXTS
        assert kind in pieces | typed_large.WHOLE


@each_rule
def test_the_digest_spells_it_or_the_typed_comparison_does(rule: RuleBase) -> None:
    """What the digest's SQL cannot spell has to have a meaning, which is compared instead."""
    own = ColumnPlan(source="c", target="c", type=rule.target_type, rule=rule)
    spelled = digest_lines.spelling(own, '"c"')
    if spelled is None:
        assert rule.kind in meaning._SOURCE
    else:
        assert all(spelled)


def test_columns_without_a_source_have_no_type_of_their_own() -> None:
    with pytest.raises(AssertionError, match="profile"):
        assert ConstantRule().target_type
