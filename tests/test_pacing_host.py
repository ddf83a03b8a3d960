"""One window for several processes: they keep the limit and use it together, whoever comes or dies."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import random
import stat
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_bulk.config import Rate, Retry
from moe_bulk.engine import Engine
from moe_bulk.pacing import Pace, Slot
from moe_bulk.pacing import host as host_module
from moe_bulk.pacing.book import BINS, SIZE, Book
from moe_bulk.pacing.guard import CLOCK_MARGIN, GRACE
from moe_bulk.pacing.host import HostWindow, open_window
from moe_bulk.pacing.seats import SEATS, STALE, Seat, free_seat, pid_namespace, read_seats, write_seat
from moe_bulk.pacing.windowfile import KEPT_SECONDS, SUFFIX, WindowFile, window_path
from moe_bulk.retry import Policy
from moe_bulk.users import Users
from tests.builders import (
    ACCEPTED,
    BROKEN,
    SILENCE,
    TIMEOUT,
    Exchange,
    Machine,
    Service,
    busiest,
    busiest_possible,
    collect,
    feed,
    records,
)
from tests.effort import examples
from tests.virtual import run_virtually

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from moe_bulk.outcome import Outcome

START = 10_000.0
"""Long after the machine's start."""

WHOLE = 60 * (1 + CLOCK_MARGIN) + TIMEOUT + GRACE
"""Seconds after which all that may have been sent has passed."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the shared file is."""
    return tmp_path / "state" / f"host_443_WS_boot{SUFFIX}"


@pytest.fixture
def opened(path: Path) -> Iterator[Callable[..., HostWindow]]:
    """Give a function that opens the window as one more process; all are closed at the end."""
    windows: list[HostWindow] = []

    def one(rate: Rate | None = None, now: float = START, timeout: float = TIMEOUT) -> HostWindow:
        windows.append(HostWindow(path, rate or Rate(3, 60.0), timeout, now))
        return windows[-1]

    yield one
    for window in windows:
        window.close(START + 1e6)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let turns come at once: it is the window that matters."""
    monkeypatch.setattr(Book, "turn", lambda _, now, __: now)


def sent(window: HostWindow, now: float, count: int = 100) -> list[Slot]:
    """Send as often as the window allows at this moment, up to `count` times."""
    slots: list[Slot] = []
    while len(slots) < count and (slot := window.take(now)) is not None:
        slots.append(slot)
    return slots


# --- several engines on one virtual loop -----------------------------------------------------------------------------


class Together:
    """Processes of one machine that share a window: each an engine of its own, all on one virtual loop."""

    def __init__(self, path: Path, plan: Callable[[Exchange], tuple[float, Outcome]]) -> None:
        self.machine = Machine()
        self.services: list[Service] = []
        self._path = path
        self._plan = plan

    async def upload(self, rate: Rate, seconds: float, *, killed: bool = False) -> None:
        """Upload for so long; `killed`, nothing is told to the others at the end."""
        now = self.machine.now
        service = Service(now, self._plan)
        self.services.append(service)
        window = HostWindow(self._path, rate, TIMEOUT, now())
        engine = Engine(
            service.attempt, Pace(rate, TIMEOUT, window), Policy(Retry()), Users(TIMEOUT), self.machine.clock, 512
        )
        if killed:
            window.close = lambda now: None  # type: ignore[method-assign]
        async with engine:
            channel = engine.open()
            rows = records(int(rate.per_second * (seconds + 10)) + 1)
            reading = [asyncio.create_task(feed(channel, rows)), asyncio.create_task(_read(channel))]
            await asyncio.sleep(seconds)
            if killed:
                window._try = lambda now, work: None  # type: ignore[method-assign]
            for each in reading:
                each.cancel()
            engine.leave(channel)
        window.close(now())

    @property
    def exchanges(self) -> list[Exchange]:
        """All requests of all processes."""
        return [exchange for service in self.services for exchange in service.exchanges]

    def busiest(self, per: float) -> tuple[int, int]:
        """The busiest window by sendings, and by any moments at which they can have been received."""
        spans = [(each.sent, each.over) for each in self.exchanges]
        return busiest([start for start, _ in spans], per), busiest_possible(spans, per)

    def used(self, rate: Rate) -> float:
        """The share of the limit that was used from the end of the first window on."""
        times = sorted(each.sent for each in self.exchanges)
        start = times[0] + rate.per
        return sum(at >= start for at in times) / ((times[-1] - start) * rate.per_second)


async def _read(channel: Any) -> None:
    await collect(channel)


def virtually(
    path: Path, main: Callable[[Together], Coroutine[Any, Any, None]], latency: float, **faults: float
) -> Together:
    """Run processes long after the machine's start; faults are shares of requests."""
    chance = random.Random(1)

    def plan(_: Exchange) -> tuple[float, Outcome]:
        lot = chance.random()
        if lot < faults.get("hang", 0):
            return 1e6, SILENCE
        return chance.uniform(0.5, 1.5) * latency, BROKEN if lot < faults.get("broken", 0) else ACCEPTED

    async def begin() -> Together:
        together = Together(path, plan)
        await asyncio.sleep(START)
        await main(together)
        return together

    found: Together = run_virtually(begin)
    return found


