"""The life of an application: it fills its SQLite file, is moved into the schema that it has made
on PostgreSQL while it writes, works there with the same results, is upgraded there, and comes back.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict

from tests.integration.running import DONE, run

Steps = Callable[..., str]
"""Runs steps of the application's on one side (a URL), and gives what they printed."""

MEANWHILE, AFTERWARDS = 3, 10
"""At least so many rows the application has to make while the body runs, and after its end. A quick
machine is through with a small file within a second."""

WORK_SECONDS = 120
"""So long the application may take to make them."""


def url(dsn: str, scheme: str = "postgresql") -> str:
    """The database as applications name it."""
    parts = {name: str(value) for name, value in conninfo_to_dict(dsn).items()}
    user, password = (quote(parts[name], safe="") for name in ("user", "password"))
    return f"{scheme}://{user}:{password}@{parts['host']}:{parts['port']}/{parts['dbname']}"


@contextlib.contextmanager
def at_work(work: Callable[[], str], folder: Path) -> Iterator[list[str]]:
    """The application writes while the body runs. ``work`` makes rows in one process until
    ``folder`` has a file ``stop``; after each that was acknowledged it adds the row's name as a
    line to the file ``working``. The body starts when there is one, and the application goes on
    beyond its end; then the list has the names, in order."""
    names: list[str] = []
    log = folder / "working"

    def acknowledged() -> int:
        return log.read_bytes().count(b"\n") if log.exists() else 0

    with ThreadPoolExecutor(1) as threads:
        worker = threads.submit(work)
        try:
            _until(lambda: acknowledged() > 0, worker, "the application's first row")
            before = acknowledged()
            yield names
            meanwhile = acknowledged() - before
            wanted = before + meanwhile + AFTERWARDS
            _until(lambda: acknowledged() >= wanted, worker, "rows made afterwards")
        finally:
            (folder / "stop").touch()
        worker.result()
    assert meanwhile >= MEANWHILE, f"{meanwhile} rows were made meanwhile"
    names.extend(sorted(log.read_text().splitlines()))
    assert len(set(names)) == len(names)


def _until(condition: Callable[[], bool], worker: Future[str], what: str) -> None:
    """Wait for what the worker brings about; where it ends before, for the reason."""
    end = time.monotonic() + WORK_SECONDS
    while not condition():
        assert not worker.done(), f"the application ended: {worker.result()!r}"
        assert time.monotonic() < end, f"no {what} within {WORK_SECONDS} s"
        time.sleep(0.01)


def there_and_back(  # noqa: PLR0913 - an application's parts, named
    steps: Steps,
    here: str,
    there: str,
    dsn: str,
    folder: Path,
    *,
    policy: str | None = None,
    rebuild: tuple[str, ...] = (),
) -> None:
    """The whole life. The application's file is ``app.db`` in ``folder``; ``here`` and ``there``
    are what it calls the two sides. It has to know the steps create, fill, work (as ``at_work``
    says), worked (which prints the names of the rows that work made, sorted), write, use (which
    prints what it finds and leaves everything as it was) and upgrade. ``rebuild`` are steps of its
    own, run on each side that takes over."""

    def job(name: str, *options: str | Path) -> None:
        ended = run(
            *(name, folder / "app.db", "--target", dsn, "--report", folder / "report"),
            *("--state", folder / "state", *options),
        )
        assert ended.status == DONE, ended.said

    told = {"host": "h", "database": "d", "user": "u", "password": "p"}
    (folder / "to.json").write_text(json.dumps(told))
    live = ("--connection", folder / "connection", "--connect-to", folder / "to.json")
    rules: tuple[str | Path, ...] = ()
    if policy is not None:
        (folder / "policy.yaml").write_text(policy)
        rules = ("--policy", folder / "policy.yaml")
    steps(here, "create", "fill")
    steps(there, "create")
    with at_work(lambda: steps(here, "work"), folder) as made:
        job("migrate", "--schema", "existing", "--live", *rules)
    assert steps(here, "worked").splitlines() == made
    steps(here, "write")
    on_sqlite = steps(here, *rebuild, "use")
    assert len(on_sqlite.splitlines()) >= 5, on_sqlite
    job("switch", *live)
    assert steps(there, "worked").splitlines() == made
    assert steps(there, *rebuild, "use").splitlines() == on_sqlite.splitlines()
    steps(there, "upgrade", "use")
    job("rollback", *live)
    assert steps(here, "worked").splitlines() == made
    assert steps(here, *rebuild, "use").splitlines() == on_sqlite.splitlines()
