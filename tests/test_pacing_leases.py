"""What a process asks for, uses and reports: batches that it learns, and what another life of the hash means."""

from __future__ import annotations

import pytest

from moe_bulk.config import Rate
from moe_bulk.pacing.leases import FIRST_BATCH, SET, SMALLEST_BATCH, Leases
from moe_bulk.pacing.reservations import HEARTBEAT, Granted, Report, Run, Terms

AHEAD = 1000.0
"""The server's clock stands so far before ours."""


def leases(rate: Rate | None = None) -> Leases:
    """Give those of a process that has just begun."""
    return Leases(Terms("m", rate or Rate(6000, 60.0), 30.0))


def grant(found: Leases, now: float, count: int, **more: object) -> None:
    """Let the server answer at once: so many slots, due from now on, one a millisecond."""
    said: dict[str, object] = {
        "generation": "g",
        "turn": 1,
        "begun": "",
        "width": 0.1,
        "limit": 6000,
        "peers": 1,
        "blocked": 0.0,
        "retry": now + AHEAD,
        "tail": 36.0,
    }
    runs = (Run(now + AHEAD, now + AHEAD + (count - 1) / 1000, count, 12_345),) if count else ()
    found.told(Granted(now + AHEAD, runs=runs, **{**said, **more}), now, now)  # type: ignore[arg-type]


def use_all(found: Leases, now: float) -> int:
    """Use all that is due."""
    count = 0
    while (slot := found.take(now)) is not None:
        found.ended(slot, now)
        count += 1
    return count


def test_batches_grow_while_all_is_used() -> None:
    """From a few to a fair part: half a second's worth."""
    found, now, wanted = leases(), 0.0, []
    grant(found, now, 0)
    for _ in range(6):
        use_all(found, now)
        wanted.append(found.ask(now).want)
        grant(found, now, wanted[-1])
        now += 0.3
    assert [FIRST_BATCH, 2 * FIRST_BATCH, 4 * FIRST_BATCH, 8 * FIRST_BATCH, 49, 49] == wanted


def test_a_fair_part_is_what_several_leave() -> None:
    """With ten at work it is a tenth, but no less than the smallest batch that is worth a question."""
    found, now = leases(), 0.0
    for _ in range(6):
        use_all(found, now)
        want = found.ask(now).want
        grant(found, now, want, peers=10)
        now += 0.3
    assert SMALLEST_BATCH == want


def test_who_lets_slots_lapse_asks_for_fewer() -> None:
    """What was not used in time is given back, its pace, too; the next batch is what was used, and a little more."""
    found = leases()
    grant(found, 0.0, 40)
    for _ in range(8):
        assert found.take(0.05) is not None
    assert found.take(2.0) is None
    call = found.ask(2.0)
    assert 4 == call.want  # never more than before
    (report,) = call.reports
    assert (32, {12_345: -32}) == (report.unused, dict(report.bins))


def test_a_slower_pace_passes_slots_over() -> None:
    """At half the pace every second slot is given back without its pace."""
    found = leases()
    grant(found, 0.0, 20)
    count = 0
    while found.take(0.05, 2.0) is not None:
        count += 1
    assert 10 == count
    (report,) = found.ask(0.1).reports
    assert (0, {12_345: -10}) == (report.unused, dict(report.bins))


def test_nothing_is_asked_for_while_nobody_needs_it() -> None:
    """Only the heartbeat, with no slots."""
    found = leases()
    found.ask(0.0)
    grant(found, 0.0, 40)
    assert HEARTBEAT == found.ask_at()
    assert 0 == found.ask(HEARTBEAT).want


def test_who_is_told_to_wait_is_heard_all_the_same() -> None:
    """However far the moment lies at which asking is worth while."""
    found = leases()
    assert found.take(0.0) is None
    found.ask(0.0)
    grant(found, 0.0, 0, retry=AHEAD + 90.0)
    assert HEARTBEAT == found.ask_at()


def test_another_life_of_the_hash_knows_no_old_slots() -> None:
    """Those in hand are not used, and what is on its way is reported as more, never as less."""
    found = leases()
    grant(found, 0.0, 3)
    slot = found.take(0.1)
    assert slot is not None
    grant(found, 0.2, 0, generation="h")
    assert found.take(0.2) is None
    found.ended(slot, 0.3)
    assert [1] == [by for report in found.ask(0.4).reports for by in report.bins.values()]


def test_a_clock_that_jumped_is_reported_and_its_slots_are_not_used() -> None:
    """The server cannot know it; a hash that has just begun anew is believed."""
    found = leases()
    grant(found, 0.0, 1)
    found.told(Granted(5000.0, "g", 2, "", 0.1, 6000, 1, 0.0, 0.0, 36.0, (Run(5000.0, 5000.0, 5, 9),)), 1.0, 1.0)
    assert 0 == found.in_hand
    assert SET == found.ask(1.0).again
    found.told(Granted(9000.0, "h", 1, SET, 0.1, 6000, 1, 0.0, 0.0, 36.0, (Run(9000.0, 9000.0, 5, 9),)), 2.0, 2.0)
    assert (5, "") == (found.in_hand, found.ask(2.0).again)


def test_reports_are_told_until_they_are_heard() -> None:
    """What came since goes along under a number of its own."""
    found = leases()
    grant(found, 0.0, 3)
    first = found.take(0.1)
    assert first is not None
    found.ended(first, 0.15)
    assert [1] == [report.number for report in found.ask(0.2).reports]
    second = found.take(0.2)
    assert second is not None
    found.ended(second, 0.25)
    call = found.ask(0.3)
    assert [1, 2] == [report.number for report in call.reports]
    assert all(isinstance(report, Report) for report in call.reports)
    grant(found, 0.4, 0)
    assert () == found.ask(0.5).reports


@pytest.mark.parametrize("now", [0.05, 0.9])
def test_slots_are_good_for_a_second(now: float) -> None:
    """Somewhat late is no harm."""
    found = leases()
    grant(found, 0.0, 1)
    assert found.take(now) is not None
