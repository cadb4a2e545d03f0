"""What `upgrade` says."""

from __future__ import annotations

from pathlib import Path

import pytest

from migration_job.errors import InputError
from migration_job.protocol.upgrade_end import Standing
from migration_job.protocol.upgrade_ends import read_alias
from migration_job.protocol.upgrade_proof import differing
from migration_job.verify.servers import WHOLE, ServerTable

LINE = "shop = host='127.0.0.1' port=5432 dbname='shop'\n"


def test_an_alias_file_of_two_lines(tmp_path: Path) -> None:
    file = tmp_path / "alias.ini"
    file.write_text(LINE + LINE.replace("shop", "other"))
    with pytest.raises(InputError, match=r"alias shop alone in .*, found 2 lines") as caught:
        read_alias(file, "shop")
    assert "switch" not in str(caught.value.advice)
    file.write_text("")
    with pytest.raises(InputError, match="found 0 lines") as caught:
        read_alias(file, "shop")
    assert "`switch` first" in str(caught.value.advice)


def test_rows_that_are_equal_and_not_the_same() -> None:
    keyless = ServerTable("public", "seen", "f", (), (), 2)
    error = differing(keyless, {WHOLE})
    assert "0 and -0" in error.message
    assert "primary key" in str(error.advice)
    keyed = ServerTable("public", "notes", "d", ("id",), ("integer",), 2)
    assert "0 and -0" not in differing(keyed, {("1",)}).message


def test_where_an_upgrade_stands() -> None:
    def words(*, begun: bool, moves: int, certificate: str) -> str:
        return Standing("to", begun, moves, certificate, follows=False).moves_in_words()

    assert words(begun=False, moves=0, certificate="") == "none; no upgrade is begun"
    assert words(begun=True, moves=0, certificate="") == "none; the upgrade is prepared"
    assert "settled" in words(begun=True, moves=11, certificate="")
    assert words(begun=True, moves=2, certificate="c") == "2, the last by certificate c"
