"""`status` says in ten lines where things stand and what to do next, in every phase."""

from __future__ import annotations

import re
import shlex
import sqlite3
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from migration_job.commands.live_options import LiveOptions
from migration_job.errors import JobError
from migration_job.phases import Phase
from migration_job.protocol import lease
from migration_job.protocol.rollback import rollback
from migration_job.protocol.settle import settle
from migration_job.protocol.status import Given, status
from migration_job.protocol.switch import move_reads, switch
from migration_job.protocol.sync import Sync, read_report
from migration_job.protocol.whole_command import Known
from tests.integration.livekit import fresh_source
from tests.integration.running import DIFFERS, DONE, USAGE, run
from tests.integration.test_switch import Stage
from tests.integration.test_switch import stage as stage  # the fixture
from tools.status import after_healing, in_stages_words

pytestmark = pytest.mark.postgres

ROOT = Path(__file__).resolve().parents[2]
NAMES = (
    *("serves", "source", "target", "certificate", "connection"),
    *("sync", "held", "at work", "way back", "next"),
)


def lines(stage: Stage, *, dsn: str | None = "") -> dict[str, str]:
    """What it says, by each line's first word; at most ten lines, each with something in it."""
    told = status(
        stage.migration.source,
        dsn=stage.migration.dsn if dsn == "" else dsn,
        connection=stage.ends.connection,
        state=stage.ends.state,
    )
    assert len(told) <= 10
    found = {line[:12].strip(): line[12:] for line in told}
    assert tuple(found) == NAMES
    assert all(found.values())
    return found


def set_phase(stage: Stage, phase: Phase) -> None:
    """As a run that was cut off in that phase has left it."""
    with psycopg.connect(stage.migration.dsn, autocommit=True) as target:
        target.execute("UPDATE migration.run SET phase = %s", [phase.value])


def test_before_anything_was_done(tmp_path: Path, postgres: str) -> None:
    told = status(fresh_source(tmp_path), dsn=postgres, connection=None, state=None)
    assert told[0] == "serves      SQLite"
    assert "no run of this job" in told[2]
    assert told[-1] == (
        "next        `migration-job migrate`, or `migrate --live` while the application goes on "
        "writing"
    )


def test_nothing_is_left_beside_the_source(tmp_path: Path) -> None:
    """A reader of a file in WAL mode makes `-wal` and `-shm`, which it may not remove."""
    source = fresh_source(tmp_path)
    with closing(sqlite3.connect(source)) as made:
        assert made.execute("PRAGMA journal_mode = wal").fetchone() == ("wal",)
    before = sorted(source.parent.iterdir())
    status(source, dsn=None, connection=None, state=None)
    assert sorted(source.parent.iterdir()) == before


@pytest.mark.parametrize(
    ("phase", "next_"),
    [
        (Phase.PREPARED, "`migration-job migrate --live` as before; it continues"),
        (Phase.CAPTURING, "`migration-job migrate --live` as before; it continues"),
        (Phase.COPIED, "`migration-job migrate --live` as before; it continues"),
        (Phase.CAUGHT_UP, "`migration-job switch`"),
        (Phase.VERIFIED, "`migration-job switch`"),
    ],
)
def test_on_the_way_there(stage: Stage, phase: Phase, next_: str) -> None:
    Sync(stage.ends).run(once=True)
    set_phase(stage, phase)
    told = lines(stage)
    assert told["serves"] == "SQLite"
    assert f"phase {phase.value!r}" in told["target"]
    assert told["next"].startswith(next_)
    assert told["way back"] == "not needed: SQLite serves"


def test_with_nobody_following(stage: Stage) -> None:
    assert "start `migration-job sync`" in lines(stage)["next"]


def test_with_the_reads_moved(stage: Stage) -> None:
    Sync(stage.ends).run(once=True)
    move_reads(stage.ends)
    told = lines(stage)
    assert told["serves"] == "SQLite (PostgreSQL answers reads)"
    assert "writes to SQLite" in told["connection"]
    assert "reads from PostgreSQL" in told["connection"]
    assert "`migration-job switch`" in told["next"]


def test_switched_within_the_window_and_after_it(stage: Stage) -> None:
    switch(stage.ends)
    Sync(stage.ends).run(once=True)
    told = lines(stage)
    assert told["serves"].startswith("PostgreSQL, since 20")
    assert "the window ends 20" in told["way back"]
    assert told["next"] == "nothing; `migration-job rollback` goes back"
    with closing(sqlite3.connect(stage.migration.source)) as source, source:
        source.execute("UPDATE _migration_state SET switched_at = '2026-01-01T00:00:00+00:00'")
    assert lines(stage)["next"] == "`migration-job settle`"


