"""`moe-bulk config`: every setting, and who said it; and that all commands are told the same by one file."""

from __future__ import annotations

import json
import tomllib
from typing import TYPE_CHECKING, Any

import pytest

from moe_bulk import cli
from moe_bulk.cli.app import app, options_of
from moe_bulk.cli.configuration import reads_settings

if TYPE_CHECKING:
    from pathlib import Path

KEY = "s3cr3t-Key-of-the-tests"
READERS = [name for name in app if reads_settings(name)]
FROM_NAMED_FILES = ["workspace-id", "api-key-file", "data-center", "base-url", "ca-bundle", "sandbox"]
TABLES = ["", "[upload]\n", "[doctor]\n"]


@pytest.fixture(autouse=True)
def nothing_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty current folder, and none of our variables."""
    monkeypatch.chdir(tmp_path)
    for name in ("WORKSPACE_ID", "API_KEY", "DATA_CENTER", "BASE_URL"):
        monkeypatch.delenv(f"MOENGAGE_{name}", raising=False)
    monkeypatch.delenv("MOE_BULK_RATE", raising=False)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, tuple[Any, str, str | None]]:
    """What `moe-bulk config --json` says: value, source and place of each setting."""
    assert 0 == cli.run(["config", "--json", *words])
    told = json.loads(capsys.readouterr().out)
    return {each["name"]: (each["value"], each["source"], each["place"]) for each in told["settings"]}


def test_commands_that_read_settings() -> None:
    """Upload and doctor are among them; what only shows settings is not."""
    assert {"upload", "doctor", "sandbox"} <= set(READERS)
    assert not {"config", "presets"} & set(READERS)


def test_who_said_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A flag beats the environment, that beats the file, that beats the default; each is told with its place."""
    (tmp_path / "x.toml").write_text('tries = 3\nrate = "1/s"\n[upload]\ntimeout = "5s"\n', encoding="utf-8")
    words = ["upload", "--config", "x.toml"]
    assert ("10000/min", "default", None) == shown(capsys)["rate"]
    assert ("1/s", "file", "x.toml:2") == shown(capsys, *words)["rate"]
    monkeypatch.setenv("MOE_BULK_RATE", "2/s")
    assert ("2/s", "environment", "MOE_BULK_RATE") == shown(capsys, *words)["rate"]
    found = shown(capsys, *words, "--rate", "3/s", "--set", "platform=iOS", "-q", "devices.csv")
    assert ("3/s", "flag", None) == found["rate"]
    assert ((3, "file", "x.toml:1"), ("5s", "file", "x.toml:4")) == (found["tries"], found["timeout"])
    assert ((["platform=iOS"], "flag", None), (True, "flag", None)) == (found["set"], found["quiet"])
    assert (None, "default", None) == found["out"]


