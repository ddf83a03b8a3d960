"""What the doctor makes of what it saw: one line each, with a remedy wherever something is not as it should be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_bulk.config import Rate
from moe_bulk.doctor import Worth, as_json, as_text, closing, exit_code
from moe_bulk.doctor.findings import Certificate, Finding, PaceServer, Plan, Reached, StateFolder, Tried
from moe_bulk.doctor.judging import (
    judge_clock,
    judge_files,
    judge_in_flight,
    judge_key,
    judge_latency,
    judge_limits,
    judge_name,
    judge_network,
    judge_pace,
    judge_state,
    judge_tls,
)
from moe_bulk.outcome import Outcome, Verdict

PLAN = Plan("W", "api-01.moengage.com", 443, True, Rate(), 30.0, 512, 1024)  # noqa: FBT003  as `encrypted` is read
PROXIED = replace(PLAN, proxy=("proxy.example", 3128))
ACCEPTED = Outcome(Verdict.ACCEPTED, http_status=200)
NOW = 1_800_000_000.0


def tried(seconds: float = 0.2, outcome: Outcome = ACCEPTED, **more: object) -> Tried:
    """One Test connection."""
    return replace(Tried(outcome, NOW, seconds), **more)  # type: ignore[arg-type]


def seen(finding: Finding | None) -> tuple[str, str]:
    """Its worth and what was said; whatever is not ok has a remedy."""
    assert finding is not None
    assert (finding.worth is Worth.OK) is (finding.remedy == "")
    return finding.worth.value, finding.said


@pytest.mark.parametrize(
    ("plan", "addresses", "trouble", "expected"),
    [
        (PLAN, ["192.0.2.1", "2001:db8::1"], "", ("ok", "api-01.moengage.com is 192.0.2.1, 2001:db8::1")),
        (PLAN, list("abcdef"), "", ("ok", "api-01.moengage.com is a, b, c, d and 2 more")),
        (
            PLAN,
            [],
            "Name or service not known",
            ("fail", "api-01.moengage.com is not found: Name or service not known"),
        ),
        (PROXIED, [], "nothing", ("fail", "the proxy proxy.example is not found: nothing")),
        (replace(PLAN, host="::1"), ["::1"], "", ("ok", "::1 is an address, no name to look up")),
    ],
)
def test_names(plan: Plan, addresses: list[str], trouble: str, expected: tuple[str, str]) -> None:
    """A host that has no address is the end of the way; where a proxy is on it, the proxy's name counts."""
    assert expected == seen(judge_name(plan, addresses, trouble))


@pytest.mark.parametrize(
    ("reached", "expected"),
    [
        ([Reached("192.0.2.1", 0.012)], ("ok", "IPv4 connects in 12 ms")),
        ([Reached("2001:db8::1", 12.0)], ("ok", "IPv6 connects in 12.0 s")),
        (
            [Reached("192.0.2.1", 0.012), Reached("2001:db8::1", None, "Network is unreachable")],
            ("warn", "IPv4 connects in 12 ms; IPv6 does not connect (Network is unreachable)"),
        ),
        ([Reached("192.0.2.1", None, "refused")], ("fail", "IPv4 does not connect (refused)")),
    ],
)
def test_network(reached: list[Reached], expected: tuple[str, str]) -> None:
    """One of two ways is a nuisance, none is the end."""
    assert expected == seen(judge_network(PLAN, reached))


def test_who_may_need_a_proxy() -> None:
    """Behind a firewall the remedy names HTTPS_PROXY, unless one is in use."""
    nothing = [Reached("192.0.2.1", None, "refused")]
    assert "HTTPS_PROXY" in judge_network(PLAN, nothing).remedy
    assert "HTTPS_PROXY" not in judge_network(PROXIED, nothing).remedy


@pytest.mark.parametrize(
    ("days", "worth"), [(90.0, Worth.OK), (14.1, Worth.OK), (13.9, Worth.WARN), (-1.0, Worth.WARN)]
)
def test_certificates_that_end(days: float, worth: Worth) -> None:
    """Two weeks before its end a certificate is worth a warning."""
    finding = judge_tls(PLAN, tried(), Certificate(NOW + days * 86400, "Some CA"), NOW)
    assert (worth.value, f"verified; the certificate (by Some CA) holds for {days:,.0f} more days") == seen(finding)


def test_certificates_that_are_refused() -> None:
    """What TLS said is told, with what helps; a connection that never came to it tells nothing of TLS."""
    refused = Outcome(Verdict.TROUBLE, error="certificate refused", reason="certificate refused; self-signed")
    finding = judge_tls(PLAN, tried(outcome=refused), None, NOW)
    assert ("fail", "certificate refused; self-signed") == seen(finding)
    assert finding is not None
    assert "--ca-bundle" in finding.remedy
    assert None is judge_tls(PLAN, tried(outcome=Outcome(Verdict.TROUBLE, error="timeout")), None, NOW)
    assert "ok" == seen(judge_tls(replace(PLAN, encrypted=False), tried(), None, NOW))[0]


