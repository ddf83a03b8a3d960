"""One run's folder: what is found in it, how its files are replaced, and how it makes room for another run."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

import orjson

from moe_bulk.checkpoint import Checkpoint
from moe_bulk.deadletter import as_json, clean
from moe_bulk.errors import JournalError, RunRefused
from moe_bulk.folders import free_name, make_parents, make_private, names_in, open_folder, sync_folder
from moe_bulk.journal import DEAD_LETTER, RESULTS, AppendOnlyFile, Journal, refusal, sync_to_disk, telling
from moe_bulk.lock import hold, lstat, stranger
from moe_bulk.naming import (
    CENSUS,
    CHECKPOINT,
    OURS,
    PART,
    PARTS,
    REPORT,
    SUMMARY,
    aside_name,
    is_lock_name,
    is_run_name,
    looks_like_run,
    moved_aside,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a pipe that somebody left under the name would wait for its other end
_OLD = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LAST_SECOND = 253_402_300_799
"""The end of the year 9999: later ones cannot be written."""


class RunFolder:
    """One run's folder, held by this process until `release`: nobody else writes there meanwhile.

    `state` is `new` where a run can begin in it, and `run` where it holds one; `found` is that run's checkpoint (None
    only where a damaged run is to make room). `moved_to` is where an earlier run went. Use it as a context manager.
    """

    def __init__(self, path: Path, parent: int, held: ExitStack) -> None:
        self.path = path
        self.state: Literal["new", "run"] = "new"
        self.found: Checkpoint | None = None
        self.moved_to: Path | None = None
        self._parent = parent
        self._fd: int | None = None
        self._held = held

    @classmethod
    def claim(cls, path: Path, *, fresh: bool) -> RunFolder:
        """Hold the folder and see what is in it; nothing in it is changed, and none is created yet.

        Raises RunHeld while another process is at work in it; RunRefused where it is not ours, holds what is no run, or
        the system does not let us, and, but for `fresh`, a run that cannot go on. Nothing was sent yet.
        """
        path = path.absolute()
        if path.name in ("", ".."):
            raise RunRefused(f"{clean(str(path))} cannot be a run folder: name another one with --out")
        with ExitStack() as stack, _refusing(path):
            make_parents(path.parent)
            parent = open_folder(stack, str(path.parent))
            hold(stack, parent, path)
            folder = cls(path, parent, stack)
            folder._look(fresh=fresh)
            folder._held = stack.pop_all()
            return folder

    @property
    def fd(self) -> int:
        """The open folder, once there is one."""
        if self._fd is None:
            raise RuntimeError("there is no folder yet: begin() makes it")
        return self._fd

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

    # -- what is there -------------------------------------------------------------------------------------------

    def _look(self, *, fresh: bool) -> None:
        about = lstat(self.path.name, self._parent)
        if about is None:
            return
        if not stat.S_ISDIR(about.st_mode):
            kind = "a link" if stat.S_ISLNK(about.st_mode) else "a file"
            raise RunRefused(f"{clean(str(self.path))} is {kind}, not a folder: name another one with --out")
        self._fd = open_folder(self._held, self.path.name, os.O_NOFOLLOW, self._parent)
        reason = stranger(os.fstat(self._fd), os.geteuid())
        if reason:
            raise RunRefused(f"{clean(str(self.path))} {reason}: name another folder with --out")
        names = names_in(self._fd)
        if not names or _never_began(self._fd, names):
            return
        if not looks_like_run(names):
            raise RunRefused(
                f"{clean(str(self.path))} is not empty and holds no run of moe-bulk, so it stays as it is: "
                "name a new folder with --out"
            )
        self.state = "run"
        try:
            self.found = _checkpoint(self._fd)
        except ValueError as error:
            if not fresh:
                raise RunRefused(
                    f"{clean(str(self.path))} holds a run that cannot go on: {clean(str(error))}. To start over: add "
                    f"--fresh; it will be moved aside to {clean(self._aside())}"
                ) from error

    def _aside(self) -> str:
        """What the run that is there would be called: by its summary, else by its newest file."""
        ended = (self.read_summary() or {}).get("ended_at")
        if not isinstance(ended, (int, float)) or not 0 <= ended <= _LAST_SECOND:
            entries = (lstat(name, self.fd) for name in names_in(self.fd))
            newest = max((about.st_mtime for about in entries if about is not None), default=0.0)
            ended = min(max(newest, 0.0), _LAST_SECOND)
        return free_name(aside_name(self.path.name, datetime.fromtimestamp(ended, UTC)), self._parent)

    # -- how a run begins or goes on -----------------------------------------------------------------------------

    def move_aside(self) -> Path:
        """Give the run that is there another name, `devices.csv.run-<when it ended>`, and return where it is now."""
        with _refusing(self.path):
            aside = self._aside()
            os.rename(self.path.name, aside, src_dir_fd=self._parent, dst_dir_fd=self._parent)
            sync_folder(self._parent)
        self._fd, self.state, self.found = None, "new", None
        self.moved_to = self.path.with_name(aside)
        return self.moved_to

    def begin(self) -> None:
        """Make the folder for a new run, or empty it of one that never began."""
        if self.state != "new":
            raise RuntimeError("there is a run in it: move it aside first")
        with _refusing(self.path):
            if self._fd is None:
                os.mkdir(self.path.name, 0o700, dir_fd=self._parent)
                sync_folder(self._parent)
                self._fd = open_folder(self._held, self.path.name, os.O_NOFOLLOW, self._parent)
            for name in OURS & names_in(self._fd):
                os.unlink(name, dir_fd=self._fd)
            make_private(self._fd)

    def journal(self) -> Journal:
        """Create the dead letter and the results, both empty, and the journal that appends to them."""
        with ExitStack() as stack, telling(self.path):
            dead_letters = AppendOnlyFile.create(self.dead_letter, dir_fd=self.fd)
            stack.callback(dead_letters.close)
            results = AppendOnlyFile.create(self.results, dir_fd=self.fd)
            stack.callback(results.close)
            sync_folder(self.fd)
            stack.pop_all()
        return Journal(results, dead_letters)

    def go_on(self, results: int, dead_letters: int) -> Journal:
        """The journal that appends to the files that are there, behind so many bytes of each."""
        with ExitStack() as stack, telling(self.path):
            make_private(self.fd)
            letters = AppendOnlyFile.reopen(self.dead_letter, dead_letters, dir_fd=self.fd)
            stack.callback(letters.close)
            journal = Journal(AppendOnlyFile.reopen(self.results, results, dir_fd=self.fd), letters)
            stack.callback(journal.results.close)
            sync_folder(self.fd)
            stack.pop_all()
        return journal

    def free_bytes(self) -> int:
        """How much more this user can write on the disk that the folder is on."""
        with telling(self.path):
            about = os.fstatvfs(self.fd)
        return about.f_bavail * about.f_frsize

    # -- files that are replaced ---------------------------------------------------------------------------------

    def write_checkpoint(self, text: bytes) -> None:
        """Put `checkpoint.json` in place, whole or not at all; it is safe from a power cut when this returns."""
        self._replace(CHECKPOINT, text)

    def write_summary(self, summary: Mapping[str, object]) -> None:
        """Put `summary.json` in place, in the same way."""
        self._replace(SUMMARY, as_json(dict(summary), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))

    def write_report(self, page: bytes) -> None:
        """Put `report.html` in place, in the same way."""
        self._replace(REPORT, page)

    def has_report(self) -> bool:
        """Whether the page is there."""
        return os.path.lexists(self.path / REPORT)

    def read_summary(self) -> dict[str, object] | None:
        """The summary that is there; None where there is none that can be read."""
        with contextlib.suppress(OSError, ValueError):
            said = orjson.loads(_read(self.fd, SUMMARY))
            if isinstance(said, dict):
                return said
        return None

    def results_on_disk(self) -> tuple[int, float]:
        """Bytes of the results and when they were last written (epoch seconds); zeros where there are none."""
        about = lstat(RESULTS, self.fd)
        return (about.st_size, about.st_mtime) if about is not None else (0, 0.0)

    def remove_summary(self) -> None:
        """Take the summary away, and its page: they speak of a run that goes on now."""
        with telling(self.path):
            for name in (SUMMARY, REPORT):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=self.fd)
            sync_folder(self.fd)

    def remove_census(self) -> None:
        """Take away what only a run that goes on needs to know of its users."""
        with telling(self.path), contextlib.suppress(FileNotFoundError):
            os.unlink(CENSUS, dir_fd=self.fd)

    def replace_dead_letter(self) -> None:
        """Put `dead-letter.ndjson.part`, which is complete and synced, in the place of the dead letter."""
        with telling(self.path):
            self._rename_part(DEAD_LETTER)

    def _replace(self, name: str, text: bytes) -> None:
        part = name + PART
        with telling(self.path, len(text)):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(part, dir_fd=self.fd)
            fd = os.open(part, _NEW, 0o600, dir_fd=self.fd)
            try:
                with os.fdopen(fd, "wb") as file:
                    file.write(text)
                    file.flush()
                    sync_to_disk(file.fileno())
                self._rename_part(name)
            except BaseException:
                # half a file is of no use, and takes room on a full disk
                with contextlib.suppress(OSError):
                    os.unlink(part, dir_fd=self.fd)
                raise

    def _rename_part(self, name: str) -> None:
        os.rename(name + PART, name, src_dir_fd=self.fd, dst_dir_fd=self.fd)
        sync_folder(self.fd)

    # -- runs that were moved aside ------------------------------------------------------------------------------

    def keep_runs(self, count: int) -> list[Path]:
        """Remove the runs of this folder's name that were moved aside, but for the `count` newest; return their paths.

        What holds anything that no run writes stays, and so does a run that somebody holds, or whose dead letter is
        being sent again within it. What cannot be removed is left for the next time.
        """
        names = moved_aside(self.path.name, names_in(self._parent))
        aside = [self.path.with_name(name) for name in names if _is_ours(self._parent, name)]
        return [path for path in aside[count:] if _remove(self._parent, path)]

    def release(self) -> None:
        """Let others use the folder; a second time changes nothing."""
        self._fd = None
        self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def refuse_unfinished_letters(paths: Iterable[str]) -> None:
    """Raise RunRefused where a source is the dead letter of a run that is not finished: it may still grow."""
    for path in paths:
        if "://" in path or "\0" in path:
            continue
        file = Path(os.path.realpath("/dev/fd/0" if path == "-" else path))
        if file.name == DEAD_LETTER and os.path.lexists(file.parent / RESULTS) and not _is_finished(file.parent):
            raise RunRefused(
                f"{clean(path)} belongs to a run that is not finished. Finish that run first: give its own command "
                f"again, with --out {clean(str(file.parent))}. If it never will be, copy the file elsewhere and send "
                "the copy"
            )


def _is_finished(folder: Path) -> bool:
    with contextlib.suppress(OSError, ValueError), ExitStack() as stack:
        return _checkpoint(open_folder(stack, str(folder))).finished
    return False


@contextlib.contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Within it, an OSError becomes the error that names the folder and the way out."""
    try:
        yield
    except OSError as error:
        raise refusal(path, error) from error


