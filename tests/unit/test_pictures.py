"""What `make pictures` makes of a demo's lines loads nothing, and shows them."""

from __future__ import annotations

from pathlib import Path

from tools.pictures import shortened, terminal


def test_a_terminal_s_lines_as_a_picture(tmp_path: Path) -> None:
    terminal(["started PostgreSQL 14.23", "0 of 4,318 requests failed <b>"], tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    assert "@font-face" not in text
    assert "url(http" not in text
    assert "4,318" in text
    assert "&lt;b&gt;" in text


def test_of_the_standing_the_last_line_stays() -> None:
    said = ["made /home/x/radcase.db", "  [1 request]", "  [2 requests]", "  plan: 1 s", "  [3]"]
    assert shortened(said, "/home/x") == [
        *("made .state/demo/radcase.db", "  [2 requests]", "  plan: 1 s", "  [3]")
    ]
