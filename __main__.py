"""The Pulumi program: one stage's settings in, one stage out."""

from __future__ import annotations

import os
import signal
import sys

import pulumi

from infra import program
from infra.dynamic import REASON
from infra.errors import StageError

ALREADY_TOLD = 32
"""The exit status by which Pulumi knows that the program has said what is wrong."""

# The engine interrupts the program when a resource fails; the failure itself is what to read then,
# not the stack of whatever the program was waiting for.
signal.signal(signal.SIGINT, lambda *_: os._exit(130))

try:
    stage = program.stage()
except StageError as error:
    # Pulumi repeats a message's first line while it runs, and that line alone.
    pulumi.log.error(f"{REASON}\n{error}")
    sys.exit(ALREADY_TOLD)

for name, value in stage.outputs().items():
    pulumi.export(name, value)
