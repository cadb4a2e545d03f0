"""An application of SQLAlchemy's and Alembic's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.applications.environment import HERE, command, python_with
from tests.applications.life import there_and_back, url
from tests.applications.page import Shown, of_python, tell

pytestmark = [pytest.mark.postgres, pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(600)]


def test_there_and_back(postgres: str, tmp_path: Path) -> None:
    python = python_with("requirements-sqlalchemy.txt")
    program = tmp_path / "application.py"
    program.write_text((HERE / "sqlalchemy_application.py.txt").read_text())

    def steps(side: str, *names: str) -> str:
        return command(python, tmp_path, program.name, side, *names)

    there = url(postgres, "postgresql+psycopg")
    there_and_back(steps, f"sqlite:///{tmp_path / 'app.db'}", there, postgres, tmp_path)
    name = "SQLAlchemy (enum, interval, uuid, JSON, arrays, an association table without a key)"
    versions = of_python("requirements-sqlalchemy.txt", "SQLAlchemy", "alembic")
    tell(Shown(name, versions), postgres)
