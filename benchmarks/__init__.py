"""The peers and this project, side by side in one run: ``python -m benchmarks`` or ``make bench``.

Every figure in docs/benchmarks.md comes from here. A benchmark is no test: nothing fails for being
slow, the page says what was met and what was missed.
"""
