"""What the options for the application's own queries ask for."""

from __future__ import annotations

from pathlib import Path

import pytest

from migration_job.errors import InputError
from migration_job.verify.application import demands
from migration_job.verify.performance import Budget


def test_a_profiles_own_queries_are_taken_without_being_named() -> None:
    found = demands(None, "radcase", None, None)
    assert len(found.checks) >= 20
    assert not found.given
    assert found.budget is None


def test_without_a_profile_there_are_none() -> None:
    assert demands(None, "none", None, None).checks == ()


def test_named_queries_take_the_place_of_the_profiles(tmp_path: Path) -> None:
    (tmp_path / "one.sql").write_text("SELECT 1")
    found = demands(tmp_path, "radcase", "pool=5", "host=pooler")
    assert [check.name for check in found.checks] == ["one"]
    assert found.given
    assert found.budget == Budget(pool=5)
    assert found.through == "host=pooler"


def test_speed_needs_queries_and_a_pooler_needs_a_budget(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected queries to measure"):
        demands(None, "none", "", None)
    with pytest.raises(InputError, match="expected a performance budget"):
        demands(None, "radcase", None, "host=pooler")
