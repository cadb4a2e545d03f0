"""postgresql.conf computed from what the container is given, every value with its reason.

The rules are PGTune's, applied to the container's limits and not to the host's; where the
strategy states a value, the 1 GB default gives that value. Pure: no Docker, no files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

KB = 1024
MB = 1024 * KB
GB = 1024 * MB

Storage = Literal["ssd", "hdd", "network"]
Tuning = Literal["computed", "strategy"]

STRATEGY_CONNECTIONS = 100
STRATEGY_WORK_MEM = 4 * MB
DEFAULT_MEMORY = 1 * GB
SPARE_CONNECTIONS = 25
"""Beside the pool: the job and the sync (up to 12), monitoring, backups, a superuser's reserve."""

STRATEGY: Mapping[str, str] = {
    "shared_buffers": "256MB",
    "work_mem": "4MB",
    "maintenance_work_mem": "64MB",
    "effective_cache_size": "1GB",
    "random_page_cost": "1.1",
    "checkpoint_completion_target": "0.7",
}
"""What the migration strategy states for a container of 1 GB. Its 100 connections are the least
that is computed, since a larger pool needs more."""

RANDOM_PAGE_COST: Mapping[Storage, str] = {"ssd": "1.1", "network": "1.5", "hdd": "4.0"}
IO_CONCURRENCY: Mapping[Storage, str] = {"ssd": "200", "network": "300", "hdd": "2"}


@dataclass(frozen=True)
class Host:
    """What PostgreSQL may use: bytes of memory and disk, cores, and the pool before it."""

    memory: int
    cpus: float
    storage: Storage
    disk: int
    pool_max: int
    max_connections: int = 0
    version: int = 14
    logical: bool = True
    """Whether the log is written for logical replication too. A change of it restarts the server.
    """
    tuning: Tuning = "computed"
    """``strategy``: the strategy's values, whatever the memory is."""


@dataclass(frozen=True)
class Value:
    """One line of postgresql.conf. ``replaced`` is the computed value that an override replaced."""

    name: str
    value: str
    reason: str
    section: str
    replaced: str | None = None


def compute(host: Host, overrides: Mapping[str, str] | None = None) -> list[Value]:
    """Every setting that the program decides, in the file's order, overrides applied last.

    An override of a setting that is not computed is added at the end.
    """
    values = [
        *_connections(host),
        *_memory(host),
        *_planner(host),
        *_write_ahead_log(host),
        *_workers(host),
        *_logging(),
        *_safety(),
    ]
    if host.tuning == "strategy":
        why = "the strategy's value (postgresTuning)"
        values = [
            replace(v, value=STRATEGY[v.name], reason=why) if v.name in STRATEGY else v
            for v in values
        ]
    wanted = dict(overrides or {})
    merged = [
        Value(v.name, wanted.pop(v.name), "set in the stage file", v.section, replaced=v.value)
        if v.name in wanted
        else v
        for v in values
    ]
    added = [
        Value(name, value, "set in the stage file", "Overrides") for name, value in wanted.items()
    ]
    return merged + added


def connections(host: Host) -> int:
    """max_connections: as asked for, else what the pool and everything beside it need."""
    return host.max_connections or max(STRATEGY_CONNECTIONS, host.pool_max + SPARE_CONNECTIONS)


def shared_buffers(host: Host) -> int:
    """Bytes of shared_buffers: a quarter of the memory."""
    return host.memory // 4


