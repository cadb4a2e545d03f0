"""Views: a SELECT of SQLite's as PostgreSQL's, where every part of it means the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from migration_job.plan import naming, reach
from migration_job.plan.comparisons import in_order
from migration_job.plan.expression_parts import (
    NUMBERS,
    Known,
    Scope,
    Typed,
    Untranslatable,
    number,
    part_of,
    spelled,
    truth,
)
from migration_job.plan.expressions import Translator
from migration_job.plan.reach import Risk
from migration_job.plan.rules import ConstantRule
from migration_job.quoting import as_written, compose, postgres_name
from migration_job.values import fold


@dataclass(frozen=True, slots=True)
class ViewTable:
    """A table or view that a query may read."""

    sql: str
    """Its name on the target, quoted."""
    scope: Scope
    columns: tuple[str, ...]
    """Its columns in order, as the source spells them."""


DEEPEST = 100
"""Views that stand on one another. PostgreSQL plans each of them into every query of the last."""


def names_read(sql: str) -> frozenset[str]:
    """The folded names of all tables and views that a translated CREATE VIEW names."""
    return frozenset(
        fold(t.name) for t in sqlglot.parse_one(sql, read="sqlite").find_all(exp.Table)
    )


@dataclass(frozen=True, slots=True)
class Trial:
    """What tells whether PostgreSQL can compute a part of a view over the rows of now."""

    risk: Risk
    query: str | None
    """The source's, which gives a row where it cannot; None where no query tells."""


@dataclass(frozen=True, slots=True)
class TranslatedView:
    query: str
    scope: dict[str, Known]
    columns: tuple[str, ...]
    trials: tuple[Trial, ...]


