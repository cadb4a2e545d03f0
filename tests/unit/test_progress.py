"""What an operator sees: phases with their times, rows in between, nothing when quiet."""

from __future__ import annotations

import io
import threading

import pytest

from migration_job import progress
from migration_job.progress import Reporter


def test_plain_lines_say_each_phase_once() -> None:
    stream = io.StringIO()
    reporter = Reporter(stream)
    with reporter.phase("copy", total=10):
        reporter.advance(4)
        reporter.advance(6)
    assert stream.getvalue() == f"copy: {reporter.seconds['copy']:.1f} s, 10 rows\n"


def test_rows_so_far_are_told_from_time_to_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PLAIN_INTERVAL", 0.0)
    stream = io.StringIO()
    reporter = Reporter(stream)
    with reporter.phase("copy", total=2_000):
        reporter.advance(1_000)
    assert "copy: 1,000 of 2,000 rows, 0 s left\n" in stream.getvalue()


def test_a_total_that_is_found_out_is_told_as_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PLAIN_INTERVAL", 0.0)
    stream = io.StringIO()
    reporter = Reporter(stream)
    with reporter.phase("plan"):
        reporter.at(0, 4_000)
        reporter.at(1_500, 3_000)
        reporter.at(2_900, 2_900)
    assert stream.getvalue().splitlines()[:-1] == [
        "plan: 0 of about 4,000 rows",
        "plan: 1,500 of about 3,000 rows, 0 s left",
        "plan: 2,900 of 2,900 rows",
    ]


def test_a_phase_that_fails_is_timed_too() -> None:
    reporter = Reporter(io.StringIO())
    with pytest.raises(LookupError), reporter.phase("plan"):
        raise LookupError
    assert list(reporter.seconds) == ["plan"]
    assert reporter.stopped_in == "plan"


def test_the_phase_that_an_error_ended_is_known() -> None:
    reporter = Reporter(io.StringIO())
    with pytest.raises(LookupError), reporter.phase("copy"), reporter.phase("keys"):
        raise LookupError
    assert reporter.stopped_in == "keys", "the inner one"
    with reporter.phase("verify"):
        pass
    assert reporter.stopped_in == "", "an attempt that was made again"
    with pytest.raises(LookupError), reporter.within("verify"):
        raise LookupError
    assert reporter.stopped_in == "verify"


def test_quiet_says_nothing_and_still_times() -> None:
    stream = io.StringIO()
    reporter = Reporter(stream, quiet=True)
    with reporter.phase("copy"):
        reporter.advance(1)
    reporter.say("done")
    assert stream.getvalue() == ""
    assert "copy" in reporter.seconds


def test_a_terminal_gets_a_line_that_goes_away() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    reporter = Reporter(stream)
    with reporter.phase("copy", total=3_000):
        reporter.advance(1_000)
        reporter.say("a [bracket] stays")
    assert "a [bracket] stays" in stream.getvalue()
    assert "1,000 of 3,000 rows, left " in stream.getvalue()
    assert "copy: " in stream.getvalue()


def test_a_terminal_is_told_of_a_total_that_comes_later() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    reporter = Reporter(stream)
    with reporter.phase("plan"):
        reporter.say("nothing is counted yet")
        reporter.at(1_000, 4_000)
        reporter.say("now it is")
    before, after = stream.getvalue().split("now it is")
    assert "rows" not in before.split("nothing is counted yet")[0]
    assert "1,000 of about 4,000 rows, left " in before + after


def test_threads_count_together() -> None:
    stream = io.StringIO()
    reporter = Reporter(stream)

    def count() -> None:
        for _ in range(500):
            reporter.advance(1)

    with reporter.phase("copy"):
        threads = [threading.Thread(target=count) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert ", 2,000 rows" in stream.getvalue()
