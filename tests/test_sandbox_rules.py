"""The sandbox's reading of the Track Device API, field by field."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk.sandbox import rules
from moe_bulk.sandbox.rules import Record, Refusal

GOOD: dict[str, Any] = {
    "type": "device",
    "customer_id": "u-1",
    "device_id": "d-1",
    "attributes": {"platform": "ANDROID", "push_id": "tok"},
}
MISSING = object()


def basic(user: str, password: str) -> str:
    """Write an Authorization header."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def changed(field: str, value: object) -> dict[str, object]:
    """Give a good body with one field or attribute replaced, or taken out."""
    body = {**GOOD, "attributes": dict(GOOD["attributes"])}
    fields = body if field in GOOD else body["attributes"]
    fields[field] = value
    if value is MISSING:
        del fields[field]
    return body


def test_a_device_with_all_its_attributes_is_accepted() -> None:
    """What the documentation shows is accepted, and nothing is lost."""
    attributes = {
        "platform": "iOS",
        "push_id": "tok",
        "model": "iPhone 16",
        "app_version": "1.10",
        "os_version": "18",
        "moe_push_opted": "True",
        "moe_push_provisional_opted": "False",
        "moe_gaid": "",
        "idfv": "idfv-1",
    }
    body: dict[str, object] = {**GOOD, "attributes": attributes}

    assert Record("u-1", "d-1", attributes, body) == rules.judge_device(body)


def test_unknown_attributes_are_dropped_silently() -> None:
    """MoEngage keeps only the attributes it knows; the body shows what was sent."""
    body = changed("favourite_colour", "teal")

    verdict = rules.judge_device(body)

    assert Record("u-1", "d-1", {"platform": "ANDROID", "push_id": "tok"}, body) == verdict


@pytest.mark.parametrize("platform", sorted(rules.PLATFORMS))
def test_every_platform_is_accepted_in_its_own_spelling(platform: str) -> None:
    """ANDROID, iOS, web and TV are platforms."""
    assert isinstance(rules.judge_device(changed("platform", platform)), Record)


@pytest.mark.parametrize(
    ("field", "value", "error_type"),
    [
        *[
            (field, MISSING, "MissingAttributeError")
            for field in ("type", "customer_id", "device_id", "attributes", "platform", "push_id")
        ],
        *[(field, "", "MissingAttributeError") for field in ("customer_id", "device_id", "platform", "push_id")],
        ("customer_id", "  ", "MissingAttributeError"),
        *[
            (field, 7, "TypeError")
            for field in (
                "type",
                "customer_id",
                "device_id",
                "attributes",
                "platform",
                "push_id",
                *rules.ATTRIBUTES[2:],
            )
        ],
        *[(field, None, "TypeError") for field in ("type", "customer_id", "device_id", "platform", "push_id", "model")],
        ("attributes", [], "TypeError"),
        ("moe_push_opted", True, "TypeError"),
        ("type", "Device", "ValueError"),
        ("type", "customer", "ValueError"),
        ("customer_id", "x", "ValueError"),
        *[("platform", platform, "ValueError") for platform in ("android", "IOS", "Web", "iPadOS", " iOS")],
        *[
            (field, value, "ValueError")
            for field in ("moe_push_opted", "moe_push_provisional_opted")
            for value in ("true", "1", "yes", "")
        ],
    ],
)
def test_a_fault_is_named_by_type_and_field(field: str, value: object, error_type: str) -> None:
    """A wrong device gets 400, MoEngage's type of error, and the field to blame."""
    verdict = rules.judge_device(changed(field, value))

    assert isinstance(verdict, Refusal)
    assert (400, error_type, field) == (verdict.status, verdict.type, verdict.attribute)
    assert field in verdict.message


def test_attributes_of_null_are_missing() -> None:
    """Without attributes there is no device to speak of."""
    verdict = rules.judge_device(changed("attributes", None))

    assert isinstance(verdict, Refusal)
    assert verdict.type == "MissingAttributeError"


@pytest.mark.parametrize("customer_id", sorted(rules.FORBIDDEN_CUSTOMER_IDS))
def test_forbidden_customer_ids_are_refused_in_any_spelling(customer_id: str) -> None:
    """No disguise by case or space makes a placeholder a user."""
    for spelling in (customer_id, customer_id.upper(), f" {customer_id} "):
        verdict = rules.judge_device(changed("customer_id", spelling))

        assert isinstance(verdict, Refusal), spelling
        assert (verdict.status, verdict.type, verdict.attribute) == (400, "ValueError", "customer_id")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
