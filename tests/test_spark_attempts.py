"""Attempts at a partition: what their folders are called, and how one goes on in the next."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from moe_bulk.errors import ConfigError, RunHeld
from moe_bulk.folders import open_folder
from moe_bulk.lock import hold
from moe_bulk.spark.attempts import (
    alone_name,
    attempt_name,
    is_alone_name,
    latest_attempt,
    others_alone,
    run_name,
    take_over,
)
from moe_bulk.spark.rules import Task

if TYPE_CHECKING:
    from pathlib import Path


def test_folders_are_named_by_partition_and_attempt() -> None:
    """In the order of the partitions, and those of a stream in the order of its batches."""
    assert "part-00003-attempt-12.run" == attempt_name(3, 12)
    assert "nightly" == run_name("nightly", Task(3))
    assert "abc/batch-000000007" == run_name(None, Task(3, query_id="abc", batch_id=7))
    with pytest.raises(ConfigError):
        run_name(None, Task(3))


def test_the_latest_attempt_is_found_among_other_things() -> None:
    """Those of other partitions, those that were moved aside and locks do not count."""
    names = [attempt_name(3, each) for each in (0, 2, 10)]
    names += [attempt_name(30, 11), "part-00003-attempt-11.run.lock", "part-00003-attempt-12.run-2026-11-25T20-00-00Z"]
    assert 10 == latest_attempt(names, 3)
    assert latest_attempt(names, 0) is None


def test_who_sends_alone_is_seen_by_others() -> None:
    """Each by a file of its own."""
    names = [alone_name(3), alone_name(12), "summary.json", attempt_name(7, 0)]
    assert ([12], [3, 12]) == (others_alone(names, 3), others_alone(names, 7))
    assert [True, True, False, False] == list(map(is_alone_name, names))


def test_the_next_attempt_has_what_the_one_before_wrote(tmp_path: Path) -> None:
    """The folder is renamed: nothing is copied, nothing is lost."""
    parent = tmp_path / "run"
    folder, attempt = take_over(parent, 3)
    assert (parent / "part-00003-attempt-0.run", 0) == (folder, attempt)
    folder.mkdir()
    (folder / "results.ndjson").write_text("{}\n")
    folder, attempt = take_over(parent, 3)
    assert (parent / "part-00003-attempt-1.run", 1) == (folder, attempt)
    assert "{}\n" == (folder / "results.ndjson").read_text()
    assert [folder] == list(parent.iterdir())


def test_an_attempt_that_still_works_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spark gave it up, and it does not know; once it has ended the next one goes on."""
    folder = tmp_path / attempt_name(0, 0)
    folder.mkdir()
    waited: list[float] = []
    with ExitStack() as stack:
        hold(stack, open_folder(stack, str(tmp_path)), folder)

        def wait(seconds: float) -> bool:
            waited.append(seconds)
            return seconds < 2

        with pytest.raises(RunHeld):
            take_over(tmp_path, 0, wait)
        assert [0.0, 1.0, 2.0] == waited

        seconds: list[float] = []
        monkeypatch.setattr("time.sleep", seconds.append)
        monkeypatch.setattr("moe_bulk.spark.attempts.PATIENCE", 5.0)
        with pytest.raises(RunHeld):
            take_over(tmp_path, 0)
        assert [1.0] * 5 == seconds

        def end(_: float) -> bool:
            stack.close()
            return True

        assert (tmp_path / attempt_name(0, 1), 1) == take_over(tmp_path, 0, end)
