"""The checkpoint: what is written is what is read, and nothing else is taken for one."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk.checkpoint import Checkpoint
from moe_bulk.fingerprint import Fingerprint
from moe_bulk.settled import OFFSETS, Place

CHECKPOINT = Checkpoint(
    settings={"workspace_id": "W", "columns": {"push_id": "token"}},
    sources=(Fingerprint("devices.csv", "file", size=10, mtime_ns=1_700_000_000_000_000_000),),
    place=Place(0, 7, 120),
    ranges={"devices.csv": [(0, 40 << 16 | 1), (80 << 16, 95 << 16 | 3)]},
    results=700,
    dead_letters=90,
    tally={"requests": 3},
    started_at=1_700_000_000.25,
    at=12.5,
    boot="b-1",
    sessions=2,
    also={"sandbox": True},
)


def said(**changes: object) -> bytes:
    """Give the checkpoint's file with some of it changed."""
    return orjson.dumps(orjson.loads(CHECKPOINT.as_json()) | changes)


def test_file_form() -> None:
    """The form that is promised: one line, its parts by name, ranges as offsets and items."""
    line = CHECKPOINT.as_json()
    form = orjson.loads(line)

    assert (1, True) == (line.count(b"\n"), line.endswith(b"\n"))
    assert {"devices.csv": [[0, 0, 40, 1], [80, 0, 95, 3]]} == form["ranges"]
    assert {"results.ndjson": 700, "dead-letter.ndjson": 90} == form["files"]
    assert {"source": 0, "line": 7, "offset": 120} == form["next"]
    assert (1, False, None, 2, "b-1") == tuple(
        form[name] for name in ("format", "finished", "final_dead_letter", "sessions", "boot")
    )


def test_emptied_knows_the_run_and_nothing_settled() -> None:
    """From it everything is read back; it is still of the same run."""
    empty = CHECKPOINT.emptied()

    assert (0, 0, {}, {}, Place(0, 1, 0)) == (empty.results, empty.dead_letters, empty.ranges, empty.tally, empty.place)
    assert (CHECKPOINT.settings, CHECKPOINT.sources, 2) == (empty.settings, empty.sources, empty.sessions)
    assert empty == Checkpoint.from_json(empty.as_json())


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(), each, max_size=3),
    max_leaves=8,
)
_KEYS = st.sets(st.integers(0, (OFFSETS << 16) - 1), max_size=8).map(sorted)
_RANGES = _KEYS.map(lambda keys: list(zip(keys[::2], keys[1::2], strict=False)))
_SOURCE = st.builds(Fingerprint, st.text(), st.just("file"), st.integers(0, 9), st.integers(0, 9))
_TIME = st.floats(0, 4e9)


@given(
    st.builds(
        Checkpoint,
        settings=st.dictionaries(st.text(), st.text() | st.none()),
        sources=st.lists(_SOURCE, max_size=2).map(tuple),
        place=st.builds(Place, st.integers(0, 9), st.integers(1, 2**40), st.integers(0, OFFSETS - 1)),
        ranges=st.dictionaries(st.text(), _RANGES, max_size=3),
        results=st.integers(0, 2**50),
        dead_letters=st.integers(0, 2**50),
        tally=st.dictionaries(st.text(), st.integers(0, 9)),
        started_at=_TIME,
        at=_TIME,
        boot=st.none() | st.text(),
        sessions=st.integers(1, 99),
        finished=st.booleans(),
        final_dead_letter=st.none() | st.integers(0, 2**50),
        busy=st.lists(st.lists(st.integers(0, 9), min_size=1)),
    )
)
def test_what_is_written_is_what_is_read(checkpoint: Checkpoint) -> None:
    """Every checkpoint comes back as it was."""
    assert checkpoint == Checkpoint.from_json(checkpoint.as_json())


