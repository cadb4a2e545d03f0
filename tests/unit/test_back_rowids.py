"""Changes that come back to the source keep its rowids, whatever else comes with them."""

from __future__ import annotations

from pathlib import Path

import apsw

from migration_job.stores.sqlite.apply import RowsBack, apply_back
from migration_job.stores.sqlite.catalogue import read_catalogue
from migration_job.stores.sqlite.feeding import Feeding


def test_a_new_row_does_not_take_the_rowid_of_a_row_that_is_being_replaced(tmp_path: Path) -> None:
    """Found by the fault tests: the last row was changed on the target, and another one was added.
    Both were taken out and put in, the new one first, with the rowid that had just become free."""
    connection = apsw.Connection(str(tmp_path / "app.db"))
    connection.execute(
        "CREATE TABLE cases (id TEXT PRIMARY KEY, title TEXT);"
        "INSERT INTO cases VALUES ('a', 'first'), ('b', 'last')"
    )
    catalogue = read_catalogue(connection)
    back = RowsBack(
        table=catalogue.table("cases"),
        key=("id",),
        columns=("id", "title"),
        keys=[("a+",), ("b",)],
        rows=[("a+", "new"), ("b", "changed")],
    )
    with connection:
        apply_back(connection, [back], Feeding(connection, catalogue))
    assert list(connection.execute("SELECT rowid, id, title FROM cases ORDER BY rowid")) == [
        (1, "a", "first"),
        (2, "b", "changed"),
        (3, "a+", "new"),
    ]
