"""One run's folder: where it stands, who holds it, and what is done with an earlier run in it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import stat
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

import orjson

from moe_bulk.deadletter import as_json, clean
from moe_bulk.errors import RunHeld, RunRefused
from moe_bulk.journal import AppendOnlyFile, Journal, sync_to_disk, telling, trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Opener = Callable[[str, int, Path], int]

RESULTS = "results.ndjson"
DEAD_LETTER = "dead-letter.ndjson"
SUMMARY = "summary.json"
_OURS = frozenset({RESULTS, DEAD_LETTER, SUMMARY, f"{SUMMARY}.part", "checkpoint.json", "report.html"})

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: opening a pipe that somebody left under the name would wait for its other end
_LOCK = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_SUMMARY_READ = 16_000_000
_LAST_SECOND = 253_402_300_799
"""The end of the year 9999: later ones cannot be written."""
_FINISHED = (0, 1)
"""Exit codes of runs that settled every row."""


def default_out(sources: Sequence[str], *, sandbox: bool, cwd: Path) -> Path:
    """Where a run is written when nobody says: `devices.csv.run` beside `devices.csv`.

    Standard input, URLs, globs and several sources have no place of their own: theirs is in `cwd`, by the name of the
    first. `sources` are as they were given, globs not expanded.
    """
    first = sources[0]
    suffix = ".sandbox.run" if sandbox else ".run"
    if first == "-":
        return cwd / f"stdin{suffix}"
    if "://" in first:
        return cwd / f"{_url_name(first)}{suffix}"
    matched = _first_match(first, cwd)
    if len(sources) > 1 or matched is not None:
        return cwd / f"{Path(matched or first).name}{suffix}"
    path = cwd / first
    return path.parent / f"{path.name}{suffix}"


def _url_name(url: str) -> str:
    web = url.startswith(("http://", "https://"))
    path = urlsplit(url).path if web else url.partition("://")[2]
    name = path.rstrip("/").rpartition("/")[2]
    return name if name.strip(".") else "source"


def _first_match(pattern: str, cwd: Path) -> str | None:
    """Give the first file that a glob finds outside of run folders, or its own text; None where it is no glob."""
    if not glob.has_magic(pattern) or (cwd / pattern).exists():
        return None
    anywhere = str(Path(glob.escape(str(cwd))) / pattern)
    found = sorted(glob.glob(anywhere, recursive=True))  # noqa: PTH207 - Path.glob takes no absolute patterns
    return next((path for path in found if not within_run(Path(path))), pattern)


def within_run(path: Path) -> bool:
    """True for a run folder, what lies in one, and the lock that a killed run left beside one: globs skip them."""
    folder = path.with_suffix("") if path.suffix == ".lock" else path
    return path.name.endswith(".run.lock") or (folder / RESULTS).exists() or (path.parent / RESULTS).exists()


class RunFolder:
    """One run's folder, held by this process until `release`: nobody else writes there meanwhile.

    `moved_to` is where an earlier run went, if there was one. Use it as a context manager.
    """

    def __init__(self, path: Path, fd: int, held: ExitStack, moved_to: Path | None = None) -> None:
        self.path = path
        self.moved_to = moved_to
        self._fd = fd
        self._held = held

    @classmethod
    def claim(cls, path: Path, *, fresh: bool) -> RunFolder:
        """Take the folder for a new run, creating it; with `fresh`, an earlier run in it is moved aside.

        Raises RunHeld while another process is at work in it, and RunRefused where it holds what must stay or the
        system does not let us: nothing was sent yet.
        """
        path = path.absolute()
        if path.name in ("", ".."):
            raise RunRefused(f"{clean(str(path))} cannot be a run folder: name another one with --out")
        with ExitStack() as stack, _refusing(path):
            _make_parents(path.parent)
            parent = _open_folder(stack, str(path.parent))
            hold(stack, parent, path)
            moved_to = _make_room(parent, path, fresh=fresh)
            sync_folder(parent)
            fd = _open_folder(stack, path.name, os.O_NOFOLLOW, parent)
            if stat.S_IMODE(os.fstat(fd).st_mode) != stat.S_IRWXU:
                os.fchmod(fd, stat.S_IRWXU)
            return cls(path, fd, stack.pop_all(), moved_to)

    @property
    def results(self) -> Path:
        """One line a settled row."""
        return self.path / RESULTS

    @property
    def dead_letter(self) -> Path:
        """The failures as a new input."""
        return self.path / DEAD_LETTER

    @property
    def summary(self) -> Path:
        """The run in numbers; it is there once the run has ended."""
        return self.path / SUMMARY

    def journal(self) -> Journal:
        """Create the dead letter and the results, both empty, and the journal that appends to them."""
        with ExitStack() as stack, telling(self.path):
            dead_letters = AppendOnlyFile.create(self.dead_letter, dir_fd=self._fd)
            stack.callback(dead_letters.close)
            results = AppendOnlyFile.create(self.results, dir_fd=self._fd)
            stack.callback(results.close)
            sync_folder(self._fd)
            stack.pop_all()
        return Journal(results, dead_letters)

    def write_summary(self, summary: Mapping[str, object]) -> None:
        """Put `summary.json` in place, whole or not at all, and return when it is safe from a power cut."""
        text = as_json(dict(summary), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        part = f"{SUMMARY}.part"
        with telling(self.path, len(text)):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part, dir_fd=self._fd)
            fd = os.open(part, _NEW, 0o600, dir_fd=self._fd)
            try:
                with os.fdopen(fd, "wb") as file:
                    file.write(text)
                    file.flush()
                    sync_to_disk(file.fileno())
                os.rename(part, SUMMARY, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            except BaseException:
                # half a summary is of no use, and takes room on a full disk
                with contextlib.suppress(OSError):
                    os.unlink(part, dir_fd=self._fd)
                raise
            sync_folder(self._fd)

    def release(self) -> None:
        """Let others use the folder; a second time changes nothing."""
        self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


@contextlib.contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Within it, an OSError becomes the RunRefused that names the folder and the way out."""
    try:
        yield
    except OSError as error:
        raise RunRefused(str(trouble(path, error))) from error


