"""How fast `moe-bulk check` reads: a file of any size, of which a tenth are devices that stand there already.

    python benchmarks/check_input.py --rows 1000000 10000000

Each size is checked in a process of its own, on one core, between two that only parse, check and encode the same rows
by a plain function (`by_hand`): the yardstick for the machine. CPU time is user and system.
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

import orjson
from by_hand import bodies
from machine import describe, load, peak_memory
from measure import table

WRITTEN_AT_ONCE = 10_000


def row(number: int) -> dict[str, str]:
    """An Android device; every tenth row is the device of the row before it once more, with another token."""
    digest = blake2b(b"%d" % number, digest_size=64).hexdigest()
    who = number - (number % 10 == 9)
    return {
        "customer_id": f"customer-{who:08}",
        "device_id": f"device-{who:08}",
        "platform": "ANDROID",
        "push_id": f"{digest[:22]}:{digest}",
        "model": "Pixel 9",
        "app_version": "1.10",
        "os_version": "16",
        "moe_gaid": f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}",
    }


def write(path: Path, rows: int) -> None:
    """Write that many rows as NDJSON."""
    with path.open("wb") as file:
        for start in range(0, rows, WRITTEN_AT_ONCE):
            numbers = range(start, min(start + WRITTEN_AT_ONCE, rows))
            file.write(b"".join(orjson.dumps(row(number)) + b"\n" for number in numbers))


def check(path: str) -> None:
    """Check a file and print what it took; in a process of its own."""
    from moe_bulk import check as check_rows  # noqa: PLC0415  in the child only

    wall, cpu = time.perf_counter(), time.process_time()
    found = check_rows(path)
    taken = {
        "rows": found["rows"],
        "repeated": found["repeated"]["values"],
        "cpu": time.process_time() - cpu,
        "wall": time.perf_counter() - wall,
        "megabytes": peak_memory(),
    }
    print(json.dumps(taken))


def read_by_hand(path: str) -> None:
    """Only parse, check and encode the rows; in a process of its own, too."""
    cpu = time.process_time()
    rows = sum(1 for _ in bodies(Path(path)))
    print(json.dumps({"rows": rows, "cpu": time.process_time() - cpu}))


def apart(what: str, path: Path) -> dict[str, float]:
    """Do one of both in a process of its own."""
    done = subprocess.run([sys.executable, __file__, what, str(path)], capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measured(rows: int) -> list[str]:
    """A line of the table."""
    with tempfile.TemporaryDirectory(prefix="check-") as folder:
        path = Path(folder) / "devices.ndjson"
        write(path, rows)
        before, taken, after = (apart(what, path) for what in ("--by-hand", "--check", "--by-hand"))
    by_hand = (before["rows"] + after["rows"]) / (before["cpu"] + after["cpu"])
    expected = rows // 10
    counted = f"{taken['repeated']:,}" + ("" if taken["repeated"] == expected else f" NOT {expected:,}")
    return [
        f"{taken['rows']:,}",
        f"{taken['rows'] / taken['cpu']:,.0f}",
        f"{taken['cpu'] / taken['rows'] * 1e6:.1f}",
        f"{by_hand:,.0f}",
        f"{taken['rows'] / taken['cpu'] / by_hand:.2f}x",
        f"{taken['wall']:.1f}",
        f"{taken['megabytes']:.0f}",
        counted,
    ]


def main() -> None:
    """Measure each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--check", help=argparse.SUPPRESS)
    parser.add_argument("--by-hand", help=argparse.SUPPRESS)
    said = parser.parse_args()
    if said.by_hand:
        read_by_hand(said.by_hand)
        return
    if said.check:
        check(said.check)
        return
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    print(f"{describe()}, load {load()}\n")
    speeds = ["rows a CPU second", "us of CPU a row", "by hand", "of it"]
    head = ["rows", *speeds, "s", "MB at most", "repeated devices"]
    print(table(head, [measured(rows) for rows in said.rows]))


if __name__ == "__main__":
    main()
