"""The sentences of a page of Markdown: what ``tests/unit/test_sentences.py`` counts words in.

``python -m tools.sentences [PAGE ...]`` prints each one that has more than :data:`MOST_WORDS`, by
default those of every page of :func:`pages`. The exit status is then 1.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

MOST_WORDS = 30
"""Of one sentence. The goal is 25."""

FENCE = re.compile(r"^ *(```|~~~).*?^ *\1 *$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
TABLE_OR_HEADING = re.compile(r"^ *(\|.*|#.*|!\[.*)$", re.MULTILINE)
ITEM = re.compile(r"^ *(?:[-*]|\d+\.) +", re.MULTILINE)
SPAN = re.compile(r"(`+)(?:.|\n)+?\1")
LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
END = re.compile(r"(?<!e\.g\.)(?<!i\.e\.)(?<=[.?!])[\"')*]*\s+(?=\S)")


def pages() -> list[Path]:
    """README, CONTRIBUTING and each page below docs/, sorted. docs/benchmarks.md is not among them:
    ``make bench`` writes it."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")]
    return sorted(path for path in found if path != ROOT / "docs" / "benchmarks.md")


def sentences(text: str) -> Iterator[str]:
    """Each sentence outside of tables, headings and code, on one line. A span of code and the text
    of a link stand in it as they are written. Items of a list end a sentence."""
    text = TABLE_OR_HEADING.sub("\n", COMMENT.sub("\n", FENCE.sub("\n", text)))
    # An indented line after an empty one is code.
    text = re.sub(r"(?<=\n\n)(?: {4}.*(?:\n|$))+", "\n", text)
    text = ITEM.sub("\n\n", text)
    for block in re.split(r"\n\s*\n", text):
        yield from _of_block(block)


def _of_block(block: str) -> Iterator[str]:
    # A span of code may hold what would end a sentence, so it is hidden while they are split.
    spans: list[str] = []

    def hidden(match: re.Match[str]) -> str:
        spans.append(" ".join(match[0].split()))
        return f"`{len(spans) - 1}`"

    flat = " ".join(LINK.sub(r"\1", SPAN.sub(hidden, block)).split())
    for sentence in END.split(flat):
        if sentence:
            yield re.sub(r"`(\d+)`", lambda match: spans[int(match[1])], sentence)


def words(sentence: str) -> int:
    """How many words it has. A span of code is one."""
    return sum(1 for word in SPAN.sub("code", sentence).split() if re.search(r"\w", word))


def long_sentences(text: str) -> list[tuple[int, str]]:
    """Those with more than :data:`MOST_WORDS`, each with its number of words."""
    counted = ((words(sentence), sentence) for sentence in sentences(text))
    return [(count, sentence) for count, sentence in counted if count > MOST_WORDS]


def main(arguments: Sequence[str]) -> int:
    """Print the long sentences of the pages. Returns 1 where there are any."""
    chosen = [Path(name) for name in arguments] or pages()
    found = 0
    for path in chosen:
        for count, sentence in long_sentences(path.read_text(encoding="utf-8")):
            print(f"{path}: {count} words: {sentence}")
            found += 1
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
