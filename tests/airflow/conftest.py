"""What holds for all tests with Airflow: a home of their own, and connections to a sandbox."""

from __future__ import annotations

import atexit
import json
import os
import tempfile
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from tests.fake_service import sandbox_in_a_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from moe_bulk.sandbox import Sandbox

if find_spec("airflow") is not None:
    # Airflow makes its settings where it is first imported: not in the home of whoever runs the tests
    HOME = tempfile.TemporaryDirectory(prefix="airflow-")
    os.environ |= {"AIRFLOW_HOME": HOME.name, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    atexit.register(HOME.cleanup)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """What stands in for MoEngage."""
    with sandbox_in_a_thread() as running:
        yield running


@pytest.fixture
def connect(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make connections that lead to the sandbox; what is said of one goes before that."""

    def make(name: str = "moengage_default", **said: object) -> None:
        extra = {"runs": str(tmp_path / "runs")} | dict(said.pop("extra", {}))  # type: ignore[call-overload]
        fields = {"host": sandbox.url, "login": sandbox.workspace_id, "password": sandbox.api_key, **said}
        told = {"conn_type": "moengage", **fields, "extra": extra}
        monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(told))

    return make
