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
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from moe_bulk.checkpoint import Checkpoint
from moe_bulk.errors import JournalError
from moe_bulk.journal import DEAD_LETTER, RESULTS, telling
from moe_bulk.naming import CHECKPOINT, REPORT, SUMMARY
from moe_bulk.spark.attempts import part_name

if TYPE_CHECKING:
    from moe_bulk.spark.shelf import Shelf

MOST_BYTES = 32_000_000
"""The size of one object at most."""

_GROWING = (DEAD_LETTER, RESULTS)
_AT_THE_END = (DEAD_LETTER, SUMMARY, REPORT)
_STATE = "attempt.json"


class MirroredPlace:
    """The place of one attempt: `folder` is on this host's disk, `where` in the store.

    `since` is the first attempt whose objects count: a later one than 0 where rows had to be sent again.
    """

    def __init__(self, shelf: Shelf, name: str, staging: Path, attempt: int, since: int) -> None:
        self.folder = staging / f"{name.rpartition('/')[2]}.run"
        self.attempt = attempt
        self.where = shelf.where(name)
        self._shelf = shelf
        self._name = name
        self._staging = staging
        self._since = since
        self._token = secrets.token_hex(8)
        self._copied = dict.fromkeys(_GROWING, 0)
        self._objects = dict.fromkeys(_GROWING, 0)
        self._restored: int | None = None
        """The inode of the results that were taken over: others are those of a run that started over."""

    @classmethod
    def take_over(cls, shelf: Shelf, folder: str, partition: int) -> MirroredPlace:
        """Make a folder on disk with what the attempts before have copied; they are over from now on."""
        name = f"{folder}/{part_name(partition)}"
        state = _state(shelf, name)
        attempt = 0 if state is None else _number(state, "attempt") + 1
        since = 0 if state is None else _number(state, "since")
        with telling(Path(tempfile.gettempdir())):
            staging = Path(tempfile.mkdtemp(prefix="moe-bulk-spark-"))
        place = cls(shelf, name, staging, attempt, since)
        try:
            place._say_so()
            place._restore()
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        return place

    def keep(self) -> None:
        """Copy what is new. Raises JournalError where the store does not take it, or a later attempt is at work."""
        self._refuse_if_over()
        self._look_whether_it_began_again()
        checkpoint = self._read(CHECKPOINT)
        if checkpoint is None or _is_finished(checkpoint):
            return  # at its end the dead letters are put in order: what was copied is no longer their beginning
        self._copy_lines()
        self._shelf.write(f"{self._name}/{CHECKPOINT}", checkpoint)

    def close(self) -> None:
        """Copy the rest, and what there is at a run's end, and leave nothing of it on this disk."""
        try:
            checkpoint = self._read(CHECKPOINT)
            if checkpoint is not None:
                self._refuse_if_over()
                self._look_whether_it_began_again()
                if _is_finished(checkpoint):
                    self._finish(checkpoint)
                else:
                    self._copy_lines()
                    for name in (SUMMARY, REPORT):
                        self._put(name)
                    self._shelf.write(f"{self._name}/{CHECKPOINT}", checkpoint)
        finally:
            shutil.rmtree(self._staging, ignore_errors=True)

    def _finish(self, checkpoint: bytes) -> None:
        self._copy(RESULTS, self._length(RESULTS))
        for name in _AT_THE_END:
            self._put(name)
        self._shelf.write(f"{self._name}/{CHECKPOINT}", checkpoint)
        for attempt in range(self._since, self.attempt + 1):  # they stand in one object now
            for name in self._objects_of(attempt, DEAD_LETTER):
                self._shelf.remove(name)

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
        content = self._read(name)
        if content is not None:
            self._shelf.write(f"{self._name}/{name}", content)

    def _say_so(self) -> None:
        state = {"format": 1, "attempt": self.attempt, "since": self._since, "token": self._token}
        self._shelf.write(f"{self._name}/{_STATE}", orjson.dumps(state, option=orjson.OPT_APPEND_NEWLINE))

    def _refuse_if_over(self) -> None:
        state = _state(self._shelf, self._name)
        if state is None or state.get("token") != self._token:
            raise JournalError(f"a later attempt has taken over {self.where}: this one sends no more")

    def _look_whether_it_began_again(self) -> None:
        """See whether the run that was restored was moved aside, for other rows: its objects count no more."""
        with contextlib.suppress(FileNotFoundError):
            inode = (self.folder / RESULTS).stat().st_ino
            if self._restored is not None and inode != self._restored:
                self._restored, self._since = None, self.attempt
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
            self._write(
                name, *(part for each in range(self._since, self.attempt) for part in self._objects_of(each, name))
            )
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
                    file.write(self._shelf.read(each) or b"")

    def _objects_of(self, attempt: int, name: str) -> list[str]:
        folder, stem = self._folder_of(attempt), name.partition(".")[0]
        return [f"{folder}/{each}" for each in self._shelf.names(folder) if each.startswith(f"{stem}-")]

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


def _numbered(name: str, number: int) -> str:
    stem, _, ending = name.partition(".")
    return f"{stem}-{number:06}.{ending}"


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


def _number(state: dict[str, object], name: str) -> int:
    value = state.get(name)
    return value if isinstance(value, int) and value >= 0 else 0
