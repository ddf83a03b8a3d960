"""The picture in a real tmux, which breaks lines at once and tells only later how wide it has become."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from moe_bulk.sandbox import Faults, Sandbox, SandboxSettings
from tests.acceptance.command import COMMAND, KEY, environment, running_sandbox, unmeasured, write_devices

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """A MoEngage that takes a while to answer."""
    with running_sandbox(SandboxSettings(api_key=KEY, limit=None, faults=Faults.parse("latency=50ms"))) as running:
        yield running


class Tmux:
    """A server of our own with one window."""

    def __init__(self, folder: Path, env: dict[str, str], command: str) -> None:
        self._name = f"moe-bulk-{os.getpid()}"
        self._folder, self._env = folder, env
        self("new-session", "-d", "-x", "100", "-y", "24", command)

    def __call__(self, *words: str) -> str:
        """Carry out one of its commands."""
        command = ["tmux", "-L", self._name, "-u", "-f", "/dev/null", *words]
        ended = subprocess.run(
            command, cwd=self._folder, env=self._env, capture_output=True, text=True, check=True, timeout=10
        )
        return ended.stdout

    def shown(self) -> list[str]:
        """What stands in the window."""
        return self("capture-pane", "-p").splitlines()

    def accepted(self) -> int:
        """How many rows it tells of, at least so many that it is painted."""
        told = [line.split()[0] for line in self.shown() if line.endswith(" accepted")]
        return int(told[-1].replace(",", "")) if told else 0

    def wait_for_pictures(self, count: int) -> None:
        """Wait until it was painted so many times."""
        until = time.monotonic() + 15
        for _ in range(count):
            before = self.accepted()
            while self.accepted() <= before and time.monotonic() < until:
                time.sleep(0.05)
        assert time.monotonic() < until, self.shown()


def test_a_window_that_becomes_narrower_holds_one_picture(tmp_path: Path, sandbox: Sandbox) -> None:
    """Twice within a moment, as when it is dragged: nothing of the wider picture stays above the new one."""
    write_devices(tmp_path / "devices.csv", 3000)
    words = [*COMMAND, "upload", "devices.csv", "--rate", "100/s", "--pace", "process"]
    command = f"yes | head -40; exec {shlex.join(words)}"  # at the foot of the window, as mostly
    tmux = Tmux(tmp_path, unmeasured(environment(sandbox, LC_ALL="C.UTF-8")), command)
    try:
        for narrow in ("45", "38", "50"):
            tmux("resize-window", "-x", "100")
            tmux.wait_for_pictures(1)
            tmux("resize-window", "-x", "99")
            tmux("resize-window", "-x", narrow)
            tmux.wait_for_pictures(3)
            shown = tmux.shown()
            assert 1 == sum("──" in line for line in shown), shown
            assert 1 == sum("of 100/s" in line for line in shown), shown
    finally:
        tmux("kill-server")
