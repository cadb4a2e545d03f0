"""Which Debian the images are made of: that of one day, by snapshot.debian.org.

:data:`DAY` is the one place that says which. The base image pulled is Debian's own of that day,
and what apt installs on it comes from the archive as it was then, so that two builds are the same.
Where that archive does not answer, or the operator names a mirror (``$DEBIAN_MIRROR``), it is what
the mirror serves at the time, and the build says so.
"""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass

SUITE = "trixie"
DAY = "20251020"
"""The day of the packages and of the base image. A later one takes security updates: choose one
that Debian's image on the registry has a tag of."""
IMAGE = f"debian:{SUITE}-{DAY}-slim"
ARCHIVE = "http://snapshot.debian.org/archive/debian/{day}T000000Z"
MIRROR = "http://deb.debian.org/debian"
MIRROR_VARIABLE = "DEBIAN_MIRROR"
SECONDS = 8
"""That the archive of days may take to answer."""


@dataclass(frozen=True, slots=True)
class Archive:
    """Where packages come from."""

    url: str
    day: str
    """'' where it is what the mirror serves at the time."""


def archive(say: Callable[[str], None]) -> Archive:
    """The archive of :data:`DAY` where it answers; else a mirror, which ``say`` is told."""
    mirror = os.environ.get(MIRROR_VARIABLE, "")
    if mirror:
        say(f"Debian's packages are those that {mirror} ({MIRROR_VARIABLE}) has today")
        return Archive(mirror, "")
    dated = ARCHIVE.format(day=DAY)
    if answers(f"{dated}/dists/{SUITE}/InRelease"):
        return Archive(dated, DAY)
    say(
        f"snapshot.debian.org does not answer: Debian's packages are those that {MIRROR} has "
        f"today, not those of {DAY}"
    )
    return Archive(MIRROR, "")


def answers(url: str) -> bool:
    """Whether an address gives something within a few seconds."""
    asked = urllib.request.Request(url, method="HEAD")  # noqa: S310 - the program's own address
    try:
        with urllib.request.urlopen(asked, timeout=SECONDS) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except OSError:
        return False
