"""Catch-up of captured changes against one SQLite writer at full speed."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from random import Random

import apsw

from benchmarks.lab import Lab, run_timed
from benchmarks.project import ROOT
from benchmarks.results import Goal, Sample, Section, ratio

GOAL = Goal(sense="at least", bound=2)
CHANGES = 40_000
SOURCE_ROWS = 100_000
