"""The documentation as a site: every page is on it, and each link is one of the site's."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tools import site

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A checkout with a page of each kind."""
    root = tmp_path / "checkout"
    for name, text in {
        "README.md": "# A\n\nWhat it is.\n\n[how](docs/how-to/README.md) ![p](docs/images/p.svg)",
        "docs/how-to/README.md": "| | |\n|---|---|\n| **Move** | |\n| [a.md](a.md) | a |\n",
        "docs/how-to/a.md": "[home](../../README.md#a) [it](../../tests/test_a.py)\n"
        "```sh\n[no](link.md)\n```\n[there](https://example.org/a.md) [here](#a)",
        "docs/images/p.svg": "<svg/>",
        "tests/test_a.py": "a = 1\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_links_are_those_of_the_site(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "NAV", (("Start", ("README.md",)), ("How to", ())))
    site.lay_out(small, tmp_path)
    pages = tmp_path / "pages"
    assert "[how](how-to/index.md) ![p](images/p.svg)" in (pages / "index.md").read_text()
    assert (pages / "images/p.svg").read_text() == "<svg/>"
    page = (pages / "how-to/a.md").read_text()
    assert "[home](../index.md#a) [it](../files/tests/test_a.py.txt)" in page
    assert "[no](link.md)" in page  # code
    assert "[there](https://example.org/a.md) [here](#a)" in page
    assert (pages / "files/tests/test_a.py.txt").read_text() == "a = 1\n"
    sections = tomllib.loads((tmp_path / "zensical.toml").read_text())["project"]["nav"]
    assert sections == [
        {"Start": [{"Home": "index.md"}]},
        {"How to": ["how-to/index.md", {"Move": ["how-to/a.md"]}]},
    ]


def test_a_link_to_nothing_is_refused(small: Path, tmp_path: Path) -> None:
    (small / "docs/how-to/a.md").write_text("[gone](../../tests/test_b.py)")
    with pytest.raises(SystemExit, match=r"a\.md links to \.\./\.\./tests/test_b\.py"):
        site.lay_out(small, tmp_path)


def test_a_page_in_no_section_is_refused(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site, "NAV", (("Start", ("README.md",)), ("How to", ())))
    (small / "docs/lost.md").write_text("# Lost\n")
    with pytest.raises(SystemExit, match=r"docs/lost\.md in no section"):
        site.lay_out(small, tmp_path)


def test_every_page_of_this_checkout_is_on_the_site(tmp_path: Path) -> None:
    site.lay_out(ROOT, tmp_path)
    pages = {p.relative_to(tmp_path / "pages").as_posix() for p in tmp_path.rglob("*.md")}
    assert len(pages) == len(site.sources(ROOT)) > 50
    settings = tomllib.loads((tmp_path / "zensical.toml").read_text())["project"]
    assert pages == set(_pages_of(settings["nav"]))


def _pages_of(part: object) -> list[str]:
    if isinstance(part, str):
        return [part]
    inside = part.values() if isinstance(part, dict) else part
    assert not isinstance(inside, int)
    return [page for one in inside for page in _pages_of(one)]  # type: ignore[attr-defined]


def test_lists_are_read_as_a_forge_reads_them() -> None:
    text = "You need:\n- one\n  more\n- two\n\n1. a\n\n       code\n\n   text\n2. b\n"
    assert site.listed(text) == (
        "You need:\n\n- one\n  more\n\n- two\n\n1. a\n\n        code\n\n    text\n\n2. b\n"
    )


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ('<a href="b.html#there">b</a>', []),
        ('<a href="gone.html">b</a>', ["a.html: gone.html: no such file"]),
        ('<a href="b.html#gone">b</a>', ["a.html: b.html#gone: no such place on that page"]),
        ('<a href="#gone">b</a>', ["a.html: #gone: no such place on that page"]),
        ('<img src="gone.png">', ["a.html: gone.png: no such file"]),
        ('<a href="https://example.org/">out</a>', []),
        (
            '<script src="https://example.org/a.js"></script>',
            ["a.html loads https://example.org/a.js"],
        ),
        ('<link rel="stylesheet" href="//x.org/a.css">', ["a.html loads //x.org/a.css"]),
    ],
)
def test_what_leads_nowhere_is_found(tmp_path: Path, body: str, found: list[str]) -> None:
    (tmp_path / "a.html").write_text(body)
    (tmp_path / "b.html").write_text('<h1 id="there">b</h1>')
    assert site.dead_links(tmp_path) == found
