"""A stage on three servers under load, and what befalls it: losses, cuts and switchovers.

``python -m tests.deployment.failovers --times 20`` (``make failovers``) tries each a number of
times on one stage and writes its row into the table of docs/how-to/stand-by.md; ``--only`` leaves
the rows of the others as they are.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import docker
import psycopg
from docker.errors import DockerException
from docker.models.containers import Container

from infra import members
from infra.clustered import TTL_SECONDS
from infra.errors import StageError
from infra.execution import STDOUT, execute
from infra.members import API_PORT, Member, Standing
from infra.setting_types import SEVERAL
from infra.settings import read
from infra.switchover import led, switch_over
from tests.deployment.database import query
from tests.deployment.engine import client_or_skip
from tests.deployment.workshop import ROOT, Workshop, dsn, named, require_pulumi, run

WRITERS = 4
READERS = 2
PAUSE_SECONDS = 0.02
LIMIT_SECONDS = 180
POLL_SECONDS = 0.5
"""Between two looks; each starts a program in a container."""
BOUND_SECONDS = 45.0
"""Within which a query that waits is answered, whatever befalls one of the servers: the time after
which a leader that is lost is the leader no more, 20 s, and what the others take to agree."""
ASK_PATRONI = f"""
import json, ssl, time, urllib.request
unverified = ssl._create_unverified_context()
with urllib.request.urlopen("https://127.0.0.1:{API_PORT}/patroni", context=unverified) as answer:
    said = json.load(answer)
print(json.dumps({{"role": said["role"], "silent": time.time() - said["dcs_last_seen"]}}))
"""
"""How long ago a member has heard etcd, by Patroni's own word: `patronictl` asks etcd."""
LEADING = ("primary", "master")
PAGE = ROOT / "docs" / "how-to" / "stand-by.md"

SCHEMA = """
CREATE TABLE marks (writer INTEGER NOT NULL, number INTEGER NOT NULL, body TEXT NOT NULL,
                    PRIMARY KEY (writer, number));
INSERT INTO marks VALUES (0, 0, 'before');
"""
WRITE = "INSERT INTO marks VALUES (%s, %s, 'a mark') ON CONFLICT DO NOTHING"


def until(condition: Callable[[], bool], what: str, seconds: float = LIMIT_SECONDS) -> None:
    """Wait for a condition, whose look may fail meanwhile; TimeoutError that says for what."""
    deadline = time.monotonic() + seconds
    while True:
        with suppress(StageError, DockerException, psycopg.Error, OSError):
            if condition():
                return
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(POLL_SECONDS)


@dataclass
class Client:
    """One client of the application: one statement after another, each until it is answered."""

    where: str
    number: int
    writes: bool
    stop: threading.Event
    acknowledged: int = 0
    failed: int = 0
    """Statements that ended with an error, and were sent again."""
    errors: list[str] = field(default_factory=list)
    longest: float = 0.0
    """Seconds from a statement's first attempt to its answer."""
    since: float = 0.0
    """When the statement that waits now was first sent; 0 between statements."""

    def run(self) -> None:
        """Until told to stop, and then the statement that is under way."""
        session: psycopg.Connection | None = None
        while not self.stop.is_set():
            self.since = time.monotonic()
            while True:
                try:
                    if session is None:
                        session = psycopg.connect(
                            self.where, autocommit=True, prepare_threshold=None
                        )
                    self._ask(session)
                except psycopg.Error as error:
                    self.failed += 1
                    self.errors.append(str(error).strip().splitlines()[0])
                    if session is not None:
                        session.close()
                    session = None
                    time.sleep(PAUSE_SECONDS)
                else:
                    break
            self.longest = max(self.longest, time.monotonic() - self.since)
            self.since = 0.0
            time.sleep(PAUSE_SECONDS)
        if session is not None:
            session.close()

    def _ask(self, session: psycopg.Connection) -> None:
        if self.writes:
            session.execute(WRITE, (self.number, self.acknowledged + 1))
            self.acknowledged += 1
        else:
            session.execute("SELECT count(*) FROM marks WHERE writer = 0")


class Load:
    """Writers and readers through the pooler."""

    def __init__(self, where: str, first: int) -> None:
        self._stop = threading.Event()
        count = WRITERS + READERS
        self.clients = [Client(where, first + n, n < WRITERS, self._stop) for n in range(count)]
        self._threads = [threading.Thread(target=c.run, daemon=True) for c in self.clients]
        for thread in self._threads:
            thread.start()

    @property
    def writers(self) -> list[Client]:
        return [client for client in self.clients if client.writes]

    def more(self, count: int = 10) -> None:
        """Wait until every writer has that many more writes acknowledged."""
        wanted = [(writer, writer.acknowledged + count) for writer in self.writers]
        until(lambda: all(w.acknowledged >= n for w, n in wanted), "more writes")

    def end(self) -> None:
        """Stop them all, with what is under way answered."""
        self._stop.set()
        for thread in self._threads:
            thread.join(LIMIT_SECONDS)
            if thread.is_alive():
                raise TimeoutError("a client still waits for its answer")


