"""What a process that holds the application up tells its watchdog each second: that it runs.

A step's deadline says how long it may take while it waits for others, half a minute and more. A
process that is stopped is found much sooner by its silence, since none of its threads runs.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

from migration_job.signals import undisturbed

BEAT_SECONDS = 1.0

SILENCE_SECONDS = 10.0
"""Without a sign for so long a process is taken to stand still; one that is only starved of
processor time is not."""

SIGN = b". "


@contextlib.contextmanager
def given(descriptor: int) -> Iterator[None]:
    """Within the block :data:`SIGN` is written to ``descriptor``, a pipe, each second. Nothing
    waits for a reader: one that is gone or stopped holds nobody up."""
    os.set_blocking(descriptor, False)
    over = threading.Event()

    def beat() -> None:
        while not over.wait(BEAT_SECONDS):
            with contextlib.suppress(OSError):
                os.write(descriptor, SIGN)

    thread = threading.Thread(target=beat, name="sign-of-life", daemon=True)
    with undisturbed():
        thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
