"""One run's folder: private, held by one, and never a danger to what somebody else left there."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import multiprocessing
import os
import stat
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import pytest

from moe_bulk.errors import JournalError, RunHeld, RunRefused
from moe_bulk.outcome import Result, Status
from moe_bulk.record import Position, Row
from moe_bulk.rundir import (
    RunFolder,
    default_out,
    hold,
    looks_like_run,
    open_lock,
    stranger,
    sync_folder,
    within_run,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

ENDED = 1795461848.4
"""2026-11-23T19:24:08Z."""


@pytest.fixture
def loose_umask() -> Iterator[None]:
    """Let everybody do everything with new files."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    """Tell who may do what with it."""
    return stat.S_IMODE(path.stat().st_mode)


def earlier_run(path: Path, ended_at: object = ENDED, exit_code: int = 0) -> Path:
    """Leave a run that has ended."""
    path.mkdir()
    (path / "results.ndjson").write_bytes(b"{}\n")
    (path / "summary.json").write_bytes(orjson.dumps({"ended_at": ended_at, "exit_code": exit_code}))
    return path


def refusal(path: Path, *, fresh: bool = False) -> str:
    """Tell why the folder is refused; see that nothing was left behind."""
    with pytest.raises(RunRefused) as caught:
        RunFolder.claim(path, fresh=fresh)
    assert caught.value.exit_code == 2
    return str(caught.value)


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
        (["data/*.csv"], "/here/*.csv.run"),
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
    earlier_run(here.parent / "x").rename(tmp_path / "0.run")
    (tmp_path / "in").mkdir()
    for name in ("b.csv", "a.csv"):
        (tmp_path / "in" / name).touch()
    here.mkdir()

    assert here / "a.csv.run" == default_out(["../in/*.csv"], sandbox=False, cwd=here)
    assert here / "a.csv.run" == default_out([f"{tmp_path}/*/*.csv"], sandbox=False, cwd=here)
    assert here / "in.run" == default_out([f"{tmp_path}/[0i]*"], sandbox=False, cwd=here)
    assert here / "b.csv.run" == default_out([f"{tmp_path}/*/[b-z]*.*"], sandbox=False, cwd=here)


def test_globs_skip_what_is_ours(tmp_path: Path) -> None:
    """A run folder, what lies in it, and the lock that a killed run left behind; nobody else's locks."""
    for name in ("d.csv.run", "out"):
        earlier_run(tmp_path / name)
        (tmp_path / f"{name}.lock").touch()
    names = ["d.csv.run", "d.csv.run/results.ndjson", "d.csv.run.lock", "out.lock", "gone.run.lock", "d.csv", "d.lock"]
    assert [True] * 5 + [False] * 2 == [within_run(tmp_path / name) for name in names]


def test_default_out_of_a_file_whose_name_looks_like_a_glob(tmp_path: Path) -> None:
    """A file that exists is no glob."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a[1].csv").touch()

    assert tmp_path / "in" / "a[1].csv.run" == default_out(["in/a[1].csv"], sandbox=False, cwd=tmp_path)


@pytest.mark.usefixtures("loose_umask")
def test_everything_is_private_from_its_creation(tmp_path: Path) -> None:
    """Folder, missing parents, files and lock are the user's alone, however loose the umask is."""
    path = tmp_path / "new" / "devices.csv.run"
    with RunFolder.claim(path, fresh=False) as folder:
        folder.journal().close()
        folder.write_summary({})
        lock = mode(path.with_name("devices.csv.run.lock"))

    assert (mode(path.parent), mode(path), lock) == (0o700, 0o700, 0o600)
    assert {each.name: mode(each) for each in path.iterdir()} == {
        "results.ndjson": 0o600,
        "dead-letter.ndjson": 0o600,
        "summary.json": 0o600,
    }


def test_an_empty_folder_is_used_and_made_private(tmp_path: Path) -> None:
    """A folder that somebody made for the run is fine."""
    (tmp_path / "run").mkdir(mode=0o755)

    RunFolder.claim(tmp_path / "run", fresh=False).release()

    assert mode(tmp_path / "run") == 0o700


def test_paths_of_the_files(tmp_path: Path) -> None:
    """The folder tells where everything is, and that it took nobody's place."""
    with RunFolder.claim(tmp_path / "run", fresh=True) as folder:
        paths = [folder.path, folder.results, folder.dead_letter, folder.summary]
        moved_to = folder.moved_to

    assert [each.name for each in paths] == ["run", "results.ndjson", "dead-letter.ndjson", "summary.json"]
    assert moved_to is None


