"""What our connections and the transport over them do on real sockets, and what `Client` makes of it.

Slots of the rate limit rest on these pins: nothing beneath the client sends a request twice, and what was given up
never arrives later.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import time
from asyncio import sslproto
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import aiohttp
import httpx
import pytest

from moe_bulk.client import Answer, Client, default_transport
from moe_bulk.config import Credentials
from moe_bulk.connections import attempt_under_way
from moe_bulk.device import Device
from moe_bulk.dialogue import Dialogue
from moe_bulk.errors import ConfigError
from moe_bulk.outcome import Outcome, Verdict
from moe_bulk.posting import Poster, Reply
from moe_bulk.record import Position, Record, Row
from moe_bulk.tls import Tls
from moe_bulk.wire import CONNECTION_TEST_PATH, WORKSPACE_HEADER, encode_connection_test
from tests.servers import (
    ACCEPTED,
    Authority,
    Peer,
    authority,
    deaf,
    nobody_accepts,
    nobody_listens,
    polite,
    serving,
    tunnel,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

    from tests.servers import Deaf

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_proxy")]

KEY = "s3cr3t-Key-of-the-tests"
SHORT = 0.3
"""Seconds: the timeout of the tests that wait for it."""
BROKEN = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def anyio_backend() -> str:
    """The connections are aiohttp's, so the loop is asyncio's."""
    return "asyncio"


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate for 127.0.0.1 and its authority."""
    return authority(tmp_path_factory.mktemp("tls"))


def _record(model: str = "Pixel 9") -> Record:
    attributes = {"platform": "ANDROID", "push_id": "token-1", "model": model}
    return Record(Row(Position("rows", 1, 0), {}), Device("user-1", "device-1", attributes))


@asynccontextmanager
async def _entered(url: str, within: float = 5.0, ca_bundle: str | None = None) -> AsyncIterator[Client]:
    credentials = Credentials("WORKSPACE", KEY, base_url=url)
    async with Client(credentials, within, time.time, ca_bundle=ca_bundle) as client:
        yield client


async def _one_attempt(url: str, within: float = 5.0, ca_bundle: str | None = None) -> Outcome:
    async with _entered(url, within, ca_bundle) as client:
        return await client.attempt(_record())


async def _raised(url: str) -> Exception:
    """What the bare transport raises for one POST."""
    transport = default_transport(url)
    try:
        response = await transport.handle_async_request(httpx.Request("POST", url, content=b"{}"))
        try:
            await response.aread()
        finally:
            await response.aclose()
    except Exception as error:  # noqa: BLE001  whichever it is
        return error
    finally:
        await transport.aclose()
    pytest.fail("it raised nothing")


def _trouble(outcome: Outcome) -> str | None:
    """The name of the _trouble, where it is nothing else."""
    assert (Verdict.TROUBLE, None) == (outcome.verdict, outcome.http_status)
    assert (outcome.reason or "").startswith(f"{outcome.error}; ")
    assert KEY not in repr(outcome)
    return outcome.error


def _leave_tls_to_asyncio(monkeypatch: pytest.MonkeyPatch) -> None:
    """As behind a proxy."""
    monkeypatch.setattr("moe_bulk.client.Poster", lambda *given: Poster(*given[:4]))


def _ours_over_tls() -> int:
    """How much is there of what a connection over TLS needs."""
    ours = (each for each in gc.get_objects() if isinstance(each, (Dialogue, Tls, sslproto.SSLProtocol)))
    return sum(not getattr(each, "_server_side", False) for each in ours)


# --- nothing is sent twice -------------------------------------------------------------------------------------------


async def _closed_unread(peer: Peer) -> None:
    peer.close()


async def _closed_when_read(peer: Peer) -> None:
    await peer.request()
    peer.close()


async def _reset_unread(peer: Peer) -> None:
    peer.reset()


async def _reset_when_read(peer: Peer) -> None:
    await peer.request()
    peer.reset()


async def _half_a_head(peer: Peer) -> None:
    await peer.request()
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Le")
    peer.close()


async def _half_a_body(peer: Peer) -> None:
    await peer.request()
    peer.send(BROKEN)
    peer.close()


async def _half_a_body_and_reset(peer: Peer) -> None:
    await peer.request()
    peer.send(BROKEN)
    await asyncio.sleep(0.01)
    peer.reset()


async def _cut_chunk(peer: Peer) -> None:
    await peer.request()
    peer.send(CHUNKED + b'14\r\n{"st')
    peer.close()


async def _no_chunk(peer: Peer) -> None:
    await peer.request()
    peer.send(CHUNKED + b'zz\r\n{"st\r\n')
    await peer.ending()


async def _garbage(peer: Peer) -> None:
    await peer.request()
    peer.send(b"220 mail.example ESMTP " + KEY.encode() + b"\r\n\r\n")
    await peer.ending()


