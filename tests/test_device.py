"""What a valid device is: every rule of MoEngage's pages, and the folding of values that mean the same."""

from __future__ import annotations

import re
import string
from decimal import Decimal
from typing import TYPE_CHECKING, Literal

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk import device as device_module
from moe_bulk.device import FIELDS, MAX_BODY, Device, Problem, fold, problems
from moe_bulk.record import Number

if TYPE_CHECKING:
    from collections.abc import Mapping

FCM = (
    "dQw4w9WgXcQ:APA91bHPRgkF3JUikC4ENAHEeMrd41Zxv3hVZjC9KtT8OvPVGJ-hQMRKRrZuJAEcl7B338qju59zJMjw2DELjzEvxwYv7hH5Ynpc1O"
)
APNS = "9F3c" * 16
GAID = "38400000-8cf0-11bd-b23e-10b96e40000d"
ROW: dict[str, object] = {"customer_id": "u-1", "device_id": "d-1", "platform": "ANDROID", "push_id": FCM}
NO_ID = "00000000-0000-0000-0000-000000000000"


def device(validate: Literal["strict", "basic"] = "strict", /, **fields: object) -> Device:
    """The device of a valid row with these fields."""
    folded = fold({**ROW, **fields}, validate)
    assert isinstance(folded, Device), folded
    return folded


def sent(name: str, validate: Literal["strict", "basic"] = "strict", /, **fields: object) -> str | None:
    """What travels under this name; None where the name is left out."""
    attributes: Mapping[str, str] = device(validate, **fields).attributes
    return attributes.get(name)


def reasons(**fields: object) -> tuple[str, ...]:
    """What is wrong with a row that is valid but for these fields."""
    return problems({**ROW, **fields})


def test_fields_are_the_names_of_the_contract() -> None:
    """A row may use these twelve names."""
    expected = (
        "customer_id device_id platform push_id model app_version os_version moe_push_opted moe_push_provisional_opted "
        "moe_gaid idfv forwarded_for"
    )
    assert expected.split() == list(FIELDS)


def test_fold_keeps_a_whole_row_as_the_api_wants_it() -> None:
    """All fields of an Android device arrive in MoEngage's own shape, and nothing else does."""
    row = ROW | {
        "platform": "android",
        "model": "Pixel 9",
        "app_version": "1.10",
        "os_version": "16",
        "moe_push_opted": "yes",
        "moe_push_provisional_opted": "0",
        "moe_gaid": GAID,
        "favourite_colour": {"not": "ours"},
    }
    expected = {
        "type": "device",
        "customer_id": "u-1",
        "device_id": "d-1",
        "attributes": {
            "platform": "ANDROID",
            "push_id": FCM,
            "model": "Pixel 9",
            "app_version": "1.10",
            "os_version": "16",
            "moe_push_opted": "True",
            "moe_push_provisional_opted": "False",
            "moe_gaid": GAID,
        },
    }
    folded = fold(row)
    assert isinstance(folded, Device)
    assert expected == folded.payload()
    assert problems(row) == ()


def test_fold_names_every_problem_of_a_row_at_once() -> None:
    """Somebody who corrects a file wants all of a row's reasons, with field and value, in one go."""
    row = {"customer_id": "guest", "platform": "Symbian", "push_id": "N/A", "moe_push_opted": "maybe", "type": "event"}
    expected = (
        "type 'event' is no device: leave it out, or write 'device'",
        "customer_id 'guest' is on MoEngage's list of values that are no customer id",
        "device_id is missing",
        "platform 'Symbian' is unknown: write ANDROID, iOS, web, TV",
        "push_id 'N/A' is a placeholder, not a push token: sent, it would delete other devices",
        "moe_push_opted 'maybe' is neither true nor false",
    )
    problem = fold(row)
    assert isinstance(problem, Problem)
    assert expected == problem.reasons
    assert "; ".join(expected) == problem.reason
    assert (problem.customer_id, problem.device_id) == ("guest", None)


