"""A few lines at the foot of a terminal that are painted again and again, and text that scrolls by above them.

Everything is written at once and over what was there, so nothing flickers; nothing stays hidden or switched, so a
terminal whose program is killed is as usable as before, the last picture below the cursor. The cursor rests at the
beginning of the lines: there it stays when a terminal becomes narrower and breaks them. From below nobody could know
how far up they begin: tmux breaks lines at once, but tells the new size of a second change within 250 ms only when
those are over.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_UP, _DELETE_LINES, _REST_OF_LINE, _REST_OF_SCREEN = "\x1b[{}A", "\x1b[{}M", "\x1b[K", "\x1b[J"
_CUT_LONG_LINES, _BREAK_LONG_LINES = "\x1b[?7l", "\x1b[?7h"

USUAL = os.terminal_size((80, 24))


class Stream(Protocol):
    """Where it is written."""

    @property
    def ready(self) -> bool:
        """False while writing would wait for whoever reads."""

    def write(self, text: str) -> int:
        """Write."""

    def flush(self) -> None:
        """Pass on what was written."""

    def fileno(self) -> int:
        """The descriptor, by which a terminal tells its size."""


def size_of(stream: Stream) -> os.terminal_size:
    """Columns and lines of the terminal at this moment; the usual ones where it does not say."""
    try:
        found = os.get_terminal_size(stream.fileno())
    except OSError:
        return USUAL
    return os.terminal_size((found.columns or USUAL.columns, found.lines or USUAL.lines))


class Screen:
    """Paints lines that are replaced by the next ones, and lets text pass above them.

    `size` tells the terminal's size when it is asked. While the terminal takes nothing (Ctrl-S, a connection that
    hangs) nothing is painted, and texts wait: whoever paints never does.
    """

    def __init__(self, stream: Stream, size: Callable[[], os.terminal_size] | None = None) -> None:
        self._stream = stream
        self._size = size or (lambda: size_of(stream))
        self._lines: list[str] = []
        self._waiting: list[str] = []
        self._painted_at: os.terminal_size | None = None

    @property
    def size(self) -> os.terminal_size:
        """Columns and lines at this moment."""
        return self._size()

    def paint(self, lines: Sequence[str]) -> None:
        """Show these lines in place of those that were painted before; they must be shorter than the terminal is wide.

        What does not fit the terminal's height is left out.
        """
        if not self._stream.ready:
            return
        shown = list(lines[: max(1, self.size.lines - 1)])
        if shown == self._lines and not self._waiting and self.size == self._painted_at:
            return
        self._write(self._texts(), shown)

    def say(self, text: str) -> None:
        """Let a line of text pass above what is painted."""
        self._waiting.append(text)
        if self._stream.ready:
            self._write(self._texts(), self._lines)

    def clear(self) -> None:
        """Take away what is painted; what still waits to be said is said, however long that takes."""
        if self._lines or self._waiting:
            self._write(self._texts(), [])

    def _texts(self) -> list[str]:
        waiting, self._waiting = self._waiting, []
        return waiting

    def _write(self, texts: Sequence[str], lines: list[str]) -> None:
        if not self._lines and not lines:  # no escape codes where there is nothing to paint: it may be no terminal
            self._stream.write("".join(f"{each}\n" for each in texts))
            self._stream.flush()
            return
        size = self.size
        parts = ["\r"]
        if texts or not lines or size != self._painted_at:  # rows that were broken stay one line to tmux until deleted
            parts.append(_DELETE_LINES.format(size.lines))
        parts += [f"{each}\n" for each in texts]
        if lines:  # each takes one row, however narrow the terminal is by now
            painted = f"{_REST_OF_LINE}\n".join(lines)
            back = _UP.format(len(lines) - 1) if len(lines) > 1 else ""
            parts += [_CUT_LONG_LINES, painted, _REST_OF_SCREEN, _BREAK_LONG_LINES, back, "\r"]
        self._stream.write("".join(parts))
        self._stream.flush()
        self._lines, self._painted_at = list(lines), size
