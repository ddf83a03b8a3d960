"""Airflow's button "Test", answered by what `moe-bulk doctor` finds."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from moe_bulk.airflow.plan import means_of
from moe_bulk.doctor import Finding, Worth, closing, examine, exit_code
from moe_bulk.errors import MoeBulkError

if TYPE_CHECKING:
    from collections.abc import Callable

    from moe_bulk.airflow.connection import Account


def try_account(account: Callable[[], Account]) -> tuple[bool, str]:
    """Whether an upload with it can go, and what is to say of that."""
    try:
        found = account()
        means = means_of(found.options)
        findings: list[Finding] = []

        def look() -> None:
            examined = examine(found.credentials, means.rate, means.network, lambda _: None, means.pace)
            findings.extend(asyncio.run(examined))

        # in a thread: whoever asks may be on an event loop of their own
        thread = threading.Thread(target=look, name="moe_bulk doctor")
        thread.start()
        thread.join()
    except MoeBulkError as error:
        return False, str(error)
    return exit_code(findings) == 0, _said(findings)


def _said(findings: list[Finding]) -> str:
    """What fails and what to do about it; where nothing does, that the key is known, and any warnings."""
    worst = [each for each in findings if each.worth is not Worth.OK]
    told = worst or [each for each in findings if each.check in ("key", "latency")]
    return ". ".join([closing(findings), *(_line(each) for each in told)])


def _line(finding: Finding) -> str:
    remedy = f": {finding.remedy}" if finding.remedy else ""
    return f"{finding.check}: {finding.said}{remedy}"
