"""What things are called: where a run stands, which files a glob means, and which names are ours."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk.errors import ConfigError
from moe_bulk.naming import (
    aside_name,
    default_out,
    expand,
    is_lock_name,
    is_run_name,
    lock_name,
    looks_like_run,
    moved_aside,
    within_run,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

ASIDE = "2026-11-23T19-24-08Z"


def leave_run(path: Path, names: Sequence[str] = ("results.ndjson", "checkpoint.json")) -> Path:
    """Leave a run folder with these files."""
    path.mkdir(parents=True)
    for name in names:
        (path / name).touch()
    return path


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["devices.csv"], "/here/devices.csv.run"),
        (["data/devices.csv.gz"], "/here/data/devices.csv.gz.run"),
        (["/data/devices.csv"], "/data/devices.csv.run"),
        (["../devices.csv"], "/here/../devices.csv.run"),
        (["-"], "/here/stdin.run"),
        (["-", "devices.csv"], "/here/stdin.run"),
        (["data/a.csv", "b.csv"], "/here/a.csv.run"),
        (["s3://bucket/deep/k.csv"], "/here/k.csv.run"),
        (["s3://bucket/what?.csv", "b.csv"], "/here/what?.csv.run"),
        (["https://host/k.csv?key=secret#x"], "/here/k.csv.run"),
        (["https://host/"], "/here/source.run"),
        (["s3://bucket/"], "/here/bucket.run"),
        (["s3://bucket/.."], "/here/source.run"),
    ],
)
def test_default_out(sources: list[str], expected: str) -> None:
    """A run stands beside its one local source, and otherwise in the current folder by the first name."""
    assert Path(expected) == default_out(sources, sandbox=False, cwd=Path("/here"))


@pytest.mark.parametrize(
    ("source", "expected"), [("d.csv", "d.csv.sandbox.run"), ("-", "stdin.sandbox.run"), ("s3://b/k", "k.sandbox.run")]
)
def test_default_out_of_a_rehearsal(source: str, expected: str) -> None:
    """A rehearsal never stands where the real run would."""
    assert Path("/here") / expected == default_out([source], sandbox=True, cwd=Path("/here"))


def test_default_out_of_a_glob_is_named_by_the_first_match(tmp_path: Path) -> None:
    """A glob's run stands in the current folder by its first file, run folders left aside."""
    here = tmp_path / "[here]"
    leave_run(tmp_path / "0.run")
    (tmp_path / "in").mkdir()
    for name in ("b.csv", "a.csv"):
        (tmp_path / "in" / name).touch()
    here.mkdir()

    assert here / "a.csv.run" == default_out(["../in/*.csv"], sandbox=False, cwd=here)
    assert here / "a.csv.run" == default_out([f"{tmp_path}/*/*.csv"], sandbox=False, cwd=here)
    assert here / "in.run" == default_out([f"{tmp_path}/[0i]*"], sandbox=False, cwd=here)
    assert here / "b.csv.run" == default_out([f"{tmp_path}/*/[b-z]*.*", "c.csv"], sandbox=False, cwd=here)


def test_default_out_of_a_file_whose_name_looks_like_a_glob(tmp_path: Path) -> None:
    """A file that exists is no glob."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a[1].csv").touch()

    assert tmp_path / "in" / "a[1].csv.run" == default_out(["in/a[1].csv"], sandbox=False, cwd=tmp_path)


def test_default_out_of_a_glob_that_matches_nothing(tmp_path: Path) -> None:
    """There is nothing to name a run after."""
    with pytest.raises(ConfigError, match=r"no file matches '\*\.csv'"):
        default_out(["*.csv"], sandbox=False, cwd=tmp_path)


def test_globs_become_their_files_in_the_order_of_the_names(tmp_path: Path) -> None:
    """Each glob stands for its files where it stood; what is no glob stays as it was given, there or not."""
    for name in ("b.csv", "a.csv", "c.ndjson"):
        (tmp_path / name).touch()
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "d.csv").touch()

    assert ("gone.csv", "a.csv", "b.csv", "-") == expand(["gone.csv", "*.csv", "-"], tmp_path)
    assert ("a.csv", "b.csv", "deep/er/d.csv") == expand(["**/*.csv"], tmp_path)
    assert (f"{tmp_path}/a.csv", "c.ndjson") == expand([f"{tmp_path}/[a].csv", "c.*"], tmp_path)


@pytest.mark.parametrize("source", ["s3://bucket/*.csv", "https://host/a?b=[c]", "a\0*.csv", "", "a" * 5000])
def test_what_is_no_glob_stays_as_it_is(tmp_path: Path, source: str) -> None:
    """URLs may hold any of these characters; what names no file at all is told of where it is opened."""
    assert (source,) == expand([source], tmp_path)


@pytest.mark.parametrize("source", ["*.parquet", "gone/*", "*" * 5000])
def test_a_glob_that_matches_nothing_is_refused(tmp_path: Path, source: str) -> None:
    """A mistyped glob is no empty input."""
    with pytest.raises(ConfigError) as caught:
        expand([source], tmp_path)

    assert f"no file matches {source!r}" == str(caught.value)


def test_a_glob_that_matches_only_what_is_ours_says_so(tmp_path: Path) -> None:
    """Within a run folder, a glob finds nothing although there are files: the message says why."""
    run = leave_run(tmp_path / "d.csv.run", ["results.ndjson", "dead-letter.ndjson"])

    with pytest.raises(ConfigError, match=r"no file matches 'dead\*': all that it matches belongs to runs"):
        expand(["dead*"], run)
    assert ("dead-letter.ndjson",) == expand(["dead-letter.ndjson"], run)


@given(st.permutations([f"/nowhere/{number}.csv" for number in range(12)]))
def test_the_order_of_files_is_always_that_of_their_names(listed: list[str]) -> None:
    """Several runs of one command read the same files in the same order, however the folder lists them."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("moe_bulk.naming.glob.glob", lambda *_, **__: listed)

        assert tuple(sorted(listed)) == expand(["/nowhere/*.csv"], Path("/"))


