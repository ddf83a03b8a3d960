"""Uploads on several hosts that share a limit through Redis: they keep it and use it, whoever or whatever dies."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_bulk.config import Rate
from moe_bulk.errors import ConfigError
from moe_bulk.pacing.guard import GRACE
from moe_bulk.pacing.remote import Ask, GiveUp, Knock, Mode, RemoteWindow, Rest
from moe_bulk.pacing.reservations import Granted, OtherWindow, Report, Run, Terms
from tests.builders import ACCEPTED, BROKEN, SILENCE, TIMEOUT, Exchange, throttled
from tests.effort import examples
from tests.remote_worlds import FakeServer, Life, World, history

if TYPE_CHECKING:
    from collections.abc import Callable

    from moe_bulk.outcome import Outcome

RATE = Rate(120, 6.0)
USUAL = Rate(1000, 6.0)
"""10,000 a minute."""

WHOLE = 6.006 + 1 + TIMEOUT + GRACE + 1
"""Seconds after which all has passed that may have been sent before: window, lateness, timeout, grace, horizon."""

PLACE = "redis://pace:6379/0"
KEEPER = f"{PLACE}, which keeps the pace,"


# --- together ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, 10])
def test_the_limit_is_kept_and_used_by_any_number(count: int) -> None:
    """No window holds more, 95 % is used, each has its share, and ten requests are worth more than one question."""
    found = history([Life(seconds=18.0, rate=USUAL) for _ in range(count)])
    assert found.busiest(USUAL.per) <= USUAL.limit
    assert 0.95 <= found.used(USUAL, 7, 17) <= 0.985
    assert found.calls_a_request < 0.1
    shares = [len(service.exchanges) * count / len(found.exchanges) for service in found.services]
    assert 0.85 < min(shares) <= max(shares) < 1.15
    assert [] == found.notes


def test_the_usual_limit_is_used_to_98_percent() -> None:
    """A window of a minute and answers after 300 ms, three processes, counted from the second minute on."""
    rate = Rate(1200, 60.0)
    found = history([Life(seconds=100.0, rate=rate) for _ in range(3)], plan=lambda _: (0.3, ACCEPTED))
    assert found.busiest(rate.per) <= rate.limit
    assert found.used(rate, 62, 98) >= 0.965


@pytest.mark.parametrize(
    ("rate", "seconds", "least"),
    [(Rate(1, 60.0), 600.0, 0.9), (Rate(10, 60.0), 300.0, 0.93), (Rate(200, 0.5), 5.0, 0.6)],
)
def test_small_and_odd_limits(rate: Rate, seconds: float, least: float) -> None:
    """One request a minute, and windows shorter than the bins' usual width."""
    found = history([Life(seconds=seconds, rate=rate) for _ in range(2)], plan=lambda _: (0.02, ACCEPTED))
    assert found.busiest(rate.per) <= rate.limit
    assert found.used(rate, seconds / 4, seconds * 0.95) >= least


def test_a_server_far_away_is_asked_earlier() -> None:
    """Answers that take 400 ms: slots are asked for so much earlier that hardly any of the limit is lost."""
    found = history([Life(seconds=25.0) for _ in range(2)], server=lambda: FakeServer(0.4))
    assert found.busiest(RATE.per) <= RATE.limit
    assert found.used(RATE, 10, 24) >= 0.93


def test_a_server_too_far_away_is_said_to_be() -> None:
    """Answers that take 2 s do not tell the moment of a slot: people hear of it, and the run ends in time."""
    found = history([Life(seconds=90.0, patience=60.0)], server=lambda: FakeServer(2.0))
    assert [] == found.exchanges
    assert any("nothing is sent until it answers within a second" in note for note in found.notes)
    assert [f"{KEEPER} answered too late for 1 min (--outage-limit): name one that is nearer"] == [
        str(error) for error in found.stopped
    ]


def test_a_start_adds_no_burst() -> None:
    """The first second holds about a second's share."""
    found = history([Life(seconds=6.0) for _ in range(3)])
    first = min(sent for sent, _, _ in found.exchanges)
    assert sum(sent < first + 1 for sent, _, _ in found.exchanges) < 1.5 * RATE.per_second


