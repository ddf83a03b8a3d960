"""One run's folder: private, held by one, and never a danger to what somebody else left there."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import pytest

from moe_bulk.checkpoint import Checkpoint
from moe_bulk.errors import JournalError, RunHeld, RunRefused
from moe_bulk.folders import sync_folder
from moe_bulk.outcome import Result, Status
from moe_bulk.record import Position, Row
from moe_bulk.reuse import Action, Found, IfChanged, decide
from moe_bulk.rundir import RunFolder, refuse_unfinished_letters
from moe_bulk.settled import BEGINNING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ENDED = 1795461848.4
"""2026-11-23T19:24:08Z."""
ASIDE = "2026-11-23T19-24-08Z"

CHECKPOINT = Checkpoint(
    settings={},
    sources=(),
    place=BEGINNING,
    ranges={},
    results=3,
    dead_letters=0,
    tally={},
    started_at=ENDED - 100.0,
    at=5.0,
    boot=None,
)
FINISHED = replace(CHECKPOINT, finished=True)


@pytest.fixture
def loose_umask() -> Iterator[None]:
    """Let everybody do everything with new files."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    """Tell who may do what with it."""
    return stat.S_IMODE(path.stat().st_mode)


def earlier_run(path: Path, checkpoint: Checkpoint | None = FINISHED, ended_at: object = ENDED) -> Path:
    """Leave a run; without a checkpoint, it is damaged."""
    path.mkdir()
    (path / "results.ndjson").write_bytes(b"{}\n")
    (path / "dead-letter.ndjson").touch()
    (path / "summary.json").write_bytes(orjson.dumps({"ended_at": ended_at, "exit_code": 0}))
    if checkpoint is not None:
        (path / "checkpoint.json").write_bytes(checkpoint.as_json())
    return path


def begun(path: Path) -> RunFolder:
    """Give a folder in which a new run has begun."""
    folder = RunFolder.claim(path, fresh=False)
    folder.begin()
    return folder


def made_room(path: Path) -> Path:
    """Move the run in the folder aside and begin a new one."""
    with RunFolder.claim(path, fresh=True) as folder:
        aside = folder.move_aside()
        folder.begin()
    return aside


def refusal(path: Path, *, fresh: bool = False) -> str:
    """Tell why the folder is refused."""
    with pytest.raises(RunRefused) as caught:
        RunFolder.claim(path, fresh=fresh)
    assert caught.value.exit_code == 2
    return str(caught.value)


def refuse(number: int) -> Callable[..., None]:
    """Give a call of the system that fails."""

    def fails(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fails


def entries(path: Path) -> list[str]:
    """Name what lies in a folder."""
    return sorted(each.name for each in path.iterdir())


# --- the same command again ------------------------------------------------------------------------------------------


def again(
    path: Path,
    changed: Sequence[str] = (),
    differing: Sequence[str] = (),
    *,
    fresh: bool = False,
    if_changed: IfChanged = "refuse",
) -> Action:
    """Give the command again, as far as the folder goes, and tell what came of it."""
    with RunFolder.claim(path, fresh=fresh) as folder:
        held = folder.found
        finished = held is not None and held.finished
        found = Found(path, finished, changed, differing) if folder.state == "run" else None
        action = decide(found, fresh=fresh, if_changed=if_changed)
        if action == Action.MOVE_ASIDE:
            folder.move_aside()
        if action in (Action.START, Action.MOVE_ASIDE):
            folder.begin()
            folder.journal().close()
        if action == Action.GO_ON:
            assert held is not None
            folder.go_on(held.results, held.dead_letters).close()
    return action


def test_an_unfinished_run_of_the_same_bytes_and_settings_goes_on(tmp_path: Path) -> None:
    """What it has written stays."""
    path = earlier_run(tmp_path / "run", CHECKPOINT)

    assert again(path) == Action.GO_ON
    assert ((path / "results.ndjson").read_bytes(), entries(tmp_path)) == (b"{}\n", ["run"])


def test_a_finished_run_of_the_same_stays_as_it_is(tmp_path: Path) -> None:
    """Nothing is sent, and nothing changes."""
    path = earlier_run(tmp_path / "run")

    assert again(path) == Action.DONE
    assert entries(path) == ["checkpoint.json", "dead-letter.ndjson", "results.ndjson", "summary.json"]


def test_a_finished_run_of_other_bytes_makes_room(tmp_path: Path) -> None:
    """It is moved aside by itself, whole, and a new run starts."""
    path = earlier_run(tmp_path / "run")

    assert again(path, ["d.csv"], ["other settings"]) == Action.MOVE_ASIDE
    assert entries(tmp_path) == ["run", f"run-{ASIDE}"]
    assert entries(path) == ["dead-letter.ndjson", "results.ndjson"]
    assert (tmp_path / f"run-{ASIDE}" / "checkpoint.json").read_bytes() == FINISHED.as_json()


def test_an_unfinished_run_of_other_bytes_is_refused_or_makes_room(tmp_path: Path) -> None:
    """It makes room only for somebody who said so before."""
    path = earlier_run(tmp_path / "run", CHECKPOINT)

    with pytest.raises(RunRefused, match="--if-changed fresh"):
        again(path, ["d.csv"])
    assert entries(tmp_path) == ["run"]
    assert again(path, ["d.csv"], if_changed="fresh") == Action.MOVE_ASIDE
    assert entries(tmp_path) == ["run", f"run-{ASIDE}"]


@pytest.mark.parametrize("checkpoint", [CHECKPOINT, FINISHED])
def test_a_run_with_other_settings_is_refused(tmp_path: Path, checkpoint: Checkpoint) -> None:
    """Finished or not, and it stays."""
    path = earlier_run(tmp_path / "run", checkpoint)

    with pytest.raises(RunRefused, match="begun with other settings"):
        again(path, differing=["other settings"])
    assert entries(tmp_path) == ["run"]


@pytest.mark.parametrize("checkpoint", [CHECKPOINT, FINISHED, None])
def test_any_run_makes_room_with_fresh(tmp_path: Path, checkpoint: Checkpoint | None) -> None:
    """Even a damaged one."""
    path = earlier_run(tmp_path / "run", checkpoint)

    assert again(path, fresh=True) == Action.MOVE_ASIDE
    assert entries(tmp_path) == ["run", f"run-{ASIDE}"]


@pytest.mark.parametrize("checkpoint", [CHECKPOINT, FINISHED, None])
@pytest.mark.parametrize("fresh", [True, False])
def test_a_run_that_another_process_holds_is_refused(
    tmp_path: Path, checkpoint: Checkpoint | None, *, fresh: bool
) -> None:
    """Even --fresh takes nothing from a run that is at work, whatever is in its folder."""
    path = earlier_run(tmp_path / "run", checkpoint)
    with RunFolder.claim(path, fresh=True):
        with pytest.raises(RunHeld, match=f"process {os.getpid()} is uploading into {path} right now") as caught:
            again(path, fresh=fresh)
        assert caught.value.exit_code == 4
    RunFolder.claim(path, fresh=True).release()


# --- claiming --------------------------------------------------------------------------------------------------------


def test_claiming_changes_nothing(tmp_path: Path) -> None:
    """A command that is refused afterwards leaves no trace: no folder, no other mode, no other content."""
    (tmp_path / "old").mkdir(mode=0o755)
    run = earlier_run(tmp_path / "run", CHECKPOINT)
    before = [(each, each.stat().st_mtime_ns, mode(each)) for each in [*run.iterdir(), run]]

    for name in ("new", "old", "run"):
        with RunFolder.claim(tmp_path / name, fresh=False) as folder:
            assert folder.moved_to is None

    assert (entries(tmp_path), mode(tmp_path / "old")) == (["old", "run"], 0o755)
    assert before == [(each, each.stat().st_mtime_ns, mode(each)) for each in [*run.iterdir(), run]]


def test_what_is_found(tmp_path: Path) -> None:
    """The run's checkpoint, where there is a run."""
    with RunFolder.claim(tmp_path / "run", fresh=False) as folder:
        assert (folder.state, folder.found) == ("new", None)
    earlier_run(tmp_path / "run", CHECKPOINT)
    with RunFolder.claim(tmp_path / "run", fresh=False) as folder:
        assert (folder.state, folder.found) == ("run", CHECKPOINT)


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["dead-letter.ndjson"],
        ["results.ndjson"],
        ["results.ndjson", "dead-letter.ndjson", "checkpoint.json.part"],
        ["checkpoint.json.part"],
        ["results.ndjson", "dead-letter.ndjson", "summary.json", "report.html"],
    ],
)
def test_a_run_that_never_began_starts_over_in_place(tmp_path: Path, names: list[str]) -> None:
    """A run that was killed before its first result left nothing that is worth a folder."""
    path = tmp_path / "run"
    path.mkdir(mode=0o755)
    for name in names:
        (path / name).touch()

    assert again(path) == Action.START
    assert (entries(tmp_path), entries(path)) == (["run"], ["dead-letter.ndjson", "results.ndjson"])
    assert mode(path) == 0o700


