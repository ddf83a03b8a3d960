"""Which dead letters a later row made obsolete: the pass at a run's end, and what it makes of damaged files."""

from __future__ import annotations

import errno
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk.deadletter import letter
from moe_bulk.device import ID_KEPT
from moe_bulk.errors import JournalError
from moe_bulk.outcome import Result, Status
from moe_bulk.record import NOTE, Number, Position, Row
from moe_bulk.superseding import STOPPED, Portions, supersede

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SOURCES = ("devices.csv", "m\udcffre.csv")


def going_on() -> bool:
    """Stop nothing."""
    return False


def settled(number: int, status: Status = Status.REJECTED, *keys: str, source: int = 0, **fields: object) -> Result:
    """Give the result of row `number`."""
    position = Position(SOURCES[source], number + 2, 40 * number)
    return Result(position, status, Row(position, {"n": number, **fields}), keys=tuple((key,) for key in keys))


@dataclass
class Folder:
    """A run folder with results in the order in which they were settled."""

    path: Path
    settled: Sequence[Result]
    portions: Portions = field(default_factory=Portions)

    def __post_init__(self) -> None:
        self.results.write_bytes(b"".join(_line(result) for result in self.settled))
        self.letters.write_bytes(b"".join(letter(result) for result in self.settled if result.failed))

    @property
    def results(self) -> Path:
        """The result lines."""
        return self.path / "results.ndjson"

    @property
    def letters(self) -> Path:
        """The dead letters."""
        return self.path / "dead-letter.ndjson"

    @property
    def part(self) -> Path:
        """The dead letters, written anew."""
        return self.path / "dead-letter.ndjson.part"

    def supersede(self) -> int | None:
        """Do the pass."""
        return supersede(self.results, self.letters, SOURCES, going_on, portions=self.portions)

    def superseded(self) -> list[tuple[int, object]]:
        """Do the pass and put its letters in place; tell each letter's line and what superseded it."""
        if (length := self.supersede()) is not None:
            assert length == self.part.stat().st_size
            self.part.rename(self.letters)
        assert not self.part.exists()
        notes = (orjson.loads(line)[NOTE] for line in self.letters.read_bytes().splitlines())
        return [(note["line"], note["superseded_by"]) for note in notes]


def _line(result: Result) -> bytes:
    source = result.position.source.encode("utf-8", "backslashreplace").decode()
    return Result(
        result.position._replace(source=source),
        result.status,
        result.row,
        customer_id=result.customer_id,
        device_id=result.device_id,
        reason=result.reason,
        keys=result.keys,
    ).line()


def test_a_row_that_moengage_has_already_supersedes(tmp_path: Path) -> None:
    """It need not be sent for being the newer one: a dead letter sent later would undo it."""
    folder = Folder(tmp_path, [settled(0, Status.INVALID, "a"), settled(1, Status.UNCHANGED, "a")])
    assert [(2, 3)] == folder.superseded()


def test_the_first_later_row_that_was_accepted_supersedes(tmp_path: Path) -> None:
    """Any key in common counts; rows before it, failed ones and those of other keys do not."""
    rows = [
        settled(0, Status.ACCEPTED, "a"),
        settled(1, Status.REJECTED, "a", "b"),
        settled(2, Status.EXHAUSTED, "a"),
        settled(3, Status.ACCEPTED, "c"),
        settled(4, Status.INVALID),
        settled(5, Status.ACCEPTED, "b"),
        settled(6, Status.ACCEPTED, "b", "a"),
        settled(7, Status.INVALID, "a"),
    ]

    assert [(3, 7), (4, 8), (6, None), (9, None)] == Folder(tmp_path, rows).superseded()


def test_letters_come_in_the_order_of_the_input(tmp_path: Path) -> None:
    """Whatever was settled first, source by source, with no byte of a letter changed that need not be."""
    rows = [settled(0, source=1), settled(9), settled(3, Status.INVALID), settled(1, source=1)]
    folder = Folder(tmp_path, rows)
    whole = b"".join(letter(rows[number]) for number in (2, 1, 0, 3))

    assert len(whole) == folder.supersede()
    assert whole == folder.part.read_bytes()
    assert 0o600 == folder.part.stat().st_mode & 0o777


