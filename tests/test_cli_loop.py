"""How a command's process runs: its event loop, and how often Python looks for garbage."""

from __future__ import annotations

import asyncio
import gc
import sys
from typing import TYPE_CHECKING

import pytest

from moe_bulk.cli import loop

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def nothing_frozen() -> Iterator[None]:
    """As in a process of one's own: `conftest.py` froze what was there, and `few_collections` heeds that."""
    gc.unfreeze()
    yield
    gc.unfreeze()  # what a test froze
    gc.collect()  # else garbage of earlier tests would be kept for ever, and nobody warned of it
    gc.freeze()


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


async def _collecting() -> tuple[tuple[int, int, int], bool]:
    return gc.get_threshold(), gc.get_freeze_count() > 0


async def _failing() -> None:
    raise LookupError


def test_collections_are_few_while_a_command_runs() -> None:
    """And as many as ever behind it, whatever it ends in: a test or a program may call a command in its process."""
    before = gc.get_threshold(), gc.get_freeze_count()
    assert ((loop.GC_THRESHOLD, *before[0][1:]), True) == loop.run(_collecting())
    assert before == (gc.get_threshold(), gc.get_freeze_count())
    with pytest.raises(LookupError):
        loop.run(_failing())
    assert before == (gc.get_threshold(), gc.get_freeze_count())


def test_what_a_calling_program_froze_stays_frozen() -> None:
    """It did so for itself."""
    gc.freeze()
    before = gc.get_freeze_count()
    loop.run(_collecting())
    assert before == gc.get_freeze_count()