def _make_parents(folder: Path) -> None:
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(0o700, exist_ok=True)


def _open_folder(stack: ExitStack, name: str, flags: int = 0, dir_fd: int | None = None) -> int:
    fd = os.open(name, _FOLDER | flags, dir_fd=dir_fd)
    stack.callback(os.close, fd)
    return fd


def hold(stack: ExitStack, parent: int, path: Path, opener: Opener | None = None) -> None:
    """Lock the file beside the folder until the stack is closed, and write our process id into it.

    `opener` stands in for `open_lock`.
    """
    name = f"{path.name}.lock"
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
        if _lstat(name, parent) is None:
            beside = f". Its lock file stands beside it, in {clean(str(path.parent))}" if path.exists() else ""
            raise RunRefused(f"{trouble(path, error)}{beside}") from error
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
    there = _lstat(name, parent)
    return there is not None and os.path.samestat(there, os.fstat(fd))


def _remove_lock(fd: int, name: str, parent: int) -> None:
    # a lock file that stays behind does no harm: nobody holds it
    with contextlib.suppress(OSError):
        if _is_still(fd, name, parent):
            os.unlink(name, dir_fd=parent)


def _lstat(name: str, folder: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _make_room(parent: int, path: Path, *, fresh: bool) -> Path | None:
    """See to it that the folder is there, ours and empty; return where an earlier run went."""
    with ExitStack() as stack:
        about = _lstat(path.name, parent)
        if about is None:
            os.mkdir(path.name, 0o700, dir_fd=parent)
            return None
        if not stat.S_ISDIR(about.st_mode):
            kind = "a link" if stat.S_ISLNK(about.st_mode) else "a file"
            raise RunRefused(f"{clean(str(path))} is {kind}, not a folder: name another one with --out")
        fd = _open_folder(stack, path.name, os.O_NOFOLLOW, parent)
        reason = stranger(os.fstat(fd), os.geteuid())
        if reason:
            raise RunRefused(f"{clean(str(path))} {reason}: name another folder with --out")
        with os.scandir(fd) as entries:
            names = {entry.name for entry in entries}
        if not names:
            return None
        if not looks_like_run(names):
            raise RunRefused(
                f"{clean(str(path))} is not empty and holds no run of moe-bulk, so it stays as it is: "
                "name a new folder with --out"
            )
        state, when = _earlier(fd, names)
    aside = _free_name(f"{path.name}-{when:%Y-%m-%dT%H-%M-%SZ}", parent)
    if not fresh:
        raise RunRefused(
            f"{clean(str(path))} holds an earlier run ({state}). To start over: add --fresh; "
            f"it will be moved aside to {clean(aside)}"
        )
    os.rename(path.name, aside, src_dir_fd=parent, dst_dir_fd=parent)
    os.mkdir(path.name, 0o700, dir_fd=parent)
    return path.with_name(aside)


def looks_like_run(names: set[str]) -> bool:
    """Whether a folder with these entries is a run of ours: it has results, or nothing but what we write.

    A lone `summary.json` among other things is somebody else's.
    """
    return RESULTS in names or (bool(names) and names <= _OURS)


def _earlier(fd: int, names: set[str]) -> tuple[str, datetime]:
    """What became of the run in the folder, in words, and when it ended: by its summary, else by its newest file."""
    summary = _read_summary(fd)
    ended = summary.get("ended_at")
    if isinstance(ended, (int, float)) and 0 <= ended <= _LAST_SECOND:
        when = datetime.fromtimestamp(ended, UTC)
        finished = summary.get("exit_code") in _FINISHED and "stopped" not in summary
        kind = "finished" if finished else "unfinished, it stopped"
        return f"{kind} at {when:%Y-%m-%dT%H:%M:%SZ}", when
    entries = [about.st_mtime for about in (_lstat(name, fd) for name in names) if about is not None]
    newest = max(entries, default=0.0)
    return "unfinished", datetime.fromtimestamp(min(max(newest, 0.0), _LAST_SECOND), UTC)


def _read_summary(fd: int) -> dict[str, object]:
    """The folder's summary, or nothing where there is none that can be read."""
    with contextlib.suppress(OSError, orjson.JSONDecodeError):
        with os.fdopen(os.open(SUMMARY, _OLD, dir_fd=fd), "rb") as file:
            said = orjson.loads(file.read(_SUMMARY_READ))
        if isinstance(said, dict):
            return said
    return {}


def _free_name(name: str, parent: int) -> str:
    number, free = 1, name
    while _lstat(free, parent) is not None:
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
