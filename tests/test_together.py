"""What comes at nearly the same time is done in one go: the collecting, and what becomes of acceptances."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import httpx
import orjson
import pytest

from moe_bulk.clock import Clock
from moe_bulk.config import Rate
from moe_bulk.errors import AccountRefused, Interrupted
from moe_bulk.outcome import Result, Status
from moe_bulk.together import Together
from moe_bulk.uploader import Uploader
from tests.builders import (
    ACCEPTED,
    DOOMED,
    REJECTED,
    Machine,
    Service,
    collect,
    deliver,
    engine_on,
    feed,
    record,
    records,
)
from tests.fake_service import CREDENTIALS, device
from tests.runs import EPOCH
from tests.virtual import run_virtually

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from moe_bulk.engine import Engine
    from moe_bulk.outcome import Attempt, Outcome
    from moe_bulk.record import Record
    from moe_bulk.run import Run
    from moe_bulk.view import RunView


ACCEPTANCE = b'{"status":"success"}'


@pytest.fixture
def anyio_backend() -> str:
    """The engine is asyncio's."""
    return "asyncio"


async def _turn() -> None:
    """Let the loop do what is due in this turn and the next."""
    for _ in range(2):
        await asyncio.sleep(0)


# --- the collecting --------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_what_came_in_one_turn_is_done_at_once_and_in_its_order() -> None:
    """Behind what was due as the first of it came, and before what is due since."""
    done: list[object] = []
    together, loop = Together[str](done.append), asyncio.get_running_loop()
    for item in "ab":
        loop.call_soon(together.put, item)
        loop.call_soon(done.append, f"{item} was put in")
    await _turn()
    assert ["a was put in", "b was put in", ["a", "b"]] == done
    together.put("c")
    loop.call_soon(done.append, "due since")
    await _turn()
    assert [["c"], "due since"] == done[3:]


@pytest.mark.anyio
async def test_what_is_done_now_is_not_done_again() -> None:
    """And without anything there is nothing to do; what comes behind is done in its own time."""
    done: list[list[str]] = []
    together = Together[str](done.append)
    together.do_now()
    together.put("a")
    assert (1, []) == (len(together), done)
    together.do_now()
    together.do_now()
    together.put("b")
    assert [["a"]] == done
    await _turn()
    assert [["a"], ["b"]] == done
    assert 0 == len(together)


@pytest.mark.anyio
async def test_what_comes_amid_the_work_is_done_behind_it() -> None:
    """Nothing is forgotten, and nothing done twice."""
    done: list[list[str]] = []

    def work(items: list[str]) -> None:
        done.append(items)
        if items == ["a"]:
            together.put("b")

    together = Together(work)
    together.put("a")
    await _turn()
    await _turn()
    assert [["a"], ["b"]] == done


# --- the engine ------------------------------------------------------------------------------------------------------


class Gathered:
    """A service that answers some requests in one turn of the loop, in the order of their sending."""

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        self._outcomes = outcomes
        self.sent: list[float] = []
        self._all_there = asyncio.Event()

    async def attempt(self, _: Record) -> Outcome:
        """Make one attempt; those behind the last outcome are accepted at once."""
        number = len(self.sent)
        self.sent.append(asyncio.get_running_loop().time())
        if number + 1 == len(self._outcomes):
            asyncio.get_running_loop().call_later(1.0, self._all_there.set)
        if number < len(self._outcomes):
            await self._all_there.wait()
            return self._outcomes[number]
        return ACCEPTED


def told_of(outcomes: Sequence[Outcome], rows: int) -> tuple[list[Status], list[float], BaseException | None]:
    """Deliver rows; the last words in their order, when requests left, and what stopped it."""

    async def main() -> tuple[list[Status], list[float], BaseException | None]:
        service, results, error = Gathered(outcomes), list[Result](), None
        try:
            async with engine_on(service, Machine().clock, in_flight=len(outcomes)) as engine:
                await deliver(engine, records(rows), results)
        except AccountRefused as stopped:
            error = stopped
        return [result.status for result in results], service.sent, error

    told: tuple[list[Status], list[float], BaseException | None] = run_virtually(main)
    return told


def test_an_acceptance_between_refusals_counts_before_those_behind_it() -> None:
    """Three refusals for a reason outside the records stop a run only where no record was accepted between them."""
    statuses, _, error = told_of([DOOMED, DOOMED, ACCEPTED, DOOMED, REJECTED, ACCEPTED], 6)
    doomed, accepted = Status.REJECTED, Status.ACCEPTED
    assert ([doomed, doomed, accepted, doomed, doomed, accepted], None) == (statuses, error)


