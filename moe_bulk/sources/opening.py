"""Open a file, a URL or standard input as a stream of decompressed bytes."""

from __future__ import annotations

import io
import os
import select
import sys
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

import smart_open
from smart_open.compression import compression_wrapper

from moe_bulk.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Callable

BLOCK = 64 * 1024
"""Bytes that are read at a time: some hundred rows."""

POLL_SECONDS = 0.25
"""How long to wait for standard input before saying that nothing came: whoever reads may want to stop."""

_MAGIC = {b"\x1f\x8b": ".gz", b"\x28\xb5\x2f\xfd": ".zst", b"BZh": ".bz2", b"\xfd7zXZ": ".xz"}
_LONGEST_MAGIC = 6


class Bytes(Protocol):
    """A stream of bytes that says how far it has come."""

    def read(self) -> bytes | None:
        """The next bytes: b"" at the end, None when nothing came for a while. Raises SourceError."""

    def progress(self) -> tuple[int, int | None]:
        """Bytes read and in all, as stored."""

    def close(self) -> None:
        """Close it."""


class StoredBytes:
    """A file or URL, decompressed by what its first bytes say."""

    def __init__(self, name: str, raw: BinaryIO, size: int | None) -> None:
        self._name = name
        self._raw = raw
        self._size = size
        self._error: Exception | None = None
        head = raw.read(_LONGEST_MAGIC)
        raw.seek(0)
        kind = next((ending for magic, ending in _MAGIC.items() if head.startswith(magic)), None)
        stream = raw if kind is None else compression_wrapper(raw, "rb", kind)
        self._stream = cast("BinaryIO", stream)
        self._read_some: Callable[[int], bytes] = getattr(stream, "read1", stream.read)

    def read(self) -> bytes:
        """Up to a block: what could be read before a damaged place comes first, the error after it."""
        if self._error is not None:
            raise self._damaged(self._error) from None
        block = bytearray()
        try:
            while len(block) < BLOCK and (some := self._read_some(BLOCK - len(block))):
                block += some
        except Exception as error:  # noqa: BLE001  each decompressor and each store has its own
            if not block:
                raise self._damaged(error) from None
            self._error = error
        return bytes(block)

    def _damaged(self, error: Exception) -> SourceError:
        return SourceError(
            f"{self._name} cannot be read on ({error}): it is damaged or was cut off; the rows before that place were "
            "read. Get a whole copy, then run again"
        )

    def progress(self) -> tuple[int, int | None]:
        """Stored bytes read, and the file's size."""
        try:
            return self._raw.tell(), self._size
        except ValueError:  # closed
            return self._size or 0, self._size

    def close(self) -> None:
        """Close the file."""
        self._stream.close()
        self._raw.close()


class FedBytes:
    """Standard input: rows are passed on as they are fed, and a pause holds nobody up."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._read = 0
        self._closed = False
        try:
            self._fd: int | None = stream.fileno()
        except (OSError, AttributeError):
            self._fd = None

    def read(self) -> bytes | None:
        """What has come, or None when nothing came for a while."""
        if self._closed:
            return b""
        if self._fd is None:
            some = self._stream.read(BLOCK)
        elif not select.select([self._fd], [], [], POLL_SECONDS)[0]:
            return None
        else:
            some = os.read(self._fd, BLOCK)
        self._read += len(some)
        return some

    def progress(self) -> tuple[int, int | None]:
        """Bytes fed so far; nobody knows how many will come."""
        return self._read, None

    def close(self) -> None:
        """Read no more; the stream itself is not ours to close."""
        self._closed = True


def open_bytes(name: str, stdin: BinaryIO | None = None) -> Bytes:
    """Open `name` for reading; `-` is standard input. Raises SourceError, which says what to do."""
    if name == "-":
        return FedBytes(stdin or sys.stdin.buffer)
    try:
        if "://" in name:
            return StoredBytes(name, smart_open.open(name, "rb", compression="disable"), None)
        raw = io.FileIO(name)
        return StoredBytes(name, cast("BinaryIO", raw), os.fstat(raw.fileno()).st_size)
    except IsADirectoryError:
        raise SourceError(f"{name} is a folder: name its files, or a glob such as '{name}/*.csv'") from None
    except FileNotFoundError:
        raise SourceError(f"there is no file {name}") from None
    except PermissionError:
        raise SourceError(f"you may not read {name}: ask its owner, or change its permissions") from None
    except ImportError as error:
        raise SourceError(f"{name} needs one more package: {error}") from None
    except Exception as error:  # noqa: BLE001  each remote store has its own
        raise SourceError(f"{name} cannot be opened: {error}") from None
