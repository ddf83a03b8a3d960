"""Servers for tests: a handler function with an Uploader that talks to it, and a sandbox beside a blocking program."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import orjson

from moe_bulk.clock import Clock
from moe_bulk.config import Credentials
from moe_bulk.sandbox import Sandbox, SandboxSettings
from moe_bulk.uploader import Uploader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEY = "the-api-key-that-nobody-may-see"
CREDENTIALS = Credentials("WORKSPACE", KEY, base_url="http://127.0.0.1:9")


def device(number: int, **more: object) -> dict[str, object]:
    """Make a valid row."""
    who: dict[str, object] = {"customer_id": f"user-{number}", "device_id": f"device-{number}"}
    return {**who, "platform": "iOS", "push_id": f"token-{number}", **more}


def devices(count: int) -> list[dict[str, object]]:
    """Make that many valid rows."""
    return [device(number) for number in range(count)]


def answer(status: int, error: str | None = None, **headers: str) -> httpx.Response:
    """Answer as MoEngage does: success, or a failure of that kind."""
    body: dict[str, object] = {"status": "success"}
    if error is not None:
        said = {"type": error, "message": f"no {error}", "request_id": "R1"}
        body = {"status": "fail", "error": said}
    # `stream` and not `content`: a response that comes whole counts as read already, which no server's answer does
    return httpx.Response(status, stream=httpx.ByteStream(orjson.dumps(body)), headers=headers)


def accept(_: dict[str, Any]) -> httpx.Response:
    """Accept everything."""
    return answer(200)


class FakeService:
    """Answers each device as `decide` says, after `latency` seconds, and remembers whom it saw and when."""

    def __init__(self, decide: Callable[[dict[str, Any]], httpx.Response] = accept, latency: float = 0.3) -> None:
        self.seen: list[str] = []
        self.times: list[float] = []
        self.in_flight = 0
        self._decide = decide
        self._latency = latency

    async def handle(self, request: httpx.Request) -> httpx.Response:
        """Be the server."""
        said = orjson.loads(request.content)
        self.seen.append(said["customer_id"])
        self.times.append(asyncio.get_running_loop().time())
        self.in_flight += 1
        try:
            await asyncio.sleep(self._latency)
        finally:
            self.in_flight -= 1
        return self._decide(said)

    def uploader(self, **settings: Any) -> Uploader:
        """Make an Uploader that talks to this server."""
        clock = Clock(asyncio.get_running_loop().time, 0.0)
        return Uploader(CREDENTIALS, transport=httpx.MockTransport(self.handle), clock=clock, **settings)


@contextmanager
def sandbox_in_a_thread() -> Iterator[Sandbox]:
    """Run a sandbox on an event loop of its own, for programs that block."""
    sandbox = Sandbox(SandboxSettings(keep=10_000))
    loop, up, done = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with sandbox:
            up.set()
            await done.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert up.wait(10)
        yield sandbox
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(10)
        loop.close()
