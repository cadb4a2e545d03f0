"""A small web server: one page, and the panels' queries passed on to Prometheus.

The page asks for a panel by board and number, never for an expression of its own, so that it
opens nothing but what the panels show.
"""

from __future__ import annotations

import ipaddress
import json
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Collection, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from migration_job.dashboard.panels import Board, Query
from migration_job.errors import InputError

PAGE = Path(__file__).with_name("page.html")
SPAN_SECONDS = 1800
POINTS = 120
PATIENCE_SECONDS = 10

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; connect-src 'self'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Prometheus:
    """The HTTP API of one Prometheus server (https://prometheus.io/docs/prometheus/latest/querying/api/)."""

    def __init__(self, url: str, *, span: int = SPAN_SECONDS) -> None:
        """``span``: how many seconds back the curves begin. Raises InputError."""
        self._span = span
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise InputError(
                f"expected an http or https address of Prometheus, found {url!r}",
                advice="give it as --prometheus http://127.0.0.1:9090",
            )
        self._url = url.rstrip("/")

    def range(self, query: Query, *, now: float) -> list[dict[str, Any]]:
        """The last part of one query: ``[{"legend": str, "points": [[time, value], ...]}]``.

        Times are Unix seconds. OSError where Prometheus does not answer or refuses.
        """
        words = urllib.parse.urlencode(
            {
                "query": query.expression,
                "start": now - self._span,
                "end": now,
                "step": self._span / POINTS,
            }
        )
        address = f"{self._url}/api/v1/query_range?{words}"
        # S310: the scheme was checked above.
        with urllib.request.urlopen(address, timeout=PATIENCE_SECONDS) as answer:  # noqa: S310
            said = answer.read()
        try:
            return [
                {
                    "legend": _legend(query.legend, one["metric"]),
                    "points": [[float(at), float(value)] for at, value in one["values"]],
                }
                for one in json.loads(said)["data"]["result"]
            ]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise OSError("its answer is none of Prometheus'") from error


def _legend(pattern: str, labels: dict[str, str]) -> str:
    for name, value in labels.items():
        pattern = pattern.replace("{{" + name + "}}", value)
    return pattern


def _words(error: urllib.error.URLError) -> str:
    """Why, without the system's number for it."""
    why = error.reason
    return (why.strerror or str(why)) if isinstance(why, OSError) else str(why)


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that closes its page in the middle of an answer is nothing to report."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class Dashboard:
    """The page's server. ``with`` runs it in a thread; :meth:`serve_forever` in this one."""

    def __init__(
        self,
        prometheus: Prometheus,
        boards: Sequence[Board],
        *,
        host: str,
        port: int,
        names: Collection[str] = (),
    ) -> None:
        """``names`` are further host names under which the page may be asked for."""
        self._prometheus = prometheus
        self._names = frozenset(name.lower() for name in (host, "localhost", *names))
        self._boards = {board.name: board for board in boards}
        try:
            self._server = _Server((host, port), self._handler())
        except OSError as error:
            raise InputError(
                f"expected port {port} of {host} to be free, found: {error.strerror}",
                advice="choose another with --port",
            ) from error

    @property
    def url(self) -> str:
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}/"

    def serve_forever(self) -> None:
        self._server.serve_forever(poll_interval=0.2)

    def __enter__(self) -> Dashboard:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def layout(self) -> list[dict[str, Any]]:
        """The boards without their expressions: what the page draws."""
        return [
            {
                "name": board.name,
                "title": board.title,
                "panels": [
                    {"title": panel.title, "unit": panel.unit, "help": panel.help}
                    for panel in board.panels
                ],
            }
            for board in self._boards.values()
        ]

    def is_asked_as(self, host: str | None) -> bool:
        """Whether a request's Host header names this page: a name that it was given, or an IP
        address. Another name that leads here is a web site's that wants to read the page in its
        visitor's browser (DNS rebinding); an address cannot be bound to another."""
        if host is None:
            return False
        try:
            name = urllib.parse.urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name.lower() in self._names:
            return True
        try:
            ipaddress.ip_address(name.partition("%")[0])
        except ValueError:
            return False
        return True

    def panel(self, board: str, number: int) -> list[dict[str, Any]]:
        """All series of one panel. KeyError or IndexError where there is no such panel."""
        if number < 0:
            raise IndexError(number)
        queries = self._boards[board].panels[number].queries
        now = time.time()
        return [line for query in queries for line in self._prometheus.range(query, now=now)]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        dashboard = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if not dashboard.is_asked_as(self.headers.get("Host")):
                    self._json(421, {"error": "this page is not served under that host name"})
                    return
                path = urllib.parse.urlsplit(self.path).path
                if path == "/":
                    self._answer(200, "text/html; charset=utf-8", PAGE.read_bytes())
                elif path == "/layout":
                    self._json(200, dashboard.layout())
                elif path.startswith("/panel/"):
                    self._panel(path.removeprefix("/panel/"))
                else:
                    self._json(404, {"error": "there is no such page"})

            def _panel(self, words: str) -> None:
                board, _, number = words.partition("/")
                try:
                    self._json(200, dashboard.panel(board, int(number)))
                except (KeyError, IndexError, ValueError):
                    self._json(404, {"error": "there is no such panel"})
                except urllib.error.URLError as error:
                    self._json(502, {"error": f"Prometheus does not answer: {_words(error)}"})
                except OSError:
                    self._json(502, {"error": "Prometheus does not answer"})

            def _json(self, status: int, content: object) -> None:
                self._answer(status, "application/json", json.dumps(content).encode())

            def _answer(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                for name, value in HEADERS.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Every panel asks every few seconds: not worth the log."""

        return Handler
