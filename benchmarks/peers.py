"""What people use instead, one record a request, each in a process of its own: dlt and drt. Job and report as JSON.

It runs in the environment of `requirements.txt`, without moe_bulk. Their settings are those that did best here:

dlt   a custom destination. Its own requests client (it tries again by itself) with a session a thread; load jobs run
      side by side on threads, so rows are cut into as many files as threads. dlt keeps no pace: the destination waits
      for its turn under a lock.
drt   its `rest_api` destination, fed from SQLite, its own limiter and retries. One sync sends one request at a time, so
      the table is cut into as many syncs as threads, run by a pool as `drt run --threads` does. A batch is all of a
      sync's rows, for each batch makes an HTTP client.
"""

from __future__ import annotations

import csv
import gc
import json
import os
import sqlite3
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from machine import collect_rarely, peak_memory, pin
from measure import DLT, DRT, Job, Measured
from records import API_KEY, COLUMNS, PATH, WORKSPACE, body

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Turns:
    """An even pace for threads: each waits until the next request is due."""

    def __init__(self, job: Job) -> None:
        self._gap = job.per / job.limit
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Return when it is this thread's turn."""
        with self._lock:
            self._next = due = max(self._next + self._gap, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))


# --- dlt -------------------------------------------------------------------------------------------------------------


def dlt(job: Job, folder: Path) -> Callable[[Path], int]:
    """A pipeline from CSV into a custom destination; what it gives counts acceptances."""
    os.environ |= {
        "DLT_DATA_DIR": str(folder),
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "RUNTIME__LOG_LEVEL": "ERROR",
        "DATA_WRITER__DISABLE_COMPRESSION": "true",
        "LOAD__WORKERS": str(job.workers),
    }
    import dlt  # noqa: PLC0415  the environment that configures it is set above
    from dlt.sources.helpers import requests  # noqa: PLC0415

    http = requests.Client()
    turns = Turns(job) if job.capped else None
    accepted: list[int] = []

    def post(items: list[dict[str, str]], table: object) -> None:  # noqa: ARG001  dlt passes it
        session = http.session  # this thread's own
        session.auth, session.verify = (WORKSPACE, API_KEY), job.authority or True
        session.trust_env = False  # the environment's certificates come first otherwise, and are looked up every time
        for item in items:
            if turns is not None:
                turns.wait()
            response = session.post(job.url + PATH, json=body(item), timeout=30)
            accepted.append(response.status_code == 200 and response.json()["status"] == "success")

    destination = dlt.destination(
        post,
        batch_size=1000,
        name="moengage",
        max_parallel_load_jobs=job.workers,
        loader_parallelism_strategy="parallel",
    )

    def deliver(source: Path) -> int:
        accepted.clear()
        with source.open(newline="", encoding="utf-8") as file:
            count = sum(1 for _ in file) - 1
        share = str(max(1, -(-count // job.workers)))
        os.environ |= {f"NORMALIZE__DATA_WRITER__{each}_MAX_ITEMS": share for each in ("FILE", "BUFFER")}
        pipeline = dlt.pipeline(source.stem, destination=destination, pipelines_dir=str(folder), progress=None)
        pipeline.run(read(source), table_name="devices").raise_on_failed_jobs()
        return sum(accepted)

    return deliver


def read(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


# --- drt -------------------------------------------------------------------------------------------------------------

ALL_ROWS = 10_000_000
TEMPLATE = json.dumps(body({name: "{{ row." + name + " }}" for name in COLUMNS}))


def drt(job: Job, folder: Path) -> Callable[[Path], int]:
    """Syncs from SQLite to `rest_api`; the table is made of the CSV file without being measured, in drt's favour."""
    os.environ |= {"BENCHMARK_WORKSPACE": WORKSPACE, "BENCHMARK_KEY": API_KEY}
    if job.authority:
        os.environ["SSL_CERT_FILE"] = job.authority
    from drt.config.credentials import SQLiteProfile  # noqa: PLC0415  only this contender needs it
    from drt.config.models import SyncConfig  # noqa: PLC0415
    from drt.destinations.rest_api import RestApiDestination  # noqa: PLC0415
    from drt.engine.sync import run_sync  # noqa: PLC0415
    from drt.sources.sqlite import SQLiteSource  # noqa: PLC0415

    threads, names = job.workers, ", ".join(COLUMNS)

    def sync(number: int) -> Any:
        return SyncConfig.model_validate(
            {
                "name": f"devices-{number}",
                "model": f"select {names} from devices where rowid % {threads} = {number}",  # noqa: S608  our names
                "destination": {
                    "type": "rest_api",
                    "url": job.url + PATH,
                    "headers": {"Content-Type": "application/json"},
                    "auth": {"type": "basic", "username_env": "BENCHMARK_WORKSPACE", "password_env": "BENCHMARK_KEY"},
                    "body_template": TEMPLATE,
                },
                "sync": {
                    "batch_size": ALL_ROWS,
                    "on_error": "skip",
                    "rate_limit": {"requests_per_second": job.limit / job.per if job.capped else 0},
                },
            }
        )

    def prepare(source: Path) -> Path:
        database = folder / f"{source.stem}.sqlite"
        with sqlite3.connect(database) as db:
            db.execute(f"create table devices ({names})")
            marks = ", ".join("?" * len(COLUMNS))
            db.executemany(f"insert into devices values ({marks})", (tuple(row.values()) for row in read(source)))  # noqa: S608
        return database

    def deliver(source: Path) -> int:
        profile = SQLiteProfile(type="sqlite", database=str(databases[source]))

        def one(number: int) -> int:
            return int(run_sync(sync(number), SQLiteSource(), RestApiDestination(), profile, folder).success)

        with ThreadPoolExecutor(threads) as pool:
            return sum(pool.map(one, range(threads)))

    sources = [Path(each) for each in (job.warm_up, job.source) if each is not None]
    databases = {source: prepare(source) for source in sources}
    return deliver


CONTENDERS = {DLT: dlt, DRT: drt}


def measure(job: Job) -> Measured:
    """Send the warm-up, then send the job's file and measure that."""
    with TemporaryDirectory(prefix="moe-bulk-peer-") as folder:
        deliver = CONTENDERS[job.contender](job, Path(folder))
        if job.warm_up is not None:
            deliver(Path(job.warm_up))
        gc.collect()
        cpu, began = time.process_time(), time.perf_counter()
        accepted = deliver(Path(job.source))
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    return Measured(accepted, seconds, cpu, peak_memory())


def main() -> None:
    """Do the job that stands on standard input."""
    job = Job(**json.loads(sys.stdin.read()))
    pin(job.core)
    collect_rarely()
    print(json.dumps(asdict(measure(job))))


if __name__ == "__main__":
    main()
