"""When the application was held: noted by the commands, and shown by the report's page."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from migration_job.errors import OperationError
from migration_job.protocol import timeline
from migration_job.protocol.fault_points import ROLLBACK_STEPS, SWITCH_STEPS, step
from migration_job.protocol.outcome import write_outcome
from migration_job.report import moves, writer
from migration_job.report.html import render_html
from migration_job.report.model import Move, Report, Step
from tests.unit.test_report_text import text_of

RUN = "8c1f"
REPORT = Report(outcome="verified", phase="verified", run_id=RUN)


def steps(*given: tuple[str, float, float]) -> list[Step]:
    return [Step(name=name, at_ms=at, took_ms=took) for name, at, took in given]


SWITCH = Move(
    command="switch",
    run_id=RUN,
    began_at="2026-03-04T09:31:20.120+00:00",
    outcome="done",
    held_ms=1129.4,
    steps=steps(
        ("switch.prepare", 3, 8200),
        ("switch.fence", 8203, 14),
        ("switch.drain", 8217, 1000),
        ("switch.decide", 9217, 129.4),
        ("follow.open", 9350, 12),
        ("follow.connect", 9362, 4),
    ),
)


def test_every_step_has_its_words() -> None:
    assert moves.WORDS.keys() == {*SWITCH_STEPS, *ROLLBACK_STEPS}
    assert moves.WORDS.keys() >= moves.HOLDS | moves.DECISIONS


def test_a_step_within_another_is_part_of_it_and_a_failed_one_is_told() -> None:
    with timeline.recorded() as noted:
        timeline.of_run(RUN)
        with step("switch.drain"), step("sync.forward"):
            time.sleep(0.002)
        with pytest.raises(OperationError), step("switch.decide"):
            raise OperationError("no")
    assert [(s.name, s.failed) for s in noted.steps] == [
        ("switch.drain", False),
        ("switch.decide", True),
    ]
    assert noted.steps[0].took_ms >= 2
    assert noted.steps[1].at_ms >= noted.steps[0].at_ms + noted.steps[0].took_ms - 0.002
    assert noted.run_id == RUN


def test_nothing_is_noted_outside() -> None:
    with step("switch.drain"):
        timeline.of_run(RUN)
    with timeline.recorded() as noted:
        pass
    assert (noted.steps, noted.run_id) == ([], "")


def test_a_command_that_held_nobody_leaves_no_move(tmp_path: Path) -> None:
    with write_outcome(tmp_path, "switch"), step("switch.prepare"):
        pass
    assert sorted(p.name for p in tmp_path.iterdir()) == ["switch.json"]


def test_a_command_that_held_the_application_is_shown_on_the_page(tmp_path: Path) -> None:
    writer.write(REPORT, tmp_path)
    with write_outcome(tmp_path, "switch") as outcome:
        timeline.of_run(RUN)
        with step("switch.fence"):
            pass
        with step("switch.drain"):
            pass
        outcome["held_ms"] = 12.5
    with pytest.raises(OperationError):
        fail_to_go_back(tmp_path)
    noted = moves.read(tmp_path)
    assert [(m.command, m.outcome, m.held_ms) for m in noted] == [
        ("switch", "done", 12.5),
        ("rollback", "failed", None),
    ]
    assert (tmp_path / moves.NAME).stat().st_mode & 0o777 == 0o600
    said = text_of((tmp_path / writer.PAGE).read_text())
    assert "SQLite's writers were held for 12 ms." in said
    assert "The decision was not taken: PostgreSQL serves as before." in said
    assert "<expected> more" in said
    # What `verify` writes later shows them as well.
    writer.write(REPORT, tmp_path)
    assert "Switch to PostgreSQL" in (tmp_path / writer.PAGE).read_text()


def fail_to_go_back(folder: Path) -> None:
    with write_outcome(folder, "rollback"):
        timeline.of_run(RUN)
        with step("rollback.pause"):
            pass
        raise OperationError("<expected> more", advice="look")


def test_moves_of_another_run_are_not_this_ones(tmp_path: Path) -> None:
    moves.append(tmp_path, SWITCH.model_copy(update={"run_id": "other"}))
    writer.write(REPORT, tmp_path)
    assert "Switch to PostgreSQL" not in (tmp_path / writer.PAGE).read_text()


def test_the_last_twenty_are_kept(tmp_path: Path) -> None:
    for number in range(moves.KEPT + 2):
        moves.append(tmp_path, SWITCH.model_copy(update={"held_ms": float(number)}))
    assert [m.held_ms for m in moves.read(tmp_path)] == [*map(float, range(2, moves.KEPT + 2))]


def test_what_cannot_be_noted_is_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / moves.NAME).write_text("no JSON")
    with write_outcome(tmp_path, "switch"), step("switch.fence"):
        pass
    assert json.loads((tmp_path / "switch.json").read_text())["outcome"] == "done"
    assert capsys.readouterr().err.startswith("warning: the times of this switch are not in")
    writer.write(REPORT, tmp_path)


def test_the_picture_and_its_words_say_the_same_times() -> None:
    page = render_html(REPORT, [SWITCH])
    said = text_of(page)
    assert "SQLite's writers were held for 1,129 ms." in said
    assert "The connection named PostgreSQL 1,149 ms after they began to wait." in said
    for moment in ("09:31:28.337 UTC", "09:31:29.337 UTC", "09:31:29.466 UTC", "09:31:29.486 UTC"):
        assert moment in said
    label = re.search(r'class="strip" role="img" aria-label="([^"]*)"', page)
    assert label is not None
    assert label[1] == (
        "Switch to PostgreSQL: held after 14 ms; drained after 1,014 ms; decided after 1,143 ms; "
        "opened after 1,159 ms; named after 1,163 ms"
    )
    bars = re.findall(r'<rect class="step-(\w+)" x="([\d.]+)" width="([\d.]+)" height="20"/>', page)
    assert [tone for tone, _, _ in bars] == ["wait", "held", "held", "open", "open"]
    ends = [float(x) + float(width) for _, x, width in bars]
    assert ends == sorted(ends)
    assert ends[-1] == pytest.approx(1000, abs=3)


def test_only_the_last_of_several_attempts_is_in_the_picture() -> None:
    first = steps(("switch.fence", 10, 1), ("switch.drain", 11, 500))
    again = steps(("switch.fence", 1000, 1), ("switch.drain", 1001, 30), ("switch.decide", 1031, 5))
    first[1].failed = True
    page = render_html(REPORT, [SWITCH.model_copy(update={"steps": [*first, *again]})])
    assert "2 times the application was to wait" in page
    assert "given up before it was drained" in text_of(page)
    assert page.count('height="20"/>') == 3
