"""Small things that tests of every kind share: what must be there, read as what it is."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import apsw

from migration_job.connection import Connection, read_connection
from migration_job.plan.rules import RULES, TARGETS, ConstantRule, MapRule, RuleBase, base_of
from migration_job.protocol.sync import Report, read_report
from migration_job.values import BrokenText, SourceValue


def connection_of(directory: Path) -> Connection:
    """The application's connection, which must have been written."""
    found = read_connection(directory)
    assert found is not None, f"no connection in {directory}"
    return found


def report_of(state: Path) -> Report:
    """The report of ``sync``, which must have been written."""
    found = read_report(state)
    assert found is not None, f"no report of sync in {state}"
    return found


def same_value(*values: apsw.SQLiteValue) -> apsw.SQLiteValue:
    """An application's own SQL function of one argument that gives it back."""
    (value,) = values
    return value


def text_or_broken(raw: object) -> str | BrokenText:
    """A text's bytes as the job reads them."""
    assert isinstance(raw, bytes)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return BrokenText(raw)


def natural_values(rule: RuleBase) -> list[SourceValue]:
    """What the source has for values that a new row may have on the target."""
    types = rule.types or (TARGETS[base_of(rule.target_type)],)
    return [rule.inverse(text) for target in types for text in target.natural]


def missing(known: Iterable[RuleBase]) -> list[RuleBase]:
    """Each rule of a kind that is not among those known, as it is without options."""
    kinds = {rule.kind for rule in known}
    fresh = [kind for kind in RULES if kind.model_fields["kind"].default not in kinds]
    return [rule() for rule in fresh if rule not in (MapRule, ConstantRule)]  # type: ignore[call-arg]