@pytest.mark.parametrize("name", ["customer_id", "device_id", "platform", "push_id"])
@pytest.mark.parametrize(("value", "said"), [(None, "is missing"), ("", "'' is empty"), (" \u3000", "is empty")])
def test_fold_misses_a_required_field(name: str, value: object, said: str) -> None:
    """Nothing, in any of its spellings, is no value."""
    (reason,) = reasons(**{name: value})
    assert reason.startswith(f"{name} ")
    assert reason.endswith(said)


@pytest.mark.parametrize("name", [name for name in FIELDS if name not in ROW])
@pytest.mark.parametrize("value", [None, "", " ", "\t\u2003\n"])
def test_fold_leaves_nothing_out(name: str, value: object) -> None:
    """An empty cell says nothing about an optional attribute."""
    assert device() == device(**{name: value})


# --- text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model", "app_version", "os_version"])
@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("1.10", "1.10"),
        (" Galaxy S9\u00a0", " Galaxy S9\u00a0"),
        ("Gerät 電話", "Gerät 電話"),
        ("a\x00\x1bb", "a\x00\x1bb"),
        ("x" * 1001, "x" * 1001),
        ("NA", "NA"),
        ("12345.0", "12345.0"),
        (0, "0"),
        (12, "12"),
        (-(2**63), "-9223372036854775808"),
        (2**64 - 1, "18446744073709551615"),
    ],
)
def test_text_stays_text(name: str, value: object, text: str) -> None:
    """Other attributes are sent as they are; whole numbers of 64 bits keep their digits."""
    assert text == sent(name, **{name: value})


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize(
    ("value", "said"),
    [
        (1.1, "1.1 is a JSON number that loses its spelling: quote it"),
        (Number("1.10"), "1.10 is a JSON number that loses its spelling: quote it"),
        (Number("1e400"), "1e400 is a JSON number that loses its spelling: quote it"),
        (Number("18446744073709551617"), "18446744073709551617 is a JSON number that loses its spelling: quote it"),
        (float("nan"), "nan is no text: use null"),
        (float("inf"), "inf is no text: use null"),
        (2**64, "18446744073709551616 is a JSON number of more than 64 bits: quote it"),
        (-(2**63) - 1, "-9223372036854775809 is a JSON number of more than 64 bits: quote it"),
        pytest.param(10**5000, "(int) is a JSON number of more than 64 bits: quote it", id="huge"),
        ([Number("1.10")], "[1.10] is no text but list: give one value"),
        ([], "[] is no text but list: give one value"),
        ({"a": 1}, "{'a': 1} is no text but dict: give one value"),
        (b"tok", "b'tok' is no text but bytes: give one value"),
        (Decimal("1.10"), "Decimal('1.10') is no text but Decimal: give one value"),
        pytest.param([10**5000], "(list) is no text but list: give one value", id="huge in a list"),
        ("\ud83d", "'\\ud83d' holds half a character (a lone surrogate), which no JSON can carry"),
    ],
)
def test_what_is_no_text_is_invalid_and_says_why(name: str, value: object, said: str) -> None:
    """A value that would have to be guessed at is refused in both modes, and the reason can be written down."""
    row = ROW | {"platform": "iOS" if name == "idfv" else "ANDROID"} | {name: value}
    for validate in ("strict", "basic"):
        assert (f"{name} {said}",) == problems(row, "basic" if validate == "basic" else "strict")


@pytest.mark.parametrize("name", [name for name in FIELDS if not name.startswith(("moe_push", "idfv"))])
@pytest.mark.parametrize("value", [True, False])
def test_boolean_is_no_text(name: str, value: object) -> None:
    """A boolean is a boolean only where MoEngage asks for one."""
    assert (f"{name} {value} is a JSON boolean, no text: quote it",) == reasons(**{name: value})


