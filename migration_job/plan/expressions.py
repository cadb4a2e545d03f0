"""SQLite expressions in PostgreSQL: translated where the meaning is the same, refused elsewhere.

sqlglot parses; what it parsed is translated by what each part means in SQLite *and* by what the
columns have become (a 0/1 column may be a boolean, a text column a timestamp). Whatever is not
known to mean the same raises :class:`Untranslatable`: a CHECK that means something else is worse
than one that is reported missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from migration_job.plan import reach
from migration_job.plan.comparisons import changes_class, compare
from migration_job.plan.expression_operators import Operators
from migration_job.plan.expression_parts import (
    CLASS_WORDS,
    NUMBERS,
    Scope,
    Typed,
    Untranslatable,
    kind_among,
    lowered,
    number,
    reach_among,
    text_literal,
    truth,
    unified,
)
from migration_job.plan.reach import Risk
from migration_job.values import fold


def parse(sql: str) -> exp.Expr:
    """One SQLite expression. Raises Untranslatable where sqlglot cannot parse it."""
    try:
        tree = sqlglot.parse_one(f"SELECT {sql}", read="sqlite")
    except (SqlglotError, RecursionError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Untranslatable(f"sqlglot cannot parse it ({first})") from None
    if not isinstance(tree, exp.Select) or len(tree.expressions) != 1:
        raise Untranslatable("it is not one expression")
    found: exp.Expr = tree.expressions[0]
    return found


def condition(sql: str, scope: Scope, risks: list[Risk] | None = None) -> str:
    """A SQLite predicate as PostgreSQL's; what it may refuse to compute is added to ``risks``.
    Raises Untranslatable."""
    translator = Translator(scope)
    found = truth(translator.translate(parse(sql)))
    if risks is not None:
        risks += translator.risks
    return found


def value(
    sql: str, scope: Scope, risks: list[Risk] | None = None, *, unicode_case: bool = False
) -> Typed:
    """A SQLite expression as PostgreSQL's; what it may refuse to compute is added to ``risks``.
    With ``unicode_case``, lower() and upper() are as queries write them, which fold letters beyond
    ASCII too. Raises Untranslatable."""
    translator = Translator(scope, unicode_case=unicode_case)
    found = translator.translate(parse(sql))
    if risks is not None:
        risks += translator.risks
    return found


def generated(sql: str, scope: Scope, risks: list[Risk]) -> Typed:
    """:func:`value` for a generated column. Raises Untranslatable."""
    tree = parse(sql)
    _require_no_constants(tree)
    translator = Translator(scope)
    found = translator.translate(tree)
    risks += translator.risks
    return found


def _require_no_constants(tree: exp.Expr) -> None:
    """Raises Untranslatable where a part of the expression that asks for a collation names no
    column: PostgreSQL computes what is constant in a generated column before it knows the
    collation, and refuses it."""
    for node in tree.walk():
        if isinstance(node, exp.Case) and node.this is not None:
            compared: list[tuple[exp.Expr, ...]] = [
                (node.this, branch.this) for branch in node.args["ifs"]
            ]
        elif isinstance(node, exp.Func | exp.Predicate) and not isinstance(node, exp.Cast):
            compared = [(node,)]
        else:
            continue
        for parts in compared:
            texts = any(a.is_string for part in parts for a in part.find_all(exp.Literal))
            columns = any(part.find(exp.Column) for part in parts)
            if not columns and (texts or isinstance(node, _OF_TEXT)):
                raise Untranslatable(f"{node.sql('sqlite')} compares or changes constants alone")


_OF_TEXT = (exp.Lower, exp.Upper, exp.Like, exp.Glob)


class Translator(Operators):
    """Translates one parsed expression over the columns of a scope."""

    def _coalesce(self, node: exp.Coalesce) -> Typed:
        parts = [self.translate(n) for n in (node.this, *node.expressions)]
        return self._first_of(parts)

    @staticmethod
    def _first_of(parts: Sequence[Typed]) -> Typed:
        same = unified(parts)
        kind = kind_among(same)
        if kind == "null":
            return Typed("NULL", "null")
        sql = f"COALESCE({', '.join(p.sql for p in same)})"
        return Typed(sql, kind, reach=reach_among(same))

    def _nullif(self, node: exp.Nullif) -> Typed:
        left, right = self.translate(node.this), self.translate(node.expression)
        if "null" in (left.kind, right.kind):
            return left
        # A function's arguments have no affinity, and its collation is another matter.
        if left.kind != right.kind or {left.collation, right.collation} != {"BINARY"}:
            raise Untranslatable("nullif() of values of several types or under a collation")
        test = compare(replace(left, known=None), replace(right, known=None), "=")
        sql = f"(CASE WHEN {test.sql} THEN NULL ELSE {left.sql} END)"
        return Typed(sql, left.kind, reach=left.reach)

    def _case(self, node: exp.Case) -> Typed:
        subject = node.this
        tests: list[str] = []
        for branch in node.args["ifs"]:
            if subject is not None:
                tests.append(self._compared(subject, branch.this, "=").sql)
            else:
                tests.append(truth(self.translate(branch.this)))
        results = [self.translate(b.args["true"]) for b in node.args["ifs"]]
        default = node.args.get("default")
        results.append(self.translate(default) if default is not None else Typed("NULL", "null"))
        return _branches(tests, results)

    def _if(self, node: exp.If) -> Typed:
        test = truth(self.translate(node.this))
        otherwise = node.args.get("false")
        results = [
            self.translate(node.args["true"]),
            self.translate(otherwise) if otherwise is not None else Typed("NULL", "null"),
        ]
        return _branches([test], results)

    def _lower(self, node: exp.Lower) -> Typed:
        part = self._text(node.this)
        if self._case_collation:
            return Typed(lowered(part), "text")
        return Typed(f"lower({part.sql})", "text")

    def _upper(self, node: exp.Upper) -> Typed:
        return Typed(f"upper({self._as_text(node.this)}{self._case_collation})", "text")

    def _length(self, node: exp.Length) -> Typed:
        part = self.translate(node.this)
        if part.kind == "bytea":
            return Typed(f"length({part.sql})", "integer", reach=reach.LENGTH)
        return Typed(f"length({self._as_text(node.this)})", "integer", reach=reach.LENGTH)

    def _abs(self, node: exp.Abs) -> Typed:
        part = number(self.translate(node.this))
        if part.kind != "integer":
            return part if part.kind == "null" else Typed(f"abs({part.sql})", part.kind)
        # In 64 bits, as SQLite: the lowest integer of a type has no opposite in it. Of the lowest
        # in 64 bits either makes an error.
        turned = reach.computed(reach.exactly(0, 0), "-", part.reach)
        extent = reach.within(reach.joined([turned, part.reach]))
        return Typed(f"abs(({part.sql})::bigint)", "integer", reach=extent)

    def _trim(self, node: exp.Trim) -> Typed:
        function = {"LEADING": "ltrim", "TRAILING": "rtrim"}.get(
            str(node.args.get("position") or "").upper(), "btrim"
        )
        characters = node.args.get("expression")
        which = "' '" if characters is None else self._as_text(characters)
        return Typed(f"{function}({self._as_text(node.this)}, {which})", "text")

    def _substring(self, node: exp.Substring) -> Typed:
        start, length = node.args.get("start"), node.args.get("length")
        numbers = [self.translate(n).literal if n is not None else None for n in (start, length)]
        if not isinstance(numbers[0], int) or numbers[0] < 1:
            raise Untranslatable("substr() from a place that is not a positive literal")
        if length is not None and (not isinstance(numbers[1], int) or numbers[1] < 0):
            raise Untranslatable("substr() of a length that is not a literal")
        rest = f", {numbers[1]}" if length is not None else ""
        return Typed(f"substr({self._as_text(node.this)}, {numbers[0]}{rest})", "text")

    def _strposition(self, node: exp.StrPosition) -> Typed:
        return Typed(
            f"strpos({self._as_text(node.this)}, {self._as_text(node.args['substr'])})",
            "integer",
            reach=reach.LENGTH,
        )

    def _replace(self, node: exp.Replace) -> Typed:
        parts = [node.this, node.expression, node.args.get("replacement")]
        return Typed(
            f"replace({', '.join(self._as_text(p) for p in parts if p is not None)})", "text"
        )

    def _typeof(self, node: exp.Typeof) -> Typed:
        return self._storage_class(node.this)

    def _storage_class(self, node: exp.Expr) -> Typed:
        part = self.translate(node)
        known = part.known
        if known is None or part.kind not in CLASS_WORDS or not known.exact or changes_class(known):
            raise Untranslatable("typeof() of what may be of several types")
        word = text_literal(CLASS_WORDS[part.kind])
        return Typed(f"(CASE WHEN {part.sql} IS NULL THEN 'null' ELSE {word} END)", "text")

    def _cast(self, node: exp.Cast) -> Typed:
        part = self.translate(node.this)
        wanted = node.to.sql(dialect="sqlite").upper()
        if "INT" in wanted and part.kind in ("integer", "boolean"):
            whole = number(part)
            return Typed(f"({whole.sql})::bigint", "integer", reach=whole.reach)
        if "INT" in wanted and part.kind == "real":
            return _truncated(part)
        if any(word in wanted for word in ("TEXT", "CHAR")) and part.kind in ("integer", "text"):
            return Typed(f"({part.sql})::text", "text")
        if any(w in wanted for w in ("REAL", "DOUB", "FLOA")) and part.kind in NUMBERS:
            return Typed(f"({part.sql})::double precision", "real")
        raise Untranslatable(f"CAST of a {part.kind} AS {wanted}")

    def _greatest(self, node: exp.Greatest) -> Typed:
        return self._extreme(node, "GREATEST")

    def _least(self, node: exp.Least) -> Typed:
        return self._extreme(node, "LEAST")

    def _max(self, node: exp.Max) -> Typed:
        return self._extreme(node, "GREATEST")

    def _min(self, node: exp.Min) -> Typed:
        return self._extreme(node, "LEAST")

    def _extreme(self, node: exp.Func, word: str) -> Typed:
        if not node.expressions:
            raise Untranslatable(f"the aggregate {node.sql(dialect='sqlite')[:40]}")
        parts = [number(self.translate(n)) for n in (node.this, *node.expressions)]
        kinds = {p.kind for p in parts}
        if "null" in kinds:
            return Typed("NULL", "null")
        kind = kind_among(parts)
        if len(kinds) > 1 or kind not in ("integer", "real"):
            raise Untranslatable("min() or max() of values of several types")
        # SQLite's is NULL as soon as one argument is.
        empty = " OR ".join(f"{p.sql} IS NULL" for p in parts)
        values = ", ".join(p.sql for p in parts)
        sql = f"(CASE WHEN {empty} THEN NULL ELSE {word}({values}) END)"
        return Typed(sql, kind, reach=reach_among(parts))

    def _anonymous(self, node: exp.Anonymous) -> Typed:
        name = fold(node.name)
        arguments = node.expressions
        if name == "typeof" and len(arguments) == 1:
            return self._storage_class(arguments[0])
        if name == "instr" and len(arguments) == 2:
            a, b = (self._as_text(n) for n in arguments)
            return Typed(f"strpos({a}, {b})", "integer", reach=reach.LENGTH)
        if name == "ifnull" and len(arguments) == 2:
            return self._first_of([self.translate(n) for n in arguments])
        if name == "json_valid" and len(arguments) == 1:
            part = self.translate(arguments[0])
            if part.kind == "json":
                return Typed(f"(CASE WHEN {part.sql} IS NOT NULL THEN TRUE END)", "boolean")
        raise Untranslatable(f"the function {node.name}() has no translation")


def _branches(tests: Sequence[str], results: Sequence[Typed]) -> Typed:
    same = unified(results)
    if kind_among(same) == "null":
        # A CASE of NULLs alone would be text.
        return Typed("NULL", "null")
    whens = " ".join(
        f"WHEN {test} THEN {result.sql}" for test, result in zip(tests, same[:-1], strict=True)
    )
    sql = f"(CASE {whens} ELSE {same[-1].sql} END)"
    return Typed(sql, kind_among(same), reach=reach_among(same))


def _truncated(part: Typed) -> Typed:
    """A real as an integer: SQLite gives the nearest that 64 bits hold, PostgreSQL an error."""
    sql = part.sql
    return Typed(
        f"(CASE WHEN {sql} >= 9223372036854775808 THEN {reach.HIGHEST} "
        f"WHEN {sql} <= -9223372036854775808 THEN '{reach.LOWEST}'::bigint "
        f"ELSE trunc({sql})::bigint END)",
        "integer",
    )
