"""Tasks that wait for one another: order, failure, and nothing left running."""

from __future__ import annotations

import re
import threading

import pytest

from infra.roles import CLUSTER
from migration_job.workers import Task, default_jobs, run_all


class Session:
    """Counts what is open; ``cancel`` ends its wait."""

    open = 0

    def __init__(self) -> None:
        Session.open += 1
        self.cancelled = threading.Event()

    def close(self) -> None:
        Session.open -= 1

    def cancel(self) -> None:
        self.cancelled.set()


@pytest.fixture(autouse=True)
def nothing_is_left_open() -> object:
    Session.open = 0
    yield
    assert Session.open == 0


def test_a_task_runs_after_what_it_waits_for() -> None:
    order: list[str] = []
    tasks: list[Task[Session]] = [
        Task("c", lambda s: order.append("c"), weight=9, after=("b",)),
        Task("b", lambda s: order.append("b"), weight=5, after=("a",)),
        Task("a", lambda s: order.append("a")),
    ]
    run_all(tasks, Session, 3)
    assert order == ["a", "b", "c"]


def test_one_of_two_threads_does_the_short_tasks_beside_the_heaviest() -> None:
    order: list[str] = []
    short_ones_done = threading.Event()

    def heaviest(_: Session) -> None:
        assert short_ones_done.wait(10)
        order.append("heaviest")

    def last_short(_: Session) -> None:
        order.append("short 2")
        short_ones_done.set()

    tasks: list[Task[Session]] = [
        Task("heaviest", heaviest, weight=9),
        Task("heavy", lambda s: order.append("heavy"), weight=8),
        Task("short 1", lambda s: order.append("short 1"), weight=2, short=True),
        Task("short 2", last_short, weight=1, short=True),
    ]
    run_all(tasks, Session, 2)
    assert order[:2] == ["short 1", "short 2"]


def test_the_heaviest_begins_first() -> None:
    order: list[str] = []
    tasks: list[Task[Session]] = [
        Task(name, lambda s, n=name: order.append(n), weight=weight)  # type: ignore[misc]
        for name, weight in (("small", 1), ("large", 9), ("middle", 5))
    ]
    run_all(tasks, Session, 1)
    assert order == ["large", "middle", "small"]


def test_the_first_error_ends_everything_and_is_raised() -> None:
    begun = threading.Event()
    ran: list[str] = []

    def waits(session: Session) -> None:
        begun.set()
        assert session.cancelled.wait(10)
        ran.append("cancelled")

    def fails(session: Session) -> None:
        assert begun.wait(10)
        raise LookupError("first")

    tasks: list[Task[Session]] = [
        Task("waits", waits, weight=2),
        Task("fails", fails, weight=1),
        Task("never", lambda s: ran.append("never"), after=("fails",)),
    ]
    with pytest.raises(LookupError, match="first"):
        run_all(tasks, Session, 2)
    assert ran == ["cancelled"]


def test_a_session_that_cannot_be_opened_is_an_error() -> None:
    def refused() -> Session:
        raise ConnectionError("no")

    with pytest.raises(ConnectionError):
        run_all([Task("a", lambda s: None)], refused, 2)


def test_no_tasks_open_nothing() -> None:
    run_all([], Session, 4)


def test_a_name_that_no_task_has_is_refused() -> None:
    tasks: list[Task[Session]] = [Task("a", lambda s: None, after=("b",))]
    with pytest.raises(ValueError, match="'b'"):
        run_all(tasks, Session, 1)


@pytest.mark.parametrize(("cores", "jobs"), [(1, 2), (4, 4), (96, 8)])
def test_a_host_of_many_cores_asks_for_no_more_sessions_than_a_stages_role_has(
    cores: int, jobs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)), raising=False)
    assert default_jobs() == jobs
    limit = re.search(r"\{migration\} LOGIN CONNECTION LIMIT (\d+)", CLUSTER)
    assert limit is not None
    # Beside them: the run's first, one more for small tables, and the sync's few.
    assert default_jobs() + 2 + 4 <= int(limit[1])
