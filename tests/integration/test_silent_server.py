"""A server that accepts connections and answers none: no call waits for it without end."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from migration_job.errors import InputError, OperationError
from migration_job.protocol.decision import truthful
from migration_job.stores.postgres import database, session

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(120)]

LOOK, SILENT = 1, 2.0
SOON = 30.0


class Line:
    """A line to the server that can be made to carry nothing more."""

    def __init__(self, host: str, port: int) -> None:
        self._to = (host, port)
        self._open = threading.Event()
        self._open.set()
        self._kept: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def fall_silent(self) -> None:
        self._open.clear()

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self._listener.accept()
            except OSError:
                return
            there = socket.create_connection(self._to)
            self._kept += [here, there]
            for pair in ((here, there), (there, here)):
                threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                self._open.wait()
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def close(self) -> None:
        for one in (self._listener, *self._kept):
            one.close()
        self._open.set()


@pytest.fixture
def line(postgres: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    monkeypatch.setattr(session, "COMMIT_SECONDS", 1.0)
    monkeypatch.setattr(session, "LOOK_SECONDS", LOOK)
    monkeypatch.setattr(session, "SILENT_SECONDS", SILENT)
    parts = conninfo_to_dict(postgres)
    made = Line(str(parts["host"]), int(str(parts["port"])))
    yield made
    made.close()


def through(line: Line, dsn: str) -> str:
    return make_conninfo(dsn, host="127.0.0.1", hostaddr="127.0.0.1", port=line.port)


def test_a_call_ends_as_that_of_a_lost_server(line: Line, postgres: str, tmp_path: Path) -> None:
    target = database.connect(through(line, postgres))
    line.fall_silent()
    start = time.monotonic()
    with pytest.raises(OperationError) as told, truthful(tmp_path / "none.db", "sync"):
        target.execute("SELECT 1")
    assert time.monotonic() - start < SOON
    assert "sync failed: the server accepts connections and answers none" in told.value.message
    assert target.closed, "so that the next round opens it again"


def test_a_long_statement_is_not_taken_for_silence(line: Line, postgres: str) -> None:
    with database.connect(through(line, postgres)) as target:
        assert target.execute("SELECT 1 FROM pg_sleep(5)").fetchone() == (1,)


def test_a_new_session_is_not_waited_for_either(
    line: Line, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "CONNECT_TIMEOUT", 2)
    line.fall_silent()
    start = time.monotonic()
    with pytest.raises(InputError, match=r"cannot connect to the target .*timeout"):
        database.connect(through(line, postgres))
    assert time.monotonic() - start < SOON


def test_a_server_that_refuses_more_sessions_is_not_silent(
    line: Line, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise psycopg.OperationalError("FATAL: sorry, too many clients already")

    with database.connect(through(line, postgres)) as target:
        monkeypatch.setattr(session._Look, "connect", full)
        assert target.execute("SELECT 1 FROM pg_sleep(4)").fetchone() == (1,)
