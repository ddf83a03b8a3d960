"""What is settled: no row is told as settled that is not, none is forgotten, and reading reaches all that are left."""

from __future__ import annotations

import random
from itertools import groupby, islice
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk import settled as room
from moe_bulk.errors import ConfigError
from moe_bulk.record import Position
from moe_bulk.settled import OFFSETS, Place, Settled, key

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SOURCES = ("a.csv", "empty.csv", "b.csv")


def row(number: int, source: str = "a.csv", item: int = 0) -> Position:
    """Give a row; they stand ten bytes apart."""
    return Position(source, number + 2, number * 10, item)


def test_nothing_is_settled_in_the_beginning() -> None:
    """A new run begins at its first source."""
    settled = Settled(SOURCES)
    snapshot = settled.snapshot()

    assert row(0) not in settled
    assert (Place(0, 1, 0), Place(0, 1, 0), {}, 0) == (settled.begin, snapshot.place, snapshot.ranges(), snapshot.size)


def test_rows_under_way_are_holes() -> None:
    """What is between the rows under way is told as ranges, merged where neighbours."""
    settled = Settled(SOURCES)
    for number in range(6):
        settled.take_in(row(number))
    settled.settle(row(1))
    settled.settle(row(3))
    settled.settle(row(4))

    expected = [(key(row(0)) + 1, key(row(2))), (key(row(2)) + 1, key(row(5)))]
    assert {"a.csv": expected} == settled.snapshot().ranges()
    assert Place(0, 2, 0) == settled.snapshot().place


def test_reading_goes_on_at_the_last_row_when_none_is_under_way() -> None:
    """All that was taken in is settled: one range, from the very beginning, whatever stood before the first row."""
    settled = Settled(SOURCES)
    for number in range(1, 4):
        settled.take_in(row(number))
        settled.settle(row(number))

    assert Place(0, 5, 30) == settled.snapshot().place
    assert {"a.csv": [(0, key(row(3)) + 1)]} == settled.snapshot().ranges()


def test_a_source_without_rows_has_no_ranges() -> None:
    """Sources are told apart, and the place is in the one of the first row under way."""
    settled = Settled(SOURCES)
    settled.take_in(row(0))
    settled.take_in(row(0, "b.csv"))
    settled.take_in(row(1, "b.csv"))
    settled.settle(row(0, "b.csv"))
    first = settled.snapshot()
    settled.settle(row(0))

    assert (Place(0, 2, 0), {"b.csv": [(0, key(row(1, "b.csv")))]}) == (first.place, first.ranges())
    assert Place(2, 3, 10) == settled.snapshot().place
    assert ["a.csv", "b.csv"] == list(settled.snapshot().ranges())


def test_snapshot_stays_as_it_was() -> None:
    """A thread that writes it down is not disturbed by the run that goes on."""
    settled = Settled(SOURCES)
    settled.take_in(row(0))
    settled.take_in(row(1))
    snapshot = settled.snapshot()
    before = snapshot.ranges()
    settled.settle(row(0))
    settled.take_in(row(2))

    assert (before, Place(0, 2, 0)) == (snapshot.ranges(), snapshot.place)


def test_items_of_one_row_are_told_apart() -> None:
    """Several devices in one row have one offset, and settle one by one."""
    settled = Settled(SOURCES)
    for item in range(3):
        settled.take_in(row(0, item=item))
    settled.settle(row(0, item=0))
    settled.settle(row(0, item=2))
    again = Settled(SOURCES, settled.snapshot().ranges(), settled.snapshot().place)

    assert [True, False, True] == [row(0, item=item) in again for item in range(3)]


def test_earlier_rows_stay_settled_until_reading_passes_them() -> None:
    """Ranges beyond the last row taken in are kept; up to it they become one."""
    settled = Settled(SOURCES, {"a.csv": [(key(row(1)), key(row(1)) + 1), (key(row(5)), key(row(7)))]}, Place(0, 2, 0))
    settled.take_in(row(0))
    first = settled.snapshot()
    settled.settle(row(0))
    settled.skip(row(1))
    settled.take_in(row(2))
    settled.settle(row(2))
    second = settled.snapshot()
    settled.skip(row(5))

    assert [(key(row(1)), key(row(1)) + 1), (key(row(5)), key(row(7)))] == first.ranges()["a.csv"]
    assert [(0, key(row(2)) + 1), (key(row(5)), key(row(7)))] == second.ranges()["a.csv"]
    assert [(0, key(row(7)))] == settled.snapshot().ranges()["a.csv"]
    assert (4, 2, 2) == (first.size, second.size, settled.snapshot().size)


