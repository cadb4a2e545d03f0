"""``report.html`` as text: what it says, and that nothing foreign can become markup."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from migration_job.report.forms import literal, prose, shown, visible
from migration_job.report.html import ROWS_SHOWN, render_html, write_html
from migration_job.report.model import (
    Certificate,
    Difference,
    LedgerItem,
    QuarantineItem,
    Report,
    TableCertificate,
    TableReport,
)

HOSTILE = [
    "<script>document.title='taken'</script>",
    "</script><img src=x onerror=alert(1)>",
    "\"' onmouseover='alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "<!-- ",
    "]]>&lt;b&gt;",
    "javascript:alert(1)",
    "`<img src=x onerror=alert(1)>`",
]


def report(**changes: Any) -> dict[str, Any]:
    return {
        "outcome": "verified",
        "phase": "verified",
        "run_id": "0192",
        "source": "/data/radcase.db",
        "profile": "none",
        "seconds": {"snapshot": 0.2, "copy": 3.25, "verify": 75.0},
        "tables": {
            "cases": {
                "source_rows": 26,
                "target_rows": 25,
                "quarantined_rows": 1,
                "differences": 0,
            },
            "tags": {"source_rows": 2, "target_rows": 2, "quarantined_rows": 0, "differences": 0},
        },
        "ledger": [
            {
                "table": "cases",
                "key": {"id": 7},
                "column": "score",
                "before": {"real": "2.5"},
                "after": "2.5",
                "rule": "text",
            },
            {
                "table": "cases",
                "key": {"id": 8},
                "column": "note",
                "before": "NULL",
                "after": None,
                "rule": "map",
            },
        ],
        "quarantine": [
            {"table": "cases", "key": [9], "reason": "NUL in text", "row": {"title": "a\x00b"}}
        ],
        "findings": [
            {"code": "note-of-it", "severity": "note", "message": "decided"},
            {
                "code": "nul-in-text",
                "severity": "error",
                "table": "cases",
                "column": "title",
                "message": "one text holds NUL",
                "count": 1,
                "keys": ["9"],
                "settle": "tables:\n  cases:\n    title: quarantine\n",
            },
        ],
        "certificate": {"digest": "abc", "tables": {"cases": {"rows": 25}}},
        **changes,
    }


def text_of(page: str) -> str:
    body = re.sub(r"<(style|script)>.*?</\1>", "", page, flags=re.S)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", body)))


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_says_what_happened() -> None:
    said = text_of(render_html(report()))
    assert "Verified" in said
    assert (
        "27 rows in 2 tables were copied to PostgreSQL and compared with the source: "
        "nothing differs but what the ledger holds." in said
    )
    assert "2 values changed by a rule are in the ledger; 1 row is in the quarantine." in said
    assert "1 min 18 s in all" in said
    assert "title: quarantine" in said
    # The error comes before the note, whatever their order in the report.
    assert said.index("one text holds NUL") < said.index("decided")


def test_a_text_that_says_null_is_not_null() -> None:
    rows = re.findall(r"<td class=\"value\"><bdi>([^<]*)</bdi>", render_html(report()))
    assert "&#39;NULL&#39;" in rows
    assert "NULL" in rows


@pytest.mark.parametrize("outcome", ["verified", "blocked", "failed", "never heard of"])
@pytest.mark.parametrize("empty", [True, False])
def test_any_end_has_a_page(outcome: str, empty: bool) -> None:
    given = {"outcome": outcome} if empty else report(outcome=outcome, message="cut <off>")
    said = text_of(render_html(given))
    assert outcome.capitalize() in said
    if outcome != "verified":
        assert "compared with the source" not in said
    if empty:
        assert "the connection must not be switched" in said
    elif outcome != "verified":
        assert "cut <off>" in said


def test_a_report_without_anything_has_a_page() -> None:
    assert "Unfinished" in text_of(render_html({}))


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_foreign_becomes_markup(text: str) -> None:
    plain = Tags()
    plain.feed(render_html(_with("harmless")))
    hostile = Tags()
    page = render_html(_with(text))
    hostile.feed(page)
    # Between two backticks a sentence has code, and nothing else.
    names = [
        [(tag, sorted(attributes)) for tag, attributes in t.found if tag != "code" or attributes]
        for t in (plain, hostile)
    ]
    assert names[0] == names[1]
    # Twenty places carry the text; every one of them shows it, none interprets it.
    assert text_of(page).count(re.sub(r"\s+", " ", text).strip()) >= 15


def _with(text: str) -> dict[str, Any]:
    return report(
        source=text,
        profile=text,
        outcome="failed",
        message=text,
        seconds={text: 1.0},
        tables={text: {"source_rows": 1, "target_rows": 1, "differences": 0}},
        ledger=[
            {"table": text, "key": {text: text}, "column": text, "before": text, "after": text}
        ],
        quarantine=[{"table": text, "key": text, "reason": text, "row": {text: text}}],
        findings=[{"code": text, "severity": text, "table": text, "message": text, "settle": text}],
        certificate={text: text, "nested": {text: [text]}},
        checks=[{"name": text, "differences": [text]}],
        differences=[{"kind": text, "table": text, "key": [text], "column": text, "message": text}],
        performance={"failures": [text], "not_measured": [text], "queries": [], "loads": []},
        tuning={text: {"value": text, "reason": text}},
    )


def test_loads_nothing_from_anywhere() -> None:
    page = render_html(report())
    tags = Tags()
    tags.feed(page)
    for tag, attributes in tags.found:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base", "form")
        assert not {"src", "srcset", "style"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes)
        assert (attributes.get("href") or "#").startswith("#")
    assert "url(" not in page
    assert "@import" not in page


def test_the_policy_names_the_hashes_of_what_is_inside() -> None:
    page = render_html(report())
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    for tag in ("style", "script"):
        content = re.search(f"<{tag}>(.*?)</{tag}>", page, re.S)
        assert content is not None
        digest = base64.b64encode(hashlib.sha256(content[1].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy[1]
    assert "default-src 'none'" in policy[1]


def test_many_rows_are_cut_and_the_cut_is_said() -> None:
    row = {"table": "t", "key": 1, "column": "c", "before": 1, "after": "1", "rule": "text"}
    said = text_of(render_html(report(ledger=[row] * (ROWS_SHOWN + 5))))
    assert f"The first {ROWS_SHOWN:,} are shown; 5 more are in report.json." in said


def test_what_cannot_be_seen_is_written_out() -> None:
    assert visible("a\u202eb\u200b\x00\n\ud800") == "a\\u202eb\\u200b\\x00\\n\\ud800"
    assert visible("Zoë 中 😀 e\u0301") == "Zoë 中 😀 e\u0301"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "NULL"),
        (True, "true"),
        (12, "12"),
        ({"real": "1e+308"}, "1e+308"),
        ({"blob": "00ff"}, "x'00ff'"),
        ({"broken_text": "ff"}, "text x'ff'"),
        ({"a": 1, "b": "x"}, "a: 1, b: 'x'"),
        ([1, "x", None], "1, 'x', NULL"),
        ("x" * 400, "x" * 300 + "… (cut)"),
    ],
)
def test_values_as_people_read_them(value: object, text: str) -> None:
    assert shown(value) == text


def test_text_is_quoted_where_it_could_be_taken_for_something_else() -> None:
    assert literal("12") == "'12'"
    assert literal(12) == "12"


def test_a_report_as_the_job_makes_it_has_a_page() -> None:
    """The model's own field names, so that a renamed field is noticed here."""
    made = Report(
        outcome="failed",
        phase="copied",
        message="verification found 1 difference",
        run_id="run-1",
        began_at="2026-01-01T00:00:00Z",
        tables={"t": TableReport(target="t", source_rows=3, target_rows=2, ledger_entries=4)},
        ledger=[
            LedgerItem(table="t", key=[1], column="c", rule="map-rule", before="b4", after="af")
        ],
        ledger_count=9,
        quarantine=[QuarantineItem(table="t", key=[2], reason="no date", row={"c": "kept"})],
        quarantine_count=8,
        differences=[
            Difference(kind="value", table="t", key=[3], source="'x'", target="'y'", message="off")
        ],
        difference_count=7,
        certificate=Certificate(
            run_id="run-1",
            job_version="1",
            plan_digest="plan-digest",
            source="s",
            snapshot_sha256="snapshot-digest",
            position=None,
            tables={
                "t": TableCertificate(rows=3, quarantined=1, compared="digest", digest="row-digest")
            },
            ledger_count=9,
            ledger_digest="l",
            quarantine_count=8,
            quarantine_digest="q",
            relations={"foreign-key": 2},
            deep=False,
            target_version="14.19",
            durable=True,
            began_at="",
            issued_at="",
            digest="certificate-digest",
        ),
        tuning={"shared_buffers": "256MB"},
    )
    said = text_of(render_html(made))
    for words in (
        *("Failed", "verification found 1 difference", "run-1", "2026-01-01 00:00:00 UTC"),
        *("map-rule", "'b4'", "'af'", "9 values changed", "no date", "c: 'kept'", "8 rows set"),
        *("'x'", "'y'", "off", "6 more are in report.json", "plan-digest", "snapshot-digest"),
        *("row-digest", "foreign key 2", "certificate-digest", "shared_buffers 256MB"),
    ):
        assert words in said, words


