"""A source's bytes as they come: opened, decompressed by what they are, refused where they are no text.

What a file is, its first bytes tell, whatever its name says: so gzip and zstd work through a pipe too.
"""

from __future__ import annotations

import io
import os
import select
import sys
from contextlib import suppress
from importlib import import_module
from stat import S_ISREG
from threading import Event, Lock
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from moe_bulk.errors import MoeBulkError, SourceError
from moe_bulk.sources.masking import masked
from moe_bulk.sources.remote import open_remote

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

BLOCK = 64 * 1024
"""Bytes that one read asks for. For larger ones the system is asked for memory each time, a page at a time."""

POLL_SECONDS = 0.25
"""How long to wait for a pipe before saying that nothing came: whoever reads may want to stop."""

_MAGIC = {
    b"\x1f\x8b": ".gz",
    b"\x28\xb5\x2f\xfd": ".zst",
    b"\xfd7zXZ\x00": ".xz",
    # A zstd file may begin with frames to skip, as pzstd's do: RFC 8878, 3.1.2.
    **{bytes((0x50 + number,)) + b"\x2a\x4d\x18": ".zst" for number in range(16)},
    # Its level, and then a block or, in an empty file, the end; text may well begin with BZh.
    **{b"BZh%d" % level + then: ".bz2" for level in range(1, 10) for then in (b"1AY&SY", b"\x17rE8P\x90")},
}
COMPRESSED = frozenset(_MAGIC.values())
"""Endings of compressed files."""
_IN_STANDARD_LIBRARY = {".gz": "gzip", ".bz2": "bz2", ".xz": "lzma"}

_HEAD = 4
_LONGEST_BLANK = 64 * 1024
_BOM = b"\xef\xbb\xbf"
_OTHER_BOMS = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_FOREIGN = {
    b"PK\x03\x04": "is a ZIP archive or a spreadsheet (.xlsx): unpack it, or save it as CSV in UTF-8",
}


class Readable(Protocol):
    """What bytes come from; None from `read` means that none are there yet."""

    def read(self, size: int, /) -> bytes | None:
        """Up to `size` bytes, nothing at the end."""

    def close(self) -> None:
        """Let go of it."""


class Bytes:
    """The decompressed bytes of one source, block by block; get one from `open_bytes`.

    `total` is the size as stored, where it is known. A byte order mark is left out: `start` is how long it was. `head`
    is what came first: enough to tell a format from it.
    """

    def __init__(self, name: str, raw: Readable, *, owned: bool = True, block: int = BLOCK) -> None:
        self.name = name.encode("utf-8", "backslashreplace").decode()  # file names need not be UTF-8, results are
        self.start = 0
        self.head = b""
        self._block = block
        self._files = [raw] if owned else []
        self._closed = Event()
        self._stored = _Stored(raw, self._closed)
        self.total = self._stored.size
        self._take: Callable[[int], bytes] = self._stored.read
        self._compression = ""
        self._more = False
        self._failed: SourceError | None = None
        self._busy = Lock()
        try:
            self._look()
        except BaseException:
            self.close()
            raise

    @property
    def is_plain(self) -> bool:
        """Whether these are the bytes of a plain file as they are stored, which can be read in any order."""
        return self.total is not None and not self._compression

    @property
    def consumed(self) -> int:
        """Stored (compressed) bytes that were read so far."""
        return self._stored.consumed

    def read(self) -> bytes | None:
        """What is there of the next block, nothing at the end, None when nothing came for a while.

        Raises SourceError where the rest cannot be read, and once it is closed.
        """
        if self.head:
            data, self.head = self.head, b""
            return data
        return self._guarded(self._next)

    def close(self) -> None:
        """Close it, from any thread: a read that is going on is not waited for, and closes it when it ends."""
        self._closed.set()
        if self._busy.acquire(blocking=False):
            try:
                for file in self._files:
                    with suppress(Exception):  # the data were read, or given up: nothing can be lost
                        file.close()
            finally:
                self._busy.release()

    def seek(self, offset: int) -> bool:
        """Read on from this byte of a plain file; False, and nothing changes, where all before it must be read."""
        if self._compression or not self._guarded(lambda: self._stored.seek(offset)):
            return False
        self.head = b""
        return True

    def _next(self) -> bytes | None:
        # A full block may leave more in the decompressor, and then the pipe has nothing to say about it.
        if not self._more and not self._stored.ready():
            return None
        data = self._take(self._block)
        self._more = bool(self._compression) and len(data) == self._block
        return data

    def _look(self) -> None:
        """Find out what it is; raises SourceError for what is neither UTF-8 text nor compressed in a known way."""
        if kind := self._guarded(self._stored.compression):
            self._compression = kind
            file = self._guarded(lambda: _decompressing(self._stored, kind))
            self._files.insert(0, file)
            # smart_open puts a buffer on top, which holds rows back, and loses them where the data behind is damaged.
            self._take = cast("Callable[[int], bytes]", taking(getattr(file, "raw", file)))
        head = b""
        while _needs_more(head) and (more := self._guarded(lambda: self._take(self._block))):
            head += more
        _refuse_foreign(self.name, head[:_HEAD])
        self.start = len(_BOM) if head.startswith(_BOM) else 0
        self.head = head[self.start :]

    def _guarded(self, act: Callable[[], T]) -> T:
        """Do what reads; whatever goes wrong with it is a SourceError."""
        if self._failed is None:
            try:
                with self._busy:
                    self._stored.refuse_closed()
                    return act()
            except MoeBulkError:
                raise
            except _ClosedError:
                self._failed = SourceError(f"{self.name} was closed before its end")
            except Exception as error:  # noqa: BLE001  every transport and every decompressor has exceptions of its own
                self._failed = unreadable(self.name, error, self._compression)
            finally:
                if self._closed.is_set():
                    self.close()
        raise self._failed from None