def test_journal_writes_into_the_folder(tmp_path: Path) -> None:
    """A failed row is found in both files."""
    place = Position("d.csv", 2, 0)
    with RunFolder.claim(tmp_path / "run", fresh=False) as folder:
        journal = folder.journal()
        journal.record([Result(place, Status.INVALID, Row(place, {"a": "b"}))])
        journal.close()

    assert orjson.loads(folder.results.read_bytes())["status"] == "invalid"
    assert orjson.loads(folder.dead_letter.read_bytes())["a"] == "b"


def test_journal_follows_no_link(tmp_path: Path) -> None:
    """A link that somebody plants in the folder is refused, and no file stays open."""
    with RunFolder.claim(tmp_path / "run", fresh=False) as folder:
        folder.results.symlink_to(tmp_path / "target")

        with pytest.raises(JournalError, match="File exists"):
            folder.journal()

    assert not (tmp_path / "target").exists()


def test_summary_is_replaced_whole(tmp_path: Path) -> None:
    """The summary appears under its name when it is complete; a leftover of a crash is no hindrance."""
    with RunFolder.claim(tmp_path / "run", fresh=False) as folder:
        (folder.path / "summary.json.part").symlink_to(tmp_path / "target")
        folder.write_summary({"counts": {"read": 1}})
        folder.write_summary({"counts": {"read": 2}, "odd": 2**70, "text": "\ud800"})

    assert {"counts": {"read": 2}, "odd": str(2**70), "text": "\\ud800"} == orjson.loads(folder.summary.read_bytes())
    assert [each.name for each in folder.path.iterdir()] == ["summary.json"]
    assert not (tmp_path / "target").exists()


def test_summary_that_cannot_be_written(tmp_path: Path) -> None:
    """What is in the way is told with the folder's name."""
    with RunFolder.claim(tmp_path / "run", fresh=False) as folder:
        (folder.summary / "inner").mkdir(parents=True)

        with pytest.raises(JournalError, match="run cannot be used: "):
            folder.write_summary({})


def test_summary_on_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a summary takes room where there is none; what stood there stays."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with RunFolder.claim(tmp_path / "run", fresh=False) as folder:
        folder.write_summary({"a": 1})
        monkeypatch.setattr("moe_bulk.rundir.sync_to_disk", full)

        with pytest.raises(JournalError, match="No space left"):
            folder.write_summary({"a": 2})

        assert [folder.summary] == list(folder.path.iterdir())
        assert {"a": 1} == orjson.loads(folder.summary.read_bytes())


def test_a_finished_run_is_refused_without_fresh(tmp_path: Path) -> None:
    """The refusal says what is there and what to type."""
    path = earlier_run(tmp_path / "d.csv.run")
    expected = (
        f"{path} holds an earlier run (finished at 2026-11-23T19:24:08Z). "
        "To start over: add --fresh; it will be moved aside to d.csv.run-2026-11-23T19-24-08Z"
    )

    assert expected == refusal(path)
    assert [each.name for each in tmp_path.iterdir()] == ["d.csv.run"]


@pytest.mark.parametrize(
    ("ended_at", "exit_code", "told"),
    [
        (ENDED, 1, "(finished at 2026-11-23T19:24:08Z)"),
        (ENDED, 3, "(unfinished, it stopped at 2026-11-23T19:24:08Z)"),
        (None, 0, "(unfinished)"),
        ("soon", 0, "(unfinished)"),
        (1e300, 0, "(unfinished)"),
        (-1, 0, "(unfinished)"),
    ],
)
def test_refusal_tells_how_the_run_ended(tmp_path: Path, ended_at: object, exit_code: int, told: str) -> None:
    """A run that stopped early is told from one that finished, and nonsense is no time."""
    assert told in refusal(earlier_run(tmp_path / "run", ended_at, exit_code))


def test_a_run_that_a_limit_ended_is_unfinished(tmp_path: Path) -> None:
    """Exit code 0 alone makes no finished run: the rest of the rows waits."""
    path = earlier_run(tmp_path / "run")
    (path / "summary.json").write_bytes(orjson.dumps({"ended_at": ENDED, "exit_code": 0, "stopped": "--limit"}))

    assert "(unfinished, it stopped at 2026-11-23T19:24:08Z)" in refusal(path)


@pytest.mark.parametrize("text", [None, b"", b"[1]", b"{", b"\xff"])
def test_without_a_summary_the_newest_file_tells_when_it_ended(tmp_path: Path, text: bytes | None) -> None:
    """A killed run has no summary, or a damaged one; its name comes from its last write."""
    path = earlier_run(tmp_path / "run")
    (path / "summary.json").unlink()
    if text is not None:
        (path / "summary.json").write_bytes(text)
    (path / "dead-letter.ndjson").symlink_to("nowhere")
    for n, each in enumerate(sorted(path.iterdir())):
        os.utime(each, (ENDED - n, ENDED - n), follow_symlinks=False)

    assert "(unfinished)" in refusal(path)
    assert "run-2026-11-23T19-24-08Z" in refusal(path)


