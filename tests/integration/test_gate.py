"""The gate before an application that reads its connection only at start."""

from __future__ import annotations

import contextlib
import http.server
import json
import random
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from example_app.journal import compare_postgres, compare_sqlite
from example_app.load import Load
from migration_job.connection import PostgresSide, write_connection
from migration_job.embedded import free_port
from migration_job.errors import JobError, OperationError
from migration_job.protocol import gate_protocol
from tests.integration.gated import Gated, rest_of
from tests.integration.livestage import LiveStage, until

ROOT = Path(__file__).resolve().parents[2]


class Upstream(http.server.BaseHTTPRequestHandler):
    """Answers in each of the ways that HTTP has."""

    protocol_version = "HTTP/1.1"
    slow = threading.Event()
    arrived = threading.Event()

    def do_GET(self) -> None:
        match self.path:
            case "/length":
                self._send(b"with a length")
            case "/chunks":
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.wfile.write(b"5\r\nfirst\r\n7;note=x\r\n second\r\n0\r\n\r\n")
            case "/close":
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"until the end")
                self.close_connection = True
            case "/nothing":
                self.send_response(204)
                self.end_headers()
            case "/slow":
                Upstream.arrived.set()
                Upstream.slow.wait(30)
                self._send(b"slow")
            case "/upgrade":
                self.send_response(101)
                self.send_header("Upgrade", "echo")
                self.send_header("Connection", "upgrade")
                self.end_headers()
                self.wfile.flush()
                self.wfile.write(self.rfile.readline().upper())
                self.close_connection = True
            case "/vanish":
                self.close_connection = True
            case _:
                self._send(repr(sorted(self.headers.items())).encode())

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()

    def do_POST(self) -> None:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers["Content-Length"]))
        self._send(body[::-1])

    def _send(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def upstream() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.server_address[1]
    Upstream.slow.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory, upstream: int) -> Iterator[Gated]:
    made = Gated(
        tmp_path_factory.mktemp("gate"), "--upstream", f"127.0.0.1:{upstream}", "--restart", "true"
    )
    yield made
    made.close()


def test_messages_pass_whatever_tells_their_end(gated: Gated) -> None:
    client = gated.client()
    for path, body in (
        ("/length", b"with a length"),
        ("/chunks", b"first second"),
        ("/nothing", b""),
        ("/length", b"with a length"),
        ("/close", b"until the end"),
    ):
        client.request("GET", path)
        assert client.getresponse().read() == body
    client.request("HEAD", "/length")
    answer = client.getresponse()
    assert (answer.getheader("Content-Length"), answer.read()) == ("1000", b"")
    client.request("POST", "/", b"abc" * 100_000)
    assert client.getresponse().read() == b"cba" * 100_000
    client.request(
        "POST",
        "/",
        iter([b"in ", b"chunks"]),
        encode_chunked=True,
        headers={"Transfer-Encoding": "chunked"},
    )
    assert client.getresponse().read() == b"sknuhc ni"
    client.close()


def test_a_client_may_wait_for_a_word_before_it_sends_its_body(gated: Gated) -> None:
    with socket.create_connection(("127.0.0.1", gated.port), timeout=30) as client:
        client.sendall(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nConnection: close\r\n"
            b"Expect: 100-continue\r\n\r\n"
        )
        assert client.recv(100).startswith(b"HTTP/1.1 100")
        client.sendall(b"abc")
        assert rest_of(client).endswith(b"cba")


def test_the_connections_own_headers_stay_on_their_hop(gated: Gated) -> None:
    client = gated.client()
    client.request("GET", "/headers", headers={"Keep-Alive": "timeout=5", "X-Mine": "stays"})
    seen = client.getresponse().read().decode()
    client.close()
    assert "stays" in seen
    assert "timeout=5" not in seen


def test_a_connection_that_is_http_no_more_is_passed_both_ways(gated: Gated) -> None:
    sent = (
        b"GET /upgrade HTTP/1.1\r\nHost: x\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\nhello\r\n"
    )
    answer = gated.raw(sent)
    assert answer.startswith(b"HTTP/1.1 101")
    assert answer.endswith(b"HELLO\r\n")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (
            b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"GET / HTTP/1.1\r\nno header\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", 431),
        (b"GET /vanish HTTP/1.1\r\nHost: x\r\n\r\n", 502),
    ],
    ids=["two lengths", "length and chunks", "no header", "too long", "no answer"],
)
def test_what_cannot_be_passed_on_is_refused(gated: Gated, sent: bytes, status: int) -> None:
    assert gated.raw(sent).startswith(f"HTTP/1.1 {status} ".encode())


