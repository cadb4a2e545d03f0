"""The restore drill on a real PostgreSQL that is archived and written to meanwhile, by the stage's
own image: it passes, and it fails where the backups do not hold what the database does."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import docker
import pytest
from docker.models.containers import Container
from docker.types import Mount

from infra import backup, credentials, drill, rendering, roles
from infra.errors import StageError
from infra.execution import execute
from infra.files import archive
from infra.images import Builder
from infra.names import Names
from infra.scram import verifier
from infra.servers import data_directory
from infra.settings import read
from tests.deployment.database import PASSWORD, SOCKETS, TEMPORARY, query, serving
from tests.deployment.engine import client_or_skip, output, running, unique
from tests.servers import MAJOR

pytestmark = [
    pytest.mark.docker,
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("docker"),
]

NAMES = Names("radcase", "test")
BACKUP_PASSWORD = "backupPassword0123456789"
CIPHER = "cipherPassword0123456789"
LIMIT_SECONDS = 240
SETTINGS = read(
    {"source": "a.db", "postgresVersion": MAJOR, "backup": True, "backupDrillHours": 24}, "test"
)
ODD = '"odd %s"."its ""so"'
SCHEMA = f"""
    CREATE TABLE notes (r int PRIMARY KEY, words text, at timestamptz, raw bytea, x float8);
    INSERT INTO notes SELECT i, repeat(md5(i::text), 400), now(), decode(md5(i::text), 'hex'),
        i / 7.0 FROM generate_series(1, 3000) i;
    CREATE SCHEMA "odd %s";
    CREATE TABLE {ODD} (one int);
    INSERT INTO {ODD} VALUES (1), (NULL);
    CREATE TABLE empty (i int);
    CREATE UNLOGGED TABLE forgotten AS SELECT 1 AS i;
    CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM notes;
    CREATE TABLE busy (i bigserial PRIMARY KEY, words text);
    ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
    ALTER DATABASE radcase SET datestyle = 'German';
    ALTER DATABASE radcase SET bytea_output = escape;
"""


@dataclass(frozen=True)
class Rig:
    """A PostgreSQL with its backups, and the drill's container, as a stage has them."""

    client: docker.DockerClient
    image: str
    postgres: Container
    backups: Container
    drill: Container

    def sql(self, statement: str) -> str:
        return query(self.postgres, statement, "radcase")

    def record(self) -> dict[str, Any]:
        return drill.record(self.drill)


def _files(directory: str, data: str) -> dict[str, str]:
    servers = [backup.Server(data, backup.SOCKETS)]
    return {
        "pgbackrest.conf": backup.configuration(
            SETTINGS, NAMES, "test", servers, directory=directory, cipher=CIPHER
        )
    }


@contextmanager
def _beside(
    client: docker.DockerClient,
    image: str,
    volumes: dict[str, str],
    files: dict[str, str],
    **more: Any,
) -> Iterator[Container]:
    """A container of the backups' image, with files where pgBackRest looks for them."""
    with running(
        client,
        image,
        files={backup.CONFIG: archive(files, backup.USER)},
        environment={"PGPASSFILE": f"{backup.CONFIG}/pgpass"},
        user=backup.USER,
        read_only=True,
        cap_drop=["ALL"],
        mounts=[
            *(Mount(path, volume, type="volume") for path, volume in volumes.items()),
            Mount(backup.CONFIG, None, type="volume"),
        ],
        tmpfs={TEMPORARY: "mode=1777"},
        **more,
    ) as container:
        yield container


@contextmanager
def _volumes(client: docker.DockerClient, *paths: str) -> Iterator[dict[str, str]]:
    made = {path: client.volumes.create(unique("test")) for path in paths}
    try:
        yield {path: str(volume.name) for path, volume in made.items()}
    finally:
        for volume in made.values():
            volume.remove(force=True)


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    client = client_or_skip()
    said: list[str] = []
    image = Builder(client, "auto", said.append).images(MAJOR, backup=True).postgres
    mount, data = data_directory(MAJOR)
    with _volumes(client, mount, SOCKETS, backup.REPOSITORY, drill.HOME) as volumes:
        shared = {path: volumes[path] for path in (mount, SOCKETS, backup.REPOSITORY)}
        with serving(
            client,
            image,
            SETTINGS,
            configured=tuple(backup.archiving()),
            files=_files(rendering.POSTGRES_CONFIG, data),
            volumes=dict(shared),
        ) as postgres:
            words = {
                name: verifier(BACKUP_PASSWORD, b"0123456789abcdef") for name in credentials.EVERY
            }
            status, told = roles.psql(postgres, roles.statements(NAMES, words, MAJOR))
            assert status == 0, told
            query(postgres, SCHEMA, "radcase")
            with (
                _beside(
                    client,
                    image,
                    shared,
                    _files(backup.CONFIG, data) | {"pgpass": f"*:*:*:*:{BACKUP_PASSWORD}\n"},
                    entrypoint=["python3", backup.SCHEDULER],
                    command=["--full-hours=24", "--differential-hours=24"],
                ) as backups,
                _beside(
                    client,
                    image,
                    {path: volumes[path] for path in (SOCKETS, backup.REPOSITORY, drill.HOME)},
                    _files(backup.CONFIG, f"{drill.HOME}/data")
                    | {
                        "pgpass": f"*:*:*:*:{PASSWORD}\n",
                        "server.conf": rendering.postgresql_conf(SETTINGS, "test"),
                        "server_hba.conf": drill.HBA,
                    },
                    entrypoint=["python3", drill.PROGRAM],
                    command=["--hours=24", "--database=radcase", "--port=9856"],
                    mem_limit=drill.MEMORY,
                ) as drilled,
            ):
                there = ["test", "-e", f"{drill.HOME}/record.json"]
                until(
                    lambda: execute(drilled, there).exit_code == 0,
                    lambda: drilled.logs().decode(),
                )
                yield Rig(client, image, postgres, backups, drilled)


