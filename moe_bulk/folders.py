"""Folders: made, opened and looked into, so that nothing else than what was meant is touched."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from moe_bulk.lock import lstat

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def make_parents(folder: Path) -> None:
    """Make the folder and those above it, where they are missing, for nobody else's eyes."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(0o700, exist_ok=True)


def make_private(fd: int) -> None:
    """Let nobody else into an open folder."""
    if stat.S_IMODE(os.fstat(fd).st_mode) != stat.S_IRWXU:
        os.fchmod(fd, stat.S_IRWXU)


def open_folder(stack: ExitStack, name: str, flags: int = 0, dir_fd: int | None = None) -> int:
    """Open a folder, by its name within `dir_fd` where there is one, until the stack is closed."""
    fd = os.open(name, _FOLDER | flags, dir_fd=dir_fd)
    stack.callback(os.close, fd)
    return fd


def names_in(fd: int) -> set[str]:
    """What an open folder holds."""
    with os.scandir(fd) as entries:
        return {entry.name for entry in entries}


def free_name(name: str, parent: int) -> str:
    """The name, or that with a number behind it which is still free in the folder `parent`."""
    number, free = 1, name
    while lstat(free, parent) is not None:
        number += 1
        free = f"{name}-{number}"
    return free


def sync_folder(fd: int) -> None:
    """Return when the folder's entries are safe from a power cut, where its file system knows how to say so."""
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
