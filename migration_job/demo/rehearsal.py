"""A rehearsal on somebody's own file: the whole way, with the file only read.

The steps are the operator's own commands, run as they would run them; what is this module's own is
the servers around them, and the summary at the end, which is read from ``report.json``.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from collections import Counter
from datetime import datetime
from pathlib import Path

from migration_job.connection import SqliteSide, read_connection, write_connection
from migration_job.demo.commands import session_of
from migration_job.demo.stage import DemoStage
from migration_job.errors import ExitStatus, OperationError
from migration_job.plural import counted
from migration_job.quoting import compose, postgres_name
from migration_job.report import writer
from migration_job.report.closing import of_nothing
from migration_job.report.exceptions import with_exceptions
from migration_job.report.model import Report
from migration_job.shell_words import words
from migration_job.stores.sqlite.beside import beside

HASH_BLOCK = 1 << 20
SHOWN_FINDINGS = 10
"""Warnings and errors that the summary repeats; the report has all."""

SIDECARS = ("", "-wal", "-journal")
"""The files that hold a SQLite database; ``-shm`` is an index that every reader may write."""


def rehearse(
    source: Path, stage: DemoStage, *, profile: str, policy: Path | None = None
) -> ExitStatus:
    """Migrate ``source`` to the stage's PostgreSQL, verify, switch the demo's connection to it, ask
    it a question as the application would, and say what was done.

    Returns the migration's exit status; nothing is switched unless it is ``DONE``.
    """
    began = time.monotonic()
    before = fingerprint(source)
    write_connection(stage.connection, *_both(SqliteSide(path=str(_named(source, stage)))))
    status = migrate(source, stage, profile=profile, policy=policy)
    report = _report(stage)
    if status is ExitStatus.DONE and report is not None:
        _switch(stage)
        _ask(stage, report)
    summarise(source, stage, status, time.monotonic() - began)
    say_untouched(before, fingerprint(source))
    return status


def migrate(
    source: Path,
    stage: DemoStage,
    *,
    profile: str,
    policy: Path | None = None,
) -> ExitStatus:
    """Run ``migration-job migrate`` with its own output; its exit status.

    Raises OperationError where it ended by a signal.
    """
    arguments = ["migrate", str(source), "--target-file", str(stage.target_file)]
    arguments += ["--report", str(stage.report), "--profile", profile]
    if policy is not None:
        arguments += ["--policy", str(policy)]
    return run_job(arguments)


def run_job(arguments: list[str]) -> ExitStatus:
    """One command of the job's, shown and run. Raises OperationError where a signal ended it."""
    say(f"\n$ migration-job {words(arguments)}")
    done = subprocess.run(  # noqa: S603  # this program itself, with arguments of its own
        [sys.executable, "-m", "migration_job", *arguments], check=False
    )
    if done.returncode not in set(ExitStatus):
        raise OperationError(f"migration-job {arguments[0]} ended with {done.returncode}")
    return ExitStatus(done.returncode)


def fingerprint(source: Path) -> str:
    """SHA-256 over the files that hold the database; '' where the file cannot be read."""
    digest = hashlib.sha256()
    for suffix in SIDECARS:
        part = beside(source, suffix)
        digest.update(f"{suffix}:{part.exists()}\n".encode())
        try:
            with part.open("rb") as stream:
                while block := stream.read(HASH_BLOCK):
                    digest.update(block)
        except OSError:
            continue
    return digest.hexdigest()


def say(text: str) -> None:
    """A line for the operator, at once, in order with what the commands print."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _named(source: Path, stage: DemoStage) -> Path:
    """The source by a link in the demo's directory: its own name may be none for a ``.env``."""
    link = stage.directory.absolute() / "source"
    link.symlink_to(source.absolute())
    return link


def exceptions(stage: DemoStage) -> list[str]:
    """What the migration did not carry as the source's schema says it."""
    report = _report(stage)
    return [] if report is None else report.exceptions


def _both(side: SqliteSide) -> tuple[SqliteSide, SqliteSide]:
    return side, side


def _report(stage: DemoStage) -> Report | None:
    try:
        return writer.read(stage.report)
    except FileNotFoundError:
        return None


