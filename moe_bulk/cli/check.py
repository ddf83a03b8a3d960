"""`moe-bulk check`."""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, TextIO, cast

from moe_bulk.cli.app import app, examples
from moe_bulk.cli.sources import named_sources, reading_of, rows_of
from moe_bulk.cli.values import read
from moe_bulk.config import Rate
from moe_bulk.display import stop_signals
from moe_bulk.errors import ConfigError
from moe_bulk.options import CONFIG, OUTPUT, PACING, Input, Sources, option
from moe_bulk.streams import Unbreakable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

    from moe_bulk.checking import Findings
    from moe_bulk.intake import Files, Query

PLAIN_SECONDS = 15.0


@app.command(
    usage="Usage: moe-bulk check [OPTIONS] SOURCE...",
    help_epilogue=examples(
        "moe-bulk check devices.csv",
        "moe-bulk check 'exports/*.csv.gz' --column push_id=token --html found.html",
        "moe-bulk check onesignal.csv --preset onesignal --json",
        "moe-bulk upload devices.csv --check-first --max-failures 1%",
    ),
)
def check(
    source: Sources = None,
    /,
    *,
    reading: Input = Input(),
    rate: Annotated[
        str, option("The rate at which you will send: COUNT/min or COUNT/s.", "RATE", env="MOE_BULK_RATE", group=PACING)
    ] = "10000/min",
    html: Annotated[str | None, option("Write what was found as a page, too.", "FILE", group=OUTPUT)] = None,
    json: Annotated[bool, option("Print what was found as JSON on standard output.", group=OUTPUT)] = False,
    quiet: Annotated[bool, option("Say nothing: the exit code does.", name=["--quiet", "-q"], group=OUTPUT)] = False,
    config: Annotated[str | None, CONFIG] = None,
) -> int:
    """Read a whole input without sending it, and say what would come of it.

    It finds rows that would fail, devices that stand in several rows, push tokens
    and advertising ids that several devices have, users with too many devices or
    rows, values that are hardly meant, and says what the upload takes. Exit codes:

    0  no row would fail
    1  some would
    2  wrong usage, configuration or input
    """
    del config  # read before the arguments were
    from moe_bulk.checking.telling import as_page, lines  # noqa: PLC0415  the rest of the program

    sources = named_sources("check", source or (), reading)
    if html is not None:
        _refuse_page(html, rows_of(sources, reading))
    findings = look(sources, reading, read("check", "rate", Rate.parse, rate), quiet=quiet)
    if json:
        _print_json(findings)
    elif not quiet:
        Unbreakable(sys.stdout).say("\n".join(lines(findings)))
    if html is not None:
        _write(Path(html), as_page(findings))
    return findings["exit_code"]


def look(sources: Sequence[str], said: Input, rate: Rate, *, quiet: bool) -> Findings:
    """Check the named sources, show people how far it is, and leave nothing behind when it is stopped."""
    from moe_bulk.checking import check as check_rows  # noqa: PLC0415  brings DuckDB

    reading, rows = reading_of(said), rows_of(sources, said)
    with ExitStack() as stack:
        watch = None if quiet else _progress(stack)
        stack.enter_context(_leaving_nothing())
        return check_rows(rows, reading=reading, rate=rate, watch=watch)


def _progress(stack: ExitStack) -> Callable[[int, int | None, int], None]:
    """Show people how far it is: a bar on a terminal, elsewhere a line every now and then."""
    people = Unbreakable(sys.stderr)
    if not people.isatty():
        return _Lines(people).watch
    from rich.console import Console  # noqa: PLC0415  60 ms that only a terminal needs
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = BarColumn(20), TextColumn("{task.fields[rows]:,} rows"), TimeRemainingColumn()
    console = Console(file=cast("TextIO", people))
    bar = stack.enter_context(Progress(*columns, console=console, transient=True))
    task = bar.add_task("", total=None, rows=0)
    return lambda read, total, rows: bar.update(task, completed=read, total=total, rows=rows)


class _Lines:
    def __init__(self, people: Unbreakable) -> None:
        self._people = people
        self._said = time.monotonic()

    def watch(self, read: int, total: int | None, rows: int) -> None:
        if (now := time.monotonic()) - self._said >= PLAIN_SECONDS:
            self._said = now
            share = f", {read / total:.0%}" if total else ""
            self._people.say(f"{rows:,} rows looked at{share}")


@contextmanager
def _leaving_nothing() -> Iterator[None]:
    """Within it, signals that end the program let it tidy up first."""
    asked: list[int] = []

    def leave(signum: int, _frame: FrameType | None) -> NoReturn:
        asked.append(signum)
        # a file that was just opened, and is nobody's yet, is closed by the program's end: not worth a word
        warnings.simplefilter("ignore", ResourceWarning)
        raise SystemExit(128 + signum)

    before = {each: signal.signal(each, leave) for each in stop_signals()}
    try:
        yield
    except Exception:
        if asked:  # DuckDB makes an error of its own of what interrupts it
            raise SystemExit(128 + asked[0]) from None
        raise
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _refuse_page(html: str, rows: Files | Query) -> None:
    """Before an input is read for minutes: say where its page cannot go. What is read is never written over."""
    if not html or "\0" in html or os.path.isdir(html):  # noqa: PTH112  as elsewhere with names from the command line
        raise ConfigError(f"--html {html!r} names no file: write it like --html findings.html")
    if not os.path.isdir(folder := os.path.dirname(os.path.abspath(html))):  # noqa: PTH100, PTH112, PTH120  as above
        raise ConfigError(f"--html: there is no folder {folder}: make it first")
    for path in getattr(rows, "paths", ()):
        with suppress(OSError, ValueError):  # a URL, or what the reading will say more of
            if os.path.samefile(path, html):  # noqa: PTH121  as above
                raise ConfigError(f"--html {html} is what is to be read: name another file")


def _write(path: Path, text: str) -> None:
    try:
        with open(path, "w", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(f"--html: {path} cannot be written: {error.strerror}") from None


def _print_json(findings: Findings) -> None:
    import orjson  # noqa: PLC0415

    Unbreakable(sys.stdout).say_json(orjson.dumps(findings, option=orjson.OPT_INDENT_2))
