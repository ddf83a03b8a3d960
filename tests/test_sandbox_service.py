"""What the sandbox decides about each request: rules, limit, faults, scripts and books, without a socket."""

from __future__ import annotations

import base64
import time
from typing import Any

import orjson
import pytest

from moe_bulk.sandbox import Faults, Limit, SandboxSettings, answers, control
from moe_bulk.sandbox.ledger import Exchange
from moe_bulk.sandbox.service import CONNECTION_TEST, Plan, Service

PATH = "/v1/device/SANDBOX"
HEADERS = {
    "Authorization": "Basic " + base64.b64encode(b"SANDBOX:k").decode(),
    "Content-Type": "application/json",
    "MOE-APPKEY": "SANDBOX",
}


def device(device_id: str = "d-1", **attributes: str) -> bytes:
    """Write the body of a good device."""
    merged = {"platform": "ANDROID", "push_id": f"token of {device_id}", **attributes}
    return orjson.dumps({"type": "device", "customer_id": "u-1", "device_id": device_id, "attributes": merged})


def service(**settings: Any) -> Service:
    """Set up a service with the key k."""
    return Service(SandboxSettings(**settings), "k")


def ask(
    asked: Service,
    now: float = 0.0,
    *,
    method: str = "POST",
    path: str = PATH,
    headers: dict[str, str] | None = None,
    body: bytes | None = b"",
) -> tuple[Exchange, Plan]:
    """Let one request arrive and be answered at one moment."""
    exchange = asked.arrive(now, 1, method, path)
    plan = asked.plan(exchange, HEADERS if headers is None else headers, device() if body == b"" else body)
    asked.finish(exchange, plan, now)
    return exchange, plan


def error_of(plan: Plan) -> dict[str, str]:
    """Read the error of a failure."""
    body = orjson.loads(plan.answer.body)
    assert body["status"] == "fail"
    error: dict[str, str] = body["error"]
    return error


def test_a_good_device_is_accepted_and_written_down() -> None:
    """A good request gets the success, its device is remembered, and the books show it."""
    asked = service()

    exchange, plan = ask(asked, 5.0)

    assert plan.answer is answers.SUCCESS
    assert asked.devices["u-1", "d-1"].attributes["push_id"] == "token of d-1"
    expected = Exchange(1, 5.0, 1, "POST", PATH, None, "u-1", "d-1", 200, None, None, over_limit=False, answered=5.0)
    assert expected == exchange
    assert [exchange] == list(asked.requests)


def test_a_refused_device_names_its_request() -> None:
    """A refusal carries type, message, field and a request id that can be found in the books."""
    asked = service()

    exchange, plan = ask(asked, body=device(platform="android"))

    assert plan.answer.status == 400
    error = error_of(plan)
    assert {"type": "ValueError", "attribute": "platform", "request_id": "SB000001"}.items() <= error.items()
    assert (exchange.status, exchange.error_type, exchange.request_id) == (400, "ValueError", "SB000001")
    assert len(asked.devices) == 0


@pytest.mark.parametrize(
    ("request_parts", "status", "error_type"),
    [
        ({"path": "/v1/device/OTHER"}, 404, "NotFound"),
        ({"path": "/v1/device/SANDBOX/"}, 404, "NotFound"),
        ({"path": "/"}, 404, "NotFound"),
        ({"method": "GET"}, 405, "MethodNotAllowed"),
        ({"method": "PUT", "path": CONNECTION_TEST}, 405, "MethodNotAllowed"),
        ({"headers": {}}, 401, "Authentication required"),
        ({"headers": {**HEADERS, "Authorization": "Basic bm86bm8="}}, 401, "Authentication required"),
        ({"headers": {**HEADERS, "Content-Type": "text/csv"}}, 415, "MediaTypeError"),
        ({"body": b"{"}, 400, "Malformed JSON"),
        ({"body": b"[]"}, 400, "TypeError"),
        ({"body": None}, 413, "PayloadTooLarge"),
        ({"body": device(model="x" * 128_000)}, 413, "PayloadTooLarge"),
        ({"path": CONNECTION_TEST, "body": b"{}"}, 400, "ParamsRequired"),
    ],
)
def test_every_kind_of_failure_has_its_status_and_type(
    request_parts: dict[str, Any], status: int, error_type: str
) -> None:
    """What the API refuses is refused with the documented status, in MoEngage's shape."""
    _, plan = ask(service(), **request_parts)

    assert (status, error_type) == (plan.answer.status, plan.answer.error_type)
    assert error_type == error_of(plan)["type"]


def test_a_body_of_exactly_the_limit_is_read() -> None:
    """128,000 bytes are allowed, one more is not."""
    room = 128_000 - len(device(model=""))

    statuses = [ask(service(), body=device(model="x" * size))[1].answer.status for size in (room, room + 1)]

    assert statuses == [200, 413]


