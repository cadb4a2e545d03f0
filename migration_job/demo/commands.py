"""The job's commands as the demo runs them, and the application's session."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg

from migration_job.connection import PostgresSide
from migration_job.demo.screen import Screen
from migration_job.errors import ExitStatus, OperationError
from migration_job.signals import StoppedError

END_SECONDS = 30.0


def run_command(arguments: Sequence[str], screen: Screen) -> ExitStatus:
    """``migration-job ARGUMENTS``, its lines shown as they come. Raises OperationError where it
    ends in a way of its own."""
    with subprocess.Popen(  # noqa: S603 - this interpreter and a module of ours
        [sys.executable, "-m", "migration_job", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            for line in process.stdout or ():
                screen.say(f"  {line.rstrip()}")
        except StoppedError:
            process.terminate()  # else its end would be waited for
            raise
    if process.returncode not in set(ExitStatus):
        raise OperationError(f"migration-job {arguments[0]} ended with {process.returncode}")
    return ExitStatus(process.returncode)


@contextmanager
def beside(arguments: Sequence[str], log: Path) -> Iterator[None]:
    """``migration-job ARGUMENTS`` while the block runs, as a stage's own container runs it; what it
    says goes to ``log``."""
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - this interpreter and a module of ours
            [sys.executable, "-m", "migration_job", *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield
    finally:
        end(process)


def end(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    """Have it end, by force where it takes too long."""
    process.terminate()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def session_of(side: PostgresSide) -> psycopg.Connection:
    """A session as the application opens one, by what its connection names; PgBouncer may be in
    between."""
    return psycopg.connect(
        host=side.host,
        port=side.port,
        dbname=side.database,
        user=side.user,
        password=side.password,
        autocommit=True,
        prepare_threshold=None,
    )
