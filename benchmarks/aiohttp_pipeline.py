"""The fastest that one would write by hand, and the bar for the engine: aiohttp and nothing that could be left out.

Workers share one reader: each parses a row, posts it, reads the answer and writes a line. It checks nothing, tries
nothing again, cannot be resumed and keeps a limit on the average only.
"""

from __future__ import annotations

import asyncio
import csv
from typing import TYPE_CHECKING

import orjson
from aiolimiter import AsyncLimiter
from records import body

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    import aiohttp

BURST_SECONDS = 0.25
"""What the limiter lets go at once, as a time at the wanted pace: with a whole window in hand nothing is paced."""


class Pipeline:
    """`session` posts to `url`, `in_flight` at a time; without a `limiter`, as fast as it goes."""

    def __init__(
        self, session: aiohttp.ClientSession, url: str, in_flight: int, limiter: AsyncLimiter | None = None
    ) -> None:
        self._session = session
        self._url = url
        self._in_flight = in_flight
        self._limiter = limiter

    async def deliver_file(self, source: Path, results: Path) -> int:
        """Send a CSV file and write what became of each row; returns how many were accepted."""
        with source.open(newline="", encoding="utf-8") as file, results.open("wb") as out:
            rows = _rows(csv.reader(file))
            return sum(await asyncio.gather(*(self._work(rows, out) for _ in range(self._in_flight))))

    async def _work(self, rows: Iterator[dict[str, str]], results: BinaryIO) -> int:
        accepted = 0
        for row in rows:
            if self._limiter is not None:
                await self._limiter.acquire()
            async with self._session.post(self._url, data=orjson.dumps(body(row))) as response:
                answer = orjson.loads(await response.read())
            accepted += response.status == 200 and answer["status"] == "success"
            line = {"customer_id": row["customer_id"], "device_id": row["device_id"], "status": response.status}
            results.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        return accepted


def even_limiter(limit: int, per: float) -> AsyncLimiter:
    """A limiter of that pace with little in hand."""
    burst = max(1.0, limit / per * BURST_SECONDS)
    return AsyncLimiter(burst, burst * per / limit)


def _rows(lines: Iterator[list[str]]) -> Iterator[dict[str, str]]:
    names = next(lines)
    for line in lines:
        yield dict(zip(names, line, strict=True))
