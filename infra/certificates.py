"""TLS for a stage: a private authority and a certificate for each server, or the operator's own.

The authority's key never leaves Pulumi's state, where it is secret. Certificates are issued again,
by the same authority, when the names change or when less than a quarter of their life is left, so
that an ordinary ``pulumi up`` renews them.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pulumi
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from pulumi.dynamic import CreateResult, DiffResult, Resource, UpdateResult

from infra import members
from infra.dynamic import StageProvider
from infra.names import Names
from infra.parts import standing
from infra.settings import Settings

AUTHORITY_DAYS = 3650
SERVER_DAYS = 365
RENEW_AT = 0.75
"""The part of a certificate's life after which the next update issues another."""
BACKDATE = datetime.timedelta(hours=1)
"""A client whose clock is behind still accepts a certificate made just now."""


def certified_names(settings: Settings, names: Names) -> dict[str, list[str]]:
    """The host names and addresses by which a stage's servers are reached: within the stage, on the
    engine's host, and as the connection names the pooler."""
    here = [settings.bind_address, "localhost", "127.0.0.1"]
    beside = [n for _, n in standing(settings, names) if n.beside]
    several = members.of(settings, names)
    return {
        # Whichever leads is reached by haproxy's name too.
        **{one.host: [one.host, names.leader_host, *here] for one in several},
        **({} if several else {"postgres": [names.postgres_host, *here]}),
        **{n.postgres_host: [n.postgres_host, *here] for n in beside},
        "pgbouncer": [
            names.pooler_host,
            *([settings.connection_host] if settings.connection_host else []),
            *here,
        ],
    }


def authority(stage: str) -> tuple[str, str]:
    """A new authority: its certificate and its key, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{stage} private authority")])
    certificate = (
        _builder(name, name, key.public_key(), AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _pem(certificate), _key_pem(key)


def issue(
    authority_certificate: str,
    authority_key: str,
    names: Sequence[str],
    *,
    clients: bool = False,
) -> tuple[str, str, float]:
    """A server's certificate and key, PEM, and when to renew it (Unix seconds).

    ``names`` are host names and IP addresses, the first being the subject's; with ``clients`` it
    shows others who it is, too.
    """
    uses = [ExtendedKeyUsageOID.SERVER_AUTH]
    uses += [ExtendedKeyUsageOID.CLIENT_AUTH] if clients else []
    issuer = x509.load_pem_x509_certificate(authority_certificate.encode())
    signer = serialization.load_pem_private_key(authority_key.encode(), None)
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise TypeError("expected the authority's key to be an elliptic curve's")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    certificate = (
        _builder(subject, issuer.subject, key.public_key(), SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(x509.SubjectAlternativeName(_names(names)), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
        .sign(signer, hashes.SHA256())
    )
    return _pem(certificate), _key_pem(key), time.time() + SERVER_DAYS * 86400 * RENEW_AT


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _names(texts: Sequence[str]) -> list[x509.GeneralName]:
    """All as host names, and addresses as addresses too: libpq before 15 compares an address with
    host names alone (https://www.postgresql.org/docs/15/release-15.html)."""
    unique = dict.fromkeys(texts)
    found: list[x509.GeneralName] = [x509.DNSName(text) for text in unique]
    for text in unique:
        with contextlib.suppress(ValueError):
            found.append(x509.IPAddress(ipaddress.ip_address(text)))
    return found


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


class CertificatesProvider(StageProvider):
    """Makes the authority once, and the servers' certificates when they are due."""

    outputs = ("authority", "authority_key", "servers", "renew")

    def create(self, props: Any) -> CreateResult:
        certificate, key = authority(props["stage"])
        made = {**props, "authority": certificate, "authority_key": key}
        return CreateResult(f"{props['stage']}/certificates", {**made, **_servers(made)})

    def update(self, _id: str, olds: Any, news: Any) -> UpdateResult:
        kept = {**news, **{name: olds[name] for name in ("authority", "authority_key")}}
        return UpdateResult({**kept, **_servers(kept, olds)})

    def diff(self, _id: str, olds: Any, news: Any) -> DiffResult:
        due = time.time() >= float(olds.get("renew") or 0)
        return DiffResult(changes=due or bool(self.changed(olds, news)), replaces=[])


def _servers(props: Mapping[str, Any], olds: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The servers' certificates; those of ``olds`` are kept where they are good, since a server
    that gets another restarts."""
    kept: dict[str, Any] = {}
    renews = []
    if olds and olds["version"] == props["version"] and time.time() < float(olds["renew"] or 0):
        same = {n for n, names in props["names"].items() if olds["names"].get(n) == names}
        kept = {name: made for name, made in olds["servers"].items() if name in same}
        renews = [float(olds["renew"])]
    issued = {
        server: issue(
            props["authority"],
            props["authority_key"],
            names,
            clients=bool(props.get("clients")),
        )
        for server, names in props["names"].items()
        if server not in kept
    }
    made = {name: {"certificate": c, "key": k} for name, (c, k, _) in issued.items()}
    return {
        "servers": {**kept, **made},
        "renew": min([*renews, *(renew for _, _, renew in issued.values())]),
    }


class Certificates(Resource):
    """A stage's private authority and its servers' certificates.

    ``names`` maps each server to the host names and addresses that clients reach it by. A change of
    ``version`` issues all certificates again; ``clients`` makes them each other's clients too.
    """

    authority: pulumi.Output[str]
    servers: pulumi.Output[dict[str, dict[str, str]]]

    def __init__(
        self,
        name: str,
        *,
        stage: str,
        names: Mapping[str, Sequence[str]],
        version: int,
        opts: pulumi.ResourceOptions,
        clients: bool = False,
    ) -> None:
        super().__init__(
            CertificatesProvider(),
            name,
            {
                "stage": stage,
                "names": {server: list(all_names) for server, all_names in names.items()},
                "version": str(version),
                **({"clients": True} if clients else {}),
                **dict.fromkeys(CertificatesProvider.outputs),
            },
            pulumi.ResourceOptions.merge(
                opts, pulumi.ResourceOptions(additional_secret_outputs=["authority_key", "servers"])
            ),
        )

    def files(self, server: str) -> dict[str, pulumi.Output[str]]:
        """``tls.crt``, ``tls.key`` and ``ca.crt`` of one server."""
        return {
            "tls.crt": self.servers.apply(lambda all_servers: all_servers[server]["certificate"]),
            "tls.key": pulumi.Output.secret(
                self.servers.apply(lambda all_servers: all_servers[server]["key"])
            ),
            "ca.crt": self.authority,
        }
