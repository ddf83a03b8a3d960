"""The names that other programs rely on: which there are, how they are called, what importing them costs."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest

import moe_bulk
from moe_bulk import Uploader

if TYPE_CHECKING:
    from collections.abc import Callable

PUBLIC = [
    "AccountRefused",
    "Attempt",
    "ChangedOnly",
    "Columns",
    "ConfigError",
    "Credentials",
    "CredentialsRejected",
    "DestinationWrong",
    "Device",
    "FailureLimit",
    "Files",
    "Findings",
    "InputRefused",
    "Interrupted",
    "JournalError",
    "MoeBulkError",
    "Network",
    "PaceLost",
    "Position",
    "Query",
    "Rate",
    "Reading",
    "RedisPace",
    "Result",
    "Results",
    "Retry",
    "RunHeld",
    "RunRefused",
    "RunStopped",
    "RunView",
    "ServiceUnavailable",
    "SourceError",
    "StateRefused",
    "Status",
    "Summary",
    "TooManyFailures",
    "Uploader",
    "check",
    "problems",
    "upload",
]

ROWS = "Rows"
OUT = "str | os.PathLike[str] | None"
SIGNATURES: dict[object, str] = {
    moe_bulk.upload: (
        f"(rows: {ROWS}, *, credentials: Credentials | None = None, rate: Rate | None = None, out: {OUT} = None, "
        "fresh: bool = False, if_changed: IfChanged = refuse, keep_runs: int | None = None, "
        "reading: Reading | None = None, max_failures: FailureLimit | None = None, "
        "changed_only: ChangedOnly | None = None, pace: PaceOf = process) -> Summary"
    ),
    moe_bulk.check: (
        f"(rows: {ROWS}, *, reading: Reading | None = None, rate: Rate | None = None, "
        "watch: Callable[[int, int | None, int], None] | None = None) -> Findings"
    ),
    Uploader.__init__: (
        "(self, credentials: Credentials | None = None, *, rate: Rate | None = None, retry: Retry | None = None, "
        "network: Network | None = None, client: httpx.AsyncClient | None = None, "
        "transport: httpx.AsyncBaseTransport | None = None, clock: Clock | None = None, pace: PaceOf = process) -> None"
    ),
    Uploader.stream: f"(self, rows: {ROWS}, *, reading: Reading | None = None) -> AsyncIterator[Results]",
    Uploader.run: (
        f"(self, rows: {ROWS}, *, out: {OUT} = None, fresh: bool = False, if_changed: IfChanged = refuse, "
        "keep_runs: int | None = None, reading: Reading | None = None, max_failures: FailureLimit | None = None, "
        "changed_only: ChangedOnly | None = None, watch: Callable[[RunView], None] | None = None, "
        "also: Mapping[str, object] | None = None) -> Summary"
    ),
    Uploader.send: "(self, fields: Mapping[str, object]) -> Result",
    Uploader.stop: "(self, error: RunStopped) -> None",
}


def test_the_public_names_are_these() -> None:
    """A name that goes away or comes along is a decision, not an accident."""
    assert sorted(PUBLIC) == sorted(moe_bulk.__all__)
    assert {*PUBLIC, "__version__"} <= set(dir(moe_bulk))


@pytest.mark.parametrize("name", PUBLIC)
def test_each_is_there_and_documented(name: str) -> None:
    """Each can be imported, belongs to this package, and opens its docstring with a sentence of its own."""
    found = getattr(moe_bulk, name)
    assert found.__module__.startswith("moe_bulk.")
    first, *_ = (found.__doc__ or "").strip().partition("\n")
    assert len(first.split()) >= 4
    assert not first.startswith(f"{name}(")  # what a dataclass writes where nobody did


@pytest.mark.parametrize("called", SIGNATURES, ids=lambda called: called.__qualname__)
def test_signatures(called: Callable[..., object]) -> None:
    """How they are called is part of the contract."""
    assert SIGNATURES[called] == str(inspect.signature(called)).replace("'", "")


@pytest.mark.parametrize(
    "called", [Uploader.stream, Uploader.run, Uploader.send, Uploader.stop, Uploader.paused, Uploader]
)
def test_what_an_uploader_does_is_documented(called: object) -> None:
    """Whoever asks `help()` gets an answer."""
    assert inspect.getdoc(called)


def test_the_version_is_the_distributions() -> None:
    """`moe_bulk.__version__` is what pip says."""
    assert version("moe-bulk") == moe_bulk.__version__


def test_a_name_that_is_none_is_told() -> None:
    """A misspelt name fails as with any module."""
    with pytest.raises(AttributeError, match="module 'moe_bulk' has no attribute 'Uplaoder'"):
        getattr(moe_bulk, "Uplaoder")  # noqa: B009  a checker would see it


def run_python(code: str) -> list[str]:
    """Run a program in a fresh interpreter and return the words that it prints."""
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=15).stdout.split()


def test_importing_the_package_does_no_work() -> None:
    """`import moe_bulk` brings in none of its rooms and none of its dependencies."""
    heavy = {"httpx", "aiohttp", "anyio", "rich", "orjson", "smart_open", "cyclopts", "asyncio", "aiolimiter"}
    code = (
        "import sys, moe_bulk\nprint(*[name for name in sys.modules "
        f"if name.startswith('moe_bulk') or name.partition('.')[0] in {heavy!r}])"
    )
    assert ["moe_bulk"] == run_python(code)


def test_values_cost_no_http_stack() -> None:
    """Credentials, rates and errors can be used without loading what sends."""
    code = (
        "import sys\nfrom moe_bulk import Credentials, Rate, MoeBulkError, Status\n"
        "print(*[name for name in ('httpx', 'aiohttp', 'rich', 'smart_open') if name in sys.modules])"
    )
    assert [] == run_python(code)


def test_star_import_brings_the_public_names() -> None:
    """`from moe_bulk import *` in a notebook brings what is public and nothing else."""
    code = "before = set(dir()) | {'before'}\nfrom moe_bulk import *\nprint(*sorted(set(dir()) - before))"
    assert sorted(PUBLIC) == run_python(code)
