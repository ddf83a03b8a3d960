"""Arguments → library calls → exit code, in this process; the acceptance tests run it as one of its own."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from moe_bulk import cli
from moe_bulk.errors import CredentialsRejected

OPTIONS = (
    "workspace-id",
    "api-key-file",
    "data-center",
    "base-url",
    "ca-bundle",
    "sandbox",
    "rate",
    "in-flight",
    "timeout",
    "tries",
    "outage-limit",
    "max-failures",
    "check-first",
    "format",
    "column",
    "set",
    "preset",
    "where",
    "validate",
    "include-superseded",
    "limit",
    "changed-only",
    "state",
    "resend-after",
    "out",
    "fresh",
    "if-changed",
    "keep-runs",
    "progress",
    "log-json",
    "metrics-file",
    "json",
    "verbose",
    "quiet",
    "config",
)


@pytest.fixture(autouse=True)
def nothing_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty current folder, and none of our variables."""
    monkeypatch.chdir(tmp_path)
    for name in ("WORKSPACE_ID", "API_KEY", "DATA_CENTER", "BASE_URL"):
        monkeypatch.delenv(f"MOENGAGE_{name}", raising=False)
    monkeypatch.delenv("MOE_BULK_RATE", raising=False)


def a_source(folder: Path) -> str:
    """One device."""
    path = folder / "one.csv"
    path.write_text("customer_id,device_id,platform,push_id\nuser-1,device-1,web,token-1\n", encoding="utf-8")
    return str(path)


def test_what_nobody_foresaw_is_not_told_as_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Python's own exit code for it, 1, would say that every row is settled."""

    def bug(*_: object, **__: object) -> None:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr("moe_bulk.naming.default_out", bug)
    assert 3 == cli.run(["upload", a_source(tmp_path), "--sandbox"])
    said = capsys.readouterr().err
    assert "RuntimeError: a bug of ours" in said
    assert said.endswith("To go on, run the same command again\n")


def test_words_of_the_service_are_not_on_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cron mails it: they may repeat a row, and it is told where they stand."""

    def refused(*_: object, **__: object) -> None:
        raise CredentialsRejected("refused (401)", "user-1 is unknown")

    monkeypatch.setattr("moe_bulk.naming.default_out", refused)
    assert 3 == cli.run(["upload", a_source(tmp_path), "--sandbox"])
    said = capsys.readouterr().err
    assert "moe-bulk: refused (401)\n" in said
    assert "What MoEngage said of it stands in the run's summary.json" in said
    assert "user-1" not in said


def test_a_finished_run_is_told_and_not_sent_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its summary once more; with --limit it says how to go on."""
    command = ["upload", a_source(tmp_path), "--sandbox"]
    assert 0 == cli.run([*command, "--limit", "1"])
    assert "Not finished: --limit was reached" in capsys.readouterr().err
    assert 0 == cli.run(command)
    assert "Going on with 1 rows settled before" in capsys.readouterr().err
    assert 0 == cli.run(command)
    assert "nothing is sent" in capsys.readouterr().err


