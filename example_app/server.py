"""The HTTP side, on the standard library's threading server.

========================  ========================================================================
``GET /health``           which side takes writes and which answers reads
``GET /cases``            the latest twenty; ``/cases/ID`` one
``GET /search?q=``        cases by words of the title
``GET /progress?user=``   a user's progress
``GET /stats``            how many cases and quiz attempts, how many of them right
``POST /users``           ``{"request", "id", "username"}``
``POST /cases``           ``{"request", "id", "title"}``; as you like ``modality``, ``body_part``,
                          ``diagnosis``, ``difficulty``
``POST /cases/ID``        ``{"request", "title"}``: another title
``POST /progress``        ``{"request", "user", "case", "repetitions"}``: replaces what was there
``POST /quiz``            ``{"request", "case", "correct"}``; as you like ``user``,
                          ``time_spent_ms``
========================  ========================================================================

``request`` is an id of the client's own: sent again, the request is answered and not done twice.
An answer to a POST (201, or 200 where it had been done before) means that it is committed. The
header ``X-Fresh-Connection`` has the request open a database connection of its own.
"""

from __future__ import annotations

import json
import sqlite3
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg

from example_app import requests as sql
from example_app.databases import Statement
from example_app.store import Answer, Store, Unavailable

LARGEST_BODY = 1_000_000


class Server(ThreadingHTTPServer):
    """Serves one store. ``request_queue_size`` holds what arrives faster than it is accepted."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], store: Store) -> None:
        super().__init__(address, Handler)
        self.store = store


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server
    # Headers and body go out in two writes; together with delayed acknowledgements Nagle's
    # algorithm would make each answer wait 40 ms.
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        self._answer(lambda: self._get(parts.path, query))

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > LARGEST_BODY:
            self.close_connection = True
            return self._send(413, {"error": "the body is too large"})
        raw = self.rfile.read(length)
        return self._answer(lambda: self._post(urlsplit(self.path).path, json.loads(raw)))

    def log_message(self, format: str, *args: object) -> None:
        """No line for each request."""

    # ------------------------------------------------------------------------------ reading

    def _get(self, path: str, query: dict[str, str]) -> tuple[int, dict[str, Any]]:
        match path.strip("/").split("/"):
            case ["health"]:
                now = self.server.store.follower.current()
                return 200, {
                    "write": now.write.engine,
                    "read": now.read.engine,
                    "generation": now.generation,
                }
            case ["cases"]:
                return self._rows(sql.LIST_CASES)
            case ["cases", identity]:
                return self._rows(sql.GET_CASE, identity)
            case ["search"]:
                return self._rows(sql.SEARCH_CASES, query["q"])
            case ["progress"]:
                return self._rows(sql.GET_PROGRESS, query["user"])
            case ["stats"]:
                return self._rows(sql.STATISTICS)
        return 404, {"error": "no such page"}

    def _rows(self, statement: Statement, *values: str) -> tuple[int, dict[str, Any]]:
        answer = self.server.store.read(statement, values, fresh=self._fresh)
        rows = [[v if v is None else str(v) for v in row] for row in answer.rows]
        return 200, {"rows": rows, "side": answer.side, "tries": answer.tries}

    # ------------------------------------------------------------------------------ writing

    def _post(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        match path.strip("/").split("/"):
            case ["users"]:
                return self._done("user", body, sql.CREATE_USER, body["id"], body["username"])
            case ["cases"]:
                return self._done(
                    "case",
                    body,
                    sql.CREATE_CASE,
                    body["id"],
                    body["title"],
                    body.get("modality", "CT"),
                    body.get("body_part", "Chest"),
                    body.get("diagnosis", "Normal"),
                    body.get("difficulty", 2),
                )
            case ["cases", identity]:
                return self._done("title", body, sql.RETITLE_CASE, body["title"], identity)
            case ["progress"]:
                return self._done(
                    "progress",
                    body,
                    sql.RECORD_PROGRESS,
                    body["user"],
                    body["case"],
                    body.get("ease_factor", 2.5),
                    body.get("interval_days", 1),
                    body["repetitions"],
                )
            case ["quiz"]:
                return self._done(
                    "quiz",
                    body,
                    sql.ATTEMPT_QUIZ,
                    body["case"],
                    int(body["correct"]),
                    body.get("time_spent_ms", 1000),
                    body.get("user"),
                    body["request"],
                )
        return 404, {"error": "no such page"}

    def _done(
        self, kind: str, body: dict[str, Any], statement: Statement, *values: Any
    ) -> tuple[int, dict[str, Any]]:
        texts = [None if v is None else str(v) for v in values]
        answer: Answer = self.server.store.write(
            str(body["request"]),
            kind,
            statement,
            texts,  # type: ignore[arg-type]
            fresh=self._fresh,
        )
        return (201 if answer.new else 200), {"side": answer.side, "tries": answer.tries}

    # ----------------------------------------------------------------------------- answering

    @property
    def _fresh(self) -> bool:
        return "X-Fresh-Connection" in self.headers

    def _answer(self, work: Any) -> None:
        try:
            status, content = work()
        except (KeyError, TypeError, ValueError) as error:
            status, content = 400, {"error": f"not understood: {error}"}
        except (sqlite3.IntegrityError, psycopg.IntegrityError) as error:
            status, content = 409, {"error": str(error).splitlines()[0]}
        except Unavailable as error:
            status, content = 503, {"error": str(error)}
        except (sqlite3.Error, psycopg.Error) as error:
            status, content = 500, {"error": f"{type(error).__name__}: {error}"}
        self._send(status, content)

    def _send(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
