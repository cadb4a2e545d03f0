"""The workflow files: GitHub would take them, and what their steps run is there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.test_docs import program, targets

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ACTIONLINT = "github.com/rhysd/actionlint/cmd/actionlint"
RELEASE = "v1.7.12"
ON_THE_RUNNER = {"python3", "docker", "uv", "uvx", "sudo", "grep", "head"}
"""What GitHub's images and the steps before bring along."""
SECRET = re.compile(r"\$\{\{.*?\}\}")
ASSIGNED = re.compile(r"[A-Za-z_]+=.*")


def runs() -> list[tuple[str, str]]:
    """Each script of the workflows, by the file and the job that it stands in."""
    return [
        (f"{file.stem}: {name}", SECRET.sub("given", step["run"]))
        for file in WORKFLOWS
        for name, job in yaml.safe_load(file.read_text())["jobs"].items()
        for step in job["steps"]
        if "run" in step
    ]


def unknown(script: str) -> list[str]:
    """What a script calls that is nowhere: program, target, module or command of the job."""
    found = []
    for line in script.replace("\\\n", " ").splitlines():
        words = shlex.split(re.sub(r"^[a-z]+=\$\(", "", line.strip()))
        while words and (ASSIGNED.fullmatch(words[0]) or words[0] in ("sudo", "--preserve-env")):
            words.pop(0)
        if words and (said := _unknown_call(words)):
            found.append(said)
    return found


def _unknown_call(words: list[str]) -> str:
    match words:
        case ["make", target, *_]:
            return "" if target in targets() else f"make {target}"
        case ["python3", "-m", module, *_]:
            file = ROOT / (module.replace(".", "/") + ".py")
            return "" if file.exists() else f"python3 -m {module}"
        case ["python3", "-c", code, *_]:
            compile(code, "step", "exec")
            return ""
        case ["uvx", "--from", _, "migration-job", command, *_]:
            return "" if command in program().commands else f"migration-job {command}"
        case [name, *_] if "/" in name:
            file = ROOT / name
            return "" if file.exists() and os.access(file, os.X_OK) else name
        case [name, *_]:
            return "" if name in ON_THE_RUNNER else name
    return ""


@pytest.mark.parametrize(("where", "script"), runs())
def test_what_a_step_runs_is_there(where: str, script: str) -> None:
    assert unknown(script) == [], where
    said = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert said.returncode == 0, (where, said.stderr)


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("make gone", ["make gone"]),
        ("A=1 make site", []),
        ("python3 -m tools.gone v1", ["python3 -m tools.gone"]),
        ("sudo --preserve-env .ci/gone", [".ci/gone"]),
        ("uvx --from dist/*.whl migration-job restore a.db", ["migration-job restore"]),
        ("helm install", ["helm"]),
    ],
)
def test_a_step_that_runs_what_is_not_there_is_found(script: str, found: list[str]) -> None:
    assert unknown(script) == found


def test_every_job_has_a_machine_a_limit_and_rights() -> None:
    for file in WORKFLOWS:
        workflow: dict[str, Any] = yaml.safe_load(file.read_text())
        assert workflow["permissions"] == {"contents": "read"}, file.name
        for name, job in workflow["jobs"].items():
            assert {"runs-on", "timeout-minutes", "steps"} <= job.keys(), (file.name, name)


def test_the_continuous_integration_builds_the_site_and_the_wheel_on_every_python() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    assert "make site" in [step.get("run") for step in jobs["site"]["steps"]]
    assert jobs["wheel"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13", "3.14"]


@pytest.fixture(scope="module")
def actionlint() -> str:
    """The program that knows GitHub's rules for workflows; by Go, once."""
    if on_path := shutil.which("actionlint"):
        return on_path
    place = ROOT / ".cache" / f"actionlint-{RELEASE}"
    if not (place / "actionlint").exists():
        if shutil.which("go") is None:
            pytest.skip("actionlint is not here, and Go, which would build it, is not either")
        command = ["go", "install", f"{ACTIONLINT}@{RELEASE}"]
        settings = {**os.environ, "GOBIN": str(place), "GOFLAGS": "-mod=mod"}
        try:
            done = subprocess.run(
                command, env=settings, capture_output=True, text=True, timeout=180, check=False
            )
        except subprocess.TimeoutExpired:
            pytest.skip("Go did not build actionlint within three minutes")
        if done.returncode:
            pytest.skip(f"Go could not build actionlint: {done.stderr[-200:]}")
    return str(place / "actionlint")


def test_actionlint_finds_nothing(actionlint: str) -> None:
    said = subprocess.run(
        [actionlint, "-no-color", *map(str, WORKFLOWS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert said.returncode == 0, said.stdout
