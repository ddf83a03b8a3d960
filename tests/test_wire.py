"""The protocol without I/O: tables of bytes, no loop and no network."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import html
import json
import string
import zlib
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

import httpx
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk.device import Device
from moe_bulk.outcome import Outcome, Verdict
from moe_bulk.wire import ANSWER_KEPT, HEADERS, clean, decode_body, device_path, encode, headers, judge, trouble

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY = "s3cr3t-KEY+with/odd=chars&more"
NOW = 1_760_000_000.0
SUCCESS = b'{"status":"success","message":"Your request has been accepted.","request_id":"kXwpDESb"}'
A, R, T, X, D, U, M = (
    Verdict.ACCEPTED,
    Verdict.REJECTED,
    Verdict.THROTTLED,
    Verdict.TROUBLE,
    Verdict.DOOMED,
    Verdict.UNAUTHORIZED,
    Verdict.MISDIRECTED,
)


def answered(status: int, body: bytes = b"", said: Mapping[str, str] | None = None) -> Outcome:
    """What an answer comes to."""
    return judge(status, said or {}, body, now=NOW, secret=KEY)


def failure(**error: object) -> bytes:
    """A failure in MoEngage's shape."""
    return orjson.dumps({"status": "fail", "error": error})


# --- the request -----------------------------------------------------------------------------------------------------


def test_request_is_what_the_documentation_asks_for() -> None:
    """Path, headers and body of one device."""
    assert device_path("WORK_space-1") == "/v1/device/WORK_space-1"
    assert device_path("../x?y") == "/v1/device/..%2Fx%3Fy"
    expected = {
        "Authorization": "Basic " + base64.b64encode(b"WORK:key").decode(),
        "Content-Type": "application/json",
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": "moe-bulk/1",
    }
    assert expected == headers("WORK", "key", "moe-bulk/1")


def test_encode_writes_the_body_in_utf_8() -> None:
    """The address of the end user is a header, not a part of the body."""
    device = Device("u-1", "d-1", {"platform": "iOS", "model": "電話"}, forwarded_for="203.0.113.9")
    expected = {
        "type": "device",
        "customer_id": "u-1",
        "device_id": "d-1",
        "attributes": {"platform": "iOS", "model": "電話"},
    }
    assert expected == json.loads(encode(device).decode("utf-8"))


def test_trouble_names_what_came_instead_of_an_answer() -> None:
    """No answer has no status."""
    assert Outcome(X, error="timeout") == trouble("timeout")
    assert Outcome(X, error="reset", reason="by peer") == trouble("reset", "by peer")


# --- the verdict -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (200, SUCCESS, A),
        (200, b'{"status":"Success"}', A),
        (201, SUCCESS, A),
        (202, SUCCESS, A),
        (200, b'{"status":"fail"}', X),
        (200, b'{"status":"queued"}', X),
        (200, b'{"status":17}', X),
        (200, b"{}", X),
        (200, b'["success"]', X),
        (200, b'"success"', X),
        (200, b"success", X),
        (200, b"", X),
        (200, b'{"status":"succ', X),
        (200, SUCCESS + b" " * ANSWER_KEPT, X),
        (204, b"", X),
        *[(status, SUCCESS, M) for status in (300, 301, 302, 303, 304, 307, 308, 399, 404, 405)],
        (400, failure(type="MissingAttributeError"), R),
        (400, failure(type="ValueError"), R),
        (400, failure(type="TypeError"), R),
        (400, failure(type="Something new"), R),
        (400, failure(type=["InvalidParams"]), R),
        (400, failure(), R),
        (400, b'{"error":"InvalidParams"}', R),
        (400, b"<html>", R),
        (400, failure(type="InvalidParams"), D),
        (400, failure(type="invalid params"), D),
        (400, failure(type="Params_Required"), D),
        (400, failure(type="BLACKLISTED."), D),
        (401, failure(type="Authentication required"), U),
        (401, b"", U),
        (413, failure(type="PayloadTooLarge"), R),
        (422, failure(type="InvalidParams"), R),
        (429, failure(type="Rate Limits Exceeded"), T),
        (429, b"", T),
        *[(status, SUCCESS, X) for status in (408, 425, 500, 501, 502, 503, 504, 520, 599)],
        *[(status, SUCCESS, D) for status in (402, 403, 406, 407, 409, 410, 411, 414, 415, 418, 421, 431, 451, 499)],
        *[(status, SUCCESS, X) for status in (-1, 0, 17, 100, 101, 103, 199, 600, 999, 2000)],
    ],
)
def test_status_decides_first(status: int, body: bytes, verdict: Verdict) -> None:
    """Every line of the table of answers, and what stands between the lines."""
    outcome = answered(status, body)
    assert verdict is outcome.verdict
    assert status == outcome.http_status
    assert outcome.error is None
    assert (outcome.reason is None) is (verdict is A)


