"""The typed comparison's own reading of values, against the rules that it must not know."""

from __future__ import annotations

import random

import apsw
import pytest

from migration_job.plan import rules
from migration_job.plan.model import ColumnPlan
from migration_job.values import SourceValue, same
from migration_job.verify import meaning, typed_bags
from tests.helpers import missing, natural_values

KINDS = {rule.model_fields["kind"].default for rule in rules.RULES}


def _column(rule: rules.Rule, type_: str = "text") -> ColumnPlan:
    return ColumnPlan(source="c", target="c", type=type_, rule=rule)


def test_every_kind_of_rule_is_known() -> None:
    assert KINDS - {"map"} == set(meaning._SOURCE) == set(meaning._TARGET)


SEED = 99

VALUES: list[SourceValue] = [
    None, 0, 1, -1, 2, 127, 2**31 - 1, 2**31, -(2**63), 2**63 - 1, 1_700_000_000, 1_700_000_000_123,
    0.0, -0.0, 0.1, 1.5, 1 / 3, 1e15, 1e22, 5e-324, 1.7976931348623157e308, -2.5, 100.0,
    float("inf"), -float("inf"), 2460000.5, "", "a", " ", "\\N", "a\tb\n", "ä€😀", "0", "1", "01",
    "-5", "1.0", "true", "null", "{}", '{"a": 1}', '{"b":1,"a":2}', '{"a":1,"a":2}', "[1, 2.50]",
    "2024-02-29", "2023-02-29", "2024-02-29 12:34:56", "2024-02-29T12:34:56Z", "0001-01-01",
    "2024-02-29 12:34:56.789", "2024-02-29 12:34:56.7890001", "2024-03-31 02:30:00",
    "2024-10-27 02:30:00", "9999-12-31 23:59:59", "0000-01-01 00:00:00", "12:34:56", "24:00:00",
    "2024-02-29T12:34:56+02:00", "c7a1f0de-1b2c-4d3e-8f90-a1b2c3d4e5f6",
    "C7A1F0DE-1B2C-4D3E-8F90-A1B2C3D4E5F6", "c7a1f0de1b2c4d3e8f90a1b2c3d4e5f6", "system",
    b"", b"\x00", b"a", b"\xff\xfe", bytes(range(16)), b"\xff" * 16,
    "-12.50", "0.05", "-0.00",
    "10.0.0.7", "2001:db8::1", "x", "[]", '["a", "b c"]', b"{}", b"[1]",
]  # fmt: skip

RULES: list[tuple[rules.Rule, str]] = [
    (rules.IntegerRule(), "bigint"),
    (rules.IntegerRule(low=-(2**31), high=2**31 - 1), "integer"),
    (rules.RealRule(), "double precision"),
    (rules.RealRule(affinity="numeric"), "double precision"),
    (rules.NumericRule(), "numeric"),
    (rules.NumericRule(precision=10, scale=2), "numeric(10,2)"),
    (rules.BooleanRule(), "boolean"),
    (rules.TextRule(), "text"),
    (rules.WidenedTextRule(), "text"),
    (rules.ByteaRule(), "bytea"),
    (rules.WidenedByteaRule(), "bytea"),
    (rules.BytesTextRule(), "bytea"),
    (rules.IntegerTextRule(), "bigint"),
    (rules.TextIntegerRule(), "text"),
    (rules.UuidRule(), "uuid"),
    (rules.UuidRule(style="upper"), "uuid"),
    (rules.UuidRule(style="hex"), "uuid"),
    (rules.UuidBytesRule(order="dotnet"), "uuid"),
    (rules.UuidBytesRule(), "uuid"),
    (rules.DecimalTextRule(precision=10, scale=2), "numeric(10,2)"),
    (rules.DecimalTextRule(), "numeric"),
    (rules.JsonRule(), "json"),
    (rules.DateRule(), "date"),
    (rules.TimeRule(), "time"),
    (rules.TimestampRule(), "timestamp with time zone"),
    (rules.TimestampRule(shape="YYYY-MM-DDTHH:MM:SSZ"), "timestamp with time zone"),
    (rules.TimestampRule(shape="YYYY-MM-DD HH:MM:SS.fff"), "timestamp with time zone"),
    (rules.TimestampRule(shape="YYYY-MM-DDTHH:MM:SS+02:00"), "timestamp with time zone"),
    (rules.TimestampRule(zone="Europe/Berlin"), "timestamp with time zone"),
    (rules.TimestampRule(shape="epoch", epoch="s"), "timestamp with time zone"),
    (rules.TimestampRule(shape="epoch", epoch="ms"), "timestamp with time zone"),
    (rules.TimestampRule(shape="epoch", epoch="julian"), "timestamp with time zone"),
    (rules.TimestampRule(shape="epoch", epoch="apple"), "timestamp with time zone"),
    (rules.TimestampRule(shape="epoch", epoch="ticks"), "timestamp with time zone"),
    (rules.TimestampRule(shape="epoch", epoch="filetime"), "timestamp with time zone"),
    (rules.TimestampRule(shape="epoch", epoch="excel"), "timestamp with time zone"),
]
# To jsonb 1 and 1.0 are one number, and so they are to its meaning.
RULES += [(r, r.target_type) for r in missing([*(r for r, _ in RULES), rules.JsonbRule()])]


