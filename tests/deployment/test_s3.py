"""Backups to an S3-compatible store with a certificate of an authority of one's own: archived,
taken, and restored, by the stage's own images."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.models.containers import Container
from docker.types import Mount
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import S3Backend, s3_backends
from werkzeug.serving import ThreadedWSGIServer

from infra import backup, certificates, credentials, rendering, roles
from infra.execution import STDOUT, execute
from infra.files import archive
from infra.images import Builder
from infra.names import Names
from infra.scram import verifier
from infra.servers import data_directory
from infra.settings import Settings, read
from tests.deployment.database import SOCKETS, TEMPORARY, query, serving
from tests.deployment.engine import client_or_skip, output, running, unique

pytestmark = [
    pytest.mark.docker,
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("docker"),
]

NAMES = Names("radcase", "test")
PASSWORD = "backupPassword0123456789"
CIPHER = "cipherPassword0123456789"
STORE = "store"
"""The name that the store's certificate bears, and by which the containers know the host."""
BUCKET = "radcase-backups"
KEY, KEY_SECRET = "AKIDTEST", "secretKeyOfTheStore/0123456789+"
LIMIT_SECONDS = 60


@dataclass(frozen=True)
class Store:
    """A running S3-compatible server, and the file of its authority."""

    host: str
    """The engine's host on its default network: an address that every container reaches."""
    port: int
    authority: Path

    def keys(self) -> list[str]:
        """The names of all that it holds."""
        return sorted(_held().buckets[BUCKET].keys)


def _held() -> S3Backend:
    return s3_backends[DEFAULT_ACCOUNT_ID]["aws"]


class _Server(ThreadedWSGIServer):
    """moto's application, which ends a TLS session as S3 does: by saying so. pgBackRest takes a
    connection that just breaks off for an answer that was cut short."""

    def shutdown_request(self, request: Any) -> None:
        with contextlib.suppress(OSError):
            request.settimeout(5)
            request = request.unwrap()
        super().shutdown_request(request)


@pytest.fixture(scope="module")
def client() -> docker.DockerClient:
    return client_or_skip()


@pytest.fixture(scope="module")
def store(client: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("store")
    bridge = client.networks.get("bridge").attrs["IPAM"]["Config"][0]
    host = str(bridge.get("Gateway") or bridge["Subnet"].rsplit(".", 1)[0] + ".1")
    authority, authority_key = certificates.authority("store")
    certificate, key, _ = certificates.issue(authority, authority_key, [STORE])
    for name, text in {"ca": authority, "crt": certificate, "key": key}.items():
        (folder / name).write_text(text)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "crt", folder / "key")
    server = _Server(host, 0, DomainDispatcherApplication(create_backend_app), ssl_context=context)
    _held().create_bucket(BUCKET, "us-east-1")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield Store(host, server.port, folder / "ca")
    server.shutdown()
    thread.join(10)
    _held().reset()


def settings_of(store: Store) -> Settings:
    return read(
        {
            "source": "a.db",
            "postgresVersion": 14,
            "backup": True,
            "backupS3": {
                "bucket": BUCKET,
                "endpoint": f"{STORE}:{store.port}",
                "key": KEY,
                "keySecret": KEY_SECRET,
                "uriStyle": "path",
                "authority": str(store.authority),
            },
        },
        "test",
    )


@dataclass(frozen=True)
class Rig:
    """What PostgreSQL and the backups' container share, as in a stage."""

    client: docker.DockerClient
    image: str
    settings: Settings
    host: str
    """Where the store is."""
    authority: str
    volumes: dict[str, str | None]

    def files(self, directory: str) -> dict[str, str]:
        _, data = data_directory(self.settings.postgres_version)
        servers = [backup.Server(data, backup.SOCKETS)]
        conf = backup.configuration(
            self.settings, NAMES, "test", servers, directory=directory, cipher=CIPHER
        )
        return {"pgbackrest.conf": conf, backup.STORE_AUTHORITY: self.authority}

    @contextmanager
    def postgres(
        self,
        volumes: dict[str, str | None],
        *,
        archiving: bool,
        archives: dict[str, bytes] | None = None,
    ) -> Iterator[Container]:
        with serving(
            self.client,
            self.image,
            self.settings,
            configured=tuple(backup.archiving()) if archiving else (),
            files=self.files(rendering.POSTGRES_CONFIG),
            volumes=volumes,
            archives=archives,
            extra_hosts={STORE: self.host},
        ) as container:
            yield container

    def run(self, words: list[str], data: str) -> bytes:
        """pgBackRest by itself on a data volume, with the backups' configuration."""
        mount, _ = data_directory(self.settings.postgres_version)
        with running(
            self.client,
            self.image,
            files={backup.CONFIG: archive(self.files(backup.CONFIG), backup.USER)},
            entrypoint=["pgbackrest"],
            command=[f"--stanza={backup.STANZA}", *words],
            user=backup.USER,
            mounts=[
                Mount(mount, data, type="volume"),
                Mount(backup.CONFIG, None, type="volume"),
            ],
            tmpfs={TEMPORARY: "mode=1777"},
            extra_hosts={STORE: self.host},
        ) as container:
            status = container.wait(timeout=LIMIT_SECONDS)["StatusCode"]
            assert status == 0, container.logs().decode()
            return bytes(container.logs())


