"""Fleets in which healthy files stand among drifted, damaged, locked and missing ones, in every
layout, at rest and in use: the healthy ones are moved with every row, each other one is named with
a reason and stops nobody, and what is mended is taken at the next run.

``FLEET_EXAMPLES`` says how many, ``FLEET_SEED`` which are first; each prints its seed and its
files.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import psycopg
import pytest

from migration_job.fleet import crew, worker
from migration_job.quoting import postgres_name
from migration_job.stores.sqlite import waiting
from tests.integration.livefleet import LiveKit
from tests.integration.mixedfleet import (
    ALIKE,
    BROKEN,
    DRIFTED,
    NOTHING,
    File,
    complaints,
    on_postgres,
    on_sqlite,
)
from tests.integration.running import DONE, FAILED, Ended

pytestmark = pytest.mark.postgres

FIRST = int(os.environ.get("FLEET_SEED", "1"))
EXAMPLES = int(os.environ.get("FLEET_EXAMPLES", "4"))
AT_REST = ("schema-per-file", "database-per-file", "tenant-column")
IN_USE = ("schema-per-file", "database-per-file")
MODES = [*((layout, False) for layout in AT_REST), *((layout, True) for layout in IN_USE)]


@dataclass
class Mixed:
    """A fleet, and what each file of it is."""

    kit: LiveKit
    layout: str
    marked: str
    """How the names of its databases begin."""
    live: bool
    files: dict[str, File]
    dice: random.Random

    # -------------------------------------------------------------------------- what is there

    def sides(self, file: File) -> tuple[Any, Any]:
        """What either side holds of a file."""
        rows, columns = on_sqlite(file.path)
        return rows, self.target(file, columns)

    def target(self, file: File, columns: dict[str, list[str]]) -> Any:
        if self.layout == "database-per-file":
            return on_postgres(
                self.kit.dsn, "public", columns, database=f"{self.marked}_{file.name}"
            )
        if self.layout == "tenant-column":
            return on_postgres(self.kit.dsn, "public", columns, f"WHERE tenant = '{file.name}'")
        return on_postgres(self.kit.dsn, f"c_{file.name}", columns)

    def do(self, file: File, statement: str) -> None:
        """As a tenant's application on PostgreSQL."""
        alone = self.layout == "database-per-file"
        dbname = f"{self.marked}_{file.name}" if alone else None
        schema = "public" if alone else postgres_name(f"c_{file.name}")
        more = {} if dbname is None else {"dbname": dbname}
        with psycopg.connect(self.kit.dsn, autocommit=True, **more) as session:  # type: ignore[arg-type]
            session.execute(f"SET search_path TO {schema}".encode())
            session.execute(statement.encode())

    def written(self, names: Sequence[str]) -> dict[str, object]:
        """By whom each row of these tenants was written on the target."""
        found: dict[str, object] = {}
        for name in names:
            file = self.files[name]
            where = f" WHERE tenant = '{name}'" if self.layout == "tenant-column" else ""
            query = f"SELECT min(xmin::text), max(xmin::text), count(*) FROM {{}}person{where}"
            if self.layout == "database-per-file":
                there = self.kit.ask(query.format("public."), database=f"{self.marked}_{name}")
            else:
                prefix = f"c_{name}." if self.layout == "schema-per-file" else "public."
                there = self.kit.ask(query.format(prefix))
            found[name] = (file.name, there)
        return found

    def verified(self) -> list[str]:
        return [name for name, state in self.kit.states().items() if state == "verified"]

    # -------------------------------------------------------------------------- what is done

    def run(self) -> Ended:
        """`fleet`, and what it has to say of every file."""
        ended = self.kit.run(self.kit.manifest_path)
        require_plain(ended)
        told = self.kit.told()
        assert set(told["files"]) == set(self.files), "a file has no line, or one too many"
        page = (self.kit.report / "fleet.html").read_text(encoding="utf-8")
        require_words(page)
        left = {name for name, file in told["files"].items() if file["state"] != "verified"}
        assert (ended.status == DONE) == (not left), ended.said
        assert (told["certificate"] is not None) == (not left)
        last = ended.said[ended.said.rfind("not verified on the target") :]
        for name, file in self.files.items():
            assert page.count(f">{name}<") == 1, name
            if name in left:
                assert last.count(f" {name}: ") == 1, (name, ended.said)
            self.require_its_due(file, told["files"][name])
        return ended

    def require_its_due(self, file: File, told: dict[str, Any]) -> None:
        """A healthy file is on the target with every row; any other is so too, or says why not."""
        if told["state"] == "verified":
            assert not file.unreadable(live=self.live), file
            # A file that is followed is left as it is, and looked through before the switch.
            if not (file.followed and file.broken):
                self.require_equal(file, told)
            return
        words = told["message"]
        assert words, file
        assert told["exit_status"], file
        require_words(words)
        stopped = self.layout == "tenant-column" and told["state"] == "stopped"
        assert file.broken or (not file.alike and stopped), (file, told)
        if self.layout == "tenant-column":
            rows = self.kit.ask("SELECT to_regclass('public.person') IS NOT NULL")
            if rows == [(True,)]:
                query = f"SELECT count(*) FROM person WHERE tenant = '{file.name}'"
                assert self.kit.ask(query) in ([(0,)], self.before(file)), file

    def before(self, file: File) -> list[tuple[Any, ...]]:
        """What an earlier run has moved of a file that was healthy then."""
        rows, _ = on_sqlite(file.whole)
        return [(len(rows["person"]),)]

    def require_equal(self, file: File, told: dict[str, Any]) -> None:
        if file.broken and file.broken != "locked":
            assert complaints(file.path) == [], file
            if told["ledger_count"] or told["quarantine_count"]:
                return  # what is not as in the file is told by value
        there, here = self.sides(file)
        assert here == there, file

    def require_all_equal(self, names: Sequence[str]) -> None:
        for name in names:
            there, here = self.sides(self.files[name])
            assert here == there, self.files[name]

    def run_twice(self) -> None:
        """`fleet`, and once more with the same end and nothing loaded twice."""
        first = self.run()
        states, certificate = self.kit.states(), self.kit.told()["certificate"]
        # SQLite throws noise in a log away when a test looks into the file.
        sound = [name for name in self.verified() if not self.files[name].broken]
        before = self.written(sound)
        again = self.run()
        assert again.status == first.status, again.said
        assert self.kit.states() == states
        assert self.kit.told()["certificate"] == certificate
        assert self.written(sound) == before

    def mend(self, file: File) -> None:
        """As an operator does: what PostgreSQL follows is given up before another file is put into
        its place."""
        followed = self.live and file.name in self.verified()
        if followed and file.broken and file.broken != "locked":
            ended = self.kit.live("fleet-rollback", "--release", "--tenant", file.name)
            assert ended.status == DONE, ended.said
        file.mend()

    def mend_all(self) -> None:
        for file in self.files.values():
            self.mend(file)

    def mend_some(self) -> None:
        """The next run takes what is mended, and leaves what was healthy as it is."""
        left = [name for name in self.verified() if not self.files[name].broken]
        before = self.written(left)
        broken = [file for file in self.files.values() if file.broken]
        for file in self.dice.sample(broken, self.dice.randrange(1, len(broken) + 1)):
            self.mend(file)
        self.run()
        assert self.written(left) == before


