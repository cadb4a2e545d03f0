"""A tool of the tests' that is not here skips them, and fails them where it has to be here."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser import TOOLS_INSTALLED, lacking

ROOT = Path(__file__).resolve().parents[2]


def test_a_tool_that_has_to_be_here_fails_its_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TOOLS_INSTALLED, raising=False)
    with pytest.raises(pytest.skip.Exception, match="npm could not fetch axe-core"):
        lacking("npm could not fetch axe-core")
    monkeypatch.setenv(TOOLS_INSTALLED, "yes")
    with pytest.raises(pytest.fail.Exception, match="npm could not fetch axe-core, although"):
        lacking("npm could not fetch axe-core")


def test_continuous_integration_says_so_once_it_has_installed_them() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    installed, said = script.index("tools/system-packages"), script.index(TOOLS_INSTALLED)
    assert installed < said < script.index("make test")
    for program in ("npm", "chromium", "chromedriver=", "promtool="):
        assert program in script[installed:said]
