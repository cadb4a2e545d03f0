"""References between columns of other types: whichever of them SQLite takes for equal, a foreign
key is validated only where PostgreSQL finds each parent."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import apsw
import pytest

from tests.integration.running import DONE, run

pytestmark = pytest.mark.postgres

PARENTS = ["TEXT", "VARCHAR(9)", "", "NUMERIC", "INT", "REAL"]
CHILDREN = ["INT", "TEXT", "", "REAL", "NUMERIC", "BLOB"]
KEYS = [1, 1.0, "1", "1.0", "01", "1e0", 1.5, "1.5", "1.50"]


@pytest.mark.parametrize("strict", [False, True])
def test_no_foreign_key_is_refused(tmp_path: Path, postgres: str, strict: bool) -> None:
    source = tmp_path / "app.db"
    with apsw.Connection(str(source)) as connection:
        for number, (parent, child, key) in enumerate(product(PARENTS, CHILDREN, KEYS)):
            other = " STRICT" if strict and child in ("INT", "TEXT", "REAL", "BLOB") else ""
            connection.execute(f"CREATE TABLE p{number}(k {parent} PRIMARY KEY)")
            connection.execute(
                f"CREATE TABLE c{number}(k {child} REFERENCES p{number}(k), n INT){other}"
            )
            connection.execute(f"INSERT INTO p{number} VALUES (?)", (key,))
            for value in KEYS:
                try:
                    connection.execute(f"INSERT INTO c{number} VALUES (?, 1)", (value,))
                except apsw.ConstraintError:
                    assert other, "only a STRICT column refuses a value"
    ended = run("migrate", source, "--target", postgres, "--report", tmp_path / "report")
    assert ended.status == DONE, ended.said[-2000:]
