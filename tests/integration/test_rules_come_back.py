"""For every rule: what PostgreSQL may hold in its type goes to SQLite and means the same there.

The values are PostgreSQL's own output of random natural values of the type, so rounded as the type
rounds; the way is the inverse, SQLite's affinity, the verifier's reading of both sides, and there
again. Values that the plan has the target refuse are left out by the plan's own predicate.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import apsw
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from migration_job.embedded import EmbeddedPostgres
from migration_job.plan import rules
from migration_job.plan.model import ColumnPlan
from migration_job.plan.wayback import refusal
from migration_job.stores.sqlite.reader import bindable
from migration_job.values import BrokenText, SourceValue
from migration_job.verify import meaning
from tests.helpers import text_or_broken
from tests.integration.test_property_rules import RULES

EXAMPLES = int(os.environ.get("PROPERTY_RULE_EXAMPLES", "10"))

INT8 = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=40
) | st.sampled_from(
    ["", " 5 ", "007", "1.0", "1e5", "-0", ".5", "5.", "NaN", "x" * 20_000, "é\\\t\n"]
)
DAYS = st.sampled_from(
    [
        "infinity",
        "-infinity",
        "0044-03-15 BC",
        "0001-01-01",
        "9999-12-31",
        "10000-01-01",
        "4713-01-01 BC",
    ]
) | st.dates().map(str)
CLOCKS = st.sampled_from(["00:00:00", "24:00:00", "23:59:59.999999"]) | st.times().map(str)
STAMPS = (
    st.datetimes().map(lambda d: f"{d.isoformat(' ')}+00")
    | st.datetimes().map(lambda d: f"{d.date()} 00:00:00+00")
    | st.sampled_from(
        [
            *(
                "infinity",
                "-infinity",
                "0044-03-15 12:00:00.5+00 BC",
                "9999-12-31 23:59:59.999999+00",
            ),
            *("0001-01-01 00:00:00+00", "12024-06-01 10:00:00.25+00", "294276-12-31 00:00:00+00"),
            *("4713-01-01 00:00:00+00 BC", "2024-10-27 00:30:00+00", "2024-10-27 01:30:00+00"),
        ]
    )
)
DIGITS = st.decimals(allow_nan=False, allow_infinity=False, places=None).map(
    lambda d: format(d, "f")
)
SIMPLE = st.integers(-(10**6), 10**6).map(lambda n: str(Decimal(n) / 100))
DOCUMENTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
).map(json.dumps)

VECTORS = st.lists(st.floats(width=32), min_size=1, max_size=4).map(
    lambda numbers: f"[{','.join(map(repr, numbers))}]"
)

NATURAL: dict[str, st.SearchStrategy[str]] = {
    "smallint": st.integers(-(2**15), 2**15 - 1).map(str),
    "integer": st.integers(-(2**31), 2**31 - 1).map(str),
    "bigint": INT8.map(str),
    "double precision": st.floats().map(repr)
    | st.sampled_from(["NaN", "-0", "Infinity", "1e-310"]),
    "numeric": DIGITS
    | SIMPLE
    | INT8.map(str)
    | st.sampled_from(["NaN", "Infinity", "10.00", "1e30", "0.00"]),
    "boolean": st.sampled_from(["t", "f"]),
    "text": TEXT,
    "varchar": TEXT,
    "bytea": st.binary(max_size=40).map(lambda b: "\\x" + b.hex()),
    "uuid": st.uuids().map(str) | st.sampled_from(["0" * 32, "1" * 32, "1" * 12 + "e" + "1" * 19]),
    "json": DOCUMENTS | st.sampled_from([" 5 ", "5.0", "-0", "1e2", "12345678901234567891", "[ ]"]),
    "jsonb": DOCUMENTS | st.sampled_from([" 5 ", "5.0", "1.50", "1e2", "12345678901234567891"]),
    "date": DAYS,
    "time": CLOCKS,
    "timestamp with time zone": STAMPS,
    "timestamp": STAMPS,
    "vector": VECTORS,
    "real": st.floats(width=32).map(repr),
}


def natural(type_sql: str) -> st.SearchStrategy[str]:
    """Values that PostgreSQL may hold in a column of the type."""
    name = rules.base_of(type_sql)
    return NATURAL[name] if name in NATURAL else st.sampled_from(rules.TARGETS[name].natural)


PRECISE: list[tuple[str, rules.RuleBase]] = [
    *(
        ("DATETIME", rules.TimestampRule(shape=s, precision=p))
        for s, p in (
            *(("YYYY-MM-DD", 0), ("YYYY-MM-DD HH:MM", 0), ("YYYY-MM-DDTHH:MM:SS+02:00", 3)),
            *(
                ("YYYY-MM-DD HH:MM:SS", 0),
                ("YYYY-MM-DD HH:MM:SS", 6),
                ("YYYY-MM-DDTHH:MM:SS.fffZ", 3),
            ),
        )
    ),
    *(
        (
            "DATETIME",
            rules.TimestampRule.model_validate({"shape": "epoch", "epoch": e, "precision": p}),
        )
        for e, p in (("s", 0), ("ms", 3), ("us", 6), ("ns", 6), ("julian", 3), ("excel", 6))
    ),
    *(("TIME", rules.TimeRule(shape=s, precision=p)) for s, p in (("HH:MM", 0), ("HH:MM:SS", 3))),
    ("UUID", rules.UuidRule(style="hex", affinity="numeric")),
    ("JSON", rules.JsonbRule(affinity="numeric")),
    ("STRING", rules.TextRule(affinity="numeric")),
    ("REAL", rules.WidenedTextRule(affinity="real")),
]

AFFINITIES: dict[str, rules.Affinity] = {"TEXT": "text", "": "blob", "BLOB": "blob", "REAL": "real",
                                         "INTEGER": "integer"}  # fmt: skip


def _is_told(declared: str, rule: rules.RuleBase) -> bool:
    """Whether the planner gives the rule the affinity that the column has."""
    affinity = AFFINITIES.get(declared, "numeric")
    fits = getattr(rule, "affinity", affinity) == affinity
    # Integers and truth values are planned for columns that hold numbers as numbers.
    return fits and not (rule.kind in ("integer", "boolean") and affinity == "text")


OF_A_TARGET = frozenset({"map", "array", "list", "label"})
"""Rules that say nothing without another one, or without a type of the application's own, which
tests/integration/test_existing.py gives them."""

ALL = [(t, r) for t, r in [*RULES, *PRECISE] if _is_told(t, r) and r.kind not in OF_A_TARGET]


@pytest.fixture(scope="module")
def server(postgres_server: EmbeddedPostgres) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(postgres_server.dsn, autocommit=True) as connection:
        for setting in ("TimeZone TO 'UTC'", "DateStyle TO 'ISO'", "bytea_output TO 'hex'"):
            connection.execute(f"SET {setting}".encode())
        connection.execute("CREATE EXTENSION IF NOT EXISTS citext")
        yield connection


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("declared", "rule"),
    ALL,
    ids=[f"{t or 'none'}-{type(r).__name__}-{i}" for i, (t, r) in enumerate(ALL)],
)
def test_a_value_of_the_type_comes_home(
    declared: str,
    rule: rules.RuleBase,
    server: psycopg.Connection[Any],
    request: pytest.FixtureRequest,
) -> None:
    kind = rule.target_type
    if kind == "vector":
        server = request.getfixturevalue("vectors")
    column = ColumnPlan(source="c", target="c", type=kind, rule=rule)
    sqlite = apsw.Connection(":memory:")
    sqlite.execute(f"CREATE TABLE t(c {declared})")

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    @given(st.lists(natural(kind), min_size=1, max_size=40))
    def holds(texts: list[str]) -> None:
        for text in _held(server, rule, kind, texts):
            back = _stored(sqlite, rule.inverse(text))
            here, there = meaning.of_source(column, back), meaning.of_target(column, text)
            assert here == there, f"{text!r} -> {back!r}: {here!r}, {there!r}"
            again = _forward(rule, back)
            assert meaning.of_target(column, again) == there, f"{text!r} -> {back!r} -> {again!r}"

    holds()


def _held(
    server: psycopg.Connection[Any], rule: rules.RuleBase, kind: str, texts: list[str]
) -> list[str]:
    """PostgreSQL's output of what a column of the type takes of these inputs."""
    wanted = refusal(rule, "c", strict=False) or "true"
    found: list[str] = []
    for text in texts:
        # Refused by the type, or by the predicate.
        with contextlib.suppress(psycopg.DataError):
            row = server.execute(
                f"SELECT format('%%s', c) FROM (SELECT %s::text::{kind} AS c) AS x "
                f"WHERE {wanted}".encode(),
                (text,),
            ).fetchone()
            found += [row[0]] if row is not None else []
    return found


def _stored(sqlite: apsw.Connection, value: SourceValue) -> SourceValue:
    """The value as the column keeps it."""
    sqlite.execute("DELETE FROM t")
    broken = isinstance(value, BrokenText)
    place = "CAST(? AS TEXT)" if broken else "?"
    sqlite.execute(f"INSERT INTO t VALUES ({place})", (bindable(value),))
    (kind, found), *_ = sqlite.execute(
        "SELECT typeof(c), CASE typeof(c) WHEN 'text' THEN CAST(c AS BLOB) ELSE c END FROM t"
    )
    value_kept: SourceValue = text_or_broken(found) if kind == "text" else found
    return value_kept


def _forward(rule: rules.RuleBase, value: SourceValue) -> str | None:
    try:
        return rule.forward(value)
    except rules.CannotCarry:
        returned = rule.returned(value)
        if returned is None:
            raise
        return returned
