"""Where a task of Spark's gets its credentials: options, files and the executor's environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from moe_bulk.config import Rate
from moe_bulk.errors import ConfigError
from moe_bulk.spark.access import Access, Workspaces

if TYPE_CHECKING:
    from pathlib import Path

ENVIRON = {"MOENGAGE_WORKSPACE_ID": "W1", "MOENGAGE_API_KEY": "K1", "MOENGAGE_DATA_CENTER": "01"}


def test_the_environment_is_enough() -> None:
    """As for every other program."""
    found = Access().credentials(ENVIRON)
    assert ("W1", "K1", "https://api-01.moengage.com") == (found.workspace_id, found.api_key, found.base_url)


def test_options_go_before_it(tmp_path: Path) -> None:
    """A file with the key, the name of another variable, the key itself; and another destination."""
    (tmp_path / "key").write_text("K2\n")
    said = {"workspace_id": "W2", "base_url": "http://127.0.0.1:1", "api_key_file": str(tmp_path / "key")}
    found = Access.read(said).credentials(ENVIRON)
    assert ("W2", "K2", "http://127.0.0.1:1") == (found.workspace_id, found.api_key, found.base_url)
    environ = {**ENVIRON, "OTHER_KEY": "K3"}
    assert "K3" == Access.read({"api_key_env": "OTHER_KEY"}).credentials(environ).api_key
    assert "K4" == Access.read({"api_key_secret": "K4"}).credentials(ENVIRON).api_key


@pytest.mark.parametrize(
    ("missing", "why"),
    [("MOENGAGE_WORKSPACE_ID", "which workspace"), ("MOENGAGE_API_KEY", "the executor has no MOENGAGE_API_KEY")],
)
def test_what_an_executor_lacks_is_told(missing: str, why: str) -> None:
    """It is the executor's environment that counts, not the driver's."""
    with pytest.raises(ConfigError, match=why):
        Access().credentials({name: value for name, value in ENVIRON.items() if name != missing})


def test_each_workspace_has_a_table(tmp_path: Path) -> None:
    """With its key, its place and its limit; keys may stand elsewhere."""
    (tmp_path / "key").write_text("K2")
    path = tmp_path / "workspaces.toml"
    path.write_text(
        '[ACME]\ndata_center = "01"\napi_key = "K1"\nrate = "1000/s"\n'
        f'[Beta]\nbase_url = "http://127.0.0.1:1"\napi_key_file = "{tmp_path}/key"\n'
        '[Gamma]\ndata_center = "101"\napi_key_env = "GAMMA"\n'
    )
    workspaces = Workspaces(str(path), {"GAMMA": "K3"})
    found = [workspaces.find(name) for name in ("ACME", "Beta", "Gamma")]
    assert ["K1", "K2", "K3"] == [each.credentials.api_key for each in found]
    assert [Rate(1000, 1.0), None, None] == [each.rate for each in found]


@pytest.mark.parametrize(
    ("text", "name", "why"),
    [
        ("[ACME]", "Acme", "a row names the workspace 'Acme'"),
        ("[ACME]", None, "a row names the workspace 'None'"),
        ("ACME = 1", "ACME", "has no table for it"),
        ('[ACME]\napi_kye = "S3CR3T"', "ACME", "there is no 'api_kye'. Did you mean api_key"),
        ("[ACME]\nrate = 5", "ACME", "rate is text, in quotes"),
        ("[ACME]\napi_key = S3CR3T", "ACME", "it is no TOML"),
        (
            '[ACME]\ndata_center = "01"',
            "ACME",
            "workspaces.toml, [ACME]: there is no API key: give api_key_file, api_key_env or",
        ),
        (
            '[ACME]\ndata_center = "01"\napi_key_env = "GONE"',
            "ACME",
            "[ACME]: no API key: the executor has no GONE in its environment",
        ),
        ('[ACME]\napi_key = "S3CR3T"', "ACME", "workspaces.toml, [ACME]: say where to send to: a data center"),
        (
            '[ACME]\ndata_center = "01"\napi_key = "S3CR3T"\nrate = "fast"',
            "ACME",
            "workspaces.toml, [ACME]: 'fast' is no rate",
        ),
    ],
)
def test_a_wrong_table_is_told_without_its_secrets(tmp_path: Path, text: str, name: object, why: str) -> None:
    """A message names the file and what is wrong."""
    path = tmp_path / "workspaces.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refused:
        Workspaces(str(path), {}).find(name)
    assert why in str(refused.value)
    assert "S3CR3T" not in str(refused.value)


def test_a_file_that_is_not_there_is_told() -> None:
    """It has to be on the executors."""
    with pytest.raises(ConfigError, match=r"workspaces' file /nowhere/w\.toml cannot be read: No such file"):
        Workspaces("/nowhere/w.toml", {})