def test_a_connection_test_tells_the_workspace_s_name() -> None:
    """Test connection succeeds with the right pair, and is no device."""
    asked = service()
    body = b'{"app_id":"SANDBOX","app_secret":"k","source":"test","region":"01"}'

    _, plan = ask(asked, path=CONNECTION_TEST, body=body)

    assert orjson.loads(plan.answer.body) == {"status": "success", "app_name": "Sandbox"}
    assert asked.stats.busiest.most == 0


def test_the_limit_refuses_what_exceeds_it_and_says_when_to_come_back() -> None:
    """The third request of a window of two is told to wait until the first has left it."""
    asked = service(limit=Limit(2, 60))

    plans = [ask(asked, now)[1] for now in (0.0, 10.0, 20.5, 59.9, 60.0, 60.1)]

    assert [plan.answer.status for plan in plans] == [200, 200, 429, 429, 200, 429]
    assert [plans[index].answer.headers[0] for index in (2, 3)] == [("Retry-After", "40"), ("Retry-After", "1")]
    assert error_of(plans[2])["type"] == "Rate Limits Exceeded"
    assert asked.stats.over_limit == 3
    assert [exchange.over_limit for exchange in asked.requests] == [False, False, True, True, False, True]
    assert (asked.stats.busiest.most, asked.stats.busiest.at) == (5, 10.0)


def test_the_limit_can_refuse_without_a_hint() -> None:
    """Retry-After is not documented, so it can be left out."""
    asked = service(limit=Limit(1), retry_after=False)
    ask(asked)

    _, plan = ask(asked)

    assert (plan.answer.status, plan.answer.headers) == (429, ())


def test_without_a_limit_nothing_is_refused() -> None:
    """The limit can be lifted; the busiest minute is measured all the same."""
    asked = service(limit=None, rate_headers="seconds")

    statuses = {ask(asked)[1].answer.status for _ in range(50)}

    assert {200} == statuses
    assert (asked.stats.busiest.most, asked.stats.busiest.per) == (50, 60.0)


@pytest.mark.parametrize(("form", "offset"), [("seconds", 0.0), ("epoch", 1.0)])
def test_rate_headers_tell_what_is_left(form: str, offset: float) -> None:
    """The reset comes as seconds left or as epoch seconds: the documentation has both."""
    asked = service(limit=Limit(5, 60), rate_headers=form)
    ask(asked, 100.0)

    _, plan = ask(asked, 110.0)

    headers = dict(plan.answer.headers)
    assert (headers["x-ratelimit-limit"], headers["x-ratelimit-remaining"]) == ("5", "3")
    assert 50 + offset * time.time() == pytest.approx(int(headers["x-ratelimit-reset"]), abs=2)


@pytest.mark.parametrize(
    ("step", "manner", "status", "applied"),
    [
        ("500", "whole", 500, 0),
        ("502", "whole", 502, 0),
        ("302", "whole", 302, 0),
        ("401", "whole", 401, 0),
        ("429", "whole", 429, 0),
        ("broken", "whole", 200, 0),
        ("nosuccess", "whole", 200, 0),
        ("slow", "whole", 200, 1),
        ("half", "half", 200, 1),
        ("reset", "reset", None, 0),
        ("reset-after", "reset", None, 1),
        ("200", "whole", 200, 1),
    ],
)
def test_each_step_of_a_script_has_its_effect(step: str, manner: str, status: int | None, applied: int) -> None:
    """A scripted request meets its fate, then all is normal; the books name the fault."""
    asked = service()
    asked.script("d-1", [step])

    exchange, plan = ask(asked)
    _, after = ask(asked)

    assert (manner, status) == (plan.manner, exchange.status)
    assert applied == asked.devices.applied - 1
    assert {step: 1} == dict(asked.stats.faults) or (step == "200" and exchange.fault is None)
    assert after.answer is answers.SUCCESS
    assert (status is None) == bool(asked.stats.unanswered)


def test_a_script_speaks_to_its_own_device_only() -> None:
    """Other devices and broken bodies do not use up the steps; several steps come in their order."""
    asked = service()
    asked.script("d-1", ["503", "429:2s"])

    bodies = [device("d-2"), b"{", device(), device(), device()]
    plans = [ask(asked, body=body)[1] for body in bodies]

    assert [plan.answer.status for plan in plans] == [200, 400, 503, 429, 200]
    assert plans[3].answer.headers == (("Retry-After", "2"),)


def test_a_script_that_is_refused_is_not_kept() -> None:
    """A slip in a script is told at once."""
    with pytest.raises(ValueError, match="did you mean reset"):
        service().script("d-1", ["rest"])


