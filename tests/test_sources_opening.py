"""Files, pipes and standard input as decompressed bytes, and what is refused, with what to do about it."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, cast

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk.errors import SourceError
from moe_bulk.sources import opening
from moe_bulk.sources.opening import Bytes, open_bytes, unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TEXT = b"".join(b"line %d of some text\n" % number for number in range(20_000))
SKIPPABLE = b"\x50\x2a\x4d\x18\x02\x00\x00\x00xx"
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "zst": zstd.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "pzstd": lambda data: SKIPPABLE + zstd.compress(data),
}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for pipes as short as possible."""
    monkeypatch.setattr(opening, "POLL_SECONDS", 0.001)


@pytest.fixture
def pipe() -> Iterator[tuple[io.FileIO, io.FileIO]]:
    """Give both ends of a pipe: to read, to write."""
    read, write = os.pipe()
    with io.FileIO(read, "rb") as reader, io.FileIO(write, "wb") as writer:
        yield reader, writer


def rest(data: Bytes) -> bytes:
    """Read to the end, without the pauses."""
    found = b""
    while (block := data.read()) != b"":
        found += block or b""
    return found


def until_pause(data: Bytes) -> bytes:
    """Read until nothing comes."""
    found = b""
    while (block := data.read()) is not None:
        found += block
    return found


def until_error(data: Bytes) -> tuple[bytes, str]:
    """Read as far as possible, and give the error."""
    found = b""
    try:
        while (block := data.read()) != b"":
            found += block or b""
    except SourceError as error:
        return found, str(error)
    raise AssertionError("there was no error")


def stored(tmp_path: Path, content: bytes, name: str = "rows.csv") -> str:
    """Write a file and give its path."""
    path = tmp_path / name
    path.write_bytes(content)
    return str(path)


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz"])
@pytest.mark.parametrize("block", [1000, 256 * 1024])
def test_a_file_is_decompressed_by_what_it_is(tmp_path: Path, kind: str, name: str, block: int) -> None:
    """Whatever its name says; what is read counts as stored."""
    packed = PACKERS[kind](TEXT)
    data = open_bytes(stored(tmp_path, packed, name), block=block)

    assert TEXT == rest(data)
    assert (len(packed), len(packed)) == (data.consumed, data.total)
    data.close()


@pytest.mark.parametrize("kind", PACKERS)
def test_several_compressed_files_in_one_are_read_to_the_end(tmp_path: Path, kind: str) -> None:
    """`cat a.gz b.gz` is a gzip file, and the others' tools do the same."""
    data = open_bytes(stored(tmp_path, PACKERS[kind](TEXT[:5000]) + PACKERS[kind](TEXT[5000:])))
    assert TEXT == rest(data)
    data.close()


@pytest.mark.parametrize("kind", ["gz", "zst", "bz2", "xz"])
@pytest.mark.parametrize("damage", ["cut off", "changed"])
def test_what_stands_before_the_damage_is_read_and_then_it_is_said(tmp_path: Path, kind: str, damage: str) -> None:
    """A copy that broke off is no complete input: its rows come first, then the error, and again the error."""
    text = b"".join(os.urandom(20).hex().encode() + b"\n" for _ in range(40_000))
    packed = bytearray(PACKERS[kind](text))
    if damage == "cut off":
        del packed[-20:]
    else:
        packed[-1000:-980] = bytes(20)
    data = open_bytes(stored(tmp_path, bytes(packed)), block=10_000)

    found, error = until_error(data)

    assert "cannot be read on: it is damaged or cut off" in error
    assert f"get a whole copy of this .{kind} file" in error
    assert damage == "changed" or text.startswith(found)  # the checksum comes at the end
    assert error == until_error(data)[1]
    data.close()


def test_a_file_that_is_cut_off_gives_all_that_is_there(tmp_path: Path) -> None:
    """Nothing that could be decompressed is held back."""
    data = open_bytes(stored(tmp_path, gzip.compress(TEXT)[:-8]), block=10_000)

    assert TEXT == until_error(data)[0]
    data.close()


