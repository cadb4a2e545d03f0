"""Each rule's promises: what its SQL vouches for is what its Python does, and what does not come
back as it was is said to change."""

from __future__ import annotations

import functools

import apsw
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from migration_job.plan import jsontext, moments
from migration_job.plan.rules import (
    BooleanRule,
    ByteaRule,
    BytesTextRule,
    CannotCarry,
    DateRule,
    Entry,
    IntegerRule,
    IntegerTextRule,
    JsonbBlobRule,
    JsonBlobRule,
    JsonbRule,
    JsonRule,
    MapRule,
    NumericRule,
    Pattern,
    RealRule,
    RuleBase,
    TextIntegerRule,
    TextRule,
    TimeRule,
    TimestampRule,
    UuidRule,
    WidenedByteaRule,
    WidenedTextRule,
    inside,
    postgres_float,
)
from migration_job.plan.rules.arrays import ArrayRule
from migration_job.plan.rules.days import DayRule
from migration_job.plan.rules.durations import IntervalRule
from migration_job.plan.rules.lists import ListRule
from migration_job.plan.rules.other import SingleRule
from migration_job.stores.sqlite.database import add_functions
from migration_job.values import BrokenText, SourceValue, same
from tests.helpers import missing, text_or_broken

RULES: list[RuleBase] = [
    IntegerRule(),
    IntegerRule(low=-(2**31), high=2**31 - 1),
    RealRule(),
    RealRule(affinity="numeric"),
    NumericRule(),
    NumericRule(precision=10, scale=2),
    NumericRule(precision=10, scale=2, affinity="real"),
    NumericRule(precision=5, scale=5),
    NumericRule(precision=12, scale=0),
    BooleanRule(),
    TextRule(),
    TextRule(max_length=3),
    WidenedTextRule(),
    ByteaRule(),
    WidenedByteaRule(),
    BytesTextRule(),
    IntegerTextRule(),
    TextIntegerRule(),
    UuidRule(),
    UuidRule(style="HEX"),
    JsonRule(),
    JsonRule(affinity="numeric"),
    JsonbRule(),
    JsonbRule(style="spaced-ascii"),
    TimestampRule(),
    TimestampRule(shape="YYYY-MM-DDTHH:MM:SS.fffZ"),
    TimestampRule(shape="YYYY-MM-DD HH:MM:SS.ffffff+02:00"),
    TimestampRule(shape="YYYY-MM-DD"),
    TimestampRule(shape="epoch", epoch="s"),
    TimestampRule(shape="epoch", epoch="ms"),
    TimestampRule(zone="Europe/Berlin"),
    DateRule(),
    TimeRule(),
    MapRule(
        inner=UuidRule(),
        entries=(
            Entry(source="system", target="00000000-0000-4000-8000-000000000001"),
            Entry(source="", target=None),
        ),
    ),
    MapRule(
        inner=BooleanRule(),
        entries=tuple(
            Entry(source=v, target=t) for v, t in (("a", 1), (1, 1), ("", 0), ("a\tb", 0), (0, 0))
        ),
        bijective=True,
    ),
    MapRule(
        inner=TextRule(),
        entries=(Entry(source="", target="-"), Entry(source="now", target="a\tb\\")),
        bijective=True,
    ),
    MapRule(inner=IntegerRule(), patterns=(Pattern(match=r"0*(\d+)", replace=r"\1"),)),
]
RULES += missing(RULES)
RULES += [
    ArrayRule(separator=","),
    ArrayRule(type="integer[]", element="integer", separator=", "),
    ArrayRule(literal="quoted"),
    ArrayRule(type="double precision[]", element="real", pointed=True),
    ListRule(type="date[]", separator=","),
    ListRule(type="date[]", literal="quoted", spaced=False),
    ListRule(type="jsonb[]", each=JsonbRule()),
    ListRule(type="real[]", each=SingleRule(affinity="blob"), pointed=True),
    ListRule(type="timestamptz[]", each=TimestampRule(), literal="bare"),
    DayRule(shape="epoch", epoch="ms"),
    IntervalRule(unit="julian"),
]

DECLARED = {"integer": "INTEGER", "real": "REAL", "numeric": "NUMERIC", "text": "TEXT", "blob": ""}

