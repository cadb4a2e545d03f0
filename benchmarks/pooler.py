"""200 clients through PgBouncer, and the same clients straight at PostgreSQL."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Mode:
    title: str
    options: tuple[str, ...]


MODES = (
    Mode("one indexed read, a new connection each", ("-S", "-C")),
    Mode("one indexed read, connections kept", ("-S",)),
    Mode("simple update (three statements, one commit), connections kept", ("-N",)),
    Mode("TPC-B-like (five statements on hot rows), connections kept", ()),
)


def measure(lab: Lab) -> Section:
    """Transactions per second in each mode, direct and pooled, in turns."""
    with (
        EmbeddedPostgres(settings={"max_connections": str(CLIENTS + 25)}) as server,
        EmbeddedPgBouncer(
            server, settings={"default_pool_size": str(POOL), "server_idle_timeout": "600"}
        ) as bouncer,
    ):
        server.create_database("bench")
        bouncer.alias_path.write_text(bouncer.alias_line("bench", "bench"))
        bouncer.restart()
        pgbench = str(server.program("pgbench"))
        direct = server.dsn_for("bench")
        pooled = bouncer.dsn("bench", user=server.superuser, password=server.password)
        run_timed([pgbench, "-i", "-q", "-s", str(SCALE), direct])
        rows = [_compare(lab, pgbench, mode, direct, pooled) for mode in MODES]
        version = ".".join(map(str, bouncer.version))
    return Section(
        key="pooler",
        title=f"{CLIENTS} clients through PgBouncer",
        rows=tuple(rows),
        text=f"PgBouncer {version} in transaction mode with {POOL} server connections, against "
        f"{CLIENTS} connections of PostgreSQL's own; pgbench on the same cores, SCRAM, simple "
        f"protocol, scale {SCALE}, {SECONDS} s a run, median of {lab.runs}. PgBouncer is one "
        "process on one core: with so few cores, what it costs is taken from PostgreSQL.",
    )


def _compare(lab: Lab, pgbench: str, mode: Mode, direct: str, pooled: str) -> Row:
    straight: list[float] = []
    through: list[float] = []
    for _ in range(lab.runs):
        straight.append(transactions_per_second(pgbench, direct, mode.options))
        through.append(transactions_per_second(pgbench, pooled, mode.options))
    return ratio(
        mode.title,
        f"{CLIENTS} connections straight at PostgreSQL",
        Sample(label="through PgBouncer", values=tuple(through), unit="tx/s"),
        Sample(label="straight", values=tuple(straight), unit="tx/s"),
        GOAL,
    )


def transactions_per_second(
    pgbench: str,
    dsn: str,
    options: Sequence[str],
    *,
    clients: int = CLIENTS,
    seconds: int = SECONDS,
) -> float:
    """One run of pgbench; connection times are left out except where each transaction has one."""
    command = [pgbench, *("-c", str(clients)), *("-j", "2"), *("-T", str(seconds)), "-n"]
    output = run_timed([*command, *options, dsn]).output
    found = re.search(r"^tps = ([0-9.]+)", output, re.MULTILINE)
    if found is None:
        raise ValueError(f"expected a line 'tps = ...' from pgbench, found:\n{output}")
    return float(found[1])
