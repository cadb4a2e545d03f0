"""When lines may go to COPY without escapes: only when no value holds anything to escape."""

from __future__ import annotations

import apsw
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from migration_job.plan.rules import TextRule
from migration_job.target.copytext import escape, field_sql, needs_no_escape

CELLS = st.one_of(
    st.none(), st.text(alphabet="a\\N\t\n\rü'.", max_size=4), st.sampled_from(["\\N", "\\.", ""])
)
ROWS = st.integers(1, 3).flatmap(
    lambda width: st.lists(st.tuples(*[CELLS] * width), min_size=1, max_size=4)
)


def in_sqlite(rows: list[tuple[str | None, ...]], *, escaped: bool) -> bytes:
    """The rows' lines as SQLite assembles them."""
    connection = apsw.Connection(":memory:")
    names = [f"c{n}" for n in range(len(rows[0]))]
    connection.execute(f"CREATE TABLE t ({', '.join(f'{n} TEXT' for n in names)})")
    connection.executemany(f"INSERT INTO t VALUES ({', '.join('?' * len(names))})", rows)
    fields = [field_sql(TextRule(), n, escape=escaped) for n in names]
    line = f"concat_ws(char(9), {', '.join(str(f) for f in fields)})"
    found = connection.execute(f"SELECT CAST(group_concat({line}, char(10)) AS BLOB) FROM t")
    ((block,),) = found.fetchall()
    assert isinstance(block, bytes)
    return block


@given(ROWS)
@example([("\\N",)])
@example([("a\tb", None), ("c", "d")])
@example([("a\nb",)])
@example([("",)])
def test_bare_lines_are_vouched_for_exactly_when_they_are_right(
    rows: list[tuple[str | None, ...]],
) -> None:
    right = "\n".join("\t".join(escape(cell) for cell in row) for row in rows).encode()
    assert in_sqlite(rows, escaped=True) == right
    bare = in_sqlite(rows, escaped=False)
    nulls = sum(cell is None for row in rows for cell in row)
    vouched = needs_no_escape(bare, len(rows), nulls, len(rows[0]))
    special = any(c in cell for row in rows for cell in row if cell is not None for c in "\\\t\n\r")
    assert vouched is not special
    if vouched:
        assert bare == right


@pytest.mark.parametrize("block", [b"a\tb\nc", b"a\rb", b"a\\b", b"a\nb\nc"])
def test_a_block_that_is_not_as_counted_is_refused(block: bytes) -> None:
    assert not needs_no_escape(block, 2, 0, 1)
