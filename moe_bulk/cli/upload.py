"""`moe-bulk upload`."""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from moe_bulk.cli.again import destination_words, next_steps
from moe_bulk.cli.app import app, examples
from moe_bulk.cli.complaint import as_last_line
from moe_bulk.cli.destination import in_flight_of, real_credentials, stand_in
from moe_bulk.cli.sources import named_sources, reading_of, rows_of
from moe_bulk.cli.values import read, read_network, read_pace
from moe_bulk.config import FailureLimit, Rate, Retry, parse_duration
from moe_bulk.display import Display, Manner
from moe_bulk.errors import ConfigError
from moe_bulk.jsonlog import write_to
from moe_bulk.options import CONFIG, Changes, Destination, Input, Output, Pacing, Sources
from moe_bulk.streams import Unbreakable

if TYPE_CHECKING:
    from moe_bulk.config import Credentials
    from moe_bulk.known import ChangedOnly
    from moe_bulk.metrics import MetricsFile
    from moe_bulk.pacing.sharing import PaceOf


@app.command(
    usage="Usage: moe-bulk upload [OPTIONS] SOURCE...",
    help_epilogue=examples(
        "moe-bulk upload devices.csv",
        "moe-bulk upload 'exports/*.csv.gz' --column push_id=token --set platform=iOS",
        "zcat devices.csv.gz | moe-bulk upload - --format csv",
        "moe-bulk upload onesignal.csv --preset onesignal --sandbox",
        "moe-bulk upload devices.csv.run/dead-letter.ndjson",
    ),
)
def upload(
    source: Sources = None,
    /,
    *,
    destination: Destination = Destination(),
    pacing: Pacing = Pacing(),
    reading: Input = Input(),
    changes: Changes = Changes(),
    output: Output = Output(),
    config: Annotated[str | None, CONFIG] = None,
) -> int:
    """Deliver device records: files, globs, URLs, a database, or standard input.

    Results go to the folder SOURCE.run. Exit codes:

    0  all accepted, or nothing to do
    1  finished, but the dead letter is not empty
    2  wrong usage, configuration or input
    3  stopped early: run the same command again, it goes on where it stopped
    4  another upload is at work in this folder
    129, 130, 143  interrupted: run the same command again
    """
    del config  # read before the arguments were
    from moe_bulk.cli import loop  # noqa: PLC0415  --help needs no event loop

    command: list[_Upload] = []

    def carry_out() -> int:
        command.append(_Upload(tuple(source or ()), destination, pacing, reading, changes, output))
        if pacing.check_first:
            command[0].check_first()
        return loop.run(command[0].carry_out())

    if output.progress == "json" and not output.log_json:
        return as_last_line(carry_out, lambda: command[0].run_id if command else None)
    return carry_out()


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
        if output.log_json:
            write_to(Unbreakable(sys.stderr), quiet=output.quiet)
        self._display: Display | None = None
        self._sources = named_sources("upload", sources, reading)
        self._destination = destination
        self._reading = reading
        self._output = output
        self._rate = read("upload", "rate", Rate.parse, pacing.rate)
        pace = read_pace("upload", pacing.pace, pacing.pace_fallback)
        # Nobody else can send to a sandbox that is embedded in this process.
        self._pace: PaceOf = "process" if destination.sandbox else pace
        outage_limit = read("upload", "outage-limit", parse_duration, pacing.outage_limit)
        self._retry = read("upload", "tries", lambda said: Retry(tries=said, outage_limit=outage_limit), pacing.tries)
        self._network = read_network("upload", destination, pacing.timeout, in_flight_of(destination, pacing.in_flight))
        self._changed_only = _changed_only(changes)
        self._metrics = _metrics(output.metrics_file)
        most = pacing.max_failures
        self._max_failures = read("upload", "max-failures", FailureLimit.parse, most) if most else None
        self._credentials = real_credentials(destination, may_ask="-" not in self._sources)

    @property
    def run_id(self) -> str | None:
        """What tells its run from others, once there is one."""
        return None if self._display is None else self._display.run_id

    def check_first(self) -> None:
        """Read it all before anything is sent; raises InputRefused where too many rows would fail."""
        if "-" in self._sources:
            raise ConfigError("--check-first reads the input twice, which standard input cannot be: save it as a file")
        from moe_bulk.checking import refuse_above  # noqa: PLC0415  brings DuckDB
        from moe_bulk.cli.check import look  # noqa: PLC0415

        shown = self._output
        silent = shown.quiet or shown.log_json or shown.progress in ("json", "none")
        findings = look(self._sources, self._reading, self._rate, quiet=silent)
        refuse_above(self._max_failures, findings)

    async def carry_out(self) -> int:
        """Deliver, show it, say what came of it."""
        from moe_bulk.naming import default_out  # noqa: PLC0415  the rest of the program
        from moe_bulk.uploader import Uploader  # noqa: PLC0415

        shown, reading, rows = self._output, reading_of(self._reading), rows_of(self._sources, self._reading)
        named = self._sources if self._reading.query is None else ("query",)
        out = shown.out or default_out(named, sandbox=self._destination.sandbox, cwd=Path.cwd())
        async with AsyncExitStack() as stack:
            credentials = self._credentials or await stand_in(stack, self._rate)
            uploader = await stack.enter_async_context(
                Uploader(credentials, rate=self._rate, retry=self._retry, network=self._network, pace=self._pace)
            )
            plan = self._plan(credentials) if shown.verbose else ""
            manner = Manner(shown.progress, as_json=shown.json, quiet=shown.quiet, as_log=shown.log_json)
            display = self._display = Display(
                uploader, manner, plan=plan, steps=next_steps(sys.argv), metrics=self._metrics
            )
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
                        also=self._noted(),
                    )
            finally:
                display.end()
            display.nothing_to_do(summary, Path(out))
            return summary["exit_code"]

    def _noted(self) -> dict[str, object]:
        """What the run notes of this command, so that its page and `report` say the same as its own end."""
        from moe_bulk.deadletter import clean  # noqa: PLC0415  the rest of the program

        options = [clean(word) for word in destination_words(sys.argv[1:])]
        return {"sandbox": self._destination.sandbox, "options": options}

    def _plan(self, credentials: Credentials) -> str:
        shared = {"host": ", shared with your other uploads here", "process": ""}.get(
            str(self._pace), f", shared through {self._pace}"
        )
        return (
            f"Sending to {credentials.host} as {credentials.workspace_id}: at most {self._rate}{shared}, "
            f"{self._network.most_in_flight} in flight, {self._network.timeout:g} s a request, "
            f"{self._retry.tries} tries a row"
        )


def _metrics(file: str | None) -> MetricsFile | None:
    if file is None:
        return None
    try:
        from moe_bulk.metrics import MetricsFile  # noqa: PLC0415  brings prometheus_client, where it is installed
    except ImportError as error:
        raise ConfigError(str(error)) from None
    return MetricsFile(file)


def _changed_only(said: Changes) -> ChangedOnly | None:
    resend_after = read("upload", "resend-after", parse_duration, said.resend_after)
    if not said.changed_only:
        if said.state:
            raise ConfigError("--state says where --changed-only remembers what was accepted: give both, or neither")
        return None
    from moe_bulk.known import ChangedOnly  # noqa: PLC0415  brings SQLite

    return ChangedOnly(said.state, resend_after)
