"""A copy of the project to provision from, so that tests leave the checkout's own stages alone."""

from __future__ import annotations

import json
import os
import resource
import secrets
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import pytest
import yaml
from docker.models.containers import Container
from psycopg.conninfo import make_conninfo
from pulumi import automation

from infra.names import Names
from infra.settings import PROJECT
from tests.deployment.engine import name_of
from tests.deployment.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
ROOMS = (
    "Pulumi.yaml",
    "__main__.py",
    "infra",
    "config_templates",
    "images",
    "migration_job",
    "example_app",
    "tools",
)
PASSPHRASE = "for tests alone"


def require_pulumi() -> None:
    """Skip, with the reason, where there is no Pulumi CLI."""
    if shutil.which("pulumi") is None:
        pytest.skip("no Pulumi CLI on PATH")


@dataclass
class Result:
    """How one Pulumi command ended: what it printed, and its seconds of processor time (others may
    have the machine busy)."""

    failed: bool
    output: str
    processor_seconds: float
    changes: dict[str, int] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    printed: str = ""
    """What an operator sees of it; ``output`` has what the Automation API says of it too."""


class Workshop:
    """One stage in a copy of the project, driven by Pulumi's Automation API."""

    def __init__(
        self, directory: Path, client: docker.DockerClient, stage: str = "", **settings: object
    ) -> None:
        """``stage`` is a name for one that is only previewed; others have one of their own."""
        self.client = client
        self.directory = directory / "project"
        self.stage = stage or f"test-{secrets.token_hex(3)}"
        self.settings = {
            "stateDirectory": str(directory / "state"),
            "strategy": "offline",
            "postgresPort": free_port(),
            "poolerPort": free_port(),
            **settings,
        }
        self.names = Names(str(self.settings.get("application", "radcase")), self.stage)
        self.environment = {
            "PULUMI_BACKEND_URL": f"file://{directory / 'backend'}",
            "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE,
            "PULUMI_SKIP_UPDATE_CHECK": "true",
        }
        (directory / "backend").mkdir()
        _copy(self.directory)
        self._stack: automation.Stack | None = None

    @property
    def connection(self) -> Path:
        return Path(str(self.settings["stateDirectory"])) / "connection"

    @property
    def stack(self) -> automation.Stack:
        if self._stack is None:
            self._write()
            self._stack = automation.create_stack(
                stack_name=self.stage,
                work_dir=str(self.directory),
                opts=automation.LocalWorkspaceOptions(env_vars=self.environment),
            )
        return self._stack

    def set(self, **settings: object) -> None:
        """Change the stage file."""
        self.settings |= settings
        self._write()

    def set_secret(self, path: str, value: str) -> None:
        """``pulumi config set --secret --path``; `set` keeps a setting that is whole a secret."""
        self.stack.set_config(f"{PROJECT}:{path}", automation.ConfigValue(value, True), path=True)

    def _write(self) -> None:
        path = self.directory / f"Pulumi.{self.stage}.yaml"
        content = yaml.safe_load(path.read_text()) if path.exists() else {}
        encrypted = {
            key: value
            for key, value in (content.get("config") or {}).items()
            if isinstance(value, dict) and value.keys() == {"secure"}
        }
        wanted = {f"{PROJECT}:{key}": value for key, value in self.settings.items()}
        content["config"] = encrypted | wanted
        path.write_text(yaml.safe_dump(content))

    def up(self) -> Result:
        return self._run("up")

    def destroy(self) -> Result:
        return self._run("destroy")

    def _run(self, what: str) -> Result:
        said: list[str] = []
        stack, began = self.stack, _processor_seconds()
        try:
            done = getattr(stack, what)(on_output=said.append, color="never")
        except automation.errors.CommandError as error:
            seen = "\n".join(said)
            used = _processor_seconds() - began
            return Result(True, f"{seen}\n{error}", used, printed=seen)
        summary = done.summary
        outputs = {name: out.value for name, out in getattr(done, "outputs", {}).items()}
        return Result(
            summary.result != "succeeded",
            "\n".join(said),
            _processor_seconds() - began,
            dict(summary.resource_changes or {}),
            outputs,
        )

    def preview(self, *, policy_pack: Path) -> Result:
        """``pulumi preview --policy-pack``: nothing is created."""
        said: list[str] = []
        began = _processor_seconds()
        try:
            self.stack.preview(
                on_output=said.append, color="never", policy_packs=[str(policy_pack)]
            )
        except automation.errors.CommandError as error:
            return Result(True, f"{''.join(said)}\n{error}", _processor_seconds() - began)
        return Result(False, "\n".join(said), _processor_seconds() - began)

    def export(self) -> str:
        """The state as `pulumi stack export` prints it (the Automation API shows secrets)."""
        done = subprocess.run(
            ["pulumi", "stack", "export", "--stack", self.stage],
            cwd=self.directory,
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    def _containers(self) -> list[Container]:
        """Other tests' containers may go while they are listed."""
        found: list[Container] = self.client.containers.list(all=True, ignore_removed=True)
        return found

    def left(self) -> list[str]:
        """What of the stage is still on the engine."""
        prefix = self.names.prefix
        found = [name_of(c) for c in self._containers()]
        found += [str(v.name) for v in self.client.volumes.list()]
        found += [str(n.name) for n in self.client.networks.list()]
        return sorted(name for name in found if name == prefix or name.startswith(f"{prefix}-"))

    def clear(self) -> None:
        """Remove whatever a failed test left."""
        for container in self._containers():
            if name_of(container).startswith(f"{self.names.prefix}-"):
                container.remove(force=True, v=True)
        for volume in self.client.volumes.list():
            if volume.name.startswith(f"{self.names.prefix}-"):
                volume.remove(force=True)
        for network in self.client.networks.list(names=[self.names.network]):
            network.remove()


def _processor_seconds() -> float:
    """Of all child processes that have ended, in user and kernel mode."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _copy(target: Path) -> None:
    target.mkdir()
    for room in ROOMS:
        source = ROOT / room
        if source.is_dir():
            skipped = shutil.ignore_patterns("__pycache__", "*.pyc")
            shutil.copytree(source, target / room, ignore=skipped)
        elif source.exists():
            shutil.copy(source, target / room)
    (target / ".venv").symlink_to(ROOT / ".venv")
    # What was fetched for images is fetched once.
    (ROOT / ".cache").mkdir(exist_ok=True)
    (target / ".cache").symlink_to(ROOT / ".cache")


def check(workshop: Workshop) -> str:
    """`make check` on the workshop's stage: what pytest said; an AssertionError where it failed."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider"),
            *("tests/deployment/provisioned", "--stage", workshop.stage),
        ],
        cwd=ROOT,
        env=environment(workshop),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "passed" in done.stdout
    return done.stdout


def run(workshop: Workshop, *words: str) -> subprocess.CompletedProcess[str]:
    """A Python program of the project's, as the workshop's copy has it."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=workshop.directory,
        env=environment(workshop),
        capture_output=True,
        text=True,
        check=False,
    )


def named(workshop: Workshop) -> dict[str, Any]:
    """The side that the application's ``database.json`` has its writes go to."""
    said: dict[str, Any] = json.loads((workshop.connection / "database.json").read_text())
    write: dict[str, Any] = said["write"]
    return write


def dsn(side: Mapping[str, Any]) -> str:
    """The connection string of a side, as the application's ``database.json`` names it."""
    return make_conninfo(
        host=side["host"],
        port=side["port"],
        dbname=side["database"],
        user=side["user"],
        password=side["password"],
    )


def environment(workshop: Workshop) -> dict[str, str]:
    """For a program that is to see the workshop's stage."""
    return {**os.environ, **workshop.environment, "STAGE_PROJECT": str(workshop.directory)}
