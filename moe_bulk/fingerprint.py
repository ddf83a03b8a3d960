"""By what an input is known again: files by size, time and content, streams and rows by hashes of their beginnings."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, Literal, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Kind = Literal["file", "stream", "rows"]

FIRST_MARK = 1 << 16
"""Bytes of a stream before its first mark; each further one stands at twice as many. Rows begin at 1."""

_BLOCK = 1 << 20
_DIGEST = 16


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What one source was.

    A plain file has `size` (bytes), `mtime_ns` and, once it was read for it, `digest`. What can be read only once has
    `marks`: (n, digest of the first n bytes or rows), ascending; `ended` says that the last one is the whole of it.
    """

    name: str
    kind: Kind
    size: int | None = None
    mtime_ns: int | None = None
    digest: str | None = None
    marks: tuple[tuple[int, str], ...] = ()
    ended: bool = False

    def as_json(self) -> dict[str, object]:
        """The form that stands in a checkpoint."""
        return {name: value for name, value in asdict(self).items() if value is not None and value is not False}

    @classmethod
    def from_json(cls, said: object) -> Self:
        """What `as_json` told; ValueError for anything else."""
        if not isinstance(said, dict) or not said.keys() <= set(cls.__slots__):
            raise ValueError(f"a source is told by {', '.join(cls.__slots__)}")
        name, kind, ended = said.get("name"), said.get("kind"), said.get("ended", False)
        if type(name) is not str or kind not in ("file", "stream", "rows") or type(ended) is not bool:
            raise ValueError("a source has a name, a kind (file, stream or rows) and may be ended")
        digest = said.get("digest")
        if digest is not None and type(digest) is not str:
            raise ValueError(f"the digest of {name} is no text")
        marks = said.get("marks", [])
        return cls(name, kind, _count(said, "size"), _whole(said, "mtime_ns"), digest, _marks(name, marks), ended)


def _whole(said: dict[str, object], name: str) -> int | None:
    value = said.get(name)
    if value is None or (isinstance(value, int) and type(value) is int):
        return value
    raise ValueError(f"{name} is {value!r}, no whole number")


def _count(said: dict[str, object], name: str) -> int | None:
    value = _whole(said, name)
    if value is not None and value < 0:
        raise ValueError(f"{name} is negative")
    return value


def _marks(name: str, said: object) -> tuple[tuple[int, str], ...]:
    if not isinstance(said, (list, tuple)):
        raise ValueError(f"the marks of {name} are no list")  # noqa: TRY004  one exception for all that is no checkpoint
    marks: list[tuple[int, str]] = []
    for mark in said:
        match mark:
            case [int() as at, str() as digest] if type(at) is int and at > (marks[-1][0] if marks else -1):
                marks.append((at, digest))
            case _:
                raise ValueError(f"a mark of {name} is {mark!r}: not an ascending number and a digest")
    return tuple(marks)


def of_file(path: str) -> Fingerprint | None:
    """What a plain file looks like from outside; None for what can be read only once, is not there, or is no file.

    `-` and URLs are names of other things, even where there is a file of that name.
    """
    if path == "-" or "://" in path:
        return None
    try:
        about = Path(path).stat()
    except (OSError, ValueError):  # a name with a NUL in it
        return None
    return Fingerprint(path, "file", about.st_size, about.st_mtime_ns) if S_ISREG(about.st_mode) else None


def digest_of(path: str, stopping: Callable[[], bool] = lambda: False) -> str | None:
    """The digest of a whole file; None where it was stopped before its end, or cannot be read."""
    digest = _new()
    try:
        with Path(path).open("rb", buffering=0) as file:
            while block := file.read(_BLOCK):
                if stopping():
                    return None
                digest.update(block)
    except OSError:
        return None
    return digest.hexdigest()