def test_globs_skip_what_is_ours(tmp_path: Path) -> None:
    """Run folders, moved aside or not, what lies in them, however deep, and locks, held or left by a killed run."""
    runs = ["d.csv.run", "out", f"d.csv.run-{ASIDE}", f"d.csv.run-{ASIDE}-2", f"out-{ASIDE}"]
    for name in runs:
        leave_run(tmp_path / name)
        (tmp_path / f"{name}.lock").touch()
    leave_run(tmp_path / "e.csv.run", [])
    leave_run(tmp_path / "g.csv.run", ["results.ndjson", "my notes.csv"])
    leave_run(tmp_path / "f.csv.run", ["dead-letter.ndjson", "checkpoint.json.part"])
    (tmp_path / "out" / "notes" / "old").mkdir(parents=True)
    ours = [
        *runs,
        *(f"{name}.lock" for name in runs),
        "gone.run.lock",
        f"gone.run-{ASIDE}-12.lock",
        "e.csv.run",
        "g.csv.run/my notes.csv",
        "f.csv.run/dead-letter.ndjson",
        "out/results.ndjson",
        "out/notes/old/a.csv",
    ]

    assert ours == [name for name in ours if within_run(tmp_path / name)]


def test_globs_find_what_is_not_ours(tmp_path: Path) -> None:
    """Names alone make no run: somebody's results, somebody's folder of runs and somebody's locks are inputs."""
    leave_run(tmp_path / "lab", ["results.ndjson", "a.csv"])
    leave_run(tmp_path / "marathon.run", ["a.csv"])
    theirs = [
        "lab",
        "lab/a.csv",
        "lab/results.ndjson",
        "marathon.run",
        "marathon.run/a.csv",
        "d.csv",
        "d.lock",
        "x.run",
    ]
    (tmp_path / "x.run").touch()

    assert [] == [name for name in theirs if within_run(tmp_path / name)]


def test_what_lies_beside_a_run_folder_is_found_from_within_it(tmp_path: Path) -> None:
    """`../*.csv` in a run folder leads out of it."""
    run = leave_run(tmp_path / "d.csv.run")
    (tmp_path / "d.csv").touch()

    assert ("../d.csv",) == expand(["../*.csv"], run)


@pytest.mark.skipif(os.geteuid() == 0, reason="an administrator may look everywhere")
def test_a_folder_that_cannot_be_looked_into(tmp_path: Path) -> None:
    """It holds no file that matches, and no traceback comes of it."""
    (tmp_path / "closed").mkdir(mode=0)

    with pytest.raises(ConfigError, match="no file matches"):
        expand(["closed/*.csv"], tmp_path)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (set(), False),
        ({"summary.json"}, True),
        ({"dead-letter.ndjson"}, True),
        ({"checkpoint.json", "report.html"}, True),
        ({"checkpoint.json.part", "dead-letter.ndjson.part"}, True),
        ({"results.ndjson", "my notes.txt"}, True),
        ({"summary.json", "my notes.txt"}, False),
        ({".bashrc"}, False),
    ],
)
def test_what_a_run_looks_like(names: set[str], *, expected: bool) -> None:
    """Results, or nothing but what we write."""
    assert expected is looks_like_run(names)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("d.csv.run", True),
        (".run", True),
        ("two\nlines.run", True),
        (f"d.csv.run-{ASIDE}", True),
        (f"d.csv.run-{ASIDE}-2", True),
        (f"d.csv.run-{ASIDE}-", False),
        (f"d.csv.run-{ASIDE}x", False),
        ("d.csv.run-2026", False),
        (f"out-{ASIDE}", False),
        ("run", False),
    ],
)
def test_names_of_runs(name: str, *, expected: bool) -> None:
    """A run's own name, and the one under which it is moved aside; its lock's name follows."""
    assert expected is is_run_name(name)
    assert expected is is_lock_name(lock_name(name))
    assert is_lock_name(name) is False


@given(st.text(min_size=1), st.integers(0, 253_402_300_799), st.lists(st.integers(2, 30), unique=True))
def test_runs_that_were_moved_aside_are_always_found_again(name: str, second: int, numbers: list[int]) -> None:
    """Whatever a folder is called, the names it gets when it makes room are told from all others, newest first."""
    first = aside_name(name, datetime.fromtimestamp(second, UTC))
    names = [first, *(f"{first}-{number}" for number in numbers)]

    found = moved_aside(name, {*names, name, f"x{first}", f"{first}.lock", f"{name}-2026"})

    assert [*(f"{first}-{number}" for number in sorted(numbers)[::-1]), first] == found


def test_the_newest_come_first() -> None:
    """By the time in the name, then by the number behind it, as a number."""
    names = [f"r-2026-01-0{day}T00-00-00Z{number}" for day, number in [(1, "-9"), (1, "-10"), (2, ""), (1, "")]]

    assert [names[2], names[1], names[0], names[3]] == moved_aside("r", names)