def test_an_upload_to_the_sandbox(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole way of one row, with what people are told."""
    assert 0 == cli.run(["upload", a_source(tmp_path), "--sandbox"])
    said = capsys.readouterr()
    assert "" == said.out
    assert [f"Results go to {tmp_path}/one.csv.sandbox.run", "Read 1 row: 1 accepted"] == said.err.splitlines()[:2]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "which workspace? Set MOENGAGE_WORKSPACE_ID"),
        (["--workspace-id", "W"], "no API key: set MOENGAGE_API_KEY"),
        (["--workspace-id", "W", "--api-key-file", "nope"], "the key file nope cannot be read"),
        (["--workspace-id", "W"], "no API key"),
        (["--workspace-id", "a b", "--api-key-file", "key"], "letters, digits"),
        (["--workspace-id", "W", "--api-key-file", "key"], "a data center"),
        (["--workspace-id", "W", "--api-key-file", "key", "--data-center", "99"], "no data center"),
        (["--workspace-id", "W", "--api-key-file", "key", "--base-url", "http://example.com"], "unencrypted"),
    ],
)
def test_what_is_missing_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    """Credentials that are missing or wrong are told before anything is sent or written."""
    (tmp_path / "key").write_text("s3cret-key", encoding="utf-8")
    assert 2 == cli.run(["upload", a_source(tmp_path), *arguments])
    told = capsys.readouterr().err
    assert said in told
    assert "s3cret-key" not in told
    assert ["key", "one.csv"] == sorted(path.name for path in tmp_path.iterdir())


def test_the_key_is_asked_for_at_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a terminal a missing key is asked for, without showing it."""
    asked: list[str] = []

    def ask(prompt: str) -> str:
        asked.append(prompt)
        return ""

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("moe_bulk.cli.destination.getpass", ask)
    assert 2 == cli.run(["upload", a_source(tmp_path), "--workspace-id", "W"])
    assert ["Data API key (not shown): "] == asked


def test_the_embedded_sandbox_leaves_files_for_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each of its connections takes two open files of one process, so fewer requests are in flight by default."""
    assert 0 == cli.run(["upload", a_source(tmp_path), "--sandbox", "--verbose"])
    assert "128 in flight" in capsys.readouterr().err
    assert 0 == cli.run(["upload", a_source(tmp_path), "--sandbox", "--verbose", "--fresh", "--in-flight", "7"])
    assert "7 in flight" in capsys.readouterr().err


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    """`moe-bulk` alone says what there is."""
    assert 0 == cli.run([])
    assert "upload" in capsys.readouterr().out


def test_every_option_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    """Each option of `upload` stands in its help, with a sentence."""
    assert 0 == cli.run(["upload", "--help"])
    said = capsys.readouterr().out
    assert [] == [option for option in OPTIONS if f"--{option}" not in said]


def test_help_needs_no_http_stack() -> None:
    """`--help` and wrong arguments answer without importing the HTTP stack, rich's displays or the sandbox."""
    code = """if True:
        import sys
        from moe_bulk import cli
        cli.run(["upload", "--help"])
        cli.run(["upload", "x", "--rate", "?"])
        heavy = {"httpx", "aiohttp", "aiolimiter", "smart_open", "moe_bulk.uploader"} & set(sys.modules)
        sys.exit(str(heavy) if heavy else 0)
    """
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 0 == ended.returncode, ended.stderr


def test_a_taken_port(capsys: pytest.CaptureFixture[str]) -> None:
    """A port that somebody has is said in one line."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert 2 == cli.run(["sandbox", "--port", str(taken.getsockname()[1])])
    assert "choose another with --port" in capsys.readouterr().err


def test_presets_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """Each with what it is for and the columns that it expects."""
    assert 0 == cli.run(["presets"])
    told = capsys.readouterr().out
    assert "onesignal: OneSignal's CSV export of subscriptions\n    external_user_id, id, device_type, " in told
    assert "batch: " in told
    assert "needs --set platform=VALUE" in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "onesingal"], "moe-bulk: there is no preset 'onesingal'. Did you mean onesignal? There are: "),
        (["--preset", "batch"], "moe-bulk: --preset batch: which platform? A file holds the tokens of one platform "),
        (["--preset", "./mine.toml"], "moe-bulk: the preset ./mine.toml cannot be read: No such file or directory."),
    ],
)
def test_a_preset_that_cannot_be_used(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is refused before anything is read or made, with what to type."""
    assert 2 == cli.run(["upload", a_source(tmp_path), "--sandbox", *arguments])
    assert message in " ".join(capsys.readouterr().err.split())
    assert ["one.csv"] == [path.name for path in tmp_path.iterdir()]


# -- check -------------------------------------------------------------------------------------------------------------

BAD_ROW = "u-9,d-9,Symbian,token-9\n"


def a_bad_source(folder: Path) -> str:
    """Write a CSV of which one row would fail."""
    path = Path(a_source(folder))
    path.write_text(path.read_text() + BAD_ROW)
    return str(path)


def test_check_says_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On standard output, and by its exit code."""
    assert 0 == cli.run(["check", a_source(tmp_path)])
    assert "to send, none that would fail" in capsys.readouterr().out
    assert 1 == cli.run(["check", a_bad_source(tmp_path)])
    assert "1 that would fail" in capsys.readouterr().out
    assert 1 == cli.run(["check", a_bad_source(tmp_path), "--quiet"])
    assert ("", "") == capsys.readouterr()


def test_check_as_json_and_as_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The page is for its owner only."""
    page = tmp_path / "page.html"
    assert 1 == cli.run(["check", a_bad_source(tmp_path), "--json", "--html", str(page), "--set", "model=x"])
    found = json.loads(capsys.readouterr().out)
    assert (1, "platform 'Symbian' is unknown: write ANDROID, iOS, web, TV") == (
        found["would_fail"],
        found["failures"][0]["example"],
    )
    assert page.read_text().startswith("<!doctype html>")
    assert 0o600 == page.stat().st_mode & 0o777
    assert 2 == cli.run(["check", a_bad_source(tmp_path), "--html", str(tmp_path / "none" / "page.html")])
    assert "--html: there is no folder" in capsys.readouterr().err
    assert 2 == cli.run(["check", a_bad_source(tmp_path), "--html", str(tmp_path)])
    assert "names no file" in capsys.readouterr().err


def test_a_check_writes_over_nothing_that_it_reads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By whatever name the page is called."""
    source, link = Path(a_bad_source(tmp_path)), tmp_path / "link.html"
    link.symlink_to(source)
    before = source.read_bytes()
    for page in (source, link):
        assert 2 == cli.run(["check", str(source), "--html", str(page)])
        assert "is what is to be read: name another file" in capsys.readouterr().err
    assert before == source.read_bytes()


def test_findings_are_told_where_their_page_finds_no_room(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody reads ten million rows again for them."""
    assert 2 == cli.run(["check", a_bad_source(tmp_path), "--html", "/dev/full"])
    said = capsys.readouterr()
    assert "1 that would fail" in said.out
    assert "--html: /dev/full cannot be written: No space left on device" in said.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "check what?"),
        (["none.csv"], "there is no file"),
        (["{source}", "--rate", "x"], "is no rate"),
        (["{source}", "--fresh"], "there is no option --fresh"),
        (["{source}", "--query", "select 1"], "--query goes with one source"),
    ],
)
def test_a_check_that_cannot_be(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 2, and the reason."""
    source = a_source(tmp_path)
    assert 2 == cli.run(["check", *(word.format(source=source) for word in arguments)])
    assert said in capsys.readouterr().err


def test_check_reads_an_upload_s_settings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What it says of an input is what an upload with the same file does; what only sending needs is left aside."""
    source = Path(a_source(tmp_path))
    source.write_text(source.read_text().replace("push_id", "token"))
    assert 2 == cli.run(["check", source.name])
    capsys.readouterr()
    said = 'column = ["push_id=token"]\nrate = "60/min"\nmax-failures = "5%"\nchanged-only = true\n'
    Path("nightly.toml").write_text(f'workspace-id = "W"\n{said}')
    assert 0 == cli.run(["check", source.name, "--config", "nightly.toml"])
    assert "at 60/min" in capsys.readouterr().out
    Path("moe-bulk.toml").write_text(said)
    assert 0 == cli.run(["check", source.name])
    assert "at 60/min" in capsys.readouterr().out
    Path("moe-bulk.toml").write_text("colum = []")
    assert 2 == cli.run(["check", source.name])
    assert "there is no setting 'colum'. Did you mean column?" in capsys.readouterr().err


def test_check_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It refuses to start where too many rows would fail, and then there is no run."""
    source = a_bad_source(tmp_path)
    command = ["upload", source, "--sandbox", "--check-first", "--rate", "1000/s"]
    assert 2 == cli.run(command)
    assert "would fail, more than --check-first without --max-failures allows" in capsys.readouterr().err
    assert [] == list(tmp_path.glob("*.run"))
    assert 1 == cli.run([*command, "--max-failures", "1"])
    assert 2 == cli.run(["upload", "-", "--sandbox", "--check-first"])
    assert "reads the input twice" in capsys.readouterr().err