@pytest.fixture(scope="module")
def rig(client: docker.DockerClient, store: Store) -> Iterator[Rig]:
    said: list[str] = []
    settings = settings_of(store)
    image = Builder(client, "auto", said.append).images(14, backup=True).postgres
    mount, _ = data_directory(settings.postgres_version)
    volumes = {path: client.volumes.create(unique("test")) for path in (mount, SOCKETS)}
    yield Rig(
        client,
        image,
        settings,
        store.host,
        store.authority.read_text(),
        {path: volume.name for path, volume in volumes.items()},
    )
    for volume in volumes.values():
        volume.remove(force=True)


@contextmanager
def scheduler(rig: Rig) -> Iterator[Container]:
    """The backups' container, with the program and the arguments of a stage's."""
    files = rig.files(backup.CONFIG) | {"pgpass": f"*:*:*:*:{PASSWORD}\n"}
    with running(
        rig.client,
        rig.image,
        files={backup.CONFIG: archive(files, backup.USER)},
        entrypoint=["python3", backup.SCHEDULER],
        command=["--full-hours=24", "--differential-hours=1"],
        environment={"PGPASSFILE": f"{backup.CONFIG}/pgpass"},
        user=backup.USER,
        read_only=True,
        cap_drop=["ALL"],
        mounts=[
            *(Mount(path, volume, type="volume") for path, volume in rig.volumes.items()),
            Mount(backup.CONFIG, None, type="volume"),
        ],
        tmpfs={TEMPORARY: "mode=1777"},
        extra_hosts={STORE: rig.host},
    ) as container:
        yield container


def _roles(container: Container) -> None:
    words = {name: verifier(PASSWORD, b"0123456789abcdef") for name in credentials.EVERY}
    status, said = roles.psql(container, roles.statements(NAMES, words, 14))
    assert status == 0, said


def _backed_up(container: Container) -> None:
    """Until there is a full backup in the store."""
    deadline = time.monotonic() + LIMIT_SECONDS
    info = ["pgbackrest", f"--stanza={backup.STANZA}", "info", "--output=json"]
    while True:
        done = execute(container, info)
        found = json.loads(done.on(STDOUT)) if done.exit_code == 0 else []
        if found and any(one["type"] == "full" for one in found[0]["backup"]):
            return
        assert time.monotonic() < deadline, container.logs().decode()
        time.sleep(0.2)


def test_archived_backed_up_and_restored_from_the_store(
    client: docker.DockerClient, store: Store, rig: Rig
) -> None:
    with rig.postgres(rig.volumes, archiving=True) as postgres:
        _roles(postgres)
        with scheduler(rig) as backups:
            _backed_up(backups)
            query(postgres, "CREATE TABLE drill AS SELECT generate_series(1, 1000) AS i")
            moment = query(postgres, "SELECT clock_timestamp()")
            query(postgres, "DROP TABLE drill")
            # It ends when the segment of just now has come into the store.
            done = execute(backups, ["pgbackrest", f"--stanza={backup.STANZA}", "check"])
            assert done.exit_code == 0, output(done)
    keys = store.keys()
    assert any("/archive/main/" in key for key in keys)
    assert any("/backup/main/" in key and "F" in key for key in keys)

    mount, _ = data_directory(rig.settings.postgres_version)
    restored = client.volumes.create(unique("test"))
    try:
        owned = ["chown", backup.USER, mount]
        mounts = [Mount(mount, restored.name, type="volume")]
        client.containers.run(
            rig.image, owned, entrypoint=[], user="0:0", mounts=mounts, remove=True
        )
        words = ["--type=time", f"--target={moment}", "--target-action=promote", "restore"]
        rig.run(words, restored.name)
        beside = {mount: restored.name, backup.CONFIG: None}
        with _restored(rig, beside) as container:
            assert query(container, "SELECT count(*) FROM drill") == "1000"
    finally:
        restored.remove(force=True)


@contextmanager
def _restored(rig: Rig, volumes: dict[str, str | None]) -> Iterator[Container]:
    # restore_command names the configuration where the backups' container has it.
    own = {backup.CONFIG: archive(rig.files(backup.CONFIG), backup.USER)}
    with rig.postgres(volumes, archiving=False, archives=own) as container:
        deadline = time.monotonic() + LIMIT_SECONDS
        while query(container, "SELECT pg_is_in_recovery()") == "t":
            assert time.monotonic() < deadline, container.logs().decode()
            time.sleep(0.1)
        yield container


def test_without_its_authority_the_store_is_not_trusted(rig: Rig) -> None:
    strange, _ = certificates.authority("somebody else")
    other = Rig(rig.client, rig.image, rig.settings, rig.host, strange, rig.volumes)
    mount, _ = data_directory(rig.settings.postgres_version)
    with pytest.raises(AssertionError, match="unable to verify certificate"):
        other.run(["--io-timeout=1", "repo-ls"], str(rig.volumes[mount]))