def test_long_value_is_cut_in_its_reason() -> None:
    """A reason is a line for people, whatever stands in the row."""
    (reason,) = reasons(platform="\x00" * 5000)
    assert len(reason) < 150
    (reason,) = reasons(platform="p" * 5000)
    assert f"platform '{'p' * 79}… is unknown" == reason.partition(":")[0]
    (reason,) = reasons(model=[["deep" * 50] * 9] * 9)
    assert len(reason) < 150


class Column:
    """A value that answers comparisons as numpy's arrays do."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("the truth value of an array is ambiguous")

    def __hash__(self) -> int:
        raise TypeError("unhashable")

    def __repr__(self) -> str:
        return "Column()"


@pytest.mark.parametrize("name", FIELDS)
def test_value_that_cannot_be_compared_is_invalid(name: str) -> None:
    """Rows of a library's user may hold anything."""
    row = ROW | {"platform": "iOS" if name == "idfv" else "ANDROID"} | {name: Column()}
    assert problems(row) == (f"{name} Column() is no text but Column: give one value",)


# --- ids -------------------------------------------------------------------------------------------------------------

FORBIDDEN = (
    "unknown guest null 0 1 true false user_attribute_unique_id (empty) na n/a dummy_seller_code user_id id "
    "customer_id uid userid none -2 -1 2"
)


@pytest.mark.parametrize("value", FORBIDDEN.split())
def test_customer_id_is_none_of_the_forbidden(value: str) -> None:
    """MoEngage's list is compared without case and surrounding space."""
    for spelling in (value, value.upper(), f" {value.title()}\n", f"\u00a0{value}"):
        (reason,) = reasons(customer_id=spelling)
        assert "is on MoEngage's list" in reason


def test_customer_id_is_compared_as_unicode_folds_it() -> None:
    """A long s is an s."""
    assert reasons(customer_id="u\u017fer_id") == (
        "customer_id 'u\u017fer_id' is on MoEngage's list of values that are no customer id",
    )


def test_customer_id_has_more_than_one_character() -> None:
    """A single character is refused, two are enough, and a number counts as its digits."""
    assert reasons(customer_id="x") == ("customer_id 'x' is too short: MoEngage asks for more than one character",)
    assert reasons(customer_id=7) == ("customer_id 7 is too short: MoEngage asks for more than one character",)
    assert reasons(customer_id=0) == ("customer_id 0 is on MoEngage's list of values that are no customer id",)
    assert device(customer_id="xy").customer_id == "xy"
    assert device(customer_id=12345678901234567890).customer_id == "12345678901234567890"


def test_ids_lose_the_white_space_around_them() -> None:
    """White space at the ends of an id is a spreadsheet's, white space within is the id's."""
    folded = device(customer_id=" u 1\r\n", device_id="\td-1 ", push_id=f" {FCM}\n", platform=" iOS\t", idfv=f"{GAID} ")
    assert (folded.customer_id, folded.device_id) == ("u 1", "d-1")
    assert folded.attributes == {"platform": "iOS", "push_id": FCM, "idfv": GAID}


@pytest.mark.parametrize("name", ["customer_id", "device_id", "push_id", "moe_gaid"])
def test_each_id_loses_its_spaces(name: str) -> None:
    """One space in an otherwise common row is enough to need a closer look."""
    assert device(**{name: GAID}) == device(**{name: f"{GAID} "}) == device(**{name: f" {GAID}"})


@pytest.mark.parametrize("name", ["customer_id", "device_id", "push_id", "moe_gaid"])
@pytest.mark.parametrize("control", ["\x00", "\x1b", "\n", "\x7f", "\x85"])
def test_control_character_in_an_id_is_invalid(name: str, control: str) -> None:
    """No id has a control character inside; basic sends it, because JSON can."""
    (reason,) = reasons(**{name: f"ab{control}cd-z"})
    assert reason.startswith(f"{name} 'ab")
    assert reason.endswith("' holds a control character")
    assert problems({**ROW, name: f"ab{control}cd-z"}, "basic") == ()