# --- what people read ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "error_type", "reason", "request_id"),
    [
        (200, SUCCESS, None, None, "kXwpDESb"),
        (
            400,
            failure(type="TypeError", message="expected string", request_id="r-1", attribute="push_id"),
            "TypeError",
            "attribute push_id: expected string",
            "r-1",
        ),
        (400, failure(type="ValueError", message="no"), "ValueError", "no", None),
        (403, b'{"status":"fail","error":"Account Suspended"}', None, "Account Suspended", None),
        (403, b'{"message":"Forbidden","request_id":7}', None, "Forbidden", "7"),
        (403, failure(message=True, type=True, request_id=False), None, "403 Forbidden, without a message", None),
        (403, failure(message=" ", type="", request_id="\x1b[0m"), None, "403 Forbidden, without a message", None),
        (403, failure(message="\x1b[2J\x00"), None, "403 Forbidden", None),
        (400, b'{"error":[{"message":"hidden"}]}', None, "400 Bad Request, without a message", None),
        (502, b"<html><h1>Bad Gateway</h1>", None, "502 Bad Gateway, no JSON", None),
        (503, b"", None, "503 Service Unavailable, empty answer", None),
        (599, b"[]", None, "599, no JSON", None),
        (200, b"ok", None, "200 OK, no JSON", None),
        (200, b'{"status":"fail","message":"later"}', None, "200 OK, but status fail: later", None),
        (200, b'{"status":{}}', None, "200 OK, but status missing", None),
        (302, b"", None, "302 Found, empty answer", None),
    ],
)  # fmt: skip
def test_reason_is_what_the_server_said_or_what_it_sent_instead(
    status: int, body: bytes, error_type: str | None, reason: str | None, request_id: str | None
) -> None:
    """A reason reads well whoever answered."""
    outcome = answered(status, body)
    assert (outcome.error_type, outcome.reason, outcome.request_id) == (error_type, reason, request_id)


@pytest.mark.parametrize("said", [{}, *({name: "7"} for name in HEADERS)])
@pytest.mark.parametrize(
    "body",
    [
        b'{"status":"success"}',
        b'{"status":"Success","message":"later"}',
        SUCCESS,
        b'{"status":"success","error":{"request_id":"r-1"}}',
        b'{"status":"fail"}',
        b'{"status":"success"',
        b"[]",
    ],
)
@pytest.mark.parametrize("status", [200, 201, 400])
def test_what_is_remembered_of_an_answer_changes_nothing(status: int, body: bytes, said: dict[str, str]) -> None:
    """An answer in words that came before means what it means in words that are too long to remember."""
    assert answered(status, body + b" " * 2000, said) == answered(status, body, said) == answered(status, body, said)


def test_redirect_says_where_to() -> None:
    """The address that a proxy points at tells what is wrong with ours."""
    outcome = answered(302, b"<html>", {"location": "https://login.example/\x1b[2J"})
    assert outcome.reason == "302 Found, to https://login.example/"


def test_request_id_comes_from_the_first_place_that_has_one() -> None:
    """The error's own, then the body's, then the header's."""
    said = {"x-request-id": "h-1"}
    assert answered(200, SUCCESS, said).request_id == "kXwpDESb"
    assert answered(500, failure(request_id="e-1"), said).request_id == "e-1"
    assert answered(502, b"", httpx.Headers({"X-Request-ID": "h-1"})).request_id == "h-1"
    long = answered(502, b"", {"x-request-id": "h" * 500}).request_id
    assert long == "h" * 199 + "…"