@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_the_limit_is_kept_and_used_by_any_number(path: Path, count: int) -> None:
    """One alone uses 98.5 % of it, several together 97 %, no window holds more, and each has its share."""
    rate = Rate(1000, 20.0)

    async def main(together: Together) -> None:
        await asyncio.gather(*(together.upload(rate, 60.0) for _ in range(count)))

    found = virtually(path, main, 0.1)
    assert max(found.busiest(rate.per)) <= rate.limit
    assert found.used(rate) >= (0.985 if count == 1 else 0.97)
    shares = [len(service.exchanges) * count / len(found.exchanges) for service in found.services]
    assert min(shares) > 0.85
    assert max(shares) < 1.15


def test_who_leaves_hands_its_share_over_within_a_second(path: Path) -> None:
    """Two go on at the full pace when the third leaves, or comes."""
    rate = Rate(600, 6.0)

    async def main(together: Together) -> None:
        await asyncio.gather(*(together.upload(rate, seconds) for seconds in (40.0, 40.0, 20.0)))

    found = virtually(path, main, 0.05)
    times = [each.sent - START for each in found.exchanges]
    for second in range(8, 38):
        assert 80 < sum(second <= at < second + 1 for at in times) <= 125


@settings(max_examples=examples(25))
@given(
    lives=st.lists(
        st.tuples(st.floats(0, 30), st.floats(0.1, 20), st.sampled_from([10, 25, 40]), st.booleans()),
        min_size=1,
        max_size=6,
    ),
    latency=st.sampled_from([0.01, 0.3, 3.0]),
    hang=st.sampled_from([0.0, 0.05]),
    broken=st.sampled_from([0.0, 0.3]),
)
def test_no_window_ever_holds_more(
    tmp_path_factory: pytest.TempPathFactory,
    lives: list[tuple[float, float, int, bool]],
    latency: float,
    hang: float,
    broken: float,
) -> None:
    """Whoever comes when, with which limit, and is killed or not: the limit holds, and the lowest of those at work."""
    path = tmp_path_factory.mktemp("state") / f"x{SUFFIX}"
    per = 6.0

    async def main(together: Together) -> None:
        async def live(begin: float, seconds: float, limit: int, killed: bool) -> None:  # noqa: FBT001
            await asyncio.sleep(begin)
            await together.upload(Rate(limit, per), seconds, killed=killed)

        await asyncio.gather(*(live(*each) for each in lives))

    found = virtually(path, main, latency, hang=hang, broken=broken)
    assert max(found.busiest(per)) <= max(limit for _, _, limit, _ in lives)
    for limit in {limit for _, _, limit, _ in lives}:
        strict = [
            (each.sent, each.over)
            for each in found.exchanges
            if any(
                START + begin + per + 1 <= each.sent <= START + begin + seconds
                for begin, seconds, other, _ in lives
                if other == limit
            )
        ]
        assert busiest([start for start, _ in strict], per) <= limit


def test_kills_and_restarts_in_a_loop_add_nothing(path: Path) -> None:
    """Each life knows what those before it sent, whether or not it was answered."""
    rate = Rate(60, 6.0)

    async def main(together: Together) -> None:
        for life in range(40):
            await together.upload(rate, 0.1 + life % 7 / 3, killed=True)

    found = virtually(path, main, 0.5)
    assert len(found.exchanges) > 100
    assert max(found.busiest(rate.per)) <= rate.limit


