"""Two cells of the matrices of `make cluster`, which tries them all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from migration_job.errors import JobError
from tests.cluster.cell import Cell, run_cell
from tests.cluster.matrix import cells, pooled, row
from tests.cluster.patroni import POOLED_HAPROXY, PatroniCluster, lacking

pytestmark = [pytest.mark.postgres, pytest.mark.slow, pytest.mark.timeout(400)]

QUICK = (
    Cell("just after the decision", "kill -9 of the leader", "synchronous", POOLED_HAPROXY),
    Cell("way back", "kill -9 of the leader", "asynchronous, accepted"),
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[PatroniCluster]:
    if lacking():
        pytest.skip(f"{', '.join(lacking())} not found on this machine")
    try:
        made = PatroniCluster().__enter__()
    except JobError as error:
        pytest.skip(f"no embedded servers: {error.message}")
    try:
        yield made
    finally:
        made.__exit__(None, None, None)


@pytest.mark.parametrize("cell", QUICK, ids=str)
def test_a_cell(cluster: PatroniCluster, cell: Cell, tmp_path: Path) -> None:
    outcome = run_cell(cluster, cell, tmp_path / "cell", QUICK.index(cell) + 1)
    print(row(outcome))
    assert outcome.faults == []
    assert outcome.acknowledged > 20
    assert not outcome.missing or cell.loses


def test_the_matrix_is_whole() -> None:
    assert len(set(cells())) == 24
    assert len(set(pooled())) == 8
    assert set(QUICK) <= {*cells(), *pooled()}
    assert [str(c) for c in cells("way synchronous switchover")] == [
        "way back, switchover, synchronous",
        "way back, switchover, asynchronous, accepted",
    ]
