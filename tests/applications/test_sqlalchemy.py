"""An application of SQLAlchemy's and Alembic's: its own schema on PostgreSQL, there while it
writes, used with the same results, altered by its next migration, and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.applications.environment import HERE, command, python_with
from tests.integration.running import DONE, run

pytestmark = [pytest.mark.postgres, pytest.mark.slow, pytest.mark.timeout(600)]


def test_there_and_back(postgres: str, tmp_path: Path) -> None:
    python = python_with("requirements-sqlalchemy.txt")
    program = tmp_path / "application.py"
    program.write_text((HERE / "sqlalchemy_application.py.txt").read_text())
    parts = {name: str(value) for name, value in conninfo_to_dict(postgres).items()}
    there = (
        f"postgresql+psycopg://{parts['user']}:{parts['password']}@{parts['host']}:"
        f"{parts['port']}/{parts['dbname']}"
    )
    here = f"sqlite:///{tmp_path / 'app.db'}"

    def application(url: str, *steps: str) -> str:
        return command(python, tmp_path, program.name, url, *steps)

    def job(name: str, *options: str | Path) -> None:
        ended = run(
            *(name, tmp_path / "app.db", "--target", postgres, "--report", tmp_path / "report"),
            *("--state", tmp_path / "state", *options),
        )
        assert ended.status == DONE, ended.said

    (tmp_path / "to.json").write_text(
        json.dumps({"host": "h", "database": "d", "user": "u", "password": "p"})
    )
    live = ("--connection", tmp_path / "connection", "--connect-to", tmp_path / "to.json")
    application(here, "create", "fill")
    application(there, "create")
    job("migrate", "--schema", "existing", "--live")
    application(here, "write")
    on_sqlite = application(here, "use")
    job("switch", *live)
    assert application(there, "use") == on_sqlite
    application(there, "upgrade", "use")
    job("rollback", *live)
    assert application(here, "use") == on_sqlite
