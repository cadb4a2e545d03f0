"""COPY's text format, assembled inside SQLite for clean rows and in Python for the others.

Within one table's rows a line is the columns' texts joined by tabs, ``\\N`` for NULL, and
backslash, tab, line feed and carriage return escaped
(https://www.postgresql.org/docs/14/sql-copy.html#id-1.9.3.55.9.2).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from migration_job.plan.model import ColumnPlan, TablePlan
from migration_job.plan.rules import RuleBase, inside
from migration_job.quoting import compose, postgres_name
from migration_job.stores.sqlite.database import chain
from migration_job.stores.sqlite.model import SourceTable
from migration_job.stores.sqlite.reader import column_sql

NULL = r"\N"

ESCAPES = (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r"))
"""Backslash first, so that the others' backslashes stay single."""

ARGUMENTS = 500

_TRANSLATION = str.maketrans(dict(ESCAPES))
_PLAIN = {escaped: plain for plain, escaped in ESCAPES}
_ESCAPED = re.compile(r"\\.", re.DOTALL)


def escape(text: str | None) -> str:
    """A value's text as a field of COPY's text format."""
    if text is None:
        return NULL
    return text.translate(_TRANSLATION)


def fields_of(line: str) -> list[str | None]:
    """The values' texts that a line of COPY's text format holds, as :func:`escape` made it."""
    if "\\" not in line:
        return list(line.split("\t"))
    return [None if f == NULL else _ESCAPED.sub(_unescaped, f) for f in line.split("\t")]


def _unescaped(found: re.Match[str]) -> str:
    return _PLAIN[found[0]]


def _sql_escape(expression: str) -> str:
    # Literal control characters would be legal inside an SQL string too, but unreadable in logs.
    return (
        f"replace(replace(replace(replace({expression}, '\\', '\\\\'), char(9), '\\t'), "
        "char(10), '\\n'), char(13), '\\r')"
    )


def field_sql(
    rule: RuleBase, column: str, *, escape: bool = True, nulls: bool = True
) -> str | None:
    """A SQLite expression for the field of a value that meets the rule's fast condition, never
    NULL; None where the rule has none. Without ``escape`` it is right only for text that holds
    none of the characters in ``ESCAPES``; without ``nulls`` only where no value is NULL (one that
    is leaves its field out, at which COPY ends)."""
    text = rule.fast_sql(column)
    if text is None:
        return None
    if inside(rule).bytea:
        # One backslash to escape, and it comes first.
        text = f"'\\' || {text}"
    elif escape and not inside(rule).no_escapes:
        text = _sql_escape(text)
    if not nulls:
        return text
    if text == column:
        return f"ifnull({column}, '{NULL}')"
    return f"CASE WHEN {column} IS NULL THEN '{NULL}' ELSE {text} END"


def condition_sql(rule: RuleBase, column: str) -> str:
    """A SQLite predicate that is true only for values that :func:`field_sql` converts and the
    target accepts as they are; undecodable bytes excepted, which SQL cannot see."""
    condition = rule.fast_condition(column)
    if condition is None or rule.fast_sql(column) is None:
        return "0"
    if inside(rule).no_escapes:
        return condition
    return f"({condition} AND (typeof({column}) <> 'text' OR NOT instr({column}, char(0))))"


@dataclass(frozen=True, slots=True)
class TableSql:
    """The SQLite expressions of one table's COPY, over the table aliased ``t``."""

    columns: tuple[str, ...]
    """Target columns in the order of the fields."""
    line: str | None
    """A whole line of a clean row without its line feed; None where some rule has no SQL."""
    bare: str | None
    """The line without its escapes, which is cheaper, for blocks that :func:`needs_no_escape`
    vouches for; None where it would be no other or there is no vouching."""
    nulls: str
    """The number of NULLs in a row, of the columns that have any."""
    clean: str | None
    """The predicate of a clean row; None where every row is."""
    checked: bool
    """Whether clean lines must still be checked for undecodable bytes."""
    keep: str | None
    """The predicate of the rows that do not go to quarantine; None where none does."""
    sizes: tuple[str, ...]
    """The size in bytes of each value that has no bound of its own (text and blobs)."""

    @property
    def weight(self) -> str:
        """The size in bytes of all of them in a row."""
        return chain("+", self.sizes) or "0"


def table_sql(plan: TablePlan, table: SourceTable) -> TableSql:
    """The SQL for ``plan``'s columns. Concatenation is ``concat_ws``, which SQLite runs about
    twice as fast as a chain of ``||``."""
    pairs = [(c, column_sql(table, str(c.source))) for c in plan.copied]
    line, bare = _line(pairs), _bare_line(pairs)
    doubtful = [(c, r) for c, r in pairs if not c.clean]
    return TableSql(
        columns=tuple(c.target for c, _ in pairs),
        line=line,
        bare=None if bare == line else bare,
        nulls=chain("+", [f"({r} IS NULL)" for c, r in pairs if c.nulls]) or "0",
        clean=chain("AND", [condition_sql(c.rule, r) for c, r in doubtful]) if doubtful else None,
        checked=any(not inside(c.rule).no_escapes for c, _ in doubtful),
        keep=_kept(plan.quarantine),
        sizes=tuple(f"ifnull(octet_length({r}), 0)" for c, r in pairs if c.rule.unbounded),
    )


def _kept(quarantine: Sequence[str]) -> str | None:
    """The predicate of rows that meet none of these; None where there are none."""
    if not quarantine:
        return None
    return f"({chain('OR', [f'({q})' for q in quarantine])}) IS NOT TRUE"


def _bare_line(pairs: Sequence[tuple[ColumnPlan, str]]) -> str | None:
    """A whole line without its escapes; None where some value always has one."""
    return None if any(inside(c.rule).bytea for c, _ in pairs) else _line(pairs, escape=False)


def _line(pairs: Sequence[tuple[ColumnPlan, str]], *, escape: bool = True) -> str | None:
    """A whole line of the columns, each with its SQL name; None where some rule has no SQL."""
    fields = [field_sql(c.rule, r, escape=escape, nulls=c.nulls) for c, r in pairs]
    known = [f for f in fields if f is not None]
    return _joined(known) if len(known) == len(fields) else None


def needs_no_escape(block: bytes, rows: int, nulls: int, fields: int) -> bool:
    """Whether bare lines are right as they are: every tab in the block is a separator, every line
    feed an end of a line, every backslash a NULL's, and there is no carriage return."""
    return (
        # Rare characters are counted fastest by what their removal leaves.
        len(block) - len(block.replace(b"\\", b"")) == nulls
        and len(block) - len(block.replace(b"\n", b"")) == rows - 1
        and block.count(b"\t") == rows * (fields - 1)
        and b"\r" not in block
    )


def _joined(fields: list[str]) -> str:
    """The fields joined by tabs, in groups, since a function takes 1,000 arguments at most."""
    while len(fields) > 1:
        groups = [fields[i : i + ARGUMENTS] for i in range(0, len(fields), ARGUMENTS)]
        fields = [f"concat_ws(char(9), {', '.join(group)})" for group in groups]
    return fields[0]


def copy_sql(target: str, columns: tuple[str, ...], *, freeze: bool) -> str:
    """The COPY statement."""
    names = ", ".join(postgres_name(c) for c in columns)
    return compose("COPY {target} ({names}) FROM STDIN", target=target, names=names) + (
        " WITH (FREEZE)" if freeze else ""
    )
