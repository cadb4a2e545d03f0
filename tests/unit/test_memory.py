"""Planning keeps Python's cyclic collector out, and no longer than that."""

from __future__ import annotations

import gc

import pytest

from migration_job.stores.sqlite.memory import staying


def test_the_collector_is_back_whatever_happens() -> None:
    made: list[list[int]] = []

    def plan() -> None:
        with staying():
            assert not gc.isenabled()
            made.extend([n] for n in range(1_000))
            raise ValueError("planning failed")

    before = gc.get_freeze_count()
    try:
        with pytest.raises(ValueError, match="planning failed"):
            plan()
        assert gc.isenabled()
        # What was made is looked through no more.
        assert gc.get_freeze_count() >= before + len(made)
    finally:
        gc.unfreeze()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with staying():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
        gc.unfreeze()
