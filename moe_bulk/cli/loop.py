"""How a command's process runs: on uvloop where it is installed (the extra `fast`), and without needless collections.

Both are the process's own affair, so that the library leaves them alone.
"""

from __future__ import annotations

import asyncio
import gc
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

T = TypeVar("T")

GC_THRESHOLD = 10_000
"""So many more objects than before, and Python looks for garbage among them. Rows come in by the hundred and live for
some seconds: at its default (700 in Python 3.11) it looks after each hundred rows, at a tenth of what a row costs, and
finds nothing, for an upload leaves no cycles behind."""


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the loop; None for asyncio's own."""
    try:
        import uvloop  # noqa: PLC0415  an extra, and the commands that need no loop do not pay for it
    except ImportError:
        return None
    return uvloop.new_event_loop


@contextmanager
def few_collections() -> Iterator[None]:
    """Within it Python looks for garbage more rarely, and not among what was there before."""
    before, ours = gc.get_threshold(), not gc.get_freeze_count()
    if ours:  # else a program that calls us did, for itself
        gc.freeze()
    gc.set_threshold(GC_THRESHOLD, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        if ours:
            gc.unfreeze()


def run(main: Coroutine[object, object, T]) -> T:
    """Carry out what a command does, on that loop; as `asyncio.run` else."""
    with few_collections(), asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(main)
