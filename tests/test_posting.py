"""A POST and its answer, on real sockets: the same bytes as aiohttp's own way, and answers cut in any place."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, closing
from traceback import TracebackException
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx
import pytest

from moe_bulk.client import default_transport
from moe_bulk.posting import Fields, Poster, Reply
from tests.servers import ACCEPTED, Peer, authority, deaf, polite, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from aiohttp.connector import Connection

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_proxy")]

FIELDS = {"Content-Type": "application/json", "Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "me"}
BODY = b'{"device_id":"d-1"}'
TLS_IS_OURS = True


@pytest.fixture
def anyio_backend() -> str:
    """The connections are aiohttp's, so the loop is asyncio's."""
    return "asyncio"


@asynccontextmanager
async def _posting(url: str, ca_bundle: str | None = None) -> AsyncIterator[Poster]:
    transport = default_transport(url, ca_bundle)
    try:
        context = transport.context if TLS_IS_OURS else None
        with closing(Poster(transport.session, url, Fields(FIELDS), transport.proxy, context)) as poster:
            yield poster
    finally:
        await transport.aclose()


@pytest.fixture(params=[True, False], autouse=True)
def at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read bodies at once where they are there, or as if they came behind their heads: the same holds of both.

    The same of our own TLS, which the former have, and of aiohttp's, which serves behind proxies.
    """
    monkeypatch.setattr("tests.test_posting.TLS_IS_OURS", request.param)
    if not request.param:
        monkeypatch.setattr(Reply, "read_nowait", lambda _reply, _most: None)


async def _whole(reply: Reply) -> tuple[int, bytes]:
    if (found := reply.read_nowait(65536)) is not None:
        return reply.status, found
    body = bytearray()
    await reply.read_into(body, 65536)
    return reply.status, bytes(body)


async def test_a_body_of_more_than_is_asked_for_is_not_read_at_once() -> None:
    """Its end is not read at all, and the connection not used again; what has just as much is."""

    async def talk(peer: Peer) -> None:
        while True:
            await peer.request()
            peer.answer(b"x" * 1000)

    async with serving(talk) as server, _posting(server.url) as poster:
        for most, connections in ((1000, 1), (999, 1), (999, 2)):
            reply, body = await poster.post(BODY), bytearray()
            if (found := reply.read_nowait(most)) is None:
                await reply.read_into(body, most)
            assert b"x" * len(found or body) == (found or bytes(body))
            assert len(found or body) >= most
            assert connections == server.connections


@pytest.mark.parametrize("path", ["/v1/device/W", "/v1/device/W?x=%2F", ""])
async def test_it_says_what_httpx_over_aiohttp_says(path: str) -> None:
    """What goes over the wire is the same, header for header."""
    async with serving(polite) as server:
        url = server.url + path
        transport = default_transport(url)
        response = await transport.handle_async_request(httpx.Request("POST", url, headers=FIELDS, content=BODY))
        assert (200, ACCEPTED) == (response.status_code, await response.aread())
        await transport.aclose()
        async with _posting(url) as poster:
            assert (200, ACCEPTED) == await _whole(await poster.post(BODY))
        long, short = server.requests
        assert (long.line, long.headers, long.body) == (short.line, short.headers, short.body)


async def test_headers_of_one_request_are_not_those_of_the_next() -> None:
    """`more` travels with its own request only, whatever the connection."""
    async with serving(polite) as server, _posting(server.url) as poster:
        for more in ({"X-Forwarded-For": "192.0.2.1"}, None):
            assert (200, ACCEPTED) == await _whole(await poster.post(BODY, more))
        assert ["192.0.2.1", None] == [each.headers.get("x-forwarded-for") for each in server.requests]
        assert 1 == server.connections


async def test_a_header_of_two_lines_is_never_sent() -> None:
    """It could bring headers, or a request, of its own."""
    async with serving(polite) as server, _posting(server.url) as poster:
        with pytest.raises(ValueError, match="does not print"):
            await poster.post(BODY, {"X-Forwarded-For": "192.0.2.1\r\nContent-Length: 0"})
        assert (200, ACCEPTED) == await _whole(await poster.post(BODY))
        assert 1 == len(server.requests)


