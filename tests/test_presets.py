"""Presets: the form of their tables, where they come from, and what each makes of the rows of its export."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk import presets
from moe_bulk.columns import Columns, Reader, Unsent
from moe_bulk.deadletter import letter
from moe_bulk.errors import ConfigError
from moe_bulk.outcome import Result, Status
from moe_bulk.presets.form import MOST_ITEMS, Preset
from moe_bulk.record import Number, Position, Record, Row

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from moe_bulk.device import Device

NAMES = ("airship", "appmetrica", "batch", "braze", "moengage-export", "onesignal", "segment")
PLACE = Position("export", 2, 40)


def read(preset: str, fields: Mapping[str, object], **said: Any) -> Record | Unsent:
    """Read a row of an export that is one device."""
    made = read_all(preset, fields, **said)
    assert 1 == len(made)
    return made[0]


def read_all(preset: str, fields: Mapping[str, object], **said: Any) -> list[Record | Unsent]:
    """Read a row of an export, device by device."""
    reader = Reader(Columns.parse(preset=preset, **said))
    return [reader.read(row) for row in reader.spread([Row(PLACE, dict(fields))])]


def sent(preset: str, fields: Mapping[str, object], **said: Any) -> dict[str, str]:
    """Give the fields of a row's one device, as they are sent."""
    record = read(preset, fields, **said)
    assert isinstance(record, Record), record
    return flat(record.device)


def flat(device: Device) -> dict[str, str]:
    """Give a device's fields."""
    return {"customer_id": device.customer_id, "device_id": device.device_id, **device.attributes}


def why(preset: str, fields: Mapping[str, object], **said: Any) -> tuple[Status, str]:
    """Tell why a row is not sent."""
    unsent = read(preset, fields, **said)
    assert isinstance(unsent, Unsent), unsent
    return unsent.status, unsent.reason


# -- the package's own -------------------------------------------------------------------------------------------------


def test_the_presets_are_these() -> None:
    """A name that goes away or comes along is a decision, not an accident."""
    assert NAMES == presets.names()


@pytest.mark.parametrize("name", NAMES)
def test_each_is_told_of(name: str) -> None:
    """What it is for, in a sentence, and the columns that it expects, on a terminal of 80 columns."""
    preset, told = presets.load(name), presets.listing()
    assert f"{name}: {preset.about} " in " ".join(told.split())
    assert max(map(len, told.splitlines())) <= 80
    assert 20 < len(preset.about) < 120
    assert all(column in told for column in preset.expected)
    assert preset.built_in


