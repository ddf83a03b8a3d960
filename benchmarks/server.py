"""A local server in a process of its own: reads each request whole, checks path and key, answers as MoEngage does.

Run by the benchmarks, not by people. It prints its port; for every line on standard input it prints a report as one
line of JSON and starts a new one; it ends when standard input does, so it never outlives whoever started it.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import random
import socket
import ssl
import struct
import sys
import time
from array import array
from typing import TYPE_CHECKING

from machine import pin
from records import API_KEY, PATH, WORKSPACE

if TYPE_CHECKING:
    from collections.abc import Sequence

LENGTH = b"\r\ncontent-length:"
BLANK = b"\r\n\r\n"
REQUEST_LINE = f"POST {PATH} HTTP/1.1\r\n".encode()
AUTHORIZATION = b"Basic " + base64.b64encode(f"{WORKSPACE}:{API_KEY}".encode()) + b"\r\n"
ACCEPTED = b'{"status":"success","message":"Your request has been accepted and will be processed soon."}'
REFUSED = b'{"status":"fail","error":{"type":"Authentication required","message":"wrong path or key"}}'


def answer(status: bytes, content: bytes) -> bytes:
    """A whole response."""
    head = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(content))
    return head + content


YES = answer(b"200 OK", ACCEPTED)
NO = answer(b"401 Unauthorized", REFUSED)
AWAY = answer(b"503 Service Unavailable", b"")
RESET = b""


class Log:
    """What the server saw since the last report: seconds of one clock, answers in the order of their arrivals."""

    def __init__(self) -> None:
        self.connections = 0
        self.arrivals = array("d")
        self.answers = array("d")
        self._cpu = time.process_time()

    def report(self) -> str:
        """One line of JSON."""
        return json.dumps(
            {
                "connections": self.connections,
                "cpu": time.process_time() - self._cpu,
                "arrivals": list(self.arrivals),
                "answers": list(self.answers),
            }
        )


class Service:
    """What the connections share: the latency (seconds, and its spread as a share of it), the faults and the log.

    What arrives within the first `hold` seconds of a report is answered at their end.
    """

    def __init__(self, latency: float, spread: float, faults: float = 0.0, hold: float = 0.0) -> None:
        self.log = Log()
        self._hold = hold
        self._faults = faults
        self._longest = latency * (1 + spread)
        self._shortest = latency * (1 - spread)
        self._chance = random.Random(1)

    def delay(self) -> float:
        """How long the answer to what has just arrived takes."""
        held = self.log.arrivals[0] + self._hold - self.log.arrivals[-1]
        return max(held, self._chance.uniform(self._shortest, self._longest))

    def mishap(self, response: bytes) -> bytes:
        """The response, or for a share of them what comes in its place: a 503 or a reset, as often as each other."""
        if not self._faults or self._chance.random() >= self._faults:
            return response
        return self._chance.choice((AWAY, RESET))


class Connection(asyncio.Protocol):
    """One client's connection: requests one after the other, each with a Content-Length."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count it."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  a stream's always is
        self._transport = transport
        self._service.log.connections += 1

    def data_received(self, data: bytes) -> None:
        """Answer every request that is here as a whole."""
        self._buffer += data
        while end := whole_request(self._buffer):
            head = bytes(self._buffer[: self._buffer.find(BLANK) + 2])
            del self._buffer[:end]
            self._take(YES if head.startswith(REQUEST_LINE) and AUTHORIZATION in head else NO)

    def _take(self, response: bytes) -> None:
        log, response = self._service.log, self._service.mishap(response)
        log.arrivals.append(time.monotonic())
        log.answers.append(0.0)
        if (delay := self._service.delay()) > 0:
            asyncio.get_running_loop().call_later(delay, self._reply, response, log, len(log.answers) - 1)
        else:
            self._reply(response, log, len(log.answers) - 1)

    def _reply(self, response: bytes, log: Log, index: int) -> None:
        log.answers[index] = time.monotonic()
        if response is RESET:
            connection = self._transport.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
        else:
            self._transport.write(response)


def whole_request(buffer: bytearray) -> int:
    """Where the first request in the buffer ends; 0 while it is not here as a whole."""
    end = buffer.find(BLANK)
    if end < 0:
        return 0
    head = bytes(buffer[: end + 2]).lower()
    length = head.find(LENGTH)
    content = int(head[length + len(LENGTH) : head.index(b"\r\n", length + 2)]) if length >= 0 else 0
    whole = end + len(BLANK) + content
    return whole if len(buffer) >= whole else 0


async def serve(service: Service, tls: ssl.SSLContext | None) -> None:
    """Listen on a free port of 127.0.0.1 until standard input ends."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(service), "127.0.0.1", 0, ssl=tls, backlog=1024)
    say(str(server.sockets[0].getsockname()[1]))
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while await orders.readline():
        say(service.log.report())
        service.log = Log()
    server.close()


def say(line: str) -> None:
    """Tell whoever started us."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(argv: Sequence[str] | None = None) -> None:
    """Run the server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds between arrival and answer")
    parser.add_argument("--spread", type=float, default=0.0, help="the latency's spread, as a share of it")
    parser.add_argument("--faults", type=float, default=0.0, help="the share of 503s and resets among the answers")
    parser.add_argument("--hold", type=float, default=0.0, help="seconds from the first request on without an answer")
    parser.add_argument("--core", type=int, help="the core to run on")
    parser.add_argument("--certificate", help="a PEM file with key and certificate: serves TLS")
    options = parser.parse_args(argv)
    pin(options.core)
    tls = None
    if options.certificate:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(options.certificate)
    asyncio.run(serve(Service(options.latency, options.spread, options.faults, options.hold), tls))


if __name__ == "__main__":
    main()
