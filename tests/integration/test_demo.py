"""The demo, as a newcomer runs it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from migration_job.commands.demo import DemoOptions, _catalogue
from migration_job.demo.radcase import make_radcase
from migration_job.demo.stage import fresh_directory
from migration_job.plan.policy import parse_policy
from tests.conftest import MakeSqlite
from tests.integration.running import BLOCKED, DONE, run
from tests.servers import MAJOR

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.postgres


def demo(directory: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "migration_job", "demo", *map(str, arguments)]
    return subprocess.run(
        [*command, "--directory", str(directory), "--postgres", str(MAJOR)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def contents(*files: Path) -> list[bytes]:
    return [file.read_bytes() for file in files]


def test_moves_a_file_of_ones_own_and_leaves_it_as_it_was(tmp_path: Path) -> None:
    source = tmp_path / "mine" / "app.db"
    source.parent.mkdir()
    make_radcase(source, rows=1_000)
    # An application has it open, with a write that is only in the write-ahead log.
    application = sqlite3.connect(source)
    application.execute("INSERT INTO tags (id, name) VALUES (9999, 'only in the log')")
    application.commit()
    files = sorted(f for f in source.parent.iterdir() if not f.name.endswith("-shm"))
    before = contents(*files)

    ended = demo(tmp_path / "out", source, "--profile", "radcase", "--still")
    assert ended.returncode == 0, ended.stderr
    assert contents(*files) == before
    application.close()
    assert "1,001 rows in 51 tables moved and verified" in ended.stdout
    assert "the source     is byte for byte as it was" in ended.stdout
    assert re.search(
        r"as the application, through (PgBouncer|PostgreSQL): \w+ has \d+ rows", ended.stdout
    )

    report = json.loads((tmp_path / "out" / "report" / "report.json").read_text())
    assert report["outcome"] == "verified"
    assert report["tables"]["tags"]["target_rows"] == 61
    named = json.loads((tmp_path / "out" / "connection" / "database.json").read_text())
    assert named["write"]["engine"] == named["read"]["engine"] == "postgresql"
    assert named["write"]["password"] not in ended.stdout + ended.stderr


def pgbouncer_is_here() -> bool:
    return Path("/usr/sbin/pgbouncer").exists() or shutil.which("pgbouncer") is not None


@pytest.mark.slow
def test_a_file_of_ones_own_is_rehearsed_live_on_a_copy(tmp_path: Path) -> None:
    source = tmp_path / "mine" / "it's mine.db"
    source.parent.mkdir()
    make_radcase(source, rows=1_000)
    before = source.read_bytes()
    ended = demo(tmp_path / "out", source, "--profile", "radcase", "--dwell", "0.5")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert source.read_bytes() == before
    assert sorted(p.name for p in source.parent.iterdir()) == [source.name]
    assert "the source     is byte for byte as it was" in ended.stdout
    last = ended.stdout.rstrip().splitlines()[-1]
    assert re.fullmatch(
        r"0 of [\d,]+ requests failed; longest wait [\d,]+ ms; "
        r"[\d,]+ writes during the migration, all present",
        last,
    )
    assert "decided: PostgreSQL serves" in ended.stdout
    if pgbouncer_is_here():
        assert "decided: SQLite serves" in ended.stdout
        taken = re.search(r"writes were taken ([\d,]+) by PostgreSQL, ([\d,]+) by", ended.stdout)
        assert taken, ended.stdout
    # What it wrote to is gone; what it found stays.
    assert not (tmp_path / "out" / "copy").exists()
    page = (tmp_path / "out" / "report" / "report.html").read_text()
    assert "Switch to PostgreSQL" in page
    kinds = {json.loads(line).get("kind", "") for line in journal(tmp_path / "out")}
    assert {kind.split()[0] for kind in kinds if kind} == {"touch", "change", "add"}


def journal(out: Path) -> list[str]:
    files = (out / "journal").glob("*.jsonl")
    return [line for file in files for line in file.read_text().splitlines()]


def test_what_the_profile_refuses_blocks_and_nothing_is_switched(tmp_path: Path) -> None:
    source = tmp_path / "hostile.db"
    make_radcase(source, rows=1_000, hostile=True)
    ended = demo(tmp_path / "out", source, "--profile", "radcase", "--dwell", "0")
    assert ended.returncode == 3, ended.stderr
    assert "not migrated: blocked" in ended.stdout
    assert "error: cases.title: " in ended.stdout
    assert "inspect" in ended.stdout
    named = json.loads((tmp_path / "out" / "connection" / "database.json").read_text())
    assert named["write"]["engine"] == "sqlite"


def test_what_blocks_is_resolved_as_the_tutorial_says(
    tmp_path: Path, make_sqlite: MakeSqlite
) -> None:
    """Its three commands: what is wrong, the policy that resolves it, the rehearsal with it."""
    source = make_sqlite(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, words TEXT);"
        "INSERT INTO t VALUES (1, 'whole'), (2, 'cut' || char(0) || 'off')"
    )
    blocked = run("inspect", source)
    assert blocked.status == BLOCKED
    suggested = run("inspect", source, "--suggest")
    policy = tmp_path / "policy.yaml"
    policy.write_text(suggested.out)
    assert run("inspect", source, "--policy", policy).status == DONE
    ended = demo(tmp_path / "out", source, "--policy", policy)
    assert ended.returncode == 0, ended.stderr
    assert "moved and verified" in ended.stdout


def test_a_rehearsal_with_exceptions_says_what_settles_them(tmp_path: Path) -> None:
    """The two commands below "next", run as they are printed: the name needs quotes."""
    source = tmp_path / "it's many.db"
    with contextlib.closing(sqlite3.connect(source)) as own, own:
        own.execute("CREATE TABLE stock (id INTEGER PRIMARY KEY, quantity INTEGER)")
        own.executemany("INSERT INTO stock VALUES (?, ?)", [(n, n) for n in range(500)])
        own.execute("UPDATE stock SET quantity = 'many' WHERE id = 77")
    ended = demo(tmp_path / "out", source, "--still")
    assert ended.returncode == 0, ended.stderr
    assert "with exceptions: 1 column changed type (stock.quantity)" in ended.stdout
    commands = re.findall(r"^  migration-job (.*)$", ended.stdout, re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["inspect", "demo"]
    inspect, again = map(shlex.split, commands)
    policy = tmp_path / inspect[-1]
    assert run(*inspect[:-1], policy).status == DONE
    blocks = policy.read_text().split("\n\n")
    either = next(block for block in blocks if block.startswith("## Either"))
    policy.write_text("\n".join(line.removeprefix("# ") for line in either.splitlines()))
    ended = demo(tmp_path / "out", Path(again[1]), *again[2:-1], str(policy), "--still")
    assert ended.returncode == 0, ended.stderr
    assert "moved and verified, with exceptions: 1 row set aside" in ended.stdout


def test_any_sqlite_file_will_do(tmp_path: Path, make_sqlite: MakeSqlite) -> None:
    source = make_sqlite("CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 'x'), (NULL, x'00')")
    ended = demo(tmp_path / "out", source, "--still")
    assert ended.returncode == 0, ended.stderr
    assert "2 rows in 1 table moved and verified" in ended.stdout


def test_a_table_of_the_rehearsals_name_is_a_clear_error(
    tmp_path: Path, make_sqlite: MakeSqlite
) -> None:
    source = make_sqlite("CREATE TABLE App_Requests (a); INSERT INTO App_Requests VALUES (1)")
    ended = demo(tmp_path / "out", source)
    assert ended.returncode == 1, ended.stdout
    assert "expected no table 'app_requests' in the source" in ended.stderr
    assert "--still" in ended.stderr
    assert not (tmp_path / "out" / "copy").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nosuch.db", "no such file"),
        (".", "found a directory"),
        ("notes.txt", "not a SQLite database"),
    ],
)
def test_bad_input_is_one_clear_error(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "notes.txt").write_text("dear diary\n" * 100)
    ended = demo(tmp_path / "out", tmp_path / name)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ")
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--rows", "5"), "expected at least 1,000 rows, found 5"),
        (("--postgres", "9"), "PostgreSQL 9 is not one of the supported versions"),
        (("--policy", "nosuch.yaml"), "the policy cannot be read: nosuch.yaml"),
        (("--policy", "bad.yaml"), "bad.yaml"),
        (("--policy", "unknown.yaml"), "tables.nosuch: expected a table of the source"),
        (("mine.db", "--policy", "unknown.yaml"), "expected a table of the source"),
        (("--policy", "out/policy.yaml"), "which this empties"),
        (("--profile", "nosuch"), "expected a profile"),
        (("--profile", "out/policy.yaml"), "which this empties"),
        (("--metrics-port", "0"), "'--metrics-port': Input should be greater than or equal to 1"),
        (
            ("--metrics-port", "70000"),
            "'--metrics-port': Input should be less than or equal to 65535",
        ),
        (("--dwell", "-1"), "Invalid value for '--dwell'"),
        (("--fleet", "1"), "Invalid value for '--fleet'"),
        (("--fleet", "3", "mine.db"), "expected no file beside --fleet"),
        (("--fleet", "3", "--postgres", "9"), "PostgreSQL 9 is not one"),
        (("nosuch.db",), "no such file"),
        (("out/mine.db",), "which this empties"),
    ],
    ids=lambda given: " ".join(given) if isinstance(given, tuple) else "",
)
def test_bad_input_costs_no_earlier_demos_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text("tables: [\n")
    Path("unknown.yaml").write_text("tables:\n  nosuch:\n    columns: {}\n")
    out = fresh_directory(tmp_path / "out")
    (out / "report").mkdir()
    (out / "report" / "report.html").write_text("<p>Verified</p>")
    (out / "policy.yaml").write_text("default: block\n")
    for place in (tmp_path, out):
        with contextlib.closing(sqlite3.connect(place / "mine.db")) as source, source:
            source.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    ended = run("demo", "--directory", out, "--rows", "1000", "--postgres", str(MAJOR), *options)
    assert ended.status == 2
    assert words in ended.err
    assert "next" not in ended.out
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


def test_a_policy_may_name_what_the_demo_itself_makes() -> None:
    for table in ("cases", "app_requests"):
        parse_policy(f"tables: {{{table}: {{action: quarantine}}}}").check(
            _catalogue(DemoOptions())
        )


def test_a_source_that_the_configuration_names_is_not_a_fleets(tmp_path: Path) -> None:
    """An unknown PostgreSQL ends the demo, after the other options were found to fit."""
    for text in ('source = "app.db"', 'source = "app.db"\n[demo]\nfleet = 3'):
        (tmp_path / "migration-job.toml").write_text(text + "\n")
        given = () if "fleet" in text else ("--fleet", "3")
        ended = subprocess.run(
            [sys.executable, "-m", "migration_job", "demo", *given, "--postgres", "9"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ended.returncode == 2
        assert "PostgreSQL 9 is not one" in ended.stderr, ended.stderr


def test_a_migration_that_is_refused_says_nothing_happy(
    tmp_path: Path, make_sqlite: MakeSqlite
) -> None:
    """The policy can be read, and names a table that the source has not."""
    source = make_sqlite("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    policy = tmp_path / "policy.yaml"
    policy.write_text("tables:\n  nosuch:\n    columns: {}\n")
    ended = demo(tmp_path / "out", source, "--policy", policy, "--still")
    assert ended.returncode == 2, ended.stdout + ended.stderr
    assert "nosuch" in ended.stderr
    assert "\nnext\n" not in ended.stdout


@pytest.mark.parametrize("own", [False, True])
def test_ctrl_c_ends_with_a_sentence_and_leaves_nothing_running(tmp_path: Path, own: bool) -> None:
    """While the application is used and `migrate` runs; a terminal signals all of them."""
    source = tmp_path / "mine.db"
    make_radcase(source, rows=2_000)
    before = source.read_bytes()
    command = [sys.executable, "-m", "migration_job", "demo", *([str(source)] if own else [])]
    command += ["--directory", str(tmp_path / "out"), "--postgres", str(MAJOR), "--rows", "2000"]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "MARK_OF_THIS_DEMO": str(tmp_path)},
    ) as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line)
            if line.startswith("$ migration-job migrate"):
                os.killpg(process.pid, signal.SIGINT)
                break
        said.append(process.stdout.read())
    assert process.returncode == 130, said
    last = said[-1].rstrip().splitlines()[-1]
    assert last.startswith("stopped: the servers and programs that the demo started have ended")
    assert ("was only read" in last) == own
    assert "Traceback" not in "".join(said)
    assert source.read_bytes() == before
    left = [p for p in Path("/proc").glob("[0-9]*/environ") if _holds(p, str(tmp_path).encode())]
    assert left == []


def _holds(environment: Path, mark: bytes) -> bool:
    try:
        return b"MARK_OF_THIS_DEMO=" + mark in environment.read_bytes()
    except OSError:
        return False


def test_an_empty_database_is_told_to_prove_nothing_but_its_schema(
    tmp_path: Path, make_sqlite: MakeSqlite
) -> None:
    source = make_sqlite("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT)")
    ended = demo(tmp_path / "out", source, "--still")
    assert ended.returncode == 0, ended.stderr
    warning = "warning: there is no row to migrate, so nothing was proven but the schema"
    for said in (ended.stdout, ended.stderr):  # the demo's own words, and those of `migrate`
        assert [line.strip() for line in said.splitlines()].count(warning) == 1


def test_a_directory_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    ended = demo(tmp_path, "--rows", "1000")
    assert ended.returncode == 2
    assert "found other files" in ended.stderr
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_a_source_in_the_demos_own_directory_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    make_radcase(out / "mine.db", rows=1_000)
    ended = demo(out, out / "mine.db")
    assert ended.returncode == 2
    assert "which this empties" in ended.stderr
    assert (out / "mine.db").exists()


@pytest.mark.slow
def test_a_live_application_is_switched_and_back_with_nothing_lost(tmp_path: Path) -> None:
    if not pgbouncer_is_here():
        pytest.skip("PgBouncer is not installed, and without it a rollback holds no queries")
    ended = demo(tmp_path / "out", "--rows", "2000", "--back")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    last = ended.stdout.rstrip().splitlines()[-1]
    assert re.fullmatch(
        r"0 of [\d,]+ requests failed; longest wait [\d,]+ ms; "
        r"[\d,]+ writes during the migration, all present",
        last,
    )
    taken = re.search(r"writes were taken ([\d,]+) by PostgreSQL, ([\d,]+) by SQLite", ended.stdout)
    assert taken, ended.stdout
    assert "decided: PostgreSQL serves" in ended.stdout
    assert "decided: SQLite serves" in ended.stdout
    named = json.loads((tmp_path / "out" / "connection" / "database.json").read_text())
    assert named["write"]["engine"] == "sqlite"


@pytest.mark.slow
@pytest.mark.skipif(not pgbouncer_is_here(), reason="no PgBouncer is installed here")
def test_a_fleet_goes_over_under_load_and_some_come_back(tmp_path: Path) -> None:
    ended = demo(tmp_path / "out", "--fleet", "6", "--dwell", "1")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "PostgreSQL serves 1 tenant, SQLite 5; 1 came back" in ended.stdout
    assert re.search(r"\n0 of [\d,]+ writes failed; .* acknowledged, all present", ended.stdout)