def test_elements_of_lists_are_told_as_such() -> None:
    """So that nobody looks for a column with a dot."""
    assert "devices[].model" in presets.load("braze").expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("onesingal", "there is no preset 'onesingal'. Did you mean onesignal? There are: airship, appmetrica, "),
        ("OneSignal", "there is no preset 'OneSignal'. Did you mean onesignal? "),
        ("x", "there is no preset 'x'. There are: airship, "),
        ("", "there is no preset ''. There are: "),
        ("mine.toml", "the preset mine.toml cannot be read: No such file or directory. It must be a TOML table; "),
        ("./mine", "the preset ./mine cannot be read: No such file or directory."),
    ],
)
def test_a_preset_that_is_none(name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told, with the closest name, and how a file is named."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as refused:
        Columns(preset=name)
    assert str(refused.value).startswith(message)


# -- one's own ---------------------------------------------------------------------------------------------------------

MINE = """
about = "our own"
nothing = ["-"]
[columns]
customer_id = ["uid", "user.id"]
device_id = "device.id"
push_id = "device.token"
[set]
platform = "TV"
[values.moe_push_opted]
no = "False"
[skip."device.kind"]
car = "a car is no device"
"""


def test_a_preset_of_one_s_own(tmp_path: Path) -> None:
    """It is a TOML table of the same form; its columns may lie in nested objects."""
    path = tmp_path / "mine.toml"
    path.write_text(MINE, encoding="utf-8")
    device = {"id": "d-1", "token": "token-1", "kind": "set-top box"}

    expected = {"customer_id": "u-1", "device_id": "d-1", "platform": "TV", "push_id": "token-1"}
    assert expected == sent(str(path), {"uid": "-", "user": {"id": "u-1"}, "device": device})
    skipped = (Status.SKIPPED, "device.kind is Car: a car is no device")
    assert skipped == why(str(path), {"uid": "u-1", "device": {**device, "kind": "Car"}})


def test_dead_letters_carry_the_whole_table(tmp_path: Path) -> None:
    """So they can be sent again whatever became of its file; the package's own go by their names."""
    path = tmp_path / "mine.toml"
    path.write_text(MINE, encoding="utf-8")
    columns = Columns(preset=str(path))
    path.unlink()

    assert {"preset": tomllib.loads(MINE)} == columns.mapping
    assert {"preset": "segment", "set": {"platform": "iOS"}} == Columns.parse(
        [], ["platform=iOS"], preset="segment"
    ).mapping
    assert columns.mapping is not None
    again = Columns().on_top_of(columns.mapping).in_use
    assert again is not None
    assert columns.in_use == Preset.from_table(str(path), again.table)


def test_a_table_is_known_again_by_what_stands_in_it(tmp_path: Path) -> None:
    """Wherever it lies; a change of it is another setting."""
    settings = []
    for name, text in (("a/mine.toml", MINE), ("b/mine.toml", MINE), ("c/mine.toml", MINE.replace("TV", "web"))):
        path = tmp_path / name
        path.parent.mkdir()
        path.write_text(text, encoding="utf-8")
        settings.append(presets.as_setting(presets.load(str(path))))

    assert settings[0] == settings[1] != settings[2]
    assert settings[0].startswith("mine.toml (")
    assert "braze" == presets.as_setting(presets.load("braze"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("colums = {}", ": there is no key 'colums'. Did you mean columns? There are: about, "),
        ("", ": columns must say which column is which field, such as customer_id = "),
        ("columns = 7", ": columns must be a table"),
        ('columns.user_id = "x"', ": columns: there is no field 'user_id'. Did you mean customer_id?"),
        ("columns.model = 7", ": columns.model must be text or a list of texts; it is 7"),
        ("columns.model = []", ": columns.model names no column"),
        ('columns.model = ["a", 7]', ": columns.model must be text in quotes; it is 7"),
        ('columns.model = "m"\nabout = 1', ": about must be text in quotes; it is 1"),
        ('columns.model = "m"\nset.model = "x"', ": set.model has a column, too: keep one of them"),
        ('columns.model = "m"\nset.modell = "x"', ": set: there is no field 'modell'. Did you mean model?"),
        ('columns.model = "m"\nvalues.platform = "x"', ": values.platform must be a table of values"),
        ('columns.model = "m"\nvalues.platform.1 = 1', ": values.platform.1 must be text in quotes; it is 1"),
        ('columns.model = "m"\nskip.kind = ["a"]', ": skip.kind must be a table of values"),
        ('columns.model = "m"\nnothing = 1', ": nothing must be text or a list of texts; it is 1"),
        ('columns.model = "m"\nitems = ["a", "b"]', ": items names several lists: say in join by which field"),
        ("columns = ", " cannot be read: Invalid value"),
        (b"\xff", " cannot be read: 'utf-8' codec"),
        pytest.param("a = " + "[" * 5000, " cannot be read: ", id="deep"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(text: str | bytes, message: str, tmp_path: Path) -> None:
    """Before anything is read, with the place in it."""
    path = tmp_path / "mine.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as refused:
        presets.load(str(path))
    assert str(refused.value).startswith(f"the preset {path}{message}")


@pytest.mark.parametrize("said", ["/etc/mine.toml", "./mine.toml", "nobody's", 7, [], {"columns": {}}, {"x": 1}])
def test_a_dead_letter_names_no_file(said: object) -> None:
    """A stranger's row cannot make us read one: a letter has a name of ours, or a table."""
    with pytest.raises(ConfigError):
        presets.from_mapping(said)


# -- any row -----------------------------------------------------------------------------------------------------------

TEXTS = st.sampled_from(["u-1", "token-1", "d-1", "iOS", "android", "1", "11", "t", "null", "", "email"])
VALUES = st.none() | st.booleans() | st.integers(0, 20) | TEXTS
ELEMENTS = st.lists(
    VALUES | st.dictionaries(st.sampled_from(["device_id", "token", "platform", "model"]), VALUES, max_size=4),
    max_size=4,
)


@given(name=st.sampled_from(NAMES), data=st.data())
def test_a_dead_letter_is_read_as_its_row_was(name: str, data: st.DataObject) -> None:
    """Whatever stands in a row, it has at least one result, and each letter comes to what its item came to."""
    known = [*(column for columns in presets.load(name).columns.values() for column in columns), "attributes"]
    fields: dict[str, Any] = data.draw(st.dictionaries(st.sampled_from(known), VALUES, max_size=8)) | {
        "external_id": "u-1"
    }
    fields |= data.draw(st.fixed_dictionaries({}, optional={"devices": ELEMENTS, "push_tokens": ELEMENTS}))
    made = read_all(name, fields, set_=["platform=iOS"] if name == "batch" else [])

    assert list(range(len(made))) == [one.row.position.item for one in made]
    for one in made:
        status = one.status if isinstance(one, Unsent) else Status.REJECTED
        failed = Result(one.row.position, status, one.row, reason="no", mapping=one.mapping)
        again = Reader(Columns()).read(Row(PLACE, orjson.loads(letter(failed))))
        assert type(one) is type(again)
        assert getattr(one, "device", None) == getattr(again, "device", None)
        assert getattr(one, "reason", None) == getattr(again, "reason", None)
        assert (one.mapping, fields) == (again.mapping, again.row.fields)


# -- what is said on top of a preset -----------------------------------------------------------------------------------

ONESIGNAL: dict[str, object] = {
    "id": "d-1",
    "identifier": "token-1",
    "device_type": "1",
    "device_model": "Pixel 9",
    "device_os": "16",
    "game_version": "1.10",
    "ad_id": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
    "external_user_id": "u-1",
    "invalid_identifier": "f",
    "last_active": "2026-11-20",
}


def test_columns_and_constants_stand_above_a_preset() -> None:
    """Each replaces what the preset says of its field, and what it means."""
    fields = {**ONESIGNAL, "subscribed": "t", "kind": "1"}
    said = sent("onesignal", fields, column=["moe_push_opted=subscribed"], set_=["model=Phone"])
    assert ("True", "Phone") == (said["moe_push_opted"], said["model"])

    meant = (Status.INVALID, "platform '1' is unknown: write ANDROID, iOS, web, TV")
    assert meant == why("onesignal", fields, column=["platform=kind"])


def test_other_fields_of_the_row_are_none_of_ours() -> None:
    """A column of an export that happens to be called as a field of ours may be anything."""
    assert "moe_gaid" not in sent(
        "segment", {**SEGMENT, "type": "track", "moe_gaid": "x", "context_device_advertising_id": ""}
    )


@pytest.mark.parametrize(("where", "kept"), [("last_active=2026-11-20", True), ("last_active=2026-11-21", False)])
def test_where_looks_at_the_export_s_columns(where: str, *, kept: bool) -> None:
    """As they stand there, whatever a preset makes of them."""
    assert kept == isinstance(read("onesignal", ONESIGNAL, where=[where]), Record)


def test_basic_validation_asks_for_the_ids_only() -> None:
    """What a preset takes for no device without a token is sent all the same; what it knows to be none is not."""
    fields = {**ONESIGNAL, "identifier": ""}
    assert "push_id" not in sent("onesignal", fields, validate="basic")
    assert Status.SKIPPED is why("onesignal", fields)[0]
    assert Status.SKIPPED is why("onesignal", {**fields, "device_type": "11"}, validate="basic")[0]


@pytest.mark.parametrize(
    ("header", "said", "message"),
    [
        (
            ["id", "identifier", "device_type"],
            {},
            "f.csv: there is no column external_user_id, from which --preset onesignal takes customer_id: name ",
        ),
        (
            ["id", "identifier"],
            {},
            "--column customer_id=COLUMN, or give all rows the same with --set customer_id=VALUE. ",
        ),
        (["external_user_id", "id", "identifier", "device_typ"], {}, "Did you mean device_typ? Its columns: external"),
        (["external_user_id", "id", "identifier"], {"set_": ["platform=iOS"]}, ""),
        (["external_user_id", "id", "token", "device_type"], {"column": ["push_id=token"]}, ""),
        (
            ["external_user_id", "id", "identifier", "device_type"],
            {"column": ["push_id=tok"]},
            "--column names a column",
        ),
        (["external_user_id", "id"], {"validate": "basic"}, ""),
    ],
)
def test_a_header_that_is_not_the_export_s(header: list[str], said: dict[str, Any], message: str) -> None:
    """What is missing is told before the first row is sent, with what to type."""
    reader = Reader(Columns.parse(preset="onesignal", **said))
    if not message:
        assert [] == reader.check_header("f.csv", header)
        return
    with pytest.raises(ConfigError) as refused:
        reader.check_header("f.csv", header)
    assert message in str(refused.value)


def test_columns_that_a_preset_does_not_know_are_told() -> None:
    """Those that it knows and leaves out are not: nobody needs to be told of each column of a known export."""
    reader = Reader(Columns.parse(preset="onesignal"))
    told = reader.check_header("f.csv", [*ONESIGNAL, "shoe_size"])
    assert ["column 'shoe_size' is not sent: it is none of the API's."] == told


# -- OneSignal ---------------------------------------------------------------------------------------------------------


def test_onesignal() -> None:
    """Every column that MoEngage has a field for; one that says that it is valid is subscribed."""
    expected = {
        "customer_id": "u-1",
        "device_id": "d-1",
        "platform": "ANDROID",
        "push_id": "token-1",
        "model": "Pixel 9",
        "app_version": "1.10",
        "os_version": "16",
        "moe_push_opted": "True",
        "moe_gaid": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
    }
    assert expected == sent("onesignal", ONESIGNAL)


@pytest.mark.parametrize(
    ("kind", "platform"),
    [
        ("0", "iOS"),
        ("1", "ANDROID"),
        ("2", "ANDROID"),
        ("5", "web"),
        ("7", "web"),
        ("8", "web"),
        (0, "iOS"),
        (1.0, "ANDROID"),
    ],
)
def test_onesignal_s_device_types(kind: object, platform: str) -> None:
    """They are numbers, in CSV and JSON."""
    assert platform == sent("onesignal", {**ONESIGNAL, "device_type": kind})["platform"]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("11", "device_type is 11: an e-mail address is no device"),
        (11, "device_type is 11: an e-mail address is no device"),
        (Number("11.0"), "device_type is 11.0: an e-mail address is no device"),
        ("14", "device_type is 14: a phone number for SMS is no device"),
    ],
)
def test_onesignal_s_rows_that_are_no_devices(kind: object, reason: str) -> None:
    """They are skipped, and the result says why, with its ids."""
    unsent = read("onesignal", {**ONESIGNAL, "device_type": kind})
    assert isinstance(unsent, Unsent)
    assert (Status.SKIPPED, reason, "u-1", "d-1") == (
        unsent.status,
        unsent.reason,
        unsent.customer_id,
        unsent.device_id,
    )


def test_onesignal_s_other_device_types_are_not_guessed() -> None:
    """MoEngage has no such platform: somebody has to decide."""
    assert (Status.INVALID, "platform '9' is unknown: write ANDROID, iOS, web, TV") == why(
        "onesignal", {**ONESIGNAL, "device_type": "9"}
    )


@pytest.mark.parametrize(
    ("said", "opted"),
    [("t", "False"), ("f", "True"), ("T", "False"), ("true", "False"), (True, "False"), (False, "True"), ("", None)],
)
def test_onesignal_s_flag_means_its_opposite(said: object, opted: str | None) -> None:
    """An invalid identifier is an unsubscribed device; where nothing is said, nothing is sent."""
    assert opted == sent("onesignal", {**ONESIGNAL, "invalid_identifier": said}).get("moe_push_opted")


@pytest.mark.parametrize(
    ("kind", "ad_id", "expected"),
    [
        ("1", "F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6", {"moe_gaid": "F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6"}),
        ("0", "F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6", {"idfv": "F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6"}),
        ("5", "F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6", {}),
        ("1", "OptedOut", {}),
        ("0", "OptedOut", {}),
        ("1", "00000000-0000-0000-0000-000000000000", {}),
        ("0", "", {}),
    ],
)
def test_onesignal_s_advertising_id(kind: str, ad_id: str, expected: dict[str, str]) -> None:
    """One column is the GAID on Android and the IDFV on iOS; who opted out has none."""
    said = sent("onesignal", {**ONESIGNAL, "device_type": kind, "ad_id": ad_id})
    assert expected == {name: said[name] for name in ("moe_gaid", "idfv") if name in said}


# -- Airship -----------------------------------------------------------------------------------------------------------

AIRSHIP: dict[str, object] = {
    "channel_id": "c-1",
    "device_type": "ios",
    "opt_in": "true",
    "push_address": "ab" * 32,
    "named_user_id": "u-1",
}


@pytest.mark.parametrize(("said", "opted"), [("true", "True"), ("false", "False"), ("null", None), (True, "True")])
def test_airship(said: object, opted: str | None) -> None:
    """Booleans are text."""
    expected = {"customer_id": "u-1", "device_id": "c-1", "platform": "iOS", "push_id": "ab" * 32}
    expected |= {"moe_push_opted": opted} if opted else {}
    assert expected == sent("airship", {**AIRSHIP, "opt_in": said})


@pytest.mark.parametrize("nothing", ["null", "None", "", " ", "none", None])
def test_airship_s_ways_to_say_nothing(nothing: object) -> None:
    """A channel without an address is no device; one without a user is somebody's to be corrected."""
    assert (Status.SKIPPED, "there is no push address") == why("airship", {**AIRSHIP, "push_address": nothing})
    assert (Status.INVALID, "customer_id is missing") == why("airship", {**AIRSHIP, "named_user_id": nothing})


@pytest.mark.parametrize("kind", ["email", "sms", "open", "EMAIL"])
def test_airship_s_channels_that_are_no_devices(kind: str) -> None:
    """E-mail addresses, phone numbers and open channels are skipped."""
    status, reason = why("airship", {**AIRSHIP, "device_type": kind})
    assert (Status.SKIPPED, f"device_type is {kind}") == (status, reason.partition(":")[0])


def test_airship_s_attributes_are_its_own() -> None:
    """An object of that name is not the API's."""
    assert "u-1" == sent("airship", {**AIRSHIP, "attributes": {"customer_id": "x", "model": 7}})["customer_id"]


# -- Segment -----------------------------------------------------------------------------------------------------------

SEGMENT: dict[str, object] = {
    "user_id": 4000000000001,
    "context_device_id": "d-1",
    "context_device_token": "token-1",
    "context_device_type": "android",
    "context_device_model": "Pixel 9",
    "context_device_advertising_id": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
    "context_os_version": "16",
    "context_app_version": "1.10",
}


@pytest.mark.parametrize(
    ("user_id", "customer_id"), [(4000000000001, "4000000000001"), ("u-1", "u-1"), ("4000000000001", "4000000000001")]
)
def test_segment(user_id: object, customer_id: str) -> None:
    """A user is a number or a text; a whole number becomes the text that it is written as."""
    expected = {
        "customer_id": customer_id,
        "device_id": "d-1",
        "platform": "ANDROID",
        "push_id": "token-1",
        "model": "Pixel 9",
        "app_version": "1.10",
        "os_version": "16",
        "moe_gaid": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
    }
    assert expected == sent("segment", {**SEGMENT, "user_id": user_id})


@pytest.mark.parametrize("user_id", [Number("12345.0"), 12345.5])
def test_segment_s_users_that_are_no_whole_numbers(user_id: float) -> None:
    """Nobody guesses what they were."""
    status, reason = why("segment", {**SEGMENT, "user_id": user_id})
    assert (Status.INVALID, True) == (status, "loses its spelling" in reason)


@pytest.mark.parametrize("token", [None, "", "null"])
def test_segment_s_events_without_a_token(token: object) -> None:
    """They are no devices."""
    skipped = (Status.SKIPPED, "the event came without a push token")
    assert skipped == why("segment", {**SEGMENT, "context_device_token": token})


def test_segment_s_advertising_id_on_ios() -> None:
    """It is the IDFA there, which is none of MoEngage's fields; above all it is no IDFV."""
    said = sent("segment", {**SEGMENT, "context_device_type": "ios"})
    assert set() == {"moe_gaid", "idfv"} & said.keys()


# -- Braze -------------------------------------------------------------------------------------------------------------

TOKENS: list[dict[str, object]] = [
    {"app": "Shop", "platform": "iOS", "token": "token-1", "device_id": "d-1", "notifications_enabled": True},
    {"app": "Shop", "platform": "Android", "token": "token-2", "device_id": "d-2", "notifications_enabled": False},
]
PROFILES: list[dict[str, object]] = [
    {"model": "Pixel 9", "os": "16", "device_id": "d-2", "google_ad_id": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"},
    {"model": "iPhone17,1", "os": "18.5", "device_id": "d-1", "idfv": "F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6"},
]
BRAZE: dict[str, object] = {"external_id": "u-1", "devices": PROFILES, "push_tokens": TOKENS}


def test_braze() -> None:
    """A row is as many devices as it has push tokens, each with what the device of its id says."""
    made = read_all("braze", BRAZE)

    assert [
        (PLACE._replace(item=0), {"preset": "braze", "item": 0}),
        (PLACE._replace(item=1), {"preset": "braze", "item": 1}),
    ] == [(one.row.position, one.mapping) for one in made]
    assert [
        {
            "customer_id": "u-1",
            "device_id": "d-1",
            "platform": "iOS",
            "push_id": "token-1",
            "model": "iPhone17,1",
            "os_version": "18.5",
            "moe_push_opted": "True",
            "idfv": "F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6",
        },
        {
            "customer_id": "u-1",
            "device_id": "d-2",
            "platform": "ANDROID",
            "push_id": "token-2",
            "model": "Pixel 9",
            "os_version": "16",
            "moe_push_opted": "False",
            "moe_gaid": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
        },
    ] == [flat(one.device) for one in made if isinstance(one, Record)]
    assert all(one.row.fields == BRAZE for one in made)


def test_braze_s_devices_and_tokens_that_stand_alone() -> None:
    """A token without a device is one all the same; a device without a token is skipped, not lost."""
    fields = {**BRAZE, "push_tokens": [TOKENS[1], {**TOKENS[0], "device_id": "d-3"}]}
    found = [
        (one.status, one.reason, one.device_id) if isinstance(one, Unsent) else flat(one.device)
        for one in read_all("braze", fields)
    ]

    assert isinstance(found[0], dict)
    assert ("d-2", "Pixel 9") == (found[0]["device_id"], found[0]["model"])
    alone = {
        "customer_id": "u-1",
        "device_id": "d-3",
        "platform": "iOS",
        "push_id": "token-1",
        "moe_push_opted": "True",
    }
    assert [alone, (Status.SKIPPED, "there is no push token of this device", "d-1")] == found[1:]


def test_braze_s_device_with_two_tokens() -> None:
    """Two apps on one device are two rows of one device, in their order."""
    made = read_all("braze", {**BRAZE, "push_tokens": [TOKENS[0], {**TOKENS[0], "token": "token-9"}]})
    assert ["token-1", "token-9"] == [one.device.attributes["push_id"] for one in made[:2] if isinstance(one, Record)]
    assert ["iPhone17,1"] * 2 == [one.device.attributes["model"] for one in made[:2] if isinstance(one, Record)]


@pytest.mark.parametrize(
    "arrays",
    [{"devices": [], "push_tokens": []}, {"devices": None, "push_tokens": None}, {"devices": [None]}, {}],
)
def test_braze_s_users_without_devices(arrays: dict[str, object]) -> None:
    """Such a row is one skipped result."""
    skipped = (Status.SKIPPED, "there is no device in it: push_tokens and devices hold none")
    assert skipped == why("braze", {"external_id": "u-1", **arrays})


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"devices": "iPhone"}, "devices must be an array of objects"),
        ({"push_tokens": {"token": "x"}}, "push_tokens must be an array of objects"),
        ({"push_tokens": ["x"]}, "push_tokens must be an array of objects"),
        ({"push_tokens": [{}] * (MOST_ITEMS + 1)}, "the row holds 1,003 devices: MoEngage blocks a user who has more"),
    ],
)
def test_braze_s_rows_that_are_not_as_they_should_be(arrays: dict[str, object], reason: str) -> None:
    """Such a row is one invalid result, with its user, and its letter is the whole row."""
    unsent = read("braze", {**BRAZE, **arrays})
    assert isinstance(unsent, Unsent)
    assert (Status.INVALID, "u-1", {"preset": "braze"}) == (unsent.status, unsent.customer_id, unsent.mapping)
    assert unsent.reason.startswith(reason)


