"""When a request may be sent: the even pace, pauses, an outage and the window together."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from moe_bulk.agenda import Entry
from moe_bulk.channel import Channel
from moe_bulk.clock import Clock
from moe_bulk.config import Rate
from moe_bulk.errors import Interrupted
from moe_bulk.lanes import Lanes
from moe_bulk.outcome import Outcome, Verdict
from moe_bulk.pacing import Pace
from moe_bulk.pacing.guard import CLOCK_MARGIN
from moe_bulk.permission import STOOD_STILL_SECONDS, Permission
from moe_bulk.retry import FIRST_PROBE, OUTAGE_RECORDS, Outage, Trials
from tests.builders import ACCEPTED, TIMEOUT, record
from tests.virtual import run_virtually

if TYPE_CHECKING:
    from moe_bulk.pacing import Slot


class Door:
    """A permission with all that it asks, on the loop's clock."""

    def __init__(self, limit: int = 1, per: float = 60.0) -> None:
        self.now = asyncio.get_running_loop().time
        self.pace = Pace(Rate(limit, per), TIMEOUT)
        self.outage = Outage(1800.0)
        self.permission = Permission(self.pace, self.outage, Clock(self._time, 0.0))
        self.channel = Channel(lambda _: None, Lanes(), 10, None, None)
        self.entry = Entry(record(1), self.channel)

    def _time(self) -> float:
        return self.now()

    def slot(self) -> Slot | None:
        """Ask without waiting."""
        return self.permission.slot(self.entry, self.now())

    def waiting(self) -> asyncio.Task[Slot | None]:
        """Wait, in a task."""
        return asyncio.create_task(self.permission.wait(self.entry))


def test_a_free_window_lets_it_go_at_once() -> None:
    """And when it is full, nobody without waiting."""

    async def main() -> tuple[bool, bool]:
        door = Door()
        return door.slot() is not None, door.slot() is not None

    assert (True, False) == run_virtually(main)


def test_it_waits_for_a_slot_and_says_so() -> None:
    """Until one window after the answer."""

    async def main() -> tuple[str, float, str]:
        door = Door()
        first = door.slot()
        assert first is not None
        door.pace.answered(first, ACCEPTED, door.now())
        began, task = door.now(), door.waiting()
        await asyncio.sleep(1)
        said = door.permission.waits_for
        assert await task is not None
        return said, door.now() - began, door.permission.waits_for

    said, waited, after = run_virtually(main)
    assert ("slot", "") == (said, after)
    assert 60 * (1 + CLOCK_MARGIN) == pytest.approx(waited, abs=0.01)


def test_it_waits_for_the_pace_and_says_so() -> None:
    """The even pace of one a minute; what comes back is the time when it allowed one more."""

    async def main() -> tuple[str, float, float]:
        door = Door()
        task = asyncio.create_task(door.permission.token(door.now()))
        await asyncio.sleep(1)
        return door.permission.waits_for, await task, door.now()

    said, told, now = run_virtually(main)
    assert ("pace", pytest.approx(now, abs=1e-3)) == (said, told)
    assert 60.0 == pytest.approx(now, rel=0.01)


def test_a_pause_keeps_all_waiting() -> None:
    """However free the window is."""

    async def main() -> float:
        door = Door(1000, 1.0)
        slot = door.slot()
        assert slot is not None
        used_up = Outcome(Verdict.ACCEPTED, 200, remaining=0, reset_after=7.0)
        door.pace.answered(slot, used_up, door.now())
        assert door.slot() is None
        began = door.now()
        await door.permission.wait(door.entry)
        return door.now() - began

    assert 7.0 == pytest.approx(run_virtually(main), abs=0.01)


def test_in_an_outage_it_waits_for_the_probe_s_time() -> None:
    """And while a probe is on its way, for its end."""

    async def main() -> tuple[float, bool]:
        door = Door(1000, 1.0)
        for number in range(OUTAGE_RECORDS):
            door.outage.trouble(number, Trials(), door.now())
        assert door.slot() is None
        began = door.now()
        await door.permission.wait(door.entry)
        waited = door.now() - began
        door.outage.sending("probe")
        task = door.waiting()
        await asyncio.sleep(100)
        assert not task.done()
        door.outage.alive()
        door.permission.over.ring()
        return waited, await task is not None

    waited, went = run_virtually(main)
    assert FIRST_PROBE == pytest.approx(waited, abs=0.01)
    assert went


def test_who_was_halted_waits_for_nothing() -> None:
    """It gets no slot, and takes none."""

    async def main() -> tuple[Slot | None, bool]:
        door = Door()
        taken = door.slot()
        task = door.waiting()
        await asyncio.sleep(1)
        door.channel.halt(Interrupted("enough"))
        door.permission.over.ring()
        return await task, taken is not None

    assert (None, True) == run_virtually(main)


def test_after_standing_still_it_is_not_sent_and_its_slot_stays_taken() -> None:
    """What leaves later than it was dated may arrive when its slot is free again."""

    async def main() -> tuple[Slot | None, float | None]:
        door = Door(1, 10.0)
        stood = iter([STOOD_STILL_SECONDS + 1, STOOD_STILL_SECONDS + 1])
        door.now = lambda: next(stood)
        return door.permission.slot(door.entry, 0.0), door.pace.send_at(STOOD_STILL_SECONDS + 1)

    slot, again = run_virtually(main)
    assert slot is None
    assert again > STOOD_STILL_SECONDS + 10