def test_rolled_back(stage: Stage) -> None:
    switch(stage.ends)
    rollback(stage.ends)
    Sync(stage.ends).run(once=True)
    told = lines(stage)
    assert told["serves"] == "SQLite"
    assert "`migration-job switch`" in told["next"]


def test_settled(stage: Stage, tmp_path: Path) -> None:
    Sync(stage.ends).run(once=True)
    switch(stage.ends)
    settle(stage.ends, tmp_path / "report", force=True)
    told = lines(stage)
    assert told["sync"] == "has ended: there is nothing left to follow"
    assert told["way back"] == "given up by settle"
    assert told["next"] == "nothing: the migration is over"


def test_a_source_that_is_gone_while_postgresql_serves(stage: Stage, tmp_path: Path) -> None:
    switch(stage.ends)
    source = stage.migration.source
    source.rename(tmp_path / "elsewhere.db")
    try:
        told = lines(stage)
        by_the_target = run("status", source, "--target", stage.migration.dsn)
        by_the_connection = run("status", source, "--connection", str(stage.ends.connection))
        (tmp_path / "state").mkdir()
        by_neither = run("status", source, "--state", tmp_path / "state")
    finally:
        (tmp_path / "elsewhere.db").rename(source)
    assert told["serves"].startswith("PostgreSQL")
    assert told["way back"] == "unknown: the source cannot be read"
    for asked in (by_the_target, by_the_connection):
        assert asked.status == DONE, asked.said
        assert asked.out.startswith("serves  ")
    assert by_neither.status == USAGE
    assert f"no such file: {source}" in by_neither.err


def test_a_source_that_is_gone_while_sqlite_serves(stage: Stage, tmp_path: Path) -> None:
    source = stage.migration.source
    source.rename(tmp_path / "elsewhere.db")
    try:
        asked = run("status", source, "--target", stage.migration.dsn)
    finally:
        (tmp_path / "elsewhere.db").rename(source)
    assert asked.status == USAGE
    assert asked.out.startswith("serves      unknown: the source cannot be read\n")
    assert "next        make the source readable, then ask again" in asked.out
    assert f"no such file: {source}" in asked.err


def test_without_the_target_the_syncs_word_is_taken(stage: Stage) -> None:
    Sync(stage.ends).run(once=True)
    told = lines(stage, dsn=None)
    assert told["target"] == "not asked (no --target)"
    assert told["next"] == "`migration-job switch`: it verifies the remaining changes first"


def test_the_page_shows_what_is_printed(stage: Stage) -> None:
    """The sample of docs/how-to/status.md: each line but the engine's, by its words."""
    Sync(stage.ends).run(once=True)
    connection = stage.ends.connection
    assert connection is not None
    told = status(stage.migration.source, dsn=None, connection=connection, state=stage.ends.state)
    page = (ROOT / "docs" / "how-to" / "status.md").read_text(encoding="utf-8")
    sample = page.split("```")[3].strip().splitlines()
    shown = [line for line in sample if not line.startswith("engine ")]
    assert len(shown) == len(sample) - 1

    def words(line: str) -> str:
        return re.sub(r"\d[\d.]*", "N", in_stages_words(line, "production"))

    places = {
        str(connection): "/srv/radcase/state/connection",
        str(stage.migration.source): "/srv/radcase/radcase.db",
    }
    printed = "\n".join(told)
    for there, place in places.items():
        printed = printed.replace(there, place)
    assert [words(line) for line in printed.splitlines()] == [words(line) for line in shown]


def test_a_comparison_while_postgresql_serves_asks_for_no_migration(stage: Stage) -> None:
    Sync(stage.ends).run(once=True)
    switch(stage.ends)
    with psycopg.connect(stage.migration.dsn) as target:
        target.execute("INSERT INTO events (what) VALUES ('there')")
    source, dsn = stage.migration.source, stage.migration.dsn
    ended = run("verify", source, "--target", dsn, "--report", stage.directory / "verified")
    assert ended.status == DIFFERS
    assert "`migration-job status` tells what SQLite has yet to take back" in ended.said
    assert "migrate` again" not in ended.said
    assert "nothing was switched" not in ended.said


