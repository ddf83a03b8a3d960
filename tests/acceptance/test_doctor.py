"""`moe-bulk doctor` as people and scripts run it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from moe_bulk.sandbox import SandboxSettings
from tests.acceptance.command import KEY, environment, moe_bulk, running_sandbox
from tests.servers import nobody_listens

if TYPE_CHECKING:
    from pathlib import Path


def test_before_a_long_run(tmp_path: Path) -> None:
    """With the variables of an upload it says that one can go, in lines that fit, sends no device, and ends with 0."""
    with running_sandbox(SandboxSettings(api_key=KEY, limit=None)) as sandbox:
        ended = moe_bulk(["doctor"], tmp_path, environment(sandbox, COLUMNS="80"))
        assert (0, "") == (ended.code, ended.err)
        assert "ok   key          MoEngage knows workspace SANDBOX and this key" in ended.out
        assert "No device was sent" in ended.out.splitlines()[-1]
        assert 80 >= max(map(len, ended.out.splitlines()))
        assert (0, 0) == (len(sandbox.devices), sandbox.stats.busiest.most)
    assert [] == list(tmp_path.iterdir())


def test_a_key_that_is_refused(tmp_path: Path) -> None:
    """Scripts see exit code 1 and what fails; the key that was refused is nowhere."""
    with running_sandbox(SandboxSettings(api_key="another", limit=None)) as sandbox:
        env = environment(sandbox) | {"MOENGAGE_API_KEY": KEY}
        ended = moe_bulk(["doctor", "--json"], tmp_path, env)
    told = json.loads(ended.out)
    assert (1, False) == (ended.code, told["ok"])
    assert ["key"] == [each["check"] for each in told["findings"] if each["status"] == "fail"]
    assert KEY not in ended.out + ended.err


def test_nobody_there_and_nothing_said(tmp_path: Path) -> None:
    """A host that does not answer is a finding (1); settings that are missing are a mistake (2)."""
    with nobody_listens() as url:
        env = environment() | {"MOENGAGE_WORKSPACE_ID": "W", "MOENGAGE_API_KEY": KEY}
        ended = moe_bulk(["doctor", "--base-url", url], tmp_path, env)
        assert 1 == ended.code
        assert "fail network" in ended.out
    ended = moe_bulk(["doctor"], tmp_path, environment())
    assert (2, "") == (ended.code, ended.out)
    assert "which workspace?" in ended.err


def test_without_anything(tmp_path: Path) -> None:
    """`--sandbox` needs no credentials, as with upload."""
    ended = moe_bulk(["doctor", "--sandbox", "--rate", "100/s"], tmp_path, environment())
    assert 0 == ended.code
    assert "100/s at the median latency needs" in ended.out