def test_problem_carries_the_ids_that_could_be_read() -> None:
    """A result line names the row by its ids, in a form that can be written."""
    problem = fold({"customer_id": 42, "device_id": " d\ud800" + "x" * 600})
    assert isinstance(problem, Problem)
    assert (problem.customer_id, problem.device_id) == ("42", "d\\ud800" + "x" * 505)
    problem = fold({"customer_id": 1.5, "device_id": " "})
    assert isinstance(problem, Problem)
    assert (problem.customer_id, problem.device_id) == (None, None)


@pytest.mark.parametrize(
    ("fields", "keys"),
    [
        ({"platform": "x"}, [("device", "u-1", "d-1"), ("push_id", "aabb"), ("moe_gaid", GAID), ("idfv", "v-1")]),
        ({"customer_id": "guest"}, [("push_id", "aabb"), ("moe_gaid", GAID)]),
        ({"device_id": "d\x00"}, [("push_id", "aabb"), ("moe_gaid", GAID)]),
        ({"push_id": "na"}, [("device", "u-1", "d-1"), ("moe_gaid", GAID)]),
        ({"moe_gaid": 1.5}, [("device", "u-1", "d-1"), ("push_id", "aabb")]),
        ({"model": []}, [("device", "u-1", "d-1"), ("push_id", "aabb"), ("moe_gaid", GAID)]),
        ({"customer_id": None, "push_id": None, "moe_gaid": None}, []),
    ],
)
def test_problem_tells_the_keys_that_nothing_is_wrong_with(
    fields: dict[str, object], keys: list[tuple[str, ...]]
) -> None:
    """The device only where both ids are fine, each token where it is."""
    problem = fold({**ROW, "push_id": "AABB", "moe_gaid": GAID.upper(), "idfv": "v-1", **fields})
    assert isinstance(problem, Problem)
    assert keys == list(problem.keys)


# --- platform, flags, type -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spelling", "values"),
    [
        ("ANDROID", "android|ANDROID|Android| aNDROID |Android OS"),
        ("iOS", "ios|iOS|IOS|Ios|iPadOS|IPADOS|iphone os|iPhone|iPad|iphone_os"),
        ("web", "web|WEB|Web|web-push|Web Push|browser"),
        ("TV", "tv|TV|Tv|smart_tv|Smart TV"),
    ],
)
def test_platform_is_folded_to_the_exact_spelling(spelling: str, values: str) -> None:
    """MoEngage documents four spellings; everybody writes others."""
    assert {spelling} == {sent("platform", platform=value) for value in values.split("|")}


@pytest.mark.parametrize("value", ["Windows", "1", 1, "a", "an droid!x", "-", "macOS", "NA"])
def test_unknown_platform_is_invalid_and_says_what_to_write(value: object) -> None:
    """What cannot be told is not guessed."""
    assert (f"platform {value!r} is unknown: write ANDROID, iOS, web, TV",) == reasons(platform=value)


@pytest.mark.parametrize("name", ["moe_push_opted", "moe_push_provisional_opted"])
@pytest.mark.parametrize(
    ("expected", "values"),
    [
        ("True", ["true", "True", "TRUE", "tRuE", "1", "t", "T", "yes", "Y", "on", " ON ", True, 1]),
        ("False", ["false", "False", "FALSE", "0", "f", "F", "no", "N", "off", "Off\n", False, 0]),
    ],
)
def test_flags_become_the_strings_that_the_api_wants(name: str, expected: str, values: list[object]) -> None:
    """`True` and `False` are texts at MoEngage, whatever they were before."""
    assert {expected} == {sent(name, **{name: value}) for value in values}


@pytest.mark.parametrize("value", ["maybe", "2", 2, -1, "tr ue", "null", "1.0"])
def test_flag_that_is_neither_is_invalid(value: object) -> None:
    """A flag that cannot be read must not decide whether somebody gets messages."""
    assert (f"moe_push_opted {value!r} is neither true nor false",) == reasons(moe_push_opted=value)


