"""What goes wrong is one clear error, with the application on SQLite and its source unchanged."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker.errors import DockerException

from infra.execution import execute
from migration_job.demo.radcase import make_radcase
from tests.deployment.engine import client_or_skip, output
from tests.deployment.workshop import Result, Workshop, require_pulumi

pytestmark = [
    pytest.mark.pulumi,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("docker"),
]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workshop]:
    require_pulumi()
    client = client_or_skip()
    directory = tmp_path_factory.mktemp("stage")
    source = directory / "data" / "radcase.db"
    source.parent.mkdir()
    make_radcase(source, rows=2000, seed=11)
    made = Workshop(directory, client, source=str(source), profile="radcase")
    yield made
    made.clear()


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def one_clear_error(done: Result) -> str:
    """The output of an `up` that failed as it should: no stack of anybody's."""
    assert done.failed
    assert "Traceback" not in done.output, done.output
    return done.output


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("poolMax", 0, "poolMax: input should be greater than or equal to 1"),
        ("poolMaxx", 20, "did you mean poolMax?"),
        ("source", "/nowhere/at/all.db", "expected the SQLite file /nowhere/at/all.db"),
        ("dockerHost", "tcp://127.0.0.1:1", "expected a Docker engine at tcp://127.0.0.1:1"),
        ("profile", "/nowhere/profile.yaml", "expected the profile /nowhere/profile.yaml"),
        ("application", "x' OR 1", "expected a lower-case letter"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_is_created(
    workshop: Workshop, setting: str, value: object, words: str
) -> None:
    kept = dict(workshop.settings)
    workshop.set(**{setting: value})
    try:
        done = workshop.up()
        assert words in one_clear_error(done)
        assert done.printed.count(words) == 1
    finally:
        workshop.settings = kept
        workshop.set()
    assert workshop.left() == []


def test_a_port_in_use_is_named(workshop: Workshop) -> None:
    port = int(str(workshop.settings["poolerPort"]))
    with socket.create_server(("127.0.0.1", port)):
        words = one_clear_error(workshop.up())
    assert f"expected port {port} to be free" in words
    assert "poolerPort" in words
    assert workshop.left() == []


def test_a_file_that_is_no_database_is_refused(workshop: Workshop, tmp_path: Path) -> None:
    kept = dict(workshop.settings)
    wrong = tmp_path / "notes.db"
    wrong.write_text("these are notes")
    workshop.set(source=str(wrong))
    try:
        assert "found no SQLite database in it" in one_clear_error(workshop.up())
    finally:
        workshop.settings = kept
        workshop.set()


def test_a_damaged_source_stops_the_stage_before_the_switch(workshop: Workshop) -> None:
    source = Path(str(workshop.settings["source"]))
    whole = source.read_bytes()
    damaged = bytearray(whole)
    middle = len(damaged) // 2 // 4096 * 4096
    damaged[middle : middle + 8192] = b"\xff" * 8192
    source.write_bytes(damaged)
    before = digest(source)
    try:
        done = workshop.up()
        words = one_clear_error(done)
        assert digest(source) == before
    finally:
        source.write_bytes(whole)
    for sentence in ("the source is damaged", "the migration ended with status"):
        assert done.printed.count(sentence) == 1, done.printed
    assert "the migration ended with status" in words
    assert "served by SQLite as before" in words


def test_a_job_that_is_killed_goes_on_at_the_next_up(workshop: Workshop) -> None:
    connection = (workshop.connection / "database.json").read_bytes()
    over = threading.Event()

    def kill() -> None:
        while not over.is_set():
            with contextlib.suppress(DockerException):
                workshop.client.containers.get(workshop.names.job).kill()
                return

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        words = one_clear_error(workshop.up())
    finally:
        over.set()
        killer.join()
    assert "the migration ended with status 137" in words
    assert (workshop.connection / "database.json").read_bytes() == connection


def test_data_that_differs_is_never_switched_to(workshop: Workshop) -> None:
    """A trigger of somebody's on the target changes a value on its way in: verification must see
    it, the connection must stay, and once the cause is gone the next `up` goes on."""
    from docker.models.containers import Container

    postgres: Container = workshop.client.containers.get(workshop.names.postgres)

    def run(script: str) -> None:
        done = execute(
            postgres,
            [
                "bash",
                "-c",
                'PGPASSWORD="$(cat /etc/postgresql/superuser-password)" psql -qAt '
                '-v ON_ERROR_STOP=1 -h /var/run/postgresql -U postgres -d radcase <<<"$SQL"',
            ],
            environment={"SQL": script},
        )
        assert done.exit_code == 0, output(done)

    run(
        """
        CREATE SCHEMA sabotage;
        CREATE FUNCTION sabotage.change() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN NEW.title := 'not what it was'; RETURN NEW; END $$;
        CREATE FUNCTION sabotage.plant() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER
        AS $$ BEGIN
            IF to_regclass('public.cases') IS NOT NULL AND NOT EXISTS
                (SELECT FROM pg_trigger WHERE tgname = 'sabotage') THEN
                CREATE TRIGGER sabotage BEFORE INSERT ON public.cases
                    FOR EACH ROW EXECUTE FUNCTION sabotage.change();
            END IF;
        END $$;
        GRANT USAGE ON SCHEMA sabotage TO PUBLIC;
        CREATE EVENT TRIGGER sabotage ON ddl_command_end WHEN TAG IN ('CREATE TABLE')
            EXECUTE FUNCTION sabotage.plant();
        """
    )
    source = Path(str(workshop.settings["source"]))
    before = digest(source)
    connection = (workshop.connection / "database.json").read_bytes()
    words = one_clear_error(workshop.up())
    assert "status 4" in words
    assert (workshop.connection / "database.json").read_bytes() == connection
    assert digest(source) == before

    run("DROP EVENT TRIGGER sabotage; DROP SCHEMA sabotage CASCADE;")
    done = workshop.up()
    assert not done.failed, done.output
    assert done.outputs["phase"] == "switched"


def test_protected_data_is_not_destroyed_and_the_application_stays(workshop: Workshop) -> None:
    workshop.set(protectData=True)
    done = workshop.up()
    assert not done.failed, done.output
    refused = one_clear_error(workshop.destroy())
    assert "protect" in refused
    said = json.loads((workshop.connection / "database.json").read_text())
    assert said["write"]["engine"] == "postgresql"
    assert workshop.client.containers.get(workshop.names.sync).status == "running"
    workshop.set(protectData=False)
    assert not workshop.up().failed


def test_down_leaves_nothing_behind(workshop: Workshop) -> None:
    done = workshop.destroy()
    assert not done.failed, done.output
    assert workshop.left() == []
    shutil.rmtree(workshop.connection.parent)
