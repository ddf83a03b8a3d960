"""Processes that share one limit through Redis: how much of it is used, the worst window, and what it costs.

    python benchmarks/redis_pace.py --processes 3 10 --rates 10000/min 600000/min --seconds 150

A Redis server is started on a port of its own, with nothing in it but a workspace that it has known for long. The
processes draw slots and send eight bytes for each to a server that notes when they arrived, and when it answered them:
600,000 a minute are more than two cores can deliver over HTTP, and what is measured is the pace. `--uploads` measures
the real command line against a local HTTP server in their place. Windows are counted from what the server noted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from array import array
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from counting_server import SIZE
from machine import describe, load, loopback_environment
from measure import HERE, busiest, serving, table
from records import API_KEY, WORKSPACE, write_records

from moe_bulk import Rate
from moe_bulk.clock import Clock, boot_seconds
from moe_bulk.pacing.address import RedisPace
from moe_bulk.pacing.courier import Courier, RedisStore
from moe_bulk.pacing.remote import RemoteWindow
from moe_bulk.pacing.reservations import LEAVES, Call, Terms, key_of, script

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from moe_bulk.pacing.guard import Slot

TIMEOUT, PATIENCE = 30.0, 1800.0
SPREAD = 0.2
SENT_AT_ONCE = 100
HEAD = (
    *("processes", "limit", "used", "worst window: arrivals", "any moment", "calls a request", "Redis: CPU µs a call"),
    "of a core",
)

LEGEND = """\
used            requests, as a share of what the limit allows, from the end of the first window on
worst window    the most requests that arrived in any window of the limit's length, wherever it starts
any moment      the same, each request counted at whichever moment between its arrival and its answer is the worst
calls           questions to Redis for each request, all of them: joining, heartbeats and leaving included"""


@dataclass(frozen=True, slots=True)
class Found:
    """What so many processes made of a limit together."""

    processes: int
    rate: Rate
    sent: array[float]
    answered: array[float]
    calls: int
    redis_cpu: float
    seconds: float

    def row(self) -> tuple[str, ...]:
        """Its line in the table."""
        begun, last = min(self.sent) + self.rate.per, max(self.sent)
        used = sum(at >= begun for at in self.sent) / ((last - begun) * self.rate.per_second)
        return (
            str(self.processes),
            str(self.rate),
            f"{used:.2%}",
            f"{busiest(zip(self.sent, self.sent, strict=True), self.rate.per):,}",
            f"{busiest(zip(self.sent, self.answered, strict=True), self.rate.per):,}",
            f"{self.calls / len(self.sent):.4f}",
            f"{self.redis_cpu / self.calls * 1e6:,.0f}",
            f"{self.redis_cpu / self.seconds:.1%}",
        )


# --- a server ---------------------------------------------------------------------------------------------------------


@contextmanager
def redis_running() -> Iterator[int]:
    """Run a Redis server while the block is open; its port."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        raise SystemExit("there is no redis-server here: install Redis or Valkey")
    with tempfile.TemporaryDirectory(prefix="moe-bulk-benchmark-") as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
        free.close()
        words = [
            program,
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--dir",
            folder,
            "--save",
            "",
            "--loglevel",
            "warning",
        ]
        with subprocess.Popen(words, stdout=subprocess.DEVNULL) as server:
            try:
                _wait(port)
                yield port
            finally:
                server.terminate()


def _wait(port: int) -> None:
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise SystemExit("the Redis server does not start")


def know(port: int, key: str, rate: Rate) -> None:
    """Let the server know the workspace since long ago, or it would send nothing for a whole window."""
    import redis  # noqa: PLC0415  its absence is told by the pace itself

    terms = Terms("before", rate, TIMEOUT)
    with redis.Redis(port=port) as client:
        carry_out = client.register_script(script())
        for want in (0, LEAVES):
            carry_out(keys=[key], args=Call(want=want).words(terms))
        client.hset(key, "blocked", "0")
        client.config_resetstat()


def spent(port: int) -> tuple[int, float]:
    """Scripts that were carried out since, and CPU seconds of the server so far."""
    import redis  # noqa: PLC0415

    with redis.Redis(port=port) as client:
        calls = client.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0)
        cpu = client.info("cpu")
    return int(calls), float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"])


# --- processes that draw slots ----------------------------------------------------------------------------------------


class Sending(asyncio.Protocol):
    """Sends a number for each slot, and closes the slot when the number comes back."""

    def __init__(self, window: RemoteWindow, clock: Clock) -> None:
        self._window, self._clock = window, clock
        self._slots: dict[bytes, Slot] = {}
        self._rest = b""
        self._count = 0
        self._answered = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It may begin."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Close the slots of the requests that were answered."""
        data, now = self._rest + data, self._clock.now()
        for at in range(0, len(data) - SIZE + 1, SIZE):
            self._window.answered(self._slots.pop(data[at : at + SIZE]), now)
        self._rest = data[len(data) - len(data) % SIZE :]
        self._answered.set()

    def send(self) -> None:
        """Use the slots that are due, some of them."""
        numbers: list[bytes] = []
        while len(numbers) < SENT_AT_ONCE and (slot := self._window.take(self._clock.now())) is not None:
            self._count += 1
            numbers.append(self._count.to_bytes(SIZE, "big"))
            self._slots[numbers[-1]] = slot
        self._transport.write(b"".join(numbers))

    async def ended(self) -> None:
        """Wait for the last answer."""
        self._answered.clear()
        while self._slots:
            await self._answered.wait()
            self._answered.clear()


