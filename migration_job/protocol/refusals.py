"""What a switch refuses for before anybody is held, as far as looking tells: the switch raises it,
and ``status`` says it beforehand. Nothing here writes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import apsw
import psycopg

from migration_job import shell_words
from migration_job.errors import ExitStatus, InputError, JobError, OperationError
from migration_job.plan.chosen import absent
from migration_job.plan.model import Plan
from migration_job.plan.policy import Policy
from migration_job.plan.retyped import require_acknowledged, waiting
from migration_job.plan.wayback import without_way_back
from migration_job.protocol.ahead import Ahead
from migration_job.protocol.certificate import base_certificate
from migration_job.protocol.follow import BothOpen
from migration_job.protocol.offline_switch import require_verified
from migration_job.stores.postgres import capture as target_capture
from migration_job.stores.postgres import settings, standbys, target_fence
from migration_job.stores.postgres.database import round_trip
from migration_job.stores.sqlite.apply import unwritable
from migration_job.stores.sqlite.model import Catalogue, SourceTable
from migration_job.values import find_name

FENCE_TRIPS = 6
"""How often a fence waits for the target at most (tests/integration/test_distance.py counts)."""


class Both(Protocol):
    """The two databases and the plan between them."""

    @property
    def source(self) -> apsw.Connection:
        """With the job's own functions, and no trigger that fires."""

    @property
    def target(self) -> psycopg.Connection:
        """Any session."""

    @property
    def plan(self) -> Plan:
        """As the target has it on record."""

    @property
    def catalogue(self) -> Catalogue:
        """The source's, narrowed to the plan."""


@dataclass(frozen=True, slots=True)
class Seen:
    """:class:`Both` for a look."""

    source: apsw.Connection
    target: psycopg.Connection
    plan: Plan
    catalogue: Catalogue


@dataclass(frozen=True, slots=True)
class Accepted:
    """What an operator gives to the switch that bears on its refusals."""

    one_way: tuple[str, ...] = ()
    policy: Policy | None = None
    asynchronous: bool = False
    budget: float = 1.0
    """How long writers may be held, in seconds."""


