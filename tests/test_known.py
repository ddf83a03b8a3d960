"""What is known of devices: never more than MoEngage has, whoever else sends and whenever somebody is killed."""

from __future__ import annotations

import os
import random
import sqlite3
import tempfile
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest

from moe_bulk import mirror
from moe_bulk.device import Device, fold
from moe_bulk.errors import ConfigError
from moe_bulk.known import DAY, KEPT_SECONDS, UNSURE_SECONDS, ChangedOnly, Known, Mark, Settled, _all_of, _key

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

WORLDS = int(os.environ.get("MOE_BULK_WORLDS", "100"))
NOW = 1_700_000_000.0
WHOSE = ("api-01.moengage.com", "WORKSPACE")
MONTH = 30 * DAY


def device(number: int = 1, token: str = "token-1", **more: str) -> Device:  # noqa: S107
    """Give a device."""
    return Device(f"user-{number}", f"device-{number}", {"platform": "ANDROID", "push_id": token, **more})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Name a state file."""
    return tmp_path / "a.known"


@pytest.fixture
def known(path: Path) -> Iterator[Known]:
    """Open it."""
    opened = Known(path, WHOSE, MONTH, NOW)
    yield opened
    opened.close()


def ask(known: Known, one: Device, now: float = NOW) -> Mark | None:
    """Ask about one device."""
    (mark,) = known.decide([one], now)
    return mark


def send(known: Known, one: Device, now: float = NOW, *, accepted: bool = True, sure: bool = True) -> Mark:
    """Send a device that is not known, and note what came of it."""
    mark = ask(known, one, now)
    assert mark is not None
    known.note([Settled(mark, accepted, sure)], now)
    return mark


def test_what_was_accepted_is_known(known: Known) -> None:
    """The same device again need not be sent, and asking does not change that."""
    send(known, device())
    assert [None, None] == [ask(known, device()), ask(known, device())]


def test_it_is_known_to_later_processes(known: Known, path: Path) -> None:
    """It is in the file, not in memory; a portion has any length."""
    many = [device(number, f"token-{number}") for number in range(1203)]
    marks = known.decide(many, NOW)
    known.note([Settled(mark, accepted=True, sure=True) for mark in marks if mark], NOW)
    known.close()
    again = Known(path, WHOSE, MONTH, NOW + 1)
    assert [None] * 1203 == again.decide(many, NOW + 1)
    again.close()


@pytest.mark.parametrize(
    "other",
    [
        device(1, "token-2"),
        device(1, model="Pixel 9"),
        device(1, moe_gaid="A-1"),
        Device("user-1", "device-1", {"platform": "iOS", "push_id": "token-1"}),
        Device("user-1", "device-1", {"platform": "ANDROID", "push_id": "token-1"}, "192.0.2.1"),
    ],
)
def test_whatever_is_sent_counts(known: Known, other: Device) -> None:
    """A change of anything that travels makes it another one."""
    send(known, device())
    assert ask(known, other) is not None


def test_the_order_of_a_row_s_columns_does_not_count(known: Known) -> None:
    """The API does not look at it either."""
    row = {"customer_id": "user-1", "device_id": "device-1", "platform": "ANDROID", "push_id": "token-1", "model": "x"}
    one, other = fold(row), fold(dict(reversed(row.items())))
    assert isinstance(one, Device)
    assert isinstance(other, Device)
    send(known, one)
    assert ask(known, other) is None


@pytest.mark.parametrize(("accepted", "sure"), [(False, True), (False, False)])
def test_what_was_not_accepted_is_forgotten(known: Known, accepted: bool, sure: bool) -> None:  # noqa: FBT001
    """Refused, given up, or nobody knows: MoEngage may have the older one, the newer one or none."""
    send(known, device())
    send(known, device(model="Pixel 9"), accepted=accepted, sure=sure)
    assert ask(known, device()) is not None


@pytest.mark.parametrize("sent", [device(model="Pixel 9"), device(2, "token-1")])
def test_what_was_found_in_the_file_is_forgotten_too(known: Known, path: Path, sent: Device) -> None:
    """A later process knows it from the file at first: not once another is sent for it, or for one of its keys."""
    send(known, device())
    known.close()
    with closing(Known(path, WHOSE, MONTH, NOW)) as again:
        assert ask(again, device()) is None
        assert ask(again, sent) is not None
        assert ask(again, device()) is not None


def test_what_was_asked_about_is_forgotten_at_once(known: Known, path: Path) -> None:
    """From when it may be sent on, and until somebody says what came of it, nothing is known."""
    send(known, device())
    ask(known, device(model="Pixel 9"))
    known.close()
    again = Known(path, WHOSE, MONTH, NOW)
    assert ask(again, device()) is not None
    again.close()


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ({}, {}),
        ({"push_id": "AB12"}, {"push_id": "ab12"}),
        ({"push_id": "t-2", "moe_gaid": "A-1"}, {"moe_gaid": "a-1"}),
        ({"push_id": "t-2", "idfv": "A-1"}, {"idfv": "A-1"}),
    ],
)
def test_who_takes_over_a_token_is_told_of_no_more(known: Known, mine: dict[str, str], theirs: dict[str, str]) -> None:
    """MoEngage deletes the other device that has it."""
    first, second = device(1), device(2)
    first.attributes |= mine
    second.attributes |= theirs
    send(known, first)
    send(known, second)
    assert ask(known, second) is None
    assert ask(known, first) is not None


def test_what_is_old_is_sent_again(known: Known) -> None:
    """Nobody knows whether a device is still there after so long; nor what a clock that was wrong has noted."""
    send(known, device())
    assert ask(known, device(), NOW + MONTH - 1) is None
    assert ask(known, device(), NOW + MONTH + 1) is not None
    send(known, device(), NOW)
    assert ask(known, device(), NOW - 2 * DAY) is not None


def test_what_is_of_no_use_is_removed(known: Known, path: Path) -> None:
    """After three months; what is newer stays, however little it is believed."""
    send(known, device(1, "token-1"), NOW)
    send(known, device(2, "token-2"), NOW + KEPT_SECONDS)
    known.close()
    Known(path, WHOSE, 60.0, NOW + KEPT_SECONDS + 10).close()
    rows = contents(path)
    assert [1, 1, 0] == [len(rows[table]) for table in ("devices", "holders", "pending")]


def contents(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Give all rows of all tables."""
    with closing(sqlite3.connect(path)) as db:
        return {
            table: db.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608
            for table in ("about", "devices", "holders", "pending")
        }