def test_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_html(report(), path)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write_html(report(seconds={"copy": []}), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("outcome", "phase", "title"),
    [
        ("failed", "copied", "Failed"),
        ("failed", "verified", "Failed"),
        ("verified", "verified", "Verified"),
        ("verified", "switched", "Switched"),
    ],
)
def test_a_run_that_failed_says_after_which_phase(outcome: str, phase: str, title: str) -> None:
    """And not that it "reached" one, which reads as a success."""
    page = render_html({"outcome": outcome, "phase": phase, "message": "the disk is full"})
    assert f"<h1>{title}" in page or f">{title}</" in page
    said = f"This run stopped after the phase: {phase}."
    assert (said in page) == (outcome == "failed")
    assert "was reached" not in page


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "before anything was read"),
        ({"tables": {"t": {"source_rows": 2}}}, "before anything was copied"),
        ({"seconds": {"snapshot": 0.1, "plan": 0.2}, "phase": "prepared"}, "after the phase: plan"),
        (
            {"seconds": {"plan": 0.2, "copy": 0.2}, "stopped_in": "copy", "phase": "prepared"},
            "in the phase: copy",
        ),
    ],
)
@pytest.mark.parametrize("command", ["migrate", "verify"])
def test_a_run_that_failed_says_where_it_stopped(
    given: dict[str, Any], said: str, command: str
) -> None:
    page = text_of(render_html({"outcome": "failed", "command": command, **given}))
    assert f"This run stopped {said}." in page


