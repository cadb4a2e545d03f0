"""Applications of drizzle's, knex's and TypeORM's, in Node."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.applications.environment import node_packages, program
from tests.applications.life import there_and_back, url
from tests.applications.page import Shown, of_node, tell

pytestmark = [pytest.mark.postgres, pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(1500)]


PACKAGES = {"drizzle": "drizzle-orm"}
"""Those that are not called as the application is."""

SHOWN = {
    "drizzle": (
        "drizzle (Node; integers and JSON in blobs, seconds and milliseconds, "
        "columns without a value yet, a generated column, a partial index, a view)"
    ),
    "knex": "knex (Node; knex_migrations, times in milliseconds, JSON, enums by CHECK)",
    "typeorm": "TypeORM (Node; generated uuids, decimals, simple JSON and arrays, soft deletes)",
}


@pytest.mark.parametrize("name", list(SHOWN))
def test_there_and_back(postgres: str, tmp_path: Path, name: str) -> None:
    node, home = node_packages("node")

    def steps(side: str, *names: str) -> str:
        return program([node, str(home / f"{name}_application.js"), side, *names], tmp_path)

    there_and_back(steps, f"sqlite://{tmp_path / 'app.db'}", url(postgres), postgres, tmp_path)
    tell(Shown(SHOWN[name], of_node(PACKAGES.get(name, name), "better-sqlite3", "pg")), postgres)
