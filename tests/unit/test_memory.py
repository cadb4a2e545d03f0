"""Planning keeps the cyclic collector out, and no longer than that; threads share few pools."""

from __future__ import annotations

import gc
import platform
import subprocess
import sys

import pytest

from migration_job.stores.sqlite.memory import staying


def test_the_collector_is_back_whatever_happens() -> None:
    made: list[list[int]] = []

    def plan() -> None:
        with staying():
            assert not gc.isenabled()
            made.extend([n] for n in range(1_000))
            raise ValueError("planning failed")

    before = gc.get_freeze_count()
    try:
        with pytest.raises(ValueError, match="planning failed"):
            plan()
        assert gc.isenabled()
        # What was made is looked through no more.
        assert gc.get_freeze_count() >= before + len(made)
    finally:
        gc.unfreeze()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with staying():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
        gc.unfreeze()


ARENAS = """
import threading, ctypes
from migration_job.stores.sqlite.memory import use_few_arenas
if {few}:
    use_few_arenas()
libc = ctypes.CDLL(None)
everybody = threading.Barrier(8)
def work():
    libc.malloc(100_000)
    everybody.wait()
threads = [threading.Thread(target=work) for _ in range(8)]
[t.start() for t in threads], [t.join() for t in threads]
sizes = [line.split()[0].split("-") for line in open("/proc/self/maps") if " ---p " in line]
print(sum(int(b, 16) - int(a, 16) > 32 << 20 for a, b in sizes))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not GNU's")
def test_threads_share_few_pools_of_memory() -> None:
    """What each pool of the GNU C library reserves is 64 MiB of addresses."""

    def pools(few: bool) -> int:
        done = subprocess.run(
            [sys.executable, "-c", ARENAS.format(few=few)],
            capture_output=True,
            text=True,
            check=True,
        )
        return int(done.stdout)

    assert pools(few=True) < pools(few=False)