@pytest.mark.parametrize("value", ["device", "Device", " DEVICE ", None, "", " "])
def test_type_may_say_device(value: object) -> None:
    """Rows in the API's own shape carry their type."""
    assert device() == device(type=value)


@pytest.mark.parametrize("value", ["event", "devices", 1])
def test_type_may_say_nothing_else(value: object) -> None:
    """A row that calls itself an event is none of ours."""
    assert (f"type {value!r} is no device: leave it out, or write 'device'",) == reasons(type=value)


# --- what a device does to others ------------------------------------------------------------------------------------

PLACEHOLDERS = (
    "NA|na|N/A|#N/A|null|NULL|(null)|<null>|\\N|none|None|nil|undefined|nan|NaN|0|-|--|—|000|0-0|[]|{}|()|<>|''|\"\""
    f"|{'0' * 64}|<{'0' * 8} {'0' * 8}>|{NO_ID}|not available|BLACKLISTED|{'null' + '-' * 40}|{'0-' * 30}| . |…"
).split("|")


@pytest.mark.parametrize("value", PLACEHOLDERS)
def test_placeholder_is_no_push_token(value: str) -> None:
    """A token that thousands share would delete all their devices but one: invalid, and in basic left out."""
    (reason,) = reasons(push_id=value)
    assert f"push_id {value!r} is a placeholder" == reason.partition(",")[0]
    assert sent("push_id", "basic", push_id=value) is None


@pytest.mark.parametrize("value", PLACEHOLDERS)
@pytest.mark.parametrize(("name", "platform"), [("moe_gaid", "ANDROID"), ("idfv", "iOS")])
def test_all_zero_advertising_id_is_left_out(name: str, platform: str, value: str) -> None:
    """The privacy default of every phone is the id of none."""
    for validate in ("strict", "basic"):
        assert sent(name, "basic" if validate == "basic" else "strict", platform=platform, **{name: value}) is None


@pytest.mark.parametrize(
    ("value", "token"),
    [
        (f"<{APNS}>", APNS),
        (f"<{' '.join(re.findall('.{8}', APNS))}>", APNS),
        ("ab 12\tcd", "ab12cd"),
        ("0000000000000000001", "0000000000000000001"),
        (FCM, FCM),
        (f"{FCM}-", f"{FCM}-"),
        ("t", "t"),
        ("<not hex>", "<not hex>"),
        ("ab>", "ab>"),
        ("two words", "two words"),
        ('{"endpoint":"https://push.example/1"}', '{"endpoint":"https://push.example/1"}'),
        (12, "12"),
    ],
)
def test_push_token_keeps_its_shape_but_for_the_brackets_of_a_hex_token(value: object, token: str) -> None:
    """No shape is enforced: an iOS app with Firebase has an FCM token."""
    for validate in ("strict", "basic"):
        assert token == sent("push_id", "basic" if validate == "basic" else "strict", push_id=value)


def test_advertising_id_travels_on_its_own_platform_only() -> None:
    """GAID is for Android, IDFV for iOS; elsewhere they are left out without a look, in basic too."""
    both: dict[str, object] = {"moe_gaid": GAID, "idfv": GAID.upper()}
    expected = {"ANDROID": {"moe_gaid"}, "iOS": {"idfv"}, "web": set(), "TV": set()}
    for validate in ("strict", "basic"):
        mode: Literal["strict", "basic"] = "basic" if validate == "basic" else "strict"
        found = {name: both.keys() & device(mode, platform=name, **both).attributes.keys() for name in expected}
        assert expected == found
    assert device(platform="web") == device(platform="web", moe_gaid=1.5, idfv=[])
    unknown = device("basic", platform="Symbian", **both)
    assert {"platform": "Symbian", "push_id": FCM} | both == unknown.attributes


