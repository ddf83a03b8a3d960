"""Never more than the rate in any window: token bucket, window guard, and what a 429 asks for."""

from moe_bulk.pacing.guard import Slot, WindowGuard
from moe_bulk.pacing.pace import Pace
from moe_bulk.pacing.throttle import Throttle

__all__ = ["Pace", "Slot", "Throttle", "WindowGuard"]
