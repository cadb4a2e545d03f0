"""From a catalogue and its values to a plan.

Each step takes what the steps before it found, and returns what it found: what the values are
(:mod:`~migration_job.plan.planner.side_by_side`); a rule for each column
(:mod:`~migration_job.plan.planner.column_assignments`), written as those of its kind
(:mod:`~migration_job.plan.planner.spellings`); one type for both ends of every foreign key
(:mod:`~migration_job.plan.planner.agreement`); which maps go both ways
(:mod:`~migration_job.plan.planner.map_directions`); which rows go to quarantine, with all
that depend on them (:mod:`~migration_job.plan.planner.row_faults`); then the constraints, indexes,
views and sequences that the target can have (:mod:`~migration_job.plan.planner.assembly`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import apsw

from migration_job.errors import InputError
from migration_job.plan.assignment import Assigner
from migration_job.plan.chosen import choose
from migration_job.plan.conflicts import report_conflicts
from migration_job.plan.findings import Findings
from migration_job.plan.model import OWN_SCHEMA, Plan
from migration_job.plan.pace import Told
from migration_job.plan.planner.agreement import agree_on_types
from migration_job.plan.planner.assembly import Facts, assemble
from migration_job.plan.planner.column_assignments import assign_all, report_columns
from migration_job.plan.planner.context import Planning
from migration_job.plan.planner.map_directions import set_directions
from migration_job.plan.planner.row_faults import find_row_faults
from migration_job.plan.planner.side_by_side import Readers, observe
from migration_job.plan.planner.spellings import as_columns_like_them
from migration_job.plan.planner.target_names import name_everything
from migration_job.plan.policy import Policy
from migration_job.plan.profile import Profile
from migration_job.plan.relations import Relations
from migration_job.plan.virtual import with_virtual
from migration_job.stores.sqlite.model import Catalogue


def make_plan(  # noqa: PLR0913 - options of a plan, named
    connection: apsw.Connection,
    catalogue: Catalogue,
    *,
    profile: Profile | None = None,
    policy: Policy | None = None,
    zone: str = "UTC",
    others: Sequence[apsw.Connection] = (),
    observed: Callable[[], object] | None = None,
    told: Told | None = None,
    schema_name: str = OWN_SCHEMA,
) -> Plan:
    """The plan for the connection's present state, every value tried. ``others`` are connections to
    the very same state, which let more tables be looked at at once. ``observed`` is called once
    the facts of every table are known: from then on the planning needs little of the processor.
    ``told`` hears how far it is.
    ``schema_name`` is where the tables are made.

    ``Plan.blocked`` is empty where the run may go on. Raises InputError where policy or profile
    name what is not there.
    """
    chosen = policy or Policy()
    wished = profile or Profile(name="none")

    course = _Course(zone, observed, told, schema_name)

    def planned(said: Policy) -> Plan:
        return _planned((connection, *others), catalogue, wished, said, course)

    if chosen.types == "generous":
        from migration_job.plan.generous import generously

        plan = generously(planned, chosen)
    else:
        plan = planned(chosen)
    _refuse_other_schema(plan)
    return plan


def _refuse_other_schema(plan: Plan) -> None:
    """Raises InputError where statements that are not the job's name the default schema."""
    names = [s for s in plan.after_load if re.search(rf"\b{OWN_SCHEMA}\b", s)]
    if names and plan.schema_name != OWN_SCHEMA:
        raise InputError(
            f"expected statements for schema {plan.schema_name} from profile {plan.profile} and "
            f"the policy's features, found one that names schema {OWN_SCHEMA}: "
            f"{' '.join(names[0].split())[:100]}",
            advice="leave --schema-name out, or the profile and the feature",
        )


@dataclass(frozen=True, slots=True)
class _Course:
    """How a plan is made, besides what it is of."""

    zone: str
    observed: Callable[[], object] | None
    told: Told | None
    schema_name: str


def _planned(
    connections: Sequence[apsw.Connection],
    catalogue: Catalogue,
    wished: Profile,
    chosen: Policy,
    course: _Course,
) -> Plan:
    catalogue = with_virtual(catalogue, chosen)
    chosen.check(catalogue)
    findings = Findings(chosen, chosen.default or wished.default)
    catalogue = choose(connections[0], catalogue, chosen, findings)
    readers = Readers.over(connections, catalogue, course.told)
    planning = Planning(
        connection=connections[0],
        catalogue=catalogue,
        profile=wished,
        policy=chosen,
        findings=findings,
        readers=readers,
        relations=Relations(catalogue, wished.foreign_keys()),
        assigner=Assigner(readers.first.observer, chosen, findings, course.zone),
        schema_name=course.schema_name,
    )
    return _plan(planning, course.observed)


def _plan(planning: Planning, observed: Callable[[], object] | None) -> Plan:
    names = name_everything(planning)
    seen = observe(planning.readers, planning.catalogue)
    if observed is not None:
        observed()
    assigned = as_columns_like_them(planning, seen, assign_all(planning, seen))
    agreed = agree_on_types(planning, seen, assigned)
    assignments = set_directions(planning, seen, agreed.assignments)
    faults = find_row_faults(planning, seen, assignments, agreed.dropped)
    for table in planning.catalogue.tables:
        report_columns(planning, seen, assignments, table)
        report_conflicts(table, planning.findings)
    return assemble(planning, Facts(names, seen, assignments, agreed.dropped, faults))
