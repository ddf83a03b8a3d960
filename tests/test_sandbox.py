"""The sandbox on a real socket: what a client gets to see, and what is left when it has gone."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import gzip
import ssl
from typing import TYPE_CHECKING, Any

import anyio
import httpx
import orjson
import pytest
import trustme

from moe_bulk.sandbox import Faults, Limit, Sandbox, SandboxSettings, serve
from moe_bulk.sandbox.answers import SUCCESS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio, as aiohttp does."""
    return "asyncio"


def device(device_id: str = "d-1", **attributes: str) -> dict[str, Any]:
    """Give the body of a good device."""
    merged = {"platform": "ANDROID", "push_id": f"token of {device_id}", **attributes}
    return {"type": "device", "customer_id": "u-1", "device_id": device_id, "attributes": merged}


def client_of(sandbox: Sandbox, **options: Any) -> httpx.AsyncClient:
    """Make a client with the sandbox's address and credentials."""
    return httpx.AsyncClient(
        base_url=sandbox.url, auth=(sandbox.workspace_id, sandbox.api_key), trust_env=False, **options
    )


async def post(client: httpx.AsyncClient, body: dict[str, Any] | None = None, **options: Any) -> httpx.Response:
    """Send one device."""
    return await client.post("/v1/device/SANDBOX", json=body or device(), **options)


def written(sandbox: Sandbox, body: bytes | None = None, length: int | None = None) -> bytes:
    """Write a request by hand."""
    content = orjson.dumps(device()) if body is None else body
    token = base64.b64encode(f"{sandbox.workspace_id}:{sandbox.api_key}".encode()).decode()
    head = (
        f"POST /v1/device/{sandbox.workspace_id} HTTP/1.1\r\nHost: sandbox\r\nAuthorization: Basic {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content) if length is None else length}\r\n\r\n"
    )
    return head.encode() + content


@contextlib.asynccontextmanager
async def connected(sandbox: Sandbox) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a bare connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(sandbox.url.rpartition(":")[2]))
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until something has become true."""
    for _ in range(5_000):
        if condition():
            return
        await anyio.sleep(0.001)
    pytest.fail("it never became true")


async def test_a_device_is_accepted_and_remembered() -> None:
    """A good device gets MoEngage's success, over one connection that stays open."""
    async with Sandbox() as sandbox, client_of(sandbox) as client:
        answers = [await post(client, headers={"X-Forwarded-For": "203.0.113.195"}) for _ in range(3)]

        assert [answer.status_code for answer in answers] == [200, 200, 200]
        assert orjson.loads(SUCCESS.body) == answers[0].json()
        assert sandbox.devices["u-1", "d-1"].sequence == 3
        assert sandbox.stats.connections == 1
        assert [(each.connection, each.forwarded_for) for each in sandbox.requests] == [(1, "203.0.113.195")] * 3
        assert all(each.answered is not None and each.arrived <= each.answered for each in sandbox.requests)


async def test_failures_travel_in_moengage_s_shape() -> None:
    """Refusals come with their status and error over the wire, and the connection is used again."""
    async with Sandbox() as sandbox, client_of(sandbox) as client:
        refused = await post(client, device(platform="android"))
        wrong_key = await post(client, auth=("SANDBOX", "wrong"))
        wrong_path = await client.post("/v1/devices/SANDBOX", json=device())
        wrong_method = await client.get("/v1/device/SANDBOX")
        wrong_head = await client.head("/v1/device/SANDBOX")

        assert {"type": "ValueError", "attribute": "platform"}.items() <= refused.json()["error"].items()
        assert [each.status_code for each in (wrong_key, wrong_path, wrong_method, wrong_head)] == [401, 404, 405, 405]
        assert wrong_method.headers["Allow"] == "POST"
        assert sandbox.stats.connections == 1


