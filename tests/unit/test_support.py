"""The end of a version's support is told from that day on."""

from __future__ import annotations

from datetime import date, timedelta

import pytest

from infra import support
from migration_job.binaries import RELEASES


def test_every_version_that_can_be_chosen_has_its_day() -> None:
    assert support.END_OF_SUPPORT.keys() == RELEASES.keys()
    assert support.NEWEST == 18
    assert list(support.END_OF_SUPPORT.values()) == sorted(support.END_OF_SUPPORT.values())


@pytest.mark.parametrize("major", support.END_OF_SUPPORT)
def test_it_is_told_from_that_day_on(major: int) -> None:
    day = support.END_OF_SUPPORT[major]
    assert support.warning(major, day - timedelta(days=1)) == ""
    for later in (0, 1, 5000):
        told = support.warning(major, day + timedelta(days=later))
        assert f"PostgreSQL {major} " in told
        assert day.isoformat() in told


def test_fourteen_is_over() -> None:
    assert "2026-11-12" in support.warning(14, date(2026, 11, 29))
    assert support.warning(18, date(2026, 11, 29)) == ""
