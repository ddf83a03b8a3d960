"""A stream that can be read again from its beginning: what it gave is kept while somebody compares it."""

from __future__ import annotations

import errno
import io
from contextlib import suppress
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, cast

from moe_bulk.errors import AGAIN, JournalError
from moe_bulk.sources.opening import taking, waiting

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from moe_bulk.sources.opening import Readable

_MEGABYTE = 1_000_000

IN_MEMORY = 16_000_000
"""Bytes that are kept in memory; more of them go to a file without a name, which no crash leaves behind."""


class Spool:
    """Reads `raw` and keeps what it gave until told to `forget`; `rewind` makes it be read again.

    Much of it is kept in `folder`, in a file without a name. `tap`, where there is one, is given all that is read, and
    what is read again. It is one thread's at a time.
    """

    def __init__(self, raw: Readable, folder: Path | None = None) -> None:
        self.tap: Callable[[bytes], object] | None = None
        self._raw = raw
        self.folder = folder
        self._take = taking(raw)
        self._wait = waiting(raw)
        # not the standard library's SpooledTemporaryFile, which complains on stderr where a signal ends its making
        self._kept: IO[bytes] = io.BytesIO()
        self._in_memory = IN_MEMORY
        self._at = self._size = 0
        self._keeping = True
        self._stopped = False

    def read(self, size: int, /) -> bytes | None:
        """Up to `size` bytes, kept ones first; nothing at the end, None when nothing is there yet."""
        if self._stopped:
            raise OSError(errno.ECANCELED, "it was left before its end")
        if self._at < self._size:
            data: bytes | None = self._again(size)
        else:
            data = self._take(size)
            if data and self._keeping:
                self._keep(data)
        if data and self.tap is not None:
            self.tap(data)
        return data

    def ready(self, seconds: float) -> bool:
        """True when a read would give something at once, or the end; it waits so long for it."""
        return self._stopped or self._at < self._size or self._wait(seconds)

    def fileno(self) -> int:
        """The stream's own descriptor, by which the size of a redirected file is known."""
        return cast("io.FileIO", self._raw).fileno()

    def rewind(self) -> None:
        """Read it again from the beginning; not after it was told to forget."""
        if not self._keeping:
            raise RuntimeError("what this stream gave was not kept")
        self._at = 0

    def forget(self) -> None:
        """Keep nothing more; what was kept is still read, where it was not yet."""
        self._keeping = False
        self._let_go()

    def stop(self) -> None:
        """Let a thread that waits for it give up soon; any thread may say so."""
        self._stopped = True

    def close(self) -> None:
        """Let go of the stream and of what was kept."""
        with suppress(OSError):  # what could not be kept is not missed any more
            self._kept.close()
        self._raw.close()

    def _again(self, size: int) -> bytes:
        self._kept.seek(self._at)
        data = self._kept.read(min(size, self._size - self._at))
        self._at += len(data)
        self._let_go()
        return data

    def _let_go(self) -> None:
        """Give the room back as soon as nobody reads it again."""
        if not self._keeping and self._at == self._size:
            self._kept.close()

    def _keep(self, data: bytes) -> None:
        try:
            if self._size <= self._in_memory < self._size + len(data):
                self._move_to_a_file()
            self._kept.seek(self._size)
            self._kept.write(data)
            self._kept.flush()
        except OSError as error:
            raise JournalError(
                f"the stream must be kept in {self.folder} while it is compared with that of the earlier run, and "
                f"cannot ({error.strerror}). Free at least {self._size // _MEGABYTE + 1} MB there, then {AGAIN}"
            ) from error
        self._size += len(data)
        self._at = self._size

    def _move_to_a_file(self) -> None:
        file = TemporaryFile(dir=self.folder)  # noqa: SIM115  `close` closes it
        try:
            file.write(cast("io.BytesIO", self._kept).getbuffer())
            file.flush()
        except BaseException:  # what is in memory stays as it was
            with suppress(OSError):
                file.close()
            raise
        self._kept = file
