"""The benchmark that says what the data source adds to a row runs where PySpark is."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "spark_rows.py"


def test_it_prints_its_lines() -> None:
    """Each with its CPU time."""
    pytest.importorskip("pyspark", reason="PySpark is not installed: .ci/run has an environment for these tests")
    command = [sys.executable, str(PROGRAM), "--rows", "100", "--rounds", "1"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    assert 4 == len(re.findall(r"^\| [a-z].* \| +[0-9.]+ \| +[0-9.]+ to [0-9.]+ \|$", printed, re.MULTILINE)), printed
