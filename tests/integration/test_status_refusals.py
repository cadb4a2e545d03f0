"""What `status` says is next is what goes through: where the switch would refuse, it names the
cause, and the command that follows is whole."""

from __future__ import annotations

import contextlib
import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import apsw
import psycopg
import pytest

from infra.settings import read_file
from migration_job.errors import JobError
from migration_job.plan.policy import parse_policy
from migration_job.protocol import refusals
from migration_job.protocol.refusals import Accepted
from migration_job.protocol.settings import Endpoints, endpoints
from migration_job.protocol.status import REFUSES, Given, status
from migration_job.protocol.switch import switch
from migration_job.protocol.sync import Sync
from migration_job.protocol.whole_command import Known, SwitchOptions
from migration_job.stores.postgres import standbys
from migration_job.stores.postgres.standbys import Standbys
from tests.helpers import same_value
from tests.integration.running import BLOCKED, DONE, run
from tests.integration.test_times_of_libraries import STOCK
from tests.integration.wholeway import Way
from tools.status import accepted, in_stages_lines

pytestmark = pytest.mark.postgres

PLAIN = "CREATE TABLE t(id INTEGER PRIMARY KEY, a TEXT); INSERT INTO t VALUES (1, 'x')"
MORE = f"{PLAIN}; CREATE TABLE u(id INTEGER PRIMARY KEY); INSERT INTO u VALUES (1), (2), (3)"
HEAP = f"{PLAIN}; CREATE TABLE heap(a INTEGER); INSERT INTO heap VALUES (1)"
OWN = "CREATE TABLE own(id INTEGER PRIMARY KEY, a TEXT CHECK (own(a) <> ''))"


def ends_of(way: Way) -> Endpoints:
    ends = endpoints(
        way.source,
        way.dsn,
        connection=way.folder / "connection",
        connect_to=way.folder / "to.json",
        console=None,
        alias_file=None,
    )
    return replace(ends, state=way.folder / "state")


def named(way: Way) -> str:
    return str(psycopg.conninfo.conninfo_to_dict(way.dsn)["dbname"])


def read_only(way: Way) -> None:
    way.on_postgres(f'ALTER DATABASE "{named(way)}" SET default_transaction_read_only = on')


def without_certificate(way: Way) -> None:
    way.on_postgres("DELETE FROM migration.certificate")


def opened_fence(way: Way) -> None:
    way.on_postgres("UPDATE migration.fence SET closed = false")


def released(way: Way) -> None:
    """No capture, and the phase of a live run."""
    assert run("release", way.source, "--state", way.folder / "state").status == DONE
    way.on_postgres("UPDATE migration.run SET phase = 'caught up'")


def nothing(way: Way) -> None:
    del way


@dataclass(frozen=True)
class Case:
    """A migration whose switch refuses, and the words of the cause."""

    cause: str
    script: str = PLAIN
    policy: str = "{}"
    live: bool = True
    arrange: Callable[[Way], None] = nothing
    accepted: Accepted = field(default_factory=Accepted)
    options: str = ""
    """What the whole command ends with."""


CASES = {
    "retyped": Case("stock.quantity", STOCK, options='--policy "$POLICY"'),
    "retyped-offline": Case("stock.quantity", STOCK, live=False, options='--policy "$POLICY"'),
    "acknowledged-for-another": Case(
        "stock.quantity",
        STOCK,
        accepted=Accepted(policy=parse_policy("acknowledge: ['retyped-for-few:t.b']")),
        options='--policy "$POLICY"',
    ),
    "table-left-out": Case("u (3 rows)", MORE, "except: [u]", options='--policy "$POLICY"'),
    "rows-left-out": Case(
        "u (2 rows)", MORE, "{tables: {u: {where: id > 2}}}", options='--policy "$POLICY"'
    ),
    "rows-left-out-come-not-back": Case(
        "changes to u could not come back",
        MORE,
        "{tables: {u: {where: id > 2}}}",
        accepted=Accepted(policy=parse_policy("acknowledge: [rows-left-out]")),
        options="--one-way u",
    ),
    "without-a-key": Case("no key that both", HEAP, live=False, options="--one-way heap"),
    "own-function": Case("only the application has", OWN, options="--one-way own"),
    "unknown-one-way": Case("found 'none'", accepted=Accepted(one_way=("none",))),
    "read-only": Case("default_transaction_read_only", arrange=read_only),
    "no-certificate": Case("expected a certificate", arrange=without_certificate),
    "open-fence": Case("both sides are open to writes", arrange=opened_fence),
    "capture-taken-out": Case("found phase 'caught up'", arrange=released),
    "too-far": Case(
        "one whose answer takes",
        accepted=Accepted(budget=1e-7),
        options="--fence-seconds 1",
    ),
}


