"""The sandbox on a socket: aiohttp's low-level server around `service`, with answers written as prepared bytes.

aiohttp's Application and Response cost nearly twice as much CPU time a request (37 against 21 µs), and the sandbox
shares its event loop with the client that it is there to measure.
"""

from __future__ import annotations

import asyncio
import secrets
import shlex
import socket
import struct
from typing import TYPE_CHECKING

import anyio
from aiohttp import web

from . import answers, control, rules
from .service import Plan, Service
from .settings import SandboxSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, MutableSequence
    from types import TracebackType
    from typing import Self

    from .devices import Device, DeviceKey
    from .ledger import Exchange, Stats

_HOST = "127.0.0.1"
_NO_LINGER = struct.pack("ii", 1, 0)
_STOP_WITHIN = 2.0


class Sandbox:
    """A local MoEngage, up while its block runs.

        async with Sandbox() as sandbox:
            ...  # sandbox.url, sandbox.workspace_id, sandbox.api_key

    Leaving the block resets open connections and leaves no task and no socket behind. It can be entered once.
    """

    def __init__(self, settings: SandboxSettings | None = None) -> None:
        self.settings = settings or SandboxSettings()
        self.workspace_id = self.settings.workspace_id
        self.api_key = self.settings.api_key or secrets.token_urlsafe(18)
        self._service = Service(self.settings, self.api_key)
        self._listener: _Listener | None = None

    async def __aenter__(self) -> Self:
        if self._listener is not None:
            raise RuntimeError("a Sandbox can be entered once: make another one")
        self._listener = _Listener(self._service)
        await self._listener.open(self.settings)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._listener is not None:
            await self._listener.stop()

    @property
    def url(self) -> str:
        """Tell where it listens, such as http://127.0.0.1:8080."""
        if self._listener is None:
            raise RuntimeError("a Sandbox has no address before it is entered: async with Sandbox() as sandbox")
        scheme = "https" if self.settings.ssl_context else "http"
        return f"{scheme}://{_HOST}:{self._listener.port}"

    @property
    def devices(self) -> Mapping[DeviceKey, Device]:
        """Look at the devices as they are now, by (customer_id, device_id)."""
        return self._service.devices

    @property
    def requests(self) -> MutableSequence[Exchange]:
        """Look at the requests, oldest first; the last `keep` of them are remembered."""
        return self._service.requests

    @property
    def stats(self) -> Stats:
        """Look at the numbers; they go on counting."""
        return self._service.stats

    def script(self, device_id: str, steps: Iterable[str]) -> None:
        """Give the next requests for a device these fates: ["500", "reset-after", "429:2s"]; then all is normal."""
        self._service.script(device_id, steps)


async def serve(settings: SandboxSettings, *, announce: Callable[[str], None]) -> None:
    """Run a sandbox until cancelled; `announce` gets one text that tells how to use it.

    Raises OSError when the port is taken.
    """
    async with Sandbox(settings) as sandbox:
        announce(_introduction(sandbox))
        await anyio.sleep_forever()


def _introduction(sandbox: Sandbox) -> str:
    return "\n".join(
        [
            f"A local MoEngage listens on {sandbox.url}. To send there, paste:",
            "",
            f"  export MOENGAGE_BASE_URL={sandbox.url}",
            f"  export MOENGAGE_WORKSPACE_ID={shlex.quote(sandbox.workspace_id)}",
            f"  export MOENGAGE_API_KEY={shlex.quote(sandbox.api_key)}",
            "",
            f"What it saw: {sandbox.url}{control.PREFIX}stats (also devices, requests). Ctrl-C stops it.",
        ]
    )


class _Connection:
    """One client's connection: its number, its transport while it is there, and the request that hangs on it."""

    def __init__(self, number: int, transport: asyncio.Transport | None) -> None:
        self.number = number
        self.transport = transport
        self.hanging: asyncio.Future[bool] | None = None

    def lose(self) -> None:
        """Take notice that it is closed."""
        self.transport = None
        if self.hanging is not None:
            _wake(self.hanging, done=False)

    def reset(self) -> None:
        """Send RST instead of an orderly end."""
        if self.transport is not None:
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            self.transport.abort()


