"""Many numbers in ascending order in little memory: what is too much is sorted piece by piece into a temporary file."""

from __future__ import annotations

import heapq
import os
import tempfile
from array import array
from typing import TYPE_CHECKING, Generic, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

IN_MEMORY = 500_000
"""Numbers that are held at once: sorting takes some 40 bytes for each."""

_BLOCK = 8_192
_BYTES = 8

Name = TypeVar("Name", bound="Hashable")


class Sorted(Generic[Name]):
    """Numbers of 64 bits under some names, told in ascending order; use it as a context manager.

    Those beyond `in_memory` go to a temporary file without a name: 8 bytes each, 80 MB for ten million.

    >>> with Sorted() as numbers:
    ...     numbers.add("a", 3)
    ...     numbers.add("a", 1)
    ...     list(numbers.under("a"))
    [1, 3]
    """

    def __init__(self, in_memory: int = IN_MEMORY) -> None:
        self._most = in_memory
        self._held = 0
        self._new: dict[Name, array[int]] = {}
        self._runs: dict[Name, list[tuple[int, int]]] = {}
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  `close` closes it

    def add(self, name: Name, number: int) -> None:
        """Take one in; OverflowError where it has more than 64 bits."""
        found = self._new.get(name)
        if found is None:
            found = self._new[name] = array("Q")
        found.append(number)
        self._held += 1
        if self._held >= self._most:
            self._spill()

    def names(self) -> list[Name]:
        """The names under which there are any, in the order in which they came."""
        return list(dict.fromkeys([*self._runs, *self._new]))

    def under(self, name: Name) -> Iterator[int]:
        """The numbers under a name, ascending; as often as each was taken in."""
        runs = [self._read(at, count) for at, count in self._runs.get(name, ())]
        return heapq.merge(*runs, sorted(self._new.get(name, ())))

    def _spill(self) -> None:
        for name, found in self._new.items():
            at = self._file.seek(0, os.SEEK_END)
            array("Q", sorted(found)).tofile(self._file)
            self._runs.setdefault(name, []).append((at, len(found)))
        self._file.flush()
        self._new, self._held = {}, 0

    def _read(self, at: int, count: int) -> Iterator[int]:
        for start in range(0, count, _BLOCK):
            length = min(_BLOCK, count - start) * _BYTES
            yield from array("Q", os.pread(self._file.fileno(), length, at + start * _BYTES))

    def close(self) -> None:
        """Give the file's room back."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
