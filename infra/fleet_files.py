"""A fleet's manifest and its files, as this machine sees them.

The manifest's directory is mounted in the job's container under its own path, so all that the
manifest names has to be in it. What it says is checked by the job; here only what the stage decides
by is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from infra import stage_paths
from infra.errors import StageError
from infra.stage_paths import Paths
from migration_job.connection import read_connection
from migration_job.errors import InputError
from migration_job.fleet.matching import is_text, mark_of, matching, with_log

TEXTS = ("policy", "profile", "name", "tenant")

LAYOUTS = ("schema-per-file", "tenant-column")
"""Those that a stage's one database has room for."""

WORKER_BYTES = 128 << 20
"""What a worker process of a fleet takes."""
MOST_JOBS = 4
"""The migration role has 16 sessions; each file's run takes up to three of them."""

MARK = "fleet"
"""In the job's directory, where a stage moves a fleet."""
UNFINISHED = "fleet-unfinished"
"""There too, from the beginning of a run until it has verified all files."""


@dataclass(frozen=True)
class Manifest:
    """What of it the stage decides by."""

    path: Path
    files: tuple[str, ...]
    layout: str
    live: bool
    jobs: int | None
    beside: tuple[str, ...]
    """The files that it names, the policy and a profile of one's own."""


def read(path: Path) -> Manifest:
    """The manifest on this machine. StageError where there is none to read."""
    data = _said(path)
    files = data.get("files")
    files = [files] if isinstance(files, str) else files
    if not isinstance(files, list) or not files or not all(isinstance(f, str) for f in files):
        raise _unusable(path, "no glob and no list of them as its `files`")
    _require_texts(path, [*files, *(n for n in map(data.get, TEXTS) if isinstance(n, str))])
    layout = data.get("layout")
    if not isinstance(layout, str):
        raise _unusable(path, "no word as its `layout`")
    named = (data.get(key) for key in ("policy", "profile"))
    jobs = data.get("jobs")
    return Manifest(
        path,
        tuple(files),
        layout,
        bool(data.get("live")),
        jobs if isinstance(jobs, int) else None,
        tuple(n for n in named if isinstance(n, str) and (path.parent / n).is_file()),
    )


def _said(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        found = error.strerror if isinstance(error, OSError) else "no UTF-8"
        raise _unusable(path, f"none to read: {found}") from error
    except (yaml.YAMLError, ValueError, TypeError, LookupError, RecursionError) as error:
        raise _unusable(path, f"no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise _unusable(path, "no mapping in it")
    return data


def _require_texts(path: Path, texts: list[str]) -> None:
    if any("\0" in text or not is_text(text) for text in texts):
        raise _unusable(path, "a text in it that no path and no name can be")


def _unusable(path: Path, found: str) -> StageError:
    return StageError(
        f"expected the fleet's manifest {path}, found {found}",
        advice="set `fleet` in the stage file to a manifest; docs/how-to/fleet.md has an example",
    )


def require(path: Path) -> Manifest:
    """The manifest, of a fleet that a stage can move. StageError for any other."""
    manifest = read(path)
    if manifest.live:
        raise StageError(
            f"expected a fleet whose files stand still, found `live` in {path}: a stage does not "
            "follow the files of a fleet",
            advice="leave `live` out and stop the applications while their files move, or run "
            "`migration-job fleet`, `fleet-sync` and `fleet-switch` by hand, as "
            "docs/how-to/fleet-live.md says",
        )
    if manifest.layout not in LAYOUTS:
        raise StageError(
            f"expected `layout: {'` or `layout: '.join(LAYOUTS)}` in {path}, found "
            f"{manifest.layout}: a stage has one database",
            advice="choose one of these, or run `migration-job fleet` by hand against a server of "
            "your own",
        )
    folder = os.path.normpath(path.parent)
    for name in (*manifest.files, *manifest.beside):
        whole = os.path.normpath(path.parent / name)
        if not whole.startswith(f"{folder.rstrip('/')}/"):
            raise StageError(
                f"expected the fleet's files below {folder}, found {name} in {path}",
                advice="that directory alone is mounted in the job's container: put the manifest "
                "into one above all of its files",
            )
    try:
        matching(manifest.files, path.parent)
    except InputError as error:
        raise StageError(error.message, advice=error.advice) from error
    return manifest


def digest(manifest: Manifest) -> str:
    """What changes when the manifest does, or a file that it names beside the sources."""
    folder = manifest.path.parent
    contents = [manifest.path.read_bytes(), *((folder / n).read_bytes() for n in manifest.beside)]
    return hashlib.sha256(b"".join(hashlib.sha256(one).digest() for one in contents)).hexdigest()


def fingerprint_of(path: Path) -> str:
    """What changes when one of the fleet's files is written to, comes or goes; '' where the
    manifest or all files are gone."""
    try:
        names = matching(read(path).files, path.parent)
    except (StageError, InputError):
        return ""
    lines = (f"{name} {mark_of(path.parent / name)}\n" for name in names)
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def written_at(path: Path) -> float:
    """When the file or its log was last written to; 0 where it is gone."""
    times = [0.0]
    for file in with_log(path):
        with contextlib.suppress(OSError):
            status = file.stat()
            times += [status.st_mtime] if status.st_size else []
    return max(times)


# ------------------------------------------------------------------------- the stage's directories


def prepare(paths: Paths, *, dry_run: bool) -> str:
    """Make the stage's directories (unless ``dry_run``); returns ``uid:gid`` of the manifest's
    owner, whom the job's containers run as: it has to be able to read every file."""
    status = paths.source.stat()
    if not dry_run:
        stage_paths.make_directories(paths, status.st_uid, status.st_gid, names_source=False)
        (paths.job / MARK).write_text(f"{paths.source}\n", encoding="utf-8")
    return f"{status.st_uid}:{status.st_gid}"


def require_one_kind(paths: Paths, *, fleet: bool) -> None:
    """StageError where the stage's directory is of a stage that moves the other of one file and a
    fleet: what the connection says of one is nothing to the other."""
    mark = paths.job / MARK
    try:
        marked = mark.exists()
    except OSError as error:
        raise StageError(
            f"expected to be able to check for {mark}, found: {error.strerror}",
            advice="run pulumi as the application's user or as root",
        ) from error
    if fleet == marked or (fleet and read_connection(paths.connection) is None):
        return
    was, now = ("`source`", "`fleet`") if fleet else ("`fleet`", "`source`")
    raise StageError(
        f"expected {was} in the stage file, as this stage was begun, found {now}",
        advice=f"give the new one a stage of its own. Or `make down` first, with {was} set again, "
        f"and then move {paths.state} away",
    )


def jobs(manifest: Manifest, memory: int) -> int:
    """Files at a time that the job's container has room for, and its role sessions."""
    room = max(1, memory // WORKER_BYTES)
    return min(manifest.jobs or MOST_JOBS, MOST_JOBS, room)
