"""Each sentence of design.md's "Secrets and strangers' text", put to a server that says back whatever it was told."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote

import orjson
import pytest

from moe_bulk import cli
from moe_bulk.client import Client, default_transport
from moe_bulk.config import Credentials, Network, Rate, Retry
from moe_bulk.errors import ConfigError, CredentialsRejected, DestinationWrong, RunStopped
from moe_bulk.uploader import Uploader
from tests.servers import Authority, Peer, Request, authority, serving, tunnel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping
    from pathlib import Path

    from moe_bulk.tally import Summary

pytestmark = pytest.mark.usefixtures("no_proxy")

KEY = 's3cr3t+Key/of "the" <tests>&\\co='
TOKEN = base64.b64encode(f"WORKSPACE:{KEY}".encode()).decode()
PROXY_PASSWORD = "pr0xy-p4ss"
ESCAPES = "\x1b[31mred\x1b]8;;http://evil.example\x07link\x1b]8;;\x07\r\n\x9b2J\u202egnp.exe\u0000"


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate for 127.0.0.1 and its authority."""
    return authority(tmp_path_factory.mktemp("tls"))


@dataclass
class Trace:
    """Everything that a run left behind: the text of its files, its error, and what was logged."""

    files: str = ""
    error: RunStopped | None = None
    logs: str = ""
    summary: Mapping[str, object] | Summary | None = None
    results: list[dict[str, object]] = field(default_factory=list)


def _row(number: int) -> dict[str, object]:
    return {
        "customer_id": f"user-{number}",
        "device_id": f"device-{number}",
        "platform": "iOS",
        "push_id": f"push-token-{number}",
    }


async def _run(url: str, out: Path, rows: int = 1, ca_bundle: str | None = None) -> Trace:
    trace = Trace()
    uploader = Uploader(
        Credentials("WORKSPACE", KEY, base_url=url),
        rate=Rate(1000, per=1),
        retry=Retry(tries=2, first_wait=0.001, longest_wait=0.001),
        network=Network(timeout=0.5, in_flight=1, ca_bundle=ca_bundle),  # one after the other
    )
    try:
        async with uploader:
            trace.summary = await uploader.run([_row(number) for number in range(rows)], out=out)
    except RunStopped as error:
        trace.error = error
    return trace


def _upload(
    talk: Callable[[Peer], Awaitable[None]], out: Path, caplog: pytest.LogCaptureFixture, rows: int = 1
) -> Trace:
    """Deliver rows to such a server, with everything logged that anybody in this process cares to log."""

    async def deliver() -> Trace:
        async with serving(talk) as server:
            return await _run(server.url, out, rows)

    with caplog.at_level(logging.DEBUG):
        trace = asyncio.run(deliver(), debug=True)
    trace.logs = "\n".join(
        f"{record.getMessage()} {record.exc_text or ''} {record.args!r}" for record in caplog.records
    )
    trace.files = "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in sorted(out.iterdir()))
    trace.results = [json.loads(line) for line in (out / "results.ndjson").read_bytes().splitlines()]
    return trace


def _spellings(secret: str) -> Iterator[str]:
    """The secret as it could be written down."""
    yield from (secret, TOKEN, quote(secret, safe=""), orjson.dumps(secret).decode()[1:-1], repr(secret)[1:-1])