class NotComingBack(InputError):
    """Changes to tables could not come back."""

    def __init__(self, message: str, *, tables: Iterable[str], instead: str) -> None:
        self.tables = tuple(tables)
        self.options = one_way_options(self.tables)
        super().__init__(message, advice=f"{instead}; or accept it with {self.options}")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a switch would not begin."""

    error: JobError
    options: str = ""
    """What the command takes where that is accepted, as a shell reads it."""


def found(both: Both, accepted: Accepted, *, user: str | None, live: bool) -> Refusal | None:
    """What the switch would refuse for; None where looking finds nothing. ``user``: whom the
    application is to write as, None where that is not known; ``live``: with a capture."""
    try:
        fenced = target_capture.installed(both.target)
        if live and fenced and not target_fence.is_closed(both.target):
            raise BothOpen
        base_certificate(both.target)
        require_plan(both, accepted)
        require_server(both.target, accepted, user=user)
        if fenced:
            require_closed(both.target)
        if live:
            require_near(both.target, accepted.budget)
        else:
            require_verified(both.target)
    except JobError as error:
        return Refusal(error, _options(error))
    return None


def _options(error: JobError) -> str:
    if isinstance(error, NotComingBack):
        return error.options
    if isinstance(error, TooFar):
        return f"--fence-seconds {error.seconds}"
    if isinstance(error, standbys.FollowedAsynchronously):
        return standbys.OPTION
    return '--policy "$POLICY"' if error.status is ExitStatus.BLOCKED else ""


def of_plan(both: Both) -> Ahead:
    """What is ahead of a switch, as far as looking tells."""
    found = tuple(f.model_dump(mode="json") for f in waiting(both.plan.findings))
    try:
        if not absent(both.catalogue, both.plan):
            require_way_back(both, ())
    except NotComingBack as error:
        return Ahead(found, error.message, error.advice, error.tables)
    except apsw.Error:
        pass
    return Ahead(found)


def require_plan(both: Both, accepted: Accepted) -> tuple[str, ...]:
    """The tables that are accepted as one-way. Raises BlockedError for what no policy has
    acknowledged, InputError for changes that could not come back."""
    require_acknowledged(both.plan.findings, accepted.policy)
    one_way = named_tables(both, accepted.one_way)
    require_way_back(both, one_way)
    return one_way


def require_server(target: psycopg.Connection, accepted: Accepted, *, user: str | None) -> str:
    """Raises InputError for a server that a migration cannot stand; gives what of its standbys was
    accepted, '' where there is nothing to accept."""
    settings.require_fit(target, application=user)
    return standbys.require_synchronous(target, accepted=accepted.asynchronous)


def require_closed(target: psycopg.Connection) -> None:
    """Raises OperationError where the target takes writes."""
    if not target_fence.is_closed(target):
        raise OperationError(
            "expected the target's fence closed while SQLite serves, found it open",
            advice="stop the application: both sides may have taken writes; compare them with "
            "`migration-job verify` before anything else",
        )


class TooFar(OperationError):
    """The target answers too slowly."""

    def __init__(self, message: str, *, seconds: int) -> None:
        self.seconds = seconds
        super().__init__(
            message,
            advice="SQLite serves as before; run the job nearer to PostgreSQL, or allow more by "
            f"--fence-seconds {seconds}",
        )


def require_near(target: psycopg.Connection, budget: float) -> None:
    """Raises TooFar where the target's answers alone would take longer than the writers may be
    held: before anybody is."""
    answer = round_trip(target)
    if FENCE_TRIPS * answer > budget:
        raise TooFar(
            f"expected a target that answers {FENCE_TRIPS} times within the {budget:g} s for which "
            f"writers may wait, found one whose answer takes {answer * 1000:,.0f} ms",
            seconds=math.ceil(2 * FENCE_TRIPS * answer),
        )


def named_tables(both: Both, one_way: tuple[str, ...]) -> tuple[str, ...]:
    """The plan's tables that an operator has named, as the source spells them. Raises InputError
    for a name that none has."""
    known = [t.source for t in both.plan.tables if t.source is not None]
    tables: dict[str, None] = {}
    for name in one_way:
        table = find_name(name, known)
        if table is None:
            raise InputError(
                f"expected tables of the source after --one-way, found {name!r}",
                advice="give the name as the source's schema has it; ASCII letters may differ in "
                "case, others may not",
            )
        tables[table] = None
    return tuple(tables)


def listed(names: Iterable[str]) -> str:
    """Names of tables as a shell reads them: one may be empty, or have blanks."""
    return ", ".join(map(shell_words.word, names))


def one_way_options(names: Iterable[str]) -> str:
    """What a command takes where these tables' changes need not come back."""
    return " ".join(f"--one-way {shell_words.word(name)}" for name in names)


def require_way_back(both: Both, one_way: tuple[str, ...]) -> None:
    """Raises NotComingBack for a table whose changes on the target could not come back, unless it
    is one of ``one_way`` (:func:`named_tables`)."""
    without = [
        t.source
        for t in both.plan.tables
        if t.source is not None and not t.key and t.source not in one_way
    ]
    if without:
        raise NotComingBack(
            f"changes to {listed(without)} could not come back: the rows have no key that both "
            "sides know",
            tables=without,
            instead="use `migrate --live`, which gives them one",
        )
    _require_inverses(both, one_way)
    _require_writable(both, one_way)


def _require_inverses(both: Both, one_way: tuple[str, ...]) -> None:
    reasons = {
        plan.source: why
        for plan in both.plan.tables
        if plan.source is not None
        and plan.source not in one_way
        and (why := without_way_back(both.catalogue.table(plan.source), plan))
    }
    if reasons:
        raise NotComingBack(
            f"changes to {listed(reasons)} could not come back: "
            + "; ".join(f"{shell_words.word(name)}: {why}" for name, why in reasons.items()),
            tables=reasons,
            instead="give the policy's map or booleans a value for it and run "
            "`migration-job migrate` again",
        )


def _carried(both: Both) -> list[SourceTable]:
    return [both.catalogue.table(p.source) for p in both.plan.tables if p.source is not None]


def _require_writable(both: Both, one_way: tuple[str, ...]) -> None:
    reasons = {
        table.name: why
        for table in _carried(both)
        if table.name not in one_way and (why := unwritable(both.source, table))
    }
    if reasons:
        name, why = next(iter(reasons.items()))
        raise NotComingBack(
            f"changes to {listed(reasons)} could not come back: to write to "
            f"{shell_words.word(name)} takes what only the application has ({why})",
            tables=reasons,
            instead="take that out of the source's schema",
        )
