"""Any name goes through every command, live, there and back, or is refused with a sentence.

A few random schemas by default, others every time; the seed is printed. As many as
``NAMES_EXAMPLES`` says, and those of ``NAMES_SEED``; ``NAMES_FIRST`` begins with a later one.
After each command both sides are compared, and nothing is on the target that nobody asked for.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from migration_job.embedded import EmbeddedPostgres
from tests.integration.hostile_names import makes, schema
from tests.integration.journey import Journey, Refused, plain_and_back, there_and_back

EXAMPLES = int(os.environ.get("NAMES_EXAMPLES", "6"))
FIRST = int(os.environ.get("NAMES_FIRST", "0"))
SEED = os.environ.get("NAMES_SEED", str(random.SystemRandom().randrange(1 << 32)))

pytestmark = [pytest.mark.postgres, pytest.mark.slow, pytest.mark.timeout(0)]

SENTENCES = (r"expected no names that begin with '_migration_' on the source",)
"""What a name may be refused for, once for each reason; all else has to go through."""


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    memory = Path("/dev/shm")  # noqa: S108
    directory = Path(tempfile.mkdtemp(prefix="names-", dir=memory if memory.is_dir() else None))
    yield directory
    shutil.rmtree(directory)


def test_any_name_goes_there_and_back(postgres_server: EmbeddedPostgres, place: Path) -> None:
    ends: Counter[str] = Counter()
    for number in range(FIRST, FIRST + EXAMPLES):
        seed = f"{SEED}:{number}"
        try:
            ends[_example(seed, postgres_server, place / str(number))] += 1
        except BaseException:
            print(f"\nNAMES_SEED={SEED} NAMES_FIRST={number} NAMES_EXAMPLES=1")
            raise
        shutil.rmtree(place / str(number), ignore_errors=True)
    print(f"\nNAMES_SEED={SEED}: {dict(ends)}")
    assert ends["whole"] * 2 > EXAMPLES, f"too few went the whole way: {ends}"


def _example(seed: str, server: EmbeddedPostgres, directory: Path) -> str:
    rng = random.Random(seed)
    made = schema(rng)
    directory.mkdir()
    if not makes(made, directory / "try.db"):
        return "not a schema"
    dsn = server.create_database("names")
    try:
        journey = Journey(directory, dsn, made.database)
        plain = made.keyed and rng.random() < 0.25
        (plain_and_back if plain else there_and_back)(journey, made.changes)
    except Refused as end:
        if not any(re.search(pattern, end.said) for pattern in SENTENCES):
            raise
        return "refused"
    finally:
        server.drop_database("names")
    return "whole"
