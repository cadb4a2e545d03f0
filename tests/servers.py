"""Which PostgreSQL the tests start: ``POSTGRES_MAJOR`` of the environment, else the demo's own.

A test that is about one version, or about several, names them itself.
"""

from __future__ import annotations

import os

from migration_job.binaries import DEFAULT_MAJOR, RELEASES

MAJOR = int(os.environ.get("POSTGRES_MAJOR") or DEFAULT_MAJOR)

if MAJOR not in RELEASES:
    raise RuntimeError(
        f"expected POSTGRES_MAJOR to be one of {', '.join(map(str, RELEASES))}, found {MAJOR}"
    )
