"""The rows of the table: each measures one thing about the engine and holds it against what it is to reach."""

from __future__ import annotations

import math
import random
import statistics
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

from at_the_cap import HEAD as CAP_HEAD
from at_the_cap import Conditions, Findings, deliver
from interleaved import Circumstances, Entrant, Round, costs, interleave, lost, rates
from machine import load_average
from measure import (
    ASYNCIO,
    BARE,
    ENGINE,
    PEERS,
    PIPELINE,
    SCRIPT,
    UVLOOP,
    Measured,
    ratio,
    spread,
    table,
)
from pairs import Pairs, in_pairs
from probes import Parted, measure_part, part_cost, process_cost

from moe_bulk import Rate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from sizes import Size

NOT_INSTALLED = "not installed: pip install -r benchmarks/requirements.txt, and --peers-python"
CAP = Rate()
PEER_THREADS = 8
"""Where there is nothing to wait for, more threads only get into each other's way."""


@dataclass(frozen=True, slots=True)
class Setup:
    """How much is measured, in which folder, and by which interpreter the peers run, if by any."""

    size: Size
    folder: Path
    peers: str | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table; `met` is None where there is nothing to be met."""

    work: str
    target: str
    found: str
    met: bool | None = None

    def cells(self) -> tuple[str, ...]:
        """As it stands in the table."""
        return (self.work, self.target, self.found, "-" if self.met is None else "yes" if self.met else "NO")


@dataclass(frozen=True, slots=True)
class Told:
    """What one measurement tells: lines of the table, and the figures that they were made of."""

    lines: list[Line]
    details: str


# --- uncapped --------------------------------------------------------------------------------------------------------


def uncapped(setup: Setup) -> Told:
    """The whole engine beside those by hand and the peers, over TLS; what uvloop gains."""
    lines: list[Line] = []
    details: list[str] = []
    for latency in setup.size.latencies:
        before = load_average()
        entrants = _uncapped(setup, first=latency == setup.size.latencies[0])
        circumstances = Circumstances(latency, tls=True, warm_up=setup.size.warm_up)
        found = interleave(list(entrants.values()), circumstances, setup.size.rounds, setup.folder)
        rounds = {name: found[entrant] for name, entrant in entrants.items()}
        cost = {name: costs(each) for name, each in rounds.items()}
        told = _against_by_hand(setup, latency, cost)
        if latency == setup.size.latencies[0]:
            told += _about_itself(setup, cost)
        lines += _where_none_was_lost(told, found)
        details.append(
            _under(f"uncapped, answers after {latency:g} ms, TLS", before, _entrants_table(entrants, rounds))
        )
    return Told(lines, "\n\n".join(details))


def _uncapped(setup: Setup, *, first: bool) -> dict[str, Entrant]:
    """All that takes part, by the name that it has in the table."""
    size = setup.size
    found = {}
    for width in size.in_flight:
        for contender in (ENGINE, PIPELINE, SCRIPT):
            requests = size.script_requests if contender == SCRIPT else size.requests
            found[f"{contender}, {width} in flight"] = Entrant(contender, width, requests)
    if not first:
        return found
    width = size.in_flight[0]
    if find_spec("uvloop") is not None:
        found[f"{ENGINE} on uvloop, {width} in flight"] = Entrant(ENGINE, width, size.requests, UVLOOP)
    if setup.peers is not None:
        for peer in PEERS:
            entrant = Entrant(peer, PEER_THREADS, size.peer_requests, python=setup.peers)
            found[f"{peer}, {PEER_THREADS} threads"] = entrant
    return found


def _against_by_hand(setup: Setup, latency: float, cost: dict[str, list[float]]) -> list[Line]:
    lines = []
    for other, target, least in (
        (SCRIPT, "at least 7x; 10x wanted", 7.0),
        (PIPELINE, "at least 0.40x; 0.6x wanted", 0.4),
    ):
        for width in setup.size.in_flight:
            theirs, ours = cost[f"{other}, {width} in flight"], cost[f"{ENGINE}, {width} in flight"]
            work = f"requests per CPU second of the {other}'s, {width} in flight, {latency:g} ms"
            lines.append(Line(work, target, ratio(theirs, ours), _middle(theirs) / _middle(ours) >= least))
    return lines


def _about_itself(setup: Setup, cost: dict[str, list[float]]) -> list[Line]:
    width = setup.size.in_flight[0]
    ours = cost[f"{ENGINE}, {width} in flight"]
    on_uvloop = cost.get(f"{ENGINE} on uvloop, {width} in flight")
    gain = "not installed: pip install uvloop" if on_uvloop is None else ratio(ours, on_uvloop)
    lines = [Line(f"requests per CPU second on uvloop, of those on {ASYNCIO}'s loop", "the gain", gain)]
    for peer in PEERS:
        theirs = cost.get(f"{peer}, {PEER_THREADS} threads")
        said = NOT_INSTALLED if theirs is None else ratio(theirs, ours)
        lines.append(Line(f"requests per CPU second of {peer}'s, uncapped, 0 ms", "ahead", said, _ahead(theirs, ours)))
    return lines


def _ahead(theirs: Sequence[float] | None, ours: Sequence[float]) -> bool | None:
    return None if theirs is None else _middle(theirs) > _middle(ours)


def _entrants_table(entrants: dict[str, Entrant], rounds: dict[str, list[Round]]) -> str:
    rows = []
    for name, entrant in entrants.items():
        each = rounds[name]
        peak = max(one.measured.memory for one in each)
        figures = spread(costs(each)), spread(rates(entrant, each)), f"{peak:,.0f}"
        rows.append((name, f"{entrant.requests:,}", *figures, f"{lost(entrant, each):,}"))
    return table(("", "requests", "CPU µs a record", "records/s", "MB", "not accepted"), rows)


def _where_none_was_lost(lines: list[Line], found: Mapping[Entrant, Sequence[Round]]) -> list[Line]:
    """Nothing is met by a program of ours that lost a row."""
    whole = not any(lost(entrant, rounds) for entrant, rounds in found.items() if entrant.contender in (ENGINE, BARE))
    return lines if whole else [line if line.met is None else replace(line, met=False) for line in lines]


# --- pair by pair ----------------------------------------------------------------------------------------------------

MOST_OVERHEAD = 60, 20.7
"""CPU microseconds a record, and how many rows of .csv are read by hand in that time, at 2.9 µs where it was set."""

READ_BESIDE = 100_000
"""Rows of the yardstick, at most: they are read by hand, to tell how fast the machine is at this moment."""


def overhead(setup: Setup) -> Told:
    """What the engine costs above a bare loop over its own client, over TLS."""
    before, size, width = load_average(), setup.size, setup.size.in_flight[0]
    engine, bare = (Entrant(contender, width, size.requests) for contender in (ENGINE, BARE))
    found = _in_pairs(setup, engine, bare)
    differences = [ours - theirs for ours, theirs in found.costs]
    beside = [difference / one for difference, one in zip(differences, found.by_hand, strict=True)]
    most, most_beside = MOST_OVERHEAD
    lines = [
        Line(
            f"CPU above a bare loop over its own client, {width} in flight, {_counted(size.pairs)}",
            f"at most {most} µs a record",
            spread(differences, unit=" µs"),
            _middle(differences) <= most,
        ),
        Line(
            "the same beside a row of .csv by hand",
            f"at most {most_beside}x",
            spread(beside, 1, "x"),
            _middle(beside) <= most_beside,
        ),
    ]
    last = "above", [f"{each:,.0f}" for each in differences]
    return Told(
        _where_none_was_lost(lines, found.rounds), _pairs_under(setup, "above a bare loop", before, found, last)
    )


def crowded(setup: Setup) -> Told:
    """What a record costs with many allowed in flight, beside few, over TLS.

    All connections are open; a server that answers at once is never busy with all of them.
    """
    before, size = load_average(), setup.size
    few, many = size.few_and_many
    found = _in_pairs(setup, *(Entrant(ENGINE, each, size.requests) for each in (few, many)))
    times = [wide / narrow for narrow, wide in found.costs]
    work = f"CPU a record with {many} allowed in flight, of that with {few}, {_counted(size.pairs)}"
    line = Line(work, "at most 1.3x", spread(times, 2, "x"), _middle(times) <= 1.3)
    last = "many, of few", [f"{each:.2f}x" for each in times]
    return Told(_where_none_was_lost([line], found.rounds), _pairs_under(setup, "many in flight", before, found, last))


def _in_pairs(setup: Setup, one: Entrant, other: Entrant) -> Pairs:
    circumstances = Circumstances(setup.size.latencies[0], tls=True, warm_up=setup.size.warm_up)
    yardstick = Parted("by hand", ".csv", min(READ_BESIDE, setup.size.read_rows))
    return in_pairs(one, other, circumstances, setup.size.pairs, yardstick, setup.folder)


def _counted(pairs: int) -> str:
    return f"{pairs} pair{'s' if pairs > 1 else ''}"


def _pairs_under(setup: Setup, title: str, before: float, found: Pairs, last: tuple[str, list[str]]) -> str:
    """Both entrants as usual, then the pairs with what follows from each, the machine's fastest moment first."""
    named = {f"{each.contender}, {each.in_flight} in flight": each for each in found.rounds}
    told = _entrants_table(named, {name: found.rounds[each] for name, each in named.items()})
    head, values = last
    pairs = sorted(zip(found.by_hand, found.costs, values, strict=True))
    rows = [(f"{by_hand:.1f}", *(f"{each:,.0f}" for each in cost), value) for by_hand, cost, value in pairs]
    by_pair = table(("CPU µs: a row by hand", *named, head), rows)
    return _under(f"{title}, answers after {setup.size.latencies[0]:g} ms, TLS", before, f"{told}\n\n{by_pair}")