# --- the window itself -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("at_once")
def test_slots_of_one_are_held_for_all(opened: Callable[..., HostWindow]) -> None:
    """What one process sent, answered or not, another finds in the window."""
    first, second = opened(), opened()
    slots = sent(first, START + 60, 2) + sent(second, START + 90)
    assert 3 == len(slots)
    first.answered(slots[0], START + 91)
    assert [] == sent(first, START + 151) == sent(second, START + 151)
    assert 1 == len(sent(second, START + 151.1))


@pytest.mark.usefixtures("at_once")
def test_a_request_given_up_counts_longer(opened: Callable[..., HostWindow]) -> None:
    """Without an answer it is held from its timeout on."""
    one = opened(Rate(1, 60.0))
    (slot,) = sent(one, START + 60)
    one.given_up(slot, START + 61)
    assert one.take(START + 60 + WHOLE - 0.1) is None
    assert one.take(START + 60 + WHOLE + 0.1) is not None


def test_who_was_slower_takes_its_pace_along(opened: Callable[..., HostWindow]) -> None:
    """Turns that were given by the pace of one who left do not keep the others waiting."""
    others = [opened(Rate(1000, 6.0)) for _ in range(3)]
    slow = opened(Rate(6, 60.0))
    for second in range(5):
        for each in (slow, *others):
            each.take(START + second)
    slow.close(START + 100)
    for each in others:
        each.tick(START + 6)
    assert all(each.take(START + 6.1) for each in others)


def test_a_slot_is_closed_once(opened: Callable[..., HostWindow]) -> None:
    """Freeing a slot twice would break the promise, so it is refused."""
    one = opened()
    (slot,) = sent(one, START + 60, 1)
    one.answered(slot, START + 61)
    with pytest.raises(RuntimeError, match="closed before"):
        one.given_up(slot, START + 62)


def test_below_full_pace_turns_cost_more(opened: Callable[..., HostWindow]) -> None:
    """Who was told to slow down takes more turns for a request."""
    one = opened(Rate(600, 60.0))
    times = []
    now = START + 60
    for _ in range(7):
        while one.take(now, cost=2.0) is None:
            now = one.free_at(now) or now
        times.append(now)
    assert [0.2] * 4 == [pytest.approx(later - at, abs=0.01) for at, later in pairwise(times[2:])]


@pytest.mark.usefixtures("at_once")
def test_the_lowest_limit_of_those_at_work_holds(opened: Callable[..., HostWindow]) -> None:
    """A process with more patience is held to another's limit, until that one leaves."""
    high, low = opened(Rate(5, 60.0)), opened(Rate(2, 60.0))
    for second in range(100):
        low.tick(START + second)
        assert [0, 2][second == 20] == len(sent(high, START + second) if second >= 20 else [])
    low.close(START + 100)
    assert 3 == len(sent(high, START + 100.5))
    assert ["another upload of this workspace keeps to 2/min"] == [note.partition(":")[0] for note in high.notes]
    assert [] == low.notes


@pytest.mark.usefixtures("at_once")
def test_windows_of_different_lengths_hold_together(opened: Callable[..., HostWindow]) -> None:
    """Three in six seconds and four in a minute: both hold for both."""
    short, long = opened(Rate(3, 6.0)), opened(Rate(4, 60.0))
    slots = sent(short, START)
    assert 3 == len(slots)
    for slot in slots:
        short.answered(slot, START)
    assert [] == sent(long, START + 6)
    assert 1 == len(sent(long, START + 6.1))
    long.tick(START + 50)
    assert [] == sent(short, START + 50)
    assert 3 == len(sent(short, START + 60.2))


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("seen", [0.0, -STALE - 1])
def test_the_limit_of_a_dead_process_does_not_hold(opened: Callable[..., HostWindow], path: Path, seen: float) -> None:
    """A process that is gone, or was not seen for long, restrains nobody; its requests still count."""
    one = opened(Rate(5, 60.0))
    with subprocess.Popen(["/bin/sleep", "0"]) as process:
        process.wait()
    file, _ = WindowFile.open(path, lambda _: None)
    pid = process.pid if not seen else os.getpid()
    write_seat(file, 9, Seat(77, pid, pid_namespace(), Rate(1, 60.0), TIMEOUT, START + 60 + seen))
    assert 5 == len(sent(one, START + 60))
    assert {1} == {len(read_seats(file))}
    file.close()


