"""The sandbox as a package: its names, and what it keeps away from."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import moe_bulk.sandbox


def test_the_package_s_names_load_when_they_are_asked_for() -> None:
    """Every public name is there, an unknown one is not, and faults can be parsed without loading a server."""
    assert sorted(moe_bulk.sandbox.__all__) == dir(moe_bulk.sandbox)
    for name in moe_bulk.sandbox.__all__:
        assert getattr(moe_bulk.sandbox, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Sandcastle'"):
        _ = moe_bulk.sandbox.Sandcastle  # type: ignore[attr-defined] # that is the point
    code = "import sys; from moe_bulk.sandbox import Faults; Faults.parse('5xx=1%'); sys.exit('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_sandbox_imports_nothing_else_of_the_package() -> None:
    """It can testify against the rest because it shares no line with it."""
    rooms = sorted(Path(moe_bulk.sandbox.__file__).parent.glob("*.py"))
    assert len(rooms) > 5
    for room in rooms:
        for node in ast.walk(ast.parse(room.read_text())):
            if isinstance(node, ast.Import):
                assert not any(name.name.startswith("moe_bulk") for name in node.names), room
            if isinstance(node, ast.ImportFrom):
                assert node.level <= 1, room
                assert not (node.module or "").startswith("moe_bulk"), room
