"""A stage whose PostgreSQL runs on three servers, on real containers: what befalls them costs no
acknowledged write, and all of it is taken down again."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from infra.execution import execute
from tests.deployment.failovers import HEALED, WRITE, Outcome, Tried, standing_by, until
from tests.deployment.ports import free_port
from tests.deployment.radcase import serves
from tests.deployment.workshop import dsn, named, run

pytestmark = [
    pytest.mark.pulumi,
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(1800),
    pytest.mark.xdist_group("docker"),
]


POOL_WAIT_SECONDS = 120


@pytest.fixture(scope="module")
def tried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tried]:
    more = {"backup": True, "restorePort": free_port()}
    with standing_by(tmp_path_factory.mktemp("members"), **more) as made:
        yield made


def status(tried: Tried) -> str:
    done = run(tried.workshop, "-m", "tools.status", tried.workshop.stage)
    assert done.returncode == 0, done.stderr
    return done.stdout


def holds(outcome: Outcome) -> None:
    """What is promised of every event."""
    assert outcome.acknowledged > 0
    assert outcome.lost == 0
    # The pool's own limit, on however busy a machine; `make failovers` measures.
    assert outcome.longest < POOL_WAIT_SECONDS, outcome.errors


def test_the_application_is_moved_and_its_members_are_told(tried: Tried) -> None:
    assert serves(tried.workshop) == "postgresql"
    tried.whole()
    said = status(tried)
    assert f"{tried.leader().host} leads" in said
    assert "follows synchronously" in said


def test_the_certificate_of_the_switch_was_on_a_follower(tried: Tried) -> None:
    """The switch asks for it; what it asked is in what it wrote."""
    tried.whole()
    asked = "SELECT phase FROM migration.run"
    for one in tried.members:
        assert tried.query(one, asked) == "switched", one.host


def test_a_switchover_fails_no_statement(tried: Tried) -> None:
    outcome = tried.go("make switchover")
    holds(outcome)
    assert outcome.moved
    assert outcome.failed == 0, outcome.errors


def test_a_leader_that_is_lost_is_replaced(tried: Tried) -> None:
    outcome = tried.go("kill -9 of the leader, all of it")
    holds(outcome)
    assert outcome.moved


@pytest.mark.parametrize("event", HEALED)
def test_what_somebody_removed_is_made_again(tried: Tried, event: str) -> None:
    holds(tried.go(event))


def test_sqlite_has_all_of_it(tried: Tried) -> None:
    """The way back followed the leader, whichever it was."""
    until(tried.came_home, "SQLite to have every row")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"postgresMembers": 1}, "expected postgresMembers: 3, as the stage was made with"),
        ({"postgresVersion": 17}, "expected postgresVersion: 18, as the members' data is"),
    ],
)
def test_another_number_or_version_is_refused_before_anything(
    tried: Tried, settings: dict[str, object], said: str
) -> None:
    before = {one.container: tried.container(one.container).id for one in tried.members}
    kept = {name: tried.workshop.settings.get(name) for name in settings}
    tried.workshop.set(**settings)
    try:
        done = tried.workshop.up()
    finally:
        tried.workshop.set(**{"postgresVersion": 18, **{k: v for k, v in kept.items() if v}})
    assert done.failed
    assert said in done.output
    assert "Traceback" not in done.output
    assert {one.container: tried.container(one.container).id for one in tried.members} == before


def test_data_that_is_there_is_not_restored_over(tried: Tried) -> None:
    done = run(tried.workshop, "-m", "infra.restore", "--in-place", tried.workshop.stage)
    assert done.returncode == 1
    lost = tried.members[0].volume
    assert f"expected the volume {lost} to be lost, found PostgreSQL 18's data" in done.stderr


def test_data_that_all_members_lost_is_restored_by_one_command(tried: Tried) -> None:
    workshop, names = tried.workshop, tried.workshop.names
    until(lambda: backed_up(tried), "a whole backup")
    write(tried, -1)
    until(tried.came_home, "SQLite to have every row")
    for one in tried.members:
        tried.remove_with(one.volume)
    stopped = workshop.up()
    assert stopped.failed
    assert f"make restore STAGE={workshop.stage} INPLACE=1" in stopped.output
    assert not {one.volume for one in tried.members} & set(workshop.left())
    done = run(workshop, "-m", "infra.restore", "--in-place", workshop.stage)
    assert done.returncode == 0, done.stderr
    again = workshop.up()
    assert not again.failed, again.output
    tried.whole()
    # It refuses writes until it has what the backups lack.
    until(lambda: write(tried, -2), "a write on the restored stage")
    found = "SELECT count(*) FROM marks WHERE writer = -1"
    until(
        lambda: all(tried.query(one, found) == "1" for one in tried.members),
        "the last write on every member",
    )
    until(tried.came_home, "the way back, open again")
    holds(tried.go("make switchover"))
    assert names.backup in workshop.left()


def backed_up(tried: Tried) -> bool:
    container = tried.container(tried.workshop.names.backup)
    said = execute(container, ["pgbackrest", "--stanza=main", "--output=json", "info"])
    return b'"type":"full"' in said.output


def write(tried: Tried, writer: int) -> bool:
    """A row of nobody else's; whether it is acknowledged."""
    with psycopg.connect(dsn(named(tried.workshop)), autocommit=True) as session:
        session.execute(WRITE, (writer, 1))
    return True


def test_the_way_back_takes_all_of_it_down(tried: Tried) -> None:
    gone = tried.workshop.destroy()
    assert not gone.failed, gone.output
    assert serves(tried.workshop) == "sqlite"
    assert tried.workshop.left() == []
