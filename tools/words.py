"""``python -m tools.words VARIABLE COMMAND... [-- LAST...]``: COMMAND with the variable's words.

The words are split as a shell splits them, quotes and all, and nothing of them is expanded or run:
`make demo OPTIONS='--policy "my rules.yaml"'` works, and `$(...)` in it is text. ``LAST`` goes to
the command behind a ``--`` of its own, as it stands, so that a file may begin with a dash.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence


def command(arguments: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """The command and its words. ValueError where a quote of the variable's is not closed."""
    variable, *words = arguments
    if "--" not in words:
        words = [*words, "--"]
    end = words.index("--")
    last = words[end + 1 :]
    given = shlex.split(environment.get(variable, ""))
    return [*words[:end], *given, *(["--", *last] if last else [])]


def main() -> None:
    """Become the command."""
    try:
        words = command(sys.argv[1:], os.environ)
    except ValueError as error:
        found = f"{os.environ[sys.argv[1]]!a}"
        sys.stderr.write(
            f"error: expected words in {sys.argv[1]}, found {found}: {str(error).lower()}\n"
            "close the quote; nothing was run\n"
        )
        sys.exit(2)
    # S606: no shell is wanted; the command is the Makefile's.
    os.execvp(words[0], words)  # noqa: S606


if __name__ == "__main__":
    main()
