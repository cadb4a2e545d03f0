"""Backups by pgBackRest: PostgreSQL archives its log, and a container beside it takes the copies.

Both run the same image and share the data, the socket and the repository, so that a backup needs
neither a network connection nor the superuser. The repository is encrypted with the stage's key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi

from infra import rendering
from infra.containers import MEBIBYTE, Health, Service
from infra.images import Images
from infra.monitoring import BACKUP_METRICS_PORT
from infra.names import Names
from infra.settings import Settings
from infra.tuning import Value

USER = "999:999"
SOCKETS = "/var/run/postgresql"
REPOSITORY = "/var/lib/pgbackrest"
CONFIG = "/etc/pgbackrest"
STANZA = "main"
STORE_AUTHORITY = "store-ca.crt"
"""Beside pgbackrest.conf: whom pgBackRest trusts as the S3-compatible store."""
SCHEDULER = "/usr/local/lib/backup/scheduler.py"
ARCHIVE_SECONDS = 60
"""A quiet database archives its unfinished segment this often: what a lost disk may cost."""


def archiving() -> list[Value]:
    """What postgresql.conf says more where the log is archived."""
    config = f"--config={rendering.POSTGRES_CONFIG}/pgbackrest.conf"
    return [
        Value("archive_mode", "on", "pgBackRest keeps the log", "Backups"),
        Value(
            "archive_command",
            f"pgbackrest {config} --stanza={STANZA} archive-push %p",
            "a segment is removed only when the repository has it",
            "Backups",
        ),
        Value(
            "archive_timeout",
            f"{ARCHIVE_SECONDS}s",
            "a quiet database archives too; this bounds what a lost disk costs",
            "Backups",
        ),
    ]


@dataclass(frozen=True)
class Server:
    """A PostgreSQL as pgBackRest finds it in a container."""

    data: str
    """Its data directory, under the path that the server itself has."""
    sockets: str


def configuration(
    settings: Settings,
    names: Names,
    stage: str,
    servers: Sequence[Server],
    *,
    directory: str,
    cipher: str,
) -> str:
    """pgbackrest.conf for a container that has it in ``directory`` and sees these servers: of
    several, the one that leads is backed up."""
    s3 = settings.backup_s3
    if s3 and names.suffix:  # two servers' backups in one place would be taken for one's
        s3 = s3.model_copy(update={"path": f"{s3.path.rstrip('/')}{names.suffix}"})
    return rendering.render(
        "pgbackrest.conf.j2",
        stage=stage,
        s3=s3,
        directory=directory,
        authority_file=STORE_AUTHORITY,
        cipher_pass=cipher,
        retention_full=settings.backup_retention,
        servers=servers,
        user=names.backup_role,
    )


def service(
    settings: Settings,
    names: Names,
    images: Images,
    *,
    files: Mapping[str, pulumi.Input[str]],
    volumes: Mapping[str, pulumi.Input[str]],
    sockets: Sequence[str] = (SOCKETS,),
) -> Service:
    """The container that takes the backups. ``files`` holds ``pgbackrest.conf`` and ``pgpass``;
    ``volumes`` the data, the sockets and the repository by path; ``sockets`` are the directories of
    the servers' sockets, of which one has to answer."""
    return Service(
        name=names.backup,
        host=names.backup_host,
        image=images.postgres,
        user=USER,
        memory=256 * MEBIBYTE,
        pids=64,
        health=Health(
            ["bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{BACKUP_METRICS_PORT}"], start_seconds=30
        ),
        config_directory=CONFIG,
        files=files,
        entrypoint=["python3", SCHEDULER],
        command=[
            f"--full-hours={settings.backup_full_hours}",
            f"--differential-hours={settings.backup_differential_hours}",
            f"--port={BACKUP_METRICS_PORT}",
            *(f"--sockets={directory}" for directory in sockets if directory != SOCKETS),
        ],
        environment={"PGPASSFILE": f"{CONFIG}/pgpass"},
        volumes=volumes,
        temporary={"/tmp": "mode=1777", "/var/log/pgbackrest": "mode=1777"},  # noqa: S108
    )
