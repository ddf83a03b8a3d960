"""Two contenders one right behind the other, many times: for what differs by less than the machine's speed swings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from interleaved import Circumstances, Entrant, Round, costs, interleave
from probes import Parted, part_cost

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Pairs:
    """What two entrants measured, pair by pair; `by_hand` is what a row of the yardstick took around each pair."""

    rounds: dict[Entrant, list[Round]]
    by_hand: list[float]

    @property
    def costs(self) -> list[tuple[float, ...]]:
        """CPU microseconds for an accepted request of either, by pair."""
        return list(zip(*map(costs, self.rounds.values()), strict=True))


def in_pairs(
    one: Entrant, other: Entrant, circumstances: Circumstances, pairs: int, yardstick: Parted, folder: Path
) -> Pairs:
    """Run two entrants so many times, either first in turn, and the yardstick before and after each pair.

    An even number of pairs favours neither, if it matters who runs first.
    """
    rounds: dict[Entrant, list[Round]] = {one: [], other: []}
    by_hand, earlier = [], part_cost(yardstick, folder)
    for number in range(pairs):
        for entrant in (one, other) if number % 2 else (other, one):
            rounds[entrant] += interleave([entrant], circumstances, 1, folder)[entrant]
        later = part_cost(yardstick, folder)
        by_hand.append((earlier + later) / 2)
        earlier = later
    return Pairs(rounds, by_hand)
