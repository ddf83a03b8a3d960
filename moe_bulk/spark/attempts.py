"""Where a partition's attempts are written, and how one takes over what the one before settled."""

from __future__ import annotations

import os
import re
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from moe_bulk.errors import ConfigError, RunHeld
from moe_bulk.folders import make_parents, open_folder
from moe_bulk.journal import telling
from moe_bulk.lock import hold

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from moe_bulk.spark.rules import Task

_ATTEMPT = re.compile(r"part-([0-9]{5,})-attempt-([0-9]+)\.run")
_ALONE = re.compile(r"part-([0-9]{5,})\.alone")

PATIENCE = 900.0
"""Seconds that an attempt waits for the one before it, which Spark has given up, to end.

Where a stage is begun again for a lost shuffle file, Spark lets its tasks that are at work come to their end.
"""


def run_name(run_id: str | None, task: Task) -> str:
    """The folder of a job, or of a micro-batch of a stream, within `out`: what its attempts have in common."""
    if task.batch is not None:
        query, batch = task.batch
        return f"{query}/{batch_name(batch)}"
    if run_id is None:
        raise ConfigError("a job without a run_id")
    return run_id


def batch_name(batch_id: int) -> str:
    """What a micro-batch's folder is called: in the order of the batches."""
    return f"batch-{batch_id:09}"


def part_name(partition: int) -> str:
    """What all attempts at a partition are called by."""
    return f"part-{partition:05}"


def attempt_name(partition: int, attempt: int) -> str:
    """The run folder of one attempt at a partition, counted from 0 over all jobs of the run."""
    return f"{part_name(partition)}-attempt-{attempt}.run"


def latest_attempt(names: Iterable[str], partition: int) -> int | None:
    """The last attempt at the partition that stands among these names."""
    found = filter(None, map(_ATTEMPT.fullmatch, names))
    return max((int(each[2]) for each in found if int(each[1]) == partition), default=None)


def alone_name(partition: int) -> str:
    """By this file a partition says that it sends, and that nobody else may."""
    return f"{part_name(partition)}.alone"


def others_alone(names: Iterable[str], partition: int) -> list[int]:
    """The other partitions among these names that send."""
    found = (int(each[1]) for each in filter(None, map(_ALONE.fullmatch, names)))
    return sorted(each for each in found if each != partition)


def is_alone_name(name: str) -> bool:
    """Whether it is the file of a partition that sends alone."""
    return _ALONE.fullmatch(name) is not None


def _wait_a_second(waited: float) -> bool:
    """Wait, unless it has been long enough; tell whether to look again."""
    if waited >= PATIENCE:
        return False
    time.sleep(1.0)
    return True


def take_over(parent: Path, partition: int, wait: Callable[[float], bool] = _wait_a_second) -> tuple[Path, int]:
    """The run folder for the next attempt at a partition, and its number.

    The folder of the attempt before is given the new name, so that the run in it goes on. Raises RunHeld where that
    attempt is still at work after a quarter of an hour: then Spark tries once more.
    """
    waited = 0.0
    with telling(parent):
        make_parents(parent)
        while True:
            before = latest_attempt(os.listdir(parent), partition)  # noqa: PTH208  names are all it takes
            if before is None:
                return parent / attempt_name(partition, 0), 0
            try:
                return _renamed(parent, partition, before), before + 1
            except FileNotFoundError:
                continue  # somebody else has taken it over
            except RunHeld:
                if not wait(waited):
                    raise
                waited += 1.0


def _renamed(parent: Path, partition: int, before: int) -> Path:
    old, new = (parent / attempt_name(partition, attempt) for attempt in (before, before + 1))
    with ExitStack() as stack:
        folder = open_folder(stack, str(parent))
        hold(stack, folder, old)
        os.rename(old.name, new.name, src_dir_fd=folder, dst_dir_fd=folder)
    return new
