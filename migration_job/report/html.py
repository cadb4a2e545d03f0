"""``report.html``: the run on one page that an operator reads in a minute and an auditor keeps.

The page is made of ``report.json`` and ``moves.json`` alone (of a `verify`, of ``verify.json``) and
loads nothing: style and script are inside, and a content security policy allows those two by their
hashes and nothing else. Every name and value comes from a foreign database, so all of them are
escaped, and what a reader could not see or would see in the wrong place (control characters,
bidirectional overrides) is written out.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from migration_job import __version__
from migration_job.durable import write_durably
from migration_job.report.forms import (
    Trusted,
    duration,
    literal,
    measured,
    moment,
    number,
    prose,
    shown,
    visible,
    words,
)
from migration_job.report.model import STEMS, Move, Report
from migration_job.report.moves import shown as moves_shown
from migration_job.report.verdict import (
    command_of,
    figures,
    mapping,
    none_changed,
    verdict,
    verifies,
)

REST_SHOWN = 0.1
"""Seconds that belong to no phase and are told all the same, so that the table sums up."""
ROWS_SHOWN = 2_000
"""Ledger and quarantine rows on the page; a browser searches that many without a pause, and
the JSON beside the page has the rest."""
ROWS_PRINTED = 40
"""Rows of each long table in print, so that the whole has twelve pages at most."""

SEVERITIES = {"error": "bad", "warning": "warn", "note": "note"}
"""Severity -> how it looks; in the order in which they are shown."""

Json = Mapping[str, Any]


def write_html(report: Report | Json, path: Path, *, moves: Sequence[Move] = ()) -> None:
    """Write the page of ``report`` (or of what ``report.json`` holds) and of its run's moves to
    ``path``, whole or not at all."""
    # It quotes values of the source, so nobody but this user reads it.
    write_durably(path, render_html(report, moves).encode(), mode=0o600)


def render_html(report: Report | Json, moves: Sequence[Move] = ()) -> str:
    """The page of ``report``; what a report does not have is left out of the page."""
    content = report.model_dump(mode="json") if isinstance(report, Report) else report
    told = moves_shown(moves, str(content.get("run_id") or ""))
    return render("report.html.j2", _context(content, told))


def render(name: str, context: Json) -> str:
    """The page that a template makes, with the style and the script that all have."""
    environment = _environment()
    loader = environment.loader
    if loader is None:  # pragma: no cover - said for the type checker
        raise LookupError("no templates")
    css = loader.get_source(environment, "report.css")[0].strip()
    js = loader.get_source(environment, "report.js")[0].strip()
    # A newline after the tag would be part of what is hashed, so both are stripped.
    template = environment.get_template(name)
    return template.render(
        **context,
        css=Trusted(css),
        js=Trusted(js),
        css_hash=_hash(css),
        js_hash=_hash(js),
    )


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("migration_job.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        visible=visible,
        prose=prose,
        visible_lines=lambda text: "\n".join(visible(line) for line in str(text).splitlines()),
        shown=shown,
        literal=literal,
        place=lambda name: "–" if name is None else shown(name),
        words=words,
        number=number,
        moment=moment,
        duration=duration,
        milliseconds=lambda ms: duration(None if ms is None else ms / 1000),
        measured=measured,
    )
    return environment


# ------------------------------------------------------------------------------------ the content


def _context(report: Json, moves: Sequence[Json]) -> dict[str, Any]:
    findings = _findings(report)
    tables = _tables(report, findings)
    ledger = _sequence(report, "ledger")
    quarantine = _sequence(report, "quarantine")
    ledger_total = max(len(ledger), int(report.get("ledger_count") or 0))
    quarantine_total = max(len(quarantine), int(report.get("quarantine_count") or 0))
    differences = _differences(report)
    phases, total = _phases(report)
    content: dict[str, Any] = {
        "version": __version__,
        "kind": "verification" if verifies(report) else "migration",
        "elsewhere": f"{STEMS[command_of(report)]}.json",
        "verdict": verdict(report, tables, findings, ledger_total, quarantine_total),
        "facts": _facts(report),
        "findings": findings,
        "moves": moves,
        "phases": phases,
        "total_seconds": total,
        "tables": tables,
        "differences": differences,
        "ledger": [_ledger_row(row) for row in ledger[:ROWS_SHOWN]],
        "ledger_total": ledger_total,
        "ledger_groups": _ledger_groups(ledger),
        "ledger_groups_of": len(ledger),
        "printed": ROWS_PRINTED,
        "table_totals": {name: sum(table[name] or 0 for table in tables) for name in COUNTED},
        "quarantine": [_quarantine_row(row) for row in quarantine[:ROWS_SHOWN]],
        "quarantine_total": quarantine_total,
        "checks": _checks(report),
        "performance": _performance(report),
        "difference_total": max(len(differences), int(report.get("difference_count") or 0)),
        "certificate": {k: v for k, v in mapping(report, "certificate").items() if k != "tables"},
        "certified": _certified(report),
        "tuning": _tuning(report),
        "compared": report.get("outcome") == "verified",
        "none_changed": none_changed(report, tables),
    }
    content["figures"] = figures(content)
    content["sections"] = _sections(content)
    return content


def _sections(content: Json) -> list[tuple[str, str]]:
    """The sections that the page has, and what each is called."""
    # A run that did not come to compare does not know that these are empty.
    always = ("ledger", "quarantine", "certificate") if content["compared"] else ("certificate",)
    return [
        (name, name.capitalize() if name != "checks" else "Application checks")
        for name in (
            *("differences", "findings", "moves", "phases", "tables", "ledger", "quarantine"),
            *("checks", "performance", "certificate", "tuning"),
        )
        if content[name] or name in always
    ]


FACTS = (
    *("run_id", "source", "target", "profile", "began_at", "ended_at", "job_version"),
    *("exit_status", "backup"),
)
"""What identifies a run, in the order shown, where the report has it."""


def _facts(report: Json) -> dict[str, Any]:
    return {name: report[name] for name in FACTS if report.get(name) not in (None, "", {}, [])}


def _findings(report: Json) -> list[dict[str, Any]]:
    order = list(SEVERITIES)
    found = []
    for finding in _sequence(report, "findings"):
        place = ".".join(str(finding[k]) for k in ("table", "column") if finding.get(k))
        found.append(
            {
                "severity": finding.get("severity") or "note",
                "tone": SEVERITIES.get(str(finding.get("severity")), "note"),
                "code": finding.get("code") or "",
                "table": finding.get("table"),
                "place": place,
                "message": finding.get("message") or "",
                "count": finding.get("count") or 0,
                "first": list(finding.get("keys") or ()),
                "resolution": finding.get("settle") or "",
            }
        )
    return sorted(found, key=lambda f: order.index(f["severity"]) if f["severity"] in order else 9)


COUNTED = (
    *("source_rows", "target_rows", "quarantined_rows", "ledger_rows", "differences", "findings"),
)
"""The figures of a table on the page."""


def _tables(report: Json, findings: Iterable[Json]) -> list[dict[str, Any]]:
    per_table = Counter(str(f["table"]) for f in findings if f["table"] is not None)
    changed = Counter(str(row.get("table")) for row in _sequence(report, "ledger"))
    result = []
    for name, table in mapping(report, "tables").items():
        result.append(
            {
                "name": name,
                "source_rows": table.get("source_rows"),
                "target_rows": table.get("target_rows"),
                "quarantined_rows": table.get("quarantined_rows"),
                "ledger_rows": table.get("ledger_entries", changed[name]),
                "differences": table.get("differences"),
                "findings": per_table[name],
            }
        )
    # What has something to look at first; else in the source's order.
    first = ("differences", "quarantined_rows", "ledger_rows")
    return sorted(result, key=lambda table: [-int(table[name] or 0) for name in first])


def _differences(report: Json) -> list[dict[str, Any]]:
    """The verification's differences: expected and found, as the verifier shows them."""
    return [
        {
            "kind": row.get("kind") or "",
            "table": row.get("table") or "",
            "key": row.get("key"),
            "column": row.get("column"),
            "source": row.get("source"),
            "target": row.get("target"),
            "message": row.get("message") or "",
        }
        for row in _sequence(report, "differences")[:ROWS_SHOWN]
    ]


