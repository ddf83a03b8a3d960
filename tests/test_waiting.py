"""What a run waits for: each reason is told while it is true."""

from __future__ import annotations

import asyncio
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from moe_bulk.config import FailureLimit, Network, Rate, Retry
from moe_bulk.errors import Interrupted
from moe_bulk.lanes import Lanes
from moe_bulk.uploader import Uploader
from moe_bulk.users import UserLimits, Users
from moe_bulk.waiting import Standstill, Waits, waits_for
from tests.fake_service import CREDENTIALS, accept, answer, device, devices
from tests.runs import FAST, deliver
from tests.virtual import run_virtually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping
    from pathlib import Path

    from moe_bulk.intake import Rows
    from moe_bulk.view import RunView

SLOW = Rate(600, per=60.0)
LONG_ENOUGH = 200.0
"""Seconds of a run that are looked at."""


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where the run goes."""
    return tmp_path / "x.run"


def seen_in(
    rows: Rows, out: Path, decide: Callable[[dict[str, Any]], httpx.Response] = accept, **more: Any
) -> list[tuple[float, Waits | None]]:
    """When the run waited for what: looked at ten times a second."""
    seen: list[tuple[float, Waits | None]] = []

    def begin(view: RunView) -> None:
        loop = asyncio.get_running_loop()

        def look() -> None:
            if view.summary is None and loop.time() < LONG_ENOUGH:
                seen.append((loop.time(), view.waits_for))
                loop.call_later(0.1, look)

        loop.call_later(0.05, look)

    deliver(rows, out, decide, watch=begin, **more)
    return seen


def between(start: float, end: float, seen: list[tuple[float, Waits | None]]) -> set[Waits | None]:
    """All that it waited for in a span of seconds."""
    return {each for at, each in seen if start <= at < end}


def unavailable(until: float, again: Callable[[], httpx.Response]) -> Callable[[dict[str, Any]], httpx.Response]:
    """A service that answers otherwise until some second."""
    return lambda _: again() if asyncio.get_running_loop().time() < until else answer(200)


def test_the_pace(out: Path) -> None:
    """At the limit nothing but the limit is in the way; at the end the last answers are."""
    seen = seen_in(devices(100), out, rate=SLOW)
    assert {Waits.PACE} == between(0.0, 9.5, seen)
    assert Waits.ANSWERS == seen[-1][1]


def test_a_full_window(out: Path) -> None:
    """Where the window is full, it is the limit, too."""
    seen = seen_in(devices(24), out, rate=Rate(10, per=20.0), latency=5.0)
    assert {Waits.PACE} == between(0.0, 40.0, seen)


def test_latency(out: Path) -> None:
    """Where all that may be on its way is, the answers are waited for."""
    seen = seen_in(devices(40), out, latency=2.0, network=Network(in_flight=4))
    assert {Waits.LATENCY} == between(0.5, 19.5, seen)


def test_a_pause(out: Path) -> None:
    """429s make everybody wait, and it is told until the pause is over."""
    again = partial(answer, 429, "Rate Limits Exceeded", **{"Retry-After": "30"})
    seen = seen_in(devices(300), out, unavailable(5.0, again), rate=SLOW)
    assert {Waits.PAUSE} == between(6.0, 29.0, seen)
    assert Waits.PACE in between(35.0, 60.0, seen)


@pytest.mark.parametrize(("gate", "redis", "expected"), [("slot", True, Waits.REDIS), ("slot", False, Waits.PACE)])
def test_redis(gate: str, redis: bool, expected: Waits) -> None:  # noqa: FBT001
    """A slot that does not come because of the Redis server is not the limit's affair."""
    engine: Any = SimpleNamespace(outage=False, in_flight=0, most_in_flight=9, gate=gate)
    assert expected is waits_for(
        engine, Standstill(stopping=False, paused=False, redis=redis, read_out=False, settled=False)
    )


def test_an_outage(out: Path) -> None:
    """While the service is gone it is looked for, and all else waits for that."""
    seen = seen_in(devices(300), out, unavailable(60.0, partial(answer, 503, "Maintenance")), rate=SLOW)
    assert {Waits.OUTAGE} == between(10.0, 59.0, seen)
    assert Waits.OUTAGE not in between(100.0, 1000.0, seen)


