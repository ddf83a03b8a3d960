"""Read a whole input without sending anything, and say what came of it."""

from __future__ import annotations

from contextlib import ExitStack, closing
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from moe_bulk.checking.findings import FORMAT, Collision, Findings, Group, Place, Users, hint
from moe_bulk.checking.survey import MOST_DEVICES, Survey
from moe_bulk.checking.whole import Whole
from moe_bulk.config import Rate
from moe_bulk.errors import InputRefused, JournalError
from moe_bulk.intake import Reading
from moe_bulk.outcome import Status
from moe_bulk.rundir import refuse_unfinished_letters

if TYPE_CHECKING:
    from collections.abc import Callable

    from moe_bulk.checking import collisions
    from moe_bulk.config import FailureLimit
    from moe_bulk.intake import Rows


def check(
    rows: Rows,
    *,
    reading: Reading | None = None,
    rate: Rate | None = None,
    watch: Callable[[int, int | None, int], None] | None = None,
) -> Findings:
    """Say everything of `rows` that can be known without sending them; nothing leaves this machine.

    `rows` is what `upload` takes, but no async iterable. What rows have in common is found out on disk, in a folder
    within `TMPDIR` that holds hashes only and is removed. Raises SourceError where the rows cannot be read, RunRefused
    for the dead letters of a run that is not finished, JournalError where there is no room. `watch` is told now and
    then of bytes read, bytes in all and rows.

    It blocks: from async code call it in a thread.
    """
    with ExitStack() as stack:
        whole = stack.enter_context(closing(Whole(rows, reading or Reading())))
        refuse_unfinished_letters(whole.paths)
        folder = Path(stack.enter_context(_folder()))
        survey = stack.enter_context(closing(Survey(folder, whole.labels)))
        for batch in whole.batches():
            survey.add(batch)
            if watch is not None:
                watch(*whole.progress, survey.rows)
        return _Composer(survey, whole, rate or Rate()).findings()


def refuse_above(limit: FailureLimit | None, findings: Findings) -> None:
    """Raise InputRefused where more rows would fail than the limit allows; without one, where any would."""
    failed, rows = findings["would_fail"], findings["rows"]
    allowed = 0 if limit is None else limit.count if limit.count is not None else (limit.share or 0.0) * rows
    if failed > allowed:
        said = f"--max-failures {limit} allows" if limit is not None else "--check-first without --max-failures allows"
        raise InputRefused(
            f"{failed:,} of {rows:,} rows would fail, more than {said}: nothing was sent. See `moe-bulk check` for the "
            "reasons"
        )


def _folder() -> TemporaryDirectory[str]:
    try:
        return TemporaryDirectory(prefix="moe-bulk-check-", ignore_cleanup_errors=True)
    except OSError as error:
        raise JournalError(f"there is no folder to work in ({error}): set TMPDIR to one") from None


class _Composer:
    """Makes findings of what a survey counted, and reads the worst values again to show them."""

    def __init__(self, survey: Survey, whole: Whole, rate: Rate) -> None:
        self._survey = survey
        self._whole = whole
        self._rate = rate

    def findings(self) -> Findings:
        survey, whole = self._survey, self._whole
        crowded, beyond = survey.collisions.crowded(MOST_DEVICES)
        hurried = survey.hurried_users(self._rate)
        would_fail = survey.counts[Status.INVALID] + beyond
        return Findings(
            format=FORMAT,
            version=version("moe-bulk"),
            sources=list(whole.labels),
            rows=survey.rows,
            valid=survey.valid,
            invalid=survey.counts[Status.INVALID],
            skipped=survey.counts[Status.SKIPPED],
            superseded=survey.counts[Status.SUPERSEDED],
            would_fail=would_fail,
            failures=survey.failures(),
            skips=survey.skips(),
            repeated=self._collision("device", survey.collisions.repeated()),
            shared={name: self._collision(name, found) for name, found in survey.shared().items()},
            users=Users(
                most_devices=MOST_DEVICES,
                over_the_most_devices=self._collision("user", crowded),
                rows_left_out=beyond,
                over_the_rates=self._collision("user", hurried.shared()),
            ),
            platforms=dict(survey.oddities.platforms.most_common()),
            notes=whole.notes,
            suspicious=survey.oddities.told(platform_is_constant=whole.platform_is_constant),
            upload=survey.effort(self._rate, hurried.busiest, beyond),
            exit_code=1 if would_fail else 0,
        )

    def _collision(self, name: str, shared: collisions.Shared) -> Collision:
        return Collision(
            values=shared.groups,
            rows=shared.rows,
            devices=shared.devices,
            worst=[
                Group(
                    value=self._value(name, group),
                    rows=group.rows,
                    devices=group.devices,
                    places=[Place(source=self._whole.labels[spot.source], line=spot.line) for spot in group.spots],
                )
                for group in shared.worst
            ],
        )

    def _value(self, name: str, group: collisions.Group) -> str | None:
        """What the rows of a group share, read again: not all of it, or None where that cannot be done."""
        for record in self._whole.again(group.spots[0]):
            device = record.device
            if name == "user":
                if hash(device.customer_id) == group.key:
                    return hint(device.customer_id)
                continue
            for key in device.keys():  # noqa: SIM118  no dict
                if key[0] == name and hash(key) == group.key:
                    return " / ".join(map(hint, key[1:]))
        return None
