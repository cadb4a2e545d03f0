"""What is ahead of a switch, as plain data: `sync` sees it and writes it down, `status` reads it
and knows what was accepted meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from migration_job.errors import JobError, OperationError
from migration_job.plan.model import Finding
from migration_job.plan.policy import Policy
from migration_job.plan.retyped import require_acknowledged
from migration_job.values import find_name


@dataclass(frozen=True, slots=True)
class Ahead:
    """What a switch refuses for by the plan and the source's schema alone, unless it is
    accepted."""

    findings: tuple[Mapping[str, object], ...] = ()
    """Of the plan, those that wait for a policy."""
    message: str = ""
    """Of tables whose changes could not come back; '' where there are none, or it cannot be
    told."""
    advice: str = ""
    tables: tuple[str, ...] = ()

    def left(self, policy: Policy | None, one_way: Iterable[str]) -> JobError | None:
        """What of it stands in the way of a switch that is given this."""
        try:
            require_acknowledged([Finding.model_validate(f) for f in self.findings], policy)
        except JobError as error:
            return error
        accepted = list(one_way)
        if not self.message or all(find_name(t, accepted) is not None for t in self.tables):
            return None
        return OperationError(self.message, advice=self.advice)


def left_of(
    written: Mapping[str, object], policy: Policy | None, one_way: Iterable[str]
) -> JobError | None:
    """The same of what was written down; None too where another release has written it."""
    try:
        found = Ahead(**written)  # type: ignore[arg-type]
        return found.left(policy, one_way)
    except (TypeError, ValueError):
        return None
