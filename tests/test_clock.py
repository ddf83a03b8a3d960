"""One clock that never goes backwards, and the wall clock derived from it."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING
from uuid import UUID

import pytest

from moe_bulk import clock as rooms_clock
from moe_bulk.clock import Clock, boot_id, boot_seconds

if TYPE_CHECKING:
    from pathlib import Path


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


@pytest.mark.parametrize(
    ("said", "expected"),
    [("0b3c8c5e-2d5e-4c6f-9f0e-3f2f6f1a7b11\n", "0b3c8c5e-2d5e-4c6f-9f0e-3f2f6f1a7b11"), ("\n", None), (None, None)],
)
def test_boot_id(said: str | None, expected: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each start of the machine has its own name, where the system tells one."""
    path = tmp_path / "boot_id"
    if said is not None:
        path.write_text(said, encoding="ascii")
    monkeypatch.setattr(rooms_clock, "_BOOT_ID", path)

    assert expected == boot_id()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux names the starts of a machine")
def test_boot_id_of_this_machine() -> None:
    """Linux tells a UUID, and the same one until the next start."""
    assert boot_id() == str(UUID(boot_id() or "")) == boot_id()
