"""The pack's rules as plain functions over a resource's properties, to be tested plainly.

Property names are Pulumi's own (camelCase), as the engine hands them to a policy. Every function
returns sentences: what was expected, what was found, what to do.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

CONTAINER = "docker:index/container:Container"
VOLUME = "docker:index/volume:Volume"
DYNAMIC = "pulumi-python:dynamic:Resource"
"""What this project's own resources are to Pulumi; one that has `files` writes configuration."""
GUARDED_STAGES = ("staging", "production")
"""The stages in which plain connections are refused."""

Properties = Mapping[str, Any]


def violations(kind: str, name: str, properties: Properties, *, stage: str) -> list[str]:
    """Everything that the pack refuses about one resource; [] where it is in order."""
    guarded = stage in GUARDED_STAGES
    if kind == DYNAMIC:
        return list(_configuration(name, properties, guarded=guarded))
    if kind != CONTAINER:
        return []
    return [
        *_ports(name, properties),
        *_limits(name, properties),
        *_privileges(name, properties),
        *_health(name, properties),
        *_image(name, properties),
    ]


def unprotected(kind: str, name: str, *, protected: bool, stage: str) -> list[str]:
    """Production's data volumes must be protected against ``pulumi destroy``."""
    if kind == VOLUME and stage == "production" and "data" in name and not protected:
        return [
            f"expected the volume {name} of production to be protected, found it is not: set "
            "`protectData: true` in the stage file"
        ]
    return []


def unpinned(settings: Mapping[str, str]) -> list[str]:
    """What to think of, of a stage with these settings (Pulumi's own words, without the project):
    PostgreSQL's image may be another one when the stage is recreated."""
    if settings.get("postgresImage") or settings.get("imageSource") == "build":
        return []
    if settings.get("external"):
        return []  # its PostgreSQL is somebody else's
    return [
        "expected PostgreSQL's image by its digest, found no `postgresImage`: a stage that is made "
        "again gets the image that the registry has then. Set `postgresImage: postgres@sha256:...`"
    ]


def _ports(name: str, properties: Properties) -> Iterator[str]:
    for port in properties.get("ports") or ():
        address = port.get("ip") or "0.0.0.0"  # noqa: S104 - what Docker makes of no address
        if ipaddress.ip_address(address).is_unspecified:
            yield (
                f"expected {name} to publish port {port.get('external')} on one address, found "
                f"all of them ({address}): set `bindAddress` in the stage file"
            )


def _limits(name: str, properties: Properties) -> Iterator[str]:
    if not properties.get("memory"):
        yield f"expected {name} to have a memory limit, found none"
    if not properties.get("logOpts", {}).get("max-size"):
        yield f"expected {name} to rotate its log (max-size), found no limit"


def _privileges(name: str, properties: Properties) -> Iterator[str]:
    if properties.get("privileged"):
        yield f"expected {name} to run without privileges, found `privileged`"
    if properties.get("networkMode") == "host":
        yield f"expected {name} to be on the stage's own network, found the host's"
    sources = [volume.get("hostPath") for volume in properties.get("volumes") or ()]
    sources += [mount.get("source") for mount in properties.get("mounts") or ()]
    if any(str(source).endswith("docker.sock") for source in sources):
        yield (
            f"expected {name} not to hold the engine's socket, found it mounted: where it is the "
            "gate, set `gate.command` instead of `gate.container`"
        )


def _health(name: str, properties: Properties) -> Iterator[str]:
    runs_on = properties.get("restart") in ("always", "unless-stopped", "on-failure")
    if runs_on and not (properties.get("healthcheck") or {}).get("tests"):
        yield f"expected {name}, which runs on, to have a health check, found none"


def _image(name: str, properties: Properties) -> Iterator[str]:
    image = str(properties.get("image") or "")
    if not _FIXED_IMAGE.search(image):
        yield (
            f"expected {name}'s image by digest, found {image or 'none'}: a tag may be another "
            "image tomorrow"
        )


_FIXED_IMAGE = re.compile(
    r"(?:^|@)sha256:[0-9a-f]{64}$"
    # An image of this project's that a preview finds not built yet: its tag is the digest of all
    # that goes into it.
    r"|^sqlite-to-postgresql/[a-z0-9_-]+:[0-9a-f]{16}$"
)


def _configuration(name: str, properties: Properties, *, guarded: bool) -> Iterator[str]:
    files = properties.get("files")
    if not isinstance(files, Mapping):
        return
    for path, content in files.items():
        text = content if isinstance(content, str) else ""
        if path.endswith("pg_hba.conf"):
            yield from _pg_hba(name, text, guarded=guarded)
        elif path.endswith("pgbouncer.ini"):
            yield from _pgbouncer(name, text, guarded=guarded)
        elif path.endswith("postgresql.conf") and guarded and _setting(text, "ssl") != "on":
            yield f"expected ssl = on in {name}'s postgresql.conf, found it off: `tls: private`"


def _pg_hba(name: str, text: str, *, guarded: bool) -> Iterator[str]:
    for words in _lines(text):
        method = next((word for word in words if word in _METHODS), None)
        if method in ("trust", "md5", "password") and words[0] != "local":
            yield f"expected scram-sha-256 in {name}'s pg_hba.conf, found: {' '.join(words)}"
        if guarded and words[0] in ("host", "hostnossl") and method != "reject":
            yield f"expected hostssl in {name}'s pg_hba.conf, found: {' '.join(words)}"


_METHODS = frozenset({"trust", "md5", "password", "scram-sha-256", "reject", "peer", "cert"})


def _pgbouncer(name: str, text: str, *, guarded: bool) -> Iterator[str]:
    if _setting(text, "auth_type") != "scram-sha-256":
        yield f"expected auth_type = scram-sha-256 in {name}'s pgbouncer.ini, found another"
    if guarded:
        for side in ("client_tls_sslmode", "server_tls_sslmode"):
            if _setting(text, side) not in ("require", "verify-ca", "verify-full"):
                yield f"expected {side} to demand TLS in {name}'s pgbouncer.ini: `tls: private`"


def _lines(text: str) -> Iterator[Sequence[str]]:
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if words:
            yield words


def _setting(text: str, name: str) -> str:
    found = re.search(rf"^\s*{name}\s*=\s*'?([^'#;\s]*)", text, re.MULTILINE)
    return found[1] if found else ""