def arranged(case: Case, folder: Path, dsn: str) -> Way:
    way = Way.of(folder, dsn, "SELECT 1")
    with apsw.Connection(str(way.source)) as application:
        application.create_scalar_function("own", same_value, 1, deterministic=True)
        application.execute(case.script)
    (folder / "policy.yaml").write_text(case.policy)
    given = ("--policy", folder / "policy.yaml")
    if case.live:
        ended = way.migrate(*given)
        assert ended.status == DONE, ended.said
        Sync(ends_of(way)).run(once=True)
    else:
        ended = run(
            *("migrate", way.source, "--target", dsn, "--report", folder / "report", *given)
        )
        assert ended.status == DONE, ended.said
    case.arrange(way)
    return way


def told(way: Way, accepted: Accepted, *, asked: bool = True) -> list[str]:
    """What `status` says from what is next on."""
    lines = status(
        way.source,
        dsn=way.dsn if asked else None,
        connection=way.folder / "connection",
        state=way.folder / "state",
        given=Given(Known(source=way.source, recalled="GIVEN"), accepted, "u"),
    )
    return lines[next(n for n, line in enumerate(lines) if line.startswith("next ")) :]


def require_named(way: Way, case: Case) -> None:
    """The switch refuses, and `status` has said the same before."""
    said = told(way, case.accepted)
    ends = replace(
        ends_of(way), policy=case.accepted.policy, asynchronous=case.accepted.asynchronous
    )
    with pytest.raises(JobError) as refused:
        switch(ends, one_way=case.accepted.one_way, budget=case.accepted.budget)
    assert case.cause in refused.value.message
    command = f"            migration-job switch GIVEN {case.options}".rstrip()
    if case is CASES["too-far"]:  # the measured time is another each time
        assert case.cause in said[0]
        assert said[-1].startswith("            migration-job switch GIVEN --fence-seconds ")
        return
    assert said == [
        f"next        {REFUSES}{refused.value.message}",
        f"            {refused.value.advice}",
        command,
    ]


@pytest.mark.parametrize("name", CASES)
def test_what_the_switch_refuses_for_is_named(name: str, tmp_path: Path, postgres: str) -> None:
    case = CASES[name]
    require_named(arranged(case, tmp_path, postgres), case)