DECLARED = {"integer": "INTEGER", "real": "REAL", "numeric": "NUMERIC", "text": "TEXT", "blob": ""}


def _can_hold(rule: rules.Rule, value: SourceValue) -> bool:
    """Whether SQLite stores the value as it is in a column of the rule's affinity."""
    declared = DECLARED[getattr(rule, "affinity", "blob")]
    memory = apsw.Connection(":memory:")
    memory.execute(f"CREATE TABLE t(c {declared})")
    memory.execute("INSERT INTO t VALUES (?)", (value,))
    return same(memory.execute("SELECT c FROM t").get, value)


@pytest.mark.parametrize(("rule", "type_"), RULES, ids=lambda r: str(r))
def test_an_exact_value_means_the_same_on_both_sides(rule: rules.Rule, type_: str) -> None:
    """What the rule carries without a ledger entry, the verifier finds equal by itself."""
    column = _column(rule, type_)
    carried = 0
    for value in (*VALUES, *natural_values(rule)):
        try:
            if rule.changes(value) or not _can_hold(rule, value):
                continue
        except rules.CannotCarry:
            continue
        text = rule.forward(value)
        assert meaning.of_source(column, value) == meaning.of_target(column, text), (value, text)
        carried += value is not None
    assert carried or rule.kind == "text-bytea"


@pytest.mark.parametrize(("rule", "type_"), RULES, ids=lambda r: str(r))
def test_different_values_never_mean_the_same(rule: rules.Rule, type_: str) -> None:
    """A source value equals no other value's target text, but for numbers that are equal."""
    column = _column(rule, type_)
    carried: dict[str, SourceValue] = {}
    for value in VALUES:
        try:
            text = rule.forward(value)
        except rules.CannotCarry:
            continue
        if text is not None and not rule.changes(value) and _can_hold(rule, value):
            carried[text] = value
    for text, value in carried.items():
        for other, theirs in carried.items():
            if text == other:
                continue
            same = meaning.of_source(column, value) == meaning.of_target(column, other)
            assert not same, (value, theirs)


def test_a_changed_value_needs_the_ledger() -> None:
    for rule, value in (
        (rules.WidenedTextRule(), 5),
        (rules.WidenedByteaRule(), "a"),
        (rules.TimestampRule(precision=0), "2024-02-29 12:34:56.5"),
        (rules.TimestampRule(), "2024-02-29 12:34:56.000000"),
        (rules.TimestampRule(shape="YYYY-MM-DD"), "2024-02-29 00:00:00"),
        (rules.TimeRule(precision=3), "12:34:56.7890"),
        (rules.TimestampRule(), "2024-02-29T12:34:56Z"),
        (rules.UuidRule(), "C7A1F0DE-1B2C-4D3E-8F90-A1B2C3D4E5F6"),
        (rules.RealRule(), 5),
    ):
        assert rule.changes(value)
        with pytest.raises(meaning.Inexact):
            meaning.of_source(_column(rule), value)


def test_random_reals_keep_their_last_bit() -> None:
    import struct

    rng = random.Random(SEED)
    column = _column(rules.RealRule(), "double precision")
    for _ in range(5_000):
        bits = rng.randbytes(8)
        value = struct.unpack("<d", bits)[0]
        if value != value:
            continue
        text = rules.postgres_float(value)
        assert meaning.of_source(column, value) == meaning.of_target(column, text), (SEED, value)
        neighbour = struct.unpack("<d", struct.pack("<Q", struct.unpack("<Q", bits)[0] ^ 1))[0]
        if neighbour == neighbour:
            assert meaning.of_source(column, value) != meaning.of_target(
                column, rules.postgres_float(neighbour)
            ), (SEED, value)


def test_a_row_without_a_key_is_shown_in_words() -> None:
    """Its report names what stands for a value that cannot be shown, not the stand-in."""
    shown = typed_bags._shown((("?",), ("!", "12:99"), "x", None))
    assert shown == (
        "a value that neither plan nor ledger accounts for, "
        "'12:99', which is no value of the column's, 'x', NULL"
    )
