"""A worker process of a fleet's run: it answers one task after another, and ends with whoever
started it.

``python -m migration_job.fleet.worker DESCRIPTOR``; the descriptor is one end of a pair of sockets.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection

import apsw

from migration_job import last_resort, shell_words
from migration_job.certification import connected, with_check
from migration_job.errors import (
    ExitStatus,
    InputError,
    JobError,
    OperationError,
    VerificationError,
)
from migration_job.fleet import joining
from migration_job.fleet.tasks import (
    Answer,
    ColumnSeen,
    Failed,
    Look,
    Looked,
    Move,
    Moved,
    Seen,
    Shared,
    Task,
    plain,
)
from migration_job.migration import Migration, blocked_by
from migration_job.phases import UNFINISHED
from migration_job.place import in_schema, records_of
from migration_job.plan.findings import some
from migration_job.plan.model import Plan
from migration_job.plan.planner import make_plan
from migration_job.plan.policy import Said, parse_policy, with_said
from migration_job.plan.profile import load_profile
from migration_job.plan.shape import shape_of, shape_text
from migration_job.plural import counted
from migration_job.progress import Reporter
from migration_job.protocol.begin import LiveStart, Wanted
from migration_job.protocol.replaced import require_followed, state_on_source
from migration_job.report.exceptions import with_exceptions
from migration_job.report.model import Certificate
from migration_job.run_request import Options
from migration_job.stores.postgres import (
    database,
    own_database,
    pair_identity,
    records,
    shared_tables,
)
from migration_job.stores.postgres.fleet_ledger import Certified, FleetLedger
from migration_job.stores.postgres.shared_tables import Tenant
from migration_job.stores.sqlite.catalogue import read_catalogue
from migration_job.stores.sqlite.database import reading
from migration_job.stores.sqlite.memory import stop_memory_accounting, use_few_arenas
from migration_job.stores.sqlite.model import Catalogue
from migration_job.verify.tenants import Content

BUSY_SECONDS = 60.0
"""How long to wait for the sessions of a run that was killed: the server has to notice."""


def main() -> None:
    """Answer until the other end closes, or is gone with its process."""
    # Ctrl-C reaches the whole group; whoever started this says what becomes of it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection: Connection[Answer, Task] = Connection(int(sys.argv[1]))
    tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, tasks), daemon=True).start()
    stop_memory_accounting()
    use_few_arenas()
    while True:
        connection.send(answer(tasks.get()))


def _receive(connection: Connection[Answer, Task], tasks: queue.SimpleQueue[Task]) -> None:
    while True:
        try:
            tasks.put(connection.recv())
        except (EOFError, OSError):
            # Nobody would hear the answer. What is half done is as after any cut.
            os._exit(0)


def answer(task: Task) -> Answer:
    """Do it; whatever goes wrong is the file's own end, and no other's."""
    try:
        return _look(task) if isinstance(task, Look) else _move(task)
    except JobError as error:
        return Failed.by(error)
    except (apsw.Error, OSError) as error:
        told = f"the file cannot be read: {error}"
        return Failed(ExitStatus.USAGE, told)
    except Exception as error:
        return Failed(ExitStatus.UNEXPECTED, last_resort.sentence(error, ["fleet"]))


# --------------------------------------------------------------------------------------- looking


def _look(task: Look) -> Looked:
    policy = with_said(parse_policy(task.policy) if task.policy else None, Said(task.types))
    with reading(task.path) as connection:
        catalogue = read_catalogue(connection)
        plan = make_plan(
            connection,
            catalogue,
            profile=load_profile(task.profile),
            policy=policy,
            schema_name=task.schema,
        )
    return Looked(
        schema=schema_digest(catalogue),
        shape=shape_text(shape_of(plan)),
        seen=_seen(plan),
        blocked=str(blocked_by(plan)) if plan.blocked else "",
        rows=sum(table.rows for table in plan.tables),
        plan=plan.model_dump_json() if task.whole else "",
        digest=plan.digest(),
    )


def schema_digest(catalogue: Catalogue) -> str:
    """SHA-256 of what the schema says, in hex; blanks and line ends of its SQL do not count."""
    tables = [
        table.model_dump(
            mode="json",
            exclude={"sql": True, "sequence": True, "indexes": {"__all__": {"sql"}}},
        )
        for table in (*catalogue.tables, *catalogue.virtual)
    ]
    others = [(o.kind, o.name, o.table, " ".join(o.sql.split())) for o in catalogue.others]
    tables.sort(key=lambda table: str(table["name"]))
    text = json.dumps([tables, sorted(others)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _seen(plan: Plan) -> Seen:
    columns = [
        (ColumnSeen((t.source, c.source), c.type, (t.target, c.target)), c.clean)
        for t in plan.tables
        for c in t.columns
        if t.source is not None and c.source is not None
    ]
    return Seen(
        columns=tuple(seen for seen, _ in columns),
        unclean=frozenset(seen.column for seen, clean in columns if not clean),
        troubles=frozenset(
            (f.code, f.table or "", f.column or "") for f in plan.findings if f.severity != "note"
        ),
        set_aside=sum(len(t.quarantine) for t in plan.tables),
    )


# ---------------------------------------------------------------------------------------- moving


def _move(task: Move) -> Moved:
    if task.database is not None:
        own_database.make(task.server, task.database)
    if task.state is not None:
        _require_followed(task)
    if task.shared is not None and task.certificate is not None:
        _tidy(task.dsn)  # what a run that was killed then has left
        return Moved(task.certificate, "", "verified by an earlier run", again=False)
    if task.certificate is not None and (kept := _kept(task, task.certificate)) is not None:
        return kept
    if task.state is None:
        _require_no_capture(task)
    options = Options(
        source=task.path,
        dsn=task.dsn,
        report=task.report,
        profile=task.profile,
        policy=task.policy,
        said=Said(task.types),
        jobs=1,
        shape=task.shape,
        busy_seconds=BUSY_SECONDS,
    )
    live = None
    if task.state is not None:
        wanted = Wanted(task.profile, task.policy, options.said)
        live = LiveStart(task.path, task.dsn, task.state, task.report, wanted)
    report = Migration(options, Reporter(quiet=True), live).run()
    certificate = report.certificate
    if certificate is None:
        raise OperationError("expected a certificate of a verified run, found none")
    if task.shared is not None:
        certificate = _join(task, task.shared, certificate, report.exceptions)
        _tidy(task.dsn)
    return Moved(
        certificate.digest,
        certificate.model_dump_json(),
        report.message,
        again=True,
        exceptions=tuple(report.exceptions),
    )


def _join(
    task: Move, shared: Shared, certificate: Certificate, exceptions: Sequence[str]
) -> Certificate:
    """Put the verified rows among those of the other tenants; the certificate that says so."""
    column = shared.column
    with contextlib.ExitStack() as stack:
        own = stack.enter_context(connected(task.dsn))
        run = records.read_run(own)
        if run is None:
            raise OperationError("expected the records of a run that has verified, found none")
        common = stack.enter_context(connected(in_schema(task.server, column.in_schema)))
        ledger = FleetLedger(common)
        before = joining.of_json(ledger.content(task.tenant))
        tenant = Tenant(task.tenant, run.plan, column)
        said = f"{counted(len(run.plan.tables), 'table')} equal under {column.name} = {task.tenant}"
        certificate = with_check(certificate, "tenant column", said)

        def note(content: Content) -> None:
            told = f"{said}{with_exceptions(list(exceptions))}"
            certified = Certified(
                certificate.digest,
                certificate.model_dump_json(),
                *(plain(told), [plain(clause) for clause in exceptions]),
            )
            ledger.joined(task.tenant, joining.as_json(content), certified)
            kept = ledger.keep(task.tenant, records_of(own))
            _require_all(task.tenant, certificate, kept)

        joining.put(common, tenant, before, note)
    return certificate


def _require_all(tenant: str, certificate: Certificate, kept: Mapping[str, int]) -> None:
    """Raises VerificationError where not all of the ledger and the quarantine was kept."""
    expected = {"ledger": certificate.ledger_count, "quarantine": certificate.quarantine_count}
    if kept != expected:
        raise VerificationError(
            f"expected to keep the ledger and the quarantine of tenant {tenant} as they were "
            f"verified, {expected}, found {dict(kept)}",
            advice="nothing of this tenant was kept there; its file is untouched",
        )


def _tidy(dsn: str) -> None:
    """Remove the schema in which a file was verified, and its records."""
    with connected(dsn) as own:
        run = records.read_run(own)
        if run is not None:
            records.drop_everything(own, run)


def _require_no_capture(task: Move) -> None:
    """Raises InputError for a file that is followed, and would not be any more."""
    if state_on_source(task.path) is not None:
        raise InputError(
            f"expected a file that stands still, found change capture on {task.path}",
            advice="run the fleet with --live, or say `live: true` in the manifest; "
            "`migration-job release` removes the capture",
        )


def _kept(task: Move, digest: str) -> Moved | None:
    """The certificate of an earlier run, where the target still has it, and follows the file where
    its application goes on. Somebody may work there by now, so the rows are not looked at. Raises
    InputError where a table is gone."""
    with database.connect(task.dsn, purpose="migration-job fleet") as target:
        run = records.read_run(target)
        body = records.certificate_body(target, digest) if run is not None else None
        if run is None or body is None or run.phase in UNFINISHED:
            return None
        if task.state is not None and pair_identity.pair(target) != _capture_of(task):
            return None
        if missing := shared_tables.gone(target, run.plan):
            raise InputError(
                f"expected the tables that this file was moved to, found no {some(missing)} in "
                f"schema {run.plan.schema_name}",
                advice="somebody has dropped or renamed them: restore them from a backup; or "
                f"remove schema {records_of(target)} and what is left of the file's tables, and "
                "run the fleet again, which moves the file anew",
            )
    return Moved(digest, body, "verified by an earlier run", again=False)


def _capture_of(task: Move) -> str | None:
    state = state_on_source(task.path)
    return None if state is None else state.capture


def _require_followed(task: Move) -> None:
    """The book says of the runs since, not of the file: the target's own word decides."""
    with database.connect(task.dsn, purpose="migration-job fleet") as target:
        require_followed(
            target,
            task.path,
            task.state,
            to_give_up="run `migration-job fleet-rollback --release --tenant "
            f"{shell_words.word(task.tenant)}`, then the fleet again",
        )


if __name__ == "__main__":
    main()
