"""`moe-bulk sandbox`."""

from __future__ import annotations

import signal
import sys
from typing import Annotated

from cyclopts import Group, Parameter

from moe_bulk.cli.app import app, examples
from moe_bulk.cli.values import read
from moe_bulk.config import Rate
from moe_bulk.errors import ConfigError
from moe_bulk.options import CONFIG, option
from moe_bulk.streams import Unbreakable

_GROUP = Parameter(group=Group("What it does", sort_key=1))


@app.command(
    help_epilogue=examples(
        "moe-bulk sandbox", "moe-bulk sandbox --port 0 --rate 1000/6s --faults '5xx=2%,latency=50ms..300ms'"
    )
)
def sandbox(
    *,
    port: Annotated[int, option("The port on 127.0.0.1; 0 takes any free one.", "N"), _GROUP] = 8080,
    rate: Annotated[
        str, option("The limit that it enforces: COUNT/min, COUNT/s, COUNT/6s.", "RATE"), _GROUP
    ] = "10000/min",
    faults: Annotated[
        str, option("What goes wrong, and how often: 5xx, 429, reset, hang; and latency=TIME..TIME.", "FAULTS"), _GROUP
    ] = "",
    config: Annotated[str | None, CONFIG] = None,
) -> int:
    """Run a local MoEngage to rehearse against; Ctrl-C ends it."""
    del config  # read before the arguments were
    import asyncio  # noqa: PLC0415

    from moe_bulk.sandbox import Faults, FaultsError, Limit, SandboxSettings, serve  # noqa: PLC0415  brings aiohttp

    limit = read("sandbox", "rate", Rate.parse, rate)
    try:
        settings = SandboxSettings(port=port, limit=Limit(limit.limit, limit.per), faults=Faults.parse(faults))
    except FaultsError as error:
        raise ConfigError(f"--faults: {error}") from None
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        asyncio.run(serve(settings, announce=Unbreakable(sys.stdout).say))
    except KeyboardInterrupt:
        return 0
    except OSError as error:
        raise ConfigError(f"port {port} cannot be used ({error.strerror}): choose another with --port") from None
    return 0
