"""A command's options as one object: its fields are the options, read by Typer.

A group is a dataclass whose fields are annotated as Typer wants its parameters to be. A group may
inherit from another and may hold others, whose options then stand in its place. So several commands
share an option with its help, and each takes one argument.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer

from migration_job.plan.policy import Said, Types

if TYPE_CHECKING:
    from migration_job.application_proof import Proof
    from migration_job.verify.application import Demands


Group = TypeVar("Group")

ReadSource = Annotated[Path, typer.Argument(help="The SQLite file; it is only read.")]
AcceptAsynchronous = Annotated[
    bool,
    typer.Option(
        "--accept-asynchronous",
        help="Accept that a failover of the target to an asynchronous standby may lose the last "
        "commits that were acknowledged to the application.",
    ),
]
AcceptCollation = Annotated[
    bool,
    typer.Option(
        "--accept-collation",
        help="Accept that text compares by the target's own collation, even a language's: "
        "ranges and orders differ from SQLite's. Without it text columns get COLLATE C.",
    ),
]
Target = Annotated[str | None, typer.Option(help="PostgreSQL's connection string.")]
TargetFile = Annotated[
    Path | None, typer.Option(help="A file that holds it, so that no command line shows it.")
]
HOLDS_IT = "A file that holds it."
Once = Annotated[bool, typer.Option("--once", help="End when there is nothing left to do.")]
Tenants = Annotated[
    list[str] | None, typer.Option(help="A tenant, or a pattern of several (repeatable).")
]
Report = Annotated[Path, typer.Option(help="The directory for the report.")]
Console = Annotated[
    str | None, typer.Option("--pooler", help="PgBouncer's admin console, a connection string.")
]
ConsoleFile = Annotated[
    Path | None,
    typer.Option("--console-file", help="A file with the admin console's connection string."),
]
ALIAS_FILE_HELP = "The file that PgBouncer includes for the application's alias."
PauseSeconds = Annotated[
    float, typer.Option(min=0.1, help="How long open transactions may take to end.")
]
ProfileName = Annotated[str, typer.Option(help="'none', 'radcase', or a profile's file.")]
PolicyFile = Annotated[Path | None, typer.Option(help="A policy file (YAML).")]
TypeChoice = Annotated[
    Types | None,
    typer.Option(
        "--types",
        help="'generous' takes types that every value has but that are not declared (uuid, "
        "boolean); the report names each. 'declared' only suggests them. Without the option the "
        "policy's `types` decides.",
    ),
]
TablePatterns = Annotated[
    list[str] | None,
    typer.Option(
        "--only",
        help="A pattern of the tables to carry, as 'case*'; may be given several times. The "
        "others stay on SQLite, and are told.",
    ),
]
ExceptPatterns = Annotated[
    list[str] | None,
    typer.Option("--except", help="A pattern of tables to leave out; may be given several times."),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object to standard output, for programs.")
]


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WordOptions:
    """How much is said."""

    quiet: Quiet = False
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Also print every table and every warning.")
    ] = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """By what rules a plan is made, and of which tables."""

    profile: ProfileName = "none"
    policy: PolicyFile = None
    types: TypeChoice = None
    only: TablePatterns = None
    except_: ExceptPatterns = None

    def said(self) -> Said:
        """What is said in the place of the policy."""
        return Said(self.types, tuple(self.only or ()), tuple(self.except_ or ()))


class SchemaKind(StrEnum):
    """Whose schema the rows are loaded into."""

    PLANNED = "planned"
    EXISTING = "existing"


SchemaChoice = Annotated[
    SchemaKind,
    typer.Option(
        "--schema",
        help="'planned': the job makes the tables, in an empty database. 'existing': the "
        "application has made its own tables there, and the job only fills them.",
    ),
]
SchemaName = Annotated[
    str | None,
    typer.Option(
        "--schema-name",
        help="The schema of the application's tables on PostgreSQL, if not 'public'. If the "
        "job makes the tables, it also makes a missing schema. A search_path in the connection "
        "string's options does the same. All commands of one migration must name the same.",
    ),
]
LockSeconds = Annotated[
    float,
    typer.Option(
        "--catch-up-seconds",
        min=1,
        help="How long to wait for each of the source's locks that another program has.",
    ),
]


def print_json(content: Mapping[str, object]) -> None:
    """What ``--json`` asks for: one object, indented, with all of Unicode escaped, so that no value
    steers a terminal."""
    sys.stdout.write(json.dumps(content, indent=2) + "\n")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TargetOptions:
    """Where PostgreSQL is, for the commands that write there or compare with it."""

    target: Target = None
    target_file: TargetFile = None
    schema_name: SchemaName = None

    def dsn(self) -> str:
        """The connection string, with the schema. Raises InputError where neither or both are
        given."""
        from migration_job.place import in_schema
        from migration_job.stores.postgres.database import read_dsn

        return in_schema(read_dsn(self.target, self.target_file), self.schema_name)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WorkOptions:
    """How thoroughly to compare, and with how many connections."""

    deep: Annotated[
        bool,
        typer.Option(
            "--deep",
            help="Compare every value one by one, besides the digests. `migrate` then checks a "
            "file beyond 64 MiB by SQLite's integrity_check too, not by quick_check.",
        ),
    ] = False
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Connections that work in parallel; by default one for each core, two to eight.",
        ),
    ] = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SpeedOptions:
    """Whether the application's queries are measured, and through what."""

    performance_budget: Annotated[
        str | None,
        typer.Option(
            help="Measure the queries and loads of users, and fail beyond the budget: "
            "'slowdown=3,floor_ms=50,load_p95_ms=2000,collapse=0.5,pool=20,seconds=3', any of "
            "them, '' for these."
        ),
    ] = None
    pooler_file: Annotated[
        Path | None,
        typer.Option(
            help="A file that holds PgBouncer's connection string to this database, so that speed "
            "is measured through the pooler, as the application will use it."
        ),
    ] = None

    def demands(self, checks: Path | None, profile: str) -> Demands:
        """What the queries in ``checks``, else those of the profile, have to stand. Raises
        InputError."""
        from migration_job.stores.postgres.database import read_dsn
        from migration_job.verify.application import demands

        pooler = None if self.pooler_file is None else read_dsn(None, self.pooler_file)
        return demands(checks, profile, self.performance_budget, pooler)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProofOptions:
    """What of the application's own has to end well before the certificate."""

    proof: Annotated[
        str | None,
        typer.Option(
            help="A command of the application's that must end with 0 before the certificate, "
            "e.g. 'python manage.py migrate --check'. It gets a copy of the target by "
            "DATABASE_URL, PGHOST and so on. Its writes are discarded."
        ),
    ] = None
    proof_answer: Annotated[
        Path | None,
        typer.Option(
            help="Instead of --proof, where another program runs it: the copy's name is printed, "
            "and this file is waited for, JSON with `command`, `status` (its exit status) and "
            "`said`."
        ),
    ] = None

    def wanted(self) -> Proof | None:
        """None where none is wanted. Raises InputError."""
        from migration_job.application_proof import given

        return given(self.proof, self.proof_answer)


def with_options(command: Callable[[Group], None]) -> Callable[..., None]:
    """The command, whose one argument is a group, as Typer calls it: with a keyword argument for
    each of the group's options, the required ones first, else in the group's order."""
    hints = get_type_hints(command)
    group = hints[next(iter(inspect.signature(command).parameters))]

    @functools.wraps(command)
    def run(**values: Any) -> None:
        command(_filled(group, values))

    parameters = sorted(_parameters(group), key=lambda p: p.default is not p.empty)
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def _parameters(group: Any) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    for field in dataclasses.fields(group):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            yield from _parameters(hint)
            continue
        required = field.default is dataclasses.MISSING
        yield inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if required else field.default,
            annotation=hint,
        )


def _filled(group: Any, values: dict[str, Any]) -> Any:
    hints = get_type_hints(group)
    return group(
        **{
            field.name: _filled(hints[field.name], values)
            if dataclasses.is_dataclass(hints[field.name])
            else values[field.name]
            for field in dataclasses.fields(group)
        }
    )
