"""Lines at the foot of a terminal: what a terminal shows of them, whatever happens to it."""

from __future__ import annotations

import io
import os
import re
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk.screen import USUAL, Screen, size_of

WORDS = re.compile(r"\x1b\[(\??\d*)([A-Za-z])|(.)", re.DOTALL)


@dataclass
class Terminal:
    """A terminal as far as it is used: it breaks long lines, scrolls, and knows which rows are one line, as tmux does.

    `told` is how many columns it says that it has; tmux says so a while after it has changed.
    """

    columns: int = 40
    lines: int = 10
    ready: bool = True
    rows: list[str] = field(default_factory=lambda: [""])
    goes_on: list[bool] = field(default_factory=lambda: [False])
    y: int = 0
    x: int = 0
    writes: int = 0
    styled: bool = False
    breaks: bool = True
    told: int = 40

    def write(self, text: str) -> int:
        """Obey what is written."""
        assert self.ready
        self.writes += 1
        for number, order, character in WORDS.findall(text):
            if order:
                self._obey(order, number)
            elif character == "\n":
                self.y, self.x = self.y + 1, 0
            elif character == "\r":
                self.x = 0
            else:
                self._put(character)
            self._fill()
        return len(text)

    def _fill(self) -> None:
        missing = self.y + 1 - len(self.rows)
        self.rows += [""] * missing
        self.goes_on += [False] * missing

    def _obey(self, order: str, number: str) -> None:
        match order:
            case "A":
                top = max(0, len(self.rows) - self.lines)  # what has scrolled away is out of reach
                self.y = max(top, self.y - int(number))
            case "K":
                self.rows[self.y] = self.rows[self.y][: self.x]
            case "J":
                self.rows[self.y] = self.rows[self.y][: self.x]
                self.rows[self.y + 1 :] = [""] * len(self.rows[self.y + 1 :])
            case "M":
                del self.rows[self.y : self.y + int(number)]
                del self.goes_on[self.y : self.y + int(number)]
            case "m":
                self.styled = True
            case "h" | "l":
                assert "?7" == number
                self.breaks = order == "h"
            case _:
                raise AssertionError(order)

    def _put(self, character: str) -> None:
        if self.x == self.columns and not self.breaks:
            self.x -= 1
        if self.x == self.columns:
            self.goes_on[self.y] = True
            self.y, self.x = self.y + 1, 0
            self._fill()
        row = self.rows[self.y].ljust(self.x)
        self.rows[self.y] = row[: self.x] + character + row[self.x + 1 :]
        self.x += 1

    def become(self, columns: int, *, told: bool = True) -> None:
        """Be resized: rows that are one line are broken anew; the cursor stays where it was in its line."""
        begins = self.y
        while begins and self.goes_on[begins - 1]:
            begins -= 1
        ahead = sum(len(row) for row in self.rows[begins : self.y]) + self.x
        joined: list[tuple[int, str]] = []
        for number, row in enumerate(self.rows):
            if number and self.goes_on[number - 1]:
                joined[-1] = (joined[-1][0], joined[-1][1] + row)
            else:
                joined.append((number, row))
        self.rows, self.goes_on, self.columns = [], [], columns
        for number, line in joined:
            if number == begins:
                self.y, self.x = len(self.rows) + ahead // columns, ahead % columns
            pieces = [line[at : at + columns] for at in range(0, max(1, len(line)), columns)]
            self.rows += pieces
            self.goes_on += [True] * (len(pieces) - 1) + [False]
        self._fill()
        if told:
            self.told = columns

    def flush(self) -> None:
        """Nothing is held back."""

    def fileno(self) -> int:
        """There is none."""
        raise OSError

    def screen(self) -> Screen:
        """What paints on it."""
        return Screen(self, lambda: os.terminal_size((self.told, self.lines)))

    @property
    def shown(self) -> list[str]:
        """What stands there, without what is empty at the end."""
        return "\n".join(row.rstrip() for row in self.rows).rstrip("\n").split("\n")


def test_lines_are_replaced_and_texts_pass_above() -> None:
    """What is painted stands below what is said, and is taken away in the end."""
    terminal = Terminal()
    screen = terminal.screen()
    screen.say("first")
    screen.paint(["one", "two"])
    screen.paint(["three"])
    screen.say("second")
    assert ["first", "second", "three"] == terminal.shown
    screen.clear()
    screen.say("third")
    assert ["first", "second", "third"] == terminal.shown


def test_nothing_is_written_where_nothing_changes() -> None:
    """A screen that stays as it is is left alone, and each picture is one write: nothing flickers."""
    terminal = Terminal()
    screen = terminal.screen()
    for _ in range(3):
        screen.paint(["\x1b[36mone\x1b[0m", "two"])
    assert (1, True) == (terminal.writes, terminal.styled)
    screen.clear()
    screen.clear()
    assert 2 == terminal.writes


