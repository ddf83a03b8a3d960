"""Whether the rows of a partition come in the order that they were said to have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from moe_bulk.paths import at

if TYPE_CHECKING:
    from collections.abc import Mapping


class OrderWatch:
    """Looks at each row as it passes: customers ascend, and for each of them the column that tells the order.

    That is what `sortWithinPartitions(customer, order)` makes. Nulls come first there, so they do here. A column is
    named with dots where it lies in a struct; of several names the first one counts that says something.
    """

    def __init__(self, *columns: str | tuple[str, ...]) -> None:
        self._names = [(each,) if isinstance(each, str) else each for each in columns]
        self.rows = 0
        self.late = 0
        """How many rows came behind one that should have come after them."""
        self.first_late: int | None = None
        """The first of these, counted from 1."""
        self._before: tuple[object, ...] | None = None

    def see(self, row: Mapping[str, object]) -> None:
        """One more row, in the order in which it is delivered."""
        self.rows += 1
        now = tuple(_first(row, names) for names in self._names)
        if self._before is not None and _comes_before(now, self._before):
            self.late += 1
            self.first_late = self.first_late or self.rows
        self._before = now

    def told(self) -> str | None:
        """What people should know, if anything."""
        if not self.late:
            return None
        columns = ", ".join(repr(names[0]) for names in self._names)
        return (
            f"{self.late:,} rows (the first is row {self.first_late:,}) came behind one that should have come after "
            f"them: add .sortWithinPartitions({columns}) before the write, or an older row may "
            "have been the last one sent of its device"
        )


def _first(row: Mapping[str, object], names: tuple[str, ...]) -> object:
    return next((value for name in names if (value := at(row, name)) is not None), None)


def _comes_before(now: tuple[object, ...], before: tuple[object, ...]) -> bool:
    for mine, theirs in zip(now, before, strict=True):
        if mine == theirs:
            continue
        if mine is None or theirs is None:
            return mine is None
        try:
            return bool(mine < theirs)  # type: ignore[operator]
        except TypeError:  # of two kinds: nobody can say
            return False
    return False