@dataclass
class Outcome:
    """What came of one event."""

    event: str
    acknowledged: int = 0
    lost: int = 0
    """Acknowledged writes that PostgreSQL does not have afterwards."""
    failed: int = 0
    errors: list[str] = field(default_factory=list)
    longest: float = 0.0
    moved: bool = False
    """Whether another member leads afterwards."""


class Tried:
    """A stage on three servers that serves, and what can be done to it."""

    def __init__(self, workshop: Workshop) -> None:
        self.workshop = workshop
        self.client: docker.DockerClient = workshop.client
        self.members = members.all_of(workshop.names)
        self._next = 1

    def standing(self) -> list[Standing]:
        return members.standing(self.client, self.members)

    def leader(self) -> Member:
        """The one that takes writes, by Patroni's word and haproxy's."""
        found: list[str] = []

        def agreed() -> bool:
            found[:] = [one.host for one in self.standing() if one.leads and one.serves]
            return len(found) == 1 and led(self.client, self.workshop.names) == found

        until(agreed, "a leader")
        return next(one for one in self.members if one.host == found[0])

    def container(self, name: str) -> Container:
        return self.client.containers.get(name)

    def whole(self) -> None:
        """Wait until all members follow."""
        until(lambda: not members.missing(self.standing(), self.members), "a whole cluster")
        self.leader()

    def go(self, event: str) -> Outcome:
        """One event under load, on a whole cluster; whole again afterwards."""
        self.whole()
        before = self.leader()
        load = Load(dsn(named(self.workshop)), self._next)
        self._next += WRITERS + READERS
        try:
            load.more()
            (EVENTS | HEALED)[event](self)
            load.more()
            self.whole()
            load.more()
        finally:
            load.end()
        outcome = Outcome(event, moved=self.leader() != before)
        for client in load.clients:
            outcome.failed += client.failed
            outcome.errors += client.errors
            outcome.longest = max(outcome.longest, client.longest)
        for writer in load.writers:
            outcome.acknowledged += writer.acknowledged
            outcome.lost += writer.acknowledged - self.kept(writer)
        return outcome

    def kept(self, writer: Client) -> int:
        """How many of the writes that were acknowledged PostgreSQL has."""
        query = "SELECT count(*) FROM marks WHERE writer = %s AND number <= %s"
        with psycopg.connect(dsn(named(self.workshop)), autocommit=True) as session:
            row = session.execute(query, (writer.number, writer.acknowledged)).fetchone()
        return int(row[0]) if row else 0

    def query(self, member: Member, sql: str) -> str:
        """The superuser's answer, of that member, in the application's database."""
        return query(self.container(member.container), sql, self.workshop.names.database)

    def came_home(self) -> bool:
        """Whether the SQLite file has every row that PostgreSQL has."""
        with psycopg.connect(dsn(named(self.workshop)), autocommit=True) as session:
            there = session.execute("SELECT writer, number FROM marks ORDER BY 1, 2").fetchall()
        source = Path(str(self.workshop.settings["source"]))
        with closing(sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True)) as here:
            return (
                here.execute("SELECT writer, number FROM marks ORDER BY 1, 2").fetchall() == there
            )

    # ------------------------------------------------------------------------------ events

    def lose_the_leader(self) -> None:
        """Every process of it, at once, as a power cut; it comes back when another leads."""
        leader = self.leader()
        container = self.container(leader.container)
        container.kill(signal="KILL")
        self._another_than(leader)
        container.start()

    def kill_postgresql(self) -> None:
        """The leader's postmaster alone."""
        container = self.container(self.leader().container)
        done = container.exec_run(["bash", "-c", 'kill -9 "$(head -n 1 "$PGDATA/postmaster.pid")"'])
        assert done.exit_code == 0, done.output

    def switch_over(self) -> None:
        """`make switchover`."""
        workshop = self.workshop
        settings = read(workshop.settings, "the workshop")
        switch_over(self.client, settings, workshop.names, None, lambda _: None)

    def lose_an_etcd(self) -> None:
        """One of the three, killed; it comes back after a while in which nobody may notice."""
        container = self.container(self._leading_etcd().etcd)
        container.kill(signal="KILL")
        until(self._told_again, "etcd to answer")
        container.start()
        until(lambda: _healthy(container), "etcd to be healthy")

    def lose_all_etcd(self) -> None:
        """All three, killed; the leader goes on as long as it reaches the others."""
        leader = self.leader()
        containers = [self.container(one.etcd) for one in self.members]
        for container in containers:
            container.kill(signal="KILL")
        until(lambda: self._leads_unconfirmed(leader), "a leader whom etcd has not confirmed")
        for container in containers:
            container.start()
        for container in containers:
            until(lambda one=container: _healthy(one), "etcd to be healthy")  # type: ignore[misc]

    def cut_the_leader_off(self) -> None:
        """Its network is detached, and attached again when another leads."""
        leader = self.leader()
        network = self.client.networks.get(self.workshop.names.network)
        network.disconnect(leader.container)
        self._another_than(leader)
        network.connect(leader.container, aliases=[leader.host])

    def lose_the_standby(self) -> None:
        """The member that follows synchronously, killed; it comes back when another does."""
        follower = self._follower()
        container = self.container(follower.container)
        container.kill(signal="KILL")
        until(lambda: self._followers() not in ([], [follower]), "another to follow synchronously")
        container.start()

    # What somebody removed, and `make up` makes again. Others serve meanwhile.

    def remove_the_leader(self) -> None:
        """Its container alone."""
        leader = self.leader()
        self.container(leader.container).remove(force=True)
        self._another_than(leader)
        self._healed(leader.container)

    def remove_the_leader_and_its_data(self) -> None:
        """Its data is copied from the one that leads then."""
        leader = self.leader()
        self.remove_with(leader.volume)
        self._another_than(leader)
        self._healed(leader.container, leader.volume)

    def remove_a_follower_and_its_data(self) -> None:
        """The one for which commits wait."""
        follower = self._follower()
        self.remove_with(follower.volume)
        until(lambda: self._followers() not in ([], [follower]), "another to follow synchronously")
        self._healed(follower.container, follower.volume)

    def remove_an_etcd_and_its_data(self) -> None:
        """It takes its own place among the others, as one that they do not know yet."""
        lost = self._leading_etcd()
        self.remove_with(volume := lost.agreement)
        until(self._told_again, "etcd to answer")
        self._healed(lost.etcd, volume)

    def remove_with(self, volume: str) -> None:
        """The volume, with each container that uses it."""
        for container in self.client.containers.list(all=True, filters={"volume": volume}):
            container.remove(force=True)
        self.client.volumes.get(volume).remove()

    def _healed(self, container: str, *volumes: str) -> None:
        """`make status` tells of it, and `make up` makes it again."""
        workshop = self.workshop
        said = run(workshop, "-m", "tools.status", workshop.stage)
        assert f"{container} is gone" in said.stdout, said.stdout + said.stderr
        done = workshop.up()
        assert not done.failed, done.output
        assert {container, *volumes} <= set(workshop.left())
        until(lambda: _healthy(self.container(container)), f"{container} to be healthy")

    def _follower(self) -> Member:
        until(lambda: self._followers() != [], "one to follow synchronously")
        return self._followers()[0]

    def _followers(self) -> list[Member]:
        """Those for which commits wait: one, and none while the next is found."""
        hosts = {o.host for o in self.standing() if o.role == members.FOLLOWS_SYNCHRONOUSLY}
        return [one for one in self.members if one.host in hosts]

    def _another_than(self, before: Member) -> None:
        names = self.workshop.names
        until(lambda: led(self.client, names) not in ([], [before.host]), "another leader")

    def _leads_unconfirmed(self, leader: Member) -> bool:
        """Whether it leads, by its own word, for longer than etcd has it lead from its last."""
        said = execute(self.container(leader.container), ["python3", "-c", ASK_PATRONI])
        found = json.loads(said.on(STDOUT))
        return bool(found["role"] in LEADING and found["silent"] > TTL_SECONDS)

    def _told_again(self) -> bool:
        return bool(self.standing())

    def _leading_etcd(self) -> Member:
        for one in self.members:
            said = self.container(one.etcd).exec_run(
                [
                    "bash",
                    "-c",
                    "exec 3<>/dev/tcp/127.0.0.1/2381; "
                    "printf 'GET /metrics HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3",
                ]
            )
            if b"\netcd_server_is_leader 1" in said.output:
                return one
        raise TimeoutError("no member of etcd leads")


