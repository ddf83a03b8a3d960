"""`moe-bulk doctor`."""

from __future__ import annotations

import shutil
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Annotated

from moe_bulk.cli.app import app, examples
from moe_bulk.cli.destination import in_flight_of, real_credentials, stand_in
from moe_bulk.cli.values import read, read_network, read_pace
from moe_bulk.config import Rate
from moe_bulk.options import CONFIG, OUTPUT, Destination, Load, option
from moe_bulk.streams import Unbreakable

if TYPE_CHECKING:
    from moe_bulk.config import Credentials, Network
    from moe_bulk.doctor import Finding
    from moe_bulk.pacing.sharing import PaceOf

WIDEST = 100


@app.command(
    help_epilogue=examples(
        "moe-bulk doctor",
        "moe-bulk doctor --data-center 03 --rate 20000/min --json",
        "moe-bulk doctor --sandbox",
    )
)
def doctor(
    *,
    destination: Destination = Destination(),
    load: Load = Load(),
    json: Annotated[bool, option("Print the findings as JSON on standard output.", group=OUTPUT)] = False,
    config: Annotated[str | None, CONFIG] = None,
) -> int:
    """Look at everything that an upload needs, before a long run.

    Network, TLS, the key, clocks, latency, limits, and this machine, each with
    a remedy. Sends some Test connections, and no device. Exit codes:

    0  nothing fails
    1  something does
    2  wrong usage or configuration
    """
    del config  # read before the arguments were
    import asyncio  # noqa: PLC0415  --help needs no event loop

    rate = read("doctor", "rate", Rate.parse, load.rate)
    network = read_network("doctor", destination, load.timeout, in_flight_of(destination, load.in_flight))
    pace = read_pace("doctor", load.pace, None)
    credentials = real_credentials(destination)
    return asyncio.run(_examine(credentials, rate, network, pace, as_json=json))


async def _examine(
    credentials: Credentials | None, rate: Rate, network: Network, pace: PaceOf, *, as_json: bool
) -> int:
    from moe_bulk import doctor as room  # noqa: PLC0415  brings the HTTP stack

    out, width = Unbreakable(sys.stdout), min(shutil.get_terminal_size().columns, WIDEST)

    def tell(finding: Finding) -> None:
        if not as_json:
            out.say(room.as_text(finding, width))

    async with AsyncExitStack() as stack:
        findings = await room.examine(credentials or await stand_in(stack, rate), rate, network, tell, pace)
    if as_json:
        import orjson  # noqa: PLC0415

        out.say_json(orjson.dumps(room.as_json(findings), option=orjson.OPT_INDENT_2))
    else:
        out.say(room.closing(findings))
    return room.exit_code(findings)
