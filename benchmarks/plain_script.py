"""The script that one would write in an afternoon, and the measure of everything else.

`httpx.AsyncClient` as it comes, a task a row under `asyncio.gather`, a semaphore, `AsyncLimiter(rate, period)`,
`csv.DictReader`, one line for every result. It tries nothing again, checks no row, and cannot be resumed.
"""

from __future__ import annotations

import asyncio
import csv
import json
from typing import TYPE_CHECKING

import httpx
from aiolimiter import AsyncLimiter
from records import body

if TYPE_CHECKING:
    from pathlib import Path
    from typing import TextIO


def read(path: Path) -> list[dict[str, str]]:
    """All rows of a CSV file."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


class Script:
    """`client` posts to `url`, `in_flight` at a time."""

    def __init__(self, client: httpx.AsyncClient, url: str, auth: tuple[str, str], in_flight: int) -> None:
        self._client = client
        self._url = url
        self._auth = auth
        self._semaphore = asyncio.Semaphore(in_flight)

    async def deliver(self, rows: list[dict[str, str]], results: TextIO, limiter: AsyncLimiter) -> int:
        """Send every row and write what became of it; returns how many were accepted."""

        async def send(row: dict[str, str]) -> bool:
            async with self._semaphore, limiter:
                status, answer = await self._post(row)
            line = {"customer_id": row["customer_id"], "device_id": row["device_id"], "status": status, **answer}
            results.write(json.dumps(line) + "\n")
            results.flush()
            return status == 200

        return sum(await asyncio.gather(*(send(row) for row in rows)))

    async def _post(self, row: dict[str, str]) -> tuple[int, dict[str, object]]:
        try:
            response = await self._client.post(self._url, json=body(row), auth=self._auth)
            return response.status_code, {"answer": response.json()}
        except (httpx.HTTPError, ValueError) as error:
            return 0, {"error": repr(error)}


async def deliver_file(script: Script, source: Path, results: Path, limit: int, per: float) -> int:
    """Send a CSV file at `limit` requests in `per` seconds, as the limiter understands it."""
    with results.open("w", encoding="utf-8") as file:
        return await script.deliver(read(source), file, AsyncLimiter(limit, per))
