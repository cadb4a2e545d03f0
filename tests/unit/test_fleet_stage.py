"""`fleet` in a stage file: what is refused, and by what a stage decides to run it again."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import pytest

from infra import fleet_files, stage_paths
from infra.errors import StageError
from infra.fleet import FleetProvider
from infra.settings import OF_ONE_FILE, Settings, read
from infra.stage_paths import Paths
from migration_job.report.fleet import FleetCertificate, FleetFile, FleetReport, write
from tools import fleet_status

OFFLINE = {"fleet": "f.yaml", "strategy": "offline"}
TEXT = "files: 'in/*.db'\nlayout: schema-per-file\n"


def refused(**raw: object) -> str:
    with pytest.raises(StageError) as caught:
        read(raw, "Pulumi.test.yaml")
    return str(caught.value)


@pytest.fixture
def where(tmp_path: Path) -> Paths:
    """A manifest with three files beside it."""
    for name in ("a", "b", "c"):
        made = tmp_path / "data" / "in" / f"{name}.db"
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_bytes(stage_paths.MAGIC)
    manifest = tmp_path / "data" / "fleet.yaml"
    manifest.write_text(TEXT)
    return Paths(manifest, tmp_path / "state")


def unusable(where: Paths, text: str) -> str:
    where.source.write_text(text)
    with pytest.raises(StageError) as caught:
        fleet_files.require(where.source)
    assert caught.value.advice
    return str(caught.value)


# ---------------------------------------------------------------------------------- the settings


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({}, "expected one of `source` and `fleet`, found neither"),
        ({"source": "", "fleet": ""}, "found neither"),
        ({"source": "a.db", **OFFLINE}, "expected one of `source` and `fleet`, found both"),
        ({"fleet": "f.yaml"}, "fleet goes with strategy: offline, found blue-green"),
        ({**OFFLINE, "cutover": "settled"}, "cutover: switch or hold, found settled"),
        ({**OFFLINE, "profile": "radcase"}, "profile (the manifest says it)"),
        ({**OFFLINE, "policy": {"types": "generous"}}, "policy (the manifest names its file)"),
        ({**OFFLINE, "timeZone": "Europe/Berlin"}, "timeZone (the manifest's policy says it"),
        ({**OFFLINE, "schemaName": "sales"}, "schemaName (the manifest says which schemas"),
        ({**OFFLINE, "exampleApplication": True}, "exampleApplication (it follows one file)"),
        ({**OFFLINE, "postgresMembers": 3}, "postgresMembers (not with several servers yet)"),
        ({**OFFLINE, "postgresVersion": 16, "upgradeTo": 18}, "upgradeTo (not yet)"),
    ],
)
def test_a_stage_of_a_fleet_is_refused_in_words(raw: dict[str, object], words: str) -> None:
    assert words in refused(**raw)


def test_a_fleet_is_not_followed() -> None:
    settings = read(OFFLINE, "Pulumi.test.yaml")
    assert settings.cutover == "switch"
    assert not settings.follows
    assert OF_ONE_FILE.keys() <= Settings.model_fields.keys()


# ---------------------------------------------------------------------------------- the manifest


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[", "no YAML"),
        ("- a", "no mapping in it"),
        ("layout: schema-per-file", "no glob and no list of them as its `files`"),
        (f"{TEXT}live: true\n", "a stage does not follow the files of a fleet"),
        (f"{TEXT}live: {{search_path: alias}}\n", "docs/how-to/fleet-live.md"),
        (TEXT.replace("schema-", "database-"), "found database-per-file: a stage has one"),
        (TEXT.replace("in/", "../in/"), "found ../in/*.db"),
        (TEXT.replace("in/", "/srv/in/"), "found /srv/in/*.db"),
        (TEXT.replace("in/", "out/"), "expected files that match out/*.db, found none"),
        ("files: ['in/a.db', \"b\\0\"]\nlayout: x", "a text in it that no path"),
        ('files: "\\ud800.db"\nlayout: x', "a text in it that no path"),
        (f'{TEXT}policy: "p\\ud800"\n', "a text in it that no path"),
        ("files: 'in/*.db'\n", "no word as its `layout`"),
        (
            "a: &a [x, x, x, x, x, x, x, x, x]\n"
            + "".join(
                f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in pairwise("abcdefghij")
            )
            + "files: 'in/*.db'\nlayout: *j\n",
            "no word as its `layout`",
        ),
    ],
)
def test_a_manifest_that_no_stage_can_move_is_refused(where: Paths, text: str, words: str) -> None:
    assert words in unusable(where, text)


def test_a_manifest_that_is_missing_or_no_text_is_refused(where: Paths) -> None:
    where.source.write_bytes(b"\xff\xfe")
    with pytest.raises(StageError, match="none to read: no UTF-8"):
        fleet_files.require(where.source)
    where.source.unlink()
    with pytest.raises(StageError, match="none to read: No such file"):
        fleet_files.require(where.source)


def test_a_write_behind_a_link_and_a_replaced_file_are_seen(where: Paths, tmp_path: Path) -> None:
    real = tmp_path / "real.db"
    real.write_bytes(stage_paths.MAGIC)
    (where.source.parent / "in" / "d.db").symlink_to(real)
    before = fleet_files.fingerprint_of(where.source)
    assert fleet_files.fingerprint_of(where.source) == before
    log = tmp_path / "real.db-wal"
    log.write_bytes(b"")
    assert fleet_files.fingerprint_of(where.source) == before, "a look leaves such a log"
    log.write_bytes(b"frames")
    written = fleet_files.fingerprint_of(where.source)
    assert written != before
    assert fleet_files.written_at(where.source.parent / "in" / "d.db") == log.stat().st_mtime
    other, status = tmp_path / "other.db", real.stat()
    other.write_bytes(stage_paths.MAGIC)
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(real)
    assert fleet_files.fingerprint_of(where.source) != written


def test_a_policy_outside_the_mounted_directory_is_refused(where: Paths) -> None:
    (where.source.parent.parent / "policy.yaml").write_text("types: generous\n")
    assert "found ../policy.yaml" in unusable(where, f"{TEXT}policy: ../policy.yaml\n")


def test_the_manifest_and_its_policy_decide(where: Paths) -> None:
    policy = where.source.with_name("policy.yaml")
    policy.write_text("types: generous\n")
    where.source.write_text(f"{TEXT}policy: policy.yaml\n")
    before = fleet_files.digest(fleet_files.require(where.source))
    policy.write_text("types: declared\n")
    assert fleet_files.digest(fleet_files.require(where.source)) != before


@pytest.mark.parametrize(
    ("said", "memory", "jobs"), [("", 512, 4), ("jobs: 2\n", 512, 2), ("jobs: 9\n", 256, 2)]
)
def test_the_containers_memory_and_the_roles_sessions_limit_the_jobs(
    where: Paths, said: str, memory: int, jobs: int
) -> None:
    where.source.write_text(TEXT + said)
    assert fleet_files.jobs(fleet_files.require(where.source), memory << 20) == jobs


# ------------------------------------------------------------------------------- what runs again


def _written(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def _new(path: Path) -> None:
    path.with_name("d.db").write_bytes(b"x")


def _logged(path: Path) -> None:
    path.with_name("a.db-wal").write_bytes(b"x")


@pytest.mark.parametrize("change", [_written, _new, _logged, Path.unlink])
def test_a_file_that_was_written_to_came_or_went_is_a_change(where: Paths, change: object) -> None:
    before = fleet_files.fingerprint_of(where.source)
    props = {"source": str(where.source), "fingerprint": before}
    assert fleet_files.fingerprint_of(where.source) == before
    assert not FleetProvider().diff("", props, props).changes
    assert callable(change)
    change(where.source.parent / "in" / "a.db")
    assert fleet_files.fingerprint_of(where.source) != before
    assert FleetProvider().diff("", props, props).changes


def test_what_lies_beside_the_files_is_no_change(where: Paths) -> None:
    before = fleet_files.fingerprint_of(where.source)
    (where.source.parent / "in" / "notes.txt").write_text("x")
    (where.source.parent / "in" / "a.db-wal").touch()
    assert fleet_files.fingerprint_of(where.source) == before


def test_a_manifest_that_is_gone_is_a_change_and_no_error(where: Paths) -> None:
    where.source.unlink()
    assert fleet_files.fingerprint_of(where.source) == ""


# ---------------------------------------------------------------------------- the stage's own room


def test_a_stage_is_of_one_kind(where: Paths) -> None:
    fleet_files.require_one_kind(where, fleet=True)
    fleet_files.require_one_kind(where, fleet=False)
    fleet_files.prepare(where, dry_run=True)
    assert not where.state.exists()
    status = where.source.stat()
    assert fleet_files.prepare(where, dry_run=False) == f"{status.st_uid}:{status.st_gid}"
    assert not (where.connection / "database.json").exists()
    fleet_files.require_one_kind(where, fleet=True)
    with pytest.raises(StageError, match="expected `fleet` in the stage file, as this stage"):
        fleet_files.require_one_kind(where, fleet=False)


def test_a_stage_of_one_file_takes_no_fleet(where: Paths) -> None:
    single = Paths(where.source.parent / "in" / "a.db", where.state)
    stage_paths.prepare_here(single, example=False, dry_run=False)
    fleet_files.require_one_kind(single, fleet=False)
    with pytest.raises(StageError, match="expected `source` in the stage file, as this stage"):
        fleet_files.require_one_kind(where, fleet=True)


# --------------------------------------------------------------------------------------- status


def reported(where: Paths, *failed: str) -> None:
    folder = where.source.parent
    files = {
        name: FleetFile(
            path=str(folder / "in" / f"{name}.db"),
            place=name,
            bytes=1,
            state="failed" if name in failed else "verified",
            message="it is damaged\nreplace it" if name in failed else "",
        )
        for name in ("a", "b", "c")
    }
    where.report.mkdir(parents=True)
    where.job.mkdir(parents=True)
    (where.job / fleet_files.MARK).touch()
    report = FleetReport(
        outcome="failed" if failed else "verified",
        began_at="2100-01-01T00:00:00+00:00",
        files=files,
    )
    write(report, where.report)


def test_status_before_the_first_run(where: Paths) -> None:
    lines = fleet_status.lines(where)
    assert lines[1] == f"fleet       3 files of {where.source}"
    assert lines[-1] == "next        `make up`"


def test_status_names_the_files_that_are_left(where: Paths) -> None:
    reported(where, "b")
    lines = fleet_status.lines(where)
    assert lines[0] == "serves      SQLite"
    assert lines[1].endswith(": 1 failed, 2 verified")
    assert lines[2] == "            b: it is damaged"
    assert lines[-1] == "next        `make up` moves what is left"


def test_status_names_the_files_that_changed_since(where: Paths) -> None:
    reported(where)
    assert fleet_status.lines(where)[-1].endswith("lets the applications in")
    changed = where.source.parent / "in" / "a.db"
    os.utime(changed, (5e9, 5e9))
    (changed.parent / "d.db").write_bytes(b"x")
    (since,) = (line for line in fleet_status.lines(where) if line.startswith("since"))
    assert since == "since       in/a.db, in/d.db: new, or written to since the last run"


def test_status_says_that_a_run_was_cut_off(where: Paths) -> None:
    reported(where)
    (where.job / fleet_files.UNFINISHED).touch()
    lines = fleet_status.lines(where)
    assert fleet_status.CUT_OFF in lines
    assert lines[-1] == "next        `make up` moves what is left"


def test_status_of_a_stage_that_is_down_speaks_of_no_report(where: Paths) -> None:
    reported(where)
    (where.job / fleet_files.MARK).unlink()
    lines = fleet_status.lines(where)
    assert lines[0] == "serves      SQLite: nothing of this stage is there"
    assert not any("verified" in line for line in lines)


def test_a_report_that_is_no_report_is_told(where: Paths) -> None:
    reported(where)
    (where.report / "fleet.json").write_text("{")
    with pytest.raises(StageError, match="expected the fleet's last report"):
        fleet_status.lines(where)


def test_the_reports_names_are_those_that_the_stage_reads() -> None:
    assert {"listed", "rows"} <= FleetFile.model_fields.keys()
    assert {"outcome", "files", "certificate"} <= FleetReport.model_fields.keys()
    assert "digest" in FleetCertificate.model_fields
