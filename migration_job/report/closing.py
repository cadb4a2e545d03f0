"""The last table of a run for people: for each table its rows, bytes, speed and time."""

from __future__ import annotations

from collections.abc import Sequence

from migration_job.plural import counted
from migration_job.report.model import Report, TableReport

SHOWN = 12
"""Tables of the table, the largest first; the report has all."""

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
HEADINGS = ("table", "rows", "size", "rows/s", "seconds")


def closing_table(report: Report, *, everything: bool = False) -> list[str]:
    """The lines, of the tables that this run copied; none where it copied nothing. The times are
    those of the copying sessions, which work side by side; the last line's is the clock's."""
    copied = {name: t for name, t in report.tables.items() if t.copy_seconds is not None}
    if not copied:
        return []
    order = sorted(copied, key=lambda name: -(copied[name].target_rows or 0))
    shown = order if everything else order[:SHOWN]
    rows = [_row(name, copied[name]) for name in shown]
    if len(order) > len(shown):
        rest = [copied[name] for name in order[len(shown) :]]
        rows.append(_sum(f"{counted(len(rest), 'more table')}", rest, _copying(rest)))
    every = list(copied.values())
    name = "in all" if len(every) == len(report.tables) else "copied by this run"
    rows.append(_sum(name, every, report.seconds.get("copy") or _copying(every)))
    return _aligned([HEADINGS, *rows])


def _row(name: str, table: TableReport) -> tuple[str, ...]:
    return _cells(name, table.target_rows or 0, table.target_bytes or 0, table.copy_seconds or 0)


def _sum(name: str, tables: Sequence[TableReport], seconds: float) -> tuple[str, ...]:
    rows = sum(t.target_rows or 0 for t in tables)
    return _cells(name, rows, sum(t.target_bytes or 0 for t in tables), seconds)


def _copying(tables: Sequence[TableReport]) -> float:
    return sum(t.copy_seconds or 0 for t in tables)


def _cells(name: str, rows: int, size: int, seconds: float) -> tuple[str, ...]:
    speed = f"{rows / seconds:,.0f}" if seconds and rows else "-"
    return name, f"{rows:,}", size_in_words(size), speed, f"{seconds:,.1f}"


def of_nothing(report: Report) -> str:
    """What a verified run that carried no row did not prove, in a clause; '' where it carried
    one."""
    tables = report.tables.values()
    if any(table.target_rows for table in tables):
        return ""
    if any(table.source_rows for table in tables):
        return "no row was carried over, so nothing was proven but the schema"
    return _of_nothing(len(tables), "was proven")


def would_prove_nothing(tables: int, rows: int) -> str:
    """The same before a run, of so many tables with so many rows."""
    return "" if rows else _of_nothing(tables, "would be proven")


def _of_nothing(tables: int, proven: str) -> str:
    if not tables:
        return f"there is no table to migrate, so nothing {proven}"
    return f"there is no row to migrate, so nothing {proven} but the schema"


def size_in_words(size: float) -> str:
    """Bytes as people read them, e.g. ``1.4 MiB``."""
    for unit in UNITS:
        if size < 1024 or unit == UNITS[-1]:
            break
        size /= 1024
    return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[n]) for row in rows) for n in range(len(HEADINGS))]
    return [
        "  ".join(
            cell.ljust(width) if n == 0 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
