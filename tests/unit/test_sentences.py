"""The documentation is written in short sentences."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.sentences import MOST_WORDS, ROOT, long_sentences, pages, sentences, words

LONG = "This one has " + "very " * (MOST_WORDS - 3) + "many words."


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_sentence_of_a_page_is_long(page: Path) -> None:
    found = long_sentences(page.read_text(encoding="utf-8"))
    assert not found, "\n".join(f"{count} words: {sentence}" for count, sentence in found)


def test_the_pages_are_those_that_people_write() -> None:
    names = {page.relative_to(ROOT).as_posix() for page in pages()}
    assert {"README.md", "CONTRIBUTING.md", "docs/design.md", "docs/how-to/logs.md"} <= names
    assert names.isdisjoint({"CHANGELOG.md", "docs/benchmarks.md"})


@pytest.mark.parametrize(
    "around",
    [
        "{}",
        "Short. {}\nShort.",
        "- short\n- {}\n- short",
        "  1. a thing.\n  2. {}",
        "> {}",
        "**Why.** {}",
        "Short. [{}](page.md)",
        "```sh\nmake\n```\n{}\n```sh\nmake\n```\n",
        "| a | b |\n|---|---|\n| c | d |\n\n{}",
        "An item (as here, e.g. `make`). {}",
    ],
)
def test_a_long_sentence_is_found(around: str) -> None:
    ((count, sentence),) = long_sentences(around.format(LONG))
    assert count > MOST_WORDS
    assert "very very" in sentence


def test_a_long_sentence_over_several_lines_is_found() -> None:
    text = LONG.replace("very very very", "very\nvery `code that\nis split` very", 1)
    ((count, sentence),) = long_sentences(f"Short.\n{text}\nShort.")
    assert count == words(LONG) + 1
    assert "very very `code that is split` very" in sentence


@pytest.mark.parametrize(
    "text",
    [
        f"```\n{LONG}\n```",
        f"Before:\n\n    {LONG}\n\nAfter.",
        f"| a |\n|---|\n| {LONG} |",
        f"# {LONG}",
        f"<!-- {LONG} -->",
        f"`{LONG}`",
        f"[here](https://example.org/{LONG.replace(' ', '/')})",
        LONG.replace("very very", "very. Very"),
        LONG.replace("very very", "very? `very`"),
        "- " + LONG.replace("very very", "very\n- very"),
    ],
)
def test_what_is_no_long_sentence_is_passed_over(text: str) -> None:
    assert long_sentences(text) == []


def test_a_span_of_code_does_not_end_a_sentence() -> None:
    assert list(sentences("It reads `a. B` and *`c`* (e.g. d). Then [it](x.md) ends.")) == [
        "It reads `a. B` and *`c`* (e.g. d).",
        "Then it ends.",
    ]
    assert words("It reads `a b c` – and more.") == 5