DIGITS = st.integers(0, 99).map("{:02d}".format)
DATES = st.tuples(st.sampled_from(["0000", "0001", "2023", "2024", "9999"]), DIGITS, DIGITS).map(
    "-".join
)
CLOCKS = st.builds(
    lambda h, m, s, f: f"{h}:{m}" + (f":{s}" if s else "") + (f".{f}" if s and f else ""),
    DIGITS,
    DIGITS,
    st.one_of(st.just(""), DIGITS),
    st.sampled_from(["", "0", "5", "123", "120", "123456", "1234567", "123456000"]),
)
TIMES = st.builds(
    lambda d, s, c, z: d + s + c + z,
    DATES,
    st.sampled_from([" ", "T", "t", "  "]),
    CLOCKS,
    st.sampled_from(["", "Z", "+02:00", "-05:30", "+0200", " UTC", "+16:00", " "]),
)
JSON = st.recursive(
    st.sampled_from(
        [
            "null",
            "true",
            "0",
            "-0",
            "1.0",
            "1e2",
            "1E400",
            "1.5e-3",
            '"a"',
            '"\\u0000"',
            '"\\ud800"',
            '"\\u00e9"',
            '"é"',
            '""',
            "NaN",
            "01",
            '"\t"',
            '"\\/"',
            "x",
        ]
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda v: f"[{','.join(v)}]"),
        st.lists(inner, max_size=3).map(lambda v: f"[{', '.join(v)}]"),
        st.lists(st.tuples(st.sampled_from(['"a"', '"b"', '"bb"', '"é"']), inner), max_size=3).map(
            lambda v: "{" + ",".join(f"{k}:{m}" for k, m in v) + "}"
        ),
    ),
    max_leaves=6,
)
VALUES: st.SearchStrategy[SourceValue] = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([0, 1, 2, 1700000000, 1700000000123, 253402300799, 253402300800, -1]),
    st.floats(allow_nan=False),
    st.integers(-(10**9), 10**9).map(lambda n: n / 100),
    st.text(),
    st.integers(-(10**20), 10**20).map(str),
    st.uuids().map(str),
    st.uuids().map(lambda u: str(u).upper()),
    st.uuids().map(lambda u: u.hex),
    DATES,
    CLOCKS,
    TIMES,
    JSON,
    st.sampled_from(["", "system", "now", "a\x00b", "007", " 1", "[] ", "2024-01-01 00:00:00 "]),
    st.binary(max_size=8),
    st.just(BrokenText(b"\xff\x00")),
)


@functools.cache
def table_for(declared: str, collation: str) -> apsw.Connection:
    memory = apsw.Connection(":memory:")
    add_functions(memory)
    memory.execute(f"CREATE TABLE t(c {declared} {collation})")
    return memory


def stored(
    rule: RuleBase, value: SourceValue, collation: str
) -> tuple[SourceValue, bool, str | None]:
    """The value as the rule's column stores it, whether the SQL vouches for it, and what the SQL
    makes of it."""
    inner = getattr(rule, "inner", rule)
    affinity = getattr(inner, "affinity", "blob")
    memory = table_for(DECLARED[affinity], collation)
    if isinstance(value, BrokenText):
        memory.execute("INSERT INTO t VALUES (CAST(? AS TEXT))", (value.raw,))
    else:
        memory.execute("INSERT INTO t VALUES (?)", (value,))
    condition, expression = rule.fast_condition('t."c"'), rule.fast_sql('t."c"')
    assert (condition is None) == (expression is None)
    row = memory.execute(
        "SELECT typeof(c) = 'text', CASE typeof(c) WHEN 'text' THEN CAST(c AS BLOB) ELSE c END, "
        f"{condition or 0}, CAST({expression or 'NULL'} AS BLOB) FROM t"
    ).fetchall()[0]
    memory.execute("DELETE FROM t")
    found = text_or_broken(row[1]) if row[0] else row[1]
    assert row[2] in (0, 1), "a fast condition may never be NULL"
    converted = row[3]
    assert converted is None or isinstance(converted, bytes)
    text = None if converted is None else converted.decode(errors="replace")
    return found, bool(row[2]), text


