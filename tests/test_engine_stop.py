"""How an engine ends: stops, halts, leaving, exceptions, cancellation, crashes, a machine that stood still."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import anyio
import pytest

from moe_bulk.channel import Channel
from moe_bulk.config import Rate, Retry
from moe_bulk.engine import DRAIN_SECONDS, Engine
from moe_bulk.errors import AccountRefused, CredentialsRejected, DestinationWrong, Interrupted, RunStopped
from moe_bulk.outcome import Status
from tests.builders import (
    ACCEPTED,
    BROKEN,
    DOOMED,
    MISDIRECTED,
    TIMEOUT,
    UNAUTHORIZED,
    Exchange,
    Machine,
    Service,
    collect,
    deliver,
    engine_on,
    feed,
    numbers,
    record,
    records,
    throttled,
)
from tests.virtual import run_virtually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from moe_bulk.outcome import Outcome, Result
    from moe_bulk.pacing import Slot
    from moe_bulk.record import Record


ONE_TRY = Retry(tries=1)
ONE_A_SECOND = Rate(60, 60.0)


def nothing_left_behind(service: Service) -> None:
    """Check that no request and no task but this one goes on."""
    assert 0 == service.on_their_way
    assert {asyncio.current_task()} == asyncio.all_tasks()


# --- stop ------------------------------------------------------------------------------------------------------------


def test_a_stop_takes_in_what_is_on_its_way_and_aborts_what_takes_too_long() -> None:
    """Nothing is sent any more; answers within 8 s count, the rest is aborted and stays unsettled; then the error."""

    async def main() -> tuple[list[int], int, list[float]]:
        machine = Machine()
        service = Service(machine.now, lambda exchange: (8.5 if exchange.number < 5 else 25.0, ACCEPTED))
        results: list[Result] = []
        async with engine_on(service, machine.clock, in_flight=10) as engine:
            delivering = asyncio.create_task(deliver(engine, records(50), results))
            await asyncio.sleep(1)
            engine.stop(Interrupted("enough"))
            engine.stop(Interrupted("a second one changes nothing"))
            with pytest.raises(Interrupted, match="enough"):
                await delivering
        nothing_left_behind(service)
        return numbers(results), len(service.exchanges), [exchange.over for exchange in service.exchanges]

    done, sent, over = run_virtually(main)
    assert ([0, 1, 2, 3, 4], 10) == (sorted(done), sent)
    assert [8.5] * 5 + [1 + DRAIN_SECONDS] * 5 == pytest.approx(sorted(over), abs=0.05)


def test_a_stop_from_outside_any_task() -> None:
    """A signal's handler of the event loop may stop it, too."""

    async def main() -> list[int]:
        machine = Machine()
        service = Service(machine.now, lambda exchange: (2.0, ACCEPTED))
        results: list[Result] = []
        async with engine_on(service, machine.clock, in_flight=3) as engine:
            asyncio.get_running_loop().call_later(1.0, engine.stop, Interrupted("a signal"))
            with pytest.raises(Interrupted, match="a signal"):
                await deliver(engine, records(50), results)
        return numbers(results)

    assert [0, 1, 2] == sorted(run_virtually(main))


def test_a_failure_after_a_stop_is_not_held_against_its_record() -> None:
    """What fails while the engine stops stays unsettled, even where it would have been its last try."""

    async def main() -> list[int]:
        machine = Machine()
        service = Service(machine.now, lambda exchange: (2.0, (ACCEPTED, BROKEN, DOOMED)[exchange.number % 3]))
        results: list[Result] = []
        engine = engine_on(service, machine.clock, retry=ONE_TRY)
        async with engine:
            delivering = asyncio.create_task(deliver(engine, records(6), results))
            await asyncio.sleep(1)
            engine.stop(Interrupted("enough"))
            with pytest.raises(Interrupted):
                await delivering
        return sorted(numbers(results))

    assert [0, 3] == run_virtually(main)


