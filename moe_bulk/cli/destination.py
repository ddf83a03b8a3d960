"""Where a command sends to, and with whose key: what options and the environment say, or an embedded sandbox."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from getpass import getpass
from typing import TYPE_CHECKING

from moe_bulk.config import Credentials
from moe_bulk.errors import ConfigError
from moe_bulk.settings import one_destination, read_key_file

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from moe_bulk.config import Rate
    from moe_bulk.options import Destination

SANDBOX_IN_FLIGHT = 128
"""An embedded sandbox holds the other end of each connection, from the same allowance of open files."""


def in_flight_of(said: Destination, in_flight: int | None) -> int | None:
    """How many requests may be on their way at most, where that is said or has to be."""
    return SANDBOX_IN_FLIGHT if said.sandbox and in_flight is None else in_flight


def real_credentials(said: Destination, *, may_ask: bool = True) -> Credentials | None:
    """The destination and its key, None for the sandbox; a missing key is asked for at a terminal that is free for it.

    To be called before there is an event loop, which would keep Ctrl-C at the prompt for itself.
    """
    if said.sandbox:
        return None
    if not said.workspace_id:
        raise ConfigError("which workspace? Set MOENGAGE_WORKSPACE_ID or --workspace-id (or try --sandbox first)")
    data_center, base_url = one_destination(said.data_center, said.base_url, os.environ)
    return Credentials(said.workspace_id, _key(said, may_ask), data_center=data_center, base_url=base_url or "")


async def stand_in(stack: AsyncExitStack, rate: Rate) -> Credentials:
    """A sandbox in this process, with that limit, until the stack is closed."""
    from moe_bulk.sandbox import Limit, Sandbox, SandboxSettings  # noqa: PLC0415  brings aiohttp's server

    settings = SandboxSettings(limit=Limit(rate.limit, rate.per), keep=0)
    sandbox = await stack.enter_async_context(Sandbox(settings))
    return Credentials(sandbox.workspace_id, sandbox.api_key, base_url=sandbox.url)


def _key(said: Destination, may_ask: bool) -> str:  # noqa: FBT001  named by its only caller
    if said.api_key_file:
        return read_key_file(said.api_key_file)
    key = os.environ.get("MOENGAGE_API_KEY", "").strip()
    if not key and may_ask and sys.stdin is not None and sys.stdin.isatty():
        signal.signal(signal.SIGINT, signal.default_int_handler)  # or the terminal would stay without an echo
        with suppress(EOFError):
            key = getpass("Data API key (not shown): ").strip()
    if not key:
        raise ConfigError("no API key: set MOENGAGE_API_KEY, or name a file that holds it with --api-key-file")
    return key
