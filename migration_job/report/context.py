"""A report that is written however the reported run ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from migration_job.errors import BlockedError, ExitStatus, InputError, JobError
from migration_job.progress import Reporter
from migration_job.report import writer
from migration_job.report.model import Report


@contextmanager
def reported(report: Report, folder: Path, reporter: Reporter) -> Iterator[None]:
    """Write the report into ``folder`` at the end, with the error that ended it, if one did, which
    goes on. Raises InputError where it cannot be written."""

    def write() -> None:
        report.beside_seconds = dict(reporter.beside)
        writer.write(report, folder)

    with ended_in(report, folder, reporter, write):
        try:
            yield
        except JobError as error:
            report.outcome = "blocked" if isinstance(error, BlockedError) else "failed"
            raise


class Ending(Protocol):
    """What every report says of its end."""

    message: str
    exit_status: int
    ended_at: str
    seconds: dict[str, float]
    stopped_in: str


@contextmanager
def ended_in(
    report: Ending, folder: Path, reporter: Reporter, write: Callable[[], None]
) -> Iterator[None]:
    """Put the end into the report, and the error, if one ended it, which goes on; then ``write``
    it, whatever the end. Raises InputError where ``folder`` cannot be written to."""
    try:
        yield
    except JobError as error:
        report.message, report.exit_status = str(error), int(error.status)
        report.stopped_in = reporter.stopped_in
        raise
    except BaseException as error:
        report.message = f"unexpected: {type(error).__name__}"
        report.exit_status = int(ExitStatus.UNEXPECTED)
        report.stopped_in = reporter.stopped_in
        raise
    finally:
        report.ended_at = now()
        report.seconds = dict(reporter.seconds)
        try:
            write()
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