class _ClosedError(Exception):
    """Somebody closed it while more was waited for."""


class _Stored:
    """The bytes as they are stored: counts what is taken, looks at the first ones, and knows whether more are there."""

    def __init__(self, raw: Readable, closed: Event) -> None:
        self.consumed = 0
        self.size = _size_of(raw)
        self._raw = raw
        self._take_some = taking(raw)
        self._wait = waiting(raw)
        self._closed = closed
        self._head = b""

    def ready(self) -> bool:
        """True when a read would give something at once, or never; waits a moment for it."""
        return bool(self._head) or self._wait(POLL_SECONDS)

    def seek(self, offset: int) -> bool:
        """Read on from a byte of a plain file, counted from where reading began; False where that cannot be done."""
        if self.size is None or not hasattr(self._raw, "seek"):
            return False
        # Relative: a shell's redirected file may have been read in part, and then it does not begin at its first byte.
        self._raw.seek(offset - self.consumed - len(self._head), os.SEEK_CUR)
        self._head = b""
        self.consumed = offset
        return True

    def compression(self) -> str | None:
        """What the first bytes say; they stay there to be read."""
        while any(magic.startswith(self._head) and magic != self._head for magic in _MAGIC):
            if not (more := self._take(1 if self._head else _HEAD)):
                break
            self._head += more
        return next((kind for magic, kind in _MAGIC.items() if self._head.startswith(magic)), None)

    def read(self, size: int) -> bytes:
        """What is there, `size` bytes at most; nothing at the end. It waits for the first one, unless it is closed."""
        if self._head:
            data, self._head = self._head[:size], self._head[size:]
        else:
            data = self._take(size)
        self.consumed += len(data)
        return data

    def _take(self, size: int) -> bytes:
        while not self.ready() or (data := self._take_some(size)) is None:
            self.refuse_closed()
        return data

    def refuse_closed(self) -> None:
        if self._closed.is_set():
            raise _ClosedError


def open_bytes(name: str, *, raw: Readable | None = None, block: int = BLOCK) -> Bytes:
    """Open a path, a URL or, as `-`, standard input. Raises SourceError, with what to do about it.

    `raw` is the opened thing itself, where somebody has it already; then it is not closed.
    """
    opened = open_raw(name) if raw is None else raw
    return Bytes(_shown(name), opened, owned=raw is None, block=block)


def open_raw(name: str) -> Readable:
    """The stored bytes of a path, a URL or, as `-`, standard input, which stays open when they are closed.

    Raises SourceError where there are none to be had.
    """
    try:
        if name == "-":
            return _standard_input()
        return cast("Readable", io.FileIO(name, opener=_at_once)) if "://" not in name else open_remote(name)
    except MoeBulkError:
        raise
    except Exception as error:  # noqa: BLE001  every transport has exceptions of its own
        raise unreadable(_shown(name), error) from None


def _at_once(name: str, flags: int) -> int:
    # a named pipe would wait for its writer where nobody can tell it to stop; so whoever reads waits for it
    return os.open(name, flags | os.O_NONBLOCK)


def _shown(name: str) -> str:
    return "stdin" if name == "-" else masked(name) if "://" in name else name


