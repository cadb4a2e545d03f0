"""The resource ``Cutover``: the application on PostgreSQL, for as long as the resource is there.

Creating it runs ``migration-job switch``; deleting it runs ``migration-job rollback``, from the
state alone, before anything that the application uses is removed. It takes the migration's
certificate as an input: without one there is nothing to create it from. With the mode ``reads``
only the reads move, and writes stay with SQLite; with ``settled`` the way back is given up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, ReadResult, Resource, UpdateResult

from infra import job, live, settled
from infra.dynamic import StageProvider, say
from infra.inputs import CutoverInputs, with_secrets

DECISIVE = {
    "mode",
    "certificate",
    "source",
    "connection",
    "pooler_authority",
    *CutoverInputs.secrets(),
}
"""Inputs that make the switch run again: it is idempotent, and rewrites the connection."""


class CutoverProvider(StageProvider):
    """Switches on creation and rolls back on deletion."""

    outputs = ("phase",)

    def create(self, props: Any) -> CreateResult:
        inputs = CutoverInputs.of(props)
        if inputs.mode == settled.MODE:
            settled.settle(inputs)
        else:
            _switch(inputs)
        return CreateResult(f"{inputs.place.stage}/cutover", {**props, **_phase(inputs)})

    def update(self, _id: str, olds: Any, news: Any) -> UpdateResult:
        old, new = CutoverInputs.of(olds), CutoverInputs.of(news)
        if old.mode == settled.MODE != new.mode:
            settled.refuse_to_unsettle()
        elif new.mode == settled.MODE:
            # The place that it was switched in: it still has the source's directory.
            if old.mode != settled.MODE:
                settled.settle(new.model_copy(update={"place": old.place}))
            live.connect(new, writes=True)
        elif (old.mode, new.mode) == ("switch", "reads"):
            live.run("rollback", new, ["--keep-reads"])
        elif not self.changed(olds, news).isdisjoint(DECISIVE):
            _switch(new)
            if not old.certificate and new.console:
                # To the switch an alias that is gone is somebody's who closed it on purpose.
                live.connect(new)
        return UpdateResult({**news, **_phase(new)})

    def read(self, id_: str, props: Any) -> ReadResult:
        """Never gone: that would lose the way back. Where PgBouncer's alias went with its volume,
        the certificate is shown as another, which is a change, and the update writes it."""
        if live.alias_is_lost(CutoverInputs.of(props)):
            return ReadResult(id_, {**props, "certificate": ""})
        return ReadResult(id_, props)

    def delete(self, _id: str, props: Any) -> None:
        _go_back(CutoverInputs.of(props))


class WayBackProvider(StageProvider):
    """Does nothing until it is deleted."""

    def create(self, props: Any) -> CreateResult:
        return CreateResult(f"{props['place']['stage']}/way-back", props)

    def update(self, _id: str, _olds: Any, news: Any) -> UpdateResult:
        return UpdateResult(news)

    def delete(self, _id: str, props: Any) -> None:
        _go_back(CutoverInputs.of(props))


def _go_back(inputs: CutoverInputs) -> None:
    if inputs.mode == settled.MODE:
        settled.refuse_to_leave()
        return
    accepted = settled.loss_is_accepted()
    if accepted:
        say(
            f"{settled.ACCEPT_LOSS}=yes: going back even where that loses what PostgreSQL alone has"
        )
    live.run("rollback", inputs, ["--accept-loss"] if accepted else [])


def _switch(inputs: CutoverInputs) -> None:
    options = ["--fence-seconds", f"{inputs.fence_seconds:g}"]
    options += [word for table in inputs.one_way for word in ("--one-way", table)]
    options += live.acceptances(inputs.target)
    if inputs.mode == "reads":
        options.append("--reads-only")
    files = {job.POLICY_NAME: inputs.policy} if inputs.policy else {}
    if files:
        options += ["--policy", job.POLICY_FILE]
    live.run("switch", inputs, options, files)


def _phase(inputs: CutoverInputs) -> dict[str, str]:
    return {"phase": {"reads": "verified", settled.MODE: "settled"}.get(inputs.mode, "switched")}


class Cutover(Resource):
    """The application on PostgreSQL; its deletion is the way back."""

    phase: pulumi.Output[str]

    def __init__(self, name: str, inputs: Mapping[str, Any], opts: pulumi.ResourceOptions) -> None:
        """``inputs`` are :class:`CutoverInputs`, with the migration's certificate."""
        super().__init__(
            CutoverProvider(),
            name,
            {**CutoverInputs.declared(inputs), "phase": None},
            with_secrets(opts, CutoverInputs),
        )


class WayBack(Resource):
    """The way back, taken before anything that came after the cutover is removed."""

    def __init__(self, name: str, inputs: Mapping[str, Any], opts: pulumi.ResourceOptions) -> None:
        """``inputs`` are :class:`CutoverInputs`, without a certificate."""
        super().__init__(
            WayBackProvider(),
            name,
            CutoverInputs.declared(inputs),
            with_secrets(opts, CutoverInputs),
        )
