"""The example application's container: it reads the connection directory and follows it.

It runs on the host's own network, as an application beside the stage does: the connection's address
is then the same to it as to everybody on the host.
"""

from __future__ import annotations

from collections.abc import Sequence

import pulumi

from infra.containers import MEBIBYTE, Health, Service
from infra.names import Names
from infra.settings import Settings
from infra.stage_paths import Paths

MEMORY = 128 * MEBIBYTE

_PROBE = "import urllib.request as r; r.urlopen('http://{address}/health', timeout=4)"


def service(
    settings: Settings,
    names: Names,
    image: pulumi.Input[str],
    user: str,
    *,
    where: Paths,
    binds: Sequence[str],
) -> Service:
    """The application as a service of the stage, on ``examplePort`` of the bind address."""
    bind = settings.bind_address
    address = f"[{bind}]" if ":" in bind else bind
    return Service(
        name=names.example,
        host="example",
        image=image,
        user=user,
        memory=MEMORY,
        health=Health(
            ["python3", "-c", _PROBE.format(address=f"{address}:{settings.example_port}")],
            start_seconds=20,
        ),
        config_directory="/run/example",
        files={},
        command=[
            *("--sqlite", str(where.source)),
            *("--connection", str(where.connection)),
            *("--host", bind, "--port", str(settings.example_port)),
        ],
        host_network=True,
        binds=binds,
        temporary={"/tmp": "mode=1777"},  # noqa: S108 - the container's own
        pids=128,
        stop_seconds=10,
    )
