"""``report.html`` in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from migration_job.report.html import write_html
from migration_job.report.model import Step
from tests.browser import Browser
from tests.unit.test_moves import SWITCH

NAME = "\"><script>document.title='taken'</script><b onmouseover=x>"


def report() -> dict[str, Any]:
    return {
        "outcome": "verified",
        "phase": "verified",
        "run_id": "8c1f",
        "source": NAME,
        "seconds": {"snapshot": 0.12, "copy": 2.5, "verify": 1.0},
        "tables": {
            name: {"source_rows": n, "target_rows": n, "quarantined_rows": 0, "differences": 0}
            for name, n in (("cases", 9), ("images", 100), ("tags", 26), (NAME, 1))
        },
        "ledger": [
            {
                "table": "cases",
                "key": {"id": n},
                "column": "difficulty",
                "before": f"before {n}",
                "after": NAME if n == 7 else f"after {n}",
                "rule": "map",
            }
            for n in range(40)
        ],
        "quarantine": [{"table": NAME, "key": NAME, "reason": "NUL in text", "row": {NAME: NAME}}],
        "findings": [
            {
                "code": "nul-in-text",
                "severity": "warning",
                "table": NAME,
                "message": NAME,
                "keys": [NAME],
                "settle": NAME,
            },
            {"code": "type-chosen", "severity": "note", "message": "chose bigint"},
        ],
        "certificate": {"digest": "0f" * 32, NAME: NAME},
    }


MOVES = [
    SWITCH,
    SWITCH.model_copy(
        update={
            "command": "rollback",
            "outcome": "failed",
            "message": NAME,
            "steps": [Step(name="rollback.pause", at_ms=1, took_ms=30, failed=True)],
        }
    ),
]


@pytest.fixture
def page(browser: Browser, tmp_path: Path) -> Browser:
    path = tmp_path / "report.html"
    write_html(report(), path, moves=MOVES)
    browser.open(path.as_uri())
    return browser


def shown_rows(browser: Browser, rows: str) -> list[str]:
    found: list[str] = browser.run(
        "return [...document.getElementById(arguments[0]).children]"
        ".filter(r => r.offsetParent !== null || r.getClientRects().length)"
        ".map(r => r.innerText)",
        rows,
    )
    return found


def test_style_and_script_pass_the_pages_own_policy(page: Browser) -> None:
    assert page.log() == []
    # The script ran: it shows the search boxes, which are hidden without it.
    assert page.run("return document.querySelector('.tools').hidden") is False
    border = "return getComputedStyle(document.getElementById('outcome')).borderLeftStyle"
    assert page.run(border) == "solid"


def test_hostile_names_and_values_are_text(page: Browser) -> None:
    assert "taken" not in page.run("return document.title")
    assert page.run("return document.querySelectorAll('main b, main script, dl b').length") == 0
    assert NAME in page.run("return document.querySelector('#quarantine-rows').innerText")
    assert NAME in page.run("return document.querySelector('#certificate').innerText")


def test_an_injected_script_would_not_run(page: Browser) -> None:
    page.run(
        "const s = document.createElement('script'); s.textContent = 'document.title = \"taken\"';"
        "document.body.append(s);"
        "const i = document.createElement('img'); i.src = 'https://example.invalid/x.png';"
        "document.body.append(i);"
    )
    assert page.run("return document.title") != "taken"
    refused = " ".join(entry["message"] for entry in page.log())
    assert "script-src" in refused
    assert "default-src" in refused


def test_the_ledger_can_be_searched(page: Browser) -> None:
    assert len(shown_rows(page, "ledger-rows")) == 40
    page.type_into("#search-ledger-rows", "after 1")
    assert len(shown_rows(page, "ledger-rows")) == 13
    output = "return document.querySelector('#ledger output').textContent"
    assert page.run(output) == "13 of 40 shown"
    page.type_into("#search-ledger-rows", "before AFTER 13")
    assert [row.split("\t")[3] for row in shown_rows(page, "ledger-rows")] == ["'before 13'"]
    # Only its own table is searched.
    assert len(shown_rows(page, "table-rows")) == 4


def test_tables_can_be_sorted_by_number(page: Browser) -> None:
    head = "#tables th:nth-child(2) button"
    page.click(head)
    first = [row.split("\t")[1] for row in shown_rows(page, "table-rows")]
    page.click(head)
    assert first == ["1", "9", "26", "100"]
    again = [row.split("\t")[1] for row in shown_rows(page, "table-rows")]
    assert again == ["100", "26", "9", "1"]


def test_the_switch_is_a_picture_with_its_times_in_words(page: Browser) -> None:
    wide = page.run(
        "return [...document.querySelectorAll('#moves .strip')[0].children]"
        ".map(r => r.getBoundingClientRect()).map(r => [r.left, r.right, r.height])"
    )
    assert all(height > 10 for _, _, height in wide)
    assert all(right - left >= 1 for left, right, _ in wide)
    lefts = [left for left, _, _ in wide]
    assert lefts == sorted(lefts)
    said = page.run("return document.querySelector('#moves').innerText")
    assert "held for 1,129 ms" in said
    assert NAME in said
    tones = "return getComputedStyle(document.querySelector('#moves .step-held')).fill"
    assert page.run(tones) != "rgb(0, 0, 0)"


def test_print_shows_every_row_and_no_controls(page: Browser) -> None:
    page.type_into("#search-ledger-rows", "after 13")
    page.emulate(media="print")
    try:
        assert len(shown_rows(page, "ledger-rows")) == 40
        display = "return getComputedStyle(document.querySelector('.tools')).display"
        assert page.run(display) == "none"
    finally:
        page.emulate()


def test_light_and_dark(page: Browser) -> None:
    ground = "return getComputedStyle(document.body).backgroundColor"
    page.emulate(**{"prefers-color-scheme": "light"})
    light = page.run(ground)
    page.emulate(**{"prefers-color-scheme": "dark"})
    dark = page.run(ground)
    page.emulate()
    assert light == "rgb(255, 255, 255)"
    assert dark != light


def test_fits_a_narrow_screen(page: Browser) -> None:
    page.resize(400, 800)
    try:
        width = page.run("return [document.documentElement.scrollWidth, window.innerWidth]")
        assert width[0] <= width[1] == 400
    finally:
        page.resize(1200, 1600)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_keeps_people_from_it(page: Browser, axe: str, scheme: str) -> None:
    page.emulate(**{"prefers-color-scheme": scheme})
    try:
        page.run("document.querySelectorAll('details').forEach(d => { d.open = true; })")
        assert page.serious(axe) == []
    finally:
        page.emulate()


def test_a_long_report_has_twelve_pages_in_print(browser: Browser, tmp_path: Path) -> None:
    long = report()
    long["ledger"] = long["ledger"] * 50
    row = {f"column_{n}": "some words of it" for n in range(20)}
    set_aside = {"table": "cases", "key": 1, "reason": "NUL in text", "row": row}
    long["quarantine"] = [set_aside] * 400
    long["findings"] = [
        {"code": "nul-in-text", "severity": "warning", "table": f"t{n}", "message": "so it is"}
        for n in range(15)
    ]
    long["tables"] = {f"table_{n}": {"source_rows": n, "target_rows": n} for n in range(300)}
    path = tmp_path / "report.html"
    write_html(long, path)
    browser.open(path.as_uri())
    assert 4 <= browser.pages() <= 12
    assert "In print the first 40 of 2,000" in browser.run(
        "return document.querySelector('#ledger .printed').textContent"
    )