def test_what_is_not_ours_stays_where_a_run_starts_over(tmp_path: Path) -> None:
    """Notes that somebody left beside empty results are no part of them."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.ndjson").touch()
    (tmp_path / "run" / "my notes.txt").write_bytes(b"precious")

    begun(tmp_path / "run").release()

    assert entries(tmp_path / "run") == ["my notes.txt"]


def test_a_run_without_its_checkpoint_is_refused(tmp_path: Path) -> None:
    """Which rows are settled is not guessed; the message says what to type."""
    path = earlier_run(tmp_path / "d.csv.run", None)
    expected = (
        f"{path} holds a run that cannot go on: its checkpoint.json is missing. "
        f"To start over: add --fresh; it will be moved aside to d.csv.run-{ASIDE}"
    )

    assert expected == refusal(path)
    assert entries(tmp_path) == ["d.csv.run"]


@pytest.mark.parametrize(
    "names", [["summary.json"], ["report.html"], ["dead-letter.ndjson", "summary.json"], ["checkpoint.json"]]
)
def test_what_may_be_a_run_is_not_emptied(tmp_path: Path, names: list[str]) -> None:
    """Without results, a summary may be all that somebody kept, or somebody else's."""
    (tmp_path / "run").mkdir()
    for name in names:
        (tmp_path / "run" / name).touch()

    assert "holds a run that cannot go on" in refusal(tmp_path / "run")
    assert sorted(names) == entries(tmp_path / "run")


