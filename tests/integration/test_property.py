"""The product's conscience: random databases are migrated and compared by a third way.

150 random databases by default, 2,000 with ``PROPERTY_EXAMPLES=2000``. What it may not do, ever:
end otherwise than done or blocked; lose, change or invent a value that is not accounted for; drop
a part of the schema without a finding; stop for a reason that is not in the source; stop for a
reason that the policy which ``inspect --suggest`` writes does not settle.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
import thirdway
from hostile import Database, databases
from hypothesis import HealthCheck, Phase, given, settings
from running import BLOCKED, DONE, run

from migration_job.embedded import EmbeddedPostgres

EXAMPLES = int(os.environ.get("PROPERTY_EXAMPLES", "150"))

pytestmark = [pytest.mark.postgres, pytest.mark.slow]


@pytest.fixture(scope="module")
def target(postgres_server: EmbeddedPostgres) -> Iterator[str]:
    yield postgres_server.create_database("property")
    postgres_server.drop_database("property")


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory in memory where there is one: each example writes a small file or two."""
    memory = Path("/dev/shm")  # noqa: S108
    directory = Path(tempfile.mkdtemp(prefix="property-", dir=memory if memory.is_dir() else None))
    yield directory
    shutil.rmtree(directory)


def emptied(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "SET client_min_messages TO warning; DROP SCHEMA public CASCADE; CREATE SCHEMA public;"
            " DROP SCHEMA IF EXISTS migration CASCADE"
        )


def judge(database: Database, dsn: str, place: Path) -> None:
    """Migrate and compare; where it is blocked, once more with the policy that it suggests."""
    path, report = place / "source.db", place / "report"
    for old in place.iterdir():
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    emptied(dsn)
    database.write(path)
    before = path.read_bytes()
    migrate = ("migrate", path, "--target", dsn, "--report", report, "--profile", "none")
    ended = run(*migrate)
    assert ended.status in (DONE, BLOCKED), f"status {ended.status}\n{ended.said}"
    if ended.status == BLOCKED:
        justified(path, json.loads((report / "report.json").read_text()))
        assert thirdway.read_target(dsn) == {}, "a blocked run wrote to the target"
        policy = place / "policy.yaml"
        suggested = run("inspect", path, "--profile", "none", "--suggest", policy)
        assert suggested.status in (DONE, BLOCKED), suggested.said
        ended = run(*migrate, "--policy", policy)
        assert ended.status == DONE, f"its own policy:\n{policy.read_text()}\n{ended.said}"
    said = json.loads((report / "report.json").read_text())
    source, found = thirdway.read_source(path), thirdway.read_target(dsn)
    records = thirdway.read_records(dsn)
    assert thirdway.compare(source, found, records) == []
    assert thirdway.compare_schema(source, found, records, said["findings"], dsn) == []
    assert said["outcome"] == "verified"
    assert path.read_bytes() == before, "the source file was changed"


# ------------------------------------------------------- when it may stop without being asked to

Source = Mapping[str, thirdway.Table]


def justified(path: Path, report: Mapping[str, Any]) -> None:
    """Each error finding has to be of a kind that may stop a run without a policy, and true."""
    source = thirdway.read_source(path)
    errors = [f for f in report["findings"] if f["severity"] == "error"]
    assert errors, "blocked without an error"
    for finding in errors:
        reason = REASONS.get(finding["code"])
        assert reason is not None, f"stopped without a policy for {finding}"
        assert reason(source, finding), f"not true of the source: {finding}"


def _cells(source: Source, finding: Mapping[str, Any]) -> list[thirdway.Cell]:
    table = source[finding["table"]]
    return [row[finding["column"]] for row in table.rows]


def _has_nul(source: Source, finding: Mapping[str, Any]) -> bool:
    cells = _cells(source, finding)
    return any(c.storage == "text" and b"\x00" in (c.content or b"") for c in cells)  # type: ignore[operator]


def _has_broken(source: Source, finding: Mapping[str, Any]) -> bool:
    return any(c.storage == "text" and c.text is None for c in _cells(source, finding))


def _is_no_identifier(source: Source, finding: Mapping[str, Any]) -> bool:
    table = source[finding["table"]]
    declared = next(c.declared for c in table.columns if c.name == finding["column"])
    numbers = [c for c in _cells(source, finding) if c.storage in ("integer", "real")]
    return declared.upper() in ("UUID", "GUID", "UNIQUEIDENTIFIER") and bool(numbers)


REASONS: dict[str, Callable[[Source, Mapping[str, Any]], bool]] = {
    "nul-in-text": _has_nul,
    "undecodable-text": _has_broken,
    "identifier-became-number": _is_no_identifier,
}
"""What may stop a run without a policy: what PostgreSQL cannot hold as what it is, and
what is not any more what it was declared to be."""


# ---------------------------------------------------------------------------------- the property


def _settings(examples: int) -> Any:
    return settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
        phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    )


def test_random_databases_arrive_unchanged(target: str, place: Path) -> None:
    @_settings(EXAMPLES)
    @given(databases())
    def holds(database: Database) -> None:
        judge(database, target, place)

    holds()


# Every counter-example that was ever found, as hypothesis shrank it.
FOUND: dict[str, Database] = {}


@pytest.mark.parametrize("name", FOUND)
def test_a_counter_example_once_found(name: str, target: str, place: Path) -> None:
    judge(FOUND[name], target, place)
