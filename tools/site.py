"""``python -m tools.site``: build the documentation as a site, and check each of its links.

The pages are the files of this repository. README.md is the home page; what a page links to that
is no page (a test, an example, a stage's file) is shown as text. Nothing is loaded from elsewhere.
Runs in the environment that ``tools/setup site`` makes, with the standard library and zensical.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "site"
LINK = re.compile(r"\]\(([^)\s#]*)(#[^)\s]*)?\)")
FENCE = re.compile(r"^(```.*?^```)", re.MULTILINE | re.DOTALL)
UNDER_ITEM = re.compile(r"^ {3}(?=(?: {4})?\S)", re.MULTILINE)
ITEM = re.compile(r"(?:[-*]|\d+\.) ")
PICTURES = (".svg", ".png")
MOVED = {"README.md": "index.md"}
NAV: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Start", ("README.md", "docs/tutorial.md", "docs/comparison.md")),
    ("How to", ()),
    (
        "Reference",
        ("docs/commands.md", "docs/settings.md", "docs/policy.md", "docs/types.md"),
    ),
    (
        "What holds",
        (
            *("docs/guarantees.md", "docs/pitfalls.md", "docs/support-matrix.md"),
            *("docs/applications.md", "docs/benchmarks.md", "docs/clusters.md"),
            "docs/security.md",
        ),
    ),
    ("How it works", ("docs/design.md", "docs/decisions/")),
    ("Project", ("CONTRIBUTING.md", "CHANGELOG.md")),
)
"""The sections and their pages; "How to" has the groups of its own index."""
SETTINGS = """\
[project]
site_name = "sqlite-to-postgresql"
site_description = {description}
docs_dir = "pages"
site_dir = "built"
use_directory_urls = false
copyright = "Apache 2.0"
nav = {nav}

[project.theme]
language = "en"
font = false
features = ["navigation.tabs", "navigation.indexes", "navigation.top", "search.highlight",
    "content.code.copy"]

[[project.theme.palette]]
media = "(prefers-color-scheme)"
toggle = {{ icon = "lucide/sun-moon", name = "Light" }}

[[project.theme.palette]]
media = "(prefers-color-scheme: light)"
scheme = "default"
toggle = {{ icon = "lucide/sun", name = "Dark" }}

[[project.theme.palette]]
media = "(prefers-color-scheme: dark)"
scheme = "slate"
toggle = {{ icon = "lucide/moon", name = "As the system" }}

[project.extra]
generator = false

[project.markdown_extensions.tables]
[project.markdown_extensions.sane_lists]
[project.markdown_extensions.toc]
permalink = true
slugify = {{ object = "pymdownx.slugs.slugify", kwds = {{ case = "lower" }} }}
[project.markdown_extensions.pymdownx.highlight]
[project.markdown_extensions.pymdownx.superfences]
"""


def main() -> int:
    """Build the site into ``site/`` (or ``--output``); the process's exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=OUTPUT, help="where the site goes")
    output = parser.parse_args().output
    with tempfile.TemporaryDirectory(prefix="site-") as scratch:
        home = Path(scratch)
        lay_out(ROOT, home)
        built = build(home)
        dead = dead_links(built)
        if dead:
            print("\n".join(dead[:20]), file=sys.stderr)
            print(f"error: {len(dead)} links of the site lead nowhere", file=sys.stderr)
            return 1
        shutil.rmtree(output, ignore_errors=True)
        shutil.copytree(built, output)
    count = len(list(output.rglob("*.html")))
    print(f"{count} pages; open {output / 'index.html'}, or: python3 -m http.server -d {output}")
    return 0


# --------------------------------------------------------------------- from the repository's files


def lay_out(root: Path, home: Path) -> None:
    """The pages, what they link to, and the settings, as zensical wants them, in ``home``."""
    pages = {source: address(source) for source in sources(root)}
    for source, place in pages.items():
        target = home / "pages" / place
        target.parent.mkdir(parents=True, exist_ok=True)
        text = (root / source).read_text(encoding="utf-8")
        target.write_text(linked(text, source, Linked(root, home, pages)), encoding="utf-8")
    description = (root / "README.md").read_text(encoding="utf-8").split("\n\n")[1].strip()
    settings = SETTINGS.format(description=json.dumps(description), nav=toml(nav(root, pages)))
    (home / "zensical.toml").write_text(settings, encoding="utf-8")


def sources(root: Path) -> list[str]:
    """Every page, by its path in the repository."""
    found = [*root.glob("*.md"), *root.glob("docs/**/*.md")]
    return sorted(path.relative_to(root).as_posix() for path in found)


def address(source: str) -> str:
    """Where a page of the repository is on the site; an index is ``index.md`` there."""
    inside = source.removeprefix("docs/")
    path = PurePosixPath(inside)
    return str(path.with_name(MOVED.get(path.name, path.name.lower())))


class Linked:
    """Where the links of the repository's pages lead on the site; copies what is no page."""

    def __init__(self, root: Path, home: Path, pages: dict[str, str]) -> None:
        self._root, self._home, self._pages = root, home, pages

    def place(self, source: str, link: str) -> str:
        """The link of a page as the site has it.

        Raises:
            SystemExit: nothing is there.
        """
        named = os.path.normpath(str(PurePosixPath(source).parent / unquote(link)))
        place = self._pages.get(named) or self._copied(source, link, named)
        return os.path.relpath(place, str(PurePosixPath(address(source)).parent))

    def _copied(self, source: str, link: str, named: str) -> str:
        file = self._root / named
        if named.startswith("..") or not file.is_file():
            raise SystemExit(f"error: {source} links to {link}, and no such file is there")
        picture = file.suffix in PICTURES
        place = named.removeprefix("docs/") if picture else f"files/{named}.txt"
        target = self._home / "pages" / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
        return place