def _never_began(fd: int, names: set[str]) -> bool:
    """Whether a run was killed before it had written anything: its files are there, and empty."""
    if CHECKPOINT in names or (RESULTS not in names and not names <= {DEAD_LETTER, *PARTS}):
        return False
    about = [lstat(name, fd) for name in names & {RESULTS, DEAD_LETTER}]
    return all(each is not None and stat.S_ISREG(each.st_mode) and each.st_size == 0 for each in about)


def _checkpoint(fd: int) -> Checkpoint:
    """The folder's checkpoint; ValueError, saying why, where there is none that can be read."""
    try:
        return Checkpoint.from_json(_read(fd, CHECKPOINT))
    except FileNotFoundError:
        raise ValueError(f"its {CHECKPOINT} is missing") from None
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"its {CHECKPOINT} cannot be used ({said})") from error


def _read(fd: int, name: str) -> bytes:
    """All of a file; OSError where it is another user's than the folder."""
    with ExitStack() as stack:
        opened = os.open(name, _OLD, dir_fd=fd)
        stack.callback(os.close, opened)
        reason = stranger(os.fstat(opened), os.fstat(fd).st_uid)
        if reason:
            raise PermissionError(errno.EPERM, f"it {reason}")
        with open(opened, "rb", closefd=False) as file:
            return file.read()