# -- two processes -----------------------------------------------------------------------------------------------------


@pytest.fixture
def other(path: Path, known: Known) -> Iterator[Known]:
    """Open the same file as another process does."""
    opened = Known(path, WHOSE, MONTH, NOW)
    yield opened
    opened.close()


def test_another_process_that_sends_is_seen(known: Known, other: Known) -> None:
    """What it is about to send is known no more, what was accepted is known to both."""
    send(known, device())
    assert ask(other, device()) is None
    send(other, device(model="Pixel 9"))
    assert ask(known, device(model="Pixel 9")) is None
    assert ask(known, device()) is not None


def test_two_at_once_are_both_forgotten(known: Known, other: Known) -> None:
    """Nobody can say which of two came last; those that come later can be told again."""
    one, two = device(model="one"), device(model="two")
    first, second = ask(known, one), ask(other, two)
    assert first is not None
    assert second is not None
    other.note([Settled(second, accepted=True, sure=True)], NOW)
    known.note([Settled(first, accepted=True, sure=True)], NOW)
    send(known, one)
    assert ask(other, one) is None


def test_two_that_send_the_same_agree(known: Known, other: Known) -> None:
    """Whichever comes last, MoEngage has it: so a run that was killed and goes on knows what it sends again."""
    ask(known, device())
    send(other, device())
    assert ask(other, device()) is None


def test_what_was_given_up_may_still_arrive(known: Known) -> None:
    """For some hours nothing else that is sent of the device can be relied on."""
    send(known, device(model="old"), sure=False)
    send(known, device(model="new"))
    assert ask(known, device(model="new")) is not None
    later = NOW + UNSURE_SECONDS + 1
    send(known, device(model="newer"), later)
    assert ask(known, device(model="newer"), later) is None


# -- whatever happens, against a model of MoEngage --------------------------------------------------------------------

Id: TypeAlias = tuple[str, str]

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108
"""Where syncing costs nothing: what a power cut leaves is played."""

