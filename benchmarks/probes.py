"""One measurement at a time: a part of an upload or a whole process, as microseconds or seconds of CPU."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from machine import cores, loopback_environment
from measure import ENOUGH, Measured, in_process
from records import write_many

if TYPE_CHECKING:
    from collections.abc import Sequence

SLOWEST = 0.005
"""Seconds a row after which a part is stopped."""


@dataclass(frozen=True, slots=True)
class Parted:
    """A part (see `parts`) with an input: what the file's name ends in, and its rows."""

    part: str
    suffix: str
    rows: int


def measure_part(part: Parted, folder: Path, python: str = sys.executable) -> Measured:
    """Measure a part in a fresh process; raises Failed where not every row came through."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        source = write_many(Path(scratch) / f"devices{part.suffix}", part.rows)
        job: dict[str, object] = {"part": part.part, "source": str(source), "core": cores()[0]}
        return in_process("parts.py", job, python, max(ENOUGH, part.rows * SLOWEST))


def part_cost(part: Parted, folder: Path, python: str = sys.executable) -> float:
    """CPU microseconds a row of a part; raises Failed as `measure_part` does."""
    return measure_part(part, folder, python).cpu * 1e6 / part.rows


def process_cost(arguments: Sequence[str], python: str = sys.executable) -> tuple[float, float]:
    """Run Python with these arguments to its end: CPU seconds, user and system, and seconds on the clock."""
    began = time.perf_counter()
    # -P: what is installed counts, not what lies in the current folder
    process = subprocess.Popen([python, "-P", *arguments], stdout=subprocess.DEVNULL, env=loopback_environment())
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"python {' '.join(arguments)} ended with {process.returncode}")
    return used.ru_utime + used.ru_stime, seconds
