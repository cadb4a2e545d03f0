"""What the operator gives a stage as files: certificates, a profile of his own, the policy."""

from __future__ import annotations

import hashlib
from pathlib import Path

import yaml

from infra.errors import StageError
from infra.images import ROOT
from infra.settings import Settings

BUILT_IN_PROFILES = ("none", "radcase")


def pem(path: str) -> str:
    """A PEM file of the operator's. StageError where it cannot be read."""
    try:
        return (ROOT / path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise StageError(
            f"expected the PEM file {path}, found none to read: {type(error).__name__}",
            advice="name a file that you may read, absolute or relative to the project's directory",
        ) from error


def policy(settings: Settings) -> str:
    """The job's policy file, '' where the settings add nothing to the profile's own."""
    wanted = dict(settings.policy)
    if settings.time_zone != "UTC":
        wanted.setdefault("zone", settings.time_zone)
    return yaml.safe_dump(wanted) if wanted else ""


def profile_file(profile: str) -> Path | None:
    """The ``profile.yaml`` of a profile of the operator's own; None for one of the job's."""
    return None if profile in BUILT_IN_PROFILES else (ROOT / profile).resolve()


def profile_digest(profile: str) -> str:
    """What makes a profile another profile: its name, or the content of its YAML and SQL files."""
    file = profile_file(profile)
    if file is None:
        return profile
    try:
        contents = [path.read_bytes() for path in (file, *sorted(file.parent.glob("*.sql")))]
    except OSError as error:
        raise StageError(
            f"expected the profile {profile}, found none to read: {error.strerror}",
            advice="set `profile` to radcase, none, or the path of a profile.yaml",
        ) from error
    digests = (hashlib.sha256(content).digest() for content in contents)
    return hashlib.sha256(b"".join(digests)).hexdigest()
