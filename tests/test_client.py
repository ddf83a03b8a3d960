"""`Client` over a handler function in the network's place: what is asked, what is read, and whose objects are whose."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import zlib
from typing import TYPE_CHECKING

import aiohttp
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk import client as client_module
from moe_bulk.client import Client, Proxy, environment_proxy, tls_context
from moe_bulk.config import Credentials
from moe_bulk.device import Device
from moe_bulk.errors import ConfigError
from moe_bulk.outcome import Outcome, Verdict
from moe_bulk.record import Position, Record, Row
from moe_bulk.wire import ANSWER_KEPT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_proxy")]

KEY = "s3cr3t-Key-of-the-tests"
ACCEPTED = b'{"status":"success"}'


@pytest.fixture
def anyio_backend() -> str:
    """The client's own connections are aiohttp's, so the loop is asyncio's."""
    return "asyncio"


def _record(forwarded_for: str | None = None) -> Record:
    device = Device("user-1", "device-1", {"platform": "ANDROID", "push_id": "token-1"}, forwarded_for)
    return Record(Row(Position("rows", 1, 0), {}), device)


def _client(
    transport: httpx.AsyncBaseTransport | None = None,
    http: httpx.AsyncClient | None = None,
    within: float = 5.0,
) -> Client:
    credentials = Credentials("WORKSPACE", KEY, data_center="01")
    return Client(credentials, within, lambda: 1_000.0, transport=transport, http=http, user_agent="moe-bulk/1")


async def _attempt(handler: Callable[[httpx.Request], httpx.Response], record: Record | None = None) -> Outcome:
    async with _client(httpx.MockTransport(handler)) as client:
        return await client.attempt(record or _record())


class _Stream(httpx.AsyncByteStream):
    """An answer in pieces that tells how much of it was read, and whether it was closed."""

    def __init__(self, pieces: list[bytes], closing: float = 0.0) -> None:
        self.pieces = pieces
        self.closing = closing
        self.taken = 0
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            self.taken += 1
            yield piece

    async def aclose(self) -> None:
        await asyncio.sleep(self.closing)
        self.closed = True


# --- the request -----------------------------------------------------------------------------------------------------


async def test_a_request_is_the_api_s() -> None:
    """One POST to the workspace's path, with its key as Basic authentication, uncompressed answers asked for."""
    requests = []

    def handler(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(200, content=ACCEPTED)

    assert Outcome(Verdict.ACCEPTED, http_status=200) == await _attempt(handler)
    (request,) = requests
    assert ("POST", "https://api-01.moengage.com/v1/device/WORKSPACE") == (request.method, str(request.url))
    expected = {
        "host": "api-01.moengage.com",
        "authorization": httpx.BasicAuth("WORKSPACE", KEY)._auth_header,
        "content-type": "application/json",
        "accept": "application/json",
        "accept-encoding": "identity",
        "user-agent": "moe-bulk/1",
        "content-length": str(len(request.content)),
    }
    assert expected == dict(request.headers)
    assert {"connect": None, "read": None, "write": None, "pool": None} == request.extensions["timeout"]


async def test_the_end_users_address_travels_as_a_header_of_its_own_request() -> None:
    """A record's forwarded_for is sent with it, and not with the next one."""
    seen = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("x-forwarded-for"))
        return httpx.Response(200, content=ACCEPTED)

    async with _client(httpx.MockTransport(handler)) as client:
        await client.attempt(_record("203.0.113.7"))
        await client.attempt(_record())
    assert ["203.0.113.7", None] == seen


async def test_the_moment_of_the_answer_is_the_callers_clock() -> None:
    """A limit that resets at epoch second 1,000,030 resets in 30 s when the clock that was passed in says so."""
    credentials = Credentials("WORKSPACE", KEY, data_center="01")
    transport = httpx.MockTransport(lambda _: httpx.Response(429, headers={"x-ratelimit-reset": "2000030"}))
    async with Client(credentials, 5, lambda: 2_000_000.0, transport=transport) as client:
        assert 30.0 == (await client.attempt(_record())).reset_after


