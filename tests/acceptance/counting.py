"""Rows that say who they are, what must become of each, and a server that counts how often each arrived.

The server is not the sandbox: it answers a row by what the row says, however often it comes, and it knows in which life
of the uploading process it came.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import re
import socket
import struct
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import orjson

from moe_bulk.sandbox.devices import Devices
from moe_bulk.sandbox.rules import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

ACCEPTED, REFUSED, ERROR, RESET, LOST = "accepted", "refused", "error", "reset", "lost"
"""What becomes of an arrival; `lost` is accepted, but the connection is reset in place of an answer."""

APPLIED = frozenset({ACCEPTED, LOST})
FINAL = frozenset({ACCEPTED, REFUSED})

_NO_LINGER = struct.pack("ii", 1, 0)
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_LATENCY = 0.008
_ANSWERS = {
    ACCEPTED: (b"200 OK", b'{"status":"success","message":"Your request has been accepted."}'),
    REFUSED: (
        b"400 Bad Request",
        b'{"status":"fail","error":{"type":"ValueError","message":"model: refused","attribute":"model"}}',
    ),
    ERROR: (b"500 Internal Server Error", b'{"status":"fail"}'),
}


# --- rows ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One row of the input: where it stands, what it holds, what its status has to be in the end."""

    number: int
    fields: dict[str, str]
    status: str
    offset: int = 0
    line: int = 0

    @property
    def readable(self) -> bool:
        """False for a row that cannot be parsed."""
        return bool(self.fields)

    @property
    def record(self) -> Record:
        """The device as the server has to know it."""
        ids = ("customer_id", "device_id", "app")
        attributes = {name: value for name, value in self.fields.items() if name not in ids}
        return Record(self.fields["customer_id"], self.fields["device_id"], attributes, {})

    @property
    def keys(self) -> frozenset[tuple[str, ...]]:
        """What can be told of the device, so that others may come to supersede it."""
        if not self.readable:
            return frozenset()
        said = self.fields
        found = {("push_id", said["push_id"])} if said["push_id"] != "NA" else set()
        device = {("device", said["customer_id"], said["device_id"])} if said["customer_id"] != "guest" else set()
        return frozenset[tuple[str, ...]](found | device)


def make_rows(count: int, seed: int, refused: float) -> list[Row]:
    """Rows of all kinds: most are fine; some are invalid, filtered out, or share a device or a token.

    The service refuses `refused` percent of them.
    """
    rng = random.Random(seed)
    return [_row(number, count, refused, rng) for number in range(count)]


