"""What a check says of an input, and that it says what an upload then does."""

from __future__ import annotations

import gzip
import os
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import moe_bulk
from moe_bulk.checking import checking, refuse_above, whole
from moe_bulk.checking.collisions import Spot
from moe_bulk.checking.hurry import Hurried
from moe_bulk.checking.oddities import ENOUGH, PLATFORMS_KEPT
from moe_bulk.checking.telling import as_page, lines, size, takes
from moe_bulk.columns import Columns, Reader
from moe_bulk.config import FailureLimit, Rate
from moe_bulk.device import Device, fold
from moe_bulk.errors import ConfigError, InputRefused, JournalError, RunRefused, SourceError
from moe_bulk.intake import Files, Query, Reading
from tests.effort import examples
from tests.fake_service import device, devices
from tests.runs import deliver

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from moe_bulk.checking.findings import Findings

GAID = "38400000-8cf0-11bd-b23e-10b96e40000d"


def ndjson(path: Path, rows: Iterable[object]) -> Path:
    """Write rows, one a line."""
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


def places(*numbers: int, source: str = "rows") -> list[dict[str, Any]]:
    """What findings call lines."""
    return [{"source": source, "line": number} for number in numbers]


def test_an_input_without_problems() -> None:
    """Nothing is found, and the effort is told."""
    found = moe_bulk.check(devices(1000), rate=Rate(100, 1))
    assert (1000, 1000, 0, 0) == (found["rows"], found["valid"], found["would_fail"], found["exit_code"])
    assert ([], [], []) == (found["failures"], found["skips"], found["notes"])
    assert [0, 0, 0, 0] == [each["values"] for each in (found["repeated"], *found["shared"].values())]
    effort = found["upload"]
    assert (1000, "100/s", 10.0, 0) == (
        effort["requests"],
        effort["rate"],
        effort["seconds"],
        effort["dead_letter_bytes"],
    )
    body = {"type": "device", "customer_id": "user-100", "device_id": "device-100"}
    body["attributes"] = {"platform": "iOS", "push_id": "token-100"}  # type: ignore[assignment]
    assert len(orjson.dumps(body)) == effort["largest_body"]
    assert {"iOS": 1000} == found["platforms"]


def test_rows_that_would_fail(tmp_path: Path) -> None:
    """By cause, with the first line, an example and a remedy that speaks of the input."""
    rows = [device(0), device(1, platform="Symbian"), device(2, platform="Blackberry"), {"customer_id": "user-9"}, 7]
    found = moe_bulk.check(str(ndjson(tmp_path / "a.ndjson", rows)))
    assert (5, 1, 4, 4, 1) == tuple(found[name] for name in ("rows", "valid", "invalid", "would_fail", "exit_code"))
    first = found["failures"][0]
    assert (2, 2, str(tmp_path / "a.ndjson")) == (first["count"], first["first_line"], first["source"])
    assert "platform 'Symbian' is unknown: write ANDROID, iOS, web, TV" == first["example"]
    assert "correct platform in the input" == first["remedy"]
    assert not any("dead-letter" in each["remedy"] for each in found["failures"])
    assert 4 == sum(each["count"] for each in found["failures"])


def test_rows_that_are_left_out() -> None:
    """By their reason; and a dead letter that a later row made obsolete."""
    rows = [device(0), device(1, platform="web"), device(2, platform="web")]
    rows.append(device(3, _moe_bulk={"superseded_by": 9, "source": "x", "line": 1}))
    found = moe_bulk.check(rows, reading=Reading(Columns(where=(("platform", "iOS"),))))
    assert (4, 1, 2, 1, 0) == tuple(found[name] for name in ("rows", "valid", "skipped", "superseded", "exit_code"))
    assert [("--where platform=iOS: here it is …", 2, 2)] == [
        (each["cause"], each["count"], each["first_line"]) for each in found["skips"]
    ]