# --- whose objects are whose -----------------------------------------------------------------------------------------


class _Owned(httpx.MockTransport):
    closed = False

    async def aclose(self) -> None:
        self.closed = True


async def test_a_transport_that_was_handed_in_is_used_and_not_closed() -> None:
    """What the caller made, the caller closes."""
    transport = _Owned(lambda _: httpx.Response(200, content=ACCEPTED))
    async with _client(transport) as client:
        assert Verdict.ACCEPTED is (await client.attempt(_record())).verdict
    assert not transport.closed


async def test_a_client_that_was_handed_in_is_used_and_not_closed() -> None:
    """What of the caller's client would change the request or resend it stays out of ours; the client stays open."""
    seen = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(302, headers={"location": "https://elsewhere.example", "set-cookie": "session=1"})

    async with httpx.AsyncClient(
        transport=httpx.MockTransport(handler),
        auth=("somebody", "else"),
        headers={"authorization": "Bearer other", "x-tenant": "other"},
        cookies={"old": "1"},
        params={"debug": "1"},
        base_url="https://other.example",
        follow_redirects=True,
        timeout=0.001,
    ) as http:
        async with _client(http=http) as client:
            for _ in range(2):
                assert Verdict.MISDIRECTED is (await client.attempt(_record())).verdict
        assert not http.is_closed
    assert 2 == len(seen)
    for request in seen:
        assert "https://api-01.moengage.com/v1/device/WORKSPACE" == str(request.url)
        assert httpx.BasicAuth("WORKSPACE", KEY)._auth_header == request.headers["authorization"]
        assert {"cookie", "x-tenant"}.isdisjoint(request.headers)
        assert {None} == set(request.extensions["timeout"].values())


async def test_a_client_has_to_be_entered() -> None:
    """The mistake is told at once, and not as trouble of every record."""
    with pytest.raises(RuntimeError, match="enter the client before the first attempt"):
        await _client().attempt(_record())
    client = Client(Credentials("WORKSPACE", KEY, data_center="01"), 5, lambda: 0.0, ca_bundle="/nowhere")
    with pytest.raises(ConfigError, match="/nowhere"):
        await client.__aenter__()
    with pytest.raises(RuntimeError, match="enter the client before the first attempt"):
        await client.attempt(_record())


async def test_a_closed_client_that_was_handed_in_is_a_mistake() -> None:
    """A client that its owner closed cannot send: no retry would help."""
    http = httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(200)))
    await http.aclose()
    async with _client(http=http) as client:
        with pytest.raises(RuntimeError, match="keep it open until the upload is over"):
            await client.attempt(_record())


async def test_cookies_are_not_kept() -> None:
    """A server that sets a cookie does not see it again."""
    seen = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("cookie"))
        return httpx.Response(200, content=ACCEPTED, headers={"set-cookie": "session=1"})

    async with _client(httpx.MockTransport(handler)) as client:
        await client.attempt(_record())
        await client.attempt(_record())
        assert client._http is not None
        assert 0 == len(client._http.cookies)
    assert [None, None] == seen


async def test_a_client_that_sent_nothing_leaves_nothing() -> None:
    """Entering and leaving opens no connection and forgets none."""
    async with _client() as client:
        pass
    assert client._own_transport is not None


# --- the answer ------------------------------------------------------------------------------------------------------


