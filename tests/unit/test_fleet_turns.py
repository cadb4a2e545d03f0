"""Whose turn it is at `fleet-sync`, with made-up files in the place of files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from migration_job.fleet.followed import Followed, Turns, Why


@dataclass
class Due:
    """A file that is due."""

    name: str
    why: Why
    since: float
    visits: int = 0

    @property
    def order(self) -> tuple[int, int, float]:
        return self.why, 0 if self.why is Why.TURN else 1, self.since


def visited(files: list[Due], visits: int) -> list[str]:
    """Who had the first visits. A file that was written to is written to again at once."""
    turns, told = Turns(), []
    for now in range(1, visits + 1):
        file = cast("Due", turns.next(cast("list[Followed]", files)))
        told.append(file.name)
        file.visits += 1
        if file.why is Why.TURN:
            files.remove(file)
        else:
            file.since = float(now)
    return told


def test_files_that_are_written_to_all_the_time_keep_nobody_waiting_for_ever() -> None:
    busy = [Due(f"busy {number}", Why.CHANGED, 0.5) for number in range(20)]
    quiet = [Due(f"quiet {number}", Why.TURN, 0.0) for number in range(5)]
    told = visited([*busy, *quiet], 20)
    assert {name for name in told if name.startswith("quiet")} == {file.name for file in quiet}


def test_files_that_are_written_to_keep_their_share() -> None:
    busy = [Due("busy", Why.CHANGED, 0.5)]
    quiet = [Due(f"quiet {number}", Why.TURN, 0.0) for number in range(50)]
    told = visited([*busy, *quiet], 20)
    assert told.count("busy") >= 9


def test_each_of_the_files_that_are_written_to_has_its_turn() -> None:
    files = [Due(f"busy {number}", Why.CHANGED, 0.0) for number in range(10)]
    assert set(visited(files, 10)) == {file.name for file in files}
