"""``migration-job inspect`` as the operator meets it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from migration_job.cli import app
from migration_job.demo.radcase import make_radcase
from migration_job.errors import ExitStatus, InputError
from tests.unit.planning import database
from tests.unit.test_suggest import few_at_fault, offered


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["inspect", *map(str, arguments)])


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    return database(
        tmp_path / "clean.db",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v DATETIME)",
        "INSERT INTO t VALUES (1, '2024-01-01 00:00:00')",
    )


@pytest.fixture
def dirty(tmp_path: Path) -> Path:
    return database(
        tmp_path / "dirty.db",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT, n INTEGER)",
        ("INSERT INTO t VALUES (1, ?, 'many')", ("a\x00\nerror: forged \x1b[31m",)),
    )


def test_a_clean_source_goes_through(clean: Path) -> None:
    before = clean.read_bytes()
    result = run(clean)
    assert result.exit_code == ExitStatus.DONE
    assert "1 table, 1 row" in result.stdout
    assert "goes through" in result.stdout
    assert clean.read_bytes() == before
    assert [p.name for p in clean.parent.iterdir()] == ["clean.db"]


def test_the_whole_plan(clean: Path) -> None:
    assert "timestamp(0) with time zone" in run(clean, "--plan").stdout


def test_an_error_says_what_where_and_what_resolves_it(dirty: Path) -> None:
    result = run(dirty)
    assert result.exit_code == ExitStatus.BLOCKED
    lines = result.stdout.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("error[nul-in-text]"))
    assert "--> t.v  (1)" in lines[start + 1]
    assert "id=1" in lines[start + 2]
    assert any(line.strip() == "action: quarantine" for line in lines[start:])
    assert not any(line.startswith("error: forged") for line in lines)
    assert "\x1b" not in result.stdout


def test_the_suggested_policy_lets_it_through(dirty: Path, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    result = run(dirty, "--suggest", file)
    assert result.exit_code == ExitStatus.BLOCKED
    assert result.stdout.splitlines()[-1] == (
        f"The suggested policy was tried, and the plan goes through with it. It is in {file}."
    )
    resolved = run(dirty, "--policy", file)
    assert resolved.exit_code == ExitStatus.DONE
    assert "quarantine by the policy" in resolved.stdout
    again = run(dirty, "--suggest", file)
    assert isinstance(again.exception, InputError)
    assert "already" in str(again.exception)


def test_a_policy_is_not_written_through_a_link(dirty: Path, tmp_path: Path) -> None:
    """Also not through one that leads to no file yet, which does not count as there."""
    link, elsewhere = tmp_path / "policy.yaml", tmp_path / "elsewhere.yaml"
    link.symlink_to(elsewhere)
    assert isinstance(run(dirty, "--suggest", link).exception, InputError)
    assert not elsewhere.exists()


def test_a_policy_that_cannot_be_written_is_a_sentence(dirty: Path, tmp_path: Path) -> None:
    result = run(dirty, "--suggest", tmp_path / "no such folder" / "policy.yaml")
    assert isinstance(result.exception, InputError)


def test_each_block_that_is_offered_is_a_policy(tmp_path: Path) -> None:
    """Taken by itself, without its `# `, as somebody would who reads "either" and "or"."""
    path = few_at_fault(tmp_path)
    policy, taken = tmp_path / "policy.yaml", tmp_path / "taken.yaml"
    assert run(path, "--suggest", policy).exit_code == ExitStatus.DONE
    assert run(path, "--policy", policy).exit_code == ExitStatus.DONE, "as it is written"
    blocks = offered(policy.read_text())
    assert len(blocks) == 2
    for block, lost in zip(blocks, (False, True), strict=True):
        taken.write_text(block)
        ended = run(path, "--policy", taken)
        assert ended.exit_code == ExitStatus.DONE, ended.output
        assert ("check-not-carried" in ended.output) == lost


@pytest.mark.parametrize(
    ("statements", "said"),
    [
        ((), "there is no table to migrate, so nothing would be proven\n"),
        (
            ("CREATE TABLE t(id INTEGER PRIMARY KEY)",),
            "there is no row to migrate, so nothing would be proven but the schema\n",
        ),
        (("CREATE TABLE t(id INTEGER PRIMARY KEY)", "INSERT INTO t VALUES (1)"), ""),
    ],
)
def test_an_empty_source_is_told_to_prove_nothing(
    tmp_path: Path, statements: tuple[str, ...], said: str
) -> None:
    ended = run(database(tmp_path / "empty.db", "PRAGMA user_version = 1", *statements))
    assert ended.exit_code == ExitStatus.DONE
    assert ended.output.endswith(
        f"warning: {said}" if said else "goes through: nothing to report.\n"
    )


def test_suggest_without_a_file_writes_yaml_alone(dirty: Path) -> None:
    result = run(dirty, "--suggest")
    assert "tables:" in result.stdout
    assert "error[" not in result.stdout
    assert "error[nul-in-text]" in result.stderr


def test_wrong_input(tmp_path: Path, clean: Path) -> None:
    for arguments in ([tmp_path / "no.db"], [clean, "x.yaml"], [clean, "--profile", "nope"]):
        result = run(*arguments)
        assert isinstance(result.exception, InputError)


def test_a_suggestion_resolves_what_shows_only_behind_another(tmp_path: Path) -> None:
    """Widened to bytes, the text 'a' and the bytes of 'a' are one key."""
    source = database(
        tmp_path / "source.db",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, k INT UNIQUE)",
        "INSERT INTO t(k) VALUES (1), ('a'), (x'61')",
    )
    (tmp_path / "block.yaml").write_text("default: block\n")
    policy = tmp_path / "policy.yaml"
    result = run(source, policy, "--policy", tmp_path / "block.yaml", "--suggest")
    assert result.exit_code == ExitStatus.BLOCKED
    assert "key-collides:t.k" in policy.read_text()
    assert run(source, "--policy", policy).exit_code == ExitStatus.DONE


def test_what_no_policy_resolves_is_said(tmp_path: Path) -> None:
    columns = ", ".join(f"c{n} INT" for n in range(1_601))
    source = database(tmp_path / "source.db", f"CREATE TABLE x({columns})")
    result = run(source, "--suggest")
    assert result.exit_code == ExitStatus.BLOCKED
    assert "No policy resolves this" in result.stderr
    assert result.stdout.startswith("## No policy resolves what stops this migration: x ")


def test_generous_types_are_written_into_the_policy(tmp_path: Path) -> None:
    source = database(
        tmp_path / "source.db",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, f TINYINT(1))",
        "INSERT INTO t VALUES (1, 0), (2, 1)",
    )
    offered = run(source, "--suggest")
    assert "#         type: boolean" in offered.stdout.splitlines()
    taken = run(source, "--suggest", "--types", "generous")
    assert "        type: boolean" in taken.stdout.splitlines()
    shown = run(source, "--plan", "--types", "generous")
    assert "note[type-taken]" in shown.stdout
    assert "tried, and possible" not in shown.stdout


def test_the_radcase_profile_takes_a_policy_of_ones_own(tmp_path: Path) -> None:
    source, policy = tmp_path / "radcase.db", tmp_path / "policy.yaml"
    make_radcase(source, rows=1_000, hostile=True)
    blocked = run(source, "--profile", "radcase")
    assert blocked.exit_code == ExitStatus.BLOCKED
    policy.write_text(run(source, "--profile", "radcase", "--suggest").stdout)
    done = run(source, "--profile", "radcase", "--policy", policy)
    assert done.exit_code == ExitStatus.DONE, done.output
