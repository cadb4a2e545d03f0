"""Expressions mean the same on both sides, or are refused.

Each translation is tried against a real PostgreSQL with the same values in tests/integration; here
the text is looked at, and that what would mean something else is refused.
"""

from __future__ import annotations

import pytest

from migration_job.plan.comparisons import glob_to_regex
from migration_job.plan.expression_parts import Known, Untranslatable, kind_of
from migration_job.plan.expressions import condition, value
from migration_job.plan.rules import (
    Affinity,
    BooleanRule,
    ByteaRule,
    DateRule,
    IntegerRule,
    JsonRule,
    NumericRule,
    RealRule,
    RuleBase,
    TextRule,
    TimestampRule,
    UuidRule,
)
from migration_job.plan.views import ViewTable, translate_view


def scope() -> dict[str, Known]:
    rules: dict[str, tuple[str, RuleBase]] = {
        "i": ("integer", IntegerRule()),
        "j": ("bigint", IntegerRule()),
        "r": ("double precision", RealRule()),
        "n": ("numeric", NumericRule()),
        "t": ("text", TextRule()),
        "u": ("varchar(5)", TextRule(max_length=5)),
        "b": ("boolean", BooleanRule()),
        "x": ("bytea", ByteaRule()),
        "w": ("timestamp with time zone", TimestampRule()),
        "d": ("date", DateRule()),
        "g": ("uuid", UuidRule()),
        "js": ("json", JsonRule()),
    }
    affinities: dict[str, Affinity] = {"i": "integer", "t": "text", "u": "text"}
    known = {
        name: Known(
            sql=f'"{name}"',
            kind=kind_of(type_),
            rule=rule,
            affinity=affinities.get(name, "numeric"),
        )
        for name, (type_, rule) in rules.items()
    }
    for name, affinity, collation in (
        ("c", "text", "NOCASE"),
        ("tn", "numeric", "BINARY"),  # text in a column that makes numbers of what looks like one
        ("tb", "blob", "BINARY"),
    ):
        known[name] = Known(
            sql=f'"{name}"',
            kind="text",
            rule=TextRule(),
            collation=collation,
            affinity=affinity,  # type: ignore[arg-type]
        )
    known["ib"] = Known(sql='"ib"', kind="integer", rule=IntegerRule())
    return known


@pytest.mark.parametrize(
    ("sqlite", "postgresql"),
    [
        ("i > 0", '("i" > 0)'),
        ("i between 1 and 5", '(("i" >= 1) AND ("i" <= 5))'),
        ("b = 1", '("b" = TRUE)'),
        ("b", '"b"'),
        ("not b", '(NOT "b")'),
        ("b = i", '(("b")::integer = "i")'),
        ("i", '"i" <> 0'),
        ("t in ('a', 'b')", "((\"t\" = 'a') OR (\"t\" = 'b'))"),
        ("t = 5", "(\"t\" = '5')"),
        ("i = '5'", '("i" = 5)'),
        ("tn = 'b'", "(\"tn\" = 'b')"),
        ("tb = '5'", "(\"tb\" = '5')"),
        ("tb = t", '("tb" = "t")'),
        ("t < 'b'", "(\"t\" COLLATE \"C\" < 'b')"),
        ("c = 'Bob'", "(lower(\"c\" COLLATE \"C\") = 'bob')"),
        ("t = 'x' collate nocase", "(lower(\"t\" COLLATE \"C\") = 'x')"),
        ("t is null or i is not null", '(("t" IS NULL) OR (NOT ("i" IS NULL)))'),
        ("t is 'x'", "(\"t\" IS NOT DISTINCT FROM 'x')"),
        ('t = "literal"', "(\"t\" = 'literal')"),
        ("w > '2024-01-01 00:00:00'", "(\"w\" > '2024-01-01 00:00:00+00'::timestamptz)"),
        ("d >= '2024-01-01'", "(\"d\" >= '2024-01-01'::date)"),
        ("i / j > 2", '((("i")::bigint / NULLIF(("j")::bigint, 0)) > 2)'),
        ("typeof(i) = 'integer'",
         "((CASE WHEN \"i\" IS NULL THEN 'null' ELSE 'integer' END) = 'integer')"),
        ("length(t) <= 10", '(length("t") <= 10)'),
        ("t like 'a%'", "(lower(\"t\" COLLATE \"C\") LIKE 'a%' ESCAPE '')"),
        ("t not like 'a'",
         "(NOT (lower(\"t\" COLLATE \"C\") LIKE 'a' ESCAPE ''))"),
        ("t not in ('a')", "(NOT ((\"t\" = 'a')))"),
        ("i not between 1 and 2", '(NOT (("i" >= 1) AND ("i" <= 2)))'),
        ("not t glob 'a'", "(NOT (\"t\" COLLATE \"C\" ~ '^a$'))"),
        ("'x' = c", "('x' = lower(\"c\" COLLATE \"C\"))"),
        ("c = t collate binary", '("c" = "t")'),
        ("t glob '[^a]*?'", "(\"t\" COLLATE \"C\" ~ '^[^a].*.$')"),
        ("json_valid(js)", '(CASE WHEN "js" IS NOT NULL THEN TRUE END)'),
        ("x = x'00ff'", "(\"x\" = '\\x00ff'::bytea)"),
        ("iif(i > 1, b, 0)", '(CASE WHEN ("i" > 1) THEN ("b")::integer ELSE 0 END) <> 0'),
    ],
)  # fmt: skip
def test_conditions(sqlite: str, postgresql: str) -> None:
    assert condition(sqlite, scope()) == postgresql


