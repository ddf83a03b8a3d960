"""Standard streams as they are found: closed, read by nobody, on a disk that is full."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk.streams import Unbreakable, let_go_of


class Broken(io.StringIO):
    """A stream whose reader went away."""

    def __init__(self, error: type[Exception]) -> None:
        super().__init__()
        self.tried = 0
        self._error = error

    def write(self, _: str) -> int:
        """Fail."""
        self.tried += 1
        raise self._error

    def flush(self) -> None:
        """Fail."""
        raise self._error

    def isatty(self) -> bool:
        """Fail."""
        raise self._error


@pytest.mark.parametrize("error", [BrokenPipeError, ValueError])
def test_a_broken_stream_is_tried_once(error: type[Exception]) -> None:
    """After the first failure nothing more is written, and nothing is raised."""
    broken = Broken(error)
    stream = Unbreakable(broken)
    assert not stream.isatty()
    assert 2 == stream.write("ab")
    stream.say("more")
    assert 1 == broken.tried
    assert not stream.isatty()
    with pytest.raises(OSError, match="gone"):
        stream.fileno()


def test_a_stream_that_cannot_be_flushed() -> None:
    """A flush that fails silences the stream, too."""

    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError

    kept = Full()
    stream = Unbreakable(kept)
    stream.say("one")
    stream.say("two")
    assert "one\n" == kept.getvalue()


def test_no_stream_at_all() -> None:
    """A closed stream is None in Python."""
    stream = Unbreakable(None)
    stream.say("x")
    assert ("utf-8", False) == (stream.encoding, stream.isatty())


def test_a_stream_that_is_read() -> None:
    """What is said arrives, and the stream tells what it is."""
    read, write = os.pipe()
    with os.fdopen(read, encoding="utf-8") as reader, os.fdopen(write, "w", encoding="utf-8") as writer:
        stream = Unbreakable(writer)
        stream.say("hello")
        assert ("hello\n", write, "utf-8", False) == (
            reader.readline(),
            stream.fileno(),
            stream.encoding,
            stream.isatty(),
        )


def in_encoding(encoding: str) -> tuple[Unbreakable, io.BytesIO]:
    """A stream of that encoding, and the bytes that arrive."""
    arrived = io.BytesIO()
    return Unbreakable(io.TextIOWrapper(arrived, encoding=encoding)), arrived


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("ascii", b"caf\\xe9 \\u2713 ... -> \\udc80\nmore\n"),
        ("latin-1", b"caf\xe9 \\u2713 ... -> \\udc80\nmore\n"),
        ("utf-8", "café ✓ ... -> \\udc80\nmore\n".encode()),
    ],
)
def test_what_cannot_be_shown_is_spelt_out(encoding: str, shown: bytes) -> None:
    """A character that the locale does not know costs no line, and none of those that follow."""
    stream, arrived = in_encoding(encoding)
    stream.say("café ✓ … → \udc80")
    stream.say("more")
    assert shown == arrived.getvalue()


@given(text=st.text(), encoding=st.sampled_from(["ascii", "latin-1", "utf-8", "cp1252", "iso-2022-jp"]))
def test_json_is_always_json(text: str, encoding: str) -> None:
    """Whatever the locale: who reads UTF-8, as JSON is, reads what was told."""
    stream, arrived = in_encoding(encoding)
    stream.say_json(json.dumps(text, ensure_ascii=False).encode())
    assert text == json.loads(arrived.getvalue().decode())


def test_a_broken_stream_is_let_go() -> None:
    """What is still in its buffer goes nowhere, and the interpreter finds nothing wrong when it ends."""
    read, write = os.pipe()
    writer = os.fdopen(write, "w", encoding="utf-8")
    writer.write("buffered")
    os.close(read)
    let_go_of(writer)
    writer.close()
    let_go_of(None)
    let_go_of(writer)


def test_closed_standard_streams_are_filled() -> None:
    """A process started without standard streams opens no file in their place."""
    code = (
        "import os; from moe_bulk.streams import open_standard_streams; open_standard_streams(); "
        "fd = os.open('/dev/null', 0); os._exit(0 if fd == 3 else 1)"
    )
    ended = subprocess.run(["bash", "-c", '"$0" -c "$1" <&- >&- 2>&-', sys.executable, code], check=False)
    assert 0 == ended.returncode
