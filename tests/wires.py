"""Connections without a network: a transport that notes what becomes of it, and aiohttp's connection around it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from aiohttp.client_proto import ResponseHandler

from moe_bulk.connections import Carrier
from moe_bulk.dialogue import READ_AT_ONCE, Dialogue

if TYPE_CHECKING:
    from aiohttp.connector import Connection

    from moe_bulk.connections import UnderWay


class Wire(asyncio.Transport):
    """What was written to it, and to others that share the list, in order; one that is `broken` takes nothing."""

    def __init__(self, written: list[bytes] | None = None, *, name: str = "", broken: bool = False) -> None:
        super().__init__()
        self.name, self.broken = name, broken
        self.written = [] if written is None else written
        self.ends: list[tuple[str, float]] = []
        """How it came to its end, if it did, and when, in seconds of the loop's time."""
        self.released = False
        """True when aiohttp's connector got it back."""
        self.reading = True
        self.unsent = 0
        """Bytes that it says it could not send yet."""
        self.protocol: Any = None

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: D102  the parent's
        return (
            SimpleNamespace(fileno=lambda: 3, family=None, setsockopt=lambda *_: None) if name == "socket" else default
        )

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:  # noqa: D102  the parent's
        self.protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:  # noqa: D102  the parent's
        return cast("asyncio.BaseProtocol", self.protocol)

    def write(self, data: Any) -> None:  # noqa: D102  the parent's
        if self.broken:
            raise RuntimeError("it is broken")
        self.written.append(data)

    def get_write_buffer_size(self) -> int:  # noqa: D102  the parent's
        return self.unsent

    def is_closing(self) -> bool:  # noqa: D102  the parent's
        return bool(self.ends)

    def close(self) -> None:  # noqa: D102  the parent's
        self.end("closed")

    def abort(self) -> None:  # noqa: D102  the parent's
        self.end("aborted")

    def pause_reading(self) -> None:  # noqa: D102  the parent's
        self.reading = False

    def resume_reading(self) -> None:  # noqa: D102  the parent's
        self.reading = True

    def end(self, how: str) -> None:
        """Note that it ended: it does so once."""
        if self.ends:
            return
        self.ends.append((how, round(asyncio.get_running_loop().time(), 2)))


class Held:
    """A connection as aiohttp's connector gives it."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.protocol: ResponseHandler | None = ResponseHandler(asyncio.get_running_loop())
        self.protocol.connection_made(wire)

    @property
    def transport(self) -> Wire | None:
        """The wire, until it is closed or given back."""
        return self._wire if self.protocol is not None else None

    def close(self) -> None:
        """End it."""
        if self.protocol is not None:
            self.protocol = None
            self._wire.close()

    def release(self) -> None:
        """Give it back to the connector, which may use it again."""
        self.protocol = None
        self._wire.released = True


def held(wire: Wire) -> Connection:
    """Hold a wire as aiohttp's connector would."""
    return cast("Connection", Held(wire))


def dialogue(wire: Wire, attempt: UnderWay | None = None) -> Dialogue:
    """Take a wire over."""
    return Dialogue(Carrier(held(wire), attempt), memoryview(bytearray(READ_AT_ONCE)))


def comes_in(speaking: Dialogue, said: bytes) -> None:
    """Let these bytes come in over it, as an event loop would."""
    buffer = speaking.get_buffer(-1)
    for start in range(0, len(said), len(buffer)):
        part = said[start : start + len(buffer)]
        buffer[: len(part)] = part
        speaking.buffer_updated(len(part))
