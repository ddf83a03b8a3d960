"""A server for requests of eight bytes, for more than HTTP could carry here: notes when each came and was answered.

It prints its port. A request is any eight bytes; the answer is the same eight, after a while. When standard input ends,
it writes `arrived` and `answered`, arrays of seconds by the machine's boot clock, into the folder that it was given.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from array import array
from heapq import heappop, heappush
from pathlib import Path

from moe_bulk.clock import boot_seconds

SIZE = 8
TICK = 0.002
"""Seconds between two looks at what is to be answered."""


class Count:
    """All requests, by their order of arrival."""

    def __init__(self, latency: float, spread: float) -> None:
        self.arrived, self.answered = array("d"), array("d")
        self._delays = latency * (1 - spread), latency * (1 + spread)
        self._waiting: list[tuple[float, int, asyncio.Transport, bytes]] = []

    def take(self, connection: asyncio.Transport, requests: bytes) -> None:
        """Note whole requests that have just come."""
        now = boot_seconds()
        for at in range(0, len(requests), SIZE):
            due = now + random.uniform(*self._delays)
            heappush(self._waiting, (due, len(self.arrived), connection, requests[at : at + SIZE]))
            self.arrived.append(now)
            self.answered.append(0.0)

    async def answer(self) -> None:
        """Answer what has waited for long enough, for as long as nobody cancels it."""
        while True:
            now, answers = boot_seconds(), dict[asyncio.Transport, list[bytes]]()
            while self._waiting and self._waiting[0][0] <= now:
                _, number, connection, request = heappop(self._waiting)
                self.answered[number] = now
                answers.setdefault(connection, []).append(request)
            for connection, requests in answers.items():
                connection.write(b"".join(requests))
            await asyncio.sleep(TICK)


class Connection(asyncio.Protocol):
    """Cuts what comes into requests."""

    def __init__(self, count: Count) -> None:
        self._count = count
        self._rest = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody will send."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  TCP has one
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take what is whole."""
        data = self._rest + data
        end = len(data) - len(data) % SIZE
        self._rest = data[end:]
        self._count.take(self._transport, data[:end])


async def serve(count: Count) -> None:
    """Listen on a free port of 127.0.0.1 until standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(count), "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    answering = asyncio.create_task(count.answer())
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    await orders.read()
    answering.cancel()
    server.close()


def main() -> None:
    """Run the server."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds between arrival and answer")
    parser.add_argument("--spread", type=float, default=0.0, help="the latency's spread, as a share of it")
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    count = Count(options.latency, options.spread)
    asyncio.run(serve(count))
    for name in ("arrived", "answered"):
        (options.folder / name).write_bytes(getattr(count, name).tobytes())


if __name__ == "__main__":
    main()
