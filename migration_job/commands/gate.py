"""``migration-job gate``: before an application that reads its connection only at start."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Annotated

import typer

from migration_job.commands.live_options import say
from migration_job.errors import InputError
from migration_job.gate.application import Application, Child, Elsewhere
from migration_job.gate.gate import Gate


def register(app: typer.Typer) -> None:
    """Add ``gate`` to the program."""
    app.command("gate")(gate)


def gate(
    upstream: Annotated[str, typer.Option(help="HOST:PORT where the application listens.")],
    connection: Annotated[Path, typer.Option(help="The directory that the job writes.")],
    state: Annotated[Path, typer.Option(help="The state directory of `switch` and `sync`.")],
    listen: Annotated[
        str, typer.Option(help="HOST:PORT where the requests arrive.")
    ] = "127.0.0.1:8080",
    run: Annotated[
        str | None,
        typer.Option(help="The command that starts the application; it gets database.env."),
    ] = None,
    restart: Annotated[
        str | None,
        typer.Option(help="A command that restarts it, such as `docker restart NAME`."),
    ] = None,
) -> None:
    """Pass HTTP requests on; hold them while the database is switched, until the application has
    been restarted and answers."""
    if (run is None) == (restart is None):
        raise InputError("expected one of --run and --restart")
    there, here = _address(upstream, "--upstream"), _address(listen, "--listen")
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    application: Application = (
        Child(run) if run is not None else Elsewhere(restart or "", state / "gate-started")
    )
    gate = Gate(application, there, connection=connection, state=state, say=say)
    asyncio.run(_serve(gate, here))


async def _serve(gate: Gate, listen: tuple[str, int]) -> None:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    if task is None:
        raise AssertionError("a coroutine without a task")
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    try:
        await gate.serve(listen, lambda port: say(f"the gate listens on {listen[0]}:{port}"))
    except asyncio.CancelledError:
        say("ended")


def _address(text: str, option: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise InputError(f"expected HOST:PORT after {option}, found {text!r}")
    return host, int(port)
