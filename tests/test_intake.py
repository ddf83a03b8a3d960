"""Rows from anywhere as batches of records; what was opened is closed, whatever happens."""

from __future__ import annotations

import asyncio
import gzip
import io
import sys
import threading
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from moe_bulk.columns import Columns, Unsent
from moe_bulk.errors import ConfigError, SourceError
from moe_bulk.intake import Files, Intake, Reading
from moe_bulk.record import Position, Row

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from moe_bulk.columns import Made
    from moe_bulk.intake import Rows

pytestmark = pytest.mark.anyio

HEADER = "customer_id,device_id,platform,push_id\n"


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio, which is what the library is for."""
    return "asyncio"


def device(number: int) -> dict[str, object]:
    """Make a valid row."""
    return {"customer_id": f"user-{number}", "device_id": f"d-{number}", "platform": "iOS", "push_id": f"tok-{number}"}


def csv_file(path: Path, numbers: range) -> str:
    """Write a CSV file with valid rows and return its name."""
    path.write_text(HEADER + "".join(f"user-{n},d-{n},iOS,tok-{n}\n" for n in numbers))
    return str(path)


def progress(intake: Intake) -> tuple[int, int | None]:
    """Tell how far it is."""
    return intake.progress


def open_files() -> int:
    """Count this process's descriptors."""
    return len(list(Path("/dev/fd").iterdir()))


async def taken(rows: Rows, reading: Reading | None = None) -> list[Made]:
    """Read it all."""
    intake = Intake(rows, reading or Reading())
    try:
        await intake.open()
        async with aclosing(intake.batches()) as batches:
            return [made async for batch in batches for made in batch if not isinstance(made, Position)]
    finally:
        await intake.close()


def devices(found: Sequence[Made | Position]) -> list[str]:
    """Tell whose rows they are."""
    return [
        made.customer_id or "?" if isinstance(made, Unsent) else made.device.customer_id
        for made in found
        if not isinstance(made, Position)
    ]


# -- what is taken for rows --------------------------------------------------------------------------------------------


async def as_they_come(numbers: range) -> AsyncIterator[Mapping[str, object]]:
    """Give rows as an application does."""
    for number in numbers:
        await asyncio.sleep(0)
        yield device(number)


@pytest.mark.parametrize("kind", ["list", "iterator", "generator", "async generator", "path", "text"])
async def test_rows_come_in_many_forms(kind: str, tmp_path: Path) -> None:
    """The same devices come out of every form of rows, in their order."""
    forms: dict[str, Rows] = {
        "list": [device(n) for n in range(3)],
        "iterator": iter([device(n) for n in range(3)]),
        "generator": (device(n) for n in range(3)),
        "async generator": as_they_come(range(3)),
        "path": Path(csv_file(tmp_path / "devices.csv", range(3))),
        "text": csv_file(tmp_path / "devices.csv", range(3)),
    }
    assert ["user-0", "user-1", "user-2"] == devices(await taken(forms[kind]))


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (device(1), "this is one: put it in a list, or use send()"),
        (b"devices.csv", "this is a bytes"),
        (bytearray(b"devices.csv"), "this is a bytearray"),
        (7, "this is a int"),
        (None, "this is a NoneType"),
    ],
)
def test_what_cannot_be_rows_is_refused_at_once(rows: Rows, said: str) -> None:
    """A mistake in the argument is an error before anything is opened or sent, not a file of invalid rows."""
    with pytest.raises(ConfigError) as caught:
        Intake(rows, Reading())
    assert said in str(caught.value)


async def test_items_that_are_no_mappings_are_invalid_rows() -> None:
    """Bad data is a value: one item of the wrong type does not stop the others."""
    rows: list[object] = [device(0), "user-1", device(2)]
    found = await taken(rows)  # type: ignore[arg-type]  # that is the point
    assert ["user-0", "?", "user-2"] == devices(found)
    assert [Position("rows", n + 1, n) for n in range(3)] == [
        made.row.position if isinstance(made, Unsent) else made.position for made in found
    ]


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        ((), "at least one"),
        (("a.csv", "b.csv", "a.csv"), "a.csv stands twice"),
        (("-", "-"), "- stands twice"),
        (("a.csv", "./a.csv"), "./a.csv stands"),
        (("https://h/a.csv?sig=1", "https://h/a.csv?sig=2"), "two sources have the same name in results"),
        (("\udcff.csv", "\\udcff.csv"), "two sources have the same name in results"),
    ],
)
def test_files_are_named_once(paths: tuple[str, ...], said: str) -> None:
    """A file that is named twice would give two rows with one identity."""
    with pytest.raises(ConfigError) as caught:
        Files(paths)
    assert said in str(caught.value)


