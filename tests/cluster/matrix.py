"""``make cluster``: every cell of the matrix on one cluster after the other; prints the table and
writes docs/clusters.md. ``--only WORDS`` tries the cells whose name has the words, and writes
nothing. Exits with 1 where a promise is broken."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.cell import EVENTS, MODES, PHASES, Cell, Outcome, run_cell
from tests.cluster.patroni import PatroniCluster, find, lacking

PAGE = Path(__file__).resolve().parents[2] / "docs" / "clusters.md"
BEGIN, END = "<!-- begin: make cluster -->", "<!-- end: make cluster -->"

HEAD = (
    "| phase | event | replication | acknowledged | missing | what the job said of it | |\n"
    "|---|---|---|---|---|---|---|\n"
)


def cells(words: str = "") -> Iterator[Cell]:
    """The cells whose name has all of the words."""
    for mode in MODES:
        for event in EVENTS:
            for phase in PHASES:
                cell = Cell(phase, event, mode)
                if all(word in str(cell) for word in words.split()):
                    yield cell


def row(outcome: Outcome) -> str:
    """One line of the table."""
    cell = outcome.cell
    verdict = "holds" if not outcome.faults else "**broken**: " + "; ".join(outcome.faults)
    return (
        f"| {cell.phase} | {cell.event} | {cell.mode} | {outcome.acknowledged:,} | "
        f"{outcome.missing:,} | {outcome.told} | {verdict} |"
    )


def programs() -> str:
    """What it was run with."""
    found = []
    for name, option in (("patroni", "--version"), ("etcd", "--version"), ("haproxy", "-v")):
        command = [str(find(name)), option]
        said = subprocess.run(command, capture_output=True, text=True, check=False)
        words = said.stdout.splitlines()[0].replace("Version:", "").split()
        found.append(" ".join(w for w in words if w != "version")[:30].split(" -")[0])
    return ", ".join(" ".join(one.split()[:2]) for one in found)


def main() -> int:
    """The whole of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="words that a cell's name must have")
    only = parser.parse_args().only
    if lacking():
        print(f"not run: {', '.join(lacking())} not found on this machine", file=sys.stderr)
        return 2
    rows, broken = [], 0
    print(HEAD, end="", flush=True)
    with tempfile.TemporaryDirectory(prefix="clusters-") as folder, PatroniCluster() as cluster:
        major = cluster.major
        for number, cell in enumerate(cells(only), start=1):
            outcome = _tried(cluster, cell, Path(folder) / str(number), number)
            rows.append(row(outcome))
            broken += bool(outcome.faults)
            print(rows[-1], flush=True)
    if not only and not broken:
        _write(HEAD + "\n".join(rows) + f"\n\nRun with PostgreSQL {major}, {programs()}.\n")
    print(f"{len(rows)} cells, {broken} broken")
    return 1 if broken else 0


def _tried(cluster: PatroniCluster, cell: Cell, folder: Path, number: int) -> Outcome:
    try:
        return run_cell(cluster, cell, folder, number)
    except Exception as error:
        return Outcome(cell, faults=[f"{type(error).__name__}: {error}"])


def _write(table: str) -> None:
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{table}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
