"""Nothing lost, nothing twice: real processes, killed at any moment and at every step of what they write."""

from __future__ import annotations

import gzip
import json
import os
import random
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import pytest

from tests.acceptance.command import environment, lines, summary_of
from tests.acceptance.counting import (
    APPLIED,
    FINAL,
    Arrival,
    CountingServer,
    Row,
    as_csv,
    as_ndjson,
    last_states,
    make_rows,
)
from tests.acceptance.zygote import KILLED, Child, Step, Zygote, forking
from tests.servers import authority

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REFUSED = 3.0
"""Percent of the rows."""

STEPS = [
    # a run begins
    Step("open", "dead-letter.ndjson", "before"),
    Step("open", "dead-letter.ndjson", "after"),
    Step("open", "results.ndjson", "after"),
    Step("open", "devices.census", "before"),
    Step("open", "devices.census", "after"),
    Step("open", "checkpoint.json.", "before"),
    Step("open", "checkpoint.json.", "after"),
    Step("rename", "checkpoint.json", "before"),
    Step("rename", "checkpoint.json", "after"),
    # it goes on
    *(
        Step("write", file, when, nth)
        for file in ("dead-letter.ndjson", "results.ndjson")
        for when in ("before", "amid", "after")
        for nth in (1, 3)
    ),
    Step("sync", "dead-letter.ndjson", "before"),
    Step("sync", "dead-letter.ndjson", "after"),
    Step("sync", "results.ndjson", "after"),
    Step("open", "checkpoint.json.", "before", 2),
    Step("rename", "checkpoint.json", "before", 2),
    Step("rename", "checkpoint.json", "after", 2),
    # it ends
    Step("open", "dead-letter.ndjson.", "before"),
    Step("open", "dead-letter.ndjson.", "after"),
    Step("rename", "checkpoint.json", "before", saying="final_dead_letter"),
    Step("rename", "checkpoint.json", "after", saying="final_dead_letter"),
    Step("rename", "dead-letter.ndjson", "before"),
    Step("rename", "dead-letter.ndjson", "after"),
    Step("open", "summary.json.", "after"),
    Step("rename", "summary.json", "before"),
    Step("rename", "summary.json", "after"),
    Step("rename", "checkpoint.json", "before", saying="finished"),
    Step("rename", "checkpoint.json", "after", saying="finished"),
]


class Nursery(NamedTuple):
    """Where runs come from, with a small bundle of certificates: the usual one takes longer to load than a run."""

    zygote: Zygote
    bundle: str


@pytest.fixture(scope="module")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """The process that forks the runs."""
    with forking() as running:
        yield Nursery(running, authority(tmp_path_factory.mktemp("authority")).bundle)