def test_skipping_moves_the_place_on() -> None:
    """A second stop, while nothing but settled rows was read, does not read them a third time."""
    settled = Settled(SOURCES, {"a.csv": [(0, key(row(9)))]}, Place(0, 2, 0))
    before = settled.snapshot().place
    settled.skip(row(8))

    assert (Place(0, 2, 0), Place(0, 10, 80)) == (before, settled.snapshot().place)


def test_rows_found_behind_the_checkpoint_come_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are sorted in pieces and join the ranges that are there."""
    monkeypatch.setattr(room, "_AT_ONCE", 7)
    rows = [row(number, source) for source in ("a.csv", "b.csv") for number in range(5, 44, 2)]
    random.shuffle(rows)
    settled = Settled(SOURCES, {"b.csv": [(0, key(row(4)))]})
    settled.add_earlier(iter(rows))
    snapshot = settled.snapshot()

    assert 20 == len(snapshot.ranges()["a.csv"])
    assert [(0, key(row(4))), (key(row(5)), key(row(5)) + 1)] == snapshot.ranges()["b.csv"][:2]
    assert all(each in settled for each in rows)
    assert not any(row(number) in settled for number in range(0, 46, 2))
    assert 41 == snapshot.size


@pytest.mark.parametrize("row_again", [row(1), row(7)])
def test_a_row_with_two_results_is_noticed(row_again: Position) -> None:
    """Behind the checkpoint or before it: a journal that says something twice is not to be trusted."""
    settled = Settled(SOURCES, {"a.csv": [(0, key(row(4)))]})
    with pytest.raises(ValueError, match="has two results"):
        settled.add_earlier([row(7), row(9), row_again])


def test_source_that_is_no_unicode_is_found_again() -> None:
    """In the files its name is spelt out; positions of either spelling are meant."""
    settled = Settled(["\udcff.csv"])
    settled.take_in(row(0, "\udcff.csv"))
    settled.settle(row(0, "\udcff.csv"))
    again = Settled(["\udcff.csv"], settled.snapshot().ranges())
    again.add_earlier([row(3, "\\udcff.csv"), row(4, "\udcff.csv")])

    assert [True, False, True, True] == [row(number, "\udcff.csv") in again for number in (0, 1, 3, 4)]


def test_sources_of_one_spelling_are_refused() -> None:
    """Their rows could not be told apart."""
    with pytest.raises(ConfigError, match="rename one"):
        Settled(["\udcff.csv", "\\udcff.csv"])


def test_what_is_none_of_the_sources_is_refused() -> None:
    """Ranges, places and rows of another run are not taken for ours."""
    with pytest.raises(ValueError, match=r"'c\.csv' is none of the sources"):
        Settled(SOURCES, {"c.csv": []})
    with pytest.raises(ValueError, match="no source 3"):
        Settled(SOURCES, {}, Place(3, 1, 0))
    with pytest.raises(ValueError, match=r"'c\.csv' is none of the sources"):
        Settled(SOURCES).add_earlier([row(1, "c.csv")])


def test_settling_what_is_not_under_way_is_an_error() -> None:
    """A result that comes twice is a mistake of ours, and shows."""
    settled = Settled(SOURCES)
    settled.take_in(row(0))
    settled.settle(row(0))

    with pytest.raises(KeyError):
        settled.settle(row(0))


def test_of_rows_taken_in_together_the_last_one_counts() -> None:
    """In each source by itself: all before it is told as settled, once it is."""
    settled = Settled(SOURCES)
    settled.take_in(row(0), row(1), row(0, "b.csv"), row(1, "b.csv"))
    settled.settle(row(0), row(1), row(0, "b.csv"))
    ranges = settled.snapshot().ranges()
    assert [0, 1] == [each in Settled(SOURCES, ranges) for each in (row(1, "b.csv"), row(1))]
    settled.settle(row(1, "b.csv"))
    assert row(1, "b.csv").line == settled.snapshot().place.line


def test_several_settle_together() -> None:
    """In any order, as if each had been told of."""
    together, one_by_one = Settled(SOURCES), Settled(SOURCES)
    for number in range(5):
        together.take_in(row(number))
        one_by_one.take_in(row(number))
    together.settle(row(3), row(1), row(2))
    for number in (3, 1, 2):
        one_by_one.settle(row(number))
    assert one_by_one.snapshot().ranges() == together.snapshot().ranges()


@pytest.mark.parametrize(("offset", "item"), [(-1, 0), (OFFSETS, 0), (0, -1), (0, 65_536)])
def test_key_of_what_can_be_no_row(offset: int, item: int) -> None:
    """A line that somebody edited cannot break the arithmetic."""
    with pytest.raises(ValueError, match="no row can stand"):
        key(Position("a.csv", 1, offset, item))


def reading(rows: Sequence[Position], settled: Settled) -> Iterator[Position]:
    """Read on from where this session begins."""
    begin = settled.begin
    for each in rows:
        source = SOURCES.index(each.source)
        if (source, each.offset) >= (begin.source, begin.offset) or source > begin.source:
            yield each


@st.composite
def inputs(draw: st.DrawFn) -> list[Position]:
    """Give some rows of two of the three sources, some with several items, in the order of reading."""
    found = []
    for source in ("a.csv", "b.csv"):
        items = draw(st.lists(st.integers(1, 3), max_size=12))
        offsets = sorted(draw(st.sets(st.integers(0, 60), min_size=len(items), max_size=len(items))))
        for line, (offset, count) in enumerate(zip(offsets, items, strict=True), 1):
            found += [Position(source, line, offset, item) for item in range(count)]
    return found


class Session:
    """One session: it reads and settles as it is told, until it is killed."""

    def __init__(self, rows: Sequence[Position], settled: Settled, done: list[Position]) -> None:
        self.settled = settled
        self.done = done
        self.unread = iter(list(reading(rows, settled)))
        self.under_way: list[Position] = []
        self.checkpoint()

    def checkpoint(self) -> None:
        """Keep how far it came."""
        self.saved = self.settled.snapshot()
        self.behind: list[Position] = []

    def read(self, data: st.DataObject) -> None:
        """Take the next rows in, or skip them, as many at once as are alike."""
        some = list(islice(self.unread, data.draw(st.integers(1, 5), "at once")))
        for known, alike in groupby(some, self.settled.__contains__):
            positions = list(alike)
            if not known:
                self.settled.take_in(*positions)
                self.under_way += positions
            elif data.draw(st.booleans(), "skip"):
                self.settled.skip(*positions)

    def settle(self, data: st.DataObject) -> None:
        """Settle any row that is under way."""
        if self.under_way:
            position = self.under_way.pop(data.draw(st.integers(0, len(self.under_way) - 1), "which"))
            self.settled.settle(position)
            self.done.append(position)
            self.behind.append(position)

    def after_a_kill(self) -> Settled:
        """Give what the next session begins with."""
        again = Settled(SOURCES, self.saved.ranges(), self.saved.place)
        again.add_earlier(self.behind)
        return again


@given(inputs(), st.data())
def test_nothing_is_lost_and_nothing_settles_twice(rows: list[Position], data: st.DataObject) -> None:
    """Whatever settles in whatever order, and whenever it is killed: what is told as settled is exactly what settled.

    And reading again reaches all the rest.
    """
    settled, done = Settled(SOURCES), list[Position]()
    for _ in range(data.draw(st.integers(1, 4), "kills")):
        session = Session(rows, settled, done)
        for step in data.draw(st.lists(st.sampled_from(["read", "read", "settle", "checkpoint"]), max_size=40)):
            session.checkpoint() if step == "checkpoint" else getattr(session, step)(data)
        settled = session.after_a_kill()
        assert set(done) == {each for each in rows if each in settled}
        assert session.saved.size >= sum(map(len, session.saved.ranges().values()))

    done += [each for each in reading(rows, settled) if each not in settled]
    assert sorted(rows) == sorted(done)