def test_keys_name_everything_that_two_rows_may_share() -> None:
    """Rows for one device, one token or one advertising id belong in one lane each."""
    folded = device(moe_gaid=GAID.upper())
    assert folded.keys() == (("device", "u-1", "d-1"), ("push_id", FCM), ("moe_gaid", GAID))
    folded = device(platform="iOS", push_id=APNS.upper(), idfv=GAID.upper())
    assert (("device", "u-1", "d-1"), ("push_id", APNS.lower()), ("idfv", GAID)) == folded.keys()
    assert {"platform": "iOS", "push_id": APNS.upper(), "idfv": GAID.upper()} == folded.attributes
    assert Device("u", "D", {}).keys() == (("device", "u", "D"),)


# --- forwarded_for and size ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "header"),
    [
        ("203.0.113.9", "203.0.113.9"),
        (" 203.0.113.9,2001:DB8::0001\t", "203.0.113.9, 2001:db8::1"),
        ("", None),
        (None, None),
    ],
)
def test_forwarded_for_is_a_list_of_addresses(value: object, header: str | None) -> None:
    """The end user's address travels as a header, in its usual spelling."""
    folded = device(forwarded_for=value)
    assert header == folded.forwarded_for
    assert "forwarded_for" not in folded.attributes


@pytest.mark.parametrize(
    "value",
    [
        "localhost",
        "1.2.3.4\r\nX-Evil: 1",
        "1.2.3.4,",
        "1.2.3",
        "1.2.3.4:80",
        "\uff11.2.3.4",
        "fe80::1%\r\nX-Evil: 1",
        "fe80::1%eth0",
        ",".join(["1.2.3.4"] * 101),
        7,
    ],
)
def test_forwarded_for_smuggles_in_no_header(value: object) -> None:
    """Anything but addresses is invalid, in both modes."""
    for validate in ("strict", "basic"):
        (reason,) = problems({**ROW, "forwarded_for": value}, "basic" if validate == "basic" else "strict")
        assert reason.startswith("forwarded_for ")
        assert "\n" not in reason


