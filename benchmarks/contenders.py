"""The contenders, each run in a process of its own: takes a job as JSON on standard input, prints what it measured."""

from __future__ import annotations

import asyncio
import csv
import gc
import json
import ssl
import sys
import time
from base64 import b64encode
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import aiohttp
import httpx
from aiohttp_pipeline import Pipeline, even_limiter
from machine import collect_rarely, peak_memory, pin
from measure import BARE, ENGINE, PIPELINE, SCRIPT, UVLOOP, Job, Measured
from plain_script import Script, deliver_file
from records import API_KEY, ATTRIBUTES, PATH, WORKSPACE

from moe_bulk import Credentials, Device, Network, Position, Rate, Retry, Uploader
from moe_bulk.client import Client
from moe_bulk.record import Record, Row

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager

    Prepare: TypeAlias = Callable[[Path], Callable[[], Awaitable[int]]]
    """Given a CSV file, all that is not to be measured is done; what is returned sends it and counts acceptances."""

AUTH = (WORKSPACE, API_KEY)
GONE = 60.0
"""Seconds without the server after which a contender gives up: whoever started both was stopped."""


@asynccontextmanager
async def engine(job: Job) -> AsyncIterator[Prepare]:
    """moe_bulk, the whole of it: reading and checking rows, lanes, pacing, retries, run folder with its journal."""
    credentials = Credentials(WORKSPACE, API_KEY, base_url=job.url)
    network = Network(in_flight=job.in_flight, ca_bundle=job.authority)
    rate, patience = Rate(job.limit, job.per), Retry(outage_limit=GONE)
    async with Uploader(credentials, rate=rate, retry=patience, network=network) as uploader:

        async def run(source: Path) -> int:
            summary = await uploader.run(source)
            return summary["counts"]["accepted"]

        yield lambda source: partial(run, source)


@asynccontextmanager
async def bare(job: Job) -> AsyncIterator[Prepare]:
    """The same HTTP client and nothing else: workers that take prepared records; no file, journal, pace or retry."""
    credentials = Credentials(WORKSPACE, API_KEY, base_url=job.url)
    async with Client(credentials, GONE, time.time, ca_bundle=job.authority) as client:

        async def work(left: Iterator[Record]) -> int:
            return sum([(await client.attempt(record)).http_status == 200 for record in left])

        async def run(records: Sequence[Record]) -> int:
            left = iter(records)
            return sum(await asyncio.gather(*(work(left) for _ in range(job.workers))))

        yield lambda source: partial(run, _records(source))


def _records(source: Path) -> list[Record]:
    found = []
    with source.open(newline="", encoding="utf-8") as file:
        for number, row in enumerate(csv.DictReader(file)):
            device = Device(row["customer_id"], row["device_id"], {name: row[name] for name in ATTRIBUTES})
            found.append(Record(Row(Position(str(source), number + 2, 0), {}), device))
    return found


@asynccontextmanager
async def script(job: Job) -> AsyncIterator[Prepare]:
    """The script of `plain_script`."""
    async with httpx.AsyncClient(verify=_context(job)) as client:
        plain = Script(client, job.url + PATH, AUTH, job.workers)

        def prepare(source: Path) -> Callable[[], Awaitable[int]]:
            results = source.with_suffix(".results.ndjson")
            return partial(deliver_file, plain, source, results, job.limit, job.per)

        yield prepare


@asynccontextmanager
async def pipeline(job: Job) -> AsyncIterator[Prepare]:
    """The pipeline of `aiohttp_pipeline`."""
    token = b64encode(":".join(AUTH).encode()).decode()
    headers = {"Authorization": f"Basic {token}", "Content-Type": "application/json"}
    connector = aiohttp.TCPConnector(limit=0, ssl=_context(job))
    limiter = even_limiter(job.limit, job.per) if job.capped else None
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        by_hand = Pipeline(session, job.url + PATH, job.workers, limiter)
        yield lambda source: partial(by_hand.deliver_file, source, source.with_suffix(".results.ndjson"))


def _context(job: Job) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=job.authority)


CONTENDERS: dict[str, Callable[[Job], AbstractAsyncContextManager[Prepare]]] = {
    ENGINE: engine,
    BARE: bare,
    SCRIPT: script,
    PIPELINE: pipeline,
}


async def measure(job: Job) -> Measured:
    """Send the warm-up, then send the job's file and measure that."""
    async with CONTENDERS[job.contender](job) as prepare:
        if job.warm_up is not None:
            await prepare(Path(job.warm_up))()
        send = prepare(Path(job.source))
        gc.collect()
        cpu, began = time.process_time(), time.perf_counter()
        accepted = await send()
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return Measured(accepted, seconds, cpu, peak_memory())


def main() -> None:
    """Do the job that stands on standard input."""
    job = Job(**json.loads(sys.stdin.read()))
    pin(job.core)
    collect_rarely()
    # Chosen here for all of them: none is measured on a loop that its neighbour did not have.
    new_loop = import_module("uvloop").new_event_loop if job.loop == UVLOOP else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=new_loop) as runner:
        sys.stdout.write(json.dumps(asdict(runner.run(measure(job)))))


if __name__ == "__main__":
    main()