async def test_of_a_long_answer_the_beginning_is_read_and_the_rest_is_closed() -> None:
    """Reading stops at 64 KiB: a server cannot fill the memory."""
    stream = _Stream([b" " * 4096] * 1000)
    outcome = await _attempt(lambda _: httpx.Response(200, stream=stream))
    assert Outcome(Verdict.TROUBLE, http_status=200, reason="200 OK, no JSON") == outcome
    assert (ANSWER_KEPT // 4096, True) == (stream.taken, stream.closed)


async def test_the_longest_answer_that_is_read() -> None:
    """An answer of exactly 64 KiB still counts."""
    padded = b" " * (ANSWER_KEPT - len(ACCEPTED)) + ACCEPTED
    assert Verdict.ACCEPTED is (await _attempt(lambda _: httpx.Response(200, content=padded))).verdict
    assert Verdict.ACCEPTED is (await _attempt(lambda _: httpx.Response(200, stream=_Stream([padded])))).verdict
    assert Verdict.TROUBLE is (await _attempt(lambda _: httpx.Response(200, content=b" " + padded))).verdict
    assert Verdict.TROUBLE is (await _attempt(lambda _: httpx.Response(200, stream=_Stream([b" ", padded])))).verdict


ENCODED = [
    ("gzip", gzip.compress(ACCEPTED, mtime=0), Verdict.ACCEPTED),
    ("deflate", zlib.compress(ACCEPTED), Verdict.ACCEPTED),
    ("gzip", gzip.compress(ACCEPTED, mtime=0)[:-12], Verdict.TROUBLE),
    ("gzip", gzip.compress(b" " * 50_000_000 + ACCEPTED, mtime=0), Verdict.TROUBLE),
    ("br", b"\x8b\x09\x80", Verdict.TROUBLE),
]


@pytest.mark.parametrize(("encoding", "body", "verdict"), ENCODED)
async def test_a_compressed_answer(encoding: str, body: bytes, verdict: Verdict) -> None:
    """Nobody asked for compression; a server that compresses all the same is understood, a bomb is not unpacked."""
    stream = _Stream([body])
    answer = httpx.Response(200, headers={"content-encoding": encoding}, stream=stream)
    assert verdict is (await _attempt(lambda _: answer)).verdict


async def test_closing_an_answer_takes_no_time_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transport of the caller's that hangs on closing does not hold the attempt."""
    monkeypatch.setattr(client_module, "CLOSE_SECONDS", 0.05)
    stream = _Stream([b" " * ANSWER_KEPT], closing=3600)
    outcome = await _attempt(lambda _: httpx.Response(500, stream=stream))
    assert 500 == outcome.http_status


async def test_an_attempt_that_takes_too_long() -> None:
    """The timeout holds for a transport of the caller's as well."""

    async def handler(_: httpx.Request) -> httpx.Response:
        await asyncio.sleep(5)
        raise AssertionError

    async with _client(httpx.MockTransport(handler), within=0.05) as client:
        outcome = await client.attempt(_record())
    assert Outcome(Verdict.TROUBLE, error="timeout", reason="timeout; no answer within 0.05 s") == outcome


# --- trouble by name -------------------------------------------------------------------------------------------------


def _chained(error: Exception, *causes: Exception) -> Exception:
    last = error
    for cause in causes:
        last.__cause__ = cause
        last = cause
    return error


INFO = aiohttp.RequestInfo(url=None, method="POST", headers=None, real_url="https://x")  # type: ignore[arg-type]  # unread
TROUBLES = [
    (httpx.ConnectError("no route"), "no connection; no route"),
    (_chained(httpx.ConnectError("x"), ConnectionRefusedError(111, "refused")), "connection refused; x"),
    (_chained(httpx.ConnectError("x"), ssl.SSLCertVerificationError("self-signed")), "certificate refused; x"),
    (_chained(httpx.ConnectError("x"), ssl.SSLError("alert")), "TLS failure; x"),
    (httpx.ConnectTimeout("slow"), "timeout; slow"),
    (httpx.ReadTimeout("slow"), "timeout; slow"),
    (httpx.PoolTimeout(""), "timeout; PoolTimeout"),
    (httpx.ReadError("gone"), "connection lost; gone"),
    (httpx.WriteError("gone"), "connection lost; gone"),
    (httpx.ProxyError("403"), "proxy failure; 403"),
    (httpx.RemoteProtocolError(f"illegal line: {KEY}"), "broken answer; illegal line"),
    (httpx.LocalProtocolError("odd"), "broken answer; odd"),
    (httpx.DecodingError("odd"), "broken answer; odd"),
    (aiohttp.ClientResponseError(INFO, (), status=400, message="odd: x"), "broken answer; odd"),
    (BrokenPipeError(32, "Broken pipe"), "connection lost; [Errno 32] Broken pipe"),
    (TimeoutError(), "timeout; TimeoutError"),
    (_chained(httpx.ConnectTimeout(""), aiohttp.ServerDisconnectedError()), "connection lost; the server closed"),
    (ZeroDivisionError(f"who holds {KEY}?\x1b[31m\n"), "unexpected error; who holds ***?"),
    (ExceptionGroup("several", [OSError()]), "unexpected error; several (1 sub-exception)"),
]


@pytest.mark.parametrize(("error", "reason"), TROUBLES)
async def test_whatever_a_transport_raises_has_a_plain_name(error: Exception, reason: str) -> None:
    """Trouble has one name whichever library told it, and quotes neither the key nor what could hold half of it."""

    def handler(_: httpx.Request) -> httpx.Response:
        raise error

    outcome = await _attempt(handler)
    assert (Verdict.TROUBLE, None) == (outcome.verdict, outcome.http_status)
    assert reason == str(outcome.reason)[: len(reason)]
    assert reason.partition(";")[0] == outcome.error
    assert KEY not in repr(outcome)


@given(st.text(), st.sampled_from([httpx.ReadError, httpx.ConnectError, ValueError, RuntimeError, OSError]))
def test_no_trouble_shows_the_key_or_a_control_character(text: str, kind: type[Exception]) -> None:
    """Whatever an exception says around the key, its reason is one printable line without it."""

    def handler(_: httpx.Request) -> httpx.Response:
        raise kind(f"{text}{KEY}{text}")

    reason = asyncio.run(_attempt(handler)).reason
    assert reason is not None
    assert KEY not in reason
    assert reason.isprintable()


async def test_the_status_line_s_own_words_are_dropped() -> None:
    """Httpx logs the words behind a status as the server wrote them, so they do not reach it."""
    seen: list[httpx.Response] = []

    async def hook(response: httpx.Response) -> None:
        seen.append(response)

    answer = httpx.Response(200, content=ACCEPTED, extensions={"reason_phrase": KEY.encode()})
    async with _client(httpx.MockTransport(lambda _: answer)) as client:
        assert client._http is not None
        client._http.event_hooks = {"response": [hook]}
        await client.attempt(_record())
    assert ["OK"] == [response.reason_phrase for response in seen]


# --- TLS and the proxy -----------------------------------------------------------------------------------------------


def test_certificates_are_always_verified() -> None:
    """The default context checks the certificate and the host's name."""
    context = tls_context()
    assert (ssl.CERT_REQUIRED, True) == (context.verify_mode, context.check_hostname)
    assert 100 < len(context.get_ca_certs())


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_an_unusable_bundle_is_refused_by_name(content: bytes | None, tmp_path: Path) -> None:
    """A bundle that is missing, empty or something else names its file in the refusal."""
    bundle = tmp_path / "ca.pem"
    if content is not None:
        bundle.write_bytes(content)
    with pytest.raises(ConfigError, match=r"the CA bundle '.*ca\.pem' cannot be read as certificates in PEM form \("):
        tls_context(str(bundle))


def test_a_bundle_whose_name_cannot_be_one() -> None:
    """A name that no file can have is refused in the same words."""
    with pytest.raises(ConfigError, match="cannot be read as certificates"):
        tls_context("ca\0.pem")


API = "https://api-01.moengage.com/v1/device/W"
ENVIRONMENTS: list[tuple[dict[str, str], str, str | None]] = [
    ({}, API, None),
    ({"HTTPS_PROXY": "http://proxy.example:3128"}, API, "http://proxy.example:3128"),
    ({"https_proxy": "http://proxy.example:3128/"}, API, "http://proxy.example:3128/"),
    ({"HTTPS_PROXY": "proxy.example:3128"}, API, "http://proxy.example:3128"),
    ({"HTTPS_PROXY": "http://jo:pw@proxy.example:3128"}, API, "http://proxy.example:3128"),
    ({"ALL_PROXY": "http://all.example:1"}, API, "http://all.example:1"),
    ({"ALL_PROXY": "http://all.example:1", "HTTPS_PROXY": "http://one.example:2"}, API, "http://one.example:2"),
    ({"HTTP_PROXY": "http://proxy.example:3128"}, API, None),
    ({"HTTPS_PROXY": ""}, API, None),
    ({"HTTPS_PROXY": "http://proxy.example:3128", "NO_PROXY": "moengage.com"}, API, None),
    ({"HTTPS_PROXY": "http://proxy.example:3128", "NO_PROXY": "x.example, .moengage.com"}, API, None),
    ({"HTTPS_PROXY": "http://proxy.example:3128", "NO_PROXY": "*"}, API, None),
    ({"HTTPS_PROXY": "http://proxy.example:1", "NO_PROXY": "localhost:8443"}, "https://localhost:8443", None),
    ({"HTTPS_PROXY": "http://proxy.example:1", "NO_PROXY": "::1"}, "https://[::1]:8443", None),
    ({"HTTPS_PROXY": "http://proxy.example:1", "NO_PROXY": "gage.com"}, API, "http://proxy.example:1"),
    ({"HTTPS_PROXY": "http://proxy.example:1", "ALL_PROXY": "http://proxy.example:1"}, "http://127.0.0.1:80", None),
]


@pytest.mark.parametrize(("environment", "url", "expected"), ENVIRONMENTS)
def test_the_environments_proxy(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], url: str, expected: str | None
) -> None:
    """Https goes through the proxy that the environment names, unless NO_PROXY excepts the host; http never does."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = environment_proxy(url)
    assert expected == (found and str(found.url))


REFUSED = [
    ("socks5://jo:pr0xy-p4ss@proxy.example:1080", "speaks socks5, which is not supported: use an http:// proxy"),
    ("https://jo:pr0xy-p4ss@proxy.example", "speaks https, which is not supported: use an http:// proxy"),
    ("ftp://jo:pr0xy-p4ss@proxy.example", "is no usable URL: write it like http://proxy.example:3128"),
    ("http://jo:pr0xy-p4ss@", "is no usable URL: write it like http://proxy.example:3128"),
    ("http://jo:pr0xy-p4ss@proxy.example:port", "is no usable URL: write it like http://proxy.example:3128"),
]


@pytest.mark.parametrize(("proxy", "message"), REFUSED)
async def test_a_proxy_that_cannot_be_used_is_refused_before_anything_is_sent(
    monkeypatch: pytest.MonkeyPatch, proxy: str, message: str
) -> None:
    """A proxy that would be ignored, or would read the key, is a mistake; its password is not repeated."""
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    with pytest.raises(ConfigError) as refused:
        async with _client():
            pytest.fail("it was entered")
    assert message in str(refused.value)
    assert "pr0xy-p4ss" not in str(refused.value)
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


def test_a_proxys_password_shows_nowhere() -> None:
    """Neither the proxy nor its parts show the password; it is in the one header that goes to the proxy."""
    proxy = Proxy("http://jo:pr0xy%2Dp4ss@proxy.example:3128")
    assert "Proxy('http://proxy.example:3128')" == repr(proxy) == str(proxy)
    assert "pr0xy-p4ss" not in repr(vars(proxy))
    assert None is proxy.auth
    assert httpx.BasicAuth("jo", "pr0xy-p4ss")._auth_header == proxy.headers["proxy-authorization"]
    assert httpx.BasicAuth("jo", "pr0xy-p4ss")._auth_header not in repr(vars(proxy))
    assert "pr0xy-p4ss" == proxy.password.reveal()
    assert {} == dict(Proxy("http://proxy.example:3128").headers)
