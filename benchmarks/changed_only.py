"""What it costs to leave out what MoEngage has: millions of devices are known, 2 % of the rows have changed.

    python benchmarks/changed_only.py --devices 5000000 --rows 500000

The state file is generated, as acceptances in any order would have left it. First all devices are asked about, and what
is accepted of the changed ones is noted, which is what the skipping itself costs; then the command line uploads a file
of the first rows, from CSV to written results, to a local server that answers at once.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from machine import describe, load, loopback_environment, megabytes, peak_memory
from measure import Stopwatch, serving, table
from records import API_KEY, WORKSPACE

from moe_bulk.device import Device
from moe_bulk.known import Known, Settled, _all_of
from moe_bulk.screening import PORTION

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MONTH = 30 * 86_400.0
WHOSE = ("127.0.0.1", WORKSPACE)
CHANGED = 50
"""One row in so many has changed: 2 %."""

COLUMNS = ("customer_id", "device_id", "platform", "push_id", "model", "app_version", "os_version", "moe_gaid")


def device(number: int, *, changed: bool = False) -> Device:
    """An Android device with a token and an advertising id."""
    digest = blake2b(b"%d" % number, digest_size=64).hexdigest()
    attributes = {
        "platform": "ANDROID",
        "push_id": f"{digest[:22]}:{digest}",
        "model": "Pixel 9",
        "app_version": "1.11" if changed else "1.10",
        "os_version": "16",
        "moe_gaid": digest[:32],
    }
    return Device(f"customer-{number:08}", f"device-{number:08}", attributes)


def as_rows_say(number: int) -> Device:
    """The device of a row: one in fifty has changed."""
    return device(number, changed=number % CHANGED == 0)


def portions(count: int) -> Iterator[range]:
    """The numbers in portions."""
    for start in range(0, count, PORTION):
        yield range(start, min(start + PORTION, count))


def write_state(path: Path, count: int) -> None:
    """Fill a state file; to be called in a process of its own, since it takes memory."""
    known, now = Known(path, WHOSE, MONTH, time.time()), int(time.time())
    db = known._db  # noqa: SLF001  what the acceptances of months would have written
    db.execute("PRAGMA cache_size = -1500000")
    db.execute("PRAGMA synchronous = OFF")
    db.execute("BEGIN")
    for portion in portions(count):
        devices = list(map(device, portion))
        said = known._hashed(list(map(_all_of, devices)))  # noqa: SLF001
        marks = [known._mark(one, its, now) for one, its in zip(devices, said, strict=True)]  # noqa: SLF001
        db.executemany("INSERT INTO devices VALUES (?, ?, ?)", [(mark.keys[0], mark.said, now) for mark in marks])
        held = [(key, mark.keys[0], now) for mark in marks for key in mark.keys[1:]]
        db.executemany("INSERT INTO holders VALUES (?, ?, ?)", held)
    db.execute("COMMIT")
    known.close()


def ask(path: Path, count: int) -> dict[str, float]:
    """Ask about all devices, and note that MoEngage accepted the changed ones.

    To be called in a process of its own, whose memory is measured.
    """
    known, watch, left_out = Known(path, WHOSE, MONTH, time.time()), Stopwatch(), 0
    for portion in portions(count):
        devices = [as_rows_say(number) for number in portion]
        with watch:
            marks = known.decide(devices, time.time())
            known.note([Settled(mark, accepted=True, sure=True) for mark in marks if mark], time.time())
        left_out += marks.count(None)
    known.close()
    return {"cpu": watch.cpu, "seconds": watch.seconds, "memory": peak_memory(), "left_out": left_out}


def write_rows(path: Path, count: int) -> None:
    """Write the first rows as CSV."""
    with path.open("w", encoding="utf-8") as file:
        file.write(",".join(COLUMNS) + "\n")
        for number in range(count):
            one = as_rows_say(number)
            file.write(
                ",".join((one.customer_id, one.device_id, *(one.attributes[name] for name in COLUMNS[2:]))) + "\n"
            )


def upload(scratch: Path, state: Path, count: int) -> dict[str, float]:
    """Upload the first rows with the command line."""
    write_rows(scratch / "rows.csv", count)
    options = ["--changed-only", "--state", str(state), "--rate", "60000000/min", "--pace", "process", "-q", "--json"]
    command = [sys.executable, "-m", "moe_bulk", "upload", "rows.csv", *options]
    with serving(0.0) as server:
        environment = loopback_environment() | {
            "MOENGAGE_BASE_URL": server.url,
            "MOENGAGE_WORKSPACE_ID": WORKSPACE,
            "MOENGAGE_API_KEY": API_KEY,
        }
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=scratch, env=environment, stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"the upload ended with {process.returncode}")
    counts = json.loads((scratch / "rows.csv.run" / "summary.json").read_text(encoding="utf-8"))["counts"]
    # this process holds less than the upload: see machine.peak_memory
    cpu, memory = used.ru_utime + used.ru_stime, megabytes(used.ru_maxrss)
    return {"cpu": cpu, "seconds": seconds, "memory": memory, "left_out": counts["unchanged"]}


def apart(what: str, state: Path, count: int) -> str:
    """Do something in a process of its own, and return what it printed."""
    command = [sys.executable, __file__, what, str(state), "--devices", str(count)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def told(name: str, rows: int, found: dict[str, float]) -> tuple[str, ...]:
    """A line of the table."""
    return (
        name,
        f"{rows:,}",
        f"{int(found['left_out']):,}",
        f"{found['cpu']:.1f}",
        f"{found['cpu'] / rows * 1e6:.1f}",
        f"{found['seconds']:.1f}",
        f"{found['memory']:.0f}",
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=5_000_000, help="known; default 5000000")
    parser.add_argument("--rows", type=int, default=500_000, help="uploaded; default 500000")
    parser.add_argument("--ask", help=argparse.SUPPRESS)
    parser.add_argument("--write", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.ask:
        print(json.dumps(ask(Path(options.ask), options.devices)))
        return
    if options.write:
        write_state(Path(options.write), options.devices)
        return
    if not 1 <= options.rows <= options.devices:
        parser.error("there are at least as many devices as rows")
    print(f"{describe()}\nload average {load()}\n")
    with tempfile.TemporaryDirectory(prefix="moe-bulk-benchmark-") as scratch:
        state = Path(scratch) / "a.known"
        apart("--write", state, options.devices)
        size = state.stat().st_size / options.devices
        print(
            f"{options.devices:,} devices are known, each with a token and an advertising id: {size:.0f} bytes each\n"
        )
        whole = upload(Path(scratch), state, options.rows)
        skipping = json.loads(apart("--ask", state, options.devices))
    head = ("", "rows", "left out", "CPU s", "CPU µs a row", "seconds", "MB")
    asked = told("asking what is known", options.devices, skipping)
    print(table(head, [asked, told("the whole upload", options.rows, whole)]))


if __name__ == "__main__":
    main()
