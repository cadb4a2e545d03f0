"""The policy pack: ``pulumi up --policy-pack policy``, or enforced for an organisation.

The rules are in :mod:`policy.guards`; here they are only handed to Pulumi. Every one but
``pinned-images``, which warns, is mandatory: an update that breaks it is refused before anything is
created.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from pulumi_policy import (
    EnforcementLevel,
    PolicyPack,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    StackValidationArgs,
    StackValidationPolicy,
)

# Pulumi runs the pack's folder, and has that alone on the path.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from policy.guards import unpinned, unprotected, violations


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


def _settings() -> dict[str, str]:
    """The stage's settings, as Pulumi hands them to a pack."""
    given = json.loads(os.environ.get("PULUMI_CONFIG") or "{}")
    return {name.partition(":")[2]: str(value) for name, value in given.items()}


def _images(_: StackValidationArgs, report: ReportViolation) -> None:
    for sentence in unpinned(_settings()):
        report(sentence, None)


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
        StackValidationPolicy(
            name="pinned-images",
            description="PostgreSQL's image is named by its digest.",
            validate=_images,
            enforcement_level=EnforcementLevel.ADVISORY,
        ),
    ],
)
