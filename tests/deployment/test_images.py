"""The images' contracts, on real containers: what a stage relies on, pulled or built."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator

import docker
import pytest
from docker.models.containers import Container

from infra import rendering
from infra.execution import execute
from infra.files import archive
from infra.images import PREFIX, Builder, Images
from infra.names import Names
from infra.scram import verifier
from infra.servers import data_directory
from infra.settings import Settings, read
from tests.deployment.database import HEALTH, PASSWORD, TEMPORARY, query, serving
from tests.deployment.engine import client_or_skip, healthy, host_of, output, running

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker")]

POOLER_PASSWORD = "poolerPassword0123456789"
NAMES = Names("radcase", "test")


@pytest.fixture(scope="module")
def client() -> docker.DockerClient:
    return client_or_skip()


@pytest.fixture(scope="module")
def images(client: docker.DockerClient) -> Images:
    said: list[str] = []
    return Builder(client, "auto", said.append).images(14)


@pytest.fixture(scope="module")
def settings() -> Settings:
    raw = {"source": "a.db", "postgresVersion": 14, "postgresqlSettings": {"work_mem": "8MB"}}
    return read(raw, "test")


@pytest.fixture(scope="module")
def postgres(
    client: docker.DockerClient, images: Images, settings: Settings
) -> Iterator[Container]:
    with serving(client, images.postgres, settings) as container:
        yield container


def test_postgres_runs_as_its_own_user_on_a_read_only_file_system(postgres: Container) -> None:
    host = host_of(postgres)
    assert host.user("postgres").uid == 999
    assert "Uid:\t999\t999" in host.file("/proc/1/status").content_string
    assert host.run("touch /usr/lib/x").failed
    assert query(postgres, "SHOW server_version").startswith("14.")
    assert query(postgres, "SHOW data_checksums") == "on"


def test_the_rendered_configuration_is_in_effect(postgres: Container, settings: Settings) -> None:
    from infra import tuning

    wrong = query(postgres, "SELECT count(*) FROM pg_file_settings WHERE error IS NOT NULL")
    assert wrong == "0"
    for value in tuning.compute(rendering.host_of(settings), settings.postgresql_settings):
        same = query(
            postgres,
            f"SELECT sourcefile = '/etc/postgresql/postgresql.conf' FROM pg_settings "
            f"WHERE lower(name) = lower('{value.name}')",
        )
        assert same == "t", value.name
    assert query(postgres, "SHOW work_mem") == "8MB"
    assert query(postgres, "SHOW shared_buffers") == "256MB"


@pytest.mark.slow
@pytest.mark.parametrize("version", [15, 16, 17, 18])
def test_every_version_takes_its_rendered_configuration(
    client: docker.DockerClient, version: int
) -> None:
    said: list[str] = []
    image = Builder(client, "auto", said.append).images(version).postgres
    wanted = read({"source": "a.db", "postgresVersion": version}, "test")
    with serving(client, image, wanted) as container:
        assert query(container, "SHOW server_version").startswith(f"{version}.")
        wrong = query(container, "SELECT count(*) FROM pg_file_settings WHERE error IS NOT NULL")
        assert wrong == "0"
        assert query(container, "SHOW shared_buffers") == "256MB"
        host_of(container).run_expect([0], f"test -d {data_directory(version)[1]}")


def test_every_way_in_asks_for_a_scram_password(postgres: Container) -> None:
    methods = query(postgres, "SELECT DISTINCT auth_method FROM pg_hba_file_rules")
    assert set(methods.split()) == {"scram-sha-256", "reject"}
    assert query(postgres, "SELECT count(*) FROM pg_hba_file_rules WHERE error IS NOT NULL") == "0"
    host = host_of(postgres)
    for way in ("-h /var/run/postgresql", "-h 127.0.0.1"):
        tried = host.run(f"PGPASSWORD=wrong psql {way} -U postgres -c 'SELECT 1'")
        assert tried.failed, way
    with_password = host.run(
        'PGPASSWORD="$(cat /etc/postgresql/superuser-password)" '
        "psql -h 127.0.0.1 -U postgres -c 'SELECT 1'"
    )
    assert "reject" in with_password.stderr, "the superuser comes in through the socket alone"


def test_the_strategys_extensions_are_there(postgres: Container) -> None:
    for name in ("uuid-ossp", "pgcrypto", "citext", "pg_stat_statements"):
        query(postgres, f'CREATE EXTENSION IF NOT EXISTS "{name}"')
    assert len(query(postgres, "SELECT uuid_generate_v4()")) == 36


def test_data_and_settings_outlive_a_restart(postgres: Container) -> None:
    query(postgres, "CREATE TABLE IF NOT EXISTS kept AS SELECT 42 AS answer")
    postgres.restart(timeout=30)
    healthy(postgres)
    assert query(postgres, "SELECT answer FROM kept") == "42"


def test_an_empty_password_is_refused(client: docker.DockerClient, images: Images) -> None:
    with running(client, images.postgres) as container:
        assert container.wait(timeout=60)["StatusCode"] != 0
        assert b"password" in container.logs().lower()


def test_scripts_of_the_first_start_are_run(client: docker.DockerClient, images: Images) -> None:
    script = {"10-made.sql": "CREATE TABLE made AS SELECT 1 AS one;"}
    with running(
        client,
        images.postgres,
        files={
            "/docker-entrypoint-initdb.d": archive(script, "999:999"),
            "/var/lib/postgresql": archive({"password": PASSWORD}, "999:999"),
        },
        environment={
            "POSTGRES_PASSWORD_FILE": "/var/lib/postgresql/password",
            "POSTGRES_DB": "app",
        },
        healthcheck={"test": ["CMD", "pg_isready", "-q", "-h", "127.0.0.1"], **HEALTH},
    ) as container:
        healthy(container)
        asked = execute(
            container,
            [
                *("psql", "-qAt", "-h", "/var/run/postgresql", "-U", "postgres", "-d", "app"),
                *("-c", "SELECT one FROM made"),
            ],
            environment={"PGPASSWORD": PASSWORD},
        )
        assert output(asked).strip() == "1"


def test_a_first_start_that_was_cut_off_starts_over(
    client: docker.DockerClient, images: Images
) -> None:
    if not any(PREFIX in tag for tag in client.images.get(images.postgres).tags):
        pytest.skip("the official image's own entry point does not start over")
    left = {".pgdata.initialising": "", "pgdata/PG_VERSION": "14\n", "pgdata/half": "x"}
    with running(
        client,
        images.postgres,
        files={
            "/var/lib/postgresql/data": archive(left, "999:999"),
            "/var/lib/postgresql": archive({"password": PASSWORD}, "999:999"),
        },
        environment={
            "PGDATA": "/var/lib/postgresql/data/pgdata",
            "POSTGRES_PASSWORD_FILE": "/var/lib/postgresql/password",
        },
        healthcheck={"test": ["CMD", "pg_isready", "-q", "-h", "127.0.0.1"], **HEALTH},
    ) as container:
        healthy(container)
        kept = host_of(container).file("/var/lib/postgresql/data")
        assert ".pgdata.initialising" not in kept.listdir()
        assert "half" not in host_of(container).file("/var/lib/postgresql/data/pgdata").listdir()


@pytest.fixture(scope="module")
def pooler(client: docker.DockerClient, images: Images, settings: Settings) -> Iterator[Container]:
    """PgBouncer as a stage runs it, before any switch."""
    files = {
        "pgbouncer.ini": rendering.pgbouncer_ini(settings, NAMES, "test"),
        "userlist.txt": rendering.userlist(
            [
                ("pooler", "unused0"),
                (NAMES.pooler_admin, verifier(POOLER_PASSWORD, b"0123456789abcdef")),
            ]
        ),
    }
    with running(
        client,
        images.pooler,
        files={"/etc/pgbouncer": archive(files, "998:998")},
        user="998:998",
        read_only=True,
        cap_drop=["ALL"],
        tmpfs={TEMPORARY: "mode=1777"},
        mounts=[
            docker.types.Mount("/etc/pgbouncer", None, type="volume"),
            docker.types.Mount(rendering.ALIAS_DIRECTORY, None, type="volume"),
        ],
        healthcheck={
            "test": [
                *("CMD", "pg_isready", "-q", "-h", "127.0.0.1", "-p", "6432"),
                *("-d", "pgbouncer", "-U", NAMES.pooler_admin),
            ],
            **HEALTH,
        },
    ) as container:
        yield healthy(container)


def console(container: Container, command: str) -> list[list[str]]:
    done = execute(
        container,
        [
            *("psql", "-qAt", "-h", "127.0.0.1", "-p", "6432", "-U", NAMES.pooler_admin),
            *("pgbouncer", "-c", command),
        ],
        environment={"PGPASSWORD": POOLER_PASSWORD},
    )
    assert done.exit_code == 0, output(done)
    return [line.split("|") for line in output(done).splitlines()]


def test_pgbouncer_knows_prepared_statements(pooler: Container) -> None:
    ((version,),) = console(pooler, "SHOW VERSION")
    major, minor = (int(part) for part in version.split()[1].split(".")[:2])
    assert (major, minor) >= (1, 21)


def test_pgbouncers_rendered_configuration_is_in_effect(pooler: Container) -> None:
    shown = {row[0]: row[1] for row in console(pooler, "SHOW CONFIG")}
    assert (
        shown.items()
        >= {
            "pool_mode": "transaction",
            "default_pool_size": "20",
            "min_pool_size": "5",
            "server_idle_timeout": "30",
            "server_connect_timeout": "2",
            "server_login_retry": "0.2",
            "max_prepared_statements": "200",
            "auth_type": "scram-sha-256",
            "query_wait_timeout": "120",
        }.items()
    )


def test_the_alias_admits_nobody_before_the_switch_nor_after_a_restart(pooler: Container) -> None:
    for _ in range(2):
        names = {row[0] for row in console(pooler, "SHOW DATABASES")}
        assert names == {"pgbouncer", NAMES.pooler_database}
        pooler.restart(timeout=10)
        healthy(pooler)


def test_the_alias_file_is_one_that_any_user_can_replace(pooler: Container) -> None:
    directory = host_of(pooler).file(rendering.ALIAS_DIRECTORY)
    assert directory.mode == 0o777
    assert host_of(pooler).file(f"{rendering.ALIAS_DIRECTORY}/alias.ini").size == 0


def test_the_job_runs_in_its_image_as_any_user(client: docker.DockerClient, images: Images) -> None:
    with running(
        client,
        images.job,
        command=["version"],
        user="12345:12345",
        read_only=True,
        cap_drop=["ALL"],
        tmpfs={TEMPORARY: "mode=1777"},
    ) as container:
        assert container.wait(timeout=60)["StatusCode"] == 0, container.logs().decode()


def test_the_jobs_image_holds_what_the_lock_file_says(
    client: docker.DockerClient, images: Images
) -> None:
    with running(client, images.job, entrypoint=["sleep", "60"]) as container:
        stream, _ = container.get_archive("/opt/migration/packages")
        with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as tar:
            names = {name.partition("/")[2] for name in tar.getnames()}
    assert any(name.startswith("apsw-") for name in names)
    assert any(name.startswith("psycopg_binary-") for name in names)
