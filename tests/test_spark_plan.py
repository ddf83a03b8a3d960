"""The driver's part of a job of Spark's: the plan before its tasks, the summary after them."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from moe_bulk.errors import ConfigError
from moe_bulk.spark.merging import Delivered, PartitionReport
from moe_bulk.spark.plan import end, plan
from moe_bulk.spark.sampling import Sampler
from moe_bulk.spark.shelf import open_shelf, refuse_other

if TYPE_CHECKING:
    from pathlib import Path

DONE = Delivered("/a", 0, 0, 1.0, 2.0, {"read": 3, "accepted": 3}, 3, 0, 0, workspace="ACME")


def test_a_plan_names_the_run_and_its_folder(tmp_path: Path) -> None:
    """A job's run is named by its option or by the time, a stream's by its query; tasks know the folder by its mark."""
    said = {"out": str(tmp_path / "out")}
    made = plan(said, (), overwrite=False, stream=False)
    assert re.fullmatch(r"20..-..-..T..-..-..Z-[0-9a-f]{6}", made.settings.run_id or "")
    refuse_other(open_shelf(made.settings.out), made.mark)
    assert plan(said, (), overwrite=False, stream=True).settings.run_id is None
    assert "r" == plan({**said, "run_id": "r"}, (), overwrite=False, stream=False).settings.run_id


def test_a_plan_that_cannot_be_is_refused(tmp_path: Path) -> None:
    """Before there is a folder."""
    with pytest.raises(ConfigError, match="overwrite"):
        plan({"out": str(tmp_path / "out")}, (), overwrite=True, stream=False)
    with pytest.raises(ConfigError, match="no column"):
        plan({"out": str(tmp_path / "out")}, ("x",), overwrite=False, stream=False)
    assert [] == list(tmp_path.iterdir())


def test_the_end_is_a_summary_and_nobody_sends_any_more(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It stands in the run's folder; its warnings are logged. Of a job that failed the next one takes the place."""
    made = plan({"out": str(tmp_path), "run_id": "r"}, (), overwrite=False, stream=False)
    shelf = open_shelf(str(tmp_path))
    shelf.write("r/ACME/part-00000.alone", b"")
    reports = [PartitionReport(0, "r", (DONE,), ("late rows",))]
    with caplog.at_level(logging.WARNING, "moe_bulk"):
        end(made, reports, 2, aborted=True)
        assert ["part-00000.alone"] == shelf.names("r/ACME")
        assert not json.loads((tmp_path / "r/summary.json").read_text())["finished"]
        end(made, reports, 1)
    assert [] == shelf.names("r/ACME")
    summary = json.loads((tmp_path / "r/summary.json").read_text())
    assert (True, 3) == (summary["finished"], summary["counts"]["accepted"])
    assert f"{tmp_path}/r: late rows" in caplog.messages


def test_warnings_name_the_columns_that_there_are(tmp_path: Path) -> None:
    """Who is named by another column is not helped by the usual one."""
    made = plan({"out": str(tmp_path), "run_id": "r", "preset": "onesignal"}, (), overwrite=False, stream=False)
    sampler = Sampler()
    sampler.add("a customer")
    done = replace(DONE, workspace=None, customers=sampler.sample())
    told = end(made, [PartitionReport(number, "r", (done,)) for number in range(2)], 2)
    assert told is not None
    assert '.repartition(n, "external_user_id")' in told["warnings"][0]


def test_a_batch_that_nobody_told_of_leaves_no_summary(tmp_path: Path) -> None:
    """Where all its tasks failed the driver does not know which folder is theirs; their results are in it."""
    made = plan({"out": str(tmp_path)}, (), overwrite=False, stream=True)
    assert end(made, [], 2, aborted=True) is None
    told = end(made, [PartitionReport(0, "q/batch-000000001", (DONE,))], 1)
    assert told is not None
    assert (tmp_path / "q/batch-000000001/summary.json").exists()
