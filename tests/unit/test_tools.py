"""The scripts behind the Makefile, tried against stand-ins for uv, Docker and Pulumi."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pty
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from infra.settings import PROJECT

ROOT = Path(__file__).resolve().parents[2]

FAKE_UV = """#!/bin/sh
case "$*" in
    *--no-default-groups*) lean=" lean" ;;
    *"--only-group site"*) lean=" site" ;;
    *) lean= ;;
esac
echo "$1 ${UV_PROJECT_ENVIRONMENT-}$lean${UV_SYSTEM_CERTS:+ with the system's certificates}" >>calls
case $1 in
    venv)
        for last; do :; done
        mkdir -p "$last/bin"
        ln -s "$(command -v python3)" "$last/bin/python"
        ;;
    sync) %s ;;
esac
"""

FAKE_PULUMI = """#!/bin/sh
echo "$* | $PULUMI_BACKEND_URL | ${PULUMI_CONFIG_PASSPHRASE_FILE-}" >>calls
"""


class Checkout:
    """A directory with the project's tools in it, and stand-ins first on PATH."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bin = path / "fakes"
        self.bin.mkdir()
        (path / "tools").mkdir()
        for script in (ROOT / "tools").iterdir():
            if script.is_file():
                copy = path / "tools" / script.name
                copy.write_bytes(script.read_bytes())
                copy.chmod(0o755)
        (path / "infra").mkdir()
        for module in ("__init__", "errors", "kept"):
            shutil.copy(ROOT / "infra" / f"{module}.py", path / "infra")
        # It needs the whole environment; tried by itself, and on Docker.
        (path / "infra" / "interrupted.py").touch()
        (path / "pyproject.toml").write_text("[project]\n")
        (path / "uv.lock").write_text("version = 1\n")
        (path / "Pulumi.dev.yaml").write_text("config: {}\n")

    def fake(self, name: str, script: str) -> None:
        (self.bin / name).write_text(script)
        (self.bin / name).chmod(0o755)

    def environment(self, **more: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PULUMI_", "UV_"))}
        return {**kept, "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}", **more}

    def run(self, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.path,
            env=self.environment(**more),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def calls(self) -> list[str]:
        file = self.path / "calls"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    made = Checkout(tmp_path)
    made.fake("uv", FAKE_UV % "true")
    return made


# -------------------------------------------------------------------------------- tools/setup


def test_setup_builds_once(checkout: Checkout) -> None:
    assert checkout.run("tools/setup").returncode == 0
    assert checkout.calls() == ["venv ", "sync .venv.new"]
    assert (checkout.path / ".venv" / "bin" / "python").exists()
    assert not (checkout.path / ".venv.new").exists()

    again = checkout.run("tools/setup")
    assert (again.returncode, again.stdout) == (0, "")
    assert len(checkout.calls()) == 2


def test_the_demo_needs_no_more_than_the_job(checkout: Checkout) -> None:
    assert checkout.run("tools/setup", "lean").returncode == 0
    assert checkout.calls() == ["venv ", "sync .venv-demo.new lean"]
    assert (checkout.path / ".venv-demo" / "bin" / "python").exists()
    assert checkout.run("tools/setup", "lean").stdout == ""
    # A developer's environment has it all, and the demo takes that one.
    checkout.run("tools/setup")
    (checkout.path / "uv.lock").write_text("version = 2\n")
    assert checkout.run("tools/setup", "lean").returncode == 0
    assert checkout.calls()[2:] == ["venv ", "sync .venv.new", "venv ", "sync .venv.new"]


def test_the_site_has_an_environment_of_its_own(checkout: Checkout) -> None:
    assert checkout.run("tools/setup", "site").returncode == 0
    assert checkout.calls() == ["venv ", "sync .venv-site.new site"]
    assert not (checkout.path / ".venv").exists()


FAKE_PYTHON = f"""#!/bin/sh
case "$1 $2 $3" in
"-m venv "*) exit 1 ;;
"-m pip install")
    echo "$*" >>calls
    while [ "$1" != --target ]; do shift; done
    mkdir -p "$2/bin" && cp fake-uv "$2/bin/uv" ;;
"-m pip "*) ;;
"-c import sys"*) command -v python3 ;;
*) exec {shlex.quote(sys.executable)} "$@" ;;
esac
"""


@pytest.mark.parametrize("watched", [True, False])
def test_the_download_of_uv_itself_is_told(checkout: Checkout, watched: bool) -> None:
    """With pip's bar where somebody looks, and with its size everywhere."""
    (checkout.bin / "uv").rename(checkout.path / "fake-uv")
    checkout.fake("python3", FAKE_PYTHON)
    ours, theirs = pty.openpty()
    try:
        done = subprocess.run(
            ["tools/setup"],
            cwd=checkout.path,
            env=checkout.environment(PATH=f"{checkout.bin}:/usr/bin:/bin"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=theirs if watched else subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 0, done.stderr
    assert re.search(r"installing uv .* \(some \d+ MB to download\)", done.stdout)
    pip = next(call for call in checkout.calls() if call.startswith("-m pip install"))
    assert ("--quiet" in pip.split()) is not watched


def test_setup_tries_the_certificates_of_a_proxy(checkout: Checkout) -> None:
    checkout.fake("uv", FAKE_UV % '[ -n "${UV_SYSTEM_CERTS-}" ]')
    done = checkout.run("tools/setup", UV_SYSTEM_CERTS="")
    assert done.returncode == 0, done.stderr
    assert "trying again with the system's certificates" in done.stdout
    assert checkout.calls()[-1] == "sync .venv.new with the system's certificates"


def test_setup_follows_the_lock_file(checkout: Checkout) -> None:
    checkout.run("tools/setup")
    (checkout.path / "uv.lock").write_text("version = 2\n")
    assert checkout.run("tools/setup").returncode == 0
    assert len(checkout.calls()) == 4


def test_setup_that_fails_leaves_the_old_environment(checkout: Checkout) -> None:
    checkout.run("tools/setup")
    (checkout.path / ".venv" / "mark").touch()
    (checkout.path / "uv.lock").write_text("version = 2\n")
    checkout.fake("uv", FAKE_UV % "exit 1")
    failed = checkout.run("tools/setup")
    assert failed.returncode == 2
    assert "error: the Python environment could not be made" in failed.stderr
    assert (checkout.path / ".venv" / "mark").exists()
    assert not (checkout.path / ".venv.new").exists()


def test_setup_that_is_killed_leaves_no_half_environment(checkout: Checkout) -> None:
    checkout.fake("uv", FAKE_UV % "touch waiting; while [ ! -e go ]; do sleep 0.05; done")
    process = subprocess.Popen(
        ["tools/setup"], cwd=checkout.path, env=checkout.environment(), start_new_session=True
    )
    deadline = time.monotonic() + 30
    while not (checkout.path / "waiting").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (checkout.path / ".venv").exists()

    (checkout.path / "go").touch()
    assert checkout.run("tools/setup").returncode == 0
    assert (checkout.path / ".venv" / "stamp").exists()


def test_setups_at_the_same_time_build_once(checkout: Checkout) -> None:
    processes = [
        subprocess.Popen(["tools/setup"], cwd=checkout.path, env=checkout.environment())
        for _ in range(4)
    ]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert len(checkout.calls()) == 2


# -------------------------------------------------------------------------------- tools/stage


@pytest.fixture
def stage(checkout: Checkout) -> Checkout:
    checkout.fake("docker", "#!/bin/sh\nexit 0\n")
    checkout.fake("pulumi", FAKE_PULUMI)
    assert checkout.run("tools/setup").returncode == 0
    (checkout.path / "calls").unlink()
    return checkout


def test_up_keeps_state_here_under_a_passphrase_of_its_own(stage: Checkout) -> None:
    done = stage.run("tools/stage", "up", "dev")
    assert done.returncode == 0, done.stderr
    passphrase = stage.path / ".passphrase"
    assert stat.S_IMODE(passphrase.stat().st_mode) == 0o600
    assert len(passphrase.read_text().strip()) >= 32
    assert passphrase.read_text().strip() not in done.stdout + done.stderr
    place = f"| file://{stage.path}/.state/pulumi | {passphrase}"
    assert stage.calls() == [
        f"stack select --create --stack dev {place}",
        f"stack export --stack dev {place}",
        f"up --stack dev --yes --skip-preview {place}",
    ]
    before = passphrase.read_text()
    stage.run("tools/stage", "down", "dev")
    assert passphrase.read_text() == before
    assert stage.calls()[-1] == f"destroy --stack dev --yes --skip-preview {place}"


@pytest.mark.parametrize(
    ("state", "asked"),
    [
        (None, True),
        ("", True),
        ('{"checkpoint": {"latest": {"resources": []}}}', False),
        ('{"checkpoint": {"latest": {"pending_operations": [{}]}}}', True),
    ],
)
def test_pulumi_is_asked_for_marks_of_a_killed_run_where_the_state_may_have_some(
    stage: Checkout, state: str | None, asked: bool
) -> None:
    folder = stage.path / ".state" / "pulumi" / ".pulumi" / "stacks" / PROJECT
    folder.mkdir(parents=True)
    if state is not None:
        (folder / "dev.json").write_text(state)
    done = stage.run("tools/stage", "up", "dev")
    assert done.returncode == 0, done.stderr
    called = [call.partition(" --stack")[0] for call in stage.calls()]
    assert called == ["stack select --create", *(["stack export"] if asked else []), "up"]


@pytest.mark.parametrize("said", ["dead", ""])
def test_a_dead_lock_is_broken_and_a_living_one_is_left(stage: Checkout, said: str) -> None:
    folder = stage.path / ".state" / "pulumi" / ".pulumi" / "locks" / "organization" / PROJECT
    (folder / "dev").mkdir(parents=True)
    (folder / "dev" / "1.json").write_text("{}")
    (stage.path / "infra" / "interrupted.py").write_text(
        f"import sys\nprint({said!r} if '--lock' in sys.argv else '')\n"
    )
    stage.run("tools/stage", "up", "dev")
    broken = [call for call in stage.calls() if call.startswith("cancel --yes --stack dev")]
    assert bool(broken) == (said == "dead")


def test_the_tools_know_the_projects_name() -> None:
    assert f"project={PROJECT}\n" in (ROOT / "tools" / "stage").read_text()
    assert f"name: {PROJECT}\n" in (ROOT / "Pulumi.yaml").read_text()


def test_down_names_each_protected_resource_and_removes_nothing(stage: Checkout) -> None:
    kept = [f"urn:pulumi:dev::p::t::{name}" for name in ("data", "credentials", "protection")]
    resources = [{"urn": urn, "protect": True} for urn in kept] + [{"urn": "urn:a::b::pooler"}]
    export = json.dumps({"deployment": {"resources": resources}})
    stage.fake("pulumi", f"{FAKE_PULUMI}case $2 in export) echo '{export}' ;; esac\n")
    done = stage.run("tools/stage", "down", "dev")
    assert done.returncode == 2
    for name in ("data", "credentials", "protection"):
        assert f"\n  {name}: " in done.stderr
    assert "pooler" not in done.stderr
    assert "nothing was taken down" in done.stderr
    assert not any(call.startswith("destroy") for call in stage.calls())


def test_a_stage_file_that_pulumi_rewrites_is_named(stage: Checkout) -> None:
    said = "Pulumi wrote the salt of the stage's secrets (encryptionsalt) into Pulumi.dev.yaml"
    assert said not in stage.run("tools/stage", "up", "dev").stdout
    salted = "case $2 in select) echo 'encryptionsalt: v1' >>Pulumi.dev.yaml ;; esac\n"
    stage.fake("pulumi", f"{FAKE_PULUMI}{salted}")
    assert said in stage.run("tools/stage", "up", "dev").stdout


def test_any_command_of_pulumis_finds_the_state(stage: Checkout) -> None:
    place = f"| file://{stage.path}/.state/pulumi | {stage.path / '.passphrase'}"
    assert stage.run("tools/stage", "pulumi", "dev", "stack", "output").returncode == 0
    assert stage.calls()[-1] == f"stack output {place}"
    stage.run("tools/stage", "config", "dev", "set", "poolMax", "40")
    assert stage.calls()[-1] == f"config --stack dev set poolMax 40 {place}"


def test_up_respects_another_backend_and_passphrase(stage: Checkout) -> None:
    stage.run(
        *("tools/stage", "up", "dev"),
        PULUMI_BACKEND_URL="s3://bucket",
        PULUMI_CONFIG_PASSPHRASE_FILE="/elsewhere",
    )
    assert stage.calls()[-1].endswith("| s3://bucket | /elsewhere")
    assert not (stage.path / ".passphrase").exists()


@pytest.fixture
def release(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder that a stand-in server gives as the release, and its address."""
    folder = tmp_path / "release" / "v1.2.3"
    folder.mkdir(parents=True)
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("wrong", ["", "changed", "unnamed", "absent"])
def test_the_pulumi_cli_is_installed_by_its_checksum(
    stage: Checkout, release: tuple[Path, str], wrong: str
) -> None:
    folder, address = release
    (stage.bin / "pulumi").unlink()
    machine = {"x86_64": "x64", "aarch64": "arm64"}[os.uname().machine]
    archive = folder / f"pulumi-v1.2.3-linux-{machine}.tar.gz"
    with tarfile.open(archive, "w:gz") as packed:
        entry = tarfile.TarInfo("pulumi/pulumi")
        entry.mode, entry.size = 0o755, len(FAKE_PULUMI)
        packed.addfile(entry, io.BytesIO(FAKE_PULUMI.encode()))
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    named = "another.tar.gz" if wrong == "unnamed" else archive.name
    if wrong != "absent":
        (folder / "pulumi-1.2.3-checksums.txt").write_text(f"{digest}  {named}\n")
    if wrong == "changed":
        archive.write_bytes(archive.read_bytes() + b"more")
    python = stage.path / ".venv" / "bin" / "python"
    real = python.resolve()
    python.unlink()
    python.write_text(f"""#!/bin/sh
case $2 in *importlib.metadata*) echo 1.2.3 ;; *) exec {real} "$@" ;; esac
""")
    python.chmod(0o755)
    path = f"{stage.bin}{os.pathsep}/usr/bin{os.pathsep}/bin"
    done = stage.run("tools/stage", "down", "dev", PATH=path, PULUMI_RELEASES=address)
    installed = stage.path / ".tools" / "pulumi" / "bin" / "pulumi"
    if wrong:
        assert done.returncode == 2
        assert "SHA-256" in done.stderr if wrong != "absent" else "not be fetched" in done.stderr
        assert not installed.exists()
        assert stage.calls() == []
    else:
        assert done.returncode == 0, done.stderr
        assert installed.exists()
        assert stage.calls()[-1].startswith("destroy --stack dev")


@pytest.mark.parametrize("name", ["nosuch", "../dev", "", "dev;id"])
def test_an_unknown_stage_is_refused_before_anything_happens(stage: Checkout, name: str) -> None:
    refused = stage.run("tools/stage", "up", name)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: expected ")
    assert stage.calls() == []


def test_a_missing_engine_is_one_clear_error(stage: Checkout) -> None:
    if os.geteuid() == 0:
        pytest.skip("root installs and starts the engine instead")
    stage.fake("docker", "#!/bin/sh\necho 'permission denied' >&2\nexit 1\n")
    refused = stage.run("tools/stage", "up", "dev")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: the Docker engine does not answer")


def test_the_dev_stage_as_committed_opens_with_anybodys_passphrase() -> None:
    """Pulumi writes ``encryptionsalt`` into the file at the first `up`; committed, it would lock
    everybody else out."""
    shown = subprocess.run(
        ["git", "show", "HEAD:Pulumi.dev.yaml"], cwd=ROOT, capture_output=True, text=True
    )
    if shown.returncode != 0:
        pytest.skip("this is not a git checkout")
    assert "sqlite-to-postgresql:source: example" in shown.stdout
    assert "encryptionsalt" not in shown.stdout


# -------------------------------------------------------------------------------- tools/audit

PINNED = "one==1 \\\\\n    --hash=sha256:0\ntwo==2 \\\\\n    --hash=sha256:1\n"
FAKE_EXPORT = f"""#!/bin/sh
while [ "$1" != --output-file ]; do shift; done
printf '{PINNED}' >"$2"
"""
FAKE_AUDIT = """#!/bin/sh
for file; do :; done
echo "$(grep -c == "$file")" >>calls
%s
"""
REACHES = "echo 'No known vulnerabilities found'"
FINDS = "echo 'Found 1 known vulnerability'; exit 1"
NOT_THERE = "echo 'connection refused' >&2; exit 1"


@pytest.fixture
def audited(checkout: Checkout) -> Checkout:
    checkout.fake("uv", FAKE_EXPORT)
    (checkout.path / ".venv" / "bin").mkdir(parents=True)
    return checkout


def _audit(checkout: Checkout, does: str, *words: str) -> subprocess.CompletedProcess[str]:
    program = checkout.path / ".venv" / "bin" / "pip-audit"
    program.write_text(FAKE_AUDIT % does)
    program.chmod(0o755)
    return checkout.run("tools/audit", *words)


def test_every_pinned_package_is_asked_about_once_one_was_answered(audited: Checkout) -> None:
    done = _audit(audited, REACHES, "--where-reachable")
    assert (done.returncode, done.stdout) == (0, "No known vulnerabilities found\n"), done.stderr
    assert audited.calls() == ["1", "2"]


def test_an_advisory_fails_the_lint(audited: Checkout) -> None:
    done = _audit(audited, FINDS, "--where-reachable")
    assert done.returncode == 1
    assert "Found 1 known vulnerability" in done.stderr


def test_lint_goes_on_with_one_line_where_the_database_cannot_be_asked(audited: Checkout) -> None:
    done = _audit(audited, NOT_THERE, "--where-reachable")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("note: the advisory database cannot be asked")
    assert done.stdout.count("\n") == 1
    assert audited.calls() == ["1"], "one package tells"


def test_an_audit_that_was_asked_for_fails_there(audited: Checkout) -> None:
    done = _audit(audited, NOT_THERE)
    assert done.returncode == 2
    assert "connection refused" in done.stderr
    assert "error: the advisory database could not be asked" in done.stderr


# ------------------------------------------------------------------------ tools/docker-engine


def test_an_engine_that_answers_is_left_alone(checkout: Checkout) -> None:
    checkout.fake("docker", "#!/bin/sh\nexit 0\n")
    checkout.fake("dockerd", "#!/bin/sh\ntouch started\n")
    done = checkout.run("tools/docker-engine")
    assert (done.returncode, done.stdout) == (0, "")
    assert not (checkout.path / "started").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may start an engine")
@pytest.mark.skipif(Path("/run/systemd/system").exists(), reason="systemd would start its own")
def test_root_starts_an_engine_where_none_runs_and_waits_for_it(checkout: Checkout) -> None:
    checkout.fake("iptables", "#!/bin/sh\n")
    checkout.fake("docker", f"#!/bin/sh\n[ -e {checkout.path}/answers ]\n")
    checkout.fake("dockerd", f"#!/bin/sh\necho up\nsleep 1\ntouch {checkout.path}/answers\n")
    done = checkout.run("tools/docker-engine")
    assert done.returncode == 0, done.stderr
    assert "starting the Docker engine" in done.stdout
    assert (checkout.path / ".state" / "dockerd.log").read_text() == "up\n"


# ------------------------------------------------------------------------------- the Makefile


def test_every_target_is_in_the_help() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = set(re.findall(r"^\.PHONY: (\S+)$", text, re.MULTILINE)) - {"setup"}
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert phony == set(re.findall(r"^  make (\S+)", shown, re.MULTILINE))


@pytest.mark.parametrize(
    "script", ["audit", "common.sh", "setup", "system-packages", "docker-engine", "stage"]
)
def test_the_scripts_are_plain_sh(script: str) -> None:
    subprocess.run(["sh", "-n", str(ROOT / "tools" / script)], check=True)