@pytest.mark.parametrize("content", [b"BZh is a text\n", b"B", b"BZh91", b"\x1f", b"(\xb5/", b"x,y\n"])
def test_text_that_begins_like_something_else_is_text(tmp_path: Path, content: bytes) -> None:
    """Only the whole sign counts."""
    data = open_bytes(stored(tmp_path, content))
    assert content == rest(data)
    data.close()


@pytest.mark.parametrize("packed", [b"", gzip.compress(b"", mtime=0), bz2.compress(b""), zstd.compress(b"")])
def test_an_empty_file_has_no_bytes(tmp_path: Path, packed: bytes) -> None:
    """Compressed or not."""
    data = open_bytes(stored(tmp_path, packed))
    assert (b"", b"", 0) == (data.head, data.read(), data.start)
    data.close()


@pytest.mark.parametrize("content", [b"\xef\xbb\xbfa,b\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n\na"])
@pytest.mark.parametrize("block", [1, 4, 100])
def test_a_byte_order_mark_is_left_out(tmp_path: Path, content: bytes, block: int) -> None:
    """Offsets count it."""
    data = open_bytes(stored(tmp_path, content), block=block)

    assert 3 == data.start
    assert data.head.strip()[:1] == content[3:].strip()[:1]
    assert content[3:] == rest(data)
    data.close()


def test_a_long_blank_beginning_is_not_read_for_ever(tmp_path: Path) -> None:
    """Looking for the first sign of a format has an end."""
    data = open_bytes(stored(tmp_path, b"\n" * 200_000), block=1000)
    assert 64 * 1024 <= len(data.head) < 64 * 1024 + 1000
    data.close()


@given(st.binary(), st.integers(1, 9))
def test_arbitrary_bytes_are_given_as_they_are_or_refused(content: bytes, block: int) -> None:
    """Nothing but SourceError comes out of it."""
    try:
        data = open_bytes("-", raw=io.BytesIO(content), block=block)
        found = rest(data)
    except SourceError:
        return
    assert content.removeprefix(b"\xef\xbb\xbf") == found


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,b\n1,2\n".encode("utf-16"), "is not UTF-8 but UTF-16: convert it with iconv -f UTF-16 -t UTF-8"),
        (b"\xfe\xff\x00a", "is not UTF-8 but UTF-16: "),
        ("a,b\n".encode("utf-16-le"), "is not UTF-8 but UTF-16LE: convert it with iconv -f UTF-16LE"),
        ("a,b\n".encode("utf-16-be"), "is not UTF-8 but UTF-16BE: "),
        ("a,b\n".encode("utf-32"), "is not UTF-8 but UTF-32: "),
        (b"PK\x03\x04...", "is a ZIP archive or a spreadsheet"),
        (b"PK\x03\x04", "is a ZIP archive or a spreadsheet"),
        (gzip.compress(b"PK\x03\x04", mtime=0), "is a ZIP archive"),
    ],
)
def test_what_is_no_text_in_utf8_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    """Before a row is read, with the way out."""
    path = stored(tmp_path, content)
    with pytest.raises(SourceError, match=message) as refused:
        open_bytes(path)
    assert str(refused.value).startswith(path)


@pytest.mark.parametrize(
    ("error", "compression", "message"),
    [
        (FileNotFoundError(2, "No"), "", "there is no file f"),
        (IsADirectoryError(21, "Is"), "", "f is a folder: name its files, or a glob such as 'f/*.csv'"),
        (PermissionError(13, "No"), "", "you may not read f: ask its owner, or change its permissions"),
        (ImportError("no", name="boto3"), "", "f cannot be read without the package boto3: install it with pip"),
        (OSError(5, "Input/output error"), "gz", "f cannot be read: Input/output error"),
        (EOFError("short"), ".gz", "f cannot be read on: it is damaged or cut off (EOFError: short). The rows before"),
        (ValueError("odd"), "", "f cannot be read: ValueError: odd"),
    ],
)
def test_what_goes_wrong_is_told_with_what_to_do(error: Exception, compression: str, message: str) -> None:
    """Each in one sentence."""
    assert str(unreadable("f", error, compression)).startswith(message)


