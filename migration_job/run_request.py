"""What a run is asked to do, and what it has planned."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from migration_job.application_proof import Proof
from migration_job.plan.model import Plan
from migration_job.plan.policy import Policy, Said, chosen_policy
from migration_job.stores.sqlite.model import Catalogue
from migration_job.stores.sqlite.snapshot import Snapshot
from migration_job.verify.application import Demands


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is asked to do."""

    source: Path
    dsn: str
    report: Path
    profile: str = "none"
    policy: Path | None = None
    said: Said = field(default_factory=Said)
    """What the command line says in the place of the policy."""
    deep: bool = False
    busy_seconds: float = 0.0
    """How long to wait for the target's lock: for the sessions of a run that was killed."""
    jobs: int | None = None
    """Sessions that work in parallel; None: :func:`migration_job.workers.default_jobs`, and two
    more where it helps."""
    demands: Demands = field(default_factory=Demands)
    """Checks of the application's own queries that must pass before certification."""
    own_collation: bool = False
    """Whether text may compare by the target's own collation, whatever that is."""
    proof: Proof | None = None
    """What of the application's own has to end well on a copy of the target."""
    existing: bool = False
    """Load into the tables that the application has made on the target, and make none."""
    shape: str | None = None
    """What the plan has to make of the target (:func:`migration_job.plan.shape.shape_text`); None:
    whatever it does."""

    def chosen(self) -> Policy | None:
        """The policy with what the command line says. Raises InputError."""
        return chosen_policy(self.policy, self.said)


@dataclass(frozen=True, slots=True)
class Planned:
    """A snapshot, and what is to be made of it."""

    taken: Snapshot
    sha256: str
    """Of the snapshot's content."""
    catalogue: Catalogue
    plan: Plan
    digest: str
    """Of the plan."""
