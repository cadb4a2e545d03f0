"""`migrate --live`: what the first plan is made from, before anything is captured."""

from __future__ import annotations

import signal
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from migration_job.plan.planner import make_plan
from migration_job.protocol import begin
from migration_job.protocol.begin import LiveStart, Wanted
from migration_job.signals import StoppedError, stopped_by_signals
from migration_job.stores.sqlite import snapshot


class Look:
    """A source, and a start that counts the copies that it takes."""

    def __init__(self, directory: Path, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.source = directory / "source.db"
        self.application = sqlite3.connect(self.source)
        self.application.execute(f"PRAGMA journal_mode = {mode}")
        self.application.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, word TEXT)")
        self.application.execute("INSERT INTO t(word) VALUES ('a')")
        self.application.commit()
        self.report = directory / "report"
        dsn = "host=/nowhere dbname=unasked"
        self.start = LiveStart(self.source, dsn, directory / "state", self.report, Wanted())
        self.copies = 0
        take = snapshot.take

        def counted(source: Path, folder: Path) -> snapshot.Snapshot:
            self.copies += 1
            return take(source, folder)

        monkeypatch.setattr(snapshot, "take", counted)

    def keys(self) -> dict[str, tuple[str, ...]]:
        catalogue, plan = self.start._first_plan()
        assert list(self.report.glob("first-look*")) == []
        return self.start.adapt(plan, catalogue).keys


@pytest.mark.parametrize(("mode", "copies"), [("WAL", 0), ("DELETE", 1)])
def test_a_copy_is_taken_only_where_a_look_would_hold_writers(
    mode: str, copies: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = Look(tmp_path, mode, monkeypatch)
    assert look.keys() == {"t": ("id",)}
    assert look.copies == copies
    look.application.close()


def test_what_stops_a_run_is_seen_again_on_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = Look(tmp_path, "WAL", monkeypatch)
    # A text with a NUL blocks the plan by default; at the second look it is gone.
    look.application.execute("INSERT INTO t(word) VALUES (CAST(x'610062' AS TEXT))")
    look.application.commit()

    def then_mended(*given: Any, **named: Any) -> Any:
        plan = make_plan(*given, **named)
        look.application.execute("DELETE FROM t WHERE id = 2")
        look.application.commit()
        return plan

    monkeypatch.setattr(begin, "make_plan", then_mended)
    assert look.keys() == {"t": ("id",)}
    assert look.copies == 1
    look.application.close()


def test_moments_that_do_not_go_together_are_seen_again_on_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = Look(tmp_path, "WAL", monkeypatch)
    looks = 0

    def at_first_without_the_table(*given: Any, **named: Any) -> Any:
        nonlocal looks
        looks += 1
        if looks == 1:  # as an application's own migration does between two statements
            look.application.execute("ALTER TABLE t RENAME TO u")
        return make_plan(*given, **named)

    monkeypatch.setattr(begin, "make_plan", at_first_without_the_table)
    assert look.keys() == {"u": ("id",)}
    assert (looks, look.copies) == (2, 1)
    look.application.close()


def test_a_stop_is_no_reason_to_look_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look = Look(tmp_path, "WAL", monkeypatch)

    def stopped(*_: Any, **__: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(begin, "make_plan", stopped)
    with stopped_by_signals(), pytest.raises(StoppedError):
        look.start._first_plan()
    assert look.copies == 0
    look.application.close()