# --- at a pace -------------------------------------------------------------------------------------------------------


def paced(setup: Setup) -> Told:
    """At the documented pace and 50 ms, beside the aiohttp pipeline at the same."""
    before, size = load_average(), setup.size
    entrants = {name: Entrant(name, None, size.paced_requests, limit=CAP.limit) for name in (ENGINE, PIPELINE)}
    circumstances = Circumstances(size.latencies[-1], tls=True, warm_up=min(32, size.warm_up))
    found = interleave(list(entrants.values()), circumstances, size.rounds, setup.folder)
    ours, theirs = (costs(found[entrants[name]]) for name in (ENGINE, PIPELINE))
    work = f"CPU for 1,000 records at 167/s and {size.latencies[-1]:g} ms, of the {PIPELINE}'s"
    line = Line(work, "at most 1.6x", ratio(ours, theirs), _middle(ours) / _middle(theirs) <= 1.6)
    details = _entrants_table(entrants, {name: found[entrants[name]] for name in entrants})
    return Told(
        _where_none_was_lost([line], found),
        _under(f"{CAP}, answers after {size.latencies[-1]:g} ms, TLS", before, details),
    )


def cap(setup: Setup) -> Told:
    """At the cap with slow, uneven answers and faults; counted at the server."""
    before, size = load_average(), setup.size
    conditions = Conditions(0.3, spread=2 / 3, tls=True, faults=0.01)
    found: dict[str, Findings] = {ENGINE: deliver(ENGINE, CAP, size.cap_seconds, conditions)}
    used = found[ENGINE].used_later or found[ENGINE].used
    fullest = found[ENGINE].busiest_window(any_moment=True)
    said = f"{used:.2%} used, at most {fullest:,} in a window"
    work = f"{CAP} for {size.cap_seconds:g} s, 300 ms ± 200 ms, 1 % 5xx and resets"
    target = "at least 98.5 % used, no window over the limit"
    lines = [Line(work, target, said, used >= 0.985 and fullest <= CAP.limit)]
    for peer in PEERS:
        work = f"{peer} at {CAP} for {size.peer_cap_seconds:g} s, the same server: CPU a record, of ours"
        if setup.peers is None:
            lines.append(Line(work, "ahead", NOT_INSTALLED))
            continue
        found[peer] = theirs = deliver(peer, CAP, size.peer_cap_seconds, conditions, setup.peers)
        rows = math.ceil(CAP.per_second * size.peer_cap_seconds)
        times = theirs.cost / found[ENGINE].cost
        said = f"{times:.2f}x; {theirs.used:.1%} used, {rows - theirs.measured.accepted:,} rows failed"
        lines.append(Line(work, "ahead", said, times > 1))
    details = table(CAP_HEAD, [each.row(name) for name, each in found.items()])
    return Told(lines, _under("at the cap", before, details))


