"""Which result lines are looked at more closely; what is found in them stands in `test_superseding`."""

from __future__ import annotations

from moe_bulk.outcome import Result, Status
from moe_bulk.record import Position, Row
from moe_bulk.successors import Failure, Successors, ids_in_line

TOKEN = ("push_id", "t")


def _result(status: Status, device: str, *keys: tuple[str, ...]) -> Result:
    position = Position("devices.csv", 2, 40)
    mine = (("device", "u", device), *keys)
    return Result(position, status, Row(position, {}), "u", device, keys=mine)


def _successors(failed: Result) -> Successors:
    return Successors([Failure(-1, 2, 0, "".join(failed.hashes), ids_in_line(failed))])


def test_lines_that_share_nothing_are_left_out() -> None:
    """Nearly all of a run are, and to read one in full takes ten times as long."""
    failed = _result(Status.REJECTED, "d-1", TOKEN)
    lines = [_result(status, "d-2", ("push_id", "other")).line() for status in (Status.ACCEPTED, Status.INVALID)] + [
        _result(Status.UNCHANGED, "d-2").line()
    ]
    assert [] == list(_successors(failed).among(lines))


def test_lines_that_share_the_device_or_any_other_key_are_not() -> None:
    """By their ids where they have no hash of it."""
    failed = _result(Status.REJECTED, "d-1", TOKEN)
    lines = [
        _result(Status.ACCEPTED, "d-1").line(),
        _result(Status.ACCEPTED, "d-2", TOKEN).line(),
        _result(Status.REJECTED, "d-1").line(),
        b"no such line\n",
    ]
    assert lines == list(_successors(failed).among(lines))