def _switch(stage: DemoStage) -> None:
    """Open the alias, then have the connection name the new side.

    This is a rehearsal's switch: the source is not fenced, since it must stay as it is.
    """
    pooler = stage.pooler
    if pooler is not None:
        pooler.open_alias()
    side = stage.application_side
    write_connection(stage.connection, side, side)
    say(
        f"\nrehearsed the switch: {stage.connection / 'database.env'}, which this rehearsal made "
        f"and no application reads, now names the database {stage.database!r} on port {side.port}"
    )


def _ask(stage: DemoStage, report: Report) -> None:
    """Through the connection, as the application: the rows of the largest table."""
    connection = read_connection(stage.connection)
    if connection is None or connection.read.engine != "postgresql" or not report.tables:
        return
    side = connection.read
    largest = max(report.tables.values(), key=lambda table: table.target_rows or 0)
    with session_of(side) as session:
        row = session.execute(
            compose(
                "SELECT count(*) FROM {largest}", largest=postgres_name(largest.target)
            ).encode()
        ).fetchone()
    through = "PostgreSQL" if stage.bouncer is None else "PgBouncer"
    rows = counted(row[0] if row else 0, "row")
    say(f"as the application, through {through}: {largest.target} has {rows}")


def summarise(source: Path, stage: DemoStage, status: ExitStatus, seconds: float) -> None:
    """Say what ``migrate`` did, from its report: rows, values, findings, seconds."""
    report = _report(stage)
    if report is None:
        say(f"\n{source} was not migrated; the reason is above")
        return
    say("")
    for finding in [f for f in report.findings if f.severity != "note"][:SHOWN_FINDINGS]:
        place = ".".join(part for part in (finding.table, finding.column) if part)
        say(f"{finding.severity}: {place and place + ': '}{finding.message}")
    if status is ExitStatus.DONE:
        _say_moved(report)
    else:
        say(f"\nnot migrated: {report.outcome}")
    if report.certificate is not None:
        say(f"  certificate    {report.certificate.digest}")
    say(f"  seconds        {spent(report, seconds)}")
    for name, value in report.beside_seconds.items():
        say(f"                 beside them: {name} {value:,.1f}")
    say(f"  findings       {_findings(report)}")
    _say_report(stage)


def spent(report: Report, seconds: float) -> str:
    """The wall's seconds, and of them those of `migrate`, whose parts sum up."""
    try:
        began, ended = map(datetime.fromisoformat, (report.began_at, report.ended_at))
    except ValueError:
        return f"{seconds:,.1f} in all"
    took = (ended - began).total_seconds()
    rest = max(took - sum(report.seconds.values()), 0.0)
    parts = {**report.seconds, "start, backup and report": rest}
    told = ", ".join(f"{name} {value:,.1f}" for name, value in parts.items())
    return f"{seconds:,.1f} in all, {took:,.1f} of them `migrate`: {told}"


def _say_moved(report: Report) -> None:
    """What arrived, and what differs from the source by a rule."""
    rows = sum(table.target_rows or 0 for table in report.tables.values())
    changed = f", but for {report.ledger_count:,} in the ledger" if report.ledger_count else ""
    said = f"{counted(rows, 'row')} in {counted(len(report.tables), 'table')} moved and verified"
    say(f"\n{said}{with_exceptions(report.exceptions)}")
    if warning := of_nothing(report):
        say(f"warning: {warning}")
    if rows:
        say(f"  values         all equal{changed}")
    say(f"  quarantined    {counted(report.quarantine_count, 'row')}")


def _findings(report: Report) -> str:
    counts = Counter(str(finding.severity) for finding in report.findings)
    told = [counted(counts[name], name) for name in ("error", "warning", "note") if counts[name]]
    return ", ".join(told) or "none"


def _say_report(stage: DemoStage) -> None:
    pages = [stage.report / name for name in ("report.html", writer.NAME)]
    for page in (page for page in pages if page.exists()):
        say(f"  report         {page}")
        return


def say_untouched(before: str, after: str) -> None:
    """Whether the file is as it was, by its fingerprints."""
    if before == after:
        say("  the source     is byte for byte as it was")
    else:
        say(
            "  the source     was changed meanwhile by another program; the rehearsal only reads it"
        )
