"""What things are called: the files of a run folder, where a run stands, and which files a glob means."""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from moe_bulk.errors import ConfigError
from moe_bulk.journal import DEAD_LETTER, RESULTS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime

CHECKPOINT = "checkpoint.json"
SUMMARY = "summary.json"
CENSUS = "devices.census"
REPORT = "report.html"
PART = ".part"
"""What a file is called until it is complete."""

_WHOLE = frozenset({RESULTS, DEAD_LETTER, CHECKPOINT, SUMMARY, CENSUS, REPORT})
PARTS = frozenset(name + PART for name in _WHOLE)
OURS = _WHOLE | PARTS

_WHEN = r"[0-9]{4}(?:-[0-9]{2}){2}T[0-9]{2}(?:-[0-9]{2}){2}Z"
_ASIDE = rf"-(?P<when>{_WHEN})(?:-(?P<number>[0-9]+))?"
_RUN = re.compile(rf".*\.run(?:{_ASIDE})?", re.DOTALL)
_LOCK = ".lock"


def default_out(sources: Sequence[str], *, sandbox: bool, cwd: Path) -> Path:
    """Where a run is written when nobody says: `devices.csv.run` beside `devices.csv`.

    Standard input, URLs, globs and several sources have no place of their own: theirs is in `cwd`, by the name of the
    first. `sources` are as they were given, globs not expanded. Raises ConfigError where the first matches nothing.
    """
    first = sources[0]
    suffix = ".sandbox.run" if sandbox else ".run"
    if first == "-":
        return cwd / f"stdin{suffix}"
    if "://" in first:
        return cwd / f"{_url_name(first)}{suffix}"
    (named, *_) = expand([first], cwd)
    if len(sources) > 1 or named != first:
        return cwd / f"{Path(named).name}{suffix}"
    path = cwd / first
    return path.parent / f"{path.name}{suffix}"


def _url_name(url: str) -> str:
    web = url.startswith(("http://", "https://"))
    path = urlsplit(url).path if web else url.partition("://")[2]
    name = path.rstrip("/").rpartition("/")[2].rpartition("@")[2]  # without a bucket's key, where there is no more
    return name if name.strip(".") else "source"


def expand(sources: Sequence[str], cwd: Path) -> tuple[str, ...]:
    """The sources with each glob replaced by the files that it matches, in the order of their names.

    Run folders, what lies in them and their locks are left out: what is written today is no input tomorrow. A file
    that exists under the very name is no glob, and neither are `-` and URLs. Raises ConfigError where a glob matches
    nothing.
    """
    found: list[str] = []
    for source in sources:
        found += _matches(source, cwd) if _is_glob(source, cwd) else [source]
    return tuple(found)


def _is_glob(source: str, cwd: Path) -> bool:
    if "://" in source or "\0" in source or not glob.has_magic(source):
        return False
    return not os.path.exists(cwd / source)  # noqa: PTH110  Path.exists raises where a folder cannot be looked into


def _matches(pattern: str, cwd: Path) -> list[str]:
    matches = sorted(glob.glob(pattern, root_dir=cwd, recursive=True))  # noqa: PTH207  Path.glob takes no absolute ones
    files = [path for path in matches if not within_run(cwd / path)]
    if not files:
        ours = ": all that it matches belongs to runs. Name what you mean" if matches else ""
        raise ConfigError(f"no file matches {pattern!r}{ours}")
    return files


def within_run(path: Path) -> bool:
    """True for a run folder, one that was moved aside, what lies in one, and the lock that was left beside one."""
    path = Path(os.path.abspath(path))  # noqa: PTH100  `..` would make the folder that it leaves one of the parents
    if is_lock_name(path.name):
        return True
    folder = path.with_suffix("") if path.suffix == _LOCK else path
    return any(_is_run(each) for each in (folder, *path.parents))


def _is_run(folder: Path) -> bool:
    """Whether it holds results and what goes with them, or is called a run and holds nothing that is not ours.

    A file of somebody else's that happens to be called `results.ndjson` does not hide what lies beside and below it.
    """
    named = is_run_name(folder.name)
    if os.path.lexists(folder / RESULTS):
        return named or any(os.path.lexists(folder / name) for name in OURS - {RESULTS})
    return named and _holds_only_ours(folder)


def _holds_only_ours(folder: Path) -> bool:
    try:
        return OURS.issuperset(os.listdir(folder))  # noqa: PTH208  names are all it takes
    except OSError:
        return False


def looks_like_run(names: Collection[str]) -> bool:
    """Whether a folder with these entries is a run of ours: it has results, or nothing but what we write.

    A lone `summary.json` among other things is somebody else's.
    """
    return RESULTS in names or (bool(names) and OURS.issuperset(names))


def is_run_name(name: str) -> bool:
    """True for `devices.csv.run`, and for the name under which it is moved aside."""
    return _RUN.fullmatch(name) is not None


def is_lock_name(name: str) -> bool:
    """True for the lock of a folder that is called a run."""
    return name.endswith(_LOCK) and is_run_name(name.removesuffix(_LOCK))


def lock_name(name: str) -> str:
    """The file beside a run folder that is locked while somebody is at work in it."""
    return name + _LOCK


def aside_name(name: str, when: datetime) -> str:
    """What the run folder `name` is called once it is moved aside; `when` is when its run ended, in UTC.

    A run that ended in the same second as another one has `-2` and so on behind it.
    """
    return f"{name}-{when:%Y-%m-%dT%H-%M-%SZ}"


def moved_aside(name: str, names: Collection[str]) -> list[str]:
    """Those of `names` to which runs of the folder `name` were moved aside, the newest first."""
    pattern = re.compile(re.escape(name) + _ASIDE)
    found = [match for each in names if (match := pattern.fullmatch(each))]
    return [match[0] for match in sorted(found, key=lambda match: (match["when"], int(match["number"] or 1)))[::-1]]
