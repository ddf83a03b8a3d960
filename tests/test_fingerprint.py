"""Inputs known again: files by what they look like and hold, streams and rows by their beginnings."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from hashlib import blake2b
from typing import TYPE_CHECKING

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from moe_bulk import fingerprint
from moe_bulk.fingerprint import FIRST_MARK, Comparison, Fingerprint, Marks, digest_of, of_file, same_file

if TYPE_CHECKING:
    from pathlib import Path

CONTENT = b"a,b\n1,2\n"
BYTES = st.one_of(st.binary(max_size=40), st.integers(0, 3 * FIRST_MARK).map(bytes))
ROWS = st.lists(st.binary(max_size=4), max_size=20)
COUNTS = st.none() | st.integers(0, 2**63)


def digest(data: bytes) -> str:
    """The digest that a mark holds."""
    return blake2b(data, digest_size=16).hexdigest()


def fed(data: bytes, cuts: list[int]) -> Marks:
    """The marks of a stream that comes in pieces of these sizes, and then the rest."""
    marks = Marks()
    for piece in pieces(data, cuts):
        marks.update(piece)
    return marks


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut it."""
    found = []
    for cut in cuts:
        found.append(data[:cut])
        data = data[cut:]
    return [*found, data]


def compared(then: Marks, data: bytes, *, over: bool = True) -> Comparison:
    """What is known when this was fed, up to its end if it is `over`."""
    marks, ended = then.state()
    comparison = Comparison(marks, ended=ended)
    for piece in pieces(data, [7, FIRST_MARK]):
        comparison.update(piece)
    if over:
        comparison.end()
    return comparison


def file(tmp_path: Path, content: bytes = CONTENT) -> tuple[str, Fingerprint]:
    """Write a file; give its path, and its fingerprint with the digest."""
    path = tmp_path / "devices.csv"
    path.write_bytes(content)
    seen = of_file(str(path))
    assert seen is not None
    return str(path), replace(seen, digest=digest_of(str(path)))


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [CONTENT, b""])
def test_a_file_that_nobody_touched_is_the_same_and_is_not_read(tmp_path: Path, content: bytes) -> None:
    """Size and modification time are enough; an empty one has a size too."""
    path, seen = file(tmp_path, content)
    recorded = Fingerprint.from_json(orjson.loads(orjson.dumps(replace(seen, digest=None).as_json())))

    assert replace(seen, digest=None) == recorded
    assert same_file(recorded, path)


def test_a_file_that_was_touched_is_the_same_if_it_holds_the_same(tmp_path: Path) -> None:
    """Then the digest decides, where there is one."""
    path, seen = file(tmp_path)
    os.utime(path, (1, 1))

    assert same_file(seen, path)
    assert not same_file(replace(seen, digest=None), path)
    assert not same_file(replace(seen, digest=digest(b"other")), path)


def test_a_file_of_another_size_is_another(tmp_path: Path) -> None:
    """Whatever its time says."""
    path, seen = file(tmp_path)
    with open(path, "ab") as grown:  # noqa: PTH123  a path as text
        grown.write(b"3,4\n")
    os.utime(path, ns=(0, seen.mtime_ns or 0))

    assert not same_file(seen, path)


def test_what_is_gone_is_not_the_same(tmp_path: Path) -> None:
    """No exception: whoever opens it will say so."""
    path, seen = file(tmp_path)
    os.unlink(path)  # noqa: PTH108  a path as text

    assert not same_file(seen, path)
    assert None is digest_of(path)


def test_a_digest_is_of_the_whole_file_and_can_be_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two blocks."""
    monkeypatch.setattr(fingerprint, "_BLOCK", 3)
    path, seen = file(tmp_path)
    answers = iter([False, True])

    assert digest(CONTENT) == seen.digest
    assert None is digest_of(path, lambda: next(answers))
    os.utime(path, (1, 1))
    assert not same_file(seen, path, lambda: True)


def test_only_plain_files_are_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not folders, pipes, URLs or standard input; nor what is not there, or cannot be."""
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    (tmp_path / "-").write_bytes(CONTENT)
    (tmp_path / "https:").mkdir()
    (tmp_path / "https:" / "x").write_bytes(CONTENT)

    assert [None] * 6 == [of_file(name) for name in (".", "pipe", "-", "https://x", "nowhere", "a\0b")]
    assert "./-" == getattr(of_file("./-"), "name", None)


# -- streams and rows --------------------------------------------------------------------------------------------------


def test_marks_stand_at_doubled_places_and_at_the_present_one() -> None:
    """Each is a digest of all that stands before it."""
    data = bytes(5 * FIRST_MARK)
    marks = fed(data, [10, FIRST_MARK, 3])

    places = [FIRST_MARK, 2 * FIRST_MARK, 4 * FIRST_MARK, 5 * FIRST_MARK]
    assert (tuple((at, digest(data[:at])) for at in places), False) == marks.state()
    marks.end()
    assert marks.state()[1]


def test_a_mark_at_the_present_place_stands_once() -> None:
    """And nothing at all has one too."""
    assert [FIRST_MARK] == [at for at, _ in fed(bytes(FIRST_MARK), []).state()[0]]
    assert (((0, digest(b"")),), False) == Marks().state()


@given(BYTES, st.lists(st.integers(0, FIRST_MARK), max_size=4))
def test_how_a_stream_is_cut_changes_nothing(data: bytes, cuts: list[int]) -> None:
    """It is fed in other pieces next time."""
    assert fed(data, []).state() == fed(data, cuts).state()


