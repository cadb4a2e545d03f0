"""Pages of a SQLite file that changed places end in a sentence, not in a defect to be reported."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.integration.running import run
from tests.integration.test_hostile_input import MANY, SEED, made, must_end_well

pytestmark = pytest.mark.postgres

PAGE = 1024


def test_swapped_pages_end_with_a_sentence(tmp_path: Path, postgres: str) -> None:
    chance = random.Random(SEED)
    print(f"MIGRATION_JOB_FUZZ_SEED={SEED}")
    content = made(tmp_path / "intact.db")
    source = tmp_path / "swapped.db"
    for number in range(MANY // 4):
        data = bytearray(content)
        a, b = (n * PAGE for n in chance.sample(range(1, len(data) // PAGE), 2))
        data[a : a + PAGE], data[b : b + PAGE] = data[b : b + PAGE], data[a : a + PAGE]
        source.write_bytes(data)
        ended = run("migrate", source, "--target", postgres, "--report", tmp_path / f"r{number}")
        must_end_well(ended.said, ended.status, number)