def require_plain(ended: Ended) -> None:
    require_words(ended.said)


def require_words(text: str) -> None:
    for word in ("Traceback", "unforeseen"):
        assert word not in text, text


def kinds(dice: random.Random) -> list[tuple[str, str]]:
    """What each file of a fleet is: its schema, and how it is broken. Files that are alike are
    more than those of any other schema."""
    found = [(dice.choice([*ALIKE]), "") for _ in range(dice.randrange(3, 5))]
    found += [(schema, "") for schema in dice.sample([*DRIFTED], dice.randrange(1, 3))]
    for how in dice.sample([*BROKEN, "locked"], dice.randrange(2, 5)):
        # One with larger values would fit no more where tables are shared and made by then.
        found.append((dice.choice(["plain", "plain", "empty", *DRIFTED]), how))
    dice.shuffle(found)
    return found


@pytest.fixture
def mixed(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    postgres: str,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Mixed]:
    seed = int(request.param)
    layout, live = MODES[seed % len(MODES)]
    dice = random.Random(seed)
    monkeypatch.setattr(crew.Worker, "ask", lambda _worker, task: worker.answer(task))
    monkeypatch.setattr(waiting._Process, "patience", 0.1)
    monkeypatch.setattr("migration_job.commands.fleet_live.LOCK_SECONDS", 0.1)
    files: dict[str, File] = {}
    plan = kinds(dice)
    for number, (schema, _) in enumerate(plan):
        file = File.made(tmp_path, number, schema, dice)
        files[file.name] = file
    marked = str(psycopg.conninfo.conninfo_to_dict(postgres)["dbname"])
    name = {"schema-per-file": "c_{tenant}", "database-per-file": f"{marked}_{{tenant}}"}
    text = f"files: [{', '.join(f'in/{name}.db' for name in files)}]\nlayout: {layout}\n"
    text += f"name: '{name[layout]}'\n" if layout in name else ""
    text += f"live: {str(live).lower()}\n"
    kit = LiveKit(tmp_path, postgres, text=text)
    kit.make()
    made = Mixed(kit, layout, marked, live, files, dice)
    for (_, how), file in zip(plan, files.values(), strict=True):
        if how:
            file.break_(how, dice)
    print(f"\nFLEET_SEED={seed} FLEET_EXAMPLES=1: {layout}{', live' if live else ''}")
    for file in files.values():
        print(f"  {file.name}: {file.schema}, {file.journal}, {file.broken or 'healthy'}")
    yield made
    for file in files.values():
        if file.holder is not None:
            file.holder.close()
    if layout == "database-per-file":
        kit.do(*(f'DROP DATABASE IF EXISTS "{marked}_{name}" WITH (FORCE)' for name in files))


