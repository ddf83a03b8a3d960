"""What Spark's data source adds to a row: CPU time of a task's Python, from PySpark's `Row` to what the upload reads.

    python benchmarks/spark_rows.py --rows 200000

It needs `moe-bulk[spark]`, but no Java: what the JVM does, and PySpark's part in handing rows over, is not measured.
What the upload does with a row is what every other program pays, too.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
from contextlib import aclosing
from itertools import chain, islice, repeat
from pathlib import Path
from typing import TYPE_CHECKING, cast

import orjson
from machine import describe, load
from measure import Stopwatch, table
from pyspark.sql import Row
from records import COLUMNS, _row

from moe_bulk.spark.delivery import _one_by_one, _order_watch, _samples
from moe_bulk.spark.dividing import divide
from moe_bulk.spark.settings import read_options

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Mapping

    from moe_bulk.spark.merging import Delivered
    from moe_bulk.spark.rows import Fields

MADE = 20_000
"""Different rows; they come as often as it takes."""

WORKSPACES = 3


def made() -> list[Row]:
    """Rows as PySpark gives them to a task, with a time and a workspace."""
    kind = Row(*COLUMNS, "updated_at", "workspace")
    return [kind(*_row(number), number, f"BRAND{number % WORKSPACES}") for number in range(MADE)]


def task_rows(rows: list[Row], count: int) -> Iterator[Mapping[str, object]]:
    """So many of them, as the data source hands them on."""
    return (row.asDict(recursive=True) for row in islice(chain.from_iterable(repeat(rows)), count))


async def taken(rows: AsyncGenerator[Fields]) -> None:
    """Do nothing with them."""
    async for _ in rows:
        pass


async def plainly(rows: list[Row], count: int) -> None:
    """All rows to one workspace."""
    async with aclosing(_one_by_one(task_rows(rows, count), lambda _: None)) as found:
        await taken(found)


async def watched(rows: list[Row], count: int) -> None:
    """The same, and their order is checked."""
    watch = _order_watch(read_options({"out": "/out", "order_by": "updated_at"}))
    if watch is None:
        raise RuntimeError("nobody watches the order")
    async with aclosing(_one_by_one(task_rows(rows, count), watch.see)) as found:
        await taken(found)


async def divided(rows: list[Row], count: int) -> None:
    """The same, each row to its workspace."""

    async def deliver(name: str, own: AsyncGenerator[Fields]) -> Delivered:
        await taken(own)
        return cast("Delivered", name)

    async with aclosing(_one_by_one(task_rows(rows, count), lambda _: None)) as found:
        await divide(found, "workspace", deliver)


def write_results(path: Path, count: int) -> Path:
    """What an upload leaves of so many accepted rows."""
    with path.open("wb") as file:
        for number in range(count):
            said = {
                "format": 1,
                "source": "rows",
                "line": number + 1,
                "offset": number,
                "item": 0,
                "customer_id": f"customer-{number:08}",
                "device_id": f"device-{number:08}",
                "status": "accepted",
                "http_status": 200,
                "error_type": None,
                "reason": None,
                "request_id": None,
                "tries": 1,
                "attempts": [{"sent": 1700000000.006009, "at": 0.006009, "ms": 300.002, "http_status": 200}],
                "settled_at": 1700000000.306011,
                "other_keys": [f"{number:011}x", f"{number:011}y"],
            }
            file.write(orjson.dumps(said) + b"\n")
    return path


def micros(work: Callable[[], object], count: int) -> float:
    """CPU microseconds a row."""
    watch = Stopwatch()
    with watch:
        work()
    return watch.cpu / count * 1e6


def main() -> None:
    """Measure, in turns, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    rows = made()
    with tempfile.TemporaryDirectory() as folder:
        results = write_results(Path(folder) / "results.ndjson", asked.rows)
        works: dict[str, Callable[[], object]] = {
            "rows to the upload": lambda: asyncio.run(plainly(rows, asked.rows)),
            "with order_by": lambda: asyncio.run(watched(rows, asked.rows)),
            f"with workspace_column, {WORKSPACES} workspaces": lambda: asyncio.run(divided(rows, asked.rows)),
            "at the end: samples of customers and devices": lambda: _samples(results),
        }
        found: dict[str, list[float]] = {name: [] for name in works}
        for _ in range(asked.rounds):
            for name, work in works.items():
                found[name].append(micros(work, asked.rows))
    print(describe())
    print(f"{asked.rows:,} rows, {asked.rounds} rounds, load {load()}\n")
    lines = [
        (name, f"{statistics.median(all_):.1f}", f"{min(all_):.1f} to {max(all_):.1f}") for name, all_ in found.items()
    ]
    print(table(("", "CPU µs a row, median", "spread"), lines))


if __name__ == "__main__":
    main()
