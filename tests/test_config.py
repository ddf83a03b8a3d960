"""The small values that everything else is made of: what they take, what they refuse, and what they never show."""

from __future__ import annotations

import copy
import dataclasses
import ipaddress
import math
import pickle
import resource
import socket
import traceback
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk.config import (
    DATA_CENTERS,
    Credentials,
    FailureLimit,
    Network,
    Rate,
    Retry,
    Secret,
    check_base_url,
    data_center_host,
    parse_duration,
)
from moe_bulk.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

KEY = "s3cr3t-Key-of-the-tests"
NOT_NUMBERS: tuple[Any, ...] = (math.nan, math.inf, -1, "60", None, True)


def _refusal(make: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as refused:
        make()
    return str(refused.value)


# --- durations -------------------------------------------------------------------------------------------------------

DURATIONS = [
    ("30s", 30.0),
    ("30", 30.0),
    (" 1.5 h ", 5400.0),
    ("30min", 1800.0),
    ("2m", 120.0),
    ("250ms", 0.25),
    ("10 SEC", 10.0),
    ("1d", 86400.0),
]


@pytest.mark.parametrize(("text", "seconds"), DURATIONS)
def test_durations(text: str, seconds: float) -> None:
    """A duration is a number with a unit, or plain seconds."""
    assert seconds == parse_duration(text)


@pytest.mark.parametrize("text", ["", "0s", "0", "-1s", "1 week", "s", "1e3s", "nan", "inf", "1h30m", "9" * 400, "٣s"])
def test_what_is_no_duration(text: str) -> None:
    """Anything else is refused with examples of what to type."""
    assert f"{text!r} is no duration: write it like 30s, 30min or 2h" == _refusal(lambda: parse_duration(text))


@given(st.floats(min_value=0.001, max_value=1e12))
def test_a_number_of_seconds_means_itself(seconds: float) -> None:
    """What is printed in seconds is read back as the same number."""
    text = f"{seconds:f}"
    assert float(text) == parse_duration(text) == parse_duration(f"{text}s")


# --- rates -----------------------------------------------------------------------------------------------------------

RATES = [
    ("10000/min", Rate(10_000, 60)),
    ("10,000 / min", Rate(10_000, 60)),
    ("10_000/m", Rate(10_000, 60)),
    ("167/s", Rate(167, 1)),
    ("1000/6s", Rate(1000, 6)),
    ("5/0.5s", Rate(5, 0.5)),
    ("600000/h", Rate(600_000, 3600)),
    ("20000/2min", Rate(20_000, 120)),
]


@pytest.mark.parametrize(("text", "rate"), RATES)
def test_rates(text: str, rate: Rate) -> None:
    """A rate is a count and a window."""
    assert rate == Rate.parse(text)


@pytest.mark.parametrize(
    "text", ["", "10000", "10000/", "/min", "-5/s", "1.5/s", "1e4/min", "fast", "9" * 5000 + "/s", "10000/week", "٣/s"]
)
def test_what_is_no_rate(text: str) -> None:
    """Anything else is refused with examples of what to type."""
    assert f"{text!r} is no rate: write it like 10000/min, 167/s or 1000/6s" == _refusal(lambda: Rate.parse(text))


@pytest.mark.parametrize("limit", [*NOT_NUMBERS, 0, 1.5, 10**9 + 1])
def test_a_limit_is_a_number_of_requests(limit: Any) -> None:
    """Nothing, half a request and more than anybody counts are no limits."""
    expected = f"a rate's limit is a whole number of requests, 1 to 1,000,000,000; got {limit!r}"
    assert expected == _refusal(lambda: Rate(limit))


@pytest.mark.parametrize("per", [*NOT_NUMBERS, 0, 0.001, 86_401])
def test_a_window_has_a_length(per: Any) -> None:
    """A window is between a hundredth of a second and a day."""
    assert f"a rate's window is 0.01 to 86400 seconds long; got {per!r}" == _refusal(lambda: Rate(100, per))
    assert "a rate's window is 0.01" in _refusal(lambda: Rate.parse("100/0s"))


def test_a_rate_per_second() -> None:
    """The average pace of a rate."""
    assert 200.0 == Rate(12_000, per=60).per_second
    assert Rate(10_000, 60.0) == Rate()


@pytest.mark.parametrize(
    ("rate", "text"),
    [
        (Rate(), "10000/min"),
        (Rate(5, 1), "5/s"),
        (Rate(5, 3600), "5/h"),
        (Rate(5, 6), "5/6s"),
        (Rate(5, 0.5), "5/0.5s"),
    ],
)
def test_a_rate_as_text(rate: Rate, text: str) -> None:
    """A rate is shown as people write it."""
    assert text == str(rate)


@given(st.integers(1, 10**9), st.floats(0.01, 86_400) | st.integers(1, 86_400))
def test_a_rate_that_is_shown_can_be_read(limit: int, per: float) -> None:
    """The text of every rate is the rate."""
    assert Rate(limit, per) == Rate.parse(str(Rate(limit, per)))


# --- patience --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tries", [0, -1, 1.5, True, "8"])
def test_a_record_is_tried(tries: Any) -> None:
    """At least once, and a whole number of times."""
    assert f"a record needs at least one try, a whole number; got tries={tries!r}" == _refusal(lambda: Retry(tries))


@pytest.mark.parametrize("free", [-1, 1.5, None])
def test_free_tries_are_counted(free: Any) -> None:
    """There may be none of them."""
    assert 0 == Retry(free_tries=0).free_tries
    assert "the free tries are a whole number, 0 or more" in _refusal(lambda: Retry(free_tries=free))


@pytest.mark.parametrize(("first", "longest"), [(0, 1), (2, 1), (-1, 1), (math.nan, 1), (1, math.nan), (1, math.inf)])
def test_waits_grow(first: float, longest: float) -> None:
    """The first wait is no longer than the longest."""
    assert 1 == Retry(first_wait=1, longest_wait=1).first_wait
    said = _refusal(lambda: Retry(first_wait=first, longest_wait=longest))
    assert f"the first is not above the longest; got first_wait={first!r}, longest_wait={longest!r}" in said


@pytest.mark.parametrize("limit", [*NOT_NUMBERS, 0])
def test_an_outage_has_a_limit(limit: Any) -> None:
    """Nothing is waited for for ever."""
    said = _refusal(lambda: Retry(outage_limit=limit))
    assert f"the outage limit is a number of seconds above 0; got {limit!r}" == said


# --- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("100", FailureLimit(count=100)),
        ("0", FailureLimit(count=0)),
        (" 5 % ", FailureLimit(share=0.05)),
        ("0.5%", FailureLimit(share=0.005)),
        ("100%", FailureLimit(share=1.0)),
        ("7%", FailureLimit(share=0.07)),
    ],
)
def test_limits_of_failures(text: str, limit: FailureLimit) -> None:
    """A number of rows, or a share of them."""
    assert limit == FailureLimit.parse(text)


