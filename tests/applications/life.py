"""The life of an application: it fills its SQLite file, is moved into the schema that it has made
on PostgreSQL while it writes, works there with the same results, is upgraded there, and comes back.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from psycopg.conninfo import conninfo_to_dict

from tests.integration.running import DONE, run

Steps = Callable[..., str]
"""Runs steps of the application's on one side (a URL), and gives what they printed."""


def url(dsn: str, scheme: str = "postgresql") -> str:
    """The database as applications name it."""
    parts = {name: str(value) for name, value in conninfo_to_dict(dsn).items()}
    user, password = (quote(parts[name], safe="") for name in ("user", "password"))
    return f"{scheme}://{user}:{password}@{parts['host']}:{parts['port']}/{parts['dbname']}"


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
    are what it calls the two sides. It has to know the steps create, fill, write, use (which prints
    what it finds and leaves everything as it was) and upgrade. ``rebuild`` are steps of its own,
    run on each side that takes over."""

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
    job("migrate", "--schema", "existing", "--live", *rules)
    steps(here, "write")
    on_sqlite = steps(here, *rebuild, "use")
    assert len(on_sqlite.splitlines()) >= 5, on_sqlite
    job("switch", *live)
    assert steps(there, *rebuild, "use").splitlines() == on_sqlite.splitlines()
    steps(there, "upgrade", "use")
    job("rollback", *live)
    assert steps(here, *rebuild, "use").splitlines() == on_sqlite.splitlines()
