"""Deliver device records in bulk to MoEngage's Track Device API: every row gets a result, the limit is never exceeded.

>>> import moe_bulk
>>> summary = moe_bulk.upload("devices.csv")

Names are imported when they are first used, so that `import moe_bulk` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moe_bulk.checking import Findings as Findings
    from moe_bulk.checking import check as check
    from moe_bulk.columns import Columns as Columns
    from moe_bulk.config import Credentials as Credentials
    from moe_bulk.config import FailureLimit as FailureLimit
    from moe_bulk.config import Network as Network
    from moe_bulk.config import Rate as Rate
    from moe_bulk.config import Retry as Retry
    from moe_bulk.device import Device as Device
    from moe_bulk.device import problems as problems
    from moe_bulk.errors import AccountRefused as AccountRefused
    from moe_bulk.errors import ConfigError as ConfigError
    from moe_bulk.errors import CredentialsRejected as CredentialsRejected
    from moe_bulk.errors import DestinationWrong as DestinationWrong
    from moe_bulk.errors import InputRefused as InputRefused
    from moe_bulk.errors import Interrupted as Interrupted
    from moe_bulk.errors import JournalError as JournalError
    from moe_bulk.errors import MoeBulkError as MoeBulkError
    from moe_bulk.errors import PaceLost as PaceLost
    from moe_bulk.errors import RunHeld as RunHeld
    from moe_bulk.errors import RunRefused as RunRefused
    from moe_bulk.errors import RunStopped as RunStopped
    from moe_bulk.errors import ServiceUnavailable as ServiceUnavailable
    from moe_bulk.errors import SourceError as SourceError
    from moe_bulk.errors import StateRefused as StateRefused
    from moe_bulk.errors import TooManyFailures as TooManyFailures
    from moe_bulk.intake import Files as Files
    from moe_bulk.intake import Query as Query
    from moe_bulk.intake import Reading as Reading
    from moe_bulk.known import ChangedOnly as ChangedOnly
    from moe_bulk.outcome import Attempt as Attempt
    from moe_bulk.outcome import Result as Result
    from moe_bulk.outcome import Status as Status
    from moe_bulk.pacing.address import RedisPace as RedisPace
    from moe_bulk.record import Position as Position
    from moe_bulk.tally import Summary as Summary
    from moe_bulk.uploader import Results as Results
    from moe_bulk.uploader import Uploader as Uploader
    from moe_bulk.uploader import upload as upload
    from moe_bulk.view import RunView as RunView

    __version__: str
else:  # a checker that saw this would believe any name

    def __getattr__(name: str) -> object:
        """Import a public name from its room (PEP 562)."""
        if name in _ROOM_OF:
            return getattr(import_module(f"moe_bulk.{_ROOM_OF[name]}"), name)
        if name == "__version__":
            return import_module("importlib.metadata").version("moe-bulk")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


_ROOMS = {
    "checking": ("Findings", "check"),
    "columns": ("Columns",),
    "config": ("Credentials", "FailureLimit", "Network", "Rate", "Retry"),
    "device": ("Device", "problems"),
    "errors": (
        "AccountRefused",
        "ConfigError",
        "CredentialsRejected",
        "DestinationWrong",
        "InputRefused",
        "Interrupted",
        "JournalError",
        "MoeBulkError",
        "PaceLost",
        "RunHeld",
        "RunRefused",
        "RunStopped",
        "ServiceUnavailable",
        "SourceError",
        "StateRefused",
        "TooManyFailures",
    ),
    "intake": ("Files", "Query", "Reading"),
    "known": ("ChangedOnly",),
    "outcome": ("Attempt", "Result", "Status"),
    "pacing.address": ("RedisPace",),
    "record": ("Position",),
    "tally": ("Summary",),
    "uploader": ("Results", "Uploader", "upload"),
    "view": ("RunView",),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = sorted(_ROOM_OF)  # noqa: PLE0605  a list of names, made from the one table


def __dir__() -> list[str]:
    return [*__all__, "__doc__", "__version__"]
