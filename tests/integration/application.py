"""An application as a process of its own: follows the connection, writes, and keeps a journal.

``python application.py CONNECTION JOURNAL NUMBER`` writes rows until a line arrives on standard
input. Each row has an id of this process's own; a row is in the journal once its commit was
acknowledged, with the milliseconds that it took from the first attempt. It uses the standard
library's SQLite, as another program than the job does, and a new connection for every other
request.
"""

from __future__ import annotations

import json
import select
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

import psycopg

PATIENCE = 30.0


class Moved(Exception):
    """The side refused: look again where the database is."""


def read_connection(directory: Path) -> dict[str, Any]:
    side: dict[str, Any] = json.loads((directory / "database.json").read_text())["write"]
    return side


class Application:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.kept: tuple[str, Any] | None = None

    def write(self, request: str, number: int, *, fresh: bool) -> None:
        side = read_connection(self.directory)
        try:
            if side["engine"] == "sqlite":
                self._sqlite(side, request, number, fresh)
            else:
                self._postgres(side, request, number, fresh)
        except Moved:
            self.kept = None
            raise

    def _connection(self, name: str, make: Any, fresh: bool) -> Any:
        if fresh or self.kept is None or self.kept[0] != name:
            if self.kept is not None:
                self.kept[1].close()
            self.kept = (name, make())
        return self.kept[1]

    def _sqlite(self, side: dict[str, Any], request: str, number: int, fresh: bool) -> None:
        def make() -> sqlite3.Connection:
            connection = sqlite3.connect(side["path"], isolation_level=None, timeout=5)
            connection.execute("PRAGMA synchronous = NORMAL")
            return connection

        db = self._connection("sqlite", make, fresh)
        try:
            db.execute("BEGIN IMMEDIATE")
            self._statements(lambda sql, values: db.execute(sql, values), request, number)
            db.execute("COMMIT")
        except sqlite3.IntegrityError as error:
            db.execute("ROLLBACK")
            if "moved to PostgreSQL" in str(error):
                raise Moved from error
            raise

    def _postgres(self, side: dict[str, Any], request: str, number: int, fresh: bool) -> None:
        def make() -> psycopg.Connection:
            return psycopg.connect(
                host=side["host"],
                port=side["port"],
                dbname=side["database"],
                user=side["user"],
                password=side["password"],
                connect_timeout=10,
                prepare_threshold=None,
            )

        try:
            db = self._connection(f"postgres {side['port']}", make, fresh)
            with db.transaction():
                self._statements(
                    lambda sql, values: db.execute(sql.replace("?", "%s"), values), request, number
                )
        except psycopg.Error as error:
            # Turned away, refused, or cut off: the request's id tells whether it was done.
            raise Moved from error

    @staticmethod
    def _statements(run: Any, request: str, number: int) -> None:
        # A request that is sent again, since its answer was lost, is done once.
        if run(
            "SELECT 1 FROM progress WHERE user_id = ? AND note_id = ?", (request, number)
        ).fetchone():
            return
        run(
            "INSERT INTO progress (user_id, note_id, state) VALUES (?, ?, 'done')",
            (request, number),
        )
        run("INSERT INTO notes (user_id, body) VALUES (NULL, ?)", (f"{request}/{number}",))


def main() -> None:
    directory, journal, who = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    application = Application(directory)
    request = f"00000000-0000-0000-0000-{who:012d}"
    number = 0
    with journal.open("w") as log:
        while not select.select([sys.stdin], [], [], 0)[0]:
            number += 1
            start = time.monotonic()
            while True:
                try:
                    application.write(request, number, fresh=number % 2 == 0)
                    break
                except Moved:
                    if time.monotonic() - start > PATIENCE:
                        log.write(f"failed {number}\n")
                        log.flush()
                        return
                    time.sleep(0.005)
            log.write(f"done {number} {(time.monotonic() - start) * 1000:.1f}\n")
            log.flush()


if __name__ == "__main__":
    main()
