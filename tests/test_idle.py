"""Connections between two requests: used again in turn, closed when nobody needs them, never aborted for a stranger."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from moe_bulk.connections import IDLE_SECONDS, Carrier, Idle, UnderWay
from tests.virtual import run_virtually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Socket:
    """An open one."""

    def fileno(self) -> int:
        """Give its number."""
        return 3


class Wire:
    """A transport and a protocol in one, and aiohttp's connection around them, which notes what becomes of it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.transport: Wire | None = self
        self.protocol: Wire | None = self
        self.connected, self.should_close = True, False
        self.ends: list[tuple[str, float]] = []

    def get_extra_info(self, name: str) -> Any:
        """Give the socket; no certificate."""
        return Socket() if name == "socket" else None

    def is_connected(self) -> bool:
        """Tell whether the other side is still there."""
        return self.connected

    def is_closing(self) -> bool:
        """Tell whether it ends."""
        return bool(self.ends)

    def _end(self, how: str) -> None:
        self.ends.append((how, round(asyncio.get_running_loop().time(), 2)))
        self.transport = self.protocol = None

    def close(self) -> None:
        """End it."""
        self._end("closed")

    def release(self) -> None:
        """Give it back to the connector."""
        self._end("released")

    def abort(self) -> None:
        """End it at once."""
        self._end("aborted")


def carriers(*wires: Wire) -> list[Carrier]:
    """Give what carries no attempt yet."""
    return [Carrier(wire, None) for wire in wires]  # type: ignore[arg-type]  # all that is asked of one


def idle_for(work: Callable[[Idle, UnderWay], Awaitable[object]]) -> None:
    """Run it with an empty pool and one attempt; afterwards no timer is left."""

    async def main() -> None:
        idle = Idle()
        await work(idle, UnderWay(1e9))
        idle.close()
        assert idle._timer is None or idle._timer.cancelled()

    run_virtually(main)


def name_of(carrier: Carrier | None) -> str | None:
    """Tell which one it is."""
    return None if carrier is None else carrier.connection.name  # type: ignore[attr-defined]  # a Wire


def test_whichever_waits_longest_is_the_next() -> None:
    """So that none of many is idle for long while requests are sent; where there is none, nobody waits for one."""

    async def work(idle: Idle, attempt: UnderWay) -> None:
        for carrier in carriers(Wire("a"), Wire("b")):
            idle.give(carrier)
        assert ["a", "b", None] == [name_of(idle.take(attempt)) for _ in range(3)]
        assert ["a", "b"] == [name_of(carrier) for carrier in attempt.carriers]

    idle_for(work)


def test_what_cannot_carry_anything_is_closed_on_the_way() -> None:
    """It ended, it spoke before it was asked, the connector closed it, or it is too old though no timer came by."""

    async def work(idle: Idle, attempt: UnderWay) -> None:
        ended, spoke, gone, good = wires = [Wire(name) for name in ("ended", "spoke", "gone", "good")]
        for carrier in carriers(*wires):
            idle.give(carrier)
        ended.connected, spoke.should_close, gone.protocol = False, True, None
        assert "good" == name_of(idle.take(attempt))
        assert [["closed"]] * 3 + [[]] == [[how for how, _ in wire.ends] for wire in wires]
        assert [good.name] == [name_of(carrier) for carrier in attempt.carriers]

    idle_for(work)


def test_nothing_waits_for_longer_than_servers_do() -> None:
    """Each is closed when its own time is over, though nobody asks for one; what is used meanwhile begins anew."""

    async def work(idle: Idle, attempt: UnderWay) -> None:
        wires = [Wire(name) for name in "abc"]
        begun = asyncio.get_running_loop().time()
        for carrier in carriers(*wires):
            idle.give(carrier)
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
        (carrier,) = carriers(wire := Wire("a"))
        idle.give(carrier)
        idle._carriers[0] = carrier, asyncio.get_running_loop().time() - IDLE_SECONDS - 1
        assert idle.take(attempt) is None
        assert ["closed"] == [how for how, _ in wire.ends]

    idle_for(work)


def test_at_the_end_the_connector_gets_all_back() -> None:
    """It closes them in the orderly way."""
    wires = [Wire("a"), Wire("b")]

    async def work(idle: Idle, attempt: UnderWay) -> None:
        for carrier in carriers(*wires):
            idle.give(carrier)
        idle.close()
        assert idle.take(attempt) is None
        await asyncio.sleep(100)

    idle_for(work)
    assert [["released"]] * 2 == [[how for how, _ in wire.ends] for wire in wires]


def test_what_comes_back_behind_the_end_goes_to_the_connector_too() -> None:
    """A client may be left while its last answers come in."""

    async def work(idle: Idle, attempt: UnderWay) -> None:
        (carrier,) = carriers(wire := Wire("a"))
        idle.close()
        idle.give(carrier)
        assert ["released"] == [how for how, _ in wire.ends]

    idle_for(work)


def test_an_attempt_aborts_only_what_carries_it() -> None:
    """One that is told to end when its answer has just come does not take the next one's connection away."""

    async def work(idle: Idle, attempt: UnderWay) -> None:
        (carrier,) = carriers(wire := Wire("a"))
        other = UnderWay(1e9)
        idle.give(carrier)
        idle.take(other)
        idle.give(carrier)
        other.abort()
        assert [] == wire.ends
        idle.take(attempt)
        other.abort()
        assert [] == wire.ends
        attempt.abort()
        assert ["aborted"] == [how for how, _ in wire.ends]

    idle_for(work)