def test_fresh_moves_the_earlier_run_aside(tmp_path: Path) -> None:
    """Nothing of the earlier run is lost, and the new one starts empty."""
    path = earlier_run(tmp_path / "run")

    with RunFolder.claim(path, fresh=True) as folder:
        folder.journal().close()

    assert folder.moved_to == tmp_path / "run-2026-11-23T19-24-08Z"
    assert (tmp_path / "run-2026-11-23T19-24-08Z" / "results.ndjson").read_bytes() == b"{}\n"
    assert (folder.results.read_bytes(), mode(path)) == (b"", 0o700)


def test_fresh_finds_a_free_name(tmp_path: Path) -> None:
    """Three runs that ended in the same second are all kept, and a link's name is taken too."""
    (tmp_path / "run-2026-11-23T19-24-08Z").symlink_to("nowhere")
    for _ in range(2):
        with contextlib.suppress(FileNotFoundError):
            (tmp_path / "run").rmdir()
        earlier_run(tmp_path / "run")
        RunFolder.claim(tmp_path / "run", fresh=True).release()

    assert sorted(each.name for each in tmp_path.iterdir()) == [
        "run",
        "run-2026-11-23T19-24-08Z",
        "run-2026-11-23T19-24-08Z-2",
        "run-2026-11-23T19-24-08Z-3",
    ]


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
    assert sorted(names) == sorted(each.name for each in home.iterdir())
    assert (mode(home), [home]) == (0o755, list(tmp_path.iterdir()))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (set(), False),
        ({"summary.json"}, True),
        ({"dead-letter.ndjson"}, True),
        ({"checkpoint.json", "report.html"}, True),
        ({"results.ndjson", "my notes.txt"}, True),
        ({"summary.json", "my notes.txt"}, False),
        ({".bashrc"}, False),
    ],
)
def test_what_a_run_looks_like(names: set[str], *, expected: bool) -> None:
    """Results, or nothing but what we write."""
    assert expected is looks_like_run(names)


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


@pytest.mark.parametrize(("euid", "told"), [(0, None), (1000, "belongs to another user (id 0)")])
def test_stranger(euid: int, told: str | None) -> None:
    """What belongs to another user is not used, not even by the administrator."""
    about = os.stat_result((stat.S_IFDIR | 0o777, 1, 1, 1, 0, 0, 0, 0, 0, 0))

    assert told == stranger(about, euid)


@pytest.mark.skipif(os.geteuid() != 0, reason="only an administrator can give a file away")
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    """Nothing is written where somebody else may read and replace it, and nothing is moved."""
    path = earlier_run(tmp_path / "run")
    os.chown(path, 12345, -1)

    assert "belongs to another user (id 12345)" in refusal(path, fresh=True)
    assert [path] == list(tmp_path.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="only an administrator can give a file away")
def test_a_lock_of_another_user_is_refused(tmp_path: Path) -> None:
    """Somebody else's lock file is neither written nor removed."""
    lock = tmp_path / "run.lock"
    lock.write_bytes(b"theirs")
    os.chown(lock, 12345, -1)

    assert "run.lock belongs to another user" in refusal(tmp_path / "run")
    assert lock.read_bytes() == b"theirs"


def plant(kind: str, lock: Path, target: Path) -> None:
    """Put something odd under the lock's name."""
    if kind == "link":
        lock.symlink_to(target)
    elif kind == "second name":
        lock.hardlink_to(target)
    elif kind == "pipe":
        os.mkfifo(lock)
    else:
        lock.mkdir()


@pytest.mark.parametrize("kind", ["link", "second name", "pipe", "folder"])
def test_a_lock_that_is_no_plain_file_is_refused(tmp_path: Path, kind: str) -> None:
    """What somebody planted under the lock's name is not written to."""
    lock, target = tmp_path / "run.lock", tmp_path / "target"
    target.write_bytes(b"precious")
    plant(kind, lock, target)

    assert "run.lock is no" in refusal(tmp_path / "run")
    assert target.read_bytes() == b"precious"


def test_a_held_run_is_refused_with_its_process(tmp_path: Path) -> None:
    """Even --fresh takes nothing from a run that is at work, and it goes on when that has ended."""
    path = tmp_path / "run"
    with RunFolder.claim(path, fresh=False):
        for fresh in (True, False):
            with pytest.raises(RunHeld, match=f"process {os.getpid()} is uploading into {path} right now") as caught:
                RunFolder.claim(path, fresh=fresh)
            assert caught.value.exit_code == 4
    RunFolder.claim(path, fresh=False).release()