async def _half_a_body_and_silence(peer: Peer) -> None:
    await peer.request()
    peer.send(BROKEN)
    await peer.ending()


async def _silent(peer: Peer) -> None:
    await peer.request()
    await peer.ending()


async def _one_answer(peer: Peer) -> None:
    await peer.request()
    peer.answer(headers="Connection: close\n")
    peer.close()


LOST, GARBAGE = aiohttp.ServerDisconnectedError, aiohttp.ClientResponseError
FAULTS: list[tuple[Callable[[Peer], Awaitable[None]], int, type[Exception], type[Exception], str]] = [
    (_closed_unread, 0, httpx.ConnectTimeout, LOST, "connection lost"),
    (_closed_when_read, 1, httpx.ConnectTimeout, LOST, "connection lost"),
    (_reset_unread, 0, httpx.ConnectTimeout, aiohttp.ClientOSError, "connection lost"),
    (_reset_when_read, 1, httpx.ConnectTimeout, aiohttp.ClientOSError, "connection lost"),
    (_half_a_head, 1, httpx.ConnectTimeout, LOST, "connection lost"),
    (_half_a_body, 1, httpx.ReadError, aiohttp.ClientPayloadError, "broken answer"),
    (_half_a_body_and_reset, 1, httpx.ReadError, aiohttp.ClientPayloadError, "broken answer"),
    (_cut_chunk, 1, httpx.ReadError, aiohttp.ClientPayloadError, "broken answer"),
    (_no_chunk, 1, GARBAGE, aiohttp.http_exceptions.HttpProcessingError, "broken answer"),
    (_garbage, 1, GARBAGE, aiohttp.http_exceptions.HttpProcessingError, "broken answer"),
]


@pytest.mark.parametrize(("talk", "requests", "kind", "cause", "name"), FAULTS)
async def test_an_attempt_is_one_request(
    talk: Callable[[Peer], Awaitable[None]], requests: int, kind: type, cause: type, name: str
) -> None:
    """Whatever the server does to a POST, it is sent once, by the transport and by an attempt, which names it."""
    async with serving(talk) as server:
        error = await _raised(server.url)
        assert (1, requests) == (server.connections, len(server.requests))
    assert (kind, cause) == (type(error), type(error.__cause__))
    async with serving(talk) as server:
        assert name == _trouble(await _one_attempt(server.url))
        assert (1, requests) == (server.connections, len(server.requests))


@pytest.mark.parametrize("leave", [Peer.close, Peer.reset])
async def test_a_request_on_a_used_connection_is_not_repeated(leave: Callable[[Peer], None]) -> None:
    """A kept connection that ends under the second request is where HTTP clients like to repeat by themselves."""

    async def talk(peer: Peer) -> None:
        await peer.request()
        peer.answer()
        await peer.request()
        leave(peer)

    async with serving(talk) as server, _entered(server.url) as client:
        assert Verdict.ACCEPTED is (await client.attempt(_record())).verdict
        assert "connection lost" == _trouble(await client.attempt(_record()))
        assert (1, 2) == (server.connections, len(server.requests))


async def test_a_connection_that_the_server_closed_meanwhile_is_left_alone() -> None:
    """A server that closes an idle connection costs no try: the next attempt takes another connection."""

    async def talk(peer: Peer) -> None:
        await peer.request()
        peer.answer()
        peer.close()

    async with serving(talk) as server, _entered(server.url) as client:
        for _ in range(3):
            assert Verdict.ACCEPTED is (await client.attempt(_record())).verdict
            await asyncio.sleep(0.01)
        assert (3, 3) == (server.connections, len(server.requests))


async def _record_again(client: Client) -> Outcome:
    return await client.attempt(_record())


async def _test_connection(client: Client) -> Outcome:
    return await client.try_connection(Answer())


@pytest.mark.parametrize("again", [_record_again, _test_connection])
@pytest.mark.parametrize("first", [_record_again, _test_connection])
async def test_an_answer_that_nobody_asked_for_is_no_answer(
    first: Callable[[Client], Awaitable[Outcome]], again: Callable[[Client], Awaitable[Outcome]]
) -> None:
    """A second answer to the first request must not be taken for the second one's: that would be a false acceptance.

    Whoever comes next takes another connection, or none: behind a Test connection.
    """
    said = asyncio.Event()

    async def talk(peer: Peer) -> None:
        await peer.request()
        if said.is_set():
            peer.answer(b'{"status":"fail"}', "400 Bad Request")
            return
        peer.answer()
        await asyncio.sleep(0.01)
        peer.answer()
        said.set()
        await peer.ending()

    async with serving(talk) as server, _entered(server.url) as client:
        assert Verdict.ACCEPTED is (await first(client)).verdict
        await said.wait()
        await asyncio.sleep(0.01)
        outcome = await again(client)
        if first is _test_connection:  # aiohttp's pool offers it again, and we refuse it
            assert "connection lost" == _trouble(outcome)
            assert 1 == len(server.requests)
        else:
            assert 400 == outcome.http_status
            assert (2, 2) == (server.connections, len(server.requests))


