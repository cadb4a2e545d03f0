"""The model of the protocol: it holds as it is, and each step is needed.

`make model` checks the larger scenarios as well; here are those that end within seconds.
"""

from __future__ import annotations

import re

import pytest

from model.check import (
    MUTANTS,
    PROTOCOL,
    SCENARIOS,
    SMALL,
    UPGRADE,
    UPGRADE_MUTANTS,
    UPGRADE_SCENARIO,
    Mutant,
    check,
    check_mutant,
    missing,
)

pytestmark = pytest.mark.skipif(bool(missing()), reason=f"not installed: {', '.join(missing())}")


def test_every_rule_holds_there_and_back_with_a_death_at_any_step() -> None:
    scenario = next(s for s in SCENARIOS if s.name == "there and back")
    found = check(scenario.flags)
    assert found.broken is None
    assert found.states > 100_000


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name)
def test_without_this_step_a_rule_breaks(mutant: Mutant) -> None:
    assert check_mutant(mutant).broken == mutant.rule


def test_every_step_that_can_be_left_out_of_the_model_is() -> None:
    """A switch in the model that no mutant throws would be a step nobody has shown to be needed."""
    switches = set(re.findall(r"\b(?:OMIT|EARLY|STALE)_[A-Z_]+\b", PROTOCOL.read_text()))
    assert switches == {mutant.name for mutant in MUTANTS}


def test_the_move_between_two_servers_holds_and_each_of_its_steps_is_needed() -> None:
    found = check(UPGRADE_SCENARIO.flags, model=UPGRADE, optimise="-O1")
    assert found.broken is None
    assert found.states > 100_000
    switches = set(re.findall(r"\b(?:OMIT|EARLY)_[A-Z_]+\b", UPGRADE.read_text()))
    assert switches == {mutant.name for mutant in UPGRADE_MUTANTS}


@pytest.mark.parametrize("mutant", UPGRADE_MUTANTS, ids=lambda m: m.name)
def test_without_this_step_of_the_move_a_rule_breaks(mutant: Mutant) -> None:
    assert check_mutant(mutant).broken == mutant.rule


@pytest.mark.parametrize("name", sorted(SMALL))
def test_the_small_scenarios_hold_where_nothing_is_left_out(name: str) -> None:
    assert check(SMALL[name], optimise="-O1").broken is None