@pytest.mark.parametrize("name", ["results.ndjson", "dead-letter.ndjson"])
def test_what_is_no_empty_file_is_not_emptied(tmp_path: Path, name: str) -> None:
    """A pipe has no length, and is nothing that a run of ours left."""
    (tmp_path / "run").mkdir()
    os.mkfifo(tmp_path / "run" / name)

    assert "holds a run that cannot go on: its checkpoint.json is missing" in refusal(tmp_path / "run")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", "it is torn, or no JSON"),
        (CHECKPOINT.as_json()[:-9], "it is torn, or no JSON"),
        (b"\0" * 500, "it is torn, or no JSON"),
        (b"[1]", "it is no JSON object"),
        (b'{"format":2}', "its format is 2, this version knows 1"),
        (CHECKPOINT.as_json().replace(b'"sessions":1', b'"sessions":true'), "'sessions' is no number"),
    ],
)
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, text: bytes, told: str) -> None:
    """It is never misread, and with --fresh it is in nobody's way."""
    path = earlier_run(tmp_path / "run")
    (path / "checkpoint.json").write_bytes(text)

    assert f"cannot go on: its checkpoint.json cannot be used ({told}" in refusal(path)
    with RunFolder.claim(path, fresh=True) as folder:
        assert (folder.state, folder.found) == ("run", None)


def plant(kind: str, path: Path, target: Path) -> None:
    """Put something odd under a file's name."""
    path.unlink()
    if kind == "link":
        path.symlink_to(target)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.write_bytes(target.read_bytes())
        os.chown(path, 12345, -1)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("link", os.strerror(errno.ELOOP)),
        ("pipe", "it is torn, or no JSON"),
        ("folder", os.strerror(errno.EISDIR)),
        pytest.param(
            "another user's",
            "it belongs to another user (id 12345)",
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="only an administrator can give a file away"),
        ),
    ],
)
def test_a_checkpoint_that_somebody_planted_is_refused(tmp_path: Path, kind: str, told: str) -> None:
    """No link is followed, no pipe waited for, nobody else's word taken; and no descriptor stays open."""
    (tmp_path / "target").write_bytes(FINISHED.as_json())
    path = earlier_run(tmp_path / "run")
    plant(kind, path / "checkpoint.json", tmp_path / "target")
    refusal(path)
    before = os.dup(0)
    os.close(before)

    assert f"its checkpoint.json cannot be used ({told})" in refusal(path)

    after = os.dup(0)
    os.close(after)
    assert before == after


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("names", [["holiday.jpg"], ["summary.json", "package.json"]])
def test_a_folder_of_other_things_stays_as_it_is(tmp_path: Path, names: list[str], *, fresh: bool) -> None:
    """`--out ~/ --fresh` moves nobody's home away."""
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    for name in names:
        (home / name).touch()

    told = refusal(home, fresh=fresh)

    assert "is not empty and holds no run of moe-bulk" in told
    assert sorted(names) == entries(home)
    assert (mode(home), [home]) == (0o755, list(tmp_path.iterdir()))


