"""Whatever a stage file holds, the settings are accepted or refused with a sentence, never more.

What is accepted renders to files in which no value has broken out of its place.
"""

from __future__ import annotations

import string
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra import rendering
from infra.errors import StageError
from infra.names import Names
from infra.settings import Settings, read

KEYS = sorted(str(field.alias) for field in Settings.model_fields.values())
HOSTILE = [
    "'; DROP TABLE cases; --",
    '"\nauth_type = any\n"',
    "{{ 7 * 7 }}",
    "{% for x in y %}",
    "$(touch /tmp/x)",
    "`id`",
    "../../etc/passwd",
    "a\x00b",
    "\x1b]0;x\x07",
    "trust\nhost all all all trust",
    "\u202egpj.exe",
    "512MB'; include '/etc/shadow",
]
TEXTS = st.one_of(
    st.sampled_from(HOSTILE), st.text(max_size=30), st.text(string.printable, max_size=30)
)
VALUES = st.one_of(
    TEXTS,
    st.integers(),
    st.booleans(),
    st.floats(),
    st.none(),
    st.lists(TEXTS, max_size=3),
    st.dictionaries(TEXTS, TEXTS, max_size=3),
)


def accepted(raw: dict[str, object]) -> Settings | None:
    try:
        return read(raw, "Pulumi.fuzz.yaml")
    except StageError as error:
        said = str(error)
        assert "Pulumi.fuzz.yaml" in said
        assert all(c == "\n" or c.isprintable() for c in said), ascii(said)
        return None


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.one_of(st.sampled_from(KEYS), TEXTS), VALUES, max_size=6))
def test_any_stage_file_is_accepted_or_refused_with_a_sentence(raw: dict[str, object]) -> None:
    accepted({"source": "radcase.db", **raw})


def test_a_wrong_secret_is_not_repeated() -> None:
    wrong = {"bucket": "b", "endpoint": "e", "key": "with a space", "keySecret": "with a space"}
    for raw in ({"backupS3": wrong}, {"alertWebhook": "with a space"}):
        with pytest.raises(StageError) as refused:
            read({"source": "radcase.db", **raw}, "Pulumi.test.yaml")
        assert "with a space" not in str(refused.value)


@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["work_mem", "log_line_prefix", "search_path", "listen_addresses"]),
        TEXTS,
        min_size=1,
    ),
    TEXTS,
)
def test_no_value_leaves_its_line(parameters: dict[str, str], network: str) -> None:
    chosen = accepted(
        {
            "source": "radcase.db",
            "postgresqlSettings": parameters,
            "allowedNetworks": [network] if network else [],
        }
    )
    if chosen is None:
        return
    plain = read({"source": "radcase.db"}, "plain")
    names = Names(chosen.application, "fuzz")
    renders: tuple[Callable[[Settings], str], ...] = (
        lambda s: rendering.postgresql_conf(s, "fuzz"),
        lambda s: rendering.pg_hba_conf(s, "fuzz"),
        lambda s: rendering.pgbouncer_ini(s, names, "fuzz"),
    )
    for render in renders:
        before, after = render(plain).splitlines(), render(chosen).splitlines()
        names_before = {line.split("=")[0].strip() for line in before if "=" in line}
        names_after = {line.split("=")[0].strip() for line in after if "=" in line}
        strange = names_after - names_before - set(parameters)
        assert not {name for name in strange if not name.startswith(("#", ";"))}, strange
        assert not any(" trust" in line and not line.startswith("#") for line in after)