class _Written(web.StreamResponse):
    """An answer that is written in one piece, as prepared bytes; without bytes, nothing is written."""

    def __init__(self, content: bytes, *, keep_alive: bool) -> None:
        super().__init__()
        self._content = content
        self._stays = keep_alive

    @property
    def keep_alive(self) -> bool | None:
        return self._stays

    async def prepare(self, request: web.BaseRequest) -> None:
        if self._content and request.transport is not None:
            request.transport.write(self._content)

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing: prepare wrote it all."""


_SUCCESS = _Written(answers.encode(answers.SUCCESS), keep_alive=True)
_SILENCE = _Written(b"", keep_alive=False)


class _Listener(web.Server):
    """The socket, its connections and the requests on them."""

    def __init__(self, service: Service) -> None:
        # As they come: a compressed body is no JSON, and access logs cost more than answers.
        super().__init__(self._handle, access_log=None, auto_decompress=False)
        self.port = 0
        self._service = service
        self._open: dict[web.RequestHandler, _Connection] = {}
        self._waiting: set[asyncio.Future[bool]] = set()
        self._all_closed = asyncio.Event()
        self._server: asyncio.Server | None = None

    async def open(self, settings: SandboxSettings) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self, _HOST, settings.port, ssl=settings.ssl_context, backlog=1024, start_serving=True
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Let go of everything at once; what awaits here only sees it happen."""
        if self._server is None:
            return
        self._server.close()
        for future in self._waiting:
            _wake(future, done=False)
        for connection in self._open.values():
            connection.reset()
        with anyio.move_on_after(_STOP_WITHIN, shield=True):
            while self._open:
                self._all_closed.clear()
                await self._all_closed.wait()
            await self.shutdown(_STOP_WITHIN)
            await self._server.wait_closed()
            await asyncio.sleep(0)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self._service.stats.connections += 1
        self._open[handler] = _Connection(self._service.stats.connections, transport)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self._open.pop(handler).lose()
        if not self._open:
            self._all_closed.set()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.rel_url.raw_path
        now = self._loop.time()
        if path.startswith(control.PREFIX) and request.method == "GET":
            answer = control.answer(self._service, path, request.rel_url.query, now)
            return web.Response(status=answer.status, body=answer.body, content_type=answer.media_type)
        # a client may leave between its last byte and this line
        connection = self._open.get(request.protocol) or _Connection(0, None)
        headers = request.headers
        exchange = self._service.arrive(now, connection.number, request.method, path, headers.get("X-Forwarded-For"))
        try:
            body = await _read(request)
        except (OSError, web.RequestPayloadError):
            self._service.leave(exchange, self._loop.time())
            return _SILENCE
        plan = self._service.plan(exchange, headers, body)
        if not await self._wait(plan, connection):
            self._service.leave(exchange, self._loop.time())
            return _SILENCE
        return self._carry_out(request, exchange, plan, connection)

    async def _wait(self, plan: Plan, connection: _Connection) -> bool:
        """Take the plan's time; False when it will never be carried out."""
        if plan.delay and not await self._rest(plan.delay):
            return False
        if plan.manner == "hang" and connection.transport is not None:
            connection.hanging = self._loop.create_future()
            await self._rest_until(connection.hanging)
        return plan.manner != "hang"

    async def _rest(self, seconds: float) -> bool:
        future: asyncio.Future[bool] = self._loop.create_future()
        timer = self._loop.call_later(seconds, _wake, future)
        try:
            return await self._rest_until(future)
        finally:
            timer.cancel()

    async def _rest_until(self, future: asyncio.Future[bool]) -> bool:
        self._waiting.add(future)
        try:
            return await future
        finally:
            self._waiting.discard(future)

    def _carry_out(
        self, request: web.BaseRequest, exchange: Exchange, plan: Plan, connection: _Connection
    ) -> web.StreamResponse:
        if connection.transport is None:
            # nobody is left to be answered; what was asked for happens all the same
            plan = plan._replace(manner="reset")
        self._service.finish(exchange, plan, self._loop.time())
        if plan.manner == "reset":
            connection.reset()
            return _SILENCE
        if plan.manner == "half":
            return _Written(answers.encode_half(plan.answer), keep_alive=False)
        if plan.answer is answers.SUCCESS and request.keep_alive:
            return _SUCCESS
        return _Written(answers.encode(plan.answer, keep_alive=request.keep_alive), keep_alive=request.keep_alive)


async def _read(request: web.BaseRequest) -> bytes | None:
    """Read the body; None when it is too large (it is read to its end all the same, so that the answer arrives)."""
    content = request.content
    body = await content.readany()
    size = len(body)
    while not content.at_eof():
        chunk = await content.readany()
        size += len(chunk)
        body = body + chunk if size <= rules.MAX_BODY else b""
    return body if size <= rules.MAX_BODY else None


def _wake(future: asyncio.Future[bool], *, done: bool = True) -> None:
    if not future.done():
        future.set_result(done)
