"""Every rule against both databases, on values made at random.

Forward text has to be what PostgreSQL takes, what comes back has to be the source value again
unless the rule says that it changes it, and what SQLite's own expression assembles has to be what
the rule's Python says.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections.abc import Iterator
from typing import Any

import apsw
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from migration_job.embedded import EmbeddedPostgres
from migration_job.plan import rules
from migration_job.plan.rules.other import SingleRule
from migration_job.plan.rules.vector import VectorRule
from migration_job.stores.sqlite.database import add_functions
from migration_job.values import BrokenText, SourceValue, same
from tests.helpers import missing, text_or_broken
from tests.integration import hostile

EXAMPLES = int(os.environ.get("PROPERTY_RULE_EXAMPLES", "10"))
"""Lists of up to 40 values for each rule."""

LOW4, HIGH4 = -(2**31), 2**31 - 1
RULES: list[tuple[str, rules.RuleBase]] = [
    *((t, rules.IntegerRule()) for t in ("INTEGER", "", "NUMERIC", "TEXT")),
    *((t, rules.IntegerRule(low=LOW4, high=HIGH4)) for t in ("INTEGER", "BLOB")),
    ("INTEGER", rules.IntegerRule(low=-(2**15), high=2**15 - 1)),
    ("REAL", rules.RealRule(affinity="real")),
    ("", rules.RealRule(affinity="blob")),
    ("NUMERIC", rules.RealRule(affinity="numeric")),
    *(
        (t, rules.NumericRule.model_validate({"affinity": a}))
        for t, a in (("NUMERIC", "numeric"), ("", "blob"), ("REAL", "real"))
    ),
    *(
        (t, rules.NumericRule.model_validate({"precision": p, "scale": s, "affinity": a}))
        for t, a in (("NUMERIC", "numeric"), ("REAL", "real"), ("", "blob"), ("INTEGER", "integer"))
        for p, s in ((10, 2), (5, 0), (38, 10), (15, 14), (18, 3))
    ),
    ("BOOLEAN", rules.BooleanRule()),
    ("", rules.BooleanRule()),
    *((t, rules.TextRule()) for t in ("TEXT", "", "INTEGER")),
    ("TEXT", rules.TextRule(max_length=5)),
    *((t, rules.WidenedTextRule()) for t in ("TEXT", "", "NUMERIC", "REAL")),
    ("BLOB", rules.ByteaRule()),
    ("", rules.WidenedByteaRule()),
    ("TEXT", rules.BytesTextRule()),
    *((t, rules.IntegerTextRule()) for t in ("TEXT", "")),
    ("TEXT", rules.IntegerTextRule(low=LOW4, high=HIGH4)),
    ("INTEGER", rules.TextIntegerRule()),
    *(
        (t, rules.UuidRule.model_validate({"style": s, "affinity": a}))
        for t, a in (("TEXT", "text"), ("UUID", "numeric"))
        for s in ("lower", "upper", "hex", "HEX")
    ),
    *(("BLOB", rules.UuidBytesRule.model_validate({"order": o})) for o in ("network", "dotnet")),
    *(
        ("TEXT", rules.DecimalTextRule(precision=p, scale=s))
        for p, s in ((None, 0), (10, 2), (5, 0), (4, 4), (30, 10))
    ),
    *(("BLOB", rules.JsonBlobRule.model_validate({"form": f})) for f in ("jsonb", "text")),
    *(("BLOB", rules.JsonbBlobRule.model_validate({"form": f})) for f in ("jsonb", "text")),
    ("REAL", SingleRule()),
    *(
        (t, SingleRule.model_validate({"affinity": a}))
        for t, a in (("", "blob"), ("INTEGER", "integer"))
    ),
    ("BLOB", VectorRule()),
    *(
        ("TEXT", VectorRule(blobs=False, spaced=s, pointed=p))
        for s, p in ((True, True), (False, False))
    ),
    ("TEXT", rules.JsonRule()),
    ("JSON", rules.JsonRule(affinity="numeric")),
    ("TEXT", rules.JsonbRule()),
    ("DATE", rules.DateRule()),
    ("TEXT", rules.DateRule()),
    *(
        ("TIME", rules.TimeRule(shape=s))
        for s in ("HH:MM:SS", "HH:MM", "HH:MM:SS.fff", "HH:MM:SS.f")
    ),
    *(
        (t, rules.TimestampRule(shape=s))
        for t in ("DATETIME", "TEXT")
        for s in (
            *("YYYY-MM-DD HH:MM:SS", "YYYY-MM-DDTHH:MM:SSZ", "YYYY-MM-DD", "YYYY-MM-DD HH:MM"),
            *("YYYY-MM-DDTHH:MM:SS.fffZ", "YYYY-MM-DD HH:MM:SS.ffffff", "YYYY-MM-DDTHH:MM:SS"),
            *(
                "YYYY-MM-DDTHH:MM:SS+02:00",
                "YYYY-MM-DD HH:MM:SS-0530",
                "YYYY-MM-DD HH:MM:SS.fffffffff",
                "YYYY-MM-DD HH:MM:SS +0000 UTC",
                "YYYY-MM-DD HH:MM:SS.fff -0530 -0530",
            ),
        )
    ),
    ("DATETIME", rules.TimestampRule(zone="Europe/Berlin")),
    *(
        ("DATETIME", rules.TimestampRule(shape="epoch", epoch=e))
        for e in ("s", "ms", "us", "ns", "julian", "apple", "filetime", "ticks", "excel")
    ),
    ("", rules.MapRule(entries=(rules.Entry(source="", target=None),), inner=rules.IntegerRule())),
    (
        "",
        rules.MapRule(
            patterns=(rules.Pattern(match="a(.*)", replace=r"b\1"),), inner=rules.TextRule()
        ),
    ),
]

RULES += [("TEXT", rule) for rule in missing(rule for _, rule in RULES)]

SHAPED = st.one_of(
    st.sampled_from(hostile.TIMES + hostile.DATES + hostile.CLOCKS),
    st.builds(
        lambda moment, separator, digits, zone: (
            f"{moment.isoformat(separator, 'seconds')}"
            + (f".{moment.microsecond:06d}"[: 1 + digits] if digits else "")
            + zone
        ),
        st.datetimes(),
        st.sampled_from(" T"),
        st.sampled_from([0, 0, 1, 3, 6]),
        st.sampled_from(["", "", "Z", "+02:00", "-0530", " UTC"]),
    ),
    st.datetimes().map(lambda d: d.isoformat(" ", "minutes")),
    st.dates().map(str),
    st.times().map(lambda t: t.isoformat("seconds")),
    st.times().map(lambda t: t.isoformat("milliseconds")),
)
VALUES = st.one_of(
    st.none(), hostile.anything, hostile.hard_texts, SHAPED, hostile.integers, hostile.reals,
    st.uuids().map(str), st.uuids().map(lambda u: u.hex.upper()), st.sampled_from(hostile.JSONS),
    st.uuids().map(lambda u: u.hex), st.uuids().map(lambda u: str(u).upper()),
    st.from_regex(r"[0-9]{32}|[0-9]{31}[a-fA-F]", fullmatch=True),
    st.lists(st.floats(width=32, allow_nan=False) | hostile.integers, max_size=4).map(json.dumps),
    st.lists(st.floats(width=32), max_size=4).map(lambda v: struct.pack(f"<{len(v)}f", *v)),
    hostile.integers.map(str), st.floats(2e6, 3e6), st.floats(width=32), st.integers(0, 2**42),
)  # fmt: skip


@pytest.fixture(scope="module")
def server(postgres_server: EmbeddedPostgres) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(postgres_server.dsn, autocommit=True) as connection:
        for setting in (
            *("TimeZone TO 'UTC'", "DateStyle TO 'ISO'", "bytea_output TO 'hex'"),
            *("extra_float_digits TO 1", "IntervalStyle TO 'postgres'"),
        ):
            connection.execute(f"SET {setting}")
        connection.execute("CREATE EXTENSION IF NOT EXISTS citext")
        yield connection


@pytest.fixture(scope="module")
def sqlite() -> Iterator[apsw.Connection]:
    connection = apsw.Connection(":memory:")
    add_functions(connection)
    yield connection
    connection.close()


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("declared", "rule"),
    RULES,
    ids=[f"{t or 'none'}-{type(r).__name__}-{i}" for i, (t, r) in enumerate(RULES)],
)
def test_a_rule_keeps_its_word(
    declared: str,
    rule: rules.RuleBase,
    server: psycopg.Connection[Any],
    sqlite: apsw.Connection,
    request: pytest.FixtureRequest,
) -> None:
    if rule.target_type == "vector":
        server = request.getfixturevalue("vectors")

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    @given(st.lists(VALUES, min_size=1, max_size=40))
    def holds(values: list[hostile.Value | hostile.Raw]) -> None:
        stored = _stored(sqlite, declared, values)
        _python_against_postgres(rule, stored, server)
        _sqlite_against_python(rule, stored, sqlite, server)

    holds()


def _stored(
    sqlite: apsw.Connection, declared: str, values: list[hostile.Value | hostile.Raw]
) -> list[tuple[int, SourceValue]]:
    """The values as the column keeps them: its affinity may have made something else of them."""
    sqlite.execute(f"DROP TABLE IF EXISTS t; CREATE TABLE t(id INTEGER PRIMARY KEY, v {declared})")
    for value in values:
        if isinstance(value, hostile.Raw):
            sqlite.execute("INSERT INTO t(v) VALUES (CAST(? AS TEXT))", (value.content,))
        else:
            sqlite.execute("INSERT INTO t(v) VALUES (?)", (value,))
    found: list[tuple[int, SourceValue]] = []
    for number, kind, content in sqlite.execute(
        "SELECT id, typeof(v), CASE typeof(v) WHEN 'text' THEN CAST(v AS BLOB) ELSE v END FROM t"
    ):
        found.append((number, text_or_broken(content) if kind == "text" else content))
    return found


def _through(server: psycopg.Connection[Any], kind: str, texts: list[str | None]) -> list[Any]:
    """What PostgreSQL prints for each input text of a type. ``format`` uses the type's output; the
    blanks that fill up a ``char(n)`` are not the value's; a cast to text leaves them out."""
    printed = f"v::{kind}::text" if kind.startswith("character(") else f"format('%%s', v::{kind})"
    rows = server.execute(
        f"SELECT CASE WHEN v IS NOT NULL THEN {printed} END"
        " FROM unnest(%s::text[]) WITH ORDINALITY AS x(v, n) ORDER BY n",
        (texts,),
    )
    return [row[0] for row in rows]


