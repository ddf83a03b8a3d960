"""The job in samples/ runs as it stands, in a session of its own, against the sandbox that it brings."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SAMPLES = Path(__file__).parents[2] / "samples"


@pytest.mark.timeout(300)
def test_the_job_delivers_the_samples(tmp_path: Path) -> None:
    """All of them, in two partitions; what it prints is what a person needs to know."""
    pytest.importorskip("pyspark", reason="PySpark is not installed: .ci/run has an environment for these tests")
    command = [sys.executable, str(SAMPLES / "spark_job.py"), str(SAMPLES / "devices.csv"), str(tmp_path), "--sandbox"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MOENGAGE_")}
    environment["JDK_JAVA_OPTIONS"] = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"  # for seconds, not for days
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=280)
    assert 0 == done.returncode, done.stderr[-2000:]
    assert re.fullmatch(r" +read +300\n +accepted +300\n( *[a-z]+ +0\n)+", done.stdout)
    assert ["part-00000-attempt-0.run", "part-00001-attempt-0.run"] == [
        each.name for each in sorted((tmp_path / "sample").glob("*.run"))
    ]