@pytest.mark.parametrize(
    ("name", "message"),
    [("nowhere.csv", "there is no file"), ("", "is a folder"), ("a\0b", "cannot be read: ValueError")],
)
def test_a_file_that_cannot_be_opened(tmp_path: Path, name: str, message: str) -> None:
    """It is a SourceError, whatever the system says."""
    with pytest.raises(SourceError, match=message):
        open_bytes(f"{tmp_path}/{name}")


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz"])
def test_what_the_standard_library_decompresses_needs_nothing_else(tmp_path: Path, kind: str) -> None:
    """No package for object stores is loaded for it, which takes time and 12 MB."""
    path = tmp_path / f"devices.csv.{kind}"
    path.write_bytes(PACKERS[kind](TEXT))
    code = """if True:
        import sys
        from moe_bulk.sources.opening import open_bytes
        data = open_bytes(sys.argv[1])
        assert data.read()
        sys.exit(str({"smart_open", "boto3"} & set(sys.modules) or ""))
    """
    ended = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert "" == ended.stderr.strip()


def test_a_url_is_opened_by_smart_open(tmp_path: Path) -> None:
    """Any scheme that it knows; one that it does not know is said."""
    data = open_bytes("file://" + stored(tmp_path, gzip.compress(TEXT)))
    assert TEXT == rest(data)
    data.close()
    with pytest.raises(SourceError, match="gopher://x/y cannot be read"):
        open_bytes("gopher://x/y")


def test_closing_ends_reading(tmp_path: Path) -> None:
    """A second time changes nothing, and what is read behind it is an error, not an end."""
    data = open_bytes(stored(tmp_path, TEXT), block=1000)
    data.close()
    data.close()

    assert data.read()  # what was read already
    with pytest.raises(SourceError, match="was closed before its end"):
        data.read()


class Slow:
    """A file in which somebody closes the source while another one reads from it."""

    def __init__(self) -> None:
        self.closed = 0
        self.during: Callable[[], None] = lambda: None

    def read(self, size: int) -> bytes:
        """Give something; then do what is to happen meanwhile."""
        self.during()
        return b"some\n"

    def close(self) -> None:
        """Count."""
        self.closed += 1


def test_closing_while_another_thread_reads_waits_for_it() -> None:
    """The file stays open under the reader, who closes it himself when he is through."""
    file, seen = Slow(), list[int]()
    data = Bytes("f", file)
    data.read()

    def close() -> None:
        closer = threading.Thread(target=data.close)
        closer.start()
        closer.join()
        seen.append(file.closed)

    file.during = close
    assert b"some\n" == data.read()
    assert ([0], 1) == (seen, file.closed)


def test_a_file_that_fails_to_close_is_no_trouble() -> None:
    """It was read, or given up: nothing can be lost."""

    class Stubborn(Slow):
        def close(self) -> None:
            raise OSError

    Bytes("f", Stubborn()).close()


# -- pipes -------------------------------------------------------------------------------------------------------------


def test_what_is_fed_is_given_at_once_and_pauses_are_told(pipe: tuple[io.FileIO, io.FileIO]) -> None:
    """None where nothing came for a while; the pipe stays open, it is not ours."""
    reader, writer = pipe
    writer.write(b"first,line\n")
    data = open_bytes("-", raw=reader)

    assert "stdin" == data.name
    assert b"first,line\n" == until_pause(data)
    writer.write(b"se")
    assert b"se" == data.read()
    assert None is data.read()
    assert (13, None) == (data.consumed, data.total)
    writer.close()
    assert b"" == data.read()
    data.close()
    assert not reader.closed


def test_closing_stops_a_reader_of_a_pipe(pipe: tuple[io.FileIO, io.FileIO]) -> None:
    """He learns it at the next pause."""
    reader, writer = pipe
    writer.write(b"some\n")
    data = open_bytes("-", raw=reader)
    until_pause(data)
    data.close()

    with pytest.raises(SourceError, match="stdin was closed before its end"):
        data.read()
    assert not reader.closed