def _ledger_row(row: Json) -> dict[str, Any]:
    return {
        "table": row.get("table") or "",
        "key": row.get("key"),
        "column": row.get("column"),
        "before": row.get("before"),
        "after": row.get("after"),
        "rule": row.get("rule"),
    }


def _ledger_groups(ledger: Sequence[Json]) -> list[dict[str, Any]]:
    """How many values each rule has changed in each column, the most first."""
    counts = Counter(
        (str(row.get("rule") or ""), str(row.get("table") or ""), row.get("column"))
        for row in ledger
    )
    return [
        {"rule": rule, "table": table, "column": column, "count": count}
        for (rule, table, column), count in counts.most_common()
    ]


def _quarantine_row(row: Json) -> dict[str, Any]:
    return {
        "table": row.get("table") or "",
        "key": row.get("key"),
        "column": row.get("column"),
        "reason": row.get("reason"),
        "contents": row.get("row"),
    }


def _phases(report: Json) -> tuple[list[dict[str, Any]], float]:
    seconds = {k: float(v) for k, v in mapping(report, "seconds").items()}
    total = max(_wall_seconds(report), sum(seconds.values()))
    phases = [(name, spent, "") for name, spent in seconds.items()]
    rest = total - sum(seconds.values())
    if phases and rest >= REST_SHOWN:
        around = "start and report" if verifies(report) else "start, backup and report"
        phases.append((around, rest, ""))
    for name, spent in mapping(report, "beside_seconds").items():
        phases.append((name, float(spent), "beside the others"))
    longest = max([total, *(spent for _, spent, _ in phases), 1e-9])
    return (
        [
            {"name": n, "seconds": s, "percent": round(100 * s / longest, 1), "note": note}
            for n, s, note in phases
        ],
        total,
    )


