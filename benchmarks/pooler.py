"""200 clients through PgBouncer, and the same clients straight at PostgreSQL."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.lab import Lab, run_timed
from benchmarks.results import Goal, Row, Sample, Section, ratio
from migration_job.embedded import EmbeddedPgBouncer, EmbeddedPostgres

CLIENTS = 200
SECONDS = 10
SCALE = 10
"""pgbench's: 1 million accounts, about 150 MB."""

POOL = 20
"""The stage files' own default."""

GOAL = Goal(sense="at least", bound=1.5)

OWN_CORE, OTHER_CORES = 0, 1
"""Where there are two cores or more: PostgreSQL's, as a stage's ``postgresCpus: 1`` gives it, and
the first of the others, for PgBouncer and the clients."""


@dataclass(frozen=True, slots=True)
class Mode:
    title: str
    options: tuple[str, ...]
    goal: Goal | None = GOAL


READS = Mode("one indexed read, connections kept", ("-S",))
MODES = (
    READS,
    Mode("simple update (three statements, one commit), connections kept", ("-N",)),
    Mode("TPC-B-like (five statements on hot rows), connections kept", ()),
    # No goal: it is one for connections that are kept, on either side.
    Mode("one indexed read, a new connection each", ("-S", "-C"), None),
)


@dataclass(frozen=True, slots=True)
class Ways:
    """pgbench, and the connection strings of the two ways that it is sent."""

    pgbench: str
    direct: str
    pooled: str


def measure(lab: Lab) -> Section:
    """Transactions per second in each mode, direct and pooled, in turns."""
    against = f"{CLIENTS} connections straight at PostgreSQL"
    with (
        EmbeddedPostgres(settings={"max_connections": str(CLIENTS + 25)}) as server,
        EmbeddedPgBouncer(
            server, settings={"default_pool_size": str(POOL), "server_idle_timeout": "600"}
        ) as bouncer,
    ):
        server.create_database("bench")
        bouncer.alias_path.write_text(bouncer.alias_line("bench", "bench"))
        bouncer.restart()
        pooled = bouncer.dsn("bench", user=server.superuser, password=server.password)
        ways = Ways(str(server.program("pgbench")), server.dsn_for("bench"), pooled)
        run_timed([ways.pgbench, "-i", "-q", "-s", str(SCALE), ways.direct])
        shared = _compare(lab, ways, READS, f"{against}, all on the same cores", None)
        with _core_of_its_own(server.pid, bouncer.pid) as apart:
            rows = [_compare(lab, ways, mode, against, mode.goal) for mode in MODES]
        version = ".".join(map(str, bouncer.version))
    placed = (
        "PostgreSQL has one core, as a stage's `postgresCpus: 1` gives it, and PgBouncer and the "
        "clients have another, as they are elsewhere than on the database's core where it counts"
        if apart
        else "All of it ran on the same cores: processes cannot be bound to one here"
    )
    return Section(
        key="pooler",
        title=f"{CLIENTS} clients through PgBouncer",
        rows=(*rows, shared),
        text=f"PgBouncer {version} in transaction mode with {POOL} server connections, against "
        f"{CLIENTS} connections of PostgreSQL's own; pgbench, SCRAM, simple protocol, scale "
        f"{SCALE}, {SECONDS} s a run, median of {lab.runs}. {placed}. Where everything shares two "
        "cores (the last line), PgBouncer's processor time is taken from PostgreSQL. With a new "
        "connection for each transaction, nearly all the time is the client's own: SCRAM has it "
        "hash the password 4,096 times.",
    )


def _compare(lab: Lab, ways: Ways, mode: Mode, against: str, goal: Goal | None) -> Row:
    straight: list[float] = []
    through: list[float] = []
    for _ in range(lab.runs):
        for found, dsn in ((straight, ways.direct), (through, ways.pooled)):
            found.append(
                transactions_per_second(
                    ways.pgbench, dsn, mode.options, clients=CLIENTS, seconds=SECONDS
                )
            )
    return ratio(
        mode.title,
        against,
        Sample(label="through PgBouncer", values=tuple(through), unit="tx/s"),
        Sample(label="straight", values=tuple(straight), unit="tx/s"),
        goal,
    )


@contextmanager
def _core_of_its_own(server: int, pooler: int) -> Iterator[bool]:
    """PostgreSQL (its first process's id) alone on one core; the pooler, this process and its
    later children on another. False where that cannot be had."""
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) < 2:
        yield False
        return
    before = os.sched_getaffinity(0)
    cores = sorted(before)
    children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    for process in (server, *map(int, children)):
        os.sched_setaffinity(process, {cores[OWN_CORE]})
    for process in (0, pooler):
        os.sched_setaffinity(process, {cores[OTHER_CORES]})
    try:
        yield True
    finally:
        os.sched_setaffinity(0, before)


def transactions_per_second(
    pgbench: str, dsn: str, options: Sequence[str], *, clients: int, seconds: int
) -> float:
    """One run of pgbench; connection times are left out except where each transaction has one."""
    command = [pgbench, *("-c", str(clients)), *("-j", "2"), *("-T", str(seconds)), "-n"]
    output = run_timed([*command, *options, dsn]).output
    found = re.search(r"^tps = ([0-9.]+)", output, re.MULTILINE)
    if found is None:
        raise ValueError(f"expected a line 'tps = ...' from pgbench, found:\n{output}")
    return float(found[1])
