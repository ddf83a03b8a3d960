"""A run's numbers for Prometheus: as a collector, and as a text file for node_exporter's textfile collector.

No label holds a value of any row: statuses, reasons and causes are words of ours, each a bounded number of them.
"""

from __future__ import annotations

import errno
import math
import os
import stat
from bisect import bisect_left
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from moe_bulk.errors import ConfigError
from moe_bulk.meter import Meter
from moe_bulk.outcome import Status
from moe_bulk.standing import version
from moe_bulk.waiting import Waits

try:
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
    from prometheus_client.registry import Collector
except ImportError:
    raise ImportError("metrics need one more package: pip install 'moe-bulk[metrics]'") from None

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from moe_bulk.causes import Failures
    from moe_bulk.latency import Latency
    from moe_bulk.tally import Summary
    from moe_bulk.view import RunView

WRITE_SECONDS = 15
LOOK_SECONDS = 1
MODE = 0o644
"""Of a new file: the collector is another user, and there is nothing in it but numbers."""
CAUSES_TOLD = 20
"""Causes of failures that have a series of their own, in the order in which they came up; the rest is `other`."""
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Seconds; the counts are exact to 2 %, as the run's own histogram is."""


class RunMetrics(Collector):
    """The metrics of one run, for a registry of yours: each look at them tells how the run is at that moment.

    `labels` are put on every series, to tell several runs in one registry apart.

    >>> await uploader.run("devices.csv", watch=lambda view: REGISTRY.register(RunMetrics(view)))
    """

    def __init__(self, view: RunView, labels: Mapping[str, str] | None = None) -> None:
        self.meter = Meter(view)
        self._view = view
        self._series = _Series(labels or {})

    def collect(self) -> Iterator[Metric]:
        """All of it, as prometheus_client asks for it."""
        view, tally, series = self._view, self._view.tally, self._series
        yield from series.constant()
        yield from series.counts(tally.counts, tally.causes.as_they_came())
        yield from series.requests(tally.requests, tally.retries, view.pauses)
        yield series.counter("unanswered_requests", "Requests whose answer never came, or not whole.", tally.unanswered)
        yield series.histogram("request_duration_seconds", "How long answers took (the sum to 1 %).", tally.latency)
        yield from self._now()
        yield from series.times(view.started_at, view.sessions, view.summary)

    def _now(self) -> Iterator[Metric]:
        """What is so at this moment."""
        view, gauge = self._view, self._series.gauge
        counts, (done, total) = view.tally.counts, view.bytes_read
        over = view.summary is not None
        yield gauge("limit_requests_per_second", "The limit.", view.rate.per_second)
        stands = over or view.outage or view.paused or view.waits_for_redis
        pace = 0.0 if stands else view.rate.per_second * view.pace_share
        yield gauge("pace_requests_per_second", "What the limit, 429s, pauses and outages leave of it.", pace)
        yield gauge("in_flight_requests", "Requests on their way.", view.in_flight)
        yield gauge("retrying_rows", "Rows that wait to be tried again.", view.retrying)
        yield gauge("parked_rows", "Rows that wait behind earlier ones, or for their users' limits.", view.parked)
        yield gauge("unsettled_rows", "Rows that were read and have no result yet.", counts["unsettled"])
        yield gauge("input_read_bytes", "Bytes of the input that were read.", done)
        if total is not None:
            yield gauge("input_bytes", "Bytes of the input in all.", total)
        if (share := self.meter.share) is not None:
            yield gauge("settled_ratio", "The share of the input that is settled.", share)
        if view.settled_at is not None:
            yield gauge("last_settled_timestamp_seconds", "When a row was last settled.", view.settled_at)
        waits = None if over else self.meter.waits_for
        reasons: dict[tuple[str, ...], float] = {(each.value,): float(each is waits) for each in Waits}
        yield self._series.gauges("waiting", "1 for what keeps the run from going faster.", ("reason",), reasons)