def _wall_seconds(report: Json) -> float:
    """From the run's begin to its end by the clock; 0 where the report does not say."""
    try:
        began, ended = (datetime.fromisoformat(str(report[k])) for k in ("began_at", "ended_at"))
    except (KeyError, ValueError):
        return 0.0
    return (ended - began).total_seconds()


def _checks(report: Json) -> list[dict[str, Any]]:
    return [
        {
            "name": check.get("name") or "",
            "source_rows": check.get("source_rows"),
            "source_seconds": check.get("source_seconds"),
            "target_seconds": check.get("target_seconds"),
            "differences": list(check.get("differences") or ()),
            "unshown": check.get("unshown") or 0,
        }
        for check in _sequence(report, "checks")
    ]


def _performance(report: Json) -> dict[str, Any]:
    given = mapping(report, "performance")
    if not given:
        return {}
    loads = [
        {**load, "per_second": load["requests"] / load["seconds"] if load["seconds"] else 0.0}
        for load in given.get("loads") or ()
    ]
    return {
        "through_pooler": bool(given.get("through_pooler")),
        "failures": list(given.get("failures") or ()),
        "not_measured": list(given.get("not_measured") or ()),
        "queries": list(given.get("queries") or ()),
        "loads": loads,
    }


def _certified(report: Json) -> list[dict[str, Any]]:
    """The certificate's tables."""
    tables = mapping(mapping(report, "certificate"), "tables")
    return [
        {
            "name": name,
            "rows": table.get("rows"),
            "quarantined": table.get("quarantined"),
            "compared": table.get("compared") or "",
            "digest": table.get("digest") or "",
        }
        for name, table in tables.items()
    ]


def _tuning(report: Json) -> list[dict[str, Any]]:
    given = report.get("tuning") or ()
    if isinstance(given, Mapping):
        given = [
            {"name": name, **value}
            if isinstance(value, Mapping)
            else {"name": name, "value": value}
            for name, value in given.items()
        ]
    return [
        {
            "name": row.get("name") or "",
            "value": row.get("value"),
            "reason": row.get("reason") or row.get("why") or "",
        }
        for row in given
    ]


def _sequence(report: Json, name: str) -> list[Json]:
    return list(report.get(name) or ())
