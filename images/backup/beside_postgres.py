"""What the programs beside PostgreSQL have in common: their log, their page, and pgBackRest's word.

Standard library only: the image holds PostgreSQL and pgBackRest and no Python packages.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

STANZA = "main"


def say(text: str) -> None:
    """One line of the log."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    sys.stdout.write(json.dumps({"time": stamp, "message": text}) + "\n")
    sys.stdout.flush()


def pgbackrest(*words: str) -> subprocess.CompletedProcess[str]:
    """pgBackRest's command on the stage's stanza, run to its end."""
    return subprocess.run(  # noqa: S603
        ["/usr/bin/pgbackrest", f"--stanza={STANZA}", *words],
        capture_output=True,
        text=True,
        check=False,
    )


def backups() -> list[dict[str, Any]]:
    """What pgBackRest says of the repository's backups, the newest last."""
    answer = pgbackrest("info", "--output=json")
    stanzas = json.loads(answer.stdout) if answer.returncode == 0 and answer.stdout else []
    return list(stanzas[0].get("backup", [])) if stanzas else []


def gauges(lines: Iterable[tuple[str, str, float]]) -> str:
    """A page of Prometheus' for gauges: the name, the help and the value of each."""
    return "".join(
        f"# HELP {name} {text}\n# TYPE {name} gauge\n{name} {value}\n"
        for name, text, value in lines
    )


def serve(port: int, page: Callable[[], str]) -> None:
    """Answer ``/metrics`` with the page as it then is, in threads that end with the program."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = page().encode()
            self.send_response(200 if self.path == "/metrics" else 404)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            if self.path == "/metrics":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """A scrape is not worth a line of the log."""

    server = ThreadingHTTPServer(("0.0.0.0", port), Page)  # noqa: S104  # the stage's own network
    threading.Thread(target=server.serve_forever, daemon=True).start()
