"""Each figure of README and tutorial, against what it is a figure of; and none that is not here."""

from __future__ import annotations

import html
import inspect
import json
import re
import tomllib
from pathlib import Path

import pytest

from example_app.load import Load
from infra.settings import Settings
from migration_job.binaries import DEFAULT_MAJOR, RELEASES
from migration_job.commands.switch import HowToSwitch
from migration_job.demo import live, radcase
from migration_job.errors import ExitStatus

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FLOOR = PROJECT["requires-python"].removeprefix(">=")
SCHEMA = Path(radcase.__file__).with_name("radcase.sql").read_text(encoding="utf-8")
TABLES = len(re.findall(r"^CREATE TABLE", SCHEMA, re.MULTILINE | re.IGNORECASE))
USERS = inspect.signature(Load).parameters["users"].default
FENCE = inspect.signature(HowToSwitch).parameters["fence_seconds"].default
BENCHMARKS = json.loads((ROOT / "docs" / "benchmarks.json").read_text(encoding="utf-8"))


def last_line_of_the_picture() -> str:
    """Of docs/images/demo.svg, which `make pictures` makes from a run."""
    text = (ROOT / "docs" / "images" / "demo.svg").read_text(encoding="utf-8")
    lines = [html.unescape(t) for t in re.findall(r"<text [^>]*>([^<]*)</text>", text)]
    found = [line for line in lines if "failed;\xa0longest" in line or "failed; longest" in line][
        -1
    ]
    return found.replace("\xa0", " ").strip()


def whole_run() -> str:
    """Of pgloader 3.6's time, as measured; another pgloader's row has its version."""
    whole = ("whole migrate", "pgloader's whole run")
    rows = BENCHMARKS["sections"]["migrate"]["rows"]
    (value,) = (row["value"] for row in rows if (row["what"], row["against"]) == whole)
    return f"{value:.2f}"


def settle_hours() -> str:
    return f"{Settings.model_fields['settle_after_hours'].default:g}"


ROWS = int(BENCHMARKS["settings"]["rows"].replace(",", ""))

README = [
    f"PostgreSQL {min(RELEASES)}–{max(RELEASES)}",
    f"Python {FLOOR}",
    f"{TABLES} tables, {radcase.DEFAULT_ROWS:,} rows",
    f"PostgreSQL {DEFAULT_MAJOR}",
    last_line_of_the_picture(),
    f"hold writers for up to {live.FENCE_SECONDS} s; by default it gives up after {FENCE:g} s",
    "set poolMax 40",
    f"{settle_hours()} hours by default",
    f"two cores with {ROWS / 1e6:g} million rows",
    "pgloader 3.6",
    f"{whole_run()} of pgloader's time | 1 |",
    # tests/integration/test_comparison.py runs both.
    "exit status when rows are lost | not 0 | 0 | 0 |",
    PROJECT["license"].replace("-", " "),
]
TUTORIAL = [
    f"Python {FLOOR}",
    f"PostgreSQL {DEFAULT_MAJOR}",
    f"{TABLES} tables, {radcase.DEFAULT_ROWS:,} rows",
    f"{USERS[0]} writers and {USERS[1]} readers",
    f"{TABLES + 1} tables",
    f"the {TABLES + 1}nd, `app_requests`",
    f"exit status {ExitStatus.BLOCKED:d}; `make`, which has one status for every failure, ends "
    "with 2",
    f"exit status {ExitStatus.USAGE:d} or {ExitStatus.BLOCKED:d}",
    f"exit status {ExitStatus.VERIFICATION_FAILED:d}",
    "| step 3 |",
]


@pytest.mark.parametrize(
    ("page", "phrases"), [("README.md", README), ("docs/tutorial.md", TUTORIAL)]
)
def test_every_figure_is_what_the_code_and_the_runs_say(page: str, phrases: list[str]) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert [phrase for phrase in phrases if phrase not in text] == []
    rest = re.sub(r"\]\([^)]*\)|^#.*$|^\d+\. |^```sh$", "", text, flags=re.MULTILINE)
    for phrase in sorted(phrases, key=len, reverse=True):
        rest = rest.replace(phrase, "")
    unknown = [line for line in rest.splitlines() if re.search(r"(?<![\w.])\d", line)]
    assert unknown == []


def test_the_machine_of_the_benchmarks_is_the_one_that_is_told() -> None:
    assert "2 cores" in BENCHMARKS["machine"]["processor"]