def test_settings_that_are_no_json_are_written_all_the_same() -> None:
    """A lone surrogate in a setting costs no checkpoint: it is spelt out."""
    checkpoint = Checkpoint({"column": "\udcff"}, (), Place(0, 1, 0), {}, 0, 0, {}, 1.0, 1.0, None)

    assert {"column": "\\udcff"} == Checkpoint.from_json(checkpoint.as_json()).settings


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"", "torn, or no JSON"),
        (CHECKPOINT.as_json()[:-20], "torn, or no JSON"),
        (bytes(400), "torn, or no JSON"),
        (b"\xff", "torn, or no JSON"),
        (b"[]", "no JSON object"),
        (said(format=2), "its format is 2, this version knows 1"),
        (said(format=True), "format is True"),
        (b"{}", "format is None"),
        (said(settings=[]), "'settings' is no object"),
        (said(sources={}), "'sources' is no list"),
        (said(sources=[7]), "."),
        (said(tally=None), "'tally' is no object"),
        (said(files={"results.ndjson": 1}), "'dead-letter.ndjson' is missing"),
        (said(files={"results.ndjson": -1, "dead-letter.ndjson": 0}), "'results.ndjson' is no number"),
        (said(files={"results.ndjson": 1.0, "dead-letter.ndjson": 0}), "'results.ndjson' is no number"),
        (said(files={"results.ndjson": True, "dead-letter.ndjson": 0}), "'results.ndjson' is no number"),
        (said(next={"source": -1, "line": 1, "offset": 0}), "'source' is no number"),
        (said(next={"source": 0, "line": 0, "offset": 0}), "'line' is no number"),
        (said(next={"source": 0, "line": 1, "offset": OFFSETS}), "'offset' is no number"),
        (said(started_at="now"), "'started_at' is no time"),
        (said(at=True), "'at' is no time"),
        (said(boot=1), "'boot' is no text"),
        (said(sessions=0), "'sessions' is no number"),
        (said(finished=1), "'finished' is neither"),
        (said(final_dead_letter=-1), "'final_dead_letter' is no number"),
        (said(ranges=[]), "'ranges' is no object"),
        (said(ranges={"a": {}}), "ranges of 'a' are no list"),
        (said(ranges={"a": [[0, 0, 1]]}), "not made of four"),
        (said(ranges={"a": [[0, 0, 1, False]]}), "not made of four"),
        (said(ranges={"a": [7]}), "not made of four"),
        (said(ranges={"a": [[0, 0, 1, 65_536]]}), "where no row can"),
        (said(ranges={"a": [[-1, 0, 1, 0]]}), "where no row can"),
        (said(ranges={"a": [[0, 0, OFFSETS + 1, 0]]}), "where no row can"),
        (said(ranges={"a": [[1, 0, 1, 0]]}), "out of order"),
        (said(ranges={"a": [[1, 0, 3, 0], [2, 0, 4, 0]]}), "out of order"),
    ],
)
def test_what_is_no_checkpoint_is_refused(raw: bytes, told: str) -> None:
    """Torn, edited or of another version: it says plainly what is wrong."""
    with pytest.raises(ValueError, match=told):
        Checkpoint.from_json(raw)


@pytest.mark.parametrize("name", sorted(orjson.loads(CHECKPOINT.as_json()).keys() - {"also"}))
def test_nothing_may_be_missing(name: str) -> None:
    """A part that is not there is not guessed."""
    form = orjson.loads(CHECKPOINT.as_json())
    del form[name]

    with pytest.raises(ValueError, match=name):
        Checkpoint.from_json(orjson.dumps(form))


def test_one_of_an_older_version_is_read() -> None:
    """It does not tell of settings that do not matter."""
    form = orjson.loads(CHECKPOINT.as_json())
    del form["also"]
    assert {} == Checkpoint.from_json(orjson.dumps(form)).also


@given(st.sampled_from(sorted(orjson.loads(CHECKPOINT.as_json()))), _JSON)
def test_whatever_stands_there_is_read_or_refused(name: str, value: object) -> None:
    """No edited file makes it stumble, and what it takes it can write again."""
    try:
        found = Checkpoint.from_json(said(**{name: value}))
    except ValueError:
        return
    assert found == Checkpoint.from_json(found.as_json())


@given(st.integers(1, len(CHECKPOINT.as_json()) - 2), st.binary(max_size=2))
def test_torn_files_are_refused(at: int, rest: bytes) -> None:
    """No prefix of a checkpoint is one."""
    torn = CHECKPOINT.as_json()[:at] + rest.replace(b"}", b"")
    with pytest.raises(ValueError, match="torn, or no JSON"):
        Checkpoint.from_json(torn)