# --- headers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        (" 30 ", 30.0),
        ("1.5", 1.5),
        ("601", 600.0),
        ("9" * 5000, 600.0),
        ("Thu, 09 Oct 2025 08:53:50 GMT", 30.0),
        ("Thu Oct  9 08:53:50 2025", 30.0),
        ("Thursday, 09-Oct-25 08:53:50 GMT", 30.0),
        ("Thu, 09 Oct 2025 10:53:50 +0200", 30.0),
        ("Thu, 09 Oct 2025 08:00:00 GMT", 0.0),
        ("Fri, 09 Oct 2026 08:00:00 GMT", 600.0),
        ("-1", None),
        ("+1", None),
        ("1e3", None),
        ("nan", None),
        ("inf", None),
        ("soon", None),
        ("", None),
        ("٣", None),
        ("Thu, 99 Oct 2025 08:53:50 GMT", None),
        ("Thu, 09 Oct 99999 08:53:50 GMT", None),
        ("Thu, 09 Oct 2025 08:53:50 GMT" + " " * 100, None),
        (None, None),
        (30, None),
    ],
)
def test_retry_after_is_seconds_from_now(value: str, seconds: float | None) -> None:
    """Seconds, decimals and all three forms of an HTTP date; at most ten minutes, and nothing from nonsense."""
    assert answered(429, b"", {"retry-after": value}).retry_after == seconds


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("30", 30.0),
        ("0.5", 0.5),
        ("1000000", 600.0),
        ("1760000030", 30.0),
        ("1760000030.5", 30.5),
        ("1759999999", 0.0),
        ("1760009999", 600.0),
        ("-3", None),
        ("Thu, 09 Oct 2025 08:53:50 GMT", None),
        ("", None),
    ],
)
def test_reset_is_seconds_left_or_a_moment(value: str, seconds: float | None) -> None:
    """MoEngage's pages say both; above a million it is a moment."""
    assert answered(200, SUCCESS, {"x-ratelimit-reset": value}).reset_after == seconds


@pytest.mark.parametrize(
    ("value", "left"),
    [("0", 0), (" 95 ", 95), ("9" * 18, int("9" * 18)), ("9" * 19, None), ("-1", None), ("1.5", None), ("²", None)],
)
def test_remaining_is_a_whole_number(value: str, left: int | None) -> None:
    """What is left of the allowance, or nothing."""
    assert answered(200, SUCCESS, {"x-ratelimit-remaining": value}).remaining == left


# --- strangers' text -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("plain [bold]text[/bold] ü é 電 😀", "plain [bold]text[/bold] ü é 電 😀"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x9b31mred", "red"),
        ("a\x1b]0;title\x07b\x1b]8;;http://x\x1b\\c\x9d0;t\x9cd", "abcd"),
        ("a\x1bPdevice\x1b\\b\x1bcd\x1b(Be", "abde"),
        ("cut \x1b[31", "cut"),
        ("cut \x1b]0;title", "cut"),
        ("cut \x1b", "cut"),
        ("a\x00b\x07c\x7fd\x85e\x9ff", "abcd e"),
        ("one\r\ntwo\tthree\u2028four\u00a0five", "one two three four five"),
        ("\u202eevil\u2066\u200f\u061c\ufeff", "evil"),
        ("\ud800x", "x"),
        (" x ", "x"),
        ("", ""),
    ],
)
def test_clean_takes_out_what_a_terminal_would_obey(text: str, cleaned: str) -> None:
    """Text stays, commands to the terminal and to the reader's eye go."""
    assert cleaned == clean(text, KEY)


def test_clean_cuts_to_the_limit() -> None:
    """A reason is a line, not a page."""
    assert clean("x" * 1001, KEY) == "x" * 999 + "…"
    assert clean("x" * 1000, KEY) == "x" * 1000
    assert clean("abcdef", "", 4) == "abc…"


def test_clean_is_linear_on_hostile_text() -> None:
    """64 KiB of opened escapes or of Base64 cost milliseconds; in square time none of them would end within a test."""
    texts = ["\x1b]" * 32768, "\x1b[" * 32768, "\x1b[1" + ";1" * 32768, "A" * 65536, KEY[:-1] * 2000, "<" * 65536]
    texts += ["\\" * 65536, "%25" * 21845, "&amp;" * 13107, "\\u005c" * 10922, ("s" + "\\" * 15) * 4096]
    for text in texts:
        for key in (KEY, "s\\\\a\\b&%25&9"):
            assert len(clean(text, key)) <= 1000


SHORT_KEYS = ["a", "ab", "abc", "abcd", "7"]
KEYS = st.text(string.ascii_letters + string.digits + "+/=-_.~&<>\"'\\ %[;", min_size=8, max_size=40).map(
    lambda key: "k" + key.strip() + "9"
)
NOISE = st.text(st.sampled_from('ab {}":,\\/%=\x00\x1b[]m;\u202e\n\u200b'), max_size=12)