def test_a_run_that_read_nothing_claims_nothing_of_the_source() -> None:
    """Nor one that did not come to compare, of values and of rows set aside."""
    nothing = text_of(render_html({"outcome": "failed", "message": "connection refused"}))
    for word in ("rows in the source", "0 tables", "in the ledger", "in quarantine"):
        assert word not in nothing
    cut_off = text_of(
        render_html({"outcome": "failed", "tables": {"t": {"source_rows": 2, "target_rows": None}}})
    )
    assert "2 rows in the source" in cut_off
    for page in (nothing, cut_off):
        for claim in ("bit for bit", "set aside", "Ledger 0", "Quarantine 0"):
            assert claim not in page
    verified = text_of(render_html({"outcome": "verified"}))
    assert "0 rows in 0 tables" in verified
    assert "there was no value to compare" in verified
    assert "No value was copied." in verified
    assert "bit for bit" not in verified


def test_one_row_is_told_as_one() -> None:
    tables = {"t": {"source_rows": 1, "target_rows": 1}}
    said = text_of(render_html({"outcome": "verified", "tables": tables}))
    assert "1 row in 1 table was copied to PostgreSQL" in said


def test_a_verification_says_that_it_compared() -> None:
    """It copied nothing, and made no backup."""
    times = {"began_at": "2026-01-01T00:00:00Z", "ended_at": "2026-01-01T00:00:05Z"}
    given = {"seconds": {"verify": 1.0}, "phase": "switched", **times}
    pages = {
        command: text_of(render_html(report(ledger=[], quarantine=[], command=command, **given)))
        for command in ("migrate", "verify")
    }
    assert "start, backup and report" in pages["migrate"]
    verified = pages["verify"]
    for word in ("copied", "backup", "migration report", "report.json"):
        assert word not in verified, word
    for word in (
        "verification report",
        "start and report",
        "verify.json",
        "compared with the source",
    ):
        assert word in verified, word
    assert "The migration's phase: switched." in verified


def test_times_are_in_whole_milliseconds() -> None:
    page = render_html(
        {"outcome": "verified", "seconds": {"a": 0.000093, "b": 0.0578, "c": 0.9996, "d": 0.0}}
    )
    found = re.findall(r'<td class="number">([^<]*)</td><td><svg', page)
    assert found == ["&lt;1 ms", "58 ms", "1.0 s", "0 ms"]


def test_a_failed_run_shows_what_differs_first_and_a_blocked_one_what_would_resolve_it() -> None:
    page = render_html(
        {
            "outcome": "failed",
            "differences": [{"kind": "value", "table": "a", "message": "differs"}],
            "findings": [{"severity": "error", "code": "c", "message": "m", "settle": "a: b"}],
            "tables": {
                "calm": {"source_rows": 2, "target_rows": 2, "differences": 0},
                "wrong": {"source_rows": 3, "target_rows": 3, "differences": 1},
            },
            "ledger": [
                {"table": "a", "column": "n", "rule": rule} for rule in ("map", "time", "time")
            ],
        }
    )
    assert page.index('id="differences"') < page.index('id="findings"')
    assert "<details open><summary>what would resolve it</summary>" in page
    assert page.index("wrong</bdi>") < page.index("calm</bdi>")
    assert '<th scope="row">in all</th><td class="number">5</td>' in page
    groups = page[page.index('id="ledger-groups"') : page.index('id="search-ledger-rows"')]
    assert groups.index("time") < groups.index("map")
    assert 'data-sort="2">2</td>' in groups


@pytest.mark.parametrize(
    ("sentence", "there"),
    [
        (
            "say `inspect --suggest`, then `migrate`",
            "say <code>inspect --suggest</code>, then <code>migrate</code>",
        ),
        ("column `a<b", "column `a&lt;b"),
        ("`` is empty", "`` is empty"),
        ("`<b>`", "<code>&lt;b&gt;</code>"),
        ("`\u202e`", "<code>\\u202e</code>"),
    ],
)
def test_what_a_sentence_names_between_backticks_is_code(sentence: str, there: str) -> None:
    assert prose(sentence) == there