def test_acceptances_before_a_stop_are_taken_in() -> None:
    """What came before the answer that stops the run is settled, in the order of its coming."""
    statuses, _, error = told_of([ACCEPTED, ACCEPTED, DOOMED, DOOMED, DOOMED], 5)
    assert [Status.ACCEPTED] * 2 + [Status.REJECTED] * 2 == statuses
    assert isinstance(error, AccountRefused)


def test_an_acceptance_that_tells_of_no_allowance_left_pauses_at_once() -> None:
    """No request leaves between it and the moment that it names, not even those of the answers beside it."""
    used_up = replace(ACCEPTED, remaining=0, reset_after=30.0)
    statuses, sent, _ = told_of([used_up, ACCEPTED, ACCEPTED, ACCEPTED], 8)
    answered = sent[3] + 1.0
    assert [Status.ACCEPTED] * 8 == statuses
    assert not [at for at in sent[4:] if at < answered + 30.0]


def test_an_acceptance_that_came_before_a_stop_has_its_result() -> None:
    """Although whoever stops the engine, and whoever reads the results, come before it was taken in."""

    async def main() -> tuple[list[int], int]:
        found: list[Result] = []

        def stop_and_look() -> None:
            on_hand.append(len(engine._accepted))
            engine.stop(Interrupted("enough"))
            try:
                channel.receive().send(None)
            except StopIteration as read:
                found.extend(read.value)

        async def attempt(_: Record) -> Outcome:
            asyncio.get_running_loop().call_soon(stop_and_look)
            return ACCEPTED

        on_hand: list[int] = []
        engine = engine_on(Service(asyncio.get_running_loop().time), Machine().clock)
        engine._attempt = attempt
        async with engine:
            channel = engine.open()
            await feed(channel, [record(7)])
            with pytest.raises(Interrupted):
                await collect(channel)
        return [result.position.line for result in found], on_hand[0]

    assert ([7], 1) == run_virtually(main)


@pytest.mark.parametrize("turns", range(1, 5))
def test_a_checkpoint_counts_the_answers_that_have_come(tmp_path: Path, turns: int) -> None:
    """In whatever turn of the loop it is made: the next session takes what came before it for counted."""
    answers = 30

    async def main() -> int:
        loop, waiting = asyncio.get_running_loop(), list[asyncio.Future[None]]()
        runs: list[Run] = []
        all_sent = asyncio.Event()

        async def answer(_: httpx.Request) -> httpx.Response:
            answered = loop.create_future()
            waiting.append(answered)
            if len(waiting) > answers:
                all_sent.set()
            await answered
            return httpx.Response(200, content=ACCEPTANCE)

        def watch(view: RunView) -> None:
            runs.append(view._run)

        async with Uploader(
            CREDENTIALS, transport=httpx.MockTransport(answer), clock=Clock(loop.time, EPOCH), rate=Rate(600_000)
        ) as uploader:
            rows = [device(number) for number in range(answers + 1)]
            running = asyncio.create_task(uploader.run(rows, out=tmp_path / "devices.run", watch=watch))
            await all_sent.wait()
            for each in waiting[:answers]:
                each.set_result(None)
            for _ in range(turns):
                await asyncio.sleep(0)
            runs[0].save()
            counted = sum(orjson.loads((tmp_path / "devices.run" / "checkpoint.json").read_bytes())["tally"]["latency"])
            running.cancel()
            await asyncio.wait([running])
        return int(counted)

    assert answers == run_virtually(main)


def test_a_bug_among_what_is_done_together_surfaces_as_itself() -> None:
    """It ends the engine: there is no task of its own that could."""

    class Mine(Exception):
        """Ours."""

    class Broken:
        """A watcher with a bug."""

        def sent(self, at: float, *, again: bool) -> None:
            """Take it in."""

        def answered(self, *attempts: Attempt) -> None:
            """Break."""
            raise Mine("a bug")

    async def work(engine: Engine) -> None:
        async with engine:
            channel = engine.open(Broken())
            await feed(channel, records(3))
            await collect(channel)

    async def main() -> None:
        engine = engine_on(Service(asyncio.get_running_loop().time), Machine().clock)
        with pytest.raises(Mine, match="a bug"):
            await work(engine)
        assert isinstance(engine.bug, Mine)
        assert {asyncio.current_task()} == asyncio.all_tasks()

    run_virtually(main)
