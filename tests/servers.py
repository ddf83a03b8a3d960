"""Small servers on 127.0.0.1 that say byte for byte what a test tells them to, and remember what they were told."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import trustme

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

ACCEPTED = b'{"status":"success"}'


class Request(NamedTuple):
    """One request as it arrived."""

    line: str
    headers: dict[str, str]
    body: bytes


class Peer:
    """One connection, seen from the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, requests: list[Request]) -> None:
        self.reader = reader
        self.writer = writer
        self._requests = requests

    async def request(self) -> Request:
        """Read one request and remember it; raises IncompleteReadError where there is none."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
        body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        self._requests.append(Request(line, headers, body))
        return self._requests[-1]

    def send(self, data: bytes) -> None:
        """Say exactly this."""
        self.writer.write(data)

    def answer(self, body: bytes = ACCEPTED, status: str = "200 OK", headers: str = "") -> None:
        """Say a whole answer; each of `headers` ends with a line feed."""
        head = f"HTTP/1.1 {status}\nContent-Length: {len(body)}\n{headers}\n".replace("\n", "\r\n")
        self.send(head.encode("latin-1") + body)

    def close(self) -> None:
        """Say no more, in the orderly way."""
        self.writer.close()

    def reset(self) -> None:
        """Leave without a word."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def ending(self) -> str:
        """Wait until the other side is gone: `closed` in the orderly way, or `reset`."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionResetError:
            return "reset"
        return "closed"


@dataclass
class Server:
    """What came in: connections, and the requests that arrived whole."""

    port: int
    scheme: str
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    host: str = "127.0.0.1"

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{self.scheme}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


@asynccontextmanager
async def serving(
    talk: Callable[[Peer], Awaitable[None]],
    tls: ssl.SSLContext | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
) -> AsyncIterator[Server]:
    """Serve each connection with `talk` while the block runs; what a talk asserts is raised at its end."""
    tasks: list[asyncio.Task[None]] = []
    listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    server = Server(listener.getsockname()[1], "https" if tls else "http", host=host)

    async def serve(peer: Peer) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await talk(peer)

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        peer = Peer(reader, writer, server.requests)
        tasks.append(asyncio.get_running_loop().create_task(serve(peer)))
        writers.append(writer)

    writers: list[asyncio.StreamWriter] = []
    listening = await asyncio.start_server(connected, sock=listener, ssl=tls)
    try:
        yield server
    finally:
        listening.close()
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        for writer in writers:
            writer.transport.abort()
        await listening.wait_closed()
        for error in ended:
            if error is not None and not isinstance(error, asyncio.CancelledError):
                raise error


async def polite(peer: Peer) -> None:
    """Accept whatever comes, with a cookie that nobody asked for."""
    while True:
        await peer.request()
        peer.answer(headers="Set-Cookie: session=1\n")


@dataclass
class Deaf:
    """What a server got that did not read before it was told to: `heard` bytes, and how the connection `ended`."""

    url: str
    heard: int = 0
    ended: str = ""
    listens: threading.Event = field(default_factory=threading.Event)


@contextmanager
def deaf(tls: ssl.SSLContext | None = None) -> Iterator[Deaf]:
    """Accept one connection and read nothing of it until the block ends; little fits into the ears meanwhile."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.settimeout(5)
        server = Deaf(f"{'https' if tls else 'http'}://127.0.0.1:{listener.getsockname()[1]}")

        def accept() -> None:
            accepted, _ = listener.accept()
            accepted.settimeout(5)
            # After the handshake only the bytes on the wire count, and how TCP ends.
            raw = tls.wrap_socket(accepted, server_side=True).detach() if tls else accepted.detach()
            with socket.socket(fileno=raw) as connection:
                server.listens.wait(5)
                server.ended = "reset"
                with suppress(ConnectionResetError):
                    while got := connection.recv(65536):
                        server.heard += len(got)
                    server.ended = "closed"

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield server
        finally:
            server.listens.set()
            thread.join()


class Authority(NamedTuple):
    """A certificate authority of the test's own: a server's context for 127.0.0.1, and whom a client has to trust."""

    context: ssl.SSLContext
    bundle: str


def authority(folder: Path) -> Authority:
    """Make one; its bundle is written into `folder`."""
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    bundle = folder / "ca.pem"
    ca.cert_pem.write_to_path(str(bundle))
    return Authority(context, str(bundle))


@contextmanager
def nobody_listens() -> Iterator[str]:
    """A URL that refuses connections, and that no other test can be given meanwhile."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{reserved.getsockname()[1]}"


@contextmanager
def nobody_accepts() -> Iterator[str]:
    """A URL where connecting hangs: the listener's queue is full."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.settimeout(0)
            each.connect_ex(listener.getsockname())
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            for each in waiting:
                each.close()


def tunnel(overheard: bytearray) -> Callable[[Peer], Awaitable[None]]:
    """A proxy that CONNECTs whoever asks, and keeps all that the client says to it."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kept: bytearray | None) -> None:
        while data := await reader.read(65536):
            if kept is not None:
                kept += data
            writer.write(data)
        writer.close()

    async def talk(peer: Peer) -> None:
        request = await peer.request()
        overheard.extend(repr(request).encode())
        host, _, port = request.line.split()[1].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(pump(peer.reader, writer, overheard))
                pumps.create_task(pump(reader, peer.writer, None))
        except* ConnectionError:
            pass
        finally:
            writer.transport.abort()

    return talk
