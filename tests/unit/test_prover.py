"""The proof that a stage runs while the job waits: what it hears, what it runs, what it answers."""

from __future__ import annotations

import io
import json
import tarfile
import threading
from types import SimpleNamespace
from typing import Any, cast

import docker
import pytest
from docker.errors import ImageNotFound, NotFound

from infra import job, migration, proof
from infra.inputs import MigrationInputs
from migration_job.application_proof import AWAITED
from tests.unit.test_application_schema import JOBS_PROPS, PASSWORD

COPY = "shop_proof_0123abcd"


def inputs(**changed: object) -> MigrationInputs:
    return MigrationInputs.of(
        {
            **JOBS_PROPS,
            "proof": {"image": "shop:4.2", "command": ["check"], "environment": {"KEY": "hush"}},
            **changed,
        }
    )


class Engine:
    """One that runs the proof to ``status``, and the job, which takes the answer."""

    def __init__(self, status: int = 0, printed: bytes = b"", *, image: bool = True) -> None:
        self.status, self.printed, self.image = status, printed, image
        self.created: dict[str, Any] = {}
        self.answers: list[dict[str, Any]] = []
        self.killed = threading.Event()
        self.hangs = False
        self.containers = self
        self.images = self

    def client(self) -> docker.DockerClient:
        return cast(docker.DockerClient, self)

    # what docker-py's containers and images do

    def create(self, image: str, words: list[str] | None, **options: Any) -> Engine:
        if not self.image:
            raise ImageNotFound("no such image")
        self.created = {"image": image, "words": words, **options}
        return self

    def pull(self, _image: str) -> None:
        raise ImageNotFound("not in the registry")

    def get(self, name: str) -> Any:
        if name == "shop-dev-migration":
            return SimpleNamespace(put_archive=self._take)
        if not self.created:
            raise NotFound(name)
        return self

    def _take(self, path: str, files: bytes) -> None:
        assert path == job.SECRETS
        with tarfile.open(fileobj=io.BytesIO(files)) as tar:
            stream = tar.extractfile(proof.ANSWER)
            assert stream is not None
            self.answers.append(json.loads(stream.read()))

    def put_archive(self, _path: str, _files: bytes) -> None: ...

    def start(self) -> None: ...

    def kill(self) -> None:
        self.killed.set()

    def remove(self, **_options: bool) -> None: ...

    def logs(self, *, stream: bool = False, follow: bool = False, stdout: bool = True) -> Any:
        if self.hangs and stream and follow:
            assert self.killed.wait(30)
        return iter([self.printed]) if stream and follow else self.printed

    def wait(self) -> dict[str, int]:
        return {"StatusCode": self.status}


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(proof, "say", lines.append)
    return lines


def test_the_job_is_told_to_wait_only_where_there_is_a_proof() -> None:
    words = migration.arguments(inputs())
    assert words[words.index("--proof-answer") + 1] == "/run/job/proof.json"
    assert "--proof-answer" not in migration.arguments(inputs(proof=None))


def test_the_proof_finds_the_copy_and_its_end_is_the_answer(said: list[str]) -> None:
    engine = Engine(3, f"begun\nby {PASSWORD}\n".encode())
    prover = proof.Prover(engine.client(), inputs())
    prover.hear("plan: 0.1 s")
    assert engine.created == {}
    prover.hear(f"{AWAITED}{COPY}")
    assert (engine.created["image"], engine.created["words"]) == ("shop:4.2", ["check"])
    environment = engine.created["environment"]
    assert (environment["PGDATABASE"], environment["KEY"]) == (COPY, "hush")
    assert environment["DATABASE_URL"].endswith(f"/{COPY}")
    assert engine.answers == [
        {"command": "shop:4.2 check", "status": 3, "said": "begun\nby ***"},
    ]
    assert said[0] == "plan: 0.1 s"
    assert PASSWORD not in "".join(said)


def test_an_image_that_is_not_there_is_an_answer_too(said: list[str]) -> None:
    """The job is not cut off: it removes the copy, and takes back what it has loaded."""
    engine = Engine(image=False)
    proof.Prover(engine.client(), inputs()).hear(f"{AWAITED}{COPY}")
    (answer,) = engine.answers
    assert "expected the image shop:4.2 on the engine" in answer["error"]
    assert said


def test_a_proof_without_an_end_is_ended(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "LIMIT_SECONDS", 0.2)
    engine = Engine(137)
    engine.hangs = True
    proof.Prover(engine.client(), inputs()).hear(f"{AWAITED}{COPY}")
    assert engine.answers == [{"error": "it did not end within 0.2 s"}]
    assert said
