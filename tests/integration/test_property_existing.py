"""Random schemas of an application's own: loaded, they hold the source's values and are otherwise
what they were; refused or undone, they are that to the last row.

What may not happen, ever: a value that is not the source's or the target's own before, by what the
policy says of its table; a definition that changes; a refusal for a reason that is not in the
model, or none where there is one; a trace of a run that was refused, has failed or was taken back;
a run that was killed and that the next one does not end.
"""

from __future__ import annotations

import importlib
import json
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from migration_job.embedded import EmbeddedPostgres
from migration_job.stores.postgres import load
from tests.integration.existing_applications import (
    Application,
    Table,
    build,
    make_source,
    make_target,
    quoted,
    tables_of,
)
from tests.integration.running import BLOCKED, DONE, FAILED, Ended, digest, dumped, run
from tests.integration.test_existing import definitions

pytestmark = [pytest.mark.postgres, pytest.mark.slow, pytest.mark.timeout(3_600)]

EXAMPLES = int(os.environ.get("PROPERTY_EXISTING_EXAMPLES", "12"))
SEED = int(os.environ.get("PROPERTY_EXISTING_SEED", random.SystemRandom().randrange(10**9)))
"""Of the first example; each further one has the next, and is the first with that."""

POINTS = [
    "stores.postgres.existing.prepare",
    "stores.postgres.records.mark_all",
    "stores.postgres.existing.mark_same",
    "stores.postgres.merged.put_back",
    "stores.postgres.schema.add_foreign_keys",
    "stores.postgres.untouched.keep",
    "stores.postgres.records.store_certificate",
    "verify.content.read_relations",
]
"""Where a run is cut off, before or after: from the keeping of what is there to the certificate."""


