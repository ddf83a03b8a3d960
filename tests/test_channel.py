"""One stream's way in and out: room, results, and the end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from moe_bulk.channel import ENOUGH, GATHERING_SECONDS, RETRYING_ASIDE, SEVERAL, Channel
from moe_bulk.errors import Interrupted, ServiceUnavailable
from moe_bulk.lanes import Lanes
from moe_bulk.outcome import Status
from tests.builders import ACCEPTED, numbers, record
from tests.virtual import run_virtually

if TYPE_CHECKING:
    from collections.abc import Callable

    from moe_bulk.agenda import Entry
    from moe_bulk.outcome import Result


class Fixture:
    """A channel, and in place of the engine a list of what it was handed."""

    def __init__(self, room: int = 2) -> None:
        self.entries: list[Entry] = []
        self.lanes: Lanes[Entry] = Lanes()
        self.channel = Channel(self.take_in, self.lanes, room, None)

    def take_in(self, *entries: Entry) -> None:
        """Be handed entries."""
        self.entries += entries

    def put(self, number: int) -> None:
        """Send a row."""
        self.channel.put(record(number))

    def settle(self, which: int = 0) -> None:
        """Say the last word on one of the entries."""
        self.channel.settled(self.result(which))

    def result(self, which: int = 0) -> Result:
        """Give the last word on one of the entries."""
        return self.entries[which].result(Status.ACCEPTED, ACCEPTED, 0.0)


async def blocked(task: asyncio.Task[object]) -> bool:
    """Tell whether a task still waits after all others had their turn."""
    await asyncio.sleep(0.01)
    return not task.done()


def test_room_is_for_the_unsettled_and_the_unread() -> None:
    """A row takes room from its putting until its result is read, not only until it settles."""

    async def main() -> list[int]:
        made = Fixture(room=2)
        seen = [made.channel.room]
        made.put(0)
        seen.append(made.channel.room)
        made.put(1)
        seen.append(made.channel.room)
        made.settle()
        seen.append(made.channel.room)
        await made.channel.receive()
        seen.append(made.channel.room)
        return seen

    assert [2, 1, 0, 0, 1] == run_virtually(main)


def test_no_more_room_than_the_lanes_have() -> None:
    """All streams share them: what one puts in at once must not overfill them."""
    made = Fixture(room=300)
    made.lanes.max_parked, made.lanes.parked = 5, 3
    assert 2 == made.channel.room
    made.lanes.parked = 0
    assert 5 == made.channel.room


def test_a_halted_channel_has_no_room() -> None:
    """However empty it is."""
    made = Fixture()
    made.channel.halt(Interrupted("enough"))
    assert 0 == made.channel.room


def test_rows_that_passed_a_screen_have_room_of_their_own() -> None:
    """They leave the room to those that need not be sent; when they fill their own, no more is read."""

    async def main() -> list[bool]:
        made, seen = Fixture(room=2), []
        for number in range(2):
            made.put(number)
        seen.append(made.channel.room > 0)
        made.channel.cleared = 1
        seen.append(made.channel.room > 0)
        made.channel.cleared = 2
        seen.append(made.channel.room > 0)
        return seen

    assert [False, True, False] == run_virtually(main)


def test_rows_that_wait_to_be_tried_again_take_no_room_until_they_are_many() -> None:
    """A share of failures does not keep the others from being read; a service that fails them all does."""
    made, seen = Fixture(room=2), []
    for number in range(RETRYING_ASIDE + 2):
        assert made.channel.room
        made.put(number)
        made.channel.retrying = number + 1
    seen.append(made.channel.room > 0)
    made.channel.retrying = RETRYING_ASIDE + 1  # one is tried again
    seen.append(made.channel.room > 0)
    made.settle()
    run_virtually(made.channel.receive)
    seen.append(made.channel.room > 0)
    assert [False, False, True] == seen


def test_rows_behind_others_take_no_room() -> None:
    """Parked rows do not keep the rows of other devices out: the lanes have a limit of their own."""
    made = Fixture(room=1)
    made.put(0)
    made.channel.parked = 1
    assert made.channel.room
    made.lanes.full = True
    assert not made.channel.room


def test_waiting_for_room_ends_when_results_are_read() -> None:
    """The feeder sleeps while the channel is full and goes on when the reader has taken something."""

    async def main() -> tuple[bool, bool]:
        made = Fixture(room=1)
        made.put(0)
        waiting = asyncio.create_task(made.channel.wait_for_room())
        slept = await blocked(waiting)
        made.settle()
        assert await blocked(waiting)
        await made.channel.receive()
        return slept, await waiting

    assert (True, True) == run_virtually(main)


def test_a_halted_channel_takes_nothing_in() -> None:
    """Whoever waits for room is told that there will be none."""

    async def main() -> tuple[bool, bool, bool]:
        made = Fixture(room=1)
        made.put(0)
        waiting = asyncio.create_task(made.channel.wait_for_room())
        assert await blocked(waiting)
        made.channel.halt(Interrupted("enough"))
        return await waiting, await made.channel.wait_for_room(), made.channel.room > 0

    assert (False, False, False) == run_virtually(main)


def test_results_come_as_they_settle() -> None:
    """The reader gets all that has settled at once, rows that were never sent included, then the end."""

    async def main() -> list[list[int]]:
        made = Fixture(room=9)
        for number in range(3):
            made.put(number)
        made.settle(2)
        made.channel.pass_on(made.result(1))
        batches = [numbers(await made.channel.receive())]
        reading = asyncio.create_task(made.channel.receive())
        assert await blocked(reading)
        made.settle(0)
        batches.append(numbers(await reading))
        made.channel.end()
        made.settle(1)
        batches.append(numbers(await made.channel.receive()))
        batches.append(numbers(await made.channel.receive()))
        return batches

    assert [[2, 1], [0], [1], []] == run_virtually(main)


@pytest.mark.parametrize(
    ("at_once", "ends", "taken", "waited"),
    [
        (SEVERAL - 1, False, SEVERAL - 1, 0.0),
        (SEVERAL, False, SEVERAL + 2, GATHERING_SECONDS),
        (ENOUGH - 1, False, ENOUGH + 1, GATHERING_SECONDS),
        (ENOUGH, False, ENOUGH, 0.0),
        (SEVERAL, True, SEVERAL, 0.0),
    ],
)
def test_where_several_results_come_at_once_more_are_waited_for(
    at_once: int,
    ends: bool,  # noqa: FBT001  a column
    taken: int,
    waited: float,
) -> None:
    """For a moment; a few, enough of them, and the last ones are handed on at once."""

    async def main() -> tuple[int, float]:
        loop, made = asyncio.get_running_loop(), Fixture(room=200)
        more = 0 if ends else 2
        for number in range(at_once + more):
            made.put(number)
        if ends:
            made.channel.end()
        began = loop.time()
        for number in range(at_once):
            made.settle(number)
        for number in range(at_once, at_once + more):
            loop.call_later(GATHERING_SECONDS / 2, made.settle, number)
        return len(await made.channel.receive()), loop.time() - began

    found, seconds = run_virtually(main)
    assert taken == found
    assert pytest.approx(waited, abs=GATHERING_SECONDS / 4) == seconds


def test_the_end_waits_for_the_unsettled() -> None:
    """No more rows to come is not the end: what was put in is still owed its result."""

    async def main() -> list[int]:
        made = Fixture()
        made.put(0)
        made.channel.end()
        reading = asyncio.create_task(made.channel.receive())
        assert await blocked(reading)
        made.settle()
        return numbers(await reading)

    assert [0] == run_virtually(main)


def test_an_error_of_the_source_comes_after_the_last_result() -> None:
    """Rows read before the source broke get their results first."""

    async def main() -> list[int]:
        made = Fixture()
        made.put(0)
        made.channel.end(OSError("disk"))
        made.settle()
        first = numbers(await made.channel.receive())
        with pytest.raises(OSError, match="disk"):
            await made.channel.receive()
        return first

    assert [0] == run_virtually(main)


def test_a_halt_waits_only_for_what_is_on_its_way() -> None:
    """Rows that were not sent are not waited for; the error comes when the last answer is in and read."""

    async def main() -> list[int]:
        made = Fixture(room=9)
        for number in range(3):
            made.put(number)
        made.channel.on_their_way = 1
        made.channel.halt(Interrupted("enough"))
        reading = asyncio.create_task(made.channel.receive())
        assert await blocked(reading)
        made.channel.on_their_way = 0
        made.settle(1)
        first = numbers(await reading)
        with pytest.raises(Interrupted, match="enough"):
            await made.channel.receive()
        return first

    assert [1] == run_virtually(main)


@pytest.mark.parametrize(
    "second",
    [
        lambda channel: channel.halt(Interrupted("later")),
        lambda channel: channel.end(OSError("later")),
        lambda channel: channel.end(),
    ],
)
def test_the_first_error_is_the_one_that_is_raised(second: Callable[[Channel], None]) -> None:
    """What stopped the stream first is its cause, whatever follows from it."""

    async def main() -> None:
        channel = Fixture().channel
        channel.halt(ServiceUnavailable("gone"))
        second(channel)
        with pytest.raises(ServiceUnavailable, match="gone"):
            await channel.receive()

    run_virtually(main)


def test_shown() -> None:
    """What a stream waits for can be read in a debugger."""
    made = Fixture()
    made.put(0)
    made.channel.on_their_way = 1
    made.channel.pass_on(made.result())
    assert "<Channel: 2 held, 0 ready, 0 parked, 1 on their way, 1 unread>" == repr(made.channel)
