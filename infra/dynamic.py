"""What this project's dynamic resources share.

Pulumi runs a dynamic resource's provider in a process of its own, recreated from the state, so a
provider holds nothing: all that it needs is in the resource's properties. Providers are classes of
importable modules, hence the state holds their names and not their code, and a stage that was
made by an older version of this project is taken down by the present one.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from typing import Any

from pulumi.dynamic import (
    CheckResult,
    ConfigureRequest,
    DiffResult,
    ReadResult,
    ResourceProvider,
)

from infra.errors import StageError

Properties = dict[str, Any]

PROVIDER_KEY = "__provider"
"""Where Pulumi keeps the provider's name among a dynamic resource's properties."""


REASON = "the reason is:"
"""The first line of a failure. Pulumi repeats that line, and that line alone, wherever it shows how
far it has come; the sentence itself then stands once, among the diagnostics."""


class _Told(StageError):
    """A StageError on its way to Pulumi's diagnostics."""

    def __str__(self) -> str:
        return f"{REASON}\n{super().__str__()}"


class StageProvider(ResourceProvider):
    """A provider whose inputs are plain properties and whose foreseen errors are sentences."""

    outputs: tuple[str, ...] = ()
    """Properties that the provider adds; everything else is an input."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in ("create", "update", "delete", "diff", "read"):
            if name in vars(cls):
                setattr(cls, name, _telling(vars(cls)[name]))

    def configure(self, _req: ConfigureRequest) -> None:
        logging.getLogger("grpc._server").addFilter(_FORESEEN)

    def check(self, _olds: Any, news: Any) -> CheckResult:
        return CheckResult(news, [])

    def diff(self, _id: str, olds: Any, news: Any) -> DiffResult:
        """An update for any input that differs; never a replacement: that would roll back."""
        return DiffResult(changes=bool(self.changed(olds, news)), replaces=[])

    def read(self, id_: str, props: Any) -> ReadResult:
        """What is there, at a refresh: the state's own word where the resource is :meth:`there`,
        else nothing, and the update makes it again."""
        return ReadResult(id_, props) if self.there(props) else ReadResult(None, {})

    def there(self, _props: Properties) -> bool:
        """Whether what the resource made is still there. Only reads; True where it cannot be told:
        what cannot be reached now is not made twice."""
        return True

    def changed(self, olds: Properties, news: Properties) -> set[str]:
        """The inputs that differ."""
        own = {*self.outputs, PROVIDER_KEY}
        return {key for key in (olds.keys() | news.keys()) - own if olds.get(key) != news.get(key)}


def _telling(step: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(step)
    def told(*words: Any) -> Any:
        try:
            return step(*words)
        except StageError as error:
            raise _Told(error.message, advice=error.advice) from error

    return told


def say(line: str) -> None:
    """One line in Pulumi's output: the engine shows what a provider writes."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


class _Foreseen(logging.Filter):
    """Keeps the stack of a StageError out of Pulumi's output: its sentence is in the diagnostics,
    and an operator whose source is missing has no use for where this project noticed."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], StageError))


_FORESEEN = _Foreseen()