def test_rows_with_several_devices_are_told_apart(tmp_path: Path) -> None:
    """The items of one row stand in their order."""
    rows = [settled(0, Status.REJECTED, "a"), settled(0, Status.ACCEPTED, "a")]
    rows[1] = Result(rows[1].position._replace(item=1), rows[1].status, rows[1].row, keys=rows[1].keys)

    assert [(2, 2)] == Folder(tmp_path, rows).superseded()
    assert [(2, None)] == Folder(tmp_path, [rows[0], settled(5, Status.SKIPPED, "a")]).superseded()


@pytest.mark.parametrize("rows", [[], [settled(0, Status.ACCEPTED, "a")], [settled(0), settled(1)]])
def test_nothing_changes(tmp_path: Path, rows: list[Result]) -> None:
    """Without failures, or with letters that stand as they should, there is no new file."""
    folder = Folder(tmp_path, rows)

    assert folder.supersede() is None
    assert not folder.part.exists()


def test_a_part_of_a_run_that_was_killed_is_replaced(tmp_path: Path) -> None:
    """It is worth nothing; nor is a link followed that stands in its place."""
    folder = Folder(tmp_path, [settled(0, Status.REJECTED, "a"), settled(1, Status.ACCEPTED, "a")])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"keep")
    folder.part.symlink_to(elsewhere)

    assert [(2, 3)] == folder.superseded()
    assert b"keep" == elsewhere.read_bytes()


def test_both_files_may_be_names_within_a_folder_that_is_held_open(tmp_path: Path) -> None:
    """However the folder is called by then."""
    (tmp_path / "x").mkdir()
    folder = Folder(tmp_path / "x", [settled(0, Status.REJECTED, "a"), settled(1, Status.ACCEPTED, "a")])
    fd = os.open(folder.path, os.O_RDONLY)
    folder.path.rename(tmp_path / "y")
    try:
        length = supersede(folder.results, folder.letters, SOURCES, going_on, dir_fd=fd)
    finally:
        os.close(fd)

    assert length == (tmp_path / "y" / "dead-letter.ndjson.part").stat().st_size


# -- always ------------------------------------------------------------------------------------------------------------

STATUSES = st.sampled_from([Status.REJECTED, Status.ACCEPTED, Status.REJECTED, Status.ACCEPTED, *Status])
KEYS = st.lists(st.sampled_from("abc"), max_size=2, unique=True)
HOSTILE: list[dict[str, object]] = [
    {},
    {"superseded_by": 3, "x": '"superseded_by":3'},
    {"x": {NOTE: {"format": 1, "source": "devices.csv", "line": 2, "item": 0, "superseded_by": 7}}},
    {NOTE: {"superseded_by": 9, NOTE: {"superseded_by": None}}, "y": ["superseded_by", NOTE]},
    {"x": NOTE, "superseded_by": None, "y": {"superseded_by": 5}},
    {"n": Number("1.10"), "x": '\\","_moe_bulk":{"superseded_by":null', "y": Number("1e400")},
]


LONG = "x" * (ID_KEPT + 1)
IDS = st.tuples(st.sampled_from(['u"1', "ü/2", LONG]), st.sampled_from(['d\\","status":"', "d-2", LONG + "y"]))
"""Ids of devices."""