@pytest.mark.parametrize("unit", ["x", "é", "電", "\x01", '"', "😀"])
def test_body_over_the_limit_is_invalid(unit: str) -> None:
    """The limit counts the bytes of the body as it is sent."""
    bytes_each = len(orjson.dumps(unit)) - 2
    room = MAX_BODY - len(orjson.dumps(device(model="m").payload())) + 1
    longest = unit * (room // bytes_each)
    assert longest == sent("model", model=longest)
    assert MAX_BODY - len(orjson.dumps(device(model=longest).payload())) < bytes_each
    for mode in ("strict", "basic"):
        (reason,) = problems({**ROW, "model": longest + unit}, "basic" if mode == "basic" else "strict")
        assert re.fullmatch(r"(?s)model .{1,90} has [\d,]+ characters: the body would be 128,0\d\d bytes, .*", reason)


def test_body_over_the_limit_names_the_longest_field() -> None:
    """It is rarely the model."""
    (reason,) = reasons(push_id="ab" * 64_000)
    assert re.fullmatch(r"push_id 'a.{1,90} has 128,000 characters: the body would be .*", reason)


# --- basic -----------------------------------------------------------------------------------------------------------


def test_basic_asks_for_the_two_ids_only() -> None:
    """Somebody who knows better than the documentation can send what the API may well refuse."""
    assert device_of_ids("guest", "0").attributes == {}
    assert device_of_ids("x", "d\x00").attributes == {}
    expected = ("customer_id is missing", "device_id ' ' is empty")
    assert expected == problems({"device_id": " "}, "basic")


def device_of_ids(customer_id: str, device_id: str) -> Device:
    """A device in basic that has nothing but its ids."""
    folded = fold({"customer_id": customer_id, "device_id": device_id}, "basic")
    assert isinstance(folded, Device)
    assert (customer_id, device_id) == (folded.customer_id, folded.device_id)
    return folded


def test_basic_folds_what_can_be_folded_and_sends_the_rest_as_given() -> None:
    """Folding still helps in basic; what cannot be folded is the API's to judge."""
    row = {"platform": "ipados", "moe_push_opted": "on", "moe_push_provisional_opted": " dunno ", "type": "event"}
    expected = {
        "platform": "iOS",
        "push_id": FCM,
        "moe_push_opted": "True",
        "moe_push_provisional_opted": " dunno ",
    }
    assert expected == device("basic", **row).attributes
    assert sent("platform", "basic", platform=" Symbian ") == "Symbian"


# --- always ----------------------------------------------------------------------------------------------------------

TEXT = st.one_of(
    st.text(max_size=30),
    st.text(string.printable, max_size=40),
    st.sampled_from([*PLACEHOLDERS, *FORBIDDEN.split(), FCM, APNS, GAID, NO_ID, "True", "off", "1.10", "device", " x"]),
    st.sampled_from(sorted(device_module._PLATFORMS_AS_GIVEN)),
    st.text("0-", min_size=10, max_size=40),
)
VALUE = st.one_of(
    TEXT, st.none(), st.booleans(), st.integers(), st.floats(), st.binary(max_size=9), st.lists(TEXT, max_size=2)
)
GOOD: dict[str, st.SearchStrategy[object]] = {
    "platform": st.sampled_from(["android", "iOS", "web"]),
    "push_id": st.sampled_from([FCM, APNS, "<ab 12>"]),
    "moe_gaid": st.sampled_from([GAID, NO_ID, None]),
    "moe_push_opted": st.sampled_from(["True", "no", "", None, True]),
}
ROWS = st.fixed_dictionaries(
    {},
    optional={name: GOOD.get(name, TEXT) | TEXT | VALUE for name in [*FIELDS, "type", "other"]},
)


@given(row=ROWS, near=st.booleans(), validate=st.sampled_from(["strict", "basic"]))
def test_any_row_is_a_device_that_can_be_sent_or_a_problem(
    row: dict[str, object],
    near: object,
    validate: Literal["strict", "basic"],
) -> None:
    """Whatever a row holds: no crash, a body within the limit or reasons that can be written down."""
    folded = fold(ROW | row if near else row, validate)
    if isinstance(folded, Device):
        assert len(orjson.dumps(folded.payload())) <= MAX_BODY
        assert all(type(text) is str and text.strip() for text in folded.attributes.values())
        # by their order, too, `--changed-only` knows a device again
        assert [name for name in FIELDS if name in folded.attributes] == list(folded.attributes)
        assert folded == fold(folded.payload() | folded.attributes, validate) or folded.forwarded_for
    else:
        assert folded.reasons
        assert orjson.dumps([folded.reasons, folded.customer_id, folded.device_id])


@given(row=ROWS, validate=st.sampled_from(["strict", "basic"]))
def test_the_short_way_and_the_long_way_come_to_the_same(
    row: dict[str, object], validate: Literal["strict", "basic"]
) -> None:
    """The fast path is an optimisation and nothing else."""
    row = ROW | row
    expected = device_module._Reading(row, strict=validate == "strict").device()
    assert expected == fold(row, validate)


def test_common_rows_take_the_short_way() -> None:
    """Rows as exports have them are folded without a closer look, iOS and Android, with empty cells."""
    for row in (
        ROW,
        ROW | {"platform": "ios", "push_id": APNS, "idfv": GAID.upper(), "model": "", "moe_push_opted": ""},
        ROW
        | {"platform": "Android", "moe_gaid": GAID, "model": "Gerät 9", "moe_push_opted": "true", "forwarded_for": ""},
        ROW | {"platform": "web", "moe_gaid": "", "os_version": None, "type": "device"},
    ):
        assert device_module._fold_common(row) == fold(row)
        assert device_module._fold_common(row) is not None