@pytest.mark.parametrize("command", READERS)
def test_each_setting_of_each_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No option is left out, whoever adds one."""
    expected = {name.lstrip("-") for name in options_of(command) if name.startswith("--")} - {"config"}
    assert expected == shown(capsys, command).keys() - {"API key"}


@pytest.mark.parametrize("command", READERS)
def test_unknown_names_are_refused_by_each_command(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A typing error in the file is told by whichever command reads it, before anything is done."""
    (tmp_path / "moe-bulk.toml").write_text('rte = "1/s"\n', encoding="utf-8")
    assert 2 == cli.run([command])
    assert "there is no setting 'rte'. Did you mean rate?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "command", "table"),
    [  # each name with each command, each table with each of both
        (name, command, TABLES[(number + other) % len(TABLES)])
        for number, name in enumerate(FROM_NAMED_FILES)
        for other, command in enumerate(READERS)
    ],
)
def test_no_folder_redirects_anybodys_data(
    name: str, command: str, table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Destination, key and TLS stand only in a file that was named, whatever table they hide in."""
    (tmp_path / "moe-bulk.toml").write_text(f'{table}{name} = "x"\n', encoding="utf-8")
    assert 2 == cli.run([command])
    assert f"{name} is taken only from a file that you name" in capsys.readouterr().err


def test_the_key_is_masked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It is told where the key comes from, and never which it is; a password in a URL is masked, too."""
    assert (None, "default", None) == shown(capsys)["API key"]
    monkeypatch.setenv("MOENGAGE_API_KEY", KEY)
    assert ("***", "environment", "MOENGAGE_API_KEY") == shown(capsys)["API key"]
    (tmp_path / "key").write_text(KEY, encoding="utf-8")
    (tmp_path / "x.toml").write_text('api-key-file = "key"\nbase-url = "https://me:pa55@x.example"\n', encoding="utf-8")
    found = shown(capsys, "--config", "x.toml")
    assert ("***", "environment", "MOENGAGE_API_KEY") == found["API key"]
    assert "https://***@x.example" == found["base-url"][0]
    monkeypatch.delenv("MOENGAGE_API_KEY")
    assert ("***", "key file", "key") == shown(capsys, "--config", "x.toml")["API key"]
    assert 0 == cli.run(["config", "--config", "x.toml"])
    told = capsys.readouterr().out
    assert (False, False) == (KEY in told, "pa55" in told)


def test_one_destination(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A flag's destination beats the environment's, and that the file's, whichever of the two names they use."""
    (tmp_path / "x.toml").write_text('base-url = "https://x.example"\n', encoding="utf-8")
    words = ["doctor", "--config", "x.toml"]
    assert "file" == shown(capsys, *words)["base-url"][1]
    monkeypatch.setenv("MOENGAGE_DATA_CENTER", "03")
    found = shown(capsys, *words)
    assert (("03", "environment", "MOENGAGE_DATA_CENTER"), None) == (found["data-center"], found["base-url"][0])
    found = shown(capsys, *words, "--base-url", "https://y.example")
    assert (None, ("https://y.example", "flag", None)) == (found["data-center"][0], found["base-url"])


def test_what_is_shown_is_a_settings_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It can be written to a file and named with --config, and says the same again; it fits 80 columns."""
    words = ["upload", "--set", 'model="Ω\\', "--set", "platform=iOS", "--limit", "7", "--fresh"]
    assert 0 == cli.run(["config", *words])
    told = capsys.readouterr().out
    assert 80 >= max(map(len, told.splitlines()))
    assert ['model="Ω\\', "platform=iOS"] == tomllib.loads(told)["set"]
    (tmp_path / "again.toml").write_text(told, encoding="utf-8")
    values, again = shown(capsys, *words), shown(capsys, "upload", "--config", "again.toml")
    assert {name: value for name, (value, _, _) in values.items()} == {name: each[0] for name, each in again.items()}
    assert {"file", "default"} == {source for _, source, _ in again.values()}


def test_a_secret_is_commented_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is printed can stand in a file as it is: without the password it would be another setting."""
    monkeypatch.setenv("MOE_BULK_PACE", "redis://:s3cret@redis.internal")
    assert 0 == cli.run(["config"])
    told = capsys.readouterr().out
    assert '# pace = "redis://***@redis.internal"' in told
    assert "# environment MOE_BULK_PACE: a secret in it is not shown" in told
    assert "s3cret" not in told
    assert "pace" not in tomllib.loads(told)
    monkeypatch.delenv("MOE_BULK_PACE")
    (tmp_path / "as_it_is.toml").write_text(told, encoding="utf-8")
    assert ("host", "default", None) == shown(capsys, "--config", "as_it_is.toml")["pace"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["uplaod"], "uplaod is no command that reads settings. Did you mean upload?"),
        (["presets"], "presets is no command that reads settings."),
        (["--rte", "5/s"], "upload has no option --rte. Did you mean --rate?"),
    ],
)
def test_what_cannot_be_shown(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Mistakes are told with what was probably meant."""
    assert 2 == cli.run(["config", *words])
    assert said in capsys.readouterr().err
