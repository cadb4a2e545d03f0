"""What closes a stage: its passwords and its certificates, and the files that hold them."""

from __future__ import annotations

import pulumi

from infra import rendering
from infra.certificates import Certificates, certified_names
from infra.credentials import Credentials
from infra.given import pem
from infra.parts import Parts


class Closed:
    """The passwords and, with TLS, the certificates of one stage."""

    def __init__(
        self, parts: Parts, kept: pulumi.ResourceOptions, own: pulumi.ResourceOptions
    ) -> None:
        """``kept`` are the options of what has to stay readable: the backups' cipher and the
        superuser's password; ``own`` those of what can be recreated."""
        settings = self._settings = parts.settings
        self._names = parts.names
        self.credentials = Credentials("credentials", settings.credentials_version, kept)
        self.certificates: Certificates | None = None
        if settings.tls != "off":
            self.certificates = Certificates(
                "certificates",
                stage=parts.stage,
                names=certified_names(settings, parts.names),
                version=1,
                opts=own,
            )

    def password(self, role: str) -> pulumi.Output[str]:
        return self.credentials.password(role)

    @property
    def authority(self) -> pulumi.Output[str] | None:
        """Whom the stage's own parts trust; None without TLS."""
        return self.certificates.authority if self.certificates else None

    @property
    def pooler_authority(self) -> pulumi.Input[str] | None:
        """Whom the pooler's clients are to trust; None without TLS."""
        if self._settings.tls == "given":
            return pem(self._settings.tls_authority)
        return self.authority

    def tls_files(self, server: str) -> dict[str, pulumi.Input[str]]:
        """``tls.crt``, ``tls.key`` and ``ca.crt``, the authority that the server trusts in turn."""
        if self.certificates is None:
            return {}
        files: dict[str, pulumi.Input[str]] = {**self.certificates.files(server)}
        if server == "pgbouncer" and self._settings.tls == "given":
            files["tls.crt"] = pem(self._settings.tls_certificate)
            files["tls.key"] = pulumi.Output.secret(pem(self._settings.tls_key))
        return files

    def pooler_users(self) -> pulumi.Output[str]:
        """userlist.txt. PgBouncer logs in by it: to look the other roles' passwords up, or as the
        application where PostgreSQL is somebody else's."""
        names, external = self._names, self._settings.external
        made = self.credentials
        return pulumi.Output.all(made.passwords, made.verifiers).apply(
            lambda found: rendering.userlist(
                [
                    (external.application_user, external.application_password)
                    if external
                    else (names.pooler_role, found[0]["pooler"]),
                    (names.pooler_admin, found[1]["pooler_admin"]),
                ]
            )
        )
