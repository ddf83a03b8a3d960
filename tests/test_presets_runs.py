"""Exports of other services through a whole run: each sample, stops in the middle of a row, dead letters sent again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import orjson
import pytest

from moe_bulk.columns import Columns
from moe_bulk.config import Network
from moe_bulk.errors import RunRefused
from moe_bulk.intake import Files, Reading
from tests.fake_service import accept, answer
from tests.runs import Cut, Way, deliver

if TYPE_CHECKING:
    import httpx

SAMPLES = Path(__file__).parent.parent / "samples"
BRAZE = SAMPLES / "braze.ndjson"


ONE_BY_ONE = Network(in_flight=1)
"""So that a stop finds a row of which some devices are settled and others are not."""


def through(preset: str, *set_: str, **said: Any) -> Reading:
    """Read with a preset."""
    return Reading(Columns.parse(set_=set_, preset=preset, **said))


def items_of(results: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """Give the lines and items of results, in order."""
    return sorted((each["line"], each["item"]) for each in results)


@pytest.mark.parametrize(
    ("name", "set_", "accepted", "invalid", "skipped"),
    [
        ("onesignal.csv", (), 21, 2, 3),
        ("airship.ndjson", (), 14, 2, 4),
        ("segment.ndjson", (), 13, 2, 5),
        ("braze.ndjson", (), 19, 1, 4),
        ("appmetrica.csv", (), 23, 1, 1),
        ("batch.csv", ("platform=iOS",), 18, 1, 1),
        ("moengage-export.ndjson", (), 17, 1, 2),
    ],
)
def test_each_sample_is_delivered(
    name: str, set_: tuple[str, ...], accepted: int, invalid: int, skipped: int, tmp_path: Path
) -> None:
    """With a preset and nothing else; the letters carry it, and each result that is not accepted has its reason."""
    preset = name.partition(".")[0]
    ended = deliver(Files((str(SAMPLES / name),)), tmp_path / "run", reading=through(preset, *set_))

    counts = ended.written.summary["counts"]
    assert (accepted, invalid, skipped) == (counts["accepted"], counts["invalid"], counts["skipped"])
    assert accepted + invalid + skipped == counts["read"]
    assert accepted == len(ended.service.seen)
    assert all(each["reason"] for each in ended.written.results if each["status"] != "accepted")
    assert [preset] * invalid == [letter["_moe_bulk"]["mapping"]["preset"] for letter in ended.written.letters]


def test_appmetrica_s_last_token_of_a_device_wins(tmp_path: Path) -> None:
    """A row is a token event: those of one device are sent in the order of the file, one at a time."""
    sent: list[dict[str, Any]] = []

    def remember(said: dict[str, Any]) -> httpx.Response:
        sent.append(said)
        return accept(said)

    path = SAMPLES / "appmetrica.csv"
    deliver(Files((str(path),)), tmp_path / "run", remember, reading=through("appmetrica"))

    lines = path.read_text(encoding="utf-8-sig").splitlines()[1:]
    tokens = {device: token for token, device, *_ in (line.split(",") for line in lines) if token}
    for device, token in tokens.items():
        of_device = [said["attributes"]["push_id"] for said in sent if said["device_id"] == device]
        assert [token] == of_device[-1:] or not of_device
    assert len(sent) > len({said["device_id"] for said in sent})


@pytest.mark.parametrize("separator", [",", ";"])
def test_batch_s_separators(separator: str, tmp_path: Path) -> None:
    """The header tells which one it is."""
    path = tmp_path / "ios.csv"
    path.write_text(separator.join(["push_token", "custom_id"]) + "\n" + separator.join(["ab" * 32, "u-1"]) + "\n")
    ended = deliver(Files((str(path),)), tmp_path / "run", reading=through("batch", "platform=iOS"))
    assert 1 == ended.written.summary["counts"]["accepted"]


# -- several devices in a row ------------------------------------------------------------------------------------------

EVERYTHING = [
    *((1, item) for item in range(2)),
    (2, 0),
    *((3, item) for item in range(3)),
    (4, 0),
    (5, 0),
    *((6, item) for item in range(4)),
    *((7, item) for item in range(2)),
    (8, 0),
    *((9, item) for item in range(3)),
    (10, 0),
    (11, 0),
    *((12, item) for item in range(4)),
]
"""What of the sample has a result of its own."""


@pytest.mark.parametrize("way", ["signal", "crash"])
@pytest.mark.parametrize("kind", ["file", "rows"])
@pytest.mark.parametrize("after", [0, 2, 5, 9, 15])
def test_a_stop_in_the_middle_of_a_row(way: str, kind: str, after: int, tmp_path: Path) -> None:
    """The same command goes on with the devices that have no result yet: each gets one, and none gets two."""
    held = [orjson.loads(line) for line in BRAZE.read_bytes().splitlines()]
    rows: Any = Files((str(BRAZE),)) if kind == "file" else held
    again: dict[str, Any] = {"out": tmp_path / "run", "reading": through("braze")}
    first = deliver(rows, cut=Cut(cast("Way", way), after), network=ONE_BY_ONE, **again)
    assert first.error is not None
    last = deliver(rows, **again)

    assert last.error is None
    assert items_of(last.written.results) == EVERYTHING
    assert last.written.summary["counts"]["read"] == len(EVERYTHING)


@pytest.mark.parametrize("kept", [2, 5])
@pytest.mark.parametrize("after", [5, 15])
def test_rows_in_memory_that_are_too_many_to_be_kept(
    kept: int, after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row counts as settled when all of its devices are: the others are not lost with the first one."""
    monkeypatch.setattr("moe_bulk.intake.memory.HELD", kept)
    rows = [orjson.loads(line) for line in BRAZE.read_bytes().splitlines()]
    first = deliver(rows, tmp_path / "run", reading=through("braze"), cut=Cut("cancel", after), network=ONE_BY_ONE)
    assert 0 < len(first.written.results) < len(EVERYTHING)
    last = deliver(rows, tmp_path / "run", reading=through("braze"))
    assert items_of(last.written.results) == EVERYTHING


