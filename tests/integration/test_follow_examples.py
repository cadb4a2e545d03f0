"""The examples of following the connection, each run by its own language."""

from __future__ import annotations

import os
import queue
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from migration_job.connection import PostgresSide, SqliteSide, write_connection

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"
LIMIT_SECONDS = 60.0


PROGRAMS = {"follow.py": sys.executable, "follow.mjs": "node", "follow.go": "go"}


def built_by_go(source: Path, folder: Path) -> str:
    """A program of its own: `go run` would leave it running. It takes the standard library alone,
    so nothing is fetched."""
    program = folder / "follow"
    environment = {**os.environ, "GOTOOLCHAIN": "local", "GOPROXY": "off", "GO111MODULE": "off"}
    environment.setdefault("GOCACHE", str(folder / "cache"))
    subprocess.run(
        ["go", "build", "-o", str(program), str(source)], env=environment, check=True, timeout=240
    )
    return str(program)


@pytest.mark.parametrize("name", PROGRAMS)
def test_it_sees_each_move(name: str, tmp_path: Path) -> None:
    program = PROGRAMS[name]
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    command = [program, str(EXAMPLES / name)]
    if program == "go":
        command = [built_by_go(EXAMPLES / name, tmp_path)]
    directory = tmp_path / "connection"
    here = SqliteSide(path="/data/app.db")
    there = PostgresSide(host="pooler", port=6432, database="app", user="u", password="p")
    write_connection(directory, here, here)
    with subprocess.Popen([*command, str(directory)], stdout=subprocess.PIPE, text=True) as process:
        lines: queue.Queue[str] = queue.Queue()

        def read() -> None:
            for line in process.stdout or ():
                lines.put(line.rstrip())

        threading.Thread(target=read, daemon=True).start()
        try:
            assert lines.get(timeout=LIMIT_SECONDS) == "sqlite /data/app.db"
            write_connection(directory, there, there)
            assert lines.get(timeout=LIMIT_SECONDS) == "postgresql pooler:6432/app"
            write_connection(directory, here, there)
            assert lines.get(timeout=LIMIT_SECONDS) == "sqlite /data/app.db"
        finally:
            process.kill()