@given(
    key=KEYS,
    workspace=st.text(string.ascii_letters, min_size=1, max_size=6),
    noise=st.lists(NOISE, min_size=4),
    data=st.data(),
)
def test_no_outcome_ever_shows_the_key(key: str, workspace: str, noise: list[str], data: st.DataObject) -> None:
    """However an answer echoes it: as it is, split by escapes, quoted, or within the Basic token."""
    token = headers(workspace, key, "")["Authorization"].removeprefix("Basic ")
    urlsafe = base64.urlsafe_b64encode(f"{workspace}:{key}".encode()).decode().rstrip("=")
    cut = data.draw(st.integers(0, len(key)))
    split = key[:cut] + data.draw(st.sampled_from(["\x1b[31m", "\x00", "\u200b", "\x1b]0;t\x07"])) + key[cut:]
    forms = [key, key.upper(), token, urlsafe, split, f"Basic {token}", quote(key, safe="")]
    text = data.draw(st.sampled_from(noise)).join(data.draw(st.lists(st.sampled_from(forms + noise), max_size=6)))
    body = orjson.dumps(
        {"status": text, "error": {"type": text, "message": text, "attribute": text, "request_id": text}}
    )
    said = dict.fromkeys(("location", "x-request-id", "retry-after", "x-ratelimit-reset"), text)
    for status in (200, 302, 400, 401, 500):
        for sent in (body, text.encode(), b""):
            outcome = judge(status, said, sent, now=NOW, secret=key)
            shown = [str(value).lower() for value in dataclasses.astuple(outcome) if isinstance(value, str)]
            for secret in (key, token, urlsafe):
                assert not [line for line in shown if secret.lower() in line]


@pytest.mark.parametrize("key", SHORT_KEYS)
def test_short_key_is_hidden_too(key: str) -> None:
    """Even a key that is none is treated as one."""
    assert clean(f"x {key} y", key) == "x *** y"


def test_key_is_hidden_in_its_other_spellings() -> None:
    """JSON, HTML, URLs and Base64 write it in their own ways."""
    key = 'p"ss/<w>&d'
    encoded = base64.b64encode(f"WORK:{key}".encode()).decode()
    for form in (key, key.upper(), 'p\\"ss/<w>&d', "p%22ss%2f%3Cw%3E%26d", "p&quot;ss/&lt;w&gt;&amp;d"):
        assert clean(f"<{form}>", key) == "<***>"
    assert clean(f"Basic {encoded}!", key) == "Basic ***!"
    assert clean("Basic authentication required", key) == "Basic authentication required"


@pytest.mark.parametrize("key", [KEY, 'p"ss/<w>&d', "back\\\\sl/ash", "it's 9", "k\u00e9y\U0001f511"])
def test_key_is_hidden_as_libraries_write_it(key: str) -> None:
    """Encoders differ in what they leave alone, and an answer may quote what was escaped before."""
    once = json.dumps(key)[1:-1]
    twice = json.dumps(once)[1:-1]
    escaped = html.escape(key, quote=False)
    for form in (quote(key), quote_plus(key), quote(quote(key)), once, twice, json.dumps(twice)[1:-1], escaped):
        assert clean(f"<{form}>", key) == "<***>"
    assert clean(once.replace("/", "\\/"), key) == "***"
    assert clean(html.escape(html.escape(key)), key) == "***"


def _spelled(character: str) -> st.SearchStrategy[str]:
    """One character of a key, in any of the ways in which an answer may write it."""
    point = ord(character)
    percent = "".join(f"%{byte:02x}" for byte in character.encode())
    forms = [character, percent, percent.upper(), percent.replace("%", "%25"), html.escape(character)]
    forms += [f"\\u{point:04x}", f"\\\\u{point:04X}", f"&#{point};", f"&#x{point:X};", f"&amp;#0{point};"]
    return st.sampled_from([*forms, f"\\{character}", f"\\\\\\{character}"] if character in "\"'/\\" else forms)


@given(
    key=st.text(string.ascii_letters + string.digits + "+/=-_.~&<>\"'\\ %[;", min_size=1, max_size=20), data=st.data()
)
def test_key_is_hidden_in_any_mix_of_spellings(key: str, data: st.DataObject) -> None:
    """Whichever of its characters are escaped, and however each of them is."""
    key = f"k{key}9"
    written = "".join(data.draw(_spelled(character)) for character in key)
    # What escapes the escape of the first character is not the key's.
    assert clean(f"<{written}>", key).replace("\\", "") == "<***>"


def test_key_is_hidden_where_it_reads_like_an_escape() -> None:
    """Taking escapes out must not take the beginning of the key and leave its rest."""
    assert "secret" not in clean("a \x1b[31msecret", "[31msecret")