@pytest.mark.parametrize("encrypted", [False, True])
async def test_answers_cut_in_any_place(tmp_path: Path, encrypted: bool) -> None:  # noqa: FBT001  two cases
    """One byte at a time, in pieces, or with the next ones behind: the answer is the same."""
    tls = authority(tmp_path) if encrypted else None
    told = b'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{"status":"success"}'
    chunked = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n{"status":\r\na\r\n"success"}\r\n0\r\n\r\n'

    async def talk(peer: Peer) -> None:
        for whole in (told, chunked, b"HTTP/1.1 100 Continue\r\n\r\n" + told, b"HTTP/1.1 103 Early\r\n\r\n" + chunked):
            for step in (1, 7, 100):
                await peer.request()
                for start in range(0, len(whole), step):
                    peer.send(whole[start : start + step])
                    await peer.writer.drain()
                    await asyncio.sleep(0)

    context = tls.context if tls is not None else None
    async with (
        serving(talk, context) as server,
        _posting(server.url, tls.bundle if tls is not None else None) as poster,
    ):
        for _ in range(12):
            assert (200, ACCEPTED) == await _whole(await poster.post(BODY))
        assert (1, 12) == (server.connections, len(server.requests))


@pytest.mark.parametrize(("provisional", "connections"), [(20, 1), (21, 2)])
async def test_an_endless_row_of_provisional_answers_is_none(provisional: int, connections: int) -> None:
    """Reading them as they come would leave no time for anything else, the timeout included."""

    async def talk(peer: Peer) -> None:
        while True:
            await peer.request()
            peer.send(b"HTTP/1.1 103 Early Hints\r\n\r\n" * provisional)
            peer.answer()

    async with serving(talk) as server, _posting(server.url) as poster:
        for _ in range(2):
            if connections == 1:
                assert (200, ACCEPTED) == await _whole(await poster.post(BODY))
            else:
                with pytest.raises(aiohttp.http_exceptions.BadHttpMessage, match="nothing but provisional"):
                    await poster.post(BODY)
        assert connections == server.connections


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
async def test_answers_that_have_no_body(status: str) -> None:
    """They are over with their head, and the connection goes on."""

    async def talk(peer: Peer) -> None:
        while True:
            await peer.request()
            peer.send(f"HTTP/1.1 {status}\r\n\r\n".encode())

    async with serving(talk) as server, _posting(server.url) as poster:
        for _ in range(2):
            assert (int(status[:3]), b"") == await _whole(await poster.post(BODY))
        assert 1 == server.connections


@pytest.mark.parametrize(
    "head",
    [
        "101 Switching Protocols\r\nUpgrade: chat\r\nConnection: upgrade",
        "101 Switching Protocols",
        "099 Nearly\r\nContent-Length: 0",
    ],
)
async def test_what_is_no_last_answer_ends_the_connection(head: str) -> None:
    """Nothing else is sent where another protocol is spoken, or where the answer itself may still come."""

    async def talk(peer: Peer) -> None:
        await peer.request()
        peer.send(f"HTTP/1.1 {head}\r\n\r\n".encode())
        while True:
            await peer.request()
            peer.answer()  # the first one's, a little late

    async with serving(talk) as server, _posting(server.url) as poster:
        for _ in range(2):
            assert (int(head[:3]), b"") == await _whole(await poster.post(BODY))
        assert 2 == server.connections


async def test_the_beginning_of_another_answer_is_not_that_of_the_next() -> None:
    """Or a row that is refused would pass for accepted."""
    told = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"

    async def talk(peer: Peer) -> None:
        await peer.request()
        peer.send(told + told[:30])
        await peer.request()
        peer.send(told[30:])
        peer.answer(b"no", "400 Bad Request")

    async with serving(talk) as server, _posting(server.url) as poster:
        for _ in range(2):
            assert (200, b"{}") == await _whole(await poster.post(BODY))
        assert 2 == server.connections


@pytest.mark.parametrize("encrypted", [False, True])
async def test_a_long_request_that_is_refused_may_not_have_been_read(
    tmp_path: Path,
    encrypted: bool,  # noqa: FBT001  two cases
) -> None:
    """Nobody tells how much of it TLS keeps back, so that no other request follows it, as none follows what is left."""
    tls = authority(tmp_path) if encrypted else None

    async def talk(peer: Peer) -> None:
        while True:
            await peer.reader.readuntil(b"\r\n\r\n")
            peer.answer(b"{}", "413 Content Too Large")

    context, bundle = (tls.context, tls.bundle) if tls is not None else (None, None)
    async with serving(talk, context) as server, _posting(server.url, bundle) as poster:
        for _ in range(2):
            assert (413, b"{}") == await _whole(await poster.post(b"x" * 20_000))
        assert 2 == server.connections


