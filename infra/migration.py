"""The resource ``Migration``: the job's container, run to ``verified``.

A run that ends otherwise fails ``pulumi up`` with the job's own last words and leaves nothing
recorded, so that the next ``up`` goes on where the job stopped. It runs again when something that
decides the result has changed: the job's code, the source, the profile, the policy, the zone of
naive times or the target's version. Anything else (a password, a port, a limit) is taken note of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import PurePosixPath
from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, Resource, UpdateResult

from infra import engine, job
from infra.dynamic import StageProvider, say
from infra.errors import StageError
from infra.job import Place

DECISIVE = ("job_digest", "source", "profile", "policy", "strategy", "target_version")
"""Inputs that make the migration run again."""

OUTPUTS = ("phase", "rows", "tables", "certificate", "report")

TARGET_FILE = f"{job.SECRETS}/target"
AUTHORITY_FILE = f"{job.SECRETS}/ca.crt"
POLICY_FILE = f"{job.SECRETS}/policy.yaml"


def place_of(props: Mapping[str, Any]) -> Place:
    """The place as the state keeps it; numbers come back from there as floats."""
    kept = dict(props["place"])
    for name in ("memory", "log_size", "log_files"):
        kept[name] = int(kept[name])
    kept["binds"] = tuple(kept["binds"])
    return Place(**kept)


def dsn(props: Mapping[str, Any]) -> str:
    """The job's connection string; its parts are plain identifiers and generated passwords."""
    target = props["target"]
    tls = f"?sslmode=verify-full&sslrootcert={AUTHORITY_FILE}" if props.get("authority") else ""
    return (
        f"postgresql://{target['user']}:{props['password']}@{target['host']}:"
        f"{int(target['port'])}/{target['database']}{tls}"
    )


def target_secrets(props: Mapping[str, Any]) -> dict[str, str]:
    """The files by which the job reaches the target: name to content."""
    authority = {"ca.crt": props["authority"]} if props.get("authority") else {}
    return {"target": dsn(props), **authority}


def arguments(props: Mapping[str, Any]) -> list[str]:
    """``migrate`` as the job takes it."""
    words = ["migrate", props["source"], "--target-file", TARGET_FILE]
    words += ["--report", props["report_directory"], "--profile", props["profile_path"]]
    if props["policy"]:
        words += ["--policy", POLICY_FILE]
    return words


class MigrationProvider(StageProvider):
    """Runs ``migration-job migrate`` and reads its report."""

    outputs = OUTPUTS

    def create(self, props: Any) -> CreateResult:
        found = _migrate(props)
        return CreateResult(f"{props['place']['stage']}/migration", {**props, **found})

    def update(self, _id: str, olds: Any, news: Any) -> UpdateResult:
        kept = {name: olds[name] for name in OUTPUTS}
        if self.changed(olds, news).isdisjoint(DECISIVE):
            return UpdateResult({**news, **kept})
        return UpdateResult({**news, **_migrate(news)})


def _migrate(props: Mapping[str, Any]) -> dict[str, Any]:
    place = place_of(props)
    client = engine.connect(place.docker_host)
    secrets = target_secrets(props)
    if props["policy"]:
        secrets["policy.yaml"] = props["policy"]
    ended = job.run(client, place, props["container"], arguments(props), secrets, say)
    report = PurePosixPath(props["report_directory"]) / "report.json"
    if ended.status:
        raise StageError(
            f"the migration ended with status {ended.status}; its last words:\n{ended.words}",
            advice=f"the application is served by SQLite as before. The report is {report} "
            "(report.html beside it); correct the cause and run `pulumi up` again, it goes on "
            "where it stopped",
        )
    return _found(job.read_json(client, place, f"{props['container']}-report", report), report)


def _found(report: Mapping[str, Any], path: PurePosixPath) -> dict[str, Any]:
    if report.get("outcome") != "verified":
        raise StageError(
            f"expected the outcome 'verified' in {path}, found {report.get('outcome')!r}",
            advice="the application is served by SQLite as before; run `pulumi up` again",
        )
    tables = report.get("tables") or {}
    return {
        "phase": str(report.get("phase")),
        "rows": sum(int(table["target_rows"]) for table in tables.values()),
        "tables": len(tables),
        "certificate": str((report.get("certificate") or {})["digest"]),
        "report": str(path.with_name("report.html")),
    }


class Migration(Resource):
    """The data, moved and verified. ``certificate`` is what a cutover needs."""

    phase: pulumi.Output[str]
    rows: pulumi.Output[int]
    tables: pulumi.Output[int]
    certificate: pulumi.Output[str]
    report: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        *,
        place: Place,
        inputs: Mapping[str, Any],
        password: pulumi.Output[str],
        opts: pulumi.ResourceOptions,
    ) -> None:
        super().__init__(
            MigrationProvider(),
            name,
            {
                **inputs,
                "place": asdict(place),
                "password": password,
                **dict.fromkeys(OUTPUTS),
            },
            pulumi.ResourceOptions.merge(
                opts, pulumi.ResourceOptions(additional_secret_outputs=["password"])
            ),
        )
