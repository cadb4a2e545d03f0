"""Whether the application will be as fast as before, and stay so under many users.

The application checks' queries are timed on SQLite, then on the target by the way that the
application will take (through PgBouncer where its connection string is given), then under the load
of concurrent users: the pool's size, twice and ten times that. A query beyond the stage's budget,
a load beyond it, or a single error stops the switch.

Times on a shared machine scatter, so a query's time is the best of several and a budget has a
floor: below it nothing is a regression, since a query of 50 microseconds inside the process cannot
stay one over a socket.
"""

from __future__ import annotations

import asyncio
import math
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import apsw
import psycopg

from migration_job.errors import InputError
from migration_job.plural import counted
from migration_job.verify.checks import STATEMENT_TIMEOUT_S, Check

CONNECT_TIMEOUT_S = 15
"""How long one user waits to be let in; a pooler that queues for longer is an error."""
RESERVED_CONNECTIONS = 10
"""Without a pooler: connections of max_connections left to everybody else."""
ERRORS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Budget:
    """What a stage allows. Written as ``slowdown=3,floor_ms=50,...``; see :func:`parse_budget`."""

    slowdown: float = 3.0
    """How many times its time on SQLite a query may take on the target."""
    floor_ms: float = 50.0
    """No query is a regression below this."""
    load_p95_ms: float = 2000.0
    """95 of 100 requests under load are answered within this."""
    collapse: float = 0.5
    """Throughput with ten times the users, at least, relative to the pool's size."""
    pool: int = 20
    """The application's pool, the strategy's DB_POOL_MAX."""
    seconds: float = 3.0
    """How long each load lasts."""
    repeats: int = 5
    """How often each query is timed alone."""


@dataclass(frozen=True, slots=True)
class QueryTime:
    name: str
    source_ms: float
    target_ms: float
    allowed_ms: float

    @property
    def passed(self) -> bool:
        return self.target_ms <= self.allowed_ms


@dataclass(frozen=True, slots=True)
class Load:
    """One load: so many users, each sending its next query when the last is answered."""

    users: int
    requests: int
    seconds: float
    p50_ms: float
    p95_ms: float
    errors: int
    messages: tuple[str, ...]
    """The errors' texts, the commonest first, at most a few."""

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, slots=True)
class Performance:
    """What was measured, and why it does not do where it does not. ``failures`` is () where the
    budget holds."""

    through_pooler: bool
    queries: tuple[QueryTime, ...]
    loads: tuple[Load, ...]
    failures: tuple[str, ...]
    not_measured: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.failures

    def as_json(self) -> dict[str, Any]:
        """For ``report.json``: what could not be measured is null."""
        found: dict[str, Any] = _finite(asdict(self))
        for query, entry in zip(self.queries, found["queries"], strict=True):
            entry["passed"] = query.passed
        return found

    def word(self) -> str:
        """The certificate's words."""
        users = ", ".join(str(load.users) for load in self.loads)
        where = "through the pooler" if self.through_pooler else "straight at the server"
        return f"{len(self.queries):,} queries and loads of {users} users {where} within the budget"


def _finite(value: Any) -> Any:
    match value:
        case float() if math.isinf(value):
            return None
        case dict():
            return {k: _finite(v) for k, v in value.items()}
        case list() | tuple():
            return [_finite(v) for v in value]
        case _:
            return value


def parse_budget(text: str) -> Budget:
    """The budget from ``name=value,...``; what is not named keeps its default. Raises InputError
    for an unknown name or a value that is not a positive number."""
    kinds = {f.name: int if f.type == "int" else float for f in fields(Budget)}
    values: dict[str, float] = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, _, value = (p.strip() for p in part.partition("="))
        if name not in kinds:
            raise InputError(
                f"expected a performance budget of {', '.join(kinds)}, found {name!r}",
                advice="write it as slowdown=3,floor_ms=50",
            )
        try:
            number = kinds[name](value)
        except ValueError:
            number = -1
        if not number > 0 or math.isinf(number):
            raise InputError(
                f"expected a positive number for {name} in the performance budget, found {value!r}",
                advice="write it as slowdown=3,floor_ms=50",
            )
        values[name] = number
    return Budget(**values)  # type: ignore[arg-type]  # ints for the int fields, by `kinds`


def measure(
    checks: Sequence[Check],
    source: apsw.Connection,
    dsn: str,
    budget: Budget,
    *,
    through_pooler: bool,
    progress: Callable[[str], None] | None = None,
) -> Performance:
    """Time the checks' queries on both sides and load the target. Writes nothing.

    ``dsn`` is the way that the application will take. Where it is not a pooler's
    (``through_pooler`` false) loads that do not fit into the server's ``max_connections`` are left
    out and named in ``not_measured``. Raises psycopg.Error where the target cannot be reached.
    """
    say = progress or (lambda _text: None)
    baseline = {check.name: _time_source(check, source, budget.repeats) for check in checks}
    queries, failures = _time_target(checks, dsn, baseline, budget)
    limit = None if through_pooler else _room(dsn)
    loads: list[Load] = []
    left_out: list[str] = []
    for users in (budget.pool, 2 * budget.pool, 10 * budget.pool):
        if limit is not None and users > limit:
            left_out.append(
                f"{users} users: the server has room for {limit} connections and no pooler was "
                "given"
            )
            continue
        say(f"load of {users} users for {budget.seconds:g} s")
        loads.append(asyncio.run(_load(checks, dsn, users, budget.seconds)))
    failures.extend(_too_slow(queries))
    failures.extend(_overloaded(loads, budget))
    return Performance(
        through_pooler=through_pooler,
        queries=queries,
        loads=tuple(loads),
        failures=tuple(failures),
        not_measured=tuple(left_out),
    )