def hasty(setup: Setup) -> Told:
    """More than one process can do: it is full, or the limit is reached, and never exceeded."""
    before, rate = load_average(), setup.size.hasty
    found = deliver(ENGINE, rate, setup.size.hasty_requests / rate.per_second, Conditions(0.0, tls=True))
    busy, fullest = found.measured.cpu / found.measured.seconds, found.busiest_window(any_moment=True)
    said = f"{found.used:.1%} used, {busy:.0%} of a core, at most {fullest:,} in a window"
    met = (found.used >= 0.985 or busy >= 0.95) and fullest <= rate.limit
    work = f"{rate} asked of one process, {setup.size.hasty_requests:,} records"
    details = _under(str(rate), before, table(CAP_HEAD, [found.row(ENGINE)]))
    return Told([Line(work, "reached or the CPU is full; never exceeded", said, met)], details)


# --- parts -----------------------------------------------------------------------------------------------------------


def memory(setup: Setup) -> Told:
    """The same peak for few rows and for many."""
    before, lines, rows = load_average(), [], []
    few, many = setup.size.memory_rows
    for suffix in setup.size.formats:
        small, large = (measure_part(Parted("carry", suffix, count), setup.folder) for count in (few, many))
        growth = large.memory - small.memory
        said = f"{small.memory:.0f} MB, {large.memory:.0f} MB: {growth:+.1f} MB"
        lines.append(Line(f"peak memory, {few:,} rows of {suffix} and {many:,}", "within 15 MB", said, growth <= 15))
        rows += [_carried(suffix, count, each) for count, each in ((few, small), (many, large))]
    few, many = setup.size.http_rows
    entrants = [Entrant(ENGINE, 64, count) for count in (few, many)]
    found = interleave(entrants, Circumstances(0.0, tls=False, warm_up=setup.size.warm_up), 1, setup.folder)
    small, large = (found[each][0].measured for each in entrants)
    said = f"{small.memory:.0f} MB, {large.memory:.0f} MB"
    work = f"the same over plain HTTP, {few:,} rows of .csv and {many:,}, 64 in flight"
    lines.append(Line(work, "under 90 MB", said, large.memory < 90))
    rows += [_carried("over HTTP", each.requests, found[each][0].measured) for each in entrants]
    details = table(("", "rows", "peak MB", "CPU µs a row", "rows/s"), rows)
    return Told(lines, _under("memory", before, details))


