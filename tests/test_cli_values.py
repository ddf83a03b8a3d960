"""A value that is wrong is told with where it was said."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from moe_bulk import cli

if TYPE_CHECKING:
    from pathlib import Path

FILE = """rate = "xyz/min"
[upload]
timeout = "abc"
tries = 0
"""


@pytest.fixture(autouse=True)
def nothing_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of our own, and no variables of ours."""
    monkeypatch.chdir(tmp_path)
    for name in ("MOE_BULK_RATE", "MOE_BULK_PACE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "x.toml").write_text(FILE, encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "variable", "said"),
    [
        ("upload a.csv --rate abc", "", "--rate: 'abc' is no rate"),
        ("upload a.csv", "MOE_BULK_RATE=abc", "MOE_BULK_RATE: 'abc' is no rate"),
        ("check a.csv", "MOE_BULK_RATE=abc", "MOE_BULK_RATE: 'abc' is no rate"),
        ("doctor", "MOE_BULK_PACE=redid://x", "MOE_BULK_PACE: there is no such --pace"),
        ("upload a.csv --config x.toml", "", "x.toml:1: rate: 'xyz/min' is no rate"),
        ("sandbox --config x.toml", "", "x.toml:1: rate: 'xyz/min' is no rate"),
        ("upload a.csv --config x.toml --rate 5/s", "", "x.toml:4: tries: a record needs at least one try"),
        ("upload a.csv --config x.toml --rate 5/s --tries 2", "", "x.toml:3: timeout: 'abc' is no duration"),
        ("upload a.csv --timeout 1000s", "", "--timeout: the timeout is more than 0 and at most 600 seconds"),
        ("upload a.csv --outage-limit soon", "", "--outage-limit: 'soon' is no duration"),
        ("upload a.csv --resend-after=soon", "", "--resend-after: 'soon' is no duration"),
        ("upload a.csv --max-failures many", "", "--max-failures: 'many' is no limit of failures"),
        ("upload a.csv --in-flight 0", "", "--in-flight: "),
        ("doctor --timeout soon", "", "--timeout: 'soon' is no duration"),
        (
            "upload a.csv --pace redis://x --pace-fallback half",
            "",
            "--pace-fallback: 'half' is nothing to fall back on",
        ),
    ],
)
def test_who_said_it(
    words: str, variable: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The flag, the environment variable, or the line of a file."""
    if variable:
        monkeypatch.setenv(*variable.split("="))
    monkeypatch.setattr(sys, "argv", ["moe-bulk", *words.split()])
    assert 2 == cli.run(words.split())
    assert f"moe-bulk: {said}" in capsys.readouterr().err


def test_a_program_that_calls_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its words are not the command line's: the option alone is named."""
    monkeypatch.setattr(sys, "argv", ["nightly.py"])
    assert 2 == cli.run(["upload", "a.csv", "--rate", "abc"])
    assert "moe-bulk: --rate: 'abc' is no rate" in capsys.readouterr().err