def test_an_asynchronous_standby_is_named(
    tmp_path: Path, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case("follow asynchronously", options="--accept-asynchronous")
    way = arranged(case, tmp_path, postgres)
    monkeypatch.setattr(
        standbys, "look", lambda _: Standbys(("b",), False, "1 standby (b) follow asynchronously")
    )
    require_named(way, case)
    assert "`rollback --release`" in told(way, Accepted(asynchronous=True))[0]


@pytest.mark.parametrize("journal", ["wal", "delete"])
def test_looking_for_refusals_leaves_nothing_and_writes_nothing(
    journal: str, tmp_path: Path, postgres: str
) -> None:
    """SQLite has no CHECK of a file that it may only read, so the look is by another connection."""
    way = arranged(CASES["own-function"], tmp_path, postgres)
    way.on_sqlite(f"PRAGMA journal_mode = {journal}")
    before, content = sorted(tmp_path.iterdir()), way.source.read_bytes()
    assert "only the application has" in told(way, Accepted())[0]
    assert sorted(tmp_path.iterdir()) == before
    assert way.source.read_bytes() == content
    # With an application at work, whose log of changes is not brought into the file either.
    with contextlib.closing(apsw.Connection(str(way.source))) as application:
        application.execute("CREATE TABLE later(a)")
        if journal == "wal":
            log = tmp_path / "app.db-wal"
            content, pages = way.source.read_bytes(), log.read_bytes()
            told(way, Accepted())
            assert (way.source.read_bytes(), log.read_bytes()) == (content, pages)


def test_where_nothing_is_in_the_way_the_switch_is_next(tmp_path: Path, postgres: str) -> None:
    """Also where what was in the way is accepted."""
    case = Case("", STOCK)
    way = arranged(case, tmp_path, postgres)
    accepted = Accepted(policy=parse_policy("acknowledge: [retyped-for-few]"))
    assert told(way, accepted) == [
        "next        `migration-job switch`, or `rollback --release` to give it up",
        "            migration-job switch GIVEN",
    ]
    switch(replace(ends_of(way), policy=accepted.policy))


def test_without_the_target_the_syncs_report_tells_the_cause(tmp_path: Path, postgres: str) -> None:
    way = arranged(CASES["retyped"], tmp_path, postgres)
    first, advice, command = told(way, Accepted(), asked=False)
    assert first == (
        "next        `migration-job switch` refuses unless this is accepted: 1 column got another "
        "type for the sake of a few values: stock.quantity"
    )
    assert "retyped-for-few:stock.quantity" in advice
    assert command == "            migration-job switch GIVEN"


@pytest.mark.parametrize("case", ["retyped", "table-left-out", "rows-left-out", "own-function"])
def test_without_the_target_what_is_accepted_is_not_in_the_way(
    case: str, tmp_path: Path, postgres: str
) -> None:
    """As a stage's file accepts it: the sync that reports knows nothing of that."""
    way = arranged(CASES[case], tmp_path, postgres)
    assert told(way, Accepted(), asked=False)[0].startswith(
        "next        `migration-job switch` refuses unless this is accepted: "
    )
    codes = ("retyped-for-few", "table-left-out", "rows-left-out")
    policy = parse_policy(f"acknowledge: [{', '.join(codes)}]")
    given = Accepted(policy=policy, one_way=("u", "OWN"))
    assert told(way, given, asked=False)[0] == (
        "next        `migration-job switch`: it verifies the remaining changes first"
    )


def test_what_another_releases_sync_wrote_is_not_in_the_way(tmp_path: Path, postgres: str) -> None:
    way = arranged(Case(""), tmp_path, postgres)
    file = tmp_path / "state" / "sync.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "ahead": {"later": 1}}))
    assert "`migration-job switch`" in told(way, Accepted(), asked=False)[0]


def test_a_stages_file_accepts_what_it_names(tmp_path: Path) -> None:
    file = tmp_path / "Pulumi.test.yaml"
    file.write_text(
        """config:
  sqlite-to-postgresql:source: a.db
  sqlite-to-postgresql:policy: {acknowledge: ["retyped-for-few:stock.quantity"]}
  sqlite-to-postgresql:oneWayTables: [u]
"""
    )
    found = accepted(read_file(file))
    assert found.one_way == ("u",)
    assert found.policy is not None
    assert found.policy.accepts("retyped-for-few", "stock", "quantity", None)


def test_a_source_that_is_locked_is_not_taken_for_one_that_cannot_be_written(
    tmp_path: Path, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    way = arranged(Case(""), tmp_path, postgres)

    def locked(*_: object) -> str:
        raise apsw.BusyError("database is locked")

    monkeypatch.setattr(refusals, "unwritable", locked)
    assert told(way, Accepted())[0].startswith("next        `migration-job switch`, or")


# ------------------------------------------------------------------- by the command line


def test_a_retyped_column_from_migrate_to_the_second_switch(tmp_path: Path, postgres: str) -> None:
    way = Way.of(tmp_path, postgres, STOCK)
    ended = way.migrate()
    assert ended.status == DONE
    assert "with exceptions: 1 column changed type" in ended.err
    last = ended.err.strip().splitlines()[-1]
    assert last.startswith("the switch waits until a policy acknowledges what is not as it was")
    assert "retyped-for-few:stock.quantity" in last
    shown = shlex.split(last.rpartition(": ")[2])
    assert shown == ["migration-job", "inspect", str(way.source)]
    assert "stock.quantity" in run(*shown[1:]).out
    Sync(ends_of(way)).run(once=True)
    assert REFUSES in way.status()
    assert way.command("switch").status == BLOCKED
    *_, advice, command = way.status().splitlines()
    assert "acknowledge" in advice
    words = shlex.split(command)
    assert words[:3] == ["migration-job", "switch", str(way.source)]
    assert words[-2:] == ["--policy", "$POLICY"]
    known = tmp_path / "it's known.yaml"
    known.write_text("acknowledge: [retyped-for-few]")
    assert way.command("switch", "--policy", known, "--one-way", "stock").status == DONE
    assert "--policy" not in way.status()
    way.back("--accept-loss")
    assert way.command("sync", "--once").status == DONE
    *_, following, command = way.status().splitlines()
    assert "`migration-job switch`" in following
    assert "refuse" not in following
    words = shlex.split(command)
    assert words[words.index("--policy") + 1] == str(known)
    assert words[words.index("--one-way") + 1] == "stock"
    assert words.count("--policy") == 1
    known.write_text("acknowledge: ['retyped-for-few:t.b']")
    *_, following, advice, command = way.status().splitlines()
    assert REFUSES in following
    assert shlex.split(command).count("--policy") == 1


def test_an_amber_run_that_leaves_rows_says_it_too(tmp_path: Path, postgres: str) -> None:
    way = Way.of(tmp_path, postgres, MORE)
    ended = way.migrate("--except", "u")
    assert ended.status == DONE
    last = ended.err.strip().splitlines()[-1]
    assert "acknowledge: ['table-left-out:u']" in last
    assert shlex.split(last.rpartition(": ")[2])[-2:] == ["--except", "u"]


def test_nothing_waits_after_a_plain_run(tmp_path: Path, postgres: str) -> None:
    ended = Way.of(tmp_path, postgres, PLAIN).migrate()
    assert ended.status == DONE
    assert "switch" not in ended.said


def offline(way: Way) -> None:
    ended = run("migrate", way.source, "--target", way.dsn, "--report", way.folder / "report")
    assert ended.status == DONE, ended.said


def test_before_any_live_command_each_command_is_whole(tmp_path: Path, postgres: str) -> None:
    way = Way.of(tmp_path, postgres, PLAIN)
    source, state = str(way.source), str(tmp_path / "state")
    *_, following, plain, live = way.status().splitlines()
    assert "`migration-job migrate`, or `migrate --live`" in following
    assert shlex.split(plain)[1:] == [
        *("migrate", source, "--report", "$REPORT", "--target", "$TARGET")
    ]
    assert shlex.split(live)[1:] == [
        *("migrate", "--live", source, "--report", "$REPORT", "--target", "$TARGET"),
        *("--state", state),
    ]
    offline(way)
    *_, following, command, pooler = way.status().splitlines()
    assert "`migration-job switch`" in following
    words = shlex.split(command)[1:]
    assert words == [
        *("switch", source, "--report", "$REPORT", "--connection", str(tmp_path / "connection")),
        *("--connect-to", "$CONNECT_TO", "--target", "$TARGET", "--state", state),
    ]
    assert '--pooler "$POOLER" --alias-file "$ALIAS_FILE"' in pooler
    values = {
        "$REPORT": str(tmp_path / "report"),
        "$CONNECT_TO": str(tmp_path / "to.json"),
        "$TARGET": way.dsn,
    }
    ended = run(*(values.get(word, word) for word in words))
    assert ended.status == DONE, ended.said


def test_a_capture_with_gaps_has_both_commands_whole(tmp_path: Path, postgres: str) -> None:
    way = Way.of(tmp_path, postgres, PLAIN)
    assert way.migrate().status == DONE
    (trigger,) = way.on_sqlite("SELECT name FROM sqlite_schema WHERE type = 'trigger' LIMIT 1")[0]
    way.on_sqlite(f'DROP TRIGGER "{trigger}"')
    *_, following, release, migrate = way.status().splitlines()
    assert "`migration-job release`, then `migrate --live`" in following
    words = shlex.split(release)[1:]
    assert run(*words).status == DONE
    values = {"$REPORT": str(tmp_path / "report"), "$TARGET": way.dsn}
    ended = run(*(values.get(word, word) for word in shlex.split(migrate)[1:]))
    assert ended.status == DONE, ended.said


def test_offline_there_is_nothing_to_release(tmp_path: Path, postgres: str) -> None:
    way = Way.of(tmp_path, postgres, PLAIN)
    offline(way)
    assert "--release" not in way.status()
    ended = way.command("rollback", "--release")
    assert ended.status == DONE
    assert "there was no capture on the source to remove" in ended.out
    assert "is removed" not in ended.out


def test_a_capture_that_was_there_is_said_to_be_removed(tmp_path: Path, postgres: str) -> None:
    way = Way.of(tmp_path, postgres, PLAIN)
    assert way.migrate().status == DONE
    assert "the capture is removed from the source" in way.back("--release").out
    assert not way.on_sqlite("SELECT name FROM sqlite_schema WHERE type = 'trigger'")


def test_offline_a_switch_and_a_rollback_remove_the_capture(tmp_path: Path, postgres: str) -> None:
    way = Way.of(tmp_path, postgres, PLAIN)
    offline(way)
    assert way.command("switch").status == DONE
    assert "the capture is removed from the source" in way.back().out


def test_what_the_last_switch_was_given_is_remembered_as_a_shell_takes_it() -> None:
    given = SwitchOptions(policy=Path("/a b"), one_way=("it's", "t"), fence_seconds="2")
    assert shlex.split(given.words()) == [
        *("--policy", "/a b", "--one-way", "it's", "--one-way", "t", "--fence-seconds", "2"),
    ]
    assert shlex.split(given.words("--fence-seconds 7"))[-2:] == ["--fence-seconds", "7"]
    assert shlex.split(given.words("--accept-asynchronous"))[-1] == "--accept-asynchronous"


def test_a_stage_settles_it_by_its_file(tmp_path: Path, postgres: str) -> None:
    way = arranged(CASES["retyped"], tmp_path, postgres)
    first, advice = in_stages_lines(told(way, Accepted()), "dev")
    assert first.startswith("next        `cutover: switch` would refuse: 1 column got another type")
    assert "and name that file by `policy` in Pulumi.dev.yaml" in advice
    assert "run `make up STAGE=dev`, or acknowledge" in advice
    assert "migration-job" not in advice
    first, advice = in_stages_lines(told(way, Accepted(), asked=False), "dev")
    assert first.startswith("next        `cutover: switch` refuses unless this is accepted: ")
    assert "Pulumi.dev.yaml" in advice


def test_a_stage_accepts_a_table_by_its_file() -> None:
    lines = [
        f"next        {REFUSES}changes to u could not come back",
        "            take that out of the source's schema; or accept it with --one-way u",
        "            migration-job switch GIVEN --one-way u",
    ]
    assert list(in_stages_lines(lines, "dev")) == [
        "next        `cutover: switch` would refuse: changes to u could not come back",
        "            take that out of the source's schema; or accept it by `oneWayTables` in "
        "Pulumi.dev.yaml",
    ]


def test_what_was_remembered_and_is_damaged_is_nothing(tmp_path: Path, postgres: str) -> None:
    way = Way.of(tmp_path, postgres, PLAIN)
    assert way.migrate().status == DONE
    whole: dict[str, object] = {"policy": None, "one_way": [], "accept_asynchronous": False}
    for damaged in ({"policy": 3}, {**whole, "fence_seconds": "long"}):
        (tmp_path / "state" / "switch-options.json").write_text(json.dumps(damaged))
        assert "next " in way.status()
