"""Whole commands for `status` to name, as a shell takes them: no secret, and a named variable for
what is not known."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from migration_job import shell_words
from migration_job.protocol.refusals import one_way_options

_NAMED = re.compile(
    r"`migration-job (switch|sync|rollback|settle|resume|release|migrate --live|migrate)`"
    r"|`(migrate --live)`"
)

BEHIND_A_POOLER = 'behind PgBouncer also: --pooler "$POOLER" --alias-file "$ALIAS_FILE"'


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchOptions:
    """What the last switch was given beside what all live commands have."""

    policy: Path | None = None
    one_way: tuple[str, ...] = ()
    accept_asynchronous: bool = False
    fence_seconds: str = ""
    """As it was given; '' where it was not."""

    def words(self, more: str = "") -> str:
        """As a shell reads them; ``more`` are further ones, where they are not among them."""
        found = [] if self.policy is None else [f"--policy {_path(self.policy)}"]
        found += [one_way_options(self.one_way)] if self.one_way else []
        found += ["--accept-asynchronous"] if self.accept_asynchronous else []
        if self.fence_seconds and not more.startswith("--fence-seconds"):
            found.append(f"--fence-seconds {self.fence_seconds}")
        if not (more.startswith("--policy") and self.policy is not None):
            found += [more] if more else []
        return " ".join(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known of one migration's options."""

    source: Path
    recalled: str = ""
    """The arguments of the last live command, as a shell takes them; '' where there was none."""
    switch: SwitchOptions = field(default_factory=SwitchOptions)
    target: str = '--target "$TARGET"'
    """How the target is named; '' where the environment names it."""
    connection: Path | None = None
    state: Path | None = None
    schema_name: str | None = None

    def commands(self, what: str, more: str = "") -> Iterator[str]:
        """Each command that is named in ``what``, whole and in its order; ``more`` are options of
        the switch."""
        for match in _NAMED.finditer(what):
            yield from self._whole(match[1] or match[2], more)

    def _whole(self, name: str, more: str) -> Iterator[str]:
        if name == "release":
            yield _command(name, _path(self.source), f"--state {self._state()}")
        elif name.startswith("migrate"):
            live = f"--state {self._state()}" if name.endswith("--live") else ""
            yield _command(name, _path(self.source), '--report "$REPORT"', *self._target(), live)
        else:
            options = self.switch.words(more) if name == "switch" else ""
            yield _command(name, self.recalled or self._composed(), options)
            if not self.recalled:
                yield BEHIND_A_POOLER

    def _composed(self) -> str:
        connection = '"$CONNECTION"' if self.connection is None else _path(self.connection)
        state = "" if self.state is None else f"--state {_path(self.state)}"
        return " ".join(
            word
            for word in (
                _path(self.source),
                *('--report "$REPORT"', f"--connection {connection}"),
                *('--connect-to "$CONNECT_TO"', *self._target(), state),
            )
            if word
        )

    def _target(self) -> tuple[str, str]:
        schema = "" if self.schema_name is None else shell_words.word(self.schema_name)
        return self.target, schema and f"--schema-name {schema}"

    def _state(self) -> str:
        if self.state is not None:
            return _path(self.state)
        return '"$STATE"' if self.connection is None else _path(self.connection / ".state")


def _path(path: Path) -> str:
    return shell_words.word(str(path.absolute()))


def _command(*parts: str) -> str:
    return " ".join(["migration-job", *(part for part in parts if part)])