def test_the_order(out: Path) -> None:
    """Rows of one device go one after the other."""
    seen = seen_in([{**device(1), "model": str(number)} for number in range(20)], out)
    assert {Waits.ORDER} == between(0.5, 5.5, seen)


def test_the_order_while_reading_waits_for_it(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many rows are parked as may be, although there are more to read."""
    monkeypatch.setattr("moe_bulk.agenda.Lanes", partial(Lanes, max_parked=5))
    seen = seen_in([{**device(1), "model": str(number)} for number in range(20)], out)
    assert {Waits.ORDER} == between(0.5, 5.5, seen)


def test_users(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who got what MoEngage allows has to wait."""
    limits = UserLimits((Rate(10, 60.0),), percent=100)
    monkeypatch.setattr("moe_bulk.uploader.Users", partial(Users, limits=limits))
    seen = seen_in([{**device(number), "customer_id": "hot"} for number in range(20)], out)
    assert {Waits.USER} == between(2.0, 59.0, seen)


def test_retries(out: Path) -> None:
    """When all other rows are settled, those that failed wait for their turn."""
    failing = lambda said: answer(500 if said["customer_id"] == "user-3" else 200)  # noqa: E731
    seen = seen_in(devices(10), out, failing, retry=Retry(tries=4, first_wait=20.0, longest_wait=60.0))
    assert {Waits.RETRY, Waits.ANSWERS, Waits.END} >= between(1.0, 1000.0, seen)
    assert [each for _, each in seen].count(Waits.RETRY) > len(seen) / 2


def test_retries_that_take_up_all_room(out: Path) -> None:
    """A stream takes in no more rows than it has room for, and those that wait to be tried again take up theirs."""

    def failing(said: dict[str, Any]) -> httpx.Response:
        # half of them: with more, chance may have it that for a while none but those is answered, which is an outage
        fails = int(said["customer_id"].removeprefix("user-")) % 2 and asyncio.get_running_loop().time() < 10.0
        return answer(500 if fails else 200)

    retry = Retry(first_wait=100.0, longest_wait=100.0)
    seen = seen_in(devices(2_000), out, failing, retry=retry, network=Network(in_flight=16), latency=0.01)
    assert Waits.RETRY in between(2.0, 9.0, seen)


def test_rows(out: Path) -> None:
    """A slow source is what is waited for."""

    async def slowly() -> AsyncIterator[Mapping[str, object]]:
        for number in range(5):
            yield device(number)
            await asyncio.sleep(5.0)

    seen = seen_in(slowly(), out)
    assert {Waits.ROWS} == between(1.0, 20.0, seen)


def test_too_many_failures(out: Path) -> None:
    """A run that stops takes in what is on its way."""
    refuse = lambda _: answer(400, "Invalid")  # noqa: E731
    seen = seen_in(devices(50), out, refuse, rate=SLOW, max_failures=FailureLimit(count=2), latency=3.0)
    assert Waits.STOP == seen[-1][1]


def test_an_interruption(out: Path) -> None:
    """So does one that was asked to stop."""
    seen: list[Waits | None] = []

    def begin(view: RunView) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(2.0, view._engine.stop, Interrupted("stop"))
        loop.call_later(2.5, lambda: seen.append(view.waits_for))

    deliver(devices(50), out, rate=SLOW, latency=3.0, watch=begin)
    assert [Waits.STOP] == seen


def test_the_end(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once every row is settled, the dead letters are put in order."""
    seen: list[Waits | None] = []
    views: list[RunView] = []

    async def look(*_: object) -> bool:
        await asyncio.sleep(1.0)
        seen.append(views[0].waits_for)
        return True

    monkeypatch.setattr("moe_bulk.run.Run.complete", look)
    deliver(devices(3), out, watch=views.append)
    assert [Waits.END] == seen
    assert views[0].waits_for is None


def test_nothing_but_this_machine(out: Path) -> None:
    """In the moment in which a request leaves nothing is waited for: what comes next is up to the machine."""
    seen: list[Waits | None] = []
    views: list[RunView] = []

    def handle(_: httpx.Request) -> httpx.Response:
        seen.append(views[0].waits_for)  # called where the request is sent, with no turn of the loop between
        return answer(200)

    async def send() -> None:
        async with Uploader(CREDENTIALS, rate=FAST, transport=httpx.MockTransport(handle)) as uploader:
            await uploader.run(devices(300), out=out, watch=views.append)

    run_virtually(send)
    assert [None] * 300 == seen
