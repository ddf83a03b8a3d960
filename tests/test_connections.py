"""Connections over hours: other addresses, other families, servers that close them as they please."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
import trustme
from yarl import URL

from moe_bulk import connections
from moe_bulk.client import Client
from moe_bulk.config import Credentials
from moe_bulk.device import Device
from moe_bulk.outcome import Verdict
from moe_bulk.record import Position, Record, Row
from tests.servers import Peer, polite, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_proxy")]

NAME = "api.moengage.example"


@pytest.fixture
def anyio_backend() -> str:
    """The connections are aiohttp's, so the loop is asyncio's."""
    return "asyncio"


@pytest.fixture
def has_ipv6() -> None:
    """Leave the test out where there is no IPv6, as in many containers."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            pass
    except OSError:
        pytest.skip("this machine has no IPv6")


@asynccontextmanager
async def _entered(url: str, ca_bundle: Path | None = None) -> AsyncIterator[Client]:
    credentials, bundle = Credentials("WORKSPACE", "key", base_url=url), str(ca_bundle) if ca_bundle else None
    async with Client(credentials, 5.0, time.time, ca_bundle=bundle) as client:
        yield client


async def _accepted(client: Client) -> bool:
    device = Device("user-1", "device-1", {"platform": "ANDROID", "push_id": "token-1"})
    return Verdict.ACCEPTED is (await client.attempt(Record(Row(Position("rows", 1, 0), {}), device))).verdict


def _certified(folder: Path, name: str) -> tuple[ssl.SSLContext, Path]:
    """A server's context for one name, and the bundle of the authority that vouches for it."""
    ca, context, bundle = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), folder / f"{name}.pem"
    ca.issue_cert(name).configure_cert(context)
    ca.cert_pem.write_to_path(str(bundle))
    return context, bundle


@pytest.mark.usefixtures("has_ipv6")
@pytest.mark.parametrize("encrypted", [False, True])
async def test_ipv6(tmp_path: Path, encrypted: bool) -> None:  # noqa: FBT001  two cases
    """An address of IPv6 is one as any other, its certificate included."""
    context, bundle = _certified(tmp_path, "::1") if encrypted else (None, None)
    async with serving(polite, context, host="::1") as server, _entered(server.url, bundle) as client:
        assert [True, True] == [await _accepted(client) for _ in range(2)]
        assert f"[::1]:{server.port}" == server.requests[0].headers["host"]
        assert 1 == server.connections


async def test_a_name_that_leads_elsewhere_after_a_while(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The resolver is asked anew for new connections: a run of days goes where the service has moved."""
    monkeypatch.setattr(connections, "NAMES_SECONDS", 0.05)
    context, bundle = _certified(tmp_path, NAME)
    asked: list[str] = []

    async def one_each(peer: Peer) -> None:
        await peer.request()
        peer.answer(headers="Connection: close\n")
        peer.close()

    async with serving(one_each, context) as old, serving(one_each, context) as new:
        at = [old.port]

        async def resolve(host: str, *_: object, **__: object) -> list[Any]:
            asked.append(host)
            return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", at[0]))]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
        async with _entered(f"https://{NAME}", bundle) as client:
            assert await _accepted(client)
            assert await _accepted(client)
            at[0] = new.port
            await asyncio.sleep(0.1)
            assert await _accepted(client)
        assert {NAME} == set(asked)
        assert (2, 1) == (len(old.requests), len(new.requests))


async def _no_tls(peer: Peer) -> None:
    peer.answer()
    await peer.ending()


async def _hangs_up(peer: Peer) -> None:
    peer.reset()


@pytest.mark.parametrize("bad", [_no_tls, _hangs_up, polite])
async def test_a_host_with_an_address_at_which_tls_fails(
    bad: Callable[[Peer], Awaitable[None]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The others are tried at once, each attempt for itself; where all fail, it says at what the first one did."""
    context, bundle = _certified(tmp_path, NAME)
    other = _certified(tmp_path, "other.example")[0] if bad is polite else None
    hosts = ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"]  # nobody listens at the third
    async with serving(bad, other) as first, serving(bad, other, hosts[1], first.port) as second:

        async def resolve(*_: object, **__: object) -> list[Any]:
            return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (at, first.port)) for at in hosts]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
        async with (
            serving(polite, context, hosts[3], first.port) as good,
            _entered(f"https://{NAME}", bundle) as client,
        ):
            assert [True] * 6 == await asyncio.gather(*(_accepted(client) for _ in range(6)))
            assert 6 == len(good.requests)
        hosts.pop()
        async with _entered(f"https://{NAME}", bundle) as client:
            device = Device("user-1", "device-1", {"platform": "ANDROID", "push_id": "token-1"})
            outcome = await client.attempt(Record(Row(Position("rows", 1, 0), {}), device))
        said = "certificate refused" if bad is polite else "TLS failure" if bad is _no_tls else "no connection"
        assert outcome.error in {said, "connection refused"}
        assert [] == first.requests + second.requests


