"""`moe-bulk upload`."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import AsyncExitStack, suppress
from getpass import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from moe_bulk.cli.app import app
from moe_bulk.cli.sources import named_sources, reading_of, rows_of
from moe_bulk.config import Credentials, FailureLimit, Network, Rate, Retry, parse_duration
from moe_bulk.errors import ConfigError
from moe_bulk.options import Changes, Destination, Input, Output, Pacing, Sources, option
from moe_bulk.settings import one_destination, read_key_file

if TYPE_CHECKING:
    from moe_bulk.known import ChangedOnly
    from moe_bulk.uploader import PaceOf

SANDBOX_IN_FLIGHT = 128
"""An embedded sandbox holds the other end of each connection, from the same allowance of open files."""


@app.command
def upload(
    source: Sources = None,
    /,
    *,
    destination: Destination = Destination(),
    pacing: Pacing = Pacing(),
    reading: Input = Input(),
    changes: Changes = Changes(),
    output: Output = Output(),
    config: Annotated[str | None, option("A TOML file with the same names; else ./moe-bulk.toml.")] = None,
) -> int:
    """Deliver device records; SOURCE is a path, a glob, a URL, or - for standard input.

    Exit codes: 0 all accepted or nothing to do; 1 finished, the dead letter is not empty; 2 wrong usage, configuration
    or input; 3 stopped early; 4 another upload holds this run; 129/130/143 interrupted. After 3 and an interruption the
    same command goes on where it stopped; nothing is lost, nothing settled twice.
    """
    del config  # read before the arguments were
    import asyncio  # noqa: PLC0415  --help needs no event loop

    command = _Upload(tuple(source or ()), destination, pacing, reading, changes, output)
    if pacing.check_first:
        command.check_first()
    return asyncio.run(command.carry_out())


class _Upload:
    """One `moe-bulk upload` from its arguments to its exit code."""

    def __init__(
        self,
        sources: tuple[str, ...],
        destination: Destination,
        pacing: Pacing,
        reading: Input,
        changes: Changes,
        output: Output,
    ) -> None:
        self._sources = named_sources("upload", sources, reading)
        self._destination = destination
        self._reading = reading
        self._output = output
        self._rate = Rate.parse(pacing.rate)
        # Nobody else can send to a sandbox that is embedded in this process.
        self._pace: PaceOf = "process" if destination.sandbox else pacing.pace
        self._retry = Retry(tries=pacing.tries, outage_limit=parse_duration(pacing.outage_limit))
        in_flight = SANDBOX_IN_FLIGHT if destination.sandbox and pacing.in_flight is None else pacing.in_flight
        self._network = Network(
            timeout=parse_duration(pacing.timeout), in_flight=in_flight, ca_bundle=destination.ca_bundle
        )
        self._changed_only = _changed_only(changes)
        self._max_failures = FailureLimit.parse(pacing.max_failures) if pacing.max_failures else None
        # Asked for before there is an event loop, which would keep Ctrl-C at the prompt for itself.
        self._credentials = None if destination.sandbox else self._real_credentials()

    def check_first(self) -> None:
        """Read it all before anything is sent; raises InputRefused where too many rows would fail."""
        if "-" in self._sources:
            raise ConfigError("--check-first reads the input twice, which standard input cannot be: save it as a file")
        from moe_bulk.checking import refuse_above  # noqa: PLC0415  brings DuckDB
        from moe_bulk.cli.check import look  # noqa: PLC0415

        findings = look(self._sources, self._reading, self._rate, quiet=self._output.quiet)
        refuse_above(self._max_failures, findings)

    async def carry_out(self) -> int:
        """Deliver, show it, say what came of it."""
        from moe_bulk.display import Display  # noqa: PLC0415  the rest of the program
        from moe_bulk.naming import default_out  # noqa: PLC0415
        from moe_bulk.uploader import Uploader  # noqa: PLC0415

        shown, reading, rows = self._output, reading_of(self._reading), rows_of(self._sources, self._reading)
        named = self._sources if self._reading.query is None else ("query",)
        out = shown.out or default_out(named, sandbox=self._destination.sandbox, cwd=Path.cwd())
        async with AsyncExitStack() as stack:
            credentials = self._credentials or await self._stand_in(stack)
            uploader = await stack.enter_async_context(
                Uploader(credentials, rate=self._rate, retry=self._retry, network=self._network, pace=self._pace)
            )
            plan = self._plan(credentials) if shown.verbose else ""
            display = Display(uploader, shown.progress, as_json=shown.json, quiet=shown.quiet, plan=plan)
            try:
                async with display:
                    summary = await uploader.run(
                        rows,
                        out=out,
                        fresh=shown.fresh,
                        if_changed=shown.if_changed,
                        keep_runs=shown.keep_runs,
                        reading=reading,
                        max_failures=self._max_failures,
                        changed_only=self._changed_only,
                        watch=display.begin,
                    )
            finally:
                display.end()
            display.nothing_to_do(summary, Path(out))
            return summary["exit_code"]

    def _plan(self, credentials: Credentials) -> str:
        shared = ", shared with your other uploads here" if self._pace == "host" else ""
        return (
            f"Sending to {credentials.host} as {credentials.workspace_id}: at most {self._rate}{shared}, "
            f"{self._network.most_in_flight} in flight, {self._network.timeout:g} s a request, "
            f"{self._retry.tries} tries a row"
        )

    async def _stand_in(self, stack: AsyncExitStack) -> Credentials:
        from moe_bulk.sandbox import Limit, Sandbox, SandboxSettings  # noqa: PLC0415  brings aiohttp's server

        limit = Limit(self._rate.limit, self._rate.per)
        sandbox = await stack.enter_async_context(Sandbox(SandboxSettings(limit=limit, keep=0)))
        return Credentials(sandbox.workspace_id, sandbox.api_key, base_url=sandbox.url)

    def _real_credentials(self) -> Credentials:
        said = self._destination
        if not said.workspace_id:
            raise ConfigError("which workspace? Set MOENGAGE_WORKSPACE_ID or --workspace-id (or try --sandbox first)")
        data_center, base_url = one_destination(said.data_center, said.base_url, os.environ)
        return Credentials(said.workspace_id, self._key(), data_center=data_center, base_url=base_url or "")

    def _key(self) -> str:
        if self._destination.api_key_file:
            return read_key_file(self._destination.api_key_file)
        key = os.environ.get("MOENGAGE_API_KEY", "").strip()
        if not key and "-" not in self._sources and sys.stdin is not None and sys.stdin.isatty():
            signal.signal(signal.SIGINT, signal.default_int_handler)  # or the terminal would stay without an echo
            with suppress(EOFError):
                key = getpass("Data API key (not shown): ").strip()
        if not key:
            raise ConfigError("no API key: set MOENGAGE_API_KEY, or name a file that holds it with --api-key-file")
        return key


def _changed_only(said: Changes) -> ChangedOnly | None:
    resend_after = parse_duration(said.resend_after)
    if not said.changed_only:
        if said.state:
            raise ConfigError("--state says where --changed-only remembers what was accepted: give both, or neither")
        return None
    from moe_bulk.known import ChangedOnly  # noqa: PLC0415  brings SQLite

    return ChangedOnly(said.state, resend_after)
