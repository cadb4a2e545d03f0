"""The resource ``Fleet``: the files of a manifest, run to ``verified`` by ``migration-job fleet``.

A run that ends otherwise fails ``pulumi up`` with the job's own last words, which name the files
that are not verified. The next ``up`` takes those that are left: the fleet's book is on PostgreSQL.
It runs again when a file was written to, came or went, or when the manifest, its policy, the job's
code or PostgreSQL's data directory is another. While PgBouncer admits the applications it is closed
for the run, and opened again whatever the end: no application works on rows that are moved. Where a
run ended in the middle of a file, nobody is admitted to that file's schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, Resource, UpdateResult

from infra import engine, fleet_files, fleet_opening, job, live
from infra.dynamic import StageProvider, say
from infra.errors import StageError
from infra.inputs import FleetInputs, with_secrets

DECISIVE = {"job_digest", "source", "manifest", "cluster"}
"""Inputs that make the fleet run again."""

RESULTS = ("phase", "files", "rows", "certificate", "report")
OUTPUTS = (*RESULTS, "fingerprint")

REPORT, PAGE = "fleet.json", "fleet.html"


def arguments(inputs: FleetInputs) -> list[str]:
    """``fleet`` as the job takes it."""
    words = ["fleet", inputs.source, "--target-file", live.TARGET_FILE]
    return [*words, "--report", inputs.report_directory, "--jobs", str(inputs.jobs)]


class FleetProvider(StageProvider):
    """Runs ``migration-job fleet`` and reads its report."""

    outputs = OUTPUTS

    def diff(self, _id: str, olds: Any, news: Any) -> DiffResult:
        changed = bool(self.changed(olds, news)) or _stale(olds, news)
        return DiffResult(changes=changed, replaces=[])

    def create(self, props: Any) -> CreateResult:
        inputs = FleetInputs.of(props)
        return CreateResult(f"{inputs.place.stage}/fleet", {**props, **_move(inputs)})

    def update(self, _id: str, olds: Any, news: Any) -> UpdateResult:
        inputs = FleetInputs.of(news)
        changed = self.changed(olds, news) & DECISIVE
        if changed == {"job_digest"} and live.serving(inputs) == "postgresql":
            # Other code makes nothing else of files that are there; the next run is by it.
            changed = set()
        if not changed and not _stale(olds, news):
            return UpdateResult({**news, **{name: olds.get(name) for name in OUTPUTS}})
        return UpdateResult({**news, **_move(inputs)})

    def delete(self, _id: str, props: Any) -> None:
        """Nothing was added to the files; the stage is free for another kind."""
        inputs = FleetInputs.of(props)
        if live.serving(inputs) == "postgresql":
            # An opening that was cut off is in no state.
            fleet_opening.close(inputs)
        for name in (fleet_files.MARK, fleet_files.UNFINISHED):
            (Path(inputs.state_directory) / name).unlink(missing_ok=True)


def _stale(olds: Mapping[str, Any], news: Mapping[str, Any]) -> bool:
    """Whether a file was written to since it was moved, came or went."""
    return fleet_files.fingerprint_of(Path(news["source"])) != olds.get("fingerprint")


def _move(inputs: FleetInputs) -> dict[str, Any]:
    """What the run has found, with nobody admitted meanwhile."""
    # A write during the run is one for the next.
    before = fleet_files.fingerprint_of(Path(inputs.source))
    if live.serving(inputs) == "sqlite":
        return {**_run(inputs), "fingerprint": before}
    say("PgBouncer admits no application until the files are moved")
    try:
        fleet_opening.dismiss(inputs)
        return {**_run(inputs), "fingerprint": before}
    finally:
        fleet_opening.admit(inputs)


def _run(inputs: FleetInputs) -> dict[str, Any]:
    place = inputs.place
    client = engine.connect(place.docker_host)
    call = job.Call(inputs.container, inputs.target_files)
    unfinished = Path(inputs.state_directory) / fleet_files.UNFINISHED
    unfinished.touch()
    ended = job.run(client, place, call, arguments(inputs), say)
    report = PurePosixPath(inputs.report_directory) / REPORT
    if ended.status:
        raise StageError(
            f"the fleet ended with status {ended.status}; its last output:\n{ended.words}",
            advice="`pulumi up` runs it again",
        )
    found = job.read_json(client, place, f"{inputs.container}-report", report)
    listed = [file for file in found["files"].values() if file["listed"]]
    if found["outcome"] != "verified" or not found["certificate"]:
        raise StageError(
            f"expected the outcome 'verified' in {report}, found {found['outcome']!r}",
            advice="no application was admitted; run `pulumi up` again",
        )
    unfinished.unlink(missing_ok=True)
    return {
        "phase": "verified",
        "files": len(listed),
        "rows": sum(int(file["rows"]) for file in listed),
        "certificate": str(found["certificate"]["digest"]),
        "report": str(report.with_name(PAGE)),
    }


class Fleet(Resource):
    """The files, moved and verified. ``certificate`` is what the opening needs."""

    phase: pulumi.Output[str]
    files: pulumi.Output[int]
    rows: pulumi.Output[int]
    certificate: pulumi.Output[str]
    report: pulumi.Output[str]

    def __init__(self, name: str, inputs: Mapping[str, Any], opts: pulumi.ResourceOptions) -> None:
        """``inputs`` are :class:`FleetInputs`."""
        super().__init__(
            FleetProvider(),
            name,
            {**FleetInputs.declared(inputs), **dict.fromkeys(OUTPUTS)},
            with_secrets(opts, FleetInputs),
        )
