"""What a run measured, as data: kept as JSON, so that the page can be made of it again."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Literal

from pydantic import BaseModel, ConfigDict

Sense = Literal["at most", "at least", "under"]


class Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Sample(Data):
    """One thing measured a few times in one unit."""

    label: str
    values: tuple[float, ...]
    unit: str = "s"

    @property
    def median(self) -> float:
        return median(self.values)


class Goal(Data):
    sense: Sense
    bound: float
    unit: str = ""

    def met(self, value: float) -> bool:
        if self.sense == "at least":
            return value >= self.bound
        return value <= self.bound if self.sense == "at most" else value < self.bound

    def __str__(self) -> str:
        return f"{self.sense} {self.bound:g}{' ' + self.unit if self.unit else ''}"


class Row(Data):
    """One line of the page's table: a value, what it is made of, and its goal where it has one."""

    what: str
    against: str
    value: float
    """The ratio of the medians, or the median itself where there is nothing to compare with."""
    goal: Goal | None = None
    samples: tuple[Sample, ...] = ()
    remark: str = ""

    @property
    def met(self) -> bool | None:
        return None if self.goal is None else self.goal.met(self.value)


class Section(Data):
    """What one measurement found; ``key`` is its name on the command line."""

    key: str
    title: str
    rows: tuple[Row, ...]
    text: str = ""
    """Markdown below the section's table."""
    skipped: str = ""
    """Why there is nothing, where there is nothing."""


class Results(Data):
    machine: dict[str, str]
    settings: dict[str, str]
    sections: dict[str, Section]


def ratio(
    what: str, against: str, ours: Sample, theirs: Sample, goal: Goal | None, remark: str = ""
) -> Row:
    """``ours`` over ``theirs``, by their medians."""
    return Row(
        what=what,
        against=against,
        value=ours.median / theirs.median,
        goal=goal,
        samples=(ours, theirs),
        remark=remark,
    )


def save(results: Results, path: Path) -> None:
    """Write the results, indented, so that a change of a figure is a change of a line."""
    path.write_text(json.dumps(results.model_dump(mode="json"), indent=1) + "\n")


def load(path: Path) -> Results | None:
    """The results of an earlier run, None where there are none."""
    return Results.model_validate_json(path.read_bytes()) if path.exists() else None