def _healthy(container: Container) -> bool:
    container.reload()
    return bool(container.attrs["State"]["Health"]["Status"] == "healthy")


EVENTS: dict[str, Callable[[Tried], None]] = {
    "make switchover": Tried.switch_over,
    "kill -9 of the leader, all of it": Tried.lose_the_leader,
    "kill -9 of the leader's PostgreSQL": Tried.kill_postgresql,
    "the leader's network detached": Tried.cut_the_leader_off,
    "kill -9 of the synchronous member": Tried.lose_the_standby,
    "kill -9 of etcd's leader": Tried.lose_an_etcd,
    "kill -9 of all three etcd": Tried.lose_all_etcd,
}
"""What is tried, by the words of the table."""

HEALED: dict[str, Callable[[Tried], None]] = {
    "the leader's container removed": Tried.remove_the_leader,
    "the leader removed with its volume": Tried.remove_the_leader_and_its_data,
    "the synchronous member removed with its volume": Tried.remove_a_follower_and_its_data,
    "etcd's leader removed with its volume": Tried.remove_an_etcd_and_its_data,
}
"""What takes `make up` to be whole again: of test_members.py, and no part of the table."""


@contextmanager
def standing_by(directory: Path, **settings: object) -> Iterator[Tried]:
    """A stage on three servers, up and switched; cleared away at the end."""
    require_pulumi()
    client = client_or_skip()
    source = directory / "data" / "marks.db"
    source.parent.mkdir()
    with closing(sqlite3.connect(source)) as db:
        db.executescript(SCHEMA)
    workshop = Workshop(
        directory,
        client,
        "",
        source=str(source),
        strategy="blue-green",
        postgresMembers=SEVERAL,
        postgresMemory="256MB",
        **settings,
    )
    try:
        done = workshop.up()
        assert not done.failed, done.output
        yield Tried(workshop)
    finally:
        workshop.clear()


