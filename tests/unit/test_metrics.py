"""What Prometheus is told at each stage of a migration, by the very text that it scrapes."""

from __future__ import annotations

import json
import socket
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from migration_job.errors import InputError
from migration_job.protocol.metrics import MigrationCollector, serving

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scrape(directory: Path) -> Series:
    registry = CollectorRegistry()
    registry.register(MigrationCollector(directory, directory))
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


def write(directory: Path, name: str, **content: Any) -> None:
    (directory / name).write_text(json.dumps(content))


def ago(**time: float) -> str:
    return (datetime.now(UTC) - timedelta(**time)).isoformat()


def direction(name: str) -> tuple[tuple[str, str], ...]:
    return (("direction", name),)


def test_before_anything_has_run_it_claims_nothing(tmp_path: Path) -> None:
    found = scrape(tmp_path)
    assert not any(value for value in found.values())
    assert ("migration_heartbeat_timestamp_seconds", ()) not in found
    assert ("migration_certificate_age_seconds", ()) not in found


def test_a_copy_with_differences_shows_them(tmp_path: Path) -> None:
    tables = {"a": {"source_rows": 5, "target_rows": 4}, "b": {"source_rows": 2, "target_rows": 2}}
    write(tmp_path, "report.json", phase="copied", tables=tables, difference_count=1)
    found = scrape(tmp_path)
    assert found["migration_rows_total", ()] == 7
    assert found["migration_rows_copied", ()] == 6
    assert found["migration_differences", ()] == 1
    assert found["migration_phase", (("phase", "copied"),)] == 1


@pytest.mark.parametrize(("later", "expected"), [("report.json", 1), ("verify.json", 0)])
def test_the_last_verification_is_told(tmp_path: Path, later: str, expected: int) -> None:
    """Of `migrate` or of `verify`, whichever ended last; one that did not come to compare is
    none."""
    tables = {"a": {"source_rows": 5, "target_rows": 4}}
    ended = {"report.json": ago(hours=2), "verify.json": ago(hours=2), later: ago(hours=1)}
    report = {"phase": "copied", "tables": tables, "difference_count": 1}
    write(tmp_path, "report.json", ended_at=ended["report.json"], **report)
    certificate = {"issued_at": ago(seconds=30)}
    verified = {"phase": "verified", "certificate": certificate, "difference_count": 0}
    write(tmp_path, "verify.json", ended_at=ended["verify.json"], **verified)
    found = scrape(tmp_path)
    assert found["migration_differences", ()] == expected
    assert found["migration_rows_copied", ()] == 4
    assert found["migration_certificate_age_seconds", ()] == pytest.approx(30, abs=20)
    phase = "copied" if expected else "verified"
    assert found["migration_phase", (("phase", phase),)] == 1
    write(tmp_path, "verify.json", ended_at=ago(), phase="", outcome="failed")
    assert scrape(tmp_path)["migration_differences", ()] == 1


def test_after_the_switch_it_counts_the_window_down(tmp_path: Path) -> None:
    write(
        tmp_path,
        "sync.json",
        at=ago(seconds=2),
        direction="back",
        followed="back",
        phase="switched",
        switched_at=ago(hours=47),
        behind=3,
        lag_seconds=1.5,
        differences=2,
    )
    write(tmp_path, "switch.json", held_ms=119.3)
    found = scrape(tmp_path)
    assert found["migration_phase", (("phase", "switched"),)] == 1
    assert found["migration_window_left_seconds", ()] == pytest.approx(3600, abs=60)
    assert found["migration_lag_seconds", direction("reverse")] == 1.5
    assert found["migration_lag_changes", direction("reverse")] == 3
    assert found["migration_lag_seconds", direction("forward")] == 0
    assert found["migration_fence_seconds", ()] == pytest.approx(0.1193)
    assert found["migration_way_back_running", ()] == 1
    assert found["migration_back_differences", ()] == 2


def test_a_way_back_with_a_problem_is_not_running(tmp_path: Path) -> None:
    write(tmp_path, "sync.json", at=ago(), direction="back", problem="disk full", phase="switched")
    assert scrape(tmp_path)["migration_way_back_running", ()] == 0


def test_the_lag_of_a_sync_that_waits_is_told(tmp_path: Path) -> None:
    """Else the alert on a lag would end just when nothing is carried any more."""
    write(
        tmp_path,
        "sync.json",
        at=ago(),
        direction="waiting",
        followed="forward",
        problem="the target does not answer",
        lag_seconds=95.0,
        behind=12,
    )
    found = scrape(tmp_path)
    assert found["migration_lag_seconds", direction("forward")] == 95
    assert found["migration_lag_changes", direction("forward")] == 12


@pytest.mark.parametrize("content", ["", "{", "[]", '{"at": "yesterday", "switched_at": 7}'])
def test_a_file_cut_off_or_strange_does_not_end_the_scrape(tmp_path: Path, content: str) -> None:
    for name in ("report.json", "switch.json", "sync.json"):
        (tmp_path / name).write_text(content)
    assert ("migration_differences", ()) in scrape(tmp_path)


def test_it_is_served_and_a_taken_port_is_said(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    collector = MigrationCollector(tmp_path, tmp_path)
    with serving(collector, port):
        address = f"http://127.0.0.1:{port}/metrics"
        with urllib.request.urlopen(address, timeout=10) as answer:
            assert b"migration_phase" in answer.read()
        with pytest.raises(InputError, match=str(port)), serving(collector, port):
            pass
