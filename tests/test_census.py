"""The census: which devices a run's users have, exactly, whatever it was killed in, and without reading all again."""

from __future__ import annotations

import errno
import os
import random
import stat
import tempfile
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_bulk import census as room
from moe_bulk.census import Census, Sizes
from moe_bulk.columns import Unsent
from moe_bulk.device import Device
from moe_bulk.errors import JournalError, RunRefused
from moe_bulk.outcome import Status
from moe_bulk.record import Position, Record, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SMALL = Sizes(most=3, first=2, cells=2, kept=40)
LOG_AT, RECORD = 4096, 20


@contextmanager
def opened(folder: Path, sizes: Sizes | None = None) -> Iterator[Census]:
    """The census of a folder."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        with closing(Census.open(fd, folder, sizes)) as census:
            yield census
    finally:
        os.close(fd)


def path_in(folder: Path) -> Path:
    """The file."""
    return folder / "devices.census"


def fill(census: Census, users: int, devices: int = 1) -> None:
    """Give users devices."""
    for number in range(users):
        for device in range(devices):
            assert census.admits(f"user-{number}", f"device-{device}")


def record(customer_id: str, device_id: str) -> Record:
    """A row with a device."""
    return Record(Row(Position("f", 2, 0), {}), Device(customer_id, device_id, {}))


# -- the rule ----------------------------------------------------------------------------------------------------------


def test_the_1001st_device_of_a_user(tmp_path: Path) -> None:
    """A user has a thousand, however often they come; others are not concerned."""
    with opened(tmp_path) as census:
        fill(census, 1, 1_000)
        for number in (1_000, 1_001, 1_000):
            assert not census.admits("user-0", f"device-{number}")
        fill(census, 2, 1_000)
        assert not census.admits("user-0", "device-1000")


@settings(deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.sampled_from("ABC"), st.sampled_from("abcdefg")), max_size=12), max_size=5),
    st.builds(
        Sizes,
        most=st.integers(1, 4),
        first=st.integers(0, 20),
        cells=st.sampled_from([1, 2, 1024]),
        kept=st.integers(0, 80),
    ),
)
def test_many_at_once_are_as_one_by_one(batches: list[list[tuple[str, str]]], sizes: Sizes) -> None:
    """The same rows are sent, and the same stands in the file, wherever in them the table comes or a cell is full."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as many:
        folders = Path(one), Path(many)
        with opened(folders[0], sizes) as each, opened(folders[1], sizes) as together:
            for batch in batches:
                rows = [record(*ids) for ids in batch]
                judged = together.judge([Position("f", 1, 0), *rows])[1:]
                sent = [row is found for row, found in zip(rows, judged, strict=True)]
                assert [each.admits(*ids) for ids in batch] == sent
                assert all(isinstance(found, Record | Unsent) for found in judged)
                assert path_in(folders[0]).read_bytes() == path_in(folders[1]).read_bytes()
                assert each.records == together.records
            each.snapshot()()
            together.snapshot()()
        assert path_in(folders[0]).read_bytes() == path_in(folders[1]).read_bytes()


def test_a_row_too_many_says_why(tmp_path: Path) -> None:
    """It is invalid, in words that hold no value of the row, and has all that another invalid row has."""
    place = Position("devices.csv", 7, 99)
    device = Device("user-1", "device-4", {"platform": "iOS", "push_id": "token"})
    record = Record(Row(place, {"a": "b"}), device, {"set": {}})
    with opened(tmp_path, Sizes(most=1)) as census:
        assert [place, record] == census.judge([place, record])
        device.device_id = "device-5"
        (made,) = census.judge([record])
    assert isinstance(made, Unsent)
    assert (record.row, Status.INVALID, {"set": {}}) == (made.row, made.status, made.mapping)
    assert ("user-1", "device-5", device.keys()) == (made.customer_id, made.device_id, made.keys)
    assert made.reason.startswith("customer_id has 1 devices in this run already; MoEngage blocks a user with more")