def test_files_are_told_apart_by_what_they_are(tmp_path: Path) -> None:
    """A link is the file it leads to; addresses and what names no file are compared as they stand."""
    (tmp_path / "a.csv").touch()
    (tmp_path / "link.csv").symlink_to("a.csv")
    with pytest.raises(ConfigError, match=r"link\.csv stands twice"):
        Files((str(tmp_path / "a.csv"), str(tmp_path / "link.csv")))
    assert 4 == len(Files(("s3://b/a.csv", "s3://b/./a.csv", "a\0", "-")).paths)


def test_a_limit_is_at_least_one_row() -> None:
    """Nothing to read is a mistake."""
    with pytest.raises(ConfigError, match="at least 1; got 0"):
        Reading(limit=0)


# -- files -------------------------------------------------------------------------------------------------------------


async def test_several_files_are_one_input(tmp_path: Path) -> None:
    """One file after the other, each in its own format, with places of its own."""
    first = csv_file(tmp_path / "a.csv", range(2))
    second = tmp_path / "b.ndjson.gz"
    lines = '{"customer_id":"user-7","device_id":"d","platform":"web","push_id":"t"}\n\n{"customer_id":"user-8"}\n'
    second.write_bytes(gzip.compress(lines.encode()))
    found = await taken(Files((first, str(second))))
    assert ["user-0", "user-1", "user-7", "user-8"] == devices(found)
    assert [(first, 2), (first, 3), (str(second), 1), (str(second), 3)] == [
        (made.row.position.source, made.row.position.line) for made in found
    ]


async def test_standard_input_is_read_whole_wherever_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked at before the run and cannot be opened again: what was looked at is not lost."""
    text = HEADER + "".join(f"user-{n},d,iOS,t{n}\n" for n in (5, 6))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    found = await taken(Files((csv_file(tmp_path / "a.csv", range(1)), "-")))
    assert ["user-0", "user-5", "user-6"] == devices(found)


async def test_progress_counts_stored_bytes_over_all_files(tmp_path: Path) -> None:
    """The bar knows how long the whole input is, and ends at its end."""
    files = Files(tuple(csv_file(tmp_path / f"{n}.csv", range(n, n + 2)) for n in range(3)))
    size = 3 * (tmp_path / "0.csv").stat().st_size
    intake = Intake(files, Reading())
    assert (0, None) == progress(intake)
    await intake.open()
    assert (0, size) == progress(intake)
    seen = [intake.progress[0] async for _ in intake.batches()]
    assert (size, size) == progress(intake)
    assert sorted(seen) == seen
    await intake.close()
    assert (size, size) == progress(intake)


async def test_progress_does_not_know_the_length_of_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows in memory have no bytes, standard input no end that is known."""
    assert (0, None) == progress(Intake([device(1)], Reading()))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(HEADER.encode())))
    intake = Intake("-", Reading())
    await intake.open()
    assert [] == [made async for batch in intake.batches() for made in batch]
    assert (len(HEADER), None) == progress(intake)
    await intake.close()


async def test_warnings_name_what_is_not_sent(tmp_path: Path) -> None:
    """Unknown columns are told when the file is looked at, unknown fields of rows as they come."""
    path = tmp_path / "a.csv"
    path.write_text(HEADER.replace("push_id", "push_id,colour"))
    intake = Intake(path, Reading())
    await intake.open()
    assert ["column 'colour' is not sent: it is none of the API's."] == intake.warnings
    await intake.close()
    intake = Intake([{**device(1), "shape": "round"}], Reading())
    assert [] == intake.warnings
    assert [1] == [len(batch) async for batch in intake.batches()]
    assert ["field 'shape' is not sent: it is none of the API's."] == intake.warnings