@pytest.mark.parametrize("rule", RULES, ids=lambda r: f"{r.kind}-{RULES.index(r)}")
@given(value=VALUES, collation=st.sampled_from(["", "COLLATE RTRIM", "COLLATE NOCASE"]))
@settings(max_examples=50, deadline=None)
@example(value=None, collation="")
@example(value="2024-01-01 00:00:00  ", collation="COLLATE RTRIM")
@example(value="[] ", collation="COLLATE RTRIM")
@example(value="-2024-01-01 00:00:00", collation="")
@example(value="-2024-01-01", collation="")
@example(value=-0.0, collation="")
@example(value=-(2**63), collation="")
def test_sql_and_python_agree(rule: RuleBase, value: SourceValue, collation: str) -> None:
    value, vouched, converted = stored(rule, value, collation)
    unseen = isinstance(value, BrokenText) or (isinstance(value, str) and "\x00" in value)
    try:
        text = rule.forward(value)
    except CannotCarry:
        assert not vouched or unseen
        with pytest.raises(CannotCarry):
            rule.changes(value)
        return
    if not rule.changes(value) and not isinstance(rule, MapRule):
        assert same(rule.inverse(text), value)
    if vouched and not unseen:
        assert not rule.changes(value)
        if inside(rule).canonical or text is None or converted is None:
            assert converted == text
        else:
            assert float(converted) == float(text)


@pytest.mark.parametrize(
    ("blob", "vouched"),
    [
        (apsw.Connection(":memory:").execute("""SELECT jsonb('{"a":[1,"x"]}')""").get, True),
        (b"\x17x", True),
        (b"G   \x80", False),  # SQLite takes it for JSONB; its text is no UTF-8
        (b"'\xc3\xa9", False),  # UTF-8, which only Python can tell
        (b"\x17\x00", False),  # a NUL in a string
        (b"\x37\x22\x22\x22", False),  # whose text is no JSON
    ],
)
def test_jsonb_is_vouched_for_only_where_python_can_carry_it(blob: bytes, vouched: bool) -> None:
    rule = JsonBlobRule(form="jsonb")
    query = f"SELECT {rule.fast_condition('?1')}"
    said = apsw.Connection(":memory:").execute(query, (blob,)).get
    assert bool(said) is vouched
    if vouched:
        assert not rule.changes(blob)


@pytest.mark.parametrize("rule", [JsonBlobRule(form="text"), JsonbBlobRule(form="text")])
def test_text_in_blobs_that_is_jsonb_as_well(rule: RuleBase) -> None:
    assert apsw.Connection(":memory:").execute("SELECT json(x'33303030')").get == "000"
    assert rule.forward(b"3000") == "3000"
    assert not rule.changes(b"3000")


@pytest.mark.parametrize("rule", RULES, ids=lambda r: f"{r.kind}-{RULES.index(r)}")
def test_rules_survive_json(rule: RuleBase) -> None:
    assert type(rule).model_validate_json(rule.model_dump_json()) == rule
    assert rule.target_type


@given(st.floats(allow_nan=False))
def test_reals_come_back(value: float) -> None:
    assert same(float(postgres_float(value)), value)


def test_reals_are_spelled_as_postgresql_does() -> None:
    spelled = {
        0.1: "0.1", 1.0: "1", -2.5: "-2.5", 1e15: "1e+15", 123456789012345.0: "123456789012345",
        1e-4: "0.0001", 1e-5: "1e-05", 1.5e300: "1.5e+300", float("inf"): "Infinity", -0.0: "-0",
    }  # fmt: skip
    assert {v: postgres_float(v) for v in spelled} == spelled


def test_numeric_keeps_integers_and_reals_apart() -> None:
    rule = NumericRule()
    for value in (1, 1.0, 2**62, 1e22, 0.1, 5e-324, 1e308, float("inf")):
        assert not rule.changes(value)
    assert rule.changes(-0.0)


def test_decimals_are_never_rounded() -> None:
    rule = NumericRule(precision=10, scale=2, affinity="real")
    assert rule.forward(40.0) == "40.00"
    for value in (40.12345, 1234567890.0, float("inf"), 1e10):
        with pytest.raises(CannotCarry):
            rule.forward(value)


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("2024-02-29 10:20:30", "YYYY-MM-DD HH:MM:SS"),
        ("2024-02-29T10:20:30.123Z", "YYYY-MM-DDTHH:MM:SS.fffZ"),
        ("2024-02-29T10:20+02:00", "YYYY-MM-DDTHH:MM+02:00"),
        ("2024-02-29", "YYYY-MM-DD"),
        ("10:20", "HH:MM"),
        ("2024-02-29 10:20:30.1234560", "YYYY-MM-DD HH:MM:SS.fffffff"),
    ],
)
def test_shapes(text: str, shape: str) -> None:
    moment = moments.read(text)
    assert moment is not None
    assert moment.shape == shape