def test_ids_are_not_run_together(tmp_path: Path) -> None:
    """Neither what two ids have in common, nor what they are made of, makes them one."""
    pairs = [("ab", "c"), ("a", "bc"), ("a\0b", "c"), ("a", "b\0c"), ("ä", "c"), ("a\u0308", "c")]
    with opened(tmp_path, Sizes(most=1)) as census:
        assert [True, True, True, False, True, True] == [census.admits(*pair) for pair in pairs]
        assert [True, True, True, False, True, True] == [census.admits(*pair) for pair in pairs]


def test_it_is_known_in_another_process(tmp_path: Path) -> None:
    """What stands in the file does not depend on Python's own hashes, nor on when the table was written."""
    with opened(tmp_path) as census:
        census.admits("user-1", "device-1")
        census.snapshot()()
    said = path_in(tmp_path).read_bytes()
    assert b"moe_bulk census\n" == said[:16]
    assert "000000009aac5a8621eae188ab17a3998d4e6deb" == said[LOG_AT:].hex()
    assert len(said) == LOG_AT + RECORD


# -- a model -----------------------------------------------------------------------------------------------------------


@dataclass
class Film:
    """What is done to one file, so that it can be had again as it was at any moment."""

    writes: list[tuple[int, bytes] | None] = field(default_factory=list)
    """None is a sync."""

    def patch(self, patch: pytest.MonkeyPatch) -> None:
        """Watch the census's file."""
        pwrite, ftruncate = os.pwrite, os.ftruncate

        def writing(fd: int, said: bytes, at: int) -> int:
            self.writes.append((at, bytes(said)))
            return pwrite(fd, said, at)

        def cutting(fd: int, length: int) -> None:
            self.writes.append((-length, b""))
            ftruncate(fd, length)

        patch.setattr("os.pwrite", writing)
        patch.setattr("os.ftruncate", cutting)
        patch.setattr("moe_bulk.census.sync_to_disk", lambda _: self.writes.append(None))

    def cut_power(self, path: Path, survives: Callable[[], bool]) -> None:
        """Leave what was synced, and of what came later what happens to survive."""
        synced = max((at for at, write in enumerate(self.writes) if write is None), default=0)
        self.writes = [write for at, write in enumerate(self.writes) if at < synced or (write and survives())]
        with path.open("wb") as file:
            for write in self.writes:
                if write is not None and write[0] >= 0:
                    file.seek(write[0])
                    file.write(write[1])
                elif write is not None:
                    file.truncate(-write[0])
        self.writes.append(None)


class Model:
    """Users with their devices, and what became of each row since the last sync: these are counted again."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.users: dict[str, set[str]] = {}
        self.since: list[tuple[str, str, bool]] = []

    def admits(self, user: str, device: str) -> bool:
        """The rule, as one says it."""
        devices = self.users.setdefault(user, set())
        if device not in devices and len(devices) >= self.most:
            return False
        devices.add(device)
        return True

    def again(self, rng: random.Random) -> list[tuple[str, str, bool]]:
        """What a next session counts: some sent rows as their results stand, then all others in the input's order."""
        settled = {number for number, row in enumerate(self.since) if row[2] and rng.random() < 0.5}
        results = [self.since[number] for number in settled]
        rng.shuffle(results)
        return results + [row for number, row in enumerate(self.since) if number not in settled]


class Walk:
    """Sessions of one census, each of which ends in a kill or a power cut, beside the model."""

    def __init__(self, folder: Path, sizes: Sizes, rng: random.Random) -> None:
        self.folder = folder
        self.sizes = sizes
        self.rng = rng
        self.model = Model(sizes.most)
        self.film = Film()

    def go(self) -> None:
        """Sessions, until it has been enough."""
        with opened(self.folder, self.sizes) as census:
            census.snapshot()()  # a run saves before its first row
        for _ in range(6):
            with opened(self.folder, self.sizes) as census:
                if self.session(census):
                    for _ in range(self.rng.randrange(12)):
                        self.step(census)
            if self.rng.random() < 0.7:
                self.film.cut_power(path_in(self.folder), lambda: self.rng.random() < 0.6)
            elif self.rng.random() < 0.5:
                with path_in(self.folder).open("ab") as file:
                    file.write(bytes(self.rng.randrange(RECORD)))  # half a record

    def session(self, census: Census) -> bool:
        """Count again what has to be; False where that was cut off, too."""
        for user, device, expected in self.model.again(self.rng):
            if self.rng.random() < 0.05:
                return False
            if self.rng.random() < 0.05:
                census.snapshot()()
            assert expected is census.admits(user, device)
        return True

    def step(self, census: Census) -> None:
        """Some rows, and a sync or what was to be one."""
        for _ in range(self.rng.randrange(6)):
            user, device = self.rng.choice("ABC"), self.rng.choice("abcdefg")
            expected = self.model.admits(user, device)
            assert expected is census.admits(user, device)
            self.model.since.append((user, device, expected))
        if self.rng.random() < 0.3:
            census.snapshot()()
            self.model.since.clear()
        elif self.rng.random() < 0.2:
            census.snapshot()  # whoever should have called it was cancelled


