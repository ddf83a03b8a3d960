"""The doctor's observations, made of servers that say byte for byte what they are told to."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from typing import TYPE_CHECKING

import orjson
import pytest

from moe_bulk.config import Credentials, Network, Rate
from moe_bulk.doctor import as_json, as_text, examine
from moe_bulk.doctor.findings import Finding, Worth
from moe_bulk.doctor.looking import REQUESTS, look_up, reach
from moe_bulk.sandbox import Sandbox, SandboxSettings
from tests.servers import authority, nobody_accepts, nobody_listens, serving, tunnel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tests.servers import Peer

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("no_proxy")]

KEY = "s3cr3t/Key+of-the-tests"
CONNECTED = b'{"status":"success","app_name":"Shop \\u001b[31mred"}'


@pytest.fixture
def anyio_backend() -> str:
    """The client's own connections are aiohttp's, so the loop is asyncio's."""
    return "asyncio"


def answering(body: bytes = CONNECTED, status: str = "200 OK", headers: str = "") -> Callable[[Peer], Awaitable[None]]:
    """Say this to every request."""

    async def talk(peer: Peer) -> None:
        while True:
            await peer.request()
            peer.answer(body, status, headers)

    return talk


async def look(url: str, ca_bundle: str | None = None, within: float = 5.0) -> dict[str, Finding]:
    """What is found out, by what was looked at."""
    told: list[Finding] = []
    network = Network(timeout=within, ca_bundle=ca_bundle)
    found = await examine(Credentials("W", KEY, base_url=url), Rate(), network, told.append)
    assert found == told
    everything = str(as_json(found)) + "".join(as_text(each) for each in found)
    assert KEY not in everything
    assert everything.isprintable() or "\x1b" not in everything
    return {each.check: each for each in found}


async def test_an_upload_alone_needs_no_place_to_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `process` nothing is shared: no folder is looked at, and none is said to be shared in."""
    monkeypatch.delattr("moe_bulk.doctor.looking.look_at_state")
    async with Sandbox(SandboxSettings(limit=None)) as sandbox:
        credentials = Credentials(sandbox.workspace_id, sandbox.api_key, base_url=sandbox.url)
        found = await examine(credentials, Rate(), Network(), lambda _: None, "process")
    assert (Worth.OK, "state folder") == (found[-1].worth, found[-1].check)
    assert "--pace process" in found[-1].said


async def test_the_sandbox_is_found_well_and_gets_no_device() -> None:
    """Everything is looked at, all is well, and nothing but Test connections was asked for."""
    async with Sandbox(SandboxSettings(limit=None)) as sandbox:
        told: list[Finding] = []
        credentials = Credentials(sandbox.workspace_id, sandbox.api_key, base_url=sandbox.url)
        found = await examine(credentials, Rate(), Network(), told.append)
        expected = ["name", "network", "TLS", "key", "clock", "latency", "limit", "in flight", "open files"]
        assert [*expected, "state folder"] == [each.check for each in found]
        assert {Worth.OK} == {each.worth for each in found if each.check != "open files"}
        assert (0, {"/v1/integrations/authentication"}) == (
            len(sandbox.devices),
            {request.path for request in sandbox.requests},
        )
        assert REQUESTS == len(sandbox.requests)
        assert 1 == len({request.connection for request in sandbox.requests})


async def test_what_is_asked() -> None:
    """A Test connection bears the workspace's id in a header, and id, key, source and region in its body."""
    async with serving(answering()) as server:
        found = await look(server.url)
    request = server.requests[0]
    assert "POST /v1/integrations/authentication HTTP/1.1" == request.line
    assert "W" == request.headers["moe-appkey"]
    assert {"app_id": "W", "app_secret": KEY, "source": "moe-bulk", "region": "01"} == orjson.loads(request.body)
    assert "MoEngage knows workspace W and this key: Shop red" == found["key"].said


async def test_a_wrong_key_is_tried_once() -> None:
    """Whoever counts failed logins counts one."""
    body = orjson.dumps({"status": "fail", "error": {"type": "x", "message": f"you said {KEY}"}})
    async with serving(answering(body, "401 Unauthorized")) as server:
        found = await look(server.url)
    assert (1, Worth.FAIL) == (len(server.requests), found["key"].worth)
    assert "you said ***" in found["key"].said


