"""The connection's directory: whole versions, replaced at once, secret, and nobody else's."""

from __future__ import annotations

import json
import os
import stat
import threading
from pathlib import Path

import pytest

from migration_job.connection import (
    Pool,
    PostgresSide,
    SqliteSide,
    read_connection,
    render_env,
    write_connection,
)
from migration_job.errors import InputError, OperationError
from migration_job.protocol.settings import read_connect_to

HERE = SqliteSide(path="/data/app.db")
THERE = PostgresSide(
    host="pooler", port=6432, database="app", user="app", password="s3cret", pool=Pool(max=20)
)


def env(directory: Path) -> dict[str, str]:
    lines = (directory / "database.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


def test_the_strategy_s_names_and_both_sides(tmp_path: Path) -> None:
    write_connection(tmp_path / "c", THERE, THERE)
    told = env(tmp_path / "c")
    assert told["DB_ENGINE"] == "postgresql"
    assert (told["DB_HOST"], told["DB_PORT"], told["DB_NAME"]) == ("pooler", "6432", "app")
    assert (told["DB_USER"], told["DB_PASSWORD"]) == ("app", "s3cret")
    assert (told["DB_POOL_MAX"], told["DB_POOL_MIN"]) == ("20", "5")
    assert told["DB_POOL_IDLE_TIMEOUT"] == "30000"
    assert told["DB_READ_HOST"] == "pooler"
    write_connection(tmp_path / "c", HERE, THERE)
    told = env(tmp_path / "c")
    assert (told["DB_ENGINE"], told["DB_PATH"]) == ("sqlite", "/data/app.db")
    assert told["DB_READ_ENGINE"] == "postgresql"
    assert "DB_HOST" not in told


def test_files_are_secret_and_what_they_say_comes_back(tmp_path: Path) -> None:
    written = write_connection(tmp_path, HERE, THERE)
    assert read_connection(tmp_path) == written
    for name in ("database.env", "database.json"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    told = json.loads((tmp_path / "database.json").read_text())
    assert told["read"]["password"] == "s3cret"
    assert "s3cret" not in repr(written)


def test_the_same_again_changes_nothing(tmp_path: Path) -> None:
    first = write_connection(tmp_path, HERE, HERE)
    again = write_connection(tmp_path, HERE, HERE)
    assert first == again
    assert write_connection(tmp_path, THERE, THERE).generation == first.generation + 1


def test_old_versions_with_their_passwords_go(tmp_path: Path) -> None:
    for number in range(6):
        write_connection(
            tmp_path, HERE, PostgresSide.model_validate({**THERE.model_dump(), "port": number})
        )
    assert len(list((tmp_path / "versions").iterdir())) == 2


def test_a_reader_never_sees_two_versions_mixed(tmp_path: Path) -> None:
    """Nor none, as long as the present version and the one before it are kept: so no reading may
    take longer than one change. The readers say when each has ended what it had begun."""
    write_connection(tmp_path, HERE, HERE)
    stop = threading.Event()
    broken: list[object] = []
    ended = [threading.Semaphore(0) for _ in range(3)]

    def read(done: threading.Semaphore) -> None:
        while not stop.is_set():
            try:
                told = json.loads((tmp_path / "database.json").read_text())
                if told["write"]["engine"] != told["read"]["engine"]:
                    broken.append(told)
            except Exception as error:
                broken.append(error)
            done.release()

    readers = [threading.Thread(target=read, args=(done,)) for done in ended]
    for reader in readers:
        reader.start()
    try:
        sides: list[PostgresSide | SqliteSide] = [THERE, HERE]
        for side in sides * 40:
            write_connection(tmp_path, side, side)
            for done in ended:
                while done.acquire(blocking=False):
                    pass  # a reading that had ended before
                assert done.acquire(timeout=30), "a reader has stopped"
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert broken == []


def test_a_version_that_a_death_left_half_written_is_no_obstacle(tmp_path: Path) -> None:
    write_connection(tmp_path, HERE, HERE)
    half = tmp_path / "versions" / "00000002"
    half.mkdir()
    (half / "database.json").write_text("{")
    assert write_connection(tmp_path, THERE, THERE).write == THERE
    told = read_connection(tmp_path)
    assert told is not None
    assert told.write == THERE


def test_somebody_else_s_files_are_refused_and_left(tmp_path: Path) -> None:
    (tmp_path / "database.env").write_text("DB_HOST=mine\n")
    with pytest.raises(InputError, match="found another program's file"):
        write_connection(tmp_path, HERE, HERE)
    assert (tmp_path / "database.env").read_text() == "DB_HOST=mine\n"
    (tmp_path / "database.json").write_text('{"password": "hunter2"}')
    with pytest.raises(OperationError) as caught:
        read_connection(tmp_path)
    assert "hunter2" not in str(caught.value)


def test_values_that_an_env_file_cannot_hold_are_refused(tmp_path: Path) -> None:
    spaced = write_connection(tmp_path, SqliteSide(path="/with space/a.db"), HERE)
    assert "DB_PATH='/with space/a.db'" in render_env(spaced)
    with pytest.raises(InputError, match="DB_PATH"):
        write_connection(tmp_path, SqliteSide(path="/a\nDB_HOST=evil"), HERE)
    assert read_connection(tmp_path) == spaced


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_files_are_the_application_s(tmp_path: Path) -> None:
    write_connection(tmp_path, HERE, HERE, owner=(1234, 4321))
    found = (tmp_path / "database.json").stat()
    assert (found.st_uid, found.st_gid) == (1234, 4321)


def test_a_pool_below_nothing_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "connect.json"
    told = {"host": "h", "database": "d", "user": "u", "authentication": "peer"}
    for pool in ({"max": -1}, {"min": -1}, {"idle_timeout": -1}):
        file.write_text(json.dumps({**told, "pool": pool}))
        with pytest.raises(InputError, match=f"pool.{next(iter(pool))}"):
            read_connect_to(file)
