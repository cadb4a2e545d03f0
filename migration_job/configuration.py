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
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from migration_job.errors import InputError

NAME = "migration-job.toml"

_HELP = "`migration-job COMMAND --help` lists the options"


def defaults(program: Any, directory: Path) -> dict[str, dict[str, Any]]:
    """By command what its options are where the command line is silent; nothing where there is no
    such file. ``program`` is a click group of all commands. Raises InputError for a name that no
    command has, and for a value that is no such option's."""
    file = directory / NAME
    said = _read(file)
    commands = {name: _options(command) for name, command in program.commands.items()}
    sections = {_spelled(name) for name in commands}
    every = set().union(*commands.values())
    shared: dict[str, Any] = {}
    own: dict[str, Mapping[str, Any]] = {}
    for name, value in ((_spelled(n), v) for n, v in said.items()):
        if isinstance(value, Mapping) and name not in every - sections:
            _require_known(file, [name], sections, "a command's table")
            own[name] = {_spelled(n): v for n, v in value.items()}
        elif name in sections - every:
            raise InputError(
                f"{file}: expected a table [{name}] with options of that command, found "
                f"{name} = {_shown(value)}",
                advice=_HELP,
            )
        else:
            _require_known(file, [name], every, "an option of a command")
            shared[name] = value
    return {
        name: _given(file, name, options, shared, own.get(_spelled(name), {}))
        for name, options in commands.items()
    }


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(
            f"{file} cannot be read: {error}", advice="expected TOML in UTF-8, or no such file"
        ) from error


def _given(
    file: Path,
    command: str,
    options: Mapping[str, Any],
    shared: Mapping[str, Any],
    own: Mapping[str, Any],
) -> dict[str, Any]:
    """What a command's options are, by what they are called inside."""
    _require_known(file, own, options, f"an option of {command}")
    found = {}
    for name, value in {**shared, **own}.items():
        if name in options:
            _require_value(file, name, options[name], value)
            found[str(options[name].name)] = value
    return found


def _options(command: Any) -> dict[str, Any]:
    """A command's options and arguments as one writes them."""
    return {
        _spelled(written.lstrip("-")): parameter
        for parameter in command.params
        for written in parameter.opts
        if written != "--help"
    }


def _spelled(name: str) -> str:
    return name.replace("-", "_")


def _require_known(file: Path, said: Iterable[str], known: Collection[str], what: str) -> None:
    for name in said:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise InputError(f"{file}: expected {what}, found {name!r}{hint}", advice=_HELP)


_TEXT = ("text in quotation marks", (str,))

_KINDS: Mapping[str, tuple[str, tuple[type, ...]]] = {
    "int": ("a whole number", (int,)),
    "float": ("a number", (int, float)),
    "bool": ("true or false", (bool,)),
}
"""By an option's type as its command declares it what a value is, in words and in TOML."""


def _kind(parameter: Any) -> tuple[str, tuple[type, ...]]:
    declared = parameter.type_descriptor.annotation
    return _KINDS.get(getattr(declared, "__name__", ""), _TEXT)


def _require_value(file: Path, name: str, parameter: Any, value: Any) -> None:
    """Raises InputError for a value of another type than the option's; what else is wrong with it
    is found as on the command line."""
    words, types = _kind(parameter)
    several = bool(getattr(parameter, "multiple", False)) or parameter.nargs != 1
    values = value if several and isinstance(value, list) else [value]
    wanted = f"a list of {words}" if several else words
    fits = isinstance(value, list) or not several
    for one in values:
        # To Python true is a whole number.
        fits = fits and isinstance(one, types) and (bool in types or not isinstance(one, bool))
    if not fits:
        raise InputError(
            f"{file}: expected {wanted} for {name}, found {_shown(value)}", advice=_HELP
        )


def _shown(value: Any) -> str:
    """What stands in the file in words, without the value of a text, which may be a secret."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping | list):
        return "a table" if isinstance(value, Mapping) else "a list"
    if isinstance(value, str):
        return "text" if value else "an empty text"
    return str(value)
