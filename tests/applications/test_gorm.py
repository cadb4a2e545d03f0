"""An application of GORM's, in Go, which alters its own schema when it starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.applications.environment import go_program, program
from tests.applications.life import there_and_back, url
from tests.applications.page import Shown, of_go, tell

pytestmark = [pytest.mark.postgres, pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(1500)]


def test_there_and_back(postgres: str, tmp_path: Path) -> None:
    application = go_program("gorm")

    def steps(side: str, *names: str) -> str:
        return program([str(application), side, *names], tmp_path)

    there_and_back(steps, f"sqlite://{tmp_path / 'app.db'}", url(postgres), postgres, tmp_path)
    name = "GORM (Go; soft deletes, JSON, zoned times, many to many)"
    versions = of_go("gorm", "gorm.io/gorm", "github.com/glebarez/sqlite")
    tell(Shown(name, versions), postgres)
