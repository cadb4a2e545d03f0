"""Starts the application: ``python -m example_app --sqlite FILE [--connection DIR] [--port N]``.

Prints ``listening on HOST:PORT`` when it serves; port 0 takes a free one. SIGTERM ends it.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from pathlib import Path

from example_app.databases import prepare_sqlite
from example_app.following import Follower
from example_app.server import Server
from example_app.store import DEADLINE_SECONDS, Store, sqlite_side


def main() -> None:
    options = _options()
    follower = Follower(
        options.connection, sqlite_side(options.sqlite), once=options.read_connection_once
    )
    now = follower.current()
    if now.write.engine == "sqlite":
        prepare_sqlite(Path(now.write.get("path")))
    server = Server((options.host, options.port), Store(follower, deadline=options.deadline))
    for number in (signal.SIGTERM, signal.SIGINT):
        # shutdown() waits for serve_forever(), which this very thread runs.
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    host, port = server.server_address[:2]
    print(f"listening on {host!s}:{port}", flush=True)
    server.serve_forever()
    server.server_close()
    server.store.close()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="example_app", description=sys.modules[__name__].__doc__)
    parser.add_argument("--sqlite", type=Path, required=True, help="the application's own database")
    parser.add_argument("--connection", type=Path, help="the directory with database.json")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--deadline", type=float, default=DEADLINE_SECONDS, help="seconds")
    parser.add_argument(
        "--read-connection-once",
        action="store_true",
        help="read database.json at start only, as applications do that have to be restarted",
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
