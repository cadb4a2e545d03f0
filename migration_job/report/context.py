"""A report that is written however the reported run ends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from migration_job.errors import BlockedError, ExitStatus, InputError, JobError
from migration_job.progress import Reporter
from migration_job.report import writer
from migration_job.report.model import Report


@contextmanager
def reported(report: Report, folder: Path, reporter: Reporter) -> Iterator[None]:
    """Write the report into ``folder`` at the end, with the error that ended it, if one did, which
    goes on. Raises InputError where it cannot be written."""
    try:
        yield
    except JobError as error:
        report.outcome = "blocked" if isinstance(error, BlockedError) else "failed"
        report.message = str(error)
        report.exit_status = int(error.status)
        raise
    except BaseException as error:
        report.message = f"unexpected: {type(error).__name__}"
        report.exit_status = int(ExitStatus.UNEXPECTED)
        raise
    finally:
        report.ended_at = now()
        report.seconds = dict(reporter.seconds)
        report.beside_seconds = dict(reporter.beside)
        _write(report, folder)


def _write(report: Report, folder: Path) -> None:
    try:
        writer.write(report, folder)
    except OSError as error:
        raise InputError(
            f"cannot write the report to {folder}: {error.strerror}",
            advice="give a directory that can be written with --report",
        ) from error


def make_folder(folder: Path) -> None:
    """The report's directory. Raises InputError where it cannot be had."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot make the report's directory {folder}: {error.strerror}",
            advice="give a directory that can be written with --report",
        ) from error


def now() -> str:
    """This moment as reports and certificates write it: UTC, ISO 8601, with milliseconds."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