@pytest.mark.parametrize("fresh", [True, False])
def test_a_link_is_refused(tmp_path: Path, *, fresh: bool) -> None:
    """A link in place of the folder leads nowhere, with or without a slash at its end."""
    target = earlier_run(tmp_path / "target")
    (tmp_path / "run").symlink_to(target)

    assert "is a link, not a folder" in refusal(tmp_path / "run", fresh=fresh)
    assert "is a link, not a folder" in refusal(Path(f"{tmp_path}/run/"), fresh=fresh)
    assert target.exists()


def test_a_file_is_refused(tmp_path: Path) -> None:
    """The source itself given as --out is not overwritten."""
    (tmp_path / "run").write_bytes(b"precious")

    assert "is a file, not a folder" in refusal(tmp_path / "run", fresh=True)
    assert (tmp_path / "run").read_bytes() == b"precious"


@pytest.mark.parametrize("path", ["/", "..", "a/.."])
def test_a_folder_without_a_name_is_refused(path: str) -> None:
    """There is no place beside the root for a lock."""
    assert "cannot be a run folder" in refusal(Path(path))


def test_a_relative_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that changes its folder meanwhile still finds its run."""
    monkeypatch.chdir(tmp_path)

    with RunFolder.claim(Path("run"), fresh=False) as folder:
        assert tmp_path / "run" == folder.path


def test_a_folder_within_a_file_is_an_error(tmp_path: Path) -> None:
    """What the system says is passed on."""
    (tmp_path / "file").touch()

    assert f"the run folder {tmp_path}/file/run cannot be used: Not a directory. " in refusal(tmp_path / "file" / "run")


@pytest.mark.skipif(os.geteuid() != 0, reason="only an administrator can give a file away")
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    """Nothing is written where somebody else may read and replace it, and nothing is moved."""
    path = earlier_run(tmp_path / "run")
    os.chown(path, 12345, -1)

    assert "belongs to another user (id 12345)" in refusal(path, fresh=True)
    assert [path] == list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="only some systems have a folder that takes nothing")
@pytest.mark.parametrize("path", ["/proc/run", "/proc/a/run"])
def test_a_folder_that_cannot_be_created_is_refused(path: str) -> None:
    """Nothing was sent, so it is a refusal, and it speaks of the folder that was named."""
    said = refusal(Path(path))

    assert said.startswith(f"the run folder {path} cannot be used: No such file or directory. ")
    assert "--out" in said
    assert "lock" not in said


def test_a_refusal_lets_go_of_everything(tmp_path: Path) -> None:
    """No descriptor is left open by claims that fail, and no lock."""
    path = earlier_run(tmp_path / "run", None)
    refusal(path)
    before = os.open(tmp_path, os.O_RDONLY)
    os.close(before)
    for _ in range(3):
        refusal(path)
    after = os.open(tmp_path, os.O_RDONLY)
    os.close(after)

    assert (before, entries(tmp_path)) == (after, ["run"])


def test_release_twice_changes_nothing(tmp_path: Path) -> None:
    """Neither does it remove the lock of whoever came next."""
    folder = RunFolder.claim(tmp_path / "run", fresh=False)
    folder.release()
    with RunFolder.claim(tmp_path / "run", fresh=False):
        folder.release()

        assert entries(tmp_path) == ["run.lock"]


# --- beginning, going on, moving aside -------------------------------------------------------------------------------


@pytest.mark.usefixtures("loose_umask")
def test_everything_is_private_from_its_creation(tmp_path: Path) -> None:
    """Folder, missing parents, files and lock are the user's alone, however loose the umask is."""
    path = tmp_path / "new" / "devices.csv.run"
    with begun(path) as folder:
        folder.journal().close()
        folder.write_summary({})
        folder.write_checkpoint(b"{}")
        lock = mode(path.with_name("devices.csv.run.lock"))

    assert (mode(path.parent), mode(path), lock) == (0o700, 0o700, 0o600)
    assert {each.name: mode(each) for each in path.iterdir()} == {
        "results.ndjson": 0o600,
        "dead-letter.ndjson": 0o600,
        "summary.json": 0o600,
        "checkpoint.json": 0o600,
    }


def test_paths_of_the_files(tmp_path: Path) -> None:
    """The folder tells where everything is."""
    with RunFolder.claim(tmp_path / "run", fresh=True) as folder:
        paths = [folder.path, folder.results, folder.dead_letter, folder.summary]

    assert [each.name for each in paths] == ["run", "results.ndjson", "dead-letter.ndjson", "summary.json"]


