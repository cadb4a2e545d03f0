"""The example application on SQLite alone: what a request promises, and what it does when moved."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from example_app.databases import prepare_sqlite
from example_app.following import Follower
from example_app.journal import Journal, Written, compare_sqlite
from example_app.load import Load
from example_app.server import Server
from example_app.store import Store, sqlite_side

REFUSE = """
CREATE TRIGGER refuse BEFORE INSERT ON app_requests
BEGIN SELECT RAISE(ABORT, 'moved to PostgreSQL: this file is kept current'); END;
"""


class Application:
    """The server in this process, on a file of its own."""

    def __init__(self, directory: Path, *, deadline: float = 5.0, once: bool = False) -> None:
        self.directory = directory
        self.file = directory / "app.db"
        self.connection = directory / "connection"
        self.connection.mkdir(exist_ok=True)
        prepare_sqlite(self.file)
        follower = Follower(self.connection, sqlite_side(self.file), once=once)
        self.server = Server(("127.0.0.1", 0), Store(follower, deadline=deadline))
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()
        self.server.store.close()

    def name(self, file: Path, generation: int) -> None:
        """Have ``database.json`` name another SQLite file, by one rename."""
        side = {"engine": "sqlite", "path": str(file)}
        content = {"write": side, "read": side, "generation": generation, "changed_at": ""}
        temporary = self.connection / "new"
        temporary.write_text(json.dumps(content))
        temporary.rename(self.connection / "database.json")

    def ask(self, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data)  # noqa: S310 - our own server
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def run(self, statements: str) -> None:
        with sqlite3.connect(self.file) as connection:
            connection.executescript(statements)
        connection.close()


@pytest.fixture
def application(tmp_path: Path) -> Iterator[Application]:
    made = Application(tmp_path)
    yield made
    made.close()


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "waited 30 s in vain"
        time.sleep(0.01)


USER = {"request": "r-1", "id": "u-1", "username": "ada"}
CASE = {"request": "r-2", "id": "c-1", "title": "A nodule"}


def test_every_page_answers(application: Application) -> None:
    assert application.ask("/users", USER)[0] == 201
    assert application.ask("/cases", CASE)[0] == 201
    assert application.ask("/cases/c-1", {"request": "r-3", "title": "Two nodules"})[0] == 201
    progress = {"user": "u-1", "case": "c-1"}
    for number in (1, 2):
        body = {"request": f"r-p{number}", **progress, "repetitions": number}
        assert application.ask("/progress", body)[0] == 201
    assert application.ask("/quiz", {"request": "r-q", "case": "c-1", "correct": True})[0] == 201
    assert application.ask("/cases")[1]["rows"] == [["c-1", "Two nodules", "CT", "2"]]
    assert application.ask("/cases/c-1")[1]["rows"] == [["c-1", "Two nodules", "CT", "2"]]
    assert application.ask("/search?q=nodule")[1]["rows"] == [["c-1", "Two nodules"]]
    assert application.ask("/progress?user=u-1")[1]["rows"] == [["c-1", "2"]]
    assert application.ask("/stats")[1]["rows"] == [["1", "1", "1"]]
    health = {"write": "sqlite", "read": "sqlite", "generation": 0}
    assert application.ask("/health") == (200, health)


def test_a_request_sent_twice_is_done_once(application: Application) -> None:
    application.ask("/cases", CASE)
    body = {"request": "r-q", "case": "c-1", "correct": False}
    assert application.ask("/quiz", body)[0] == 201
    assert application.ask("/quiz", body)[0] == 200
    assert application.ask("/stats")[1]["rows"] == [["1", "1", "0"]]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/nowhere", None, 404),
        ("/search", None, 400),
        ("/nowhere", {"request": "r"}, 404),
        ("/cases", {"request": "r"}, 400),
        ("/quiz", {"request": "r", "case": "no such case", "correct": 1}, 409),
    ],
)
def test_what_is_not_understood_is_refused(
    application: Application, path: str, body: dict[str, Any] | None, status: int
) -> None:
    answered, content = application.ask(path, body)
    assert answered == status
    assert content["error"]


def test_a_write_that_is_refused_as_moved_goes_where_the_connection_names(
    application: Application, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere.db"
    prepare_sqlite(elsewhere)
    application.run(REFUSE)
    answers: list[tuple[int, dict[str, Any]]] = []
    thread = threading.Thread(target=lambda: answers.append(application.ask("/users", USER)))
    thread.start()
    thread.join(0.1)
    assert answers == [], "it was answered although nobody took it"
    application.name(elsewhere, 1)
    thread.join(5)
    assert answers[0][0] == 201
    assert answers[0][1]["tries"] > 1
    with sqlite3.connect(elsewhere) as connection:
        assert connection.execute("SELECT id FROM users").fetchall() == [("u-1",)]
    connection.close()


def test_a_write_fails_when_its_deadline_is_over(tmp_path: Path) -> None:
    application = Application(tmp_path, deadline=0.1)
    try:
        application.run(REFUSE)
        status, content = application.ask("/users", USER)
    finally:
        application.close()
    assert status == 503
    assert "moved to PostgreSQL" in content["error"]


def test_one_that_reads_its_connection_at_start_does_not_follow(tmp_path: Path) -> None:
    application = Application(tmp_path, once=True)
    try:
        application.name(tmp_path / "elsewhere.db", 7)
        assert application.ask("/health")[1]["generation"] == 0
    finally:
        application.close()


def test_the_load_counts_what_fails(application: Application, tmp_path: Path) -> None:
    load = Load(application.url, tmp_path / "journal", users=(2, 1), seed=1)
    load.start()
    application.run("DROP TABLE quiz_attempts")
    _until(lambda: load.so_far()[1] > 0)
    result = load.stop()
    assert result.failures
    assert result.requests == len(result.answered) + len(result.failures)
    assert " requests failed; longest wait " in result.line()


def test_the_journal_misses_what_is_lost_doubled_or_stale(
    application: Application, tmp_path: Path
) -> None:
    journal = tmp_path / "journal"
    load = Load(application.url, journal, users=(2, 0), seed=1)
    load.start()
    _until(lambda: load.so_far()[0] > 100)
    assert load.stop().failures == []
    assert compare_sqlite(journal, application.file).problems == []
    written = Written.read(journal)
    last = {e["kind"]: r for r, e in written.sent.items() if r in written.acknowledged}
    for damage, told in (
        (f"DELETE FROM app_requests WHERE id = '{last['case']}'", "is there 0 times"),
        (f"DELETE FROM quiz_attempts WHERE session_id = '{last['quiz']}'", "is there 0 times"),
        (
            "INSERT INTO quiz_attempts (case_id, correct, session_id) SELECT case_id, 1, "
            f"session_id FROM quiz_attempts WHERE session_id = '{last['quiz']}'",
            "is there 2 times",
        ),
        ("UPDATE user_case_progress SET repetitions = repetitions - 1", "progress "),
        (f"UPDATE cases SET title = 'old' WHERE id = '{_id(written, last)}'", "title "),
    ):
        copy = tmp_path / "copy.db"
        source = sqlite3.connect(application.file)
        copied = sqlite3.connect(copy)
        source.backup(copied)
        copied.executescript(damage)
        copied.close()
        source.close()
        problems = compare_sqlite(journal, copy).problems
        assert any(told in problem for problem in problems), (damage, problems)
        copy.unlink()


def _id(written: Written, last: dict[str, str]) -> str:
    return str(written.sent[last["case"]]["id"])


def test_a_journal_holds_what_was_sent_and_what_was_acknowledged(tmp_path: Path) -> None:
    with Journal(tmp_path / "w.jsonl") as journal:
        journal.sent("a", {"kind": "user", "id": "u"})
        journal.acknowledged("a")
        journal.sent("b", {"kind": "user", "id": "v"})
    written = Written.read(tmp_path)
    assert list(written.sent) == ["a", "b"]
    assert written.acknowledged == {"a"}