def linked(text: str, source: str, places: Linked) -> str:
    """A page's text with its links as the site has them, and its lists as the site reads them.
    Fenced code is left alone."""

    def replaced(match: re.Match[str]) -> str:
        link, anchor = match[1], match[2] or ""
        if link and not urlsplit(link).scheme:
            link = places.place(source, link)
        return f"]({link}{anchor})"

    pieces = FENCE.split(text)
    pieces[::2] = [listed(LINK.sub(replaced, piece)) for piece in pieces[::2]]
    return "".join(pieces)


def listed(text: str) -> str:
    """Lists as a forge reads them, for Python's Markdown: it wants an empty line before a list, and
    four spaces before what hangs under an item, where a forge takes three."""
    lines: list[str] = []
    for line in UNDER_ITEM.sub("    ", text).split("\n"):
        before = lines[-1] if lines else ""
        if ITEM.match(line) and before.strip() and not ITEM.match(before):
            lines.append("")
        lines.append(line)
    return "\n".join(lines)


def nav(root: Path, pages: dict[str, str]) -> list[dict[str, object]]:
    """The sections with their pages.

    Raises:
        SystemExit: a page is in no section, so that nobody would find it.
    """
    found: list[dict[str, object]] = []
    seen: set[str] = set()
    for title, names in NAV:
        inside = list(chosen(names, pages)) if names else ["docs/how-to/README.md"]
        seen.update(inside)
        entries: list[object] = [entry(name, pages) for name in inside]
        if not names:
            for group, members in how_to(root).items():
                entries.append({group: [pages[name] for name in members]})
                seen.update(members)
        found.append({title: entries})
    if missing := sorted(pages.keys() - seen):
        raise SystemExit(f"error: {', '.join(missing)} in no section of the site: see tools/site")
    return found


def entry(name: str, pages: dict[str, str]) -> object:
    """A page in the list of its section, under its own heading, and the README as the home page."""
    return {"Home": pages[name]} if name == "README.md" else pages[name]


def chosen(names: tuple[str, ...], pages: dict[str, str]) -> Iterator[str]:
    """The pages named, and for a folder its index and then all of its pages."""
    for name in names:
        inside = [page for page in pages if page.startswith(name)] if name[-1] == "/" else [name]
        yield from sorted(inside, key=lambda page: (not page.endswith("README.md"), page))


def how_to(root: Path) -> dict[str, list[str]]:
    """The groups of the how-to index, each with its pages in their order."""
    groups: dict[str, list[str]] = {}
    for line in (root / "docs/how-to/README.md").read_text(encoding="utf-8").splitlines():
        if group := re.match(r"\| \*\*(.+)\*\*", line):
            members = groups.setdefault(group[1], [])
        elif page := re.match(r"\| \[([^\]]+)\]", line):
            members.append(f"docs/how-to/{page[1]}")
    return groups


def toml(value: object) -> str:
    """Lists, tables with one key, and text as TOML writes them in a line."""
    if isinstance(value, list):
        return "[" + ", ".join(toml(one) for one in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + "}"
    return json.dumps(value)


# ----------------------------------------------------------------------------------- the site


def build(home: Path) -> Path:
    """Have zensical build what :func:`lay_out` has put there; where the site is.

    Raises:
        SystemExit: zensical is not there, or did not take a page or a link.
    """
    program = Path(sys.executable).with_name("zensical")
    if not program.exists():
        raise SystemExit("error: expected zensical beside Python, found none: run `make site`")
    done = subprocess.run(  # noqa: S603 - pinned in uv.lock
        [str(program), "build", "--clean", "--strict"],
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"error: the site could not be built\n{done.stdout}{done.stderr}")
    return home / "built"


class Page(HTMLParser):
    """What a page links to and loads, and the names of its places."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep what the tag refers to and what it is called."""
        given = {name: value or "" for name, value in attrs}
        self.places.update(given[name] for name in ("id", "name") if name in given)
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") != "canonical" and "href" in given:
            self.loaded.append(given["href"])
        elif "src" in given:
            self.loaded.append(given["src"])


def dead_links(built: Path) -> list[str]:
    """Each link of the site that leads nowhere, place within a page included; and what a page
    loads from elsewhere."""
    pages = {
        path: Page(path.read_text(encoding="utf-8"))
        for path in sorted(built.rglob("*.html"))
        if path.name != "404.html"  # shown at any address, so that its own are absolute
    }
    found = []
    for path, page in pages.items():
        name = path.relative_to(built)
        found += [f"{name} loads {one}" for one in page.loaded if urlsplit(one).netloc]
        for link in (*page.links, *page.loaded):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                found.append(f"{name}: {link}: no such file")
                continue
            named = unquote(parts.fragment)
            if named and target in pages and named not in pages[target].places:
                found.append(f"{name}: {link}: no such place on that page")
    return found


if __name__ == "__main__":
    sys.exit(main())