async def test_a_query_does_not_change_the_path() -> None:
    """Older pages show ?app_id= behind the path."""
    async with Sandbox() as sandbox, client_of(sandbox) as client:
        answer = await client.post("/v1/device/SANDBOX?app_id=SANDBOX", json=device())

        assert answer.status_code == 200


@pytest.mark.parametrize("size", [128_001, 300_000, 3_000_000])
async def test_a_body_that_is_too_large_is_answered(size: int) -> None:
    """413 arrives whatever the size, because the body is read to its end."""
    async with Sandbox() as sandbox, client_of(sandbox) as client:
        headers = {"Content-Type": "application/json"}
        too_large = await client.post("/v1/device/SANDBOX", content=b"x" * size, headers=headers)
        after = await post(client)

        assert [too_large.status_code, after.status_code] == [413, 200]


async def test_a_body_may_come_in_pieces() -> None:
    """A device whose bytes arrive one by one is a device."""
    async with Sandbox() as sandbox, connected(sandbox) as (reader, writer):
        request = written(sandbox)
        writer.write(request[:-20])
        await until(lambda: sandbox.stats.requests == 1)
        writer.write(request[-20:])

        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"


async def test_the_limit_is_enforced_on_the_wire() -> None:
    """Beyond the limit come 429s with Retry-After, and the sandbox counts them."""
    async with Sandbox(SandboxSettings(limit=Limit(3))) as sandbox, client_of(sandbox) as client:
        answers = [await post(client) for _ in range(5)]

        assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
        assert 58 <= int(answers[4].headers["Retry-After"]) <= 60
        assert (sandbox.stats.over_limit, sandbox.stats.busiest.most) == (2, 5)


async def test_a_compressed_body_is_no_json() -> None:
    """Nothing is unpacked: the API does not say that it would be."""
    async with Sandbox() as sandbox, client_of(sandbox) as client:
        headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
        content = gzip.compress(orjson.dumps(device()))
        answer = await client.post("/v1/device/SANDBOX", content=content, headers=headers)

        assert answer.json()["error"]["type"] == "Malformed JSON"


async def test_a_client_may_close_after_each_request() -> None:
    """Connection: close is honoured, for successes and for failures."""
    async with Sandbox() as sandbox, client_of(sandbox, headers={"Connection": "close"}) as client:
        answers = [await post(client), await post(client, device(platform="android"))]

        assert [answer.headers["Connection"] for answer in answers] == ["close", "close"]
        assert sandbox.stats.connections == 2


@pytest.mark.parametrize(("step", "applied"), [("reset", 0), ("reset-after", 1)])
async def test_a_reset_is_really_a_reset(step: str, applied: int) -> None:
    """The client sees a connection reset by its peer, not an orderly end."""
    async with Sandbox() as sandbox, connected(sandbox) as (reader, writer):
        sandbox.script("d-1", [step])
        writer.write(written(sandbox))

        with pytest.raises(ConnectionResetError):
            await reader.read()
        assert applied == len(sandbox.devices)
        assert (1, {step: 1}) == (sandbox.stats.unanswered, sandbox.stats.faults)


async def test_half_an_answer_ends_in_the_middle() -> None:
    """The head promises more than comes before the connection ends."""
    async with Sandbox() as sandbox, connected(sandbox) as (reader, writer):
        sandbox.script("d-1", ["half"])
        writer.write(written(sandbox))

        head, _, body = (await reader.read()).partition(b"\r\n\r\n")

        assert b"Content-Length: %d" % len(SUCCESS.body) in head
        assert 0 < len(body) < len(SUCCESS.body)
        assert len(sandbox.devices) == 1


async def test_broken_answers_are_no_successes() -> None:
    """A page of somebody's network, and a 200 that says fail."""
    async with Sandbox() as sandbox, client_of(sandbox) as client:
        sandbox.script("d-1", ["broken", "nosuccess"])

        broken, nosuccess = await post(client), await post(client)

        assert [broken.status_code, nosuccess.status_code] == [200, 200]
        assert broken.text.startswith("<html>")
        assert nosuccess.json()["status"] == "fail"


