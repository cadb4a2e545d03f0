"""What closes a stage: its passwords and its certificates, and the files that hold them."""

from __future__ import annotations

import pulumi

from infra import members, rendering
from infra.certificates import Certificates, certified_names
from infra.credentials import MEMBERS, Credentials
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
        several = members.of(settings, parts.names)
        more = MEMBERS if several else ()
        self.credentials = Credentials("credentials", settings.credentials_version, kept, more)
        self.certificates: Certificates | None = None
        if settings.tls != "off":
            self.certificates = Certificates(
                "certificates",
                stage=parts.stage,
                names=certified_names(settings, parts.names),
                version=1,
                opts=own,
            )
        self._among_members: Certificates | None = None
        if several:
            hosts = [host for one in several for host in (one.host, one.etcd_host)]
            self._among_members = Certificates(
                "members-certificates",
                stage=f"{parts.stage} members",
                names={host: [host, "localhost", "127.0.0.1"] for host in hosts},
                version=1,
                opts=own,
                clients=True,
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

    def member_files(self, host: str) -> dict[str, pulumi.Output[str]]:
        """``tls.crt``, ``tls.key`` and ``ca.crt`` by which the servers of one PostgreSQL, and their
        etcd, know one another, whatever clients are asked for. The authority is theirs alone."""
        if self._among_members is None:
            raise TypeError("a PostgreSQL of one server has no members")
        return self._among_members.files(host)

    @property
    def members_authority(self) -> pulumi.Output[str] | None:
        """Whom those trust that ask the members how they are; None where there are none."""
        return self._among_members.authority if self._among_members else None

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