def _assert_hidden(text: str, secret: str = KEY) -> None:
    for spelling in _spellings(secret):
        assert spelling not in text


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and all that hang on it, shown or not: error reporters follow them all."""
    if error is not None:
        yield error
        yield from _chain(error.__cause__)
        yield from _chain(error.__context__)


def _json(status: str, headers: str = "", **said: str) -> Callable[[Peer], Awaitable[None]]:
    """Answer every request with that failure."""
    body = orjson.dumps({"status": "fail", "error": said})

    async def talk(peer: Peer) -> None:
        while True:
            await peer.request()
            peer.answer(body, status, headers)

    return talk


def _bytes(answer: bytes) -> Callable[[Peer], Awaitable[None]]:
    """Answer a request with just these bytes, and leave."""

    async def talk(peer: Peer) -> None:
        await peer.request()
        peer.send(answer)
        peer.close()

    return talk


KEY_BYTES = KEY.encode()
ECHOES = {
    "message": _json("400 Bad Request", message=f"you said {KEY}, {TOKEN}"),
    "type": _json("400 Bad Request", type=KEY, message="x"),
    "attribute": _json("400 Bad Request", attribute=KEY, message="x"),
    "request id": _json("400 Bad Request", request_id=TOKEN, message="x"),
    "url": _json("400 Bad Request", message=f"https://x.example/?k={quote(KEY, safe='')}"),
    "hidden by escapes": _json("400 Bad Request", message="\x1b[1m".join(KEY)),
    "status line": _json(f"400 {KEY}", message="x"),
    "header": _json("400 Bad Request", f"X-Request-Id: {KEY}\nSet-Cookie: k={TOKEN}\n", message="x"),
    "server error": _json(f"500 {KEY}", message=f"{KEY}"),
    "throttled": _json("400 Bad Request", f"Retry-After: {KEY}\nX-RateLimit-Remaining: {TOKEN}\n", message=KEY),
    "no success": _bytes(b'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{"status":' + orjson.dumps(KEY) + b"}"),
    "html": _bytes(b"HTTP/1.1 502 Bad\r\nConnection: close\r\n\r\n<pre>" + KEY_BYTES + b"</pre>"),
    "no http": _bytes(KEY_BYTES + b" " + TOKEN.encode() + b"\r\n\r\n"),
    "half a head": _bytes(b"HTTP/1.1 200 OK\r\nX-Echo: " + KEY_BYTES),
    "half a body": _bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + KEY_BYTES),
    "broken chunk": _bytes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + KEY_BYTES + b"\r\n"),
    "long header": _bytes(b"HTTP/1.1 200 OK\r\nX: " + TOKEN.encode() * 900 + b"\r\n\r\n"),
    "bad cookie": _json("400 Bad Request", f"Set-Cookie: {TOKEN}(;={KEY}\n", message="x"),
}


@pytest.mark.parametrize("echo", ECHOES)
def test_the_key_is_in_no_file_log_or_reason(echo: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A server that knows the key from our request and writes it everywhere gets it into nothing of ours."""
    trace = _upload(ECHOES[echo], tmp_path / "run", caplog)
    assert ["rejected" if "400" in str(each["http_status"]) else "exhausted" for each in trace.results] == [
        each["status"] for each in trace.results
    ]
    assert 1 == len(trace.results)
    _assert_hidden(trace.files)
    _assert_hidden(trace.logs)
    _assert_hidden(repr(trace.summary))


STOPS = {
    "401": (_json(f"401 {KEY}", message=KEY, type=TOKEN), CredentialsRejected),
    "302": (_json("302 Found", f"Location: https://x.example/{quote(KEY)}?{TOKEN}\n"), DestinationWrong),
    "404": (_json("404 Not Found", message=f"no such path for {KEY}"), DestinationWrong),
    "403": (_json("403 Forbidden", message=f"blocked: {TOKEN}", type=KEY), RunStopped),
}


