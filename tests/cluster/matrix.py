"""``make cluster``: every cell of the matrix on one cluster after the other, then those with a
PgBouncer; prints both tables and writes docs/clusters.md. ``--only WORDS`` tries the cells whose
name has the words, and writes nothing; ``--pooled`` those with a PgBouncer, and writes their table
alone. Exits with 1 where a promise is broken."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.cell import EVENTS, MODES, PHASES, Cell, Outcome, run_cell
from tests.cluster.patroni import (
    BY_HAPROXY,
    POOLED_HAPROXY,
    PatroniCluster,
    find,
    lacking,
)

PAGE = Path(__file__).resolve().parents[2] / "docs" / "clusters.md"
BEGIN, END = "<!-- begin: make cluster{} -->", "<!-- end: make cluster{} -->"
POOLED = ", pooled"

HEAD = (
    "| phase | event | {} | acknowledged | missing | what the job said of it | |\n"
    "|---|---|---|---|---|---|---|\n"
)

POOLED_PHASES = ("inside the fence", "just after the decision", "way back", "rollback")
"""Where PgBouncer is asked for something, or serves."""


def cells(words: str = "") -> Iterator[Cell]:
    """The cells whose name has all of the words."""
    for mode in MODES:
        for event in EVENTS:
            for phase in PHASES:
                cell = Cell(phase, event, mode)
                if all(word in str(cell) for word in words.split()):
                    yield cell


def pooled(words: str = "") -> Iterator[Cell]:
    """The same of those whose application goes through a PgBouncer."""
    for event in EVENTS:
        for phase in POOLED_PHASES:
            cell = Cell(phase, event, MODES[0], POOLED_HAPROXY)
            if all(word in str(cell) for word in words.split()):
                yield cell


def row(outcome: Outcome) -> str:
    """One line of the table."""
    cell = outcome.cell
    third = cell.mode if cell.way == BY_HAPROXY else cell.way
    verdict = "holds" if not outcome.faults else "**broken**: " + "; ".join(outcome.faults)
    return (
        f"| {cell.phase} | {cell.event} | {third} | {outcome.acknowledged:,} | "
        f"{outcome.missing:,} | {outcome.told} | {verdict} |"
    )


def programs(*, pooled: bool = False) -> str:
    """What it was run with."""
    found = []
    wanted = [("patroni", "--version"), ("etcd", "--version"), ("haproxy", "-v")]
    if pooled:
        wanted.append(("pgbouncer", "--version"))
    for name, option in wanted:
        command = [str(find(name)), option]
        said = subprocess.run(command, capture_output=True, text=True, check=False)
        words = said.stdout.splitlines()[0].replace("Version:", "").split()
        found.append(" ".join(w for w in words if w != "version")[:30].split(" -")[0])
    return ", ".join(" ".join(one.split()[:2]) for one in found)


def main() -> int:
    """The whole of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="words that a cell's name must have")
    parser.add_argument("--pooled", action="store_true", help="only those with a PgBouncer")
    options = parser.parse_args()
    if lacking():
        print(f"not run: {', '.join(lacking())} not found on this machine", file=sys.stderr)
        return 2
    broken = 0
    with tempfile.TemporaryDirectory(prefix="clusters-") as folder, PatroniCluster() as cluster:
        if not options.pooled:
            chosen = list(cells(options.only))
            broken += _run(cluster, chosen, Path(folder) / "direct", writes=not options.only)
        chosen = list(pooled(options.only))
        broken += _run(cluster, chosen, Path(folder) / "pooled", writes=not options.only)
    return 1 if broken else 0


def _run(cluster: PatroniCluster, chosen: list[Cell], folder: Path, *, writes: bool) -> int:
    """Try these cells, all of one table, and write it where none is broken; how many are."""
    rows, broken = [], 0
    with_pooler = any(cell.way != BY_HAPROXY for cell in chosen)
    head = HEAD.format("PgBouncer's way to the leader" if with_pooler else "replication")
    print(head, end="", flush=True)
    for number, cell in enumerate(chosen, start=100 if with_pooler else 1):
        outcome = _tried(cluster, cell, folder / str(number), number)
        rows.append(row(outcome))
        broken += bool(outcome.faults)
        print(rows[-1], flush=True)
    print(f"{len(rows)} cells, {broken} broken")
    if writes and not broken:
        told = f"\n\nRun with PostgreSQL {cluster.major}, {programs(pooled=with_pooler)}.\n"
        _write(head + "\n".join(rows) + told, POOLED if with_pooler else "")
    return broken


def _tried(cluster: PatroniCluster, cell: Cell, folder: Path, number: int) -> Outcome:
    try:
        return run_cell(cluster, cell, folder, number)
    except Exception as error:
        return Outcome(cell, faults=[f"{type(error).__name__}: {error}"])


def _write(table: str, which: str) -> None:
    begin, end = BEGIN.format(which), END.format(which)
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(begin)
    after = rest.partition(end)[2]
    PAGE.write_text(f"{before}{begin}\n{table}{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
