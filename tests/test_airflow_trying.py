"""Airflow's button "Test" on a connection."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from moe_bulk.airflow.connection import Account
from moe_bulk.airflow.trying import try_account
from moe_bulk.config import Credentials
from moe_bulk.errors import ConfigError
from tests.fake_service import sandbox_in_a_thread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from moe_bulk.sandbox import Sandbox


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """What stands in for MoEngage."""
    with sandbox_in_a_thread() as running:
        yield running


def account(sandbox: Sandbox, key: str | None = None, **options: object) -> Account:
    """What a connection to the sandbox says."""
    return Account(Credentials(sandbox.workspace_id, key or sandbox.api_key, base_url=sandbox.url), options)


def test_a_connection_that_works(sandbox: Sandbox) -> None:
    """The key is known; no device is sent. It may be asked on an event loop."""

    async def ask() -> tuple[bool, str]:
        return try_account(lambda: account(sandbox))

    for well, said in (try_account(lambda: account(sandbox)), asyncio.run(ask())):
        assert well
        assert "An upload can go" in said
        assert "MoEngage knows workspace SANDBOX" in said
    assert 0 == len(sandbox.devices)


def test_a_key_that_is_refused(sandbox: Sandbox) -> None:
    """What fails, and what to do about it; the key is not shown."""
    well, said = try_account(lambda: account(sandbox, key="wrong-key-of-somebody"))
    assert not well
    assert "key: " in said
    assert "wrong-key-of-somebody" not in said


def test_a_redis_that_is_away(sandbox: Sandbox) -> None:
    """What an upload would wait for in vain is tried, too, as `moe-bulk doctor` does."""
    pytest.importorskip("redis")
    well, said = try_account(lambda: account(sandbox, pace="redis://127.0.0.1:1"))
    assert not well
    assert "pace: redis://127.0.0.1:1/0: " in said


def test_what_cannot_be_tried(sandbox: Sandbox) -> None:
    """A connection that lacks something, or options that make no sense, say so."""

    def incomplete() -> Account:
        raise ConfigError("the connection 'x' has no host")

    assert (False, "the connection 'x' has no host") == try_account(incomplete)
    well, said = try_account(lambda: account(sandbox, rate="fast"))
    assert (False, True) == (well, "'fast' is no rate" in said)