@pytest.mark.parametrize("workspace", ["W", "WO", "WOR"])
def test_key_is_hidden_in_base64_for_urls(workspace: str) -> None:
    """The other alphabet of Base64 shows the key just as well."""
    key = "k~~~???>>>~~~9"
    encoded = base64.urlsafe_b64encode(f"{workspace}:{key}".encode()).decode()
    assert {"-", "_"} & set(encoded)
    assert clean(f"({encoded})", key) == "(***)"


# --- always ----------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["status", "error", "type", "message", "request_id", "attribute", "x"]), inner, max_size=5
        )
    ),
    max_leaves=12,
)
BODIES = st.one_of(
    st.binary(max_size=60),
    JSON.map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass")),
    st.sampled_from([SUCCESS, b"[" * 60000, b'{"error":' * 7000, b'{"error":' * 900 + b"1" + b"}" * 900]),
    st.sampled_from([b'{"status":"\xff"}', b'{"status":"\\ud800"}', b'{"status":1e999}', b"\xef\xbb\xbf{}", b"NaN"]),
)
GARBAGE = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        ["Thu, 09 Oct 2025 08:53:50 GMT", "Mon, 01 Jan 0001 00:00:00 +2359", "9999999999", "1.", ".5", "0"]
    ),
    st.dates().map(lambda day: day.strftime("%a, %d %b %Y 00:00:00 -0000")),
)
NAMES = ["retry-after", "x-ratelimit-remaining", "x-ratelimit-reset", "x-request-id", "location"]


@given(
    status=st.integers() | st.sampled_from([200, 302, 400, 401, 403, 413, 429, 500]),
    said=st.dictionaries(st.sampled_from(NAMES), GARBAGE),
    body=BODIES,
)
def test_judge_never_raises(status: int, said: dict[str, str], body: bytes) -> None:
    """Whatever comes back is an outcome: bounded, printable, and possible to write down."""
    outcome = answered(status, body, said)
    for text in (outcome.error_type, outcome.reason, outcome.request_id):
        assert text is None or (0 < len(text) <= 1000 and text.isprintable())
    for seconds in (outcome.retry_after, outcome.reset_after):
        assert seconds is None or 0 <= seconds <= 600
    assert orjson.dumps([outcome.error_type, outcome.reason, outcome.request_id, outcome.remaining])
    assert (outcome.verdict is A) <= (status // 100 == 2)


# --- bodies that were compressed all the same ------------------------------------------------------------------------


def raw_deflate(body: bytes) -> bytes:
    """Deflate without zlib's header, as some servers send it."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


@pytest.mark.parametrize(
    ("encoding", "body", "decoded"),
    [
        ("", SUCCESS, SUCCESS),
        ("identity", SUCCESS, SUCCESS),
        ("br", b"\x1b\x00", b"\x1b\x00"),
        ("gzip, gzip", SUCCESS, SUCCESS),
        ("gzip", gzip.compress(SUCCESS), SUCCESS),
        (" X-GZip ", gzip.compress(SUCCESS), SUCCESS),
        ("deflate", zlib.compress(SUCCESS), SUCCESS),
        ("deflate", raw_deflate(SUCCESS), SUCCESS),
        ("gzip", SUCCESS, SUCCESS),
        ("deflate", b"\xff\xff", b"\xff\xff"),
        ("deflate", b"", b""),
        ("gzip", b"", b""),
        ("", b"x" * (ANSWER_KEPT + 1), b"x" * ANSWER_KEPT),
        ("gzip", b"x" * (ANSWER_KEPT + 1), b"x" * ANSWER_KEPT),
        ("gzip", gzip.compress(b"0" * 50_000_000, 1), b"0" * ANSWER_KEPT),
        ("deflate", zlib.compress(b"0" * 50_000_000, 1), b"0" * ANSWER_KEPT),
    ],
    ids=range(16),
)
def test_decode_body_undoes_what_was_not_asked_for(encoding: str, body: bytes, decoded: bytes) -> None:
    """An answer is read as it was meant, and a bomb costs 64 KiB."""
    assert decoded == decode_body(body, encoding)


def test_half_of_a_compressed_answer_is_half_an_answer() -> None:
    """A connection that broke off gives what came, which is no JSON."""
    half = decode_body(gzip.compress(SUCCESS)[:-20], "gzip")
    assert SUCCESS.startswith(half)
    assert answered(200, half).verdict is X


@given(body=st.binary(), encoding=st.text() | st.sampled_from(["gzip", "deflate", "x-gzip"]))
def test_decode_body_never_raises(body: bytes, encoding: str) -> None:
    """Damaged bodies come back as they are, or as far as they could be read."""
    assert len(decode_body(body, encoding)) <= ANSWER_KEPT
