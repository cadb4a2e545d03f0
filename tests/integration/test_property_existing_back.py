"""Random schemas of an application's own, there and back: loaded live while the application writes
to SQLite, switched, written to on PostgreSQL, and brought home.

What may not happen, ever: a row or value of PostgreSQL's that SQLite does not mean afterwards, a
row of the target's own that is lost, a change of what stays on SQLite, a definition of the
target's that is another in the end, a new orphan; a command that stops on the way.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

from migration_job.embedded import EmbeddedPostgres
from tests.integration.existing_applications import build, make_source, make_target
from tests.integration.existing_journeys import Sides
from tests.integration.running import DONE, dumped
from tests.integration.test_existing import definitions
from tests.integration.wholeway import Way

pytestmark = [pytest.mark.postgres, pytest.mark.slow, pytest.mark.timeout(3_600)]

EXAMPLES = int(os.environ.get("PROPERTY_EXISTING_BACK_EXAMPLES", "8"))
SEED = int(os.environ.get("PROPERTY_EXISTING_BACK_SEED", random.SystemRandom().randrange(10**9)))
"""Of the first example; each further one has the next, and is the first with that."""


@pytest.mark.parametrize("number", range(EXAMPLES))
def test_a_random_application_there_and_back(
    postgres_server: EmbeddedPostgres, tmp_path: Path, number: int
) -> None:
    seed = SEED + number
    print(f"PROPERTY_EXISTING_BACK_SEED={seed}")
    rng = random.Random(seed)
    application = build(rng)
    name = f"existing_back_{number}_{seed}"
    dsn = postgres_server.create_database(name)
    sides = Sides(application, tmp_path / "s.db", dsn, rng)
    try:
        make_source(application, sides.path)
        make_target(application, rng, dsn)
        Trial(sides, tmp_path, postgres_server).run()
    finally:
        print(*sides.said, sep="\n")
        postgres_server.drop_database(name)


@dataclass
class Trial:
    """One application's journey, by the command line."""

    sides: Sides
    folder: Path
    server: EmbeddedPostgres
    way: Way = field(init=False)

    def run(self) -> None:
        sides = self.sides
        before, orphans = self.dump(), sides.orphans()
        (self.folder / "policy.yaml").write_text(sides.application.policy(settled=True))
        self.way = Way.over(self.folder, sides.dsn, sides.path)
        moved = self.way.migrate("--schema", "existing", "--policy", self.folder / "policy.yaml")
        assert moved.status == DONE, f"migrate ended with {moved.status}: {moved.said}"
        sides.write_source()
        if sides.rng.random() < 0.5:
            self.must("sync", "--once")
            sides.write_source()
        self.must("switch")
        self.arrived()
        closed = {table.name: sides.source(table) for table in sides.application.tables}
        sides.write_target()
        if sides.rng.random() < 0.5:
            self.must("sync", "--once")
            sides.write_target()
        self.must("rollback")
        wrong = sides.wrong(closed)
        assert not wrong, "\n".join(wrong)
        assert not sides.orphans() - orphans
        # Whatever came home can go there again.
        sides.touch()
        self.must("sync", "--once")
        self.must("rollback", "--release")
        with psycopg.connect(sides.dsn, autocommit=True) as target:
            target.execute("DROP SCHEMA migration CASCADE")
        assert definitions(self.dump()) == definitions(before)

    def arrived(self) -> None:
        """PostgreSQL has the model's rows, and those of its own that stay."""
        for table in self.sides.application.tables:
            if not table.carried:
                continue
            there = self.sides.target_rows(table)
            assert set(there) == table.final_keys(), table.name
            for row in table.rows:
                parent, *texts = there[row.key]
                assert parent == row.parent, (table.name, row.key)
                for (number, column), text in zip(table.carries, texts, strict=True):
                    wanted = row.values[number][1]
                    assert column.kind.alike(wanted, text), (table.name, column, wanted, text)

    def must(self, name: str, *more: str) -> None:
        ended = self.way.command(name, *more)
        assert ended.status == DONE, f"{name} ended with {ended.status}: {ended.said}"

    def dump(self) -> str:
        return dumped(self.server, self.sides.dsn)
