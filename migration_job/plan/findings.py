"""The findings of a plan: what the operator should know, how bad it is, what resolves it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from migration_job.plan.facts import Rows
from migration_job.plan.model import Finding, Severity
from migration_job.plan.policy import DefaultAction, Policy

Judgement = Literal["error", "by-action", "warning", "note"]
"""``by-action``: an error under ``block`` until it is resolved, else a warning."""

LOWER: Mapping[Severity, Severity] = {"error": "warning", "warning": "note", "note": "note"}


def policy_for_column(table: str, column: str, **fields: Any) -> str:
    """The YAML that sets a column's fields."""
    return to_yaml({"tables": {table: {"columns": {column: fields}}}})


def policy_for_table(table: str, **fields: Any) -> str:
    return to_yaml({"tables": {table: fields}})


def policy_to_acknowledge(code: str, place: str) -> str:
    return to_yaml({"acknowledge": [f"{code}:{place}"]})


def to_yaml(data: Mapping[str, Any]) -> str:
    """Block YAML in the given order, without a line's end at its end."""
    import yaml  # here, since a plan without findings writes none

    # The dumper in C, where there is one, takes a quarter of the time; thousands of tables may have
    # a finding each.
    text: str = yaml.dump(
        dict(data),
        Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper),
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=False,
        width=10_000,
    )
    return text.rstrip("\n")


class Findings:
    """Collects findings and judges each by the policy."""

    def __init__(self, policy: Policy, default: DefaultAction) -> None:
        self._policy = policy
        self._default = default
        self._found: list[Finding] = []

    def action_for(self, table: str | None = None, column: str | None = None) -> str:
        """The action that the policy names for a place."""
        if table is not None:
            if column is not None:
                own = self._policy.column(table, column).action
                if own is not None:
                    return own
            whole = self._policy.table(table).action
            if whole is not None:
                return whole
        return self._default

    def add(  # noqa: PLR0913 - a finding's fields, named
        self,
        code: str,
        judgement: Judgement,
        message: str,
        *,
        table: str | None = None,
        column: str | None = None,
        item: str | None = None,
        rows: Rows | None = None,
        count: int | None = None,
        resolution: str | None = None,
        suggest: str = "",
    ) -> None:
        """Note a finding. Where ``resolution`` is None, acknowledging resolves it."""
        judgement, resolution = self._fitted(code, judgement, resolution, table, column)
        place = item or (f"{table}.{column}" if column else table) or ""
        accepted = resolution is None and self._policy.accepts(code, table, column, item)
        if judgement == "by-action":
            judgement = "error" if self.action_for(table, column) == "block" else "warning"
        # What somebody has read and accepted is told one degree lower.
        severity = LOWER[judgement] if accepted else judgement
        if resolution is None:
            resolution = policy_to_acknowledge(code, place) if severity == "error" else ""
        self._found.append(
            Finding(
                code=code,
                severity=severity,
                table=table,
                column=column,
                message=message,
                count=count if count is not None else (rows.count if rows is not None else 0),
                keys=_shown(rows),
                resolution=resolution,
                suggest=suggest,
            )
        )

    def say_more(self, code: str, table: str, column: str, words: str) -> None:
        """Have the finding of that code and column end with further words."""
        self._found = [
            f.model_copy(update={"message": f.message + words})
            if (f.code, f.table, f.column) == (code, table, column)
            else f
            for f in self._found
        ]

    def _fitted(
        self,
        code: str,
        judgement: Judgement,
        resolution: str | None,
        table: str | None,
        column: str | None,
    ) -> tuple[Judgement, str | None]:
        """A finding's judgement and what resolves it, as this kind of plan has them."""
        del code, table, column
        return judgement, resolution

    @property
    def all(self) -> tuple[Finding, ...]:
        """Errors first, then in the order of the source."""
        order = {"error": 0, "warning": 1, "note": 2}
        return tuple(sorted(self._found, key=lambda f: order[f.severity]))


def _shown(rows: Rows | None) -> tuple[str, ...]:
    if rows is None:
        return ()
    return tuple(
        f"{key}: {why}" if why else key for key, why in zip(rows.keys, rows.why, strict=True)
    )


def some(names: Sequence[str], limit: int = 5) -> str:
    """A few names for a sentence."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"
