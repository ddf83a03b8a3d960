"""Write down every request and what became of it, and add it all up."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .window import BusiestServiceWindow, BusiestWindow


@dataclass(slots=True)
class Exchange:
    """One request: when it came, over which connection, whom it was about, and what it was answered.

    Times are seconds of the event loop's clock (the system's monotonic clock). `answered` is also the moment of a
    reset, or of the client's leaving; `status` is then None. `fault` names the fault that was injected.
    """

    number: int
    arrived: float
    connection: int
    method: str
    path: str
    forwarded_for: str | None = None
    customer_id: str | None = None
    device_id: str | None = None
    status: int | None = None
    error_type: str | None = None
    fault: str | None = None
    over_limit: bool = False
    answered: float | None = None

    @property
    def request_id(self) -> str:
        """Give the id that a failure's answer carries."""
        return f"SB{self.number:06d}"

    def as_dict(self) -> dict[str, object]:
        """Give the request in the form of the control endpoint."""
        return {**asdict(self), "request_id": self.request_id}


@dataclass(slots=True)
class Stats:
    """What the sandbox saw.

    `requests` were received, `by_status` were answered (whole or half), `unanswered` were reset or left by their
    client, `over_limit` came beyond the limit, `faults` were injected. `busiest` counts arrivals at the device's
    address, `busiest_in_service` counts them at any moment between arrival and answer: the larger of the two, and what
    a client must keep below the limit.
    """

    busiest: BusiestWindow
    busiest_in_service: BusiestServiceWindow
    requests: int = 0
    unanswered: int = 0
    over_limit: int = 0
    connections: int = 0
    most_in_service: int = 0
    by_status: Counter[int] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)

    @property
    def in_service(self) -> int:
        """Tell how many requests for a device wait for their answer now."""
        return self.busiest_in_service.in_service

    def arrive(self, now: float) -> None:
        """Count one request at the device's address."""
        self.busiest.arrive(now)
        self.busiest_in_service.arrive(now)
        self.most_in_service = max(self.most_in_service, self.in_service)

    def as_dict(self) -> dict[str, object]:
        """Give the numbers in the form of the control endpoint."""
        return {
            "requests": self.requests,
            "by_status": {str(status): count for status, count in sorted(self.by_status.items())},
            "unanswered": self.unanswered,
            "over_limit": self.over_limit,
            "faults": dict(self.faults),
            "connections": self.connections,
            "in_service": self.in_service,
            "most_in_service": self.most_in_service,
            "busiest": _window(self.busiest),
            "busiest_in_service": _window(self.busiest_in_service),
        }


def _window(window: BusiestWindow | BusiestServiceWindow) -> dict[str, float]:
    return {"count": window.most, "at": window.at, "per": window.per}