@pytest.mark.parametrize("kind", PACKERS)
@pytest.mark.parametrize("block", [1000, 256 * 1024])
def test_a_compressed_pipe_is_decompressed(pipe: tuple[io.FileIO, io.FileIO], kind: str, block: int) -> None:
    """As a file is, although it cannot be sought in."""
    reader, writer = pipe
    packed = PACKERS[kind](TEXT)

    def feed() -> None:
        with writer:
            writer.write(packed[:3])
            for at in range(3, len(packed), 4000):
                writer.write(packed[at : at + 4000])

    feeder = threading.Thread(target=feed)
    feeder.start()
    data = open_bytes("-", raw=reader, block=block)

    assert TEXT == rest(data)
    feeder.join()
    data.close()


def test_a_pause_in_a_compressed_pipe_is_told_too(pipe: tuple[io.FileIO, io.FileIO]) -> None:
    """What came before it is given first, though it takes several blocks."""
    reader, writer = pipe
    packed = zstd.compress(TEXT)
    writer.write(packed)
    data = open_bytes("-", raw=reader, block=1000)
    found = b""
    while block := data.read():
        found += block

    assert (None, TEXT) == (block, found)
    writer.close()
    assert b"" == data.read()
    data.close()


def test_closing_stops_a_decompressor_that_waits(pipe: tuple[io.FileIO, io.FileIO]) -> None:
    """It got too little to give anything, and more may never come."""
    reader, writer = pipe
    packed = gzip.compress(TEXT)
    writer.write(packed[:2000])
    data = open_bytes("-", raw=reader)
    until_pause(data)
    writer.write(packed[2000:2001])
    rest_of_it = threading.Thread(target=data.close)
    rest_of_it.start()

    assert "stdin was closed before its end" == until_error(data)[1]
    rest_of_it.join()


def test_a_named_pipe_is_read_like_standard_input(tmp_path: Path) -> None:
    """`mkfifo`, and `<(zcat …)` of the shell; this one is ours to close."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(b"a,b\n1,2\n",))
    writer.start()
    data = open_bytes(str(path))
    assert b"a,b\n1,2\n" == rest(data)
    assert None is data.total
    writer.join()
    data.close()


def test_a_stream_without_a_descriptor_is_read_too() -> None:
    """Somebody's object in place of standard input."""
    stream = io.BytesIO(TEXT)
    data = open_bytes("-", raw=stream)

    assert TEXT == rest(data)
    data.close()
    assert not stream.closed


def test_a_pipe_that_does_not_block_is_waited_for(pipe: tuple[io.FileIO, io.FileIO]) -> None:
    """Whoever started us may have made it so; the first bytes are waited for in any case."""
    reader, writer = pipe
    os.set_blocking(reader.fileno(), False)
    data = list[Bytes]()
    opener = threading.Thread(target=lambda: data.append(open_bytes("-", raw=reader)))
    opener.start()
    writer.write(b"late\n")
    opener.join()

    assert b"late\n" == until_pause(data[0])
    data[0].close()


class Hesitant(Slow):
    """A stream without a descriptor that has nothing at first."""

    def __init__(self) -> None:
        super().__init__()
        self.left: list[bytes | None] = [None, None, b"some\n", None, b"more\n", b""]

    def read(self, size: int) -> bytes:
        """Give the next."""
        return cast("bytes", self.left.pop(0))


def test_a_stream_that_has_nothing_yet_is_asked_again() -> None:
    """It has no descriptor that could be waited for."""
    assert b"some\nmore\n" == rest(Bytes("f", Hesitant()))


def test_the_process_s_standard_input(monkeypatch: pytest.MonkeyPatch, pipe: tuple[io.FileIO, io.FileIO]) -> None:
    """It is read without Python's buffer, and stays open; an object in its place will do, none is an error."""
    reader, writer = pipe
    writer.write(b"x,y\n")
    with os.fdopen(os.dup(reader.fileno())) as text:
        monkeypatch.setattr(sys, "stdin", text)
        data = open_bytes("-")
        assert b"x,y\n" == data.read()
        data.close()
        assert not text.closed

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"y\n")))
    assert b"y\n" == open_bytes("-").read()

    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(SourceError, match="standard input is closed"):
        open_bytes("-")
    monkeypatch.setattr(sys, "stdin", io.StringIO("text"))
    with pytest.raises(SourceError, match=r"^stdin cannot be read: AttributeError"):
        open_bytes("-")