def test_no_escape_codes_where_nothing_is_painted() -> None:
    """Texts alone are plain: they may go into a file."""
    stream = io.StringIO()

    class Plain(Terminal):
        def write(self, text: str) -> int:
            return stream.write(text)

    screen = Plain().screen()
    screen.say("one")
    screen.say("two")
    screen.clear()
    assert "one\ntwo\n" == stream.getvalue()


def test_a_terminal_that_takes_nothing_is_not_waited_for() -> None:
    """What is said meanwhile is said when it takes something again, or at the end."""
    terminal = Terminal()
    screen = terminal.screen()
    screen.paint(["one"])
    terminal.ready = False
    screen.say("said meanwhile")
    screen.paint(["two"])
    assert ["one"] == terminal.shown
    terminal.ready = True
    screen.paint(["one"])
    assert ["said meanwhile", "one"] == terminal.shown


@pytest.mark.parametrize("columns", [5, 8, 13, 40, 80])
def test_a_terminal_that_is_resized(columns: int) -> None:
    """Lines that no longer fit are broken by the terminal, and still all of them are replaced."""
    terminal = Terminal(columns=40, lines=20)
    screen = terminal.screen()
    screen.say("above")
    screen.paint(["x" * 39, "y" * 20])
    terminal.become(columns)
    screen.paint(["new"])
    assert ["above", "new"] == terminal.shown


@pytest.mark.parametrize("columns", [5, 8, 13, 80])
def test_a_terminal_that_tells_late_how_wide_it_is(columns: int) -> None:
    """Tmux breaks lines at once and tells a while later: what is painted in between leaves nothing behind."""
    terminal = Terminal(columns=40, lines=20)
    screen = terminal.screen()
    screen.say("above")
    screen.paint(["x" * 39, "y" * 20])
    terminal.become(columns, told=False)
    screen.paint(["z" * 39, "y" * 20])
    terminal.become(columns)
    screen.paint(["new"])
    assert "abovenew" == "".join(terminal.shown)


def test_what_stays_the_same_is_painted_anew_in_another_width() -> None:
    """What the terminal has broken is mended even where there is nothing new to tell."""
    terminal = Terminal(columns=20, told=20)
    screen = terminal.screen()
    screen.paint(["x" * 19])
    terminal.become(10)
    terminal.become(20)
    terminal.become(10)
    screen.paint(["x" * 9])
    terminal.become(5)
    screen.paint(["x" * 4])
    terminal.become(20)
    screen.paint(["x" * 4])
    assert ["x" * 4] == terminal.shown


def test_a_low_terminal_shows_what_it_has_room_for() -> None:
    """No more lines are painted than can be replaced."""
    terminal = Terminal(lines=3)
    screen = terminal.screen()
    for number in range(5):
        screen.paint([f"{number}a", f"{number}b", f"{number}c"])
    assert ["4a", "4b"] == terminal.shown


SHORT = st.text("abc", max_size=18)


PAINTED = st.tuples(st.just("paint"), st.lists(SHORT, max_size=6))
SAID = st.tuples(st.just("say"), st.lists(SHORT, max_size=1))


@given(steps=st.lists(st.one_of(PAINTED, SAID), max_size=20))
def test_texts_and_the_last_picture_are_what_is_shown(steps: list[tuple[str, list[str]]]) -> None:
    """Always: everything that was said, in order, and below it the last picture; nothing else."""
    terminal = Terminal(columns=20, told=20, lines=8)
    screen = terminal.screen()
    said: list[str] = []
    picture: list[str] = []
    for what, lines in steps:
        if what == "paint":
            screen.paint(picture := lines)
        else:
            screen.say("".join(lines))
            said.append("".join(lines))
    assert "\n".join([*said, *picture]).rstrip("\n").split("\n") == terminal.shown


RESIZED = st.tuples(st.just("become"), st.integers(4, 40))
TOLD = st.tuples(st.just("tell"), st.none())


@given(steps=st.lists(st.one_of(PAINTED, SAID, RESIZED, TOLD), max_size=20))
def test_nothing_is_left_behind_whenever_it_is_resized(steps: list[tuple[str, Any]]) -> None:
    """Always: once the terminal has told its size, all that was said stands there, and the last picture; nothing else.

    As long as there are rows enough: a tmux that becomes narrower pushes the topmost out of everybody's reach.
    """
    terminal = Terminal(columns=20, told=20, lines=500)
    screen = terminal.screen()
    said: list[str] = []
    for what, given_ in steps:
        if what == "paint":
            screen.paint([each[: terminal.told - 1] for each in given_])
        elif what == "say":
            screen.say("".join(given_))
            said += given_
        else:
            terminal.become(given_ or terminal.columns, told=what == "tell")
    terminal.become(terminal.columns)
    screen.paint(["one", "two"])
    assert "".join([*said, "one", "two"]) == "".join(terminal.shown)


def test_a_stream_that_is_no_terminal_has_the_usual_size() -> None:
    """So has a terminal that says it has no columns."""
    read, write = os.openpty()
    with os.fdopen(read), os.fdopen(write, "w") as terminal:

        class Pty(Terminal):
            def fileno(self) -> int:
                return terminal.fileno()

        assert USUAL == size_of(Terminal()) == size_of(Pty())