def test_who_needs_little_leaves_the_rest_to_the_others() -> None:
    """One that may have a single request on its way takes what it can use; the others have all of what is left."""
    lives = [Life(seconds=30.0, in_flight=1), Life(seconds=30.0), Life(seconds=30.0)]
    found = history(lives, plan=lambda each: (0.5 if each.sent < 1000 else 0.05, ACCEPTED))
    assert found.busiest(RATE.per) <= RATE.limit
    assert found.used(RATE, 10, 29) >= 0.93
    assert 40 < len(found.services[0].exchanges) < 70


def test_the_stricter_limit_holds_while_it_is_at_work() -> None:
    """A process with a lower limit slows all, who are told; when it has left they speed up again."""
    slow = Rate(60, 6.0)
    found = history([Life(seconds=50.0), Life(begin=8.0, seconds=20.0, rate=slow)])
    assert 0.9 <= found.used(slow, 16, 27) <= 1.0
    assert found.used(RATE, 42, 49) > 0.93
    assert ["what the other uploads of this workspace keep to leaves 60/6s for all of them"] == found.notes


def test_windows_of_two_lengths_cannot_be_shared() -> None:
    """Whoever comes second is refused, before it has sent anything, with what to do."""
    with pytest.raises(ConfigError, match=r"keeps 120 in 6 s for another upload .*: give the same --rate everywhere"):
        history([Life(seconds=5.0), Life(begin=2.0, seconds=1.0, rate=Rate(100, 1.0))])


def test_a_window_of_another_length_may_come_afterwards() -> None:
    """When nobody is at work any more the next one may count otherwise, once the windows before are over."""
    other = Rate(100, 1.0)
    found = history([Life(seconds=10.0), Life(begin=50.0, seconds=5.0, rate=other)])
    assert found.busiest(other.per) <= other.limit
    assert max(sent for sent, _, _ in found.exchanges) >= 50


def test_429s_slow_all_down() -> None:
    """A process that is told to slow down uses fewer of the slots that it gets; they are not lost to the others."""

    def plan(exchange: Exchange) -> tuple[float, Outcome]:
        return 0.05, throttled(3.0) if 10 < exchange.sent % 1000 < 12 else ACCEPTED

    found = history([Life(seconds=40.0) for _ in range(2)], plan=plan)
    assert found.busiest(RATE.per) <= RATE.limit
    assert found.used(RATE, 11.2, 13) < 0.2
    assert found.used(RATE, 15, 18) < 0.9


# --- kills and cuts ---------------------------------------------------------------------------------------------------


def test_a_kill_costs_only_the_slots_in_hand() -> None:
    """Two of three are killed: the third has all the rest at once, and their slots when these have passed."""
    found = history([Life(seconds=65.0), Life(seconds=10.0, killed=True), Life(seconds=12.0, killed=True)])
    assert found.busiest(RATE.per) <= RATE.limit
    assert found.used(RATE, 20, 50) >= 0.8
    assert found.used(RATE, 57, 64) >= 0.95


def test_kills_and_restarts_in_a_loop_add_nothing() -> None:
    """Each life knows what those before it sent."""
    lives = [Life(begin=each * 1.7, seconds=1.6, rate=Rate(60, 6.0), killed=True) for each in range(30)]
    found = history(lives)
    assert found.busiest(6.0) <= 60
    assert len(found.exchanges) > 100


def test_a_new_server_sends_nothing_for_a_whole_window() -> None:
    """It cannot know whether it is new or lost everything; people are told how long that takes."""
    found = history([Life(seconds=60.0)], known=False)
    assert WHOLE - 2 < min(sent for sent, _, _ in found.exchanges) < WHOLE + 1
    why = "knows nothing of this workspace (it is new there, or was emptied): nothing is sent for 43 s"
    assert [f"{KEEPER} {why}"] == found.notes


def test_the_server_is_away_for_a_while() -> None:
    """Nothing is sent but what was granted before; when it is back with all that it knew, it goes on at once."""

    async def script(world: World) -> None:
        await asyncio.sleep(15)
        world.server.kill()
        await asyncio.sleep(20)
        world.server.up = True

    found = history([Life(seconds=60.0) for _ in range(3)], script)
    assert found.busiest(RATE.per) <= RATE.limit
    assert not any(17.1 < sent < 35 for sent, _, _ in found.exchanges)
    assert found.used(RATE, 42, 59) >= 0.95
    assert {f"{KEEPER} is away (connection refused): nothing is sent; it is tried again for up to 30 min"} == {
        note for note in found.notes if "away" in note
    }
    assert 3 == sum("is back after" in note for note in found.notes)


