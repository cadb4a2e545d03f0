"""The resource ``Cutover``: the application on PostgreSQL, for as long as the resource is there.

Creating it runs ``migration-job switch``; deleting it runs ``migration-job rollback``, from the
state alone, before anything that the application uses is removed. It takes the migration's
certificate as an input: without one there is nothing to create it from. With the mode ``reads``
only the reads move, and writes stay with SQLite.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, Resource, UpdateResult

from infra import live
from infra.dynamic import StageProvider, say
from infra.job import Place

DECISIVE = {
    "mode",
    "certificate",
    "source",
    "connection",
    "pooler_authority",
    *live.PASSWORDS,
}
"""Inputs that make the switch run again: it is idempotent, and rewrites the connection."""

ACCEPT_LOSS = "MIGRATION_ACCEPT_LOSS"
"""``MIGRATION_ACCEPT_LOSS=yes pulumi destroy`` goes back although PostgreSQL is gone for good."""


class CutoverProvider(StageProvider):
    """Switches on creation and rolls back on deletion."""

    outputs = ("phase",)

    def create(self, props: Any) -> CreateResult:
        _switch(props)
        return CreateResult(f"{props['place']['stage']}/cutover", {**props, **_phase(props)})

    def update(self, _id: str, olds: Any, news: Any) -> UpdateResult:
        if (olds["mode"], news["mode"]) == ("switch", "reads"):
            live.run("rollback", news, ["--keep-reads"])
        elif not self.changed(olds, news).isdisjoint(DECISIVE):
            _switch(news)
        return UpdateResult({**news, **_phase(news)})

    def delete(self, _id: str, props: Any) -> None:
        accepted = os.environ.get(ACCEPT_LOSS, "").lower() == "yes"
        if accepted:
            say(f"{ACCEPT_LOSS}=yes: going back even where that loses what PostgreSQL alone has")
        live.run("rollback", props, ["--accept-loss"] if accepted else [])


def _switch(props: Mapping[str, Any]) -> None:
    options = ["--fence-seconds", f"{float(props['fence_seconds']):g}"]
    options += [word for table in props["one_way"] for word in ("--one-way", table)]
    options += live.acceptances(props)
    if props["mode"] == "reads":
        options.append("--reads-only")
    live.run("switch", props, options)


def _phase(props: Mapping[str, Any]) -> dict[str, str]:
    return {"phase": "verified" if props["mode"] == "reads" else "switched"}


class Cutover(Resource):
    """The application on PostgreSQL; its deletion is the way back."""

    phase: pulumi.Output[str]

    def __init__(
        self,
        name: str,
        *,
        place: Place,
        inputs: Mapping[str, Any],
        certificate: pulumi.Output[str],
        opts: pulumi.ResourceOptions,
    ) -> None:
        super().__init__(
            CutoverProvider(),
            name,
            {**inputs, "place": asdict(place), "certificate": certificate, "phase": None},
            pulumi.ResourceOptions.merge(
                opts, pulumi.ResourceOptions(additional_secret_outputs=list(live.PASSWORDS))
            ),
        )