def _carried(name: str, rows: int, found: Measured) -> tuple[str, ...]:
    cost, pace = found.cpu * 1e6 / rows, rows / found.seconds
    return (name, f"{rows:,}", f"{found.memory:.1f}", f"{cost:,.0f}", f"{pace:,.0f}")


READING = {".csv": (180_000, 0.52), ".ndjson": (250_000, 0.47)}
"""Rows a CPU second to reach, and what that was of the same by hand on the machine where it was set."""


def reading(setup: Setup) -> Told:
    """Rows taken in, checked and made into bodies, without a network; beside the same by hand."""
    before, count = load_average(), setup.size.read_rows
    parts = {suffix: (Parted("read", suffix, count), Parted("by hand", suffix, count)) for suffix in READING}
    found = _interleave_parts([part for both in parts.values() for part in both], setup)
    lines = []
    for suffix, (least, share) in READING.items():
        ours, by_hand = ([1e6 / cost for cost in found[part]] for part in parts[suffix])
        work = f"reading, checking, building the body: {suffix}, {count:,} rows"
        lines += [
            Line(work, f"at least {least:,} rows a CPU second", spread(ours), _middle(ours) >= least),
            Line(
                f"the same beside csv.reader or orjson, a plain function and orjson: {suffix}",
                f"at least {share:.2f}x",
                ratio(ours, by_hand),
                _middle(ours) >= share * _middle(by_hand),
            ),
        ]
    return Told(lines, _parts_table(found, before))