@pytest.mark.parametrize(
    ("answer", "error", "rejected"),
    [(UNAUTHORIZED, CredentialsRejected, 0), (MISDIRECTED, DestinationWrong, 0), (DOOMED, AccountRefused, 2)],
)
def test_answers_that_stop_the_run(answer: Outcome, error: type[RunStopped], rejected: int) -> None:
    """A refused key or wrong address at once, other doom after three records; what is on its way is no failure."""

    async def main() -> tuple[int, list[Status]]:
        machine = Machine()
        service = Service(machine.now, lambda exchange: (0.2, ACCEPTED if exchange.number < 10 else answer))
        results: list[Result] = []
        async with engine_on(service, machine.clock, in_flight=4) as engine:
            with pytest.raises(error):
                await deliver(engine, records(500), results)
        nothing_left_behind(service)
        return len(service.exchanges), [result.status for result in results]

    sent, statuses = run_virtually(main)
    assert sent <= 10 + 4 + 4 + rejected
    assert [Status.ACCEPTED] * 10 + [Status.REJECTED] * rejected == statuses


def test_nothing_is_taken_in_after_a_stop() -> None:
    """A stream opened after the stop raises its error at once."""

    async def main() -> None:
        machine = Machine()
        service = Service(machine.now)
        async with engine_on(service, machine.clock) as engine:
            engine.stop(Interrupted("enough"))
            with pytest.raises(Interrupted, match="enough"):
                await deliver(engine, records(5))
        nothing_left_behind(service)
        assert [] == service.exchanges

    run_virtually(main)


def test_a_stop_in_a_long_pause() -> None:
    """Nobody has to wait until the pause is over, nor for the next try of a record."""

    async def main() -> float:
        machine = Machine()
        service = Service(machine.now, lambda exchange: (0.1, throttled(600.0, remaining=0)))
        async with engine_on(service, machine.clock) as engine:
            delivering = asyncio.create_task(deliver(engine, records(500)))
            await asyncio.sleep(5)
            engine.stop(Interrupted("enough"))
            with pytest.raises(Interrupted):
                await delivering
        nothing_left_behind(service)
        return machine.now()

    assert run_virtually(main) < 6


# --- halting and leaving one of several ------------------------------------------------------------------------------


def test_halting_one_stream_leaves_the_others_alone() -> None:
    """Its own rows are sent no more; another stream's go on to their end."""

    async def main() -> tuple[list[int], list[int]]:
        machine = Machine()
        service = Service(machine.now)
        halted: list[Result] = []
        async with engine_on(service, machine.clock, in_flight=4) as engine:
            channel = engine.open()
            feeding = asyncio.create_task(feed(channel, records(500)))
            reading = asyncio.create_task(collect(channel, halted))
            other = asyncio.create_task(deliver(engine, [record(number) for number in range(1000, 1100)]))
            await asyncio.sleep(1)
            engine.halt(channel, Interrupted("this one"))
            with pytest.raises(Interrupted, match="this one"):
                await reading
            await feeding
            others = numbers(await other)
        nothing_left_behind(service)
        return numbers(halted), others

    halted, others = run_virtually(main)
    assert 0 < len(halted) < 20
    assert list(range(1000, 1100)) == sorted(others)


def test_a_halted_row_at_the_gate_is_not_sent() -> None:
    """A row that waits for permission when its stream is halted gives way to another stream's."""

    async def main() -> list[int]:
        machine = Machine()
        service = Service(machine.now)
        async with engine_on(service, machine.clock, rate=ONE_A_SECOND) as engine:
            channel = engine.open()
            await feed(channel, records(5))
            await asyncio.sleep(0.5)
            engine.halt(channel, Interrupted("this one"))
            await deliver(engine, [record(50)])
        return service.order

    assert [50] == run_virtually(main)


def test_what_takes_too_long_is_aborted_for_the_halted_stream_only() -> None:
    """Eight seconds after the halt its requests are aborted; the other stream's are waited for."""

    async def main() -> tuple[list[int], list[tuple[int, float]]]:
        machine = Machine()
        service = Service(machine.now, lambda exchange: (25.0, ACCEPTED))
        async with engine_on(service, machine.clock) as engine:
            channel = engine.open()
            await feed(channel, [record(0)])
            other = asyncio.create_task(deliver(engine, [record(1)]))
            await asyncio.sleep(1)
            engine.leave(channel)
            others = numbers(await other)
        return others, [(exchange.number, exchange.over) for exchange in service.exchanges]

    others, over = run_virtually(main)
    assert [1] == others
    assert {0: pytest.approx(9.0, abs=0.1), 1: pytest.approx(25.0, abs=0.1)} == dict(over)


