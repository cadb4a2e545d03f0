"""Writes infra/postgresql_settings.json: every setting of PostgreSQL 14 to 18, its type and limits.

Asks real servers (``pg_settings``), so that the list is theirs. Run it when a major version is
added: ``.venv/bin/python -m tools.postgresql_settings``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import psycopg

from migration_job.binaries import RELEASES
from migration_job.embedded import EmbeddedPostgres

TARGET = Path(__file__).resolve().parent.parent / "infra" / "postgresql_settings.json"

QUERY = """
    SELECT name, vartype, unit, min_val, max_val, enumvals, context
      FROM pg_settings
     WHERE context <> 'internal'
     ORDER BY name
"""
PRELOADED = {"shared_preload_libraries": "pg_stat_statements,auto_explain"}


def describe(major: int) -> dict[str, dict[str, Any]]:
    """Name to type, unit, limits, allowed words and context, as that version's server says."""
    with (
        EmbeddedPostgres(major=major, fast=True, settings=PRELOADED) as server,
        psycopg.connect(server.dsn) as connection,
    ):
        rows = connection.execute(QUERY).fetchall()
    found = {}
    for name, kind, unit, low, high, words, context in rows:
        entry = {"type": kind, "context": context}
        entry |= {"unit": unit} if unit else {}
        entry |= {"min": float(low), "max": float(high)} if low is not None else {}
        entry |= {"values": words} if words else {}
        found[name] = entry
    return found


def merge(described: dict[int, dict[str, dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Name to its entries, each with the first and last version for which it holds."""
    merged: dict[str, list[dict[str, Any]]] = {}
    for major in sorted(described):
        for name, entry in described[major].items():
            spans = merged.setdefault(name, [])
            last = spans[-1] if spans else {}
            if last == {"since": last.get("since"), "until": major - 1, **entry}:
                last["until"] = major
            else:
                spans.append({"since": major, "until": major, **entry})
    return merged


def main() -> None:
    """Write the file, one setting a line."""
    merged = merge({major: describe(major) for major in RELEASES})
    lines = (f"{json.dumps(name)}: {json.dumps(merged[name])}" for name in sorted(merged))
    TARGET.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    sys.stdout.write(f"{TARGET.name}: {len(merged)} settings\n")


if __name__ == "__main__":
    main()
