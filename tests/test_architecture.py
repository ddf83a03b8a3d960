"""Imports point one way, modules that decide do not await, and every module is a room that has its place."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import moe_bulk

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(moe_bulk.__file__).parent

# The rooms from the bottom to the top: a room may import from those above its own line here, and from no other.
# "awaits" marks those that may; in all others there is no `async` and no `await`.
ROOMS = """
    errors
    spelling
    clock
    times
    amounts
    config
    ids
    device
    record
    settled
    outcome
    wire
    trouble
    retry
    paths
    page
    axis
    chart
    presets
    columns
    fingerprint
    sources
    bell              awaits
    together
    pacing            awaits
    tls
    connections       awaits
    dialogue
    idle
    sending
    posting           awaits
    deadlines
    client            awaits
    lanes
    users
    agenda
    channel           awaits
    gate              awaits
    flights
    permission        awaits
    landing
    engine            awaits
    waiting
    deadletter
    intake            awaits
    spill
    causes
    latency
    timeline
    busiest
    usage
    tally
    recount
    recap
    report
    journal
    naming
    checkpoint
    recovery
    crowds
    census
    successors
    superseding
    lock
    folders
    statefile
    mirror
    known
    reuse
    rundir
    standing          awaits
    archive
    comparison
    audit
    run               awaits
    checking
    view
    settings
    chronicle         awaits
    feeding           awaits
    screening         awaits
    uploader          awaits
    spark             awaits
    doctor            awaits
    meter
    screen
    progress          awaits
    metrics           awaits
    sandbox           awaits
    jsonlog
    streams
    manual
    display           awaits
    options
    airflow           awaits
    cli               awaits
    __main__
