"""Requests a second, and processor time for each, through the gate, nginx and HAProxy.

``python -m benchmarks.gate compare CHECKOUT`` has an earlier gate and this one take turns. The
application answers a hundred bytes at once, so that what is between counts alone; it, the clients
and what is measured are three processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import typer

from benchmarks.lab import CommandFailed, Lab
from benchmarks.results import Row, Sample, Section, ratio

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
CLIENTS = 16
SECONDS = 5.0
START_SECONDS = 30.0

BODY = b"x" * 100
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\n" + BODY
LAST = ANSWER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")

HAPROXY = """\
global
    nbthread 1
    maxconn 2000
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    {reuse}
listen gate
    bind {host}:{port}
    server application {host}:{upstream}
"""


NGINX = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream application {{ server {host}:{upstream}; keepalive 64; }}
    server {{
        listen {host}:{port} backlog=1024;
        keepalive_requests 1000000;
        location / {{
            proxy_pass http://application;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Way:
    """A way to the application: the port, and the process that stands there (None: itself)."""

    port: int
    process: int | None = None


@dataclass(frozen=True, slots=True)
class Mode:
    title: str
    method: str
    kept: bool
    """Whether the clients keep their connections."""


MODES = (
    Mode("GET, a new connection each", "GET", False),
    Mode("GET, connections kept", "GET", True),
    Mode("POST of 100 bytes, a new connection each", "POST", False),
    Mode("POST of 100 bytes, connections kept", "POST", True),
)


GATE, STRAIGHT = "through the gate", "straight"
PEERS = ("nginx", "haproxy")


def measure(lab: Lab) -> Section:
    """Requests a second in each mode, and the processor time of what is between, all ways in
    turns."""
    with ExitStack() as stack:
        upstream = stack.enter_context(_application())
        ways = {
            GATE: stack.enter_context(_gate(upstream)),
            STRAIGHT: Way(upstream),
        }
        for peer, way in (("nginx", _nginx), ("haproxy", _haproxy)):
            if shutil.which(peer):
                ways[f"through {peer}"] = stack.enter_context(way(upstream))
        rows = [row for mode in MODES for row in _rows(mode, ways, lab.runs)]
    missing = [peer for peer in PEERS if f"through {peer}" not in ways]
    left_out = f" Not installed, so not measured: {', '.join(missing)}." if missing else ""
    return Section(
        key="gate",
        title=f"{CLIENTS} clients through the gate",
        rows=tuple(rows),
        text=f"An application that answers 100 bytes at once, {CLIENTS} clients that each wait for "
        f"one answer before the next request, {SECONDS:g} s a run, median of {lab.runs}, on a "
        f"machine whose load was {os.getloadavg()[0]:.0f} at the end. The gate is one process and "
        "keeps its connections to the application for GET and HEAD; anything that may write has a "
        "new one each, which nginx and HAProxy keep. Processor time is user and system of what "
        f"stands between.{left_out}",
    )


def _rows(mode: Mode, ways: dict[str, Way], runs: int) -> Iterator[Row]:
    rates: dict[str, list[float]] = {name: [] for name in ways}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(runs):
        for name, way in ways.items():
            before = _processor_seconds(way.process)
            rates[name].append(requests_per_second(way.port, mode))
            used = _processor_seconds(way.process) - before
            times[name].append(used / (rates[name][-1] * SECONDS) * 1e6)
    samples = {n: Sample(label=n, values=tuple(v), unit="requests/s") for n, v in rates.items()}
    for name in ways:
        if name != GATE:
            yield ratio(mode.title, name, samples[GATE], samples[name], None)
    if any(times[GATE]):
        spent = [
            Sample(label=n, values=tuple(v), unit="µs") for n, v in times.items() if n != STRAIGHT
        ]
        yield Row(
            what=f"processor time, {mode.title}",
            against="",
            value=spent[0].median,
            samples=tuple(spent),
        )


def _processor_seconds(process: int | None) -> float:
    """Of a process and those it has started; 0 where the system does not tell."""
    if process is None:
        return 0.0
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return 0.0
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(_processor_seconds(int(child)) for child in children)


# ------------------------------------------------------------------------------ the processes


@contextmanager
def _process(*arguments: str, root: Path = ROOT) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments], cwd=root, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(START_SECONDS)


def _lines(process: subprocess.Popen[str]) -> Iterator[str]:
    if process.stdout is None:
        raise TypeError("expected a process whose output is read")
    yield from process.stdout


@contextmanager
def _application() -> Iterator[int]:
    with _process("benchmarks.gate", "application") as process:
        yield int(next(_lines(process)))


@contextmanager
def _gate(upstream: int, root: Path = ROOT) -> Iterator[Way]:
    """``migration-job gate`` of the checkout ``root`` before ``upstream``."""
    with tempfile.TemporaryDirectory() as directory:
        options = ["--listen", f"{HOST}:0", "--upstream", f"{HOST}:{upstream}"]
        options += ["--connection", f"{directory}/connection", "--state", f"{directory}/state"]
        with _process("migration_job", "gate", "--restart", "true", *options, root=root) as process:
            for line in _lines(process):
                if "listens on" in line:
                    yield Way(int(line.rpartition(":")[2]), process.pid)
                    return
            raise CommandFailed("the gate has not begun")


@contextmanager
def _haproxy(upstream: int) -> Iterator[Way]:
    port = _free_port()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "haproxy.cfg"
        path.write_text(
            HAPROXY.format(host=HOST, port=port, upstream=upstream, reuse="http-reuse safe")
        )
        with _proxy(["haproxy", "-f", str(path), "-db"], port) as way:
            yield way


@contextmanager
def _nginx(upstream: int) -> Iterator[Way]:
    port = _free_port()
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o711)  # its worker is another user where it is begun as root
        path = Path(directory) / "nginx.conf"
        path.write_text(NGINX.format(host=HOST, port=port, upstream=upstream, folder=directory))
        with _proxy(["nginx", "-c", str(path), "-p", directory], port) as way:
            yield way


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as found:
        return int(found.getsockname()[1])


@contextmanager
def _proxy(command: list[str], port: int) -> Iterator[Way]:
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        _until_open(port)
        yield Way(port, process.pid)
    finally:
        process.terminate()
        process.wait(START_SECONDS)


def _until_open(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection((HOST, port)).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


class Application(asyncio.Protocol):
    """Answers whole requests that arrive in one piece or two."""

    def __init__(self) -> None:
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("expected a stream")
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end or (head.startswith(b"POST") and len(body) < len(BODY)):
            return
        self._received = b""
        if self._transport is not None:
            last = b"connection: close" in head.lower()
            self._transport.write(LAST if last else ANSWER)
            if last:
                self._transport.close()


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Application, HOST, 0, backlog=1024)
    typer.echo(server.sockets[0].getsockname()[1])
    await server.serve_forever()


# -------------------------------------------------------------------------------- the clients


def requests_per_second(port: int, mode: Mode) -> float:
    """One run, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.gate", "load", str(port), mode.method]
    done = subprocess.run(
        [*command, "kept" if mode.kept else "new"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise CommandFailed(f"the clients ended with {done.returncode}: {done.stderr[-2000:]}")
    return float(done.stdout)


async def _load(port: int, method: str, kept: bool) -> float:
    body = BODY if method == "POST" else b""
    head = f"{method} /cases/17?full=1 HTTP/1.1\r\nHost: example.org\r\nAccept: */*\r\n"
    head += "User-Agent: benchmark\r\nCookie: session=0123456789abcdef\r\n"
    head += f"Content-Length: {len(body)}\r\n" if body else ""
    head += "" if kept else "Connection: close\r\n"
    request = head.encode() + b"\r\n" + body
    began = time.perf_counter()
    counts = await asyncio.gather(
        *(_client(port, request, kept, began + SECONDS) for _ in range(CLIENTS))
    )
    return sum(counts) / (time.perf_counter() - began)


async def _client(port: int, request: bytes, kept: bool, until: float) -> int:
    loop = asyncio.get_running_loop()
    done = 0
    with contextlib.ExitStack() as open_one:
        connection: socket.socket | None = None
        while time.perf_counter() < until:
            if connection is None:
                connection = open_one.enter_context(socket.socket())
                connection.setblocking(False)
                await loop.sock_connect(connection, (HOST, port))
            await loop.sock_sendall(connection, request)
            received = b""
            while not received.endswith(BODY):
                block = await loop.sock_recv(connection, 65536)
                if not block:
                    raise ConnectionError(f"an answer that breaks off: {received!r}")
                received += block
            if not received.startswith(b"HTTP/1.1 200"):
                raise ConnectionError(f"expected 200, found {received!r}")
            done += 1
            if not kept:
                connection.close()
                connection = None
    return done


# --------------------------------------------------------------------------------- by itself

program = typer.Typer()


@program.command()
def application() -> None:
    """The application; prints its port."""
    asyncio.run(_serve())


@program.command()
def load(port: int, method: str, how: str) -> None:
    """Print the requests a second."""
    typer.echo(asyncio.run(_load(port, method, how == "kept")))


@program.command()
def compare(earlier: Path, runs: int = 5) -> None:
    """The gate of this checkout and that of ``earlier``, in turns: requests a second."""
    with ExitStack() as stack:
        upstream = stack.enter_context(_application())
        roots = (earlier.resolve(), ROOT)
        ports = [stack.enter_context(_gate(upstream, root)).port for root in roots]
        for mode in MODES:
            pairs = [[requests_per_second(port, mode) for port in ports] for _ in range(runs)]
            before, now = (median(values) for values in zip(*pairs, strict=True))
            typer.echo(f"{mode.title}: {before:,.0f} before, {now:,.0f} now ({now / before:.2f})")


if __name__ == "__main__":
    program()