def _is_ours(parent: int, name: str) -> bool:
    """Whether a run of ours was moved aside to this name: nobody else's folder has our checkpoint."""
    with contextlib.suppress(OSError, ValueError), ExitStack() as stack:
        fd = open_folder(stack, name, os.O_NOFOLLOW, parent)
        if stranger(os.fstat(fd), os.geteuid()):
            return False
        # an empty one is what was left when its removal was cut off
        return not names_in(fd) or _checkpoint(fd) is not None
    return False


def _remove(parent: int, path: Path) -> bool:
    """Remove the run that was moved aside to `path`, if nothing in it speaks against it; tell whether it is gone."""
    with contextlib.suppress(OSError, JournalError), ExitStack() as stack:
        if _take(stack, parent, path):
            shutil.rmtree(path.name, dir_fd=parent)
            return True
    return False


def _take(stack: ExitStack, parent: int, path: Path) -> bool:
    """Hold a run, and the runs within it that sent its dead letter again, if they are ours and hold nothing else."""
    fd = open_folder(stack, path.name, os.O_NOFOLLOW, parent)
    hold(stack, parent, path)
    with os.scandir(fd) as entries:
        found = list(entries)
    return all(
        (is_run_name(each.name) and _take(stack, fd, path / each.name))
        if each.is_dir(follow_symlinks=False)
        else (each.name in OURS or is_lock_name(each.name)) and each.is_file(follow_symlinks=False)
        for each in found
    )
