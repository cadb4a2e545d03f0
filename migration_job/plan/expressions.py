"""SQLite expressions in PostgreSQL: translated where the meaning is the same, refused elsewhere.

sqlglot parses; what it parsed is translated by what each part means in SQLite *and* by what the
columns have become (a 0/1 column may be a boolean, a text column a timestamp). Whatever is not
known to mean the same raises :class:`Untranslatable`: a CHECK that means something else is worse
than one that is reported missing.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from migration_job.plan import moments
from migration_job.plan.rules import (
    NUMBER_AFFINITIES,
    TARGETS,
    Affinity,
    CannotCarry,
    Kind,
    RuleBase,
    TimeRule,
    TimestampRule,
    base_of,
    inside,
)
from migration_job.quoting import postgres_text
from migration_job.values import fold

# What sqlglot cannot parse becomes a finding here; its own warnings would only repeat it.
logging.getLogger("sqlglot").setLevel(logging.ERROR)


class Untranslatable(Exception):
    """There is no expression of the same meaning; the message says what stands in the way."""


@dataclass(frozen=True, slots=True)
class Known:
    """A column as an expression may meet it."""

    sql: str
    """Its reference in PostgreSQL, quoted."""
    kind: Kind
    rule: RuleBase
    exact: bool = True
    collation: str = "BINARY"
    affinity: Affinity = "blob"
    """SQLite's, which decides what a comparison converts; "blob" where there is none."""
    hidden: str = ""
    """Why an expression cannot refer to it on the target, though it can on the source."""
    same_order: bool = True
    """Whether texts are ordered on the source as the target's "C" orders them: by the bytes of
    UTF-8, not of UTF-16."""


Scope = Mapping[str, Known]
"""Columns by what :func:`spelled` makes of their names, with and without their table's."""


def spelled(name: str, table: str = "") -> str:
    """A column's key in a :data:`Scope`. Names hold any character but NUL, the dot as well."""
    return fold(f"{table}\0{name}" if table else name)


@dataclass(frozen=True, slots=True)
class Typed:
    """A translated part: PostgreSQL's SQL and what it yields there."""

    sql: str
    kind: Kind
    known: Known | None = None
    literal: str | int | float | None = None
    is_literal: bool = False
    collation: str = "BINARY"
    named: bool = False
    """Whether COLLATE names the collation here, rather than the column's definition."""


CLASS_WORDS: Mapping[Kind, str] = {
    "integer": "integer",
    "boolean": "integer",
    "real": "real",
    "text": "text",
    "uuid": "text",
    "date": "text",
    "bytea": "blob",
}
"""What typeof() says of the values that a kind has come from."""

ORDERING = ("<", "<=", ">", ">=")

COMPARISONS = (exp.EQ, exp.NEQ, exp.LT, exp.LTE, exp.GT, exp.GTE, exp.Is)

NUMBERS: frozenset[Kind] = frozenset({"integer", "real", "numeric"})


def kind_of(type_sql: str) -> Kind:
    """The kind of a plan's PostgreSQL type."""
    return TARGETS[base_of(type_sql)].kind


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


def condition(sql: str, scope: Scope) -> str:
    """A SQLite predicate as PostgreSQL's. Raises Untranslatable."""
    return truth(Translator(scope).translate(parse(sql)))


def value(sql: str, scope: Scope, *, plain_case: bool = False) -> Typed:
    """A SQLite expression as PostgreSQL's; with ``plain_case``, lower() and upper() as queries
    write them, which fold letters beyond ASCII too. Raises Untranslatable."""
    return Translator(scope, plain_case=plain_case).translate(parse(sql))


def truth(part: Typed) -> str:
    """The part as a condition: SQLite takes every number but 0 for true."""
    if part.kind == "boolean":
        return part.sql
    if part.kind in NUMBERS:
        return f"{part.sql} <> 0"
    if part.kind == "null":
        return "NULL::boolean"
    raise Untranslatable(f"a {part.kind} stands where a condition is due")


def number(part: Typed) -> Typed:
    """The part as a number: SQLite's truth values are 0 and 1."""
    if part.kind == "boolean":
        return Typed(f"({part.sql})::integer", "integer")
    if part.kind in NUMBERS or part.kind == "null":
        return part
    raise Untranslatable(f"a {part.kind} stands where a number is due")


def text_literal(text: str) -> str:
    """Text as a PostgreSQL literal. Raises Untranslatable for NUL."""
    if "\x00" in text:
        raise Untranslatable("a literal holds a NUL character")
    return postgres_text(text)