async def test_a_refused_connection() -> None:
    """Nobody listens: httpx-aiohttp calls it a ConnectTimeout, we call it by its name."""
    with nobody_listens() as url:
        error = await _raised(url)
        assert (httpx.ConnectTimeout, aiohttp.ClientConnectorError) == (type(error), type(error.__cause__))
        assert "connection refused" == _trouble(await _one_attempt(url))


async def test_a_name_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host without an address is passing _trouble, told by name."""

    async def resolve(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    outcome = await _one_attempt("https://api.example")
    assert "name not resolved" == _trouble(outcome)
    assert "api.example" in str(outcome.reason)


# --- connections -----------------------------------------------------------------------------------------------------


async def test_connections_are_kept_and_used_again() -> None:
    """Ten attempts one after the other need one connection, and none of them brings a cookie back."""
    async with serving(polite) as server, _entered(server.url) as client:
        for _ in range(10):
            assert Verdict.ACCEPTED is (await client.attempt(_record())).verdict
        assert (1, 10) == (server.connections, len(server.requests))
        assert all("cookie" not in request.headers for request in server.requests)


async def test_no_attempt_waits_for_a_connection() -> None:
    """All that are in flight have a connection: more than aiohttp's own limit of 100, or a taken slot would idle."""
    everybody = asyncio.Event()
    arrived = []

    async def talk(peer: Peer) -> None:
        arrived.append(await peer.request())
        if len(arrived) == 120:
            everybody.set()
        await everybody.wait()
        peer.answer()

    async with serving(talk) as server, _entered(server.url) as client:
        outcomes = await asyncio.gather(*(client.attempt(_record()) for _ in range(120)))
        assert {Verdict.ACCEPTED} == {outcome.verdict for outcome in outcomes}
        assert 120 == server.connections


@pytest.mark.parametrize("status", ["301 Moved Permanently", "302 Found", "303 See Other", "307 Temporary", "308 X"])
async def test_redirects_are_not_followed(status: str) -> None:
    """A redirect is the wrong address, and whoever stands there gets neither the record nor the key."""
    async with serving(polite) as elsewhere:

        async def talk(peer: Peer) -> None:
            await peer.request()
            peer.answer(b"", status, f"Location: {elsewhere.url}/v1\n")

        async with serving(talk) as server:
            outcome = await _one_attempt(server.url)
        assert Verdict.MISDIRECTED is outcome.verdict
        assert f"{elsewhere.url}/v1" in str(outcome.reason)
        assert 0 == elsewhere.connections


async def test_an_idle_connection_is_closed_in_the_orderly_way() -> None:
    """Leaving the client says goodbye to the server: only what was given up is reset."""
    endings: asyncio.Queue[str] = asyncio.Queue()

    async def talk(peer: Peer) -> None:
        await peer.request()
        peer.answer()
        endings.put_nowait(await peer.ending())

    async with serving(talk) as server:
        assert Verdict.ACCEPTED is (await _one_attempt(server.url)).verdict
        assert "closed" == await asyncio.wait_for(endings.get(), 5)


# --- the timeout, and giving up --------------------------------------------------------------------------------------


async def _silence(peer: Peer) -> None:
    """Say nothing."""


async def _dripping_head(peer: Peer) -> None:
    peer.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        peer.send(b"X: a\r\n")
        await peer.writer.drain()
        await asyncio.sleep(0.02)


async def _dripping_body(peer: Peer) -> None:
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n")
    while True:
        peer.send(b" ")
        await peer.writer.drain()
        await asyncio.sleep(0.02)


async def _continues(peer: Peer) -> None:
    while True:
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await peer.writer.drain()
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("say", [_silence, _dripping_head, _dripping_body, _continues])
async def test_an_attempt_ends_within_its_timeout_and_resets_the_connection(
    say: Callable[[Peer], Awaitable[None]],
) -> None:
    """However a server spins an answer out, the attempt ends in time, and the server sees a reset."""
    endings: asyncio.Queue[str] = asyncio.Queue()

    async def talk(peer: Peer) -> None:
        await peer.request()
        saying = asyncio.ensure_future(say(peer))
        endings.put_nowait(await peer.ending())
        saying.cancel()
        with suppress(asyncio.CancelledError, ConnectionError):
            await saying

    async with serving(talk) as server:
        started = time.monotonic()
        assert "timeout" == _trouble(await _one_attempt(server.url, SHORT))
        assert SHORT <= time.monotonic() - started
        assert "reset" == await asyncio.wait_for(endings.get(), 5)


