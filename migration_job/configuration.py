"""``migration-job.toml``: the options of the commands, said once.

In the directory that a command is run in. A name at the top is for every command that has such an
option; one in a command's own table is for that command alone, and wins; the command line wins over
both. Names are those of the options, with ``-`` or ``_``. Paths are relative to that directory::

    source = "app.db"
    target-file = "secrets/target"
    report = "report"
    state = "state"
    connection = "connection"
    connect-to = "connect.json"

    [migrate]
    policy = "policy.yaml"
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from migration_job.errors import InputError

NAME = "migration-job.toml"

FEW = 2
"""Commands of a program that was made for one of them, with ``version``."""


def defaults(program: Any, directory: Path) -> dict[str, dict[str, Any]]:
    """By command what its options are where the command line is silent; nothing where there is no
    such file. ``program`` is a click group. Raises InputError for a name that no command has."""
    file = directory / NAME
    try:
        said = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(
            f"{file} cannot be read: {error}", advice="expected TOML in UTF-8, or no such file"
        ) from error
    known = {name: _options(command) for name, command in program.commands.items()}
    shared = {_spelled(n): v for n, v in said.items() if not isinstance(v, Mapping)}
    if len(known) > FEW:  # else it is one command's, which says nothing of the others' options
        _require_known(file, shared, set().union(*known.values()), "option of a command")
    found: dict[str, dict[str, Any]] = {}
    for name, options in known.items():
        own = {_spelled(n): v for n, v in said.get(name, {}).items()}
        _require_known(file, own, options, f"option of {name}")
        both = {**shared, **own}
        found[name] = {options[n]: v for n, v in both.items() if n in options}
    return found


def _options(command: Any) -> dict[str, str]:
    """A command's options and arguments as one writes them, and what they are called inside."""
    return {
        _spelled(written.lstrip("-")): str(parameter.name)
        for parameter in command.params
        for written in parameter.opts
        if written != "--help"
    }


def _spelled(name: str) -> str:
    return name.replace("-", "_")


def _require_known(file: Path, said: Mapping[str, Any], known: Collection[str], what: str) -> None:
    for name in said:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise InputError(
                f"{file}: expected an {what}, found {name!r}{hint}",
                advice="`migration-job COMMAND --help` lists the options",
            )
