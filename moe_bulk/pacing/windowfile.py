"""The file of a window that processes share: bytes at offsets, a lock, and a name that may go away.

It is read and written by calls and not mapped into memory: a file that is cut off, or a disk that is full, then raises
an error, where a mapped one would kill the process.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KEPT_SECONDS = 30 * 86400.0
"""How long the file of an earlier start of the machine stays; another machine may share the folder."""

SUFFIX = ".window"
_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class WindowFile:
    """The file: bytes at offsets, a lock, and a name that may go away."""

    def __init__(self, path: Path, fd: int) -> None:
        self._path = path
        self._fd = fd

    @classmethod
    def open(cls, path: Path, fill: Callable[[WindowFile], None]) -> tuple[WindowFile, bool]:
        """Open it, or make and `fill` it; True where it is new. It has its name only once it is whole."""
        path.parent.mkdir(0o700, parents=True, exist_ok=True)
        made = False
        while True:
            try:
                file = cls(path, os.open(path, _OPEN))
            except FileNotFoundError:
                made = cls._make(path, fill)
            else:
                file.refuse_strange()
                return file, made

    @classmethod
    def _make(cls, path: Path, fill: Callable[[WindowFile], None]) -> bool:
        """Make it; False where somebody else was quicker."""
        _remove_old(path.parent)
        unnamed = path.with_name(f"{path.name}.{os.urandom(6).hex()}")
        file = cls(path, os.open(unnamed, _OPEN | os.O_CREAT | os.O_EXCL, 0o600))
        try:
            fill(file)
            os.link(unnamed, path)
        except FileExistsError:
            return False
        finally:
            file.close()
            unnamed.unlink()
        return True

    def refuse_strange(self) -> None:
        """Raise OSError where it is no plain file of this user's."""
        about = os.fstat(self._fd)
        if not stat.S_ISREG(about.st_mode) or about.st_uid != os.geteuid():
            self.close()
            raise OSError(errno.EPERM, "it is no plain file of this user's")

    def read(self, offset: int, size: int) -> bytes:
        """So many bytes; fewer where the file has been cut off."""
        return os.pread(self._fd, size, offset)

    def write(self, offset: int, data: bytes) -> None:
        """Write all of it; raises OSError."""
        if os.pwrite(self._fd, data, offset) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Let nobody else write; raises BlockingIOError where somebody does."""
        fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            yield
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def is_lost(self) -> bool:
        """Whether its name has gone, or stands for another file."""
        try:
            return not os.path.samestat(self._path.lstat(), os.fstat(self._fd))
        except FileNotFoundError:
            return True

    @property
    def closed(self) -> bool:
        """True once it was let go of."""
        return self._fd < 0

    def close(self) -> None:
        """Let go of it; twice does no harm."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def state_folder() -> Path:
    """Where the system keeps the state of programs: `XDG_STATE_HOME`, or its like elsewhere."""
    from platformdirs import user_state_path  # noqa: PLC0415  for those who share only

    return user_state_path("moe-bulk", appauthor=False)


def window_path(folder: Path, address: str, workspace_id: str, boot: str | None) -> Path:
    """The file for a destination (`host:port`) and a workspace during this start of the machine."""
    place = re.sub(r"[^A-Za-z0-9.-]", "_", address)[:120]
    return folder / f"{place}_{workspace_id[:60]}_{boot or 'unknown'}{SUFFIX}"


def _remove_old(folder: Path) -> None:
    """Remove the files of earlier starts of the machine."""
    with contextlib.suppress(OSError):
        for path in folder.glob(f"*{SUFFIX}*"):
            if time.time() - path.lstat().st_mtime > KEPT_SECONDS:
                path.unlink()