def test_a_run_is_never_emptied(tmp_path: Path) -> None:
    """Whoever wants to begin has to make room first; and there is no folder before somebody begins."""
    with RunFolder.claim(earlier_run(tmp_path / "run"), fresh=True) as folder:
        with pytest.raises(RuntimeError, match="move it aside first"):
            folder.begin()
        folder.move_aside()
        with pytest.raises(RuntimeError, match="there is no folder yet"):
            folder.journal()

    assert (tmp_path / f"run-{ASIDE}" / "results.ndjson").read_bytes() == b"{}\n"


def test_journal_writes_into_the_folder(tmp_path: Path) -> None:
    """A failed row is found in both files, and so is one that fails after a restart."""
    rows = [Position("d.csv", line, line) for line in (2, 3)]
    first, second = (Result(place, Status.INVALID, Row(place, {"a": "b"})) for place in rows)
    with begun(tmp_path / "run") as folder:
        journal = folder.journal()
        journal.record([first])
        journal.close()
        folder.path.chmod(0o755)

        journal = folder.go_on(*journal.lengths)
        journal.record([second])
        journal.close()

    assert [2, 3] == [orjson.loads(line)["line"] for line in folder.results.read_bytes().splitlines()]
    assert ["b", "b"] == [orjson.loads(line)["a"] for line in folder.dead_letter.read_bytes().splitlines()]
    assert mode(folder.path) == 0o700


@pytest.mark.parametrize("name", ["results.ndjson", "dead-letter.ndjson"])
def test_journal_follows_no_link(tmp_path: Path, name: str) -> None:
    """A link that somebody plants in the folder is refused, by a new run and by one that goes on."""
    with begun(tmp_path / "run") as folder:
        (folder.path / name).symlink_to(tmp_path / "target")

        with pytest.raises(JournalError, match="File exists"):
            folder.journal()
        (tmp_path / "target").touch()
        with pytest.raises(JournalError, match="run cannot be used"):
            folder.go_on(0, 0)


@pytest.mark.parametrize("lengths", [(4, 0), (2, 0), (3, 1)])
def test_a_run_goes_on_only_where_it_stopped(tmp_path: Path, lengths: tuple[int, int]) -> None:
    """Nothing is appended behind a torn line."""
    with RunFolder.claim(earlier_run(tmp_path / "run", CHECKPOINT), fresh=False) as folder:
        with pytest.raises(JournalError, match="changed while it was taken up again"):
            folder.go_on(*lengths)
        folder.go_on(3, 0).close()


@pytest.mark.parametrize("text", [None, b"", b"[1]", b"{", b"\xff", b'{"ended_at":"soon"}'])
def test_without_a_summary_the_newest_file_tells_when_it_ended(tmp_path: Path, text: bytes | None) -> None:
    """A killed run has no summary, or a damaged one; its name comes from its last write."""
    path = earlier_run(tmp_path / "run", CHECKPOINT)
    (path / "summary.json").unlink()
    if text is not None:
        (path / "summary.json").write_bytes(text)
    (path / "report.html").symlink_to("nowhere")
    for n, each in enumerate(sorted(path.iterdir())):
        os.utime(each, (ENDED - n, ENDED - n), follow_symlinks=False)

    assert tmp_path / f"run-{ASIDE}" == made_room(path)


@pytest.mark.parametrize("ended_at", [None, "soon", 1e300, -1])
def test_a_time_that_is_none_names_nothing(tmp_path: Path, ended_at: object) -> None:
    """Nonsense in a summary is passed over."""
    path = earlier_run(tmp_path / "run", FINISHED, ended_at)
    for each in path.iterdir():
        os.utime(each, (ENDED, ENDED))

    assert tmp_path / f"run-{ASIDE}" == made_room(path)


def test_moving_aside_finds_a_free_name(tmp_path: Path) -> None:
    """Three runs that ended in the same second are all kept, and a link's name is taken too."""
    (tmp_path / f"run-{ASIDE}").symlink_to("nowhere")
    for _ in range(2):
        with contextlib.suppress(FileNotFoundError):
            (tmp_path / "run").rmdir()
        made_room(earlier_run(tmp_path / "run"))

    assert entries(tmp_path) == ["run", f"run-{ASIDE}", f"run-{ASIDE}-2", f"run-{ASIDE}-3"]


def test_after_moving_aside_the_folder_is_new(tmp_path: Path) -> None:
    """What was found belongs to the other folder now, and the new one is private and empty."""
    with RunFolder.claim(earlier_run(tmp_path / "run"), fresh=True) as folder:
        moved_to = folder.move_aside()
        folder.begin()

        assert (folder.state, folder.found, folder.moved_to) == ("new", None, moved_to)
        assert (entries(folder.path), mode(folder.path)) == ([], 0o700)


