"""The container that keeps the side current that does not serve: `migration-job sync`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi

from infra import job, live, monitoring, rendering
from infra.containers import Health, Service
from infra.inputs import Command, JobInputs
from infra.parts import Parts
from migration_job.log_format import VARIABLE as LOG_FORMAT


def service(parts: Parts, inputs: Mapping[str, Any], alias: pulumi.Input[str] | None) -> Service:
    """The sync as a service. ``inputs`` are :class:`JobInputs`; ``alias`` is the volume of the
    application's alias, None without PgBouncer."""

    def secrets(known: Mapping[str, Any]) -> dict[str, str]:
        return live.secrets(JobInputs.of(known))

    found: pulumi.Output[dict[str, str]] = pulumi.Output.all(**inputs).apply(secrets)
    files: pulumi.Output[dict[str, str]] = pulumi.Output.secret(found)
    root = parts.user.partition(":")[0] == "0"
    heartbeat = parts.where.job / "sync.json"
    return Service(
        name=parts.names.sync,
        host="sync",
        image=parts.images.job,
        user=parts.user,
        memory=parts.settings.job_memory,
        health=Health(
            ["bash", "-c", f"test -n \"$(find '{heartbeat}' -newermt '-30 seconds')\""],
            interval_seconds=10,
        ),
        config_directory=job.SECRETS,
        files=files,
        command=[
            *live.arguments("sync", Command.of(inputs)),
            *("--metrics-port", str(monitoring.SYNC_METRICS_PORT)),
        ],
        environment={LOG_FORMAT: "json"},
        binds=parts.binds,
        capabilities=job.ROOT_CAPABILITIES if root else (),
        volumes={rendering.ALIAS_DIRECTORY: alias} if alias is not None else {},
        temporary={"/tmp": "mode=1777"},  # noqa: S108 - the container's own
        pids=job.PIDS,
    )
