"""What an operator watches, as data: the same panels make Grafana's dashboards and the light page.

Every query is tried against the Prometheus of a running stage by the deployment tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Unit = Literal["short", "s", "bytes", "percentunit", "ops", "bool"]


@dataclass(frozen=True)
class Query:
    """One PromQL expression and its legend (``{{label}}`` is replaced by the label's value)."""

    expression: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    title: str
    unit: Unit
    queries: tuple[Query, ...]
    help: str


@dataclass(frozen=True)
class Board:
    name: str
    title: str
    panels: tuple[Panel, ...]


DATABASE = Board(
    "database",
    "Database and pool",
    (
        Panel(
            "Answers",
            "bool",
            (Query("pg_up", "PostgreSQL"), Query("pgbouncer_up", "PgBouncer")),
            "Whether the server answers its exporter.",
        ),
        Panel(
            "Transactions",
            "ops",
            (
                Query("sum(rate(pg_stat_database_xact_commit[1m]))", "committed"),
                Query("sum(rate(pg_stat_database_xact_rollback[1m]))", "rolled back"),
            ),
            "Each second, in all databases.",
        ),
        Panel(
            "Connections",
            "short",
            (
                Query("sum(pg_stat_database_numbackends)", "in use"),
                Query("max(pg_settings_max_connections)", "limit"),
            ),
            "PostgreSQL's own connections; the pool keeps them few.",
        ),
        Panel(
            "Pool",
            "short",
            (
                Query("sum(pgbouncer_pools_client_active_connections)", "clients served"),
                Query("sum(pgbouncer_pools_client_waiting_connections)", "clients waiting"),
                Query("sum(pgbouncer_pools_server_active_connections)", "server connections busy"),
                Query("sum(pgbouncer_pools_server_idle_connections)", "server connections idle"),
            ),
            "Clients that wait for long mean that the pool is too small or transactions too long.",
        ),
        Panel(
            "Longest wait for a connection",
            "s",
            (Query("max(pgbouncer_pools_client_maxwait_seconds)", "wait"),),
            "How long the first client in the queue has waited.",
        ),
        Panel(
            "Blocks found in memory",
            "percentunit",
            (
                Query(
                    "sum(pg_stat_database_blks_hit) / (sum(pg_stat_database_blks_hit) "
                    "+ sum(pg_stat_database_blks_read))",
                    "hit ratio",
                ),
            ),
            "Since the statistics were reset; below 0.95 more memory may help.",
        ),
        Panel(
            "Size",
            "bytes",
            (Query("sum by (datname) (pg_database_size_bytes)", "{{datname}}"),),
            "Each database on disk.",
        ),
        Panel(
            "Deadlocks and temporary files",
            "ops",
            (
                Query("sum(rate(pg_stat_database_deadlocks[5m]))", "deadlocks"),
                Query("sum(rate(pg_stat_database_temp_files[5m]))", "temporary files"),
            ),
            "Each second; temporary files mean that work_mem is too small for a query.",
        ),
    ),
)

MEMBERS = Board(
    "members",
    "Members",
    (
        Panel(
            "Leads",
            "bool",
            (Query("patroni_primary == 1", "{{name}}"),),
            "The member of PostgreSQL that takes writes.",
        ),
        Panel(
            "Run",
            "bool",
            (Query("patroni_postgres_running", "{{name}}"),),
            "Whether PostgreSQL runs in the member.",
        ),
        Panel(
            "Follow synchronously",
            "short",
            (Query("sum(patroni_sync_standby)", "members"),),
            "A commit is acknowledged when one of them has it, and only such a one takes over.",
        ),
        Panel(
            "Behind the leader",
            "bytes",
            (
                Query(
                    "clamp_min(scalar(max(patroni_xlog_location)) - "
                    "(patroni_xlog_replayed_location and on (instance) patroni_replica == 1), 0)",
                    "{{name}}",
                ),
            ),
            "Of the leader's log, what a member has not applied yet.",
        ),
        Panel(
            "Timeline",
            "short",
            (Query("max(patroni_postgres_timeline)", "timeline"),),
            "One more after each change of the leader.",
        ),
        Panel(
            "etcd",
            "short",
            (Query('sum(up{job="etcd"})', "members that answer"),),
            "Two of three have to answer, or nobody can take over.",
        ),
    ),
)

BACKUP = Board(
    "backup",
    "Backups",
    (
        Panel(
            "Age of the newest backup",
            "s",
            (Query("time() - max(backup_last_success_timestamp_seconds)", "age"),),
            "Point-in-time recovery reaches further: to the last archived segment.",
        ),
        Panel(
            "Last attempt",
            "bool",
            (Query("min(backup_last_success)", "succeeded"),),
            "Whether the last attempt succeeded.",
        ),
        Panel(
            "Backups kept",
            "short",
            (Query("max(backup_count)", "backups"),),
            "Full and differential ones in the repository.",
        ),
        Panel(
            "Write-ahead log archived",
            "ops",
            (
                Query("sum(rate(pg_stat_archiver_archived_count[5m]))", "segments"),
                Query("sum(rate(pg_stat_archiver_failed_count[5m]))", "failures"),
            ),
            "Segments each second.",
        ),
    ),
)

MIGRATION = Board(
    "migration",
    "Migration",
    (
        Panel(
            "Phase",
            "bool",
            (Query("migration_phase == 1", "{{phase}}"),),
            "The migration's phase.",
        ),
        Panel(
            "Lag",
            "s",
            (Query("migration_lag_seconds", "{{direction}}"),),
            "The age of the oldest change that has not reached the other side.",
        ),
        Panel(
            "Changes waiting",
            "short",
            (Query("migration_lag_changes", "{{direction}}"),),
            "Logged changes that have not reached the other side.",
        ),
        Panel(
            "Rows",
            "short",
            (
                Query("migration_rows_copied", "copied"),
                Query("migration_rows_total", "in the source"),
            ),
            "What the copy carried across.",
        ),
        Panel(
            "Length of the fence",
            "s",
            (Query("migration_fence_seconds", "writers waited"),),
            "How long writers were held at the last switch; 0 before it.",
        ),
        Panel(
            "Differences",
            "short",
            (Query("migration_differences", "found"),),
            "What the last verification could not explain; anything but 0 refuses the switch.",
        ),
        Panel(
            "Age of the certificate",
            "s",
            (Query("migration_certificate_age_seconds", "age"),),
            "Since the last verification that passed.",
        ),
        Panel(
            "Time left to go back",
            "s",
            (Query("migration_window_left_seconds", "left"),),
            "Until the window for a rollback ends; 0 before the switch.",
        ),
        Panel(
            "The sync's heartbeat",
            "s",
            (Query("clamp_min(time() - migration_heartbeat_timestamp_seconds, 0)", "age"),),
            "Since its last heartbeat.",
        ),
    ),
)


def boards(*, backup: bool, members: bool) -> tuple[Board, ...]:
    """Those of a stage, with backups or not, of one server of PostgreSQL's or several."""
    more = ((MEMBERS,) if members else ()) + ((BACKUP,) if backup else ())
    return (MIGRATION, DATABASE, *more)