def _python_against_postgres(
    rule: rules.RuleBase, stored: list[tuple[int, SourceValue]], server: psycopg.Connection[Any]
) -> None:
    kind = rule.target_type
    carried: list[tuple[SourceValue, str | None, bool]] = []
    for _, value in stored:
        with contextlib.suppress(rules.CannotCarry):
            carried.append((value, rule.forward(value), rule.changes(value)))
    printed = _through(server, kind, [text for _, text, _ in carried])
    seen: dict[str | None, SourceValue] = {}
    for (value, text, changes), output in zip(carried, printed, strict=True):
        assert (text is None) == (output is None), (value, text, output)
        back = rule.inverse(output)
        if not changes:
            assert same(back, value), f"{value!r} -> {text!r} -> {output!r} -> {back!r}"
            assert same(seen.setdefault(output, value), value), (seen[output], value, output)
        if kind != "double precision":
            assert text == output, f"{value!r}: forward {text!r}, PostgreSQL prints {output!r}"


def _sqlite_against_python(
    rule: rules.RuleBase,
    stored: list[tuple[int, SourceValue]],
    sqlite: apsw.Connection,
    server: psycopg.Connection[Any],
) -> None:
    condition, expression = rule.fast_condition("t.v"), rule.fast_sql("t.v")
    if condition is None or expression is None:
        return
    values = dict(stored)
    # NUL and undecodable bytes are what the condition cannot see, so its caller looks for them.
    visible = [
        str(number)
        for number, value in stored
        if not isinstance(value, BrokenText) and not (isinstance(value, str) and "\x00" in value)
    ]
    fast = list(
        sqlite.execute(
            f"SELECT id, CAST(({expression}) AS TEXT) FROM t"
            f" WHERE id IN ({', '.join(visible)}) AND {condition}"
        )
    )
    nulls = list(sqlite.execute(f"SELECT id FROM t WHERE ({condition}) IS NULL"))
    assert nulls == [], f"the condition is NULL for {[values[row[0]] for row in nulls]}"
    for number, text in fast:
        value = values[number]
        assert not rule.changes(value), f"{value!r} passes as clean, but changes"
        if rule.canonical:
            assert text == rule.forward(value), (
                f"{value!r}: SQLite {text!r}, {rule.forward(value)!r}"
            )
    if not rule.canonical:
        kind = rule.target_type
        for (number, text), output in zip(
            fast, _through(server, kind, [row[1] for row in fast]), strict=True
        ):
            assert same(rule.inverse(output), values[number]), (values[number], text, output)