@pytest.mark.parametrize("said", [b"", b"nonsense"])
def test_a_held_run_whose_process_is_unknown(tmp_path: Path, said: bytes) -> None:
    """A lock without a process id holds all the same."""
    with (tmp_path / "run.lock").open("wb") as lock:
        lock.write(said)
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)

        with pytest.raises(RunHeld, match="another process is uploading"):
            RunFolder.claim(tmp_path / "run", fresh=True)


def test_a_lock_that_a_crash_left_holds_nobody_up(tmp_path: Path) -> None:
    """The lock ends with its process, whatever its file says."""
    (tmp_path / "run.lock").write_bytes(b"99999999999 and more\n")

    with RunFolder.claim(tmp_path / "run", fresh=False):
        assert b"%d\n" % os.getpid() == (tmp_path / "run.lock").read_bytes()

    assert not (tmp_path / "run.lock").exists()


def test_release_removes_its_own_lock_only(tmp_path: Path) -> None:
    """A lock file that somebody put in place of ours is not ours to remove; releasing twice changes nothing."""
    folder = RunFolder.claim(tmp_path / "run", fresh=False)
    (tmp_path / "run.lock").unlink()
    (tmp_path / "run.lock").write_bytes(b"another")

    folder.release()
    folder.release()

    assert (tmp_path / "run.lock").read_bytes() == b"another"


def test_release_without_the_lock_file(tmp_path: Path) -> None:
    """Somebody who tidied up does no harm."""
    folder = RunFolder.claim(tmp_path / "run", fresh=False)
    (tmp_path / "run.lock").unlink()

    folder.release()

    assert [tmp_path / "run"] == list(tmp_path.iterdir())


def test_a_refusal_lets_go_of_everything(tmp_path: Path) -> None:
    """No descriptor is left open by claims that fail, and no lock."""
    path = earlier_run(tmp_path / "run")
    refusal(path)
    before = os.open(tmp_path, os.O_RDONLY)
    os.close(before)
    for _ in range(3):
        refusal(path)
    after = os.open(tmp_path, os.O_RDONLY)
    os.close(after)

    assert before == after


def test_a_lock_file_that_its_holder_removed_meanwhile_is_opened_anew(tmp_path: Path) -> None:
    """A lock on a file that has lost its name would hold nobody off."""
    opened = []

    def opener(name: str, parent: int, path: Path) -> int:
        opened.append(open_lock(name, parent, path))
        if len(opened) == 1:
            (tmp_path / "run.lock").unlink()
        return opened[-1]

    parent = os.open(tmp_path, os.O_RDONLY)
    with ExitStack() as stack:
        hold(stack, parent, tmp_path / "run", opener)
        held = (tmp_path / "run.lock").read_bytes()
    os.close(parent)

    assert (len(opened), held) == (2, b"%d\n" % os.getpid())


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="only some systems have a folder that takes nothing")
@pytest.mark.parametrize("path", ["/proc/run", "/proc/a/run"])
def test_a_folder_that_cannot_be_created_is_refused(path: str) -> None:
    """Nothing was sent, so it is a refusal, and it speaks of the folder that was named."""
    said = refusal(Path(path))

    assert said.startswith(f"the run folder {path} cannot be used: No such file or directory. ")
    assert "--out" in said
    assert "lock" not in said


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="only some systems have a folder that takes nothing")
def test_a_lock_that_cannot_be_created() -> None:
    """A folder may be ours while the one around it is not: the message says which one it is about."""
    assert refusal(Path("/proc/self")).endswith("Its lock file stands beside it, in /proc")


def contend(path: str, ours: Connection) -> None:
    """Claim and release the folder many times, and tell how often two were in it at once."""
    clashes = 0
    for _ in range(200):
        try:
            folder = RunFolder.claim(Path(path), fresh=False)
        except RunHeld:
            continue
        witness = Path(f"{path}.witness")
        try:
            witness.touch(exist_ok=False)
        except FileExistsError:
            clashes += 1
        witness.unlink(missing_ok=True)
        folder.release()
    ours.send(clashes)
    ours.close()


def test_two_processes_are_never_in_it_at_once(tmp_path: Path) -> None:
    """Removing the lock file at the end opens no gap through which two processes slip."""
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe(duplex=False) for _ in range(2)]
    processes = [context.Process(target=contend, args=(str(tmp_path / "run"), ours)) for _, ours in pipes]
    for process in processes:
        process.start()
    clashes = [theirs.recv() for theirs, _ in pipes]
    for process, (theirs, ours) in zip(processes, pipes, strict=True):
        process.join()
        theirs.close()
        ours.close()

    assert clashes == [0, 0]


def test_sync_folder_where_the_file_system_knows_no_such_thing() -> None:
    """Only the answer that it is not known is passed over."""
    reader, writer = os.pipe()
    sync_folder(writer)
    os.close(reader)
    os.close(writer)

    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        sync_folder(writer)
