"""Text as a word of a command line, as an operator can paste it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable


def word(text: str) -> str:
    """The text as one word for a shell. What cannot be printed stands in ``$'...'``, which bash,
    zsh, ksh and POSIX's shell of 2024 read: printed as it is, it would be escaped, and another
    text."""
    if all(map(str.isprintable, text)):
        return shlex.quote(text)
    return "$'" + "".join(map(_spelled, text)) + "'"


def words(texts: Iterable[str]) -> str:
    """The texts as words with blanks between them."""
    return " ".join(map(word, texts))


def _spelled(character: str) -> str:
    if character in ("\\", "'"):
        return "\\" + character
    if character.isprintable():
        return character
    # Three octal digits: a hexadecimal escape would take the digits that follow for its own.
    return "".join(f"\\{byte:03o}" for byte in character.encode("utf-8", "surrogateescape"))
