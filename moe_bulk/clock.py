"""Time, passed in: one clock that never goes backwards, and the wall clock derived from it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
"""Linux: random(4)."""

_BOOT_CLOCK: int | None = getattr(time, "CLOCK_BOOTTIME", None)
"""macOS has none: there it is mach_absolute_time, which stops while asleep."""


def boot_id() -> str | None:
    """Which start of the machine this is: boot-clock times of another one mean nothing now; None where nobody tells."""
    try:
        return _BOOT_ID.read_text("ascii").strip() or None
    except OSError:
        return None


boot_seconds: Callable[[], float] = time.monotonic if _BOOT_CLOCK is None else partial(time.clock_gettime, _BOOT_CLOCK)
"""Seconds since the machine started, its time asleep included where the system can tell (Linux).

No function of our own around it: it is asked several times a record.
"""


@dataclass(frozen=True, slots=True)
class Clock:
    """`now` gives boot-clock seconds; `zero` is the epoch second at which that clock stood at 0.

    The wall clock is read once, when the clock is made: later steps of it change neither the order nor the distances of
    what is written.
    """

    now: Callable[[], float]
    zero: float

    @classmethod
    def system(cls) -> Clock:
        """The machine's own clock."""
        return cls(boot_seconds, time.time() - boot_seconds())

    def epoch(self, at: float | None = None) -> float:
        """Epoch seconds of the boot-clock time `at`, or of this moment."""
        return self.zero + (self.now() if at is None else at)
