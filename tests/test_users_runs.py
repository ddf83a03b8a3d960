"""Runs with a user of many rows: the limits per user hold over stops and resumes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from moe_bulk.config import Rate
from moe_bulk.users import UserLimits, Users
from tests.builders import busiest
from tests.runs import Cut, Way, deliver

if TYPE_CHECKING:
    from pathlib import Path

MOST = 40
"""Requests a minute that a user of these tests gets."""


@pytest.mark.parametrize("way", ["cancel", "signal", "crash"])
def test_what_a_user_got_before_a_stop_counts_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Way
) -> None:
    """However a session ends, the next one knows who had enough; others are not held back by it."""
    limits = UserLimits((Rate(MOST, 60.0),), percent=100)
    monkeypatch.setattr("moe_bulk.uploader.Users", partial(Users, limits=limits))
    rows: list[dict[str, Any]] = [
        {"customer_id": "hot" if number % 2 else f"u-{number}", "device_id": f"d-{number}", "platform": "iOS"}
        | {"push_id": f"token-{number}"}
        for number in range(200)
    ]
    times: dict[str, list[float]] = {"hot": [], "others": []}
    clock = 10_000.0
    for cut in (Cut(way, 60), Cut(way, 20), None):
        ended = deliver(rows, tmp_path / "x.run", rate=Rate(600, 60.0), clock=(clock, 1.7e9), cut=cut)
        for customer, at in zip(ended.service.seen, ended.service.times, strict=True):
            times["hot" if customer == "hot" else "others"].append(clock + at)
        clock += max(ended.service.times) + 9.0
    assert ended.summary is not None
    assert 200 == ended.summary["counts"]["accepted"]
    # What was sent in the second of a crash is not told, nor what was on its way.
    assert busiest(times["hot"], 60.0) <= MOST + (0 if way != "crash" else 2 * 12)
    assert max(times["others"]) < max(times["hot"])