def test_what_is_under_way_ends_and_what_comes_waits(gated: Gated) -> None:
    Upstream.slow.clear()
    answers: list[str] = []

    def ask(path: str) -> Callable[[], None]:
        return lambda: answers.append(gated.get(path)[1].decode())

    slow = threading.Thread(target=ask("/slow"))
    slow.start()
    assert Upstream.arrived.wait(30)
    with (
        pytest.raises(OperationError, match="still under way"),
        gate_protocol.holding(gated.state, limit=0.3, longest=30, say=print),
    ):
        raise AssertionError("it was held although a request was under way")
    Upstream.slow.set()
    slow.join(30)
    assert answers == ["slow"]
    with gate_protocol.holding(gated.state, limit=10, longest=30, say=print):
        waiting = threading.Thread(target=ask("/length"))
        waiting.start()
        waiting.join(0.3)
        assert answers == ["slow"]
    waiting.join(30)
    assert answers == ["slow", "with a length"]


def test_a_hold_that_nobody_ends_lapses(gated: Gated) -> None:
    asked = {"token": "left behind", "until": time.time() + 0.5}
    (gated.state / "gate_protocol.json").write_text(json.dumps(asked))
    assert gated.get("/length") == (200, b"with a length")
    gate_protocol.let_go(gated.state)


def test_without_a_gate_nothing_is_held(tmp_path: Path) -> None:
    with gate_protocol.holding(tmp_path, limit=1, longest=1, say=print):
        assert gate_protocol.wanted(tmp_path) is None


def test_a_command_that_starts_it_anew_is_tried_again_until_it_does(
    tmp_path: Path, upstream: int
) -> None:
    script = tmp_path / "restart"
    script.write_text(f"#!/bin/sh\necho started >>{shlex.quote(str(tmp_path))}/calls\nexit 1\n")
    script.chmod(0o755)
    gated = Gated(tmp_path, "--upstream", f"127.0.0.1:{upstream}", "--restart", str(script))
    try:
        assert gated.get("/length")[0] == 200
        side = PostgresSide(host="h", database="d", user="u", password="p")
        write_connection(gated.connection, side, side)
        until(lambda: "trying again" in gated.said, "a failure")
        script.write_text("#!/bin/sh\nexit 0\n")
        until(lambda: gated.said.count("answers after") == 2, "the second start")
        assert gated.get("/length")[0] == 200
    finally:
        gated.close()


def restarter(directory: Path, then: str = "") -> str:
    """A command that notes that it was called, and then does ``then``."""
    script = directory / "restart"
    script.write_text(f"#!/bin/sh\necho started >>{shlex.quote(str(directory))}/calls\n{then}\n")
    script.chmod(0o755)
    return str(script)


def calls(directory: Path) -> int:
    found = directory / "calls"
    return found.read_text().count("started") if found.exists() else 0


def name_postgresql(gated: Gated, user: str = "u") -> None:
    side = PostgresSide(host="h", database="d", user=user, password="p")
    write_connection(gated.connection, side, side)


def test_a_command_waits_until_the_application_answers_on_the_new_side(
    tmp_path: Path, upstream: int
) -> None:
    # Longer than a heartbeat may be silent: one that waits must not take the gate for gone.
    go = tmp_path / "go"
    slow = f"until [ -e {shlex.quote(str(go))} ]; do sleep 0.05; done"
    gated = Gated(
        tmp_path, "--upstream", f"127.0.0.1:{upstream}", "--restart", restarter(tmp_path, slow)
    )
    said: list[str] = []
    try:
        name_postgresql(gated)
        with pytest.raises(OperationError, match="postgresql serves, but expected the gate"):
            gate_protocol.wait_for_application(
                gated.state, gated.connection, limit=gate_protocol.GONE_SECONDS + 1, say=said.append
            )
        go.touch()
        gate_protocol.wait_for_application(gated.state, gated.connection, limit=30, say=said.append)
        assert said[-1] == "the application answers"
        assert gated.get("/length")[0] == 200
    finally:
        go.touch()
        gated.close()
    # A gate that has ended in order keeps nobody.
    name_postgresql(gated, "another")
    gate_protocol.wait_for_application(gated.state, gated.connection, limit=0, say=said.append)


def test_a_gate_that_died_on_the_way_is_followed_by_one_that_starts_it_anew(
    tmp_path: Path, upstream: int
) -> None:
    options = ("--upstream", f"127.0.0.1:{upstream}", "--restart")
    gated = Gated(tmp_path, *options, restarter(tmp_path, "exit 1"))
    assert calls(tmp_path) == 0
    name_postgresql(gated)
    until(lambda: calls(tmp_path) > 0, "an attempt")
    gated.process.kill()
    gated.close()
    (tmp_path / "calls").unlink()
    for expected in (1, 1):  # and the one after that has nothing to do
        gated = Gated(tmp_path, *options, restarter(tmp_path))
        gated.close()
        assert calls(tmp_path) == expected


