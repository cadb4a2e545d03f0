"""``pulumi stack export | python -m infra.kept STAGE``: what `protectData` keeps, before a removal.

Pulumi stops at the first protected resource and advises to unprotect that one. Here each is named
with what it holds, so that the second step is taken with open eyes. Exit status 2 where anything is
protected; nothing was touched then.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

from infra.errors import StageError

HOLDS = {
    "data": "PostgreSQL's data",
    "backups": "the backups",
    "credentials": "the passwords, and the key of the backups: without it they cannot be read",
    "protection": "the stop before the whole stage",
}


def protected(export: Mapping[str, Any]) -> list[str]:
    """The names of the resources that Pulumi would refuse to delete."""
    resources = (export.get("deployment") or {}).get("resources") or ()
    return [str(r["urn"]).rpartition("::")[2] for r in resources if r.get("protect")]


def require_unprotected(export: Mapping[str, Any], stage: str) -> None:
    """StageError naming each resource of the stage that is protected."""
    found = protected(export)
    if found:
        # The newer server's of an upgrade have its version at the end.
        holds = {
            name: HOLDS.get(name.rstrip("-0123456789"), "a part of the stage") for name in found
        }
        lines = "".join(f"\n  {name}: {what}" for name, what in holds.items())
        raise StageError(
            f"expected a stage without protection, found protectData on {len(found)} of its "
            f"resources:{lines}",
            advice=f"nothing was taken down. To remove all of it for good, set `protectData: "
            f"false` in Pulumi.{stage}.yaml and run `make up STAGE={stage}`, then this again",
        )


def main() -> None:
    """Read the export and say what stands in the way."""
    words = argparse.ArgumentParser(prog="python -m infra.kept", description=__doc__)
    words.add_argument("stage")
    stage = words.parse_args().stage
    try:
        require_unprotected(json.loads(sys.stdin.read() or "{}"), stage)
    except StageError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