@pytest.mark.parametrize("way", ["empty", "snapshot", "replica"])
def test_a_server_that_lost_its_memory_adds_nothing_to_any_window(way: str) -> None:
    """Restarted empty, with an older state, or replaced by a replica that lags: a whole window of silence."""

    async def script(world: World) -> None:
        await asyncio.sleep(8)
        world.server.save()
        await asyncio.sleep(7)
        if way == "replica":
            world.server.fail_over()
        else:
            world.server.kill()
            await asyncio.sleep(0.2)
            world.server.restart(empty=way == "empty")

    found = history([Life(seconds=80.0) for _ in range(3)], script)
    assert found.busiest(RATE.per) <= RATE.limit
    assert not any(17.2 < sent < 15 + WHOLE - 2 for sent, _, _ in found.exchanges)
    assert found.used(RATE, 66, 79) >= 0.95
    assert [True] * 3 == [any("nothing is sent for" in note for note in window.notes) for window in found.windows]


@pytest.mark.parametrize("seconds", [-3600.0, -5.0, 5.0, 3600.0])
def test_a_clock_that_is_set_adds_nothing_to_any_window(seconds: float) -> None:
    """Forwards the processes notice it, backwards the server does: again a whole window of silence."""

    async def script(world: World) -> None:
        await asyncio.sleep(15)
        world.server.ahead += seconds

    found = history([Life(seconds=70.0) for _ in range(2)], script)
    assert found.busiest(RATE.per) <= RATE.limit
    assert found.used(RATE, 64, 69) >= 0.9
    assert any("nothing is sent for" in note for note in found.notes)


def test_a_server_that_stays_away_ends_the_run() -> None:
    """After --outage-limit it stops, to be taken up again; the message says so."""

    async def script(world: World) -> None:
        await asyncio.sleep(5)
        world.server.kill()

    found = history([Life(seconds=100.0, patience=60.0)], script)
    assert [f"{KEEPER} was away for 1 min (--outage-limit): when it is back, run the same command again"] == [
        str(error) for error in found.stopped
    ]
    assert max(sent for sent, _, _ in found.exchanges) < 7.1


def test_a_server_that_was_never_there_is_waited_for() -> None:
    """People hear of it at once; when it comes, it begins as any new one."""

    async def script(world: World) -> None:
        world.server.kill()
        await asyncio.sleep(10)
        world.server.restart()

    found = history([Life(seconds=70.0)], script)
    assert found.notes[0] == (
        f"{PLACE}, which keeps the pace, cannot be reached (connection refused): nothing is sent; "
        "it is tried again for up to 30 min"
    )
    assert 10 + WHOLE - 2 < min(sent for sent, _, _ in found.exchanges) < 10 + WHOLE + 6


def test_answers_that_get_lost_cost_little() -> None:
    """A question may have been understood although no answer came: nothing counts twice, nothing too little."""

    def deaf() -> FakeServer:
        server = FakeServer(seed=5)
        server.deaf = 0.05
        return server

    found = history([Life(seconds=40.0) for _ in range(2)], server=deaf)
    assert found.busiest(RATE.per) <= RATE.limit
    assert found.used(RATE, 10, 39) >= 0.6


# --- alone ------------------------------------------------------------------------------------------------------------

SHARED = Rate(45, 3.0)
SILENCE_SECONDS = 10 + 3.003 + 1 + TIMEOUT + GRACE + 1


def test_a_share_while_the_server_is_away() -> None:
    """After a silence each sends its part; when the server is back they are together again; no window holds more."""

    async def script(world: World) -> None:
        await asyncio.sleep(10)
        world.server.kill()
        await asyncio.sleep(90)
        world.server.up = True

    found = history([Life(seconds=140.0, rate=SHARED, share=3) for _ in range(3)], script)
    assert found.busiest(SHARED.per) <= SHARED.limit
    assert not any(12.5 < sent < 10 + SILENCE_SECONDS - 4 for sent, _, _ in found.exchanges)
    assert 0.9 <= found.used(SHARED, 68, 98) <= 0.985
    assert found.used(SHARED, 118, 139) >= 0.94
    assert any("still away: this upload sends 15/3s by itself until it is back" in note for note in found.notes)


