"""What Prometheus is told of a migration: read from the files that the job and the sync write.

``report.json`` (the copy), ``verify.json`` (the last `verify`), ``switch.json`` (the last switch)
and ``sync.json`` (once a second) say all of it, so a scrape touches neither database and costs a
few file reads.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from migration_job.errors import InputError
from migration_job.phases import Phase

WINDOW_SECONDS = 48 * 3600
"""How long the way back is kept, as the strategy has it."""


class MigrationCollector(Collector):
    """Gauges of one migration. ``report`` and ``state`` are the directories of its commands."""

    def __init__(self, report: Path, state: Path, *, window: float = WINDOW_SECONDS) -> None:
        self._report = report
        self._state = state
        self._window = window

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Everything known now; what is not known yet is left out."""
        report = _read(self._report / "report.json")
        proofs = (report, _read(self._report / "verify.json"))
        switch = _read(self._report / "switch.json")
        sync = _read(self._state / "sync.json")
        now = time.time()
        yield from _held(sync, _read(self._state / "lease.json"), now)
        phase = str(sync.get("phase") or _last(proofs, "phase").get("phase") or "")
        yield _phases(phase)
        yield from _copy(report)
        yield from _proven(proofs, now)
        yield from _following(sync)
        yield _gauge(
            "migration_fence_seconds",
            "how long writers were held at the last switch; 0 before it",
            float(switch.get("held_ms") or 0) / 1000,
        )
        switched_at = _seconds(sync.get("switched_at")) if phase == Phase.SWITCHED else None
        left = 0.0 if switched_at is None else switched_at + self._window - now
        yield _gauge(
            "migration_window_left_seconds",
            "until the window for a rollback ends; 0 before the switch",
            left,
        )


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value)


def _seconds(text: object) -> float | None:
    try:
        return datetime.fromisoformat(str(text)).timestamp() if text else None
    except ValueError:
        return None


def _phases(phase: str) -> GaugeMetricFamily:
    family = GaugeMetricFamily("migration_phase", "1 for the present phase", labels=["phase"])
    for one in Phase:
        family.add_metric([one.value], float(one.value == phase))
    return family


def _held(sync: dict[str, Any], lease: dict[str, Any], now: float) -> Iterator[GaugeMetricFamily]:
    until = _seconds(lease.get("until"))
    yield _gauge(
        "migration_traffic_held",
        "1 while the application's traffic is held, or its alias closed by something else",
        float(until is not None or bool(sync.get("held"))),
    )
    yield _gauge(
        "migration_hold_left_seconds",
        "until the present hold ends; 0 without one, negative while it has not been ended",
        0.0 if until is None else until - now,
    )


def _last(reports: Iterable[dict[str, Any]], *names: str) -> dict[str, Any]:
    """The one of them that ended last, of those that say one of these; empty where none does."""
    saying = (one for one in reports if any(one.get(name) for name in names))
    return max(saying, key=lambda one: str(one.get("ended_at") or ""), default={})


def _copy(report: dict[str, Any]) -> Iterator[GaugeMetricFamily]:
    tables = (report.get("tables") or {}).values()
    copied = sum(int(table.get("target_rows") or 0) for table in tables)
    total = sum(int(table.get("source_rows") or 0) for table in tables)
    yield _gauge("migration_rows_copied", "rows that the copy carried across", copied)
    yield _gauge("migration_rows_total", "rows that the copy found in the source", total)


def _proven(reports: Iterable[dict[str, Any]], now: float) -> Iterator[GaugeMetricFamily]:
    compared = _last(reports, "difference_count", "certificate")
    yield _gauge(
        "migration_differences",
        "differences that the last verification could not explain",
        int(compared.get("difference_count") or 0),
    )
    issued = _seconds((_last(reports, "certificate").get("certificate") or {}).get("issued_at"))
    if issued is not None:
        yield _gauge(
            "migration_certificate_age_seconds",
            "since the last verification of everything that passed",
            now - issued,
        )


def _following(sync: dict[str, Any]) -> Iterator[GaugeMetricFamily]:
    heartbeat = _seconds(sync.get("at"))
    if heartbeat is None:
        return
    yield _gauge(
        "migration_heartbeat_timestamp_seconds", "when the sync's last heartbeat was", heartbeat
    )
    # While it waits, the figures are those of the direction that it followed: the lag grows.
    direction = {"forward": "forward", "back": "reverse"}.get(str(sync.get("followed")))
    seconds = GaugeMetricFamily(
        "migration_lag_seconds", "age of the oldest change not carried yet", labels=["direction"]
    )
    changes = GaugeMetricFamily(
        "migration_lag_changes", "logged changes not carried yet", labels=["direction"]
    )
    for one in ("forward", "reverse"):
        seconds.add_metric([one], float(sync.get("lag_seconds") or 0) if one == direction else 0.0)
        changes.add_metric([one], float(sync.get("behind") or 0) if one == direction else 0.0)
    yield seconds
    yield changes
    yield _gauge(
        "migration_source_whole",
        "0 where the source is gone, another file, or lacks a part of its change capture",
        float(bool(sync.get("whole", True))),
    )
    yield _gauge(
        "migration_back_differences",
        "rows that did not come back to the SQLite file as they are on PostgreSQL",
        int(sync.get("differences") or 0),
    )
    yield _gauge(
        "migration_one_way_tables",
        "tables whose changes do not come back since PostgreSQL's schema was changed",
        len(sync.get("one_way") or ()),
    )
    running = sync.get("direction") == "back" and not sync.get("problem")
    yield _gauge(
        "migration_way_back_running",
        "1 while PostgreSQL's changes reach the SQLite file",
        float(running),
    )


@contextmanager
def serving(collector: MigrationCollector, port: int) -> Iterator[None]:
    """Serve ``/metrics`` on ``port`` of all addresses. Raises InputError where it is taken."""
    registry = CollectorRegistry()
    registry.register(collector)
    try:
        server, thread = start_http_server(port, registry=registry)
    except OSError as error:
        raise InputError(
            f"expected port {port} to be free for the metrics, found: {error.strerror}",
            advice="choose another with --metrics-port",
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
