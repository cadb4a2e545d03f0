"""The one kind of error that an operator meets from the provisioning side."""

from __future__ import annotations


class StageError(Exception):
    """An end that the program foresees: what was expected and found, and what to do next.

    Never holds a secret; the message is printed by Pulumi as it is.
    """

    def __init__(self, message: str, *, advice: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.message}\n{self.advice}" if self.advice else self.message
