"""Memory that a plan takes for each table: a source of thousands has to fit beside the rest.

Bytes that Python asked for, counted by tracemalloc: the same on every machine, however busy.
"""

from __future__ import annotations

import gc
import tracemalloc
from pathlib import Path

import apsw

from migration_job.plan.planner import make_plan
from migration_job.stores.sqlite.catalogue import read_catalogue

FEW, MANY = 20, 100
TABLE = (
    "CREATE TABLE t{n} (id INTEGER PRIMARY KEY, who TEXT NOT NULL, score REAL, ok BOOLEAN, "
    "made DATETIME, note TEXT); CREATE INDEX t{n}_made ON t{n} (made); "
    "INSERT INTO t{n} VALUES (1, 'a', 0.5, 1, '2025-01-01 00:00:00', 'lung')"
)

MOST_KEPT, MOST_AT_ONCE = 10_000, 22_000
"""Bytes for a table of six columns and an index: in the plan and the catalogue, and at the height
of the planning."""


def planned(path: Path, tables: int) -> tuple[int, int]:
    """Bytes of the plan of so many tables with its catalogue, and at the height of its making."""
    connection = apsw.Connection(str(path))
    connection.execute("; ".join(TABLE.format(n=n) for n in range(tables)))
    gc.collect()
    tracemalloc.start()
    try:
        catalogue = read_catalogue(connection)
        plan = make_plan(connection, catalogue)
        gc.collect()
        kept, height = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        connection.close()
    assert len(plan.tables) == len(catalogue.tables) == tables
    return kept, height


def test_a_table_more_costs_little(tmp_path: Path) -> None:
    planned(tmp_path / "first.db", 2)  # what is imported and kept once
    few_kept, few_height = planned(tmp_path / "few.db", FEW)
    many_kept, many_height = planned(tmp_path / "many.db", MANY)
    kept = (many_kept - few_kept) / (MANY - FEW)
    height = (many_height - few_height) / (MANY - FEW)
    assert kept < MOST_KEPT, f"{kept:,.0f} bytes for each table"
    assert height < MOST_AT_ONCE, f"{height:,.0f} bytes for each table at the height of planning"