def _row(number: int, count: int, refused: float, rng: random.Random) -> Row:
    device = rng.randrange(count // 20 + 1) if rng.random() < 0.3 else number + count
    token = f"shared-token-{rng.randrange(8)}" if rng.random() < 0.02 else f"token-{device}"
    fields = {
        "customer_id": f"user-{device}",
        "device_id": f"device-{device}",
        "platform": rng.choice(["ANDROID", "iOS", "web", "TV"]),
        "push_id": token,
        "model": f"row-{number}",
        "os_version": rng.choice(["16", "1.10", 'a "quoted", one', "two\nlines"]),
        "app": "main",
    }
    status, change = rng.choices(
        [
            ("accepted", {}),
            ("rejected", {"model": f"refused-{number}"}),
            ("skipped", {"app": "other"}),
            ("invalid", {"platform": "Symbian"}),
            ("invalid", {"push_id": "NA"}),
            ("invalid", {"customer_id": "guest"}),
            ("invalid", None),
        ],
        [91 - refused, refused, 3, 2, 1.5, 1.5, 1],
    )[0]
    return Row(number, {} if change is None else fields | change, status)


def as_csv(rows: Iterable[Row]) -> tuple[bytes, list[Row]]:
    """The rows as a CSV file, and the same rows with their places in it."""
    names = ["customer_id", "device_id", "platform", "push_id", "model", "os_version", "app"]
    return _written(rows, ",".join(names).encode() + b"\n", lambda row: ",".join(map(_cell, row.fields.values())))


def as_ndjson(rows: Iterable[Row]) -> tuple[bytes, list[Row]]:
    """The rows as a file of JSON lines, and the same rows with their places in it."""
    return _written(rows, b"", lambda row: json.dumps(row.fields))


def _written(rows: Iterable[Row], text: bytes, form: Callable[[Row], str]) -> tuple[bytes, list[Row]]:
    written, placed = bytearray(text), []
    for row in rows:
        if row.number % 97 == 50:
            written += b"\n"  # a blank line is no row
        placed.append(Row(row.number, row.fields, row.status, len(written), written.count(b"\n") + 1))
        written += (form(row) if row.readable else '{"torn": ,').encode() + b"\n"
    return bytes(written), placed


def _cell(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if set(text) & set('",\n') else text


def last_states(rows: Iterable[Row]) -> dict[tuple[str, str], dict[str, str]]:
    """The devices that a service holds after these rows, one after the other."""
    devices = Devices()
    for row in rows:
        devices.apply(row.record)
    return {key: device.attributes for key, device in devices.items()}


# --- the server ------------------------------------------------------------------------------------------------------


class Arrival(NamedTuple):
    """One request: in which life of the uploader, which row, and what became of it."""

    life: int
    number: int
    verdict: str


@dataclass
class CountingServer:
    """What arrived, in order. `trouble` is the share of arrivals that meet an error or a reset.

    `watch` is called with each arrival as it comes, in the server's own thread.
    """

    trouble: float = 0.04
    arrivals: list[Arrival] = field(default_factory=list, repr=False)
    life: int = 0
    port: int = 0
    watch: Callable[[Arrival], None] | None = None
    _seen: Counter[int] = field(default_factory=Counter, repr=False)
    _open: set[_Connection] = field(default_factory=set, repr=False)
    _changed: threading.Condition = field(default_factory=threading.Condition, repr=False)
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop, repr=False)

    @property
    def env(self) -> dict[str, str]:
        """The environment of an upload that goes here."""
        return {
            "MOENGAGE_BASE_URL": f"http://127.0.0.1:{self.port}",
            "MOENGAGE_WORKSPACE_ID": "COUNTING",
            "MOENGAGE_API_KEY": "counting-key",
        }

    @contextmanager
    def running(self) -> Iterator[CountingServer]:
        """Serve in a thread while the block runs."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = listener.getsockname()[1]
        stop = asyncio.Event()

        async def serve() -> None:
            serving = await self._loop.create_server(lambda: _Connection(self), sock=listener)
            await stop.wait()
            serving.close()
            for connection in self._open:
                connection.reset()
            await asyncio.sleep(0)

        thread = threading.Thread(target=self._loop.run_until_complete, args=(serve(),))
        thread.start()
        try:
            yield self
            self.drain()
        finally:
            self._loop.call_soon_threadsafe(stop.set)
            thread.join(10)
            self._loop.close()

    def drain(self) -> None:
        """Return when all that a killed process left behind in its sockets has arrived."""
        # Behind all connections that still wait to be taken: once this one is answered with its end, they were taken.
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as last:
            last.shutdown(socket.SHUT_WR)
            last.recv(1)
        with self._changed:
            assert self._changed.wait_for(lambda: not self._open, timeout=10), (
                f"{len(self._open)} connections stay open"
            )

    def later(self, seconds: float, work: Callable[[], None]) -> None:
        """Do something after so many seconds; to be called by `watch`."""
        self._loop.call_later(seconds, work)

    def take(self, body: bytes, connection: _Connection) -> None:
        """Count a request, and see to its answer."""
        number = int(orjson.loads(body)["attributes"]["model"].rpartition("-")[2])
        self._seen[number] += 1
        draw = _draw(number, self._seen[number])
        arrival = Arrival(self.life, number, self._verdict(draw, refused=b'"refused-' in body))
        self.arrivals.append(arrival)
        if self.watch is not None:
            self.watch(arrival)
        self.later(draw * 977 % 1 * _LATENCY, lambda: connection.answer(arrival.verdict))

    def _verdict(self, draw: float, *, refused: bool) -> str:
        if draw < self.trouble:
            return ERROR if draw < self.trouble / 2 else RESET
        if refused:
            return REFUSED
        return LOST if draw < self.trouble * 1.25 else ACCEPTED

    def opened(self, connection: _Connection) -> None:
        """A connection is there."""
        with self._changed:
            self._open.add(connection)

    def closed(self, connection: _Connection) -> None:
        """It is gone."""
        with self._changed:
            self._open.remove(connection)
            self._changed.notify_all()


def _draw(number: int, arrival: int) -> float:
    """A number in [0, 1) that is the same whenever this row arrives for the so-manieth time."""
    digest = hashlib.blake2b(b"%d:%d" % (number, arrival), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


class _Connection(asyncio.Protocol):
    """One connection of the uploader."""

    def __init__(self, server: CountingServer) -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._heard = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._server.closed(self)

    def data_received(self, data: bytes) -> None:
        self._heard += data
        head, end, rest = self._heard.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if end and length and len(rest) >= int(length[1]):
            self._heard = b""
            self._server.take(rest, self)

    def answer(self, verdict: str) -> None:
        """Answer, if somebody still listens; or reset the connection."""
        if self._transport is None:
            return
        if verdict in _ANSWERS:
            status, body = _ANSWERS[verdict]
            head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(body))
            self._transport.write(head + body)
        else:
            self.reset()

    def reset(self) -> None:
        """Leave without a word."""
        if self._transport is not None:
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            self._transport.abort()
