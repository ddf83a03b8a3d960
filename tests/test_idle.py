"""Connections between two requests: used again in turn, closed when nobody needs them, never aborted for a stranger."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from moe_bulk.connections import IDLE_SECONDS, UnderWay
from moe_bulk.dialogue import Dialogue
from moe_bulk.idle import Idle
from tests.virtual import run_virtually
from tests.wires import Wire, comes_in, dialogue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from moe_bulk.connections import Carrier


def dialogues(*wires: Wire) -> list[Dialogue]:
    """Take them over for no attempt yet."""
    return [dialogue(wire) for wire in wires]


def idle_for(work: Callable[[Idle, UnderWay], Awaitable[object]]) -> None:
    """Run it with an empty pool and one attempt; afterwards no timer is left."""

    async def main() -> None:
        idle = Idle()
        await work(idle, UnderWay(1e9))
        idle.close()
        assert idle._timer is None or idle._timer.cancelled()

    run_virtually(main)


def name_of(found: Dialogue | Carrier | None) -> str | None:
    """Tell which one it is."""
    carrier = found.carrier if isinstance(found, Dialogue) else found
    return carrier.transport.name if carrier is not None and isinstance(carrier.transport, Wire) else None


def test_whichever_waits_longest_is_the_next() -> None:
    """So that none of many is idle for long while requests are sent; where there is none, nobody waits for one."""

    async def work(idle: Idle, attempt: UnderWay) -> None:
        for each in dialogues(Wire(name="a"), Wire(name="b")):
            idle.give(each)
        assert ["a", "b", None] == [name_of(idle.take(attempt)) for _ in range(3)]
        assert ["a", "b"] == [name_of(carrier) for carrier in attempt.carriers]

    idle_for(work)


def test_what_cannot_carry_anything_is_closed_on_the_way() -> None:
    """It ended, it spoke before it was asked, or the connector closed it."""

    async def work(idle: Idle, attempt: UnderWay) -> None:
        ended, spoke, gone, good = wires = [Wire(name=name) for name in ("ended", "spoke", "gone", "good")]
        for each in dialogues(*wires):
            idle.give(each)
        ended.protocol.connection_lost(None)
        comes_in(spoke.protocol, b"HTTP/1.1 408 Request Timeout\r\n")
        gone.close()
        assert "good" == name_of(idle.take(attempt))
        assert [["closed"]] * 3 + [[]] == [[how for how, _ in wire.ends] for wire in wires]
        assert [good.name] == [name_of(carrier) for carrier in attempt.carriers]

    idle_for(work)


def test_nothing_waits_for_longer_than_servers_do() -> None:
    """Each is closed when its own time is over, though nobody asks for one; what is used meanwhile begins anew."""

    async def work(idle: Idle, attempt: UnderWay) -> None:
        wires = [Wire(name=name) for name in "abc"]
        begun = asyncio.get_running_loop().time()
        for each in dialogues(*wires):
            idle.give(each)
            await asyncio.sleep(1)
        again = idle.take(attempt)
        assert again is not None
        idle.give(again)
        await asyncio.sleep(100)
        waited = [[(how, round(at - begun)) for how, at in wire.ends] for wire in wires]
        assert [[("closed", IDLE_SECONDS + late)] for late in (3, 1, 2)] == waited
        assert idle.take(attempt) is None

    idle_for(work)


def test_a_process_that_stood_still_uses_nothing_old() -> None:
    """Its timers come late: the server may have closed the connection, and have said so, by then."""

    async def work(idle: Idle, attempt: UnderWay) -> None:
        (each,) = dialogues(wire := Wire(name="a"))
        idle.give(each)
        idle._waiting[0] = each, asyncio.get_running_loop().time() - IDLE_SECONDS - 1
        assert idle.take(attempt) is None
        assert ["closed"] == [how for how, _ in wire.ends]

    idle_for(work)


def test_at_the_end_the_connector_gets_all_back() -> None:
    """It closes them in the orderly way."""
    wires = [Wire(name="a"), Wire(name="b")]

    async def work(idle: Idle, attempt: UnderWay) -> None:
        for each in dialogues(*wires):
            idle.give(each)
        idle.close()
        assert idle.take(attempt) is None
        await asyncio.sleep(100)

    idle_for(work)
    assert [(True, [])] * 2 == [(wire.released, wire.ends) for wire in wires]


def test_what_comes_back_behind_the_end_goes_to_the_connector_too() -> None:
    """A client may be left while its last answers come in."""

    async def work(idle: Idle, attempt: UnderWay) -> None:
        (each,) = dialogues(wire := Wire(name="a"))
        idle.close()
        idle.give(each)
        assert (True, []) == (wire.released, wire.ends)

    idle_for(work)


def test_an_attempt_aborts_only_what_carries_it() -> None:
    """One that is told to end when its answer has just come does not take the next one's connection away."""

    async def work(idle: Idle, attempt: UnderWay) -> None:
        (each,) = dialogues(wire := Wire(name="a"))
        other = UnderWay(1e9)
        idle.give(each)
        idle.take(other)
        idle.give(each)
        other.abort()
        assert [] == wire.ends
        idle.take(attempt)
        other.abort()
        assert [] == wire.ends
        attempt.abort()
        assert ["aborted"] == [how for how, _ in wire.ends]

    idle_for(work)
