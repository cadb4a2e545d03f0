"""The last table of a run, and what an operator sees of its pace."""

from __future__ import annotations

import io

import pytest

from migration_job.progress import Reporter
from migration_job.report.closing import SHOWN, closing_table, size_in_words
from migration_job.report.model import Report, TableReport


def report(tables: int) -> Report:
    return Report(
        outcome="verified",
        phase="verified",
        seconds={"copy": 2.0},
        tables={
            f"t{n}": TableReport(
                target=f"t{n}", target_rows=1_000 * n, target_bytes=2048 * n, copy_seconds=0.5
            )
            for n in range(1, tables + 1)
        },
    )


def test_rows_bytes_pace_and_time_of_each_table() -> None:
    lines = closing_table(report(3))
    assert lines[0].split() == ["table", "rows", "size", "rows/s", "seconds"]
    assert lines[1].split() == ["t3", "3,000", "6.0", "KiB", "6,000", "0.5"]
    assert lines[-1].split() == ["in", "all", "6,000", "12.0", "KiB", "3,000", "2.0"]
    assert len({len(line) for line in lines}) == 1, "aligned"


def test_many_tables_are_summed_up_unless_all_are_asked_for() -> None:
    lines = closing_table(report(SHOWN + 5))
    assert len(lines) == SHOWN + 3
    assert lines[-2].startswith("5 more tables")
    assert len(closing_table(report(SHOWN + 5), everything=True)) == SHOWN + 7
    assert closing_table(Report(outcome="failed", phase="")) == []


def test_a_table_that_takes_no_time_is_counted() -> None:
    told = report(3)
    told.tables["t1"].copy_seconds = 0.0
    lines = closing_table(told)
    assert lines[3].split() == ["t1", "1,000", "2.0", "KiB", "-", "0.0"]
    assert lines[-1].split()[:3] == ["in", "all", "6,000"]


def test_what_an_earlier_run_has_copied_is_not_counted() -> None:
    told = report(3)
    told.tables["t1"].copy_seconds = None
    lines = closing_table(told)
    assert [line.split()[0] for line in lines[1:3]] == ["t3", "t2"]
    assert lines[-1].split()[:5] == ["copied", "by", "this", "run", "5,000"]


@pytest.mark.parametrize(
    ("size", "words"), [(0, "0 B"), (1023, "1,023 B"), (1536, "1.5 KiB"), (5 << 40, "5.0 TiB")]
)
def test_sizes(size: int, words: str) -> None:
    assert size_in_words(size) == words


def test_quiet_says_nothing() -> None:
    quiet = io.StringIO()
    Reporter(quiet, quiet=True).say("nothing")
    assert quiet.getvalue() == ""