async def test_no_timer_outlives_the_client() -> None:
    """It would hold the client for as long as an attempt may take."""

    async def talk(peer: Peer) -> None:
        await peer.request()
        peer.answer(b"{}")

    async with serving(talk) as server:
        async with _entered(server.url) as client:
            await client.attempt(_record())
            assert (deadlines := client._deadlines) is not None
            assert deadlines._timer is not None
        assert deadlines._timer is None


async def test_connecting_is_part_of_the_timeout() -> None:
    """A connection that nobody accepts ends with the attempt."""
    with nobody_accepts() as url:
        started = time.monotonic()
        assert "timeout" == _trouble(await _one_attempt(url, SHORT))
        assert SHORT <= time.monotonic() - started


async def test_what_a_stopped_process_had_not_sent_in_time_is_never_sent() -> None:
    """It stood still before a connection was chosen: its slot in the window may have passed."""
    async with serving(polite) as server, _entered(server.url, SHORT) as client:
        assert Verdict.ACCEPTED is (await client.attempt(_record())).verdict
        deliver = client._deliver

        def stopped(device: Device, answer: Answer) -> Coroutine[None, None, None]:
            time.sleep(2 * SHORT)
            return deliver(device, answer)

        client._deliver = stopped  # type: ignore[method-assign]
        assert "timeout" == _trouble(await client.attempt(_record()))
        await asyncio.sleep(0.1)
        assert 1 == len(server.requests)


async def test_a_handshake_is_part_of_the_timeout(tls: Authority) -> None:
    """A server that takes the connection and never answers the TLS greeting ends with the attempt."""
    async with serving(_silence) as server:
        url = server.url.replace("http:", "https:")
        assert "timeout" == _trouble(await _one_attempt(url, SHORT, tls.bundle))


