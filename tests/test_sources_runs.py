"""Whole runs of what is no text: stopped and taken up again, and several formats one after the other."""

from __future__ import annotations

import io
import os
import threading
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from moe_bulk.columns import Columns, Reader
from moe_bulk.config import Network
from moe_bulk.errors import RunRefused
from moe_bulk.intake import Files
from moe_bulk.intake.files import FromFiles
from moe_bulk.sources.base import MAX_BATCH
from tests.fake_service import device, devices
from tests.runs import HEADER, Cut, Ended, Way, deliver, written

if TYPE_CHECKING:
    from pathlib import Path

    from moe_bulk.intake import Rows

WAYS: tuple[Way, ...] = ("cancel", "signal", "401", "crash")
IN_ORDER = Network(in_flight=1)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Name a run folder."""
    return tmp_path / "devices.run"


def go(rows: Rows, out: Path, number: int = 0, cut: Cut | None = None, **more: Any) -> Ended:
    """Make session `number` of a run."""
    return deliver(rows, out, cut=cut, network=IN_ORDER, clock=(1000.0 * number, 1_700_000_000.0), **more)


def parquet(rows: list[dict[str, object]], **how: Any) -> bytes:
    """Write rows as Parquet."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    into = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), into, **how)
    return into.getvalue()


def piped(path: Path, data: bytes) -> str:
    """Give a FIFO into which somebody writes these bytes."""
    if not path.exists():
        os.mkfifo(path)
    threading.Thread(target=path.write_bytes, args=(data,), daemon=True).start()
    return str(path)


# -- Parquet -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fed", ["file", "stream"])
@pytest.mark.parametrize("way", WAYS)
def test_a_stopped_run_of_parquet_goes_on(way: Way, fed: str, out: Path, tmp_path: Path) -> None:
    """By its rows' numbers; a stream is compared, as any other."""
    data = parquet([*devices(25), {**device(25), "platform": "fridge"}], row_group_size=4)
    path = tmp_path / "devices.parquet"
    if fed == "file":
        path.write_bytes(data)

    def rows() -> str:
        return str(path) if fed == "file" else piped(path, data)

    first = go(rows(), out, cut=Cut(way, 11))
    second = go(rows(), out, 1, cut=Cut(way, 9))
    third = go(rows(), out, 2)

    found = third.written
    assert (None, 1) == (third.error, found.summary["exit_code"])
    assert {"accepted": 25, "invalid": 1, "read": 26} == {k: n for k, n in found.summary["counts"].items() if n}
    assert [(n + 1, n) for n in range(26)] == sorted((each["line"], each["offset"]) for each in found.results)
    assert "fridge" == found.letters[0]["platform"]
    assert 4 <= len(third.service.seen) <= 8
    assert {f"user-{n}" for n in range(25)} == {*first.service.seen, *second.service.seen, *third.service.seen}


def test_other_bytes_are_another_input(out: Path, tmp_path: Path) -> None:
    """A Parquet file is known again as any other."""
    path = tmp_path / "devices.parquet"
    path.write_bytes(parquet(devices(9)))
    go(str(path), out, cut=Cut("signal", 3))
    path.write_bytes(parquet(devices(12)))
    assert isinstance(go(str(path), out, 1).error, RunRefused)


def test_a_finished_run_of_a_stream_is_not_sent_again(out: Path, tmp_path: Path) -> None:
    """It is read to its end for that."""
    data = parquet(devices(9))
    go(piped(tmp_path / "devices", data), out)
    again = go(piped(tmp_path / "devices", data), out, 1)
    assert (None, []) == (again.error, again.service.seen)


def test_formats_mix_in_one_run(out: Path, tmp_path: Path) -> None:
    """Each row's source is named, and the order is kept from file to file."""
    (tmp_path / "a.csv").write_bytes(HEADER + b"user-0,device-0,iOS,token-0\n")
    (tmp_path / "b.parquet").write_bytes(parquet([device(1), device(2)], row_group_size=1))
    (tmp_path / "c.ndjson").write_bytes(orjson.dumps(device(3)))
    (tmp_path / "d").write_bytes(parquet([device(4)]))
    files = Files(tuple(str(tmp_path / name) for name in ("a.csv", "b.parquet", "c.ndjson", "d")))
    first = go(files, out, cut=Cut("signal", 3))
    second = go(files, out, 1)

    assert [f"user-{n}" for n in range(5)] == first.service.seen + second.service.seen
    assert [("a.csv", 2, 39), ("b.parquet", 1, 0), ("b.parquet", 2, 1), ("c.ndjson", 1, 0), ("d", 1, 0)] == [
        (each["source"].rpartition("/")[2], each["line"], each["offset"]) for each in written(out).results
    ]


def test_a_parquet_file_tells_how_many_rows_there_are(tmp_path: Path) -> None:
    """So the end of the run is known from the first row on."""
    path = tmp_path / "devices.parquet"
    path.write_bytes(parquet(devices(1200)))
    files = FromFiles(Files((str(path),)), Reader(Columns()), "auto", None)
    files.look()
    expected = [files.rows_expected for _ in files.batches()]
    files.close()

    assert [1200.0] * (1200 // MAX_BATCH) == expected
    assert (path.stat().st_size,) * 2 == (files.bytes_read, files.bytes_in_all)


def test_a_missing_column_is_told_before_the_first_request(out: Path, tmp_path: Path) -> None:
    """Its names are known, as a CSV's are."""
    path = tmp_path / "devices.parquet"
    path.write_bytes(parquet([{"customer_id": "u-1", "device_id": "d", "platform": "iOS", "token": "t"}]))
    ended = go(str(path), out)
    assert "there is no column push_id: name one with --column push_id=COLUMN" in str(ended.error)
    assert not out.exists()