def test_a_left_stream_s_device_keeps_its_order() -> None:
    """A later stream's row for the same device waits for the request that was on its way when the first was left."""

    async def main() -> list[tuple[float, float]]:
        machine = Machine()
        service = Service(machine.now, lambda exchange: (5.0, ACCEPTED))
        async with engine_on(service, machine.clock) as engine:
            channel = engine.open()
            await feed(channel, [record(number, push_id="token") for number in range(3)])
            await asyncio.sleep(1)
            engine.leave(channel)
            await deliver(engine, [record(9, push_id="token")])
        assert [0, 9] == service.order
        return [(exchange.sent, exchange.over) for exchange in service.exchanges]

    first, second = run_virtually(main)
    assert first[1] <= second[0]


def test_leaving_a_stream_disturbs_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of streams may come and go: the others are only woken where they may have waited for room."""

    async def main() -> bool:
        machine = Machine()
        woken: list[Channel] = []

        def wake(channel: Channel) -> None:
            woken.append(channel)

        monkeypatch.setattr(Channel, "wake", wake)
        async with engine_on(Service(machine.now), machine.clock) as engine:
            channels = [engine.open() for _ in range(3)]
            engine.leave(channels[0])
            alone = list(woken)
        return alone == channels[:1]

    assert run_virtually(main)


def test_leaving_after_the_engine_was_closed() -> None:
    """A stream that is left late, by a generator's finalizer for one, does no harm."""

    async def main() -> None:
        machine = Machine()
        service = Service(machine.now, lambda exchange: (1e6, ACCEPTED))
        engine = engine_on(service, machine.clock)
        async with engine:
            channel = engine.open()
            await feed(channel, records(3))
            await asyncio.sleep(1)
        engine.leave(channel)
        with pytest.raises(Interrupted):
            await collect(channel)
        nothing_left_behind(service)

    run_virtually(main)


# --- leaving the block -----------------------------------------------------------------------------------------------


def test_leaving_the_block_is_an_orderly_stop() -> None:
    """Answers on their way are taken in; whoever still reads a stream gets its results, then Interrupted."""

    async def main() -> tuple[list[int], float]:
        machine = Machine()
        service = Service(machine.now, lambda exchange: (3.0 if exchange.number < 2 else 1e6, ACCEPTED))
        results: list[Result] = []
        async with engine_on(service, machine.clock, in_flight=3) as engine:
            delivering = asyncio.create_task(deliver(engine, records(20), results))
            await asyncio.sleep(1)
        with pytest.raises(Interrupted, match="closed"):
            await delivering
        nothing_left_behind(service)
        return numbers(results), machine.now()

    assert ([0, 1], pytest.approx(1 + DRAIN_SECONDS, abs=0.1)) == run_virtually(main)


class Mine(Exception):
    """An exception of the caller's own."""


async def broken_off(leave: Callable[[], Awaitable[None]]) -> tuple[BaseException | None, float]:
    """Leave the block of an engine at work in some way; give what came out of it, and when."""
    machine = Machine()
    service = Service(machine.now, lambda exchange: (1e6, ACCEPTED))
    reading: asyncio.Task[list[Result]] | None = None
    caught: BaseException | None = None
    try:
        async with engine_on(service, machine.clock) as engine:
            reading = asyncio.create_task(deliver(engine, records(20)))
            await asyncio.sleep(1)
            await leave()
    except BaseException as error:  # noqa: BLE001  a cancellation is what is looked for
        caught = error
    assert reading is not None
    with pytest.raises(Interrupted):  # nobody is left waiting for results that will never come
        await reading
    nothing_left_behind(service)
    return caught, machine.now()


