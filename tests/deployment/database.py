"""PostgreSQL in a container as a stage runs it, without Pulumi."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import docker
from docker.models.containers import Container
from docker.types import Mount

from infra import rendering
from infra.execution import execute
from infra.files import archive
from infra.servers import data_directory
from infra.settings import Settings
from infra.tuning import Value
from tests.deployment.engine import healthy, output, running

PASSWORD = "superuserPassword0123456789"
TEMPORARY = "/tmp"  # noqa: S108 - the containers' own
SOCKETS = "/var/run/postgresql"
HEALTH = {"interval": 10**9, "timeout": 3 * 10**9, "retries": 60}


@contextmanager
def serving(  # noqa: PLR0913 - a container's parts, named
    client: docker.DockerClient,
    image: str,
    settings: Settings,
    *,
    configured: tuple[Value, ...] = (),
    files: Mapping[str, str] | None = None,
    volumes: Mapping[str, str | None] | None = None,
    archives: Mapping[str, bytes] | None = None,
    **options: Any,
) -> Iterator[Container]:
    """PostgreSQL without root, read-only, with the rendered configuration.

    ``configured`` is added to postgresql.conf, ``files`` beside it; ``volumes`` are mounted by path
    (None for one that goes with the container), beside and instead of the usual ones; ``archives``
    are unpacked into the directories that they are named by.
    """
    beside = {
        "postgresql.conf": rendering.postgresql_conf(settings, "test", configured),
        "pg_hba.conf": rendering.pg_hba_conf(settings, "test"),
        "superuser-password": PASSWORD,
        **(files or {}),
    }
    mount, data = data_directory(settings.postgres_version)
    mounted = {rendering.POSTGRES_CONFIG: None, mount: None, **(volumes or {})}
    sockets = {} if SOCKETS in mounted else {SOCKETS: "uid=999,gid=999,mode=2775"}
    with running(
        client,
        image,
        files={rendering.POSTGRES_CONFIG: archive(beside, "999:999"), **(archives or {})},
        command=["postgres", "-c", f"config_file={rendering.POSTGRES_CONFIG}/postgresql.conf"],
        user="999:999",
        read_only=True,
        cap_drop=["ALL"],
        tmpfs={TEMPORARY: "mode=1777", **sockets},
        mounts=[Mount(path, volume, type="volume") for path, volume in mounted.items()],
        environment={
            "PGDATA": data,
            "POSTGRES_USER": "postgres",
            "POSTGRES_PASSWORD_FILE": f"{rendering.POSTGRES_CONFIG}/superuser-password",
            "POSTGRES_INITDB_ARGS": "--encoding=UTF8 --locale=C.UTF-8 --data-checksums",
        },
        healthcheck={"test": ["CMD", "pg_isready", "-q", "-h", "127.0.0.1"], **HEALTH},
        mem_limit="1g",
        shm_size="256m",
        **options,
    ) as container:
        yield healthy(container)


def query(container: Container, sql: str, database: str = "postgres") -> str:
    """The superuser's answer, through the container's own socket."""
    script = (
        f'PGPASSWORD="$(cat {rendering.POSTGRES_CONFIG}/superuser-password)" psql --no-psqlrc -qAt '
        f'-v ON_ERROR_STOP=1 -h {SOCKETS} -U postgres -d "$DATABASE" -c "$SQL"'
    )
    done = execute(
        container, ["bash", "-c", script], environment={"SQL": sql, "DATABASE": database}
    )
    assert done.exit_code == 0, output(done)
    return output(done).strip()