@pytest.mark.parametrize("stop", STOPS)
def test_the_key_is_in_no_traceback(stop: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What stops a run holds the key neither in its words nor in its frames' variables, nor hangs on the stack's."""
    talk, kind = STOPS[stop]
    trace = _upload(talk, tmp_path / "run", caplog, rows=5)
    assert isinstance(trace.error, kind)
    told = traceback.TracebackException.from_exception(trace.error, capture_locals=True)
    _assert_hidden("".join(told.format()))
    for each in _chain(trace.error):
        assert type(each).__module__.split(".")[0] not in ("httpx", "httpcore", "aiohttp", "httpx_aiohttp")
        _assert_hidden(f"{each!r} {vars(each)!r}")
    _assert_hidden(trace.files)
    _assert_hidden(trace.logs)


def test_the_key_is_in_no_repr() -> None:
    """Objects that hold the key show stars, to the bottom of what a debugger prints."""
    credentials = Credentials("WORKSPACE", KEY, data_center="01")

    async def look() -> list[object]:
        uploader = Uploader(credentials)
        client = Client(credentials, 5, lambda: 0.0)
        async with uploader, client:
            holders: list[object] = [credentials, uploader, client, client._poster, uploader._engine]
            return [*holders, *(vars(each) for each in holders[1:]), [vars(uploader._engine).get("_attempt")]]

    for each in asyncio.run(look()):
        _assert_hidden(f"{each!r} {each!s}")
    assert "api_key='***'" in repr(credentials)


def test_the_key_is_not_in_the_process_list() -> None:
    """The command line has no option that takes a key: it would stand in the list of processes."""
    options = {name for argument in cli.app["upload"].assemble_argument_collection() for name in argument.names}
    assert {"--api-key-file"} == {name for name in options if "key" in name or "secret" in name or "pass" in name}


def test_answers_are_cut_after_decoding(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An endless answer, asked for uncompressed, costs 64 KiB and leaves one short line."""
    asked: list[Request] = []

    async def talk(peer: Peer) -> None:
        asked.append(await peer.request())
        peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n" + b'{"error":{"message":"')
        while True:
            peer.send(b"x" * 65536)
            await peer.writer.drain()

    trace = _upload(talk, tmp_path / "run", caplog)
    assert ["400 Bad Request, no JSON"] == [each["reason"] for each in trace.results]
    assert {"identity"} == {request.headers["accept-encoding"] for request in asked}
    assert 30_000 > len(trace.files)  # of which the report's own style takes half


def test_strangers_text_is_harmless_in_a_terminal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Colours, links, cursor movements, reversed text and line ends of the server's reach neither file nor log."""
    talk = _json(f"400 Bad {ESCAPES[:8]}", type=ESCAPES, message=ESCAPES, request_id=ESCAPES, attribute=ESCAPES)
    trace = _upload(talk, tmp_path / "run", caplog)
    (result,) = trace.results
    for name in ("reason", "error_type", "request_id"):
        assert str(result[name]).isprintable()
        assert "red" in str(result[name])
    for text in (trace.files, trace.logs):
        assert not [character for character in text if not character.isprintable() and character != "\n"]
        assert "\\u001b" not in text


def test_no_cookies_are_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What a server sets is not said back to it, and nothing of it is written down."""
    asked: list[Request] = []

    async def talk(peer: Peer) -> None:
        while True:
            asked.append(await peer.request())
            peer.answer(headers="Set-Cookie: session=c00kie; Path=/\n")

    trace = _upload(talk, tmp_path / "run", caplog, rows=3)
    assert 3 == len(asked)
    assert not [request for request in asked if "cookie" in request.headers]
    assert "c00kie" not in trace.files + trace.logs


def test_redirects_are_not_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever a redirect points to hears nothing of us."""

    async def deliver() -> tuple[RunStopped | None, int]:
        async with serving(_bytes(b"")) as elsewhere:
            talk = _json("307 Temporary Redirect", f"Location: {elsewhere.url}/v1/device/WORKSPACE\n")
            async with serving(talk) as server:
                trace = await _run(server.url, tmp_path / "run", rows=3)
            return trace.error, elsewhere.connections

    error, connections = asyncio.run(deliver())
    assert isinstance(error, DestinationWrong)
    assert 0 == connections


def test_proxies_carry_https_unread(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tls: Authority
) -> None:
    """The environment's proxy is used, by CONNECT only, and neither the key nor its own password comes out."""
    overheard = bytearray()

    async def deliver() -> Trace:
        async with serving(tunnel(overheard)) as proxy, serving(_json("200 OK"), tls=tls.context) as server:
            monkeypatch.setenv("HTTPS_PROXY", f"http://jo:{PROXY_PASSWORD}@127.0.0.1:{proxy.port}")
            trace = await _run(server.url, tmp_path / "run", ca_bundle=tls.bundle)
            assert {"CONNECT"} == {request.line.split()[0] for request in proxy.requests}
            assert 2 == len(server.requests)
            assert not [request for request in server.requests if "proxy-authorization" in request.headers]
            return trace

    with caplog.at_level(logging.DEBUG):
        trace = asyncio.run(deliver(), debug=True)
    files = "\n".join(path.read_text(encoding="utf-8", errors="replace") for path in (tmp_path / "run").iterdir())
    logs = "\n".join(record.getMessage() for record in caplog.records)
    for text in (files, logs, repr(trace)):
        _assert_hidden(text)
        _assert_hidden(text, PROXY_PASSWORD)
        assert base64.b64encode(f"jo:{PROXY_PASSWORD}".encode()).decode() not in text
    _assert_hidden(overheard.decode("latin-1"))


@pytest.mark.parametrize("proxy", ["socks5://jo:{}@127.0.0.1:1", "http://jo:{}@", "http://jo:{}@127.0.0.1:x"])
def test_a_proxys_password_is_in_no_traceback(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that cannot be used is refused without its password, on whatever hangs on the refusal, too."""
    monkeypatch.setenv("HTTPS_PROXY", proxy.format(PROXY_PASSWORD))
    with pytest.raises(ConfigError) as refused:
        default_transport("https://api-01.moengage.com")
    for each in _chain(refused.value):
        assert PROXY_PASSWORD not in "".join(traceback.format_exception(each))


def test_ids_and_tokens_stay_inside_the_run_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Customers, devices and push tokens stand in the run's files and in no log, also where the server repeats them."""

    async def talk(peer: Peer) -> None:
        while True:
            request = await peer.request()
            peer.answer(request.body, "400 user-0 push-token-0", "X-Echo: device-0\nX-Request-Id: user-0\n")

    trace = _upload(talk, tmp_path / "run", caplog)
    assert "user-0" in trace.files
    assert "httpx" in {record.name for record in caplog.records}
    for text in ("user-0", "device-0", "push-token-0"):
        assert text not in trace.logs