@pytest.fixture(scope="module")
def start_seconds(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> float:
    """How long a run takes here that has next to nothing to do."""
    folder, took = tmp_path_factory.mktemp("start"), []
    for name in ("first", "second", "third"):
        with CountingServer(trouble=0.0).running() as server:
            job = Job(nursery, server, folder / name, feed("csv", 3, 1))
            begun = time.monotonic()
            with job.life() as child:
                child.wait()
            took.append(time.monotonic() - begun)
    return min(took)


@dataclass(frozen=True)
class Feed:
    """An input: its name, its bytes as they are stored, whether they come by standard input, and its rows."""

    name: str
    data: bytes = field(repr=False)
    rows: list[Row] = field(repr=False)
    piped: bool = False


def feed(kind: str, count: int, seed: int, refused: float = REFUSED) -> Feed:
    """A plain `csv`, a compressed `ndjson.gz`, or CSV by standard input, as `-`."""
    rows = make_rows(count, seed, refused)
    if kind == "ndjson.gz":
        text, placed = as_ndjson(rows)
        return Feed("devices.ndjson.gz", gzip.compress(text, 1), placed)
    text, placed = as_csv(rows)
    return Feed("-" if kind == "-" else "devices.csv", text, placed, piped=kind == "-")


class Left(NamedTuple):
    """What a killed life left behind: its whole result lines, and the rows that have none although they arrived."""

    written: bytes
    settled: set[int]
    unwritten: set[int]


@dataclass
class Job:
    """One input and its upload, in as many lives as it takes."""

    nursery: Nursery
    server: CountingServer
    folder: Path
    feed: Feed
    sync_seconds: float | None = None
    in_flight: int = 64
    left: list[Left] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self.folder.mkdir()
        if not self.feed.piped:
            (self.folder / self.feed.name).write_bytes(self.feed.data)
        self._by_place = {row.offset: row.number for row in self.feed.rows}
        self.to_send = {row.number for row in self.feed.rows if row.status in ("accepted", "rejected")}

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.folder / ("stdin.run" if self.feed.piped else f"{self.feed.name}.run")

    @property
    def settled(self) -> set[int]:
        """The rows that had their result when the last life ended."""
        return self.left[-1].settled if self.left else set()

    @contextmanager
    def life(self, step: Step | None = None) -> Iterator[Child]:
        """Start the same command once more; the block has to wait for its end."""
        self.server.life += 1
        arguments = ["upload", self.feed.name, "--where", "app=main", "--rate", "600000/min"]
        arguments += ["--in-flight", str(self.in_flight)]
        with self._input() as stdin:
            child = self.nursery.zygote.run(
                arguments, self.folder, self._env(), stdin, step=step, sync_seconds=self.sync_seconds
            )
            os.close(stdin)
            yield child
        self.server.drain()

    def _env(self) -> dict[str, str]:
        state = {"XDG_STATE_HOME": str(self.folder / "state"), "SSL_CERT_FILE": self.nursery.bundle}
        kept = {name: text for name, text in environment().items() if not name.startswith(("COVERAGE_", "COV_"))}
        return kept | state | self.server.env

    @contextmanager
    def _input(self) -> Iterator[int]:
        """Standard input: the whole data again and again, or nothing. The block closes what it is given."""
        if not self.feed.piped:
            yield os.open(os.devnull, os.O_RDONLY)
            return
        reading, writing = os.pipe()

        def write() -> None:
            with suppress(BrokenPipeError), os.fdopen(writing, "wb") as pipe:
                pipe.write(self.feed.data)

        feeding = threading.Thread(target=write)
        feeding.start()
        try:
            yield reading
        finally:
            feeding.join(10)

    def end(self, child: Child) -> bool:
        """Wait for a life that may be killed; True where it was, and then see what it left behind."""
        code = child.wait()
        assert code in (KILLED, 1), self.said  # 1: some rows fail, the dead letter is not empty
        assert "Traceback" not in self.said, self.said
        return code == KILLED

    def dies_at(self, step: Step) -> bool:
        """Live until a step is taken, or else to the end; True where it was taken."""
        with self.life(step) as child:
            killed = self.end(child)
        self.look()
        return killed

    def look(self) -> None:
        """After each life: what was written is there still, and only what had no result came again."""
        before = self.left[-1].written if self.left else b""
        path = self.run / "results.ndjson"
        content = path.read_bytes() if path.exists() else b""
        written = content[: content.rfind(b"\n") + 1]
        assert written.startswith(before), "a result that was written has gone"
        settled = {self._by_place[json.loads(line)["offset"]] for line in written.splitlines()}
        arrived = {arrival.number for arrival in self.server.arrivals if arrival.life == self.server.life}
        assert set() == arrived & self.settled, "a row came again although its result was written"
        self.left.append(Left(written, settled, arrived - settled))

    @property
    def said(self) -> str:
        """What the commands told people."""
        path = self.folder / "said.txt"
        return path.read_text(encoding="utf-8") if path.exists() else "nothing"

    # --- what has to be true at the end

    def finish(self) -> None:
        """Let it run to its end, and check it."""
        with self.life() as child:
            assert not self.end(child)
        self.look()
        self.check()

    def check(self) -> None:
        """See that all is as if nothing had ever happened."""
        self.check_results()
        self.check_dead_letters()
        self.check_summary()
        self.check_arrivals()
        self.check_devices()

    def check_results(self) -> None:
        """Every row has one result, with the right status: lost = 0, twice = 0."""
        source = "stdin" if self.feed.piped else self.feed.name
        expected = [(source, row.line, row.offset, 0, row.status) for row in self.feed.rows]
        results = lines(self.run / "results.ndjson")
        found = [(said["source"], said["line"], said["offset"], said["item"], said["status"]) for said in results]
        assert expected == sorted(found, key=lambda place: place[2])

    def check_dead_letters(self) -> None:
        """Every failure has one dead letter, in the input's order; it knows of the row that made it obsolete."""
        failed = [row for row in self.feed.rows if row.status in ("rejected", "invalid")]
        notes: list[dict[str, Any]] = [each["_moe_bulk"] for each in lines(self.run / "dead-letter.ndjson")]
        assert [(row.line, row.status) for row in failed] == [(note["line"], note["status"]) for note in notes]
        assert [self._superseding(row) for row in failed] == [note["superseded_by"] for note in notes]

    def _superseding(self, row: Row) -> int | None:
        later = self.feed.rows[row.number + 1 :]
        return next((each.line for each in later if each.status == "accepted" and each.keys & row.keys), None)

    def check_summary(self) -> None:
        """The numbers are those of the whole job."""
        statuses = [row.status for row in self.feed.rows]
        expected = {status: statuses.count(status) for status in set(statuses)} | {"read": len(statuses)}
        summary = summary_of(self.run)
        assert expected == {name: count for name, count in summary["counts"].items() if count}
        assert 1 == summary["exit_code"]
        tries = sum(said["tries"] for said in lines(self.run / "results.ndjson"))
        # Those that a killed life sent and that never arrived were counted all the same.
        assert tries <= summary["requests"] <= len(self.server.arrivals) + self.in_flight * len(self.left)

    def check_arrivals(self) -> None:
        """Nothing was sent again but what was in flight or not yet written; rows that share a key came in order."""
        arrivals = self.server.arrivals
        assert self.to_send == {arrival.number for arrival in arrivals}
        done: set[tuple[int, int]] = set()
        for arrival in arrivals:
            assert (arrival.life, arrival.number) not in done, f"{arrival}: it had its answer in the same life"
            if arrival.verdict in FINAL:
                done.add((arrival.life, arrival.number))
        answered = [arrival for arrival in arrivals if arrival.verdict in FINAL]
        again = len(answered) - len({arrival.number for arrival in answered})
        assert again <= sum(len(left.unwritten) for left in self.left[:-1])
        self._check_order(arrivals)

    def _check_order(self, arrivals: list[Arrival]) -> None:
        by_key: dict[tuple[object, ...], list[int]] = {}
        for arrival in arrivals:
            for key in self.feed.rows[arrival.number].keys:
                by_key.setdefault((arrival.life, *key), []).append(arrival.number)
        assert [] == [(key, came) for key, came in by_key.items() if any(b < a for a, b in pairwise(came))]

    def check_devices(self) -> None:
        """The last word that the server heard of each device is the last row that could be delivered."""
        rows = self.feed.rows
        applied = (rows[arrival.number] for arrival in self.server.arrivals if arrival.verdict in APPLIED)
        assert last_states(row for row in rows if row.status == "accepted") == last_states(applied)

    def check_that_it_is_over(self) -> None:
        """The same command once more sends nothing, changes nothing and says the same; nothing half done lies about."""
        before, arrivals = self._files(), len(self.server.arrivals)
        there = {"results.ndjson", "dead-letter.ndjson", "checkpoint.json", "summary.json", "report.html"}
        assert there == set(before)
        with self.life() as child:
            assert not self.end(child)
        assert (before, arrivals) == (self._files(), len(self.server.arrivals))
        given = {"said.txt", "state", self.feed.name} - {"-"}
        assert [self.run.name] == sorted(path.name for path in self.folder.iterdir() if path.name not in given)

    def _files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.run.iterdir()}