def test_names_are_safe_from_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step that gives or takes a name ends when the folder around it is on disk, before anything is sent."""
    path = earlier_run(tmp_path / "run")
    synced: list[list[str]] = []
    monkeypatch.setattr("moe_bulk.rundir.sync_folder", lambda fd: synced.append(sorted(os.listdir(fd))))  # noqa: PTH208
    with RunFolder.claim(path, fresh=True) as folder:
        folder.move_aside()
        folder.begin()
        folder.journal().close()
        folder.go_on(0, 0).close()
        folder.write_summary({})
        folder.remove_summary()

    files = ["dead-letter.ndjson", "results.ndjson"]
    assert synced == [
        [f"run-{ASIDE}", "run.lock"],
        ["run", f"run-{ASIDE}", "run.lock"],
        files,
        files,
        [*files, "summary.json"],
        files,
    ]


@pytest.mark.parametrize("call", ["rename", "mkdir"])
def test_making_room_where_the_system_does_not_let_us(
    tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was sent, so it is a refusal."""
    path = earlier_run(tmp_path / "run")
    monkeypatch.setattr(os, call, refuse(errno.EROFS))

    with pytest.raises(RunRefused, match=f"the run folder {path} cannot be used: Read-only file system"):
        made_room(path)


def test_free_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept for the administrator is not free."""
    blocks = os.statvfs_result((4096, 1024, 100, 50, 20, 9, 9, 9, 0, 255))
    with begun(tmp_path / "run") as folder:
        assert folder.free_bytes() > 0
        monkeypatch.setattr(os, "fstatvfs", lambda fd: blocks)
        assert 20 * 1024 == folder.free_bytes()


# --- files that are replaced -----------------------------------------------------------------------------------------


def test_summary_is_replaced_whole(tmp_path: Path) -> None:
    """The summary appears under its name when it is complete; a leftover of a crash is no hindrance."""
    with begun(tmp_path / "run") as folder:
        (folder.path / "summary.json.part").symlink_to(tmp_path / "target")
        folder.write_summary({"counts": {"read": 1}})
        folder.write_summary({"counts": {"read": 2}, "odd": 2**70, "text": "\ud800"})

        assert {"counts": {"read": 2}, "odd": str(2**70), "text": "\\ud800"} == folder.read_summary()
    assert entries(folder.path) == ["summary.json"]


def test_summary_that_cannot_be_written(tmp_path: Path) -> None:
    """What is in the way is told with the folder's name."""
    with begun(tmp_path / "run") as folder:
        (folder.summary / "inner").mkdir(parents=True)

        with pytest.raises(JournalError, match="run cannot be used: "):
            folder.write_summary({})


@pytest.mark.parametrize("call", ["moe_bulk.rundir.sync_to_disk", "os.rename", "moe_bulk.rundir.sync_folder"])
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a file takes room where there is none; a whole one stands there, the old or the new."""
    with begun(tmp_path / "run") as folder:
        folder.write_checkpoint(b"1")
        monkeypatch.setattr(call, refuse(errno.ENOSPC))

        with pytest.raises(JournalError, match="No space left"):
            folder.write_checkpoint(b"2")

        assert entries(folder.path) == ["checkpoint.json"]
        assert (folder.path / "checkpoint.json").read_bytes() in (b"1", b"2")


def test_a_file_is_safe_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power cut at any moment leaves the old checkpoint or the new one: the order of the steps sees to it."""
    steps = []
    with begun(tmp_path / "run") as folder:
        monkeypatch.setattr("moe_bulk.rundir.sync_to_disk", lambda fd: steps.append(f"{os.fstat(fd).st_size} synced"))
        monkeypatch.setattr("moe_bulk.rundir.sync_folder", lambda fd: steps.append("folder synced"))
        rename = os.rename

        def renamed(*names: str, src_dir_fd: int, dst_dir_fd: int) -> None:
            steps.append(" -> ".join(names))
            rename(*names, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

        monkeypatch.setattr(os, "rename", renamed)
        folder.write_checkpoint(b"12345")

    assert steps == ["5 synced", "checkpoint.json.part -> checkpoint.json", "folder synced"]


def test_a_summary_is_removed_when_its_run_goes_on(tmp_path: Path) -> None:
    """It would speak of an end that was none; a second time changes nothing."""
    with RunFolder.claim(earlier_run(tmp_path / "run"), fresh=False) as folder:
        assert {"ended_at": ENDED, "exit_code": 0} == folder.read_summary()
        folder.remove_summary()
        folder.remove_summary()
        assert folder.read_summary() is None


def test_the_rewritten_dead_letter_takes_its_place(tmp_path: Path) -> None:
    """It stands where the old one stood, as a whole; without one there is an error, and the old one stays."""
    with begun(tmp_path / "run") as folder:
        folder.dead_letter.write_bytes(b"old")
        (folder.path / "dead-letter.ndjson.part").write_bytes(b"new")

        folder.replace_dead_letter()

        with pytest.raises(JournalError, match="No such file"):
            folder.replace_dead_letter()
        assert folder.dead_letter.read_bytes() == b"new"
    assert entries(folder.path) == ["dead-letter.ndjson"]


def test_sync_folder_where_the_file_system_knows_no_such_thing() -> None:
    """Only the answer that it is not known is passed over."""
    reader, writer = os.pipe()
    sync_folder(writer)
    os.close(reader)
    os.close(writer)

    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        sync_folder(writer)


# --- runs that were moved aside --------------------------------------------------------------------------------------


def aside(day: int, number: str = "") -> str:
    """Name a run that ended on that day."""
    return f"run-2026-11-{day:02}T19-24-08Z{number}"


def kept(tmp_path: Path, count: int) -> list[str]:
    """Name what is left beside the folder once so many runs were kept."""
    with begun(tmp_path / "run") as folder:
        removed = folder.keep_runs(count)
    assert not [path for path in removed if path.exists()]
    return [name for name in entries(tmp_path) if name != "run"]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, []),
        (1, [aside(3)]),
        (2, [aside(2, "-10"), aside(3)]),
        (3, [aside(2, "-10"), aside(2, "-9"), aside(3)]),
        (9, [aside(1), aside(2), aside(2, "-10"), aside(2, "-9"), aside(3)]),
    ],
)
def test_the_newest_runs_are_kept(tmp_path: Path, count: int, expected: list[str]) -> None:
    """Older ones of the same name go with all that is in them."""
    for name in (aside(2), aside(1), aside(2, "-10"), aside(2, "-9"), aside(3)):
        earlier_run(tmp_path / name)

    assert expected == kept(tmp_path, count)


