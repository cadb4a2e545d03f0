"""Application checks: the application's own queries, replayed on both sides and compared.

A directory holds one query per file: ``name.sql`` where both dialects read it alike, else the
pair ``name.sqlite.sql`` and ``name.postgresql.sql``. Each is one SELECT without parameters.
Where the outermost query has an ORDER BY, the order of the rows is compared as well (this is how
NULLs that sort to the other end are found), so it has to break its ties; a query without one is
compared as a bag of rows.

Values are compared by what they mean in the target's type: 1 and true, a UTC text and an instant,
3.5 and the numeric 3.5000. Computed floating-point numbers may differ by one part in 10^12, since
a sum depends on the order of its terms; carried values are proven exactly elsewhere.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Container, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw
import apsw.ext
import psycopg
from psycopg.pq import ExecStatus, TransactionStatus

from migration_job.errors import InputError
from migration_job.plural import counted
from migration_job.stores.sqlite.reader import codec_of, decode
from migration_job.values import BrokenText, SourceValue, display

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

RELATIVE_TOLERANCE = Decimal("1e-12")
"""How far two computed numbers may be apart, relative to the larger."""
SHOWN_DIFFERENCES = 20
"""Differences named per query; the rest is counted."""
PAIRS_TRIED = 1_000_000
"""Pairs of rows of an unordered answer that are tried against each other."""
STATEMENT_TIMEOUT_S = 300
"""A query that takes longer than this on the target fails its check."""

PRELUDE = (
    "BEGIN READ ONLY",
    "SET LOCAL timezone TO 'UTC'",
    "SET LOCAL datestyle TO 'ISO'",
    "SET LOCAL bytea_output TO 'hex'",
    "SET LOCAL extra_float_digits TO 1",
    "SET LOCAL intervalstyle TO 'postgres'",
    f"SET LOCAL statement_timeout TO '{STATEMENT_TIMEOUT_S}s'",
)
"""The target's text output is defined under these settings."""


@dataclass(frozen=True, slots=True)
class Check:
    """One query in both dialects."""

    name: str
    sqlite: str
    postgresql: str
    ordered: bool
    """Whether the order of the rows is part of the answer."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check found. ``differences`` name the row and both values; () where it passed."""

    name: str
    source_rows: int
    target_rows: int
    differences: tuple[str, ...]
    unshown: int = 0
    """Further differences that are counted, not named."""
    source_seconds: float = 0.0
    target_seconds: float = 0.0
    source_refused: bool = False
    """The source itself refuses the query, so that it tells nothing of the target."""

    @property
    def passed(self) -> bool:
        return not self.differences


