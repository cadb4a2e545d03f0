"""docs/applications.md: a line for each application, written when its test has passed."""

from __future__ import annotations

import datetime
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import psycopg

from tests.applications.environment import HERE

VARIABLE = "APPLICATIONS_PAGE"
"""Names the page, where it is to be written; `make applications` sets it."""

HEAD = "| application | versions | moved | used on PostgreSQL | next migration | back | last run |"


@dataclass(frozen=True, slots=True)
class Shown:
    """What a test has seen, in the page's words."""

    application: str
    versions: str
    moved: str = "live while it writes"
    used: str = "every result is SQLite's"
    upgraded: str = "runs"


def tell(shown: Shown, dsn: str) -> None:
    """Write the application's line, in place of the one that it had; where nobody asks for the
    page, nothing."""
    page = os.environ.get(VARIABLE)
    if not page:
        return
    with psycopg.connect(dsn) as target:
        version = target.info.server_version // 10000
    when = f"{datetime.datetime.now(datetime.UTC).date()}, PostgreSQL {version}"
    cells = [shown.application, shown.versions, shown.moved, shown.used, shown.upgraded]
    line = f"| {' | '.join([*cells, 'yes', when])} |"
    path = Path(page)
    path.write_text(with_line(path.read_text(encoding="utf-8"), line), encoding="utf-8")


def with_line(page: str, line: str) -> str:
    """The page with the line in its table, in place of the same application's."""
    before, head, rest = page.partition(HEAD)
    rule, *rows = rest.lstrip("\n").split("\n\n", 1)[0].splitlines()
    after = rest.lstrip("\n").partition("\n\n")[2]
    name = line.split("|")[1].split("(")[0].strip()
    kept = [row for row in rows if row.split("|")[1].split("(")[0].strip() != name]
    return f"{before}{head}\n" + "\n".join([rule, *sorted([*kept, line])]) + f"\n\n{after}"


def of_python(requirements: str, *names: str) -> str:
    """The versions of packages, as their file beside this one pins them."""
    lines = (HERE / requirements).read_text().splitlines()
    found = dict(line.split("==") for line in lines if "==" in line)
    return ", ".join(f"{name} {found[name]}" for name in names)


def of_node(*names: str) -> str:
    """The same of Node's."""
    found = json.loads((HERE / "node" / "package.json").read_text())["dependencies"]
    return ", ".join(f"{name} {found[name]}" for name in names)


def of_go(folder: str, *names: str) -> str:
    """The same of Go's."""
    text = (HERE / folder / "go.mod").read_text()
    found = dict(re.findall(r"^\s*(\S+) v(\S+)$", text, re.MULTILINE))
    return ", ".join(f"{name} {found[name]}" for name in names)