def unreadable(name: str, error: Exception, compression: str = "") -> SourceError:
    """What to tell of an input that cannot be read, or not to its end."""
    match error:
        case FileNotFoundError():
            said = f"there is no file {name}"
        case IsADirectoryError():
            said = f"{name} is a folder: name its files, or a glob such as '{name}/*.csv'"
        case PermissionError():
            said = f"you may not read {name}: ask its owner, or change its permissions"
        case ImportError():
            said = f"{name} cannot be read without the package {error.name}: install it with pip"
        case OSError(strerror=str(why)):
            said = f"{name} cannot be read: {masked(why)}"
        case _ if compression:
            said = (
                f"{name} cannot be read on: it is damaged or cut off ({brief(error)}). The rows before that place "
                f"were read; get a whole copy of this {compression} file, then run again"
            )
        case _:
            said = f"{name} cannot be read: {brief(error)}"
    return SourceError(said)


def brief(error: Exception) -> str:
    """What an exception says, on one line that is not too long."""
    return masked(f"{type(error).__name__}: {error}")[:200]


def _needs_more(head: bytes) -> bool:
    """True while nothing can be told from the first bytes: they are too few, blank, or begin who knows what array."""
    return len(head) < _HEAD or (len(head) < _LONGEST_BLANK and head.removeprefix(_BOM).strip() in (b"", b"["))


def _refuse_foreign(name: str, head: bytes) -> None:
    for magic, why in _FOREIGN.items():
        if head.startswith(magic):
            raise SourceError(f"{name} {why}")
    encoding = next((found for mark, found in _OTHER_BOMS.items() if head.startswith(mark)), None)
    nuls = tuple(byte == 0 for byte in head)
    if nuls == (False, True, False, True):
        encoding = encoding or "UTF-16LE"
    if nuls == (True, False, True, False):
        encoding = encoding or "UTF-16BE"
    if encoding:
        hint = f"iconv -f {encoding} -t UTF-8 OLD > NEW"
        raise SourceError(f"{name} is not UTF-8 but {encoding}: convert it with {hint}")


def _decompressing(stored: _Stored, kind: str) -> Readable:
    # What the standard library can do it does by itself: smart_open loads all its extras first, 12 MB with that for S3.
    if module := _IN_STANDARD_LIBRARY.get(kind):
        return cast("Readable", import_module(module).open(stored, "rb"))
    from smart_open.compression import compression_wrapper  # noqa: PLC0415  for those who compress

    return cast("Readable", compression_wrapper(cast("Any", stored), "rb", compression=kind))


def taking(raw: Readable) -> Callable[[int], bytes | None]:
    """A read that gives what is there, as soon as anything is."""
    return getattr(raw, "read1", None) or raw.read


def waiting(raw: Readable) -> Callable[[float], bool]:
    """What to ask whether a read would give something at once, or never; it waits so many seconds for it.

    A stream that has a `ready` of its own is asked that, others by their descriptor; without one they are ready always.
    """
    if ready := getattr(raw, "ready", None):
        return cast("Callable[[float], bool]", ready)
    descriptor = _descriptor_of(raw)
    if descriptor is None or _size_of(raw) is not None:
        return lambda _seconds: True
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return lambda seconds: bool(poll.poll(seconds * 1000))


def _size_of(raw: Readable) -> int | None:
    """What a plain file has; None for other streams."""
    try:
        status = os.fstat(cast("io.FileIO", raw).fileno())
    except (AttributeError, OSError, ValueError):  # not every stream has a descriptor, or an open one
        return None
    return status.st_size if S_ISREG(status.st_mode) else None


def _descriptor_of(raw: Readable) -> int | None:
    try:
        return cast("io.FileIO", raw).fileno()
    except (AttributeError, OSError, ValueError):  # not every stream has one
        return None


def _standard_input() -> Readable:
    """Standard input without Python's buffer, which a thread left reading would keep locked to the end and beyond."""
    if sys.stdin is None:
        raise SourceError("standard input is closed: pipe the rows in, or name a file")
    try:
        return io.FileIO(sys.stdin.fileno(), closefd=False)
    except (OSError, ValueError):  # somebody put an object of their own in its place
        return _Borrowed(cast("Readable", sys.stdin.buffer))


class _Borrowed:
    """Somebody's own object, which is read and left open."""

    def __init__(self, raw: Readable) -> None:
        self.read = taking(raw)

    def close(self) -> None:
        """It is not ours."""
