"""How old the oldest change that waits is: never younger than it is."""

from __future__ import annotations

from migration_job.protocol.sync import _Lag


def test_changes_that_wait_are_as_old_as_the_look_before_them() -> None:
    """A queue that is emptied between any two looks is no queue of age zero."""
    lag = _Lag()
    lag.note(0, 10.0)
    assert lag.of(0, 10.0) == 0
    lag.note(100, 13.0)  # they came after 10.0
    assert lag.of(0, 13.0) == 3.0
    lag.note(200, 14.0)
    assert lag.of(100, 14.0) == 1.0  # the first hundred were applied
    assert lag.of(200, 14.5) == 0


def test_what_waits_grows_older_until_it_is_applied() -> None:
    lag = _Lag()
    lag.note(0, 10.0)
    lag.note(5, 11.0)
    for now in (12.0, 20.0, 60.0):
        lag.note(5, now)
        assert lag.of(4, now) == now - 10.0
    lag.note(6, 61.0)
    assert lag.of(5, 61.0) == 1.0


def test_of_what_is_there_at_the_first_look_nothing_is_known() -> None:
    lag = _Lag()
    lag.note(7, 10.0)
    assert lag.of(0, 12.0) == 2.0
