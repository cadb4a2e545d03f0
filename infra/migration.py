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
from pathlib import Path, PurePosixPath
from typing import Any

import pulumi
import yaml
from pulumi.dynamic import CreateResult, DiffResult, Resource, UpdateResult

from infra import engine, job, live
from infra.dynamic import StageProvider, say
from infra.errors import StageError
from infra.inputs import PLANNED, MigrationInputs, Served, with_secrets
from infra.proof import ANSWER_FILE, Prover
from migration_job.fleet.matching import with_log

FOR_THE_SWITCH = "retyped-for-few"
"""The code of the finding that only the switch waits for."""

DECISIVE = {
    "job_digest",
    "source",
    "profile",
    "policy",
    "schema",
    "proof",
    "strategy",
    "target_version",
}
"""Inputs that make the migration run again."""
DATA = DECISIVE - {"job_digest", "strategy", "proof"}
"""Those that would make other data of it, and so cannot change while PostgreSQL serves."""

RESULTS = ("phase", "rows", "tables", "certificate", "report")
OUTPUTS = (*RESULTS, "fingerprint")

SERVERS = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


def arguments(inputs: MigrationInputs) -> list[str]:
    """``migrate`` as the job takes it."""
    words = ["migrate", inputs.source, "--target-file", live.TARGET_FILE]
    words += ["--report", inputs.report_directory, "--profile", inputs.profile_path]
    if inputs.policy:
        words += ["--policy", job.POLICY_FILE]
    if inputs.target_schema != PLANNED:
        words += ["--schema", inputs.target_schema]
    if inputs.strategy != "offline":
        words += ["--live", "--state", inputs.state_directory]
    if inputs.proof:
        words += ["--proof-answer", ANSWER_FILE]
    return words + live.collation_acceptance(inputs.target)


def fingerprint(source: Path) -> str:
    """What changes when the file or its write-ahead log is written to; '' where it is elsewhere."""
    parts = []
    for path in with_log(source):
        try:
            status = path.stat()
        except OSError:
            continue
        if status.st_size:
            parts.append(f"{status.st_ino}:{status.st_size}:{status.st_mtime_ns}")
    return " ".join(parts)


class MigrationProvider(StageProvider):
    """Runs ``migration-job migrate`` and reads its report."""

    outputs = OUTPUTS

    def diff(self, _id: str, olds: Any, news: Any) -> DiffResult:
        changed = bool(self.changed(olds, news)) or _stale(olds, news)
        return DiffResult(changes=changed, replaces=[])

    def create(self, props: Any) -> CreateResult:
        inputs = MigrationInputs.of(props)
        return CreateResult(f"{inputs.place.stage}/migration", {**props, **_migrate(inputs)})

    def update(self, _id: str, olds: Any, news: Any) -> UpdateResult:
        new = MigrationInputs.of(news)
        kept = {name: olds.get(name) for name in OUTPUTS}
        changed = self.changed(olds, news) & DECISIVE
        if deciding(olds.get("policy", "")) == deciding(new.policy):
            changed -= {"policy"}
        if _emptied(olds, news) and live.serving(new) == "sqlite":
            return UpdateResult({**news, **_anew(new)})
        if not changed and not _stale(olds, news):
            return UpdateResult({**news, **kept})
        if live.serving(new) == "postgresql":
            _refuse_other_data(changed & DATA)
            say("PostgreSQL serves: the migration is not run again")
            return UpdateResult({**news, **kept})
        if "source" in changed and olds["strategy"] != "offline":
            _give_up_former(new, olds, news)
        return UpdateResult({**news, **_migrate(new)})

    def delete(self, _id: str, props: Any) -> None:
        inputs = MigrationInputs.of(props)
        if inputs.strategy == "offline":
            return
        if live.serving(inputs) == "postgresql":
            # A settled stage that was given up: nothing captures the source any more.
            say("PostgreSQL served to the end: the source is left as it is")
            return
        live.run("rollback", inputs, ["--release"])


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


def _anew(inputs: MigrationInputs) -> dict[str, Any]:
    """The target is empty again, and SQLite serves: captured, copied and verified again."""
    say("PostgreSQL's data directory is a new one: the migration starts over")
    if inputs.strategy != "offline":
        live.run("rollback", inputs, ["--release"])
    return _migrate(inputs)


def _give_up_former(new: MigrationInputs, olds: Mapping[str, Any], news: Mapping[str, Any]) -> None:
    """The stage has another source: the former gets its schema back, and PostgreSQL follows it no
    more. A file that is gone gets nothing."""
    say("the stage has another source now: what PostgreSQL holds of the former is given up")
    place = {**olds["place"], "image": news["place"]["image"]}
    former = MigrationInputs.of({**news, "source": olds["source"], "place": place})
    try:
        live.run("rollback", former, ["--release"])
    except StageError as error:
        say(f"the former source {former.source} keeps what it has: {error}")
        live.run("rollback", new, ["--release"])


def _stale(olds: Mapping[str, Any], news: Mapping[str, Any]) -> bool:
    """Whether the source was written to since it was copied, with nothing to follow it. In a
    preview not all that is new is known."""
    if news["strategy"] != "offline":
        return False
    found = fingerprint(Path(news["source"]))
    if not found or found == olds.get("fingerprint"):
        return False
    return live.serving(Served.of(news)) == "sqlite"


def _refuse_other_data(changed: set[str]) -> None:
    if changed:
        raise StageError(
            f"expected the settings of a stage that serves from PostgreSQL to stay, found another "
            f"{', '.join(sorted(changed))}",
            advice="set `cutover: hold` first, which takes the application back to SQLite",
        )


def _migrate(inputs: MigrationInputs) -> dict[str, Any]:
    place = inputs.place
    client = engine.connect(place.docker_host)
    policy = {job.POLICY_NAME: inputs.policy} if inputs.policy else {}
    call = job.Call(inputs.container, {**inputs.target_files, **policy})
    hear = Prover(client, inputs).hear if inputs.proof else say
    ended = job.run(client, place, call, arguments(inputs), hear)
    report = PurePosixPath(inputs.report_directory) / "report.json"
    if ended.status:
        raise StageError(
            f"the migration ended with status {ended.status}; its last output:\n{ended.words}",
            advice=f"{_served(inputs)}. {report.parent} holds the report of a run that began; "
            "correct the cause and run `pulumi up` again, it continues where it stopped",
        )
    found = _found(job.read_json(client, place, f"{inputs.container}-report", report), report)
    return {**found, "fingerprint": fingerprint(Path(inputs.source))}


def _served(inputs: MigrationInputs) -> str:
    """Who serves, in words: a state that was lost has it run where PostgreSQL serves."""
    try:
        side = live.serving(inputs)
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

    def __init__(self, name: str, inputs: Mapping[str, Any], opts: pulumi.ResourceOptions) -> None:
        """``inputs`` are :class:`MigrationInputs`."""
        super().__init__(
            MigrationProvider(),
            name,
            {**MigrationInputs.declared(inputs), **dict.fromkeys(OUTPUTS)},
            with_secrets(opts, MigrationInputs),
        )
