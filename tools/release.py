"""``python -m tools.release TAG ADDRESS``: make the checkout ready for a release of that tag.

Checks that the tag, the version and the changelog agree, and writes the repository's address into
pyproject.toml as ``[project.urls]``. Ends with 1 and a sentence where they do not agree.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def require_version(tag: str, project: str, code: str, changelog: str) -> None:
    """Raises SystemExit where the tag is not the version of all three texts."""
    version = tomllib.loads(project)["project"]["version"]
    if tag != f"v{version}":
        raise SystemExit(f"expected the tag v{version}, found {tag}: pyproject.toml says {version}")
    if f'__version__ = "{version}"' not in code:
        raise SystemExit(f"expected {version} in migration_job/__init__.py, found another version")
    heading = re.search(rf"^## {re.escape(version)}\b(.*)$", changelog, re.MULTILINE)
    if heading is None or "unreleased" in heading[1]:
        raise SystemExit(
            f"expected `## {version}` with its date in CHANGELOG.md, found "
            + ("none" if heading is None else f"`{heading[0]}`")
        )


def with_urls(project: str, address: str) -> str:
    """The project file with where the project is to be found."""
    urls = {
        "Homepage": address,
        "Documentation": f"{address}/tree/main/docs",
        "Changelog": f"{address}/blob/main/CHANGELOG.md",
        "Issues": f"{address}/issues",
        "Source": address,
    }
    lines = "".join(f'{name} = "{url}"\n' for name, url in urls.items())
    return project.replace(
        "[project.scripts]\n", f"[project.urls]\n{lines}\n[project.scripts]\n", 1
    )


def main() -> None:
    """Check, then write."""
    if len(sys.argv) != 3:
        raise SystemExit(f"expected a tag and an address, found {len(sys.argv) - 1} arguments")
    tag, address = sys.argv[1:]
    file = ROOT / "pyproject.toml"
    project = file.read_text(encoding="utf-8")
    code = (ROOT / "migration_job" / "__init__.py").read_text(encoding="utf-8")
    require_version(tag, project, code, (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    file.write_text(with_urls(project, address), encoding="utf-8")


if __name__ == "__main__":
    main()
