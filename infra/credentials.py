"""Generated passwords: secret in the state, files in the containers, nowhere else."""

from __future__ import annotations

import secrets
import string
from collections.abc import Sequence
from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, Resource, UpdateResult

from infra.dynamic import StageProvider
from infra.scram import verifier

ALPHABET = string.ascii_letters + string.digits
LENGTH = 40
"""About 238 bits; letters and digits need no quoting in any file or URL."""
SALT_BYTES = 16

APPLICATION = ("second", "application")
"""The application's two logins, by the version's remainder by two: one is replaced at a time."""
ROTATED = ("migration", "reader", "monitor", "backup")
"""Passwords that are all replaced when ``version`` changes; the containers that use them restart
with the new ones while the application goes on."""
KEPT = ("superuser", "backup_cipher", "pooler", "pooler_admin")
"""The superuser's is of use through PostgreSQL's own socket alone, and set when the data
directory is made. The next encrypts the backups that are there already. The pooler's are known to
no client, and replacing them would restart the pool under the application."""

MEMBERS = ("replication", "rewind")
"""Kept as well; made where PostgreSQL runs on several servers. Those know one another by them."""

EVERY = (*APPLICATION, *ROTATED, *KEPT)


def generate() -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(LENGTH))


class CredentialsProvider(StageProvider):
    """Makes passwords and their verifiers: when ``version`` changes those that rotate again, and at
    any time those that are missing because there are more roles."""

    outputs = ("passwords", "verifiers")

    def create(self, props: Any) -> CreateResult:
        return CreateResult(secrets.token_hex(8), {**props, **_made(props)})

    def update(self, _id: str, olds: Any, news: Any) -> UpdateResult:
        passwords, verifiers = olds["passwords"], olds["verifiers"]
        same = olds["version"] == news["version"]
        renewed = {*ROTATED, serving(int(news["version"]))}
        kept = {name for name in passwords if same or name not in renewed}
        made = _made(news)
        return UpdateResult(
            {
                **news,
                "passwords": made["passwords"] | {name: passwords[name] for name in kept},
                "verifiers": made["verifiers"] | {name: verifiers[name] for name in kept},
            }
        )


def serving(version: int) -> str:
    """Which of the application's two logins serves with that version of the passwords."""
    return APPLICATION[version % 2]


def _made(props: Any) -> dict[str, Any]:
    passwords = {name: generate() for name in dict.fromkeys((*EVERY, *props["roles"]))}
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

    def __init__(
        self, name: str, version: int, opts: pulumi.ResourceOptions, more: Sequence[str] = ()
    ) -> None:
        """``more`` are roles that not every stage has."""
        self._round = version
        super().__init__(
            CredentialsProvider(),
            name,
            {
                "version": str(version),
                # A later version of this project may know more roles than made the state.
                "roles": sorted((*ROTATED, *KEPT, *more)),
                "passwords": None,
                "verifiers": None,
            },
            pulumi.ResourceOptions.merge(
                opts, pulumi.ResourceOptions(additional_secret_outputs=["passwords", "verifiers"])
            ),
        )

    def application(self) -> pulumi.Output[str]:
        """The password of the application's login of this version, secret."""
        return self.password(serving(self._round))

    def role_verifiers(self) -> pulumi.Output[dict[str, str]]:
        """The verifiers of all roles but the application's login that does not serve, which keeps
        what it has: its old password until :mod:`infra.rotate` ends it, and then none."""
        other = serving(self._round + 1)
        return pulumi.Output.secret(
            self.verifiers.apply(lambda all_of: {k: v for k, v in all_of.items() if k != other})
        )

    def password(self, role: str) -> pulumi.Output[str]:
        """The password of that role, secret."""
        return pulumi.Output.secret(self.passwords.apply(lambda found: found[role]))
