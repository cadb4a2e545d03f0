"""``migration-job migrate``: the whole way to ``verified``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from migration_job import shell_words
from migration_job.commands.option_groups import (
    AcceptCollation,
    LockSeconds,
    PlanOptions,
    ProofOptions,
    ReadSource,
    SchemaChoice,
    SchemaKind,
    SpeedOptions,
    TargetOptions,
    WordOptions,
    WorkOptions,
    with_options,
)
from migration_job.errors import InputError
from migration_job.migration import Migration
from migration_job.plan.retyped import waited_for
from migration_job.plan.virtual import MISFIT
from migration_job.plural import counted
from migration_job.progress import Reporter
from migration_job.protocol.begin import LiveStart, Wanted
from migration_job.report import writer
from migration_job.report.closing import closing_table, of_nothing
from migration_job.report.model import Report
from migration_job.run_request import Options
from migration_job.stores.sqlite.memory import stop_memory_accounting, use_few_arenas
from migration_job.stores.sqlite.waiting import patience


def register(app: typer.Typer) -> None:
    """Add ``migrate`` to the program."""
    app.command("migrate")(with_options(migrate))


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrateOptions:
    """From where to where, by what rules, and what has to hold before the certificate."""

    source: ReadSource
    report: Annotated[
        Path, typer.Option(help="Directory for report.json, report.html and the backup.")
    ]
    to: TargetOptions
    plan: PlanOptions
    schema: SchemaChoice = SchemaKind.PLANNED
    work: WorkOptions
    words: WordOptions
    checks: Annotated[
        Path | None,
        typer.Option(
            help="Directory of the application's queries (*.sql), replayed on both sides; by "
            "default the profile's own."
        ),
    ] = None
    speed: SpeedOptions
    proof: ProofOptions
    live: Annotated[
        bool,
        typer.Option(
            "--live",
            help="The application continues to write: triggers in the SQLite file capture "
            "its changes, and `sync` applies them.",
        ),
    ] = False
    state: Annotated[
        Path | None,
        typer.Option(help="With --live: the directory for the lock, the same as `sync`'s."),
    ] = None
    catch_up_seconds: LockSeconds = 600.0
    accept_collation: AcceptCollation = False


def migrate(options: MigrateOptions) -> None:
    """Plan, copy and verify a SQLite database into PostgreSQL: an empty database, or with
    --schema existing the tables that the application has made there."""
    stop_memory_accounting()
    use_few_arenas()
    wanted = Options(
        source=options.source,
        dsn=options.to.dsn(),
        report=options.report,
        profile=options.plan.profile,
        policy=options.plan.policy,
        said=options.plan.said(),
        deep=options.work.deep,
        jobs=options.work.jobs,
        demands=options.speed.demands(options.checks, options.plan.profile),
        own_collation=options.accept_collation,
        existing=options.schema == SchemaKind.EXISTING,
        proof=options.proof.wanted(),
    )
    reporter = Reporter(quiet=options.words.quiet)
    start = _live_start(options, wanted.dsn) if options.live else None
    with patience(options.catch_up_seconds):
        told = Migration(wanted, reporter, start).run()
    tell(reporter, told, options.report, verbose=options.words.verbose)
    if waiting := waited_for(told.findings):
        names = ", ".join(f"'{name}'" for name in waiting)
        reporter.say(
            "the switch waits until a policy acknowledges what is not as it was "
            f"(acknowledge: [{names}]); this shows it, with the ways out: {_inspecting(options)}"
        )


def _inspecting(options: MigrateOptions) -> str:
    """The command that plans by the same rules, whole."""
    words = ["migration-job", "inspect", str(options.source.absolute())]
    plan = options.plan
    if plan.profile != "none":
        words += ["--profile", plan.profile]
    if plan.policy is not None:
        words += ["--policy", str(plan.policy.absolute())]
    if plan.types is not None:
        words += ["--types", plan.types]
    for name, patterns in (("--only", plan.only), ("--except", plan.except_)):
        words += [word for pattern in patterns or () for word in (name, pattern)]
    whole = shell_words.words(words)
    if options.schema != SchemaKind.EXISTING:
        return whole
    return f'{whole} --schema existing --target "$TARGET"'


def _live_start(options: MigrateOptions, dsn: str) -> LiveStart:
    if options.state is None:
        raise InputError(
            "expected --state with --live, found none",
            advice="name the directory that `sync` and `switch` are given, or CONNECTION/.state",
        )
    plan, existing = options.plan, options.schema == SchemaKind.EXISTING
    wanted = Wanted(plan.profile, plan.policy, plan.said(), existing)
    return LiveStart(options.source, dsn, options.state, options.report, wanted)


def tell(reporter: Reporter, told: Report, folder: Path, *, verbose: bool = False) -> None:
    """The last words of a run that went well."""
    for row in closing_table(told, everything=verbose):
        reporter.say(row)
    for finding in told.findings:
        if finding.severity == "warning" and (verbose or finding.code == MISFIT):
            place = ".".join(name for name in (finding.table, finding.column) if name)
            reporter.say(f"warning: {place and place + ': '}{finding.message}")
    reporter.say(told.message)
    if warning := of_nothing(told):
        reporter.say(f"warning: {warning}")
    values, rows = counted(told.ledger_count, "value"), counted(told.quarantine_count, "row")
    changed = f"{values} changed by rules and {rows} in quarantine: the report lists them"
    if told.ledger_count or told.quarantine_count:
        reporter.say(changed)
    if told.certificate is not None:
        reporter.say(f"certificate {told.certificate.digest}")
    reporter.say(f"report: {folder / writer.name(told.command)}")