ROWS = st.tuples(st.sampled_from("ABC"), st.sampled_from("abcdefg"))
SIZES = st.builds(
    Sizes,
    most=st.integers(1, 4),
    first=st.integers(0, 9),
    cells=st.sampled_from([1, 2, 1024, 8192]),
    kept=st.integers(0, 80),
    blocks=st.sampled_from([1, 2, 256]),
)


@settings(deadline=None)
@given(SIZES, st.integers(0, 1 << 32))
def test_it_agrees_with_a_model(sizes: Sizes, seed: int) -> None:
    """Users and devices, in cells of their own or in one, with kills and power cuts at any moment."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patched:
        walk = Walk(Path(name), sizes, random.Random(seed))
        walk.film.patch(patched)
        walk.go()


@given(st.lists(ROWS, max_size=40), SIZES, st.integers(0, 1_000))
def test_it_can_be_killed_in_the_middle_of_a_write(rows: list[tuple[str, str]], sizes: Sizes, cut: int) -> None:
    """Each length that the log had on its way is one from which its rows can be taken in again."""
    with tempfile.TemporaryDirectory() as name:
        folder, model = Path(name), Model(sizes.most)
        with opened(folder, sizes) as census:
            expected = [model.admits(*each) for each in rows]
            assert expected == [census.admits(*each) for each in rows]
        size = path_in(folder).stat().st_size
        os.truncate(path_in(folder), max(32, size - cut % (size + 1)))
        with opened(folder, sizes) as census:
            assert expected == [census.admits(*each) for each in rows]


# -- what it costs -----------------------------------------------------------------------------------------------------


def test_a_hot_device_is_written_no_further(tmp_path: Path) -> None:
    """Many rows of one device: once they are looked at, they take no room and are not read again."""
    with opened(tmp_path) as census:
        fill(census, 1)
        with pytest.MonkeyPatch.context() as patched:
            reads = watched_reads(patched)
            for _ in range(5_000):
                assert census.admits("user-0", "device-0")
        assert census.records == 1_000 == len(reads)
        assert census.written == 1_000 * RECORD


def watched_reads(patch: pytest.MonkeyPatch) -> list[int]:
    """Note the bytes of each reading."""
    reads: list[int] = []
    pread = os.pread

    def reading(fd: int, count: int, at: int) -> bytes:
        said = pread(fd, count, at)
        reads.append(len(said))
        return said

    patch.setattr("os.pread", reading)
    return reads


def test_what_is_read_when_it_is_opened_does_not_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table, and what came behind the last syncs: no more, however long the log is."""
    sizes, read = Sizes(first=100, cells=512), []
    for count in (1_000, 5_000, 20_000):
        folder = tmp_path / f"{count}"
        folder.mkdir()
        with opened(folder, sizes) as census:
            fill(census, count)
            for _ in range(2):
                census.snapshot()()
            fill(census, 50)
        with monkeypatch.context() as patched:
            reads = watched_reads(patched)
            with opened(folder, sizes) as census:
                assert count + 50 == census.records
        read.append(sum(reads))
    assert [512 * 8 + 50 * RECORD] * 3 == [size - room._HEADER.size for size in read]