async def draw(job: dict[str, Any]) -> None:
    """Draw slots for so long, as many as there are, and send something for each."""
    rate, clock = Rate(job["limit"], job["per"]), Clock(boot_seconds, 0.0)
    terms = Terms(os.urandom(8).hex(), rate, TIMEOUT)
    window = RemoteWindow(terms, "redis", PATIENCE, clock.now())
    courier = Courier(window, RedisStore(RedisPace(f"redis://127.0.0.1:{job['port']}"), job["key"], terms), clock)
    loop = asyncio.get_running_loop()
    connection, sending = await loop.create_connection(lambda: Sending(window, clock), "127.0.0.1", job["server"])
    await courier.join()
    carrying = asyncio.create_task(courier.run(lambda error: sys.exit(str(error))))
    until = clock.now() + job["seconds"]
    while (now := clock.now()) < until:
        sending.send()
        await asyncio.sleep(min(max(window.free_at(now) - now, 0), 0.001))
    await sending.ended()
    carrying.cancel()
    await courier.leave()
    connection.close()


def drawing(processes: int, rate: Rate, seconds: float, latency: float) -> Found:
    """Let so many processes draw slots, and a server count what they send."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="moe-bulk-benchmark-")))
        port = stack.enter_context(redis_running())
        key = key_of("benchmark:443", WORKSPACE)
        know(port, key, rate)
        words = [sys.executable, str(HERE / "counting_server.py"), f"--latency={latency}", f"--spread={SPREAD}"]
        counting = subprocess.Popen([*words, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        server = stack.enter_context(counting)
        assert server.stdin is not None and server.stdout is not None  # noqa: S101, PT018  they are pipes
        job = {"limit": rate.limit, "per": rate.per, "port": port, "key": key, "seconds": seconds}
        job["server"] = int(server.stdout.readline())
        _, before = spent(port)
        words = [sys.executable, __file__, "--draw", json.dumps(job)]
        running = [stack.enter_context(subprocess.Popen(words, env=loopback_environment())) for _ in range(processes)]
        if any(process.wait(timeout=seconds + 60) for process in running):
            raise SystemExit("a process did not come to its end")
        calls, after = spent(port)
        server.stdin.close()
        server.wait(timeout=60)
        arrived, answered = (_read(folder / name) for name in ("arrived", "answered"))
    return Found(processes, rate, arrived, answered, calls, after - before, seconds)


def _read(path: Path) -> array[float]:
    found = array("d")
    found.frombytes(path.read_bytes())
    return found


# --- real uploads -----------------------------------------------------------------------------------------------------


def uploading(processes: int, rate: Rate, seconds: float, latency: float) -> Found:
    """Let so many real uploads deliver to a local server; what it noted counts."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="moe-bulk-benchmark-")))
        server = stack.enter_context(serving(latency, SPREAD))
        port = stack.enter_context(redis_running())
        know(port, key_of(server.url.removeprefix("http://"), WORKSPACE), rate)
        _, before = spent(port)
        count = math.ceil(rate.per_second * seconds * 1.5 / processes) + 1000
        running = [
            stack.enter_context(_upload(each, count, folder, server.url, f"redis://127.0.0.1:{port}", rate))
            for each in range(processes)
        ]
        time.sleep(seconds)
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            process.wait(timeout=60)
        calls, after = spent(port)
        report = server.report()
    answers = report.answers[: len(report.arrivals)]
    return Found(processes, rate, array("d", report.arrivals), array("d", answers), calls, after - before, seconds)


def _upload(number: int, count: int, folder: Path, url: str, pace: str, rate: Rate) -> subprocess.Popen[bytes]:
    source = write_records(folder / f"devices-{number}.csv", count, number * count)
    environment = loopback_environment() | {
        "MOENGAGE_WORKSPACE_ID": WORKSPACE,
        "MOENGAGE_API_KEY": API_KEY,
        "MOENGAGE_BASE_URL": url,
        "MOE_BULK_PACE": pace,
    }
    command = [sys.executable, "-m", "moe_bulk", "upload", str(source), "--quiet", "--rate", str(rate)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)


# ----------------------------------------------------------------------------------------------------------------------


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[3, 10])
    parser.add_argument("--rates", type=Rate.parse, nargs="+", default=[Rate(10_000, 60.0), Rate(600_000, 60.0)])
    parser.add_argument("--seconds", type=float, default=150.0, help="for each line; default 150")
    parser.add_argument("--latency", type=float, default=50.0, metavar="MS", help="default 50, give or take a fifth")
    parser.add_argument("--uploads", action="store_true", help="the real command line, over HTTP")
    parser.add_argument("--draw", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.draw is None and options.seconds < 2 * max(rate.per for rate in options.rates):
        parser.error("it takes two windows at least")
    return options


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    options = arguments(argv)
    if options.draw is not None:
        asyncio.run(draw(options.draw))
        return
    what = "real uploads" if options.uploads else "processes that draw slots and send eight bytes for each"
    print(f"{describe()}\n\n{LEGEND}\n\n{what}, {options.seconds:g} s each, answers after {options.latency:g} ms ± 20%")
    measure, found, before = uploading if options.uploads else drawing, [], load()
    for rate in options.rates:
        found += [measure(each, rate, options.seconds, options.latency / 1000) for each in options.processes]
    print(f"load average {before} before, {load()} after\n")
    print(table(HEAD, [each.row() for each in found]))


if __name__ == "__main__":
    main()
