"""The application's own proof, in a container of the application's own image, while the job waits.

``migrate --proof-answer`` makes the copy of the loaded database, says its name and waits. The proof
is part of the job's run so that one that fails is like any other check: no certificate, and tables
of the application's own are given back as they were.
"""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from typing import Any

import docker
from docker.errors import DockerException

from infra import job
from infra.application_schema import step_of
from infra.dynamic import say
from infra.errors import StageError
from infra.inputs import MigrationInputs
from infra.setting_types import ApplicationStep
from migration_job.application_proof import AWAITED, LIMIT_SECONDS

ANSWER = "proof.json"
ANSWER_FILE = f"{job.SECRETS}/{ANSWER}"


class Prover:
    """Hears the job, and runs the proof when the job says that it waits for one."""

    def __init__(self, client: docker.DockerClient, inputs: MigrationInputs) -> None:
        self._client = client
        self._inputs = inputs

    def hear(self, line: str) -> None:
        """Pass a line of the job on; the job waits while this runs the proof."""
        say(line)
        step = self._inputs.proof
        if step is not None and line.startswith(AWAITED):
            answer = json.dumps(self._answer(step, line.removeprefix(AWAITED).strip()))
            job.hand(self._client, self._inputs.place, self._inputs.container, {ANSWER: answer})

    def _answer(self, step: ApplicationStep, database: str) -> dict[str, Any]:
        inputs = self._inputs
        target = inputs.target.model_copy(update={"database": database})
        there = step_of(inputs.model_copy(update={"target": target}), step)
        name = f"{inputs.container}-proof"
        late = threading.Event()

        def end() -> None:
            late.set()
            with suppress(DockerException):
                self._client.containers.get(name).kill()

        watch = threading.Timer(LIMIT_SECONDS, end)
        watch.daemon = True
        watch.start()
        say(f"the application proves itself: {step.image}")
        try:
            ended = job.run_step(self._client, inputs.place, name, there, say)
        except StageError as error:
            # The job is to end by itself: it removes the copy, and takes back what it has loaded.
            return {"error": error.message}
        finally:
            watch.cancel()
        if late.is_set():
            return {"error": f"it did not end within {LIMIT_SECONDS:g} s"}
        return {
            "command": " ".join((step.image, *step.command)),
            "status": ended.status,
            "said": ended.words,
        }