@st.composite
def runs(draw: st.DrawFn) -> list[Result]:
    """Give the results of a run, in the order of the input: rows, some of which share keys."""
    rows = []
    for number in range(draw(st.sampled_from([14, 12, 6, 0]))):
        status, unreadable = draw(STATUSES), draw(st.booleans())
        keys: tuple[tuple[str, ...], ...] = ()
        if not (unreadable and status is Status.INVALID):
            keys = tuple((key,) for key in draw(KEYS))
        ids = draw(st.none() | IDS)
        if ids is not None and keys:
            keys = (("device", *ids), *keys)
        source = int(number >= 9)
        position = Position(SOURCES[source], 2 + number // 2, 10 * (number // 2), number % 2)
        fields = draw(st.sampled_from(HOSTILE))
        row = (
            Row(position, None, "no JSON", b'{"superseded_by":null', 21) if keys == () else Row(position, dict(fields))
        )
        if draw(st.booleans()):
            row.note = {"source": "old.csv", "line": 3, "superseded_by": 4, "history": [{"line": 4}]}
        reason = draw(st.sampled_from([None, '"status":"accepted"', '"keys":["aaaaaaaaaaaa"]}\n', "superseded_by"]))
        customer, device = ids or (None, None)
        if ids is not None and status is Status.INVALID:  # as such a row's line tells them
            customer, device = (each[:ID_KEPT] for each in ids)
        rows.append(Result(position, status, row, customer, device, reason=reason, keys=keys))
    return rows


def as_settled(rows: list[Result], draws: Sequence[int]) -> list[Result]:
    """Settle rows in an order that the lanes allow: those that share a key in theirs, invalid ones at any moment."""
    waiting, order = list(rows), []
    for draw in draws:
        free = [row for number, row in enumerate(waiting) if _may_go(row, waiting[:number])]
        if free:
            order.append(free[draw % len(free)])
            waiting.remove(order[-1])
    return order + waiting


def _may_go(row: Result, before: list[Result]) -> bool:
    return row.status is Status.INVALID or not any(
        set(row.keys) & set(other.keys) for other in before if other.status is not Status.INVALID
    )


def naive(rows: list[Result]) -> bytes:
    """Look ahead from each failed row, in the order of the input."""
    lines = []
    for number, row in enumerate(rows):
        later = (each for each in rows[number + 1 :] if each.status in (Status.ACCEPTED, Status.UNCHANGED))
        by = next((each.position.line for each in later if set(each.keys) & set(row.keys)), None)
        if row.failed:
            before, mark, after = letter(row).rpartition(own_note(row))
            assert mark
            lines.append(before + mark + after.replace(b"null", orjson.dumps(by), 1))
    return b"".join(lines)


def own_note(row: Result) -> bytes:
    """Give what stands in a letter's note from its beginning to `superseded_by`."""
    note = {
        "format": 1,
        "source": row.position.source.encode("utf-8", "backslashreplace").decode(),
        "line": row.position.line,
        "item": row.position.item,
        "status": row.status.value,
        "reason": row.reason,
        "http_status": None,
        "error_type": None,
        "request_id": None,
        "attempts": 0,
        "superseded_by": None,
    }
    return b'"_moe_bulk":' + orjson.dumps(note)[: -len(b"null}")]


@given(
    runs(),
    st.lists(st.integers(0, 100), max_size=14),
    st.builds(Portions, *map(st.sampled_from, ([5, 3, 2, 1], [4, 2, 1], [9, 2, 1], [3, 1]))),
)
def test_the_letters_are_those_of_a_plain_reading(rows: list[Result], draws: list[int], portions: Portions) -> None:
    """In any order of settling and with any portions: as if each letter were looked after by itself; twice as once."""
    with tempfile.TemporaryDirectory() as path:
        folder = Folder(Path(path), as_settled(rows, draws), portions)
        before = folder.letters.read_bytes()
        length = folder.supersede()

        if length is None:
            assert naive(rows) == before
        else:
            assert naive(rows) == folder.part.read_bytes()
            assert (len(naive(rows)), True) == (length, before != naive(rows))
            folder.part.rename(folder.letters)
        assert folder.supersede() is None
        assert not folder.part.exists()


@given(
    st.permutations(
        [
            settled(n, s, *k)
            for n, (s, k) in enumerate(
                [
                    (Status.REJECTED, "ab"),
                    (Status.ACCEPTED, "b"),
                    (Status.ACCEPTED, "a"),
                    (Status.INVALID, "a"),
                    (Status.ACCEPTED, "a"),
                ]
            )
        ]
    )
)
def test_any_order_of_results_is_looked_through(rows: list[Result]) -> None:
    """Also one that no run writes: places decide."""
    with tempfile.TemporaryDirectory() as path:
        assert [(2, 3), (5, 6)] == Folder(Path(path), rows).superseded()


def test_lines_that_somebody_wrote_anew_are_read_in_full(tmp_path: Path) -> None:
    """With spaces, or other fields first: they mean the same."""
    rows = [settled(0, Status.REJECTED, "a"), settled(1, Status.ACCEPTED, "a"), settled(2, Status.REJECTED, "a")]
    folder = Folder(tmp_path, rows)
    lines = [orjson.loads(line) for line in folder.results.read_bytes().splitlines()]
    spaced = [orjson.dumps(line).replace(b'":', b'" : ') for line in lines]
    folder.results.write_bytes(b"\n".join(spaced))

    assert [(2, 3), (4, None)] == folder.superseded()


DEVICE = ("device", "u/1", "d-1")
OTHER = ("device", "u/1", "d-2")


@pytest.mark.parametrize(
    "changed",
    [
        lambda line: line,
        lambda line: line.replace(b'":', b'" : '),
        lambda line: line.replace(b"u/1", b"u\\/1"),
        lambda line: line.replace(b"d-1", b"\\u0064-1"),
        lambda line: orjson.dumps(orjson.loads(line), option=orjson.OPT_SORT_KEYS),
        lambda line: orjson.dumps({"device_id": "d-1", **orjson.loads(line)}),
    ],
    ids=["as it was", "spaces", "escaped slash", "escaped letter", "sorted", "turned round"],
)
@pytest.mark.parametrize("device", [DEVICE, OTHER])
def test_a_device_is_known_by_the_ids_of_its_lines(
    changed: Callable[[bytes], bytes], device: tuple[str, str, str], tmp_path: Path
) -> None:
    """An accepted line has no hash of them, and may have been written anew."""
    failed = settled(0, Status.REJECTED)._replace(keys=(DEVICE, ("a",)), customer_id="u/1", device_id="d-1")
    accepted = settled(1, Status.ACCEPTED)._replace(keys=(device, ("b",)), customer_id="u/1", device_id=device[2])
    folder = Folder(tmp_path, [failed, accepted])
    first, second = folder.results.read_bytes().splitlines()
    assert b'"other_keys":[' in second
    folder.results.write_bytes(first + b"\n" + changed(second).rstrip() + b"\n")

    assert [(2, 3 if device is DEVICE else None)] == folder.superseded()


def test_hashes_that_somebody_wrote_otherwise_are_the_same(tmp_path: Path) -> None:
    """Many a program escapes slashes, and may do so with any character."""
    folder = Folder(tmp_path, [settled(0, Status.REJECTED, "a"), settled(1, Status.ACCEPTED, "a")])
    first, second = folder.results.read_bytes().splitlines()
    (hashed,) = orjson.loads(second)["keys"]
    escaped = second.replace(hashed.encode(), f"\\u{ord(hashed[0]):04x}{hashed[1:]}".encode())
    folder.results.write_bytes(first + b"\n" + escaped + b"\n")

    assert [(2, 3)] == folder.superseded()


def test_a_row_supersedes_all_letters_of_its_key(tmp_path: Path) -> None:
    """However many stand before it, up to the next one's."""
    statuses = [Status.REJECTED] * 3 + [Status.ACCEPTED] + [Status.REJECTED] * 2 + [Status.ACCEPTED]
    rows = [settled(number, status, "a") for number, status in enumerate(statuses)]

    for portions in (Portions(), Portions(letters=2, lines=3)):
        assert [(2, 5), (3, 5), (4, 5), (6, 8), (7, 8)] == Folder(tmp_path, rows, portions).superseded()


# -- stopping, and files that are not what they were ------------------------------------------------------------------


def test_it_can_be_stopped_at_any_moment(tmp_path: Path) -> None:
    """Nothing is left of it then, and it can be done later."""
    rows = [settled(9 - n, Status.REJECTED, "a") for n in range(8)] + [settled(20, Status.ACCEPTED, "a")]
    folder = Folder(tmp_path, rows)
    before = folder.letters.read_bytes()
    for patience in range(1000):
        came_to = supersede(
            folder.results, folder.letters, SOURCES, stopping_after(patience), portions=Portions(letters=3, lines=2)
        )
        if came_to != STOPPED:
            break
        assert before == folder.letters.read_bytes()
        assert not folder.part.exists()

    assert patience > 10
    assert came_to == folder.part.stat().st_size


def stopping_after(times: int) -> Callable[[], bool]:
    """Say no so many times, then yes."""
    left = iter(range(times))
    return lambda: next(left, None) is None


def more_letters(folder: Folder) -> None:
    """Add a letter."""
    folder.letters.write_bytes(folder.letters.read_bytes() + letter(settled(7)))


def fewer_letters(folder: Folder) -> None:
    """Take the last letter away."""
    folder.letters.write_bytes(b"".join(folder.letters.read_bytes().splitlines(keepends=True)[:-1]))


def torn_letter(folder: Folder) -> None:
    """Cut the last letter."""
    folder.letters.write_bytes(folder.letters.read_bytes()[:-1])


def another_letter(folder: Folder) -> None:
    """Put another row's letter in place of the last."""
    fewer_letters(folder)
    more_letters(folder)


def letter_without_its_note(folder: Folder) -> None:
    """Rename the field that is to be filled in."""
    folder.letters.write_bytes(folder.letters.read_bytes().replace(b'"superseded_by"', b'"superseded"'))


def torn_result(folder: Folder) -> None:
    """Cut the last result."""
    folder.results.write_bytes(folder.results.read_bytes()[:-20])


def foreign_result(folder: Folder) -> None:
    """Name another source."""
    folder.results.write_bytes(folder.results.read_bytes().replace(b"devices.csv", b"other.csv"))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (more_letters, "there are more letters than failures"),
        (fewer_letters, "there are fewer letters than failures"),
        (torn_letter, "there are fewer letters than failures"),
        (another_letter, "the letter of devices.csv, line 4 is not where it should be"),
        (letter_without_its_note, "a letter lost its superseded_by"),
        (torn_result, "the results cannot be read at byte "),
        (foreign_result, "other.csv, line 2 is none of this run's rows"),
    ],
)
def test_files_that_do_not_belong_together_are_told(tmp_path: Path, harm: object, said: str) -> None:
    """In words, with what to do, and with nothing changed."""
    assert callable(harm)
    folder = Folder(
        tmp_path,
        [settled(0, Status.REJECTED, "a"), settled(1, Status.ACCEPTED, "a"), settled(2, Status.EXHAUSTED, "b")],
    )
    harm(folder)
    before = folder.letters.read_bytes()

    with pytest.raises(JournalError) as told:
        folder.supersede()

    assert f"{folder.letters} and results.ndjson do not belong together ({said}" in str(told.value)
    assert str(told.value).endswith("to deliver all of it again, add --fresh")
    assert (before, False) == (folder.letters.read_bytes(), folder.part.exists())


def test_no_letter_is_ever_lost(tmp_path: Path) -> None:
    """Should a row have two, which no run writes, it is told."""
    folder = Folder(tmp_path, [settled(1), settled(0), settled(1)], Portions(letters=2))

    with pytest.raises(JournalError, match="a row failed twice"):
        folder.supersede()
    assert not folder.part.exists()


def test_a_missing_file_and_a_link_are_trouble_with_the_folder(tmp_path: Path) -> None:
    """Told as for every other file of the run."""
    folder = Folder(tmp_path, [settled(0)])
    folder.letters.rename(tmp_path / "moved")
    with pytest.raises(JournalError, match="cannot be used: No such file"):
        folder.supersede()
    folder.letters.symlink_to(tmp_path / "moved")
    with pytest.raises(JournalError, match="cannot be used: "):
        folder.supersede()


def test_a_full_disk_leaves_nothing_and_says_how_much_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The letters stay as they were."""
    folder = Folder(tmp_path, [settled(1), settled(0)])

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("moe_bulk.superseding.sync_to_disk", full)
    with pytest.raises(JournalError, match=r"No space left on device\. Free at least 1 MB there"):
        folder.supersede()
    assert not folder.part.exists()