def test_faults_befall_requests_by_their_arrival_number() -> None:
    """The same seed gives the same answers again, delays included, and the books count them."""
    faults = Faults.parse("5xx=30%,429=20%,retry-after=3s,latency=1ms..9ms,seed=3")
    first, second = service(faults=faults), service(faults=faults)

    plans = [[ask(each)[1] for _ in range(50)] for each in (first, second)]

    assert plans[0] == plans[1]
    assert {200, 429} < {plan.answer.status for plan in plans[0]}
    assert {"5xx", "429"} == set(first.stats.faults)
    assert {(("Retry-After", "3"),)} == {plan.answer.headers for plan in plans[0] if plan.answer.status == 429}
    assert all(0.001 <= plan.delay <= 0.009 for plan in plans[0])


def test_faults_spare_the_connection_test_and_what_exceeds_the_limit() -> None:
    """Faults belong to devices, and a request beyond the limit gets its 429 with the usual delay."""
    asked = service(limit=Limit(1), faults=Faults.parse("500=100%,latency=2ms"))

    plans = [ask(asked)[1], ask(asked)[1], ask(asked, path="/elsewhere")[1]]

    assert [(plan.answer.status, plan.delay) for plan in plans] == [(500, 0.002), (429, 0.002), (404, 0.0)]
    assert dict(asked.stats.faults) == {"500": 1}


def test_a_hanging_request_is_in_service_until_its_client_leaves() -> None:
    """A request without an answer counts as received, and as unanswered in the end."""
    asked = service(faults=Faults.parse("hang=100%"))
    exchange = asked.arrive(1.0, 1, "POST", PATH)

    plan = asked.plan(exchange, HEADERS, device())
    waiting = asked.stats.in_service
    asked.leave(exchange, 9.0)

    assert plan.manner == "hang"
    assert (waiting, asked.stats.in_service, asked.stats.most_in_service) == (1, 0, 1)
    assert (asked.stats.unanswered, exchange.status, exchange.answered) == (1, None, 9.0)


def test_memory_of_requests_and_devices_is_bounded_by_settings() -> None:
    """The oldest requests are forgotten; for benchmarks nothing is kept at all."""
    some, none = service(keep=2), service(keep=0, keep_devices=False)
    for asked in (some, none):
        for index in range(3):
            ask(asked, body=device(f"d-{index}"))

    assert [exchange.device_id for exchange in some.requests] == ["d-1", "d-2"]
    assert (len(none.requests), len(none.devices), none.stats.by_status[200]) == (0, 0, 3)


@pytest.mark.parametrize("status", sorted(answers.FAULT_STATUSES))
def test_every_status_can_be_written(status: int) -> None:
    """Each answer is well-formed HTTP: its length is true, and half of it is shorter."""
    answer = answers.with_status(status, "SB1")

    head, _, body = answers.encode(answer, keep_alive=False).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"\r\nContent-Length: %d\r\n" % len(body) in head
    assert head.endswith(b"Connection: close")
    assert (b"Location: " in head) == (300 <= status < 400)


def test_half_an_answer_breaks_off_in_its_body() -> None:
    """The head is whole and promises more than comes."""
    whole = answers.encode(answers.SUCCESS)

    half = answers.encode_half(answers.SUCCESS)

    assert whole.startswith(half)
    assert 0 < len(half.partition(b"\r\n\r\n")[2]) < len(answers.SUCCESS.body)


def test_retry_after_is_at_least_a_second() -> None:
    """Whole seconds, rounded up: coming back earlier would be in vain."""
    headers = [answers.too_many("SB1", wait).headers for wait in (0.0, 1.0, 1.1, None)]

    assert headers == [(("Retry-After", "1"),), (("Retry-After", "1"),), (("Retry-After", "2"),), ()]


def test_control_endpoints_tell_what_happened() -> None:
    """An outside process can ask for numbers, devices and requests."""
    asked = service()
    for each in ("d-1", "d-2"):
        ask(asked, 3.0, body=device(each))
    ask(asked, 4.0, path="/")

    def get(path: str, **query: str) -> Any:
        return orjson.loads(control.answer(asked, control.PREFIX + path, query, 5.0).body)

    stats = get("stats")
    expected = {"requests": 3, "by_status": {"200": 2, "404": 1}, "devices": 2, "applied": 2, "deleted": 0}
    assert expected.items() <= stats.items()
    assert {"count": 2, "at": 3.0, "per": 60.0} == stats["busiest"] == {**stats["busiest_in_service"], "at": 3.0}
    assert stats["clock"]["now"] == 5.0
    assert [each["device_id"] for each in get("devices")] == ["d-1", "d-2"]
    assert [each["device_id"] for each in get("devices", device_id="d-2", customer_id="u-1")] == ["d-2"]
    assert get("devices", customer_id="u-9") == []
    assert (
        [1, 2, 3]
        == [each["number"] for each in get("requests")]
        == [each["number"] for each in get("requests", after="x")]
    )
    assert [each["request_id"] for each in get("requests", after="2")] == ["SB000003"]
    assert get("else")["status"] == "fail"