@dataclass(frozen=True, slots=True)
class _Answer:
    columns: tuple[str, ...]
    rows: list[tuple[object, ...]]
    seconds: float
    types: tuple[int, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class _Leniency:
    mapped: Container[tuple[object, object]]
    spelled: bool


# ------------------------------------------------------------------------------ the directory


def load_checks(directory: Path) -> tuple[Check, ...]:
    """The checks of a directory, by name. Raises InputError where it is not a directory, holds no
    query, holds half of a pair, or a file that is not one SELECT."""
    if not directory.is_dir():
        raise InputError(
            f"expected a directory of application checks, found none at {directory}",
            advice="give --checks a directory that holds *.sql files",
        )
    texts: dict[str, dict[str, str]] = {}
    for path in sorted(directory.glob("*.sql")):
        name, _, dialect = path.name.removesuffix(".sql").partition(".")
        if dialect not in ("", "sqlite", "postgresql"):
            raise InputError(
                f"expected NAME.sql, NAME.sqlite.sql or NAME.postgresql.sql, found {path.name}",
                advice="rename the file; a dot in a check's name is read as its dialect",
            )
        text = path.read_text(encoding="utf-8").strip().removesuffix(";")
        for side in (dialect,) if dialect else ("sqlite", "postgresql"):
            if side in texts.setdefault(name, {}):
                raise InputError(
                    f"expected one query for {side} in check {name}, found two",
                    advice=f"keep either {name}.sql or the pair with .sqlite and .postgresql",
                )
            texts[name][side] = text
    if not texts:
        raise InputError(
            f"expected *.sql files in {directory}, found none",
            advice="write at least one query, or leave --checks out",
        )
    return tuple(_check(name, sides) for name, sides in sorted(texts.items()))


def _check(name: str, sides: dict[str, str]) -> Check:
    for side, other in (("sqlite", "postgresql"), ("postgresql", "sqlite")):
        if side not in sides:
            raise InputError(
                f"expected {name}.{side}.sql beside {name}.{other}.sql, found none",
                advice="a pair needs both dialects; name the file without a dialect to share it",
            )
    ordered = [_is_ordered(name, side, sides[side]) for side in ("sqlite", "postgresql")]
    if ordered[0] != ordered[1]:
        raise InputError(
            f"expected both dialects of check {name} to be ordered alike, found one ORDER BY",
            advice="give both an ORDER BY, or neither",
        )
    return Check(name, sides["sqlite"], sides["postgresql"], ordered[0])


def _is_ordered(name: str, side: str, text: str) -> bool:
    # Here: a run without queries of the application's needs no parser, and its memory neither.
    import sqlglot
    from sqlglot import exp

    dialect = "postgres" if side == "postgresql" else "sqlite"
    try:
        statements = [s for s in sqlglot.parse(text, dialect=dialect) if s is not None]
    except sqlglot.errors.SqlglotError as error:
        raise InputError(
            f"expected SQL that can be read in check {name} ({side}), found: {error}",
            advice="correct the query",
        ) from None
    if len(statements) != 1 or not isinstance(statements[0], exp.Query):
        raise InputError(
            f"expected one SELECT in check {name} ({side}), found something else",
            advice="keep one query per file",
        )
    return statements[0].args.get("order") is not None


# ---------------------------------------------------------------------------------- the replay


def run_checks(
    checks: Sequence[Check],
    source: apsw.Connection,
    target: psycopg.Connection[tuple[object, ...]],
    *,
    mapped: Container[tuple[object, object]] = (),
    spelled: bool = False,
    progress: Callable[[CheckResult], None] | None = None,
) -> tuple[CheckResult, ...]:
    """Run every check on both sides and compare.

    ``mapped`` holds the pairs (source value, target's text or None) of what a rule changed, which
    are taken for equal (:class:`migration_job.verify.changed.Changed`). With ``spelled`` a number
    and the text of its digits are equal too: a rule may have chosen so for a whole column without
    a row in the ledger. A query that one side refuses is a difference of that check, not an error
    of the run: the application would meet it too. The target is left without an open transaction
    and nothing is written to it.
    """
    results = []
    for check in checks:
        result = _run(check, source, target, _Leniency(mapped, spelled))
        results.append(result)
        if progress is not None:
            progress(result)
    return tuple(results)


def _run(
    check: Check,
    source: apsw.Connection,
    target: psycopg.Connection[tuple[object, ...]],
    leniency: _Leniency,
) -> CheckResult:
    try:
        left = _ask_source(check.sqlite, source)
    except (apsw.Error, UnicodeDecodeError) as error:
        return CheckResult(
            check.name, 0, 0, (f"the source refuses the query: {error}",), source_refused=True
        )
    try:
        right = _ask_target(check.postgresql, target)
    except psycopg.Error as error:
        reason = (error.diag.message_primary or str(error)).strip()
        return CheckResult(
            check.name, len(left.rows), 0, (f"the target refuses the query: {reason}",)
        )
    found = _compare(check, left, right, leniency)
    return CheckResult(
        name=check.name,
        source_rows=len(left.rows),
        target_rows=len(right.rows),
        differences=tuple(found[:SHOWN_DIFFERENCES]),
        unshown=max(0, len(found) - SHOWN_DIFFERENCES),
        source_seconds=left.seconds,
        target_seconds=right.seconds,
    )


def _ask_source(query: str, source: apsw.Connection) -> _Answer:
    started = time.perf_counter()
    try:
        rows: list[tuple[object, ...]] = list(source.execute(query))
    except UnicodeDecodeError:
        rows = list(_undecoded(query, source))
    # An exhausted apsw cursor no longer knows its columns; a query without rows has none to name.
    columns = tuple(f"#{i + 1}" for i in range(len(rows[0]))) if rows else ()
    return _Answer(columns, rows, time.perf_counter() - started)


def _undecoded(query: str, source: apsw.Connection) -> Iterator[tuple[object, ...]]:
    """The rows of a query that gives text which does not decode: such text as its bytes, which is
    what the target has of it."""
    width = len(apsw.ext.query_info(source, query).description)
    codec = codec_of(str(source.pragma("encoding")))
    names = [f"c{i}" for i in range(width)]
    terms = ", ".join(
        f"typeof({n}), CASE typeof({n}) WHEN 'text' THEN CAST({n} AS BLOB) ELSE {n} END"
        for n in names
    )
    # S608: the query is the operator's own, and every other part is this function's.
    for row in source.execute(f"WITH q({', '.join(names)}) AS ({query}) SELECT {terms} FROM q"):  # noqa: S608
        pairs = zip(row[::2], row[1::2], strict=True)
        yield tuple(_text(v, codec) if kind == "text" else v for kind, v in pairs)


def _text(raw: Any, codec: str) -> str | bytes:
    text = decode(raw, codec)
    return text.raw if isinstance(text, BrokenText) else text


def _ask_target(query: str, target: psycopg.Connection[tuple[object, ...]]) -> _Answer:
    # In one text: where the server is far, each statement would be a wait.
    script = "\n;\n".join([*PRELUDE, query, "ROLLBACK"])
    cursor = target.cursor()
    try:
        started = time.perf_counter()
        cursor.execute(script.encode())
        for _ in PRELUDE:
            cursor.nextset()
        result = cursor.pgresult
        if result is None or result.status != ExecStatus.TUPLES_OK:
            raise psycopg.ProgrammingError("the query gives no rows")
        rows = _texts(result)
        columns = tuple((result.fname(i) or b"").decode() for i in range(result.nfields))
        types = tuple(result.ftype(i) for i in range(result.nfields))
        return _Answer(columns, rows, time.perf_counter() - started, types)
    finally:
        if not target.closed and target.info.transaction_status != TransactionStatus.IDLE:
            target.rollback()


def _texts(result: PGresult) -> list[tuple[object, ...]]:
    """The result's values as PostgreSQL's text output, None for NULL."""

    def text(row: int, column: int) -> str | None:
        raw = result.get_value(row, column)
        return None if raw is None else raw.decode()

    return [tuple(text(r, c) for c in range(result.nfields)) for r in range(result.ntuples)]


# ------------------------------------------------------------------------------ the comparison


def _compare(check: Check, left: _Answer, right: _Answer, leniency: _Leniency) -> list[str]:
    width = len(left.rows[0]) if left.rows else len(right.columns)
    if width != len(right.columns):
        return [f"expected {width} columns, found {len(right.columns)}"]
    found: list[str] = []
    if len(left.rows) != len(right.rows):
        found.append(f"expected {counted(len(left.rows), 'row')}, found {len(right.rows)}")
    theirs = [[_of_target(row[i], oid) for row in right.rows] for i, oid in enumerate(right.types)]
    mine = [
        _column_of_source([row[i] for row in left.rows], oid, theirs[i])
        for i, oid in enumerate(right.types)
    ]
    pairs = list(zip(zip(*mine, strict=True), left.rows, strict=True))
    others = list(zip(zip(*theirs, strict=True), right.rows, strict=True))
    if not check.ordered:
        pairs, others = _without_alike(*_without_common(pairs, others), leniency)
    for number, (ours, its) in enumerate(zip(pairs, others, strict=False), start=1):
        for index, (a, b) in enumerate(zip(ours[0], its[0], strict=True)):
            if not _alike(a, b, (ours[1][index], its[1][index]), leniency):
                found.append(
                    f"row {number}, column {right.columns[index]}: expected "
                    f"{_show(ours[1][index])}, found {_show(its[1][index])}"
                )
    for extra, side in (
        (pairs[len(others) :], "only on the source"),
        (others[len(pairs) :], "only on the target"),
    ):
        found.extend(f"{side}: ({', '.join(_show(v) for v in row)})" for _, row in extra)
    return found


_Row = tuple[tuple[Hashable, ...], tuple[object, ...]]


def _without_common(left: list[_Row], right: list[_Row]) -> tuple[list[_Row], list[_Row]]:
    """Both bags without the rows that are in both, each sorted, so that what is left over can be
    shown side by side."""
    common = Counter(row for row, _ in left) & Counter(row for row, _ in right)

    def rest(rows: list[_Row]) -> list[_Row]:
        owed = Counter(common)
        kept = []
        for row in rows:
            if owed[row[0]]:
                owed[row[0]] -= 1
            else:
                kept.append(row)
        return sorted(kept, key=lambda r: tuple(str(v) for v in r[0]))

    return rest(left), rest(right)


def _without_alike(
    left: list[_Row], right: list[_Row], leniency: _Leniency
) -> tuple[list[_Row], list[_Row]]:
    """Both rests without the rows that are alike, if not the same: computed numbers, mapped values.
    Rests that are too long to try each against each are left as they are, in order."""
    if len(left) * len(right) > PAIRS_TRIED:
        return left, right
    open_ = list(right)
    kept = []
    for row in left:
        partner = next(
            (
                i
                for i, other in enumerate(open_)
                if all(
                    _alike(a, b, (x, y), leniency)
                    for a, b, x, y in zip(row[0], other[0], row[1], other[1], strict=True)
                )
            ),
            None,
        )
        if partner is None:
            kept.append(row)
        else:
            del open_[partner]
    return kept, open_


def _alike(a: Hashable, b: Hashable, raw: tuple[object, object], leniency: _Leniency) -> bool:
    if a == b or raw in leniency.mapped:
        return True
    if leniency.spelled and isinstance(a, Decimal) != isinstance(b, Decimal):
        return isinstance(raw[0], str | int) and str(raw[0]) == raw[1]
    if isinstance(a, Decimal) and isinstance(b, Decimal) and a.is_finite() and b.is_finite():
        return abs(a - b) <= RELATIVE_TOLERANCE * max(abs(a), abs(b))
    return False


def _show(value: object) -> str:
    known: SourceValue = (
        value if isinstance(value, str | int | float | bytes | None) else str(value)
    )
    return display(known)


# --------------------------------------------------------------- values by the target's type

# pg_type's fixed object identifiers (src/include/catalog/pg_type.dat).
_BOOL, _BYTEA, _UUID, _DATE, _TIME = 16, 17, 2950, 1082, 1083
_INSTANTS = frozenset({1114, 1184})
_JSONS = frozenset({114, 3802})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_JULIAN_EPOCH = 2440587.5
_UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "julian": 0}
_NUMBERS = frozenset({20, 21, 23, 26, 700, 701, 1700})


