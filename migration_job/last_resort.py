"""The last line of defence: what nobody foresaw ends in a sentence, and a file holds the rest.

An operator gets what happened in a line, which side serves where that is known, and the path of a
file that is for this user alone. What can be foreseen has a sentence of its own where it arises
(:class:`migration_job.errors.JobError`), and never comes here.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from migration_job import __version__
from migration_job.log_format import printable

FOLDERS = ("--state", "--report", "--connection")
"""The options that name a directory of this job's, the first that is there first."""
SHOWN = 200
"""Characters of the error's own words that are shown."""

Serves = Callable[[Path], str]
"""Says, of a SQLite file, which side serves; '' where that is not known."""


def sentence(error: BaseException, words: Sequence[str], serves: Serves | None = None) -> str:
    """What to tell the operator of an unforeseen error; writes the file that it names.

    ``words`` are the command's arguments, of which only the names of options are kept: a value
    may be a secret. ``serves`` is asked of the SQLite file among them. Never raises.
    """
    told = [f"error: an unforeseen error: {_kind(error)}"]
    if serves is not None:
        for source in _sources(words):
            with contextlib.suppress(Exception):
                if side := serves(source):
                    told.append(side)
            break
    file = _write(error, words)
    told.append(
        f"the details are in {file}, which only this user can read: remove what must not leave "
        "this machine, and report it; what was committed stays, and the command can be run "
        "again"
        if file is not None
        else "no file could be written with the details: free space in the temporary directory and "
        "run the command again"
    )
    return "\n".join(told)


def main(program: Callable[[], int | None], words: Sequence[str] | None = None) -> None:
    """Run a program's main function and exit with its status; with 1 and :func:`sentence` on the
    standard error where it ends by an error that it did not foresee."""
    try:
        sys.exit(program())
    except Exception as error:
        told = sentence(error, sys.argv[1:] if words is None else words)
        sys.stderr.write(printable(told, lines=True) + "\n")
        sys.exit(1)


def _kind(error: BaseException) -> str:
    """The error's type and, of those that quote nothing but the system's own words, these: others
    may quote a value or a connection string."""
    name = type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        place = f": {error.filename}" if isinstance(error.filename, str | os.PathLike) else ""
        return f"{name}: {error.strerror}{place}"[:SHOWN]
    return name


def _sources(words: Sequence[str]) -> Iterator[Path]:
    for word in words:
        with contextlib.suppress(OSError, ValueError):
            path = Path(word)
            if path.is_file():
                with path.open("rb") as stream:
                    if stream.read(15) == b"SQLite format 3":
                        yield path


def _folders(words: Sequence[str]) -> Iterator[Path]:
    given: dict[str, str] = {}
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name in FOLDERS:
            given[name] = value if equals else following
    for name in FOLDERS:
        if given.get(name):
            yield Path(given[name])
    yield Path(tempfile.gettempdir())


def _write(error: BaseException, words: Sequence[str]) -> Path | None:
    named = [w.partition("=")[0] for w in words[1:] if w.startswith("--")]
    text = "\n".join(
        [
            f"migration-job {__version__}, Python {platform.python_version()}, {sys.platform}",
            f"at {datetime.now(UTC).isoformat(timespec='seconds')}",
            f"command: {' '.join([*words[:1], *named])} (values are left out)",
            "",
            "".join(traceback.format_exception(error)),
        ]
    )
    for folder in _folders(words):
        with contextlib.suppress(OSError, ValueError):
            # mkstemp: mode 0600, a name of its own, no link followed.
            descriptor, name = tempfile.mkstemp(
                prefix="migration-job-error-", suffix=".txt", dir=folder.absolute()
            )
            with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as stream:
                stream.write(text)
            return Path(name)
    return None
