"""Which phase may follow which."""

from __future__ import annotations

import itertools

import pytest

from migration_job.errors import OperationError
from migration_job.phases import Phase, may_follow, require

WAY = [
    Phase.PREPARED,
    Phase.CAPTURING,
    Phase.COPIED,
    Phase.CAUGHT_UP,
    Phase.VERIFIED,
    Phase.SWITCHED,
    Phase.SETTLED,
]


def test_the_way_forward_and_a_plain_one() -> None:
    assert may_follow(None, Phase.PREPARED)
    assert all(may_follow(a, b) for a, b in itertools.pairwise(WAY))
    assert may_follow(Phase.PREPARED, Phase.COPIED)
    assert may_follow(Phase.COPIED, Phase.VERIFIED)


@pytest.mark.parametrize("phase", WAY[:-1])
def test_back_from_everywhere_but_the_end(phase: Phase) -> None:
    assert may_follow(phase, Phase.ROLLED_BACK)
    assert not may_follow(Phase.SETTLED, phase)


def test_no_switch_without_verification_and_no_settling_without_a_switch() -> None:
    for phase in (None, Phase.PREPARED, Phase.CAPTURING, Phase.COPIED, Phase.CAUGHT_UP):
        assert not may_follow(phase, Phase.SWITCHED)
    assert not may_follow(Phase.VERIFIED, Phase.SETTLED)
    assert not may_follow(Phase.ROLLED_BACK, Phase.SWITCHED)
    assert not may_follow(Phase.SWITCHED, Phase.PREPARED)
    with pytest.raises(OperationError, match="'copied'"):
        require(Phase.COPIED, Phase.SWITCHED)
