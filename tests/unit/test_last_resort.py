"""What nobody foresaw ends in a sentence, and a file for this user alone holds the rest."""

from __future__ import annotations

import re
import sqlite3
import stat
import tempfile
from pathlib import Path

import pytest

from migration_job import last_resort
from migration_job.commands import inspect
from tests.integration.running import run

SECRET = "pass-w0rd"


def file_of(said: str) -> Path:
    found = re.search(r"the details are in (\S+\.txt),", said)
    assert found is not None, said
    return Path(found[1])


def database(path: Path) -> Path:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t(id INTEGER PRIMARY KEY)")
    connection.close()
    return path


def test_a_defect_of_a_command_is_a_sentence_and_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError(f"the value {SECRET}")

    monkeypatch.setattr(inspect, "reading", broken)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = run("inspect", database(tmp_path / "a.db"))
    assert ended.status == 1
    assert "Traceback" not in ended.said
    assert SECRET not in ended.said
    assert ended.err.startswith("error: an unforeseen error: ZeroDivisionError\n")
    file = file_of(ended.err)
    assert file.parent == tmp_path
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "Traceback (most recent call last)" in file.read_text()


def test_no_value_of_an_option_is_written(tmp_path: Path) -> None:
    words = ["switch", "a.db", "--target", SECRET, f"--state={tmp_path}", f"--console={SECRET}"]
    said = last_resort.sentence(ValueError("v"), words)
    text = file_of(said).read_text()
    assert SECRET not in said + text
    assert "command: switch --target --state --console (values are left out)" in text


def test_it_says_which_side_serves(tmp_path: Path) -> None:
    source = database(tmp_path / "a.db")
    words = ["switch", str(source), "--state", str(tmp_path)]
    said = last_resort.sentence(ValueError(), words, lambda path: f"SQLite serves, as {path} says")
    assert f"\nSQLite serves, as {source} says\n" in said

    def unknown(_: Path) -> str:
        raise OSError

    assert " serves, " not in last_resort.sentence(ValueError(), words, unknown)


def test_a_folder_that_cannot_be_written_falls_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    words = ["sync", "a.db", "--state", str(tmp_path / "absent")]
    assert file_of(last_resort.sentence(ValueError(), words)).parent == tmp_path
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "absent"))
    assert "no file could be written" in last_resort.sentence(ValueError(), words)


def test_another_program_ends_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def full() -> None:
        raise OSError(28, "No space left on device", "/a/\x1bfile")

    with pytest.raises(SystemExit) as ended:
        last_resort.main(full, ["restore"])
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert "OSError: No space left on device: /a/\\x1bfile" in said
    assert "Traceback" not in said
    with pytest.raises(SystemExit) as done:
        last_resort.main(lambda: None, ["restore"])
    assert done.value.code is None