def test_a_limit_within_a_row(tmp_path: Path) -> None:
    """It counts what has a result of its own, so a run that goes on begins in the middle of a row."""
    found = []
    for limit in (1, 4, 11, None):
        reading = Reading(Columns(preset="braze"), limit=limit)
        ended = deliver(Files((str(BRAZE),)), tmp_path / "run", reading=reading)
        found.append(items_of(ended.written.results))
    assert [EVERYTHING[:1], EVERYTHING[:4], EVERYTHING[:11], EVERYTHING] == found


def test_a_preset_is_a_setting_that_matters(tmp_path: Path) -> None:
    """A run cannot go on with another one."""
    out, source = tmp_path / "run", Files((str(SAMPLES / "segment.ndjson"),))
    deliver(source, out, reading=through("segment"), cut=Cut("signal", 3))
    refused = deliver(source, out, reading=Reading(Columns.parse(validate="basic")))
    assert isinstance(refused.error, RunRefused)
    assert "begun with --preset segment, now no --preset" in str(refused.error)


# -- dead letters ------------------------------------------------------------------------------------------------------


def test_dead_letters_are_their_item_of_the_row(tmp_path: Path) -> None:
    """Sent again, and once more, without a preset and with it, each is the device that failed and no other."""
    refused = [orjson.loads(BRAZE.read_bytes().splitlines()[5])["push_tokens"][item]["token"] for item in (1, 3)]

    def refuse(said: dict[str, Any]) -> httpx.Response:
        sent.append(said["attributes"]["push_id"])
        return answer(400, "ValueError") if said["attributes"]["push_id"] in refused else accept(said)

    sent: list[str] = []
    out = tmp_path / "first.run"
    found = deliver(Files((str(BRAZE),)), out, refuse, reading=through("braze")).written.letters
    assert [(6, 1, 1), (6, 3, 3), (11, 0, None)] == [
        (note["line"], note["item"], note["mapping"].get("item")) for note in (each["_moe_bulk"] for each in found)
    ]
    whole = orjson.loads(BRAZE.read_bytes().splitlines()[5])
    assert [whole, whole] == [{name: said for name, said in each.items() if name != "_moe_bulk"} for each in found[:2]]

    for number, reading in enumerate([Reading(), through("braze"), Reading()]):
        letters, out = out / "dead-letter.ndjson", tmp_path / f"{number}.run"
        sent = []
        again = deliver(Files((str(letters),)), out, refuse, reading=reading).written
        assert refused == sent
        assert [1, 3, None] == [each["_moe_bulk"]["mapping"].get("item") for each in again.letters]
        assert (3, 2, 1) == tuple(again.summary["counts"][name] for name in ("read", "rejected", "invalid"))

    last = deliver(Files((str(out / "dead-letter.ndjson"),)), tmp_path / "last.run")
    assert 2 == last.written.summary["counts"]["accepted"]


