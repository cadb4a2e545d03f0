"""The life of a stage that nothing follows, `strategy: offline`: an accident, the way back given
up, a newer PostgreSQL, and its end. One that is followed: test_killed.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.deployment import settling
from tests.deployment.ports import free_port
from tests.deployment.radcase import a_lost_server_is_no_way_back, staged, up
from tests.deployment.workshop import Workshop

pytestmark = [
    pytest.mark.pulumi,
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(1800),
    pytest.mark.xdist_group("docker"),
]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    directory = tmp_path_factory.mktemp("settled")
    more = {"postgresVersion": 14, "upgradePort": free_port()}
    with staged(directory, seed=3, strategy="offline", **more) as made:
        up(made)
        yield made


def test_a_way_back_that_fails_leaves_everything(workshop: Workshop) -> None:
    a_lost_server_is_no_way_back(workshop)


def test_it_is_postgresql_for_good(workshop: Workshop) -> None:
    settling.settle(workshop)


def test_it_comes_to_a_newer_postgresql(workshop: Workshop) -> None:
    settling.upgrade(workshop, 18)


def test_it_is_removed_by_an_explicit_word(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    settling.remove(workshop, monkeypatch)
