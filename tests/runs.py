"""Runs into a folder, from their rows to what they leave: for the tests of runs, and of runs that were stopped."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import httpx
import orjson

from moe_bulk.checkpoint import Checkpoint
from moe_bulk.clock import Clock
from moe_bulk.config import Rate
from moe_bulk.errors import Interrupted
from moe_bulk.outcome import FAILED
from moe_bulk.uploader import Uploader
from tests.fake_service import CREDENTIALS, KEY, FakeService, accept, answer
from tests.virtual import run_virtually

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from moe_bulk.config import Network, Retry
    from moe_bulk.intake import Rows
    from moe_bulk.tally import Summary
    from moe_bulk.view import RunView

FAST = Rate(1_000_000, per=60)
HEADER = b"customer_id,device_id,platform,push_id\n"


@dataclass
class Written:
    """What a run folder holds."""

    results: list[dict[str, Any]]
    letters: list[dict[str, Any]]
    summary: dict[str, Any]
    checkpoint: Checkpoint


def written(folder: Path) -> Written:
    """Read a run folder, and hold it against the laws that hold for every one."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    census = files.pop("devices.census", None)
    assert files.pop("report.html").startswith(b"<!doctype html>")
    assert {"results.ndjson", "dead-letter.ndjson", "checkpoint.json", "summary.json"} == set(files)
    found = Written(
        [orjson.loads(line) for line in files["results.ndjson"].splitlines()],
        [orjson.loads(line) for line in files["dead-letter.ndjson"].splitlines()],
        orjson.loads(files["summary.json"]),
        Checkpoint.from_json((folder / "checkpoint.json").read_bytes()),
    )
    assert found.checkpoint.finished == ("stopped" not in found.summary) == (census is None)
    identities = [(each["source"], each["offset"], each["item"]) for each in found.results]
    assert len(set(identities)) == len(identities)
    failed = [(each["source"], each["line"], each["item"]) for each in found.results if each["status"] in FAILED]
    notes = [each["_moe_bulk"] for each in found.letters]
    if found.checkpoint.finished:  # then they stand in the order of the input
        order = [each.name for each in found.checkpoint.sources]
        failed.sort(key=lambda each: (order.index(each[0]), *each[1:]))
    assert failed == [(note["source"], note["line"], note["item"]) for note in notes]
    check_counts(found.summary["counts"])
    statuses = Counter(each["status"] for each in found.results)
    assert statuses == Counter({name: found.summary["counts"][name] for name in statuses})
    assert len(found.results) == found.summary["counts"]["read"] - found.summary["counts"]["unsettled"]
    assert not any(KEY.encode() in content for content in files.values())
    return found


def check_counts(counts: Mapping[str, int]) -> None:
    """Hold the first law: read = all statuses + not yet settled."""
    assert counts["read"] == sum(counts.values()) - counts["read"]
    assert all(count >= 0 for count in counts.values())


@dataclass
class Ended:
    """How a run ended: its summary, or the error; and what it left."""

    folder: Path
    summary: Summary | None = None
    error: BaseException | None = None
    service: FakeService = field(default_factory=FakeService)

    @property
    def written(self) -> Written:
        """What it wrote."""
        return written(self.folder)


Way: TypeAlias = Literal["cancel", "signal", "401", "crash"]
"""How a session ends before its time; a crash leaves what was on disk at that moment."""

EPOCH = 1_700_000_000.0
"""Where the wall clock stands when the virtual boot clock begins."""


@dataclass(frozen=True)
class Cut:
    """End a session in one of the ways once so many requests were received; 0 is before the first."""

    way: Way
    after: int


class _Scissors:
    """Cuts a session; `decide` and `watch` are told what it does meanwhile."""

    def __init__(self, cut: Cut | None, out: Path, decide: Callable[[dict[str, Any]], httpx.Response]) -> None:
        self.image = out.with_name(out.name + ".image")
        self.uploader: Uploader | None = None
        self.task: asyncio.Task[None] | None = None
        self._cut = cut
        self._out = out
        self._decide = decide
        self._received = 0

    def watch(self, _: RunView) -> None:
        if self._cut is not None and self._cut.after == 0:
            self._end(self._cut.way)

    def decide(self, said: dict[str, Any]) -> httpx.Response:
        self._received += 1
        if self._cut is not None and self._received >= self._cut.after:
            if self._cut.way == "401":
                return answer(401, "Authentication required")
            if self._received == self._cut.after:
                self._end(self._cut.way)
        return self._decide(said)

    def _end(self, way: Way) -> None:
        assert self.task is not None
        assert self.uploader is not None
        if way == "signal":
            self.uploader.stop(Interrupted("interrupted by SIGTERM", 15))
        if way == "crash":
            # The checkpoint first: a thread may replace it meanwhile, and it must not know of more than the others.
            self.image.mkdir(mode=0o700)
            for name in ("checkpoint.json", "dead-letter.ndjson", "results.ndjson", "devices.census"):
                shutil.copy(self._out / name, self.image)
        if way in ("cancel", "crash"):
            self.task.cancel()

    def leave_the_image(self) -> None:
        if self.image.exists():
            shutil.rmtree(self._out)
            self.image.rename(self._out)


def deliver(
    rows: Rows,
    out: Path,
    decide: Callable[[dict[str, Any]], httpx.Response] = accept,
    *,
    rate: Rate = FAST,
    retry: Retry | None = None,
    network: Network | None = None,
    latency: float = 0.3,
    clock: tuple[float, float] = (0.0, EPOCH),
    cut: Cut | None = None,
    **more: Any,
) -> Ended:
    """Run it against a fake service on a virtual clock, and tell how it ended.

    `clock` is where the boot clock stands at the beginning, and the epoch second at which it stood at 0.
    """
    ended = Ended(out)
    scissors = _Scissors(cut, out, decide)
    watch = more.pop("watch", scissors.watch)

    async def job() -> None:
        loop = asyncio.get_running_loop()
        ended.service = FakeService(scissors.decide, latency)
        transport = httpx.MockTransport(ended.service.handle)
        time = Clock(lambda: clock[0] + loop.time(), clock[1])
        settings = {"rate": rate, "retry": retry, "network": network}
        async with Uploader(CREDENTIALS, transport=transport, clock=time, **settings) as uploader:  # type: ignore[arg-type]
            scissors.uploader = uploader
            try:
                ended.summary = await uploader.run(rows, out=out, watch=watch, **more)
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  the test looks at it
                ended.error = error

    async def main() -> None:
        scissors.task = asyncio.create_task(job())
        await asyncio.wait([scissors.task])
        if not scissors.task.cancelled():
            scissors.task.result()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run_virtually(main)
    scissors.leave_the_image()
    return ended
