"""The doctor looks at a real Redis server as an upload would, and leaves nothing there."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

import pytest

from moe_bulk.config import Credentials, Network, Rate
from moe_bulk.doctor.pace import look_at_pace
from moe_bulk.pacing.address import RedisPace
from tests.redis_server import running_redis

if TYPE_CHECKING:
    from moe_bulk.doctor.findings import PaceServer

redis = pytest.importorskip("redis")

CREDENTIALS = Credentials("WORKSPACE", "key", base_url="http://127.0.0.1:9")


def looked(url: str) -> PaceServer:
    """Look."""
    return asyncio.run(look_at_pace(RedisPace(url), CREDENTIALS, Rate(), Network()))


def test_a_server_that_is_well() -> None:
    """Nine answers are timed, and the key is gone; a workspace that is new there will wait."""
    with running_redis("--maxmemory-policy", "allkeys-lru") as server:
        found = looked(server.url)
        assert ("", 9, "allkeys-lru", True) == (found.trouble, len(found.seconds), found.policy, found.told)
        assert 101 == int(found.wait)
        assert found.version
        with redis.Redis(port=server.port) as client:
            assert [] == client.keys()


def test_a_server_that_tells_nothing_of_itself() -> None:
    """Without the right to INFO it keeps a pace all the same."""
    rights = "+ping +eval +evalsha +script|load +time +hmget +hget +hgetall +hset +hdel +del +pexpire +exists"
    with running_redis(*f"--user poor on >pw ~moe-bulk:pace:* {rights}".split()) as server:
        found = looked(f"redis://poor:pw@127.0.0.1:{server.port}")
        assert ("", False) == (found.trouble, found.told)


def test_a_server_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Why an upload would not get on with it; and the package that is missing."""
    with running_redis() as server:
        url = server.url
    assert "connection refused" == looked(url).trouble
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)
    found = looked(url)
    assert found.missing
    assert "pip install 'moe-bulk[redis]'" in found.trouble