def test_what_is_under_way_gets_its_answer_when_the_gate_ends(
    tmp_path: Path, upstream: int
) -> None:
    gated = Gated(tmp_path, "--upstream", f"127.0.0.1:{upstream}", "--restart", "true")
    idle = gated.client()
    idle.request("GET", "/length")
    assert idle.getresponse().read()
    Upstream.slow.clear()
    Upstream.arrived.clear()
    answers: list[bytes] = []
    slow = threading.Thread(target=lambda: answers.append(gated.get("/slow")[1]))
    slow.start()
    assert Upstream.arrived.wait(30)
    gated.process.terminate()
    with pytest.raises(subprocess.TimeoutExpired):
        gated.process.wait(0.3)
    Upstream.slow.set()
    slow.join(30)
    assert answers == [b"slow"]
    assert gated.process.wait(10) == 0  # whatever keeps its connection open
    gated.close()
    idle.close()


def test_an_application_that_only_accepts_connections_does_not_answer_yet(tmp_path: Path) -> None:
    """As the engine does for a published port before the program behind it is there."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        command = [sys.executable, "-m", "migration_job", "gate", "--listen", "127.0.0.1:0"]
        command += ["--upstream", f"127.0.0.1:{port}", "--restart", "true"]
        command += ["--connection", str(tmp_path / "c"), "--state", str(tmp_path / "s")]
        gate = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        try:
            assert gate.stdout is not None
            client, _ = silent.accept()
            client.close()
            assert "starting" in gate.stdout.readline()
            assert f"waiting until it answers at 127.0.0.1:{port}" in gate.stdout.readline()
            client, _ = silent.accept()
            client.sendall(b"HTTP/1.1 404 Not Found\r\n\r\n")
            assert "the application answers" in gate.stdout.readline()
            client.close()
        finally:
            gate.terminate()
            gate.wait(30)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--upstream", "127.0.0.1:1"], "one of --run and --restart"),
        (["--upstream", "nonsense", "--run", "true"], "HOST:PORT after --upstream"),
        (["--upstream", "127.0.0.1:1", "--run", "/no/such/program"], "cannot be started"),
    ],
)
def test_wrong_usage_is_told(tmp_path: Path, options: list[str], told: str) -> None:
    command = [sys.executable, "-m", "migration_job", "gate", *options]
    command += ["--connection", str(tmp_path / "c"), "--state", str(tmp_path / "s")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode in (1, 2)
    assert told in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.postgres
@pytest.mark.slow
@pytest.mark.timeout(240)
def test_an_application_that_must_be_restarted_is_switched_under_load(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        try:
            stage = stack.enter_context(LiveStage(tmp_path))
        except JobError as error:
            pytest.skip(f"no embedded servers: {error.message}")
        stage.begin()
        seed = random.SystemRandom().randrange(10**6)
        print(f"seed {seed}")
        port = free_port()
        application = [sys.executable, "-m", "example_app", "--sqlite", str(stage.source)]
        application += ["--connection", str(stage.connection), "--port", str(port)]
        # It neither looks again nor tries for long: what meets a closed side fails.
        application += ["--read-connection-once", "--deadline", "0.5"]
        gated = Gated(
            stage.live, "--upstream", f"127.0.0.1:{port}", "--run", shlex.join(application)
        )
        stack.callback(gated.close)
        load = Load(f"http://127.0.0.1:{gated.port}", stage.live / "journal", rate=60, seed=seed)
        load.start()
        stack.callback(load.stop)

        def some_more() -> None:
            before = load.so_far()[0]
            until(lambda: load.so_far()[0] > before + 60, "more requests", poll=0.05)

        some_more()
        stage.run_job("migrate", "--live")
        sync = stage.start_job("sync")
        stack.callback(sync.kill)
        some_more()
        stage.run_job("switch")
        some_more()
        # A rollback whose process dies while requests are held: sync completes it.
        killed = stage.start_job("rollback", fault="after:rollback.decide")
        assert killed.wait() == -signal.SIGKILL
        until(lambda: stage.named()["write"]["engine"] == "sqlite", "sync to complete it")
        some_more()
        stage.run_job("switch")
        some_more()
        result = load.stop()
        print(result.line())
        assert result.failures == []
        assert set(result.sides()) == {"sqlite", "postgresql"}
        assert gated.said.count("starting the application") == 4
        assert compare_postgres(stage.live / "journal", stage.superuser_dsn()).problems == []
        assert sync.end() == 0
        stage.run_job("sync", "--once")
        assert compare_sqlite(stage.live / "journal", stage.source).problems == []