@pytest.mark.usefixtures("at_once")
def test_a_living_process_of_another_container_holds(opened: Callable[..., HostWindow], path: Path) -> None:
    """Its process id means nothing here: it counts as long as it is seen."""
    one = opened(Rate(5, 60.0))
    file, _ = WindowFile.open(path, lambda _: None)
    write_seat(file, 9, Seat(77, 2**22 + 1, pid_namespace() + 1, Rate(1, 60.0), TIMEOUT, START + 60))
    assert 1 == len(sent(one, START + 60))
    file.close()


@pytest.mark.usefixtures("at_once")
def test_after_a_reboot_a_whole_window_passes(path: Path) -> None:
    """What was sent before the machine's start is not known: nothing is sent before boot + window + timeout + 5 s."""
    window = HostWindow(path, Rate(3, 60.0), TIMEOUT, 20.0)
    assert ["this machine started 20 s ago"] == [note.partition(",")[0] for note in window.notes]
    assert window.take(WHOLE - 0.1) is None
    assert window.take(WHOLE) is not None
    window.close(START)


@pytest.mark.usefixtures("at_once")
def test_results_tell_only_a_new_file(opened: Callable[..., HostWindow]) -> None:
    """What a resumed run remembers is in the file already, unless that has just been made."""
    first = opened()
    first.remember(START - 3, START - 2, answered=True)
    first.remember(START - 3, START - 2, answered=False)
    assert 1 == len(sent(first, START))
    second = opened(now=START + 61)
    second.remember(START + 58, START + 59, answered=True)
    assert 1 == len(sent(second, START + 61, 1))


@pytest.mark.usefixtures("at_once")
def test_somebody_else_is_writing(opened: Callable[..., HostWindow], path: Path) -> None:
    """Whoever finds the file locked looks again soon; what was over meanwhile is written down then."""
    one, two = opened(Rate(1, 60.0)), opened(Rate(1, 60.0))
    (slot,) = sent(one, START + 60)
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        one.answered(slot, START + 61)
        assert one.take(START + 62) is None
        assert (one.free_at(START + 62) or 0) < START + 62.01
    assert [] == sent(two, START + 121)
    assert one.take(START + 121) is None  # now it has told
    assert 1 == len(sent(two, START + 121.2))


def test_the_longest_timeout_of_those_at_work_counts(opened: Callable[..., HostWindow], path: Path) -> None:
    """The ring is long enough for all their windows and timeouts, whoever came first."""
    opened(Rate(100, 1.0), timeout=300.0)
    one = opened(Rate(10_000, 60.0))
    assert BINS * one._book.width > 300 + GRACE + 60 * (1 + CLOCK_MARGIN)
    path.write_bytes(b"")
    assert one.take(START + 1) is None
    assert "nothing is sent for 365 s" in one.notes[-1]


@pytest.mark.usefixtures("at_once")
def test_closing_late_disturbs_nobody(opened: Callable[..., HostWindow], path: Path) -> None:
    """A process that stood still while the others began again leaves without beginning once more."""
    one, two = opened(), opened()
    path.write_bytes(b"")
    assert two.take(START + 200) is None
    assert 3 == len(sent(two, START + 500))
    one.close(START + 501)
    assert [] == sent(two, START + 502)


# --- a file that is damaged, gone, or of no use ----------------------------------------------------------------------


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("damage", [b"", b"nonsense", b"\0" * SIZE, b"\xff" * SIZE])
def test_a_torn_file_counts_as_full_for_one_window(
    opened: Callable[..., HostWindow], path: Path, damage: bytes
) -> None:
    """Nobody knows what was sent, neither who had it open nor who comes."""
    one = opened()
    (slot,) = sent(one, START + 60, 1)
    path.write_bytes(damage)
    assert one.take(START + 61) is None
    assert ["was damaged"] == [note[note.index("was") :][:11] for note in one.notes]
    two = opened(now=START + 62)
    one.answered(slot, START + 63)
    assert one.take(START + 61 + WHOLE - 0.5) is two.take(START + 61 + WHOLE - 0.5) is None
    assert 3 == len(sent(two, START + 61 + WHOLE + 0.5))


@pytest.mark.usefixtures("at_once")
def test_seats_of_nonsense_are_damage(opened: Callable[..., HostWindow], path: Path) -> None:
    """A limit that cannot be is not guessed."""
    one = opened()
    file, _ = WindowFile.open(path, lambda _: None)
    file.write(4096, b"\xff" * 48)
    assert one.take(START + 61) is None
    assert "list of processes" in one.notes[0]
    write_seat(file, 9, Seat(1, 2**31, pid_namespace(), Rate(), TIMEOUT, START))
    assert one.take(START + 62) is None
    write_seat(file, 9, Seat(1, 1, pid_namespace(), Rate(), TIMEOUT, float("nan")))
    assert one.take(START + 63) is None
    assert 3 == len(one.notes)
    file.close()