async def test_headers_are_told_without_what_a_terminal_obeys() -> None:
    """Limits and a date come from the answers; a stranger's escapes are taken out of them."""
    headers = "X-RateLimit-Limit: 500\nRetry-After: \x1b[31m7\nDate: Thu, 01 Jan 1970 00:00:01 GMT\n"
    async with serving(answering(headers=headers)) as server:
        found = await look(server.url)
    assert "x-ratelimit-limit: 500, retry-after: 7" == found["limit"].said
    assert (Worth.WARN, Worth.WARN) == (found["limit"].worth, found["clock"].worth)
    async with serving(answering(headers="Date: yesterday\n")) as server:
        assert "not compared: the answers bear no date" == (await look(server.url))["clock"].said


async def test_certificates(tmp_path: Path) -> None:
    """The certificate is the one that the upload's own connection was shown; who is not trusted is told."""
    tls = authority(tmp_path)
    async with serving(answering(), tls=tls.context) as server:
        trusted = await look(server.url, tls.bundle)
        assert "verified; the certificate (by trustme v" in trusted["TLS"].said
        asked = len(server.requests)
        foreign = await look(server.url)
        assert (Worth.FAIL, asked) == (foreign["TLS"].worth, len(server.requests))
    assert "certificate refused" in foreign["TLS"].said
    assert not {"key", "latency"} & foreign.keys()


async def test_a_proxy_is_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The environment's proxy is looked up and connected to, and carries the request by CONNECT, unread."""
    tls, overheard = authority(tmp_path), bytearray()
    with caplog.at_level(logging.DEBUG):
        async with serving(tunnel(overheard)) as proxy, serving(answering(), tls=tls.context) as server:
            monkeypatch.setenv("HTTPS_PROXY", f"http://jo:pa55word@localhost:{proxy.port}")
            found = await look(server.url, tls.bundle)
    assert found["name"].said.startswith("the proxy localhost is ")
    assert (Worth.OK, Worth.OK) == (found["TLS"].worth, found["key"].worth)
    assert {"CONNECT"} == {request.line.split()[0] for request in proxy.requests}
    for text in (str(found), caplog.text, overheard.decode("latin-1")):
        assert KEY not in text
    assert "pa55word" not in str(found) + caplog.text


async def test_nobody_is_there() -> None:
    """A refused connection ends the way, and this machine is looked at all the same."""
    with nobody_listens() as url:
        found = await look(url)
    assert {"name", "network", "open files", "state folder"} == found.keys()
    assert "IPv4 does not connect (Connection refused)" == found["network"].said


async def test_a_connection_that_hangs() -> None:
    """Connecting is given up after the timeout."""
    with nobody_accepts() as url:
        reached = await reach("127.0.0.1", int(url.rpartition(":")[2]), 0.2)
    assert (None, "no answer within 0.2 s") == (reached.seconds, reached.trouble)


async def test_an_answer_that_never_comes() -> None:
    """Each request is bounded by the timeout, and one that failed is not asked again."""

    async def silence(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(60)

    async with serving(silence) as server:
        found = await look(server.url, within=0.3)
    assert (1, Worth.FAIL) == (len(server.requests), found["key"].worth)
    assert "no answer within 0.3 s" in found["key"].said
    assert "latency" not in found


async def test_a_name_server_that_hangs_holds_up_nobody() -> None:
    """Its thread is left alone: neither this look-up nor the program's end waits for it."""
    hung = threading.Event()

    def never(*_: object, **__: object) -> list[tuple[object, ...]]:
        hung.wait(10)
        return []

    assert ([], "no answer within 0.1 s") == await look_up("x.example", 443, 0.1, never)
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "look-up")
    hung.set()


async def test_a_name_that_is_none() -> None:
    """The system's own words say why."""

    def unknown(*_: object, **__: object) -> list[tuple[object, ...]]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    assert ([], "Name or service not known") == await look_up("x.example", 443, 5, unknown)


async def test_a_state_folder_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in the folder's place is told; a folder that works holds nothing of the doctor's afterwards."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    async with serving(answering()) as server:
        assert Worth.OK is (await look(server.url))["state folder"].worth
        assert [] == list((tmp_path / "moe-bulk").iterdir())
        (tmp_path / "moe-bulk").rmdir()
        (tmp_path / "moe-bulk").write_text("", encoding="utf-8")
        state = (await look(server.url))["state folder"]
    assert (Worth.WARN, True) == (state.worth, "File exists" in state.said)
