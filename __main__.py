"""The Pulumi program: one stage's settings in, one stage out."""

from __future__ import annotations

import os
import signal
import sys

import pulumi

from infra import program
from infra.errors import StageError

ALREADY_TOLD = 32
"""The exit status by which Pulumi knows that the program has said what is wrong."""

# The engine interrupts the program when a resource fails; the failure itself is what to read then,
# not the stack of whatever the program was waiting for.
signal.signal(signal.SIGINT, lambda *_: os._exit(130))

try:
    stage = program.stage()
except StageError as error:
    pulumi.log.error(str(error))
    sys.exit(ALREADY_TOLD)

for name, value in stage.outputs().items():
    pulumi.export(name, value)
