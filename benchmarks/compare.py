"""Two commits side by side: what each costs, and the one as a multiple of the other.

    python benchmarks/compare.py main HEAD
    python benchmarks/compare.py v0.1.0 main uncapped read-csv --rounds 9

Each commit gets a worktree and an environment of its own in a temporary folder (pip fetches what they need); the
programs that measure are this checkout's for both. In each round both take their turns at every row, in random order.
A ratio under 1 is a gain.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from interleaved import Circumstances, Entrant, costs, interleave
from machine import describe, load
from measure import ENGINE, Failed, ratio, spread, table
from probes import Parted, part_cost, process_cost

from moe_bulk import Rate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Amount:
    """Requests and rows in each round."""

    requests: int = 3_000
    paced: int = 500
    rows: int = 50_000
    carried: int = 20_000


USUAL, TINY = Amount(), Amount(10, 10, 200, 50)


def sent(python: str, folder: Path, entrant: Entrant, circumstances: Circumstances) -> float:
    """CPU microseconds a record of an upload over TLS."""
    here = Entrant(entrant.contender, entrant.in_flight, entrant.requests, limit=entrant.limit, python=python)
    found = interleave([here], circumstances, 1, folder)
    return costs(found[here])[0]


def part(python: str, folder: Path, what: Parted) -> float:
    """CPU microseconds a row of a part of an upload."""
    return part_cost(what, folder, python)


def started(python: str, folder: Path, *arguments: str) -> float:  # noqa: ARG001  as the others
    """CPU milliseconds of a process."""
    return process_cost(arguments, python)[0] * 1e3


def rows(amount: Amount) -> dict[str, tuple[str, Callable[[str, Path], float]]]:
    """What can be compared, by name: its unit, and what measures it."""
    warm_up = min(256, amount.requests)
    at_once, later = (Circumstances(latency, tls=True, warm_up=warm_up) for latency in (0.0, 50.0))
    uncapped = Entrant(ENGINE, min(64, amount.requests), amount.requests)
    paced = Entrant(ENGINE, None, amount.paced, limit=Rate().limit)
    return {
        "uncapped": ("µs a record", partial(sent, entrant=uncapped, circumstances=at_once)),
        "latency": ("µs a record", partial(sent, entrant=uncapped, circumstances=later)),
        "paced": ("µs a record", partial(sent, entrant=paced, circumstances=later)),
        "carry": ("µs a row", partial(part, what=Parted("carry", ".csv", amount.carried))),
        "read-csv": ("µs a row", partial(part, what=Parted("read", ".csv", amount.rows))),
        "read-ndjson": ("µs a row", partial(part, what=Parted("read", ".ndjson", amount.rows))),
        "journal": ("µs a row", partial(part, what=Parted("journal", ".csv", amount.rows))),
        "help": ("ms", lambda python, folder: started(python, folder, "-m", "moe_bulk", "--help")),
        "import": ("ms", lambda python, folder: started(python, folder, "-c", "import moe_bulk")),
    }


@contextmanager
def installed(commit: str, folder: Path) -> Iterator[str]:
    """An interpreter with that commit's package, while the block is open."""
    tree, environment = folder / "tree", folder / "environment"
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(tree), commit], check=True)
    try:
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        python = str(environment / "bin" / "python")
        subprocess.run([python, "-m", "pip", "install", "--quiet", str(tree)], check=True)
        yield python
    finally:
        subprocess.run([*git, "remove", "--force", str(tree)], check=True)


def measure(pythons: dict[str, str], names: Sequence[str], amount: Amount, rounds: int) -> dict[str, tuple[str, ...]]:
    """The cells of each row's line, by its name."""
    known = rows(amount)
    found: dict[tuple[str, str], list[float]] = {(name, side): [] for name in names for side in pythons}
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="moe-bulk-benchmark-") as folder:
        for _ in range(rounds):
            for name, side in random.sample(list(found), len(found)):
                if name in failed:
                    continue
                try:
                    found[name, side].append(known[name][1](pythons[side], Path(folder)))
                except (Failed, RuntimeError) as error:
                    failed[name] = f"cannot be measured in {side}: {error}"
    return {name: _cells(name, found, pythons, failed, known[name][0]) for name in names}


def _cells(
    name: str, found: dict[tuple[str, str], list[float]], sides: dict[str, str], failed: dict[str, str], unit: str
) -> tuple[str, ...]:
    if name in failed:
        return (unit, failed[name], "", "")
    old, new = (found[name, side] for side in sides)
    return (unit, spread(old, 1), spread(new, 1), ratio(new, old))


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    known = rows(USUAL)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", metavar="OLD", help="a commit, as git names it")
    parser.add_argument("new", metavar="NEW", help="the one that is held against it")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(known)}; default all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tiny", action="store_true", help="a few rows in each round: to see that it works")
    options = parser.parse_args(argv)
    if unknown := [row for row in options.rows if row not in known]:
        parser.error(f"there is no row {unknown[0]!r}: choose from {', '.join(known)}")
    for commit in (options.old, options.new):
        asked = ["git", "-C", str(ROOT), "rev-parse", "--quiet", "--verify", f"{commit}^{{commit}}"]
        if subprocess.run(asked, check=False, stdout=subprocess.DEVNULL).returncode:
            parser.error(f"there is no commit {commit!r} in {ROOT}")
    return options


def main(argv: Sequence[str] | None = None) -> None:
    """Install, measure, print."""
    options = arguments(argv)
    names = options.rows or list(rows(USUAL))
    before = load()
    with (
        tempfile.TemporaryDirectory(prefix="moe-bulk-old-") as one,
        tempfile.TemporaryDirectory(prefix="moe-bulk-new-") as other,
        installed(options.old, Path(one)) as old,
        installed(options.new, Path(other)) as new,
    ):
        sides = {f"old ({options.old})": old, f"new ({options.new})": new}
        found = measure(sides, names, TINY if options.tiny else USUAL, options.rounds)
    print(f"{describe()}\n{options.rounds} rounds, interleaved; load average {before} before, {load()} after\n")
    print(table(("CPU", "unit", *sides, "new of old"), [(name, *cells) for name, cells in found.items()]))


if __name__ == "__main__":
    main()