@pytest.mark.parametrize("text", ["", "1.5", "-1", "101%", "%", "five", "1e2", "9" * 5000])
def test_what_is_no_limit_of_failures(text: str) -> None:
    """Anything else is refused with examples of what to type."""
    said = _refusal(lambda: FailureLimit.parse(text))
    assert f"{text!r} is no limit of failures: write it like 100 or 5%" == said


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "is a count or a share: FailureLimit(count=100), or share=0.05"),
        ({"count": 1, "share": 0.5}, "is a count or a share: FailureLimit(count=100), or share=0.05"),
        ({"count": -1}, "is a whole number, 0 or more; got -1"),
        ({"count": 0.5}, "is a whole number, 0 or more; got 0.5"),
        ({"share": 5}, "is 0 to 1, 0.05 for 5%; got 5"),
        ({"share": -0.1}, "is 0 to 1, 0.05 for 5%; got -0.1"),
        ({"share": math.nan}, "is 0 to 1, 0.05 for 5%; got nan"),
    ],
)
def test_a_limit_of_failures_is_one_of_the_two(values: dict[str, Any], said: str) -> None:
    """What is neither a count nor a share says how to write one."""
    assert said in _refusal(lambda: FailureLimit(**values))


@pytest.mark.parametrize(
    ("text", "failed", "settled", "reached"),
    [
        ("2", 2, 2, False),
        ("2", 3, 3, True),
        ("0", 1, 1, True),
        ("5%", 999, 999, False),
        ("5%", 50, 1000, False),
        ("5%", 51, 1000, True),
        ("0%", 1, 1000, True),
        ("100%", 1000, 1000, False),
    ],
)
def test_when_there_are_too_many(text: str, failed: int, settled: int, reached: bool) -> None:  # noqa: FBT001  a table's column
    """More than the limit is too many; a share counts once a thousand rows are settled."""
    assert reached is FailureLimit.parse(text).reached(failed, settled)