DEVICES = [
    device(number, token, **more)
    for number in (1, 2, 3)
    for token in ("P", "Q", "R")
    for more in ({}, {"model": "x"}, {"moe_gaid": "G"})
]


@dataclass(eq=False)
class Request:
    """Something that was marked and may have been sent."""

    device: Device
    mark: Mark
    arrived: bool = False
    over: bool = False
    """True when it cannot arrive any more."""


@dataclass(eq=False)
class Process:
    """One session: what it has on its way, and what it did not note yet."""

    known: Known
    requests: list[Request] = field(default_factory=list)
    settled: list[Settled] = field(default_factory=list)
    unsettled: list[Request] = field(default_factory=list)


class World:
    """Two processes with one file, and MoEngage, which deletes who shares a key with what it accepts.

    Requests may arrive at any moment until their answer, and without an answer for hours; processes are killed at any
    moment, and the power fails: then only what was synced is there. What is known must always be so.
    """

    def __init__(self, seed: int, folder: Path) -> None:
        self.rng = random.Random(seed)
        self.folder = folder
        self.path = folder / "a.known"
        self.now = NOW
        self.server: dict[Id, Device] = {}
        self.requests: list[Request] = []
        self.known_at_most = 0
        self.begin()

    def begin(self) -> None:
        """Open the file in two processes, and once more to look."""
        self.processes = [self.process(), self.process()]
        self.reader = known = self.process().known
        self.numbers = [known._hashed([_key(one.keys()[0]), _all_of(one)]) for one in DEVICES]
        self.sync()

    def process(self) -> Process:
        """Start a process."""
        return Process(Known(self.path, WHOSE, MONTH, self.now))

    def close(self) -> None:
        """End all processes, with nothing noted."""
        for each in self.processes:
            each.known.close()
        self.reader.close()

    def sync(self) -> None:
        """What is on disk now survives a power cut."""
        self.synced = {each.name: each.read_bytes() for each in self.folder.iterdir() if not each.name.endswith("-shm")}

    def step(self) -> None:
        """Let something happen."""
        happenings = [self.ask, self.arrive, self.settle, self.note, self.kill, self.power_cut, self.wait]
        self.rng.choices(happenings, [15, 40, 60, 8, 1, 1, 6])[0]()
        self.check()

    def ask(self) -> None:
        """Ask about devices that share no key with each other, nor with any that is on its way in this process."""
        process = self.rng.choice(self.processes)
        busy = {key for request in process.unsettled for key in request.device.keys()}  # noqa: SIM118
        chosen: list[Device] = []
        for one in self.rng.choices(DEVICES, k=2):
            if busy.isdisjoint(one.keys()):
                chosen.append(one)
                busy.update(one.keys())
        process.known.note(process.settled, self.now)
        process.settled.clear()
        for one, mark in zip(chosen, process.known.decide(chosen, self.now), strict=True):
            if mark is not None:
                self.requests.append(Request(one, mark))
                process.unsettled.append(self.requests[-1])
            else:
                assert one == self.server[one.customer_id, one.device_id]
        if chosen:
            self.sync()

    def arrive(self) -> None:
        """MoEngage gets a request, perhaps not for the first time, and accepts it; nothing arrives hours late."""
        self.requests = [each for each in self.requests if not each.over and self.now - each.mark.at < UNSURE_SECONDS]
        if not self.requests:
            return
        request = self.rng.choice(self.requests)
        keys = set(request.device.keys())
        for who in [who for who, there in self.server.items() if keys & set(there.keys())]:
            del self.server[who]
        self.server[request.device.customer_id, request.device.device_id] = request.device
        request.arrived = True

    def settle(self) -> None:
        """A request is answered, or given up and perhaps on its way still."""
        process = self.rng.choice(self.processes)
        if not process.unsettled:
            return
        request = process.unsettled.pop(self.rng.randrange(len(process.unsettled)))
        accepted = request.arrived and self.now - request.mark.at < UNSURE_SECONDS
        # what was given up after a refusal was not applied, and will not be
        sure = self.rng.random() < 0.9 and (accepted or not request.arrived)
        request.over = sure
        process.settled.append(Settled(request.mark, accepted, sure))

    def note(self) -> None:
        """A process notes what it knows."""
        process = self.rng.choice(self.processes)
        process.known.note(process.settled, self.now)
        process.settled.clear()

    def kill(self) -> None:
        """A process is killed, and started again; what it sent may still arrive."""
        which = self.rng.randrange(2)
        self.processes[which].known.close()
        self.processes[which] = self.process()

    def power_cut(self) -> None:
        """Both are gone, and all that was not synced."""
        self.close()
        for each in self.folder.iterdir():
            each.unlink()
        for name, content in self.synced.items():
            (self.folder / name).write_bytes(content)
            (self.folder / name).chmod(0o600)
        self.begin()

    def wait(self) -> None:
        """Time passes."""
        self.now += self.rng.choice([0.5, 7.0]) * 3600

    def check(self) -> None:
        """Whatever anybody would be told is what MoEngage has."""
        found = self.reader._look_up(list({own for own, _ in self.numbers}), self.now)
        self.known_at_most = max(self.known_at_most, len(found))
        for one, (own, said) in zip(DEVICES, self.numbers, strict=True):
            if found.get(own) == said:
                assert one == self.server.get((one.customer_id, one.device_id))


