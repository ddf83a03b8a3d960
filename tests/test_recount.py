"""Result lines counted anew: each row once, each request in its window, whatever order the lines stand in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk.outcome import Attempt, Result, Status
from moe_bulk.record import Position, Row
from moe_bulk.recount import Letters, Recount
from tests.builders import ZERO

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Sequence


def result(number: int, *times: float, zero: float = ZERO, source: str = "rows", **more: Any) -> Result:
    """Make an accepted row with a request at each of these boot-clock seconds; each was answered after 1 ms."""
    position = Position(source, number + 1, number * 10)
    attempts = tuple(Attempt(zero + at, at, 1.0, 200) for at in times)
    settled_at = zero + max(times, default=0.0) + 1
    made = Result(position, Status.ACCEPTED, Row(position, {}), attempts=attempts, tries=len(times))
    return made._replace(settled_at=settled_at, **more)


def counted(results: Iterable[Result], in_memory: int = 7) -> Recount:
    """Count them."""
    recount = Recount(in_memory)
    for line, each in enumerate(results, 1):
        recount.add(each, line)
    return recount


def most(times: Sequence[float], per: float) -> int:
    """Count the busiest window by hand."""
    return max((sum(1 for other in times if at <= other < at + per) for at in times), default=0)


@given(st.lists(st.integers(0, 300), max_size=60), st.integers(1, 100), st.randoms(use_true_random=False))
def test_the_busiest_window_is_the_one_that_counting_by_hand_finds(
    times: list[int], per: int, chance: random.Random
) -> None:
    """However the lines stand; where times lie exactly a window apart, rounding leaves it open."""
    results = [result(number, float(at)) for number, at in enumerate(times)]
    chance.shuffle(results)
    with counted(results) as recount:
        found = recount.busiest(float(per))
        assert most(times, per) == found.least
        assert most(times, per + 0.5) == found.most
        assert (found.at is None) == (not times)


def test_windows_do_not_reach_over_a_restart_of_the_machine() -> None:
    """The boot clock began anew: what seems close was days apart. Sessions of one boot share their windows."""
    day = 86_400.0
    first = [result(number, 100.0 + number, zero=ZERO) for number in range(5)]
    adjusted = [result(5 + number, 105.0 + number, zero=ZERO + 0.05) for number in range(3)]
    after = [result(10 + number, 101.0 + number, zero=ZERO + day) for number in range(4)]
    with counted([*after, *first, *adjusted]) as recount:
        assert (8, 8, ZERO + 100.0) == recount.busiest(60.0)
        assert 3 == recount.clocks()
    with counted(after) as recount:
        assert (4, 4, ZERO + day + 101.0) == recount.busiest(60.0)


def test_what_was_sent_before_is_left_out_of_the_window() -> None:
    """Where the summary looks for the busiest window from some moment on only."""
    with Recount() as recount:
        for number in range(10):
            recount.add(result(number, float(number)), number, since=ZERO + 6)
        assert 4 == recount.busiest(60.0).most
        assert 10 == recount.tries


def test_a_row_with_two_results_is_found() -> None:
    """Wherever its lines stand, and whatever else is like it in another source."""
    results = [result(number, 1.0) for number in range(50)] + [result(7, 1.0, source="others"), result(7, 1.0)]
    with counted(results) as recount:
        assert [("rows", 70, 0, 2)] == list(recount.twice())


def test_dead_letters_are_those_of_the_failed_rows() -> None:
    """A missing one and one too many are named; one whose row came to something else is both."""
    rejected = [result(number, 1.0, status=Status.REJECTED) for number in range(10)]
    with counted(rejected) as recount, Letters(3) as letters:
        for each in [*rejected[1:9], rejected[9]._replace(status=Status.EXHAUSTED), result(30, status=Status.INVALID)]:
            place = each.position
            letters.add({"source": place.source, "line": place.line, "item": place.item, "status": each.status.value})
        assert [
            ("rows", 1, "rejected", True),
            ("rows", 10, "exhausted", False),
            ("rows", 10, "rejected", True),
            ("rows", 31, "invalid", False),
        ] == sorted(recount.letters(letters))


@pytest.mark.parametrize("note", [None, {}, {"source": "a", "line": 1, "item": 0, "status": "accepted"}])
def test_a_note_of_somebody_else_is_none(note: object) -> None:
    """What tells of no failed row is no dead letter."""
    with Letters() as letters, pytest.raises(ValueError, match=r"note|fail|valid"):
        letters.add(note)


def test_a_line_that_cannot_be_is_named() -> None:
    """Requests that overlap, that end after the row settled, that were more than the tries; no clock goes below 0."""
    fine = result(1, 1.0, 2.0)
    cases = [
        fine._replace(attempts=fine.attempts[::-1]),
        fine._replace(settled_at=ZERO),
        fine._replace(tries=1),
        fine._replace(attempts=(Attempt(ZERO, -1.0, 1.0, 200), fine.attempts[1])),
        fine._replace(attempts=(fine.attempts[0], fine.attempts[1]._replace(http_status=400))),
    ]
    with counted([fine]) as recount:
        assert [] == recount.faults.told()
    with counted(cases) as recount:
        assert [
            "attempts of one row that overlap: line 1",
            "an attempt that ended after its row settled: line 2",
            "more attempts than tries: line 3",
            "a time that no clock shows: line 4",
            "a row that is accepted, and its last attempt was not: line 5",
        ] == sorted(recount.faults.told(), key=lambda said: said[-1])


def test_many_faults_are_told_as_a_few() -> None:
    """The first ones are named, the others counted."""
    with counted([result(number, 1.0)._replace(tries=0) for number in range(1_000)]) as recount:
        (told,) = recount.faults.told()
        assert "more attempts than tries: line 1; line 2; line 3; line 4; line 5; and 995 more" == told
