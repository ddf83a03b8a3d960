"""The event loop of the command line: uvloop where it is installed, asyncio's own where it is not."""

from __future__ import annotations

import asyncio
import sys

import pytest

from moe_bulk.cli import loop


async def _which() -> type[asyncio.AbstractEventLoop]:
    return type(asyncio.get_running_loop())


def test_uvloop_is_used_where_it_is_installed() -> None:
    """The extra `fast` needs nothing else to be of use."""
    uvloop = pytest.importorskip("uvloop")
    assert uvloop.Loop is loop.run(_which())


def test_without_it_the_loop_is_asyncio_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra: nobody has to have it."""
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert issubclass(loop.run(_which()), asyncio.SelectorEventLoop)