def test_braze_s_elements_can_be_chosen() -> None:
    """A path leads into the element, not into the array."""
    made = read_all("braze", BRAZE, where=["push_tokens.platform=iOS"], column=["model=push_tokens.app"])
    assert ["Shop"] == [one.device.attributes["model"] for one in made if isinstance(one, Record)]
    assert "--where push_tokens.platform=iOS: here it is 'Android'" == getattr(made[1], "reason", "")


# -- AppMetrica, Batch, MoEngage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("os_name", "ids"),
    [
        ("ios", {"platform": "iOS", "idfv": "F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6"}),
        ("Android", {"platform": "ANDROID", "moe_gaid": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"}),
    ],
)
def test_appmetrica(os_name: str, ids: dict[str, str]) -> None:
    """Both advertising ids have columns of their own, and each platform takes one."""
    fields = {
        "token": "token-1",
        "appmetrica_device_id": "17462903281234567890",
        "google_aid": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
        "ios_ifv": "F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6",
        "os_name": os_name,
        "os_version": "18.5",
        "device_model": "X",
        "profile_id": "u-1",
        "app_version_name": "1.10",
    }
    expected = {"customer_id": "u-1", "device_id": "17462903281234567890", "push_id": "token-1", "model": "X"}
    assert {**expected, "app_version": "1.10", "os_version": "18.5", **ids} == sent("appmetrica", fields)
    assert (Status.SKIPPED, "there is no push token") == why("appmetrica", {**fields, "token": ""})


def test_batch() -> None:
    """The token is all that a device is known by, and the platform is the file's."""
    expected = {"customer_id": "u-1", "device_id": "ab12" * 16, "platform": "iOS", "push_id": "ab12" * 16}
    assert expected == sent("batch", {"push_token": "ab12" * 16, "custom_id": "u-1"}, set_=["platform=iOS"])


def test_batch_needs_to_be_told_the_platform() -> None:
    """Before anything is read, and in plain words; a column is as good as a constant."""
    with pytest.raises(ConfigError) as refused:
        Columns.parse(preset="batch")
    assert (
        "--preset batch: which platform? A file holds the tokens of one platform and does not say which: add "
        "--set platform=iOS or --set platform=ANDROID"
    ) == str(refused.value)
    assert Columns.parse(["platform=os"], preset="batch").in_use


@pytest.mark.parametrize(
    "fields",
    [
        {
            "type": "device",
            "customer_id": "u-1",
            "device_id": "d-1",
            "attributes": {"platform": "iOS", "push_id": "token-1", "moe_push_opted": "True"},
        },
        {"uid": "u-1", "device_id": "d-1", "platform": "ios", "push_id": "token-1", "moe_push_opted": True},
        {
            "customer_id": None,
            "uid": "u-1",
            "device_id": "d-1",
            "platform": "iOS",
            "push_id": "token-1",
            "moe_push_opted": "t",
        },
    ],
)
def test_moengage_s_own_rows(fields: dict[str, object]) -> None:
    """Nested or flat, the user under either of its names."""
    expected = {"customer_id": "u-1", "device_id": "d-1", "platform": "iOS", "push_id": "token-1"}
    assert expected | {"moe_push_opted": "True"} == sent("moengage-export", fields)


def test_moengage_s_rows_that_are_no_devices() -> None:
    """Users and events are skipped; a device without a token is wrong, as MoEngage would say."""
    assert (Status.SKIPPED, "type is event: an event is no device") == why("moengage-export", {"type": "event"})
    assert Status.SKIPPED is why("moengage-export", {"type": "customer", "attributes": {"name": "Ann"}})[0]
    assert Status.INVALID is why("moengage-export", {"customer_id": "u-1", "device_id": "d-1", "platform": "web"})[0]
    twice = {"customer_id": "u-1", "push_id": "a", "attributes": {"push_id": "b"}}
    assert (Status.INVALID, "push_id stands twice, as 'a' and in attributes as 'b'") == why("moengage-export", twice)
