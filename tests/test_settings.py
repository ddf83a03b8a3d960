"""Settings from flag > environment > file > default."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from moe_bulk.errors import ConfigError
from moe_bulk.settings import (
    FileSettings,
    config_argument,
    one_destination,
    outranked,
    read_key_file,
    read_settings,
)

if TYPE_CHECKING:
    from pathlib import Path

KNOWN = {
    "upload": {"rate", "set", "base-url", "api-key-file", "sandbox"},
    "doctor": {"rate", "json"},
    "sandbox": {"port"},
}


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["upload", "a.csv"], None),
        (["upload", "--config", "x.toml", "a.csv"], "x.toml"),
        (["upload", "--config=x.toml"], "x.toml"),
        (["upload", "--config"], None),
    ],
)
def test_the_file_that_is_named(argv: list[str], expected: str | None) -> None:
    """The settings file is found before the arguments are read, in both spellings."""
    assert expected == config_argument(argv)


def test_no_file_is_no_setting(tmp_path: Path) -> None:
    """Without a file in the current folder there are no settings."""
    assert FileSettings(str(tmp_path / "moe-bulk.toml")) == read_settings(None, "upload", KNOWN, tmp_path)


def test_names_are_those_of_the_command_line(tmp_path: Path) -> None:
    """`set` and `base_url` are `--set` and `--base-url`."""
    path = tmp_path / "nightly.toml"
    path.write_text('rate = "5/s"\nset = ["platform=iOS"]\nbase_url = "https://x"\n', encoding="utf-8")
    expected = {"rate": "5/s", "set": ["platform=iOS"], "base-url": "https://x"}
    lines = {"rate": 1, "set": 2, "base-url": 3}
    assert FileSettings(str(path), expected, {**lines, "base-url": 3}) == read_settings(
        str(path), "upload", KNOWN, tmp_path
    )


def test_a_name_is_for_all_commands_that_have_it_and_a_table_for_one(tmp_path: Path) -> None:
    """`rate` at the top counts wherever there is one; the command's own table goes first, and nobody else reads it."""
    text = 'rate = "5/s"\njson = true\n[doctor]\nrate = "1/s"\n[sandbox]\nport = 1\n[upload]\nsandbox = true\n'
    (tmp_path / "x.toml").write_text(text, encoding="utf-8")
    read = {name: read_settings(str(tmp_path / "x.toml"), name, KNOWN, tmp_path) for name in KNOWN}
    assert {"rate": "5/s", "sandbox": True} == read["upload"].said
    assert {"rate": "1/s", "json": True} == read["doctor"].said
    assert {"port": 1} == read["sandbox"].said
    assert {"rate": 4, "json": 2} == read["doctor"].lines
    assert {"rate": "5/s"} == read["upload"].without(["sandbox", "other"]).said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('rte = "5/s"', "there is no setting 'rte'. Did you mean rate?"),
        ('zzz = "5/s"', "there is no setting 'zzz'."),
        ('base-url = "https://evil.example"', "base-url is taken only from a file that you name"),
        ('api_key_file = "k"', "api-key-file is taken only from a file that you name"),
        ("[upload]\nrte = 1", r"\[upload\] there is no setting 'rte'. Did you mean rate?"),
        ("[doctor]\nset = 1", r"\[doctor\] there is no setting 'set'."),
        ("[uplaod]\nrate = 1", r"there is no command for the table \[uplaod\]. Did you mean upload?"),
        ("[rate]\nset = 1", r"there is no command for the table \[rate\]"),
        ("[upload]\nsandbox = true", r"\[upload\] sandbox is taken only from a file that you name"),
        ("rate = ", "cannot be read"),
        ("\xff", "cannot be read"),
    ],
)
def test_what_a_file_may_not_say(tmp_path: Path, text: str, said: str) -> None:
    """Unknown names are refused with a suggestion, a destination is not taken from a file that merely lies there."""
    (tmp_path / "moe-bulk.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=said):
        read_settings(None, "doctor", KNOWN, tmp_path)


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    """A file that was named and is missing is a mistake."""
    with pytest.raises(ConfigError, match="cannot be read"):
        read_settings(str(tmp_path / "x.toml"), "upload", KNOWN, tmp_path)


@pytest.mark.parametrize(
    ("argv", "environ", "expected"),
    [
        ([], {}, set()),
        (["upload", "--data-center=01"], {}, {"data-center", "base-url"}),
        (["upload", "--base-url", "https://x"], {}, {"data-center", "base-url"}),
        ([], {"MOENGAGE_BASE_URL": "https://x"}, {"data-center", "base-url"}),
        ([], {"MOENGAGE_API_KEY": "k", "MOENGAGE_DATA_CENTER": ""}, {"api-key-file"}),
    ],
)
def test_what_a_file_says_by_another_name_does_not_count(
    argv: list[str], environ: dict[str, str], expected: set[str]
) -> None:
    """A destination or key of a flag or the environment goes before the file's, whichever of its names that uses."""
    assert expected == outranked(argv, environ)


def test_the_key_in_a_file(tmp_path: Path) -> None:
    """A key file holds the key and perhaps a line feed."""
    path = tmp_path / "key"
    path.write_text("s3cret\n", encoding="utf-8")
    assert "s3cret" == read_key_file(str(path))
    with pytest.raises(ConfigError, match="No such file"):
        read_key_file(str(tmp_path / "other"))
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_key_file(str(path))


@pytest.mark.parametrize(
    ("data_center", "base_url", "environ", "expected"),
    [
        ("01", None, {}, ("01", None)),
        (None, "https://x", {}, (None, "https://x")),
        (None, None, {}, (None, None)),
        ("02", None, {"MOENGAGE_BASE_URL": "https://x", "MOENGAGE_DATA_CENTER": "02"}, ("02", None)),
        (None, "https://y", {"MOENGAGE_DATA_CENTER": "01"}, (None, "https://y")),
        (None, None, {"MOENGAGE_DATA_CENTER": "01"}, ("01", None)),
        (None, None, {"MOENGAGE_BASE_URL": "https://z"}, (None, "https://z")),
    ],
)
def test_one_destination(
    data_center: str | None, base_url: str | None, environ: dict[str, str], expected: tuple[str | None, str | None]
) -> None:
    """What was typed beats what the environment says."""
    assert expected == one_destination(data_center, base_url, environ)


def test_two_destinations() -> None:
    """Two destinations from the same place are refused: data must not go to the wrong one."""
    with pytest.raises(ConfigError, match="keep one"):
        one_destination("01", "https://x", {})
    with pytest.raises(ConfigError, match="keep one"):
        one_destination(None, None, {"MOENGAGE_BASE_URL": "https://x", "MOENGAGE_DATA_CENTER": "01"})