@pytest.mark.parametrize("raised", [Mine("mine"), ExceptionGroup("of mine", [Mine("mine")]), KeyboardInterrupt()])
def test_the_body_s_exception_leaves_as_itself(raised: BaseException) -> None:
    """At once, not in a group, with the cause that it was given."""
    cause = OSError("the cause")

    async def leave() -> None:
        raise raised from cause

    caught, at = run_virtually(broken_off, leave)
    assert raised is caught
    assert cause is raised.__cause__
    assert at < 1.1


def test_a_cancellation_of_the_body_leaves_as_itself() -> None:
    """A native one, as by `asyncio.timeout` or Ctrl-C, ends everything at once and is not swallowed."""

    async def leave() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel("from outside")
        try:
            await asyncio.sleep(60)
        finally:
            task.uncancel()

    caught, at = run_virtually(broken_off, leave)
    assert asyncio.CancelledError is type(caught)
    assert ("from outside",) == caught.args
    assert at < 1.1


@pytest.mark.parametrize("sort", ["asyncio", "anyio"])
def test_a_timeout_around_it(sort: str) -> None:
    """A deadline around the block ends it in time, of whichever library."""

    async def main() -> tuple[bool, float]:
        machine = Machine()
        service = Service(machine.now, lambda exchange: (1e6, ACCEPTED))

        async def work() -> None:
            async with engine_on(service, machine.clock) as engine:
                await deliver(engine, records(20))

        if sort == "anyio":
            with anyio.move_on_after(5) as scope:
                await work()
            late = scope.cancelled_caught
        else:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(5):
                    await work()
            late = True
        nothing_left_behind(service)
        return late, machine.now()

    assert (True, pytest.approx(5, abs=0.1)) == run_virtually(main)


def test_a_cancellation_while_it_takes_in_the_last_answers() -> None:
    """Who does not want to wait for the orderly stop can cancel it: everything ends at once, nothing is left."""

    async def main() -> float:
        machine = Machine()
        service = Service(machine.now, lambda exchange: (1e6, ACCEPTED))
        channels = []

        async def work() -> None:
            async with engine_on(service, machine.clock) as engine:
                channels.append(engine.open())
                await feed(channels[0], records(20))
                await asyncio.sleep(1)

        working = asyncio.create_task(work())
        await asyncio.sleep(3)
        working.cancel()
        with pytest.raises(asyncio.CancelledError):
            await working
        nothing_left_behind(service)
        with pytest.raises(Interrupted):
            await collect(channels[0])
        return machine.now()

    assert 3 == pytest.approx(run_virtually(main), abs=0.1)


# --- crashes ---------------------------------------------------------------------------------------------------------


def crashing(*which: int) -> Callable[[Exchange], tuple[float, Outcome]]:
    """Plan that the attempts of some rows raise, as a bug would."""

    def plan(exchange: Exchange) -> tuple[float, Outcome]:
        if exchange.number in which:
            raise Mine(f"a bug in row {exchange.number}")
        return 0.1, ACCEPTED

    return plan


@pytest.mark.parametrize("which", [(3,), (3, 4, 5)])
def test_a_bug_surfaces_as_itself(which: tuple[int, ...]) -> None:
    """An exception out of the attempt leaves the block as it is, whatever the body was waiting for."""

    async def main() -> None:
        machine = Machine()
        service = Service(machine.now, crashing(*which))
        with pytest.raises(Mine, match="a bug in row 3"):
            async with engine_on(service, machine.clock) as engine:
                await deliver(engine, records(20))
        nothing_left_behind(service)

    run_virtually(main)


def test_a_bug_while_it_takes_in_the_last_answers() -> None:
    """It is not lost when the body had already ended."""

    async def main() -> None:
        machine = Machine()

        async def attempt(record: Record) -> Outcome:
            await asyncio.sleep(3)
            raise Mine("late")

        async def work() -> None:
            engine = engine_on(Service(machine.now), machine.clock)
            engine._attempt = attempt
            async with engine:
                await feed(engine.open(), records(1))
                await asyncio.sleep(1)

        with pytest.raises(Mine, match="late"):
            await work()
        assert {asyncio.current_task()} == asyncio.all_tasks()

    run_virtually(main)


# --- beside ----------------------------------------------------------------------------------------------------------


