"""The one tree of exceptions: callers and the command line branch by it."""

from __future__ import annotations

import inspect
import re

import pytest

from moe_bulk import errors
from moe_bulk.errors import Interrupted, MoeBulkError

EXIT_CODES = {
    "MoeBulkError": 2,
    "ConfigError": 2,
    "SourceError": 2,
    "InputRefused": 2,
    "JournalError": 3,
    "RunRefused": 2,
    "RunHeld": 4,
    "StateRefused": 2,
    "RunStopped": 3,
    "CredentialsRejected": 3,
    "DestinationWrong": 3,
    "AccountRefused": 3,
    "PaceLost": 3,
    "ServiceUnavailable": 3,
    "TooManyFailures": 3,
    "Interrupted": 3,
}


def _classes() -> dict[str, type[MoeBulkError]]:
    found = (kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__)
    return {kind.__name__: kind for kind in found if issubclass(kind, MoeBulkError)}


def test_each_has_its_exit_code() -> None:
    """The exit codes are the command line's contract."""
    assert EXIT_CODES == {name: kind.exit_code for name, kind in _classes().items()}


def test_the_tree_that_is_drawn_is_the_tree_that_is_there() -> None:
    """The docstring draws each class under its parent, with its exit code."""
    drawn: dict[str, str] = {}
    parents: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if (found := re.match(r"    ([│├└─ ]*)([A-Z]\w+)", line)) is None:
            continue
        depth = len(found[1]) // 4
        parents[depth:] = [found[2]]
        drawn[found[2]] = parents[depth - 1] if depth else "Exception"
        if (code := re.search(r"\(exit (\d)\)", line)) is not None:
            assert EXIT_CODES[found[2]] == int(code[1])
    assert drawn == {name: kind.__bases__[0].__name__ for name, kind in _classes().items()}


@pytest.mark.parametrize(("signum", "code"), [(2, 130), (15, 143)])
def test_an_interruption_exits_as_shells_do(signum: int, code: int) -> None:
    """128 and the signal's number, Ctrl-C by default."""
    assert (signum, code) == (Interrupted("stop", signum).signum, Interrupted("stop", signum).exit_code)
    assert 130 == Interrupted("stop").exit_code
    assert "stop" == str(Interrupted("stop", signum))
