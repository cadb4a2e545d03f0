"""Operators in an expression, translated where they mean the same."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace

from sqlglot import exp

from migration_job.plan import reach
from migration_job.plan.comparisons import ORDERING, compare, glob_to_regex
from migration_job.plan.expression_parts import (
    Scope,
    Typed,
    Untranslatable,
    lowered,
    number,
    part_of,
    spelled,
    text_literal,
    truth,
)
from migration_job.plan.reach import Risk, beside_a_real, real_risk, whole_risk

COMPARISONS = (exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.Is)


class Operators:
    """Leaves, logic, comparisons, patterns and arithmetic: what needs no function's name."""

    def __init__(self, scope: Scope, *, unicode_case: bool = False) -> None:
        self._scope = scope
        self._case_collation = "" if unicode_case else ' COLLATE "C"'
        self._risks: list[Risk] = []

    @property
    def risks(self) -> Sequence[Risk]:
        """The operations of what was translated that PostgreSQL may refuse to compute."""
        return self._risks

    @property
    def _same_order(self) -> bool:
        return all(known.same_order for known in self._scope.values())

    def translate(self, node: exp.Expr) -> Typed:
        """The node as PostgreSQL's SQL, in parentheses where it needs them."""
        method = getattr(self, f"_{type(node).__name__.lower()}", None)
        if method is None:
            name = node.name if isinstance(node, exp.Anonymous) else node.sql(dialect="sqlite")
            raise Untranslatable(f"{name[:60]} has no translation")
        try:
            result: Typed = method(node)
        except RecursionError:
            raise Untranslatable("its terms are nested too deeply") from None
        if node.args.get("negate"):
            return Typed(f"(NOT {truth(result)})", "boolean")
        return result

    # ------------------------------------------------------------------------------- leaves

    def _paren(self, node: exp.Paren) -> Typed:
        inner = self.translate(node.this)
        return replace(inner, sql=f"({inner.sql})") if not inner.known else inner

    def _column(self, node: exp.Column) -> Typed:
        known = self._scope.get(spelled(node.name, node.table))
        if known is None:
            identifier = node.this
            if isinstance(identifier, exp.Identifier) and identifier.quoted and not node.table:
                # SQLite takes a double-quoted name that is no column for a string.
                return Typed(text_literal(node.name), "text", literal=node.name, is_literal=True)
            raise Untranslatable(f"there is no column {node.sql(dialect='sqlite')}")
        if known.hidden:
            raise Untranslatable(known.hidden)
        return part_of(known)

    def _literal(self, node: exp.Literal) -> Typed:
        if node.is_string:
            return Typed(text_literal(node.this), "text", literal=node.this, is_literal=True)
        text = str(node.this).replace("_", "")
        if re.fullmatch(r"\d+", text):
            whole = int(text)
            return _real(text) if whole > reach.HIGHEST else _whole(whole)
        return _real(text)

    def _hexstring(self, node: exp.HexString) -> Typed:
        digits = str(node.this)
        return Typed(f"'\\x{digits}'::bytea", "bytea")

    def _null(self, node: exp.Null) -> Typed:
        del node
        return Typed("NULL", "null")

    def _boolean(self, node: exp.Boolean) -> Typed:
        return Typed("TRUE" if node.this else "FALSE", "boolean")

    def _collate(self, node: exp.Collate) -> Typed:
        if isinstance(node.this, exp.Binary | exp.Unary) and not isinstance(node.this, exp.Paren):
            raise Untranslatable("COLLATE of a compound expression")
        part = self.translate(node.this)
        return replace(part, collation=node.expression.name.upper(), named=True)

    # -------------------------------------------------------------------------------- logic

    def _and(self, node: exp.And) -> Typed:
        return self._logic(node, "AND")

    def _or(self, node: exp.Or) -> Typed:
        return self._logic(node, "OR")

    def _logic(self, node: exp.Binary, word: str) -> Typed:
        # A chain is one step: hundreds of terms would be as many calls within one another.
        operands: list[exp.Expr] = [node.right]
        left = node.left
        while type(left) is type(node) and not left.args.get("negate"):
            operands.append(left.right)
            left = left.left
        operands.append(left)
        terms = [truth(self.translate(operand)) for operand in reversed(operands)]
        return Typed(f"({f' {word} '.join(terms)})", "boolean")

    def _not(self, node: exp.Not) -> Typed:
        inner = self.translate(node.this)
        return Typed(f"(NOT {truth(inner)})", "boolean")

    def _is(self, node: exp.Is) -> Typed:
        if isinstance(node.expression, exp.Null):
            return Typed(f"({self._asked_for_null(node.this)} IS NULL)", "boolean")
        left = self.translate(node.this)
        if isinstance(node.expression, exp.Boolean):
            word = "TRUE" if node.expression.this else "FALSE"
            return Typed(f"(({truth(left)}) IS {word})", "boolean")
        return self._compared(node.this, node.expression, "IS NOT DISTINCT FROM")

    def _asked_for_null(self, node: exp.Expr) -> str:
        if isinstance(node, exp.Column):
            known = self._scope.get(spelled(node.name, node.table))
            if known is not None and known.tells_null:
                return known.sql
        return self.translate(node).sql

    def _nullsafeeq(self, node: exp.NullSafeEQ) -> Typed:
        return self._compared(node.this, node.expression, "IS NOT DISTINCT FROM")

    def _nullsafeneq(self, node: exp.NullSafeNEQ) -> Typed:
        return self._compared(node.this, node.expression, "IS DISTINCT FROM")

    def _eq(self, node: exp.EQ) -> Typed:
        return self._compared(node.left, node.right, "=")

    def _neq(self, node: exp.NEQ) -> Typed:
        return self._compared(node.left, node.right, "<>")

    def _lt(self, node: exp.LT) -> Typed:
        return self._compared(node.left, node.right, "<")

    def _lte(self, node: exp.LTE) -> Typed:
        return self._compared(node.left, node.right, "<=")

    def _gt(self, node: exp.GT) -> Typed:
        return self._compared(node.left, node.right, ">")

    def _gte(self, node: exp.GTE) -> Typed:
        return self._compared(node.left, node.right, ">=")

    def _between(self, node: exp.Between) -> Typed:
        if node.args.get("symmetric"):
            raise Untranslatable("BETWEEN SYMMETRIC is none of SQLite's")
        low = self._compared(node.this, node.args["low"], ">=")
        high = self._compared(node.this, node.args["high"], "<=")
        return Typed(f"({low.sql} AND {high.sql})", "boolean")

    def _in(self, node: exp.In) -> Typed:
        if node.args.get("query") is not None or node.args.get("field") is not None:
            raise Untranslatable("IN over a query or a table")
        if not node.expressions:
            return Typed("FALSE", "boolean")
        if node.find(exp.Collate) is not None:
            raise Untranslatable("IN under a COLLATE")
        left = self.translate(node.this)
        # The left operand's affinity and collation alone count, not those of columns in the list.
        members = [
            replace(self.translate(item), known=None, collation="BINARY", named=False)
            for item in node.expressions
        ]
        parts = [compare(left, member, "=").sql for member in members]
        return Typed(f"({' OR '.join(parts)})", "boolean")

    def _compared(self, left: exp.Expr, right: exp.Expr, word: str) -> Typed:
        if any(isinstance(side, COMPARISONS) for side in (left, right)):
            raise Untranslatable("a comparison of comparisons without parentheses")
        # A COLLATE deep inside an operand counts for the whole comparison in SQLite.
        for side in (left, right):
            inner = side.this if isinstance(side, exp.Collate) else side
            if inner.find(exp.Collate) is not None:
                raise Untranslatable("COLLATE within an operand of a comparison")
        first, second = self.translate(left), self.translate(right)
        if word in ORDERING and "text" in (first.kind, second.kind) and not self._same_order:
            raise Untranslatable("the source orders texts by their UTF-16 bytes")
        self._risks += _inexact((left, first), (right, second))
        return compare(first, second, word)

    # -------------------------------------------------------------------------- patterns

    def _like(self, node: exp.Like) -> Typed:
        return self._matched(node.this, node.expression, "")

    def _escape(self, node: exp.Escape) -> Typed:
        like = node.this
        if isinstance(like, exp.Like):
            matched = self._matched(like.this, like.expression, node.expression.name)
            negated = Typed(f"(NOT {matched.sql})", "boolean")
            return negated if like.args.get("negate") else matched
        raise Untranslatable("ESCAPE outside LIKE")

    def _matched(self, this: exp.Expr, pattern: exp.Expr, escape: str) -> Typed:
        # SQLite's LIKE folds the case of ASCII letters alone.
        left, right = lowered(self._text(this)), lowered(self._text(pattern))
        return Typed(
            f"({left} LIKE {right} ESCAPE {text_literal(escape.lower())})",
            "boolean",
        )

    def _glob(self, node: exp.Glob) -> Typed:
        left = self._as_text(node.this)
        pattern = self.translate(node.expression)
        if not pattern.is_literal or not isinstance(pattern.literal, str):
            raise Untranslatable("GLOB with a pattern that is no literal")
        regex = glob_to_regex(pattern.literal)
        return Typed(f'({left} COLLATE "C" ~ {text_literal(regex)})', "boolean")

    def _as_text(self, node: exp.Expr) -> str:
        return self._text(node).sql

    def _text(self, node: exp.Expr) -> Typed:
        part = self.translate(node)
        if part.kind == "text":
            return part
        if part.kind == "integer":
            return Typed(f"({part.sql})::text", "text")
        if part.kind == "null":
            return Typed("NULL::text", "text")
        raise Untranslatable(f"a {part.kind} where text is expected")

    # ------------------------------------------------------------------------- arithmetic

    def _add(self, node: exp.Add) -> Typed:
        return self._arithmetic(node, "+")

    def _sub(self, node: exp.Sub) -> Typed:
        return self._arithmetic(node, "-")

    def _mul(self, node: exp.Mul) -> Typed:
        return self._arithmetic(node, "*")

    def _div(self, node: exp.Div) -> Typed:
        return self._arithmetic(node, "/")

    def _mod(self, node: exp.Mod) -> Typed:
        return self._arithmetic(node, "%")

    def _arithmetic(self, node: exp.Binary, sign: str) -> Typed:
        if any(isinstance(side, exp.DPipe) for side in (node.left, node.right)):
            raise Untranslatable("|| within arithmetic without parentheses")
        left, right = number(self.translate(node.left)), number(self.translate(node.right))
        kinds = {left.kind, right.kind} - {"null"}
        if not kinds:
            return Typed("NULL", "null")
        if "numeric" in kinds and sign in ("/", "%"):
            raise Untranslatable("division of a column that holds integers and reals")
        # SQLite computes in 64 bits and in doubles.
        wide = "bigint" if kinds == {"integer"} else "double precision"
        extent = self._extent(node, sign, left, right) if wide == "bigint" else reach.ANY
        if wide != "bigint":
            whole, *sides = (_written(n) for n in (node, node.left, node.right))
            self._risks.append(real_risk(whole, sides[0], sign, sides[1]))
        if sign == "%" and wide != "bigint":
            raise Untranslatable("a remainder of reals")
        a = left.sql if left.is_literal else f"({left.sql})::{wide}"
        b = right.sql if right.is_literal else f"({right.sql})::{wide}"
        if left.is_literal and right.is_literal:
            a = f"{a}::{wide}"
        if sign in ("/", "%"):
            # A division by zero is NULL in SQLite.
            b = f"NULLIF({b}, 0)"
        return Typed(f"({a} {sign} {b})", "integer" if wide == "bigint" else "real", reach=extent)

    def _extent(self, node: exp.Expr, sign: str, left: Typed, right: Typed) -> reach.Reach:
        """The integers that an operation gives on PostgreSQL; one that may go beyond is a risk."""
        found = reach.computed(left.reach, sign, right.reach)
        if not found.fits:
            one = isinstance(node, exp.Neg | exp.Div)
            text = _written(node)
            self._risks.append(whole_risk(text, found, of_one_value=one))
        return reach.within(found)

    def _neg(self, node: exp.Neg) -> Typed:
        operand = node.this.unnest()
        if isinstance(operand, exp.Literal) and str(operand.this) == str(-reach.LOWEST):
            # The lowest integer, whose digits alone are a real's.
            return _whole(reach.LOWEST)
        inner = number(self.translate(node.this))
        if inner.kind == "null":
            return inner
        if inner.is_literal and isinstance(inner.literal, int | float):
            turned = reach.computed(reach.exactly(0, 0), "-", inner.reach)
            return replace(inner, sql=f"(-{inner.sql})", literal=-inner.literal, reach=turned)
        wide = "bigint" if inner.kind == "integer" else "double precision"
        if wide == "bigint":
            extent = self._extent(node, "-", _whole(0), inner)
            return Typed(f"(-({inner.sql})::bigint)", "integer", reach=extent)
        # SQLite takes it from zero: of zero it makes no negative zero.
        return Typed(f"(0 - ({inner.sql})::double precision)", "real")

    def _dpipe(self, node: exp.DPipe) -> Typed:
        # It binds tighter than arithmetic in SQLite, not so everywhere.
        arithmetic = (exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Mod, exp.Neg)
        if any(isinstance(side, arithmetic) for side in (node.left, node.right)):
            raise Untranslatable("|| within arithmetic without parentheses")
        return Typed(f"({self._as_text(node.left)} || {self._as_text(node.right)})", "text")


def _inexact(*sides: tuple[exp.Expr, Typed]) -> list[Risk]:
    """What a comparison of these is a risk of, where one is an integer and one a real."""
    kinds = {part.kind: (node, part) for node, part in sides if not part.is_literal}
    if "integer" not in kinds or "real" not in kinds:
        return []
    (whole, part), (real, _) = kinds["integer"], kinds["real"]
    found = beside_a_real(_written(whole), part.reach, _written(real))
    return [found] if found is not None else []


def _written(node: exp.Expr) -> str:
    return node.sql(dialect="sqlite", comments=False)


def _whole(value: int) -> Typed:
    # Without a sign of its own the lowest would be a numeric.
    text = f"'{value}'::bigint" if value == reach.LOWEST else str(value)
    return Typed(text, "integer", literal=value, is_literal=True, reach=reach.exactly(value, value))


def _real(text: str) -> Typed:
    """PostgreSQL refuses digits that are beyond a double, or so small that they are zero."""
    value = float(text)
    if math.isinf(value):
        text = "'Infinity'"
    elif value == 0:
        text = "0"
    return Typed(f"{text}::double precision", "real", literal=value, is_literal=True)