def test_folders_of_others_neither_count_nor_go(tmp_path: Path) -> None:
    """A later name, a link, files that are called like ours: without a checkpoint of ours it is no run."""
    for name in (aside(1), aside(2)):
        earlier_run(tmp_path / name)
    (tmp_path / aside(3)).mkdir()
    (tmp_path / aside(3) / "results.ndjson").write_text("USER DATA")
    (tmp_path / aside(4)).symlink_to(tmp_path / aside(1))

    assert [aside(2), aside(3), aside(4)] == kept(tmp_path, 1)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("call", ["os.mkdir", "os.ftruncate", "moe_bulk.rundir.sync_folder"])
def test_a_disk_that_fails_at_the_beginning_is_no_fault_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    """It passes, and then the same command works: exit code 3, not 2."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(call, fail)
    with pytest.raises(JournalError) as caught, RunFolder.claim(tmp_path / "run", fresh=False) as folder:
        folder.begin()
    assert 3 == caught.value.exit_code
    assert "run the same command again" in str(caught.value)


def test_only_runs_of_this_name_are_removed(tmp_path: Path) -> None:
    """Other runs, things that are called alike, links and files stay."""
    others = [f"other-{aside(1)}", f"{aside(1)}-x", "run-2026", f"run.sandbox{aside(1)[3:]}", f"{aside(1)}.old"]
    for name in others:
        earlier_run(tmp_path / name)
    target = earlier_run(tmp_path / "target")
    (tmp_path / aside(1)).symlink_to(target)
    (tmp_path / aside(2)).touch()

    assert sorted([*others, "target", aside(1), aside(2)]) == kept(tmp_path, 0)
    assert (target / "results.ndjson").exists()


@pytest.mark.parametrize("kind", ["notes", "folder", "link", "link to a folder", "pipe"])
def test_a_run_that_holds_anything_else_stays(tmp_path: Path, kind: str) -> None:
    """What somebody put there was put there to be kept, and nothing that a link leads to is touched."""
    target = earlier_run(tmp_path / "target")
    path = earlier_run(tmp_path / aside(1))
    (path / "report.html").unlink(missing_ok=True)
    if kind == "notes":
        (path / "my notes.txt").touch()
    elif kind == "folder":
        (path / "notes").mkdir()
    elif kind == "pipe":
        os.mkfifo(path / "report.html")
    else:
        (path / "report.html").symlink_to(target / "results.ndjson" if kind == "link" else target)
    before = entries(path)

    assert [aside(1), "target"] == kept(tmp_path, 0)
    assert before == entries(path)
    assert (target / "results.ndjson").exists()


def test_runs_within_a_run_go_with_it(tmp_path: Path) -> None:
    """Sending a dead letter again leaves its run, moved-aside ones and locks in the run folder."""
    path = earlier_run(tmp_path / aside(1))
    inner = earlier_run(path / "dead-letter.ndjson.run")
    earlier_run(path / f"dead-letter.ndjson.run-{ASIDE}")
    earlier_run(inner / "dead-letter.ndjson.run")
    (path / "dead-letter.ndjson.run.lock").touch()

    assert [] == kept(tmp_path, 0)


def test_runs_that_somebody_holds_stay(tmp_path: Path) -> None:
    """Whoever is at work in one, or in a run within one, finds it there; later it can go."""
    earlier_run(tmp_path / aside(1))
    inner = earlier_run(tmp_path / aside(2)) / "dead-letter.ndjson.run"
    with RunFolder.claim(tmp_path / aside(1), fresh=False), begun(inner):
        assert [aside(1), f"{aside(1)}.lock", aside(2)] == kept(tmp_path, 0)
        assert (inner.parent / "summary.json").exists()

    assert [] == kept(tmp_path, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only an administrator can give a file away")
def test_a_run_of_another_user_stays(tmp_path: Path) -> None:
    """Even where we could remove it."""
    os.chown(earlier_run(tmp_path / aside(1)), 12345, -1)

    assert [aside(1)] == kept(tmp_path, 0)


def test_a_run_that_cannot_be_removed_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new run does not fail for the sake of an old one; a removal that was cut short is completed the next time."""
    path = earlier_run(tmp_path / aside(1))
    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", refuse(errno.EBUSY))
        assert [aside(1)] == kept(tmp_path, 0)
    for each in path.iterdir():
        each.unlink()

    assert [] == kept(tmp_path, 0)


