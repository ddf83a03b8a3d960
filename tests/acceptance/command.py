"""The real command line as a process, and a real sandbox beside it, for the acceptance tests."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from moe_bulk.sandbox import Sandbox, SandboxSettings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

KEY = "s3cr3t-Key-of-the-tests"
NOTHING = subprocess.DEVNULL
Process: TypeAlias = "subprocess.Popen[str]"
COMMAND = (sys.executable, "-m", "moe_bulk")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


def environment(sandbox: Sandbox | None = None, **more: str) -> dict[str, str]:
    """A clean environment; with the sandbox as the destination where there is one."""
    kept = {
        name: os.environ[name]
        for name in ("PATH", "HOME", "XDG_STATE_HOME", "COVERAGE_PROCESS_START", "COV_CORE_SOURCE")
        if name in os.environ
    }
    kept |= {name: value for name, value in os.environ.items() if name.startswith(("COVERAGE_", "COV_CORE_"))}
    kept["PYTHONPATH"] = str(Path(__file__).parents[2])
    kept["PYTHONWARNINGS"] = "error::ResourceWarning"
    if sandbox is not None:
        kept |= {
            "MOENGAGE_BASE_URL": sandbox.url,
            "MOENGAGE_WORKSPACE_ID": sandbox.workspace_id,
            "MOENGAGE_API_KEY": sandbox.api_key,
        }
    return kept | more


def unmeasured(env: dict[str, str]) -> dict[str, str]:
    """The environment without coverage: it starts and ends late, and swallows what it does not know."""
    return {name: value for name, value in env.items() if not name.startswith(("COVERAGE_", "COV_CORE_"))}


@contextmanager
def start(arguments: Sequence[str], folder: Path, env: dict[str, str], stdin: int = NOTHING) -> Iterator[Process]:
    """Start the command; it is killed where it does not end within the block."""
    with subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=folder,
        env=env,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def moe_bulk(arguments: Sequence[str], folder: Path, env: dict[str, str], given: str | None = None) -> Ended:
    """Run the command to its end; `given` is its standard input."""
    with start(arguments, folder, env, NOTHING if given is None else subprocess.PIPE) as process:
        out, err = process.communicate(given, timeout=18)
        return Ended(process.returncode, out, err)


@contextmanager
def running_sandbox(settings: SandboxSettings) -> Iterator[Sandbox]:
    """A sandbox on a loop of its own in a thread, while the test goes on."""
    ready: list[Sandbox] = []
    started = threading.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with Sandbox(settings) as sandbox:
            stop = asyncio.Event()
            ready.append(sandbox)
            stops.append(stop)
            started.set()
            await stop.wait()
        await asyncio.sleep(0.05)  # connections that came at the last moment are gone then, too

    stops: list[asyncio.Event] = []
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    started.wait(10)
    try:
        yield ready[0]
    finally:
        loop.call_soon_threadsafe(stops[0].set)
        thread.join(10)
        loop.close()


def lines(path: Path) -> list[dict[str, Any]]:
    """The lines of an NDJSON file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def summary_of(folder: Path) -> dict[str, Any]:
    """A run's summary."""
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return found


def write_devices(path: Path, count: int) -> Path:
    """A CSV of that many valid devices."""
    rows = "".join(f"user-{number},device-{number},ANDROID,token-{number}:APA91b\n" for number in range(count))
    path.write_text("customer_id,device_id,platform,push_id\n" + rows, encoding="utf-8")
    return path
