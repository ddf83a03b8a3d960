"""What a person sees of a run, and how a person stops it. Nothing here can end a run: not even a lost terminal."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, Self

from moe_bulk.errors import AGAIN, Interrupted
from moe_bulk.page import visible
from moe_bulk.streams import Unbreakable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from anyio.abc import TaskGroup, TaskStatus

    from moe_bulk.meter import Meter
    from moe_bulk.metrics import MetricsFile
    from moe_bulk.progress import Mode
    from moe_bulk.tally import Summary
    from moe_bulk.uploader import Uploader
    from moe_bulk.view import RunView

LETTERS = "{dead letters}"

WARN_SECONDS = 1.0
"""How soon people are told of what is found while the run goes on."""


def stop_signals() -> tuple[signal.Signals, ...]:
    """The signals that stop a run: not those that whoever started it has told it to ignore (nohup)."""
    asked = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    return tuple(each for each in asked if signal.getsignal(each) is not signal.SIG_IGN)


@dataclass(frozen=True, slots=True)
class NextSteps:
    """What to type after a run: the command that goes on, and the one that sends a file of dead letters again."""

    go_on: str = ""
    """Empty where nobody can know: then it is the same command again."""
    resend: tuple[str, ...] = ("moe-bulk", "upload", LETTERS)
    """Its words, with `LETTERS` in the place of the file."""

    def resending(self, letters: Path) -> str:
        """The command that sends these dead letters again."""
        return shlex.join(str(letters) if word == LETTERS else word for word in self.resend)


@dataclass(frozen=True, slots=True)
class Manner:
    """How a run is shown: its progress, its summary as JSON on standard output, only what went wrong, as a log."""

    mode: Mode = "auto"
    as_json: bool = False
    quiet: bool = False
    as_log: bool = False


class Display:
    """Shows a run and obeys signals while it goes on: the first stops it orderly, the second leaves at once.

    Enter it around the run, `begin` it with the run's view, and `end` it after it was left. `plan` is said first.
    """

    def __init__(
        self,
        uploader: Uploader,
        manner: Manner,
        *,
        plan: str = "",
        steps: NextSteps | None = None,
        metrics: MetricsFile | None = None,
    ) -> None:
        from moe_bulk.progress import resolved  # noqa: PLC0415
        from moe_bulk.screen import Screen  # noqa: PLC0415

        self._uploader = uploader
        self._people = Unbreakable(sys.stderr)
        self._mode: Mode = "none" if manner.quiet else resolved(manner.mode, self._people)
        if manner.as_log and self._mode != "none":
            self._mode = "log"
        self._screen = Screen(self._people)
        self._as_json = manner.as_json
        self._as_lines = manner.mode == "json" and not manner.as_log
        self._quiet = manner.quiet
        self._as_log = manner.as_log
        self._plan = plan
        self._steps = steps or NextSteps()
        self._metrics = metrics
        self._stopping = False
        self._warned: set[str] = set()
        self._view: RunView | None = None
        self._meter: Meter | None = None
        self._tasks: TaskGroup | None = None

    async def __aenter__(self) -> Self:
        from anyio import create_task_group  # noqa: PLC0415

        self._tasks = await create_task_group().__aenter__()
        try:
            await self._tasks.start(self._obey_signals)
        except BaseException:
            await self.__aexit__(*sys.exc_info())
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        assert self._tasks is not None  # noqa: S101  it was entered
        self._tasks.cancel_scope.cancel()
        self._screen.clear()
        # The body's own exception leaves as itself, not in a group; only a cancellation is the group's affair.
        if kind is None or issubclass(kind, Exception):
            await self._tasks.__aexit__(None, None, None)
            return None
        return await self._tasks.__aexit__(kind, error, traceback)

    @property
    def run_id(self) -> str | None:
        """What tells the run that it shows from others, once there is one."""
        return None if self._view is None else self._view.run_id

    def begin(self, view: RunView) -> None:
        """The run starts."""
        from moe_bulk.meter import Meter  # noqa: PLC0415
        from moe_bulk.progress import show  # noqa: PLC0415

        self._view, self._meter = view, Meter(view)
        self._say(f"Results go to {view.folder}")
        if view.moved_to is not None:
            self._say(f"The earlier run there is now {view.moved_to}")
        if self._plan:
            self._say(self._plan)
        if view.sessions > 1:
            self._say(f"Going on with {view.tally.settled_rows:,} rows settled before")
        if self._metrics is not None:
            self._metrics.begin(view)
            if self._tasks is not None:
                self._tasks.start_soon(self._metrics.keep)
        self._warn()
        if self._tasks is not None and not self._quiet:
            self._tasks.start_soon(show, self._meter, self._mode, self._people, self._screen, self._uploader.epoch)
            self._tasks.start_soon(self._keep_warning)

    def end(self) -> None:
        """The run is over, one way or the other."""
        if self._view is None or self._view.summary is None:
            return
        if self._metrics is not None:
            self._metrics.write()
        self._warn()
        self._sum_up(self._view.summary, self._view.folder)
        self._screen.clear()

    def nothing_to_do(self, summary: Summary, folder: Path) -> None:
        """There was a finished run of the same: its summary once more. Where there was a run to show, it was shown."""
        if self._view is None:
            self._say(f"Finished before, in {folder}: nothing is sent. To send everything again, add --fresh")
            self._sum_up(summary, folder)
            self._screen.clear()
            if self._metrics is not None:
                self._metrics.finished_before(summary)

    def _sum_up(self, summary: Summary, folder: Path) -> None:
        import orjson  # noqa: PLC0415

        from moe_bulk.causes import shown  # noqa: PLC0415
        from moe_bulk.tally import lines, several  # noqa: PLC0415

        if self._as_log:
            self._log_next(summary, folder)
        elif self._as_lines:
            self._end_lines(summary)
        elif self._quiet and summary["failures"]:
            failed = f"Failed rows: {folder / 'dead-letter.ndjson'}"
            for line in [*shown(summary["failures"], several=several(summary)), failed]:
                self._people.say(visible(line))
        for line in lines(summary):
            self._say(line)
        for line in self._next(summary, folder):
            self._say(line)
        if self._as_json:
            Unbreakable(sys.stdout).say_json(orjson.dumps(summary, option=orjson.OPT_INDENT_2))

    def _end_lines(self, summary: Summary) -> None:
        """The last of the JSON lines: a run's numbers once more, also of one that was finished before, and its end."""
        import orjson  # noqa: PLC0415
        from anyio import current_time  # noqa: PLC0415

        from moe_bulk.meter import finished  # noqa: PLC0415

        if self._quiet and not summary["exit_code"]:
            return
        if self._meter is None:
            told = finished(summary, self._uploader.epoch())
        else:
            self._meter.look(current_time())
            told = self._meter.snapshot(self._uploader.epoch())
        how = {"exit_code": summary["exit_code"], "finished": "stopped" not in summary}
        self._people.say_json(orjson.dumps(told | how))

    def _next(self, summary: Summary, folder: Path) -> Iterator[str]:
        """Where everything is, and what to type next."""
        letters = folder / "dead-letter.ndjson"
        unfinished = "stopped" in summary
        yield f"Each row's result: {folder / 'results.ndjson'}"
        if (page := folder / "report.html").exists():
            yield f"All of it, plotted: {page}"
        if summary["failures"]:
            yield f"Failed rows{' so far' if unfinished else ''}: {letters}"
        if unfinished and summary["exit_code"] <= 1:  # of all else an error tells
            yield f"Not finished: {summary['stopped']}"
        elif unfinished:
            yield f"To go on: {self._steps.go_on or AGAIN}"
        elif summary["failures"]:
            yield f"To send them again, corrected or not: {self._steps.resending(letters)}"

    def _log_next(self, summary: Summary, folder: Path) -> None:
        from moe_bulk.chronicle import tell  # noqa: PLC0415

        unfinished = "stopped" in summary
        if not unfinished and not summary["failures"]:
            return
        message = "to go on" if unfinished else "to send the dead letters again, corrected or not"
        command = self._steps.go_on if unfinished else self._steps.resending(folder / "dead-letter.ndjson")
        tell(logging.INFO, "next", message, {"command": command or None}, self.run_id)

    def _say(self, text: str) -> None:
        """Tell people; machines that read the progress as JSON get nothing else."""
        if not self._quiet and not self._as_log and not self._as_lines:
            self._screen.say(visible(text))

    def _warn(self) -> None:
        found = self._view.warnings if self._view is not None else []
        if self._metrics is not None and self._metrics.trouble is not None:
            found.append(self._metrics.trouble)
        for warning in found:
            if warning not in self._warned:
                self._warned.add(warning)
                self._say(f"Note: {warning}")

    async def _keep_warning(self) -> None:
        from anyio import sleep  # noqa: PLC0415

        while True:
            await sleep(WARN_SECONDS)
            self._warn()

    async def _obey_signals(self, *, task_status: TaskStatus[None]) -> None:
        from anyio import open_signal_receiver  # noqa: PLC0415

        # Ctrl-Z, where there is a picture that the shell would write into
        paused = (signal.SIGTSTP,) if self._mode == "bar" and signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL else ()
        with open_signal_receiver(*stop_signals(), *paused) as signals:
            task_status.started()
            async for signum in signals:
                if signum == signal.SIGTSTP:
                    self._stand_still()
                else:
                    self._obey(signum)

    def _stand_still(self) -> None:
        """Take the picture away and wait for the shell's `fg`; it is painted again then."""
        if self._people.ready:
            self._screen.clear()
        ours = signal.signal(signal.SIGTSTP, signal.SIG_DFL)  # SIGSTOP would stop it where no shell could go on with it
        signal.raise_signal(signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, ours)

    def _obey(self, signum: signal.Signals) -> None:
        if self._stopping or self._view is None:  # nothing was sent before there is something to see
            if self._people.ready:
                self._screen.clear()
            leave_now(128 + signum)
        self._stopping = True
        name = signal.Signals(signum).name
        self._say(f"{name}: taking in what is on its way (8 s at most); once more to leave at once")
        self._uploader.stop(Interrupted(f"interrupted by {name}: {AGAIN} to go on", signum))


def leave_now(code: int) -> NoReturn:
    """End the process without waiting for anything."""
    stderr = Unbreakable(sys.stderr)
    if stderr.ready:
        stderr.say("")
    os._exit(code)
