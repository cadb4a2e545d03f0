"""PostgreSQL's settings as data: which version knows which, of what type, within what limits.

The list is the servers' own (``tools/postgresql_settings.py`` asks them). A stage may override any
setting of postgresql.conf but those that the program itself decides, those that name a program or
a library to run, and those that give up durability.
"""

from __future__ import annotations

import difflib
import functools
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("postgresql_settings.json")

MEMORY = {"B": 1, "kB": 1024, "MB": 1024**2, "GB": 1024**3, "TB": 1024**4}
TIME = {"us": 1e-3, "ms": 1, "s": 1e3, "min": 6e4, "h": 3.6e6, "d": 8.64e7}
TRUE = {"on", "true", "yes", "1"}
FALSE = {"off", "false", "no", "0"}

_OURS = "the program decides it"
_RUNS = "it names a program or a library to run"
_UNSAFE = "it gives up durability, checks or authentication"

REFUSED: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "cluster_name",
            "config_file",
            "data_directory",
            "event_source",
            "external_pid_file",
            "hba_file",
            "ident_file",
            "listen_addresses",
            "log_destination",
            "log_directory",
            "log_filename",
            "logging_collector",
            "max_connections",
            "password_encryption",
            "port",
            "session_replication_role",
            "unix_socket_directories",
            "unix_socket_group",
            "unix_socket_permissions",
        ),
        _OURS,
    ),
    **dict.fromkeys(
        (
            "archive_cleanup_command",
            "archive_command",
            "archive_library",
            "dynamic_library_path",
            "extension_control_path",
            "jit_provider",
            "local_preload_libraries",
            "oauth_validator_libraries",
            "recovery_end_command",
            "restore_command",
            "session_preload_libraries",
            "shared_preload_libraries",
            "ssl_passphrase_command",
        ),
        _RUNS,
    ),
    **dict.fromkeys(
        (
            "allow_in_place_tablespaces",
            "allow_system_table_mods",
            "data_sync_retry",
            "db_user_namespace",
            "fsync",
            "full_page_writes",
            "ignore_checksum_failure",
            "ignore_invalid_pages",
            "ignore_system_indexes",
            "zero_damaged_pages",
        ),
        _UNSAFE,
    ),
}
"""Settings that a stage may not override, each with the reason."""

_REFUSED_PREFIXES = {"ssl": _OURS, "krb_": _OURS, "recovery_target": _OURS, "debug_": _UNSAFE}


@functools.cache
def table() -> dict[str, list[dict[str, Any]]]:
    """Setting, in lower case, to its entries; each holds for versions ``since`` to ``until``."""
    loaded: dict[str, list[dict[str, Any]]] = json.loads(TABLE.read_text())
    return {name.lower(): spans for name, spans in loaded.items()}


def entry(version: int, name: str) -> dict[str, Any] | None:
    """The setting as that major version knows it, in any case as PostgreSQL has it, or None."""
    spans = table().get(name.lower(), ())
    return next((span for span in spans if span["since"] <= version <= span["until"]), None)


def check(version: int, settings: Mapping[str, str]) -> None:
    """ValueError listing every setting that this version does not know or would not accept."""
    faults = [fault for name, value in settings.items() if (fault := _fault(version, name, value))]
    if faults:
        raise ValueError("postgresqlSettings: " + "; ".join(faults))


def _fault(version: int, name: str, value: str) -> str:
    shown = ascii(name)[:80]
    lower = name.lower()
    reason = REFUSED.get(lower) or next(
        (why for prefix, why in _REFUSED_PREFIXES.items() if lower.startswith(prefix)), ""
    )
    if reason:
        return f"{shown} cannot be set here: {reason}"
    known = entry(version, name)
    if known is None:
        return _unknown(version, name, shown)
    return _value_fault(known, value, shown)


def _unknown(version: int, name: str, shown: str) -> str:
    if spans := table().get(name.lower()):
        held = ", ".join(f"{span['since']} to {span['until']}" for span in spans)
        return f"{shown} is a setting of PostgreSQL {held}, not of {version}"
    names = _names(version)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{shown} is not a setting of PostgreSQL {version}{hint}"


@functools.cache
def _names(version: int) -> tuple[str, ...]:
    return tuple(name for name in table() if entry(version, name))


def _value_fault(known: Mapping[str, Any], value: str, shown: str) -> str:
    found = f"found {ascii(value)[:80]}"
    match known["type"]:
        case "bool":
            if value.lower() not in TRUE | FALSE:
                return f"{shown}: expected on or off, {found}"
        case "enum":
            if value.lower() not in known["values"]:
                return f"{shown}: expected one of {', '.join(known['values'])}, {found}"
        case "integer" | "real":
            return _number_fault(known, value, shown, found)
        case _:
            if any(ord(character) < 32 or ord(character) == 127 for character in value):
                return f"{shown}: expected text without control characters, {found}"
    return ""


def _number_fault(known: Mapping[str, Any], value: str, shown: str, found: str) -> str:
    unit = known.get("unit", "")
    try:
        number = in_units(value, unit)
    except ValueError as error:
        return f"{shown}: {error}, {found}"
    low, high = known["min"], known["max"]
    if not low <= number <= high:
        return f"{shown}: expected {_plain(low)} to {_plain(high)} {unit}".rstrip() + f", {found}"
    return ""


def in_units(value: str, unit: str) -> float:
    """A number as PostgreSQL reads it (``8MB``, ``30s``, ``0.9``), in the setting's own unit.

    ``unit`` is ``pg_settings.unit`` ('' for none). ValueError where it is no such number.
    """
    match = re.fullmatch(r"\s*([+-]?[0-9]+(?:\.[0-9]*)?|[+-]?\.[0-9]+)\s*([A-Za-z]*)\s*", value)
    if match is None:
        raise ValueError("expected a number" + (f" (in {unit}, or with its unit)" if unit else ""))
    number = float(match[1])
    if not math.isfinite(number):
        raise ValueError("expected a finite number")
    if not match[2]:
        return number
    scale, base = _scale(unit)
    if match[2] not in scale:
        units = ", ".join(scale) or "none"
        raise ValueError(f"expected a unit of {units}")
    return number * scale[match[2]] / base


def _scale(unit: str) -> tuple[Mapping[str, float], float]:
    """The units that go with a setting's own, and the size of its own among them."""
    blocks = re.fullmatch(r"([0-9]*)(B|kB|MB)", unit)
    if blocks:
        return MEMORY, int(blocks[1] or 1) * MEMORY[blocks[2]]
    if unit in TIME:
        return TIME, TIME[unit]
    return {}, 1


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else repr(number)