def test_a_clock_that_went_back_is_another_start(opened: Callable[..., HostWindow]) -> None:
    """Where no boot id tells, a file of the future does."""
    opened(now=START + 5000)
    assert "another start" in opened(now=START).notes[0]


@pytest.mark.usefixtures("at_once")
def test_bins_do_not_stay_as_wide_as_those_of_a_day(opened: Callable[..., HostWindow]) -> None:
    """A later process with a short window is not held to them; one with a long window waits for what it cannot know."""
    one = opened(Rate(100_000, 86400.0))
    sent(one, START, 1)
    one.close(START + 1)
    hour = START + 3600
    short = opened(Rate(3, 1.0), now=hour)
    assert [3, 0, 3] == [len(sent(short, hour + after)) for after in (0.0, TIMEOUT + 6.0, TIMEOUT + 6.1)]
    short.close(hour + 40)
    assert [] == sent(opened(Rate(9, 86400.0), now=hour + 1), hour + 70)


@pytest.mark.usefixtures("at_once")
def test_who_looked_at_the_clock_before_another_made_the_file(opened: Callable[..., HostWindow]) -> None:
    """Processes that begin at once find no damage in each other's file."""
    first, second = opened(now=START + 0.3), opened(now=START)
    assert [] == first.notes == second.notes
    assert 3 == len(sent(second, START + 0.4))


def test_a_file_of_a_start_that_lasted_longer(opened: Callable[..., HostWindow]) -> None:
    """Where no boot id tells, ends in the far future do: the file was made soon after an earlier start."""
    old = opened(now=100.0)
    old.tick(5000.0)
    old.remember(5000.0, 5000.0, answered=True)
    old.tick(5001.0)
    assert "another start" in opened(now=200.0).notes[0]


@pytest.mark.usefixtures("at_once")
def test_each_knows_how_long_what_it_sent_counts(opened: Callable[..., HostWindow], path: Path) -> None:
    """Another with a shorter timeout begins a damaged file again: who sent with a longer one makes all wait for it."""
    patient, hasty = opened(timeout=100.0), opened(timeout=1.0)
    sent(patient, START, 1)
    path.write_bytes(b"nonsense")
    hasty.tick(START + 1)
    patient.tick(START + 2)
    patient.tick(START + 3)
    assert 1 == len(patient.notes)
    assert "begun again by another" in patient.notes[0]
    whole = 60 * (1 + CLOCK_MARGIN) + 100 + GRACE
    assert [] == sent(hasty, START + whole + 0.9)
    assert 3 == len(sent(hasty, START + whole + 1.1))


@pytest.mark.usefixtures("at_once")
def test_a_file_that_was_removed_is_made_again(opened: Callable[..., HostWindow], path: Path) -> None:
    """Those who had it open see it, and nothing is sent for a window."""
    one = opened()
    sent(one, START + 60, 1)
    path.unlink()
    assert [] == sent(one, START + 61)
    assert path.exists()
    assert "somebody removed it" in one.notes[0]
    two = opened(now=START + 62)
    assert two.take(START + 61 + WHOLE - 1) is None
    assert 3 == len(sent(one, START + 62 + WHOLE))


@pytest.mark.usefixtures("at_once")
def test_who_finds_out_late_that_the_file_is_new(opened: Callable[..., HostWindow], path: Path) -> None:
    """A process that stood still while the others waited keeps them waiting no second time."""
    one, late = opened(), opened()
    sent(late, START, 1)
    path.unlink()
    one.tick(START + 1)
    late.tick(START + 200)
    assert [] == late.notes
    assert 3 == len(sent(one, START + 200))