def test_the_part_of_one_that_is_cut_off_is_kept_free() -> None:
    """One of three cannot reach the server: the others make room for its part, and have it back afterwards."""

    async def script(world: World) -> None:
        await asyncio.sleep(10)
        world.server.cut_off.add("member-1")
        await asyncio.sleep(90)
        world.server.cut_off.clear()

    found = history([Life(seconds=150.0, rate=SHARED, share=3) for _ in range(3)], script)
    assert found.busiest(SHARED.per) <= SHARED.limit
    assert len([1 for sent in found.services[0].sent if 70 < sent < 95]) > 100
    assert found.used(SHARED, 70, 98) >= 0.92
    assert found.used(SHARED, 125, 149) >= 0.94


def test_parts_are_kept_free_after_the_memory_was_lost() -> None:
    """One is cut off and sends its part when the server comes back empty, which therefore keeps parts free for all."""

    async def script(world: World) -> None:
        await asyncio.sleep(10)
        world.server.kill()
        world.server.cut_off.add("member-1")
        await asyncio.sleep(75)
        world.server.restart()

    lives = [Life(seconds=160.0, rate=SHARED, share=3, patience=200.0) for _ in range(3)]
    found = history(lives, script)
    assert found.busiest(SHARED.per) <= SHARED.limit
    assert found.used(SHARED, 140, 159) >= 0.9


def test_who_takes_the_place_of_a_killed_one_takes_its_part() -> None:
    """Both of two are killed, and two new ones begin: after some seconds they have the whole limit."""
    lives = [Life(seconds=8.0, rate=SHARED, share=2, killed=True) for _ in range(2)]
    lives += [Life(begin=9.0, seconds=70.0, rate=SHARED, share=2) for _ in range(2)]
    found = history(lives)
    assert found.busiest(SHARED.per) <= SHARED.limit
    assert found.used(SHARED, 60, 78) >= 0.93


def test_nobody_takes_the_place_of_one_that_is_cut_off() -> None:
    """One of two goes alone; the other is killed, and a new one begins at once: that changes nothing for the first."""

    async def script(world: World) -> None:
        await asyncio.sleep(10)
        world.server.cut_off.add("member-1")

    lives = [Life(seconds=120.0, rate=SHARED, share=2), Life(seconds=80.0, rate=SHARED, share=2, killed=True)]
    lives += [Life(begin=80.1, seconds=40.0, rate=SHARED, share=2)]
    found = history(lives, script)
    assert found.busiest(SHARED.per) <= SHARED.limit
    assert len([1 for sent in found.services[0].sent if 80 < sent < 119]) > 250


def test_a_limit_that_cannot_be_divided() -> None:
    """Two requests have no three parts."""
    with pytest.raises(ConfigError, match="has no 3 shares"):
        a_window(share=3, rate=Rate(2, 6.0))


def test_who_stood_still_while_alone_sends_nothing_more() -> None:
    """Its part is no longer kept free when it wakes up after its time."""
    window = joined(a_window(share=2))
    window.failed("connection refused", 1.0)
    assert isinstance(window.step(100.0), Knock)
    assert Mode.ALONE is window.mode
    assert window.take(100.1) is not None
    assert window.take(1900.0) is None
    assert isinstance(window.step(1900.1), GiveUp)


def test_who_goes_alone_gives_up_in_the_end() -> None:
    """The server keeps its part free for as long and no longer."""

    async def script(world: World) -> None:
        await asyncio.sleep(10)
        world.server.kill()

    found = history([Life(seconds=200.0, rate=SHARED, share=2, patience=100.0)], script)
    assert 1 == len(found.stopped)
    assert 100 < max(sent for sent, _, _ in found.exchanges) < 112


# --- anything ---------------------------------------------------------------------------------------------------------

EVENTS = st.lists(
    st.tuples(
        st.floats(0.1, 30),
        st.sampled_from(("kill", "empty", "back", "save", "snapshot", "replica", "cut", "heal", "deaf", "set")),
        st.floats(-20, 20),
    ),
    max_size=6,
)
LIVES = st.lists(
    st.builds(
        Life,
        begin=st.floats(0, 40),
        seconds=st.floats(0.5, 60),
        rate=st.sampled_from([Rate(12, 2.0), Rate(30, 2.0), Rate(60, 2.0)]),
        killed=st.booleans(),
        share=st.sampled_from([0, 4]),
        patience=st.sampled_from([60.0, 90.0, 1800.0]),
    ),
    min_size=1,
    max_size=4,
)


