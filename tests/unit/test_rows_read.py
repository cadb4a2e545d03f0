"""How far the comparison of one table is, whichever ways it is tried."""

from __future__ import annotations

from migration_job.verify.connections import RowsRead


def test_a_second_look_tells_nothing_new() -> None:
    told: list[int] = []
    read = RowsRead(100, told.append)
    read.begin()
    read.more(30)
    read.begin()  # another way of comparing
    read.more(20)
    read.more(40)
    assert told == [30, 30]
    read.end()
    assert sum(told) == 100


def test_rows_that_nobody_reads_are_told_at_the_end_and_no_more_than_there_are() -> None:
    told: list[int] = []
    read = RowsRead(10, told.append)
    read.more(25)  # a source that has grown is another's to tell of
    read.end()
    assert told == [10]