def test_work_beside_ends_with_its_block() -> None:
    """It goes on while the block is open and is cancelled, and waited for, when it is left."""

    async def main() -> list[str]:
        machine, told = Machine(), []

        async def work() -> None:
            try:
                told.append("at work")
                await asyncio.sleep(1e6)
            finally:
                told.append("over")

        async with engine_on(Service(machine.now), machine.clock) as engine:
            async with engine.beside(work):
                await asyncio.sleep(1)
                told.append("leaving")
            told.append("left")
        return told

    assert ["at work", "leaving", "over", "left"] == run_virtually(main)


def test_work_beside_that_breaks_surfaces_as_itself() -> None:
    """A bug there ends the engine, and leaves as itself."""

    async def main() -> None:
        machine = Machine()

        async def work() -> None:
            raise Mine("beside")

        with pytest.raises(Mine, match="beside"):
            async with engine_on(Service(machine.now), machine.clock) as engine, engine.beside(work):
                await asyncio.sleep(60)
        assert {asyncio.current_task()} == asyncio.all_tasks()

    run_virtually(main)


# --- a machine that stood still --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seconds", "aborted"), [(3.0, False), (120.0, True)])
def test_what_was_on_its_way_while_the_machine_slept_is_aborted(seconds: float, aborted: bool) -> None:  # noqa: FBT001
    """Its answers can no longer be dated: it is aborted, its slot held on, and the record tried again."""

    async def main() -> tuple[Engine, list[Exchange], list[Result]]:
        machine = Machine()
        service = Service(machine.now, lambda exchange: (20.0 if exchange.sent < 10 else 0.1, ACCEPTED))
        async with engine_on(service, machine.clock) as engine:
            delivering = asyncio.create_task(deliver(engine, [record(0)]))
            await asyncio.sleep(5)
            machine.sleep(seconds)
            return engine, service.exchanges, await delivering

    engine, exchanges, (result,) = run_virtually(main)
    assert Status.ACCEPTED is result.status
    if not aborted:
        assert [None] == [attempt.error for attempt in result.attempts]
        return
    assert ["aborted", None] == [attempt.error for attempt in result.attempts]
    assert exchanges[0].over <= 5 + seconds + 1.1
    assert exchanges[0].outcome is None
    guard = engine._pace.guard
    counted_until = max(exchanges[0].sent + TIMEOUT, exchanges[0].over) + 60
    guard.free_at(counted_until)
    assert 2 == guard.held


def test_what_was_aborted_for_a_stream_that_was_left_is_no_sign_of_an_outage() -> None:
    """Thirty requests that hang and are aborted with their stream tell the others nothing about the service."""

    async def main() -> tuple[bool, list[int]]:
        machine = Machine()
        service = Service(machine.now, lambda exchange: (25.0 if exchange.number < 30 else 0.1, ACCEPTED))
        async with engine_on(service, machine.clock) as engine:
            channel = engine.open()
            await feed(channel, records(30))
            await asyncio.sleep(1)
            engine.leave(channel)
            await asyncio.sleep(DRAIN_SECONDS + 1)
            assert 0 == engine.in_flight
            return engine.outage, numbers(await deliver(engine, [record(50)]))

    assert (False, [50]) == run_virtually(main)


def test_a_slot_that_was_taken_before_the_machine_stood_still_is_not_used() -> None:
    """A request that is sent now would arrive when its slot may have passed: another one is taken."""

    async def main() -> tuple[Engine, list[Exchange]]:
        machine = Machine()
        service = Service(machine.now)
        async with engine_on(service, machine.clock) as engine:
            guard, stops = engine._pace.guard, [120.0]
            take = guard.take

            def stopped(now: float, cost: float = 1.0) -> Slot | None:
                slot = take(now, cost)
                if stops:
                    machine.sleep(stops.pop())
                return slot

            guard.take = stopped  # type: ignore[method-assign]
            await deliver(engine, [record(0)])
            return engine, service.exchanges

    engine, (exchange,) = run_virtually(main)
    assert exchange.sent >= 120
    guard = engine._pace.guard
    guard.free_at(exchange.over)
    assert 2 == guard.held