@pytest.mark.parametrize(
    ("outcome", "host", "worth", "said", "remedy"),
    [
        (ACCEPTED, None, "ok", "MoEngage knows workspace W and this key: Shop", ""),
        (Outcome(Verdict.UNAUTHORIZED, 401, reason="mismatch"), None, "fail", "workspace W: mismatch", "data center"),
        (Outcome(Verdict.MISDIRECTED, 404, reason="404"), None, "fail", "is not MoEngage's API", "dashboard-01"),
        (Outcome(Verdict.MISDIRECTED, 404, reason="404"), "gate.example", "warn", "does not know Test", "--limit 10"),
        (Outcome(Verdict.MISDIRECTED, 302, reason="302"), "gate.example", "fail", "is not MoEngage's API", "base URL"),
        (Outcome(Verdict.THROTTLED, 429, reason="429"), None, "warn", "not judged: 429", "wait"),
        (Outcome(Verdict.TROUBLE, 502, reason="502"), None, "fail", "no usable answer: 502", "--outage-limit"),
        (Outcome(Verdict.TROUBLE, error="proxy failure", reason="407"), None, "fail", "not judged: 407", "HTTPS_PROXY"),
        (Outcome(Verdict.DOOMED, 403, reason="blocked"), None, "fail", "refused: blocked", "support"),
    ],
)
def test_keys(outcome: Outcome, host: str | None, worth: str, said: str, remedy: str) -> None:
    """Whatever Test connection says has its meaning and its remedy."""
    plan = replace(PLAN, host=host or PLAN.host)
    finding = judge_key(plan, tried(outcome=outcome, app_name="Shop"))
    assert worth == seen(finding)[0]
    assert said in finding.said
    assert remedy in finding.remedy


@pytest.mark.parametrize(
    ("off", "expected"),
    [
        (0.0, ("ok", "agrees with the service's, within 0.6 s")),
        (3.0, ("ok", "3.0 s ± 0.6 s ahead of the service's")),
        (-7.0, ("warn", "7.0 s ± 0.6 s behind the service's")),
        (3600.0, ("warn", "3600.0 s ± 0.6 s ahead of the service's")),
    ],
)
def test_clocks(off: float, expected: tuple[str, str]) -> None:
    """The quickest answer tells most; the doubt is half its round trip, and Date's missing fraction."""
    quick, slow = (tried(seconds, date=NOW + seconds / 2 - 0.5 - off) for seconds in (0.2, 9.0))
    assert expected == seen(judge_clock([slow, tried(), quick]))
    assert "warn" == seen(judge_clock([tried()]))[0]


@given(off=st.floats(-1e6, 1e6), there=st.floats(0, 30), back=st.floats(0, 30), fraction=st.floats(0, 0.999))
def test_the_doubt_holds_whatever_the_network_does(off: float, there: float, back: float, fraction: float) -> None:
    """The true distance of the clocks lies within the doubt, however the round trip is shared between its ways."""
    answered = NOW - off + there  # by the server's clock
    date = float(int(answered))
    assert date <= answered
    figures = judge_clock([tried(there + back, date=date)]).figures
    ahead, doubt = figures["ahead_seconds"], figures["uncertainty_seconds"]
    assert isinstance(ahead, float)
    assert isinstance(doubt, float)
    assert abs(ahead - off) <= doubt + 0.002  # both are rounded to a thousandth


def test_latency() -> None:
    """The first request makes the connection; the others tell. Close to the timeout is a warning."""
    some = [tried(0.9), tried(0.1), tried(0.2), tried(0.6)]
    assert ("ok", "median 200 ms, worst 600 ms of 3; the first, with its connection, 900 ms") == seen(
        judge_latency(PLAN, some)
    )
    assert ("ok", "one answer, with its connection, after 200 ms") == seen(judge_latency(PLAN, [tried()]))
    assert "warn" == seen(judge_latency(replace(PLAN, timeout=1.0), some))[0]


def test_limits() -> None:
    """Headers are told as they came; one below --rate is worth asking."""
    assert ("ok", "no header tells of one: --rate 10000/min is what holds") == seen(judge_limits(PLAN, [tried()]))
    headers = {"x-ratelimit-limit": "10000", "x-ratelimit-remaining": "7"}
    told = [tried(limits=headers), tried(limits={"x-ratelimit-remaining": "6"})]
    assert ("ok", "x-ratelimit-limit: 10000, x-ratelimit-remaining: 6") == seen(judge_limits(PLAN, told))
    assert "warn" == seen(judge_limits(PLAN, [tried(limits={"x-ratelimit-limit": "9999"})]))[0]
    assert "ok" == seen(judge_limits(PLAN, [tried(limits={"x-ratelimit-limit": "many"})]))[0]


