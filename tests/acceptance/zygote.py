"""Runs of the command line without the interpreter's start: a process that has imported it all forks one child a run.

Each child is a real process, which can be killed at any moment or at a named step of what it writes. As a program
(`python -m tests.acceptance.zygote FD`) this is the process that forks; `forking` starts it.
"""

from __future__ import annotations

import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import threading
import traceback
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import moe_bulk
from tests.acceptance.command import environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

ROOT = Path(__file__).parents[2]
KILLED = -signal.SIGKILL
LONGEST_MESSAGE = 65536
LOADED_LATE = (
    "aiohttp.web",
    "anyio._backends._asyncio",
    "anyio.to_thread",
    "asyncio.runners",
    "bz2",
    "cyclopts.bind",
    "encodings.idna",
    "gzip",
    "httpcore._backends.auto",
    "importlib.metadata",
    "lzma",
    "rich.progress",
    "smart_open.compression",
    "tempfile",
)
"""What others import in the middle of a run."""


@dataclass(frozen=True)
class Step:
    """Where a run kills itself: before or after its `nth` call about a file of the run folder, or in its middle.

    `file` is a file's name; `checkpoint.json.` stands for the file that is to become it, whatever follows the dot.
    `saying` counts only files with something in that field of theirs.
    """

    call: Literal["open", "write", "sync", "rename", "cut"]
    file: str
    when: Literal["before", "after", "amid"]
    nth: int = 1
    saying: str = ""

    def __str__(self) -> str:
        """A name for reports, such as `before-rename-checkpoint.json-finished`."""
        nth = f"{self.nth}" if self.nth > 1 else ""
        file = f"{self.file}part" if self.file.endswith(".") else self.file
        return "-".join(filter(None, (self.when, self.call, file, self.saying, nth)))


# --- the tests' side -------------------------------------------------------------------------------------------------


class Child:
    """One run as a process: it is there until `wait` was called."""

    def __init__(self, zygote: Zygote, pid: int, alive: int) -> None:
        self.pid = pid
        self._zygote = zygote
        self._alive = alive
        self._reaped = False
        self._lock = threading.Lock()

    def kill(self) -> None:
        """End it without a word, wherever it is; harmless where it has ended."""
        with self._lock:
            if not self._reaped:
                os.kill(self.pid, signal.SIGKILL)

    def lives(self, seconds: float) -> bool:
        """Watch it for so long at most; False as soon as it has ended."""
        return not select.select([self._alive], [], [], seconds)[0]

    def wait(self, seconds: float = 12.0) -> int:
        """Its exit code, or `KILLED`; one that outlives the time is killed, too, and a TimeoutError is raised."""
        late = self.lives(seconds)
        if late:
            self.kill()
        with self._lock:
            self._reaped = True
            code: int = self._zygote.ask({"wait": self.pid})["code"]
        os.close(self._alive)
        if late:
            raise TimeoutError(f"the run did not end within {seconds:g} s")
        return code