def journal(setup: Setup) -> Told:
    """Result lines, dead letters and checkpoints."""
    before, part = load_average(), Parted("journal", ".csv", setup.size.journal_rows)
    found = _interleave_parts([part], setup)
    line = Line(
        "journal: result line, dead letter, checkpoint",
        "at most 6 µs a record",
        f"{spread(found[part], 1)} µs",
        _middle(found[part]) <= 6,
    )
    return Told([line], _parts_table(found, before))


def curve(setup: Setup) -> Told:
    """What a record costs as there are more of them, over a transport in memory."""
    before, parts = load_average(), [Parted("carry", ".ndjson", count) for count in setup.size.curve]
    found = _interleave_parts(parts, setup)
    middles = [_middle(found[part]) for part in parts]
    lowest, highest = min(max(each) for each in found.values()), max(min(each) for each in found.values())
    work = f"CPU a record from {parts[0].rows:,} to {parts[-1].rows:,} rows"
    said = f"{' → '.join(f'{each:,.0f}' for each in middles)} µs"
    line = Line(work, "the same within the spread", said, highest <= lowest)
    return Told([line], _parts_table(found, before))


def _interleave_parts(parts: Sequence[Parted], setup: Setup) -> dict[Parted, list[float]]:
    """CPU microseconds a row of each part, by round."""
    found: dict[Parted, list[float]] = {part: [] for part in parts}
    for _ in range(setup.size.rounds):
        for part in random.sample(list(parts), len(parts)):
            found[part].append(part_cost(part, setup.folder))
    return found


def _parts_table(found: dict[Parted, list[float]], before: float) -> str:
    rows = [(f"{part.part} {part.suffix}", f"{part.rows:,}", spread(each, 1)) for part, each in found.items()]
    told = table(("", "rows", "CPU µs a row"), rows)
    return _under("parts", before, told)


def start(setup: Setup) -> Told:
    """From nothing to the help text, and to an imported package; the interpreter's own start is in it."""
    before = load_average()
    commands = {
        "moe-bulk --help": ("-m", "moe_bulk", "--help"),
        "import moe_bulk": ("-c", "import moe_bulk"),
        "python alone": ("-c", ""),
    }
    cpu: dict[str, list[float]] = {name: [] for name in commands}
    wall: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(setup.size.rounds):
        for name in random.sample(list(commands), len(commands)):
            used, seconds = process_cost(commands[name])
            cpu[name].append(used * 1e3)
            wall[name].append(seconds * 1e3)
    lines = [
        Line(name, f"at most {most} ms", f"{spread(cpu[name])} ms of CPU", _middle(cpu[name]) <= most)
        for name, most in (("moe-bulk --help", 200), ("import moe_bulk", 120))
    ]
    rows = [(name, spread(cpu[name]), spread(wall[name])) for name in commands]
    details = table(("", "CPU ms", "ms on the clock"), rows)
    return Told(lines, _under("start", before, details))


def _under(title: str, before: float, figures: str) -> str:
    return f"{title}; load average {before:.1f} before, {load_average():.1f} after\n\n{figures}"


def _middle(values: Iterable[float]) -> float:
    return statistics.median(values)


ROWS: dict[str, Callable[[Setup], Told]] = {
    each.__name__: each
    for each in (uncapped, overhead, crowded, paced, cap, hasty, memory, reading, journal, start, curve)
}
