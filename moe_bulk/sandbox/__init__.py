"""A local MoEngage to rehearse against: the Track Device API's rules, limit and bad days, on 127.0.0.1.

    async with Sandbox(SandboxSettings(faults=Faults.parse("5xx=2%,latency=50ms..300ms"))) as sandbox:
        ...  # send to sandbox.url as sandbox.workspace_id with sandbox.api_key
        sandbox.devices["u-1", "d-1"].attributes

It imports nothing else of this package, so that it can testify against it. The names below are loaded when they are
asked for (PEP 562): whoever only parses `--faults` loads no HTTP server.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .devices import Device
    from .faults import Faults, FaultsError
    from .ledger import Exchange, Stats
    from .server import Sandbox, serve
    from .settings import SandboxSettings
    from .window import Limit, LimitError
else:  # a checker that saw this would believe any name

    def __getattr__(name: str) -> object:
        """Load the room of a name at its first use."""
        if name not in _ROOMS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f".{_ROOMS[name]}", __name__), name)


_ROOMS = {
    "Device": "devices",
    "Exchange": "ledger",
    "Faults": "faults",
    "FaultsError": "faults",
    "Limit": "window",
    "LimitError": "window",
    "Sandbox": "server",
    "SandboxSettings": "settings",
    "Stats": "ledger",
    "serve": "server",
}

__all__ = [
    "Device",
    "Exchange",
    "Faults",
    "FaultsError",
    "Limit",
    "LimitError",
    "Sandbox",
    "SandboxSettings",
    "Stats",
    "serve",
]


def __dir__() -> list[str]:
    """List the public names only."""
    return __all__