async def test_latency_passes_between_arrival_and_answer() -> None:
    """Each answer takes at least as long as was asked for, and many wait side by side."""
    settings = SandboxSettings(faults=Faults.parse("latency=20ms..25ms"))
    async with Sandbox(settings) as sandbox, client_of(sandbox) as client:
        async with anyio.create_task_group() as tasks:
            for index in range(5):
                tasks.start_soon(post, client, device(f"d-{index}"))

        waits = [(each.answered or 0) - each.arrived for each in sandbox.requests]
        assert min(waits) >= 0.0199
        assert sandbox.stats.most_in_service == 5


async def test_a_device_is_applied_though_its_client_has_gone() -> None:
    """A request that was given up can still take effect, as with any server; nobody is counted as answered."""
    settings = SandboxSettings(faults=Faults.parse("latency=30ms"))
    async with Sandbox(settings) as sandbox:
        async with connected(sandbox) as (_, writer):
            writer.write(written(sandbox))
            await until(lambda: sandbox.stats.in_service == 1)
        await until(lambda: sandbox.stats.in_service == 0)

        assert len(sandbox.devices) == 1
        assert (sandbox.stats.unanswered, sandbox.stats.by_status) == (1, {})


async def test_a_hanging_request_ends_with_its_client() -> None:
    """Nothing is answered; when the client goes, the request is over."""
    async with Sandbox() as sandbox:
        sandbox.script("d-1", ["hang"])
        async with connected(sandbox) as (_, writer):
            writer.write(written(sandbox))
            await until(lambda: sandbox.stats.in_service == 1)
        await until(lambda: sandbox.stats.unanswered == 1)

        assert (sandbox.stats.in_service, sandbox.stats.faults) == (0, {"hang": 1})


async def test_a_client_that_leaves_before_its_turn_hangs_nothing() -> None:
    """A request that would hang, delayed, whose client has gone meanwhile, is over at once."""
    settings = SandboxSettings(faults=Faults.parse("hang=100%,latency=20ms"))
    async with Sandbox(settings) as sandbox:
        async with connected(sandbox) as (_, writer):
            writer.write(written(sandbox))
            await until(lambda: sandbox.stats.in_service == 1)
        await until(lambda: sandbox.stats.in_service == 0)

        assert sandbox.stats.unanswered == 1


async def test_a_client_that_breaks_off_is_written_down() -> None:
    """Half a request arrived, was never answered, and stops nothing."""
    async with Sandbox() as sandbox:
        async with connected(sandbox) as (_, writer):
            writer.write(written(sandbox, length=5_000))
            await until(lambda: sandbox.stats.requests == 1)
        await until(lambda: sandbox.stats.unanswered == 1)

        assert sandbox.stats.in_service == 0


@pytest.mark.parametrize("faults", ["hang=100%", "latency=1h"])
async def test_leaving_is_prompt_and_leaves_nothing_behind(faults: str) -> None:
    """With requests hanging and waiting, the block ends at once: no task, no connection, no open port."""
    before = asyncio.all_tasks()
    with anyio.fail_after(1):
        async with Sandbox(SandboxSettings(faults=Faults.parse(faults))) as sandbox:
            async with contextlib.AsyncExitStack() as stack:
                streams = [await stack.enter_async_context(connected(sandbox)) for _ in range(4)]
                for _, writer in streams[1:]:
                    writer.write(written(sandbox))
                await until(lambda: sandbox.stats.in_service == 3)
                await sandbox.__aexit__(None, None, None)

                assert before == asyncio.all_tasks()
                assert sandbox.stats.in_service == 0
                for reader, _ in streams:
                    with pytest.raises(ConnectionResetError):
                        await reader.read()
            with pytest.raises(ConnectionRefusedError):
                async with connected(sandbox):
                    pytest.fail("the port is still open")
    gc.collect()


