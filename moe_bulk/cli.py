"""The command line: arguments → library calls → exit code."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import AsyncExitStack, suppress
from functools import partial
from getpass import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

from cyclopts import App, CycloptsError, Parameter
from cyclopts.config import Dict

from moe_bulk.config import Credentials, FailureLimit, Network, Rate, Retry, parse_duration
from moe_bulk.display import Unbreakable, let_go_of, open_standard_streams
from moe_bulk.errors import AGAIN, ConfigError, MoeBulkError, RunStopped
from moe_bulk.options import Destination, Input, Output, Pacing, option
from moe_bulk.settings import (
    DESTINATION_VARIABLES,
    config_argument,
    one_destination,
    read_key_file,
    read_query,
    read_settings,
    suggest,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from moe_bulk.intake import Files, Query
    from moe_bulk.known import ChangedOnly
    from moe_bulk.uploader import PaceOf


def _version() -> str:
    from importlib.metadata import version  # noqa: PLC0415  40 ms that only --version needs

    return version("moe-bulk")


app = App(
    name="moe-bulk",
    help="Deliver device records in bulk to MoEngage's Track Device API: a result for every row, never over the limit.",
    help_format="plaintext",
    version=_version,
    result_action="return_value",
)


SANDBOX_IN_FLIGHT = 128
"""An embedded sandbox holds the other end of each connection, from the same allowance of open files."""


@app.command
def upload(
    source: Annotated[
        list[str] | None,
        Parameter(help="A path, a glob, a URL, or - for standard input.", allow_leading_hyphen=True, negative=""),
    ] = None,
    /,
    *,
    destination: Destination = Destination(),
    pacing: Pacing = Pacing(),
    reading: Input = Input(),
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

    return asyncio.run(_Upload(tuple(source or ()), destination, pacing, reading, output).carry_out())


@app.command
def presets() -> int:
    """List the exports that `upload --preset NAME` knows: what each is, and the columns that it expects."""
    from moe_bulk.presets import listing  # noqa: PLC0415

    print(listing())
    return 0


@app.command
def sandbox(
    *,
    port: Annotated[int, option("The port on 127.0.0.1; 0 takes any free one.")] = 8080,
    rate: Annotated[str, option("The limit that it enforces: COUNT/min, COUNT/s, COUNT/6s.")] = "10000/min",
    faults: Annotated[str, option("Such as 5xx=2%,429=1%,reset=1%,hang=0.1%,latency=50ms..300ms.")] = "",
) -> int:
    """Run a local MoEngage to rehearse against; Ctrl-C ends it."""
    import asyncio  # noqa: PLC0415

    from moe_bulk.sandbox import Faults, FaultsError, Limit, SandboxSettings, serve  # noqa: PLC0415  brings aiohttp

    limit = Rate.parse(rate)
    try:
        settings = SandboxSettings(port=port, limit=Limit(limit.limit, limit.per), faults=Faults.parse(faults))
    except FaultsError as error:
        raise ConfigError(f"--faults: {error}") from None
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        asyncio.run(serve(settings, announce=partial(print, flush=True)))
    except KeyboardInterrupt:
        return 0
    except OSError as error:
        raise ConfigError(f"port {port} cannot be used ({error.strerror}): choose another with --port") from None
    return 0


class _Upload:
    """One `moe-bulk upload` from its arguments to its exit code."""

    def __init__(
        self, sources: tuple[str, ...], destination: Destination, pacing: Pacing, reading: Input, output: Output
    ) -> None:
        _refuse_options(sources)
        self._sources = _sources(sources, reading)
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
        self._changed_only = _changed_only(reading)
        self._max_failures = FailureLimit.parse(pacing.max_failures) if pacing.max_failures else None
        # Asked for before there is an event loop, which would keep Ctrl-C at the prompt for itself.
        self._credentials = None if destination.sandbox else self._real_credentials()

    async def carry_out(self) -> int:
        """Deliver, show it, say what came of it."""
        from moe_bulk.columns import Columns  # noqa: PLC0415  the rest of the program, for the commands that need it
        from moe_bulk.display import Display  # noqa: PLC0415
        from moe_bulk.intake import Reading  # noqa: PLC0415
        from moe_bulk.naming import default_out  # noqa: PLC0415
        from moe_bulk.uploader import Uploader  # noqa: PLC0415

        said, shown = self._reading, self._output
        columns = Columns.parse(
            said.column,
            said.set_,
            said.where,
            validate=said.validate,
            include_superseded=said.include_superseded,
            preset=said.preset,
        )
        reading = Reading(columns, said.format, said.limit)
        named = self._sources if said.query is None else ("query",)
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
                        self._rows(),
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

    def _rows(self) -> Files | Query:
        from moe_bulk.intake import Files, Query  # noqa: PLC0415
        from moe_bulk.naming import expand  # noqa: PLC0415

        if self._reading.query is None:
            return Files(expand(self._sources, Path.cwd()))
        return Query(self._sources[0], read_query(self._reading.query))

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


def _changed_only(said: Input) -> ChangedOnly | None:
    resend_after = parse_duration(said.resend_after)
    if not said.changed_only:
        if said.state:
            raise ConfigError("--state says where --changed-only remembers what was accepted: give both, or neither")
        return None
    from moe_bulk.known import ChangedOnly  # noqa: PLC0415  brings SQLite

    return ChangedOnly(said.state, resend_after)


def _options(command: str) -> Iterator[str]:
    """The names of a command's options, with their dashes."""
    for argument in app[command].assemble_argument_collection():
        yield from (name for name in argument.names if name.startswith("-"))


