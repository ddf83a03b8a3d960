"""Rows in memory: taken once, compared with those of an earlier run, none of them lost meanwhile."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk.columns import Columns, Reader
from moe_bulk.errors import RunRefused
from moe_bulk.fingerprint import Fingerprint
from moe_bulk.intake import memory
from moe_bulk.intake.memory import FromMemory
from moe_bulk.record import Position
from moe_bulk.settled import Settled

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from moe_bulk.intake.memory import InMemory

Item: TypeAlias = "Mapping[str, object]"


def row(number: int) -> dict[str, object]:
    """Make a row."""
    return {"customer_id": f"user-{number}", "device_id": "d", "platform": "iOS", "push_id": f"t-{number}"}


def rows(*numbers: int) -> list[Item]:
    """Make rows."""
    return [row(number) for number in numbers]


def intake(given: InMemory) -> FromMemory:
    """Take these rows, so that they can be known again."""
    return FromMemory(given, Reader(Columns()), marked=True)


async def read(taken: FromMemory, most: int = 1000) -> list[int]:
    """Read so many rows, and give their offsets, those that were settled before as negative lines."""
    found: list[int] = []
    async with aclosing(taken.batches()) as batches:
        async for (made,) in batches:
            found.append(-made.line if isinstance(made, Position) else made.row.position.offset)
            if len(found) == most:
                break
    return found


async def known(given: InMemory, most: int = 1000) -> Fingerprint:
    """What a run that read so many of them keeps."""
    taken = intake(given)
    await read(taken, most)
    await taken.close()
    return taken.fingerprints[0]


def settled(*offsets: int) -> Settled:
    """What an earlier session settled."""
    return Settled(["rows"], {"rows": [(n << 16, (n << 16) + 1) for n in offsets]})


def changed(recorded: Sequence[Fingerprint], given: InMemory) -> tuple[tuple[str, ...], list[int]]:
    """Compare, and read what there is then."""

    async def main() -> tuple[tuple[str, ...], list[int]]:
        taken = intake(given)
        said = await taken.changed(recorded, settled())
        return said, await read(taken)

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("before", "most", "now", "same"),
    [
        ((0, 1, 2), 1000, (0, 1, 2), True),
        ((0, 1, 2), 2, (0, 1, 2), True),
        ((0, 1, 2), 2, (0, 1, 9, 9), True),
        ((0, 1, 2), 2, (0, 9, 2), False),
        ((0, 1, 2), 2, (0,), False),
        ((0, 1, 2), 1000, (0, 1, 2, 3), False),
        ((0, 1, 2), 1000, (0, 1), False),
        ((), 1000, (), True),
        ((), 1000, (0,), False),
    ],
)
def test_rows_are_known_again(before: Sequence[int], most: int, now: Sequence[int], same: bool) -> None:  # noqa: FBT001  a table
    """As far as they were read, and to their end where that was reached; all of them are read afterwards."""
    recorded = asyncio.run(known(rows(*before), most))
    assert (() if same else ("rows",), list(range(len(now)))) == changed([recorded], rows(*now))
    assert (() if same else ("rows",), list(range(len(now)))) == changed([recorded], iter(rows(*now)))


def test_another_kind_of_input_is_another_input() -> None:
    """A file's run is not gone on with by rows in memory."""
    assert ("rows",) == changed([Fingerprint("rows", "file")], rows(0))[0]
    assert ("rows",) == changed([], rows(0))[0]


def test_rows_that_are_no_mappings_are_compared_by_what_they_are() -> None:
    """Bad rows are rows, too."""
    bad: list[Item] = ["x", 7]  # type: ignore[list-item]  # that is the point
    recorded = asyncio.run(known(bad))
    assert () == changed([recorded], bad)[0]
    assert ("rows",) == changed([recorded], ["x", 8])[0]  # type: ignore[list-item]  # as above


@given(count=st.integers(0, 12), done=st.sets(st.integers(0, 11)), most=st.integers(0, 12), held=st.integers(1, 12))
def test_no_unsettled_row_is_lost_while_rows_are_compared(count: int, done: set[int], most: int, held: int) -> None:
    """Whatever was settled and however few are kept: each unsettled row comes once, and the last place is told."""

    async def main() -> list[int]:
        recorded = await known(rows(*range(count)), most) if most else Fingerprint("rows", "rows")
        before = settled(*sorted(done))
        given = rows(*range(count))
        taken = intake(iter(given) if 2 * held >= count else given)
        assert () == await taken.changed([recorded], before)
        taken.go_on(before, ["rows"])
        return await read(taken)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(memory, "HELD", held)
        found = asyncio.run(main())
    assert sorted(set(range(count)) - done) == [each for each in found if each >= 0 and each not in done]
    places = [-each - 1 if each < 0 else each for each in found]
    assert sorted(places) == places
    assert (count - 1 if count else None) == (places[-1] if places else None)


def test_rows_that_cannot_be_had_again_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """They differ after more than are kept: a list begins anew, an iterator cannot."""
    monkeypatch.setattr(memory, "HELD", 2)
    recorded = asyncio.run(known(rows(0, 1, 2, 3, 4)))

    def compare(given: InMemory) -> list[int]:
        async def main() -> list[int]:
            taken = intake(given)
            assert ("rows",) == await taken.changed([recorded], settled(*range(5)))
            assert 0 == taken.fingerprints[0].marks[-1][0]
            return await read(taken)

        return asyncio.run(main())

    assert [0, 1, 2, 3, 4] == compare(rows(0, 1, 2, 3, 9))
    with pytest.raises(RunRefused, match="only after more than 2"):
        compare(iter(rows(0, 1, 2, 3, 9)))


def test_more_unsettled_rows_than_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory has a bound: a list is asked for them again, an iterator cannot be."""
    monkeypatch.setattr(memory, "HELD", 1)
    recorded = asyncio.run(known(rows(0, 1, 2, 3)))
    assert ((), [0, 1, 2, 3]) == changed([recorded], rows(0, 1, 2, 3))
    with pytest.raises(RunRefused, match="more than can be kept"):
        changed([recorded], iter(rows(0, 1, 2, 3)))


def test_a_generator_is_closed_when_it_is_only_compared() -> None:
    """What it holds open is let go, whether it was read on or not."""
    log: list[str] = []

    def generated(items: Iterable[Item]) -> Iterator[Item]:
        try:
            yield from items
        finally:
            log.append("closed")

    async def main() -> None:
        recorded = await known(rows(0, 1, 2), 2)
        taken = intake(generated(rows(0, 1, 2)))
        assert () == await taken.changed([recorded], settled(*range(5)))
        assert [] == log
        await taken.close()

    asyncio.run(main())
    assert ["closed"] == log


def test_rows_that_nobody_asks_about_are_not_marked() -> None:
    """A stream of results keeps nothing of its rows."""

    async def main() -> tuple[Fingerprint, ...]:
        taken = FromMemory(rows(0, 1), Reader(Columns()), marked=False)
        await taken.look()
        await taken.take_digests(lambda: False)
        assert [0, 1] == await read(taken)
        await taken.close()
        return taken.fingerprints

    assert (Fingerprint("rows", "rows"),) == asyncio.run(main())