def letter(tmp_path: Path, fields: dict[str, Any], mapping: object) -> Path:
    """Write a dead letter."""
    path = tmp_path / "dead-letter.ndjson"
    path.write_bytes(orjson.dumps({**fields, "_moe_bulk": {"line": 1, "mapping": mapping}}))
    return path


TWO = {
    "external_id": "u-1",
    "push_tokens": [{"platform": "iOS", "token": f"token-{number}", "device_id": f"d-{number}"} for number in range(2)],
}


@pytest.mark.parametrize(
    ("mapping", "reading", "statuses"),
    [
        ({"preset": "braze"}, Reading(), {"invalid": 1}),
        ({"preset": "braze"}, through("braze"), {"accepted": 2}),
        (None, through("braze"), {"accepted": 2}),
        ({"preset": "braze", "item": 1}, through("braze"), {"accepted": 1}),
        ({"preset": "braze", "item": 2}, Reading(), {"invalid": 1}),
        ({"preset": "braze", "item": "1"}, Reading(), {"invalid": 1}),
        ({"preset": "nobody's"}, Reading(), {"invalid": 1}),
        ({"preset": {"columns": {"customer_id": "external_id"}}}, Reading(), {"invalid": 1}),
    ],
)
def test_dead_letters_of_rows_that_were_corrected(
    mapping: object, reading: Reading, statuses: dict[str, int], tmp_path: Path
) -> None:
    """A letter of a whole row may hold several devices by now: it asks for its preset rather than drop some."""
    ended = deliver(Files((str(letter(tmp_path, TWO, mapping)),)), tmp_path / "run", reading=reading)
    counts = ended.written.summary["counts"]
    assert statuses == {name: counts[name] for name in ("accepted", "invalid", "skipped") if counts[name]}
    if mapping == {"preset": "braze"} and "invalid" in statuses:
        reason = "it holds 2 devices now, and a dead letter is one: upload it with --preset braze"
        assert [reason] == [each["reason"] for each in ended.written.results]


@pytest.mark.parametrize("tokens", [[], TWO["push_tokens"], "x"])
def test_a_letter_stays_its_item_whatever_becomes_of_its_row(tmp_path: Path, tokens: object) -> None:
    """Who spoils it while correcting it does not make it the letter of all the others."""
    path = letter(tmp_path, {**TWO, "push_tokens": tokens}, {"preset": "braze", "item": 2})
    ended = deliver(Files((str(path),)), tmp_path / "run")
    assert [{"preset": "braze", "item": 2}] * (tokens != []) == [
        each["_moe_bulk"]["mapping"] for each in ended.written.letters
    ]


def test_values_that_refuse_to_be_read(tmp_path: Path) -> None:
    """A row of somebody else's classes is an invalid one, and the others go their way."""

    class Odd(dict[str, object]):
        def get(self, *_: object) -> object:
            raise ZeroDivisionError

    rows = [{"external_id": "u-1", "push_tokens": [Odd()]}, TWO]
    ended = deliver(rows, tmp_path / "run", reading=through("braze"))
    assert (2, 1) == (ended.written.summary["counts"]["accepted"], ended.written.summary["counts"]["invalid"])
