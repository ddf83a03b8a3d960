"""Where one attempt at a partition is written: in the shared folder itself, or beside it and copied as it goes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from moe_bulk.spark.attempts import take_over
from moe_bulk.spark.mirror import MirroredPlace
from moe_bulk.spark.shelf import LocalShelf

if TYPE_CHECKING:
    from pathlib import Path

    from moe_bulk.spark.shelf import Shelf


class Place(Protocol):
    """A run folder on this host for one attempt, and how what is written there gets where it belongs."""

    folder: Path
    """Where the upload writes."""
    attempt: int
    """Which attempt at the partition it is, counted from 0."""
    where: str
    """Where people find it."""

    def begun(self) -> None:
        """To be called when the run has begun or gone on, before anything is written."""

    def keep(self) -> None:
        """Bring what is new where it belongs; to be called again and again, in a thread.

        Raises JournalError where that cannot be, and where another attempt has taken over.
        """

    def close(self) -> None:
        """The same for the last time, and tidy up."""


class LocalPlace:
    """A run folder that lies where it belongs."""

    def __init__(self, folder: Path, attempt: int) -> None:
        self.folder = folder
        self.attempt = attempt
        self.where = str(folder)

    def begun(self) -> None:
        """There is nothing to do."""

    def keep(self) -> None:
        """Nor here."""

    def close(self) -> None:
        """Nor here."""


def is_locked(shelf: Shelf) -> bool:
    """Whether taking a place waits for the attempt before it to end, by a lock that the system takes from the dead."""
    return isinstance(shelf, LocalShelf)


def take_place(shelf: Shelf, folder: str, partition: int) -> Place:
    """The place for the next attempt at a partition, within a folder of the shelf, with what the one before left."""
    if isinstance(shelf, LocalShelf):
        return LocalPlace(*take_over(shelf.root / folder, partition))
    return MirroredPlace.take_over(shelf, folder, partition)
