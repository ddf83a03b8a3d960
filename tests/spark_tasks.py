"""Tasks of Spark's without Spark: a partition delivered to a fake service on the virtual clock."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from moe_bulk.clock import Clock
from moe_bulk.spark import delivery
from moe_bulk.spark.delivery import Desk, carry_out
from moe_bulk.spark.rules import Task
from moe_bulk.spark.settings import read_options
from moe_bulk.spark.shelf import open_shelf
from tests.fake_service import KEY, FakeService, accept
from tests.runs import EPOCH
from tests.virtual import run_virtually

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping
    from pathlib import Path

    from moe_bulk.spark.access import Workspace
    from moe_bulk.spark.merging import PartitionReport
    from moe_bulk.spark.settings import Settings
    from moe_bulk.uploader import Uploader

ENVIRON = {"MOENGAGE_WORKSPACE_ID": "WORKSPACE", "MOENGAGE_API_KEY": KEY, "MOENGAGE_BASE_URL": "http://127.0.0.1:9"}


async def _at_once(work: Callable[[], object], *, abandon: bool = False) -> object:
    del abandon
    return work()


@dataclass
class Job:
    """A job of Spark's: its options, what the service answers, and what came of its tasks."""

    out: Path | str
    decide: Callable[[dict[str, Any]], httpx.Response] = accept
    master: str = "local[2]"
    run: str = "r"
    name: str = "first"
    """What tells the job from others of its run."""
    start: float = 0.0
    """Where the boot clock stands."""
    options: dict[str, str] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    """The customers of all requests, in their order."""
    sent_to: list[str] = field(default_factory=list)
    """The workspaces of all requests."""

    def make(self, workspace: Workspace, settings: Settings) -> Uploader:
        """Make an Uploader whose requests go to the service."""
        loop = asyncio.get_running_loop()

        async def handle(request: httpx.Request) -> httpx.Response:
            self.sent_to.append(request.url.path.rpartition("/")[2])
            return await service.handle(request)

        def decide(said: dict[str, Any]) -> httpx.Response:
            self.seen.append(said["customer_id"])
            return self.decide(said)

        service = FakeService(decide)
        real = delivery.make_uploader(workspace, settings)
        real._transport = httpx.MockTransport(handle)
        real._clock = Clock(lambda: self.start + loop.time(), EPOCH)
        return real

    def task(self, rows: Iterable[Mapping[str, object]], partition: int = 0, **more: Any) -> PartitionReport:
        """Carry out one task."""
        report: PartitionReport = virtually(carry_out, iter(rows), self.desk(partition, **more))
        self.start += 1000.0
        return report

    def desk(self, partition: int = 0, **more: Any) -> Desk:
        """What one of its tasks has."""
        settings = read_options({"out": str(self.out), "run_id": self.run, "pace": "process", **self.options})
        task = Task(partition, job=self.name, master=self.master, **more)
        return Desk(settings, task, open_shelf(settings.out), self.run, self.make, {**os.environ, **ENVIRON})


def virtually(main: Callable[..., Coroutine[Any, Any, Any]], *args: object) -> Any:
    """Run it on a virtual clock; what takes real time takes none of that."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delivery, "_in_thread", _at_once)
        return run_virtually(main, *args)
