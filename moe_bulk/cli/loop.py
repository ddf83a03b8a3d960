"""The event loop that commands run on: uvloop where it is installed (the extra `fast`), else asyncio's own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the loop; None for asyncio's own."""
    try:
        import uvloop  # noqa: PLC0415  an extra, and the commands that need no loop do not pay for it
    except ImportError:
        return None
    return uvloop.new_event_loop


def run(main: Coroutine[object, object, T]) -> T:
    """Carry out what a command does, on that loop; as `asyncio.run` else."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(main)