def shared_memory(host: Host) -> int:
    """Bytes of /dev/shm for the container: parallel queries share their memory there."""
    return max(64 * MB, host.memory // 4)


def size(count: int) -> str:
    """A size in the largest unit that states it exactly."""
    for unit, scale in (("GB", GB), ("MB", MB)):
        if count >= scale and count % scale == 0:
            return f"{count // scale}{unit}"
    return f"{count // KB}kB"


def _connections(host: Host) -> list[Value]:
    count = connections(host)
    if host.max_connections:
        why = "maxConnections in the stage file"
    elif count == STRATEGY_CONNECTIONS:
        why = f"the strategy's value; the pool of {host.pool_max} leaves room for everything else"
    else:
        why = f"the pool of {host.pool_max} and {SPARE_CONNECTIONS} for the job and operators"
    return [
        Value("max_connections", str(count), why, "Connections"),
        Value(
            "max_prepared_transactions",
            "0",
            "no two-phase commit is used; one left behind would hold back vacuum",
            "Connections",
        ),
    ]


def _memory(host: Host) -> list[Value]:
    buffers = shared_buffers(host)
    cache = max(host.memory * 3 // 4, min(host.memory, DEFAULT_MEMORY))
    maintenance = min(host.memory // 16, 8 * GB)
    users = 3 * (connections(host) + _worker_processes(host))
    work = max((host.memory - buffers) // users // MB * MB, STRATEGY_WORK_MEM)
    wal = min(buffers * 3 // 100, 16 * MB)
    wal = 16 * MB if wal > 14 * MB else max(wal // KB * KB, 32 * KB)
    return [
        Value("shared_buffers", size(buffers), "a quarter of the container's memory", "Memory"),
        Value(
            "effective_cache_size",
            size(cache),
            "what PostgreSQL and the page cache hold together: three quarters of the memory, and "
            "up to 1 GB all of it; a hint to the planner, nothing is allocated",
            "Memory",
        ),
        Value(
            "work_mem",
            size(work),
            f"memory beyond shared_buffers / (3 x {users // 3} connections and workers), at least "
            f"{size(STRATEGY_WORK_MEM)}; each sort and hash of a query may take it",
            "Memory",
        ),
        Value(
            "maintenance_work_mem",
            size(maintenance),
            "a sixteenth of the memory, at most 8GB; index builds and vacuum",
            "Memory",
        ),
        Value("wal_buffers", size(wal), "3% of shared_buffers, at most one WAL segment", "Memory"),
        Value(
            "huge_pages",
            "try" if host.memory >= 32 * GB else "off",
            "worth it from 32 GB, where the host grants them",
            "Memory",
        ),
    ]


def _planner(host: Host) -> list[Value]:
    return [
        Value(
            "random_page_cost",
            RANDOM_PAGE_COST[host.storage],
            f"a random read against a sequential one, on {host.storage}",
            "Planner",
        ),
        Value(
            "effective_io_concurrency",
            IO_CONCURRENCY[host.storage],
            f"reads that {host.storage} serves at once",
            "Planner",
        ),
        Value("default_statistics_target", "100", "enough for mixed queries", "Planner"),
        Value("jit", "off", "compiling costs short queries more than it saves", "Planner"),
    ]


def _write_ahead_log(host: Host) -> list[Value]:
    largest = min(4 * GB, max(host.disk // 10 // MB * MB, 256 * MB))
    smallest = max(largest // 4 // MB * MB, 80 * MB)
    target, why = "0.9", "spreads a checkpoint's writes over most of the interval"
    if host.memory <= DEFAULT_MEMORY:
        target, why = "0.7", "the strategy's value for containers of up to 1 GB"
    return [
        Value("checkpoint_completion_target", target, why, "Write-ahead log"),
        Value("checkpoint_timeout", "15min", "max_wal_size bounds recovery", "Write-ahead log"),
        Value("max_wal_size", size(largest), "a tenth of the disk, at most 4GB", "Write-ahead log"),
        Value("min_wal_size", size(smallest), "a quarter of max_wal_size", "Write-ahead log"),
        _log_level(host),
    ]


def _log_level(host: Host) -> Value:
    if host.logical:
        why = "base backups and archiving need replica; logical, for an upgrade without a restart"
        return Value("wal_level", "logical", why, "Write-ahead log")
    # As it always was, to the letter: another file would restart a server that runs.
    return Value("wal_level", "replica", "base backups and archiving need it", "Write-ahead log")


def _worker_processes(host: Host) -> int:
    return max(8, int(host.cpus))


def _workers(host: Host) -> list[Value]:
    cores = max(1, int(host.cpus))
    gather = 0 if cores == 1 else min(4, (cores + 1) // 2)
    section = "Workers"
    return [
        Value(
            "max_worker_processes", str(_worker_processes(host)), "the cores, at least 8", section
        ),
        Value("max_parallel_workers", str(cores), "the cores", section),
        Value(
            "max_parallel_workers_per_gather",
            str(gather),
            "half the cores, at most 4; none on a single core",
            section,
        ),
        Value(
            "max_parallel_maintenance_workers", str(gather), "as for queries; index builds", section
        ),
    ]


def _logging() -> list[Value]:
    section = "Logging"
    return [
        Value("log_destination", "stderr", "the engine keeps and rotates the log", section),
        Value("logging_collector", "off", "the engine keeps and rotates the log", section),
        Value(
            "log_line_prefix",
            "%m [%p] %q%u@%d/%a ",
            "time, process, role, database, application",
            section,
        ),
        Value("log_min_duration_statement", "1s", "slow queries", section),
        Value("log_parameter_max_length", "0", "values may be patients' data", section),
        Value("log_parameter_max_length_on_error", "0", "values may be patients' data", section),
        Value("log_error_verbosity", "terse", "an error's DETAIL may hold values", section),
        Value("log_statement", "none", "statements may hold values", section),
        Value("log_checkpoints", "on", "shows when the write-ahead log is too small", section),
        Value("log_lock_waits", "on", "shows who waits for whom", section),
        Value("log_temp_files", "32MB", "shows when work_mem is too small", section),
        Value("log_autovacuum_min_duration", "10s", "shows tables that need tuning", section),
        Value("log_timezone", "UTC", "logs of all containers agree", section),
    ]


def _safety() -> list[Value]:
    section = "Safety"
    return [
        Value("password_encryption", "scram-sha-256", "passwords are never stored as MD5", section),
        Value("timezone", "UTC", "a naive time means the same in every session", section),
        Value(
            "shared_preload_libraries",
            "pg_stat_statements",
            "which queries take the time",
            section,
        ),
        Value("track_io_timing", "on", "separates waiting for the disk from computing", section),
    ]