class Mirrored(World):
    """The same for what a process is told from memory: most requests are accepted and noted, so that much is known.

    In half of the worlds one process sends alone.
    """

    def begin(self) -> None:
        """Open the file, in one process or two."""
        super().begin()
        if self.rng.random() < 0.5:
            self.processes[1].known.close()
            self.processes[1] = self.processes[0]

    def step(self) -> None:
        """Let something happen."""
        happenings = [self.ask, self.deliver, self.arrive, self.note, self.power_cut, self.wait]
        self.rng.choices(happenings, [40, 80, 10, 20, 0.4, 1])[0]()
        self.check()

    def deliver(self) -> None:
        """A request arrives and is answered."""
        process = self.rng.choice(self.processes)
        if process.unsettled:
            request = process.unsettled[-1]
            others, self.requests = self.requests, [request]
            self.arrive()
            self.requests = others
            process.unsettled.remove(request)
            accepted = request.arrived and self.now - request.mark.at < UNSURE_SECONDS
            request.over = accepted
            process.settled.append(Settled(request.mark, accepted, sure=accepted))

    def check(self) -> None:
        """Whatever each process would be told, too."""
        super().check()
        for process in self.processes:
            found = process.known._look_up([own for own, _ in self.numbers], self.now)
            for one, (own, said) in zip(DEVICES, self.numbers, strict=True):
                assert found.get(own) != said or one == self.server.get((one.customer_id, one.device_id))


@pytest.mark.parametrize("kind", [World, Mirrored])
@pytest.mark.parametrize("first", range(0, WORLDS, 10))
def test_what_is_known_is_always_so(first: int, kind: type[World], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever happens, and in whatever order; a failing seed replays alone."""
    most = 0
    for seed in range(first, first + 10):
        if kind is Mirrored:
            monkeypatch.setattr(mirror, "_DISTURBED_OFTEN", 1_000_000)
            monkeypatch.setattr(mirror, "FILLED_FOR_EACH", (1, 10, 1000)[seed % 3])
        with tempfile.TemporaryDirectory(prefix="known-", dir=MEMORY) as folder:
            world = kind(seed, Path(folder))
            try:
                for number in range(120):
                    told = f"seed {seed}, step {number}"
                    world.step()
            except AssertionError as error:
                raise AssertionError(told) from error
            finally:
                world.close()
            most = max(most, world.known_at_most)
    assert most > 0


# -- settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
def test_nonsense_is_refused(seconds: float) -> None:
    """Before anything is opened."""
    with pytest.raises(ConfigError, match="resend_after"):
        ChangedOnly(resend_after=seconds)


def test_each_workspace_has_a_file_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In the user's state folder, unless it is named."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    named: Sequence[Path] = [
        ChangedOnly().path("api-01.moengage.com", "W-1"),
        ChangedOnly().path("api-02.moengage.com", "W-1"),
        ChangedOnly(tmp_path / "x").path("api-01.moengage.com", "W-1"),
    ]
    expected = ["moe-bulk/api-01.moengage.com_W-1.known", "moe-bulk/api-02.moengage.com_W-1.known", "x"]
    assert expected == [os.path.relpath(each, tmp_path) for each in named]
