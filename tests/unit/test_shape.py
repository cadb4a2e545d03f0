"""The figures of ``make shape``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.shape import main, measure

CODE = """
class Base:
    def own(self): "It promises."
    def bare(self): pass

class Over(module.Base):
    def own(self): pass
    def bare(self): pass
    def new(self): pass
    def _hidden(self): pass

class Last(Over):
    def own(self): pass

def function(): "It promises."
"""


def test_an_override_has_its_bases_promise(tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text(CODE)
    shape = measure([tmp_path])
    # Without one: Base.bare, Over.bare and Over.new.
    assert (shape.documented, shape.public) == (4, 7)


def test_what_misses_a_goal_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = "\n".join(f"    x = {n}" for n in range(70))
    (tmp_path / "code.py").write_text(f"def long_one():\n{lines}\n")
    assert measure([tmp_path]).long_functions == ["code.py:long_one (71)"]
    assert main([str(tmp_path)]) == 0  # another tree is measured, not judged
    assert "| functions over 60 lines | 1 | at most 0 |" in capsys.readouterr().out
