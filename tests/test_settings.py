"""Settings from flag > environment > file > default."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from moe_bulk.errors import ConfigError
from moe_bulk.settings import config_argument, one_destination, read_key_file, read_settings

if TYPE_CHECKING:
    from pathlib import Path

KNOWN = {"rate", "set", "base-url", "api-key-file"}


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
    assert (str(tmp_path / "moe-bulk.toml"), {}) == read_settings(None, KNOWN, tmp_path)


def test_names_are_those_of_the_command_line(tmp_path: Path) -> None:
    """`set` and `base_url` are `--set` and `--base-url`."""
    path = tmp_path / "nightly.toml"
    path.write_text('rate = "5/s"\nset = ["platform=iOS"]\nbase_url = "https://x"\n', encoding="utf-8")
    expected = {"rate": "5/s", "set": ["platform=iOS"], "base-url": "https://x"}
    assert (str(path), expected) == read_settings(str(path), KNOWN, tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('rte = "5/s"', "there is no setting 'rte'. Did you mean rate?"),
        ('zzz = "5/s"', "there is no setting 'zzz'."),
        ('base-url = "https://evil.example"', "base-url is taken only from a file that you name"),
        ('api_key_file = "k"', "api-key-file is taken only from a file that you name"),
        ("rate = ", "cannot be read"),
        ("\xff", "cannot be read"),
    ],
)
def test_what_a_file_may_not_say(tmp_path: Path, text: str, said: str) -> None:
    """Unknown names are refused with a suggestion, a destination is not taken from a file that merely lies there."""
    (tmp_path / "moe-bulk.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=said):
        read_settings(None, KNOWN, tmp_path)


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    """A file that was named and is missing is a mistake."""
    with pytest.raises(ConfigError, match="cannot be read"):
        read_settings(str(tmp_path / "x.toml"), KNOWN, tmp_path)


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