near_devices = st.fixed_dictionaries(
    {},
    optional={
        "type": st.just("device") | json_values,
        "customer_id": st.just("u-1") | json_values,
        "device_id": st.just("d-1") | json_values,
        "attributes": json_values
        | st.dictionaries(
            st.sampled_from(rules.ATTRIBUTES) | st.text(), json_values | st.sampled_from(["ANDROID", "True"])
        ),
    },
)


@given(near_devices)
def test_any_object_is_judged(body: dict[str, object]) -> None:
    """Whatever JSON comes, there is a verdict, and what is accepted holds texts only."""
    verdict = rules.judge_device(body)

    if isinstance(verdict, Record):
        assert all(isinstance(value, str) for value in verdict.attributes.values())
    else:
        assert verdict.status == 400


@given(st.binary(max_size=50))
def test_any_bytes_are_an_object_or_a_refusal(body: bytes) -> None:
    """What is no JSON object is refused with 400, never a crash."""
    parsed = rules.parse_object(body)

    assert isinstance(parsed, dict) or parsed.status == 400


@pytest.mark.parametrize(
    ("body", "error_type"),
    [(b"", "Malformed JSON"), (b"{", "Malformed JSON"), (b'{"a":"\xff"}', "Malformed JSON"), (b"[]", "TypeError")],
)
def test_a_body_that_is_no_json_object_is_refused(body: bytes, error_type: str) -> None:
    """Broken JSON and JSON of another shape are told apart."""
    parsed = rules.parse_object(body)

    assert isinstance(parsed, Refusal)
    assert error_type == parsed.type


def test_parse_object_reads_an_object() -> None:
    """A JSON object is given as it is."""
    assert rules.parse_object(b'{"a":1}') == {"a": 1}


@pytest.mark.parametrize(
    ("authorization", "matches"),
    [
        (basic("SANDBOX", "k"), True),
        (basic("SANDBOX", "k").replace("Basic", "basic"), True),
        (basic("SANDBOX", "K"), False),
        (basic("sandbox", "k"), False),
        (basic("", ""), False),
        ("Bearer k", False),
        ("Basic", False),
        ("Basic %%%", False),
        ("Basic ü", False),
        ("", False),
    ],
)
def test_credentials_match_only_as_basic_and_in_full(authorization: str, matches: bool) -> None:  # noqa: FBT001 - a table's column
    """The workspace id and its key open the door; nothing near them does."""
    assert matches == rules.credentials_match(authorization, "SANDBOX", "k")


@pytest.mark.parametrize(
    ("headers", "refusal"),
    [
        ({"Authorization": basic("SANDBOX", "k"), "Content-Type": "application/json"}, None),
        ({"Authorization": basic("SANDBOX", "k"), "Content-Type": "Application/JSON; charset=utf-8"}, None),
        ({"Content-Type": "application/json"}, rules.NO_CREDENTIALS),
        ({"Authorization": basic("SANDBOX", "x"), "Content-Type": "application/json"}, rules.WRONG_KEY),
        ({"Authorization": basic("SANDBOX", "k"), "Content-Type": "text/plain"}, rules.UNSUPPORTED),
        ({"Authorization": basic("SANDBOX", "k")}, rules.UNSUPPORTED),
    ],
)
def test_the_envelope_is_judged_before_the_body(headers: dict[str, str], refusal: Refusal | None) -> None:
    """Key first, then format."""
    assert refusal == rules.judge_envelope(headers, "SANDBOX", "k")


CONNECTION_HEADERS = {
    "Authorization": basic("SANDBOX", "k"),
    "Content-Type": "application/json",
    "MOE-APPKEY": "SANDBOX",
}
CONNECTION_BODY = b'{"app_id":"SANDBOX","app_secret":"k","source":"test","region":"01"}'


@pytest.mark.parametrize(
    ("header", "body", "status"),
    [
        ({}, CONNECTION_BODY, None),
        ({"Authorization": basic("SANDBOX", "x")}, CONNECTION_BODY, 401),
        ({"MOE-APPKEY": "OTHER"}, CONNECTION_BODY, 401),
        ({}, CONNECTION_BODY.replace(b'"k"', b'"x"'), 401),
        ({}, CONNECTION_BODY.replace(b'"SANDBOX"', b'"OTHER"'), 401),
        ({}, CONNECTION_BODY.replace(b"region", b"regime"), 400),
        ({}, b"no json", 400),
        ({}, None, 413),
    ],
)
def test_a_connection_test_answers_for_the_whole_pair(
    header: dict[str, str], body: bytes | None, status: int | None
) -> None:
    """Test connection accepts the right pair in header and body, and names what is wrong otherwise."""
    refusal = rules.judge_connection_test({**CONNECTION_HEADERS, **header}, body, "SANDBOX", "k")

    assert status == (refusal and refusal.status)
