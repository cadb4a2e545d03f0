"""``migration-job inspect``: plan and preflight, nothing written."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from migration_job.commands.option_groups import (
    AsJson,
    PlanOptions,
    ReadSource,
    SchemaChoice,
    SchemaKind,
    SchemaName,
    Target,
    TargetFile,
    print_json,
    with_options,
)
from migration_job.errors import ExitStatus, InputError
from migration_job.plan.model import OWN_SCHEMA, Finding, Plan, TablePlan
from migration_job.plan.planner import make_plan
from migration_job.plan.policy import Policy, chosen_policy
from migration_job.plan.profile import Profile, load_profile
from migration_job.plan.virtual import of_misfits
from migration_job.plural import counted
from migration_job.report.closing import would_prove_nothing
from migration_job.stores.sqlite import integrity
from migration_job.stores.sqlite.catalogue import read_catalogue
from migration_job.stores.sqlite.database import open_readonly, reading

if TYPE_CHECKING:
    from migration_job.plan.onto_refusals import Trial
    from migration_job.plan.suggest import Suggestion
    from migration_job.plan.target import TargetSchema

TABLES_SHOWN = 60
"""Lines of the overview without ``--plan``."""

STYLES = {"error": "bold red", "warning": "bold yellow", "note": "bold cyan"}


def register(app: typer.Typer) -> None:
    """Add ``inspect`` to the program."""
    app.command("inspect")(with_options(inspect))


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectOptions:
    """What is planned, and what is printed or written of it."""

    source: ReadSource
    context: typer.Context
    file: Annotated[
        Path | None,
        typer.Argument(
            help="With --suggest: where to write the policy. Where migration-job.toml names the "
            "source, one word that ends with .yaml or .yml is this."
        ),
    ] = None
    by: PlanOptions
    suggested: Annotated[
        bool,
        typer.Option(
            "--suggest",
            help="Write the policy that resolves every error to FILE, or to standard output, and "
            "print the result of trying it.",
        ),
    ] = False
    whole: Annotated[
        bool, typer.Option("--plan", help="Show every column of the plan, and why.")
    ] = False
    as_json: AsJson = False
    schema: SchemaChoice = SchemaKind.PLANNED
    target: Target = None
    target_file: TargetFile = None
    schema_name: SchemaName = None

    def in_their_places(self) -> InspectOptions:
        """The same with what ``migration-job.toml`` names put where it belongs.

        Its target is for a schema that is there; a plan of the job's own needs none. Where it names
        the source, one word beside --suggest is FILE if it is called as a policy is.
        """
        found = self
        if self.schema == SchemaKind.PLANNED:
            target = None if self._by_the_file("target") else self.target
            target_file = None if self._by_the_file("target_file") else self.target_file
            found = replace(self, target=target, target_file=target_file)
        named = (self.context.default_map or {}).get("source")
        if named is None or self._by_the_file("source"):
            return found
        if not self.suggested or self.file is not None or not _is_policy(self.source):
            return found
        return replace(found, source=Path(named), file=self.source)

    def _by_the_file(self, name: str) -> bool:
        given = self.context.get_parameter_source(name)
        return given is not None and given.name == "DEFAULT_MAP"


def _is_policy(path: Path) -> bool:
    return path.suffix.lower() in (".yaml", ".yml")


def inspect(options: InspectOptions) -> None:
    """Plan a migration and try it on every value, without writing anything.

    With --schema existing the plan is for the tables that the application has made on --target.

    Ends with 0 where the migration would go through, with 3 where something stops it, and with 2
    where the role of --target may not load.
    """
    options = options.in_their_places()
    _require_fitting(options)
    plan, suggestion, unable = _planned(options)
    to_stderr = options.suggested and options.file is None
    console = Console(stderr=to_stderr, highlight=False, emoji=False)
    if options.as_json:
        print_json(structured(plan, options.source))
    else:
        show(console, plan, options.source, whole=options.whole)
    if suggestion is not None:
        _hand_over(suggestion, options, console)
    if plan.blocked:
        raise typer.Exit(int(ExitStatus.BLOCKED))
    if unable is not None:
        raise unable


def _require_fitting(options: InspectOptions) -> None:
    """Raises InputError for options that do not go together."""
    file = options.file
    if options.as_json and options.suggested and file is None:
        raise InputError(
            "expected a FILE after --suggest with --json, found none: both would be printed",
            advice="`inspect SOURCE --json --suggest policy.yaml`",
        )
    if file is not None and not options.suggested:
        raise InputError(
            f"expected --suggest before a second file, found {file} alone",
            advice="`inspect SOURCE --suggest policy.yaml` writes the policy that is needed.",
        )
    if file is not None and (file.exists() or file.is_symlink()):
        raise InputError(
            f"the file is there already: {file}",
            advice="Name a new file, or remove this one; it is not overwritten.",
        )


def _planned(options: InspectOptions) -> tuple[Plan, Suggestion | None, InputError | None]:
    """The plan; where it is asked for the policy that resolves its errors; and what the role lacks
    for loading into tables that are there."""
    # A suggested policy says itself which types it takes.
    said = replace(options.by.said(), types=None) if options.suggested else options.by.said()
    chosen = chosen_policy(options.by.policy, said)
    wished = load_profile(options.by.profile)
    with ExitStack() as stack:
        dsn = _target(options.schema, options.target, options.target_file)
        name = options.schema_name
        onto = None if dsn is None else _open(_in_schema(dsn, name), wished, chosen)
        there, trial, may = (None, None, None) if onto is None else stack.enter_context(onto)
        connection = stack.enter_context(reading(options.source))
        again = partial(open_readonly, options.source)
        unfit = integrity.check(connection, full=True, again=again)
        catalogue = read_catalogue(connection)

        def planned(policy: Policy | None) -> Plan:
            if there is None:
                own = OWN_SCHEMA if name is None else _named(name)
                plan = make_plan(
                    connection, catalogue, profile=wished, policy=policy, schema_name=own
                )
            else:
                from migration_job.plan.onto import Source, plan_onto

                source = Source(connection, catalogue)
                plan = plan_onto(source, there, policy=policy, trial=trial)
            told = of_misfits(unfit, catalogue, policy)
            return plan.model_copy(update={"findings": (*plan.findings, *told)}) if told else plan

        plan = planned(chosen)
        unable = None if may is None else may(plan)
        if not options.suggested:
            return plan, None, unable
        from migration_job.plan.suggest import suggest

        generous = options.by.types == "generous"
        return plan, suggest(planned, plan, _content(options.by), generous=generous), unable


def _hand_over(suggestion: Suggestion, options: InspectOptions, console: Console) -> None:
    """Write the suggested policy, and say what a trial of it gave."""
    if options.file is None:
        sys.stdout.write(suggestion.text)
    else:
        _write_new(options.file, suggestion.text)
    if not options.as_json:
        where = "" if options.file is None else f" It is in {options.file}."
        _line(console, Text(_clean(suggestion.verdict + where)))


def _write_new(file: Path, text: str) -> None:
    """Raises InputError where it cannot be made, or somebody was faster: nothing is overwritten,
    and nothing is written through a link."""
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise InputError(
            f"cannot write the policy to {file}: {error.strerror}",
            advice="Name a new file in a directory that can be written to.",
        ) from error


def _in_schema(dsn: str, name: str | None) -> str:
    from migration_job.place import in_schema

    return in_schema(dsn, name)


def _named(schema: str) -> str:
    from migration_job.place import require_schema_name

    return require_schema_name(schema)


def _target(schema: SchemaKind, target: str | None, target_file: Path | None) -> str | None:
    """Where the schema is that is there already; None where the job makes one."""
    if schema == SchemaKind.EXISTING:
        from migration_job.stores.postgres.database import read_dsn

        return read_dsn(target, target_file)
    if target is None and target_file is None:
        return None
    raise InputError(
        "expected --schema existing with --target, found --target alone",
        advice="a plan of the job's own schema needs no target: leave --target out, or add "
        "--schema existing.",
    )


@contextmanager
def _open(
    dsn: str, profile: Profile, policy: Policy | None
) -> Iterator[tuple[TargetSchema, Trial, Callable[[Plan], InputError | None]]]:
    """The schema, what tries its CHECKs, and what says why the role may not load a plan. Nothing is
    changed in it."""
    # Here, since a look at a file alone would spend half its time on importing them.
    from migration_job.certification import connected
    from migration_job.stores.postgres.existing import refused
    from migration_job.stores.postgres.target import read_schema
    from migration_job.stores.postgres.trial import trial_on

    with connected(dsn, only_read=True) as connection:
        yield (
            read_schema(connection, profile, policy),
            trial_on(connection),
            partial(refused, connection),
        )


def _content(by: PlanOptions) -> dict[str, Any] | None:
    """What a suggested policy goes on from: the one given, with the tables that were chosen."""
    import yaml

    content = None if by.policy is None else yaml.safe_load(by.policy.read_text(encoding="utf-8"))
    chosen = {"only": by.only, "except": by.except_}
    own = {word: list(patterns) for word, patterns in chosen.items() if patterns}
    return {**(content or {}), **own} if own else content


def structured(plan: Plan, source: Path) -> dict[str, Any]:
    """The plan and its findings, for programs."""
    return {
        "source": str(source),
        "goes_through": not plan.blocked,
        "tables": [
            {
                "source": table.source,
                "target": table.target,
                "rows": table.rows,
                "primary_key": list(table.primary_key),
                "columns": [
                    {"source": c.source, "target": c.target, "type": c.type, "why": c.reason}
                    for c in table.columns
                ],
            }
            for table in plan.tables
            if table.source is not None
        ],
        "findings": [finding.model_dump(mode="json") for finding in plan.findings],
    }


def show(console: Console, plan: Plan, source: Path, *, whole: bool = False) -> None:
    """The plan and its findings, for people."""
    tables = [t for t in plan.tables if t.source is not None]
    rows = sum(t.rows for t in tables)
    _line(console, Text(f"{source}: {counted(len(tables), 'table')}, {counted(rows, 'row')}"))
    _line(console, Text(""))
    for table in tables if whole else tables[:TABLES_SHOWN]:
        _show_table(console, table, whole=whole)
    if not whole and len(tables) > TABLES_SHOWN:
        _line(console, Text(f"  and {counted(len(tables) - TABLES_SHOWN, 'more table')} (--plan)"))
    _line(console, Text(""))
    for finding in plan.findings:
        show_finding(console, finding)
    _verdict(console, plan)


def _show_table(console: Console, table: TablePlan, *, whole: bool) -> None:
    line = Text("  ").append(_clean(table.target), style="bold")
    line.append(f"  {counted(table.rows, 'row')}", style="dim")
    if not whole:
        line.append(f", {counted(len(table.columns), 'column')}", style="dim")
        key = ", ".join(table.primary_key) or "no primary key"
        line.append(f", {_clean(key)}", style="dim")
    _line(console, line)
    if not whole:
        return
    width = max((len(_clean(c.target)) for c in table.columns), default=0)
    types = max((len(c.type) for c in table.columns), default=0)
    for column in table.columns:
        text = Text("    ").append(_clean(column.target).ljust(width)).append("  ")
        text.append(column.type.ljust(types), style="green")
        text.append(f"  {column.reason}", style="dim")
        _line(console, text)


def show_finding(console: Console, finding: Finding) -> None:
    """One finding: what and where, how many, the first keys, what resolves it."""
    style = STYLES[finding.severity]
    place = ".".join(_clean(p) for p in (finding.table, finding.column) if p is not None)
    head = (f"{finding.severity}[{finding.code}]", style)
    _line(console, Text.assemble(head, " ", (_clean(finding.message), "bold")))
    if place:
        count = (f"  ({finding.count:,})", "dim") if finding.count else ""
        _line(console, Text.assemble(("  --> ", "blue"), place, count))
    if finding.severity != "note":
        for key in finding.keys:
            _line(console, Text.assemble(("   | ", "blue"), _clean(key)))
        if finding.count > len(finding.keys) > 0:
            rest = f"and {finding.count - len(finding.keys):,} more"
            _line(console, Text.assemble(("   | ", "blue"), (rest, "dim")))
    parts = (("resolved by", finding.resolution), ("tried, and possible", finding.suggest))
    for title, lines in parts:
        if lines:
            _line(console, Text.assemble(("   = ", "blue"), title))
        for line in lines.splitlines():
            _line(console, Text.assemble("       ", (_clean(line), "green")))
    _line(console, Text(""))


def _verdict(console: Console, plan: Plan) -> None:
    counts = {s: sum(f.severity == s for f in plan.findings) for s in STYLES}
    summary = ", ".join(counted(n, severity) for severity, n in counts.items() if n)
    if plan.blocked:
        further = (
            "Put the lines that resolve each error into a policy file (--suggest writes one) and "
            "give it with --policy."
            if any(finding.resolution for finding in plan.blocked)
            else "No policy resolves this: see what each error says."
        )
        text = Text.assemble(("stopped", "bold red"), f": {summary}. {further}")
    else:
        text = Text.assemble(("goes through", "bold green"), f": {summary or 'nothing to report'}.")
    _line(console, text)
    tables = [table for table in plan.tables if table.source is not None]
    said = would_prove_nothing(len(tables), sum(table.rows for table in tables))
    if said and not plan.blocked:
        _line(console, Text.assemble(("warning", STYLES["warning"]), f": {said}"))


def _line(console: Console, text: Text) -> None:
    # Lines are left whole: a terminal wraps them itself, and a log stays searchable.
    console.print(text, soft_wrap=True)


def _clean(text: str) -> str:
    """The text without what could forge a line or steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
