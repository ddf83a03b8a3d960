"""The real command line on a real terminal: what it paints, and that a terminal which takes nothing holds up no run."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import termios
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from moe_bulk.sandbox import Faults, Sandbox, SandboxSettings
from tests.acceptance.command import COMMAND, KEY, environment, running_sandbox, summary_of, write_devices

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A MoEngage that takes a while to answer."""
    faults = Faults.parse("latency=100ms..200ms")
    with running_sandbox(SandboxSettings(api_key=KEY, limit=None, faults=faults)) as running:
        yield running


@contextmanager
def on_a_terminal(folder: Path, sandbox: Sandbox, **more: str) -> Iterator[tuple[subprocess.Popen[bytes], int, int]]:
    """Upload with standard error on a terminal; gives the process and the terminal's two ends."""
    ours, theirs = os.openpty()
    command = [*COMMAND, "upload", "devices.csv", "--rate", "200/s"]
    env = environment(sandbox, **{"TERM": "xterm-256color", **more})
    try:
        # a group of its own, whose parent is in this session: what has no such parent cannot be suspended
        with subprocess.Popen(command, cwd=folder, env=env, stderr=theirs, process_group=0) as process:
            try:
                yield process, ours, theirs
            finally:
                process.kill()
    finally:
        os.close(ours)
        os.close(theirs)


def all_of(terminal: int) -> str:
    """What was written to it and not read yet."""
    os.set_blocking(terminal, False)
    said = b""
    while True:
        try:
            said += os.read(terminal, 65536)
        except BlockingIOError:
            return said.decode()


def wait_for_the_summary(folder: Path) -> None:
    """Wait until the run is over."""
    until = time.monotonic() + 15
    while not (folder / "devices.csv.run" / "summary.json").exists() and time.monotonic() < until:
        time.sleep(0.05)


def test_it_is_painted_and_taken_away_again(tmp_path: Path, sandbox: Sandbox) -> None:
    """While it goes on there is a picture; what stands there in the end is text."""
    write_devices(tmp_path / "devices.csv", 300)
    with on_a_terminal(tmp_path, sandbox) as (process, ours, _):
        assert 0 == process.wait(15)
        said = all_of(ours)
    assert "in flight" in said
    assert "\x1b[" in said
    assert "\x1b[" not in said[said.index("Read 300 rows: 300 accepted") :]
    assert "?25" not in said  # nothing is hidden that somebody would have to show again


@pytest.mark.parametrize("variable", ["NO_COLOR=1", "TERM=dumb"])
def test_wishes_are_obeyed(tmp_path: Path, sandbox: Sandbox, variable: str) -> None:
    """Without colours where they are not wanted, without any codes where the terminal knows none."""
    write_devices(tmp_path / "devices.csv", 100)
    name, _, value = variable.partition("=")
    with on_a_terminal(tmp_path, sandbox, **{name: value}) as (process, ours, _):
        assert 0 == process.wait(15)
        said = all_of(ours)
    assert "\x1b[36m" not in said
    assert ("\x1b[" in said) == (name == "NO_COLOR")


def test_a_run_that_is_suspended_leaves_the_terminal_to_the_shell(tmp_path: Path, sandbox: Sandbox) -> None:
    """Ctrl-Z takes the picture away before the shell writes there; `fg`, and it is painted again and goes on."""
    write_devices(tmp_path / "devices.csv", 5_000)  # for longer than the slowest machine takes to look
    with on_a_terminal(tmp_path, sandbox) as (process, ours, _):
        wait_for_the_picture(ours)
        for _ in range(2):
            process.send_signal(signal.SIGTSTP)
            _, status = os.waitpid(process.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
            said = all_of(ours)
            assert re.search(r"\r\x1b\[\d+M$", said), said
            process.send_signal(signal.SIGCONT)
            wait_for_the_picture(ours)
        process.terminate()
        assert 143 == process.wait(15)
        assert "run the same command again to go on" in all_of(ours)


def wait_for_the_picture(terminal: int) -> None:
    """Wait until it is painted for the first time."""
    until, said = time.monotonic() + 15, ""
    while "in flight" not in said and time.monotonic() < until:
        time.sleep(0.05)
        said += all_of(terminal)
    assert "in flight" in said


def test_a_terminal_that_takes_nothing_holds_up_no_run(tmp_path: Path, sandbox: Sandbox) -> None:
    """Ctrl-S in the middle: nothing more is taken, the run goes on to its end; Ctrl-Q, and it says what came of it."""
    write_devices(tmp_path / "devices.csv", 500)
    with on_a_terminal(tmp_path, sandbox) as (process, ours, theirs):
        wait_for_the_picture(ours)
        termios.tcflow(theirs, termios.TCOOFF)
        assert not (tmp_path / "devices.csv.run" / "summary.json").exists()  # it is still at work
        all_of(ours)
        wait_for_the_summary(tmp_path)
        assert 500 == summary_of(tmp_path / "devices.csv.run")["counts"]["accepted"]
        assert "" == all_of(ours)
        termios.tcflow(theirs, termios.TCOON)
        assert 0 == process.wait(15)
        assert "Read 500 rows: 500 accepted" in all_of(ours)
