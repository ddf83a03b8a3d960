"""What holds for all tests."""

from __future__ import annotations

import gc
import time
from itertools import count
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from moe_bulk.clock import boot_seconds
from tests.effort import IN_CI

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest.register_assert_rewrite("tests.promises")  # a broken promise says what was there and what should have been

# No deadlines: how long an example takes is the machine's affair. In CI the same examples every time, so that a change
# is judged by what it changes, and fewer, since they are the same; at a desk new ones each time, to find what nobody
# thought of.
settings.register_profile("desk", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, max_examples=40)
settings.register_profile("few", deadline=None, derandomize=True, max_examples=10)
settings.load_profile("ci" if IN_CI else "desk")

FIRST_SECONDS = 100.0
"""Uploads send nothing in the first minute and a half after the machine's start: it may have sent before."""


def pytest_sessionstart() -> None:
    """Wait until the machine has been up for long enough."""
    time.sleep(max(0.0, FIRST_SECONDS - boot_seconds()))


def pytest_collection_finish() -> None:
    """What is there now is frozen: looking for garbage need not go through thousands of tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def _states(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give names of folders that are not there yet."""
    folder = tmp_path_factory.mktemp("states")
    return (folder / str(number) for number in count())


@pytest.fixture(autouse=True)
def _own_state(monkeypatch: pytest.MonkeyPatch, _states: Iterator[Path]) -> None:
    """Give each test a state folder of its own: what one has sent is none of another's business."""
    monkeypatch.setenv("XDG_STATE_HOME", str(next(_states)))


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the machine's own proxy, which would stand between a test and its server."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
