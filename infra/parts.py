"""What one stage is declared from: all of it checked, found or made before."""

from __future__ import annotations

from dataclasses import dataclass

from infra.gate import EngineSocket
from infra.images import Images
from infra.names import Names
from infra.settings import Settings
from infra.stage_paths import Paths


@dataclass(frozen=True)
class Found:
    """What the engine has that the stage is made with."""

    socket: EngineSocket | None = None
    """The engine's own, for a gate that restarts the application."""
    backups: bool = False
    """Whether there is a volume of backups."""
    logical: bool = True
    """Whether PostgreSQL's log is for logical replication too; not where a server runs without."""


@dataclass(frozen=True)
class Parts:
    """The settings, and what follows from them."""

    settings: Settings
    names: Names
    images: Images
    where: Paths
    user: str
    """``uid:gid`` of the source's owner, whom the job and the application run as."""
    found: Found = Found()

    @property
    def stage(self) -> str:
        return self.names.stack

    @property
    def binds(self) -> tuple[str, ...]:
        """The directories of the host that the job and the application have."""
        ours = {str(self.where.state)}
        source = {str(self.where.source.parent)}
        return tuple(sorted(ours if self.settings.settled else ours | source))

    @property
    def keeps_backups(self) -> bool:
        """Whether backups that were taken are kept, although none are taken any more."""
        wanted = self.settings.backup or self.settings.delete_backups
        return self.found.backups and not wanted
