"""How PostgreSQL writes a number of 24 bits."""

from __future__ import annotations

import random
import struct
from typing import Any

import psycopg
import pytest

from migration_job.embedded import EmbeddedPostgres
from migration_job.plan.rules.other import SingleRule
from migration_job.plan.rules.singles import single_text

HIGHEST = 3.4028234663852886e38


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((0.0, "0"), (-0.0, "-0"), (100000.0, "100000"), (1000000.0, "1e+06")),
        *((0.0001, "0.0001"), (0.00001, "1e-05"), (HIGHEST, "3.4028235e+38")),
        # 67108900 is exactly between two singles, and PostgreSQL takes no such digits.
        (67108896.0, "6.7108896e+07"),
        (1.401298464324817e-45, "1e-45"),
    ],
)
def test_known_ones(value: float, text: str) -> None:
    (nearest,) = struct.unpack("<f", struct.pack("<f", value))
    assert single_text(nearest) == text


def test_the_highest_is_carried() -> None:
    rule = SingleRule()
    assert rule.inverse(rule.forward(HIGHEST)) == float("3.4028235e+38")


@pytest.mark.postgres
def test_as_postgresql_does(postgres_server: EmbeddedPostgres) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    bits = [rng.getrandbits(32) for _ in range(20_000)]
    whole = [struct.unpack("<i", struct.pack("<f", float(rng.getrandbits(40))))[0] for _ in bits]
    values = [
        value
        for number in (*bits, *whole)
        for (value,) in [struct.unpack("<f", struct.pack("<I", number))]
        if abs(value) <= HIGHEST
    ]
    with psycopg.connect(postgres_server.dsn) as session:
        rows: list[tuple[Any, ...]] = session.execute(
            "SELECT v::real::text FROM unnest(%s::double precision[]) WITH ORDINALITY AS t(v, n) "
            "ORDER BY n",
            (values,),
        ).fetchall()
    assert [single_text(value) for value in values] == [text for (text,) in rows]
