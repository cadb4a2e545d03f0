"""What the live demo shows: lines above, and on a terminal one line at the bottom that moves."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

TICK_SECONDS = 0.2
PLAIN_SECONDS = 2.0
"""Between lines of the watched state where there is no terminal."""


class Screen:
    """Prints to standard output; safe to use from several threads."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stdout, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """One line, kept."""
        self._console.print(text, markup=False)

    @contextmanager
    def watching(self, state: Callable[[], str]) -> Iterator[None]:
        """Within the block, show what ``state()`` says: at the bottom of a terminal five times a
        second, elsewhere as a line every other second."""
        over = threading.Event()
        watch = self._watch_terminal if self._console.is_terminal else self._watch_plain
        thread = threading.Thread(target=watch, args=(state, over))
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def _watch_terminal(self, state: Callable[[], str], over: threading.Event) -> None:
        with self._console.status("") as status:
            while not over.wait(TICK_SECONDS):
                status.update(state().replace("[", "\\["))

    def _watch_plain(self, state: Callable[[], str], over: threading.Event) -> None:
        spoke = time.monotonic()
        while not over.wait(TICK_SECONDS):
            if time.monotonic() - spoke >= PLAIN_SECONDS:
                spoke = time.monotonic()
                self.say(f"  [{state()}]")
