"""The policy pack: ``pulumi up --policy-pack policy``, or enforced for an organisation.

The rules are in :mod:`policy.guards`; here they are only handed to Pulumi. Every one is mandatory:
an update that breaks it is refused before anything is created.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pulumi_policy import (
    EnforcementLevel,
    PolicyPack,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
)

# Pulumi runs the pack's folder, and has that alone on the path.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from policy.guards import unprotected, violations


def _stage(arguments: ResourceValidationArgs) -> str:
    # urn:pulumi:<stack>::<project>::<type>::<name>
    return arguments.urn.split(":")[2]


def _containers(arguments: ResourceValidationArgs, report: ReportViolation) -> None:
    for sentence in violations(
        arguments.resource_type, arguments.name, arguments.props, stage=_stage(arguments)
    ):
        report(sentence, arguments.urn)


def _volumes(arguments: ResourceValidationArgs, report: ReportViolation) -> None:
    for sentence in unprotected(
        arguments.resource_type,
        arguments.name,
        protected=arguments.opts.protect,
        stage=_stage(arguments),
    ):
        report(sentence, arguments.urn)


PolicyPack(
    name="sqlite-to-postgresql",
    enforcement_level=EnforcementLevel.MANDATORY,
    policies=[
        ResourceValidationPolicy(
            name="closed-containers",
            description="No open port, no missing limit or health check, no plain authentication.",
            validate=_containers,
        ),
        ResourceValidationPolicy(
            name="protected-data",
            description="Production's data volumes are protected.",
            validate=_volumes,
        ),
    ],
)
