"""An Uploader shares its pace with whom it is told to, through a real Redis server where that is one."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import httpx
import pytest

from moe_bulk import ConfigError, PaceLost, RedisPace, Uploader
from moe_bulk.config import Network, Rate, Retry
from moe_bulk.outcome import Status
from moe_bulk.pacing.reservations import LEAVES, Call, Terms, key_of, script
from moe_bulk.pacing.sharing import MARGIN
from tests.fake_service import CREDENTIALS, devices
from tests.fake_service import answer as answered
from tests.redis_server import running_redis

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from moe_bulk.view import RunView
    from tests.redis_server import RedisServer

redis = pytest.importorskip("redis")

RATE = Rate(50, 1.0)
KEY = key_of(CREDENTIALS.address, CREDENTIALS.workspace_id)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """Give a server that has known the workspace for long."""
    with running_redis() as found, redis.Redis(port=found.port) as client:
        carry_out = client.register_script(script())
        for want in (0, LEAVES):
            carry_out(keys=[KEY], args=Call(want=want).words(Terms("before", RATE, 0.5)))
        client.hset(KEY, mapping={"blocked": "0", "born": "0"})
        yield found


def uploader(pace: str | RedisPace, outage_limit: float = 1800.0) -> Uploader:
    """Make one whose requests are accepted at once."""
    transport = httpx.MockTransport(lambda _: answered(200))
    retry, network = Retry(outage_limit=outage_limit), Network(timeout=0.5)
    return Uploader(CREDENTIALS, rate=RATE, retry=retry, network=network, transport=transport, pace=pace)


def test_the_url_of_a_server_is_enough(server: RedisServer, tmp_path: Path) -> None:
    """Everything is delivered by slots of the server's, and given back at the end; the summary names the server."""

    async def main() -> None:
        async with uploader(server.url) as sender:
            summary = await sender.run(devices(30), out=tmp_path / "x.run")
            assert 30 == summary["counts"]["accepted"]
            assert f"{server.url}/0" == summary["settings"]["pace"]
            assert [] == sender.notes

    asyncio.run(main())
    with redis.Redis(port=server.port) as client:
        assert b"{}" == client.hget(KEY, "members")
        assert 30 == int(client.hget(KEY, "held"))
    assert f"{server.url}/0" in (tmp_path / "x.run" / "report.html").read_text()


def test_streams_and_sends_share_it_too(server: RedisServer) -> None:
    """Whatever an Uploader does goes by its pace."""

    async def main() -> None:
        async with uploader(RedisPace(server.url)) as sender:
            result = await sender.send(devices(1)[0])
            assert Status.ACCEPTED is result.status

    asyncio.run(main())


def test_a_run_says_that_it_waits_and_gives_up(server: RedisServer, tmp_path: Path) -> None:
    """While the server is away the run waits for it; after --outage-limit it stops with what is settled."""
    waited: list[str | None] = []

    async def main() -> None:
        async with uploader(server.url, outage_limit=3.0) as sender:

            def begin(view: RunView) -> None:
                loop = asyncio.get_running_loop()
                loop.call_later(0.3, server.kill)
                for tenths in range(3, 40):
                    loop.call_later(tenths / 10, lambda: waited.append(view.waits_for))

            with pytest.raises(PaceLost, match=r"was away for 3 s"):
                await sender.run(devices(500), out=tmp_path / "x.run", watch=begin)

    asyncio.run(main())
    assert "redis" in waited
    assert "pace" in waited


def test_what_it_does_alone_is_told_to_the_server(server: RedisServer) -> None:
    """How many shares there are, and for how long the server is to keep one free: as long as it may send unheard."""

    async def main(pace: RedisPace) -> list[dict[str, float]]:
        async with uploader(pace, outage_limit=900.0) as sender:
            assert Status.ACCEPTED is (await sender.send(devices(1)[0])).status
            with redis.Redis(port=server.port) as client:
                return list(json.loads(client.hget(KEY, "members")).values())

    (alone,) = asyncio.run(main(RedisPace(server.url, share=4)))
    (never,) = asyncio.run(main(RedisPace(server.url)))
    assert (4, (900 + MARGIN) * 1e6) == (alone["share"], alone["away"])
    assert 0 == never["share"]


def test_a_server_that_refuses_is_a_setting_to_correct() -> None:
    """At the beginning, before anything is sent; nothing is left behind."""

    async def main(url: str) -> None:
        with pytest.raises(ConfigError, match="the user name or the password is wrong, or missing"):
            async with uploader(url):
                pass
        assert {asyncio.current_task()} == asyncio.all_tasks()

    with running_redis("--requirepass", "x") as server:
        asyncio.run(main(server.url))


def test_other_paces_are_as_they_were() -> None:
    """A process alone, the host's window, and nothing else."""

    async def main() -> None:
        for pace in ("process", "host"):
            async with uploader(pace) as sender:
                assert Status.ACCEPTED is (await sender.send(devices(1)[0])).status
                assert not sender.waits_for_redis

    asyncio.run(main())
    with pytest.raises(ConfigError, match="there is no pace 'planet'"):
        uploader("planet")
