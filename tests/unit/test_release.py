"""What the release workflow relies on: one version everywhere, and where the project is."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tools.release import require_version, with_urls

ROOT = Path(__file__).resolve().parents[2]
PROJECT = '[project]\nversion = "1.2.3"\n\n[project.scripts]\na = "b:c"\n'
CODE = '__version__ = "1.2.3"\n'


def test_the_versions_of_this_checkout_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    code = (ROOT / "migration_job" / "__init__.py").read_text()
    assert f'__version__ = "{project["version"]}"' in code
    assert f"## {project['version']}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize(
    ("tag", "code", "changelog", "found"),
    [
        ("v1.2.4", CODE, "## 1.2.3 (2026-01-01)", "expected the tag v1.2.3"),
        ("v1.2.3", "", "## 1.2.3 (2026-01-01)", "found another version"),
        ("v1.2.3", CODE, "## 1.2.2 (2026-01-01)", "found none"),
        ("v1.2.3", CODE, "## 1.2.3 (unreleased)", "found `## 1.2.3 .unreleased.`"),
    ],
)
def test_a_release_that_does_not_agree_is_refused(
    tag: str, code: str, changelog: str, found: str
) -> None:
    with pytest.raises(SystemExit, match=found):
        require_version(tag, PROJECT, code, changelog)
    require_version("v1.2.3", PROJECT, CODE, "## 1.2.3 (2026-01-01)")


def test_the_address_goes_into_the_project_file() -> None:
    text = with_urls((ROOT / "pyproject.toml").read_text(), "https://example.org/a/b")
    project = tomllib.loads(text)["project"]
    assert project["urls"]["Issues"] == "https://example.org/a/b/issues"
    assert project["scripts"]["migration-job"] == project["scripts"]["sqlite-to-postgresql"]