@pytest.mark.parametrize(
    ("sqlite", "postgresql"),
    [
        ("i + 1", '(("i")::bigint + 1)'),
        ("t || i", '("t" || ("i")::text)'),
        ("upper(t)", 'upper("t" COLLATE "C")'),
        ("coalesce(t, 'none')", "COALESCE(\"t\", 'none')"),
        ("ifnull(b, i)", 'COALESCE(("b")::integer, "i")'),
        ("substr(t, 2, 3)", 'substr("t", 2, 3)'),
        ("max(i, j)",
         '(CASE WHEN "i" IS NULL OR "j" IS NULL THEN NULL ELSE GREATEST("i", "j") END)'),
        ("-i", '(-("i")::bigint)'),
        ("case t when 'a' then 1 else 2 end", "(CASE WHEN (\"t\" = 'a') THEN 1 ELSE 2 END)"),
    ],
)  # fmt: skip
def test_values(sqlite: str, postgresql: str) -> None:
    assert value(sqlite, scope()).sql == postgresql


@pytest.mark.parametrize(
    "sqlite",
    [
        "t",  # SQLite takes text for a number
        "t > 5 and r || 'x' = 'y'",  # reals are spelled another way
        "w > '2024-01-01'",  # text order is not the order of moments
        "w > 5",
        "i = 'abc'",
        "round(r, 2) = 1",
        "strftime('%Y', w) = '2024'",
        "own_function(i)",
        "n / 2 > 1",  # integer division where the value is an integer
        "i % 2.5",
        "t regexp 'x'",
        "i in (select 1)",
        "substr(t, -1) = 'x'",
        "nosuch > 1",
        "t = 'x' collate own",
        "typeof(n) = 'integer'",
        "i > ",
        "cast(t as integer) > 1",
        "current_timestamp > '2024'",
        "tn > 0",
        "tn = '5'",
        "tn < t",
        "tb = 0",
        "ib = '5'",
        "js = '{}'",
    ],
)
def test_what_would_mean_something_else_is_refused(sqlite: str) -> None:
    with pytest.raises(Untranslatable) as caught:
        condition(sqlite, scope())
    assert str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "regex"),
    [
        ("a*b?", "^a.*b.$"),
        ("[]a]", "^[\\]a]$"),
        ("[^0-9].", "^[^0-9]\\.$"),
        ("a+(b)", "^a\\+\\(b\\)$"),
    ],
)
def test_glob(pattern: str, regex: str) -> None:
    assert glob_to_regex(pattern) == regex


TABLES = {
    "t": ViewTable('"t"', scope(), ("i", "j", "t", "b", "w", "c")),
    "o": ViewTable('"o"', {"i": scope()["i"]}, ("i",)),
}


@pytest.mark.parametrize(
    ("sqlite", "postgresql"),
    [
        ("SELECT i, t AS name FROM t WHERE b = 1",
         'SELECT "t"."i" AS "i", "t"."t" AS "name" FROM "t" AS "t" WHERE ("t"."b" = TRUE)'),
        ("SELECT a.i, count(*) AS n FROM t a LEFT JOIN o ON o.i = a.j GROUP BY a.i",
         'SELECT "a"."i" AS "i", count(*) AS "n" FROM "t" AS "a" LEFT JOIN "o" AS "o" '
         'ON ("o"."i" = "a"."j") GROUP BY "a"."i"'),
        ("SELECT t FROM t ORDER BY t DESC LIMIT 5",
         'SELECT "t"."t" AS "t" FROM "t" AS "t" '
         'ORDER BY "t"."t" COLLATE "C" DESC NULLS LAST LIMIT 5'),
        ("SELECT sum(b) AS s, max(w) AS m FROM t",
         'SELECT sum(("t"."b")::integer)::bigint AS "s", max("t"."w") AS "m" FROM "t" AS "t"'),
    ],
)  # fmt: skip
def test_views(sqlite: str, postgresql: str) -> None:
    assert translate_view(f"CREATE VIEW v AS {sqlite}", TABLES).query == postgresql


@pytest.mark.parametrize(
    "sqlite",
    [
        "SELECT t, i, count(*) FROM t GROUP BY t",
        "SELECT i, max(j) FROM t",
        "SELECT i FROM t LIMIT 3",
        "SELECT group_concat(t) FROM t",
        "SELECT i FROM nope",
        "SELECT i FROM t UNION SELECT i FROM o",
        "WITH q AS (SELECT 1) SELECT * FROM q",
        "SELECT i FROM t NATURAL JOIN o",
        "SELECT c FROM t GROUP BY c",
        "SELECT a.i, b.i FROM t a, t b",
        "SELECT row_number() OVER () FROM t",
    ],
)
def test_views_that_would_differ_are_refused(sqlite: str) -> None:
    with pytest.raises(Untranslatable):
        translate_view(f"CREATE VIEW v AS {sqlite}", TABLES)