# --- dead letters of unfinished runs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("checkpoint", [CHECKPOINT, None])
def test_the_dead_letter_of_an_unfinished_run_is_refused(tmp_path: Path, checkpoint: Checkpoint | None) -> None:
    """It may still grow, and nobody knows yet which letters are superseded; a link leads to the same file."""
    letters = earlier_run(tmp_path / "d.csv.run", checkpoint) / "dead-letter.ndjson"
    (tmp_path / "link.ndjson").symlink_to(letters)
    expected = (
        "{} belongs to a run that is not finished. Finish that run first: give its own command again, "
        f"with --out {tmp_path}/d.csv.run. If it never will be, copy the file elsewhere and send the copy"
    )

    for path in (str(letters), str(tmp_path / "link.ndjson")):
        with pytest.raises(RunRefused) as caught:
            refuse_unfinished_letters(["other.csv", path])
        assert (expected.format(path), 2) == (str(caught.value), caught.value.exit_code)


def test_the_dead_letter_of_an_unfinished_run_on_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redirected, it is the same file."""
    letters = earlier_run(tmp_path / "d.csv.run", CHECKPOINT) / "dead-letter.ndjson"
    monkeypatch.setattr("os.path.realpath", lambda path: str(letters) if path == "/dev/fd/0" else path)

    with pytest.raises(RunRefused, match="not finished"):
        refuse_unfinished_letters(["-"])


@pytest.mark.parametrize("text", [b"", b"{}"])
def test_the_dead_letter_of_a_damaged_run_is_refused(tmp_path: Path, text: bytes) -> None:
    """Nobody knows whether it was finished."""
    path = earlier_run(tmp_path / "run")
    (path / "checkpoint.json").write_bytes(text)

    with pytest.raises(RunRefused, match="not finished"):
        refuse_unfinished_letters([str(path / "dead-letter.ndjson")])


def test_other_sources_are_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finished runs, copies, other files, what is not there, and what is no local file at all."""
    monkeypatch.chdir(tmp_path)
    earlier_run(tmp_path / "run")
    earlier_run(tmp_path / "unfinished", CHECKPOINT)
    (tmp_path / "dead-letter.ndjson").touch()

    refuse_unfinished_letters(
        [
            "run/dead-letter.ndjson",
            "unfinished/results.ndjson",
            "dead-letter.ndjson",
            "gone/dead-letter.ndjson",
            "-",
            "s3://unfinished/dead-letter.ndjson",
            "unfinished/\0/dead-letter.ndjson",
        ]
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only an administrator can give a file away")
def test_a_colleagues_finished_run_is_a_source(tmp_path: Path) -> None:
    """What somebody else finished may be sent again, if it may be read."""
    path = earlier_run(tmp_path / "run")
    for each in (path, *path.iterdir()):
        os.chown(each, 12345, -1)

    refuse_unfinished_letters([str(path / "dead-letter.ndjson")])