def test_how_far_the_other_side_is_is_counted_now(stage: Stage) -> None:
    """And not taken from the last report of `sync`, beside which another line counts again."""
    Sync(stage.ends).run(once=True)
    with closing(sqlite3.connect(stage.migration.source)) as source, source:
        source.executemany("INSERT INTO events (what) VALUES (?)", [("late",)] * 3)
    assert lines(stage)["sync"].startswith("runs (forward): 3 changes behind, oldest at most ")
    switch(stage.ends)
    Sync(stage.ends).run(once=True)
    assert lines(stage)["sync"] == "runs (back): 0 changes behind"
    with psycopg.connect(stage.migration.dsn) as target:
        target.execute("INSERT INTO events (what) VALUES ('there')")
    told = lines(stage)
    assert told["sync"].startswith("runs (back): 1 change behind, oldest at most ")
    assert "1 change to come" in told["way back"]


def test_a_sync_that_waits_tells_a_lag_that_grows(stage: Stage) -> None:
    sync = Sync(stage.ends)
    sync.run(once=True)
    away = stage.migration.source.rename(stage.migration.source.with_suffix(".away"))
    lags = []
    for _ in range(2):
        with pytest.raises(JobError):
            sync.run(once=True)
        report = read_report(stage.ends.state)
        assert report is not None
        lags.append(report.lag_seconds)
    assert 0 < lags[0] < lags[1]
    away.rename(stage.migration.source)
    told = lines(stage)
    assert "waiting: " in told["sync"]
    assert told["next"] == "fix what `sync` waits for (above): `switch` would refuse for it"


def test_next_waits_for_a_hold(stage: Stage) -> None:
    Sync(stage.ends).run(once=True)
    lease.hold(stage.ends, seconds=600, reason="a restart", by="anna@db1", wait=5, say=print)
    assert lines(stage)["next"].startswith("wait for the end of the hold by anna@db1")


def test_next_is_a_whole_command_once_one_was_run(stage: Stage, tmp_path: Path) -> None:
    """A shell takes it as it stands, and it names no secret."""
    Sync(stage.ends).run(once=True)
    (tmp_path / "it's").mkdir()
    given = LiveOptions(
        source=stage.migration.source,
        report=tmp_path / "it's",
        connection=stage.ends.connection,
        connect_to=tmp_path / "app.json",
        target="postgresql://owner:secret@db/x",
    ).arguments()
    told = status(
        stage.migration.source,
        dsn=stage.migration.dsn,
        connection=stage.ends.connection,
        state=stage.ends.state,
        given=Given(Known(source=stage.migration.source, recalled=" ".join(given))),
    )
    assert "secret" not in " ".join(told)
    words = shlex.split(told[-1])
    assert words[:3] == ["migration-job", "switch", str(stage.migration.source)]
    assert words[words.index("--report") + 1] == str(tmp_path / "it's")
    assert words[words.index("--target") + 1] == "$TARGET"


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        (
            "next        `migration-job switch`: it verifies the remaining changes first",
            "next        `cutover: switch` in Pulumi.dev.yaml, then `make up STAGE=dev`: it "
            "verifies the remaining changes first",
        ),
        (
            "next        nothing; `migration-job rollback` goes back",
            "next        nothing; `cutover: hold` and `make up STAGE=dev` goes back",
        ),
        (
            "next        bring PostgreSQL back; if it is gone for good, `rollback --accept-loss`",
            "next        bring PostgreSQL back; if it is gone for good, "
            "`MIGRATION_ACCEPT_LOSS=yes make down STAGE=dev`",
        ),
        ("serves      SQLite", "serves      SQLite"),
    ],
)
def test_of_a_stage_it_speaks_of_the_stage_file_and_make(said: str, wanted: str) -> None:
    assert in_stages_words(said, "dev") == wanted


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ("next        `migration-job migrate`", "next        `make up STAGE=dev`"),
        (
            "next        `migration-job migrate`, or `migrate --live` while the application goes "
            "on writing",
            "next        `make up STAGE=dev`",
        ),
        (
            "next        `migration-job migrate --live` as before; it continues where it stopped",
            "next        `make up STAGE=dev` as before; it continues where it stopped",
        ),
        (
            "next        start `migration-job sync`",
            "next        `make up STAGE=dev` (it starts the sync again)",
        ),
        (
            "next        nothing; `migration-job rollback` goes back",
            "next        `make up STAGE=dev` makes what is missing",
        ),
        (
            "next        `migration-job switch`",
            "next        `make up STAGE=dev` makes what is missing; then `cutover: switch` in "
            "Pulumi.dev.yaml, then `make up STAGE=dev`",
        ),
    ],
)
def test_where_containers_are_missing_one_command_makes_them(said: str, wanted: str) -> None:
    assert after_healing(in_stages_words(said, "dev"), "dev") == wanted