def same_file(recorded: Fingerprint, path: str, stopping: Callable[[], bool] = lambda: False) -> bool:
    """Whether a file holds what it held: by size and modification time, else by its content where that is known."""
    now = of_file(path)
    if now is None or now.size != recorded.size:
        return False
    if now.mtime_ns == recorded.mtime_ns:
        return True
    return recorded.digest is not None and digest_of(path, stopping) == recorded.digest


class _Feed:
    """A digest of what comes, which stops at given places; `at` counts bytes, or rows."""

    def __init__(self) -> None:
        self.at = 0
        self._digest = _new()

    def hexdigest(self) -> str:
        return self._digest.copy().hexdigest()

    def row(self, data: bytes) -> None:
        self._digest.update(len(data).to_bytes(8, "big"))
        self._digest.update(data)
        self.at += 1

    def bytes(self, data: memoryview) -> None:
        self._digest.update(data)
        self.at += len(data)


class Marks:
    """Marks a stream while it is read, so that it is known again when it is fed again. Any thread may ask for `state`.

    >>> marks = Marks()
    >>> marks.row(b"first"), marks.row(b"second")
    (None, None)
    >>> [at for at, _ in marks.state()[0]]
    [1, 2]
    """

    def __init__(self) -> None:
        self._feed = _Feed()
        self._marks: list[tuple[int, str]] = []
        self._next = 0
        self._ended = False
        self._lock = threading.Lock()

    def update(self, data: bytes) -> None:
        """Some more bytes."""
        with self._lock:
            self._next = self._next or FIRST_MARK
            left = memoryview(data)
            while left:
                taken = left[: self._next - self._feed.at]
                self._feed.bytes(taken)
                left = left[len(taken) :]
                self._mark()

    def row(self, data: bytes) -> None:
        """One more row."""
        with self._lock:
            self._next = self._next or 1
            self._feed.row(data)
            self._mark()

    def end(self) -> None:
        """There is no more."""
        with self._lock:
            self._ended = True

    def state(self) -> tuple[tuple[tuple[int, str], ...], bool]:
        """All marks, the last one of them at the present place; and whether that is the end."""
        with self._lock:
            here = (self._feed.at, self._feed.hexdigest())
            return (*(mark for mark in self._marks if mark != here), here), self._ended

    def _mark(self) -> None:
        if self._feed.at == self._next:
            self._marks.append((self._next, self._feed.hexdigest()))
            self._next *= 2


class Comparison:
    """Compares what is fed again with the `marks` of last time; `ended` says that nothing came behind the last one.

    It `differs` from the first mark on that is not met. It is `settled` when all are, and what should end has ended.
    """

    def __init__(self, marks: Sequence[tuple[int, str]], *, ended: bool) -> None:
        self.differs = False
        self._left = list(reversed(marks))
        self._ended = ended
        self._over = False
        self._feed = _Feed()
        self._check()

    @property
    def settled(self) -> bool:
        """True when enough was seen to know that it is the same."""
        return not self.differs and not self._left and (self._over or not self._ended)

    def update(self, data: bytes) -> None:
        """Some more bytes."""
        left = memoryview(data)
        while left and self._left and not self.differs:
            taken = left[: self._left[-1][0] - self._feed.at]
            self._feed.bytes(taken)
            left = left[len(taken) :]
            self._check()
        self._beyond(more=bool(left))

    def row(self, data: bytes) -> None:
        """One more row."""
        if not self._left:
            self._beyond(more=True)
            return
        self._feed.row(data)
        self._check()

    def end(self) -> None:
        """There is no more."""
        self._over = True
        self.differs = self.differs or bool(self._left)

    def _check(self) -> None:
        while self._left and self._left[-1][0] == self._feed.at:
            _, known = self._left.pop()
            self.differs = self.differs or known != self._feed.hexdigest()

    def _beyond(self, *, more: bool) -> None:
        self.differs = self.differs or (more and self._ended and not self._left)


def _new() -> blake2b:
    return blake2b(digest_size=_DIGEST)
