"""What a restore of a settled stage takes out is what `settle` takes out."""

from __future__ import annotations

from infra.restore import CLOSE, SETTLE, WAY_BACK_TABLES
from migration_job.stores.postgres import capture


def test_a_restore_takes_out_what_settle_does() -> None:
    assert WAY_BACK_TABLES == capture.WAY_BACK_TABLES


def test_names_are_put_in_and_nothing_else_is_left_open() -> None:
    for script in (CLOSE, SETTLE):
        made = script.format(database="d", records="r", tables="r.fence")
        assert "{" not in made
        assert made.startswith("\n\\set ON_ERROR_STOP on\n\\connect d\n")