def test_what_devices_share() -> None:
    """With the lines, and not more of a value than is needed to know it again."""
    rows = [device(number, push_id="the-token-of-many", platform="ANDROID", moe_gaid=GAID) for number in range(3)]
    rows += [device(0, push_id="the-token-of-many", platform="ANDROID"), device(7), device(7, model="x")]
    found = moe_bulk.check(rows)
    token = found["shared"]["push_id"]
    assert (1, 4, 3) == (token["values"], token["rows"], token["devices"])
    assert {"value": "the-t…many", "rows": 4, "devices": 3, "places": places(1, 2, 3)} == token["worst"][0]
    assert {"value": "38400…000d", "rows": 3, "devices": 3, "places": places(1, 2, 3)} == found["shared"]["moe_gaid"][
        "worst"
    ][0]
    assert 0 == found["shared"]["idfv"]["values"]
    assert [places(1, 4), places(5, 6)] == [group["places"] for group in found["repeated"]["worst"]]
    assert ["us…0 / de…0", "us…7 / de…7"] == [group["value"] for group in found["repeated"]["worst"]]
    assert "the-token-of-many" not in str(found)


@pytest.mark.parametrize("ending", ["ndjson", "csv", "ndjson.gz", "parquet"])
def test_values_are_read_again_where_that_costs_little(ending: str, tmp_path: Path) -> None:
    """From their place in a plain file; of others only the lines are told."""
    path = tmp_path / f"a.{ending}"
    rows = [device(number, push_id="the-token-of-many") for number in range(700)]
    if ending == "csv":
        named = [",".join(map(str, row.values())) for row in rows]
        path.write_text("\n".join([",".join(rows[0]), *named]) + "\n")
    elif ending == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        ndjson(path, rows)
        if ending.endswith("gz"):
            path.write_bytes(gzip.compress(path.read_bytes()))
    worst = moe_bulk.check(path)["shared"]["push_id"]["worst"][0]
    first = 2 if ending == "csv" else 1
    assert (700, 700, places(*range(first, first + 5), source=str(path))) == (
        worst["rows"],
        worst["devices"],
        worst["places"],
    )
    assert (None if ending.endswith("gz") else "the-t…many") == worst["value"]


def test_users_with_too_many_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of devices beyond the most would fail, as they do in an upload; earlier ones may come again."""
    monkeypatch.setattr(checking, "MOST_DEVICES", 3)
    rows = [device(number, customer_id="user") for number in (0, 1, 2, 0, 3, 4, 3, 1)]
    found = moe_bulk.check(rows)
    users = found["users"]
    assert (3, 1, 3) == (users["rows_left_out"], users["over_the_most_devices"]["values"], users["most_devices"])
    assert (8, 5) == (users["over_the_most_devices"]["rows"], users["over_the_most_devices"]["devices"])
    assert (0, 3, 1) == (found["invalid"], found["would_fail"], found["exit_code"])
    assert "8 rows: 5 to send, 3 that would fail" == lines(found)[0]
    assert 5 == found["upload"]["requests"]


def test_rows_that_are_not_sent_hurry_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's rows beyond the most devices fail, so they count against no limit of requests."""
    monkeypatch.setattr(checking, "MOST_DEVICES", 2)
    monkeypatch.setattr("moe_bulk.checking.hurry.UserLimits", lambda: type("Limits", (), {"ours": [Rate(2, 60)]}))
    rows = [device(number, customer_id="user") for number in range(5)]
    assert 0 == moe_bulk.check(rows)["users"]["over_the_rates"]["values"]
    assert 1 == moe_bulk.check([*rows, rows[0]])["users"]["over_the_rates"]["values"]


def test_it_knows_the_1001st_device_as_an_upload_does(tmp_path: Path) -> None:
    """What it says would fail is what fails."""
    rows = [device(number, customer_id="user") for number in (*range(1003), 5, 1002)]
    ended = deliver(rows, tmp_path / "a.run")
    failed = sum(result["status"] == "invalid" for result in ended.written.results)
    assert failed == moe_bulk.check(rows)["would_fail"] == 4