async def test_a_long_request_that_is_accepted_was_read() -> None:
    """Its connection goes on."""
    async with serving(polite) as server, _posting(server.url) as poster:
        for _ in range(2):
            assert (200, ACCEPTED) == await _whole(await poster.post(b"x" * 10_000))
        assert 1 == server.connections


@pytest.mark.parametrize("encrypted", [False, True])
async def test_what_was_left_of_a_cancelled_request_never_arrives(
    tmp_path: Path,
    encrypted: bool,  # noqa: FBT001  two cases
) -> None:
    """The poster sees to that by itself, whether or not an attempt is told."""
    tls = authority(tmp_path)
    with deaf(tls.context if encrypted else None) as server:
        async with _posting(server.url, tls.bundle) as poster:
            task = asyncio.ensure_future(poster.post(b"x" * 10_000_000))
            await asyncio.sleep(0.2)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    assert "reset" == server.ended
    assert 10_000_000 > server.heard


@pytest.mark.parametrize("encrypted", [False, True])
async def test_what_was_left_of_a_request_when_its_answer_broke_off_never_arrives(
    tmp_path: Path,
    encrypted: bool,  # noqa: FBT001  two cases
) -> None:
    """A connection is aborted before anybody closes it: TLS would say what is left all the same."""
    tls, ended = authority(tmp_path) if encrypted else None, asyncio.get_running_loop().create_future()
    gone = asyncio.Event()

    async def talk(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        peer.send(b"HTTP/1.1 400 Bad Request\r\nTransfer-Encoding: chunked\r\n\r\nno length\r\n")
        await gone.wait()
        ended.set_result(await peer.ending())

    context, bundle = (tls.context, tls.bundle) if tls is not None else (None, None)
    async with serving(talk, context) as server, _posting(server.url, bundle) as poster:
        with pytest.raises((aiohttp.ClientPayloadError, aiohttp.http_exceptions.HttpProcessingError)):
            await _whole(await poster.post(b"x" * 10_000_000))
        gone.set()
        assert "reset" == await ended


async def test_an_answer_before_the_request_was_read_ends_the_connection() -> None:
    """What is left of a request may not precede another one."""

    async def talk(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        peer.answer(b"{}", "413 Content Too Large")
        await peer.ending()

    async with serving(talk) as server, _posting(server.url) as poster:
        for _ in range(2):
            assert (413, b"{}") == await _whole(await poster.post(b"x" * 30_000_000))
        assert 2 == server.connections


async def test_what_is_longer_than_asked_for_is_not_read() -> None:
    """The connection is closed instead."""

    async def talk(peer: Peer) -> None:
        await peer.request()
        peer.answer(b"y" * 10_000_000)
        await peer.ending()

    async with serving(talk) as server, _posting(server.url) as poster:
        for _ in range(2):
            body = bytearray()
            await (await poster.post(BODY)).read_into(body, 1000)
            assert 1000 <= len(body) < 1_000_000
        assert 2 == server.connections


async def test_what_came_before_the_end_is_kept() -> None:
    """A body that breaks off leaves what came of it."""

    async def talk(peer: Peer) -> None:
        await peer.request()
        peer.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 100\r\n\r\n{")
        await peer.writer.drain()
        peer.close()

    async with serving(talk) as server, _posting(server.url) as poster:
        reply, body = await poster.post(BODY), bytearray()
        with pytest.raises(aiohttp.ClientPayloadError):
            await reply.read_into(body, 65536)
        assert (400, b"{") == (reply.status, bytes(body))


async def test_a_connection_that_closed_at_the_end_of_its_answer_is_let_go(tmp_path: Path) -> None:
    """The answer counts; asyncio's TLS fails to tell what is left to send on what was closed twice."""
    trusted = authority(tmp_path)
    async with serving(polite, trusted.context) as server, _posting(server.url, trusted.bundle) as poster:
        reply = await poster.post(BODY)
        transport = reply._dialogue.transport
        transport.close()
        transport.close()
        assert (200, ACCEPTED) == await _whole(reply)
        assert (200, ACCEPTED) == await _whole(await poster.post(BODY))
        assert 2 == server.connections


async def test_a_server_that_closes_behind_its_answer_hears_at_once_that_we_do() -> None:
    """It waits for our end, with its side open, and we do not wait for its."""
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def talk(peer: Peer) -> None:
        await peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}")
        ended.set_result(await peer.ending())

    async with serving(talk) as server, _posting(server.url) as poster:
        assert (200, b"{}") == await _whole(await poster.post(BODY))
        await asyncio.wait_for(ended, 5)


async def test_a_cancelled_request_takes_its_connection_with_it() -> None:
    """Its answer would pass for the next one's."""
    arrived = asyncio.Event()

    async def talk(peer: Peer) -> None:
        await peer.request()
        arrived.set()
        await peer.ending()

    async with serving(talk) as server, _posting(server.url) as poster:
        for _ in range(2):
            arrived.clear()
            task = asyncio.ensure_future(poster.post(BODY))
            await arrived.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert 2 == server.connections


async def test_whoever_listens_to_httpx_hears_of_each_request(caplog: pytest.LogCaptureFixture) -> None:
    """Its log tells method, address and status, and not the words behind it, which are a stranger's."""
    caplog.set_level(logging.INFO, logger="httpx")

    async def talk(peer: Peer) -> None:
        await peer.request()
        peer.answer(status="200 Nice-Words")

    async with serving(talk) as server, _posting(f"{server.url}/v1/device/W") as poster:
        await _whole(await poster.post(BODY))
        said = f"HTTP Request: POST {server.url}/v1/device/W 200"
    assert [said] == [record.getMessage() for record in caplog.records if record.name == "httpx"]


async def test_nothing_is_sent_behind_the_end() -> None:
    """A session that was closed opens no connection any more."""
    async with serving(polite) as server:
        async with _posting(server.url) as poster:
            pass
        with pytest.raises(Exception, match=r"[Cc]losed"):
            await poster.post(BODY)
        assert [] == server.requests


async def test_a_session_that_is_closed_is_refused() -> None:
    """It says so at once, not at the first request."""
    session = aiohttp.ClientSession()
    await session.close()
    with pytest.raises(RuntimeError, match="the session is closed"):
        Poster(session, "http://127.0.0.1:9", Fields(FIELDS), None)


async def test_a_connection_that_is_gone_carries_nothing() -> None:
    """It may have been closed between the moment when it was chosen and the one when it was to be used."""

    class Closing(aiohttp.TCPConnector):
        async def connect(self, *args: Any) -> Connection:
            connection = await super().connect(*args)
            connection.close()
            return connection

    async with serving(polite) as server, aiohttp.ClientSession(connector=Closing()) as session:
        poster = Poster(session, server.url, Fields(FIELDS), None)
        with pytest.raises(aiohttp.ClientConnectionError, match="closed the connection"):
            await poster.post(BODY)
        assert [] == server.requests


async def test_what_goes_wrong_shows_no_key() -> None:
    """It is in no variable of whoever sent the request and waited for the answer."""

    async def talk(peer: Peer) -> None:
        await peer.request()
        peer.close()

    async with serving(talk) as server, aiohttp.ClientSession() as session:
        poster = Poster(session, server.url, Fields({"Authorization": f"Basic {'secret' * 2}"}), None)
        with pytest.raises(aiohttp.ServerDisconnectedError) as raised:
            await poster.post(BODY)
        assert "Basic secretsecret" == server.requests[0].headers["authorization"]
    stack = TracebackException.from_exception(raised.value, capture_locals=True).stack
    told = "".join(map(str, (frame.locals for frame in stack[1:])))  # the first frame is this test's own
    assert "dialogue" in told
    assert "secretsecret" not in told + repr(vars(poster)) + repr(poster._request_of(b"", None))


async def test_a_listener_that_fails_leaves_no_connection_behind() -> None:
    """Filters of a log are others' code."""

    def fails(_record: logging.LogRecord) -> bool:
        raise LookupError

    log, before = logging.getLogger("httpx"), logging.getLogger("httpx").level
    log.addFilter(fails)
    log.setLevel(logging.INFO)
    try:
        async with serving(polite) as server, _posting(server.url) as poster:
            for _ in range(2):
                with pytest.raises(LookupError):
                    await poster.post(BODY)
            assert 2 == server.connections
    finally:
        log.removeFilter(fails)
        log.setLevel(before)


def test_the_headers_show_nothing() -> None:
    """The key is among them."""
    assert "<1 headers>" == repr(Fields({"Authorization": "Basic secret"}))
