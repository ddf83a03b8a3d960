"""What is measured, and how it becomes a number: jobs, their processes, spreads, the busiest window."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from machine import loopback_environment

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

ENGINE, BARE, SCRIPT, PIPELINE = "moe_bulk", "bare loop", "plain script", "aiohttp pipeline"
DLT, DRT = "dlt", "drt"
PEERS = (DLT, DRT)
"""Contenders that run in an environment of their own, by `peers.py`."""

ASYNCIO, UVLOOP = "asyncio", "uvloop"
UNCAPPED = 10_000_000
"""A limit, in requests a minute, that nobody here reaches."""

HERE = Path(__file__).parent
ENOUGH = 600.0
"""Seconds after which a contender is stopped."""


class Stopwatch:
    """Seconds and CPU seconds (user and system, all threads) of what stands within `with`, added up."""

    def __init__(self) -> None:
        self.seconds = self.cpu = 0.0

    def __enter__(self) -> None:
        self._began, self._used = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        self.cpu += time.process_time() - self._used
        self.seconds += time.perf_counter() - self._began


@dataclass(frozen=True, slots=True)
class Job:
    """What one contender has to do: send the CSV file `source` to `url`.

    `in_flight` None leaves the number of requests on their way to the engine; the others take 64 then. `authority` is a
    PEM file for TLS. The `warm_up` file is sent first and not measured.
    """

    contender: str
    url: str
    source: str
    warm_up: str | None = None
    in_flight: int | None = 64
    limit: int = UNCAPPED
    per: float = 60.0
    authority: str | None = None
    core: int | None = None
    loop: str = ASYNCIO

    @property
    def workers(self) -> int:
        """Requests on their way at a time, for those who must be told."""
        return self.in_flight or 64

    @property
    def capped(self) -> bool:
        """Whether there is a limit that matters."""
        return self.limit < UNCAPPED


@dataclass(frozen=True, slots=True)
class Measured:
    """One contender's round: rows accepted, seconds, CPU seconds (user and system, all threads), peak memory in MB."""

    accepted: int
    seconds: float
    cpu: float
    memory: float


@dataclass(frozen=True, slots=True)
class Report:
    """What the server saw meanwhile, warm-up included: times are seconds of its own clock, `cpu` its CPU seconds."""

    connections: int
    cpu: float
    arrivals: list[float]
    answers: list[float]


class Server:
    """A running server process: its port, and what it saw."""

    def __init__(self, process: subprocess.Popen[str], scheme: str) -> None:
        self._process = process
        self.url = f"{scheme}://127.0.0.1:{int(self._hear())}"

    def report(self) -> Report:
        """What it saw since the last report."""
        assert self._process.stdin is not None  # noqa: S101  it is a pipe
        self._process.stdin.write("report\n")
        self._process.stdin.flush()
        return Report(**json.loads(self._hear()))

    def _hear(self) -> str:
        assert self._process.stdout is not None  # noqa: S101  it is a pipe
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the benchmark's server ended unexpectedly")
        return line


@contextmanager
def serving(
    latency: float = 0.0,
    spread: float = 0.0,
    certificate: Path | None = None,
    core: int | None = None,
    faults: float = 0.0,
    hold: float = 0.0,
) -> Iterator[Server]:
    """Run the server while the block is open; latency in seconds, its spread and the faults as shares.

    It answers nothing in the first `hold` seconds of a report, and then all at once.
    """
    command = [sys.executable, str(HERE / "server.py"), f"--latency={latency}", f"--spread={spread}"]
    command += [f"--faults={faults}", f"--hold={hold}"]
    command += [f"--certificate={certificate}"] if certificate else []
    command += [] if core is None else [f"--core={core}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Server(process, "https" if certificate else "http")
        finally:
            _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None  # noqa: S101  it is a pipe
    process.stdin.close()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()


class Failed(RuntimeError):
    """A contender or a part did not do its job; says the last line that it wrote."""


def run(job: Job, python: str = sys.executable) -> Measured:
    """Do a job in a fresh process, of the environment that `python` belongs to, and return what it measured there."""
    program = "peers.py" if job.contender in PEERS else "contenders.py"
    return in_process(program, asdict(job), python)


def in_process(program: str, job: dict[str, object], python: str = sys.executable, enough: float = ENOUGH) -> Measured:
    """Give a program its job on standard input and return what it measured; `enough` is seconds."""
    done = subprocess.run(
        [python, str(HERE / program)],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        check=False,
        timeout=enough,
        env=loopback_environment(),
    )
    if done.returncode:
        raise Failed((done.stderr.strip().splitlines() or [f"{program} ended with {done.returncode}"])[-1])
    return Measured(**json.loads(done.stdout.splitlines()[-1]))


def certify(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for 127.0.0.1 and return its file and its authority's; ImportError without trustme."""
    import trustme  # noqa: PLC0415  only the tests' extra brings it

    authority = trustme.CA()
    certificate, root = folder / "server.pem", folder / "authority.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(certificate))
    authority.cert_pem.write_to_path(str(root))
    return certificate, root


def spread(values: Sequence[float], digits: int = 0, unit: str = "") -> str:
    """Median, and least to most where there are several: `5,120 (4,980 to 5,200)`, with a unit `4.4x (4.2 to 4.6)`."""
    middle = f"{statistics.median(values):,.{digits}f}{unit}"
    return middle if len(values) < 2 else f"{middle} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def ratio(values: Sequence[float], others: Sequence[float]) -> str:
    """One median as a multiple of another, and of single rounds the least and the most: `4.41x (4.20 to 4.63)`."""
    found = statistics.median(values) / statistics.median(others)
    each = [value / other for value, other in zip(values, others, strict=True)]
    return f"{found:.2f}x" if len(each) < 2 else f"{found:.2f}x ({min(each):.2f} to {max(each):.2f})"


def busiest(stays: Iterable[tuple[float, float]], window: float) -> int:
    """The most requests in any window of so many seconds, each counted at any moment of its stay (first, last).

    A window [s, s + window) can count a request that stays from a to b where a - window < s <= b: the answer is how
    many of these spans overlap.
    """
    edges = [edge for first, last in stays for edge in ((first - window, 1), (last, -1))]
    most = held = 0
    for _, step in sorted(edges):  # ends before beginnings: at one moment, what ends there has been counted already
        held += step
        most = max(most, held)
    return most


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown that also reads well in a terminal: names to the left, numbers to the right."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(_line(line, widths) for line in (lines[0], rule, *lines[1:]))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    name, *numbers = (
        cell.rjust(width) if index else cell.ljust(width)
        for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return f"| {' | '.join((name, *numbers))} |"
