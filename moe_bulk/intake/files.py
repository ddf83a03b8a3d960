"""Files and streams as one input: opened, compared with an earlier run's, read from where that one stopped."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from moe_bulk.errors import MoeBulkError, SourceError
from moe_bulk.fingerprint import Comparison, Fingerprint, Marks, digest_of, of_file, same_file
from moe_bulk.sources import QUERY, Query, QueryRows, Spool, open_raw, open_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from moe_bulk.columns import Made, Reader
    from moe_bulk.intake.reading import Batch, Files
    from moe_bulk.record import Row
    from moe_bulk.settled import Settled
    from moe_bulk.sources import Source
    from moe_bulk.sources.opening import Readable

POLL_SECONDS = 0.25


@dataclass
class _Input:
    """One file or stream. A stream can be read only once, so what it gives is marked and, while that helps, kept.

    `before` is what an earlier run knew of a stream: until reading has come as far, it says more than the marks.
    """

    path: str
    label: str
    print: Fingerprint | None
    spool: Spool | None = None
    marks: Marks | None = None
    before: Fingerprint | None = None
    source: Source | None = None
    size: int | None = None
    query: Query | None = None
    rows: QueryRows | None = None
    """What the query gives, once it was asked."""

    def stream(self) -> Readable:
        """What can be read only once."""
        if self.query is None:
            return open_raw(self.path)
        self.rows = QueryRows(self.query)
        return self.rows

    @property
    def fingerprint(self) -> Fingerprint:
        if self.print is not None:
            return replace(self.print, name=self.label)
        marks, ended = self.marks.state() if self.marks is not None else ((), False)
        now = Fingerprint(self.label, "stream", marks=marks, ended=ended)
        if self.before is not None and _reach(self.before) > _reach(now):
            return replace(self.before, name=self.label)
        return now

    def close(self) -> None:
        for opened in (self.source, self.spool):
            if opened is not None:
                opened.close()


def _inputs(files: Files | Query) -> list[_Input]:
    if isinstance(files, Query):
        return [_Input(QUERY, QUERY, None, query=files)]
    return [_Input(path, label, of_file(path)) for path, label in zip(files.paths, files.labels, strict=True)]


def _reach(stream: Fingerprint) -> tuple[int, bool]:
    return (stream.marks[-1][0] if stream.marks else 0), stream.ended


class FromFiles:
    """Reads `files` in their order. It blocks: call it in a thread, one call at a time; `stop` comes from any.

    With `keep_in`, a folder, streams can be compared with those of an earlier run: what they gave is kept there.
    """

    def __init__(self, files: Files | Query, reader: Reader, format: str, keep_in: Path | None) -> None:  # noqa: A002  the option's name
        self.warnings: list[str] = []
        self.bytes_in_all: int | None = None
        self._inputs = _inputs(files)
        self._reader = reader
        self._format = format
        self._keep_in = keep_in
        self._settled: Settled | None = None
        self._reading: tuple[int, Source | None] = (0, None)
        """Bytes of the inputs before, and the one that is being read: in one, for other threads look at it."""
        self._density = 0.0
        """Rows a stored byte, in the input that is being read."""
        self._digesting = threading.Lock()
        self._stopped = False

    @property
    def labels(self) -> tuple[str, ...]:
        """What positions call the inputs."""
        return tuple(each.label for each in self._inputs)

    @property
    def fingerprints(self) -> tuple[Fingerprint, ...]:
        """What the inputs were, as far as that is known by now."""
        return tuple(each.fingerprint for each in self._inputs)

    @property
    def bytes_read(self) -> int:
        """Bytes read so far, as stored; what an earlier session read counts."""
        before, source = self._reading
        return before + (source.progress()[0] if source is not None else 0)

    @property
    def rows_expected(self) -> float | None:
        """How many rows there are in all, about: by how long the first ones are; None where nobody can know."""
        return self.bytes_in_all * self._density if self.bytes_in_all is not None and self._density else None

    def look(self) -> None:
        """Open each input and check its header; keep open what cannot be opened twice, and the first one."""
        for number, each in enumerate(self._inputs):
            if self._stopped:
                return
            with ExitStack() as stack:
                source = self._open(each)
                stack.callback(source.close)
                header = each.rows.columns if each.rows is not None else source.columns
                if header is not None:
                    self.warnings += self._reader.check_header(source.name, header)
                each.size = source.progress()[1]
                if number == 0 or each.print is None:
                    each.source = source
                    stack.pop_all()
        sizes = [each.size for each in self._inputs]
        if None not in sizes:
            self.bytes_in_all = sum(size for size in sizes if size is not None)

    def changed(self, recorded: Sequence[Fingerprint]) -> tuple[str, ...]:
        """The inputs whose bytes are not those of an earlier run; a stream is read for that, as far as it was then."""
        if len(recorded) != len(self._inputs):
            now, before = set(self.labels), {each.name for each in recorded}
            return tuple(sorted(now ^ before)) or self.labels
        pairs = zip(self._inputs, recorded, strict=True)
        return tuple(each.label for each, then in pairs if not self._is_same(each, then))

    def go_on(self, settled: Settled, labels: Sequence[str]) -> None:
        """Begin where an earlier session stopped, call the inputs as it did, and leave out what it settled."""
        self._settled = settled
        for each, label in zip(self._inputs, labels, strict=True):
            each.label = label
            if each.source is not None:  # it stands at the beginning
                each.source.close()
                each.source = None

    def batches(self) -> Iterator[Batch]:
        """All rows that are not settled, in batches."""
        read, settled = self._reader.read_all, self._settled
        begin = settled.begin if settled is not None else None
        for number, each in enumerate(self._inputs):
            if begin is not None and number < begin.source:
                self._reading = (self.bytes_read + (each.size or 0), None)
                continue
            source = self._begin(each, begin[1:] if begin is not None and number == begin.source else None)
            for rows in self._counted(source):
                yield [*read(rows)] if settled is None else _without_settled(rows, settled, read)
            self._end(each)

    def rows(self) -> Iterator[list[Row]]:
        """All rows as they were read, from the beginning."""
        for each in self._inputs:
            yield from self._counted(self._begin(each, None))
            self._end(each)

    def _counted(self, source: Source) -> Iterator[list[Row]]:
        first, count = -1, 0
        spread = self._reader.spread if self._reader.spreads else None
        for read in source.batches():
            rows = read if spread is None else spread(read)
            if source.rows is not None:
                self._density = source.rows / max(source.progress()[1] or 0, 1)
            elif rows:
                # Plain files' offsets know nothing of what was read ahead; those of compressed ones say too much.
                begin, end = (min(source.progress()[0], row.position.offset) for row in (rows[0], rows[-1]))
                first, count = (begin if first < 0 else first), count + len(rows)
                self._density = count / (end - first) if end > first else 0.0
            yield rows

    def take_digests(self, stopping: Callable[[], bool]) -> None:
        """Find out what the plain files hold, where that is not known yet: by it they are known again.

        A second call waits for the first, so that no file is read twice for it.
        """
        with self._digesting:
            self._take_digests(lambda: self._stopped or stopping())

    def _take_digests(self, stopping: Callable[[], bool]) -> None:
        for each in self._inputs:
            if each.print is not None and each.print.digest is None:
                digest = digest_of(each.path, stopping)
                # a file that was changed meanwhile is none that could be known again
                if (now := of_file(each.path)) is not None and now == replace(each.print, digest=None):
                    each.print = replace(each.print, digest=digest)

    def stop(self) -> None:
        """Let whatever is going on end soon."""
        self._stopped = True
        for each in self._inputs:
            if each.spool is not None:
                each.spool.stop()
            if (source := each.source) is not None:
                source.close()

    def close(self) -> None:
        """Close what was opened."""
        for each in self._inputs:
            each.close()

    # -- one input -------------------------------------------------------------------------------------------------

    def _open(self, each: _Input, start: tuple[int, int] | None = None) -> Source:
        if each.print is not None:
            return open_source(each.path, self._format, label=each.label, start=start)
        if each.spool is None:
            each.spool = Spool(each.stream(), self._keep_in)
            if self._keep_in is None:
                each.spool.forget()
        each.marks = Marks()
        each.spool.tap = each.marks.update
        format = self._format if each.query is None else "ndjson"  # noqa: A001  the option's name
        return open_source(each.path, format, each.spool, label=each.label, start=start)

    def _begin(self, each: _Input, start: tuple[int, int] | None) -> Source:
        if each.source is None:
            each.source = self._open(each, start)
        if each.spool is not None:
            each.spool.forget()
        self._reading = (self.bytes_read, each.source)
        return each.source

    def _end(self, each: _Input) -> None:
        if each.marks is not None:
            each.marks.end()
        self._reading = (self.bytes_read, None)
        each.close()

    def _is_same(self, each: _Input, recorded: Fingerprint) -> bool:
        if each.print is not None:
            same = recorded.kind == "file" and same_file(recorded, each.path, lambda: self._stopped)
            if same:
                each.print = replace(each.print, digest=recorded.digest)
            return same
        if recorded.kind != "stream" or each.spool is None or each.source is None:
            return False
        each.source.close()
        each.source = each.marks = each.spool.tap = None
        each.spool.rewind()
        try:
            same = self._feeds_the_same(each.spool, recorded)
        except MoeBulkError:
            raise
        except Exception as error:  # noqa: BLE001  every transport has exceptions of its own
            raise SourceError(f"{each.label} cannot be read: {getattr(error, 'strerror', None) or error}") from None
        each.spool.rewind()
        each.before = recorded if same else None
        return same

    def _feeds_the_same(self, spool: Spool, recorded: Fingerprint) -> bool:
        comparison = Comparison(recorded.marks, ended=recorded.ended)
        while not comparison.differs and not comparison.settled and not self._stopped:
            if not spool.ready(POLL_SECONDS):
                continue
            if data := spool.read(1 << 16):
                comparison.update(data)
            elif data is not None:
                comparison.end()
                break
        return not comparison.differs and comparison.settled


def _without_settled(rows: Sequence[Row], settled: Settled, read: Callable[[Sequence[Row]], list[Made]]) -> Batch:
    """The rows that are not settled; where the last one is, its position stands in its place."""
    batch: Batch = [*read([row for row in rows if row.position not in settled])]
    if rows and rows[-1].position in settled:
        batch.append(rows[-1].position)
    return batch
