"""The resource ``Cutover``: the application on PostgreSQL, for as long as the resource is there.

Creating it runs ``migration-job switch``; deleting it runs ``migration-job rollback``, from the
state alone, before anything that the application uses is removed. It takes the migration's
certificate as an input: without one there is nothing to create it from. With the mode ``reads``
only the reads move, and writes stay with SQLite; with ``settled`` the way back is given up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, ReadResult, Resource, UpdateResult

from infra import job, live, settled
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


class CutoverProvider(StageProvider):
    """Switches on creation and rolls back on deletion."""

    outputs = ("phase",)

    def create(self, props: Any) -> CreateResult:
        if props["mode"] == settled.MODE:
            settled.settle(props)
        else:
            _switch(props)
        return CreateResult(f"{props['place']['stage']}/cutover", {**props, **_phase(props)})

    def update(self, _id: str, olds: Any, news: Any) -> UpdateResult:
        if olds["mode"] == settled.MODE != news["mode"]:
            settled.refuse_to_unsettle()
        elif news["mode"] == settled.MODE:
            # The place that it was switched in: it still has the source's directory.
            if olds["mode"] != settled.MODE:
                settled.settle({**news, "place": olds["place"]})
            live.connect(news, writes=True)
        elif (olds["mode"], news["mode"]) == ("switch", "reads"):
            live.run("rollback", news, ["--keep-reads"])
        elif not self.changed(olds, news).isdisjoint(DECISIVE):
            _switch(news)
            if not olds["certificate"] and news["console"]:
                # To the switch an alias that is gone is somebody's who closed it on purpose.
                live.connect(news)
        return UpdateResult({**news, **_phase(news)})

    def read(self, id_: str, props: Any) -> ReadResult:
        """Never gone: that would lose the way back. Where PgBouncer's alias went with its volume,
        the certificate is shown as another, which is a change, and the update writes it."""
        if live.alias_is_lost(props):
            return ReadResult(id_, {**props, "certificate": ""})
        return ReadResult(id_, props)

    def delete(self, _id: str, props: Any) -> None:
        _go_back(props)


class WayBackProvider(StageProvider):
    """Does nothing until it is deleted."""

    def create(self, props: Any) -> CreateResult:
        return CreateResult(f"{props['place']['stage']}/way-back", props)

    def update(self, _id: str, _olds: Any, news: Any) -> UpdateResult:
        return UpdateResult(news)

    def delete(self, _id: str, props: Any) -> None:
        _go_back(props)


def _go_back(props: Mapping[str, Any]) -> None:
    if props["mode"] == settled.MODE:
        settled.refuse_to_leave()
        return
    accepted = settled.loss_is_accepted()
    if accepted:
        say(
            f"{settled.ACCEPT_LOSS}=yes: going back even where that loses what PostgreSQL alone has"
        )
    live.run("rollback", props, ["--accept-loss"] if accepted else [])


def _switch(props: Mapping[str, Any]) -> None:
    options = ["--fence-seconds", f"{float(props['fence_seconds']):g}"]
    options += [word for table in props["one_way"] for word in ("--one-way", table)]
    options += live.acceptances(props)
    if props["mode"] == "reads":
        options.append("--reads-only")
    policy = props.get("policy")
    files = {job.POLICY_NAME: policy} if policy else {}
    if policy:
        options += ["--policy", f"{job.SECRETS}/{job.POLICY_NAME}"]
    live.run("switch", props, options, files)


def _phase(props: Mapping[str, Any]) -> dict[str, str]:
    return {"phase": {"reads": "verified", settled.MODE: "settled"}.get(props["mode"], "switched")}


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


class WayBack(Resource):
    """The way back, taken before anything that came after the cutover is removed."""

    def __init__(
        self,
        name: str,
        *,
        place: Place,
        inputs: Mapping[str, Any],
        opts: pulumi.ResourceOptions,
    ) -> None:
        super().__init__(
            WayBackProvider(),
            name,
            {**inputs, "place": asdict(place)},
            pulumi.ResourceOptions.merge(
                opts, pulumi.ResourceOptions(additional_secret_outputs=list(live.PASSWORDS))
            ),
        )