# ------------------------------------------------------------------------------- the table


def row(outcomes: Sequence[Outcome]) -> str:
    """A row of the table: one event, however often it was tried."""
    waits = [one.longest for one in outcomes]
    failed = [one.failed for one in outcomes]
    cells = [
        outcomes[0].event,
        str(len(outcomes)),
        str(sum(one.moved for one in outcomes)),
        f"{sum(one.acknowledged for one in outcomes):,}",
        str(sum(one.lost for one in outcomes)),
        f"{statistics.median(failed):g} / {max(failed)}",
        f"{statistics.median(waits):.1f} / {max(waits):.1f}",
        date.today().isoformat(),
    ]
    return f"| {' | '.join(cells)} |"


HEAD = """\
| event | times | another leads | acknowledged | lost | failed | longest wait (s) | tried on |
|---|---|---|---|---|---|---|---|"""
BEGIN, END = "<!-- begin: make failovers -->", "<!-- end: make failovers -->"


def rows_of(page: str) -> dict[str, str]:
    """The rows that the page has, by their event."""
    lines = page.partition(BEGIN)[2].partition(END)[0].splitlines()
    found = {line.split("|")[1].strip(): line for line in lines if line.startswith("| ")}
    return {event: line for event, line in found.items() if event in EVENTS}


def with_rows(page: str, tried: Mapping[str, str]) -> str:
    """The page with these rows between its marks, and with those that it had of other events."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    known = {**rows_of(page), **tried}
    table = "\n".join([HEAD, *(known[event] for event in EVENTS if event in known)])
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def main() -> int:
    words = argparse.ArgumentParser(prog="python -m tests.deployment.failovers")
    words.add_argument("--times", type=int, default=20, help="how often each is tried")
    words.add_argument("--only", action="append", help="part of an event's name")
    words.add_argument("--page", action="store_true", help="write the table into its page")
    chosen = words.parse_args()
    wanted = [e for e in EVENTS if not chosen.only or any(part in e for part in chosen.only)]
    faults = 0
    rows: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as scratch, standing_by(Path(scratch)) as tried:
        for event in wanted:
            outcomes = []
            for number in range(1, chosen.times + 1):
                outcomes.append(one := tried.go(event))
                wrong = one.lost > 0 or one.longest > BOUND_SECONDS
                faults += wrong
                print(
                    f"{event} {number}: {one.acknowledged} acknowledged, {one.lost} lost, "
                    f"{one.failed} failed, longest wait {one.longest:.1f} s"
                    f"{' WRONG' if wrong else ''} {sorted(set(one.errors))[:3]}",
                    flush=True,
                )
            rows[event] = row(outcomes)
            if chosen.page:
                # At once: what is tried later may take hours.
                PAGE.write_text(with_rows(PAGE.read_text(), rows))
        until(tried.came_home, "SQLite to have every row")
        print("SQLite has every row that PostgreSQL has", flush=True)
    print("\n".join([HEAD, *rows.values()]))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
