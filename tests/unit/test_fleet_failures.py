"""What a fleet's command says of a tenant that failed."""

from __future__ import annotations

import pytest

from migration_job.commands.fleet_live import _failure
from migration_job.errors import OperationError


@pytest.mark.parametrize(
    "message", ["switch failed: the disk is full", "the disk is full"], ids=["its own", "plain"]
)
def test_that_it_failed_is_said_once(message: str) -> None:
    assert _failure(OperationError(message), "switch") == "switch failed: the disk is full"
