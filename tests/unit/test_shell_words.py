"""A word that an error prints is the text, once a shell has read it from what is shown."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from migration_job import shell_words
from migration_job.log_format import printable


@settings(max_examples=100, deadline=None)
@given(
    st.text(
        st.characters(codec="utf-8", exclude_characters="\0")
        | st.sampled_from("\t\n'\"$`\\ 0123\x1b\x7f\u200b"),
        max_size=12,
    )
)
def test_a_shell_reads_what_is_shown(text: str) -> None:
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    shown = printable(shell_words.word(text))
    read = subprocess.run(["bash", "-c", f"printf %s {shown}"], capture_output=True, check=True)
    assert read.stdout.decode() == text


def test_ordinary_names_are_as_they_were() -> None:
    assert shell_words.word("items") == "items"
    assert shell_words.word("it's") == "'it'\"'\"'s'"
    assert shell_words.word("") == "''"
    assert shell_words.word("tab\there") == "$'tab\\011here'"
    assert shell_words.words(["a b", "c"]) == "'a b' c"
