"""docs/benchmarks.md and its plot, made of the results and of nothing else."""

from __future__ import annotations

from pathlib import Path

from benchmarks.results import Results, Row, Sample, Section

ORDER = (
    *(
        "migrate",
        "copy",
        "existing",
        "growth",
        "rules",
        "catchup",
        "distance",
        "capture",
        "pooler",
        "gate",
        "operations",
        "stage",
    ),
    *("shapes", "tuning", "ways"),
)
PLOT = "benchmarks.svg"


def write(results: Results, folder: Path) -> None:
    """Write ``benchmarks.md`` and ``benchmarks.svg`` into ``folder``."""
    (folder / "benchmarks.md").write_text(markdown(results))
    if any(_plotted(s) for s in results.sections.values()):
        plot(results, folder / PLOT)


def markdown(results: Results) -> str:
    """The page."""
    parts = [
        "# Benchmarks\n",
        "Every figure on this page was measured by `make bench` (`python -m benchmarks`), which "
        "generates the data, runs the peers and this project side by side against the same "
        "PostgreSQL, and writes the page again. Compare ratios within one run, not seconds across "
        "machines. All of the project's checks are on in every figure.\n",
        _pairs({**results.machine, **results.settings}),
        "\n## Goals\n",
        _goals(results),
        f"\n![Seconds by way and goals by measurement]({PLOT})\n",
    ]
    for key in (*ORDER, *sorted(set(results.sections) - set(ORDER))):
        section = results.sections.get(key)
        if section is not None:
            parts.append(_section(section))
    return "\n".join(parts).rstrip() + "\n"


def _pairs(pairs: dict[str, str]) -> str:
    lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in pairs.items())]
    return "\n".join(lines)


def _goals(results: Results) -> str:
    rows = [
        row
        for key in ORDER
        if key in results.sections
        for row in results.sections[key].rows
        if row.goal is not None
    ]
    met = sum(bool(row.met) for row in rows)
    lines = [f"{met} of {len(rows)} met.\n", "| what | against | goal | measured | |"]
    lines.append("|---|---|---|---|---|")
    for row in rows:
        verdict = "met" if row.met else "**missed**"
        lines.append(f"| {row.what} | {row.against} | {row.goal} | {_value(row)} | {verdict} |")
    for key in ORDER:
        if key in results.sections and results.sections[key].skipped:
            section = results.sections[key]
            lines.append(f"| {section.title} | | | not measured: {section.skipped} | |")
    return "\n".join(lines)


def _section(section: Section) -> str:
    lines = [f"\n## {section.title}\n"]
    if section.skipped:
        lines.append(f"Not measured: {section.skipped}.\n")
    if section.text:
        lines.append(f"{section.text}\n")
    if section.rows:
        lines += [
            "| what | against | ratio or value | median (least to most) |",
            "|---|---|---|---|",
        ]
        for row in section.rows:
            samples = "; ".join(map(_sample, row.samples))
            remark = f" {row.remark}" if row.remark else ""
            lines.append(f"| {row.what} | {row.against} | {_value(row)} | {samples}{remark} |")
    return "\n".join(lines)


def _value(row: Row) -> str:
    unit = row.goal.unit if row.goal else ""
    if not unit and len(row.samples) == 1:
        unit = row.samples[0].unit
    return f"{number(row.value)}{' ' + unit if unit else ''}"


def _sample(sample: Sample) -> str:
    low, high = min(sample.values), max(sample.values)
    spread = "" if len(sample.values) == 1 else f" ({number(low)} to {number(high)})"
    return f"{sample.label} {number(sample.median)}{spread} {sample.unit}"


def number(value: float) -> str:
    """Three figures that mean something, thousands apart."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _plotted(section: Section) -> bool:
    return section.key in ("migrate", "copy") and bool(section.rows)


def plot(results: Results, path: Path) -> None:
    """Bars of seconds by way on the left; on the right how far each goal was met or missed."""
    import matplotlib

    matplotlib.use("svg")
    # Text stays text, and the file is the same for the same figures.
    matplotlib.rcParams["svg.fonttype"] = "none"
    matplotlib.rcParams["svg.hashsalt"] = "benchmarks"
    from matplotlib import pyplot

    scored = [
        (f"{row.what} ({row.goal})", _score(row))
        for key in ORDER
        if key in results.sections
        for row in results.sections[key].rows
        if row.goal is not None
    ]
    scored.reverse()
    height = max(5.5, 1 + 0.27 * len(scored))
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(14, height), layout="constrained")
    ways = _seconds_by_way(results)
    names = list(ways)
    colours = ["#31688e" if "this project" in name else "#b0b0b0" for name in names]
    bars = left.barh(names, [ways[n] for n in names], color=colours)
    left.bar_label(bars, fmt="%.1f s", padding=3)
    left.set_xlabel("seconds, median (less is better)")
    left.margins(x=0.2)
    # By place, not by title: several rows may have the same.
    right.barh(
        range(len(scored)),
        [score for _, score in scored],
        tick_label=[title for title, _ in scored],
        color=["#35b779" if score >= 1 else "#d1495b" for _, score in scored],
    )
    right.margins(y=0.01)
    right.axvline(1, color="black", linewidth=1)
    right.set_xscale("log")
    right.set_xticks([0.5, 1, 2, 5, 10], labels=["0.5", "1", "2", "5", "10"])
    right.minorticks_off()
    right.tick_params(axis="y", labelsize=7)
    right.set_xlabel("times better than the goal; left of 1 missed")
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _seconds_by_way(results: Results) -> dict[str, float]:
    sections = [results.sections[key] for key in ("copy", "migrate") if key in results.sections]
    # Without something to compare with, a row is a part of a way.
    rows = [row for section in sections for row in section.rows if row.against]
    return {s.label: s.median for row in rows for s in row.samples if s.unit == "s"}


def _score(row: Row) -> float:
    if row.goal is None or row.value <= 0:
        return 1.0
    good = row.value / row.goal.bound
    return good if row.goal.sense == "at least" else 1 / good