def _of_target(value: object, oid: int) -> Hashable:
    if value is None:
        return None
    text = str(value)
    if oid == _BOOL:
        return Decimal(text == "t")
    if oid in _NUMBERS:
        return _number(Decimal(text))
    if oid == _BYTEA:
        return bytes.fromhex(text.removeprefix("\\x"))
    return _meaning(text, oid)


def _column_of_source(
    values: Sequence[object], oid: int, found: Sequence[Hashable]
) -> list[Hashable]:
    """A column of the source's answer as the target's type has it. Numbers that stand for instants
    are read in the unit that agrees with most of what the target has; an instant is wrong by years
    in any other."""
    plain = [_of_source(value, oid) for value in values]
    if oid not in _INSTANTS or not any(isinstance(value, int | float) for value in values):
        return plain
    readings = [plain] + [
        [
            _instant_of(value, unit) if isinstance(value, int | float) else read
            for value, read in zip(values, plain, strict=True)
        ]
        for unit in _UNITS
    ]
    there: Counter[Hashable] = Counter(found)

    def agreeing(reading: list[Hashable]) -> int:
        given: Counter[Hashable] = Counter(reading)
        return (given & there).total()

    return max(readings, key=agreeing)


def _instant_of(number: float, unit: str) -> Hashable:
    """The instant that a number stands for; the number where it stands for none."""
    if not math.isfinite(number):
        return number
    if unit == "julian":
        micros = round((number - _JULIAN_EPOCH) * 86_400_000_000)
    else:
        micros = round(Fraction(number) * (1_000_000 // _UNITS[unit]))
    try:
        return _EPOCH + timedelta(microseconds=micros)
    except OverflowError:
        return number


def _of_source(value: object, oid: int) -> Hashable:
    """The source value as the target's type has it; itself where it is none of that type, so that
    it differs from every value that is."""
    if isinstance(value, int | float) and oid in _JSONS:
        # A document such as 5, of which SQLite's affinity has made a number.
        return _meaning(repr(value), oid)
    if isinstance(value, int):
        return Decimal(value)
    if isinstance(value, float):
        # repr: the shortest text that is this number, as PostgreSQL prints it.
        return _number(Decimal(repr(value)))
    if isinstance(value, str):
        return _meaning(value, oid)
    if value is None or isinstance(value, bytes):
        return value
    raise TypeError(f"no SQLite value: {type(value).__name__}")


def _number(value: Decimal) -> Hashable:
    return "NaN" if math.isnan(value) else value


def _meaning(text: str, oid: int) -> Hashable:
    """What a text means in a type: an instant, a date, a JSON value; else the text."""
    try:
        if oid in _INSTANTS:
            return _instant(text)
        if oid == _DATE:
            return date.fromisoformat(text)
        if oid == _TIME:
            return time_of_day.fromisoformat(text)
        if oid in _JSONS:
            parsed = json.loads(text, parse_float=Decimal, parse_int=Decimal)
            return json.dumps(parsed, sort_keys=True, default=str)
        if oid == _UUID:
            return text.replace("-", "").strip("{}").lower()
    except (ValueError, InvalidOperation):
        return text
    return text


def _instant(text: str) -> datetime:
    """An ISO 8601 time as an instant; a naive one is UTC. PostgreSQL writes ``+00`` for a zone and
    drops trailing zeros of a fraction."""
    tidy = re.sub(r"([+-]\d\d)$", r"\1:00", text.strip())
    moment = datetime.fromisoformat(tidy)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
