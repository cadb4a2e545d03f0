"""``migration-job.toml``: the options of the commands, said once.

In the directory that a command is run in. A name at the top is for every command that has such an
option and takes such a value; one in a command's own table is for that command alone, and wins; the
command line wins over both. Names are those of the options, with ``-`` or ``_``. Paths are
relative to that directory::

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
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from migration_job.errors import InputError

NAME = "migration-job.toml"

_HELP = "`migration-job COMMAND --help` lists the options"


RIVALS = (
    ("target", "target_file"),
    ("pooler", "console_file"),
    ("proof", "proof_answer"),
    ("from_target", "from_target_file"),
    ("to_target", "to_target_file"),
    ("source", "fleet"),  # a demo's: a file of one's own, or tenants that are made up
)
"""Two ways to say one thing: of them a command takes one, and what wins over the file, or over its
top, wins over the other way too."""


def defaults(
    program: Any, directory: Path, arguments: Sequence[str] = ()
) -> dict[str, dict[str, Any]]:
    """By command what its options are where the command line, ``arguments``, is silent; nothing
    where there is no such file. ``program`` is a click group of all commands.

    Raises InputError for a name that no command has, for a value in a command's table that is not
    of its option's kind, and for one at the top that is of no such option's."""
    file = directory / NAME
    commands = {name: _options(command) for name, command in program.commands.items()}
    shared, own = _parts(file, _read(file), commands)
    outdone = _rivals(_spelled(a[2:].split("=")[0]) for a in arguments if a.startswith("--"))
    found = {
        name: _given(file, name, options, shared, own.get(_spelled(name), {}))
        for name, options in commands.items()
    }
    return {
        command: {name: value for name, value in given.items() if name not in outdone}
        for command, given in found.items()
    }


def _parts(
    file: Path, said: Mapping[str, Any], commands: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, Any], dict[str, Mapping[str, Any]]]:
    """What stands at the top, and the commands' tables. Raises InputError."""
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
            _require_value(file, name, [o[name] for o in commands.values() if name in o], value)
            shared[name] = value
    return shared, own


def _rivals(said: Iterable[str]) -> set[str]:
    """The other ways to say what is said."""
    names = set(said)
    return {b for pair in RIVALS for a, b in (pair, pair[::-1]) if a in names} - names


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
    for name, value in own.items():
        _require_value(file, name, [options[name]], value)
    # Where an option of that name is of another kind here, the value is for the others.
    lost = _rivals(own)
    fit = {
        name: value
        for name, value in shared.items()
        if name in options and name not in lost and _fits(options[name], value)
    }
    return {str(options[name].name): value for name, value in {**fit, **own}.items()}


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


def _several(parameter: Any) -> bool:
    return bool(getattr(parameter, "multiple", False)) or parameter.nargs != 1


def _wanted(parameter: Any) -> str:
    """What a value of the option is, in words."""
    words, _ = _kind(parameter)
    return f"a list of {words}" if _several(parameter) else words


def _fits(parameter: Any, value: Any) -> bool:
    """Whether the value is of the option's type."""
    _, types = _kind(parameter)
    several = _several(parameter)
    values = value if several and isinstance(value, list) else [value]
    fits = isinstance(value, list) or not several
    for one in values:
        # To Python true is a whole number.
        fits = fits and isinstance(one, types) and (bool in types or not isinstance(one, bool))
    return fits


def _require_value(file: Path, name: str, parameters: Sequence[Any], value: Any) -> None:
    """Raises InputError for a value of another type than each of the options'; what else is wrong
    with it is found as on the command line."""
    if not any(_fits(parameter, value) for parameter in parameters):
        wanted = " or ".join(dict.fromkeys(map(_wanted, parameters)))
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
