"""An application of Peewee's, which keeps no book of its migrations."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.applications.environment import HERE, command, python_with
from tests.applications.life import there_and_back, url
from tests.applications.page import Shown, of_python, tell

pytestmark = [pytest.mark.postgres, pytest.mark.slow, pytest.mark.timeout(600)]


def test_there_and_back(postgres: str, tmp_path: Path) -> None:
    python = python_with("requirements-peewee.txt")
    program = tmp_path / "application.py"
    program.write_text((HERE / "peewee_application.py.txt").read_text())

    def steps(side: str, *names: str) -> str:
        return command(python, tmp_path, program.name, side, *names)

    there_and_back(steps, f"sqlite:///{tmp_path / 'app.db'}", url(postgres), postgres, tmp_path)
    name = "Peewee (times in seconds and milliseconds, binary uuid, composite keys)"
    tell(Shown(name, of_python("requirements-peewee.txt", "peewee")), postgres)
