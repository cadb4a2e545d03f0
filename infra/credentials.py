"""Generated passwords: secret in the state, files in the containers, nowhere else."""

from __future__ import annotations

import secrets
import string
from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, Resource, UpdateResult

from infra.dynamic import StageProvider
from infra.scram import verifier

ALPHABET = string.ascii_letters + string.digits
LENGTH = 40
"""About 238 bits; letters and digits need no quoting in any file or URL."""
SALT_BYTES = 16

ROTATED = ("application", "migration", "reader", "monitor", "pooler", "pooler_admin", "backup")
"""Passwords that cross the network; all are replaced when ``version`` changes."""
KEPT = ("superuser", "backup_cipher")
"""The superuser's is of use inside PostgreSQL's own container alone, and set when the data
directory is made; the other one encrypts the backups that are there already."""


def generate() -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))


class CredentialsProvider(StageProvider):
    """Makes passwords and their verifiers: all of them anew when ``version`` changes, and those
    that are missing when there are more roles."""

    outputs = ("passwords", "verifiers")

    def create(self, props: Any) -> CreateResult:
        return CreateResult(secrets.token_hex(8), {**props, **_made()})

    def update(self, _id: str, olds: Any, news: Any) -> UpdateResult:
        passwords, verifiers = olds["passwords"], olds["verifiers"]
        same = olds["version"] == news["version"]
        kept = {name for name in passwords if same or name in KEPT}
        made = _made()
        return UpdateResult(
            {
                **news,
                "passwords": made["passwords"] | {name: passwords[name] for name in kept},
                "verifiers": made["verifiers"] | {name: verifiers[name] for name in kept},
            }
        )


def _made() -> dict[str, Any]:
    passwords = {name: generate() for name in (*ROTATED, *KEPT)}
    return {
        "passwords": passwords,
        # Fixed with the password: a verifier with another salt would be a change at every update.
        "verifiers": {
            name: verifier(password, secrets.token_bytes(SALT_BYTES))
            for name, password in passwords.items()
        },
    }


class Credentials(Resource):
    """The stage's passwords. ``version`` is the operator's: a change of it replaces them."""

    passwords: pulumi.Output[dict[str, str]]
    verifiers: pulumi.Output[dict[str, str]]

    def __init__(self, name: str, version: int, opts: pulumi.ResourceOptions) -> None:
        super().__init__(
            CredentialsProvider(),
            name,
            {
                "version": str(version),
                # A later version of this project may know more roles than made the state.
                "roles": sorted((*ROTATED, *KEPT)),
                "passwords": None,
                "verifiers": None,
            },
            pulumi.ResourceOptions.merge(
                opts, pulumi.ResourceOptions(additional_secret_outputs=["passwords", "verifiers"])
            ),
        )

    def password(self, role: str) -> pulumi.Output[str]:
        """The password of that role, secret."""
        return pulumi.Output.secret(self.passwords.apply(lambda found: found[role]))
