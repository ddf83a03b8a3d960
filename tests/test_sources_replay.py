"""A stream that is read twice gives the same bytes twice, and keeps them no longer than somebody may ask."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk.errors import JournalError, SourceError
from moe_bulk.sources import Spool, opening, replay
from moe_bulk.sources.opening import open_bytes, open_raw

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import FrameType

    from _typeshed import TraceFunction

STEPS = st.lists(st.integers(1, 40) | st.just("rewind"), max_size=12)


class Scanty:
    """A stream without a descriptor that gives a few bytes at a time, and sometimes none yet."""

    def __init__(self, data: bytes) -> None:
        self.closed = 0
        self._data = io.BytesIO(data)
        self._pause = False

    def read(self, size: int, /) -> bytes | None:
        """Nothing yet every other time."""
        self._pause = not self._pause
        return None if self._pause else self._data.read(min(size, 7))

    def close(self) -> None:
        """Count it."""
        self.closed += 1


@pytest.fixture
def pipe() -> Iterator[tuple[io.FileIO, io.FileIO]]:
    """Give both ends of a pipe: to read, to write."""
    read, write = os.pipe()
    with io.FileIO(read, "rb") as reader, io.FileIO(write, "wb") as writer:
        yield reader, writer


def rest(spool: Spool, size: int = 11) -> bytes:
    """Read to the end."""
    found = b""
    while (data := spool.read(size)) != b"":
        found += data or b""
    return found


def kept(spool: Spool) -> bool:
    """Whether room is taken."""
    return not spool._kept.closed


@given(st.binary(max_size=200), STEPS, st.integers(1, 100))
def test_whatever_was_read_is_read_again_from_the_beginning(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, steps: list[int | str], in_memory: int
) -> None:
    """In memory or in a file, as often as wanted, and at last to the end, when nothing is kept any more."""
    with patch.object(replay, "IN_MEMORY", in_memory):
        spool = Spool(Scanty(data), tmp_path_factory.getbasetemp())
    at = 0
    for step in steps:
        if isinstance(step, str):
            spool.rewind()
            at = 0
        else:
            found = spool.read(step) or b""
            assert data[at : at + len(found)] == found
            assert len(found) <= step
            at += len(found)
    spool.forget()

    assert data[at:] == rest(spool)
    assert not kept(spool)
    spool.close()


def test_what_is_kept_stands_in_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash leaves nothing behind."""
    monkeypatch.setattr(replay, "IN_MEMORY", 10)
    spool = Spool(io.BytesIO(b"x" * 1000), tmp_path)
    spool.read(1000)

    assert spool._kept.fileno()
    assert [] == list(tmp_path.iterdir())
    spool.close()


