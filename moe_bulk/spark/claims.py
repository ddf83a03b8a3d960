"""Which partition sends to a workspace at a pace of its own: one of one job, and on no host another one beside it."""

from __future__ import annotations

import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

import orjson

from moe_bulk.errors import JournalError
from moe_bulk.spark.attempts import alone_name, others_alone
from moe_bulk.spark.rules import alone

if TYPE_CHECKING:
    from moe_bulk.spark.rules import Task
    from moe_bulk.spark.settings import Settings
    from moe_bulk.spark.shelf import Shelf

GIVEN_UP_SECONDS = 30.0
"""Whoever has not seen for so long that the claim is still theirs sends no more; whoever succeeds them waits for it."""


class Claim:
    """A file that says who sends.

    Another partition of the same job is refused by it. A later attempt, or another job of the same run, takes its
    place, and the one that had it sees that.
    """

    def __init__(self, shelf: Shelf, folder: str, partition: int, job: str) -> None:
        self._shelf = shelf
        self._folder = folder
        self._partition = partition
        self._job = job
        self._holder = secrets.token_hex(8)
        self.succeeds = False
        """Whether somebody had claimed the workspace who may not know yet that it is over."""

    @classmethod
    def take(cls, shelf: Shelf, folder: str, settings: Settings, task: Task, *, locked: bool) -> Claim:
        """Say that this partition sends to a workspace; raises ConfigError where another one of this job does.

        `locked` says that the attempt before at this partition is waited for in any case.
        """
        claim = cls(shelf, folder, task.partition, task.job)
        before = claim._said_by(task.partition)
        claim._write(ended=False)
        # written first, then looked: of two at the same time at least one sees the other
        others = others_alone(shelf.names(folder), task.partition)
        said = {other: each for other in others if (each := claim._said_by(other)) is not None}
        if beside := [other for other, each in said.items() if each.get("job") == task.job]:
            shelf.remove(claim._name_of(task.partition))
            raise alone(settings, task.partition, beside)
        for other in said:
            shelf.remove(claim._name_of(other))
        gone = list(said.values()) if before is None or locked else [*said.values(), before]
        claim.succeeds = not all(each.get("ended") for each in gone)
        return claim

    def stands(self) -> bool:
        """Whether nobody has taken its place. Raises JournalError where that cannot be seen."""
        said = self._said_by(self._partition)
        return said is not None and said.get("holder") == self._holder

    def end(self) -> None:
        """Say that this attempt sends no more: nobody has to wait for it, and the claim is its job's until the end."""
        with suppress(JournalError):  # then they wait
            if self.stands():
                self._write(ended=True)

    def _write(self, *, ended: bool) -> None:
        said = {"format": 1, "job": self._job, "holder": self._holder, "ended": ended}
        self._shelf.write(self._name_of(self._partition), orjson.dumps(said, option=orjson.OPT_APPEND_NEWLINE))

    def _name_of(self, partition: int) -> str:
        return f"{self._folder}/{alone_name(partition)}"

    def _said_by(self, partition: int) -> dict[str, object] | None:
        """What a partition's claim says, nothing where it is damaged; None where there is none."""
        content = self._shelf.read(self._name_of(partition))
        if content is None:
            return None
        try:
            said = orjson.loads(content)
        except ValueError:
            return {}
        return said if isinstance(said, dict) else {}