@dataclass
class Death:
    """When a life ends: some seconds after its start, after so many arrivals, or after the last answer."""

    kind: str
    after: int = 0
    seconds: float = 0.0

    @classmethod
    def draw(cls, rng: random.Random, left: int, start_seconds: float) -> Death:
        """Any moment of a life that still has so many rows to send: its start, its middle, its end."""
        kind = rng.choices(["start", "arrival", "end"], [1, 4, 1])[0] if left else "start"
        if kind == "start":
            return cls(kind, 0, rng.uniform(0, 1.3 * start_seconds))
        after = rng.randint(1, left // 2 + 1) if kind == "arrival" else 0
        return cls(kind, after, rng.uniform(0, start_seconds / 3))

    def come(self, job: Job, child: Child) -> None:
        """See to it that it happens; the run may be quicker."""
        left = job.to_send - job.settled
        if self.kind == "start":
            if child.lives(self.seconds):
                child.kill()
            return
        still, count = set(left), [0]

        def watch(arrival: Arrival) -> None:
            count[0] += 1
            if arrival.verdict in FINAL:
                still.discard(arrival.number)
            if count[0] == self.after or (self.kind == "end" and not still):
                job.server.watch = None
                job.server.later(self.seconds, child.kill)

        job.server.watch = watch


def die_often(job: Job, rng: random.Random, most: int, start_seconds: float) -> int:
    """Kill the job's lives, `most` times at most, then let it end; returns how often it was killed."""
    for kills in range(most):
        death = Death.draw(rng, len(job.to_send - job.settled), start_seconds)
        print(f"{job.folder.name}: {len(job.settled)} settled, {death}")  # noqa: T201  shown where the test fails
        with job.life() as child:
            death.come(job, child)
            killed = job.end(child)
            job.server.watch = None
        job.look()
        if not killed:
            job.check()
            return kills
    job.finish()
    return most


@pytest.mark.parametrize(
    ("kind", "rows", "kills", "seed"),
    [
        ("csv", 2000, 6, 1),
        ("csv", 900, 7, 2),
        ("csv", 500, 7, 3),
        ("csv", 200, 7, 4),
        ("csv", 100, 7, 5),
        ("ndjson.gz", 800, 6, 6),
        ("ndjson.gz", 300, 6, 7),
        ("-", 800, 6, 8),
        ("-", 300, 6, 9),
    ],
)
def test_killed_at_any_moment(
    tmp_path: Path, nursery: Nursery, start_seconds: float, kind: str, rows: int, kills: int, seed: int
) -> None:
    """Whenever it is killed, the same command goes on: lost = 0, twice = 0, sent again only what had no result."""
    rng = random.Random(seed)
    done = 0
    while done < kills:
        with CountingServer().running() as server:
            number = rng.randrange(10**6)
            sync_seconds = rng.choice([None, 0.05])
            print(f"seed {seed}, input {number}, synced every {sync_seconds} s")  # noqa: T201
            job = Job(nursery, server, tmp_path / f"{number}", feed(kind, rows, number), sync_seconds)
            done += die_often(job, rng, kills - done, start_seconds)
            job.check_that_it_is_over()


@pytest.fixture
def short_job(tmp_path: Path, nursery: Nursery) -> Iterator[Job]:
    """A job that is soon done, with many failures, at a service that answers at once, and synced all the time."""
    with CountingServer(trouble=0.0).running() as server:
        yield Job(nursery, server, tmp_path / "job", feed("csv", 60, 21, refused=20.0), sync_seconds=0.01)


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_killed_at_a_step(short_job: Job, step: Step) -> None:
    """Killed at a step of the journal, twice in a row where it comes to that again, it goes on as if nothing was."""
    if step.call == "write" and step.nth > 1:
        short_job.in_flight = 2  # results that come all at once are one write
    assert short_job.dies_at(step), f"no run comes to this. {short_job.said}"
    if short_job.dies_at(step):
        short_job.finish()
    else:
        short_job.check()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("file", ["dead-letter.ndjson", "results.ndjson"])
def test_killed_while_it_mends(short_job: Job, file: str, when: Literal["before", "after"]) -> None:
    """A torn line is cut off, whenever the cutting itself is cut short."""
    short_job.in_flight = 2
    assert short_job.dies_at(Step("write", file, "amid", 2))
    assert short_job.dies_at(Step("cut", file, when)), f"nothing was cut. {short_job.said}"
    short_job.finish()


def test_undisturbed(tmp_path: Path, nursery: Nursery) -> None:
    """A run in one go passes all that is asked of the killed ones: the yardstick is true."""
    with CountingServer().running() as server:
        job = Job(nursery, server, tmp_path / "job", feed("csv", 500, 31))
        job.finish()
        assert [0] == [len(left.unwritten) for left in job.left]
        job.check_that_it_is_over()
