"""The folder that driver and executors share: a path, or a prefix of S3, with the same manners."""

from __future__ import annotations

import stat
import sys
from typing import TYPE_CHECKING

import pytest

from moe_bulk.errors import ConfigError, JournalError
from moe_bulk.spark.shelf import MARK, LocalShelf, S3Shelf, Shelf, mark, open_shelf, refuse_other
from tests.s3 import local_s3

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def _store() -> Iterator[None]:
    """Run a local S3, where one is installed; the environment leads there, as a user's does."""
    with local_s3("shelf"):
        yield


@pytest.fixture(params=["path", "s3"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Shelf:
    """Give an empty one of either kind."""
    if request.param == "path":
        return open_shelf(str(tmp_path / "out"))
    request.getfixturevalue("_store")
    return open_shelf(f"s3://shelf/{tmp_path.name}")


def test_what_is_written_is_there(shelf: Shelf) -> None:
    """Whole, by its name; what is written again replaces it."""
    assert shelf.read("a/b.json") is None
    for content in (b"1", b"", b"2"):
        shelf.write("a/b.json", content)
        assert content == shelf.read("a/b.json")
    shelf.remove("a/b.json")
    shelf.remove("a/b.json")
    assert shelf.read("a/b.json") is None


def test_large_files_are_copied_in_pieces(shelf: Shelf, tmp_path: Path) -> None:
    """Both ways; one that is put again replaces what was there."""
    path, back = tmp_path / "large", tmp_path / "back"
    for content in (b"old", bytes(range(256)) * 40_000):
        path.write_bytes(content)
        shelf.put("a/large", path)
        assert content == shelf.read("a/large")
    with back.open("wb") as file:
        file.write(b"before")
        for name in ("a/large", "a/nothing", "a/large"):
            shelf.fetch(name, file)
    assert b"before" + content * 2 == back.read_bytes()
    with pytest.raises(JournalError, match="nowhere cannot be used: No such file"):
        shelf.put("a/large", tmp_path / "nowhere")


def test_names_are_told_in_order(shelf: Shelf) -> None:
    """Those of one folder, with the folders in it, and nothing of what is in those."""
    for name in ("run/b", "run/a", "run/inner/c", "other/d"):
        shelf.write(name, b"x")
    assert ["a", "b", "inner"] == shelf.names("run")
    assert ["other", "run"] == shelf.names("")
    assert [] == shelf.names("nowhere")


def test_a_task_knows_the_driver_s_folder(shelf: Shelf) -> None:
    """By its mark, which stays what it is."""
    expected = mark(shelf)
    assert expected == mark(shelf)
    refuse_other(shelf, expected)
    with pytest.raises(ConfigError, match="is not the same folder for the driver and for this executor"):
        refuse_other(shelf, "another")
    shelf.remove(MARK)
    with pytest.raises(ConfigError, match="Name a folder that all hosts share"):
        refuse_other(shelf, expected)
    shelf.write(MARK, b"[]")
    with pytest.raises(ConfigError, match="is damaged"):
        mark(shelf)


def test_a_path_is_for_nobody_else_s_eyes(tmp_path: Path) -> None:
    """Folders 0700, files 0600; nothing half-written stays behind."""
    shelf = LocalShelf(tmp_path / "out")
    shelf.write("run/summary.json", b"{}")
    assert 0o700 == stat.S_IMODE((tmp_path / "out").stat().st_mode)
    assert 0o600 == stat.S_IMODE((tmp_path / "out/run/summary.json").stat().st_mode)
    (tmp_path / "out/run/folder").mkdir()
    with pytest.raises(JournalError, match="cannot be used: Is a directory"):
        shelf.write("run/folder", b"x")
    assert ["folder", "summary.json"] == sorted(each.name for each in (tmp_path / "out/run").iterdir())


def test_a_path_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    """By its name, with what the system says."""
    (tmp_path / "file").write_text("")
    shelf = LocalShelf(tmp_path / "file")
    for use in (lambda: shelf.read("a"), lambda: shelf.names("a"), lambda: shelf.remove("a")):
        with pytest.raises(JournalError, match=r"file/a cannot be used: Not a directory"):
            use()


@pytest.mark.usefixtures("_store")
def test_a_bucket_that_is_not_there_is_told() -> None:
    """In the store's own words."""
    with pytest.raises(JournalError, match=r"s3://nowhere/run/a cannot be used: .*NoSuchBucket"):
        S3Shelf.open("s3://nowhere/run").write("a", b"x")
    with pytest.raises(ConfigError, match="names no bucket"):
        open_shelf("s3://")


def test_a_missing_package_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to type."""
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ConfigError, match=r"pip install 'moe-bulk\[spark,s3\]'"):
        open_shelf("s3://bucket/x")
