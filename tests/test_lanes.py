"""Order per key: a ticket goes when nobody before it shares a key with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk.lanes import Lanes, Ticket

if TYPE_CHECKING:
    from collections.abc import Sequence

KEYS = st.lists(st.sampled_from("abcdef"), max_size=4).map(tuple)


class Numbered(Ticket):
    """A ticket that knows its place in the input."""

    def __init__(self, number: int, keys: Sequence[str], size: int = 0) -> None:
        super().__init__(keys)
        self.number = number
        self._size = size

    @property
    def size(self) -> int:
        """As it was said."""
        return self._size

    def __repr__(self) -> str:
        return f"<{self.number}: {''.join(map(str, self.keys))}>"


def admitted(lanes: Lanes[Numbered], *keys: str) -> tuple[list[Numbered], list[int]]:
    """Admit a ticket for each string of one-letter keys; give the tickets and the numbers of those that may go."""
    tickets = [Numbered(number, letters) for number, letters in enumerate(keys)]
    return tickets, [ticket.number for ticket in tickets if lanes.admit(ticket)]


def test_those_without_a_common_key_go_at_once() -> None:
    """Nobody waits for strangers, and who has no key waits for nobody."""
    _, going = admitted(Lanes(), "a", "b", "cd", "", "")
    assert [0, 1, 2, 3, 4] == going


def test_a_lane_goes_one_by_one_in_input_order() -> None:
    """Of those with one key only the first may go; each release frees exactly the next."""
    lanes: Lanes[Numbered] = Lanes()
    tickets, going = admitted(lanes, "a", "a", "a")
    assert ([0], 2) == (going, lanes.parked)
    assert [tickets[1]] == lanes.release(tickets[0])
    assert [tickets[2]] == lanes.release(tickets[1])
    assert [] == lanes.release(tickets[2])
    assert (0, 0) == (lanes.parked, len(lanes))


def test_a_ticket_waits_in_all_its_lanes_at_once() -> None:
    """It holds its place in each lane while it waits in another: who comes later does not overtake."""
    lanes: Lanes[Numbered] = Lanes()
    tickets, going = admitted(lanes, "a", "ab", "b")
    assert [0] == going
    assert [tickets[1]] == lanes.release(tickets[0])
    assert [tickets[2]] == lanes.release(tickets[1])


def test_a_ticket_behind_two_others_waits_for_both() -> None:
    """It goes when the last of those before it is done."""
    lanes: Lanes[Numbered] = Lanes()
    tickets, _ = admitted(lanes, "a", "b", "ab")
    assert [] == lanes.release(tickets[1])
    assert [tickets[2]] == lanes.release(tickets[0])


def test_keys_shared_twice_or_named_twice() -> None:
    """Two keys in common with one ticket, or the same key twice in one, block nobody for ever."""
    lanes: Lanes[Numbered] = Lanes()
    tickets, going = admitted(lanes, "aab", "ab")
    assert [0] == going
    assert [tickets[1]] == lanes.release(tickets[0])
    assert ([], 0) == (lanes.release(tickets[1]), len(lanes))


def test_the_oldest_goes_first() -> None:
    """When one release frees several, they come in the order of the input."""
    lanes: Lanes[Numbered] = Lanes()
    tickets, _ = admitted(lanes, "abc", "b", "c", "a")
    assert tickets[1:] == lanes.release(tickets[0])


@pytest.mark.parametrize(
    ("most", "size", "parked", "full"),
    [(2, 1, 1, False), (2, 1, 2, True), (100, 40, 2, False), (100, 40, 3, True)],
)
def test_full_by_number_or_by_size(most: int, size: int, parked: int, full: bool) -> None:  # noqa: FBT001  a column
    """Reading should wait when too many tickets are parked, or too large ones; those that go do not count."""
    lanes: Lanes[Numbered] = Lanes(max_parked=most, max_bytes=100)
    lanes.admit(Numbered(-1, "b", 1000))
    tickets = [Numbered(number, "a", size) for number in range(parked + 1)]
    for ticket in tickets:
        lanes.admit(ticket)
    assert full == lanes.full
    for ticket in tickets:
        lanes.release(ticket)
    assert (0, 0, False) == (lanes.parked, lanes.parked_bytes, lanes.full)


def test_it_is_told_once_that_there_is_room_again() -> None:
    """When the first of those that were one too many goes, and not at the others."""
    told: list[int] = []
    lanes: Lanes[Numbered] = Lanes(max_parked=2, on_room=lambda: told.append(lanes.parked))
    tickets = [Numbered(number, "a") for number in range(5)]
    for ticket in tickets:
        lanes.admit(ticket)
    for ticket in tickets:
        lanes.release(ticket)
    assert [1] == told


def test_shown() -> None:
    """What waits can be read in a debugger."""
    lanes: Lanes[Numbered] = Lanes()
    admitted(lanes, "ab", "b")
    assert "<Lanes: 2 in use, 1 tickets parked>" == repr(lanes)


@given(st.lists(KEYS, max_size=25), st.data())
def test_any_graph_of_keys_is_worked_off(keys: list[tuple[str, ...]], data: st.DataObject) -> None:
    """Whatever shares keys with whatever, admitted and released in any interleaving: everybody goes exactly once.

    Nobody goes before all earlier ones that share a key are done, nobody waits without such a one, no lane is left.
    """
    lanes: Lanes[Numbered] = Lanes()
    waiting = [Numbered(number, of) for number, of in enumerate(keys)]
    admitted = 0
    going: list[Numbered] = []
    done: set[Numbered] = set()
    while admitted < len(waiting) or going:
        if admitted < len(waiting) and (not going or data.draw(st.booleans())):
            ticket = waiting[admitted]
            admitted += 1
            freed = [ticket] if lanes.admit(ticket) else []
        else:
            ticket = going.pop(data.draw(st.integers(0, len(going) - 1)))
            done.add(ticket)
            freed = lanes.release(ticket)
        going += freed
        expected = {
            late
            for late in waiting[:admitted]
            if late not in done
            and all(early in done or not set(early.keys) & set(late.keys) for early in waiting[: late.number])
        }
        assert expected == set(going)
        assert len(expected) == len(going)
        assert admitted - len(done) - len(going) == lanes.parked
    assert (set(waiting), 0) == (done, len(lanes))