@given(BYTES, BYTES)
@example(b"", b"x")
def test_a_stream_that_was_left_in_the_middle_is_known_by_its_beginning(before: bytes, behind: bytes) -> None:
    """What comes behind it may be anything, and it is known at once, without the end."""
    then = fed(before, [])
    comparison = compared(then, before + behind, over=False)

    assert (False, True) == (comparison.differs, comparison.settled)


@given(BYTES, BYTES)
@example(b"", b"")
def test_a_stream_that_was_read_to_its_end_must_end_there(before: bytes, behind: bytes) -> None:
    """More is different; and before the end came nothing is sure."""
    then = fed(before, [])
    then.end()

    assert not compared(then, before, over=False).settled
    comparison = compared(then, before + behind)
    assert (bool(behind), not behind) == (comparison.differs, comparison.settled)


@given(BYTES.filter(bool), st.data())
def test_a_stream_that_is_shorter_or_has_another_byte_differs(data: bytes, choose: st.DataObject) -> None:
    """Wherever that is, for ended ones and for others."""
    then = fed(data, [])
    at = choose.draw(st.integers(0, len(data) - 1))
    if choose.draw(st.booleans()):
        then.end()
    other = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

    for now in (data[:at], other):
        comparison = compared(then, now)
        assert (True, False) == (comparison.differs, comparison.settled)


def test_a_difference_is_told_at_the_next_mark() -> None:
    """Not at the end of gigabytes."""
    then = fed(bytes(40 * FIRST_MARK), [])
    comparison = Comparison(then.state()[0], ended=False)
    comparison.update(b"x" + bytes(FIRST_MARK))

    assert comparison.differs


@given(ROWS, ROWS, st.booleans())
def test_rows_in_memory_are_known_again_too(before: list[bytes], behind: list[bytes], ended: bool) -> None:  # noqa: FBT001  hypothesis gives it
    """One by one; their marks begin at the first row."""
    then = Marks()
    for row in before:
        then.row(row)
    if ended:
        then.end()
    marks = then.state()
    comparison = Comparison(marks[0], ended=marks[1])
    for row in before + behind:
        comparison.row(row)
    at_once = comparison.settled
    comparison.end()

    assert [at for at in (1, 2, 4, 8, 16) if at < len(before)] + [len(before)] == [at for at, _ in marks[0]]
    assert at_once is not ended
    assert (ended and bool(behind), not (ended and behind)) == (comparison.differs, comparison.settled)


def test_where_a_row_ends_matters() -> None:
    """The same bytes in other rows are other rows."""
    then = Marks()
    for row in (b"ab", b"c"):
        then.row(row)
    comparison = Comparison(then.state()[0], ended=False)
    for row in (b"a", b"bc"):
        comparison.row(row)
    comparison.row(b"more")

    assert (True, False) == (comparison.differs, comparison.settled)


def test_marks_can_be_asked_for_while_they_are_made() -> None:
    """Each state is one that was there: a thread reads, another writes the checkpoint."""
    marks = Marks()

    def feed() -> None:
        for _ in range(300):
            marks.update(bytes(1000))

    feeder = threading.Thread(target=feed)
    feeder.start()
    states = []
    while feeder.is_alive():
        states.append(marks.state()[0])
    feeder.join()

    assert all((at, digest(bytes(at))) == (at, known) for state in states[:20] for at, known in state)


# -- in the checkpoint -------------------------------------------------------------------------------------------------


@given(
    st.builds(
        Fingerprint,
        st.text(),
        st.sampled_from(["file", "stream", "rows"]),
        COUNTS,
        st.none() | st.integers(-(2**63), 2**63),
        st.none() | st.text(),
        st.dictionaries(st.integers(0, 2**63), st.text()).map(lambda marks: tuple(sorted(marks.items()))),
        st.booleans(),
    )
)
def test_a_fingerprint_is_read_back_from_its_json(written: Fingerprint) -> None:
    """All of it, zeros too."""
    assert written == Fingerprint.from_json(orjson.loads(orjson.dumps(written.as_json())))


@pytest.mark.parametrize(
    "changes",
    [
        {"name": None},
        {"kind": "url"},
        {"kind": ["file"]},
        {"size": -1},
        {"size": 1.0},
        {"size": True},
        {"mtime_ns": "1"},
        {"digest": 1},
        {"ended": 1},
        {"ended": None},
        {"marks": {}},
        {"marks": "ab"},
        {"marks": [[1]]},
        {"marks": [[-1, "x"]]},
        {"marks": [[True, "x"]]},
        {"marks": [[1, "x"], [1, "x"]]},
        {"marks": [[2, "x"], [1, "x"]]},
        {"marks": [[1, None]]},
        {"other": 1},
    ],
)
def test_what_is_no_fingerprint_is_refused(changes: dict[str, object]) -> None:
    """With a ValueError that says what is wrong."""
    with pytest.raises(ValueError, match=r"^(a source|a mark|the marks|the digest|size|mtime_ns) "):
        Fingerprint.from_json({"name": "f", "kind": "file", **changes})


def test_no_object_is_no_fingerprint() -> None:
    """A list, a text."""
    nothing: list[object] = [[], "f", None]
    for said in nothing:
        with pytest.raises(ValueError, match="a source is told by name, kind"):
            Fingerprint.from_json(said)