@given(
    rows=st.lists(st.integers(0, 2), max_size=60),
    limit=st.integers(1, 8),
    window=st.integers(1, 30),
)
def test_hurried_users_are_those_who_pass_a_limit_at_full_pace(rows: list[int], limit: int, window: int) -> None:
    """Against a count of every window of the rows as they would go out, one a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("moe_bulk.checking.hurry.UserLimits", lambda: type("Limits", (), {"ours": [Rate(limit, window)]}))
        hurried = Hurried(Rate(1, 1))
    for user in sorted(set(rows)):
        for number, who in enumerate(rows):
            if who == user:
                hurried.add(user, Spot(0, number, number), number)
    over = {
        user: rows.count(user)
        for user in set(rows)
        if any(rows[start : start + window].count(user) > limit for start in range(len(rows)))
    }
    assert over == {user: count for user, (count, _) in hurried.users.items()}


MESSY = st.sampled_from(
    [
        *devices(4),
        device(1, model="x"),
        device(2, push_id="NA"),
        device(3, platform="web"),
        device(4, platform="?"),
        device(5, push_id="token-1"),
        {"customer_id": "u"},
        {},
    ]
)


@settings(max_examples=8)
@given(rows=st.lists(MESSY, max_size=25))
def test_it_says_what_an_upload_does(rows: list[dict[str, object]], tmp_path_factory: pytest.TempPathFactory) -> None:
    """As many rows are invalid and left out, for the same reasons, and all others are sent."""
    reading = Reading(Columns(where=(("model", ""),)))
    counts = deliver(rows, tmp_path_factory.mktemp("x") / "a.run", reading=reading).written.summary["counts"]
    found = moe_bulk.check(rows, reading=reading)
    names = ("read", "invalid", "skipped", "accepted")
    assert [counts[name] for name in names] == [found["rows"], found["invalid"], found["skipped"], found["valid"]]


PLAIN = st.builds(
    lambda number, **other: device(number, push_id=f"token-of-{other['app_version']}-{number}") | other,
    st.integers(0, 12),
    platform=st.sampled_from(["ANDROID", "iOS"]),
    app_version=st.sampled_from(["1", "2", "NaN"]),
    moe_gaid=st.sampled_from(["", GAID, GAID.upper(), "0" * 32, 'a"' * 18, None]),
    idfv=st.sampled_from(["", GAID]),
    model=st.sampled_from(["x", 'y"z', "ä"]),
)


@settings(max_examples=examples(30))
@given(rows=st.lists(PLAIN | MESSY, min_size=3, max_size=40))
def test_rows_by_column_are_told_as_one_by_one(rows: list[dict[str, object]]) -> None:
    """Nothing of what is found depends on how many rows were looked at together."""
    found = []
    for portion in (lambda *_: None, Reader.portion):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(whole, "MAX_BATCH", 3)
            patch.setattr(Reader, "portion", portion)
            found.append(moe_bulk.check(rows))
    assert found[0] == found[1]


# -- values that are hardly meant --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "what", "example"),
    [
        (device(1, customer_id="1E+11"), "customer_id looks like a rounded number", "1E+11"),
        (device(1, device_id="1.23457e+11"), "device_id looks like a rounded number", "1.23457e+11"),
        (device(1, customer_id="12345.0"), "customer_id looks like a whole number with a decimal point", "12…5.0"),
        (device(1, push_id="ExponentPushToken[abcdefgh]"), "push_id is a token of Expo's", "Expon…fgh]"),
        (
            device(1, platform="ANDROID", push_id="ab" * 32),
            "push_id of an ANDROID device looks like an iOS token",
            "ababa…abab",
        ),
        (device(1, device_id="user-1"), "customer_id and device_id are the same", "us…1"),
        (device(1, push_id="device-1"), "push_id is the same as an id", "de…1"),
        (device(1, model="NaN"), "model is a word for nothing", "NaN"),
        (device(1, idfv="0123456789abcdef0123456789abcdef"), "idfv is no UUID", "01234…cdef"),
    ],
)
def test_values_that_are_hardly_meant(row: dict[str, object], what: str, example: str) -> None:
    """They would be sent, so they are told of, with a remedy."""
    found = moe_bulk.check([device(7), row, row])["suspicious"]
    assert [(what, 2, 2, example)] == [
        (each["what"], each["count"], each["first_line"], each["example"]) for each in found
    ]
    assert found[0]["remedy"]


@pytest.mark.parametrize(
    "row",
    [
        device(1, customer_id="1.2.3"),
        device(1, customer_id="a+b@example.com"),
        device(1, push_id="ab" * 32),
        device(1, os_version="16.0"),
        device(1, customer_id="1e11"),
        device(1, idfv=GAID),
    ],
)
def test_values_that_may_well_be_meant(row: dict[str, object]) -> None:
    """Nothing is said of them."""
    assert [] == moe_bulk.check([row])["suspicious"]


def test_platforms_that_are_none_are_counted_in_bounds() -> None:
    """With `basic` any text is one: a wrong column neither fills the memory nor empties itself into the page."""
    rows = [device(number, platform=f"token-of-a-device-{number}") for number in range(300)]
    found = moe_bulk.check(rows, reading=Reading(Columns(validate="basic")))
    assert (300, PLATFORMS_KEPT + 1) == (sum(found["platforms"].values()), len(found["platforms"]))
    assert not any(str(row["platform"]) in as_page(found) for row in rows)


@given(
    texts=st.lists(st.text(max_size=9), min_size=1, max_size=6),
    names=st.lists(st.sampled_from(["model", "app_version", "os_version"]), min_size=6, max_size=6),
)
@settings(max_examples=examples(20))
def test_the_largest_body_is_exact(texts: list[str], names: list[str]) -> None:
    """Whatever JSON makes of a text, and however many attributes there are."""
    rows = [device(1, **{name: text}) for name, text in zip(names, texts, strict=False)]
    found = [fold(row) for row in rows]
    bodies = [len(orjson.dumps(each.payload())) for each in found if isinstance(each, Device)]
    assert max(bodies, default=0) == moe_bulk.check(rows)["upload"]["largest_body"]


def test_one_platform_for_all() -> None:
    """Worth a word, unless somebody said so."""
    (said,) = moe_bulk.check(devices(ENOUGH))["suspicious"]
    assert ("every row's platform is iOS", 0) == (said["what"], said["first_line"])
    assert [] == moe_bulk.check(devices(ENOUGH - 1))["suspicious"]
    constant = Reading(Columns(constants={"platform": "iOS"}))
    assert [] == moe_bulk.check(devices(ENOUGH), reading=constant)["suspicious"]


# -- inputs ------------------------------------------------------------------------------------------------------------


def test_several_files_are_one_input(tmp_path: Path) -> None:
    """Collisions go across them, and each place names its file."""
    first = ndjson(tmp_path / "a.ndjson", [device(0), device(1)])
    second = ndjson(tmp_path / "b.ndjson", [device(1), device(2, push_id="token-0")])
    found = moe_bulk.check(Files((str(first), str(second))))
    assert [*places(2, source=str(first)), *places(1, source=str(second))] == found["repeated"]["worst"][0]["places"]
    shared = found["shared"]["push_id"]["worst"][0]["places"]
    assert [*places(1, source=str(first)), *places(2, source=str(second))] == shared
    assert f"{second}, line 2" in "\n".join(lines(found)).replace("\n    ", " ")


def test_a_preset_with_several_devices_a_row(tmp_path: Path) -> None:
    """Each device counts; what is not sent is noted."""
    row = {"external_id": "u-1", "odd": 1, "devices": [{"device_id": "d-1"}, {"device_id": "d-2"}]}
    row["push_tokens"] = [
        {"platform": "iOS", "token": f"token-{number}", "device_id": f"d-{number}"} for number in (1, 2)
    ]
    found = moe_bulk.check(ndjson(tmp_path / "a.ndjson", [row]), reading=Reading(Columns(preset="braze")))
    assert (2, 2) == (found["rows"], found["valid"])
    assert ["field 'odd' is not sent: it is none of the API's."] == found["notes"]


def test_a_query(tmp_path: Path) -> None:
    """A database is asked, and no value is asked for again."""
    sqlalchemy = pytest.importorskip("sqlalchemy")
    url = f"sqlite:///{tmp_path / 'a.db'}"
    engine = sqlalchemy.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("create table d (customer_id, device_id, platform, push_id)"))
        for number in range(3):
            row = device(number, push_id="the-token-of-many")
            connection.execute(
                sqlalchemy.text("insert into d values (:customer_id, :device_id, :platform, :push_id)"), row
            )
    engine.dispose()
    found = moe_bulk.check(Query(url, "select * from d"))
    assert (3, None) == (found["valid"], found["shared"]["push_id"]["worst"][0]["value"])


def test_the_limit_is_kept(tmp_path: Path) -> None:
    """So many rows are looked at, and no more."""
    path = ndjson(tmp_path / "a.ndjson", devices(1200))
    assert 7 == moe_bulk.check(path, reading=Reading(limit=7))["rows"]
    assert 700 == moe_bulk.check(path, reading=Reading(limit=700))["rows"]
    assert 3 == moe_bulk.check(devices(9), reading=Reading(limit=3))["rows"]


def test_a_generator_is_read_once() -> None:
    """Its values cannot be read again."""
    found = moe_bulk.check(device(number, push_id="the-token-of-many") for number in range(600))
    assert (600, None) == (found["valid"], found["shared"]["push_id"]["worst"][0]["value"])


def test_what_cannot_be_checked(tmp_path: Path) -> None:
    """A missing file, and rows that come only once and in time."""

    async def rows() -> Any:
        yield device(0)

    with pytest.raises(SourceError, match="there is no file"):
        moe_bulk.check(tmp_path / "none.csv")
    with pytest.raises(ConfigError, match="async iterable can be read only once"):
        moe_bulk.check(rows())


def test_the_letters_of_an_unfinished_run(tmp_path: Path) -> None:
    """They are refused as the upload refuses them: more may come, and which are superseded is not known yet."""
    path = ndjson(tmp_path / "a.ndjson", [{}, *devices(3)])
    deliver(str(path), tmp_path / "a.run", reading=Reading(limit=2))
    with pytest.raises(RunRefused, match="belongs to a run that is not finished"):
        moe_bulk.check(tmp_path / "a.run" / "dead-letter.ndjson")


def test_an_empty_input() -> None:
    """Is no problem."""
    found = moe_bulk.check([])
    assert (0, 0, "There is nothing to send.") == (found["rows"], found["exit_code"], lines(found)[-1])


def test_it_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither beside the input nor where it works, also where the input breaks off."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.setenv("TMPDIR", str(work))
    monkeypatch.setattr("tempfile.tempdir", None)
    path = ndjson(tmp_path / "a.ndjson", devices(3))
    moe_bulk.check(path)
    broken = tmp_path / "b.ndjson.gz"
    broken.write_bytes(gzip.compress(path.read_bytes() * 9000)[:-2000])
    with pytest.raises(SourceError, match="damaged or cut off"):
        moe_bulk.check(broken)
    assert [] == list(work.iterdir())
    work.rmdir()
    monkeypatch.setattr("tempfile.tempdir", str(work))
    with pytest.raises(JournalError, match="set TMPDIR"):
        moe_bulk.check(path)


def test_it_says_how_far_it_is(tmp_path: Path) -> None:
    """Bytes read, bytes in all, rows."""
    seen: list[tuple[int, int | None, int]] = []
    path = ndjson(tmp_path / "a.ndjson", devices(1200))
    moe_bulk.check(path, watch=lambda *said: seen.append(said))
    assert (os.stat(path).st_size, os.stat(path).st_size, 1200) == seen[-1]  # noqa: PTH116
    assert sorted(seen) == seen


# -- what is told ------------------------------------------------------------------------------------------------------


def all_of_it(monkeypatch: pytest.MonkeyPatch) -> Findings:
    """Findings of every kind, with text that would do harm."""
    monkeypatch.setattr(checking, "MOST_DEVICES", 2)
    monkeypatch.setattr("moe_bulk.checking.hurry.UserLimits", lambda: type("Limits", (), {"ours": [Rate(1, 60)]}))
    rows = [device(number, customer_id="user", push_id="the-token-of-many") for number in range(4)]
    rows += [device(9, model="NaN", **{"<script>alert(1)</script>\x1b[31m": 1}), device(9)]
    rows += [device(1, platform="<script>\x1b[2J"), device(2, platform="web")]
    return moe_bulk.check(rows, reading=Reading())


def test_lines_and_page_tell_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in them obeys a stranger's text, and lines fit 80 columns."""
    found = all_of_it(monkeypatch)
    said, page = lines(found), as_page(found)
    text = " ".join(" ".join(said).split())
    for expected in (
        "Rows that would fail: 1 row, line 7: platform '<script>",
        "2 rows: their users have 2 devices already, see below",
        "1 device in more than one row, 2 rows in all.",
        "1 push token that several devices have, 4 devices in all.",
        "the-t…many: 4 rows of 4 devices, lines 1, 2, 3, 4",
        "1 user with more than 2 devices, after which MoEngage blocks a user: 2 rows of later devices would fail:",
        "2 users with so many rows close together",
        "1 row, line 5: model is a word for nothing: NaN.",
        "Note: field '<script>alert(1)</script>",
    ):
        assert expected in text
    assert all(line.isprintable() and len(line) <= 80 for line in said)
    assert "<script>" not in page
    assert "\x1b" not in page
    for heading in ("Rows that would fail", "Allowed, and perhaps not meant", "Platforms", "Notes", "Sources"):
        assert f"<h2>{heading}</h2>" in page


