"""report.json: whole or not at all, and read back as it was."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from migration_job.report import writer
from migration_job.report.model import Difference, LedgerItem, Report, TableReport

REPORT = Report(
    outcome="failed",
    phase="copied",
    message="2 differences",
    exit_status=4,
    tables={"t": TableReport(target="t", source_rows=2, target_rows=2, differences=1)},
    ledger=[
        LedgerItem(
            table="t", key=[1, {"blob": "00"}], column="c", rule="map", before={"real": "0.1"},
            after=None,
        )
    ],
    differences=[Difference(kind="value", table="t", key=[1], column="c", message="differs")],
    seconds={"copy": 1.5},
)  # fmt: skip


def test_written_and_read_back(tmp_path: Path) -> None:
    path = writer.write(REPORT, tmp_path / "new" / "folder")
    assert writer.read(path.parent) == REPORT
    assert json.loads(path.read_text())["tables"]["t"]["source_rows"] == 2
    assert sorted(p.name for p in path.parent.iterdir()) == ["report.html", "report.json"]


def test_a_verification_keeps_the_migrations_report(tmp_path: Path) -> None:
    writer.write(REPORT, tmp_path)
    page = (tmp_path / "report.html").read_bytes()
    verified = REPORT.model_copy(update={"command": "verify", "outcome": "verified"})
    assert writer.write(verified, tmp_path) == tmp_path / "verify.json"
    assert writer.read(tmp_path) == REPORT
    assert writer.read(tmp_path, "verify") == verified
    assert (tmp_path / "report.html").read_bytes() == page
    assert "verification report" in (tmp_path / "verify.html").read_text()


def test_a_failure_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer.write(REPORT, tmp_path)

    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("migration_job.durable.os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        writer.write(REPORT.model_copy(update={"outcome": "verified"}), tmp_path)
    assert writer.read(tmp_path) == REPORT


def test_unknown_fields_are_refused(tmp_path: Path) -> None:
    content = json.loads(REPORT.model_dump_json()) | {"surprise": 1}
    (tmp_path / "report.json").write_text(json.dumps(content))
    with pytest.raises(ValidationError):
        writer.read(tmp_path)


def test_nobody_else_reads_it_and_no_link_is_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    folder = tmp_path / "report"
    folder.mkdir()
    for name in ("report.json.partial", ".report.json.new", ".report.html.new", "report.json"):
        (folder / name).symlink_to(victim)
    writer.write(REPORT, folder)
    assert victim.read_text() == "untouched"
    for name in ("report.json", "report.html"):
        assert not (folder / name).is_symlink()
        assert (folder / name).stat().st_mode & 0o777 == 0o600