def befall(server: FakeServer, what: str, amount: float) -> None:
    """Let something happen to the server."""
    happenings: dict[str, Callable[[], None]] = {
        "kill": server.kill,
        "back": lambda: setattr(server, "up", True),
        "empty": server.restart,
        "snapshot": lambda: server.restart(empty=False),
        "save": server.save,
        "replica": server.fail_over,
        "cut": lambda: server.cut_off.add(f"member-{1 + int(abs(amount)) % 3}"),
        "heal": server.cut_off.clear,
        "deaf": lambda: setattr(server, "deaf", abs(amount) / 40),
        "set": lambda: setattr(server, "ahead", server.ahead + amount),
    }
    happenings[what]()


def fate(seed: int, latency: float, faults: float) -> Callable[[Exchange], tuple[float, Outcome]]:
    """Give the function that decides what becomes of a request."""
    chance = random.Random(seed)

    def plan(_: Exchange) -> tuple[float, Outcome]:
        if chance.random() < faults:
            return chance.choice([(1e6, SILENCE), (latency, SILENCE), (latency, BROKEN), (latency, throttled(1.0))])
        return chance.uniform(0.5, 1.5) * latency, ACCEPTED

    return plan


@settings(max_examples=examples(40))
@given(
    lives=LIVES,
    events=EVENTS,
    latency=st.sampled_from([0.01, 0.3, 3.0]),
    server=st.builds(
        lambda latency, fast: lambda: FakeServer(latency, fast=fast),
        st.sampled_from([0.0005, 0.02, 0.4]),
        st.sampled_from([-0.0005, 0.0, 0.0005]),
    ),
    faults=st.sampled_from([0.0, 0.1]),
    known=st.booleans(),
)
def test_no_window_ever_holds_more(
    lives: list[Life],
    events: list[tuple[float, str, float]],
    latency: float,
    server: Callable[[], FakeServer],
    faults: float,
    known: bool,  # noqa: FBT001
) -> None:
    """Whoever comes and dies when, whatever becomes of the server, its memory, its clock and the ways to it."""

    async def script(world: World) -> None:
        for after, what, amount in events:
            await asyncio.sleep(after)
            befall(world.server, what, amount)

    found = history(lives, script, plan=fate(1, latency, faults), server=server, known=known)
    assert found.busiest(2.0) <= max(life.rate.limit for life in lives)


# --- single steps -----------------------------------------------------------------------------------------------------


def a_window(share: int = 0, patience: float = 1800.0, rate: Rate = RATE) -> RemoteWindow:
    """Give one that has not been heard yet, at second 0."""
    return RemoteWindow(Terms("m", rate, TIMEOUT, share, patience), PLACE, patience, 0.0, lambda: 0.5)


def granted(now: float, *runs: Run, **more: Any) -> Granted:
    """Give an answer."""
    said = {"begun": "", "width": 0.012, "limit": 1000, "peers": 1, "blocked": 0.0, "retry": now, "tail": 36.0}
    return Granted(now, more.pop("generation", "g"), more.pop("turn", 1), runs=runs, **{**said, **more})


def joined(window: RemoteWindow, *runs: Run, now: float = 0.0) -> RemoteWindow:
    """Let the server answer at once; its clock stands at 1,000 when ours is at 0."""
    assert isinstance(window.step(now), Knock)
    window.is_there()
    assert isinstance(window.step(now), Ask)
    window.told(granted(1000.0 + now, *runs), now, now)
    return window


def test_slots_are_used_when_they_are_due() -> None:
    """Not before the server's clock has surely reached them, and no more when they are late."""
    window = joined(a_window(), Run(1000.5, 1000.6, 2, 90_000))
    assert window.take(0.4) is None
    assert 0.5 == pytest.approx(window.free_at(0.4), abs=0.01)
    assert window.take(0.51) is not None
    assert window.take(0.55) is None
    assert window.take(1.7) is None
    step = window.step(1.75)
    assert isinstance(step, Ask)
    assert 1 == step.call.reports[0].unused
    assert {90_000: -1} == dict(step.call.reports[0].bins)


def test_an_answer_is_reported_once() -> None:
    """The bin of the latest possible end loses a request, that of the true end gains it; the same again until heard."""
    window = joined(a_window(), Run(1000.0, 1000.0, 1, 90_000))
    slot = window.take(0.1)
    assert slot is not None
    window.answered(slot, 0.2)
    with pytest.raises(RuntimeError):
        window.answered(slot, 0.2)
    first = window.step(0.3)
    assert isinstance(first, Ask)
    assert {90_000: -1, 83351: 1} == dict(first.call.reports[0].bins)
    window.failed("connection reset by peer", 0.4)
    assert isinstance(window.step(1.0), Knock)
    window.is_there()
    again = window.step(1.0)
    assert isinstance(again, Ask)
    assert first.call.reports == again.call.reports
    window.told(granted(1001.0), 1.0, 1.0)
    later = window.step(5.0)
    assert isinstance(later, Ask)
    assert () == later.call.reports


