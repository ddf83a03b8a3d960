"""A run folder on the executor's disk, copied to an object store as it grows.

Objects cannot be appended to. So what results and dead letters have grown by becomes a new object every few seconds,
whole lines, named by the attempt that wrote it; the objects of all attempts, one after the other, are the file. What a
killed executor had not copied yet is sent again by the next attempt, and that is all it costs: everything else that a
run needs to go on is read back from the results.

    run/part-00003/attempt-0/results-000000.ndjson …       as they settle
    run/part-00003/attempt-0/dead-letter-000000.ndjson …   until all is settled
    run/part-00003/attempt.json, checkpoint.json           who is at work, and what the rows were
    run/part-00003/dead-letter.ndjson, summary.json, …     once all is settled
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from moe_bulk.checkpoint import Checkpoint
from moe_bulk.errors import JournalError
from moe_bulk.journal import DEAD_LETTER, RESULTS, telling
from moe_bulk.naming import CHECKPOINT, REPORT, SUMMARY
from moe_bulk.spark.attempts import part_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from moe_bulk.spark.shelf import Shelf

MOST_BYTES = 32_000_000
"""The size of one object at most."""

_GROWING = (DEAD_LETTER, RESULTS)
_AT_THE_END = (DEAD_LETTER, SUMMARY, REPORT)
_STATE = "attempt.json"


@dataclass(slots=True)
class _Past:
    """What counts of the attempts before: those from `since` on, and of each so many objects of each file."""

    since: int = 0
    objects: dict[int, dict[str, int]] = field(default_factory=dict)


class MirroredPlace:
    """The place of one attempt: `folder` is on this host's disk, `where` in the store.

    Of the attempts before, the objects count that the next one found: what came later, from an executor that did not
    know yet that it was given up, tells of rows that were sent again. Where a run began again, none of them do.
    """

    def __init__(self, shelf: Shelf, name: str, staging: Path, attempt: int, past: _Past) -> None:
        self.folder = staging / f"{name.rpartition('/')[2]}.run"
        self.attempt = attempt
        self.where = shelf.where(name)
        self._shelf = shelf
        self._name = name
        self._staging = staging
        self._past = past
        self._token = secrets.token_hex(8)
        self._copying = threading.Lock()  # a task that is cancelled leaves a thread behind, and closes
        self._copied = dict.fromkeys(_GROWING, 0)
        self._objects = dict.fromkeys(_GROWING, 0)
        self._restored: int | None = None
        """The inode of the results that were taken over: others are those of a run that started over."""
        self._anew = False

    @classmethod
    def take_over(cls, shelf: Shelf, folder: str, partition: int) -> MirroredPlace:
        """Make a folder on disk with what the attempts before have copied; they are over from now on."""
        name = f"{folder}/{part_name(partition)}"
        state = _state(shelf, name)
        attempt, past = _told(state) if state is not None else (0, _Past())
        with telling(Path(tempfile.gettempdir())):
            staging = Path(tempfile.mkdtemp(prefix="moe-bulk-spark-"))
        place = cls(shelf, name, staging, attempt, past)
        try:
            place._say_so()  # from now on the attempt before copies nothing more, but for one object perhaps
            place._count()
            place._restore()
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        return place

    def begun(self) -> None:
        """See what became of the files that were taken over, before anything is written behind them.

        The run may have been moved aside, for other rows. Or lines were cut off: a host that died between two objects
        leaves dead letters without their results. Then the objects of the attempts before are no longer its beginning.
        """
        if self._restored is not None:
            moved = (self.folder / RESULTS).stat().st_ino != self._restored
            self._anew = moved or any(self._length(name) < self._copied[name] for name in _GROWING)

    def keep(self) -> None:
        """Copy what is new. Raises JournalError where the store does not take it, or a later attempt is at work."""
        with self._copying:
            checkpoint = self._read(CHECKPOINT)
            if checkpoint is None or _is_finished(checkpoint):
                return  # at its end the dead letters are put in order: what was copied is no longer their beginning
            self._refuse_if_over()
            self._begin_anew()
            self._go_on(checkpoint)

    def close(self) -> None:
        """Copy the rest, and what there is at a run's end, and leave nothing of it on this disk."""
        with self._copying:
            try:
                checkpoint = self._read(CHECKPOINT)
                if checkpoint is not None:
                    self._refuse_if_over()
                    self._begin_anew()
                    if _is_finished(checkpoint):
                        self._finish(checkpoint)
                    else:
                        self._go_on(checkpoint, SUMMARY, REPORT)
            finally:
                shutil.rmtree(self._staging, ignore_errors=True)

    def _go_on(self, checkpoint: bytes, *also: str) -> None:
        self._copy_lines()
        for name in also:
            self._put(name)
        self._shelf.write(f"{self._name}/{CHECKPOINT}", checkpoint)

    def _finish(self, checkpoint: bytes) -> None:
        self._copy(RESULTS, self._length(RESULTS))
        for name in _AT_THE_END:
            self._put(name)
        self._shelf.write(f"{self._name}/{CHECKPOINT}", checkpoint)
        for attempt in range(self.attempt + 1):  # they stand in one object now
            folder = self._folder_of(attempt)
            for name in filter(_belongs_to(DEAD_LETTER), self._shelf.names(folder)):
                self._shelf.remove(f"{folder}/{name}")

    # -- what goes there ---------------------------------------------------------------------------------------------

    def _copy_lines(self) -> None:
        # A dead letter is written before its result. So, of the results that are there now, all letters are there now.
        results = self._length(RESULTS)
        self._copy(DEAD_LETTER, self._length(DEAD_LETTER))
        self._copy(RESULTS, results)

    def _copy(self, name: str, end: int) -> None:
        """Copy the whole lines up to there that were not copied yet."""
        with telling(self.folder), contextlib.suppress(FileNotFoundError), (self.folder / name).open("rb") as file:
            while self._copied[name] < end:
                file.seek(self._copied[name])
                new = file.read(min(MOST_BYTES, end - self._copied[name]))
                lines = new[: new.rfind(b"\n") + 1]
                if not lines:
                    return
                number = self._objects[name]
                self._shelf.write(f"{self._folder_of(self.attempt)}/{_numbered(name, number)}", lines)
                self._objects[name] += 1
                self._copied[name] += len(lines)

    def _put(self, name: str) -> None:
        if (self.folder / name).exists():
            self._shelf.put(f"{self._name}/{name}", self.folder / name)

    def _say_so(self) -> None:
        past = {"since": self._past.since, "objects": {str(at): n for at, n in self._past.objects.items()}}
        state = {"format": 1, "attempt": self.attempt, "token": self._token, **past}
        self._shelf.write(f"{self._name}/{_STATE}", orjson.dumps(state, option=orjson.OPT_APPEND_NEWLINE))

    def _count(self) -> None:
        """Note how many objects there are of the attempts before, where the attempt after them has not done so."""
        for attempt in range(self._past.since, self.attempt):
            if attempt not in self._past.objects:
                names = self._shelf.names(self._folder_of(attempt))
                self._past.objects[attempt] = {name: sum(map(_belongs_to(name), names)) for name in _GROWING}
        self._say_so()

    def _refuse_if_over(self) -> None:
        state = _state(self._shelf, self._name)
        if state is None or state.get("token") != self._token:
            raise JournalError(f"a later attempt has taken over {self.where}: this one sends no more")

    def _begin_anew(self) -> None:
        """Copy everything as objects of this attempt, where those of the attempts before count no more."""
        if self._anew:
            self._anew, self._past = False, _Past(self.attempt)
            self._copied = dict.fromkeys(_GROWING, 0)
            self._say_so()

    # -- what comes from there ---------------------------------------------------------------------------------------

    def _restore(self) -> None:
        content = self._shelf.read(f"{self._name}/{CHECKPOINT}") if self.attempt else None
        if content is None:
            return  # no attempt came so far
        try:
            checkpoint = Checkpoint.from_json(content)
        except ValueError as error:
            raise JournalError(f"{self.where}/{CHECKPOINT} is damaged ({error}): use another run_id") from None
        with telling(self.folder):
            self.folder.mkdir(mode=0o700)
        for name in _GROWING:
            if checkpoint.finished and name == DEAD_LETTER:
                continue
            self._write(name, *self._objects_before(name))
            self._copied[name] = self._length(name)
        if checkpoint.finished:
            for name in _AT_THE_END:
                self._write(name, f"{self._name}/{name}")
        else:
            # of what is settled the lines tell, and they alone are sure to be there
            content = checkpoint.emptied().as_json()
        self._write(CHECKPOINT, content=content)
        self._restored = (self.folder / RESULTS).stat().st_ino

    def _write(self, name: str, *objects: str, content: bytes = b"") -> None:
        with telling(self.folder):
            fd = os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(content)
                for each in objects:
                    self._shelf.fetch(each, file)

    def _objects_before(self, name: str) -> Iterator[str]:
        """The objects that make up a file, in their order."""
        for attempt, counts in sorted(self._past.objects.items()):
            yield from (f"{self._folder_of(attempt)}/{_numbered(name, each)}" for each in range(counts[name]))

    def _folder_of(self, attempt: int) -> str:
        return f"{self._name}/attempt-{attempt}"

    def _length(self, name: str) -> int:
        try:
            return (self.folder / name).stat().st_size
        except FileNotFoundError:
            return 0

    def _read(self, name: str) -> bytes | None:
        with telling(self.folder):
            try:
                return (self.folder / name).read_bytes()
            except FileNotFoundError:
                return None


def _stem(name: str) -> str:
    return f"{name.partition('.')[0]}-"


def _numbered(name: str, number: int) -> str:
    return f"{_stem(name)}{number:06}.{name.partition('.')[2]}"


def _belongs_to(name: str) -> Callable[[str], bool]:
    return lambda each: each.startswith(_stem(name))


def _is_finished(checkpoint: bytes) -> bool:
    return bool(orjson.loads(checkpoint).get("finished"))


def _state(shelf: Shelf, name: str) -> dict[str, object] | None:
    content = shelf.read(f"{name}/{_STATE}")
    if content is None:
        return None
    try:
        said = orjson.loads(content)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise JournalError(f"{shelf.where(name)}/{_STATE} is damaged: use another run_id")
    return said


def _told(state: dict[str, object]) -> tuple[int, _Past]:
    """The number of the next attempt, and what counts of those before it."""
    try:
        objects = {int(at): {name: int(n[name]) for name in _GROWING} for at, n in dict(state["objects"]).items()}  # type: ignore[call-overload]
        return int(state["attempt"]) + 1, _Past(int(state["since"]), objects)  # type: ignore[call-overload]
    except (KeyError, TypeError, ValueError):
        raise JournalError(f"{_STATE} is damaged: use another run_id") from None
