"""The URL of the Redis server that keeps the pace: read as it is meant, refused with what to do, never shown whole."""

from __future__ import annotations

import copy
import pickle
import traceback
from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest

from moe_bulk.errors import ConfigError
from moe_bulk.pacing.address import RedisPace, pace_said, parse_fallback
from moe_bulk.pacing.sharing import checked

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "hunter2/with@odd:signs"
SPELT = "hunter2%2Fwith%40odd%3Asigns"


@pytest.mark.parametrize(
    ("url", "place", "user", "secret"),
    [
        ("redis://h", "redis://h:6379/0", None, None),
        ("redis://h:1/", "redis://h:1/0", None, None),
        ("rediss://Pace.Example.org:7000/3", "rediss://pace.example.org:7000/3", None, None),
        (f"redis://:{SPELT}@h", "redis://h:6379/0", None, SECRET),
        (f"rediss://me:{SPELT}@10.0.0.1/1", "rediss://10.0.0.1:6379/1", "me", SECRET),
        ("redis://[::1]:6380", "redis://[::1]:6380/0", None, None),
    ],
)
def test_it_is_read_as_it_is_meant(url: str, place: str, user: str | None, secret: str | None) -> None:
    """Port and database have their usual defaults; what is shown has no user and no password."""
    found = RedisPace(url)
    assert (place, user, secret) == (found.place, found.user, found.secret)
    assert place == str(found)
    assert f"RedisPace({place!r})" == repr(found)
    assert f"RedisPace({place!r}, share=3)" == repr(RedisPace(url, share=3))


@pytest.mark.parametrize(
    "url",
    [
        "http://h",
        "redis://",
        "redis:h",
        "redis://h:0",
        "redis://h:99999",
        "redis://h:port",
        "redis://h/x",
        "redis://h/-1",
        "redis://h h",
        "redis://h\n",
        "redis://[::1",
        f"redis://:{SECRET}@h",
        "redis://:hunter2?@h",
        "redis://:hunter2#@h",
        "redis://h?ssl_cert_reqs=none",
        "redis://:hunter2/@h",
        "redis://hünter2@h",
    ],
)
def test_what_cannot_be_read_is_refused_and_not_told(url: str) -> None:
    """The message says how to write it; nothing of what was written is in it, since the password may be anywhere."""
    with pytest.raises(ConfigError, match="write it like") as refused:
        RedisPace(url)
    assert "hunter2" not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize("share", [-1, 1001, 1.5, True])
def test_a_share_is_a_number(share: object) -> None:
    """Half an upload there is not."""
    with pytest.raises(ConfigError, match="share"):
        RedisPace("redis://h", share=share)  # type: ignore[arg-type]


def test_the_password_is_nowhere_to_be_seen() -> None:
    """Not in a repr, not in its fields as text, and it is not pickled."""
    found = RedisPace(f"redis://me:{SPELT}@h")
    assert "hunter2" not in f"{found} {found!r} {asdict(found)} {copy.deepcopy(found)!r}"
    with pytest.raises(TypeError):
        pickle.dumps(found)


@pytest.mark.parametrize(("said", "share"), [(None, 0), ("share=3", 3), (" share = 12 ", 12)])
def test_a_fallback_is_read(said: str | None, share: int) -> None:
    """`share=N`, or nothing."""
    assert share == parse_fallback(said)


@pytest.mark.parametrize("said", ["", "3", "share", "share=", "share=0", "share=-1", "share=x", "shares=3", "share=²"])
def test_other_fallbacks_are_refused(said: str) -> None:
    """With how to write it."""
    with pytest.raises(ConfigError, match="write share=N"):
        parse_fallback(said)


def test_what_the_command_line_says(tmp_path: Path) -> None:
    """A name, a URL, or a file that holds one."""
    (tmp_path / "pace").write_text(f"redis://:{SPELT}@h\n")
    assert "host" == pace_said("host", None, [])
    assert "process" == pace_said("process", None, [])
    found = pace_said(f"@{tmp_path}/pace", "share=4", ["--pace", f"@{tmp_path}/pace"])
    assert isinstance(found, RedisPace)
    assert ("redis://h:6379/0", SECRET, 4) == (found.place, found.secret, found.share)
    assert "redis://h:6379/0" == str(pace_said("redis://h", None, ["moe-bulk", "upload", "--pace", "redis://h"]))


@pytest.mark.parametrize(
    ("pace", "fallback", "said"),
    [
        ("hots", None, "there is no such --pace"),
        ("host", "share=2", "--pace-fallback is for --pace redis://"),
        ("@/no/such/file", None, "/no/such/file of --pace cannot be read: No such file"),
        ("redis://h", "share=zero", "write share=N"),
    ],
)
def test_what_it_cannot_mean(pace: str, fallback: str | None, said: str) -> None:
    """Each refusal says what would do."""
    with pytest.raises(ConfigError, match=said):
        pace_said(pace, fallback, [])


@pytest.mark.parametrize("word", ["{}", "--pace={}"])
def test_a_password_on_the_command_line_is_refused(word: str) -> None:
    """It stands in the process list; from the environment the same URL is fine."""
    url = f"redis://:{SPELT}@h"
    with pytest.raises(ConfigError, match="MOE_BULK_PACE, or into a file, and say --pace @FILE") as refused:
        pace_said(url, None, ["moe-bulk", "upload", word.format(url)])
    assert "hunter2" not in str(refused.value)
    assert isinstance(pace_said(url, None, ["moe-bulk", "upload"]), RedisPace)


def test_what_the_library_is_given() -> None:
    """The names, a URL as text, or the value itself; a URL that cannot be meant is cut off before a password begins."""
    pace = RedisPace("redis://h", share=2)
    assert pace is checked(pace)
    assert "redis://h:6379/0" == str(checked("redis://h"))
    assert ("process", "host") == (checked("process"), checked("host"))
    with pytest.raises(ConfigError, match="there is no pace 'reddis'") as refused:
        checked("reddis://:hunter2@h")
    assert "hunter2" not in str(refused.value)