@given(
    st.integers(0, 10**15 - 1).map(lambda count: FailureLimit(count=count))
    | st.floats(0, 1).map(lambda share: FailureLimit(share=share))
)
def test_a_limit_of_failures_that_is_shown_can_be_read(limit: FailureLimit) -> None:
    """The text of every limit is the limit, and 7% is 7%."""
    assert limit == FailureLimit.parse(str(limit))
    assert ["7%", "0.5%", "100%", "0%"] == [str(FailureLimit.parse(each)) for each in ("7%", "0.50%", "100%", "0%")]


# --- the network -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [*NOT_NUMBERS, 0, 601])
def test_an_attempt_ends(timeout: Any) -> None:
    """The timeout is at most ten minutes."""
    assert f"the timeout is more than 0 and at most 600 seconds; got {timeout!r}" == _refusal(lambda: Network(timeout))


@pytest.mark.parametrize("in_flight", [0, -1, 1.5, True, "8"])
def test_something_is_in_flight(in_flight: Any) -> None:
    """A number that was given is at least one request."""
    said = _refusal(lambda: Network(in_flight=in_flight))
    assert f"at least one request, a whole number, must be allowed in flight; got {in_flight!r}" == said


@pytest.mark.parametrize(
    ("files", "most"),
    [(resource.RLIM_INFINITY, 512), (100_000, 512), (256, 156), (100, 16)],
)
def test_requests_in_flight_leave_files_for_the_rest(monkeypatch: pytest.MonkeyPatch, files: int, most: int) -> None:
    """The system's limit of open files bounds the connections; a number that was given is used, or refused."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    assert most == Network().most_in_flight
    allowed = max(16, int(min(10_000, files - 100))) if files != resource.RLIM_INFINITY else 10_000
    assert allowed == Network(in_flight=allowed).most_in_flight


def test_more_in_flight_than_open_files_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows must not fail for want of sockets, which is no fault of theirs."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    assert (
        "157 requests in flight are more than the limit of 256 open files allows: raise it with ulimit -n 257, "
        "or let at most 156 be in flight"
    ) == _refusal(lambda: Network(in_flight=157).most_in_flight)


# --- where to --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "number"),
    [
        *((center, center) for center in DATA_CENTERS),
        ("1", "01"),
        (" 01 ", "01"),
        ("DC-01", "01"),
        ("dc1", "01"),
        ("DC 3", "03"),
        ("dc-101", "101"),
        ("dashboard-01", "01"),
        ("dashboard-01.moengage.com", "01"),
        ("api-101.moengage.com", "101"),
        (4, "04"),
    ],
)
def test_data_centers(name: Any, number: str) -> None:
    """The spellings that people know their data center by lead to the API's host."""
    assert f"api-{number}.moengage.com" == data_center_host(name)


@pytest.mark.parametrize(
    "name", ["", "0", "7", "07", "-1", "1001", "eu", "01.example.com", "dashboard-01.moengage.com.evil", "٣"]
)
def test_what_is_no_data_center(name: str) -> None:
    """Anything else is refused, with the ones that there are and where to find one's own."""
    said = _refusal(lambda: data_center_host(name))
    assert f"{name!r} is no data center of MoEngage: use one of 01, 02, 03, 04, 05, 06, 101" in said
    assert "(the number in your dashboard's address, dashboard-01.moengage.com)" in said


