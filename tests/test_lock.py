"""The lock beside a run folder: one process at a time, and nothing of anybody else's touched for it."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import stat
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from moe_bulk.errors import RunHeld, RunRefused
from moe_bulk.lock import hold, lstat, open_lock, stranger

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

    from moe_bulk.lock import Opener


@contextmanager
def holding(path: Path, opener: Opener | None = None) -> Iterator[None]:
    """Hold the folder meanwhile."""
    with ExitStack() as stack:
        parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, parent)
        hold(stack, parent, path, opener)
        yield


def refusal(path: Path) -> str:
    """Tell why the folder cannot be held."""
    with pytest.raises(RunRefused) as caught, holding(path):
        pass
    assert caught.value.exit_code == 2
    return str(caught.value)


@pytest.fixture
def loose_umask() -> Iterator[None]:
    """Let everybody do everything with new files."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("loose_umask")
def test_the_lock_is_a_private_file_beside_the_folder(tmp_path: Path) -> None:
    """It says who holds it, to nobody but the user, and is gone afterwards."""
    lock = tmp_path / "run.lock"
    with holding(tmp_path / "run"):
        assert b"%d\n" % os.getpid() == lock.read_bytes()
        assert stat.S_IMODE(lock.stat().st_mode) == 0o600

    assert [] == list(tmp_path.iterdir())


def test_a_held_run_is_refused_with_its_process(tmp_path: Path) -> None:
    """The exit code is its own, and the way is free when the holder has ended."""
    path = tmp_path / "run"
    with (
        holding(path),
        pytest.raises(RunHeld, match=f"process {os.getpid()} is uploading into {path} right now") as caught,
        holding(path),
    ):
        pass
    assert caught.value.exit_code == 4
    with holding(path):
        pass


@pytest.mark.parametrize("said", [b"", b"nonsense"])
def test_a_held_run_whose_process_is_unknown(tmp_path: Path, said: bytes) -> None:
    """A lock without a process id holds all the same."""
    with (tmp_path / "run.lock").open("wb") as lock:
        lock.write(said)
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)

        with pytest.raises(RunHeld, match="another process is uploading"), holding(tmp_path / "run"):
            pass


def test_a_lock_that_a_crash_left_holds_nobody_up(tmp_path: Path) -> None:
    """The lock ends with its process, whatever its file says."""
    (tmp_path / "run.lock").write_bytes(b"99999999999 and more\n")

    with holding(tmp_path / "run"):
        assert b"%d\n" % os.getpid() == (tmp_path / "run.lock").read_bytes()

    assert not (tmp_path / "run.lock").exists()


def test_it_removes_its_own_lock_only(tmp_path: Path) -> None:
    """A lock file that somebody put in place of ours is not ours to remove."""
    with holding(tmp_path / "run"):
        (tmp_path / "run.lock").unlink()
        (tmp_path / "run.lock").write_bytes(b"another")

    assert (tmp_path / "run.lock").read_bytes() == b"another"


def test_a_lock_file_that_somebody_removed(tmp_path: Path) -> None:
    """Somebody who tidied up does no harm."""
    with holding(tmp_path / "run"):
        (tmp_path / "run.lock").unlink()

    assert [] == list(tmp_path.iterdir())


def plant(kind: str, lock: Path, target: Path) -> None:
    """Put something odd under the lock's name."""
    if kind == "link":
        lock.symlink_to(target)
    elif kind == "second name":
        lock.hardlink_to(target)
    elif kind == "pipe":
        os.mkfifo(lock)
    else:
        lock.mkdir()


@pytest.mark.parametrize("kind", ["link", "second name", "pipe", "folder"])
def test_a_lock_that_is_no_plain_file_is_refused(tmp_path: Path, kind: str) -> None:
    """What somebody planted under the lock's name is not written to."""
    lock, target = tmp_path / "run.lock", tmp_path / "target"
    target.write_bytes(b"precious")
    plant(kind, lock, target)

    assert "run.lock is no" in refusal(tmp_path / "run")
    assert target.read_bytes() == b"precious"


@pytest.mark.parametrize(("euid", "told"), [(0, None), (1000, "belongs to another user (id 0)")])
def test_stranger(euid: int, told: str | None) -> None:
    """What belongs to another user is not used, not even by the administrator."""
    about = os.stat_result((stat.S_IFDIR | 0o777, 1, 1, 1, 0, 0, 0, 0, 0, 0))

    assert told == stranger(about, euid)


@pytest.mark.skipif(os.geteuid() != 0, reason="only an administrator can give a file away")
def test_a_lock_of_another_user_is_refused(tmp_path: Path) -> None:
    """Somebody else's lock file is neither written nor removed."""
    lock = tmp_path / "run.lock"
    lock.write_bytes(b"theirs")
    os.chown(lock, 12345, -1)

    assert "run.lock belongs to another user" in refusal(tmp_path / "run")
    assert lock.read_bytes() == b"theirs"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="only some systems have a folder that takes nothing")
@pytest.mark.parametrize(("path", "beside"), [("/proc/run", False), ("/proc/self", True)])
def test_a_lock_that_cannot_be_created(path: str, *, beside: bool) -> None:
    """A folder may be ours while the one around it is not: the message says which one it is about."""
    said = refusal(Path(path))

    assert said.startswith(f"the run folder {path} cannot be used: No such file or directory. ")
    assert beside is said.endswith("Its lock file stands beside it, in /proc")


def test_a_lock_file_that_its_holder_removed_meanwhile_is_opened_anew(tmp_path: Path) -> None:
    """A lock on a file that has lost its name would hold nobody off."""
    opened = []

    def opener(name: str, parent: int, path: Path) -> int:
        opened.append(open_lock(name, parent, path))
        if len(opened) == 1:
            (tmp_path / "run.lock").unlink()
        return opened[-1]

    with holding(tmp_path / "run", opener):
        held = (tmp_path / "run.lock").read_bytes()

    assert (len(opened), held) == (2, b"%d\n" % os.getpid())


def test_links_are_looked_at_and_not_followed(tmp_path: Path) -> None:
    """A link that leads nowhere is something all the same."""
    (tmp_path / "link").symlink_to("nowhere")
    folder = os.open(tmp_path, os.O_RDONLY)
    link, nothing = lstat("link", folder), lstat("nothing", folder)
    os.close(folder)

    assert link is not None
    assert stat.S_ISLNK(link.st_mode)
    assert nothing is None


def contend(path: str, ours: Connection) -> None:
    """Hold the folder and let go of it many times, and tell how often two had it at once."""
    clashes = 0
    witness = Path(f"{path}.witness")
    for _ in range(200):
        try:
            with holding(Path(path)):
                try:
                    witness.touch(exist_ok=False)
                except FileExistsError:
                    clashes += 1
                witness.unlink(missing_ok=True)
        except RunHeld:
            continue
    ours.send(clashes)
    ours.close()


def test_two_processes_never_have_it_at_once(tmp_path: Path) -> None:
    """Removing the lock file at the end opens no gap through which two processes slip."""
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe(duplex=False) for _ in range(2)]
    processes = [context.Process(target=contend, args=(str(tmp_path / "run"), ours)) for _, ours in pipes]
    for process in processes:
        process.start()
    clashes = [theirs.recv() for theirs, _ in pipes]
    for process, (theirs, ours) in zip(processes, pipes, strict=True):
        process.join()
        theirs.close()
        ours.close()

    assert clashes == [0, 0]
