"""What one stage is declared from: all of it checked, found or made before."""

from __future__ import annotations

from dataclasses import dataclass, replace

from infra.gate import EngineSocket
from infra.images import Images
from infra.names import Names
from infra.roles import FIRST, LEFT_ALONE, NEWER
from infra.settings import Settings
from infra.stage_paths import Paths


@dataclass(frozen=True)
class Found:
    """What the engine has that the stage is made with."""

    socket: EngineSocket | None = None
    """The engine's own, for a gate that restarts the application."""
    backups: bool = False
    """Whether there is a volume of backups."""
    newer_backups: bool = False
    """The same of the newer PostgreSQL of an upgrade."""
    logical: bool = True
    """Whether PostgreSQL's log is for logical replication too; not where a server runs without."""


def _brought_to(settings: Settings, names: Names, place: int) -> tuple[Settings, Names]:
    """The settings and names of the PostgreSQL that the stage's upgrade of that number, counted
    from 1, has led to or is to lead to; 0 for the very first. Two stand at a time, so that two
    ports are enough: they take turns."""
    if not place:
        return settings, names
    major = (*settings.upgrades_settled, settings.upgrade_to or 0)[place - 1]
    port = settings.upgrade_port if place % 2 else settings.postgres_port
    changes = {"postgres_version": major, "postgres_port": port}
    return settings.model_copy(update=changes), names.of_upgrade(major)


def upgraded(settings: Settings, names: Names) -> tuple[Settings, Names]:
    """The settings and names of the newer PostgreSQL of the two of an upgrade."""
    return _brought_to(settings, names, len(settings.upgrades_settled) + 1)


def older(settings: Settings, names: Names) -> tuple[Settings, Names]:
    """Those of the PostgreSQL that an upgrade begins from: the only one where there is none."""
    return _brought_to(settings, names, len(settings.upgrades_settled))


def passed(settings: Settings, names: Names) -> list[Names]:
    """Of each PostgreSQL that an upgrade before this one has left for good."""
    return [_brought_to(settings, names, n)[1] for n in range(len(settings.upgrades_settled))]


def given_up(settings: Settings, names: Names) -> list[Names]:
    """The same with the one that this upgrade leaves, once it is settled."""
    left = [older(settings, names)[1]] if settings.upgrade_step == "settle" else []
    return [*passed(settings, names), *left]


def standing(settings: Settings, names: Names) -> list[tuple[Settings, Names]]:
    """Those of each PostgreSQL that the stage is to have, the older one first."""
    if settings.external:
        return []
    both = [older(settings, names)]
    if settings.upgrade_to:
        both.append(upgraded(settings, names))
    return both[1:] if settings.upgrade_step == "settle" else both


def serving(settings: Settings, names: Names) -> tuple[Settings, Names]:
    """Those of the PostgreSQL that the application is to be on."""
    moved = settings.upgrade_to and settings.upgrade_step != "back"
    return upgraded(settings, names) if moved else older(settings, names)


def drilled(settings: Settings, names: Names) -> Names:
    """Those of the PostgreSQL whose backups are restored, to see that they can be."""
    return serving(settings, names)[1]


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

    def of_server(self, settings: Settings, names: Names) -> Parts:
        """The same of one PostgreSQL of the stage's, by its settings and names."""
        images, found = self.images, self.found
        if self.settings.upgrade_to and names.beside == self.settings.upgrade_to:
            images = replace(images, postgres=images.newer)
            found = replace(found, logical=True, backups=found.newer_backups)
        return replace(self, settings=settings, names=names, images=images, found=found)

    @property
    def servers(self) -> list[Parts]:
        """Of each PostgreSQL that the stage is to have."""
        return [self.of_server(*of) for of in standing(self.settings, self.names)]

    @property
    def role_in_upgrade(self) -> str:
        """As :attr:`infra.roles.Server.upgrade` has it."""
        if not self.settings.upgrade_to:
            return ""
        if self.names.beside != self.settings.upgrade_to:
            return FIRST
        return LEFT_ALONE if self.settings.upgrade_step == "settle" else NEWER

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
