"""The resource ``Protection``: what `pulumi destroy` stops at before it has taken anything down.

Pulumi refuses to delete a protected resource when its turn comes, and takes down whatever comes
before. This one depends on everything else, so its turn is the first. It is there in any case, so
that a change of the setting is enough to take the protection away.
"""

from __future__ import annotations

from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, Resource, UpdateResult

from infra.dynamic import StageProvider


class ProtectionProvider(StageProvider):
    """Does nothing; its being there is the point."""

    def create(self, props: Any) -> CreateResult:
        return CreateResult("protection", props)

    def update(self, _id: str, _olds: Any, news: Any) -> UpdateResult:
        return UpdateResult(news)


class Protection(Resource):
    """Stands before the whole stage; where it is ``protected``, ``pulumi state unprotect --all``,
    or ``protectData: false`` and an update, is the second step."""

    def __init__(self, stage: pulumi.Resource, *, protected: bool) -> None:
        opts = pulumi.ResourceOptions(depends_on=[stage], protect=protected)
        super().__init__(ProtectionProvider(), "protection", {}, opts)
