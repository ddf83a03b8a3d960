"""Log records as JSON lines: each line is one object, whoever logs whatever."""

from __future__ import annotations

import io
import json
import logging
import sys
import warnings
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk import cli
from moe_bulk.chronicle import tell
from moe_bulk.jsonlog import JsonLines, installed, write_to
from moe_bulk.streams import Unbreakable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Where a log goes; afterwards nothing is logged any more."""
    root, ours = logging.getLogger(), logging.getLogger("moe_bulk")
    before, level = list(root.handlers), ours.level
    yield io.StringIO()
    root.handlers[:] = before
    ours.setLevel(level)
    logging.captureWarnings(capture=False)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """What stands there."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_a_line(stream: io.StringIO) -> None:
    """With its time, level, run and fields."""
    write_to(Unbreakable(stream))
    write_to(Unbreakable(stream))  # once is enough
    tell(logging.WARNING, "pause", "paused", {"pauses": 2}, "abc")
    (line,) = lines(stream)
    assert line.pop("time").endswith("Z")
    assert {
        "format": 1,
        "level": "warning",
        "event": "pause",
        "run_id": "abc",
        "message": "paused",
        "pauses": 2,
    } == line
    assert installed()


def test_quiet_is_what_went_wrong(stream: io.StringIO) -> None:
    """No less than warnings."""
    write_to(Unbreakable(stream), quiet=True)
    tell(logging.INFO, "run_begun", "begun", {})
    tell(logging.ERROR, "error", "wrong", {})
    assert ["error"] == [line["event"] for line in lines(stream)]


def test_others_are_told_without_what_they_fill_in(stream: io.StringIO) -> None:
    """The template of a message, and the class of an exception: what is filled in may be a row's."""
    write_to(Unbreakable(stream))
    others = logging.getLogger("aiohttp.server")
    others.info("not worth telling")
    try:
        dict[str, int]()["user-1"]
    except KeyError:
        others.exception("cannot handle %s", "user-1")
    others.error("task failed\nuser-1")
    others.error("GET https://h/x%20y?token=s3cret for user-1")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("100% of user-1 is odd", ResourceWarning, stacklevel=1)
    said = lines(stream)
    assert [("cannot handle %s", "KeyError"), *[("(not told)", None)] * 3] == [
        (line["message"], line.get("error")) for line in said
    ]
    assert [*["aiohttp.server"] * 3, "py.warnings"] == [line["logger"] for line in said]
    assert "user-1" not in stream.getvalue()
    assert "s3cret" not in stream.getvalue()


@given(message=st.text(), fields=st.dictionaries(st.text(), st.text() | st.integers(0, 10) | st.none()))
def test_it_is_always_one_line_of_json(message: str, fields: dict[str, object]) -> None:
    """Whatever is told."""
    record = logging.LogRecord("moe_bulk", logging.INFO, "", 0, "%s", (message,), None)
    record.event, record.fields, record.run_id = "x", fields, None
    said = JsonLines().format(record)
    assert "\n" not in said
    assert fields.items() <= json.loads(said).items()


def test_a_name_that_is_no_utf_8() -> None:
    """Names of files are any bytes; Python has lone surrogates for them."""
    record = logging.LogRecord("moe_bulk", logging.INFO, "", 0, "%s", ("into a\udce9.run",), None)
    record.event, record.fields, record.run_id = "x", {"folder": "a\udce9.run"}, None
    assert "a\udce9.run" == json.loads(JsonLines().format(record))["folder"]


def run(arguments: list[str], monkeypatch: pytest.MonkeyPatch, stream: io.StringIO) -> int:
    """Run the command line with its standard error on the stream."""
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(sys, "argv", ["moe-bulk", *arguments])
    return cli.run(arguments)


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: io.StringIO) -> None:
    """All that it says is JSON, from the beginning to what to type next."""
    source = tmp_path / "a.csv"
    rows = "user-1,device-1,web,token-1\nuser-2,device-2,fridge,token-2\n"
    source.write_text("customer_id,device_id,platform,push_id\n" + rows, encoding="utf-8")
    assert 1 == run(["upload", str(source), "--sandbox", "--log-json"], monkeypatch, stream)
    said = lines(stream)
    assert ["run_begun", "run_ended", "next"] == [line["event"] for line in said]
    assert said[-1]["command"].endswith("a.csv.sandbox.run/dead-letter.ndjson --sandbox")
    assert 1 == len({line["run_id"] for line in said})
    assert 1 == run(["upload", str(source), "--sandbox", "--log-json"], monkeypatch, stream)
    again = lines(stream)[len(said) :]
    assert [("finished_before", said[0]["run_id"]), ("next", said[0]["run_id"])] == [
        (line["event"], line["run_id"]) for line in again
    ]


def test_what_stops_a_run_is_told_as_the_run_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: io.StringIO
) -> None:
    """So that whoever looks for a run's lines finds why it ended."""
    source = tmp_path / "a.csv"
    rows = "".join(f"user-{number},device-{number},fridge,token\n" for number in range(20))
    source.write_text("customer_id,device_id,platform,push_id\n" + rows, encoding="utf-8")
    assert 3 == run(["upload", str(source), "--sandbox", "--log-json", "--max-failures", "2"], monkeypatch, stream)
    said = {line["event"]: line["run_id"] for line in lines(stream)}
    assert said["error"] == said["run_begun"] is not None


def test_what_ends_the_command_is_json_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: io.StringIO
) -> None:
    """An error of ours by its words, a bug by where it is."""
    assert 2 == run(["upload", str(tmp_path / "nope.csv"), "--sandbox", "--log-json"], monkeypatch, stream)

    def bug(*_: object, **__: object) -> None:
        raise RuntimeError("user-1")

    monkeypatch.setattr("moe_bulk.naming.default_out", bug)
    (tmp_path / "a.csv").write_text("customer_id\n", encoding="utf-8")
    assert 3 == run(["upload", str(tmp_path / "a.csv"), "--sandbox", "--log-json"], monkeypatch, stream)
    foreseen, unforeseen = lines(stream)
    assert ("error", "SourceError", 2, []) == tuple(
        foreseen[name] for name in ("event", "error", "exit_code", "traceback")
    )
    assert ("bug", "RuntimeError", 3) == tuple(unforeseen[name] for name in ("event", "message", "exit_code"))
    assert unforeseen["traceback"]
    assert "user-1" not in stream.getvalue()
