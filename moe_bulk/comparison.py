"""What a run's lines tell on one side, what it says of itself on the other; each difference is named.

What no line tells is compared with the checkpoint that was written with the summary: pauses, sessions, the limit, the
settings, the exact beginning. Not covered at all are the version, the words of remedies and of a stop, the number of
sources, and that the run did not end later than it says; of a run in several sessions, whose lost requests left nothing
behind, percentiles and the busiest window are compared as far as those can have moved them.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

import orjson

from moe_bulk.axis import moment
from moe_bulk.journal import DEAD_LETTER
from moe_bulk.naming import CHECKPOINT, SUMMARY
from moe_bulk.outcome import FAILED, FORMAT, Status
from moe_bulk.page import visible

if TYPE_CHECKING:
    from collections.abc import Mapping

    from moe_bulk.archive import Past
    from moe_bulk.causes import Failures
    from moe_bulk.recount import Busiest, Letters, Recount
    from moe_bulk.tally import RateUsed, Summary

_SLACK = 2.0
"""Seconds that are no contradiction: a summary that was made again takes the time of a file, which clocks tell."""

_SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


class Comparison:
    """Compares at once; then `wrong` names what contradicts, `notes` what is not known, `compared` what was looked at.

    `busiest` is the window that the lines tell, a `lower_bound` where some requests left no time behind.
    """

    def __init__(self, past: Past | None, recount: Recount, letters: Letters) -> None:
        self.wrong: list[str] = []
        self.notes: list[str] = list(past.damage) if past is not None else []
        self.compared: list[str] = []
        self.lower_bound = recount.untold > 0
        self._past = past
        self._recount = recount
        self._letters = letters
        self._finished = past is not None and past.finished
        self.rate: RateUsed | None = past.told.summary["rate"] if past is not None else None
        self.busiest = recount.busiest(self.rate["per"] if self.rate is not None and self.rate["per"] > 0 else 60.0)
        self.with_: str | None = None
        """The file that the lines were compared with."""
        self._compare()

    def _compare(self) -> None:
        self._unique()
        self._compare_letters()
        self.wrong += self._recount.faults.told()
        past = self._past
        if past is None:
            self.wrong.append(f"neither {SUMMARY} nor {CHECKPOINT} can be read: there is nothing to compare with")
        else:
            self._files(past)
        if past is not None and (past.finished or not past.from_checkpoint):
            self.with_ = CHECKPOINT if past.from_checkpoint else SUMMARY
            try:
                self._all(past.told.summary)
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
                self.wrong.append(f"{self.with_} is damaged: it cannot be compared with ({type(error).__name__})")
        else:
            self.lower_bound = True
        rate = self.rate
        if rate is not None and self.busiest.least > (limit := self._limit(rate)):
            self.wrong.append(f"{self.busiest.least:,} requests within {rate['per']:g} s, the limit was {limit:,}")

    def _all(self, summary: Summary) -> None:
        self._missing = summary["requests"] - self._recount.tries
        """Requests whose rows have no result: they were on their way when a session ended, and were sent again."""
        self._complete = self._finished and summary["sessions"] == 1
        """Whether every request must have left its trace: one session, which came to its end."""
        self._compare_counts(summary)
        self._compare_requests(summary)
        self._compare_latency(summary)
        self._compare_causes(summary)
        self.lower_bound |= self._compare_window(summary, self.busiest)
        self._compare_rate(summary)
        if self.with_ == SUMMARY:
            self._compare_end(summary)
            self._compare_saved(summary)

    def _say(self, what: str, found: object, said: object, where: str = "the results") -> None:
        self.wrong.append(f"{what}: {found} in {where}, {said} in {'the summary'}")

    def _same(self, what: str, found: int, said: int) -> None:
        if found != said:
            self._say(what, f"{found:,}", f"{said:,}")

    # -- files -----------------------------------------------------------------------------------------------------

    def _files(self, past: Past) -> None:
        """What is missing or damaged that a run cannot have left so."""
        there = os.path.lexists(past.told.folder / SUMMARY)
        if past.from_checkpoint and there:
            self.wrong.append(f"{SUMMARY} is damaged")
        elif past.from_checkpoint and past.finished:
            self.wrong.append(f"{SUMMARY} is missing, and {CHECKPOINT} says that the run is finished")
        elif past.from_checkpoint:
            self.notes.append("the run is not finished and has no summary yet: there is nothing to compare with")
        elif not past.finished and past.saved is not None and "stopped" not in past.saved:
            self.wrong.append(f"{SUMMARY} says that the run stopped, {CHECKPOINT} that it is finished")

    def _unique(self) -> None:
        for source, offset, item, count in self._recount.twice():
            what = f"{visible(source)}, offset {offset:,}" + (f", item {item}" if item else "")
            self._recount.faults.add("rows with more than one result", f"{what}: {count}")

    def _compare_letters(self) -> None:
        if not self._finished:  # it may end in letters whose results were not written any more
            if self._letters.count < self._recount.failed:
                self.wrong.append(
                    f"{self._recount.failed:,} rows failed, there are {self._letters.count:,} dead letters"
                )
            return
        for source, line, status, lacks in self._recount.letters(self._letters):
            kind = "failed rows without a dead letter" if lacks else "dead letters of rows that did not fail so"
            self._recount.faults.add(
                f"{kind} (was {DEAD_LETTER} edited?)", f"{visible(source)}, line {line:,}, {status}"
            )

    # -- what the lines tell -----------------------------------------------------------------------------------------

    def _compare_counts(self, summary: Summary) -> None:
        self.compared.append("counts")
        counts = summary["counts"]
        for status in Status:
            self._same(f"{status.value} rows", self._recount.statuses[status], counts[status])
        self._same("rows", self._recount.lines, counts["read"] - counts["unsettled"])
        if self._finished and counts["unsettled"]:
            self.wrong.append(f"the run is finished, and {counts['unsettled']:,} rows have no result")
        if counts["read"] != sum(counts[status] for status in Status) + counts["unsettled"]:
            self.wrong.append("the counts of the summary do not add up")

    def _compare_requests(self, summary: Summary) -> None:
        self.compared += ["requests", "retries"]
        if self._missing < 0 or (self._complete and self._missing):
            self._same("requests", self._recount.tries, summary["requests"])
        again = summary["retries"] - self._recount.retries
        if again < 0 or (self._complete and again) or again > self._missing >= 0:
            self._same("retries", self._recount.retries, summary["retries"])
        clocks = self._recount.clocks()
        if clocks > summary["sessions"]:
            self._same("sessions, by their clocks", clocks, summary["sessions"])

    def _compare_latency(self, summary: Summary) -> None:
        """The percentiles, as far as requests that left nothing behind can have moved them."""
        self.compared.append("latency_ms")
        known, unknown = self._recount.latency, max(self._missing, 0) + self._recount.untold
        for name, share in _SHARES.items():
            said = summary["latency_ms"].get(name)
            rank = math.ceil(share * (known.count + unknown))
            least, most = known.ranked(rank - unknown), known.ranked(rank)
            if not isinstance(said, (int, float)):
                right = not known.count
            elif not known.count:
                right = unknown > 0
            else:
                above = rank - unknown < 1 or (least is not None and said >= round(least, 3))
                right = above and (most is None or said <= round(most, 3))
            if not right:
                self._say(f"latency, {name}", f"{least} ms", f"{said} ms")

    def _compare_causes(self, summary: Summary) -> None:
        self.compared.append("failures")
        told = {(each["status"], each["cause"]): each for each in summary["failures"]}
        found = {(each["status"], each["cause"]): each for each in self._recount.causes.told()}
        for status, cause in dict.fromkeys([*found, *told]):
            here, there = found.get((status, cause)), told.get((status, cause))
            name = f"failures, {status}: {visible(cause)[:100]}"
            if _counted(here) != _counted(there):
                self._say(name, _counted(here), _counted(there))
            elif here is not None and there is not None and _first(here, there) != _first(there, there):
                self.wrong.append(f"{name}: the first one is told otherwise in the results than in the summary")
        counts = [each["count"] for each in summary["failures"]]
        if sum(summary["counts"][status] for status in FAILED) != sum(counts):
            self.wrong.append("the failures of the summary are not as many as its counts say")
        if counts != sorted(counts, reverse=True) or len(counts) != len(told):
            self.wrong.append("the failures of the summary are not in order, the most frequent first and each once")

    def _compare_window(self, summary: Summary, found: Busiest) -> bool:
        """Compare the busiest window; whether what was found is less than there may have been."""
        self.compared.append("rate.busiest_window")
        rate = summary["rate"]
        said, at = rate["busiest_window"]["count"], rate["busiest_window"]["at"]
        lost = max(self._missing, 0) + self._recount.untold
        if "counted_since" in rate:
            self.notes.append(f"the busiest window was looked for since {moment(rate['counted_since'])} only")
        too_many = found.least > said and not ("counted_since" in rate and found.least <= self._limit(rate))
        if too_many or said > found.most + lost + self._before(summary):
            self._say("busiest window", f"{found.most:,}", f"{said:,}")
        elif (at is None) != (said == 0):
            self.wrong.append("the busiest window of the summary has no beginning, or no requests")
        elif at is not None and summary["sessions"] == 1 and self._recount.within[1] + lost < said:
            within = f"{self._recount.within[1]:,} requests"
            self._say(f"busiest window, from {moment(at)} on", within, f"{said:,}")
        if not lost:
            return False
        self.notes.append(
            f"of {lost:,} requests nobody knows when they were sent (a session was ended before their rows settled, "
            "or a row had more than 20): what was found is the least that the busiest window held"
        )
        return True

    def _before(self, summary: Summary) -> int:
        """Requests of sessions before `counted_since` that the summary may have taken into its window."""
        return self._recount.attempts if "counted_since" in summary["rate"] else 0

    def _limit(self, rate: RateUsed) -> int:
        """The highest limit that a session had, in windows of the same length."""
        rates = self._past.told.timeline.rates if self._past is not None else []
        return max([rate["limit"], *(limit for _, limit, per in rates if per == rate["per"])])

    def _compare_rate(self, summary: Summary) -> None:
        """The limit, which the timeline knows, and how much of it was used, where all requests are told."""
        rate = summary["rate"]
        rates = self._past.told.timeline.rates if self._past is not None else []
        if rates and summary["sessions"] == 1:
            _, limit, per = rates[-1]
            if (limit, per) != (rate["limit"], rate["per"]):
                said = f"{rate['limit']:,} in {rate['per']:g} s"
                self._say("limit", f"{limit:,} in {per:g} s", said, "the timeline")
        if not self._complete or self._recount.untold:
            return
        self.compared.append("rate.used_share")
        share, found = rate["used_share"], self._used(rate)
        off = 2e-4 + 4e-6 / max(self._recount.at.last - self._recount.at.first, 1e-3)
        right = share is found if share is None or found is None else abs(share - found) <= off
        if not right:
            self._say("used share of the limit", found if found is None else round(found, 4), share)

    def _used(self, rate: RateUsed) -> float | None:
        gaps, seconds = self._recount.attempts - 1, self._recount.at.last - self._recount.at.first
        if gaps < 1:
            return None
        possible = seconds * rate["limit"] / rate["per"]
        return 1.0 if gaps >= possible else gaps / possible

    def _compare_end(self, summary: Summary) -> None:
        """Its form, its exit code, and that it began before the first request and ended after the last result."""
        self.compared += ["format", "exit_code", "started_at", "ended_at"]
        if summary.get("format") != FORMAT:
            self.wrong.append(f"format: {summary.get('format')} in the summary, this version knows {FORMAT}")
        code, right = summary.get("exit_code"), 1 if self._recount.failed else 0
        if code != right and (self._finished or code in (0, 1) or type(code) is not int):
            self._say("exit code", right, code)
        began, ended = summary["started_at"], summary["ended_at"]
        early = f": it ended at {moment(ended)}, and began at {moment(began)}" if ended < began else ""
        if self._recount.spread > 1:
            self.notes.append(f"the clock was set, or the machine started again, meanwhile{early}: times say little")
            return
        if early:
            self.wrong.append(f"times of the summary{early}")
        slack = _SLACK + self._recount.spread
        if self._recount.sent.first < began - slack:
            self._say("beginning", f"a request at {moment(self._recount.sent.first)}", moment(began))
        if self._recount.settled_at > ended + slack:
            self._say("end", f"a row that settled at {moment(self._recount.settled_at)}", moment(ended))

    # -- what only the checkpoint tells -------------------------------------------------------------------------------

    def _compare_saved(self, summary: Summary) -> None:
        """The summary against the checkpoint that was written with it; where that is of an earlier moment, in part."""
        saved = self._past.saved if self._past is not None else None
        if saved is None:
            self.notes.append(f"without {CHECKPOINT} nothing tells pauses, settings, or what limit there was")
            return
        one, other = _facts(summary), _facts(saved)
        late = "stopped" in saved and (one["requests"], one["counts"]) != (other["requests"], other["counts"])
        if late:  # what came after it may have changed all but the run's beginning
            self.notes.append(f"{CHECKPOINT} is of an earlier moment: pauses and settings were not compared with it")
            one, other = ({"started_at": facts["started_at"]} for facts in (one, other))
        self.compared += [name for name in one if name not in self.compared]
        for name, said in one.items():
            if _alike(other[name], said):
                continue
            if isinstance(said, dict):  # it may hold more than numbers
                self.wrong.append(f"{name}: {SUMMARY} tells something else than {CHECKPOINT}")
            else:
                self._say(name, other[name], visible(str(said))[:40], CHECKPOINT)


def _facts(summary: Summary) -> dict[str, object]:
    """What a summary and the checkpoint that was written with it must have in common."""
    rate = summary["rate"]
    return {
        "started_at": summary["started_at"],
        "sessions": summary["sessions"],
        "counts": {status.value: summary["counts"][status] for status in Status},
        "requests": summary["requests"],
        "retries": summary["retries"],
        "pauses": summary["pauses"],
        "latency_ms": summary["latency_ms"],
        "rate.limit": rate["limit"],
        "rate.per": rate["per"],
        "rate.busiest_window": rate["busiest_window"],
        "rate.used_share": rate["used_share"],
        "rate.counted_since": rate.get("counted_since"),
        "settings": {name: orjson.dumps(value) for name, value in summary.get("settings", {}).items()},
    }


def _alike(saved: object, said: object) -> bool:
    """Whether they are the same, to the last digit but one; of settings those that the checkpoint knows."""
    if isinstance(saved, dict) and isinstance(said, dict):
        return all(name in said and _alike(value, said[name]) for name, value in saved.items())
    if isinstance(saved, float) and isinstance(said, (int, float)):
        return math.isclose(saved, said, rel_tol=1e-12, abs_tol=1.1e-4)
    return saved == said


def _counted(said: Failures | None) -> str:
    return "none" if said is None else f"{said['count']:,} (first: line {said['first_line']:,})"


def _first(each: Mapping[str, object], known: Mapping[str, object]) -> list[object]:
    """How the first one is told, as far as `known` tells it: an older run has no source."""
    return [each.get(name) for name in ("example", "first_source") if name in known]
