"""Log records as JSON lines, for machines that read what a program says."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any, Protocol

import orjson

FORMAT = 1
"""Version of the lines."""

NAME = "moe_bulk"


class Stream(Protocol):
    """Where lines go."""

    def write(self, text: str) -> int:
        """Write."""

    def flush(self) -> None:
        """Pass on what was written."""

    def say_json(self, document: bytes) -> None:
        """Write a document and a line's end at once."""


class JsonLines(logging.Formatter):
    """One object a line: `time`, `level`, `event`, `run_id`, `message`, and the event's own fields.

    Of other libraries' records only the logger, the first line of the message as it stands in their code and the class
    of an exception are told: what they fill in may be anything. A message that nothing is filled into is not told: it
    may have been before, and warnings are.

    What ends the command is the run's that was told of before, where there was one.
    """

    def __init__(self) -> None:
        super().__init__()
        self._run_id: str | None = None

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        said: dict[str, object] = {"format": FORMAT, "time": time, "level": record.levelname.lower()}
        event: Any = getattr(record, "event", None)
        if record.name == NAME and event is not None:
            fields: dict[str, object] = getattr(record, "fields", {})
            self._run_id = getattr(record, "run_id", None) or self._run_id
            said |= {
                "event": event,
                "run_id": self._run_id,
                "message": record.getMessage(),
                **fields,
            }
        else:
            template = bool(record.args) and record.name != "py.warnings"
            message = str(record.msg).partition("\n")[0] if template else "(not told)"
            said |= {"event": "log", "run_id": None, "message": message, "logger": record.name}
            if record.exc_info and record.exc_info[0] is not None:
                said["error"] = record.exc_info[0].__name__
        try:
            return orjson.dumps(said, default=str).decode()
        except TypeError:  # the name of a file is any bytes, of which those that are no UTF-8 become lone surrogates
            return json.dumps(said, default=str)


class _Handler(logging.StreamHandler[Any]):
    """Ours, to be known again."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record as a line; its JSON is none of the locale's affair."""
        try:
            self.stream.say_json(self.format(record).encode())
        except Exception:  # noqa: BLE001  as all handlers do: what is logged ends no program
            self.handleError(record)


def write_to(stream: Stream, *, quiet: bool = False) -> None:
    """Write the records of moe_bulk to `stream` from now on, and warnings of all others; once is enough.

    With `quiet` no less than warnings.
    """
    root = logging.getLogger()
    if not installed():
        handler = _Handler(stream)
        handler.setFormatter(JsonLines())
        root.addHandler(handler)
        logging.captureWarnings(True)  # noqa: FBT003  its only argument
    logging.getLogger(NAME).setLevel(logging.WARNING if quiet else logging.INFO)


def installed() -> bool:
    """Whether this process logs so."""
    return any(isinstance(each, _Handler) for each in logging.getLogger().handlers)
