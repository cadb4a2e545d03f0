"""postgresql.conf follows the container, and the strategy where the container is the strategy's."""

from __future__ import annotations

from dataclasses import replace

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra import parameters, tuning
from infra.tuning import GB, MB, Host


def computed(**changes: object) -> dict[str, str]:
    host = Host(**{**DEFAULT, **changes})  # type: ignore[arg-type]
    return {value.name: value.value for value in tuning.compute(host)}


DEFAULT: dict[str, object] = {
    "memory": GB,
    "cpus": 1,
    "storage": "ssd",
    "disk": 20 * GB,
    "pool_max": 20,
}


def test_one_gigabyte_gets_the_strategys_values() -> None:
    assert (
        computed().items()
        >= {
            "shared_buffers": "256MB",
            "work_mem": "4MB",
            "maintenance_work_mem": "64MB",
            "max_connections": "100",
            "max_prepared_transactions": "0",
            "random_page_cost": "1.1",
            "effective_cache_size": "1GB",
            "checkpoint_completion_target": "0.7",
        }.items()
    )


def test_the_level_of_a_log_is_the_only_thing_that_an_older_server_has_otherwise() -> None:
    host = Host(**DEFAULT)  # type: ignore[arg-type]
    new, old = tuning.compute(host), tuning.compute(replace(host, logical=False))
    (level,) = (value for value in old if value not in new)
    # Its comment too: another file would restart a server that runs.
    assert (level.name, level.value, level.reason) == (
        "wal_level",
        "replica",
        "base backups and archiving need it",
    )
    assert [v.name for v in new] == [v.name for v in old]
    assert computed()["wal_level"] == "logical"


def test_more_memory_gets_pgtunes_values() -> None:
    assert (
        computed(memory=16 * GB, cpus=4, disk=500 * GB).items()
        >= {
            "shared_buffers": "4GB",
            "effective_cache_size": "12GB",
            "maintenance_work_mem": "1GB",
            "work_mem": "37MB",
            "wal_buffers": "16MB",
            "checkpoint_completion_target": "0.9",
            "max_wal_size": "4GB",
            "max_parallel_workers_per_gather": "2",
        }.items()
    )


@pytest.mark.parametrize("memory", [GB, 4 * GB, 64 * GB])
def test_the_strategys_values_by_name_whatever_the_memory(memory: int) -> None:
    found = computed(memory=memory, cpus=8, disk=500 * GB, tuning="strategy")
    assert found.items() >= tuning.STRATEGY.items()
    other = computed(memory=memory, cpus=8, disk=500 * GB)
    assert {n: v for n, v in found.items() if n not in tuning.STRATEGY} == {
        n: v for n, v in other.items() if n not in tuning.STRATEGY
    }
    host = Host(**{**DEFAULT, "memory": memory, "tuning": "strategy"})  # type: ignore[arg-type]
    values = tuning.compute(host, {"work_mem": "8MB"})
    (work,) = (value for value in values if value.name == "work_mem")
    assert (work.value, work.replaced) == ("8MB", "4MB")


def test_at_one_gigabyte_the_strategy_is_what_is_computed() -> None:
    assert computed(tuning="strategy") == computed()


def test_a_disk_is_dearer_than_flash() -> None:
    assert computed(storage="hdd")["random_page_cost"] == "4.0"


def test_a_large_pool_raises_the_connections() -> None:
    assert computed(pool_max=300)["max_connections"] == "325"
    assert computed(max_connections=400)["max_connections"] == "400"


def test_overrides_come_last_and_show_what_they_replaced() -> None:
    values = tuning.compute(
        Host(**DEFAULT),  # type: ignore[arg-type]
        {"work_mem": "8MB", "cursor_tuple_fraction": "0.5"},
    )
    (work,) = (value for value in values if value.name == "work_mem")
    assert (work.value, work.replaced) == ("8MB", "4MB")
    assert values[-1].name == "cursor_tuple_fraction"
    names = [value.name for value in values]
    assert len(names) == len(set(names))


def test_every_value_has_its_reason() -> None:
    assert all(value.reason for value in tuning.compute(Host(**DEFAULT)))  # type: ignore[arg-type]


@pytest.mark.parametrize("version", [14, 15, 16, 17, 18])
@settings(max_examples=40)
@given(
    memory=st.integers(256, 1024 * 1024),
    cpus=st.floats(0.1, 256),
    storage=st.sampled_from(["ssd", "hdd", "network"]),
    disk=st.integers(1, 10**5),
    pool=st.integers(1, 5000),
)
def test_every_computed_value_is_one_that_its_version_accepts(
    version: int, memory: int, cpus: float, storage: str, disk: int, pool: int
) -> None:
    values = computed(
        memory=memory * MB,
        cpus=cpus,
        storage=storage,
        disk=disk * GB,
        pool_max=pool,
        version=version,
    )
    ours = {name: text for name, text in values.items() if name not in parameters.REFUSED}
    parameters.check(version, ours)
    buffers = parameters.in_units(values["shared_buffers"], "kB") * 1024
    assert buffers <= memory * MB / 4


@pytest.mark.postgres
def test_the_list_of_settings_is_the_servers(postgres: str) -> None:
    with psycopg.connect(postgres) as connection:
        rows = connection.execute(
            "SELECT name, vartype FROM pg_settings WHERE context <> 'internal'"
            " AND name NOT LIKE '%.%'"
        ).fetchall()
    known = {name: parameters.entry(14, name) for name, _ in rows}
    assert [name for name, entry in known.items() if entry is None] == []
    assert all(known[name]["type"] == kind for name, kind in rows)  # type: ignore[index]
