"""Nothing in the room for Spark tells a key or a password by its repr: a traceback or a log may show one."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from typing import TYPE_CHECKING

from moe_bulk import spark
from moe_bulk.config import Credentials
from moe_bulk.spark.access import Access, Workspace
from moe_bulk.spark.delivery import Desk
from moe_bulk.spark.plan import Plan, plan
from moe_bulk.spark.rules import Task
from moe_bulk.spark.settings import Settings, read_options
from moe_bulk.spark.shelf import open_shelf

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

HARMLESS = {
    *("Delivered", "PartitionReport", "Sample", "InCommon"),  # what the driver is told: numbers and hashes
    *("Task", "JobEnd", "_Past", "_Ground"),
}
"""Dataclasses that hold no secret."""


def test_no_repr_tells_a_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every dataclass there: one that is new is either made here, with secrets, or said to be harmless."""
    monkeypatch.setenv("MOENGAGE_API_KEY", "S3CR3T")
    monkeypatch.setenv("MOE_BULK_PACE", "redis://:S3CR3T@host")
    said = {"out": str(tmp_path), "api_key_secret": "S3CR3T", "pace_secret": "redis://:S3CR3T@host/0"}
    settings = read_options(said)
    made: dict[type, object] = {
        Access: settings.access,
        Settings: settings,
        Workspace: Workspace(Credentials("W", "S3CR3T", data_center="01")),
        Desk: Desk(settings, Task(0), open_shelf(str(tmp_path)), "r"),
        Plan: plan(said, (), overwrite=False, stream=False),
    }
    rooms = [
        importlib.import_module(f"moe_bulk.spark.{name}")
        for _, name, _ in pkgutil.iter_modules(spark.__path__)
        if name != "datasource"
    ]
    found = {each for room in rooms for each in vars(room).values() if dataclasses.is_dataclass(each)}
    ours = {each for each in found if isinstance(each, type) and each.__module__.startswith("moe_bulk.spark.")}
    assert {each.__name__ for each in ours} == {each.__name__ for each in made} | HARMLESS
    assert not [kind.__name__ for kind, each in made.items() if "S3CR3T" in repr(each)]
