"""Files and streams as one input: known again, gone on with, let go of."""

from __future__ import annotations

import asyncio
import io
import os
import sys
import threading
from contextlib import aclosing
from typing import TYPE_CHECKING

import pytest

from moe_bulk.columns import Columns, Reader
from moe_bulk.errors import ConfigError, SourceError
from moe_bulk.fingerprint import FIRST_MARK, Fingerprint
from moe_bulk.intake import Files, Intake, Reading
from moe_bulk.intake.files import FromFiles
from moe_bulk.record import Position, Record
from moe_bulk.settled import Place, Settled
from moe_bulk.sources import Spool

if TYPE_CHECKING:
    from pathlib import Path

HEADER = "customer_id,device_id,platform,push_id\n"


def text_of(count: int) -> bytes:
    """Make a CSV with so many rows."""
    return (HEADER + "".join(f"user-{n},d-{n},iOS,t-{n}\n" for n in range(count))).encode()


class Piped(io.BytesIO):
    """A stream that gives its bytes in small pieces, says in between that nothing is there yet, and may break."""

    def __init__(self, data: bytes, *, breaks_at: int | None = None) -> None:
        super().__init__(data)
        self._breaks_at = breaks_at
        self._silent = True

    def read1(self, size: int | None = -1, /) -> bytes:
        """Give a piece."""
        if self._breaks_at is not None and self.tell() >= self._breaks_at:
            raise OSError(5, "Input/output error")
        self._silent = not self._silent
        return super().read(min(size or 1, 30_000)) if self._silent else None  # type: ignore[return-value]


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes, **more: int) -> str:
    """Put it on standard input."""
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(Piped(data, **more)))
    return "-"


def opened(folder: Path, *paths: str) -> FromFiles:
    """Open an input that can be compared with an earlier one."""
    files = FromFiles(Files(paths), Reader(Columns()), "auto", folder)
    files.look()
    return files


def rows_of(files: FromFiles) -> list[int]:
    """Read it to its end, and give the lines of the rows, those that were settled before as negative numbers."""
    return [
        -made.line if isinstance(made, Position) else made.row.position.line
        for batch in files.batches()
        for made in batch
    ]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Write a file of three rows."""
    path = tmp_path / "a.csv"
    path.write_bytes(text_of(3))
    return path


def test_a_file_is_known_by_size_and_time_or_by_content(path: Path, tmp_path: Path) -> None:
    """Touched it is the same once its content is known; with other bytes it is not."""
    files = opened(tmp_path, str(path))
    (before,) = files.fingerprints
    assert ("file", None) == (before.kind, before.digest)
    files.take_digests(lambda: False)
    files.take_digests(lambda: False)
    (known,) = files.fingerprints
    assert known.digest is not None
    files.close()
    os.utime(path, (1, 1))
    again = opened(tmp_path, str(path))
    assert (str(path),) == again.changed([before])
    assert () == again.changed([known])
    assert known.digest == again.fingerprints[0].digest
    again.close()
    path.write_bytes(path.read_bytes().replace(b"user-2", b"user-9"))
    other = opened(tmp_path, str(path))
    assert (str(path),) == other.changed([known])
    other.close()


def test_a_file_that_changes_while_it_is_read_gets_no_digest(path: Path, tmp_path: Path) -> None:
    """It could not be known by it: nobody can say what of it was read."""
    files = opened(tmp_path, str(path))
    path.write_bytes(text_of(4))
    files.take_digests(lambda: False)
    path.unlink()
    files.take_digests(lambda: False)
    assert files.fingerprints[0].digest is None
    files.close()


def test_a_stopped_input_takes_no_digest_and_opens_nothing(path: Path, tmp_path: Path) -> None:
    """What takes long ends soon."""
    files = FromFiles(Files((str(path),)), Reader(Columns()), "auto", tmp_path)
    files.stop()
    files.look()
    files.take_digests(lambda: False)
    assert files.fingerprints[0].digest is None
    files.close()


def test_a_stream_is_known_by_what_it_gave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bytes are the same stream; fewer, more, or other ones are not; and what was compared is still read."""
    data = text_of(9000)
    files = opened(tmp_path, stdin(monkeypatch, data))
    assert list(range(2, 9002)) == rows_of(files)
    (known,) = files.fingerprints
    assert ("stdin", "stream", True, len(data)) == (known.name, known.kind, known.ended, known.marks[-1][0])
    assert len(data) > FIRST_MARK == known.marks[0][0]
    files.close()
    for other in (
        data[:-1],
        data + b"x",
        data.replace(b"user-8999", b"user-9998"),
        data.replace(b"user-0,", b"user-x,"),
    ):
        again = opened(tmp_path, stdin(monkeypatch, other))
        assert ("stdin",) == again.changed([known])
        again.close()
    again = opened(tmp_path, stdin(monkeypatch, data))
    assert () == again.changed([known])
    assert (known,) == again.fingerprints
    assert list(range(2, 9002)) == rows_of(again)
    assert (known,) == again.fingerprints
    again.close()


