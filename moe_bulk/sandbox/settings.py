"""How one sandbox is set up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from .faults import Faults
from .window import Limit

if TYPE_CHECKING:
    import ssl


@dataclass(frozen=True, slots=True)
class SandboxSettings:
    """`SandboxSettings()` is a well-behaved MoEngage with its default limit on any free port.

    `port` 0 takes a free one; `api_key` None draws a random one; `limit` None lifts the limit; `retry_after` tells
    those who exceed it when to come back; `rate_headers` adds x-ratelimit-limit/-remaining/-reset, the reset as
    seconds left or as epoch seconds (the documentation has both); `keep` is how many requests are remembered (0: none,
    for benchmarks), `keep_devices` whether devices are.
    """

    port: int = 0
    workspace_id: str = "SANDBOX"
    api_key: str | None = field(default=None, repr=False)
    limit: Limit | None = field(default_factory=lambda: Limit(10_000, 60))
    faults: Faults = field(default_factory=Faults)
    retry_after: bool = True
    rate_headers: Literal["seconds", "epoch"] | None = None
    keep: int = 100_000
    keep_devices: bool = True
    ssl_context: ssl.SSLContext | None = None