def test_in_flight() -> None:
    """Rate times latency must be on their way at once; fewer carry less, and the remedy knows the open files."""
    some = [tried(1.0), tried(0.3), tried(0.3), tried(1.2)]
    assert (
        "ok",
        "10000/min at the median latency needs 50 at once (200 at the worst latency); up to 512 are allowed",
    ) == seen(judge_in_flight(PLAN, some))
    few = judge_in_flight(replace(PLAN, in_flight=25), some)
    assert "up to 25 are allowed, which carry 5,000 in 60 s" in seen(few)[1]
    assert few is not None
    assert "--in-flight 200" == few.remedy
    few = judge_in_flight(replace(PLAN, in_flight=25, files=256), some)
    assert few is not None
    assert "ulimit -n 300, and --in-flight 200" == few.remedy
    assert None is judge_in_flight(replace(PLAN, in_flight="too many: lower it"), some)


@pytest.mark.parametrize(
    ("in_flight", "files", "expected"),
    [
        (512, 1024, ("ok", "1,024 may be open; 512 requests in flight and the rest need 612")),
        (512, None, ("ok", "not limited")),
        (20, 300, ("ok", "300 may be open; 20 requests in flight and the rest need 120")),
        (156, 256, ("warn", "256 may be open, which leaves room for 156 requests in flight")),
        ("9 are too many: lower it", 100, ("fail", "9 are too many")),
    ],
)
def test_files(in_flight: int | str, files: int | None, expected: tuple[str, str]) -> None:
    """Few open files leave little room for connections; too few for what was asked for is a mistake."""
    assert expected == seen(judge_files(replace(PLAN, in_flight=in_flight, files=files)))


def test_state() -> None:
    """Without a shared window an upload goes all the same, alone; what it would be told is told here."""
    assert "ok" == seen(judge_state(StateFolder(Path("/s"))))[0]
    assert ("warn", "uploads cannot share their limit in /s: no locks") == seen(
        judge_state(StateFolder(Path("/s"), "no locks"))
    )
    assert "wait for it" in seen(judge_state(StateFolder(Path("/s"), notes=("wait for it",))))[1]


SERVER = PaceServer("redis://h:6379/0", seconds=(0.002, 0.001, 0.03), version="7.0.15", policy="noeviction")


@pytest.mark.parametrize(
    ("server", "worth", "said"),
    [
        (SERVER, "ok", "redis://h:6379/0 answers in 2 ms, at worst 30 ms of 3"),
        (replace(SERVER, wait=101.0), "ok", "it does not know this workspace yet: a first upload waits for 1 min 41 s"),
        (replace(SERVER, seconds=(0.4,)), "warn", "that is long for what is asked some times a second"),
        (replace(SERVER, policy="allkeys-lru"), "warn", "when its memory is full it removes any key (allkeys-lru)"),
        (replace(SERVER, told=False), "warn", "it does not tell which server it is (INFO)"),
        (PaceServer("redis://h:6379/0", "connection refused"), "fail", "redis://h:6379/0: connection refused"),
        (PaceServer("redis://h:6379/0", "one more package: pip install x", missing=True), "fail", "one more package"),
    ],
)
def test_the_server_that_keeps_the_pace(server: PaceServer, worth: str, said: str) -> None:
    """How it answers, and what would make uploads wait."""
    found = seen(judge_pace(server))
    assert worth == found[0]
    assert said in found[1]


FINDINGS = [
    Finding("key", Worth.OK, "fine"),
    Finding("clock", Worth.WARN, "7 s ahead", "set it"),
    Finding("TLS", Worth.FAIL, "word " * 30, "do something about it, " * 10),
]


@pytest.mark.parametrize("width", [20, 80, 100])
def test_lines_keep_to_the_width(width: int) -> None:
    """Each line fits the terminal, and further ones stand below the first."""
    told = "\n".join(as_text(each, width) for each in FINDINGS)
    assert max(map(len, told.splitlines())) <= max(width, 40)
    assert told.startswith("ok   key          fine\nwarn clock        7 s ahead\n                  → set it\nfail TLS")


def test_what_it_comes_to() -> None:
    """Failing is exit code 1, warnings are not; the last line counts them."""
    assert ("An upload can go: nothing fails. No device was sent", 0) == (
        closing(FINDINGS[:1]),
        exit_code(FINDINGS[:1]),
    )
    assert ("An upload can go: nothing fails, 1 warning. No device was sent", 0) == (
        closing(FINDINGS[:2]),
        exit_code(FINDINGS[:2]),
    )
    assert ("An upload would not go well: 1 of 3 fails, 1 warning", 1) == (closing(FINDINGS), exit_code(FINDINGS))
    assert closing(FINDINGS[2:]).endswith("1 of 1 fails. The key and all behind it were not looked at")


def test_json() -> None:
    """Machines get the same, and no remedy where there is nothing to do."""
    told = as_json(FINDINGS[:1])
    finding: dict[str, object] = {"check": "key", "status": "ok", "said": "fine", "remedy": None, "figures": {}}
    assert {"format": 1, "ok": True, "findings": [finding]} == told
