"""What a hostile client, and a broken application, can do to the gate: nothing.

``GATE_FUZZ=10000`` has the fuzz send as many inputs; ``GATE_SEED`` repeats one.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import resource
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from migration_job.errors import OperationError
from migration_job.protocol import gate_protocol
from tests.integration.gated import Gated, rest_of
from tests.integration.livestage import until
from tests.integration.strict_application import StrictApplication, strict_application

MIB = 1 << 20


@pytest.fixture(scope="module")
def application() -> Iterator[StrictApplication]:
    with strict_application() as made:
        yield made


@pytest.fixture(scope="module")
def gated(
    tmp_path_factory: pytest.TempPathFactory, application: StrictApplication
) -> Iterator[Gated]:
    made = Gated(tmp_path_factory.mktemp("gate"), *before(application))
    yield made
    made.close()


@pytest.fixture(scope="module")
def hasty(
    tmp_path_factory: pytest.TempPathFactory, application: StrictApplication
) -> Iterator[Gated]:
    """With short limits."""
    made = Gated(
        tmp_path_factory.mktemp("hasty"),
        *before(application),
        limits={"head": 1, "idle": 1, "body": 1, "slow": 1, "stream": 0.3, "long": 0.5, "take": 2},
    )
    yield made
    made.close()


def before(application: StrictApplication) -> tuple[str, ...]:
    return ("--upstream", f"127.0.0.1:{application.port}", "--restart", "true")


HOST = b"Host: x\r\n"
POST = b"POST / HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
LAST = b"Connection: close\r\n"

HOSTILE: dict[str, tuple[bytes, tuple[int, ...]]] = {
    "length and chunks": (
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        (400,),
    ),
    "two codings": (
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
        (501,),
    ),
    "another coding": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", (501,)),
    "coding with a form feed": (POST + b"Transfer-Encoding: \x0cchunked\r\n\r\n", (400,)),
    "coding of HTTP/1.0": (
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        (400,),
    ),
    "two lengths": (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", (400,)),
    "list of lengths": (POST + b"Content-Length: 1, 2\r\n\r\nab", (400,)),
    "negative length": (POST + b"Content-Length: -1\r\n\r\n", (400,)),
    "signed length": (POST + b"Content-Length: +1\r\n\r\na", (400,)),
    "endless length": (POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", (400,)),
    "negative chunk": (CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n", (400,)),
    "0x chunk": (CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n", (400,)),
    "chunk with an underscore": (CHUNKED + b"1_0\r\nhello\r\n0\r\n\r\n", (400,)),
    "overflowing chunk": (CHUNKED + b"f" * 40 + b"\r\nhello", (400,)),
    "chunk longer than its size": (CHUNKED + b"3\r\nhello\r\n0\r\n\r\n", (400,)),
    "flood of extensions": (CHUNKED + (b"1;" + b"x" * 9000 + b"\r\na\r\n") * 20, (400,)),
    "NUL in a value": (b"GET / HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n", (400,)),
    "NUL in the target": (b"GET /a\0b HTTP/1.1\r\nHost: x\r\n\r\n", (400,)),
    "bare CR in a value": (b"GET / HTTP/1.1\r\nHost: x\r\nX: a\rY: b\r\n\r\n", (400,)),
    "control character": (b"GET / HTTP/1.1\r\nHost: x\r\nX: a\x01b\r\n\r\n", (400,)),
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", (400,)),
    "two Hosts": (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", (400,)),
    "Host with a path": (b"GET / HTTP/1.1\r\nHost: x/y\r\n\r\n", (400,)),
    "space before the colon": (b"GET / HTTP/1.1\r\nHost : x\r\n\r\n", (400,)),
    "fold before any header": (b"GET / HTTP/1.1\r\n Host: x\r\n\r\n", (400,)),
    "huge head": (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 200_000 + b"\r\n\r\n", (431,)),
    "many headers": (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 500 + b"\r\n", (431,)),
    "CONNECT": (b"CONNECT x:25 HTTP/1.1\r\nHost: x:25\r\n\r\n", (501,)),
    "another scheme": (b"GET file:///etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", (400,)),
    "a later version": (b"GET / HTTP/3.0\r\nHost: x\r\n\r\n", (505,)),
    "HTTP/0.9": (b"GET /\r\n\r\n", (400,)),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", (400,)),
}

ALLOWED: dict[str, bytes] = {
    "fold": b"GET /p HTTP/1.1\r\n" + HOST + LAST + b"X: a\r\n  b\r\n\r\n",
    "bare LF": b"GET /p HTTP/1.1\nHost: x\nConnection: close\n\n",
    "absolute form": b"GET http://y/p HTTP/1.1\r\nHost: x\r\n" + LAST + b"\r\n",
    "the same length twice": b"POST /p HTTP/1.1\r\n"
    + HOST
    + LAST
    + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nab",
    "HTTP/1.0": b"GET /p HTTP/1.0\r\n\r\n",
    "trailers": b"POST /p HTTP/1.1\r\n"
    + HOST
    + LAST
    + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nX-Sum: 1\r\nHost: evil\r\n\r\n",
    "an empty line before": b"\r\nGET /p HTTP/1.1\r\n" + HOST + LAST + b"\r\n",
}


def statuses(answer: bytes) -> list[int]:
    return [int(s) for s in re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", answer)]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_request_is_refused(
    gated: Gated, application: StrictApplication, name: str
) -> None:
    sent, expected = HOSTILE[name]
    before_it = len(application.requests)
    answer = gated.raw(sent)
    assert statuses(answer) == [*expected]
    assert b"Connection: close" in answer
    assert application.requests[before_it:] == []
    assert application.wrong == []
    assert gated.get("/")[0] == 200


@pytest.mark.parametrize("name", ALLOWED)
def test_what_is_allowed_is_written_anew(
    gated: Gated, application: StrictApplication, name: str
) -> None:
    before_it = len(application.requests)
    answer = gated.raw(ALLOWED[name])
    assert statuses(answer) == [200]
    assert [r.split()[1] for r in application.requests[before_it:]] == [b"/p"]
    assert application.wrong == []


def test_requests_in_one_piece_get_an_answer_each(gated: Gated) -> None:
    one = b"GET / HTTP/1.1\r\n" + HOST
    answer = gated.raw(
        (one + b"\r\n") * 5 + POST + b"Content-Length: 1\r\n\r\na" + one + LAST + b"\r\n"
    )
    assert statuses(answer) == [200] * 7
    assert answer.endswith(b"\r\n\r\nok")


@pytest.mark.parametrize(("method", "path"), [("HEAD", "/"), ("GET", "/304")])
def test_an_answer_without_a_body_ends_with_its_head(gated: Gated, method: str, path: str) -> None:
    client = gated.client()
    for _ in range(2):
        client.request(method, path)
        answer = client.getresponse()
        assert (answer.getheader("Content-Length"), answer.read()) == ("1000", b"")
    client.close()


def test_trailers_of_an_answer_pass_but_for_those_that_frame_it(gated: Gated) -> None:
    answer = gated.raw(b"GET /trailers HTTP/1.1\r\n" + HOST + LAST + b"\r\n")
    assert answer.endswith(b"0\r\nX-Sum: 1\r\n\r\n")


@pytest.mark.parametrize("path", [b"/truncated", b"/truncated-chunks"])
def test_a_truncated_answer_stays_truncated(gated: Gated, path: bytes) -> None:
    answer = gated.raw(b"GET " + path + b" HTTP/1.1\r\n" + HOST + b"\r\n")
    assert statuses(answer) == [200]
    assert answer.endswith((b"\r\n\r\ntoo short", b"\r\n5\r\nfirst\r\n"))


def test_a_truncated_answer_is_no_end_for_a_client_without_chunks(gated: Gated) -> None:
    with gated.connect() as client:
        client.sendall(b"GET /truncated-chunks HTTP/1.0\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            rest_of(client)


@pytest.mark.parametrize("path", [b"/two-lengths", b"/no-http"])
def test_an_answer_that_is_no_http_is_not_passed_on(gated: Gated, path: bytes) -> None:
    assert statuses(gated.raw(b"GET " + path + b" HTTP/1.1\r\n" + HOST + b"\r\n")) == [502]


def test_an_answer_before_the_requests_end_arrives(gated: Gated) -> None:
    with gated.connect() as client:
        client.sendall(b"POST /413 HTTP/1.1\r\n" + HOST + b"Content-Length: 90000000\r\n\r\n")

        def send() -> None:
            with contextlib.suppress(OSError):
                for _ in range(90):
                    client.sendall(b"x" * 1_000_000)

        sender = threading.Thread(target=send)
        sender.start()
        answer = b""
        while not answer.endswith(b"large"):
            block = client.recv(65536)
            assert block, answer
            answer += block
        assert statuses(answer) == [413]
        assert b"Connection: close" in answer
    sender.join(30)


def test_a_kept_connection_that_was_closed_costs_no_request(
    gated: Gated, application: StrictApplication
) -> None:
    before_it = len(application.requests)
    for number in range(50):
        assert gated.get("/once") == (200, b"ok")
        client = gated.client()
        client.request("POST", f"/write-{number}", b"x")
        assert client.getresponse().status == 200
        client.close()
    writes = [r for r in application.requests[before_it:] if r.startswith(b"POST")]
    assert len(writes) == len(set(writes)) == 50


# ------------------------------------------------------------------------------------- limits


def test_half_a_head_and_an_idle_connection_end(hasty: Gated) -> None:
    start = time.monotonic()
    with hasty.connect() as half, hasty.connect() as silent, hasty.connect() as idle:
        half.sendall(b"GET / HTTP/1.1\r\nHost:")
        idle.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert statuses(rest_of(half)) == [408]
        assert rest_of(silent) == b""
        assert statuses(rest_of(idle)) == [200]
    assert time.monotonic() - start < 20


def test_a_body_that_does_not_come_ends(hasty: Gated) -> None:
    assert statuses(hasty.raw(POST + b"Content-Length: 10\r\n\r\nabc")) == [408]


def test_a_body_in_drops_ends(hasty: Gated) -> None:
    start = time.monotonic()
    with hasty.connect() as client:
        client.sendall(POST + b"Content-Length: 100000\r\n\r\n")
        client.settimeout(0.05)
        answer = b""
        while not answer:
            assert time.monotonic() - start < 20
            client.sendall(b"x")
            with contextlib.suppress(TimeoutError):
                answer = client.recv(65536)
    assert statuses(answer) == [408]


def test_a_client_that_takes_nothing_is_let_go(hasty: Gated) -> None:
    peak = hasty.peak
    with hasty.connect() as client:
        client.sendall(b"GET /large HTTP/1.1\r\n" + HOST + b"\r\n")
        quiet(hasty)
    assert hasty.peak - peak < 8 * MIB


def quiet(gated: Gated) -> None:
    """Wait for a hold to be reported."""
    with gate_protocol.holding(gated.state, limit=30, longest=30, say=print):
        pass


def test_a_large_body_is_passed_in_blocks(gated: Gated) -> None:
    peak = gated.peak
    with gated.connect() as client:
        client.sendall(POST + LAST + b"Content-Length: 64000000\r\n\r\n")
        for _ in range(64):
            client.sendall(b"x" * 1_000_000)
        assert statuses(rest_of(client)) == [200]
    assert len(gated.get("/large")[1]) == 50_000_000
    assert gated.peak - peak < 8 * MIB


def test_more_idle_connections_than_descriptors(
    tmp_path: Path, application: StrictApplication
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2048:
        pytest.skip("this process may open too few files itself")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    gated = Gated(tmp_path, *before(application), files=1024)
    idle: list[socket.socket] = []
    try:
        for _ in range(1100):
            idle.append(gated.connect())
        assert gated.get("/") == (200, b"ok")
        quiet(gated)
        assert "all connections are taken" in gated.said
        assert "Traceback" not in gated.said
    finally:
        for client in idle:
            client.close()
        gated.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# -------------------------------------------------------------------------------------- holds


@pytest.mark.parametrize("path", [b"/events", b"/chunks", b"/websocket"])
def test_a_stream_is_cut_at_a_hold(
    hasty: Gated, application: StrictApplication, path: bytes
) -> None:
    upgrade = b"Upgrade: websocket\r\nConnection: upgrade\r\n" if path == b"/websocket" else b""
    with hasty.connect() as client:
        client.sendall(b"GET " + path + b" HTTP/1.1\r\n" + HOST + upgrade + b"\r\n")
        assert client.recv(65536)
        start = time.monotonic()
        with gate_protocol.holding(hasty.state, limit=20, longest=30, say=print):
            assert 0.2 < time.monotonic() - start < 15
            received = rest_of(client)
            until(lambda: application.streams == 0, "the application's end of it")
        assert not received.endswith(b"0\r\n\r\n"), "it must not look complete"
    assert hasty.get("/")[0] == 200


def test_half_a_body_does_not_keep_a_hold_from_being_reported(hasty: Gated) -> None:
    """Its bytes come, slowly but in time."""
    with hasty.connect() as client:
        client.sendall(POST + b"Content-Length: 10000000\r\n\r\n")
        over = threading.Event()

        def drip() -> None:
            with contextlib.suppress(OSError):
                while not over.wait(0.02):
                    client.sendall(b"x" * 1000)

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            with gate_protocol.holding(hasty.state, limit=20, longest=30, say=print):
                answer = client.recv(65536)
        finally:
            over.set()
            dripping.join(10)
    assert statuses(answer) == [503]
    assert b"Retry-After: 1\r\n" in answer
    assert b"Connection: close\r\n" in answer


def test_a_request_whose_client_gave_up_while_it_was_held_is_not_sent(
    gated: Gated, application: StrictApplication
) -> None:
    with gate_protocol.holding(gated.state, limit=20, longest=30, say=print):
        with gated.connect() as client:
            client.sendall(b"POST /given-up HTTP/1.1\r\n" + HOST + b"Content-Length: 0\r\n\r\n")
        with gated.connect() as other:
            other.sendall(b"GET /waits HTTP/1.1\r\n" + HOST + LAST + b"\r\n")
            other.settimeout(0.3)
            with pytest.raises(TimeoutError):
                other.recv(1)
            gate_protocol.let_go(gated.state)
            other.settimeout(30)
            assert statuses(rest_of(other)) == [200]
    until(lambda: gated.get("/")[0] == 200, "an answer")
    assert not [r for r in application.requests if b"/given-up" in r]


def test_a_full_state_directory_does_not_end_the_gate(
    tmp_path: Path, application: StrictApplication
) -> None:
    gated = Gated(tmp_path, *before(application))
    try:
        gated.state.rename(tmp_path / "elsewhere")
        until(lambda: "heartbeat cannot be written" in gated.said, "a warning")
        assert gated.get("/") == (200, b"ok")
        (tmp_path / "elsewhere").rename(gated.state)
        quiet(gated)
        assert gated.said.count("heartbeat cannot be written") == 1
    finally:
        gated.close()


def test_a_request_that_the_application_does_not_answer_is_not_cut(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:

        def probe() -> None:
            first, _ = silent.accept()
            first.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            first.close()

        prober = threading.Thread(target=probe)
        prober.start()
        gated = Gated(
            tmp_path,
            *("--upstream", f"127.0.0.1:{silent.getsockname()[1]}", "--restart", "true"),
            limits={"slow": 0.1, "stream": 0.1},
        )
        prober.join(10)
        try:
            with gated.connect() as client:
                client.sendall(b"GET / HTTP/1.1\r\n" + HOST + LAST + b"\r\n")
                there, _ = silent.accept()
                with (
                    pytest.raises(OperationError, match="still under way"),
                    gate_protocol.holding(gated.state, limit=1, longest=30, say=print),
                ):
                    raise AssertionError("it was held although the application was at work")
                there.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                assert statuses(rest_of(client)) == [200]
                there.close()
        finally:
            gated.close()


# --------------------------------------------------------------------------------------- fuzz


def mutated(choice: random.Random) -> bytes:
    """A request or several, with a few bytes, lines or pieces changed."""
    pool = [sent for sent, _ in HOSTILE.values() if len(sent) < 20_000] + [*ALLOWED.values()]
    sent = bytearray(b"".join(choice.choices(pool, k=choice.choice((1, 1, 2, 3)))))
    marks = [b"\r\n", b"\n", b"\r", b"\0", b":", b" ", b"\t", b"0", b"-", b"chunked", b"\xff"]
    marks += [
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Length: 3\r\n",
        b"Host: y\r\n",
        b"\r\n\r\n",
    ]
    marks += [b"Connection: content-length, host\r\n", b"Expect: 100-continue\r\n", b";a=b"]
    marks += [b"Upgrade: h2c\r\nConnection: upgrade\r\n", b"5\r\nhello\r\n", b"0\r\n\r\n"]
    for _ in range(choice.choice((0, 1, 1, 2, 5))):
        at = choice.randrange(len(sent) + 1)
        match choice.randrange(5):
            case 0:
                sent[at : at + choice.randrange(1, 4)] = b""
            case 1:
                sent[at : at + 1] = bytes([choice.randrange(256)])
            case 2:
                sent[at:at] = choice.choice(marks)
            case 3:
                end = min(len(sent), at + choice.randrange(1, 60))
                sent[at:at] = sent[at:end]
            case _:
                del sent[max(at, 1) :]
    return bytes(sent)


@pytest.mark.timeout(3600)
def test_no_input_gets_past_it_or_ends_it(gated: Gated, application: StrictApplication) -> None:
    count = int(os.environ.get("GATE_FUZZ", "300"))
    seed = int(os.environ.get("GATE_SEED", str(random.SystemRandom().randrange(10**9))))
    print(f"GATE_SEED={seed}")
    choice = random.Random(seed)
    assert gated.get("/")[0] == 200
    peak = gated.peak
    for number in range(count):
        sent = mutated(choice)
        with gated.connect() as client, contextlib.suppress(OSError):
            cut = choice.randrange(len(sent) + 1) if choice.random() < 0.3 else len(sent)
            client.sendall(sent[:cut])
            if cut < len(sent):
                time.sleep(0.001)
                client.sendall(sent[cut:])
            client.shutdown(socket.SHUT_WR)
            answer = rest_of(client)
            assert answer == b"" or answer.startswith(b"HTTP/1.1 "), (number, sent, answer)
        assert application.wrong == [], (number, sent)
        assert gated.get("/") == (200, b"ok"), (number, sent)
    assert gated.peak - peak < 16 * MIB
    assert "Traceback" not in gated.said
    assert "error:" not in gated.said
    quiet(gated)