@pytest.mark.parametrize(("syncs", "read_again"), [(1, 1_000), (2, 2_000), (3, 3_000), (4, 3_000), (9, 3_000)])
def test_the_table_is_written_in_portions(
    syncs: int, read_again: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All blocks change between two syncs, and few are copied: what is read again is what came while all were."""
    sizes = Sizes(first=100, cells=4096, blocks=3)  # eight blocks: three syncs
    with opened(tmp_path, sizes) as census, monkeypatch.context() as patched:
        film = Film()
        film.patch(patched)
        for _ in range(syncs):
            fill(census, 1_000)
            census.snapshot()()
    assert 3 * syncs == sum(write is not None and len(write[1]) == 4096 for write in film.writes)
    with monkeypatch.context() as patched:
        reads = watched_reads(patched)
        with opened(tmp_path, sizes) as census:
            assert syncs * 1_000 == census.records
    table = 4096 * 8 if syncs > 3 else 0  # nothing is known by the table before
    assert room._HEADER.size + table + read_again * RECORD == sum(reads)


def test_short_sessions_get_round_the_table_together(tmp_path: Path) -> None:
    """Each is killed before it has written all blocks; the next goes on with those that lag behind most."""
    lags = list[int]()
    for session in range(12):
        with opened(tmp_path, Sizes(first=100, cells=4096, blocks=3)) as census:  # eight blocks: three syncs
            lags.append(census.records - census._saved.known)
            census.snapshot()()
            for number in range(1_000):
                assert census.admits(f"user-{session}-{number}", "device")
            census.snapshot()()
    assert 3_000 >= max(lags)


def test_a_short_run_has_a_small_file(tmp_path: Path) -> None:
    """Nothing but its records, saved or not."""
    with opened(tmp_path) as census:
        fill(census, 100)
        for _ in range(3):
            census.snapshot()()
    assert LOG_AT + 100 * RECORD == path_in(tmp_path).stat().st_size


def test_memory_is_bounded(tmp_path: Path) -> None:
    """Of users who may have too many, those that came last are kept; the others are looked up again."""
    with opened(tmp_path, Sizes(most=2, cells=1, kept=200)) as census:
        for turn in range(2):
            for number in range(50):
                assert census.admits(f"user-{number}", "device-0")
                assert census.admits(f"user-{number}", "device-1")
                assert not census.admits(f"user-{number}", "device-2"), turn
        assert 1 <= len(census._crowds._users) <= 6
    with opened(tmp_path, Sizes(most=1_000, cells=1, kept=200)) as census:
        fill(census, 3, 1_000)
        assert 1 == len(census._crowds._users)


def test_rows_that_cannot_be_numbered_are_let_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind the last number nothing is counted, and nothing is called invalid for it."""
    monkeypatch.setattr(room, "MOST_RECORDS", 2)
    with opened(tmp_path, Sizes(most=1)) as census:
        assert [True, True, True, False] == [census.admits(*each) for each in ("aa", "bb", "cc", "ab")]
        assert 2 == census.records


def test_more_devices_than_a_cell_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number in a cell stops where its bits end, and does not run over."""
    monkeypatch.setattr(room, "_COUNT", 7)
    with opened(tmp_path, Sizes(most=5, cells=1)) as census:
        for number in range(20):
            assert census.admits(f"user-{number}", "a")
        fill(census, 20, 4)
        assert not census.admits("user-7", "b")


# -- saved and closed --------------------------------------------------------------------------------------------------


def test_a_thread_that_was_left_comes_late(tmp_path: Path) -> None:
    """What it was to save is older than what is saved, and is not put over it."""
    with opened(tmp_path, SMALL) as census:
        fill(census, 4)
        early = census.snapshot()
        fill(census, 3, 3)
        late = census.snapshot()
        late()
        early()
        census.snapshot()()
    with opened(tmp_path, SMALL) as census:
        assert not census.admits("user-2", "device-3")
        fill(census, 3, 3)


def test_the_file_is_private_and_needs_no_second_close(tmp_path: Path) -> None:
    """Nobody else reads along, however loose the umask is."""
    before = os.umask(0)
    try:
        with opened(tmp_path) as census:
            census.close()
    finally:
        os.umask(before)
    assert 0o600 == stat.S_IMODE(path_in(tmp_path).stat().st_mode)


# -- what else may be there --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "folder"])
def test_it_follows_no_link_and_waits_for_no_pipe(kind: str, tmp_path: Path) -> None:
    """What was planted under its name is refused, and nothing is written through it."""
    target, folder = tmp_path / "target", tmp_path / "run"
    folder.mkdir()
    match kind:
        case "link":
            target.write_bytes(b"precious")
            path_in(folder).symlink_to(target)
        case "dangling":
            path_in(folder).symlink_to(target)
        case "pipe":
            os.mkfifo(path_in(folder))
        case _:
            path_in(folder).mkdir()
    with pytest.raises((RunRefused, JournalError)), opened(folder):
        pass
    assert (kind == "link") is target.exists()
    assert kind != "link" or b"precious" == target.read_bytes()


def damage(path: Path, at: int, said: bytes) -> None:
    """Write something over it."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(said)


@pytest.mark.parametrize(
    ("at", "said"),
    [(0, b"something else"), (16, b"\2"), (20, b"\7"), (24, b"\xff\xff"), (31, b"\xff"), (0, bytes(32))],
)
def test_another_header_is_refused(at: int, said: bytes, tmp_path: Path) -> None:
    """Another file, version or size of the table, or more records than there are: refused, and told what to do."""
    with opened(tmp_path) as census:
        fill(census, 3)
    damage(path_in(tmp_path), at, said)
    before = path_in(tmp_path).read_bytes()
    with pytest.raises(RunRefused, match=r"devices\.census is damaged.*Remove it.*--fresh"), opened(tmp_path):
        pass
    assert before == path_in(tmp_path).read_bytes()


def test_a_file_that_was_cut_is_refused(tmp_path: Path) -> None:
    """Records are missing that were safe: users would get more devices than they may have."""
    with opened(tmp_path, SMALL) as census:
        fill(census, 9)
        for _ in range(2):
            census.snapshot()()
    size = path_in(tmp_path).stat().st_size
    for left in (size - 1, LOG_AT, 40, 31, 1):
        os.truncate(path_in(tmp_path), left)
        with pytest.raises(RunRefused, match="is damaged"), opened(tmp_path, SMALL):
            pass


def test_records_that_lead_astray_are_told(tmp_path: Path) -> None:
    """Better no answer than a wrong one: a chain that turns round, leaves its cell, or leads to nothing."""
    for said in (b"\xff", b"\1\0\0\0" + bytes(16), bytes(3) + b"\1"):
        with opened(tmp_path, Sizes(most=2)) as census:
            fill(census, 1, 2)
            damage(path_in(tmp_path), LOG_AT + RECORD, said)
            with pytest.raises(JournalError, match="is damaged"):
                census.admits("user-0", "device-2")
        path_in(tmp_path).unlink()


# -- a disk that fails -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("error", "told"), [(errno.ENOSPC, "Free at least 1 MB"), (errno.EIO, "Check that disk")])
def test_a_disk_that_takes_nothing(error: int, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run ends with the folder's message; what was counted before is there when it goes on."""

    def refuse(*_: object) -> int:
        raise OSError(error, os.strerror(error))

    with opened(tmp_path, SMALL) as census:
        fill(census, 1, 3)
        with monkeypatch.context() as patched:
            patched.setattr("os.pwrite", refuse)
            with pytest.raises(JournalError, match=told):
                census.admits("user-1", "device-0")
        for work in (lambda: census.admits("user-1", "device-0"), census.snapshot()):
            with pytest.raises(JournalError, match=told):
                work()
    with opened(tmp_path, SMALL) as census:
        assert 3 == census.records
        assert not census.admits("user-0", "device-3")


@pytest.mark.parametrize("call", ["os.pread", "moe_bulk.census.sync_to_disk"])
def test_a_disk_that_cannot_be_read_or_synced(call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same message."""

    def refuse(*_: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with opened(tmp_path, SMALL) as census:
        fill(census, 1, 3)
        save = census.snapshot()
        work = save if "sync" in call else lambda: census.admits("user-0", "device-3")
        monkeypatch.setattr(call, refuse)
        with pytest.raises(JournalError, match=r"run folder .* cannot be used: Input/output error"):
            work()


def test_a_disk_that_takes_it_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest follows."""
    pwrite = os.pwrite
    monkeypatch.setattr("os.pwrite", lambda fd, said, at: pwrite(fd, said[:7], at))
    for _ in range(2):
        with opened(tmp_path, SMALL) as census:
            fill(census, 2, 3)
            assert not census.admits("user-0", "device-3")
            for _ in range(2):
                census.snapshot()()
