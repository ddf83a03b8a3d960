"""One clock that never goes backwards, and the wall clock derived from it."""

from __future__ import annotations

import time

from moe_bulk.clock import Clock, boot_seconds


def test_boot_seconds_go_on() -> None:
    """The boot clock never goes backwards, and counts at least the time that the machine was awake."""
    first = boot_seconds()
    assert time.clock_gettime(time.CLOCK_MONOTONIC) - 1 <= first <= boot_seconds()


def test_epoch_is_derived_from_the_boot_clock() -> None:
    """Epoch seconds are the zero plus boot-clock seconds, whatever the wall clock does meanwhile."""
    clock = Clock(lambda: 50.0, 1_700_000_000.0)
    assert (1_700_000_050.0, 1_700_000_007.5) == (clock.epoch(), clock.epoch(7.5))


def test_system_clock_agrees_with_the_wall_clock_at_its_birth() -> None:
    """The machine's own clock says the wall clock's time."""
    assert abs(Clock.system().epoch() - time.time()) < 1