"""
DECIDES_ALL_THE_SAME = {
    *("pacing.book", "pacing.guard", "pacing.host", "pacing.seats", "pacing.throttle", "pacing.windowfile"),
    *("pacing.address", "pacing.farclock", "pacing.leases", "pacing.remote", "pacing.reservations"),
    *("intake.files", "intake.reading"),
    *("spark", "spark.access", "spark.attempts", "spark.claims", "spark.datasource", "spark.merging", "spark.mirror"),
    *("spark.order", "spark.places", "spark.plan", "spark.rules", "spark.sampling", "spark.settings", "spark.shelf"),
    *("doctor", "doctor.findings", "doctor.judging", "doctor.telling"),
    *("airflow.connection", "airflow.folders", "airflow.plan", "airflow.verdicts", "airflow.xcom"),
}
"""Rooms inside a room that awaits, which do not themselves."""

FORBIDDEN = {
    "engine": {
        *("client", "wire", "sources", "intake", "journal", "deadletter", "checkpoint", "rundir", "run"),
        *("statefile", "known", "screening"),
        *("connections", "dialogue", "idle", "sending", "posting", "httpx", "aiohttp"),
    },
    "tls": {"wire", "outcome", "record", "device", "config", "httpx", "aiohttp"},
    "idle": {"wire", "outcome", "record", "device", "config"},
    "dialogue": {"wire", "outcome", "record", "device", "config"},
    "posting": {"wire", "outcome", "record", "device", "config"},
    "sending": {"wire", "outcome", "record", "device", "config"},
    "wire": {"httpx", "aiohttp", "anyio", "asyncio"},
    "sandbox": {"errors", "wire", "device", "client", "config", "record", "outcome"},
    "errors": {"moe_bulk"},
    "uploader": {"aiohttp", "rich"},
}
"""What a room must not know although it stands above it, or because it is not its own business."""

LONGEST_MODULE = 400

ORDER = [line.split()[0] for line in ROOMS.split("\n") if line.strip()]
AWAITING = {line.split()[0] for line in ROOMS.split("\n") if line.strip().endswith("awaits")}


@dataclass(frozen=True)
class Module:
    """One file of the package."""

    path: Path

    @property
    def name(self) -> str:
        """Its dotted name within the package: `pacing.guard`, `pacing` for the folder's `__init__`."""
        parts = self.path.relative_to(ROOT).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def room(self) -> str:
        """The room that it is, or lies in."""
        return self.name.partition(".")[0]

    @property
    def tree(self) -> ast.Module:
        """Its text as Python reads it."""
        return ast.parse(self.path.read_text())

    def imports(self) -> Iterator[str]:
        """Everything that it imports, for checkers only included: rooms of ours by their name, others by theirs."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (_room_or_other(alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield from self._imported_from(node)

    def _imported_from(self, node: ast.ImportFrom) -> Iterator[str]:
        package = ["moe_bulk", *self.path.relative_to(ROOT).parts[:-1]]
        base = package[: len(package) - node.level + 1] if node.level else []
        source = ".".join([*base, *([node.module] if node.module else [])])
        if source == "moe_bulk":  # `from moe_bulk import wire`: a room, or a public name from the front door
            yield from (_room_or_other(f"moe_bulk.{alias.name}") for alias in node.names)
        else:
            yield _room_or_other(source)


def _room_or_other(dotted: str) -> str:
    package, _, rest = dotted.partition(".")
    if package != "moe_bulk":
        return package
    room = rest.partition(".")[0]
    return room if (ROOT / f"{room}.py").exists() or (ROOT / room / "__init__.py").exists() else "moe_bulk"


DOOR = Module(ROOT / "__init__.py")
MODULES = [Module(path) for path in sorted(ROOT.rglob("*.py")) if path != DOOR.path]


def test_every_module_has_its_place() -> None:
    """A new room has to be placed in the table above, and one that is gone has to leave it."""
    assert sorted(ORDER) == sorted({module.room for module in MODULES})
    assert len(ORDER) == len(set(ORDER))


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_imports_point_one_way(module: Module) -> None:
    """A room imports only from rooms below it; the front door is for users, and the command line is one."""
    below = ORDER[: ORDER.index(module.room)]
    allowed = {*below, module.room, *(["moe_bulk"] if module.room == "cli" else [])}
    ours = {name for name in module.imports() if name in ORDER or name == "moe_bulk"}
    assert set() == ours - allowed


@pytest.mark.parametrize("room", FORBIDDEN)
def test_some_rooms_know_even_less(room: str) -> None:
    """The engine knows no HTTP or files, what posts no devices, the protocol no network, the sandbox none of ours."""
    known = {name for module in MODULES if module.room == room for name in module.imports()}
    assert set() == known & FORBIDDEN[room]


def test_the_sandbox_stands_alone() -> None:
    """It imports nothing of ours, and only the command line imports it."""
    inside = {name for module in MODULES if module.room == "sandbox" for name in module.imports()}
    assert {"sandbox"} == inside & {*ORDER, "moe_bulk"}
    assert {"sandbox", "cli"} == {module.room for module in MODULES if "sandbox" in module.imports()}


def test_the_front_door_only_points() -> None:
    """`__init__` imports rooms for checkers only: nothing happens at import."""
    at_import = [node for node in DOOR.tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {node.module for node in at_import if isinstance(node, ast.ImportFrom)}
    assert {"__future__", "importlib", "typing"} == names
    assert not [node for node in at_import if isinstance(node, ast.Import)]


def awaits(tree: ast.AST) -> bool:
    """Tell whether something in it runs on an event loop."""
    kinds = (ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await)
    return any(isinstance(node, kinds) for node in ast.walk(tree))


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_modules_that_decide_do_not_await(module: Module) -> None:
    """Protocol, lanes, policy, windows, tally are plain code; only rooms that are marked so await."""
    if module.room not in AWAITING or module.name in DECIDES_ALL_THE_SAME:
        assert not awaits(module.tree)


def test_what_is_marked_as_awaiting_does() -> None:
    """The marks in the table are true, so that they mean something."""
    assert {module.room for module in MODULES if awaits(module.tree)} == AWAITING


@pytest.mark.parametrize("module", [DOOR, *MODULES], ids=lambda module: module.name or "moe_bulk")
def test_no_module_outgrows_its_room(module: Module) -> None:
    """A module with more lines is two rooms."""
    assert len(module.path.read_text().splitlines()) <= LONGEST_MODULE


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import httpx.x", ["httpx"]),
        ("import moe_bulk.wire", ["wire"]),
        ("from moe_bulk import wire, Uploader", ["wire", "moe_bulk"]),
        ("from moe_bulk.pacing.guard import Slot", ["pacing"]),
        ("from . import guard", ["pacing"]),
        ("from .guard import Slot", ["pacing"]),
        ("from .. import wire", ["wire"]),
        ("from ..config import Rate", ["config"]),
        ("if TYPE_CHECKING:\n    from moe_bulk.cli import main", ["cli"]),
        ("def f():\n    from moe_bulk.client import Client", ["client"]),
    ],
)
def test_the_reader_of_imports_sees_all_forms(text: str, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative ones, those inside functions and those for checkers are imports, too."""
    monkeypatch.setattr(Module, "tree", property(lambda _: ast.parse(text)))
    assert expected == list(Module(ROOT / "pacing" / "pace.py").imports())