class Zygote:
    """The process that forks, seen from the tests."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel

    def ask(self, question: Mapping[str, object], *fds: int) -> dict[str, Any]:
        """Send a question, with open files where it needs some, and take in the answer."""
        socket.send_fds(self._channel, [json.dumps(question).encode() + b"\n"], fds)
        answer, _ = _receive(self._channel)
        if answer is None:
            raise ConnectionError("the forking process has ended")
        return answer

    def run(
        self,
        arguments: Sequence[str],
        folder: Path,
        env: Mapping[str, str],
        stdin: int,
        *,
        step: Step | None = None,
        sync_seconds: float | None = None,
    ) -> Child:
        """Start `moe-bulk` with these arguments; what it says is appended to `said.txt` in the folder."""
        question = {
            "arguments": list(arguments),
            "folder": str(folder),
            "env": dict(env),
            "step": step and asdict(step),
            "sync_seconds": sync_seconds,
        }
        alive, held = os.pipe()
        try:
            return Child(self, self.ask(question, stdin, held)["pid"], alive)
        finally:
            os.close(held)


@contextmanager
def forking() -> Iterator[Zygote]:
    """Start the process that forks; at the end of the block it is gone, and its children with it."""
    ours, theirs = socket.socketpair()
    # Coverage would slow down the children, and they leave no data: they are killed, or leave by os._exit.
    env = {name: value for name, value in environment().items() if not name.startswith(("COVERAGE_", "COV_"))}
    command = [sys.executable, "-m", "tests.acceptance.zygote", str(theirs.fileno())]
    with ours, subprocess.Popen(command, cwd=ROOT, env=env, pass_fds=[theirs.fileno()]) as process:
        theirs.close()
        try:
            ours.recv(1)  # it has imported everything
            yield Zygote(ours)
        finally:
            ours.close()
            process.wait(10)


# --- the process that forks ------------------------------------------------------------------------------------------


def serve(channel: socket.socket) -> None:
    """Fork and bury children as asked, until nobody asks any more; whoever then still runs is killed."""
    children: set[int] = set()
    channel.sendall(b"\n")
    while True:
        question, fds = _receive(channel)
        if question is None:
            break
        if "wait" in question:
            children.discard(question["wait"])
            _, status = os.waitpid(question["wait"], 0)
            answer = {"code": os.waitstatus_to_exitcode(status)}
        else:
            pid = os.fork()
            if pid == 0:
                channel.close()
                _be(question, *fds)
            children.add(pid)
            answer = {"pid": pid}
        for fd in fds:
            os.close(fd)
        channel.sendall(json.dumps(answer).encode() + b"\n")
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _receive(channel: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """One line and the open files that came with it; None where the other side is gone."""
    said, fds, _, _ = socket.recv_fds(channel, LONGEST_MESSAGE, 2)
    while said and not said.endswith(b"\n"):
        said += channel.recv(LONGEST_MESSAGE)
    return (json.loads(said) if said else None), fds


def _be(question: dict[str, Any], stdin: int, held: int) -> NoReturn:
    """Become the run that was asked for; `held` stays open as long as it lives."""
    code = 70
    try:
        os.chdir(question["folder"])
        said = os.open("said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for theirs, ours in ((stdin, 0), (said, 1), (said, 2)):
            os.dup2(theirs, ours)
        os.close(stdin)
        os.close(said)
        os.environ.clear()
        os.environ.update(question["env"])
        sys.argv = ["moe-bulk", *question["arguments"]]
        if question["sync_seconds"] is not None:
            _sync_every(question["sync_seconds"])
        if question["step"] is not None:
            _arm(Step(**question["step"]))
        from moe_bulk.__main__ import main  # noqa: PLC0415  its signal handler is the child's

        main()
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:  # noqa: BLE001  as the interpreter would
        traceback.print_exc()
        code = 1
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _sync_every(seconds: float) -> None:
    """Sync more often than once a second, so that short runs do it many times."""
    found = [module for name, module in sys.modules.items() if name.startswith("moe_bulk.")]
    holders = [module for module in found if hasattr(module, "SYNC_SECONDS")]
    assert holders, "no module says any more how often it syncs"
    for module in holders:
        vars(module)["SYNC_SECONDS"] = seconds


# --- killed at a step ------------------------------------------------------------------------------------------------


class _Fuse:
    """Counts the calls that a step speaks of, and ends the process at the right one."""

    def __init__(self, step: Step) -> None:
        self.step = step
        self._left = step.nth
        self._lock = threading.Lock()

    def burns(self, call: str, path: object) -> bool:
        """Whether this call is the one."""
        step = self.step
        name = Path(path).name if isinstance(path, (str, os.PathLike)) else ""
        fits = name.startswith(step.file) if step.file.endswith(".") else name == step.file
        if call != step.call or not fits:
            return False
        with self._lock:
            self._left -= 1
            return self._left == 0

    def around(self, work: Callable[[], Any], amid: Callable[[], object] | None = None) -> Any:
        """Carry out what the step speaks of, or less, and end there."""
        if self.step.when == "after":
            work()
        elif self.step.when == "amid" and amid is not None:
            amid()
        os.kill(os.getpid(), signal.SIGKILL)


def _arm(step: Step) -> None:
    """Wrap the calls by which a run folder is written."""
    fuse = _Fuse(step)
    _arm_opening(fuse)
    _arm_renaming(fuse)
    _arm_cutting(fuse)
    _arm_appending(fuse)


def _arm_opening(fuse: _Fuse) -> None:
    really = os.open

    def opening(path: Any, flags: int, *others: Any, **more: Any) -> int:
        def work() -> int:
            return really(path, flags, *others, **more)

        if flags & os.O_CREAT and fuse.burns("open", path):
            fuse.around(work)
        return work()

    os.open = opening


def _arm_renaming(fuse: _Fuse) -> None:
    def arm(really: Callable[..., None]) -> Callable[..., None]:
        def renaming(source: Any, target: Any, **folders: Any) -> None:
            def work() -> None:
                really(source, target, **folders)

            if _says(fuse.step.saying, source, folders.get("src_dir_fd")) and fuse.burns("rename", target):
                fuse.around(work)
            work()

        return renaming

    os.rename, os.replace = arm(os.rename), arm(os.replace)


def _arm_cutting(fuse: _Fuse) -> None:
    really = os.ftruncate

    def cutting(fd: int, length: int) -> None:
        if fuse.burns("cut", Path(f"/proc/self/fd/{fd}").readlink()):
            fuse.around(lambda: really(fd, length))
        really(fd, length)

    os.ftruncate = cutting


def _says(field: str, path: Any, folder: int | None) -> bool:
    """Whether a JSON file has something in a field."""
    if not field:
        return True
    with suppress(OSError, ValueError), os.fdopen(os.open(path, os.O_RDONLY, dir_fd=folder), "rb") as file:
        return bool(json.loads(file.read()).get(field))
    return False


def _arm_appending(fuse: _Fuse) -> None:
    from moe_bulk.journal import AppendOnlyFile  # noqa: PLC0415  the tests' side needs nothing of it

    write, sync = AppendOnlyFile.write, AppendOnlyFile.sync

    def writing(file: AppendOnlyFile, lines: bytes) -> None:
        if lines and fuse.burns("write", file.path):
            fuse.around(lambda: write(file, lines), lambda: write(file, lines[: len(lines) - len(lines) // 3]))
        write(file, lines)

    def syncing(file: AppendOnlyFile) -> None:
        if fuse.burns("sync", file.path):
            fuse.around(lambda: sync(file))
        sync(file)

    AppendOnlyFile.write, AppendOnlyFile.sync = writing, syncing  # type: ignore[method-assign, assignment]


def import_everything() -> None:
    """Load all that a run may need, so that no child has to."""
    names = [each.name for each in pkgutil.walk_packages(moe_bulk.__path__, "moe_bulk.")]
    for name in [*names, *LOADED_LATE]:
        with suppress(ImportError):  # an extra that is not installed; whoever needs more than that will say so
            import_module(name)


if __name__ == "__main__":
    import_everything()
    with socket.socket(fileno=int(sys.argv[1])) as asked:
        serve(asked)
