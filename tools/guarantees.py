"""The table of docs/guarantees.md: the known failure, what happens here, the test.

Each line's tests are found by their names (``test_pitfall_07_...``), so a test that is renamed or
removed shows at once.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

GUARANTEES: Mapping[str, Mapping[int, tuple[str, str]]] = {
    "Values": {
        1: ("Text or a fraction in an INTEGER column", "every value's storage class is checked"),
        2: ("`''` in an INTEGER column", "kept, or mapped by an explicit rule with a ledger row"),
        3: ("Integers beyond int4", "the size comes from the values"),
        4: ("Silent clamping", "never; what does not fit is a finding"),
        5: ("Everything BIGINT", "a wished type is honoured where the values allow it"),
        6: ("The largest int64, absurd dates", "come back as they went"),
        7: ("REAL printed with too few digits", "double precision, 17 digits, infinities"),
        8: ("Decimals rounded to a scale", "refused or widened, never rounded"),
        9: ("Booleans as 0 and 1", "data and default; 2 is not a boolean"),
        10: ("The text `true` in an INTEGER column", "mapped by rule, or quarantined"),
        11: ("Epoch seconds in DATETIME", "found per column, stated in the plan"),
        12: (
            "Several shapes of date in a column",
            "read value by value, the rare ones in the ledger",
        ),
        13: ("Times shifted by the session's zone", "the zone is declared; UTC by default"),
        14: ("Julian days, `''`, `2024-02-30`, `now`", "no date is invented from them"),
        15: ("NUL in text, cut off at the NUL", "found before the load; never cut"),
        16: ("`\\u0000`, lone surrogates in JSON", "found before the load"),
        17: ("Invalid UTF-8", "found with its key; quarantined where the policy says so"),
        18: ("A blob taken for text", "each value by its own storage class"),
        19: ("A UUID turned into a number", "found; stops"),
        20: ("Longer than `varchar(n)`", "the longest is reported; widened or quarantined by rule"),
        21: ("`''` mistaken for NULL", "kept apart"),
        22: ("Tabs, newlines, `\\N`, `\\.` in text", "arrive as they are"),
        23: ("JSON normalised by jsonb", "`json` keeps the text; jsonb writes to the ledger"),
    },
    "Schema": {
        24: ("Orphaned references", "found, with evidence; the policy decides"),
        25: ("Load order, cycles, self references", "constraints come after the data"),
        26: ("Sequences not advanced", "set beyond the largest key, and verified"),
        27: ("INTEGER PRIMARY KEY without a generator", "an identity column"),
        28: ("The high-water mark lost, ids used twice", "the larger of it and the largest key"),
        29: ("NULL in a primary key", "found, with its rows"),
        30: ("Generated columns dropped", "made again, and compared"),
        31: ("Unknown or absent types", "a plan from the values"),
        32: (
            "Defaults that are expressions",
            "translated or reported, never taken as text",
        ),
        33: ("Case, reserved words, long names", "kept; collisions are reported"),
        34: ("COLLATE NOCASE lost", "Bob and BOB stay one"),
        35: ("CHECKs, views, triggers, indexes dropped", "carried over, or listed as not carried"),
        36: ("Shadow tables copied as data", "recognised, and listed"),
        37: ("Columns in another order", "columns go by name"),
        38: ("No key, WITHOUT ROWID, odd rowids", "each kind carried and compared"),
    },
    "Process": {
        39: ("The write-ahead log left behind", "SQLite's backup API, one consistent snapshot"),
        40: ("`INSERT OR REPLACE` fires no delete trigger", "the replaced row's key is captured"),
        41: ("Rows lost, exit status 0", "any difference is a failure"),
        42: ("A second run differs from the first", "it continues, or starts clean"),
        43: ("Change capture leaves sequences behind", "they follow"),
        44: ("A damaged source", "integrity_check first"),
        45: ("The schema changes meanwhile", "noticed, and the run stops"),
        46: ("The application's queries answer otherwise", "replayed on both sides"),
    },
    "PgBouncer": {
        47: (
            "New connections stall at RELOAD",
            "`server_login_retry = 0.2`, tried with new ones",
        ),
        48: ("RESUME leaves a PAUSE hanging", "time limit on each, RESUME on every exit"),
        49: ("PAUSE waits without end", "checks first, waits a bounded time"),
        50: ("Queued clients dropped", "the hold is shorter than `query_wait_timeout`"),
        51: ("Cached plans after a change of type", "RECONNECT"),
    },
}

_TEST = re.compile(r"^(?:async )?def (test_pitfall_(\d\d)_\w+)", re.MULTILINE)


def tests(root: Path) -> dict[int, list[tuple[str, str]]]:
    """Number of the guarantee -> the names of its tests and their files, relative to ``root``."""
    found: dict[int, list[tuple[str, str]]] = defaultdict(list)
    for path in sorted((root / "tests").rglob("test_*.py")):
        for match in _TEST.finditer(path.read_text(encoding="utf-8")):
            found[int(match[2])].append((match[1], path.relative_to(root).as_posix()))
    return found


def table(root: Path) -> Iterator[str]:
    """The table's lines, Markdown."""
    found = tests(root)
    yield "| | known failure | what happens here | tested by |"
    yield "|---|---|---|---|"
    for group, lines in GUARANTEES.items():
        yield f"| | **{group}** | | |"
        for number, (failure, here) in lines.items():
            links = ", ".join(f"[{_short(name)}](../{path})" for name, path in found[number])
            yield f"| {number} | {failure} | {here} | {links} |"


def _short(name: str) -> str:
    return name.removeprefix("test_pitfall_")[3:].replace("_", " ")