async def test_leaving_is_clean_when_cancelled() -> None:
    """A cancelled block stops the sandbox all the same."""
    before = asyncio.all_tasks()
    with anyio.CancelScope() as scope:
        async with Sandbox() as sandbox, connected(sandbox) as (_, writer):
            writer.write(written(sandbox))
            await until(lambda: sandbox.stats.requests == 1)
            scope.cancel()
            await anyio.sleep_forever()

    assert before == asyncio.all_tasks()


async def test_a_sandbox_is_entered_once_and_has_no_address_before() -> None:
    """Misuse is told in words."""
    sandbox = Sandbox()
    with pytest.raises(RuntimeError, match="no address before it is entered"):
        _ = sandbox.url
    await sandbox.__aexit__(None, None, None)
    async with sandbox:
        with pytest.raises(RuntimeError, match="entered once"):
            await sandbox.__aenter__()


async def test_a_port_that_is_taken_is_told() -> None:
    """Two sandboxes cannot share a port; the second leaves nothing behind."""
    async with Sandbox() as first:
        second = Sandbox(SandboxSettings(port=int(first.url.rpartition(":")[2])))
        with pytest.raises(OSError, match="address already in use"):
            await second.__aenter__()
        await second.__aexit__(None, None, None)


async def test_each_sandbox_draws_its_own_key() -> None:
    """The key is random unless it is set, and stands in no repr of the settings."""
    assert Sandbox().api_key != Sandbox().api_key
    settings = SandboxSettings(api_key="not so secret")
    assert Sandbox(settings).api_key == "not so secret"
    assert "not so secret" not in repr(settings)


async def test_it_speaks_tls_when_given_a_certificate() -> None:
    """With an ssl context the address is https, and resets still reset."""
    authority = trustme.CA()
    server, trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(trust)
    async with Sandbox(SandboxSettings(ssl_context=server)) as sandbox, client_of(sandbox, verify=trust) as client:
        sandbox.script("d-1", ["200", "reset"])

        answer = await post(client)

        assert sandbox.url.startswith("https://127.0.0.1:")
        assert answer.status_code == 200
        with pytest.raises(httpx.NetworkError):
            await post(client)


async def test_an_outside_process_can_ask() -> None:
    """The control endpoints answer without a key and count for nothing."""
    async with Sandbox() as sandbox, client_of(sandbox) as client:
        await post(client)
        async with httpx.AsyncClient(base_url=sandbox.url, trust_env=False) as outsider:
            stats = (await outsider.get("/_sandbox/stats")).json()
            devices = (await outsider.get("/_sandbox/devices", params={"device_id": "d-1"})).json()
            requests = (await outsider.get("/_sandbox/requests")).json()
            posted = await outsider.post("/_sandbox/stats")

        assert (stats["requests"], stats["by_status"], stats["devices"]) == (1, {"200": 1}, 1)
        assert [each["device_id"] for each in devices] == ["d-1"]
        assert [each["number"] for each in requests] == [1]
        assert posted.status_code == 404


async def test_serve_announces_how_to_use_it_and_runs_until_cancelled() -> None:
    """The text holds what can be pasted into a shell; cancelling ends it."""
    texts: list[str] = []
    async with anyio.create_task_group() as tasks:

        async def run() -> None:
            await serve(SandboxSettings(api_key="k & y"), announce=texts.append)

        tasks.start_soon(run)
        await until(lambda: texts != [])
        lines = [line.strip() for line in texts[0].splitlines()]
        url = lines[2].rpartition("=")[2]
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
            assert (await client.get("/_sandbox/stats")).status_code == 200
        tasks.cancel_scope.cancel()

    assert [
        f"export MOENGAGE_BASE_URL={url}",
        "export MOENGAGE_WORKSPACE_ID=SANDBOX",
        "export MOENGAGE_API_KEY='k & y'",
    ] == lines[2:5]