@pytest.mark.usefixtures("at_once")
def test_a_lock_that_is_never_let_go_is_left_behind(opened: Callable[..., HostWindow], path: Path) -> None:
    """A process that was stopped while it wrote does not stop all others; it finds the new file when it goes on."""
    stopped, one = opened(), opened()
    sent(stopped, START, 1)
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        one.tick(START + 1)
        one.tick(START + 100)  # it was itself that stood still
        assert [] == one.notes
        for second in range(101, 175):
            one.tick(START + second)
        assert "its lock was held" in one.notes[0]
        assert [] == sent(one, START + 150 + WHOLE)
        assert 3 == len(sent(one, START + 175 + WHOLE))
    assert [] == sent(stopped, START + 180 + WHOLE)
    assert [] == stopped.notes


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("error", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO])
def test_a_file_that_stops_working(
    opened: Callable[..., HostWindow], monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    """After a window of silence the process keeps its own pace, and says so."""
    one = opened()
    slots = sent(one, START + 60, 2)

    def fails(*_: object) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", fails)
    assert one.take(START + 61) is None
    assert "keeps its pace alone" in one.notes[0]
    assert START + 61 + WHOLE == one.free_at(START + 62)
    one.answered(slots[0], START + 62)
    one.given_up(slots[1], START + 62)
    own = sent(one, START + 61 + WHOLE)
    assert 3 == len(own)
    one.answered(own[0], START + 61 + WHOLE)
    one.given_up(own[1], START + 61 + WHOLE)
    assert one.take(START + 62 + WHOLE) is None


def test_a_locked_file_that_cannot_be_left_behind(
    opened: Callable[..., HostWindow], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder that cannot be written in, the process goes on alone after a window of silence."""
    one = opened()

    def fails(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "unlink", fails)
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        for second in range(100):
            one.tick(START + second)
    assert "keeps its pace alone" in one.notes[0]


def _no_locks(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    def fails(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", fails)


def _full(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    def fails(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", fails)


def _short(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(os, "pwrite", lambda *_: 1)


def _a_file(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    folder.write_text("no folder")


def _a_stranger(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (_no_locks, "No locks available"),
        (_full, "No space left"),
        (_short, "No space left"),
        (_a_file, "File exists"),
        (_a_stranger, "no plain file of this user's"),
    ],
)
def test_a_folder_of_no_use_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: Callable[[pytest.MonkeyPatch, Path], None], said: str
) -> None:
    """The upload goes on at its own pace, with a plain message, and leaves nothing behind."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    trouble(monkeypatch, tmp_path / "moe-bulk")
    window, notes = open_window("127.0.0.1:80", "WS", Rate(), TIMEOUT, START)
    assert window is None
    assert [True, True] == [said in notes[0], "keeps its pace alone" in notes[0]]
    assert [] == list((tmp_path / "moe-bulk").glob("*.window.*"))


def test_the_file_lies_in_the_users_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One for each destination and workspace, for nobody else's eyes."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    window, notes = open_window("api-01.moengage.com:443", "WS_1", Rate(), TIMEOUT, START)
    assert window is not None
    assert [] == notes
    assert tmp_path / "moe-bulk" == window.path.parent
    assert window.path.name.startswith("api-01.moengage.com_443_WS_1_")
    assert SIZE == window.path.stat().st_size
    assert [0o700, 0o600] == [stat.S_IMODE(each.stat().st_mode) for each in (window.path.parent, window.path)]
    assert [window.path] == list(window.path.parent.iterdir())
    window.close(START)


def test_names_of_files() -> None:
    """No destination can name a file elsewhere; IPv6 and unknown starts have names, too."""
    assert "_1_80_W_unknown.window" == window_path(Path("x"), "/1:80", "W", None).name
    assert "__1_8080_W_b.window" == window_path(Path("x"), "::1:8080", "W", "b").name.replace("___", "__")


def test_files_of_earlier_starts_go_in_time(path: Path, opened: Callable[..., HostWindow]) -> None:
    """A month later nobody needs them."""
    path.parent.mkdir()
    old, young = path.with_name(f"old{SUFFIX}"), path.with_name(f"young{SUFFIX}")
    for each in (old, young):
        each.write_bytes(b"")
    os.utime(old, (0, old.stat().st_mtime - KEPT_SECONDS - 10))
    opened()
    assert [path, young] == sorted(path.parent.iterdir())


def test_a_lock_that_nobody_lets_go(
    path: Path, opened: Callable[..., HostWindow], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was stopped in the middle of writing keeps newcomers from beginning, not for ever."""
    opened()
    monkeypatch.setattr(host_module, "OPENING_SECONDS", 0.02)
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="does not let go"):
            opened()


def test_more_processes_than_seats() -> None:
    """There is a last seat."""
    assert SEATS - 1 == free_seat(range(SEATS - 1))
    with pytest.raises(OSError, match="uploading at once"):
        free_seat(range(SEATS))
