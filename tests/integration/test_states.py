"""Keys of any content reach PostgreSQL as they are."""

from __future__ import annotations

import random

import psycopg
import pytest

from migration_job.stores.postgres.apply import text_array

pytestmark = pytest.mark.postgres


@pytest.mark.parametrize(
    "values",
    [
        [],
        [""],
        ["NULL", "null"],
        ['a","b'],
        ['"', "\\", '\\"', "{}", "{,}", ",", " x ", "\t\n", "ü", "🐘"],
        ["plain", "also plain"],
    ],
)
def test_an_array_s_text_is_its_values(postgres: str, values: list[str]) -> None:
    with psycopg.connect(postgres) as target:
        assert target.execute("SELECT %s::text[]", (text_array(values),)).fetchone() == (values,)


def test_random_arrays(postgres: str) -> None:
    dice = random.Random(8)
    print("seed 8")
    with psycopg.connect(postgres) as target:
        for _ in range(200):
            values = [
                "".join(dice.choice('",\\{} aN') for _ in range(dice.randrange(6)))
                for _ in range(dice.randrange(1, 5))
            ]
            row = target.execute("SELECT %s::text[]", (text_array(values),)).fetchone()
            assert row == (values,)