class _Series:
    """Makes metrics of numbers, all with the same labels."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        self._names = tuple(labels)
        self._values = tuple(labels.values())

    def gauge(self, name: str, text: str, value: float) -> Metric:
        """One number that goes up and down."""
        return self.gauges(name, text, (), {(): value})

    def gauges(self, name: str, text: str, names: Sequence[str], values: Mapping[tuple[str, ...], float]) -> Metric:
        """Some of them, by further labels."""
        found = GaugeMetricFamily(f"moe_bulk_{name}", text, labels=[*self._names, *names])
        for labels, value in values.items():
            found.add_metric([*self._values, *labels], value)
        return found

    def counter(self, name: str, text: str, value: float) -> Metric:
        """One number that only grows."""
        return self.counters(name, text, (), {(): value})

    def counters(self, name: str, text: str, names: Sequence[str], values: Mapping[tuple[str, ...], float]) -> Metric:
        """Some of them, by further labels."""
        found = CounterMetricFamily(f"moe_bulk_{name}", text, labels=[*self._names, *names])
        for labels, value in values.items():
            found.add_metric([*self._values, *labels], value)
        return found

    def histogram(self, name: str, text: str, latency: Latency) -> Metric:
        """How many answers took how long."""
        found = HistogramMetricFamily(f"moe_bulk_{name}", text, labels=list(self._names))
        counts, seconds = latency.state(), 0.0
        below = [0.0] * len(BOUNDS)
        lowest = math.ceil(math.log(latency.LEAST, latency.GROWTH))
        for bucket, count in enumerate(counts, lowest):
            longest = latency.GROWTH**bucket / 1000
            seconds += count * 2 * longest / (1 + latency.GROWTH)
            for index in range(bisect_left(BOUNDS, longest), len(BOUNDS)):
                below[index] += count
        buckets = [(str(bound), count) for bound, count in zip(BOUNDS, below, strict=True)]
        found.add_metric(list(self._values), [*buckets, ("+Inf", float(sum(counts)))], sum_value=seconds)
        return found

    def constant(self) -> Iterator[Metric]:
        """What made it."""
        yield self.gauges("info", "The version of moe_bulk.", ("version",), {(version(),): 1.0})

    def counts(self, counts: Mapping[str, int], failures: Sequence[Failures]) -> Iterator[Metric]:
        """Rows by what became of them, and failures by their cause."""
        yield self.counter("rows_read", "Rows that were read.", counts["read"])
        statuses: dict[tuple[str, ...], float] = {(each.value,): float(counts[each.value]) for each in Status}
        yield self.counters("rows", "Rows that were settled, by their status.", ("status",), statuses)
        causes: dict[tuple[str, ...], float] = {key: float(count) for key, count in causes_of(failures).items()}
        yield self.counters("failures", "Rows that failed, by their cause.", ("status", "cause"), causes)

    def requests(self, requests: int, retries: int, pauses: int) -> Iterator[Metric]:
        """What was sent."""
        yield self.counter("requests", "Requests that were sent, retries included.", requests)
        yield self.counter("retries", "Requests that were not their row's first.", retries)
        yield self.counter("pauses", "How often everybody waited because MoEngage asked for it.", pauses)

    def times(self, started_at: float | None, sessions: int, summary: Summary | None) -> Iterator[Metric]:
        """When it began, in how many sessions it is made and, where it has ended, when and how."""
        yield self.gauge("running", "1 while it goes on.", float(summary is None))
        if started_at is not None:
            yield self.gauge("run_start_timestamp_seconds", "When the run began, in its first session.", started_at)
        yield self.gauge("sessions", "In how many sessions it was made so far.", sessions)
        if summary is not None:
            yield self.gauge("run_end_timestamp_seconds", "When it ended.", summary["ended_at"])
            exit_code = "The exit code: 0, or 1 where rows failed; any other is that of a run that is not finished."
            yield self.gauge("run_exit_code", exit_code, summary["exit_code"])


def causes_of(failures: Sequence[Failures]) -> Counter[tuple[str, str]]:
    """Failed rows by status and cause, a bounded number of causes.

    Of what the service says only its status counts: the rest is a stranger's text, which may repeat a row's values.
    """
    found: Counter[tuple[str, str]] = Counter()
    for each in failures:
        cause = " ".join(each["cause"].split()[:2]) if each["cause"].startswith("HTTP ") else each["cause"]
        key = (each["status"], cause)
        if key not in found and len(found) >= CAUSES_TOLD:
            key = (each["status"], "other")
        found[key] += each["count"]
    return found


class _Ended(Collector):
    """What there is to tell of a run that was finished before."""

    def __init__(self, labels: Mapping[str, str], summary: Summary) -> None:
        self._series = _Series(labels)
        self._summary = summary

    def collect(self) -> Iterator[Metric]:
        """All of it, as prometheus_client asks for it."""
        said = self._summary
        yield from self._series.constant()
        yield from self._series.counts(said["counts"], said["failures"])
        yield from self._series.requests(said["requests"], said["retries"], said["pauses"])
        yield from self._series.times(said["started_at"], said["sessions"], said)


class MetricsFile:
    """A file that is replaced as a whole, every 15 s while a run goes on and at its end; node_exporter reads it.

    Every series has the label `upload`, the file's name without its ending, so that several files do not collide. The
    file is new each time, with the mode of the one before, at first 0644: it holds nothing but numbers. Links are
    followed. Raises ConfigError where it cannot be written, and for what is no file: a device, a pipe, a folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._target = Path(os.path.realpath(self.path))  # a link stays one
        self._labels = {"upload": self.path.stem}
        self._metrics: RunMetrics | None = None
        self.trouble: str | None = None
        """Why it could not be written the last time; a run does not stop for it."""
        self._try_out()

    def _try_out(self) -> None:
        """Find out before anything is sent whether it can be written; what stands there is left alone."""
        try:
            self._mode_before()
            os.close(self._open_beside())
            self._beside().unlink()
        except OSError as error:
            raise ConfigError(f"the metrics cannot be written to {self.path}: {error.strerror or error}") from None

    def _beside(self) -> Path:
        # not *.prom, which is what node_exporter reads
        return self._target.with_name(f".{self._target.name}.{os.getpid()}.tmp")

    def _open_beside(self) -> int:
        """A new file of our own, whatever was there."""
        with suppress(FileNotFoundError):
            self._beside().unlink()
        return os.open(self._beside(), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def begin(self, view: RunView) -> None:
        """A run begins."""
        self._metrics = RunMetrics(view, self._labels)
        self.write()

    async def keep(self) -> None:
        """Write every 15 s until cancelled."""
        while True:
            for _ in range(WRITE_SECONDS // LOOK_SECONDS):
                if self._metrics is not None:
                    self._metrics.meter.look(anyio.current_time())
                await anyio.sleep(LOOK_SECONDS)
            self.write()

    def write(self) -> None:
        """Write what is so at this moment; where that fails, `trouble` says why."""
        if self._metrics is not None:
            self._write(self._metrics)

    def finished_before(self, summary: Summary) -> None:
        """There was nothing to do: tell of the run that was finished before."""
        if self._metrics is None:
            self._write(_Ended(self._labels, summary))

    def _write(self, collector: Collector) -> None:
        registry, beside = CollectorRegistry(), self._beside()
        registry.register(collector)
        try:
            descriptor = self._open_beside()
            with os.fdopen(descriptor, "wb") as file:
                file.write(generate_latest(registry))
                os.fchmod(descriptor, self._mode_before())
            beside.replace(self._target)
            self.trouble = None
        except OSError as error:
            self.trouble = f"the metrics cannot be written to {self.path}: {error.strerror or error}"
            with suppress(OSError):
                beside.unlink()

    def _mode_before(self) -> int:
        """The mode of what stands there; raises OSError where that must not be replaced by a file."""
        try:
            mode = self.path.stat().st_mode
        except FileNotFoundError:
            return MODE
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "it is a folder: name a file in it")
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is a device, a pipe or a socket, which a file would replace: name a file")
        return mode & 0o777
