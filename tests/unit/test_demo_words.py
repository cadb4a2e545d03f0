"""What the demo says of figures that are no news, and of its time."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from migration_job.demo.live import lag_in_words
from migration_job.demo.rehearsal import spent
from migration_job.report.model import Report

NOW = datetime(2026, 3, 4, 9, 31, 20, tzinfo=UTC)
TOLD = {"direction": "forward", "behind": 1242, "lag_seconds": 0.04}


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"measured_at": "2026-03-04T09:31:19.500+00:00"}, "1,242 changes, 0.0 s behind"),
        ({"measured_at": "2026-03-04T09:31:08+00:00"}, "1,242 changes, 0.0 s behind 12 s ago"),
        ({"measured_at": ""}, "nothing measured yet"),
        ({}, "nothing measured yet"),
    ],
)
def test_an_old_figure_is_told_with_its_age(told: dict[str, str], words: str) -> None:
    assert lag_in_words({**TOLD, **told}, NOW) == f"to PostgreSQL: {words}"


def test_a_sync_that_follows_nothing_has_no_figure() -> None:
    assert lag_in_words({**TOLD, "direction": "none"}, NOW) == "sync waits"


def test_the_parts_of_migrate_sum_up_to_its_time() -> None:
    report = Report(
        outcome="verified",
        phase="verified",
        began_at="2026-03-04T09:31:20.000+00:00",
        ended_at="2026-03-04T09:31:30.000+00:00",
        seconds={"plan": 2.0, "copy": 5.5},
    )
    assert spent(report, 1044.7) == (
        "1,044.7 in all, 10.0 of them `migrate`: plan 2.0, copy 5.5, start, backup and report 2.5"
    )
    assert spent(report.model_copy(update={"ended_at": ""}), 44.7) == "44.7 in all"
