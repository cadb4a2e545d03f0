"""What an operator reads never holds a password."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from migration_job import cli
from migration_job.errors import without_secrets


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "cannot read host=h password=abc dbname=d: no",
            "cannot read host=h password=*** dbname=d: no",
        ),
        ("password = 'a b\\'c' user=u", "password = *** user=u"),
        ("postgresql://user:s3cret@host/db", "postgresql://user:***@host/db"),
        (
            "postgresql://host/db?password=abc&sslmode=on",
            "postgresql://host/db?password=***&sslmode=on",
        ),
        ("no secret: a password is wanted", "no secret: a password is wanted"),
    ],
)
def test_passwords_are_left_out(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


@pytest.mark.parametrize(
    "dsn", ["host=127.0.0.1 password=abcdef user=u", "postgresql://u:abcdef@h/d"]
)
@pytest.mark.parametrize("option", ["--connect-to", "--target-file"])
def test_a_connection_string_in_the_place_of_a_file_is_not_printed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: str,
    dsn: str,
) -> None:
    (tmp_path / "a.db").touch()
    more = [] if option == "--target-file" else ["--target", "host=127.0.0.1 port=1"]
    words = ["switch", str(tmp_path / "a.db"), option, dsn, "--connection", str(tmp_path), *more]
    if option != "--connect-to":
        words += ["--connect-to", str(tmp_path / "no.json")]
    monkeypatch.setattr(sys, "argv", ["migration-job", *words, "--report", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr()
    assert ended.value.code
    assert said.err.startswith("error: ")
    assert "abcdef" not in said.out + said.err