@pytest.fixture(params=["http", "https", "https of asyncio", "https of asyncio 3.11.2"])
def scheme(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Give the scheme, and let asyncio do the TLS, as it does behind a proxy.

    That of CPython 3.11.2, which is Debian 12's, fails to end what was ended and closed.
    """
    scheme, _, whose = request.param.partition(" ")
    if whose:
        _leave_tls_to_asyncio(monkeypatch)
    if whose.endswith("3.11.2"):

        def abort(transport: Any) -> None:
            transport._closed = True
            transport._ssl_protocol._abort()

        def get_extra_info(transport: Any, name: str, default: object = None) -> object:
            return transport._ssl_protocol._get_extra_info(name, default)

        monkeypatch.setattr(sslproto._SSLProtocolTransport, "abort", abort)
        monkeypatch.setattr(sslproto._SSLProtocolTransport, "get_extra_info", get_extra_info)
    return str(scheme)


async def _by_timeout(server: Deaf, bundle: str, sent: Record) -> None:
    async with _entered(server.url, SHORT, bundle) as client:
        assert "timeout" == _trouble(await client.attempt(sent))


async def _by_cancellation(server: Deaf, bundle: str, sent: Record) -> None:
    async with _entered(server.url, 10, bundle) as client:
        attempt = asyncio.ensure_future(client.attempt(sent))
        await asyncio.sleep(SHORT)
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt


@pytest.mark.parametrize("give_up", [_by_timeout, _by_cancellation])
async def test_what_was_given_up_never_arrives(
    give_up: Callable[[Deaf, str, Record], Awaitable[None]], scheme: str, tls: Authority
) -> None:
    """The rest of a body that the server had not read yet is thrown away, in the kernel's buffers, too."""
    with deaf(tls.context if scheme == "https" else None) as server:
        await give_up(server, tls.bundle, _record("x" * 120_000))
    assert "reset" == server.ended
    assert 120_000 > server.heard


@pytest.mark.parametrize("give_up", [_by_timeout, _by_cancellation])
async def test_giving_up_is_a_reset_on_the_wire(
    give_up: Callable[[Deaf, str, Record], Awaitable[None]], scheme: str, tls: Authority
) -> None:
    """A server that has the whole request, but has not answered, is told by a reset that nobody waits any more."""
    with deaf(tls.context if scheme == "https" else None) as server:
        await give_up(server, tls.bundle, _record())
    assert "reset" == server.ended


async def test_what_was_given_up_has_no_certificate_any_more(scheme: str, tls: Authority) -> None:
    """Whoever asks for it afterwards is told so, and not of the event loop's trouble."""
    with deaf(tls.context if scheme == "https" else None) as server:
        async with _entered(server.url, SHORT, tls.bundle) as client:
            answer = Answer()
            deliver = partial(client._deliver, _record().device)
            assert "timeout" == _trouble(await client._carry(deliver, answer))
            assert bool(answer.certificate) <= (scheme == "https")


async def test_nobody_is_connected_for_behind_a_test_connection() -> None:
    """Its attempt is not told of what others make."""
    async with serving(polite) as server, _entered(server.url) as client:
        await client.try_connection(Answer())
        assert attempt_under_way.get() is None


async def test_an_early_answer_ends_the_sending() -> None:
    """A refusal that comes before the body was read is an answer, and its connection is not used again."""

    async def talk(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a WriteTransport by name
        peer.answer(b"{}", "413 Content Too Large", "Connection: close\n")

    async with serving(talk) as server, _entered(server.url) as client:
        outcome = await client.attempt(_record("x" * 120_000))
        assert (Verdict.REJECTED, 413) == (outcome.verdict, outcome.http_status)


async def test_giving_up_spares_a_connection_that_serves_another() -> None:
    """Cancelled when its answer has just come in, an attempt leaves the connection to the one that took it over."""
    go_on, taken_over, late = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def talk(peer: Peer) -> None:
        await peer.request()
        peer.answer()
        await peer.request()
        taken_over.set()
        await go_on.wait()
        peer.answer()

    async with serving(talk) as server, _entered(server.url) as client:
        read = Reply.read_into

        async def slow_to_wake(reply: Reply, body: bytearray, most: int) -> None:
            await read(reply, body, most)
            if not late.is_set():
                late.set()
                await asyncio.sleep(5)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Reply, "read_nowait", lambda _reply, _most: None)  # as if its body came behind its head
            patch.setattr(Reply, "read_into", slow_to_wake)
            first = asyncio.ensure_future(client.attempt(_record()))
            await late.wait()
            second = asyncio.ensure_future(client.attempt(_record()))
            await taken_over.wait()
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            go_on.set()
            assert Verdict.ACCEPTED is (await second).verdict
        assert 1 == server.connections


# --- answers of which only the head comes ----------------------------------------------------------------------------


async def _never_ending(peer: Peer) -> None:
    peer.send(b"Content-Length: 5000\r\n\r\n{")
    await peer.ending()


async def _breaking_off(peer: Peer) -> None:
    peer.send(b"Content-Length: 5000\r\n\r\n{")
    peer.close()


HEAD_ONLY = [
    ("401 Unauthorized", Verdict.UNAUTHORIZED),
    ("307 Temporary Redirect", Verdict.MISDIRECTED),
    ("404 Not Found", Verdict.MISDIRECTED),
    ("405 Method Not Allowed", Verdict.MISDIRECTED),
    ("400 Bad Request", Verdict.REJECTED),
    ("413 Content Too Large", Verdict.REJECTED),
    ("403 Forbidden", Verdict.DOOMED),
    ("429 Too Many Requests", Verdict.THROTTLED),
    ("503 Service Unavailable", Verdict.TROUBLE),
]


@pytest.mark.parametrize("ends", [_never_ending, _breaking_off])
@pytest.mark.parametrize(("status", "verdict"), HEAD_ONLY)
async def test_a_refusal_counts_though_its_body_does_not_come(
    status: str, verdict: Verdict, ends: Callable[[Peer], Awaitable[None]]
) -> None:
    """What stops or slows a run stands in the head: a body that never ends must not make another try of it."""

    async def talk(peer: Peer) -> None:
        await peer.request()
        peer.send(f"HTTP/1.1 {status}\r\nRetry-After: 7\r\n".encode())
        await ends(peer)

    async with serving(talk) as server:
        outcome = await _one_attempt(server.url, SHORT)
    assert (verdict, int(status[:3]), 7.0) == (outcome.verdict, outcome.http_status, outcome.retry_after)
    assert None is outcome.error


async def test_the_connection_of_half_an_answer_is_reset() -> None:
    """An answer that was judged by its head leaves no connection behind on which its body could still come."""
    endings: asyncio.Queue[str] = asyncio.Queue()

    async def talk(peer: Peer) -> None:
        await peer.request()
        peer.send(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 5000\r\n\r\n{")
        endings.put_nowait(await peer.ending())

    async with serving(talk) as server, _entered(server.url, SHORT) as client:
        assert Verdict.THROTTLED is (await client.attempt(_record())).verdict
        assert "reset" == await asyncio.wait_for(endings.get(), 5)


async def test_half_an_answer_accepts_nothing() -> None:
    """A success counts when all of it has come, however complete it looks."""

    async def talk(peer: Peer) -> None:
        await peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + ACCEPTED)
        await peer.ending()

    async with serving(talk) as server:
        assert "timeout" == _trouble(await _one_attempt(server.url, SHORT))


@pytest.mark.parametrize(("status", "verdict"), [("200", Verdict.ACCEPTED), ("401", Verdict.UNAUTHORIZED)])
async def test_the_words_behind_a_status_lose_no_answer(status: str, verdict: Verdict) -> None:
    """Servers write them in their own language and encoding; the status counts."""

    async def talk(peer: Peer) -> None:
        await peer.request()
        peer.answer(status=f"{status} Nicht erlaubt \u00e4")

    async with serving(talk) as server:
        outcome = await _one_attempt(server.url)
    assert (verdict, int(status)) == (outcome.verdict, outcome.http_status)


# --- answers that are too much ---------------------------------------------------------------------------------------


async def test_an_endless_answer_is_not_read_to_its_end() -> None:
    """Of an answer, 64 KiB are looked at; the connection of a longer one is closed."""
    sent = []

    async def talk(peer: Peer) -> None:
        await peer.request()
        peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            peer.send(b" " * 65536)
            sent.append(65536)
            await peer.writer.drain()

    async with serving(talk) as server:
        outcome = await _one_attempt(server.url)
        assert (Verdict.TROUBLE, 200, "200 OK, no JSON") == (outcome.verdict, outcome.http_status, outcome.reason)
    assert 100 * 65536 > sum(sent)


HEADS = [
    (b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 100_000 + b"\r\n\r\n", "broken answer; Got more than 8190 bytes"),
    (b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 10_000 + b"\r\n", "broken answer; Too many headers received"),
    (b"HTTP/1.1 42 Odd\r\n\r\n", "broken answer; Bad status line"),
    (b"HTTP/1.1 1000 Odd\r\n\r\n", "broken answer; Bad status line"),
    (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "broken answer; Invalid character in Content-Length"),
    (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 80 + KEY.encode() * 900, "broken answer; Got more than 8190 bytes"),
]


@pytest.mark.parametrize(("head", "reason"), HEADS)
async def test_a_hostile_head_is_a_broken_answer(head: bytes, reason: str) -> None:
    """Heads without measure or sense are _trouble, and nothing of their text is repeated: not even half a key."""

    async def talk(peer: Peer) -> None:
        await peer.request()
        peer.send(head)
        await peer.ending()

    async with serving(talk) as server:
        outcome = await _one_attempt(server.url)
    assert "broken answer" == _trouble(outcome)
    assert reason == str(outcome.reason)[: len(reason)]
    assert KEY[:8] not in str(outcome.reason)


@pytest.mark.parametrize("status", ["999 Odd", "101 Switching Protocols", "000 Odd", "250 Odd"])
async def test_an_odd_status_is_trouble(status: str) -> None:
    """A status that HTTP has no meaning for is passing _trouble, whatever it says."""

    async def talk(peer: Peer) -> None:
        await peer.request()
        peer.answer(b"", status, "Connection: close\n")

    async with serving(talk) as server:
        outcome = await _one_attempt(server.url)
    assert (Verdict.TROUBLE, int(status[:3])) == (outcome.verdict, outcome.http_status)


async def test_a_test_connection_is_one_request_too() -> None:
    """It goes over our transport, and its answer says what a record's would."""
    async with serving(polite) as server, _entered(server.url) as client:
        answer = Answer()
        assert Verdict.ACCEPTED is (await client.try_connection(answer)).verdict
        assert (200, ACCEPTED, "session=1") == (answer.status, answer.body, answer.headers["set-cookie"])
        (request,) = server.requests
        assert f"POST {CONNECTION_TEST_PATH} HTTP/1.1" == request.line
        assert "WORKSPACE" == request.headers[WORKSPACE_HEADER.lower()]
        assert encode_connection_test("WORKSPACE", KEY, server.host) == request.body


# --- TLS -------------------------------------------------------------------------------------------------------------


async def test_the_callers_authority_is_trusted(tls: Authority) -> None:
    """With its own CA bundle a private endpoint is reached, over a verified connection."""
    async with serving(polite, tls=tls.context) as server:
        assert Verdict.ACCEPTED is (await _one_attempt(server.url, ca_bundle=tls.bundle)).verdict
        assert 1 == len(server.requests)


async def test_an_unknown_authority_is_refused(tls: Authority) -> None:
    """A certificate that nobody vouches for: nothing is sent, and the trouble has its name."""
    async with serving(polite, tls=tls.context) as server:
        assert "certificate refused" == _trouble(await _one_attempt(server.url))
        assert 0 == len(server.requests)


async def test_a_certificate_for_another_host_is_refused(tls: Authority) -> None:
    """A certificate of the right authority for 127.0.0.1 does not serve for 127.0.0.2."""
    async with serving(polite, tls=tls.context) as server:
        through = server.url.replace("127.0.0.1", "localhost")
        assert "certificate refused" == _trouble(await _one_attempt(through, ca_bundle=tls.bundle))
        assert 0 == len(server.requests)


async def test_a_server_that_speaks_no_tls() -> None:
    """Plain http where https was said is a failure of TLS."""

    async def talk(peer: Peer) -> None:
        peer.answer()
        await peer.ending()

    async with serving(talk) as server:
        assert "TLS failure" == _trouble(await _one_attempt(server.url.replace("http:", "https:")))


@pytest.mark.parametrize("talk", [_closed_unread, _reset_unread])
async def test_a_server_that_ends_the_handshake(talk: Callable[[Peer], Awaitable[None]]) -> None:
    """Nothing was sent then, however it ends it."""
    async with serving(talk) as server, _entered(server.url.replace("http:", "https:")) as client:
        assert "no connection" == _trouble(await client.attempt(_record()))


async def test_one_context_serves_all_connections(monkeypatch: pytest.MonkeyPatch, tls: Authority) -> None:
    """Building a TLS context takes 30 ms, so it happens once, not once a connection."""
    made = []
    make = ssl.create_default_context

    def counted(purpose: ssl.Purpose = ssl.Purpose.SERVER_AUTH, *, cafile: str | None = None) -> ssl.SSLContext:
        made.append(cafile)
        return make(purpose, cafile=cafile)

    monkeypatch.setattr(ssl, "create_default_context", counted)
    async with serving(polite, tls=tls.context) as server, _entered(server.url, ca_bundle=tls.bundle) as client:
        await asyncio.gather(*(client.attempt(_record()) for _ in range(5)))
        assert 5 == len(server.requests)
    assert [tls.bundle] == made


async def test_a_bundle_that_is_none_is_refused_before_anything_is_sent() -> None:
    """A CA bundle that cannot be read is a mistake of the caller's, told as such."""
    with pytest.raises(ConfigError, match=r"the CA bundle '/nowhere/ca\.pem' cannot be read"):
        await _one_attempt("https://127.0.0.1:1", ca_bundle="/nowhere/ca.pem")


# --- the proxy of the environment ------------------------------------------------------------------------------------

PASSWORD = "pr0xy-p4ss"


async def test_https_goes_through_the_proxy_unread(monkeypatch: pytest.MonkeyPatch, tls: Authority) -> None:
    """The proxy sees where to and its own password, never the key; the server never sees the proxy's password."""
    overheard = bytearray()
    async with serving(tunnel(overheard)) as proxy, serving(polite, tls=tls.context) as server:
        monkeypatch.setenv("HTTPS_PROXY", f"http://jo:{PASSWORD}@127.0.0.1:{proxy.port}")
        async with _entered(server.url, ca_bundle=tls.bundle) as client:
            for _ in range(3):
                assert Verdict.ACCEPTED is (await client.attempt(_record())).verdict
        assert (1, 3) == (proxy.connections, len(server.requests))
        connect, (first, *_) = proxy.requests[0], server.requests
    assert f"CONNECT 127.0.0.1:{server.port} HTTP/1.1" == connect.line
    assert httpx.BasicAuth("jo", PASSWORD)._auth_header == connect.headers["proxy-authorization"]
    assert "authorization" not in connect.headers
    assert "proxy-authorization" not in first.headers
    for secret in (KEY, first.headers["authorization"], "user-1", "/v1/device"):
        assert secret.encode() not in overheard


async def test_plain_http_to_loopback_never_meets_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain http carries the key readably, so it goes to this machine directly whatever the environment says."""
    async with serving(polite) as proxy, serving(polite) as server:
        for name in ("http_proxy", "HTTPS_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        assert Verdict.ACCEPTED is (await _one_attempt(server.url)).verdict
        assert (0, 1) == (proxy.connections, server.connections)


async def test_no_proxy_is_honoured(monkeypatch: pytest.MonkeyPatch, tls: Authority) -> None:
    """NO_PROXY names the hosts that are reached directly."""
    async with serving(polite) as proxy, serving(polite, tls=tls.context) as server:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "example.com,127.0.0.1")
        assert Verdict.ACCEPTED is (await _one_attempt(server.url, ca_bundle=tls.bundle)).verdict
        assert 0 == proxy.connections


@pytest.mark.parametrize(
    ("status", "reason"),
    [("407 Wrong password pr0xy-p4ss", "the proxy answered 407"), ("502 Bad", "the proxy answered 502"), (None, "")],
)
async def test_a_proxy_that_refuses_is_an_outcome(
    monkeypatch: pytest.MonkeyPatch, status: str | None, reason: str
) -> None:
    """A proxy that answers no, or nothing, is passing trouble; whatever it says back, its password stays hidden."""

    async def talk(peer: Peer) -> None:
        await peer.request()
        if status:
            peer.answer(PASSWORD.encode(), status, f"X-Echo: {PASSWORD}\n")
        peer.close()

    async with serving(talk) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://jo:{PASSWORD}@127.0.0.1:{proxy.port}")
        outcome = await _one_attempt("https://api-01.moengage.com")
    assert ("proxy failure" if status else "connection lost") == _trouble(outcome)
    assert reason in str(outcome.reason)
    assert PASSWORD not in repr(outcome)


async def test_a_proxy_that_is_not_there_is_told_from_a_server_that_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that refuses the connection is the proxy's failure, not MoEngage's."""
    with nobody_listens() as url:
        monkeypatch.setenv("HTTPS_PROXY", url.replace("//", f"//jo:{PASSWORD}@"))
        outcome = await _one_attempt("https://api-01.moengage.com")
    assert "proxy failure" == _trouble(outcome)
    assert PASSWORD not in repr(outcome)


async def test_a_certificate_is_checked_behind_a_proxy_too(monkeypatch: pytest.MonkeyPatch, tls: Authority) -> None:
    """A proxy that shows a certificate of its own does not get to read the key."""
    overheard = bytearray()
    async with serving(tunnel(overheard)) as proxy, serving(polite, tls=tls.context) as server:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        assert "certificate refused" == _trouble(await _one_attempt(server.url))
        assert 0 == len(server.requests)


async def test_giving_up_behind_a_proxy_resets_the_tunnel(monkeypatch: pytest.MonkeyPatch, tls: Authority) -> None:
    """The tunnel of an attempt that was given up is reset, so that the proxy has nothing to pass on."""
    endings: asyncio.Queue[str] = asyncio.Queue()

    async def talk(peer: Peer) -> None:
        await peer.request()
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        peer.send(b"HTTP/1.1 200 OK\r\n\r\n")

        async def back() -> None:
            while data := await reader.read(65536):
                peer.send(data)

        answering = asyncio.ensure_future(back())
        try:
            while data := await peer.reader.read(65536):
                writer.write(data)
            endings.put_nowait("closed")
        except ConnectionResetError:
            endings.put_nowait("reset")
        finally:
            answering.cancel()
            writer.transport.abort()

    async def mute(peer: Peer) -> None:
        await peer.request()
        await peer.ending()

    async with serving(talk) as proxy, serving(mute, tls=tls.context) as server:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        assert "timeout" == _trouble(await _one_attempt(server.url, SHORT, tls.bundle))
        assert 1 == len(server.requests)
        assert "reset" == await asyncio.wait_for(endings.get(), 5)


async def test_the_body_is_the_device() -> None:
    """What arrives is the request of MoEngage's page: path, Basic authentication, one device as JSON."""
    async with serving(polite) as server:
        outcome = await _one_attempt(server.url)
        (request,) = server.requests
    assert ACCEPTED == b'{"status":"success"}'
    assert Verdict.ACCEPTED is outcome.verdict
    assert "POST /v1/device/WORKSPACE HTTP/1.1" == request.line
    assert httpx.BasicAuth("WORKSPACE", KEY)._auth_header == request.headers["authorization"]
    assert "identity" == request.headers["accept-encoding"]
    assert "application/json" == request.headers["content-type"]
    assert request.body.startswith(b'{"type":"device","customer_id":"user-1","device_id":"device-1","attributes":{')


# --- nothing is left behind ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "talk",
    [
        _closed_unread,
        _closed_when_read,
        _reset_when_read,
        _half_a_head,
        _half_a_body,
        _half_a_body_and_reset,
        _cut_chunk,
        _no_chunk,
        _garbage,
        _half_a_body_and_silence,
        _silent,
        _one_answer,
    ],
)
@pytest.mark.parametrize("ours", [True, False])
async def test_a_connection_that_ended_needs_no_memory(
    talk: Callable[[Peer], Awaitable[None]],
    ours: bool,  # noqa: FBT001  two cases
    tls: Authority,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Over asyncio's TLS it would be 256 KiB each, and an upload makes too little garbage for Python to find any."""
    if not ours:
        _leave_tls_to_asyncio(monkeypatch)
    async with serving(talk, tls.context) as server, _entered(server.url, SHORT, tls.bundle) as client:
        gc.collect()
        gc.disable()
        try:
            before = _ours_over_tls()
            for _ in range(3):
                await client.attempt(_record())
            for _ in range(100):
                if before == _ours_over_tls():
                    break
                await asyncio.sleep(0.01)
            assert before == _ours_over_tls()
            assert server.connections >= 3
        finally:
            gc.enable()


async def test_an_error_of_the_application_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """An upload within an `except` block: what is raised there stands in the context of the error that is handled."""

    async def fail(*_: object) -> None:
        raise aiohttp.ClientConnectionError("the connection has ended")

    monkeypatch.setattr(Poster, "_connect", fail)
    theirs: list[BaseException] = []
    async with _entered("http://127.0.0.1:9") as client:
        try:
            int("theirs")
        except ValueError as error:
            assert "connection lost" == _trouble(await client.attempt(_record()))
            theirs.append(error)
    assert theirs[0].__traceback__ is not None