def until(condition: Callable[[], bool], what: Callable[[], str]) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.2)


def metrics(rig: Rig) -> dict[str, float]:
    program = (
        "import urllib.request as u; "
        "print(u.urlopen('http://127.0.0.1:9856/metrics').read().decode())"
    )
    said = output(execute(rig.drill, ["python3", "-c", program]))
    lines = [line.split() for line in said.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, value in lines}


@contextmanager
def writing(rig: Rig) -> Iterator[None]:
    """Rows that are added, changed and deleted as long as this lasts."""
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            rig.sql(
                "INSERT INTO busy (words) SELECT md5(i::text) FROM generate_series(1, 20) i; "
                "UPDATE busy SET words = 'changed' WHERE i % 7 = 0; "
                "DELETE FROM busy WHERE i % 11 = 0; "
                "UPDATE notes SET x = x + 1 WHERE r % 100 = 0"
            )

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        stop.set()
        writer.join()


def test_the_first_one_comes_with_the_first_backup(rig: Rig) -> None:
    """By itself, while the database is written to; the rows are compared, to the last commit."""
    with writing(rig):
        until(lambda: rig.record()["last"] is not None, lambda: rig.drill.logs().decode())
    last = rig.record()["last"]
    assert last["failure"] == ""
    assert last["compared"]
    assert last["rewritten"] == []
    # Not the unlogged one, which no backup has.
    assert last["tables"] == 5
    assert last["rows"] > 3000
    found = metrics(rig)
    assert found["drill_last_success"] == 1
    assert found["drill_last_success_timestamp_seconds"] == last["started"]
    assert found["drill_rows"] == last["rows"]
    # Nothing of it is left, and nothing holds the log back.
    assert output(execute(rig.drill, ["ls", drill.HOME])).split() == ["record.json", "server.log"]
    assert rig.sql("SELECT count(*) FROM pg_replication_slots") == "0"
    for line in rig.drill.logs().decode().splitlines():
        assert json.loads(line).keys() >= {"time", "message"}


def test_it_is_done_at_once_where_it_is_asked_for(
    rig: Rig, capsys: pytest.CaptureFixture[str]
) -> None:
    with writing(rig):
        line = drill.now(rig.drill)
    assert re.match(r"passed \d+ minutes? ago: 5 tables, ", line), line
    assert "restoring the backup" in capsys.readouterr().out


def test_a_table_that_is_emptied_meanwhile_does_not_fail_it(rig: Rig) -> None:
    """TRUNCATE leaves nothing for the snapshot: no difference is made of that."""
    stop = threading.Event()

    def truncate() -> None:
        while not stop.is_set():
            rig.sql("TRUNCATE empty; INSERT INTO empty VALUES (1)")

    worker = threading.Thread(target=truncate)
    worker.start()
    try:
        drill.now(rig.drill)
    finally:
        stop.set()
        worker.join()
    assert set(rig.record()["last"]["rewritten"]) <= {"public.empty"}


def test_a_row_that_the_backups_lack_fails_it(rig: Rig) -> None:
    """It was written past the log, as by a damaged archive: no checksum finds that."""
    rig.sql("CREATE TABLE changed AS SELECT 1 AS i")
    persistence = (
        "SET allow_system_table_mods = on; "
        "UPDATE pg_class SET relpersistence = '{}' WHERE oid = 'changed'::regclass"
    )
    rig.sql(persistence.format("u"))
    rig.sql("INSERT INTO changed VALUES (2)")
    rig.sql(persistence.format("p"))
    with pytest.raises(StageError, match=r"differ: public.changed \(rows: 1 for 2\)"):
        drill.now(rig.drill)
    found, last = metrics(rig), rig.record()["last"]
    assert found["drill_last_success"] == 0
    assert found["drill_last_success_timestamp_seconds"] < last["started"]
    said = drill.told(rig.record(), time.time())
    assert re.match(r"FAILED \d+ minutes? ago: the restored rows differ: ", said), said
    rig.sql("DROP TABLE changed")
    drill.now(rig.drill)


def test_a_repository_that_was_damaged_fails_it(rig: Rig) -> None:
    damage = (
        "set -e; f=$(find /var/lib/pgbackrest/backup -type f -name '*.zst' -printf '%s %p\\n' "
        "| sort -n | tail -1 | cut -d' ' -f2); "
        "printf damaged | dd of=$f bs=1 seek=50000 conv=notrunc"
    )
    done = execute(rig.backups, ["bash", "-c", damage])
    assert done.exit_code == 0, output(done)
    with pytest.raises(StageError, match="pgBackRest could not restore"):
        drill.now(rig.drill)
    assert output(execute(rig.drill, ["ls", drill.HOME])).split() == [
        "record.json",
        "request",
        "server.log",
    ]