def _refuse_options(sources: Sequence[str]) -> None:
    """Words that begin with a dash end up among the sources: `-` is one, the others are mistakes."""
    for source in sources:
        if source.startswith("-") and source != "-":
            name = source.partition("=")[0]  # never its value: it may be a key
            raise ConfigError(f"there is no option {name}.{suggest(name, _options('upload'))}")


def _sources(sources: tuple[str, ...], reading: Input) -> tuple[str, ...]:
    """What is to be read; a database's URL may come from the environment, for its password's sake."""
    if reading.query is None:
        if not sources:
            raise ConfigError("upload what? Name a file, a glob or a URL, or - for standard input")
        return sources
    sources = sources or tuple(filter(None, [os.environ.get("MOE_BULK_SQL_URL", "").strip()]))
    if len(sources) != 1 or "://" not in sources[0]:
        raise ConfigError("--query goes with one source, a database's URL, or with MOE_BULK_SQL_URL in its place")
    if reading.format != "auto":
        raise ConfigError("--format is for files: what a query gives has its types already")
    return sources


def _config(argv: Sequence[str]) -> tuple[Dict, ...]:
    """What the settings file says, for `upload`; read before the arguments, which may come from it."""
    if not argv or argv[0] != "upload":
        return ()
    known = {name.lstrip("-") for name in _options("upload") if name.startswith("--")} - {"config"}
    path, said = read_settings(config_argument(argv), known, Path.cwd())
    if any(os.environ.get(name) for name in DESTINATION_VARIABLES) or any(
        word.startswith(("--data-center", "--base-url")) for word in argv
    ):
        # One place says where the data goes: a flag, else the environment, else the file.
        said = {name: value for name, value in said.items() if name not in ("data-center", "base-url")}
    # Beneath the command's name: at the top, `sandbox` would be taken for the command and dropped.
    return (Dict({"upload": said}, source=path),) if said else ()


def run(argv: Sequence[str]) -> int:
    """Carry out one command line and return its exit code."""
    try:
        app.config = _config(argv)
        code = app(argv, exit_on_error=False, print_error=True)
    except MoeBulkError as error:
        Unbreakable(sys.stderr).say(f"moe-bulk: {error}")
        return error.exit_code
    except CycloptsError:
        return 2
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001  a bug of ours: Python's own code for it, 1, would say that all is settled
        import traceback  # noqa: PLC0415

        Unbreakable(sys.stderr).say("".join(traceback.format_exception(error)).rstrip())
        Unbreakable(sys.stderr).say(f"moe-bulk: this should not happen, please report it. To go on, {AGAIN}")
        return RunStopped.exit_code
    return code if isinstance(code, int) else 0


def main() -> NoReturn:
    """The program `moe-bulk`."""
    open_standard_streams()
    code = run(sys.argv[1:])
    let_go_of(sys.stdout)
    let_go_of(sys.stderr)
    sys.exit(code)
