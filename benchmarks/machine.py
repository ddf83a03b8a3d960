"""The machine that the numbers come from: its cores, its load, and the versions of what was measured."""

from __future__ import annotations

import gc
import os
import platform
import resource
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    *("moe-bulk", "httpx", "httpcore", "httpx-aiohttp", "aiohttp", "anyio", "sniffio", "aiolimiter", "orjson"),
    "uvloop",
)
BUSY = 2.0
"""A load average above this blurs the numbers."""


def cores() -> tuple[int | None, int | None]:
    """The client's core and the server's, where the system can pin processes and there are two of them."""
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    found = sorted(os.sched_getaffinity(0))
    return (found[0], found[-1]) if len(found) > 1 else (None, None)


def pin(core: int | None) -> None:
    """Keep this process on one core."""
    if core is not None:
        os.sched_setaffinity(0, {core})


def collect_rarely() -> None:
    """Let Python look for garbage about as rarely as the command line does, for all that are measured alike."""
    gc.collect()
    gc.set_threshold(10_000, *gc.get_threshold()[1:])


def peak_memory() -> float:
    """The most memory that this process held, in MB.

    Linux keeps ru_maxrss across execve (man 2 getrusage), so a small process that a large one started tells what its
    parent held, and a benchmark grows with what it has found. VmHWM is this program's own.
    """
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    return megabytes(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def megabytes(ru_maxrss: int) -> float:
    """What getrusage tells, in MB: macOS has it in bytes, others in KiB."""
    return ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def loopback_environment() -> dict[str, str]:
    """The environment without proxies: nothing of a benchmark leaves the machine."""
    return {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}


def load_average() -> float:
    """The load average of the last minute."""
    return os.getloadavg()[0]


def load() -> str:
    """The load average of the last minute, and a word where it is too high."""
    average = load_average()
    return f"{average:.1f}" + (" (busy: run it again on a quiet machine)" if average > BUSY else "")


def describe() -> str:
    """System, cores, interpreter and packages, in two lines."""
    client, server = cores()
    pinned = "not pinned" if client is None else f"client on core {client}, server on core {server}"
    packages = ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    return (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores ({pinned}), "
        f"{platform.python_implementation()} {platform.python_version()}, asyncio's own loop\n{packages}"
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
