"""A signal ends a run in order, and never while a thread is being started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from migration_job.errors import OperationError
from migration_job.signals import STOPPING, stopped_by_signals, undisturbed


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_ends_the_block_with_a_sentence(number: signal.Signals) -> None:
    def waiting() -> None:
        with stopped_by_signals():
            os.kill(os.getpid(), number)
            threading.Event().wait(10)

    before = signal.getsignal(number)
    with pytest.raises(OperationError, match=f"stopped by {number.name}"):
        waiting()
    assert signal.getsignal(number) is before


def test_a_signal_that_comes_in_between_acts_afterwards() -> None:
    passed = []

    def starting() -> None:
        with stopped_by_signals():
            with undisturbed():
                with undisturbed():
                    signal.raise_signal(signal.SIGTERM)
                passed.append("inner")
                signal.raise_signal(signal.SIGTERM)
                passed.append("outer")
            passed.append("never")

    with pytest.raises(OperationError, match="stopped by SIGTERM"):
        starting()
    assert passed == ["inner", "outer"]


def test_a_second_signal_acts_as_before_the_block() -> None:
    def cleaned_up_slowly() -> None:
        with stopped_by_signals():
            try:
                signal.raise_signal(signal.SIGINT)
            finally:
                signal.raise_signal(signal.SIGINT)

    # A shell has what it starts in the background ignore SIGINT, and so this process may.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            cleaned_up_slowly()
    finally:
        signal.signal(signal.SIGINT, before)


def test_outside_the_main_thread_nothing_is_changed() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def work() -> None:
        with stopped_by_signals(), undisturbed():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


STARTING = """
import threading
from migration_job.errors import OperationError
from migration_job.signals import stopped_by_signals, undisturbed
try:
    with stopped_by_signals():
        print("ready", flush=True)
        while True:
            with undisturbed():
                thread = threading.Thread(target=int)
                thread.start()
            thread.join()
except OperationError as error:
    print(error.args[0])
"""


def test_no_start_of_a_thread_is_torn_apart() -> None:
    """The interpreter would complain of a thread that it does not know."""
    for _ in range(10):
        process = subprocess.Popen(
            [sys.executable, "-c", STARTING],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        out, err = process.communicate(timeout=30)
        assert (out, err) == ("stopped by SIGTERM\n", "")