async def test_each_intake_warns_anew() -> None:
    """One way of reading, used for several runs, tells each of them what is not sent."""
    reading = Reading()
    for _ in range(2):
        intake = Intake([{**device(1), "shape": "round"}], reading)
        assert [1] == [len(batch) async for batch in intake.batches()]
        assert ["field 'shape' is not sent: it is none of the API's."] == intake.warnings


@pytest.mark.parametrize("second", ["missing.csv", "headless.csv"])
async def test_what_is_wrong_with_any_file_is_said_at_the_beginning(second: str, tmp_path: Path) -> None:
    """A file that cannot be used stops the opening, and nothing that was opened stays open."""
    (tmp_path / "headless.csv").write_text("user,device\nuser-1,d-1\n")
    before = open_files()
    intake = Intake(Files((csv_file(tmp_path / "a.csv", range(2)), str(tmp_path / second))), Reading())
    with pytest.raises((SourceError, ConfigError), match=second):
        await intake.open()
    await intake.close()
    assert before == open_files()


async def test_a_damaged_file_gives_its_rows_first(tmp_path: Path) -> None:
    """Rows before the damaged place come out; then SourceError says where it ends."""
    csv_file(tmp_path / "a.csv", range(5000))
    whole = gzip.compress((tmp_path / "a.csv").read_bytes())
    (tmp_path / "cut.csv.gz").write_bytes(whole[: len(whole) // 2])
    found: list[Made] = []
    before = open_files()
    intake = Intake(tmp_path / "cut.csv.gz", Reading())
    await intake.open()

    async def read_on() -> None:
        async for batch in intake.batches():
            found.extend(made for made in batch if not isinstance(made, Position))

    with pytest.raises(SourceError, match=r"cut\.csv\.gz cannot be read on"):
        await read_on()
    await intake.close()
    assert [f"user-{n}" for n in range(len(found) - 1)] == devices(found)[:-1]
    assert 1000 < len(found) < 5000
    assert before == open_files()


@pytest.mark.parametrize(("limit", "read", "cut"), [(1, 1, True), (3, 3, True), (700, 700, True), (801, 800, False)])
async def test_a_limit_cuts_the_input(limit: int, read: int, cut: bool, tmp_path: Path) -> None:  # noqa: FBT001  a table
    """No row more is read than asked for, across batches; `cut` tells whether there may be more."""
    path = csv_file(tmp_path / "a.csv", range(800))
    for rows in (path, [device(n) for n in range(800)]):
        intake = Intake(rows, Reading(limit=limit))
        await intake.open()
        assert read == sum([len(batch) async for batch in intake.batches()])
        assert cut is intake.cut
        await intake.close()


async def test_columns_apply_to_all_forms(tmp_path: Path) -> None:
    """Renamed and constant fields are the same for rows from a file and from memory."""
    path = tmp_path / "a.csv"
    path.write_text("who,device_id,push_id\nuser-1,d-1,t-1\n")
    reading = Reading(Columns.parse(column=["customer_id=who"], set_=["platform=iOS"]))
    for rows in (path, [{"who": "user-1", "device_id": "d-1", "push_id": "t-1"}]):
        assert ["user-1"] == devices(await taken(rows, reading))


# -- a thread that reads -----------------------------------------------------------------------------------------------


class SlowSource:
    """A file on a slow disk: its reading lasts until it is let go."""

    name = "slow.csv"
    columns = None

    def __init__(self, log: list[str]) -> None:
        self.go_on = threading.Event()
        self.reading = threading.Event()
        self._log = log

    def batches(self) -> Iterator[list[Row]]:
        """Give one row, late."""
        self.reading.set()
        self.go_on.wait(10)
        self._log.append("read")
        yield [Row(Position("slow.csv", 1, 0), device(1))]

    def progress(self) -> tuple[int, int | None]:
        """Nobody knows."""
        return 0, None

    def close(self) -> None:
        """Tell when."""
        self._log.append("closed")


async def wait_for(event: threading.Event) -> None:
    """Wait for something that happens in a thread."""
    await asyncio.to_thread(event.wait, 10)


async def test_closing_waits_for_a_thread_that_still_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancelled reader's thread is told to end, and what it reads is let go of after it has come back."""
    log: list[str] = []
    source = SlowSource(log)
    monkeypatch.setattr("moe_bulk.intake.files.open_source", lambda *_, **__: source)
    (tmp_path / "slow.csv").touch()
    intake = Intake(tmp_path / "slow.csv", Reading())
    await intake.open()
    reader = asyncio.create_task(anext(intake.batches()))
    await wait_for(source.reading)
    reader.cancel()
    await asyncio.wait([reader])
    closing = asyncio.create_task(intake.close())
    await asyncio.sleep(0.01)
    assert ["closed"] == log  # a source that is still read takes that for a wish
    assert not closing.done()
    source.go_on.set()
    await closing
    assert ["closed", "read", "closed"] == log


async def test_opening_that_was_cancelled_leaves_nothing_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is opened in a thread while its task is cancelled is closed, too, and no other one is opened."""
    log: list[str] = []
    opening, go_on = threading.Event(), threading.Event()

    def open_slowly(name: str, *_: object, **__: object) -> SlowSource:
        opening.set()
        go_on.wait(10)
        log.append(f"opened {name}")
        return SlowSource(log)

    monkeypatch.setattr("moe_bulk.intake.files.open_source", open_slowly)
    paths = [tmp_path / name for name in ("a", "b")]
    for path in paths:
        path.touch()
    intake = Intake(Files(tuple(map(str, paths))), Reading())
    opener = asyncio.create_task(intake.open())
    await wait_for(opening)
    opener.cancel()
    await asyncio.wait([opener])
    closing = asyncio.create_task(intake.close())
    await asyncio.sleep(0.01)
    go_on.set()
    await closing
    assert log.count("closed") == sum(each.startswith("opened") for each in log)


async def test_a_closed_intake_gives_no_more_rows(tmp_path: Path) -> None:
    """A reader that comes late finds the end, not a closed file."""
    intake = Intake(csv_file(tmp_path / "a.csv", range(3)), Reading())
    await intake.open()
    await intake.close()
    assert [] == [batch async for batch in intake.batches()]
    await intake.open()
    assert [] == [batch async for batch in intake.batches()]


# -- the caller's own iterables ----------------------------------------------------------------------------------------


async def test_a_generator_is_closed_when_its_reader_leaves() -> None:
    """What the caller's generators hold open is let go at once, not when somebody collects the garbage."""
    log: list[str] = []

    def rows() -> Iterator[Mapping[str, object]]:
        try:
            yield from map(device, range(10))
        finally:
            log.append("closed")

    async def async_rows() -> AsyncIterator[Mapping[str, object]]:
        try:
            for row in map(device, range(10)):
                yield row
        finally:
            await asyncio.sleep(0)
            log.append("closed in its own time")

    for given in (rows(), async_rows()):
        async with aclosing(Intake(given, Reading()).batches()) as batches:
            await anext(batches)
    assert ["closed", "closed in its own time"] == log


async def test_other_iterables_stay_the_callers() -> None:
    """An iterator that is no generator can be read on by whoever made it."""
    rows = iter([device(n) for n in range(3)])
    async with aclosing(Intake(rows, Reading()).batches()) as batches:
        await anext(batches)
    assert device(1) == next(rows)

    class Endless:
        """An async iterable that is no generator."""

        def __aiter__(self) -> Endless:
            return self

        async def __anext__(self) -> Mapping[str, object]:
            return device(9)

    async with aclosing(Intake(Endless(), Reading()).batches()) as batches:
        assert ["user-9"] == devices(await anext(aiter(batches)))


async def test_a_long_iterable_lets_others_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are made slowly on the event loop give the other tasks their turn in between."""
    monkeypatch.setattr("moe_bulk.intake.memory.LONGEST_TURN", -1.0)
    turns = 0

    async def other_work() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    worker = asyncio.create_task(other_work())
    assert 50 == len(await taken([device(n) for n in range(50)]))
    worker.cancel()
    assert turns >= 50