@pytest.mark.parametrize(
    ("devices", "worst", "on_a_terminal", "on_the_page"),
    [
        (20, 10, "  and 15 more of them: see --html or --json for the worst 10", "<p>Of 20, the worst 10:</p>"),
        (7, 7, "  and 2 more of them: see --html or --json", "lines 7, 14"),
    ],
)
def test_long_lists_are_cut(devices: int, worst: int, on_a_terminal: str, on_the_page: str) -> None:
    """To five on a terminal and to ten elsewhere, and nobody is sent to look for what is not there."""
    found = moe_bulk.check([device(number % devices) for number in range(2 * devices)])
    assert (devices, worst) == (found["repeated"]["values"], len(found["repeated"]["worst"]))
    assert on_a_terminal in lines(found)
    assert on_the_page in as_page(found)


@pytest.mark.parametrize(
    ("values", "said"), [(1, "1 vendor id (idfv) that several"), (2, "2 vendor ids (idfv) that several")]
)
def test_one_and_several(values: int, said: str) -> None:
    """Numbers and words agree."""
    rows = [device(number, idfv=f"{number % values}{GAID[1:]}") for number in range(4)]
    assert any(line.startswith(said) for line in lines(moe_bulk.check(rows)))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "less than a second"), (61, "1 min 1 s"), (62_400, "17 h 20 min"), (90_061, "1 d 1 h"), (3600, "1 h")],
)
def test_durations(seconds: float, said: str) -> None:
    """As people say them."""
    assert said == takes(seconds)


def test_sizes() -> None:
    """As people say them."""
    assert ["12 bytes", "1.5 kB", "2.35 MB", "4 GB"] == list(map(size, (12, 1500, 2_345_678, 4 * 10**9)))


@pytest.mark.parametrize(
    ("limit", "failed", "refused"),
    [(None, 0, False), (None, 1, True), ("1", 1, False), ("1", 2, True), ("50%", 2, False), ("50%", 3, True)],
)
def test_refusing_above_a_limit(limit: str | None, failed: int, refused: bool) -> None:  # noqa: FBT001
    """Without one, any row that would fail is too many; a share is one of all rows."""
    rows: Sequence[object] = [*devices(4 - failed), *[{}] * failed]
    found = moe_bulk.check(rows)  # type: ignore[arg-type]
    allowed = FailureLimit.parse(limit) if limit else None
    if refused:
        with pytest.raises(InputRefused, match=f"{failed} of 4 rows would fail"):
            refuse_above(allowed, found)
    else:
        refuse_above(allowed, found)
