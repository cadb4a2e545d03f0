"""The whole way by the command line, on a small file: there, and back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import psycopg

from tests.integration.running import DONE, Ended, run


@dataclass
class Way:
    """One migration; the application connects to PostgreSQL itself, without a pooler."""

    folder: Path
    dsn: str
    source: Path

    @classmethod
    def of(cls, folder: Path, dsn: str, script: str, journal: str = "delete") -> Way:
        """A source that ``script`` makes, in that journal mode."""
        way = cls.over(folder, dsn, folder / "app.db")
        way.on_sqlite(f"PRAGMA journal_mode = {journal}; {script}")
        return way

    @classmethod
    def over(cls, folder: Path, dsn: str, source: Path) -> Way:
        """A source that is there."""
        told = {"host": "127.0.0.1", "database": "d", "user": "u", "password": "p"}
        (folder / "to.json").write_text(json.dumps(told))
        return cls(folder, dsn, source)

    def command(self, name: str, *options: str | Path) -> Ended:
        """A live command with the options that it needs."""
        return run(
            *(name, self.source, "--target", self.dsn, "--report", self.folder / "report"),
            *("--state", self.folder / "state", "--connection", self.folder / "connection"),
            *("--connect-to", self.folder / "to.json", *options),
        )

    def migrate(self, *options: str | Path) -> Ended:
        """``migrate --live``."""
        return run(
            *("migrate", self.source, "--live", "--target", self.dsn),
            *("--report", self.folder / "report", "--state", self.folder / "state", *options),
        )

    def status(self) -> str:
        """What ``status`` says."""
        ended = run(
            *("status", self.source, "--target", self.dsn, "--state", self.folder / "state"),
            *("--connection", self.folder / "connection"),
        )
        assert ended.status == DONE, ended.said
        return ended.out

    def there(self, *options: str) -> None:
        """To PostgreSQL."""
        for ended in (self.migrate(), self.command("switch", *options)):
            assert ended.status == DONE, ended.said

    def back(self, *options: str) -> Ended:
        """To SQLite, which has to go well."""
        ended = self.command("rollback", *options)
        assert ended.status == DONE, ended.said
        return ended

    def on_sqlite(self, script: str) -> list[tuple[Any, ...]]:
        """Run on the source, as the application does; the rows. Raises apsw.Error."""
        connection = apsw.Connection(str(self.source))
        try:
            connection.set_busy_timeout(10_000)
            return [tuple(row) for row in connection.execute(script)]
        finally:
            connection.close()

    def on_postgres(self, script: str) -> list[tuple[Any, ...]]:
        """Run on the target, as the application does; the last statement's rows."""
        with psycopg.connect(self.dsn, autocommit=True) as target:
            cursor = target.execute(script.encode())
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description else []

    def closed(self) -> bool:
        """Whether the source says that PostgreSQL serves."""
        return bool(self.on_sqlite("SELECT closed FROM _migration_state")[0][0])
