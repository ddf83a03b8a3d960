"""A partition's rows, divided among workspaces: who waits for whom, and for how long."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest

from moe_bulk.errors import RunStopped
from moe_bulk.spark import dividing
from moe_bulk.spark.dividing import divide
from tests.virtual import run_virtually

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from moe_bulk.spark.merging import Delivered
    from moe_bulk.spark.rows import Fields

SECONDS_A_ROW = {"FAST": 0.001, "SLOW": 0.1}


class Told:
    """What there is to see of a partition whose workspaces are not equally fast."""

    def __init__(self, names: Sequence[str], refused: str = "") -> None:
        self.names = names
        self.refused = refused
        self.waiting = 0
        self.most = 0
        self.ended: dict[str, float] = {}

    async def rows(self) -> AsyncGenerator[Fields]:
        """Read them as fast as they are taken."""
        for name in self.names:
            self.waiting += 1
            self.most = max(self.most, self.waiting)
            yield {"w": name}

    async def deliver(self, name: str, rows: AsyncGenerator[Fields]) -> Delivered:
        """Take a while for each."""
        async for _ in rows:
            self.waiting -= 1
            if name == self.refused:
                raise RunStopped("its key is refused")
            await asyncio.sleep(SECONDS_A_ROW[name])
        self.ended[name] = asyncio.get_running_loop().time()
        return cast("Delivered", name)

    def divided(self) -> Any:
        """Divide them, on a virtual clock."""
        return run_virtually(divide, self.rows(), "w", self.deliver)


def test_a_slow_workspace_delays_no_other_while_rows_may_wait() -> None:
    """As many rows as a task holds, whosever they are."""
    told = Told(["SLOW", "FAST"] * 1_000)
    assert ["SLOW", "FAST"] == told.divided()
    assert told.ended["FAST"] < 1.1
    assert 100 <= told.ended["SLOW"]


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above that all wait for the slow one, which README says."""
    monkeypatch.setattr(dividing, "MOST_WAITING", 100)
    told = Told(["SLOW", "FAST"] * 300)
    told.divided()
    assert 100 <= told.most <= 102  # and one that is being read, and one that was just taken
    assert 19 < told.ended["FAST"] < 25


def test_rows_of_a_workspace_that_has_stopped_take_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither those that waited for it nor those that come later."""
    monkeypatch.setattr(dividing, "MOST_WAITING", 10)
    told = Told([*["SLOW"] * 30, *["FAST", "SLOW"] * 100], refused="SLOW")
    with pytest.raises(RunStopped, match="1 of 2 workspaces stopped: SLOW: its key is refused"):
        told.divided()
    assert told.ended["FAST"] < 0.2