def test_a_signal_may_come_at_any_moment_of_its_making(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends it without a complaint on stderr by what is half made, wherever in Python's own code it comes."""
    complaints: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    before = sys.gettrace()
    steps = left = 0

    def interrupt(_frame: FrameType, event: str, _argument: object) -> TraceFunction:
        nonlocal left
        left -= event == "line"
        if left < 0:
            raise KeyboardInterrupt
        return interrupt

    whole = None
    while whole is None:
        left, steps = steps, steps + 1
        sys.settrace(interrupt)
        try:
            whole = Spool(io.BytesIO())
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(before)
    whole.close()

    assert steps > 5
    assert not complaints


def test_what_was_forgotten_cannot_be_read_again(tmp_path: Path) -> None:
    """Room is given back at once when nothing of it is to be read, else when it was."""
    spool = Spool(io.BytesIO(b"some and more"), tmp_path)
    assert b"some" == spool.read(4)
    spool.rewind()
    spool.forget()
    assert kept(spool)
    assert b"some" == spool.read(100)
    assert not kept(spool)

    with pytest.raises(RuntimeError, match="was not kept"):
        spool.rewind()
    assert b" and more" == rest(spool)
    spool.close()


def test_the_tap_is_given_all_that_is_read(tmp_path: Path) -> None:
    """What is read again too: it is for whoever asked last."""
    first, second = list[bytes](), list[bytes]()
    spool = Spool(io.BytesIO(b"abcdef"), tmp_path)
    spool.tap = first.append
    spool.read(2)
    spool.read(2)
    spool.rewind()
    spool.tap = second.append
    rest(spool, 3)
    spool.close()

    assert [b"ab", b"cd"] == first
    assert [b"abc", b"d", b"ef"] == second


def test_a_pipe_is_ready_when_something_is_there_or_was_kept(tmp_path: Path, pipe: tuple[io.FileIO, io.FileIO]) -> None:
    """Or when it ended."""
    reader, writer = pipe
    spool = Spool(reader, tmp_path)
    answers = [spool.ready(0)]
    writer.write(b"x")
    answers.append(spool.ready(0))
    spool.read(1)
    answers.append(spool.ready(0))
    spool.rewind()
    answers.append(spool.ready(0))
    spool.read(1)
    writer.close()
    answers.append(spool.ready(0))

    assert [False, True, False, True, True] == answers
    assert b"" == spool.read(1)
    spool.close()


def test_a_stream_without_a_descriptor_is_always_ready(tmp_path: Path) -> None:
    """There is nothing to ask, and neither is there a size."""
    for stream in (io.BytesIO(b"x"), Scanty(b"x")):
        spool = Spool(stream, tmp_path)
        data = open_bytes("-", raw=spool)

        assert (True, None) == (spool.ready(0), data.total)
        spool.close()


def test_a_redirected_file_has_a_size_and_is_read_past(tmp_path: Path) -> None:
    """`moe-bulk upload - < devices.csv`: progress is known; seeking would leave out what is marked."""
    (tmp_path / "f").write_bytes(b"some\nmore\n")
    seen = list[bytes]()
    spool = Spool(io.FileIO(str(tmp_path / "f")), tmp_path)
    spool.tap = seen.append
    data = open_bytes("-", raw=spool)

    assert (10, False) == (data.total, data.seek(5))
    assert b"some\nmore\n" == b"".join(iter(data.read, b"")) == b"".join(seen)  # type: ignore[arg-type]  # no pauses
    assert 10 == data.consumed
    spool.close()


def test_the_size_of_a_redirected_file_is_known(tmp_path: Path) -> None:
    """It is a stream all the same: nobody seeks in what is kept."""
    (tmp_path / "f").write_bytes(b"a,b\n1,2\n")
    spool = Spool(io.FileIO(str(tmp_path / "f")), tmp_path)
    data = open_bytes("-", raw=spool)

    assert (8, False) == (data.total, data.seek(4))
    assert b"a,b\n" == data.read()
    spool.close()


def test_pauses_of_a_spooled_pipe_are_told(
    tmp_path: Path, pipe: tuple[io.FileIO, io.FileIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a source as the pipe itself is: given at once, closed from any thread, and left open then."""
    monkeypatch.setattr(opening, "POLL_SECONDS", 0.001)
    reader, writer = pipe
    spool = Spool(reader, tmp_path)
    writer.write(b"first\n")
    data = open_bytes("-", raw=spool)

    assert [b"firs", b"t\n", None] == [data.read(), data.read(), data.read()]
    writer.write(b"second\n")
    assert b"second\n" == data.read()
    data.close()
    with pytest.raises(SourceError, match="stdin was closed before its end"):
        data.read()
    spool.rewind()
    assert b"first\nsecond\n" == spool.read(100)
    assert not reader.closed
    spool.close()


def test_closing_closes_the_stream(tmp_path: Path) -> None:
    """But not standard input, whoever stands in for it."""
    stream = Scanty(b"")
    Spool(stream, tmp_path).close()

    assert 1 == stream.closed


def test_somebody_elses_standard_input_is_left_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object in place of the real one, and the real one."""
    with io.TextIOWrapper(io.BytesIO(b"a\n1\n")) as theirs:
        monkeypatch.setattr("sys.stdin", theirs)
        spool = Spool(open_raw("-"), tmp_path)
        assert b"a\n1\n" == rest(spool)
        spool.close()
        assert not theirs.buffer.closed
    with (tmp_path / "f").open("w+") as redirected:
        monkeypatch.setattr("sys.stdin", redirected)
        Spool(open_raw("-"), tmp_path).close()
        assert os.fstat(redirected.fileno())


def test_no_room_to_keep_it_is_told_with_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is no fault of the stream: nothing was sent yet, and with room the same command goes on."""
    monkeypatch.setattr(replay, "IN_MEMORY", 10)
    spool = Spool(io.BytesIO(b"x" * 1000), tmp_path)

    class Full(io.BytesIO):
        def write(self, _data: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    files = list[Full]()

    def full(**_: object) -> Full:
        files.append(Full())
        return files[-1]

    monkeypatch.setattr(replay, "TemporaryFile", full)
    assert b"x" * 10 == spool.read(10)
    why = rf"must be kept in {tmp_path} while .* \(No space left on device\). Free at least 1 MB there"
    with pytest.raises(JournalError, match=why):
        open_bytes("-", raw=spool)
    assert [True] == [file.closed for file in files]
    spool.rewind()
    assert b"x" * 10 == spool.read(1000)
    spool.close()


def test_a_stream_that_was_told_to_stop_gives_up(tmp_path: Path) -> None:
    """Whoever waits for it in another thread comes back: there is something to read, and that is an error."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    spool = Spool(open_raw(str(pipe)), tmp_path)
    assert not spool.ready(0.0)
    spool.stop()
    assert spool.ready(0.0)
    with pytest.raises(OSError, match="it was left"):
        spool.read(10)
    spool.close()


def test_a_kept_file_that_cannot_be_closed_is_no_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full, and what it held of the stream is not wanted any more."""
    stream = Scanty(b"")
    spool = Spool(stream, tmp_path)

    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as broken:
        broken.setattr(spool._kept, "close", full)
        spool.close()
    spool._kept.close()

    assert 1 == stream.closed