@pytest.mark.parametrize(
    "text",
    [
        "", "now", "2024-02-30", "2023-02-29 00:00:00", "0000-01-01", "2024-01-01 24:00:00",
        "2024-01-01 23:59:60", "2024-1-1", "2024-01-01 10:00:00.1234567890", "10:20Z",
        "2024-01-01T10:00:00+16:00", "2024-01-01 10:00:00 ", "٢٠٢٤-01-01",
    ],
)  # fmt: skip
def test_what_is_no_time(text: str) -> None:
    assert moments.read(text) is None


def test_a_naive_time_is_in_its_zone() -> None:
    rule = TimestampRule(zone="Europe/Berlin")
    assert rule.forward("2024-07-01 12:00:00") == "2024-07-01 10:00:00+00"
    assert rule.forward("2024-01-01 12:00:00") == "2024-01-01 11:00:00+00"
    assert rule.forward("2024-07-01T12:00:00Z") == "2024-07-01 12:00:00+00"
    assert not rule.changes("2024-07-01 12:00:00")
    # This hour does not exist there: it comes back as another, so the ledger has it.
    assert rule.changes("2024-03-31 02:30:00")


@pytest.mark.parametrize(
    ("source", "jsonb"),
    [
        ('{"bb":1,"a":2}', '{"a": 2, "bb": 1}'),
        ('{"a":1,"a":2}', '{"a": 2}'),
        ("[1.0,1e2,-0,1E-3]", "[1.0, 100, 0, 0.001]"),
        ('"\\u00e9\\/"', '"é/"'),
        (" { } ", "{}"),
    ],
)
def test_jsonb_is_predicted(source: str, jsonb: str) -> None:
    assert jsontext.normalise(source) == jsonb


def test_jsonb_refuses_what_postgresql_refuses() -> None:
    for text in ('"\\u0000"', '"\\ud800"', '{"\\u0000":1}', "1e200000", "[1,]", "NaN"):
        with pytest.raises(jsontext.BadJson):
            jsontext.normalise(text)


@given(JSON, st.sampled_from(["compact", "spaced", "compact-ascii", "spaced-ascii"]))
def test_the_quick_look_at_json_is_never_wrong(text: str, style: jsontext.Style) -> None:
    if jsontext.surely_returns(text, style):
        assert jsontext.restyle(jsontext.normalise(text), style) == text


def test_deep_json_is_carried_up_to_sqlites_own_limit() -> None:
    deep = "[" * 1000 + "]" * 1000
    assert JsonRule().forward(deep) == deep
    assert JsonbRule().forward(deep) == deep
    with pytest.raises(CannotCarry):
        JsonRule().forward("[" + deep + "]")


def test_a_bijective_map_comes_back() -> None:
    fixed = "00000000-0000-4000-8000-000000000001"
    rule = MapRule(
        inner=UuidRule(), entries=(Entry(source="system", target=fixed),), bijective=True
    )
    assert rule.forward("system") == fixed
    assert rule.inverse(fixed) == "system"
    assert not rule.changes("system"), "what comes back by itself needs no ledger"
    assert rule.changes(fixed), "this would come back as the other"


def test_targets_no_source_led_to_come_back_as_text() -> None:
    assert RealRule().inverse("NaN") == "NaN"
    assert NumericRule().inverse("1" + "0" * 30) == "1" + "0" * 30
    assert TimestampRule().inverse("12000-01-01 00:00:00+00") == "12000-01-01 00:00:00+00"


@pytest.mark.parametrize("number", ["1e400", "-1e400", "1e-400"])
def test_a_number_in_a_list_that_no_real_holds_is_refused(number: str) -> None:
    rule = ArrayRule(type="double precision[]", element="real")
    with pytest.raises(CannotCarry, match="too large or too small for a real"):
        rule.forward(f"[0.5, {number}]")
    assert rule.forward("[0.5, 0e400, 1e308]") == "{0.5,0,1e+308}"


@pytest.mark.parametrize(
    "text", ["00:99:99", "00:60:00", "00:00:60", "1 day 02:99:00", "1 day, 0:60:00", "-5:99:00"]
)
def test_a_clock_with_too_many_minutes_or_seconds_is_no_duration(text: str) -> None:
    with pytest.raises(CannotCarry, match="expected a duration"):
        IntervalRule().forward(text)