@dataclass(frozen=True)
class Fault:
    """How a run is cut off: by an error (``failed``), as if the process were killed there
    (``killed``), or by the loss of its connections to the target (``lost``)."""

    how: str
    where: str
    after: bool

    @classmethod
    def any(cls, rng: random.Random) -> Fault:
        how = rng.choice(["failed", "failed", "killed", "lost"])
        return cls(how, rng.choice(POINTS), rng.random() < 0.5)

    @contextmanager
    def at_work(self, dsn: str) -> Iterator[None]:
        """Have the runs in here meet it."""
        module, _, name = self.where.rpartition(".")
        original = getattr(importlib.import_module(f"migration_job.{module}"), name)
        met = []

        def cut(*arguments: Any, **named: Any) -> Any:
            met.append(name)
            result = original(*arguments, **named) if self.after else None
            if self.how != "lost":
                raise psycopg.OperationalError("cut off")
            with psycopg.connect(dsn, autocommit=True) as other:
                other.execute(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            return result if self.after else original(*arguments, **named)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(f"migration_job.{module}.{name}", cut)
            if self.how == "killed":
                patched.setattr("migration_job.stores.postgres.existing.undo", lambda *_: None)
            yield
        assert met, f"{self.where} was never reached"


@pytest.mark.parametrize("number", range(EXAMPLES))
def test_a_random_application(
    postgres_server: EmbeddedPostgres,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    seed = SEED + number
    print(f"PROPERTY_EXISTING_SEED={seed}")
    rng = random.Random(seed)
    application = build(rng)
    name = f"existing_{number}_{seed}"
    dsn = postgres_server.create_database(name)
    # Half of the applications are loaded as if each of their tables were a large one.
    small = load.SMALL_ROWS if rng.random() < 0.5 else 0
    monkeypatch.setattr(load, "SMALL_ROWS", small)
    try:
        make_source(application, tmp_path / "s.db")
        make_target(application, rng, dsn)
        Trial(application, dsn, tmp_path, postgres_server).run(Fault.any(rng))
    finally:
        postgres_server.drop_database(name)


@dataclass
class Trial:
    """One application, refused, cut off, and taken there."""

    application: Application
    dsn: str
    folder: Path
    server: EmbeddedPostgres

    def run(self, fault: Fault) -> None:
        print(fault)
        source, before, rows = digest(self.folder / "s.db"), self.dump(), tables_of(self.dsn)
        in_the_way = self.application.in_the_way()
        if in_the_way:
            self.refused()
            assert tables_of(self.dsn) == rows
        with fault.at_work(self.dsn):
            ended = self.migrate(settled=True)
        assert ended.status != DONE, ended.said
        if fault.how == "failed":
            assert ended.status == FAILED, ended.said
            assert self.dump() == before
            assert not self.has_records()
        elif in_the_way:
            # What is left of it cannot go on by this policy.
            self.refused()
            assert self.dump() == before
        ended = self.migrate(settled=True)
        assert ended.status == DONE, ended.said
        assert definitions(self.dump()) == definitions(before)
        assert digest(self.folder / "s.db") == source
        check(self.application, self.dsn, rows)

    def refused(self) -> None:
        """What is in the way is told, and nothing else."""
        ended = self.migrate(settled=False)
        assert ended.status == BLOCKED, ended.said
        assert not self.has_records()
        report = json.loads((self.folder / "r/report.json").read_text())
        errors = [f for f in report["findings"] if f["severity"] == "error"]
        found = {(f["code"], f["table"], f.get("column")) for f in errors}
        assert found == self.application.in_the_way(), ended.said

    def migrate(self, *, settled: bool) -> Ended:
        (self.folder / "policy.yaml").write_text(self.application.policy(settled=settled))
        return run(
            "migrate", self.folder / "s.db", "--target", self.dsn, "--schema", "existing",
            "--report", self.folder / "r", "--policy", self.folder / "policy.yaml",
        )  # fmt: skip

    def dump(self) -> str:
        return dumped(self.server, self.dsn)

    def has_records(self) -> bool:
        with psycopg.connect(self.dsn) as target:
            row = target.execute("SELECT to_regnamespace('migration') IS NOT NULL").fetchone()
        return bool(row and row[0])


def check(application: Application, dsn: str, before: dict[str, dict[str, str]]) -> None:
    """Each value is what its kind says, each row of the target's own what the policy says, and
    the next key is beyond the highest."""
    after = tables_of(dsn)
    loaded = {table.there: table for table in application.tables if table.carried}
    for name, rows in before.items():
        table = loaded.get(name)
        if table is None:
            assert after[name] == rows, name
        elif table.treatment == "merge":
            for key in table.own_keys() - table.keys():
                assert after[name][str(key)] == rows[str(key)], (name, key)
    with psycopg.connect(dsn) as target:
        target.execute("SET TimeZone = 'UTC'")
        kept: dict[str, int] = dict(
            target.execute("SELECT tab, count(*) FROM migration.replaced GROUP BY 1").fetchall()
        )
        assert kept == {t.there: len(t.own) for t in loaded.values() if t.own}
        for table in loaded.values():
            _check_values(table, target)
            if table.identity == "integer" or any(c.required for c in table.columns):
                continue
            into, by = quoted(table.place), quoted(table.key)
            made = target.execute(
                f"INSERT INTO {into} DEFAULT VALUES RETURNING {by}".encode()
            ).fetchone()
            assert made is not None
            assert made[0] > max(table.final_keys(), default=0), table.name


def _check_values(table: Table, target: psycopg.Connection) -> None:
    shown = [
        "NULL" if column.there is None else column.kind.shown.format(quoted(column.there))
        for column in table.columns
    ]
    key = quoted(table.key)
    found = {
        row[0]: row[1:]
        for row in target.execute(
            f"SELECT {key}, parent, {', '.join(shown)} FROM {quoted(table.place)}".encode()
        ).fetchall()
    }
    assert set(found) == table.final_keys(), table.name
    for row in table.rows:
        parent, *texts = found[row.key]
        assert parent == row.parent, (table.name, row.key)
        for column, (_, wanted), text in zip(table.columns, row.values, texts, strict=True):
            expected = wanted if column.carried else None
            assert column.kind.alike(expected, text), (table.name, column, expected, text)
