"""The resource ``Migration``: the job's container, run to ``verified``.

A run that ends otherwise fails ``pulumi up`` with the job's own last words and leaves nothing
recorded, so that the next ``up`` goes on where the job stopped. It runs again when something that
decides the result has changed: the job's code, the source, the profile, the policy, the strategy
or the target's version; and under ``offline``, where nothing follows the source, when the source
itself has changed. Once PostgreSQL serves it never runs. Anything else (a password, a port, a
limit) is taken note of.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

import pulumi
import yaml
from pulumi.dynamic import CreateResult, DiffResult, Resource, UpdateResult

from infra import engine, job, live
from infra.dynamic import StageProvider, say
from infra.errors import StageError
from infra.job import Place

FOR_THE_SWITCH = "retyped-for-few"
"""The code of the finding that only the switch waits for."""

DECISIVE = {
    "job_digest",
    "source",
    "profile",
    "policy",
    "schema",
    "strategy",
    "target_version",
}
"""Inputs that make the migration run again."""
DATA = DECISIVE - {"job_digest", "strategy"}
"""Those that would make other data of it, and so cannot change while PostgreSQL serves."""

RESULTS = ("phase", "rows", "tables", "certificate", "report")
OUTPUTS = (*RESULTS, "fingerprint")

SERVERS = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}

POLICY_FILE = f"{job.SECRETS}/{job.POLICY_NAME}"


def arguments(props: Mapping[str, Any]) -> list[str]:
    """``migrate`` as the job takes it."""
    words = ["migrate", props["source"], "--target-file", live.TARGET_FILE]
    words += ["--report", props["report_directory"], "--profile", props["profile_path"]]
    if props["policy"]:
        words += ["--policy", POLICY_FILE]
    if props.get("schema"):
        words += ["--schema", props["schema"]]
    if props["strategy"] != "offline":
        words += ["--live", "--state", props["state_directory"]]
    return words + live.collation_acceptance(props)


def fingerprint(source: Path) -> str:
    """What changes when the file or its write-ahead log is written to; '' where it is elsewhere."""
    parts = []
    for path in (source, source.with_name(f"{source.name}-wal")):
        try:
            status = path.stat()
        except OSError:
            continue
        if status.st_size:
            parts.append(f"{status.st_size}:{status.st_mtime_ns}")
    return " ".join(parts)


class MigrationProvider(StageProvider):
    """Runs ``migration-job migrate`` and reads its report."""

    outputs = OUTPUTS

    def diff(self, _id: str, olds: Any, news: Any) -> DiffResult:
        changed = bool(self.changed(olds, news)) or _stale(olds, news)
        return DiffResult(changes=changed, replaces=[])

    def create(self, props: Any) -> CreateResult:
        found = _migrate(props)
        return CreateResult(f"{props['place']['stage']}/migration", {**props, **found})

    def update(self, _id: str, olds: Any, news: Any) -> UpdateResult:
        kept = {name: olds.get(name) for name in OUTPUTS}
        changed = self.changed(olds, news) & DECISIVE
        if deciding(olds.get("policy", "")) == deciding(news["policy"]):
            changed -= {"policy"}
        if _emptied(olds, news) and live.serving(news) == "sqlite":
            return UpdateResult({**news, **_anew(news)})
        if not changed and not _stale(olds, news):
            return UpdateResult({**news, **kept})
        if live.serving(news) == "postgresql":
            _refuse_other_data(changed & DATA)
            say("PostgreSQL serves: the migration is not run again")
            return UpdateResult({**news, **kept})
        return UpdateResult({**news, **_migrate(news)})

    def delete(self, _id: str, props: Any) -> None:
        if props["strategy"] == "offline":
            return
        if live.serving(props) == "postgresql":
            # A settled stage that was given up: nothing captures the source any more.
            say("PostgreSQL served to the end: the source is left as it is")
            return
        live.run("rollback", props, ["--release"])


def deciding(policy: str) -> Any:
    """A policy without the acknowledgements that only the switch waits for: they change nothing of
    what is copied."""

    def without(part: Any) -> Any:
        if not isinstance(part, Mapping):
            return part
        kept = {key: without(value) for key, value in part.items() if key != "acknowledge"}
        listed = [e for e in part.get("acknowledge", ()) if not str(e).startswith(FOR_THE_SWITCH)]
        return {**kept, "acknowledge": listed} if listed else kept

    return without(yaml.safe_load(policy)) if policy else {}


def _emptied(olds: Mapping[str, Any], news: Mapping[str, Any]) -> bool:
    """Whether the target's data directory is another than the one that was filled; a state of an
    older version of this project does not say which that was."""
    return bool(olds.get("cluster")) and olds["cluster"] != news.get("cluster")


def _anew(props: Mapping[str, Any]) -> dict[str, Any]:
    """The target is empty again, and SQLite serves: captured, copied and verified anew."""
    say("PostgreSQL's data directory is a new one: the migration begins anew")
    if props["strategy"] != "offline":
        live.run("rollback", props, ["--release"])
    return _migrate(props)


def _stale(olds: Mapping[str, Any], news: Mapping[str, Any]) -> bool:
    """Whether the source was written to since it was copied, with nothing to follow it."""
    if news["strategy"] != "offline":
        return False
    found = fingerprint(Path(news["source"]))
    return bool(found) and found != olds.get("fingerprint") and live.serving(news) == "sqlite"


def _refuse_other_data(changed: set[str]) -> None:
    if changed:
        raise StageError(
            f"expected the settings of a stage that serves from PostgreSQL to stay, found another "
            f"{', '.join(sorted(changed))}",
            advice="set `cutover: hold` first, which takes the application back to SQLite",
        )


def _migrate(props: Mapping[str, Any]) -> dict[str, Any]:
    place = live.place_of(props)
    client = engine.connect(place.docker_host)
    secrets = live.target_secrets(props)
    if props["policy"]:
        secrets[job.POLICY_NAME] = props["policy"]
    ended = job.run(client, place, props["container"], arguments(props), secrets, say)
    report = PurePosixPath(props["report_directory"]) / "report.json"
    if ended.status:
        raise StageError(
            f"the migration ended with status {ended.status}; its last words:\n{ended.words}",
            advice=f"{_served(props)}. {report.parent} holds the report of a run that began; "
            "correct the cause and run `pulumi up` again, it goes on where it stopped",
        )
    found = _found(job.read_json(client, place, f"{props['container']}-report", report), report)
    return {**found, "fingerprint": fingerprint(Path(props["source"]))}


def _served(props: Mapping[str, Any]) -> str:
    """Who serves, in words: a state that was lost has it run where PostgreSQL serves."""
    try:
        side = live.serving(props)
    except StageError:
        return "the migration changes nothing of who serves the application"
    return f"the application is served by {SERVERS[side]} as before"


def _found(report: Mapping[str, Any], path: PurePosixPath) -> dict[str, Any]:
    if report.get("outcome") != "verified":
        raise StageError(
            f"expected the outcome 'verified' in {path}, found {report.get('outcome')!r}",
            advice="the connection was not touched; run `pulumi up` again",
        )
    tables = report["tables"]
    return {
        "phase": str(report["phase"]),
        "rows": sum(int(table["target_rows"]) for table in tables.values()),
        "tables": len(tables),
        "certificate": str(report["certificate"]["digest"]),
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
        opts: pulumi.ResourceOptions,
    ) -> None:
        super().__init__(
            MigrationProvider(),
            name,
            {**inputs, "place": asdict(place), **dict.fromkeys(OUTPUTS)},
            pulumi.ResourceOptions.merge(
                opts, pulumi.ResourceOptions(additional_secret_outputs=list(live.PASSWORDS))
            ),
        )