def seeds(live: bool) -> list[int]:
    return [s for s in range(FIRST, FIRST + EXAMPLES) if MODES[s % len(MODES)][1] is live]


@pytest.mark.parametrize("mixed", seeds(live=False), indirect=True)
def test_a_fleet_at_rest(mixed: Mixed) -> None:
    mixed.run_twice()
    mixed.mend_some()
    victim = mixed.files[mixed.dice.choice(mixed.verified())]
    if not victim.broken:
        victim.break_(mixed.dice.choice([*BROKEN]), mixed.dice)
        mixed.run()
    mixed.mend_all()
    ended = mixed.run()
    left = [name for name, state in mixed.kit.states().items() if state != "verified"]
    assert all(not mixed.files[name].alike for name in left), ended.said
    assert not left or mixed.layout == "tenant-column", ended.said
    if mixed.layout == "tenant-column":
        found = mixed.kit.ask("SELECT DISTINCT tenant FROM person")
        assert {name for (name,) in found} <= set(mixed.verified())


INSERT = "INSERT INTO person (id, name, active) VALUES ({}, '{}', {})"


def on_lite(mixed: Mixed, names: Sequence[str], number: int) -> None:
    """Each tenant's application writes to its file."""
    for name in names:
        row = INSERT.format(1000 + number, f"{number} of {name}", 1)
        more = f"{row}; DELETE FROM person WHERE id = {number}"
        mixed.kit.write(name, f"PRAGMA foreign_keys = ON; {more}")


def follow(mixed: Mixed) -> Ended:
    ended = mixed.kit.live("fleet-sync", "--once")
    require_plain(ended)
    require_words((mixed.kit.report / "fleet-sync.json").read_text(encoding="utf-8"))
    return ended


def require_followed(mixed: Mixed) -> None:
    """Bring every file's other side up to date."""
    ended = follow(mixed)
    assert ended.status == DONE, ended.said


@pytest.mark.parametrize("mixed", seeds(live=True), indirect=True)
def test_a_fleet_in_use(mixed: Mixed) -> None:
    mixed.run_twice()
    healthy = [name for name in mixed.verified() if not mixed.files[name].broken]
    on_lite(mixed, healthy, 1)
    require_followed(mixed)
    mixed.require_all_equal(healthy)
    over = mixed.dice.sample(healthy, mixed.dice.randrange(1, 3))
    words = [word for name in over for word in ("--tenant", name)]
    switched = mixed.kit.live("fleet-switch", *words)
    require_plain(switched)
    assert switched.status == DONE, switched.said
    for name in over:
        mixed.do(mixed.files[name], INSERT.format(2000, f"PostgreSQL {name}", "true"))
        with pytest.raises(apsw.Error):
            mixed.kit.write(name, INSERT.format(3000, "refused", 1))
    on_lite(mixed, [name for name in healthy if name not in over], 2)
    require_followed(mixed)
    mixed.require_all_equal(healthy)
    mixed.mend_some()
    lose_one(mixed, [name for name in healthy if name not in over])
    back = mixed.kit.live("fleet-rollback", *words)
    require_plain(back)
    assert back.status == DONE, back.said
    mixed.mend_all()
    ended = mixed.run()
    assert ended.status == DONE, ended.said
    on_lite(mixed, [*mixed.files], 4)
    require_followed(mixed)
    mixed.require_all_equal([*mixed.files])
    states = {name: one["state"] for name, one in mixed.kit.status()["tenants"].items()}
    assert states == dict.fromkeys(mixed.files, "caught up")


def lose_one(mixed: Mixed, names: Sequence[str]) -> None:
    """A file that is followed is damaged, taken away or locked, and comes back."""
    victim = mixed.files[mixed.dice.choice(names)]
    victim.keep()
    victim.followed = True
    how = mixed.dice.choice([*BROKEN, "locked"])
    print(f"  then {victim.name}: {how}")
    victim.break_(how, mixed.dice)
    others = [name for name in names if name != victim.name]
    on_lite(mixed, others, 3)
    ended = follow(mixed)
    if how in NOTHING:
        assert ended.status == FAILED, ended.said
    if ended.status != DONE:
        assert f"1 file that cannot be followed: {victim.name};" in ended.said, ended.said
    mixed.require_all_equal(others)
    mixed.run()
    victim.mend()
    require_followed(mixed)
    mixed.require_all_equal(names)