def test_a_stream_that_is_silent_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is no end: an empty batch lets whoever reads look whether it should stop."""
    silences = list[bool]()
    monkeypatch.setattr(Spool, "ready", lambda *_: not (silences and silences.pop()))
    files = opened(tmp_path, stdin(monkeypatch, text_of(9000)))
    rows = 0
    empty = 0
    for batch in files.batches():
        if not rows:
            silences.append(True)
        rows += len(batch)
        empty += not batch
    assert (9000, 1) == (rows, empty)
    assert 0 < files.bytes_read
    files.close()


def test_what_is_known_of_a_stream_is_never_forgotten(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until a session has read as far as the one before, or where it passes the stream over, the older marks count."""
    data = text_of(9000)
    files = opened(tmp_path, stdin(monkeypatch, data), str(path))
    rows_of(files)
    known = files.fingerprints
    files.close()
    for place in (Place(0, 2, len(HEADER)), Place(1, 2, len(HEADER))):
        again = opened(tmp_path, stdin(monkeypatch, data), str(path))
        assert () == again.changed(known)
        assert known[0] == again.fingerprints[0]
        again.go_on(Settled(["stdin", "before"], {}, place), ["stdin", "before"])
        next(iter(again.batches()))
        assert known[0] == again.fingerprints[0]
        again.close()


def test_another_kind_of_input_is_another_input(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is no stream, a stream no file, and sources that were added or left out are named."""
    stream, file = Fingerprint("x", "stream"), Fingerprint("x", "file", size=path.stat().st_size)
    files = opened(tmp_path, str(path))
    assert (str(path),) == files.changed([stream])
    assert ("x",) == files.changed([files.fingerprints[0], stream])
    assert files.labels == files.changed([files.fingerprints[0]] * 2)
    files.close()
    piped = opened(tmp_path, stdin(monkeypatch, text_of(3)))
    assert ("stdin",) == piped.changed([file])
    piped.close()


def test_a_stream_that_breaks_while_it_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an input that cannot be read, said as such."""
    files = opened(tmp_path, stdin(monkeypatch, text_of(9000), breaks_at=60_000))
    with pytest.raises(SourceError, match="stdin cannot be read: Input/output error"):
        files.changed([Fingerprint("stdin", "stream", marks=((200_000, "x"),))])
    files.close()


def test_a_comparison_ends_when_it_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream may be silent for ever: whoever leaves is not kept waiting."""
    files = opened(tmp_path, stdin(monkeypatch, text_of(3)))
    spool = files._inputs[0].spool
    assert spool is not None

    def silent(_: float) -> bool:
        files.stop()
        return False

    monkeypatch.setattr(spool, "ready", silent)
    assert ("stdin",) == files.changed([Fingerprint("stdin", "stream", marks=((200_000, "x"),))])
    files.close()


def test_going_on_leaves_out_what_is_settled(path: Path, tmp_path: Path) -> None:
    """Reading begins at the place; settled rows are passed over, the last one of a batch by its position."""
    second = tmp_path / "b.csv"
    second.write_bytes(text_of(3))
    labels = ["first", "second"]
    begins = [len(HEADER) + n * len("user-0,d-0,iOS,t-0\n") for n in range(4)]
    cases: list[tuple[Place, list[int], list[int]]] = [
        (Place(0, 2, begins[0]), [], [2, 3, 4, 2, 3, 4]),
        (Place(1, 3, begins[1]), [], [3, 4]),
        (Place(1, 2, begins[0]), [1, 2], [2, -4]),
        (Place(1, 2, begins[0]), [0], [3, 4]),
        (Place(1, 4, begins[2]), [2], [-4]),
    ]
    for place, settled, expected in cases:
        files = opened(tmp_path, str(path), str(second))
        ranges = [(begins[n] << 16, (begins[n] << 16) + 1) for n in settled]
        files.go_on(Settled(labels, {"second": ranges}, place), labels)
        assert tuple(labels) == files.labels
        assert expected == rows_of(files)
        size = path.stat().st_size
        assert (2 * size, 2 * size) == (files.bytes_read, files.bytes_in_all)
        files.close()


def test_without_a_place_to_keep_streams_they_are_just_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is kept where nobody will ask."""
    files = FromFiles(Files((stdin(monkeypatch, text_of(2)),)), Reader(Columns()), "auto", None)
    files.look()
    made = [each for batch in files.batches() for each in batch]
    assert ["user-0", "user-1"] == [each.device.customer_id for each in made if isinstance(each, Record)]
    assert files.rows_expected is None
    files.close()


def test_a_file_called_stdin_beside_standard_input() -> None:
    """Both would be called the same in the results."""
    with pytest.raises(ConfigError, match=r"write \./stdin"):
        Files(("-", "stdin"))
    assert ("stdin", "./stdin") == Files(("-", "./stdin")).labels


@pytest.mark.anyio
async def test_an_input_leaves_no_thread_behind(tmp_path: Path) -> None:
    """Whether it was read to its end, left in the middle, or only looked at; and it may be closed twice."""

    def threads() -> int:
        return sum(thread.name == "moe_bulk rows" for thread in threading.enumerate())

    (source := tmp_path / "devices.csv").write_bytes(text_of(300))
    for batches in (0, 1, 100):
        intake = Intake(str(source), Reading())
        await intake.open()
        assert 1 == threads()
        async with aclosing(intake.batches()) as found:
            for _ in range(batches):
                if not await anext(found, None):
                    break
        await intake.close()
        await intake.close()
        async with asyncio.timeout(5):
            while threads():  # noqa: ASYNC110  threads set no event of asyncio's
                await asyncio.sleep(0.001)
        assert [] == [batch async for batch in intake.batches()]