@pytest.mark.parametrize(
    ("url", "checked"),
    [
        ("https://api-01.moengage.com", "https://api-01.moengage.com"),
        ("https://api-01.moengage.com/", "https://api-01.moengage.com"),
        ("HTTPS://API-01.MoEngage.com:8443/gate/way//", "https://api-01.moengage.com:8443/gate/way"),
        ("https://[2001:DB8::1]:443", "https://[2001:db8::1]:443"),
        ("https://192.0.2.1", "https://192.0.2.1"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://127.9.8.7", "http://127.9.8.7"),
        ("http://[::1]:8080/x/", "http://[::1]:8080/x"),
    ],
)
def test_base_urls(url: str, checked: str) -> None:
    """Https goes anywhere, plain http to this machine; a slash at the end makes no difference."""
    assert checked == check_base_url(url)
    assert checked == check_base_url(checked)


@pytest.mark.parametrize(
    "url",
    [
        *("", "api-01.moengage.com", "//api-01.moengage.com", "ftp://api-01.moengage.com", "https://", "https:///x"),
        *("https://api-01.moengage.com:port", "https://api-01.moengage.com:99999", "https://api-01.moengage.com:0"),
        *("http://[::1", "https://api 01", "https://api-01.moengage.com/a b", "https://api-01.moengage.com\n"),
        *(
            "https://api-01.moengage.com\\@evil.example",
            "https://-x",
            "https://[v1.x]",
            "https://[:::]",
            "https://bücher.example",
        ),
        *("https://a%40b", "https://999.1.1.1", "https://1:80", "https://api-01.moengage.com\x00", "http://[::1%25lo]"),
        *("http://127.1", "http://2130706433", "http://127.0.0.1.1"),
    ],
)
def test_what_is_no_base_url(url: str) -> None:
    """A URL that is none, or that two readers could read differently, is refused with an example."""
    said = _refusal(lambda: check_base_url(url))
    assert f"the base URL {url!r} is none: write it like https://api-01.moengage.com" in said or "@" in url


@pytest.mark.parametrize(
    "url",
    [
        "https://jo:hunter2@api-01.moengage.com",
        "https://jo:hunt/hunter2@api-01.moengage.com",
        "https://jo:hunt?hunter2@api-01.moengage.com",
        "https://jo:hunt#hunter2@api-01.moengage.com",
        "https://jo:hunter2@x@api-01.moengage.com",
        "https://hunter2@api-01.moengage.com",
        "https://api-01.moengage.com?key=hunter2",
        "https://api-01.moengage.com/#hunter2",
        "jo:hunter2@api-01.moengage.com",
        "//jo:hunter2@api-01.moengage.com",
        "http://jo:hunter2@127.0.0.1:port",
        "http://jo:hunter2@127.0.0.1",
        "http://jo:hunter2@[::1",
    ],
)
def test_a_base_url_with_a_secret_is_refused_without_showing_it(url: str) -> None:
    """User, password, query and fragment have no place in it, and the refusal does not repeat them."""
    try:
        check_base_url(url)
    except ConfigError as error:
        assert "hunter2" not in "".join(traceback.format_exception(error))  # noqa: PT017  the traceback is the subject
        assert None is error.__context__  # noqa: PT017  urllib's own words quote the port
    else:
        pytest.fail("it was taken")


@pytest.mark.parametrize(
    "url",
    ["http://api-01.moengage.com", "http://10.0.0.1", "http://0.0.0.0", "http://localhost.example",
     "http://[::ffff:127.0.0.1]", "http://[::]", "http://localhost."],
)  # fmt: skip
def test_plain_http_stays_on_this_machine(url: str) -> None:
    """A key never travels unencrypted, not even to a host whose name or number only looks like this one."""
    said = _refusal(lambda: check_base_url(url))
    assert f"{url!r} would send the key unencrypted: use https (plain http goes to 127.0.0.1, ::1 only)" == said


def _resolving(*addresses: str) -> Callable[..., list[tuple[int, int, int, str, tuple[str, int]]]]:
    return lambda *_, **__: [(0, 1, 6, "", (address, 0)) for address in addresses]


@pytest.mark.parametrize(
    ("addresses", "checked"),
    [
        (("127.0.0.1",), "http://127.0.0.1:8080"),
        (("::1", "127.0.0.1"), "http://127.0.0.1:8080"),
        (("::1",), "http://[::1]:8080"),
    ],
)
def test_localhost_becomes_its_address(
    monkeypatch: pytest.MonkeyPatch, addresses: tuple[str, ...], checked: str
) -> None:
    """`localhost` is looked up once, here, so that no later answer can lead elsewhere."""
    monkeypatch.setattr(socket, "getaddrinfo", _resolving(*addresses))
    assert checked == check_base_url("http://LocalHost:8080/")


@pytest.mark.parametrize("addresses", [("192.0.2.1",), ("127.0.0.1", "192.0.2.1"), ("fe80::1%lo",)])
def test_a_localhost_that_is_another_machine_is_refused(
    monkeypatch: pytest.MonkeyPatch, addresses: tuple[str, ...]
) -> None:
    """A hosts file or resolver that sends `localhost` away does not get the key."""
    monkeypatch.setattr(socket, "getaddrinfo", _resolving(*addresses))
    assert "'http://localhost' would send the key unencrypted" in _refusal(lambda: check_base_url("http://localhost"))


def test_a_localhost_that_is_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that does not know `localhost` is told what to write."""

    def getaddrinfo(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    assert "write 127.0.0.1 instead" in _refusal(lambda: check_base_url("http://localhost"))


_PARTS = st.sampled_from(
    ["http", "https", ":", "//", "/", "@", "\\", "?", "#", "%", "[", "]", "::1", "127.0.0.1", "localhost", ".", "a",
     "1", "[::1]", "999.1.1.1", "evil.example", ":80", " ", "\t", "\n", "\x00", "é", "%40", "%2f"]
)  # fmt: skip


@given(
    st.lists(_PARTS, max_size=8).map("".join)
    | st.lists(_PARTS, max_size=6).map(lambda parts: "http://" + "".join(parts))
)
def test_a_url_is_refused_or_read_by_everybody_alike(url: str) -> None:
    """What is taken is stable, and the library that sends reads the same host in it; plain http means loopback."""
    try:
        checked = check_base_url(url)
    except ConfigError:
        return
    assert checked == check_base_url(checked)
    sent_to = httpx.URL(checked + "/v1/device/W")
    assert urlsplit(checked).hostname == sent_to.host
    assert (b"", "") == (sent_to.userinfo, sent_to.fragment)
    assert sent_to.scheme == "https" or ipaddress.ip_address(sent_to.host).is_loopback


# --- credentials -----------------------------------------------------------------------------------------------------


def _credentials() -> Credentials:
    return Credentials("WORKSPACE_1-a", KEY, data_center="DC-01")


def test_credentials() -> None:
    """They say who sends, and to where."""
    credentials = _credentials()
    assert ("WORKSPACE_1-a", KEY) == (credentials.workspace_id, credentials.api_key)
    assert ("https://api-01.moengage.com", "api-01.moengage.com") == (credentials.base_url, credentials.host)
    assert "127.0.0.1" == Credentials("W", KEY, base_url="http://127.0.0.1:8080/").host


@pytest.mark.parametrize(
    ("workspace_id", "said"),
    [("", "is empty"), ("a b", "holds ' '"), ("w/../x", "holds '/'"), ("wörk", "holds 'ö'"), ("w\n", r"holds '\n'")],
)
def test_what_is_no_workspace_id(workspace_id: str, said: str) -> None:
    """The refusal names the character, not the whole value: it may be the key in the wrong place."""
    expected = f"the workspace id {said}: it is made of letters, digits, _ and - only"
    assert expected == _refusal(lambda: Credentials(workspace_id, KEY, data_center="01"))


@pytest.mark.parametrize("key", ["", "sch\xf6n", "two\nlines", "\x7f", "a\x00"])
def test_what_is_no_key(key: str) -> None:
    """A key that was copied badly is refused before it is sent anywhere, and not shown."""
    said = _refusal(lambda: Credentials("W", key, data_center="01"))
    assert "the API key is empty or holds characters that no key has: copy it again" == said


@pytest.mark.parametrize("where", [{}, {"data_center": "01", "base_url": "https://x"}])
def test_there_is_one_destination(where: dict[str, str]) -> None:
    """Neither none nor two."""
    said = _refusal(lambda: Credentials("W", KEY, **where))
    assert "say where to send to: a data center (such as 01) or a base URL, and not both" == said


def test_credentials_from_the_environment() -> None:
    """The variables of the contract, with the line end of a careless export taken off the key."""
    environ = {"MOENGAGE_WORKSPACE_ID": "W", "MOENGAGE_API_KEY": f"{KEY}\n", "MOENGAGE_DATA_CENTER": "101"}
    credentials = Credentials.from_environment(environ)
    assert ("W", KEY, "https://api-101.moengage.com") == (
        credentials.workspace_id,
        credentials.api_key,
        credentials.base_url,
    )
    there = {**environ, "MOENGAGE_DATA_CENTER": "", "MOENGAGE_BASE_URL": "https://gateway.example/"}
    assert "https://gateway.example" == Credentials.from_environment(there).base_url


@pytest.mark.parametrize("name", ["MOENGAGE_WORKSPACE_ID", "MOENGAGE_API_KEY"])
@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_variable_is_named(name: str, value: str | None) -> None:
    """The message says which variable to export."""
    environ = {"MOENGAGE_WORKSPACE_ID": "W", "MOENGAGE_API_KEY": KEY, "MOENGAGE_DATA_CENTER": "01"}
    if value is None:
        del environ[name]
    else:
        environ[name] = value
    said = _refusal(lambda: Credentials.from_environment(environ))
    assert f"{name} is not set: export it, or pass Credentials(…)" == said


SHOWN = [
    repr,
    str,
    "{}".format,
    dataclasses.asdict,
    dataclasses.astuple,
    lambda each: [getattr(each, field.name) for field in dataclasses.fields(each)],
    lambda each: each.__getstate__(),
    lambda each: dataclasses.asdict(copy.deepcopy(each)),
    lambda each: repr(copy.copy(each)),
    lambda each: each.__reduce_ex__(4),
]


@pytest.mark.parametrize("show", SHOWN)
def test_the_key_is_not_shown(show: Callable[[Credentials], object]) -> None:
    """None of the ways that print or take a value apart shows the key."""
    shown = repr(show(_credentials()))
    assert KEY not in shown
    assert "***" in shown


def test_credentials_have_no_dictionary() -> None:
    """`vars`, which debuggers and error reporters use, finds nothing."""
    with pytest.raises(TypeError):
        vars(_credentials())


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_the_key_is_not_pickled(protocol: int) -> None:
    """Pickles end up in files and queues: refused, with the way out."""
    with pytest.raises(TypeError, match=r"a secret is not pickled: .* from the environment"):
        pickle.dumps(Secret(KEY), protocol)
    with pytest.raises(TypeError):
        pickle.dumps(_credentials(), protocol)


def test_no_hash_is_made_of_the_key() -> None:
    """Credentials and secrets are compared by identity, so that neither hash nor equality tells about the key."""
    assert hash(_credentials()) != hash(_credentials())
    assert _credentials() != _credentials()
    assert Secret(KEY) != Secret(KEY)
    assert KEY == copy.copy(Secret(KEY)).reveal()
    assert copy.copy(credentials := _credentials()).api_key == copy.deepcopy(credentials).api_key == KEY


def test_credentials_do_not_change() -> None:
    """What was checked stays as it was."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        _credentials().base_url = "http://evil.example"  # type: ignore[misc]  # that is the point


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=4))
def test_no_key_is_shown(key: str) -> None:
    """Whatever the key, its credentials show the same."""
    expected = "Credentials(workspace_id='W', api_key='***', base_url='https://api-01.moengage.com')"
    assert expected == repr(Credentials("W", key, data_center="01"))
