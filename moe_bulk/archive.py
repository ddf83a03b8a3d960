"""A run that is there already: found by its folder or by its source, and read as it is."""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import orjson

from moe_bulk.axis import moment
from moe_bulk.checkpoint import Checkpoint
from moe_bulk.config import HIGHEST_LIMIT, Rate
from moe_bulk.errors import ConfigError
from moe_bulk.folders import names_in, open_folder
from moe_bulk.latency import Latency
from moe_bulk.naming import CHECKPOINT, REPORT, SUMMARY, default_out, looks_like_run
from moe_bulk.page import visible
from moe_bulk.recap import told
from moe_bulk.report import Told, document
from moe_bulk.tally import Tally
from moe_bulk.timeline import Timeline

if TYPE_CHECKING:
    from pathlib import Path

    from moe_bulk.tally import Summary

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DAMAGE = (KeyError, TypeError, ValueError, AttributeError, OverflowError, IndexError, ZeroDivisionError)
"""What comes of numbers that are none; the year 300,000 is an OverflowError."""

_NO_END = "it is still going on, or was ended before it could say why"


@dataclass(frozen=True, slots=True)
class Past:
    """What a run folder tells: its numbers, the page that shows them, and what there is to say of the files.

    `saved` is what the checkpoint tells, None where it is missing or damaged; `from_checkpoint` is True where these are
    the numbers, because there is no summary that can be read. `damage` is what the notes say of files.
    """

    told: Told
    page: str
    saved: Summary | None
    from_checkpoint: bool
    damage: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def finished(self) -> bool:
        """Whether every row has its result, and the run has ended."""
        return "stopped" not in self.told.summary

    @property
    def has_page(self) -> bool:
        """Whether `report.html` is there."""
        return os.path.lexists(self.told.folder / REPORT)


def find(given: str, cwd: Path) -> Path:
    """The run folder that is meant: named itself, or by the source that it belongs to; ConfigError where there is none.

    Beside a source the run comes before its rehearsal, `<source>.sandbox.run`.
    """
    path = cwd / given if "://" not in given else None
    if path is not None and path.is_dir() and looks_like_run(os.listdir(path)):  # noqa: PTH208  names are all it takes
        return path
    if path is not None and path.name in (SUMMARY, REPORT, CHECKPOINT) and path.is_file():
        return path.parent
    try:
        beside = [default_out([given], sandbox=sandbox, cwd=cwd) for sandbox in (False, True)]
    except ConfigError:
        beside = []
    for each in beside:
        if each.is_dir() and looks_like_run(os.listdir(each)):  # noqa: PTH208
            return each
    missing = "" if path is None or path.exists() else ", and does not exist"
    tried = f", and there is no {visible(str(beside[0]))}" if beside and not missing else ""
    raise ConfigError(
        f"{visible(given)} is no run folder{missing}{tried}: name the folder that `moe-bulk upload` wrote, "
        "devices.csv.run say, or its source"
    )


def look(folder: Path) -> Past:
    """What the folder tells, nothing in it changed; ConfigError where neither summary nor checkpoint can be read."""
    notes: list[str] = []
    with ExitStack() as stack:
        try:
            fd = open_folder(stack, str(folder))
            names_in(fd)
            raw = {name: _read(fd, name) for name in (SUMMARY, CHECKPOINT)}
        except OSError as error:
            raise ConfigError(f"{visible(str(folder))} cannot be read: {error.strerror}") from error
    checkpoint = _checkpoint(raw[CHECKPOINT], notes)
    tally = _tally(checkpoint, notes)
    timeline, latency = (tally.timeline, tally.latency) if tally is not None else (Timeline(1, 1.0), Latency())
    summary, page = _summary(raw[SUMMARY], timeline, latency, folder, notes)
    if summary is not None and checkpoint is not None and checkpoint.finished != ("stopped" not in summary):
        notes.append(f"{SUMMARY} and {CHECKPOINT} disagree on whether the run is finished")
    damage, saved, when = (*notes,), None, 0.0
    if checkpoint is not None and tally is not None:
        when = _saved_at(folder, checkpoint)
        saved = _summed_up(tally, checkpoint, when)
    if summary is not None and page is not None:
        all_told = Told(summary, timeline, latency, folder)
        return Past(all_told, page, saved, from_checkpoint=False, damage=damage, notes=damage)
    if saved is None:
        raise ConfigError(
            f"{visible(str(folder))} tells nothing that can be shown: {'; '.join(notes) or 'its files are missing'}. "
            "`moe-bulk audit` counts its results, and with --fresh an upload starts over"
        )
    if "stopped" in saved:
        notes.append(f"not finished: the numbers are those of {moment(when)}, the last time it was saved")
    all_told = Told(saved, timeline, latency, folder)
    return Past(all_told, document(all_told), saved, from_checkpoint=True, damage=damage, notes=(*notes,))


def _read(fd: int, name: str) -> bytes | None:
    try:
        opened = os.open(name, _READ, dir_fd=fd)
    except OSError:
        return None
    with os.fdopen(opened, "rb") as file:
        return file.read() if stat.S_ISREG(os.fstat(opened).st_mode) else None


def _checkpoint(raw: bytes | None, notes: list[str]) -> Checkpoint | None:
    if raw is None:
        notes.append(f"{CHECKPOINT} is missing or cannot be read")
        return None
    try:
        return Checkpoint.from_json(raw)
    except ValueError as error:
        notes.append(f"{CHECKPOINT} is damaged: {error}")
        return None


def _tally(checkpoint: Checkpoint | None, notes: list[str]) -> Tally | None:
    if checkpoint is None:
        return None
    try:
        tally = Tally.restored(checkpoint.tally, *_rate(checkpoint.tally))
    except ValueError as error:
        notes.append(f"{CHECKPOINT} is damaged: {error}")
        return None
    tally.sessions = checkpoint.sessions
    return tally


def _rate(state: dict[str, object]) -> tuple[int, float]:
    """The limit of the session that wrote it."""
    match state:
        case {"busiest": {"per": float(per)}, "span": {"pace": float(pace)}} if 0.5 <= per * pace <= HIGHEST_LIMIT:
            return round(per * pace), per
    return Rate().limit, Rate().per


def _summary(
    raw: bytes | None, timeline: Timeline, latency: Latency, folder: Path, notes: list[str]
) -> tuple[Summary | None, str | None]:
    """The summary and its page, where it is one: whatever can be shown is believed."""
    if raw is None:
        return None, None
    try:
        summary = cast("Summary", orjson.loads(raw))
        told(summary, folder, timeline.bins())
        return summary, document(Told(summary, timeline, latency, folder))
    except _DAMAGE:
        notes.append(f"{SUMMARY} is damaged: what is shown comes from {CHECKPOINT}")
        return None, None


def _saved_at(folder: Path, checkpoint: Checkpoint) -> float:
    try:
        return (folder / CHECKPOINT).stat().st_mtime
    except OSError:
        return checkpoint.started_at


def _summed_up(tally: Tally, checkpoint: Checkpoint, saved: float) -> Summary:
    from moe_bulk.standing import version  # noqa: PLC0415  only where it has to be told

    summary = tally.summary(
        started_at=checkpoint.started_at,
        ended_at=max(saved, checkpoint.started_at),
        exit_code=(1 if tally.failed_rows else 0) if checkpoint.finished else 3,
        version=version(),
        settings={**checkpoint.settings, **checkpoint.also},
        stopped=None if checkpoint.finished else _NO_END,
    )
    summary["sources"] = len(checkpoint.sources)
    return summary