class Translator:
    """Translates one parsed expression over the columns of a scope."""

    def __init__(self, scope: Scope, *, plain_case: bool = False) -> None:
        self._scope = scope
        self._case_collation = "" if plain_case else ' COLLATE "C"'

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
        return Typed(known.sql, known.kind, known=known, collation=known.collation)

    def _literal(self, node: exp.Literal) -> Typed:
        if node.is_string:
            return Typed(text_literal(node.this), "text", literal=node.this, is_literal=True)
        text = str(node.this).replace("_", "")
        if re.fullmatch(r"\d+", text):
            whole = int(text)
            if whole >= 2**63:
                return Typed(
                    f"{whole}::double precision", "real", literal=float(whole), is_literal=True
                )
            return Typed(str(whole), "integer", literal=whole, is_literal=True)
        return Typed(f"{text}::double precision", "real", literal=float(text), is_literal=True)

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
        left = self.translate(node.this)
        if isinstance(node.expression, exp.Null):
            return Typed(f"({left.sql} IS NULL)", "boolean")
        if isinstance(node.expression, exp.Boolean):
            word = "TRUE" if node.expression.this else "FALSE"
            return Typed(f"(({truth(left)}) IS {word})", "boolean")
        return self._compared(node.this, node.expression, "IS NOT DISTINCT FROM")

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
        left, right = self._as_text(this), self._as_text(pattern)
        # SQLite's LIKE folds the case of ASCII letters alone; so does lower() under "C".
        return Typed(
            f'(lower({left} COLLATE "C") LIKE lower({right} COLLATE "C") '
            f"ESCAPE {text_literal(escape.lower())})",
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
        part = self.translate(node)
        if part.kind == "text":
            return part.sql
        if part.kind == "integer":
            return f"({part.sql})::text"
        if part.kind == "null":
            return "NULL::text"
        raise Untranslatable(f"a {part.kind} stands where text is due")

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
        if sign == "%" and wide != "bigint":
            raise Untranslatable("a remainder of reals")
        a = left.sql if left.is_literal else f"({left.sql})::{wide}"
        b = right.sql if right.is_literal else f"({right.sql})::{wide}"
        if left.is_literal and right.is_literal:
            a = f"{a}::{wide}"
        if sign in ("/", "%"):
            # A division by zero is NULL in SQLite.
            b = f"NULLIF({b}, 0)"
        return Typed(f"({a} {sign} {b})", "integer" if wide == "bigint" else "real")

    def _neg(self, node: exp.Neg) -> Typed:
        inner = number(self.translate(node.this))
        if inner.kind == "null":
            return inner
        if inner.is_literal and isinstance(inner.literal, int | float):
            return Typed(f"(-{inner.sql})", inner.kind, literal=-inner.literal, is_literal=True)
        wide = "bigint" if inner.kind == "integer" else "double precision"
        return Typed(f"(-({inner.sql})::{wide})", "integer" if wide == "bigint" else "real")

    def _dpipe(self, node: exp.DPipe) -> Typed:
        # It binds tighter than arithmetic in SQLite, not so everywhere.
        arithmetic = (exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Mod, exp.Neg)
        if any(isinstance(side, arithmetic) for side in (node.left, node.right)):
            raise Untranslatable("|| within arithmetic without parentheses")
        return Typed(f"({self._as_text(node.left)} || {self._as_text(node.right)})", "text")

    # -------------------------------------------------------------------------- functions

    def _coalesce(self, node: exp.Coalesce) -> Typed:
        parts = [self.translate(n) for n in (node.this, *node.expressions)]
        return self._first_of(parts)

    @staticmethod
    def _first_of(parts: Sequence[Typed]) -> Typed:
        same = unified(parts)
        kind = kind_among(same)
        if kind == "null":
            return Typed("NULL", "null")
        return Typed(f"COALESCE({', '.join(p.sql for p in same)})", kind)

    def _nullif(self, node: exp.Nullif) -> Typed:
        left, right = self.translate(node.this), self.translate(node.expression)
        if "null" in (left.kind, right.kind):
            return left
        # A function's arguments have no affinity, and its collation is another matter.
        if left.kind != right.kind or {left.collation, right.collation} != {"BINARY"}:
            raise Untranslatable("nullif() of values of several types or under a collation")
        test = compare(replace(left, known=None), replace(right, known=None), "=")
        return Typed(f"(CASE WHEN {test.sql} THEN NULL ELSE {left.sql} END)", left.kind)

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
        return Typed(f"lower({self._as_text(node.this)}{self._case_collation})", "text")

    def _upper(self, node: exp.Upper) -> Typed:
        return Typed(f"upper({self._as_text(node.this)}{self._case_collation})", "text")

    def _length(self, node: exp.Length) -> Typed:
        part = self.translate(node.this)
        if part.kind == "bytea":
            return Typed(f"length({part.sql})", "integer")
        return Typed(f"length({self._as_text(node.this)})", "integer")

    def _abs(self, node: exp.Abs) -> Typed:
        part = number(self.translate(node.this))
        return part if part.kind == "null" else Typed(f"abs({part.sql})", part.kind)

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
            f"strpos({self._as_text(node.this)}, {self._as_text(node.args['substr'])})", "integer"
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
        if (
            known is None
            or part.kind not in CLASS_WORDS
            or not known.exact
            or _changes_class(known)
        ):
            raise Untranslatable("typeof() of what may be of several types")
        word = text_literal(CLASS_WORDS[part.kind])
        return Typed(f"(CASE WHEN {part.sql} IS NULL THEN 'null' ELSE {word} END)", "text")

    def _cast(self, node: exp.Cast) -> Typed:
        part = self.translate(node.this)
        wanted = node.to.sql(dialect="sqlite").upper()
        if "INT" in wanted and part.kind in ("integer", "boolean"):
            return Typed(f"({number(part).sql})::bigint", "integer")
        if "INT" in wanted and part.kind == "real":
            return Typed(f"trunc({part.sql})::bigint", "integer")
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
        return Typed(f"(CASE WHEN {empty} THEN NULL ELSE {word}({values}) END)", kind)

    def _anonymous(self, node: exp.Anonymous) -> Typed:
        name = fold(node.name)
        arguments = node.expressions
        if name == "typeof" and len(arguments) == 1:
            return self._storage_class(arguments[0])
        if name == "instr" and len(arguments) == 2:
            a, b = (self._as_text(n) for n in arguments)
            return Typed(f"strpos({a}, {b})", "integer")
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
    return Typed(f"(CASE {whens} ELSE {same[-1].sql} END)", kind_among(same))


def unified(parts: Sequence[Typed]) -> list[Typed]:
    """The parts as one kind. Raises Untranslatable where SQLite would mix storage classes."""
    kinds = {p.kind for p in parts} - {"null"}
    if len({base_of(p.known.rule.target_type) for p in parts if p.kind == "time" and p.known}) > 1:
        raise Untranslatable("a time of day beside a time")
    if len(kinds) <= 1:
        return list(parts)
    if kinds <= {"boolean", "integer"}:
        return [number(p) if p.kind == "boolean" else p for p in parts]
    raise Untranslatable(f"values of several types ({', '.join(sorted(kinds))})")


def kind_among(parts: Sequence[Typed]) -> Kind:
    """The one kind of unified parts."""
    return next((p.kind for p in parts if p.kind != "null"), "null")


# ------------------------------------------------------------------------------ comparison


def compare(left: Typed, right: Typed, word: str) -> Typed:
    """A comparison by SQLite's affinities and collations. Raises Untranslatable."""
    if "null" in (left.kind, right.kind):
        if "DISTINCT" in word:
            a, b = left.sql, right.sql
            return Typed(f"({a} {word} {b})", "boolean")
        return Typed("NULL::boolean", "boolean")
    left, right = _coerced(left, right), _coerced(right, left)
    if left.kind == right.kind == "boolean":
        return Typed(f"({left.sql} {word} {right.sql})", "boolean")
    if "boolean" in (left.kind, right.kind):
        left, right = number(left), number(right)
    if left.kind in NUMBERS and right.kind in NUMBERS:
        return Typed(f"({left.sql} {word} {right.sql})", "boolean")
    if left.kind == right.kind == "text":
        return _compare_text(left, right, word)
    if left.kind == right.kind and left.kind in ("bytea", "uuid", "date"):
        return Typed(f"({left.sql} {word} {right.sql})", "boolean")
    if left.kind == right.kind == "time" and _same_shape(left, right):
        return Typed(f"({left.sql} {word} {right.sql})", "boolean")
    raise Untranslatable(f"a comparison of {left.kind} with {right.kind}")


def _compare_text(left: Typed, right: Typed, word: str) -> Typed:
    # A COLLATE written here comes first, then a column's own; the left before the right.
    sides = (left, right)
    numeric = [p.known is not None and p.known.affinity not in ("text", "blob") for p in sides]
    if numeric[0] != numeric[1] and not any(p.is_literal for p in sides):
        # SQLite compares the other side's text as a number where it looks like one.
        raise Untranslatable("text compared with a column of numeric affinity")
    candidates = [p.collation for p in sides if p.named]
    candidates += [p.collation for p in sides if p.known is not None]
    collation = candidates[0] if candidates else "BINARY"
    a, b = left.sql, right.sql
    if collation.upper() == "NOCASE":
        a, b = f'lower({a} COLLATE "C")', f'lower({b} COLLATE "C")'
    elif collation.upper() == "RTRIM":
        a, b = f"rtrim({a}, ' ')", f"rtrim({b}, ' ')"
    elif collation.upper() != "BINARY":
        raise Untranslatable(f"the collation {collation} is the application's own")
    if word in ORDERING:
        a = f'{a} COLLATE "C"'
    return Typed(f"({a} {word} {b})", "boolean")


def _coerced(part: Typed, other: Typed) -> Typed:
    """A literal under the affinity of the column that it is compared with."""
    if not part.is_literal or other.known is None:
        return part
    known = other.known
    if _of_other_classes(part.literal, known):
        raise Untranslatable("a number compared with text")
    if known.kind == "text" and isinstance(part.literal, int):
        return Typed(
            text_literal(str(part.literal)), "text", literal=str(part.literal), is_literal=True
        )
    if known.kind in NUMBERS and isinstance(part.literal, str):
        if re.fullmatch(r"-?\d{1,18}", part.literal):
            whole = int(part.literal)
            return Typed(str(whole), "integer", literal=whole, is_literal=True)
        raise Untranslatable("a number compared with text")
    if known.kind == "boolean" and part.literal in (0, 1):
        return Typed("TRUE" if part.literal else "FALSE", "boolean")
    if known.kind in ("time", "date", "uuid") and isinstance(part.literal, str):
        return _spelled(part.literal, known)
    return part


def _of_other_classes(literal: str | int | float | None, known: Known) -> bool:
    """Whether SQLite compares a number with text here, of which the number is always the less."""
    if known.kind in NUMBERS:
        return known.affinity == "blob" and isinstance(literal, str)
    if known.kind != "text" or known.affinity == "text":
        return False
    if isinstance(literal, str) and known.affinity != "blob":
        return bool(re.match(r"\s*[-+]?\.?\d", literal))
    return isinstance(literal, int)


def _spelled(text: str, known: Known) -> Typed:
    """A text literal as a value of the column's type, where the column spells its values so."""
    inner = inside(known.rule)
    if known.kind == "time":
        moment = moments.read(text)
        same = moment is not None and moment.shape == getattr(inner, "shape", None)
        if not same or not known.exact or not in_order(inner):
            raise Untranslatable("a time compared with text of another shape than its own")
    try:
        spelled = inner.forward(text)
    except CannotCarry as reason:
        raise Untranslatable(str(reason)) from None
    types = {"time": "timestamptz" if isinstance(inner, TimestampRule) else "time"}
    cast = types.get(known.kind, known.kind)
    return Typed(f"'{spelled}'::{cast}", known.kind)


def _same_shape(left: Typed, right: Typed) -> bool:
    """Whether two times compare as their texts do in SQLite: one shape, nothing else in it."""
    rules = [inside(p.known.rule) for p in (left, right) if p.known is not None]
    if len(rules) < 2:
        # A literal was brought to the column's shape already.
        return True
    exact = all(p.known is None or p.known.exact for p in (left, right)) and all(
        in_order(rule) for rule in rules
    )
    return exact and getattr(rules[0], "shape", 0) == getattr(rules[1], "shape", 1)


def in_order(rule: RuleBase) -> bool:
    """Whether the texts of the column's times are in the order of the times. A zone at their end
    is in the way where some say more of a second than others."""
    inner = inside(rule)
    if not isinstance(inner, TimestampRule | TimeRule) or inner.shape == "epoch":
        return True
    shape = moments.parse_shape(inner.shape)
    return not shape.zone or (shape.has_seconds and inner.precision <= shape.digits)


def _changes_class(known: Known) -> bool:
    """Whether the source has values of another class than the target's type tells of: a text that
    refers to an integer is one there, and text in a column of numbers may be a number."""
    if not known.rule.own_class:
        return True
    return known.rule.kind == "text" and known.affinity in NUMBER_AFFINITIES


def glob_to_regex(pattern: str) -> str:
    """SQLite's GLOB pattern as an anchored regular expression of PostgreSQL's. Raises
    Untranslatable for an unclosed set."""
    parts: list[str] = []
    index = 0
    while index < len(pattern):
        character = pattern[index]
        index += 1
        if character == "*":
            parts.append(".*")
        elif character == "?":
            parts.append(".")
        elif character == "[":
            negated = pattern[index : index + 1] == "^"
            start = index + negated
            # A ']' that comes first is a member of the set.
            end = pattern.find("]", start + 1)
            if end < 0:
                raise Untranslatable("GLOB with an unclosed set")
            members = pattern[start:end].replace("\\", "\\\\").replace("[", "\\[")
            members = members.replace("]", "\\]").replace("^", "\\^")
            parts.append(f"[{'^' if negated else ''}{members}]")
            index = end + 1
        else:
            parts.append(re.sub(r"([\\.^$|()*+?{}\[\]])", r"\\\1", character))
    return f"^{''.join(parts)}$"