def translate_view(sql: str, known: Mapping[str, ViewTable]) -> TranslatedView:
    """The query of a CREATE VIEW. Raises Untranslatable."""
    try:
        tree = sqlglot.parse_one(sql, read="sqlite")
    except (SqlglotError, RecursionError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Untranslatable(f"sqlglot cannot parse it ({first})") from None
    if not isinstance(tree, exp.Create) or tree.expression is None:
        raise Untranslatable("it is no CREATE VIEW with a query")
    names: list[str] = []
    if isinstance(tree.this, exp.Schema):
        names = [c.name for c in tree.this.expressions]
    trials: list[Trial] = []
    query, outputs = _query(tree.expression, known, trials)
    if names:
        if len(names) != len(outputs):
            raise Untranslatable("it names another number of columns than it selects")
        inner = ", ".join(postgres_name(n) for n in _targets(names))
        query = compose(
            "SELECT * FROM ({query}) AS q({inner})", query=as_written(query), inner=inner
        )
        outputs = [(n, part) for n, (_, part) in zip(names, outputs, strict=True)]
    if len({fold(n) for n, _ in outputs}) != len(outputs):
        raise Untranslatable("two of its columns have one name")
    scope = {fold(name): column for name, column in _columns_of(outputs, _same_order(known))}
    return TranslatedView(query, scope, tuple(name for name, _ in outputs), tuple(trials))


def _columns_of(outputs: Outputs, same_order: bool) -> list[tuple[str, Known]]:
    """The columns of a query, as what reads it may name them."""
    targets = _targets([name for name, _ in outputs])
    return [
        (
            name,
            Known(
                sql=postgres_name(target),
                kind=part.kind,
                rule=part.known.rule if part.known is not None else ConstantRule(),
                exact=part.known.exact if part.known is not None else False,
                collation=part.collation,
                affinity=part.known.affinity if part.known is not None else "blob",
                same_order=same_order,
                reach=part.reach,
            ),
        )
        for target, (name, part) in zip(targets, outputs, strict=True)
    ]


def _same_order(known: Mapping[str, ViewTable]) -> bool:
    return all(column.same_order for table in known.values() for column in table.scope.values())


def _targets(names: Sequence[str]) -> list[str]:
    """The names of a query's columns on the target."""
    taken: list[str] = []
    for name in names:
        taken.append(naming.column_name(name, taken))
    return taken


Outputs = list[tuple[str, Typed]]


def _query(
    node: exp.Expr, known: Mapping[str, ViewTable], trials: list[Trial]
) -> tuple[str, Outputs]:
    """The query and its columns; what shows whether it can be computed is added to ``trials``."""
    if isinstance(node, exp.Subquery):
        return _query(node.this, known, trials)
    if not isinstance(node, exp.Select):
        raise Untranslatable(f"{type(node).__name__} queries have no translation")
    select = _Select(node, known, trials)
    found = select.translate()
    trials += [_trial(node, risk) for risk in select.risks if risk.possible_now]
    return found


_AFTER_ROWS = ("distinct", "group", "having", "order", "limit", "offset")
"""The parts of a SELECT that come after its rows."""


def _trial(node: exp.Select, risk: Risk) -> Trial:
    if sqlglot.parse_one(f"SELECT {risk.text}", read="sqlite").find(exp.AggFunc) is not None:
        return Trial(risk, None)
    rows = node.copy()
    for part in _AFTER_ROWS:
        rows.set(part, None)
    rows.set("expressions", [exp.Literal.number(1)])
    where = rows.args.get("where")
    if where is not None and risk.text in where.sql(dialect="sqlite", comments=False):
        # Which of a condition's terms comes first, PostgreSQL decides.
        rows.set("where", None)
    rows = rows.where(risk.overflow, dialect="sqlite")
    return Trial(risk, f"{rows.sql(dialect='sqlite', comments=False)} LIMIT 1")


class _Aggregates(Translator):
    """Expressions of a SELECT, in which aggregates may stand."""

    def _count(self, node: exp.Count) -> Typed:
        if node.this is None or isinstance(node.this, exp.Star):
            return Typed("count(*)", "integer", reach=reach.COUNT)
        if isinstance(node.this, exp.Distinct):
            parts = [self.translate(n) for n in node.this.expressions]
            if len(parts) != 1 or parts[0].collation != "BINARY":
                raise Untranslatable("count(DISTINCT) under a collation or of several values")
            return Typed(f"count(DISTINCT {parts[0].sql})", "integer", reach=reach.COUNT)
        return Typed(f"count({self.translate(node.this).sql})", "integer", reach=reach.COUNT)

    def _sum(self, node: exp.Sum) -> Typed:
        part = number(self.translate(_plain(node.this)))
        if part.kind == "integer":
            # One that goes beyond 64 bits is an error on either side.
            return Typed(f"sum({part.sql})::bigint", "integer", reach=reach.summed(part.reach))
        raise Untranslatable("a sum of reals depends on the order of its rows")

    def _max(self, node: exp.Max) -> Typed:
        return self._extreme(node, "GREATEST") if node.expressions else self._best(node, "max")

    def _min(self, node: exp.Min) -> Typed:
        return self._extreme(node, "LEAST") if node.expressions else self._best(node, "min")

    def _best(self, node: exp.Func, word: str) -> Typed:
        part = self.translate(_plain(node.this))
        if part.kind == "boolean":
            part = number(part)
        if part.kind == "text" and part.collation == "BINARY" and self._same_order:
            return Typed(f'{word}({part.sql} COLLATE "C")', "text")
        if part.kind in NUMBERS or (part.known is not None and part.kind in ("date", "time")):
            if part.kind == "time" and not (
                part.known is not None and part.known.exact and in_order(part.known.rule)
            ):
                raise Untranslatable("the latest of times of several shapes")
            return Typed(f"{word}({part.sql})", part.kind, known=part.known, reach=part.reach)
        raise Untranslatable(f"{word}() of a {part.kind}")

    def _avg(self, node: exp.Avg) -> Typed:
        part = number(self.translate(_plain(node.this)))
        if part.kind != "integer":
            raise Untranslatable("an average of reals depends on the order of its rows")
        return Typed(f"avg({part.sql})::double precision", "real")


def _plain(node: exp.Expr) -> exp.Expr:
    if isinstance(node, exp.Distinct):
        raise Untranslatable("an aggregate of DISTINCT values")
    return node


class _Select:
    def __init__(
        self, node: exp.Select, known: Mapping[str, ViewTable], trials: list[Trial]
    ) -> None:
        self._node = node
        self._known = known
        self._trials = trials
        self.risks: list[Risk] = []
        """What PostgreSQL may refuse to compute, once translated."""
        self._scope: dict[str, Known] = {}
        self._ambiguous: set[str] = set()
        self._stars: list[tuple[str, list[tuple[str, Known]]]] = []

    def translate(self) -> tuple[str, Outputs]:
        node = self._node
        for part in ("with_", "with", "windows", "qualify", "laterals", "distinct_on"):
            if node.args.get(part):
                raise Untranslatable(f"its {part.strip('_').upper()} part has no translation")
        source = self._sources()
        translator = _Aggregates({k: v for k, v in self._scope.items() if k not in self._ambiguous})
        outputs = self._outputs(translator)
        group = self._group(translator, outputs)
        targets = _targets([name for name, _ in outputs])
        listed = ", ".join(
            f"{part.sql} AS {postgres_name(target)}"
            for target, (_, part) in zip(targets, outputs, strict=True)
        )
        distinct = "DISTINCT " if node.args.get("distinct") else ""
        if distinct and any(p.collation != "BINARY" for _, p in outputs):
            raise Untranslatable("DISTINCT under a collation")
        query = f"SELECT {distinct}{listed}{source}"
        where = node.args.get("where")
        if where is not None:
            query += f" WHERE {truth(translator.translate(where.this))}"
        query += group
        having = node.args.get("having")
        if having is not None:
            query += f" HAVING {truth(translator.translate(having.this))}"
        query += self._order(translator, outputs) + self._limits()
        self.risks += translator.risks
        return query, outputs

    def _limits(self) -> str:
        """LIMIT and OFFSET."""
        found = ""
        for word in ("limit", "offset"):
            clause = self._node.args.get(word)
            if clause is not None:
                if not self._node.args.get("order"):
                    raise Untranslatable("LIMIT without ORDER BY picks rows by chance")
                found += f" {word.upper()} {self._count_of(clause)}"
        return found

    @staticmethod
    def _count_of(clause: exp.Expr) -> int:
        expression = clause.args.get("expression")
        if not isinstance(expression, exp.Literal) or not str(expression.this).isdigit():
            raise Untranslatable("LIMIT or OFFSET that is no positive number")
        return int(str(expression.this))

    # ------------------------------------------------------------------------------ sources

    def _sources(self) -> str:
        start = self._node.args.get("from_") or self._node.args.get("from")
        if start is None:
            return ""
        text = f" FROM {self._source(start.this)}"
        for join in self._node.args.get("joins") or []:
            text += self._join(join)
        return text

    def _join(self, join: exp.Join) -> str:
        if join.args.get("using") or join.method:
            raise Untranslatable("NATURAL JOIN or USING")
        side = (join.side or "").upper()
        kind = (join.kind or "").upper()
        if side not in ("", "LEFT") or kind not in ("", "INNER", "CROSS", "OUTER"):
            raise Untranslatable(f"{side} {kind} JOIN")
        source = self._source(join.this)
        on = join.args.get("on")
        if on is None:
            if side:
                raise Untranslatable("LEFT JOIN without ON")
            return f" CROSS JOIN {source}"
        scope = {k: v for k, v in self._scope.items() if k not in self._ambiguous}
        translator = Translator(scope)
        test = truth(translator.translate(on))
        # Whichever rows it is computed of, PostgreSQL decides.
        self._trials += [Trial(risk, None) for risk in translator.risks if risk.possible_now]
        return f" {'LEFT ' if side else ''}JOIN {source} ON {test}"

    def _source(self, node: exp.Expr) -> str:
        if isinstance(node, exp.Subquery):
            query, outputs = _query(node.this, self._known, self._trials)
            alias = node.alias or "q"
            self._offer(alias, _columns_of(outputs, _same_order(self._known)))
            return f"({query}) AS {postgres_name(alias)}"
        if not isinstance(node, exp.Table) or node.args.get("joins"):
            raise Untranslatable(f"{type(node).__name__} in FROM")
        table = self._known.get(fold(node.name))
        if table is None:
            raise Untranslatable(f"it reads {node.name}, which is not carried over")
        alias = node.alias or node.name
        if len(alias.encode()) > naming.MAX_BYTES or not alias:
            raise Untranslatable("a table's alias that PostgreSQL would cut")
        columns = [(n, table.scope[fold(n)]) for n in table.columns if fold(n) in table.scope]
        self._offer(alias, columns)
        return f"{table.sql} AS {postgres_name(alias)}"

    def _offer(self, alias: str, columns: Sequence[tuple[str, Known]]) -> None:
        listed: list[tuple[str, Known]] = []
        for name, known in columns:
            own = replace(known, sql=f"{postgres_name(alias)}.{known.sql}")
            listed.append((name, own))
            self._scope[spelled(name, alias)] = own
            if fold(name) in self._scope:
                self._ambiguous.add(fold(name))
            self._scope[fold(name)] = own
        self._stars.append((fold(alias), listed))

    # ------------------------------------------------------------------------------ outputs

    def _outputs(self, translator: Translator) -> Outputs:
        outputs: Outputs = []
        for item in self._node.expressions:
            if isinstance(item, exp.Star):
                outputs += self._expand(None)
            elif isinstance(item, exp.Column) and isinstance(item.this, exp.Star):
                outputs += self._expand(item.table)
            elif isinstance(item, exp.Alias):
                outputs.append((item.alias, translator.translate(item.this)))
            elif isinstance(item, exp.Column):
                outputs.append((item.name, translator.translate(item)))
            else:
                # SQLite names such a column after its text, which it does not promise to keep.
                outputs.append((item.sql(dialect="sqlite"), translator.translate(item)))
        return outputs

    def _expand(self, alias: str | None) -> Outputs:
        return [
            (name, part_of(known))
            for source, columns in self._stars
            if alias is None or source == fold(alias)
            for name, known in columns
        ]

    def _group(self, translator: Translator, outputs: Outputs) -> str:
        group = self._node.args.get("group")
        if group is None:
            self._refuse_bare_columns()
            return ""
        keys = [self._group_key(translator, outputs, item) for item in group.expressions]
        for item, (name, part) in zip(self._node.expressions, outputs, strict=False):
            bare = item.find(exp.AggFunc) is None and part.sql not in keys
            if bare and (item.find(exp.Column) is not None or isinstance(item, exp.Star)):
                raise Untranslatable(f"{name} is neither grouped nor aggregated")
        return f" GROUP BY {', '.join(keys)}"

    def _refuse_bare_columns(self) -> None:
        """Without GROUP BY SQLite takes a column of any row, PostgreSQL none."""
        items = self._node.expressions
        aggregated = any(item.find(exp.AggFunc) is not None for item in items)
        bare = [i for i in items if i.find(exp.AggFunc) is None and i.find(exp.Column) is not None]
        if aggregated and bare:
            raise Untranslatable("a column beside an aggregate without GROUP BY")

    def _group_key(self, translator: Translator, outputs: Outputs, item: exp.Expr) -> str:
        """One term of GROUP BY: an output's number or name, or an expression."""
        if isinstance(item, exp.Literal) and not item.is_string:
            return outputs[int(str(item.this)) - 1][1].sql
        if isinstance(item, exp.Column) and not item.table:
            own = {fold(n): p for n, p in outputs}.get(fold(item.name))
            if own is not None and fold(item.name) not in self._scope:
                return own.sql
        part = translator.translate(item)
        if part.collation != "BINARY":
            raise Untranslatable("GROUP BY under a collation")
        return part.sql

    def _order(self, translator: Translator, outputs: Outputs) -> str:
        order = self._node.args.get("order")
        if order is None:
            return ""
        aliases = {fold(name): part for name, part in outputs}
        terms: list[str] = []
        for item in order.expressions:
            inner = item.this
            if isinstance(inner, exp.Literal) and not inner.is_string:
                part = outputs[int(str(inner.this)) - 1][1]
            elif isinstance(inner, exp.Column) and not inner.table and fold(inner.name) in aliases:
                part = aliases[fold(inner.name)]
            else:
                part = translator.translate(inner)
            if part.collation not in ("BINARY", "NOCASE"):
                raise Untranslatable("ORDER BY under a collation")
            text = part.sql
            if part.kind == "text":
                text = (
                    f'lower({text} COLLATE "C")'
                    if part.collation == "NOCASE"
                    else f'{text} COLLATE "C"'
                )
            # NULLs come first in SQLite.
            terms.append(text + (" DESC NULLS LAST" if item.args.get("desc") else " NULLS FIRST"))
        return f" ORDER BY {', '.join(terms)}"
