"""Standard streams as they are found: closed, read by nobody, on a full disk, of a locale that knows few characters.

None of that ends a program, or takes a word from those who read.
"""

from __future__ import annotations

import os
import select
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TextIO


_PLAINER = str.maketrans({"…": "...", "→": "->", "±": "+/-", "·": "-"})
"""For what we write ourselves, where it cannot be shown."""


class Unbreakable:
    """A text stream that stays silent once nobody reads it: a closed pipe, a full disk, a terminal that is gone.

    Characters that it cannot show are spelt out, as Python spells them.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, if anybody still reads."""
        try:
            if self._stream is not None:
                self._write(self._stream, text)
        except (OSError, ValueError):
            self._stream = None
        return len(text)

    def _write(self, stream: TextIO, text: str) -> None:
        try:
            stream.write(text)
        except UnicodeEncodeError:  # nothing of it was written
            plainer = text.translate(_PLAINER)
            stream.write(plainer.encode(self.encoding, "backslashreplace").decode(self.encoding))

    def flush(self) -> None:
        """Pass on what was written."""
        try:
            if self._stream is not None:
                self._stream.flush()
        except (OSError, ValueError):
            self._stream = None

    def isatty(self) -> bool:
        """True for a terminal that is there."""
        with suppress(OSError, ValueError):
            return self._stream is not None and self._stream.isatty()
        return False

    def fileno(self) -> int:
        """The stream's descriptor, by which a terminal tells its size."""
        if self._stream is None:
            raise OSError("the stream is gone")
        return self._stream.fileno()

    @property
    def ready(self) -> bool:
        """False while writing would wait: a full pipe, a terminal that was stopped with Ctrl-S, a dead connection."""
        try:
            return bool(select.select([], [self.fileno()], [], 0)[1])
        except (OSError, ValueError):  # no descriptor: nothing that waits
            return True

    @property
    def encoding(self) -> str:
        """What it can show."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def say(self, text: str) -> None:
        """Write a line at once."""
        self.write(text + "\n")
        self.flush()

    def say_json(self, document: bytes) -> None:
        """Write a JSON document at once, and a line's end: in UTF-8, or in ASCII where the stream has another encoding.

        JSON is UTF-8 whatever the locale; so is ASCII.
        """
        text = document.decode()
        if "utf" not in self.encoding.lower():
            text = "".join(each if each.isascii() else _spelt_out(each) for each in text)
        self.say(text)


def _spelt_out(character: str) -> str:
    """As JSON writes it in ASCII: by its UTF-16 units. Such characters stand within JSON's strings alone."""
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2))


def open_standard_streams() -> None:
    """Put the null device where a standard stream is closed: the next file opened would take its place."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)  # noqa: FBT003  its only argument
    os.close(descriptor)


def let_go_of(stream: TextIO | None) -> None:
    """Flush for the last time; where nobody reads, the interpreter's own flush at its exit must find nothing wrong."""
    try:
        if stream is not None:
            stream.flush()
    except (OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        with suppress(OSError, ValueError):
            os.dup2(null, stream.fileno() if stream is not None else null)
        os.close(null)