def _time_source(check: Check, source: apsw.Connection, repeats: int) -> float:
    """Milliseconds, the best of ``repeats``; infinite where SQLite refuses the query, which is
    the application checks' matter."""
    best = math.inf
    for _ in range(repeats):
        started = time.perf_counter()
        try:
            for _row in source.execute(check.sqlite):
                pass
        except (apsw.Error, UnicodeDecodeError):
            return math.inf
        best = min(best, (time.perf_counter() - started) * 1000)
    return best


def _statement(check: Check) -> bytes:
    """The query in a read-only transaction of its own, in one message: one round trip, and whole
    under transaction pooling."""
    return (
        f"BEGIN READ ONLY;SET LOCAL statement_timeout TO {STATEMENT_TIMEOUT_S}000;\n"
        f"{check.postgresql}\n;COMMIT"
    ).encode()


def _time_target(
    checks: Sequence[Check], dsn: str, baseline: dict[str, float], budget: Budget
) -> tuple[tuple[QueryTime, ...], list[str]]:
    times = []
    failures = []
    with _connect(dsn) as connection:
        for check in checks:
            best = math.inf
            try:
                for _ in range(budget.repeats):
                    started = time.perf_counter()
                    connection.execute(_statement(check))
                    best = min(best, (time.perf_counter() - started) * 1000)
            except psycopg.Error as error:
                failures.append(f"query {check.name}: {reason(error)}")
                connection.rollback()
                continue
            allowed = max(budget.floor_ms, budget.slowdown * baseline[check.name])
            times.append(QueryTime(check.name, baseline[check.name], best, allowed))
    return tuple(times), failures


def _connect(dsn: str) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(
        dsn,
        autocommit=True,
        prepare_threshold=None,
        connect_timeout=CONNECT_TIMEOUT_S,
        application_name="migration-job performance",
    )


def _room(dsn: str) -> int:
    """How many more connections a server without a pooler admits."""
    with _connect(dsn) as connection:
        row = connection.execute(
            "SELECT current_setting('max_connections')::int - count(*)"
            " FROM pg_stat_activity WHERE backend_type = 'client backend'"
        ).fetchone()
    return 0 if row is None else max(0, int(str(row[0])) - RESERVED_CONNECTIONS)


# -------------------------------------------------------------------------------------- the load


async def _load(checks: Sequence[Check], dsn: str, users: int, seconds: float) -> Load:
    """All users connect, then all begin at once; the time counts from there."""
    latencies: list[float] = []
    errors: Counter[str] = Counter()
    statements = [_statement(check) for check in checks]
    ready = asyncio.Barrier(users + 1)
    end = math.inf

    async def user(number: int) -> None:
        choose = random.Random(number)  # noqa: S311  # a load, not a secret
        try:
            connection = await psycopg.AsyncConnection.connect(
                dsn,
                autocommit=True,
                prepare_threshold=None,
                connect_timeout=CONNECT_TIMEOUT_S,
                application_name="migration-job load",
            )
        except psycopg.Error as error:
            errors[reason(error)] += 1
            await ready.wait()
            return
        async with connection:
            await ready.wait()
            while time.perf_counter() < end:
                started = time.perf_counter()
                try:
                    await connection.execute(choose.choice(statements))
                except psycopg.Error as error:
                    errors[reason(error)] += 1
                    return
                latencies.append((time.perf_counter() - started) * 1000)

    tasks = [asyncio.create_task(user(number)) for number in range(users)]
    end = math.inf
    await ready.wait()
    begun = time.perf_counter()
    end = begun + seconds
    await asyncio.gather(*tasks)
    lasted = time.perf_counter() - begun
    return Load(
        users=users,
        requests=len(latencies),
        seconds=lasted,
        p50_ms=statistics.median(latencies) if latencies else math.inf,
        p95_ms=_percentile(latencies, 0.95),
        errors=sum(errors.values()),
        messages=tuple(
            f"{text} ({counted(n, 'time')})" for text, n in errors.most_common(ERRORS_SHOWN)
        ),
    )


def _percentile(values: Sequence[float], part: float) -> float:
    """The nearest-rank percentile; infinite where there is no value."""
    if not values:
        return math.inf
    return sorted(values)[max(0, math.ceil(part * len(values)) - 1)]


def reason(error: psycopg.Error) -> str:
    """The server's first line: no DETAIL, which may hold values, and no connection string."""
    lines = (error.diag.message_primary or str(error) or type(error).__name__).splitlines()
    return lines[0] if lines else type(error).__name__


# ----------------------------------------------------------------------------------- the verdict


def _too_slow(queries: Sequence[QueryTime]) -> list[str]:
    return [
        f"query {q.name}: expected at most {q.allowed_ms:,.0f} ms "
        f"({q.source_ms:,.1f} ms on SQLite), found {q.target_ms:,.0f} ms"
        for q in queries
        if not q.passed
    ]


def _overloaded(loads: Sequence[Load], budget: Budget) -> list[str]:
    found = []
    for load in loads:
        users = counted(load.users, "user")
        if load.errors:
            told = "; ".join(load.messages)
            found.append(f"{users}: {counted(load.errors, 'error')}: {told}")
        if load.p95_ms > budget.load_p95_ms:
            found.append(
                f"{users}: expected 95 of 100 requests within "
                f"{budget.load_p95_ms:,.0f} ms, found {load.p95_ms:,.0f} ms"
            )
    if len(loads) > 1:
        first, last = loads[0], loads[-1]
        if last.per_second < budget.collapse * first.per_second:
            found.append(
                f"{last.users} users: expected at least {budget.collapse:g} of the "
                f"{first.per_second:,.0f} requests/s of {first.users} users, "
                f"found {last.per_second:.0f}"
            )
    return found
