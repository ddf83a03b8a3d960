"""How soon a resumed run sends its first request, beside a run that begins: 50 million rows are behind it.

    python benchmarks/resume.py --rows 50000000

The file is real. The run folder is made up: a checkpoint that says that all rows but the last ones are settled, as a
run of days would have left it. Both send one row; the time is from the start of the process to the request's arrival.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from machine import describe, load, loopback_environment
from measure import serving, spread, table
from records import API_KEY, WORKSPACE

from moe_bulk.checkpoint import Checkpoint
from moe_bulk.clock import boot_id, boot_seconds
from moe_bulk.columns import Columns
from moe_bulk.config import Credentials
from moe_bulk.fingerprint import of_file
from moe_bulk.outcome import Attempt, Result, Status
from moe_bulk.record import Position, Row
from moe_bulk.reuse import settings_that_matter
from moe_bulk.settled import Place
from moe_bulk.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Sequence

HEADER = b"customer_id,device_id,platform,push_id\n"
BLOCK_ROWS = 10_000
RATE = 10_000 / 60
LAST_RESULTS = 30_000
"""Result lines that are real, at the end: more than two minutes of them. The others are a hole in the file."""


def write_source(path: Path, rows: int) -> int:
    """Write a CSV of so many rows and return how long a row is: all are equally long."""
    lines = [b"user-%07d,device-%07d,ANDROID,token-%07d:APA91b\n" % (n, n, n) for n in range(BLOCK_ROWS)]
    with path.open("wb") as file:
        file.write(HEADER)
        for _ in range(rows // BLOCK_ROWS):
            file.write(b"".join(lines))
        file.write(b"".join(lines[: rows % BLOCK_ROWS]))
    return len(lines[0])


def result_line(number: int) -> bytes:
    """A result as a run at full pace writes it."""
    at = boot_seconds() - 600 + number / RATE
    attempt = Attempt(time.time() - 600 + number / RATE, at, 301.25, 200)
    row = Row(Position("devices.csv", 1_000_000 + number, 60_000_000 + number), {})
    device = (f"user-{number:07}", f"device-{number:07}")
    return Result(
        row.position,
        Status.ACCEPTED,
        row,
        *device,
        http_status=200,
        attempts=(attempt,),
        tries=1,
        settled_at=attempt.sent + 0.3,
        keys=(("device", *device), ("push_id", f"token-{number:07}:APA91b")),
    ).line()


def write_run(folder: Path, source: Path, rows: int, row_bytes: int, url: str) -> None:
    """Make the folder of a run that has settled so many rows of the source."""
    folder.mkdir(mode=0o700)
    last = len(HEADER) + (rows - 1) * row_bytes
    tail = b"".join(map(result_line, range(min(LAST_RESULTS, rows))))
    results = len(tail) // min(LAST_RESULTS, rows) * rows
    with (folder / "results.ndjson").open("wb") as file:
        file.seek(results - len(tail) - 1)
        file.write(b"\n" + tail)
    (folder / "dead-letter.ndjson").touch()
    found = of_file(str(source))
    assert found is not None  # noqa: S101  it was written just now
    state = Tally(10_000, 60.0).state()
    state["statuses"] = {status.value: rows * (status is Status.ACCEPTED) for status in Status}
    checkpoint = Checkpoint(
        settings=settings_that_matter(Credentials(WORKSPACE, API_KEY, base_url=url), Columns(), "auto"),
        sources=(found,),
        place=Place(0, rows + 1, last),
        ranges={str(source): [(0, (last << 16) + 1)]},
        results=results,
        dead_letters=0,
        tally=state,
        started_at=time.time(),
        at=boot_seconds(),
        boot=boot_id(),
    )
    (folder / "checkpoint.json").write_bytes(checkpoint.as_json())


def upload(source: Path, folder: Path, limit: int, url: str) -> float:
    """Run the command line; the moment at which its process was started."""
    environment = loopback_environment() | {
        "MOENGAGE_BASE_URL": url,
        "MOENGAGE_WORKSPACE_ID": WORKSPACE,
        "MOENGAGE_API_KEY": API_KEY,
    }
    command = [
        sys.executable,
        "-m",
        "moe_bulk",
        "upload",
        str(source),
        "--out",
        str(folder),
        "--limit",
        str(limit),
        "-q",
    ]
    started = time.monotonic()
    subprocess.run(command, check=True, env=environment, cwd=folder.parent, timeout=600)
    return started


def measure(rows: int, rounds: int, scratch: Path) -> dict[str, list[float]]:
    """Seconds to the first request, by contender."""
    source, kept = scratch / "devices.csv", scratch / "kept.run"
    row_bytes = write_source(source, rows + 1)
    seconds: dict[str, list[float]] = {"begins": [], "goes on": []}
    with serving(0.0) as server:
        write_run(kept, source, rows, row_bytes, server.url)
        for _ in range(rounds):
            for name in random.sample(list(seconds), len(seconds)):
                folder = scratch / "devices.csv.run"
                shutil.rmtree(folder, ignore_errors=True)
                if name == "goes on":
                    copy(kept, folder)
                started = upload(source, folder, rows + 1 if name == "goes on" else 1, server.url)
                (arrival,) = server.report().arrivals
                seconds[name].append(arrival - started)
    return seconds


def copy(kept: Path, folder: Path) -> None:
    """Copy a run folder, and leave the hole in its results a hole."""
    folder.mkdir(mode=0o700)
    subprocess.run(["cp", "--sparse=always", *map(str, kept.iterdir()), str(folder)], check=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000_000, help="settled before; default 50000000 (3 GB)")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(argv)
    if min(options.rows, options.rounds) < 1:
        parser.error("rows and rounds are positive numbers")
    print(f"{describe()}\nload average {load()}\n{options.rounds} rounds, in random order\n")
    with tempfile.TemporaryDirectory(prefix="moe-bulk-benchmark-") as scratch:
        seconds = measure(options.rows, options.rounds, Path(scratch))
    names = {"begins": "a run that begins", "goes on": f"one that goes on at row {options.rows + 1:,}"}
    print(
        table(
            ("", "seconds to the first request"),
            [(names[each], spread(found, digits=2)) for each, found in seconds.items()],
        )
    )


if __name__ == "__main__":
    main()