@pytest.mark.parametrize("fails", [False, True])
async def test_a_host_with_one_address_is_tried_once(
    fails: bool,  # noqa: FBT001  two cases
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where nobody knows of others any more."""
    names = list[str]()

    async def resolve(host: str, port: int, **_: object) -> list[Any]:
        names.append(host)
        if fails and len(names) > 1:
            raise socket.gaierror("gone")
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    async with serving(_no_tls) as server, _entered(f"https://{NAME}:{server.port}") as client:
        assert not await _accepted(client)
        assert (1, [NAME, NAME]) == (server.connections, names)


async def test_the_port_of_https_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the connection is made before TLS comes over it."""
    asked: list[tuple[str, int]] = []

    async def resolve(host: str, port: int, **_: object) -> list[Any]:
        asked.append((host, port))
        raise OSError("nowhere")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    async with _entered(f"https://{NAME}") as client:
        assert not await _accepted(client)
    assert [(NAME, 443)] == asked


async def test_a_name_with_a_dot_at_its_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is the whole name, and certificates spell it without the dot."""
    context, bundle = _certified(tmp_path, NAME)
    async with serving(polite, context) as server:

        async def resolve(*_: object, **__: object) -> list[Any]:
            return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", server.port))]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
        async with _entered(f"https://{NAME}.", bundle) as client:
            assert await _accepted(client)


@pytest.mark.parametrize(("close", "connections_made"), [(True, 5), (False, 1)])
async def test_a_server_that_wants_each_request_on_a_connection_of_its_own(
    close: bool,  # noqa: FBT001  two cases
    connections_made: int,
) -> None:
    """`Connection: close` is obeyed, also where the server leaves the closing to us."""

    async def talk(peer: Peer) -> None:
        while True:
            await peer.request()
            peer.answer(headers="Connection: close\n" if close else "")

    async with serving(talk) as server, _entered(server.url) as client:
        assert [True] * 5 == [await _accepted(client) for _ in range(5)]
        assert (connections_made, 5) == (server.connections, len(server.requests))


async def test_a_server_that_closes_after_so_many_requests() -> None:
    """Whether it says so or just closes when it has answered, no request is lost and none is sent twice."""

    async def talk(peer: Peer) -> None:
        for _ in range(3):
            await peer.request()
            peer.answer()
        peer.close()

    async with serving(talk) as server, _entered(server.url) as client:
        for _ in range(7):
            assert await _accepted(client)
            await asyncio.sleep(0.01)  # the closing is on its way; what crosses it is `connection lost`, as elsewhere
        assert (3, 7) == (server.connections, len(server.requests))


async def test_an_answer_of_http_1_0_ends_its_connection() -> None:
    """Old servers and some load balancers end an answer by closing the connection."""

    async def talk(peer: Peer) -> None:
        await peer.request()
        peer.send(b'HTTP/1.0 200 OK\r\n\r\n{"status":"success"}')
        peer.close()

    async with serving(talk) as server, _entered(server.url) as client:
        assert [True] * 3 == [await _accepted(client) for _ in range(3)]
        assert 3 == server.connections


async def test_what_is_gone_can_be_aborted_all_the_same() -> None:
    """A connection was closed in the midst of a request, and the server read on: asyncio cannot abort that any more."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[str] = loop.create_future()

    async def talk(peer: Peer) -> None:
        ended.set_result(await peer.ending())

    async with serving(talk) as server:
        connector = connections.Connector(ssl.create_default_context())
        under_way = connections.UnderWay(loop.time() + 5)
        connections.attempt_under_way.set(under_way)
        request = aiohttp.ClientRequest("POST", URL(server.url), loop=loop)
        connection = await connector.connect(request, [], aiohttp.ClientTimeout())
        assert connection.transport is not None
        connection.transport.write(b"x" * 10_000_000)
        connection.close()
        await ended
        under_way.abort()
        await connector.close()


async def test_no_connection_is_given_behind_the_timeout() -> None:
    """Whatever is to be sent over it; the one that was opened is closed."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[str] = loop.create_future()

    async def talk(peer: Peer) -> None:
        ended.set_result(await peer.ending())

    async with serving(talk) as server:
        connector = connections.Connector(ssl.create_default_context())
        token = connections.attempt_under_way.set(connections.UnderWay(loop.time() - 0.001))
        request = aiohttp.ClientRequest("POST", URL(server.url), loop=loop)
        with pytest.raises(TimeoutError):
            await connector.connect(request, [], aiohttp.ClientTimeout())
        connections.attempt_under_way.reset(token)
        await ended
        await connector.close()
