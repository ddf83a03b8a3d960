"""One process at a time in a run folder: the lock is a file beside it, held as long as the process lives."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from contextlib import ExitStack
from typing import TYPE_CHECKING

from moe_bulk.deadletter import clean
from moe_bulk.errors import RunHeld, RunRefused
from moe_bulk.journal import refusal
from moe_bulk.naming import lock_name

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Opener = Callable[[str, int, Path], int]

# O_NONBLOCK: opening a pipe that somebody left under the name would wait for its other end
_LOCK = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def hold(stack: ExitStack, parent: int, path: Path, opener: Opener | None = None) -> None:
    """Lock the file beside the folder until the stack is closed, and write our process id into it.

    `parent` is the folder around it. Raises RunHeld while another process has it, RunRefused where the file is not
    ours. `opener` stands in for `open_lock`.
    """
    name = lock_name(path.name)
    while True:
        fd = (opener or open_lock)(name, parent, path)
        with ExitStack() as opened:
            opened.callback(os.close, fd)
            _lock(fd, path)
            # the holder before us may have removed the file between our opening and our locking it
            if not _is_still(fd, name, parent):
                continue
            os.ftruncate(fd, 0)
            os.pwrite(fd, b"%d\n" % os.getpid(), 0)
            stack.push(opened.pop_all())
            stack.callback(_remove_lock, fd, name, parent)
            return


def open_lock(name: str, parent: int, path: Path) -> int:
    """Open or create the lock file; RunRefused where it is not ours."""
    try:
        fd = os.open(name, _LOCK, 0o600, dir_fd=parent)
    except OSError as error:
        if lstat(name, parent) is None:
            told = refusal(path, error)
            beside = f". Its lock file stands beside it, in {clean(str(path.parent))}" if path.exists() else ""
            raise type(told)(f"{told}{beside}") from error
        reason = error.strerror
        raise RunRefused(f"{clean(str(path))}.lock is not our lock file ({reason}): see whose it is") from error
    about = os.fstat(fd)
    reason = stranger(about, os.geteuid()) or _odd_file(about)
    if reason:
        os.close(fd)
        raise RunRefused(f"{clean(str(path))}.lock {reason}: see whose it is, and remove it if it is a leftover")
    return fd


def stranger(about: os.stat_result, euid: int) -> str | None:
    """Why a file or folder must not be used by the user `euid`: it belongs to another user. None where it may."""
    return None if about.st_uid == euid else f"belongs to another user (id {about.st_uid})"


def lstat(name: str, folder: int) -> os.stat_result | None:
    """What stands under the name in the folder, links not followed; None where nothing does."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _odd_file(about: os.stat_result) -> str | None:
    # a second name would let us write our process id into a file that is something else
    return None if stat.S_ISREG(about.st_mode) and about.st_nlink <= 1 else "is no plain file of its own"


def _lock(fd: int, path: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        said = os.pread(fd, 20, 0).strip()
        who = f"process {said.decode()}" if said.isdigit() else "another process"
        raise RunHeld(f"{who} is uploading into {clean(str(path))} right now: wait until it has ended") from None


def _is_still(fd: int, name: str, parent: int) -> bool:
    there = lstat(name, parent)
    return there is not None and os.path.samestat(there, os.fstat(fd))


def _remove_lock(fd: int, name: str, parent: int) -> None:
    # a lock file that stays behind does no harm: nobody holds it
    with contextlib.suppress(OSError):
        if _is_still(fd, name, parent):
            os.unlink(name, dir_fd=parent)
