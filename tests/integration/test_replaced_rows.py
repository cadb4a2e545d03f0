"""docs/how-to/replaced-rows.md: its SQL, as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.integration.running import DONE
from tests.integration.wholeway import Way

pytestmark = pytest.mark.postgres

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "replaced-rows.md"


def test_the_page_s_statements(postgres: str, tmp_path: Path) -> None:
    blocks = re.findall(r"^```sql\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    look, put_back, update = blocks
    way = Way.of(
        tmp_path,
        postgres,
        "CREATE TABLE site (id INTEGER PRIMARY KEY, name TEXT);"
        "INSERT INTO site VALUES (1, 'same'), (9, 'of SQLite')",
    )
    way.on_postgres(
        "CREATE TABLE site (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text);"
        "INSERT INTO site OVERRIDING SYSTEM VALUE VALUES (1, 'same'), (7, 'alone'), (9, 'of ours')"
    )
    for ended in (way.migrate("--schema", "existing"), way.command("switch")):
        assert ended.status == DONE, ended.said
    counts, rows = (way.on_postgres(query) for query in look.split(";")[:2])
    assert counts == [("site", 2)]
    assert [row[1:] for row in rows] == [(7, "alone"), (9, "of ours")]
    way.on_postgres(put_back)
    held = [(1, "same"), (7, "alone"), (9, "of SQLite")]
    assert way.on_postgres("SELECT * FROM site ORDER BY id") == held
    way.on_postgres(update)
    held[2] = (9, "of ours")
    assert way.on_postgres("SELECT * FROM site ORDER BY id") == held
    way.back()
    assert way.on_sqlite("SELECT * FROM site ORDER BY id") == held
