"""Parts of an upload by themselves, each in a process of its own: takes a part as JSON, prints what it measured.

read      an input as the engine takes it in, rows checked and bodies built: no network, nothing written
by hand   the same by the plain functions of `by_hand`
journal   result lines, one dead letter in a hundred, and a checkpoint every 5,000 rows
carry     the whole engine over a transport that answers in memory: rows in, run folder out
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import httpx
from by_hand import bodies
from machine import collect_rarely, peak_memory, pin
from measure import ASYNCIO, UVLOOP, Measured, Stopwatch
from records import API_KEY, REFUSED, WORKSPACE

from moe_bulk import Attempt, Credentials, Network, Rate, Reading, Result, Status, Uploader, wire
from moe_bulk.checkpoint import Checkpoint
from moe_bulk.clock import boot_id, boot_seconds
from moe_bulk.intake import Intake
from moe_bulk.record import Record
from moe_bulk.rundir import RunFolder
from moe_bulk.settled import Settled
from moe_bulk.tally import Tally

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator

    Work: TypeAlias = Callable[["Part", Path], Coroutine[None, None, tuple[int, float, float]]]
    """Gives rows, seconds and CPU seconds."""

BATCH = 16
"""Results that settle together: about so many when 64 requests are on their way, each for some ten milliseconds."""

UNDER_WAY = 428
"""Rows that are read before the first of them has its result, about: what a stream has room for at 64 in flight."""

SAVE_EVERY = 5_000
"""Rows between two checkpoints, of which there is one a second."""

ACCEPTED = b'{"status":"success","message":"Your request has been accepted and will be processed soon."}'
NOT_THIS_ONE = b'{"status":"fail","error":{"type":"Invalid device","message":"the benchmark refuses one in a hundred"}}'
_MARK = f'-{REFUSED}"'.encode()


@dataclass(frozen=True, slots=True)
class Part:
    """What is to be measured: `source` is the input."""

    part: str
    source: str
    core: int | None = None
    loop: str = ASYNCIO


class InMemory(httpx.AsyncBaseTransport):
    """Answers at once, after one turn of the event loop; refuses devices that say that they want it."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer as MoEngage would."""
        await asyncio.sleep(0)
        if _MARK in request.content:
            return httpx.Response(400, content=NOT_THIS_ONE)
        return httpx.Response(200, content=ACCEPTED)


async def read(part: Part, folder: Path) -> tuple[int, float, float]:  # noqa: ARG001  it writes nothing
    """Take in a file and build the body of every row."""
    watch, rows = Stopwatch(), 0
    intake = Intake(part.source, Reading())
    with watch:
        await intake.open()
        async for batch in intake.batches():
            for made in batch:
                if isinstance(made, Record):
                    rows += 1
                    wire.encode(made.device)
        await intake.close()
    return rows, watch.seconds, watch.cpu


async def by_hand(part: Part, folder: Path) -> tuple[int, float, float]:  # noqa: ARG001  it writes nothing
    """Do the same by hand."""
    watch = Stopwatch()
    with watch:
        rows = sum(1 for _ in bodies(Path(part.source)))
    return rows, watch.seconds, watch.cpu


async def journal(part: Part, folder: Path) -> tuple[int, float, float]:
    """Write what became of the rows of a file."""
    settled, watch, written = Settled([part.source]), Stopwatch(), 0
    with RunFolder.claim(folder / "journal.run", fresh=True) as run:
        run.begin()
        book = run.journal()
        async for batch in _results(part.source):
            with watch:
                settled.take_in(*[result.position for result in batch])
                book.record(batch)
                settled.settle(*[result.position for result in batch])
                before, written = written, written + len(batch)
                if not before or before // SAVE_EVERY < written // SAVE_EVERY:
                    book.sync()
                    run.write_checkpoint(_checkpoint(settled, *book.lengths))
        book.close()
    return written, watch.seconds, watch.cpu


async def _results(source: str) -> AsyncIterator[list[Result]]:
    """What becomes of the rows, in small batches; they were read not long before, as in an upload."""
    intake = Intake(source, Reading())
    await intake.open()
    waiting: list[Result] = []
    async for batch in intake.batches():
        waiting += [_result(made) for made in batch if isinstance(made, Record)]
        if len(waiting) >= UNDER_WAY:
            for results in _batches(waiting):
                yield results
            waiting = []
    for results in _batches(waiting):
        yield results
    await intake.close()


def _result(made: Record) -> Result:
    device = made.device
    refused = device.device_id.endswith(REFUSED)
    return Result(
        made.position,
        Status.REJECTED if refused else Status.ACCEPTED,
        made.row,
        device.customer_id,
        device.device_id,
        http_status=400 if refused else 200,
        error_type="Invalid device" if refused else None,
        reason="the benchmark refuses one in a hundred" if refused else None,
        attempts=(Attempt(time.time(), boot_seconds(), 301.25, 400 if refused else 200),),
        tries=1,
        settled_at=time.time(),
        keys=device.keys(),
    )


def _batches(results: list[Result]) -> Iterator[list[Result]]:
    for start in range(0, len(results), BATCH):
        yield results[start : start + BATCH]


def _checkpoint(settled: Settled, written: int, letters: int) -> bytes:
    snapshot = settled.snapshot()
    return Checkpoint(
        settings={},
        sources=(),
        place=snapshot.place,
        ranges=snapshot.ranges(),
        results=written,
        dead_letters=letters,
        tally=Tally(10_000, 60.0).state(),
        started_at=time.time(),
        at=boot_seconds(),
        boot=boot_id(),
    ).as_json()


async def carry(part: Part, folder: Path) -> tuple[int, float, float]:
    """Upload a file, but for the network."""
    credentials = Credentials(WORKSPACE, API_KEY, base_url="http://127.0.0.1:9")
    # The times of a window's requests are kept. At a speed that no limit allows these would be those of a minute, and
    # most of what grows; so the window is a second.
    rate, network, watch = Rate(1_000_000, 1), Network(in_flight=64), Stopwatch()
    async with Uploader(credentials, rate=rate, network=network, transport=InMemory()) as uploader:
        with watch:
            summary = await uploader.run(part.source, out=folder / "carry.run")
    counts = summary["counts"]
    return counts["accepted"] + counts["rejected"], watch.seconds, watch.cpu


PARTS: dict[str, Work] = {"read": read, "by hand": by_hand, "journal": journal, "carry": carry}


def main() -> None:
    """Do the part that stands on standard input."""
    part = Part(**json.loads(sys.stdin.read()))
    pin(part.core)
    collect_rarely()
    new_loop = import_module("uvloop").new_event_loop if part.loop == UVLOOP else asyncio.new_event_loop
    with (
        tempfile.TemporaryDirectory(prefix="moe-bulk-part-", dir=Path(part.source).parent) as folder,
        asyncio.Runner(loop_factory=new_loop) as runner,
    ):
        rows, seconds, cpu = runner.run(PARTS[part.part](part, Path(folder)))
    sys.stdout.write(json.dumps(asdict(Measured(rows, seconds, cpu, peak_memory()))))


if __name__ == "__main__":
    main()
