"""Write from the code what can be: the reference pages and the table of guarantees.

``python -m tools.reference`` writes them; ``--check`` ends with 1 where one is not what the code
says (a test runs it).
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main
from pydantic.fields import FieldInfo
from typer.core import TyperGroup

from infra.setting_types import UNITS
from infra.settings import Settings
from migration_job.cli import app
from migration_job.errors import ExitStatus
from migration_job.plan.choose import ARRAYS, ENUMS
from migration_job.plan.rules import OWNERS, RULES, TARGETS
from tools import guarantees, manual

ROOT = Path(__file__).resolve().parent.parent
NOTICE = "<!-- Written by tools/reference.py from the code; `make docs` writes it again. -->"

STATUS = {
    ExitStatus.DONE: "done",
    ExitStatus.UNEXPECTED: "an operation could not be completed; it can be run again",
    ExitStatus.USAGE: "wrong usage or input",
    ExitStatus.BLOCKED: "blocked: the policy has to resolve findings in the data first",
    ExitStatus.VERIFICATION_FAILED: "verification failed: the target differs from the source",
}


def main() -> int:
    """Write or check the pages; the process's exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check = parser.parse_args().check
    stale = []
    for name, text in pages().items():
        path = ROOT / name
        if check:
            if not path.exists() or path.read_text(encoding="utf-8") != text:
                stale.append(name)
        else:
            path.write_text(text, encoding="utf-8")
    if stale:
        print(f"not what the code says: {', '.join(stale)}; run `make docs`", file=sys.stderr)
    return 1 if stale else 0


def pages() -> dict[str, str]:
    """Each page that is written, whole or in part, and its text."""
    return {
        "docs/commands.md": "\n".join(_commands()) + "\n",
        "docs/settings.md": "\n".join(_settings()) + "\n",
        "docs/guarantees.md": _guarantees(),
        "docs/types.md": "\n".join(_types()) + "\n",
        "docs/migration-job.1": "\n".join(manual.page(STATUS)) + "\n",
    }


def _guarantees() -> str:
    """The page with the table between the two marks replaced."""
    text = (ROOT / "docs/guarantees.md").read_text(encoding="utf-8")
    before, begin, rest = text.partition("<!-- guarantees -->\n")
    _, end, after = rest.partition("<!-- end of guarantees -->")
    if not (begin and end):
        raise SystemExit("expected the marks of the table in docs/guarantees.md, found none")
    return before + begin + "\n".join(guarantees.table(ROOT)) + "\n" + end + after


# ------------------------------------------------------------------------------------- types


def _types() -> Iterator[str]:
    yield from ("# Types", "", NOTICE, "")
    yield "A policy may ask for these types (`type:`); without one the declared type or the values"
    yield "decide. [The policy](policy.md) says what happens to a value that does not fit."
    yield from ("", "| type | declared types that ask for it by name |", "|---|---|")
    for name, target in TARGETS.items():
        rule = OWNERS[name]
        forms = " or ".join(f"`{form}`" for form in target.forms or (name,))
        words = ", ".join(f"`{w}`" for w in sorted(rule.declared | rule.declared_first))
        yield f"| {forms} | {words or 'by affinity'} |"
    yield f"| `TYPE[]`: {ARRAYS}, from lists in JSON | by affinity |"
    yield f"| `{ENUMS}`: a type that the run makes, for text | by affinity |"
    yield from ("", "A rule carries a column's values to its type and back; the ledger names it:")
    yield from ("", "| rule | type | what it carries |", "|---|---|---|")
    for rule in RULES:
        targets = ", ".join(f"`{t.name}`" for t in rule.types)
        kind = rule.model_fields["kind"].default
        yield f"| `{kind}` | {targets or 'as its column asks'} | {rule.doc} |"


# --------------------------------------------------------------------------------- commands


def _commands() -> Iterator[str]:
    program = typer.main.get_command(app)
    assert isinstance(program, TyperGroup)  # noqa: S101  # as it has several commands
    yield from ("# Commands", "", NOTICE, "")
    yield "`migration-job` (also `python -m migration_job`) is the job's command line, and the"
    yield "entry point of its image. `migration-job COMMAND --help` prints the same as this page."
    yield from ("", "| exit status | meaning |", "|---|---|")
    yield from (f"| {int(status)} | {STATUS[status]} |" for status in ExitStatus)
    yield from (
        "",
        "The wheel has the same as a manual page: `man migration-job`. Completion in the",
    )
    yield "shell: `migration-job --install-completion`, once, in bash, zsh, fish or PowerShell."
    context = typer.Context(program, info_name="migration-job")
    yield from ("", "Options before the command:")
    yield from _parameters(program, context)
    for name in sorted(program.commands):
        command = program.commands[name]
        if not command.hidden:
            yield from _command(command, typer.Context(command, context, info_name=name))


def _command(command: Any, context: typer.Context) -> Iterator[str]:
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield from ("", f"## {command.name}", "", f"    {usage}", "")
    yield inspect.cleandoc(command.help or "").replace("\f", "").strip()
    if isinstance(command, TyperGroup):
        for name in sorted(command.commands):
            inner = command.commands[name]
            yield from _command(inner, typer.Context(inner, context, info_name=name))
        return
    yield from _parameters(command, context)


def _parameters(command: Any, context: typer.Context) -> Iterator[str]:
    rows = [row for row in (_parameter(p, context) for p in command.params) if row]
    if rows:
        yield from ("", "| argument or option | default | meaning |", "|---|---|---|")
        yield from rows


def _parameter(parameter: Any, context: typer.Context) -> str:
    """One row of the table; '' for what ``--help`` does not show either."""
    record = parameter.get_help_record(context)
    if record is None or "--help" in parameter.opts:
        return ""
    default = "required" if parameter.required else _default(parameter.default)
    return f"| `{_cell(record[0])}` | {default} | {_cell(parameter.help or '')} |"


def _default(value: Any) -> str:
    if value is None or value == () or callable(value):
        return ""
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"`{_cell(str(getattr(value, 'value', value)))}`"


# --------------------------------------------------------------------------------- settings


def _settings() -> Iterator[str]:
    yield from ("# Settings of a stage", "", NOTICE, "")
    yield "A stage is a file `Pulumi.<stage>.yaml`; its keys are `sqlite-to-postgresql:<name>`."
    yield "An unknown or impossible setting is refused before anything is created, and the message"
    yield "says what was expected and what was found. Sizes are written as `512MB` or `4GB`."
    yield from ("", "| setting | default | meaning |", "|---|---|---|")
    for field in Settings.model_fields.values():
        yield f"| `{field.alias}` | {_setting_default(field)} | {_cell(field.description or '')} |"


def _setting_default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value in ("", (), {}):
        return ""
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    if isinstance(value, int) and value >= UNITS["kB"] * UNITS["kB"]:
        return f"`{_size(value)}`"
    return f"`{value}`"


def _size(value: int) -> str:
    unit = max((u for u in UNITS if value % UNITS[u] == 0), key=lambda u: UNITS[u])
    return f"{value // UNITS[unit]}{unit}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    sys.exit(main())