def test_refusals_at_the_beginning_are_final_and_later_ones_are_not() -> None:
    """A wrong password is a setting to correct; one that was changed meanwhile may come right again."""
    window = a_window()
    window.refused("the user name or the password is wrong, or missing", 0.0)
    step = window.step(0.1)
    assert isinstance(step, GiveUp)
    assert f"{PLACE}, which keeps the pace, refuses: the user name or the password is wrong, or missing" == str(
        step.error
    )
    later = joined(a_window())
    later.refused("the user name or the password is wrong, or missing", 1.0)
    assert Mode.AWAY is later.mode
    assert isinstance(later.step(1.01), Rest)


def test_another_window_met_later_ends_the_run() -> None:
    """It was silent for so long that somebody else began with windows of another length."""
    window = joined(a_window())
    window.told(OtherWindow(1.0, 100), 20.0, 20.0)
    assert isinstance(window.step(20.0), GiveUp)


def test_it_waits_while_nothing_can_be_sent() -> None:
    """Before the server was heard, while it is away, and while it does not know what was sent."""
    window = a_window()
    assert window.waits(0.0)
    joined(window)
    assert not window.waits(0.1)
    window.told(granted(1001.0, generation="h", begun="restarted", blocked=1050.0), 1.0, 1.0)
    assert window.waits(2.0)
    assert not window.waits(51.0)
    window.failed("connection refused", 52.0)
    assert window.waits(52.0)


def test_a_slow_answer_is_forgotten_with_the_next_one() -> None:
    """One answer that took its time is waited for, and is no reason to say anything."""
    window = joined(a_window())
    window.told(granted(1000.1, generation="h"), 0.5, 3.0)
    assert window.waits(3.1)
    window.told(granted(1001.1, generation="h"), 3.4, 3.5)
    assert not window.waits(3.6)
    assert not any("takes" in note for note in window.notes)


def test_the_last_word_gives_everything_back() -> None:
    """Slots that were not used are reported so; who was never heard, or has lost the server, says nothing."""
    window = joined(a_window(), Run(1000.5, 1000.6, 2, 90_000))
    call = window.leave(0.2)
    assert call is not None
    assert (-1, (Report(1, {90_000: -2}, 2),)) == (call.want, call.reports)
    assert a_window().leave(0.0) is None


def test_a_server_that_grants_too_much_is_not_believed() -> None:
    """Whatever it grants, a process sends no more than its own limit in a window."""
    window = joined(a_window(rate=Rate(5, 60.0)), Run(1000.0, 1000.1, 50, 90_000))
    slots = [slot for _ in range(50) if (slot := window.take(0.2)) is not None]
    assert 5 == len(slots)
    window.answered(slots[0], 0.3)
    assert 60.36 == pytest.approx(window.free_at(0.4), abs=0.01)


def test_an_earlier_session_counts_in_the_own_limit() -> None:
    """What the session before sent is known to the server, and to the process itself."""
    window = a_window(rate=Rate(2, 60.0))
    window.remember(-10.0, -9.0, answered=True)
    joined(window, Run(1000.0, 1000.0, 2, 90_000))
    assert window.take(0.1) is not None
    assert window.take(0.1) is None


def test_a_share_needs_patience() -> None:
    """Who gives up before the silence is over could never go alone: that is a setting to correct."""
    with pytest.raises(ConfigError, match=r"--pace-fallback .* --outage-limit"):
        a_window(share=3, patience=30.0)


def test_pauses_between_tries_grow() -> None:
    """From a quarter of a second to five, three quarters of it at the drawn luck."""
    window, pauses, now = joined(a_window()), [], 0.0
    for _ in range(8):
        window.failed("connection refused", now)
        step = window.step(now)
        assert isinstance(step, Rest)
        pauses.append(round(step.until - now, 4))
        now = step.until
        assert isinstance(window.step(now), Knock)
    assert [0.1875, 0.375, 0.75, 1.5, 3.0, 3.75, 3.75, 3.75] == pauses
