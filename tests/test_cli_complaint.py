"""What ends a command, for machines that read its progress."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NoReturn

from moe_bulk import cli

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_an_error_is_a_line_of_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where it names a file whose name is no UTF-8, and before there is a run."""
    monkeypatch.chdir(tmp_path)
    assert 2 == cli.run(["upload", "caf\udce9.csv", "--sandbox", "--progress", "json"])
    (line,) = map(json.loads, capsys.readouterr().err.splitlines())
    assert (1, None, "SourceError", 2, []) == tuple(
        line[name] for name in ("format", "run_id", "error", "exit_code", "traceback")
    )
    assert "caf\\udce9.csv" in line["message"]


def test_a_bug_is_told_by_where_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """And by its class, not by its words, which may hold a row's."""

    def bug(*_: object, **__: object) -> NoReturn:
        raise RuntimeError("user-1")

    monkeypatch.setattr("moe_bulk.cli.upload._Upload", bug)
    assert 3 == cli.run(["upload", "a.csv", "--sandbox", "--progress", "json"])
    (line,) = map(json.loads, capsys.readouterr().err.splitlines())
    assert ("RuntimeError", "RuntimeError", 3) == (line["error"], line["message"], line["exit_code"])
    assert "test_cli_complaint.py" in line["traceback"][-1]
