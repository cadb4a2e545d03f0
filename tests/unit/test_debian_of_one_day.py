"""The images' Debian is that of one day, or the build says why it is not."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import docker
import pytest
from docker.errors import ImageNotFound

from infra import base_image, debian, images
from infra.images import Builder

DATED = f"http://snapshot.debian.org/archive/debian/{debian.DAY}T000000Z"
SOURCES = """\
Types: deb
# http://snapshot.debian.org/archive/debian/20251020T000000Z
URIs: http://deb.debian.org/debian
Suites: trixie trixie-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.pgp

Types: deb
URIs: http://deb.debian.org/debian-security
Suites: trixie-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.pgp
"""


class Engine:
    """An engine that remembers what it was asked to build and to import."""

    def __init__(self, there: tuple[str, ...] = ()) -> None:
        self.there = set(there)
        self.built: list[dict[str, str]] = []
        self.images = self.api = self
        self.timeout = 60

    def version(self) -> dict[str, str]:
        return {"Arch": "amd64"}

    def get(self, name: str) -> Any:
        if name not in self.there:
            raise ImageNotFound(name)
        return SimpleNamespace(id=f"id of {name}", attrs={"RepoDigests": [f"{name}@sha256:1"]})

    def build(self, *, tag: str, buildargs: dict[str, str], **_: Any) -> list[dict[str, str]]:
        self.there.add(tag)
        self.built.append(buildargs)
        return []

    def import_image_from_file(self, _: str, *, repository: str, tag: str) -> None:
        self.there.add(f"{repository}:{tag}")


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.delenv(debian.MIRROR_VARIABLE, raising=False)
    return []


def answering(monkeypatch: pytest.MonkeyPatch, *, there: bool) -> None:
    monkeypatch.setattr(debian, "answers", lambda url: there and url.startswith(DATED))


def base(engine: Engine, said: list[str]) -> str:
    return Builder(cast(docker.DockerClient, engine), "auto", said.append)._base()


@pytest.mark.parametrize("there", [True, False])
def test_apt_on_a_pulled_base_takes_the_packages_of_its_day(
    monkeypatch: pytest.MonkeyPatch, said: list[str], there: bool
) -> None:
    answering(monkeypatch, there=there)
    engine = Engine((debian.IMAGE,))
    assert debian.DAY in debian.IMAGE
    found = base(engine, said)
    pulled = f"{debian.IMAGE}@sha256:1"
    if there:
        assert found in engine.there
        assert base(engine, said) == found
        assert engine.built == [{"BASE": pulled, "DAY": debian.DAY}], "made once"
    else:
        assert found == pulled
        assert not engine.built
        assert "has today, not those of" in said[-1]


@pytest.mark.parametrize("there", [True, False])
def test_debootstrap_takes_the_packages_of_that_day(
    monkeypatch: pytest.MonkeyPatch, said: list[str], there: bool
) -> None:
    answering(monkeypatch, there=there)
    asked: list[list[str]] = []

    def ran(words: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        asked.append(words)
        Path(words[3]).mkdir()
        return subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setattr("infra.base_image.subprocess.run", ran)
    monkeypatch.setattr("infra.base_image.shutil.which", lambda _: "/usr/sbin/debootstrap")
    monkeypatch.setattr("infra.base_image.os.geteuid", lambda: 0)
    monkeypatch.setattr(Builder, "_registry_answers", lambda *_: False)
    engine = Engine()
    found = base(engine, said)
    assert found == (base_image.DATED if there else base_image.UNDATED)
    assert found in engine.there
    assert asked[0][4] == (DATED if there else debian.MIRROR)
    assert base(engine, said) == found
    assert len(asked) == 1, "the base that is there stays"


def test_an_operators_mirror_is_taken_as_it_is(
    monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    answering(monkeypatch, there=True)
    monkeypatch.setenv(debian.MIRROR_VARIABLE, "http://mirror.example/debian")
    assert debian.archive(said.append) == debian.Archive("http://mirror.example/debian", "")
    assert "has today" in said[0]


def test_the_rendered_sources_name_the_day_alone(tmp_path: Path) -> None:
    """The image's own step, run on the file that Debian's image has."""
    step = (images.ROOT / "images" / "debian" / "Dockerfile").read_text().partition("RUN ")[2]
    sources, options = tmp_path / "debian.sources", tmp_path / "80snapshot"
    sources.write_text(SOURCES)
    step = step.replace("/etc/apt/sources.list.d/debian.sources", str(sources))
    step = step.replace("/etc/apt/apt.conf.d/80snapshot", str(options))
    shell = ["/bin/sh", "-ec", step]
    done = subprocess.run(shell, env={"DAY": debian.DAY, "PATH": "/usr/bin:/bin"}, check=False)
    assert done.returncode == 0
    lines = [line for line in sources.read_text().splitlines() if line.startswith("URIs:")]
    security = DATED.replace("archive/debian/", "archive/debian-security/")
    assert lines == [f"URIs: {DATED}", f"URIs: {security}"]
    assert 'Check-Valid-Until "false"' in options.read_text()
    sources.write_text("Types: deb\nURIs: http://other.example/debian\n")
    assert subprocess.run(shell, env={"DAY": debian.DAY}, check=False).returncode != 0
